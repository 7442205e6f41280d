"""Messages of long queues lie in tables of their own, and nobody can tell but who looks into the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from leveret.storage import blocks
from leveret.storage.batch import Batch, Returned
from leveret.storage.blocks import Block
from leveret.storage.changes import QueueDeleted
from leveret.storage.sqlite import SqliteStore
from leveret.storage.store import CorruptMessageError

from .engines import (
    NO_LIMIT,
    SqliteEngine,
    bodies,
    declared,
    define,
    enqueue,
    everything,
    read,
    settle,
    spill,
)

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("messages", "messages_1", "messages_2", "messages_3")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ten messages be a long queue."""
    monkeypatch.setattr(blocks, "BLOCKS", 3)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 10)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(blocks, "RANGES_MAX", 3)


@pytest.fixture
def long(sqlite_engine: SqliteEngine) -> SqliteEngine:
    """A queue of 50 messages in batches of ten; what is stored of message 7 is b"7"."""
    define(sqlite_engine.store, declared(1))
    for first in range(1, 51, 10):
        enqueue(sqlite_engine.store, 1, first, *[str(at).encode() for at in range(first, first + 10)])
    return sqlite_engine


def rows_in(path: Path) -> list[int]:
    """Return how many rows each table of messages has, those of removed messages too."""
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]


def ranges_in(path: Path) -> list[tuple[int, int]]:
    """Return the positions of settled messages whose rows may still be there."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT first_id & 0xFFFF, last_id & 0xFFFF FROM settled_ranges ORDER BY first_id"
        ).fetchall()


def seen(path: Path) -> list[tuple[int, str]]:
    """Return what the view shows."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT position, body FROM queue_messages ORDER BY position").fetchall()


def let_the_housekeeper_finish(engine: SqliteEngine, rows: list[int]) -> None:
    """Wait until the tables have so many rows."""
    assert isinstance(engine.store, SqliteStore)
    assert engine.store._housekeeper is not None
    while rows_in(engine.path) != rows:
        engine.store._housekeeper.join(0.001)


def test_what_a_long_queue_gets_more_goes_into_blocks_as_long_as_one_is_free(long: SqliteEngine) -> None:
    assert rows_in(long.path) == [20, 10, 10, 10]
    assert bodies(long.store, 1) == {at: str(at).encode() for at in range(1, 51)}


def test_a_block_is_full_when_its_bodies_are_long(sqlite_engine: SqliteEngine) -> None:
    define(sqlite_engine.store, declared(1))
    enqueue(sqlite_engine.store, 1, 1, *[b"x"] * 10)
    for first in range(11, 21, 2):
        enqueue(sqlite_engine.store, 1, first, b"x" * 300, b"x" * 300)
    assert rows_in(sqlite_engine.path) == [10, 4, 4, 2]


def test_a_window_that_begins_in_one_table_and_ends_in_another_is_read_in_order(long: SqliteEngine) -> None:
    assert [message.position for message in read(long.store, 1, 5, 47, 1000, NO_LIMIT)] == list(range(6, 48))
    assert [message.position for message in read(long.store, 1, 8, 47, 5, NO_LIMIT)] == [9, 10, 11, 12, 13]
    assert [message.position for message in read(long.store, 1, 8, 47, 99, 9)] == [9, 10, 11, 12, 13]


@pytest.mark.usefixtures("idle_housekeeper")
def test_settled_messages_of_a_block_keep_their_rows_and_nobody_sees_them(long: SqliteEngine) -> None:
    settle(long.store, 1, *range(1, 16))
    settle(long.store, 1, 16, 17, 25)
    left = [18, 19, 20, 21, 22, 23, 24, *range(26, 51)]
    assert rows_in(long.path) == [10, 10, 10, 10]
    assert ranges_in(long.path) == [(11, 17), (25, 25)]
    assert list(bodies(long.store, 1)) == left
    assert seen(long.path) == [(at, str(at)) for at in left]
    (queue,) = long.crash().queues
    assert (queue.messages, queue.first_position, queue.last_position) == (len(left), 18, 50)
    assert list(bodies(long.store, 1)) == left


@pytest.mark.usefixtures("idle_housekeeper")
def test_a_start_goes_on_with_what_the_housekeeper_did_not_do(
    long: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(long.store, 1, *range(1, 21))
    monkeypatch.undo()
    long.restart()
    let_the_housekeeper_finish(long, [10, 0, 10, 10])


def test_a_block_of_which_nothing_is_left_is_emptied_and_used_again(long: SqliteEngine) -> None:
    settle(long.store, 1, *range(1, 21))
    let_the_housekeeper_finish(long, [10, 0, 10, 10])
    assert ranges_in(long.path) == []
    enqueue(long.store, 1, 51, *[b"x"] * 5)
    assert rows_in(long.path) == [10, 5, 10, 10]
    assert list(bodies(long.store, 1)) == list(range(21, 56))


@pytest.mark.usefixtures("idle_housekeeper")
def test_acks_in_disorder_leave_few_ranges(long: SqliteEngine) -> None:
    for position in (11, 13, 15, 17, 19):
        settle(long.store, 1, position)
    assert ranges_in(long.path) == [(11, 11), (13, 13), (15, 15)]
    assert rows_in(long.path) == [20, 8, 10, 10]
    settle(long.store, 1, 12, 14, 16)
    assert ranges_in(long.path) == [(11, 16)]
    assert list(bodies(long.store, 1)) == [*range(1, 11), 18, *range(20, 51)]


@pytest.mark.usefixtures("idle_housekeeper")
def test_ranges_are_joined_where_no_message_lies_between(sqlite_engine: SqliteEngine) -> None:
    define(sqlite_engine.store, declared(1))
    enqueue(sqlite_engine.store, 1, 1, *[b"x"] * 10)
    for first in (11, 21, 31):
        enqueue(sqlite_engine.store, 1, first, b"x", b"x")
    settle(sqlite_engine.store, 1, 21)
    assert ranges_in(sqlite_engine.path) == [(21, 21)]
    settle(sqlite_engine.store, 1, 11, 12)
    assert ranges_in(sqlite_engine.path) == [(11, 21)]
    assert list(bodies(sqlite_engine.store, 1)) == [*range(1, 11), 22, 31, 32]


@pytest.mark.usefixtures("idle_housekeeper")
def test_a_purge_and_a_new_queue_with_the_same_id_see_nothing_of_what_was_there(long: SqliteEngine) -> None:
    batch = Batch(1)
    batch.purge(1, 1, 25, 25, 41)
    long.store.apply(batch)
    assert list(bodies(long.store, 1)) == list(range(26, 51))
    define(long.store, QueueDeleted(1))
    assert bodies(long.store, 1) == {}
    define(long.store, declared(1, "again"))
    enqueue(long.store, 1, 12, b"new")
    assert bodies(long.store, 1) == {12: b"new"}
    assert seen(long.path) == [(12, "new")]
    (queue,) = long.crash().queues
    assert (queue.messages, queue.first_position, queue.last_position) == (1, 12, 12)
    assert bodies(long.store, 1) == {12: b"new"}


def test_the_rows_of_a_deleted_queue_go(long: SqliteEngine) -> None:
    define(long.store, QueueDeleted(1))
    let_the_housekeeper_finish(long, [0, 0, 0, 0])
    assert ranges_in(long.path) == []


@pytest.mark.usefixtures("idle_housekeeper")
def test_positions_behind_the_last_message_can_be_used_again_after_a_start(long: SqliteEngine) -> None:
    settle(long.store, 1, *range(16, 51))
    (queue,) = long.crash().queues
    assert queue.last_position == 15
    enqueue(long.store, 1, 16, *[b"new"] * 10)
    assert bodies(long.store, 1)[16] == b"new"
    assert len(bodies(long.store, 1)) == 25


def test_spilled_messages_lie_where_their_position_is_and_are_gone_after_a_start(long: SqliteEngine) -> None:
    settle(long.store, 1, 15, 45)
    long.crash()
    spill(long.store, 1, 51, b"behind")
    enqueue(long.store, 1, 52, b"52")
    assert list(bodies(long.store, 1)) == [*range(1, 15), *range(16, 45), *range(46, 53)]
    (queue,) = long.crash().queues
    assert queue.messages == 49
    assert list(bodies(long.store, 1)) == [*range(1, 15), *range(16, 45), *range(46, 51), 52]


@pytest.mark.usefixtures("idle_housekeeper")
def test_a_block_of_which_only_transient_messages_were_left_is_gone_after_a_start(long: SqliteEngine) -> None:
    spill(long.store, 1, 52, b"transient")
    enqueue(long.store, 1, 53, b"53")
    settle(long.store, 1, *range(1, 51))
    long.restart()
    spill(long.store, 1, 54, b"transient")
    settle(long.store, 1, 53, body_bytes=2)
    (queue,) = long.crash().queues
    assert (queue.messages, queue.last_position) == (0, 0)
    for first in range(1, 41, 10):
        enqueue(long.store, 1, first, *[b"new"] * 10)
    assert list(bodies(long.store, 1)) == list(range(1, 41))


def test_what_is_known_of_returned_messages_goes_with_them(long: SqliteEngine) -> None:
    batch = Batch(1)
    batch.note_return(1, 12, Returned(1, 2, 0))
    batch.note_return(1, 13, Returned(3, 4, 0))
    long.store.apply(batch)
    settle(long.store, 1, 12)
    long.crash()
    known = {m.position: m.returned for m in everything(long.store, 1) if m.returned is not None}
    assert known == {13: Returned(3, 4, 0)}


def test_a_damaged_row_is_told_with_its_table(long: SqliteEngine) -> None:
    long.close()
    with closing(sqlite3.connect(long.path)) as connection:
        connection.execute("UPDATE messages_2 SET body = 'other' WHERE id & 0xFFFF = 23")
        connection.commit()
    long.restart()
    with pytest.raises(CorruptMessageError, match=f"DELETE FROM messages_2 WHERE id = {(1 << 43) + 23}"):
        bodies(long.store, 1)


class TestRanges:
    """Ranges of a block stay apart and ascending."""

    @pytest.mark.parametrize(
        ("ranges", "first", "last", "after"),
        [
            ([], 5, 5, [5, 5]),
            ([5, 5], 6, 9, [5, 9]),
            ([5, 5], 7, 9, [5, 5, 7, 9]),
            ([5, 9], 1, 4, [1, 9]),
            ([5, 9], 1, 3, [1, 3, 5, 9]),
            ([5, 9], 6, 7, [5, 9]),
            ([5, 9], 1, 20, [1, 20]),
            ([5, 5, 9, 9], 7, 7, [5, 5, 7, 7, 9, 9]),
            ([5, 6, 8, 9], 7, 7, [5, 9]),
            ([1, 2, 5, 6, 8, 9], 4, 7, [1, 2, 4, 9]),
            ([1, 1, 3, 3, 5, 5], 7, 7, None),
            ([1, 1, 3, 3, 5, 5], 6, 7, [1, 1, 3, 3, 5, 7]),
        ],
    )
    def test_one_more(self, ranges: list[int], first: int, last: int, after: list[int] | None) -> None:
        block = Block(1, 1, 100)
        block.ranges = list(ranges)
        assert block.settle(first, last) == (after is not None)
        assert block.ranges == (ranges if after is None else after)

    def test_an_id_is_looked_up(self) -> None:
        block = Block(1, 1, 100)
        block.ranges = [3, 3, 5, 8]
        assert [at for at in range(10) if block.range_around(at) >= 0] == [3, 5, 6, 7, 8]
        assert [block.range_around(at) for at in (3, 5, 8)] == [0, 2, 2]
