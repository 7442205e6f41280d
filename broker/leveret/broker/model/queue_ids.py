"""The numbers that the store knows queues by."""

from __future__ import annotations

from leveret.protocol.errors import PreconditionFailed
from leveret.storage.changes import MAX_QUEUE_ID


class QueueIds:
    """Ids for queues, each used by one queue at a time; the store finds messages by them."""

    __slots__ = ("_free", "_next", "_released")

    def __init__(self) -> None:
        self._next: int = 1
        self._free: list[int] = []
        self._released: list[tuple[int, int]] = []  # batch that forgets the queue, its id

    def reserve(self, queue_id: int) -> None:
        """Take an id that the store has a queue under; before any `allocate`."""
        while self._next < queue_id:
            self._free.append(self._next)
            self._next += 1
        if queue_id == self._next:
            self._next += 1
        else:
            self._free.remove(queue_id)

    def allocate(self) -> int:
        """Return an id that no queue has.

        Raises:
            PreconditionFailed: there are as many queues as there can be.
        """
        if self._free:
            return self._free.pop()
        if self._next > MAX_QUEUE_ID:
            raise PreconditionFailed(f"queue limit of {MAX_QUEUE_ID} is reached")
        self._next += 1
        return self._next - 1

    def release(self, queue_id: int, batch: int) -> None:
        """Give an id back once the batch that deletes its queue is durable (0: the store has none)."""
        if batch:
            self._released.append((batch, queue_id))
        else:
            self._free.append(queue_id)

    def reclaim(self, durable: int) -> None:
        """Make ids free again whose batch is durable."""
        kept: list[tuple[int, int]] = []
        for batch, queue_id in self._released:
            if batch <= durable:
                self._free.append(queue_id)
            else:
                kept.append((batch, queue_id))
        self._released = kept
