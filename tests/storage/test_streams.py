"""What every store promises about streams: messages with the time they came, segments, and offsets."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from leveret.storage.batch import FORGOTTEN, Batch
from leveret.storage.changes import QueueDeleted, SegmentClosed, SegmentRemoved, VHostDeleted
from leveret.storage.stored import StoredMessage, StoredQueue

from .engines import Content, Engine, SqliteEngine, declared, define, everything

ID = 7
TRANSIENT = b"\x10\x00\x01"


def append(engine: Engine, first: int, now_ms: int, *bodies: bytes) -> None:
    """Store messages as a batch; transient ones, which a stream keeps nevertheless."""
    batch = Batch(1)
    batch.stream(ID, first, [Content(body, properties=TRANSIENT) for body in bodies], now_ms)
    engine.store.apply(batch)


def note(engine: Engine, tag: str, position: int) -> None:
    batch = Batch(1)
    batch.note_offset(ID, tag, position)
    engine.store.apply(batch)


def test_messages_of_a_stream_have_the_time_they_came_and_survive(engine: Engine) -> None:
    define(engine.store, declared(ID, "log"))
    append(engine, 1, 1000, b"a", b"b")
    append(engine, 3, 2000, b"c")
    found = engine.crash()
    assert found.queues == [StoredQueue(ID, "/", "log", False, b"", 0, 3, 3, 1, 3, True)]
    assert everything(engine.store, ID) == [
        StoredMessage(1, "", "orders", TRANSIENT, b"a", True, False, 1000),
        StoredMessage(2, "", "orders", TRANSIENT, b"b", True, False, 1000),
        StoredMessage(3, "", "orders", TRANSIENT, b"c", True, False, 2000),
    ]


def test_segments_are_found_in_order_until_they_are_removed(engine: Engine) -> None:
    define(engine.store, declared(ID, "log"), declared(8, "other"))
    segments = [SegmentClosed(ID, first, first + 9, 100, first * 10) for first in (1, 11, 21)]
    define(engine.store, *segments, SegmentClosed(8, 1, 2, 3, 4))
    define(engine.store, SegmentRemoved(ID, 10))
    assert engine.restart().segments == [*segments[1:], SegmentClosed(8, 1, 2, 3, 4)]


def test_the_last_offset_of_each_consumer_is_found(engine: Engine) -> None:
    define(engine.store, declared(ID, "log"))
    note(engine, "b", 5)
    note(engine, "a\udce9", 3)
    note(engine, "b", 6)
    note(engine, "c", 1)
    note(engine, "c", FORGOTTEN)
    found = {offset.consumer_tag: offset.position for offset in engine.crash().offsets}
    assert found == {"a\udce9": 3, "b": 6}


def test_nothing_of_a_deleted_stream_is_left(engine: Engine) -> None:
    define(engine.store, declared(ID, "log"))
    append(engine, 1, 1000, b"a")
    note(engine, "c", 1)
    define(engine.store, SegmentClosed(ID, 1, 1, 1, 1000))
    define(engine.store, QueueDeleted(ID))
    define(engine.store, declared(ID, "again"))
    found = engine.restart()
    assert (found.segments, found.offsets, everything(engine.store, ID)) == ([], [], [])


def test_nothing_of_a_stream_is_left_when_its_vhost_is_deleted(engine: Engine) -> None:
    define(engine.store, declared(ID, "log", "other"))
    append(engine, 1, 1000, b"a")
    note(engine, "c", 1)
    define(engine.store, SegmentClosed(ID, 1, 1, 1, 1000))
    define(engine.store, VHostDeleted("other"))
    define(engine.store, declared(ID, "again"))
    found = engine.restart()
    assert (found.segments, found.offsets, everything(engine.store, ID)) == ([], [], [])


def test_a_batch_forgets_what_it_has_of_a_deleted_stream(engine: Engine) -> None:
    define(engine.store, declared(ID, "log"))
    batch = Batch(1)
    batch.stream(ID, 1, [Content(b"a")], 1000)
    batch.note_offset(ID, "c", 1)
    batch.delete_queue(ID)
    engine.store.apply(batch)
    assert (everything(engine.store, ID), engine.restart().offsets) == ([], [])


def test_anybody_can_read_a_stream_in_the_file(sqlite_engine: SqliteEngine) -> None:
    define(sqlite_engine.store, declared(ID, "log"))
    append(sqlite_engine, 1, 1_700_000_000_123, b"a")
    with closing(sqlite3.connect(sqlite_engine.path)) as connection:
        seen = connection.execute('SELECT queue, "offset", came_at, body FROM stream_messages').fetchall()
        plain = connection.execute("SELECT position, persistent, expires_at FROM queue_messages").fetchall()
    assert seen == [("log", 0, "2023-11-14 22:13:20.123", "a")]
    assert plain == [(1, 1, None)]
