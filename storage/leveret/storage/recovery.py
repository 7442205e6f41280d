"""What a start finds in the data file, and what it removes first.

The cost grows with the number of queues, and with the transient messages that the last run left, but not with
the persistent messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.storage import access
from leveret.storage.changes import MAX_POSITION, MAX_QUEUE_ID
from leveret.storage.definitions import read_bindings, read_exchanges, read_offsets, read_segments
from leveret.storage.reading import read_name
from leveret.storage.removal import REMOVE_AT_ONCE
from leveret.storage.rows import id_range
from leveret.storage.schema import OWNERS, POSITION_BITS, STORED
from leveret.storage.stored import Snapshot, StoredExchangeQueue, StoredKey, StoredPriorityLevel, StoredQueue

if TYPE_CHECKING:
    import sqlite3

    from leveret.storage.blocks import Blocks
    from leveret.storage.counts import QueueCounts
    from leveret.storage.removal import RemovedRanges
    from leveret.storage.returned import ReturnedRows

TRANSIENT_ROWS_A_TIME: Final = 10_000

# Steps from queue to queue: finds the lowest id behind those of the queue before.
_QUEUES_WITH_ROWS: Final = f"""
    WITH RECURSIVE present (queue_id) AS (
        SELECT min(id) >> {POSITION_BITS} FROM messages
        UNION ALL
        SELECT (
            SELECT min(id) >> {POSITION_BITS} FROM messages
            WHERE id >= (present.queue_id + 1) << {POSITION_BITS}
        )
        FROM present WHERE present.queue_id < {MAX_QUEUE_ID}
    )
    SELECT queue_id FROM present WHERE queue_id IS NOT NULL
    EXCEPT SELECT queue_id FROM ({OWNERS})
"""
_WITHOUT_OWNER: Final = f"queue_id NOT IN ({OWNERS})"


def remove_orphans(
    connection: sqlite3.Connection,
    removed: RemovedRanges,
    blocks: Blocks,
    counts: QueueCounts,
    returned: ReturnedRows,
) -> None:
    """Remove what belongs to queues that do not exist, and find out what there is: batches can be applied."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM priority_levels WHERE of_queue_id NOT IN (SELECT queue_id FROM queues)")
    for (queue_id,) in connection.execute(_QUEUES_WITH_ROWS).fetchall():
        removed.remove(*id_range(queue_id), count=REMOVE_AT_ONCE + 1)  # nobody has counted them
    blocks.remove_orphans({queue_id for (queue_id,) in connection.execute(OWNERS)})
    connection.execute(f"DELETE FROM queue_counts WHERE {_WITHOUT_OWNER}")
    for table in ("deduplication_keys", "stream_segments", "stream_offsets"):
        connection.execute(f"DELETE FROM {table} WHERE {_WITHOUT_OWNER}")
    returned.load()
    connection.execute("COMMIT")
    counts.load()


def remove_transient(
    connection: sqlite3.Connection,
    removed: RemovedRanges,
    blocks: Blocks,
    counts: QueueCounts,
    returned: ReturnedRows,
) -> None:
    """Remove transient messages, after everything that was applied before the stop."""
    for table, is_there in STORED.items():
        while _remove_transient(connection, counts, table, is_there):
            pass
    connection.execute("BEGIN IMMEDIATE")
    blocks.close_all()
    connection.execute("COMMIT")
    _mend_counts(connection, removed, blocks, counts)
    connection.execute("BEGIN IMMEDIATE")
    returned.load()
    connection.execute("COMMIT")


def snapshot(
    reader: sqlite3.Connection, removed: RemovedRanges, blocks: Blocks, counts: QueueCounts
) -> Snapshot:
    """Return what there is.

    Args:
        reader: gives text as bytes.
        removed: what is not there any more.
        blocks: of long queues.
        counts: of the queues.
    """
    rows = reader.execute(
        "SELECT queue_id, vhost, name, auto_delete, arguments, delivered_up_to FROM queues ORDER BY queue_id"
    )
    queues: list[StoredQueue] = []
    for queue_id, vhost, name, auto_delete, arguments, delivered_up_to in rows:
        first, last = _ends(queue_id, removed, blocks)
        queues.append(
            StoredQueue(
                queue_id,
                read_name(vhost),
                read_name(name),
                bool(auto_delete),
                arguments,
                delivered_up_to,
                *counts.of(queue_id),
                first,
                last,
                _expires(reader, queue_id, first),
            )
        )
    return Snapshot(
        read_exchanges(reader),
        queues,
        read_bindings(reader),
        access.read_vhosts(reader),
        access.read_users(reader),
        access.read_permissions(reader),
        access.read_topic_permissions(reader),
        access.read_parameters(reader),
        _exchange_queues(reader, removed, blocks, counts),
        _keys(reader),
        read_segments(reader),
        read_offsets(reader),
        _priority_levels(reader, removed, blocks, counts),
    )


def _ends(queue_id: int, removed: RemovedRanges, blocks: Blocks) -> tuple[int, int]:
    """Return the first and the last position of a waiting message; 1 and 0 if there is none."""
    first, last = _first_row(queue_id, removed, blocks), _last_row(queue_id, removed, blocks)
    return 1 if first is None else first & MAX_POSITION, 0 if last is None else last & MAX_POSITION


def _first_row(queue_id: int, removed: RemovedRanges, blocks: Blocks) -> int | None:
    for block, first, last in blocks.parts(queue_id, *id_range(queue_id)):
        row = removed.first_row(first, last) if block is None else blocks.first_row(block, first, last)
        if row is not None:
            return row
    return None


def _last_row(queue_id: int, removed: RemovedRanges, blocks: Blocks) -> int | None:
    for block, first, last in reversed(blocks.parts(queue_id, *id_range(queue_id))):
        row = removed.last_row(first, last) if block is None else blocks.last_row(block, first, last)
        if row is not None:
            return row
    return None


def _expires(reader: sqlite3.Connection, queue_id: int, position: int) -> bool:
    """Tell whether there is a message at a position, and it has a deadline."""
    row = reader.execute(
        "SELECT expires_at_ms FROM stored_messages WHERE id = ?", (queue_id << POSITION_BITS | position,)
    ).fetchone()
    return row is not None and row[0] is not None


def _priority_levels(
    reader: sqlite3.Connection, removed: RemovedRanges, blocks: Blocks, counts: QueueCounts
) -> list[StoredPriorityLevel]:
    rows = reader.execute(
        "SELECT queue_id, of_queue_id, priority, delivered_up_to FROM priority_levels ORDER BY queue_id"
    )
    levels: list[StoredPriorityLevel] = []
    for queue_id, of, priority, delivered_up_to in rows:
        first, last = _ends(queue_id, removed, blocks)
        expires = _expires(reader, queue_id, first)
        levels.append(
            StoredPriorityLevel(
                queue_id, of, priority, delivered_up_to, *counts.of(queue_id), first, last, expires
            )
        )
    return levels


def _exchange_queues(
    reader: sqlite3.Connection, removed: RemovedRanges, blocks: Blocks, counts: QueueCounts
) -> list[StoredExchangeQueue]:
    found: list[StoredExchangeQueue] = []
    rows = reader.execute("SELECT queue_id, vhost, exchange FROM exchange_queues ORDER BY queue_id")
    for queue_id, vhost, exchange in rows:
        last = _last_row(queue_id, removed, blocks)
        position = 0 if last is None else last & MAX_POSITION
        found.append(
            StoredExchangeQueue(
                queue_id, read_name(vhost), read_name(exchange), *counts.of(queue_id), position
            )
        )
    return found


def _keys(reader: sqlite3.Connection) -> list[StoredKey]:
    rows = reader.execute("SELECT queue_id, key, expires_at_ms FROM deduplication_keys ORDER BY key_id")
    return [StoredKey(queue_id, key, expires_at_ms) for queue_id, key, expires_at_ms in rows]


def _remove_transient(connection: sqlite3.Connection, counts: QueueCounts, table: str, is_there: str) -> bool:
    """Remove some transient messages of a table in a transaction.

    Returns:
        whether there were any.
    """
    connection.execute("BEGIN IMMEDIATE")
    rows = connection.execute(
        f"SELECT id, length(CAST(body AS BLOB)) FROM {table} AS rows"
        f" WHERE persistent = 0 AND {is_there} ORDER BY id LIMIT {TRANSIENT_ROWS_A_TIME}"
    ).fetchall()
    if rows:
        for row_id, body_bytes in rows:
            counts.add(row_id >> POSITION_BITS, -1, -body_bytes)
        connection.execute(
            f"DELETE FROM {table} AS rows WHERE persistent = 0 AND {is_there} AND id <= ?", (rows[-1][0],)
        )
        counts.save()
    connection.execute("COMMIT")
    return bool(rows)


def _mend_counts(
    connection: sqlite3.Connection, removed: RemovedRanges, blocks: Blocks, counts: QueueCounts
) -> None:
    """Count again where the counts cannot be right: somebody edited the file."""
    connection.execute("BEGIN IMMEDIATE")
    for (queue_id,) in connection.execute(OWNERS).fetchall():
        messages, body_bytes = counts.of(queue_id)
        is_empty = _first_row(queue_id, removed, blocks) is None
        if is_empty != (messages == 0) or messages < 0 or body_bytes < 0 or (is_empty and body_bytes):
            counts.doubt(queue_id)
    counts.save()
    connection.execute("COMMIT")
