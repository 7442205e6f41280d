"""Long queues have tables of their own, which are emptied as a whole.

Theory of operation. SQLite writes every page that it changed, also if it changed it only to free it. So to
remove a row costs as much as to write it: its page is read, changed, written to the log, and copied from
there into the file. But a table that is emptied as a whole gives its pages back as they are, and none of them
is written.

So once a queue has `BLOCK_ROWS` messages, what it gets more goes into a block: one of the tables
`messages_1`, `messages_2` and so on, which has messages of one queue only, and all of those between its first
and its last. With `BLOCK_ROWS` rows or `BLOCK_BYTES` it is full, and the queue goes on in the next one that
is free, or in `messages` if none is.

Settled messages of a block keep their rows: that they are gone is noted, in the transaction of their batch,
as ranges of ids (`settled_ranges`). Acks in disorder leave many ranges; where there are `RANGES_MAX` of them,
rows are deleted at once, as in `messages`. When no other row is left nobody looks into the block any more;
the housekeeper empties it.

One message that is never acked keeps a block, and so the place of `BLOCK_BYTES` in the file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from leveret.storage.changes import MAX_POSITION
from leveret.storage.rows import delete_rows
from leveret.storage.schema import BLOCKS, POSITION_BITS, block_table

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Container

BLOCK_ROWS: Final = 65_536  # to empty a block of so many of 1 KiB was measured to take 13 ms
BLOCK_BYTES: Final = 64 * 1024 * 1024  # of bodies
RANGES_MAX: Final = 64  # of settled messages in a block


class Block:
    """A table with messages of one queue.

    Args:
        number: which of the tables.
        first: id of the first row.
        last: id of the last row.
    """

    __slots__ = ("body_bytes", "first", "is_open", "last", "number", "ranges", "rows", "table")

    def __init__(self, number: int, first: int, last: int) -> None:
        self.number = number
        self.table = block_table(number)
        self.first = first
        self.last = last
        self.ranges: list[int] = []  # of settled messages, ascending: first id, last id, first id, ...
        self.is_open = False  # more rows may come
        self.rows = 0  # that came since it was opened
        self.body_bytes = 0  # of them

    @property
    def queue_id(self) -> int:
        """Whose messages these are."""
        return self.first >> POSITION_BITS

    @property
    def end(self) -> int:
        """The last id that belongs here."""
        return self.first | MAX_POSITION if self.is_open else self.last

    def settle(self, first: int, last: int) -> bool:
        """Note that the messages with first <= id <= last are gone.

        Returns:
            False if there are too many ranges.
        """
        ranges = self.ranges
        start = bisect_left(ranges, first - 1) & ~1  # ranges before it end before this one
        stop = bisect_right(ranges, last + 1) + 1 & ~1  # from it on they begin behind this one
        if start < stop:
            ranges[start:stop] = [min(first, ranges[start]), max(last, ranges[stop - 1])]
        elif len(ranges) < 2 * RANGES_MAX:
            ranges[start:start] = [first, last]
        else:
            return False
        return True

    def range_around(self, row_id: int) -> int:
        """Return the index of the range that has an id, or ~index of where one would be that does."""
        index = bisect_right(self.ranges, row_id)
        if index & 1:
            return index - 1
        return index - 2 if index and self.ranges[index - 1] == row_id else ~index

    def is_settled_behind(self, row_id: int) -> bool:
        """Whether there are settled messages from this one on. May be asked in any thread."""
        ranges = self.ranges
        return bool(ranges) and ranges[-1] >= row_id


class Blocks:
    """The tables for long queues.

    Whatever changes something is called inside a transaction of the caller's.

    Args:
        connection: the one that writes.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._free: list[int] = []
        # Tuples are ascending, and replaced, not changed: the reader looks at them in its own thread.
        self._by_queue: dict[int, tuple[Block, ...]] = {}
        self._changed: dict[Block, list[int]] = {}  # since `save` -> ids whose rows are to be deleted at once
        self.gone: list[Block] = []  # to be emptied
        for number in range(BLOCKS, 0, -1):
            table = block_table(number)
            first, last = connection.execute(
                f"SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})"
            ).fetchone()
            if first is None:
                self._free.append(number)
            else:
                self._take_over(Block(number, first, last))

    def _take_over(self, block: Block) -> None:
        """Begin with a block that has rows."""
        for ids in self._connection.execute(
            "SELECT first_id, last_id FROM settled_ranges WHERE block = ? ORDER BY first_id", (block.number,)
        ):
            block.ranges += ids
        if self.first_row(block, block.first, block.last) is None:
            self.gone.append(block)
        else:
            self._add(block)

    def of(self, queue_id: int) -> tuple[Block, ...]:
        """Return the blocks of a queue, in order."""
        return self._by_queue.get(queue_id, ())

    def parts(self, queue_id: int, first: int, last: int) -> list[tuple[Block | None, int, int]]:
        """Return where the messages of a queue with first <= id <= last are, in order.

        Returns:
            block, or None for the table of all queues; first id, last id.
        """
        found: list[tuple[Block | None, int, int]] = []
        for block in self._by_queue.get(queue_id, ()):
            end = min(block.end, last)
            if end < first or last < block.first:
                continue
            if first < block.first:
                found.append((None, first, block.first - 1))
                first = block.first
            found.append((block, first, end))
            first = end + 1
        if first <= last:
            found.append((None, first, last))
        return found

    # -- messages come

    def for_new(self, queue_id: int, messages: int, first: int) -> Block | None:
        """Return the block for new messages at the end of a queue; None if they go to the table of all.

        Args:
            queue_id: the queue.
            messages: how many it has.
            first: id of the first that is new.
        """
        blocks = self._by_queue.get(queue_id)
        if blocks is None:
            if messages < BLOCK_ROWS:
                return None
        elif blocks[-1].is_open:
            block = blocks[-1]
            if block.rows < BLOCK_ROWS and block.body_bytes < BLOCK_BYTES:
                return block
            block.is_open = False
        if not self._free:
            return None
        block = Block(self._free.pop(), first, first)
        block.is_open = True
        self._add(block)
        return block

    def added(self, block: Block, rows: int, body_bytes: int, last: int) -> None:
        """Count rows that were written to a block, the last of them with this id."""
        block.rows += rows
        block.body_bytes += body_bytes
        block.last = max(block.last, last)

    # -- messages go

    def settle(self, block: Block, first: int, last: int) -> None:
        """Remove the messages of a block with first <= id <= last. `save` completes it."""
        to_delete = self._changed.setdefault(block, [])
        if not block.settle(first, last):
            to_delete += (first, last)

    def settle_all(self, queue_id: int, first: int, last: int) -> None:
        """Remove whatever of a queue is in blocks and has first <= id <= last."""
        for block, begin, end in self.parts(queue_id, first, last):
            if block is not None and begin <= block.last:
                self.settle(block, begin, min(end, block.last))

    def save(self) -> int:
        """Write what was settled.

        Returns:
            about how many pages that changed.
        """
        pages = sum(2 + len(to_delete) for to_delete in self._changed.values())
        for block, to_delete in self._changed.items():
            delete_rows(self._connection, to_delete, block.table)
            if not self._join_first(block):
                self._remove(block)
                self.gone.append(block)
            ranges = block.ranges
            self._connection.execute("DELETE FROM settled_ranges WHERE block = ?", (block.number,))
            self._connection.executemany(
                "INSERT INTO settled_ranges VALUES (?, ?, ?)",
                [(block.number, *ranges[index : index + 2]) for index in range(0, len(ranges), 2)],
            )
        self._changed.clear()
        return pages

    def _join_first(self, block: Block) -> bool:
        """Make one range of those before the first message that is there; whether there is one."""
        found = self.first_row(block, block.first, block.last)
        if found is None:
            block.ranges[:] = [block.first, block.last]
            return False
        index = bisect_right(block.ranges, found)
        if index > 2:
            block.ranges[:index] = [block.first, block.ranges[index - 1]]
        return True

    def empty_one(self) -> None:
        """Empty a block that is gone, in a transaction of its own."""
        block = self.gone.pop()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(f"DELETE FROM {block.table}")
        self._connection.execute("DELETE FROM settled_ranges WHERE block = ?", (block.number,))
        self._connection.execute("COMMIT")
        self._free.append(block.number)

    # -- at start

    def remove_orphans(self, queue_ids: Container[int]) -> None:
        """Remove the blocks of other queues than these."""
        for queue_id in list(self._by_queue):
            if queue_id not in queue_ids:
                for block in self.of(queue_id):
                    self.settle(block, block.first, block.last)
        self.save()

    def close_all(self) -> None:
        """Have each end with its last message, as positions behind the last of a queue are used again."""
        for blocks in self._by_queue.values():
            for block in blocks:
                last = self.last_row(block, block.first, block.last)
                if last is None:  # transient messages were the last
                    self.settle(block, block.first, block.last)
                elif last < block.last:
                    delete_rows(self._connection, [last + 1, block.last], block.table)
                    block.last = last
                block.is_open = False
        self.save()

    def first_row(self, block: Block, first: int, last: int) -> int | None:
        """Return the lowest id of a message of a block, first <= id <= last; None without one."""
        while True:
            row = self._connection.execute(
                f"SELECT min(id) FROM {block.table} WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            found: int | None = row[0]
            if found is None or (index := block.range_around(found)) < 0:
                return found
            first = block.ranges[index + 1] + 1

    def last_row(self, block: Block, first: int, last: int) -> int | None:
        """Return the highest id of a message of a block, first <= id <= last; None without one."""
        while True:
            row = self._connection.execute(
                f"SELECT max(id) FROM {block.table} WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            found: int | None = row[0]
            if found is None or (index := block.range_around(found)) < 0:
                return found
            last = block.ranges[index] - 1

    def _add(self, block: Block) -> None:
        blocks = (*self.of(block.queue_id), block)
        self._by_queue[block.queue_id] = tuple(sorted(blocks, key=_first))

    def _remove(self, block: Block) -> None:
        blocks = tuple(other for other in self.of(block.queue_id) if other is not block)
        if blocks:
            self._by_queue[block.queue_id] = blocks
        else:
            del self._by_queue[block.queue_id]


def _first(block: Block) -> int:
    return block.first
