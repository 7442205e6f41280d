"""The newest messages of a stream, in memory. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message

TAIL_MESSAGES: Final = 1000  # durable ones that are kept for readers that have nearly caught up
TAIL_BYTES: Final = 1024 * 1024
TAIL_OVERHEAD: Final = 200  # bytes that a message here takes beside its body, about


class Tail:
    """Messages at consecutive positions up to the newest.

    Those that are not yet durable are always here; the others as long as they have room and are needed.
    """

    __slots__ = ("_body_bytes", "_messages", "_turn", "first")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.first: int = 1  # position of the first message here
        self._messages: list[Message] = []
        self._body_bytes: int = 0

    def append(self, messages: list[Message], body_bytes: int) -> None:
        """Add messages, `body_bytes` in all."""
        self._messages += messages
        self._body_bytes += body_bytes
        self._turn.memory_bytes += body_bytes + len(messages) * TAIL_OVERHEAD

    def at(self, position: int) -> Message:
        """Return the message at a position, which must be here."""
        return self._messages[position - self.first]

    def trim(self, keep_from: int, end: int) -> None:
        """Let go of what is not needed.

        Args:
            keep_from: no reader that has come so far needs what is before this position.
            end: what is before this position is durable, and may go.
        """
        drop = max(keep_from, end - TAIL_MESSAGES) - self.first
        body_bytes = 0
        for index in range(drop):
            body_bytes += self._messages[index].body_bytes
        durable = end - self.first
        while drop < durable and self._body_bytes - body_bytes > TAIL_BYTES:
            body_bytes += self._messages[drop].body_bytes
            drop += 1
        if drop > 0:
            del self._messages[:drop]
            self.first += drop
            self._body_bytes -= body_bytes
            self._turn.memory_bytes -= body_bytes + drop * TAIL_OVERHEAD

    def clear(self) -> None:
        """Let go of everything."""
        self._turn.memory_bytes -= self._body_bytes + len(self._messages) * TAIL_OVERHEAD
        self.first += len(self._messages)
        self._messages = []
        self._body_bytes = 0
