"""Large removals, in two steps.

Purging or deleting a queue of a million messages touches a hundred thousand pages: seconds in which nothing
else could be confirmed, and a write-ahead log of a gigabyte. So a large range of messages is first only
written down as removed, in the transaction of its batch: from then on nobody sees the rows. They are deleted
later in small transactions between the commits, also after a restart. A new message may get the id of such a
row (queue ids and positions are used again): the rows up to it are then deleted first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from leveret.storage.rows import delete_rows

if TYPE_CHECKING:
    import sqlite3

REMOVE_AT_ONCE: Final = 2000  # messages; more are removed later
ROWS_A_TIME: Final = 2000  # measured: 5 ms


class RemovedRanges:
    """The table `removed_ranges`, and a copy of it in memory. Used by whoever may write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.ranges: dict[int, int] = dict(
            connection.execute("SELECT first_id, last_id FROM removed_ranges").fetchall()
        )  # first id -> last id

    def remove(self, first: int, last: int, count: int) -> int:
        """Remove the messages with first <= id <= last, about `count` of them, now or later.

        Returns:
            how many were removed; `count` if that is not known yet.
        """
        if count <= REMOVE_AT_ONCE and not self._overlaps(first, last):
            return delete_rows(self._connection, [first, last])
        row = self._connection.execute(
            "SELECT (SELECT min(id) FROM messages WHERE id BETWEEN ?1 AND ?2),"
            " (SELECT max(id) FROM messages WHERE id BETWEEN ?1 AND ?2)",
            (first, last),
        ).fetchone()
        if row[0] is not None:
            lowest, highest = row
            for inner in self._overlaps(lowest, highest):
                lowest, highest = min(lowest, inner), max(highest, self.ranges[inner])
                self._replace(inner, 1, 0)
            self._replace(lowest, lowest, highest)
        return count

    def make_room(self, first: int, last: int) -> None:
        """See to it that rows with first <= id <= last can be inserted and seen."""
        for start in self._overlaps(first, last):
            end = self.ranges[start]
            delete_rows(self._connection, [start, min(last, end)])
            self._replace(start, last + 1, end)

    def first_row(self, first: int, last: int) -> int | None:
        """Return the lowest id of a message, first <= id <= last, that is not removed; None without one."""
        while True:
            row = self._connection.execute(
                "SELECT min(id) FROM messages WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            if row[0] is None or not (over := self._overlaps(row[0], row[0])):
                return cast("int | None", row[0])
            first = max(self.ranges[start] for start in over) + 1

    def last_row(self, first: int, last: int) -> int | None:
        """Return the highest id of a message, first <= id <= last, that is not removed; None without one."""
        while True:
            row = self._connection.execute(
                "SELECT max(id) FROM messages WHERE id BETWEEN ? AND ?", (first, last)
            ).fetchone()
            if row[0] is None or not (over := self._overlaps(row[0], row[0])):
                return cast("int | None", row[0])
            last = min(over) - 1

    def delete_some(self) -> int:
        """Delete some of the rows, in a transaction of its own.

        Returns:
            how many.
        """
        start, end = next(iter(self.ranges.items()))
        self._connection.execute("BEGIN IMMEDIATE")
        row = self._connection.execute(
            "SELECT id FROM messages WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1 OFFSET ?",
            (start, end, ROWS_A_TIME),
        ).fetchone()
        stop = end + 1 if row is None else row[0]
        deleted = delete_rows(self._connection, [start, stop - 1])
        self._replace(start, stop, end)
        self._connection.execute("COMMIT")
        return deleted

    def _overlaps(self, first: int, last: int) -> list[int]:
        return [start for start, end in self.ranges.items() if start <= last and first <= end]

    def _replace(self, old_first: int, first: int, last: int) -> None:
        """Put another range in the place of one, or none if first > last."""
        self.ranges.pop(old_first, None)
        self._connection.execute("DELETE FROM removed_ranges WHERE first_id = ?", (old_first,))
        if first <= last:
            self.ranges[first] = last
            self._connection.execute("INSERT INTO removed_ranges VALUES (?, ?)", (first, last))
