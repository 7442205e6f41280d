"""The numbers that the store knows queues by."""

from __future__ import annotations

from leveret.protocol.errors import PreconditionFailed
from leveret.storage.changes import MAX_QUEUE_ID


class QueueIds:
    """Ids for queues, each used by one queue at a time; the store finds messages by them.

    A queue with priorities may need more of them than one. They are promised to it when it is declared, so
    that a message never comes too late for an id.
    """

    __slots__ = ("_free", "_next", "_promised", "_released")

    def __init__(self) -> None:
        self._next: int = 1
        self._promised: int = 0
        self._free: dict[int, None] = {}
        self._released: list[tuple[int, int]] = []  # batch that forgets the queue, its id

    def reserve(self, queue_id: int, promised: int = 0) -> None:
        """Take an id that the store has a queue under, and promise more to it; before any `allocate`."""
        while self._next < queue_id:
            self._free[self._next] = None
            self._next += 1
        if queue_id == self._next:
            self._next += 1
        else:
            del self._free[queue_id]
        self._promised += promised

    def reserve_promised(self, queue_id: int) -> None:
        """Take an id that was promised to a queue, and that the store has."""
        self.reserve(queue_id, -1)

    def allocate(self, promised: int = 0) -> int:
        """Return an id that no queue has, and promise as many more to the same queue.

        Raises:
            PreconditionFailed: there are as many queues as there can be.
        """
        left = len(self._free) + MAX_QUEUE_ID + 1 - self._next - self._promised
        if left <= promised:
            raise PreconditionFailed(f"queue limit of {MAX_QUEUE_ID} is reached")
        self._promised += promised
        return self._take()

    def take_promised(self) -> int:
        """Return one of the ids that were promised to a queue."""
        self._promised -= 1
        return self._take()

    def give_up_promised(self, count: int) -> None:
        """Let others have ids that were promised to a queue and not taken."""
        self._promised -= count

    def _take(self) -> int:
        if self._free:
            return self._free.popitem()[0]
        self._next += 1
        return self._next - 1

    def release(self, queue_id: int, batch: int) -> None:
        """Give an id back once the batch that deletes its queue is applied (0: the store has none)."""
        if batch:
            self._released.append((batch, queue_id))
        else:
            self._free[queue_id] = None

    def reclaim(self, applied: int) -> None:
        """Make ids free again whose batch is applied: no message of another queue meets the old rows."""
        kept: list[tuple[int, int]] = []
        for batch, queue_id in self._released:
            if batch <= applied:
                self._free[queue_id] = None
            else:
                kept.append((batch, queue_id))
        self._released = kept
