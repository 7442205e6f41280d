"""A message in a queue that has a state of its own: it was taken, came back, or has a deadline. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.storage.batch import Returned

if TYPE_CHECKING:
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.queues.queue import Queue
    from leveret.protocol.content import Message

NOT_COUNTED: Final = Returned(0, 0, 0)


class Entry:
    """One message in one queue, with a state of its own."""

    __slots__ = (
        "consumer",
        "expires_at_ms",
        "is_spilled",
        "message",
        "position",
        "queue",
        "queued",
        "returned",
    )

    def __init__(
        self, queue: Queue, position: int, message: Message, redelivered: bool, expires_at_ms: int
    ) -> None:
        self.queue = queue
        self.position = position
        self.message = message
        # Not None once it came back, or may have been delivered before the last restart
        self.returned: Returned | None = NOT_COUNTED if redelivered else None
        self.expires_at_ms = expires_at_ms  # 0 for never
        self.is_spilled: bool = False  # the store has it, or will have, even if it is transient
        self.queued: bool = False
        self.consumer: Consumer | None = None  # who has it; None while queued, and for basic.get

    @property
    def redelivered(self) -> bool:
        """Whether somebody may have had it before."""
        return self.returned is not None
