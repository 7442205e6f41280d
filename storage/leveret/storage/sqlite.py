"""The default engine: one SQLite file that anybody can open and read.

Theory of operation. Three connections: one writes, one reads, one copies the write-ahead log into the file. A
batch is one transaction with `synchronous=FULL`: when `apply` returns it is on stable storage. How many
messages a queue has, and how long they are, is counted in memory and written with each batch, so that a start
need not look at the messages.

A thread of the store's own does the housekeeping: checkpoints (checkpoint.py) and large removals
(removal.py). It takes turns with the writer, and at the end of a checkpoint with the reader.

The first error ends it. SQLite was seen to report success for the commit after one whose fsync had failed, so
nothing is tried again: every later `apply` is refused, and the log is left as it is for the next start to
recover.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from leveret.storage.blocks import Blocks
from leveret.storage.checkpoint import (
    CHECKPOINT_BYTES,
    IDLE_CHECKPOINT_BYTES,
    WAL_FILE_BYTES_MAX,
    Checkpointer,
)
from leveret.storage.connections import (
    CHECKPOINT_PRAGMAS,
    READER_PRAGMAS,
    explain,
    open_connection,
    require_place,
    set_pragmas,
    set_up_writer,
)
from leveret.storage.counts import QueueCounts
from leveret.storage.definitions import Definitions
from leveret.storage.direct_io import DirectIoError, DirectWriter
from leveret.storage.lock import FileLock
from leveret.storage.reading import (
    READ_DUE_LATER,
    READ_DUE_THEN,
    DamagedRowError,
    QueueReader,
    read_messages,
    read_name,
)
from leveret.storage.recovery import remove_orphans, remove_transient, snapshot
from leveret.storage.redo_log import (
    NAME_BYTES,
    RECORD_BYTES_MAX,
    RedoLog,
    batches_in,
    log_path,
    make_file,
    merge,
    read_file,
    remove_file,
)
from leveret.storage.removal import RemovedRanges
from leveret.storage.returned import ReturnedRows
from leveret.storage.rows import RowWriter, id_range
from leveret.storage.schema import MESSAGES, PAGE_BYTES
from leveret.storage.store import CorruptMessageError, StaleEpochError, StoreError
from leveret.storage.turns import TurnLock
from leveret.storage.writing import BatchWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from leveret.storage.batch import Batch
    from leveret.storage.connections import Connect
    from leveret.storage.stored import Snapshot, Stored, StoredMessage

BLOCK_PAGES: Final = 16  # about: that change when a block is emptied


def describe_nothing(_: bytes) -> str | None:
    """Make no JSON of a table."""
    return None


class SqliteStore:
    """Keeps everything in an SQLite file.

    Args:
        path: the file; made if it is not there.
        describe: makes readable JSON of a raw property list, or None. What it raises counts as None.
        describe_arguments: the same for the raw field table of a queue's, exchange's or binding's arguments.
        connect: opens a connection; tests hand in one that fails.

    Raises:
        StoreLockedError: another process has it open.
        NotAStoreError: the file is not ours.
        NewerSchemaError: a later version wrote it.
        StoreError: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        describe: Callable[[bytes], str | None],
        describe_arguments: Callable[[bytes], str | None] = describe_nothing,
        connect: Connect = open_connection,
    ) -> None:
        require_place(path)
        self._path = path
        self._failure: StoreError | None = None
        self._is_closed = False
        self._reading = TurnLock()
        self._writing = TurnLock()
        self._wake = Event()
        self._housekeeper: Thread | None = None
        self._log: RedoLog | None = None
        self._file_lock = FileLock(path)
        self._file_lock.acquire()
        opened: list[sqlite3.Connection] = []
        try:
            opened.append(connect(path, False))
            set_up_writer(opened[0], path, WAL_FILE_BYTES_MAX)
            opened.append(connect(path, True))
            set_pragmas(opened[1], READER_PRAGMAS)
            opened.append(connect(path, False))
            set_pragmas(opened[2], CHECKPOINT_PRAGMAS)
            self._writer, self._reader, self._copier = opened
            self._reader.text_factory = bytes  # names that are not UTF-8, and checksums of bytes
            self._removed = RemovedRanges(self._writer)
            self._blocks = Blocks(self._writer)
            self._counts = QueueCounts(self._writer)
            self._returned = ReturnedRows(self._writer, self._blocks)
            self._batches = BatchWriter(
                self._writer,
                RowWriter(self._writer, describe),
                Definitions(self._writer, describe_arguments),
                self._removed,
                self._blocks,
                self._counts,
                self._returned,
            )
        except BaseException as error:
            for connection in opened:
                connection.close()
            self._file_lock.release()
            if isinstance(error, sqlite3.Error):
                raise explain(error, path, "open") from error
            raise
        self._checkpointer = Checkpointer(self._copier, self._alone)
        self._queue_reader = QueueReader(self._reader, self._blocks)

    def load(self) -> Snapshot:
        """See `Store.load`."""
        with self._writing:
            self._require_usable()
            try:
                parts = (self._writer, self._removed, self._blocks, self._counts, self._returned)
                remove_orphans(*parts)
                self._redo()
                remove_transient(*parts)
                found = snapshot(self._reader, self._removed, self._blocks, self._counts)
            except sqlite3.Error as error:
                raise self._fail(error, "read") from error
        self._wake_if_needed(CHECKPOINT_BYTES)
        return found

    def open_redo_log(self, notified: int) -> RedoLog | None:
        """See `Store.open_redo_log`."""
        with self._writing:
            self._require_usable()
            name = os.urandom(NAME_BYTES)
            path = log_path(self._path)
            try:
                make_file(path, self._path.stat().st_mode & 0o666)
                writer = DirectWriter(path, RECORD_BYTES_MAX, notified)
            except (DirectIoError, OSError):
                remove_file(path)
                return None
            try:
                self._name_log(name)
            except sqlite3.Error as error:
                writer.close()
                raise self._fail(error, "write to") from error
            self._log = RedoLog(path, name, writer)
        return self._log

    def _name_log(self, name: bytes) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute("REPLACE INTO meta VALUES ('redo_log', ?)", (name.hex(),))
        self._writer.execute("REPLACE INTO meta VALUES ('redo_applied', 0)")
        self._writer.execute("COMMIT")

    def _forget_log(self) -> None:
        """Do without the log: the file has everything that it has."""
        self._writer.execute("DELETE FROM meta WHERE key IN ('redo_log', 'redo_applied')")
        remove_file(log_path(self._path))

    def _redo(self) -> None:
        """Apply what the log of the last run has, and the file has not."""
        meta = dict(self._writer.execute("SELECT key, value FROM meta").fetchall())
        if "redo_log" not in meta:
            return
        path = log_path(self._path)
        data = read_file(path)
        applied = int(meta["redo_applied"])
        if data is not None and (records := batches_in(data, path, bytes.fromhex(meta["redo_log"]), applied)):
            self._batches.write(merge(records, path), applied + len(records))
        self._forget_log()

    def apply(self, batch: Batch, recorded: int = 0) -> None:
        """See `Store.apply`."""
        with self._writing:
            self._require_usable()
            if batch.epoch < self._batches.epoch:
                raise StaleEpochError(
                    f"a batch of epoch {batch.epoch} came after epoch {self._batches.epoch}"
                )
            if not batch and batch.epoch == self._batches.epoch and not recorded:
                return
            before = self._writer.total_changes
            try:
                wal_bytes = self._batches.write(batch, recorded)
            except sqlite3.Error as error:
                raise self._fail(error, "write to") from error
            except Exception as error:  # a bug; the transaction is open, so there is no way on
                failure = StoreError(f"a batch for {self._path} could not be written: {error!r}")
                self._stop(failure)
                raise failure from error
            if self._writer.total_changes != before:
                self._checkpointer.committed(wal_bytes)
        self._wake_if_needed(CHECKPOINT_BYTES)

    def read(self, queue_id: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Stored]:
        """See `Store.read`."""
        with self._reading_queue(queue_id):
            found = self._queue_reader.read(queue_id, after, up_to, limit, max_bytes)
            return self._returned.add_to(self._reader, queue_id, found)

    @contextmanager
    def _reading_queue(self, queue_id: int) -> Iterator[None]:
        with self._reading:
            if self._is_closed:
                raise StoreError("the store is closed")
            try:
                yield
            except DamagedRowError as damage:
                raise self._corrupt(queue_id, damage.position) from None
            except sqlite3.Error as error:
                raise explain(error, self._path, f"read queue {queue_id} of") from error

    def read_delayed(
        self, queue_id: int, after_due_ms: int, after: int, limit: int, max_bytes: int
    ) -> list[StoredMessage]:
        """See `Store.read_delayed`."""
        first, _ = id_range(queue_id)
        with self._reading_queue(queue_id):
            # An open cursor would keep the log from beginning anew.
            with closing(
                self._reader.execute(READ_DUE_THEN, (queue_id, after_due_ms, first + after, limit))
            ) as rows:
                found = read_messages(rows, max_bytes)
            max_bytes -= sum(len(message.body) for message in found)
            if len(found) < limit and max_bytes > 0:
                with closing(
                    self._reader.execute(READ_DUE_LATER, (queue_id, after_due_ms, limit - len(found)))
                ) as rows:
                    found += read_messages(rows, max_bytes)
        return found

    def reusable_bytes(self) -> int:
        """See `Store.reusable_bytes`: pages of the file that nothing is on any more."""
        with self._reading:
            if self._is_closed:
                raise StoreError("the store is closed")
            try:
                (pages,) = self._reader.execute("PRAGMA freelist_count").fetchone()
            except sqlite3.Error as error:
                raise explain(error, self._path, "read") from error
        return int(pages) * PAGE_BYTES

    def checkpoint(self) -> None:
        """See `Store.checkpoint`."""
        self._wake_if_needed(IDLE_CHECKPOINT_BYTES)

    def close(self) -> None:
        """See `Store.close`. After an error the log is left as it is.

        Raises:
            StoreError: the log could not be copied into the file. It is complete, and the next start will
            try.
        """
        if self._is_closed:
            return
        with self._reading:
            self._is_closed = True
        self._wake.set()
        if self._housekeeper is not None:
            self._housekeeper.join()
        try:
            if self._log is not None:
                self._log.close()
                if self._failure is None and self._log.is_empty:
                    self._forget_log()
            if self._failure is None:
                self._copier.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except sqlite3.Error as error:
            raise self._fail(error, "write to") from error
        finally:
            # The connection that is closed last copies the log and removes it, unless it can only read.
            last = self._writer if self._failure is None else self._reader
            for connection in (self._copier, self._writer, self._reader):
                if connection is not last:
                    connection.close()
            last.close()
            self._file_lock.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Neither write nor read meanwhile; a reader of our own would keep the log from beginning anew."""
        with self._reading, self._writing:
            yield

    def _require_usable(self) -> None:
        if self._failure is not None:
            raise StoreError(f"the store has stopped: {self._failure}") from self._failure
        if self._is_closed:
            raise StoreError("the store is closed")

    def _fail(self, error: sqlite3.Error, doing: str) -> StoreError:
        """Refuse everything from now on."""
        failure = explain(error, self._path, doing)
        self._stop(failure)
        return failure

    def _stop(self, failure: StoreError) -> None:
        self._checkpointer.stop()
        self._failure = self._failure or failure

    def _corrupt(self, queue_id: int, position: int) -> CorruptMessageError:
        row = self._reader.execute(
            "SELECT vhost, name FROM queues WHERE queue_id = ?1"
            " UNION ALL SELECT vhost, exchange FROM exchange_queues WHERE queue_id = ?1"
            " UNION ALL SELECT vhost, name FROM priority_levels JOIN queues ON queues.queue_id = of_queue_id"
            " WHERE priority_levels.queue_id = ?1",
            (queue_id,),
        ).fetchone()
        queue = f"queue {read_name(row[1])!r} in vhost {read_name(row[0])!r}" if row else f"queue {queue_id}"
        row_id = id_range(queue_id)[0] | position
        ((block, _, _),) = self._blocks.parts(queue_id, row_id, row_id)
        return CorruptMessageError(
            f"the message at position {position} of {queue} is damaged in {self._path}: restore a backup, or"
            " stop the broker and give the message up by"
            f" DELETE FROM {MESSAGES if block is None else block.table} WHERE id = {row_id}",
            queue_id,
            position,
        )

    def _wake_if_needed(self, wal_bytes: int) -> None:
        if not self._has_removed and self._checkpointer.pending_bytes < wal_bytes:
            return
        if self._housekeeper is None:
            self._housekeeper = Thread(target=self._keep_house, name="leveret-housekeeper", daemon=True)
            self._housekeeper.start()
        self._wake.set()

    def _keep_house(self) -> None:
        while not self._is_closed and self._failure is None:
            self._wake.wait()
            try:
                self._delete_removed()
                if self._checkpointer.pending_bytes and not self._is_closed:
                    self._checkpointer.run()
            except sqlite3.Error as error:
                self._fail(error, "write to")
            self._wake.clear()
            if self._has_removed or self._checkpointer.pending_bytes >= CHECKPOINT_BYTES:
                self._wake.set()

    @property
    def _has_removed(self) -> bool:
        """Whether there are rows of messages that are gone, to be deleted."""
        return bool(self._removed.ranges or self._blocks.gone)

    def _delete_removed(self) -> None:
        while self._has_removed and not self._is_closed:
            with self._writing:
                if self._failure is not None:
                    return
                if self._blocks.gone:
                    self._blocks.empty_one()
                    self._checkpointer.committed(BLOCK_PAGES * PAGE_BYTES)
                else:
                    rows = self._removed.delete_some()
                    self._checkpointer.committed(rows * PAGE_BYTES // 4)
            if self._checkpointer.pending_bytes >= CHECKPOINT_BYTES:
                self._checkpointer.run()
