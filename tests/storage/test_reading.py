"""Messages are read back in windows, and what rows have in common is not fetched again for each."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from leveret.storage.batch import Batch, Returned
from leveret.storage.store import CorruptMessageError
from leveret.storage.stored import StoredMessage

from .engines import NO_LIMIT, Content, Engine, SqliteEngine, declared, define, everything, read, settle

if TYPE_CHECKING:
    from leveret.storage.store import Store

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
PLAIN = Content(b"plain", "", "orders")
WINDOW = 10


def fill(store: Store, contents: list[Content], **timed: int) -> None:
    """Store messages at positions 1, 2, ... of queue 1."""
    define(store, declared(1))
    batch = Batch(1)
    batch.enqueue(1, 1, list(contents))
    for position, expires_at_ms in timed.items():
        batch.expire_at(1, int(position[1:]), expires_at_ms)
    store.apply(batch)


def in_windows(store: Store, max_bytes: int = NO_LIMIT) -> list[StoredMessage]:
    """Read a queue as the broker does."""
    found: list[StoredMessage] = []
    while window := read(store, 1, found[-1].position if found else 0, NO_LIMIT, WINDOW, max_bytes):
        assert len(window) <= WINDOW
        found += window
    return found


@pytest.mark.parametrize(
    "other",
    [
        Content(b"other", "logs", "orders"),
        Content(b"other", "", "other"),
        Content(b"other", "", NOT_UTF8),
        Content(b"other", "", "Orders"),
        Content(b"other", "", "orders", b"\x10\x00\x01"),
        Content(b"other", "", "orders", b""),
        Content(b"other", dead_lettered=True),
        Content("ä".encode(), "", "orders"),
        Content(b"\x00", "", "orders"),
        Content(b"", "", "orders"),
    ],
)
@pytest.mark.parametrize("at", [0, 9, 10, 15, 39])
def test_a_message_unlike_the_others_is_read_as_it_is(engine: Engine, other: Content, at: int) -> None:
    contents = [PLAIN] * at + [other] + [PLAIN] * (39 - at)
    fill(engine.store, contents)
    found = in_windows(engine.store)
    assert [message.position for message in found] == list(range(1, 41))
    assert [
        Content(m.body, m.exchange, m.routing_key, m.properties, m.dead_lettered) for m in found
    ] == contents


@pytest.mark.parametrize("routing_key", ["orders", "größe", NOT_UTF8, "a\x00b", ""])
def test_messages_alike_are_read_whatever_their_names(engine: Engine, routing_key: str) -> None:
    fill(engine.store, [Content(b"%d" % n, routing_key, routing_key) for n in range(35)])
    assert in_windows(engine.store) == [
        StoredMessage(n + 1, routing_key, routing_key, PLAIN.properties, b"%d" % n, True, False, None)
        for n in range(35)
    ]


def test_messages_alike_come_as_one_run(engine: Engine) -> None:
    fill(engine.store, [PLAIN] * 35)
    in_windows(engine.store)
    settle(engine.store, 1, 25, body_bytes=len(PLAIN.body))
    runs = engine.store.read(1, 20, NO_LIMIT, WINDOW, NO_LIMIT)
    assert [(run.position, run.last_position, run.body_bytes) for run in runs] == [(21, 24, 20), (26, 31, 30)]


def test_messages_far_apart_are_read(engine: Engine) -> None:
    fill(engine.store, [PLAIN] * 5)
    everything(engine.store, 1)
    batch = Batch(1)
    batch.enqueue(1, 1 << 40, [PLAIN])
    engine.store.apply(batch)
    found = [message.position for message in read(engine.store, 1, 3, NO_LIMIT, WINDOW, NO_LIMIT)]
    assert found == [4, 5, 1 << 40]


def test_messages_of_two_kinds_in_turn_are_read_as_they_are(engine: Engine) -> None:
    fill(engine.store, [Content(b"x", "", "ab"[n % 2]) for n in range(35)])
    assert [message.routing_key for message in in_windows(engine.store)] == [*"ab" * 17, "a"]


def test_queues_that_are_read_in_turn_do_not_mix(engine: Engine) -> None:
    fill(engine.store, [Content(b"x", "", "first")] * 30)
    define(engine.store, declared(2, "other"))
    batch = Batch(1)
    batch.enqueue(2, 1, [Content(b"x", "", "second")] * 30)
    engine.store.apply(batch)
    for after in (0, 10, 20):
        for queue_id, key in ((1, "first"), (2, "second")):
            window = read(engine.store, queue_id, after, NO_LIMIT, WINDOW, NO_LIMIT)
            assert [message.routing_key for message in window] == [key] * WINDOW


def test_a_deadline_among_messages_alike_is_read(engine: Engine) -> None:
    fill(engine.store, [PLAIN] * 35, p25=99)
    expected = [None] * 35
    deadlines = [message.expires_at_ms for message in in_windows(engine.store)]
    assert deadlines == [*expected[:24], 99, *expected[25:]]


def test_what_is_known_of_a_return_is_read_among_messages_alike(engine: Engine) -> None:
    fill(engine.store, [PLAIN] * 35)
    batch = Batch(1)
    batch.note_return(1, 25, Returned(1, 2, 3))
    engine.store.apply(batch)
    found = in_windows(engine.store)
    assert {m.position: m.returned for m in found if m.returned is not None} == {25: Returned(1, 2, 3)}


@pytest.mark.parametrize("at", [0, 12, 39])
def test_the_byte_limit_holds_where_a_window_has_both_kinds(engine: Engine, at: int) -> None:
    fill(engine.store, [PLAIN] * at + [Content(b"other", "logs")] + [PLAIN] * (39 - at))
    assert everything(engine.store, 1)  # and now it is known what the last one is like
    for after in range(39):
        for max_bytes, expected in ((1, 1), (10, 2), (11, 3)):
            window = read(engine.store, 1, after, NO_LIMIT, WINDOW, max_bytes)
            assert len(window) == min(expected, 40 - after)


def test_a_purge_in_the_middle_is_not_read(engine: Engine) -> None:
    fill(engine.store, [PLAIN] * 3000)
    everything(engine.store, 1)
    batch = Batch(1)
    batch.purge(1, 2, 2999, 2998, 2998 * len(PLAIN.body))
    engine.store.apply(batch)
    assert [message.position for message in everything(engine.store, 1)] == [1, 3000]


@pytest.mark.parametrize(
    "damage",
    [
        "body = CAST('plaim' AS BLOB)",
        "body = 5",
        "checksum = 'x'",
        "checksum = checksum + 1",
        "checksum = -checksum",
        "routing_key = 7",
    ],
)
def test_damage_among_messages_alike_is_found(sqlite_engine: SqliteEngine, damage: str) -> None:
    fill(sqlite_engine.store, [PLAIN] * 35)
    everything(sqlite_engine.store, 1)
    connection = sqlite3.connect(sqlite_engine.path)
    if "NULL" in damage:  # no statement of ours allows it, but a damaged page does
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'checksum INTEGER NOT NULL', 'checksum INTEGER')"
        )
        connection.commit()
        connection.close()
        connection = sqlite3.connect(sqlite_engine.path)
    connection.execute(f"UPDATE messages SET {damage} WHERE id & 255 = 25")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptMessageError, match="position 25 of queue 'orders'"):
        read(sqlite_engine.store, 1, 20, NO_LIMIT, WINDOW, NO_LIMIT)
    assert len(read(sqlite_engine.store, 1, 0, 24, NO_LIMIT, NO_LIMIT)) == 24
