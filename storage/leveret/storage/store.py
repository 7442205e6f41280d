"""The store's interface: ordered batches of changes in, what a restart needs out.

An engine is called from at most two threads at a time: one that writes (`apply`, `checkpoint`, `close`) and
one that reads (`read`). It makes no promise about order between the two, but `read` sees every batch whose
`apply` has returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from leveret.storage.batch import Batch
    from leveret.storage.redo_log import RedoLog
    from leveret.storage.stored import Snapshot, Stored, StoredMessage


class StoreError(Exception):
    """The store could not do what was asked, and nothing of it may be confirmed. Fatal: no engine retries."""


class StoreLockedError(StoreError):
    """Another process has the data open."""


class NotAStoreError(StoreError):
    """The file is not a store of ours."""


class NewerSchemaError(StoreError):
    """The data was written by a newer version."""


class StaleEpochError(StoreError):
    """The batch comes from an owner that has been replaced."""


class CorruptMessageError(StoreError):
    """A stored message does not have the checksum it was written with. Everything else goes on."""

    def __init__(self, text: str, queue_id: int, position: int) -> None:
        super().__init__(text)
        self.queue_id = queue_id
        self.position = position


class Store(Protocol):
    """An engine. `MemoryStore` is the reference; a test must not be able to tell it from another."""

    def load(self) -> Snapshot:
        """Return what the last run left, transient and half-made things removed. Called once, first.

        Queues tell how many messages wait in them; the cost does not grow with the messages.
        """

    def open_redo_log(self, notified: int) -> RedoLog | None:
        """Begin a log for batches that are to be on stable storage before they are applied.

        At most once, after `load`, by the thread that writes. What the log has and `apply` has not seen when
        the run ends is applied by the next `load`.

        Args:
            notified: an eventfd that is added to when a record is on stable storage.

        Returns:
            the log, for the thread that asked for it to be opened or another one; None if the engine, the
            system or the disk knows no such thing.

        Raises:
            StoreError: the store failed.
        """

    def apply(self, batch: Batch, recorded: int = 0) -> None:
        """Apply a batch as one transaction and return when it is on stable storage.

        Args:
            batch: what to apply.
            recorded: number of the last record of the redo log that is part of the batch, or was of one
                before; 0 if there is none that the store was not told of.

        Raises:
            StoreError: nothing of the batch is promised, and the caller must stop. A second fsync would lie.
            StaleEpochError: `batch.epoch` is lower than one seen before.
        """

    def read(self, queue_id: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Stored]:
        """Return messages of a queue with after < position <= up_to, by position.

        `up_to` is MAX_POSITION at most. At most `limit` messages, and none after the one that brings the
        bodies to `max_bytes`; so at least one message if there is one. Messages that differ in nothing but
        their bodies may come as one `StoredRun`.

        Raises:
            CorruptMessageError: a message is damaged; those before it can be read by a lower `up_to`.
            StoreError: the data cannot be read.
        """

    def read_delayed(
        self, queue_id: int, after_due_ms: int, after: int, limit: int, max_bytes: int
    ) -> list[StoredMessage]:
        """Return messages that wait in an exchange, by when they are due, then by position.

        They come behind the message that is due at `after_due_ms` and has the position `after`. Limits and
        errors are those of `read`.
        """

    def reusable_bytes(self) -> int:
        """Return how much the engine can store before it takes more of the disk. May be called in any thread.

        Raises:
            StoreError: it cannot be told.
        """

    def checkpoint(self) -> None:
        """Ask for the housekeeping that must not delay a commit; returns at once.

        An engine does it on a thread of its own, and by itself when there is much of it: call this when idle.
        """

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
