"""A batch becomes rows, in one transaction. The rows of messages are written by rows.py.

What a batch takes away is deleted at once if it is little. Of many messages, and of those in blocks, it is
only noted that they are gone (removal.py, blocks.py); the store deletes them later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.storage.batch import FORGOTTEN
from leveret.storage.changes import QueueDeleted, QueuePurged, VHostDeleted
from leveret.storage.rows import delete_rows, id_range, id_ranges, stored_name
from leveret.storage.schema import DELAYED, MESSAGES, PAGE_BYTES, PERSISTENT, STREAMED

if TYPE_CHECKING:
    import sqlite3

    from leveret.storage.batch import Batch, StoredContent
    from leveret.storage.blocks import Blocks
    from leveret.storage.counts import QueueCounts
    from leveret.storage.definitions import Definitions
    from leveret.storage.removal import RemovedRanges
    from leveret.storage.returned import ReturnedRows
    from leveret.storage.rows import RowWriter

ROW_BYTES: Final = 200  # of a row beside its body, to estimate what a batch adds to the log


class BatchWriter:
    """Writes batches, in the writer's thread.

    Args:
        connection: for the transactions, which all the others take part in.
        rows: writes messages.
        definitions: writes exchanges, queues, bindings and so on.
        removed: large removals, to be done later.
        blocks: parts of long queues.
        counts: of the queues.
        returned: what is known of messages that came back.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        rows: RowWriter,
        definitions: Definitions,
        removed: RemovedRanges,
        blocks: Blocks,
        counts: QueueCounts,
        returned: ReturnedRows,
    ) -> None:
        self._connection = connection
        self._rows = rows
        self._definitions = definitions
        self._removed = removed
        self._blocks = blocks
        self._counts = counts
        self._returned = returned
        (epoch,) = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        self.epoch: int = epoch  # of the last batch

    def write(self, batch: Batch, recorded: int) -> int:
        """Apply a batch in one transaction.

        Args:
            batch: what to apply.
            recorded: see `Store.apply`.

        Returns:
            about how many bytes it added to the log.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        if batch.epoch != self.epoch:
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (batch.epoch,))
        if recorded:
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'redo_applied'", (recorded,))
        for definition in batch.definitions:
            if isinstance(definition, VHostDeleted):
                self._delete_messages_of_vhost(definition.name)
            self._definitions.apply(definition)
            if isinstance(definition, QueueDeleted):
                self._delete_messages(definition.queue_id)
            elif isinstance(definition, QueuePurged):
                self._purge(definition)
        wal_bytes = self._enqueue(batch.enqueued, batch.expiries, PERSISTENT)
        wal_bytes += self._enqueue(batch.spilled, batch.expiries, 0)
        wal_bytes += self._enqueue(batch.delayed, batch.expiries, DELAYED)
        if batch.streamed:
            wal_bytes += self._enqueue(batch.streamed, batch.expiries, STREAMED)
        self._rows.flush()
        wal_bytes += self._settle(batch.settled)
        if batch.returned:
            wal_bytes += self._returned.write(batch.returned) * ROW_BYTES
        if batch.offsets:
            wal_bytes += self._write_offsets(batch.offsets)
        if batch.keys:
            wal_bytes += self._write_keys(batch.keys)
        pages = 2 + len(batch.definitions) + self._blocks.save() + self._counts.save()
        self._connection.execute("COMMIT")
        self.epoch = batch.epoch
        return wal_bytes + pages * PAGE_BYTES

    def _delete_messages(self, queue_id: int) -> None:
        messages, _ = self._counts.of(queue_id)
        self._removed.remove(*id_range(queue_id), messages)
        self._blocks.settle_all(queue_id, *id_range(queue_id))
        self._counts.drop(queue_id)
        self._returned.forget(queue_id, [*id_range(queue_id)])

    def _delete_messages_of_vhost(self, name: str) -> None:
        """Remove the messages of all queues of a vhost; if they are many, later."""
        rows = self._connection.execute(
            "SELECT queue_id FROM queues WHERE vhost = ?1"
            " UNION ALL SELECT queue_id FROM exchange_queues WHERE vhost = ?1"
            " UNION ALL SELECT priority_levels.queue_id FROM priority_levels"
            " JOIN queues ON queues.queue_id = of_queue_id WHERE vhost = ?1",
            (stored_name(name),),
        ).fetchall()
        self._definitions.forget_levels(name)
        messages = sum(self._counts.of(queue_id)[0] for (queue_id,) in rows)
        for (queue_id,) in rows:
            if self._counts.of(queue_id)[0]:
                self._removed.remove(*id_range(queue_id), max(messages, 1))
                self._blocks.settle_all(queue_id, *id_range(queue_id))
            self._counts.drop(queue_id)
            self._returned.forget(queue_id, [*id_range(queue_id)])
            self._definitions.forget_stream(queue_id)
            self._definitions.forget_keys(queue_id)

    def _purge(self, purged: QueuePurged) -> None:
        first, _ = id_range(purged.queue_id)
        has_blocks = bool(self._blocks.of(purged.queue_id))
        self._blocks.settle_all(purged.queue_id, first | purged.first, first | purged.last)
        removed = self._removed.remove(first | purged.first, first | purged.last, purged.count)
        self._counts.add(purged.queue_id, -purged.count, -purged.body_bytes)
        self._returned.forget(purged.queue_id, [first | purged.first, first | purged.last])
        if removed != purged.count and not has_blocks:
            self._counts.doubt(purged.queue_id)

    def _enqueue(
        self,
        by_queue: dict[int, dict[int, StoredContent]],
        expiries: dict[int, dict[int, int]],
        persistent: int,
    ) -> int:
        wal_bytes = 0
        for queue_id, entries in by_queue.items():
            if not entries:
                continue
            if self._removed.ranges:
                first, _ = id_range(queue_id)
                self._removed.make_room(first | min(entries), first | max(entries))
            body_bytes = self._insert(queue_id, entries, expiries.get(queue_id, {}), persistent)
            self._counts.add(queue_id, len(entries), body_bytes)
            wal_bytes += body_bytes + len(entries) * ROW_BYTES + PAGE_BYTES
        return wal_bytes

    def _insert(
        self, queue_id: int, entries: dict[int, StoredContent], expiries: dict[int, int], persistent: int
    ) -> int:
        """Insert rows where they belong, and return the length of their bodies."""
        base, _ = id_range(queue_id)
        if persistent == PERSISTENT:
            first = base | next(iter(entries))
            block = self._blocks.for_new(queue_id, self._counts.of(queue_id)[0], first)
            self._rows.into(MESSAGES if block is None else block.table)
            body_bytes = self._rows.add(queue_id, entries, expiries, persistent)
            if block is not None:
                self._blocks.added(block, len(entries), body_bytes, base | max(entries))
            return body_bytes
        if not self._blocks.of(queue_id):
            self._rows.into(MESSAGES)
            return self._rows.add(queue_id, entries, expiries, persistent)
        body_bytes = 0
        for block, begin, end in self._blocks.parts(queue_id, base | min(entries), base | max(entries)):
            part = {at: message for at, message in entries.items() if begin <= base | at <= end}
            self._rows.into(MESSAGES if block is None else block.table)
            its_bytes = self._rows.add(queue_id, part, expiries, persistent)
            if block is not None:
                self._blocks.added(block, len(part), its_bytes, base | max(part, default=0))
            body_bytes += its_bytes
        return body_bytes

    def _settle(self, by_queue: dict[int, dict[int, int]]) -> int:
        ranges: list[int] = []
        wal_bytes = 0
        expected = 0
        for queue_id, settled in by_queue.items():
            if settled:
                body_bytes = sum(settled.values())
                its_ranges = id_ranges(queue_id, settled)
                self._returned.forget(queue_id, its_ranges)
                self._counts.add(queue_id, -len(settled), -body_bytes)
                if self._blocks.of(queue_id):
                    wal_bytes += self._settle_in_blocks(queue_id, its_ranges)
                    continue
                ranges += its_ranges
                expected += len(settled)
                wal_bytes += body_bytes + len(settled) * ROW_BYTES
        if delete_rows(self._connection, ranges) != expected:
            for queue_id in by_queue:
                self._counts.doubt(queue_id)
        return wal_bytes + len(ranges) // 2 * PAGE_BYTES

    def _settle_in_blocks(self, queue_id: int, ranges: list[int]) -> int:
        rest: list[int] = []
        for index in range(0, len(ranges), 2):
            for block, first, last in self._blocks.parts(queue_id, ranges[index], ranges[index + 1]):
                if block is None:
                    rest += (first, last)
                else:
                    self._blocks.settle(block, first, last)
        delete_rows(self._connection, rest)
        return len(rest) // 2 * PAGE_BYTES

    def _write_offsets(self, by_queue: dict[int, dict[str, int]]) -> int:
        """Write how far consumers have read streams.

        Returns:
            about how many bytes that added to the log.
        """
        rows = 0
        for queue_id, offsets in by_queue.items():
            gone = [(queue_id, stored_name(tag)) for tag, at in offsets.items() if at == FORGOTTEN]
            known = [(queue_id, stored_name(tag), at) for tag, at in offsets.items() if at != FORGOTTEN]
            self._connection.executemany(
                "DELETE FROM stream_offsets WHERE queue_id = ? AND consumer_tag = ?", gone
            )
            self._connection.executemany("REPLACE INTO stream_offsets VALUES (?, ?, ?)", known)
            rows += len(offsets)
        return rows * ROW_BYTES

    def _write_keys(self, by_queue: dict[int, dict[bytes, int]]) -> int:
        """Write which keys of deduplication came and went.

        Returns:
            about how many bytes that added to the log.
        """
        rows = 0
        for queue_id, keys in by_queue.items():
            gone = [(queue_id, key) for key in keys]  # one that comes again gets a new place in the order
            came = [(queue_id, key, ms) for key, ms in keys.items() if ms != FORGOTTEN]
            self._connection.executemany(
                "DELETE FROM deduplication_keys WHERE queue_id = ? AND key = ?", gone
            )
            self._connection.executemany(
                "INSERT INTO deduplication_keys (queue_id, key, expires_at_ms) VALUES (?, ?, ?)", came
            )
            rows += len(gone)
        return rows * ROW_BYTES
