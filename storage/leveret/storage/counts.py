"""How many messages each queue has in the data file, and how long they are."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from leveret.storage.changes import MAX_POSITION
from leveret.storage.rows import in_chunks
from leveret.storage.schema import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3

STATEMENT_COUNTS: Final = 128


class QueueCounts:
    """The table `queue_counts` in memory, and what of it is to be written with the open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._counts: dict[int, tuple[int, int]] = {}  # queue id -> messages, length of their bodies
        self._changed: set[int] = set()
        self._doubtful: set[int] = set()

    def load(self) -> None:
        """Take over what is in the table."""
        rows = self._connection.execute("SELECT queue_id, messages, body_bytes FROM queue_counts")
        self._counts = {queue_id: (messages, body_bytes) for queue_id, messages, body_bytes in rows}

    def of(self, queue_id: int) -> tuple[int, int]:
        """Return the messages of a queue and the length of their bodies."""
        return self._counts.get(queue_id, (0, 0))

    def add(self, queue_id: int, messages: int, body_bytes: int) -> None:
        """Count messages that came, or that went if the numbers are negative."""
        before = self._counts.get(queue_id, (0, 0))
        self._counts[queue_id] = (before[0] + messages, before[1] + body_bytes)
        self._changed.add(queue_id)

    def doubt(self, queue_id: int) -> None:
        """Have `save` count the rows of a queue: the counts and the rows were seen to disagree."""
        self._doubtful.add(queue_id)

    def drop(self, queue_id: int) -> None:
        """Forget a queue."""
        self._counts.pop(queue_id, None)
        self._changed.discard(queue_id)
        self._doubtful.discard(queue_id)
        self._connection.execute("DELETE FROM queue_counts WHERE queue_id = ?", (queue_id,))

    def save(self) -> int:
        """Write what has changed.

        Returns:
            for how many queues.
        """
        for queue_id in self._doubtful:
            self._counts[queue_id] = self._count(queue_id)
            self._changed.add(queue_id)
        values = [value for queue_id in self._changed for value in (queue_id, *self._counts[queue_id])]
        for count, chunk in in_chunks(values, 3, STATEMENT_COUNTS):
            self._connection.execute(_replace_sql(count), chunk)
        saved = len(self._changed)
        self._changed.clear()
        self._doubtful.clear()
        return saved

    def _count(self, queue_id: int) -> tuple[int, int]:
        """Count the rows. O(messages of the queue)."""
        messages, body_bytes = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM stored_messages"
            " WHERE id BETWEEN ? AND ?",
            (queue_id << POSITION_BITS, queue_id << POSITION_BITS | MAX_POSITION),
        ).fetchone()
        return messages, body_bytes


@cache
def _replace_sql(count: int) -> str:
    return f"REPLACE INTO queue_counts VALUES {', '.join(['(?, ?, ?)'] * count)}"
