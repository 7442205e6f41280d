"""What is known of messages that came back from consumers, as rows beside theirs.

Few messages come back, so this is a table of its own, and it is known which queues have rows in it: the
others cost nothing. A row goes with its message.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from leveret.storage.batch import Returned
from leveret.storage.changes import MAX_POSITION
from leveret.storage.rows import delete_rows, id_range
from leveret.storage.schema import MESSAGES, OWNERS, POSITION_BITS
from leveret.storage.stored import each_of

if TYPE_CHECKING:
    import sqlite3

    from leveret.storage.blocks import Blocks
    from leveret.storage.stored import Stored

TABLE: Final = "returned_messages"
# A message that was settled in the same batch is not there any more.
_WRITE_IF_IN: Final = (
    f"REPLACE INTO {TABLE} SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM {{}} WHERE id = ?1)"
)
_WRITE: Final = _WRITE_IF_IN.format(MESSAGES)
_WRITE_FOR_LONG_QUEUE: Final = _WRITE_IF_IN.format("stored_messages")  # looks into all tables
_IN_RANGE: Final = (
    f"SELECT id, delivery_count, acquired_count, retry_at_ms FROM {TABLE} WHERE id BETWEEN ? AND ?"
)


class ReturnedRows:
    """The table `returned_messages`.

    Args:
        connection: where to write, inside a transaction of the caller's.
        blocks: of long queues.
    """

    def __init__(self, connection: sqlite3.Connection, blocks: Blocks) -> None:
        self._connection = connection
        self._blocks = blocks
        self._queues: set[int] = set()  # ids of those that have rows

    def load(self) -> None:
        """Remove the rows of messages that are gone, and find out which queues have any. O(rows)."""
        self._connection.execute(
            f"DELETE FROM {TABLE} WHERE id >> {POSITION_BITS} NOT IN ({OWNERS})"
            f" OR NOT EXISTS (SELECT 1 FROM stored_messages WHERE stored_messages.id = {TABLE}.id)"
        )
        found = self._connection.execute(f"SELECT DISTINCT id >> {POSITION_BITS} FROM {TABLE}").fetchall()
        self._queues = {queue_id for (queue_id,) in found}

    def write(self, by_queue: dict[int, dict[int, Returned]]) -> int:
        """Write what became known, once the messages themselves are written and removed.

        Returns:
            how many rows that were.
        """
        rows = 0
        for queue_id, returned in by_queue.items():
            base, _ = id_range(queue_id)
            self._connection.executemany(
                _WRITE_FOR_LONG_QUEUE if self._blocks.of(queue_id) else _WRITE,
                [(base | position, *known) for position, known in returned.items()],
            )
            self._queues.add(queue_id)
            rows += len(returned)
        return rows

    def forget(self, queue_id: int, ranges: list[int]) -> None:
        """Remove the rows of messages of a queue, given as ranges of ids: first, last, first, last, ..."""
        if queue_id not in self._queues or not delete_rows(self._connection, ranges, TABLE):
            return
        left = self._connection.execute(
            f"SELECT 1 FROM {TABLE} WHERE id BETWEEN ? AND ? LIMIT 1", id_range(queue_id)
        ).fetchone()
        if left is None:
            self._queues.discard(queue_id)

    def add_to(self, reader: sqlite3.Connection, queue_id: int, found: list[Stored]) -> list[Stored]:
        """Return messages of a queue with what is known of their returns.

        Args:
            reader: where to look it up.
            queue_id: whose messages they are.
            found: by position.
        """
        if queue_id not in self._queues or not found:
            return found
        base, _ = id_range(queue_id)
        ids = (base | found[0].position, base | found[-1].last_position)
        with closing(reader.execute(_IN_RANGE, ids)) as rows:
            known = {row[0] & MAX_POSITION: Returned(*row[1:]) for row in rows}
        if not known:
            return found
        messages: list[Stored] = []
        for message in each_of(found):
            message.returned = known.get(message.position)
            messages.append(message)
        return messages
