"""The exchange that remembers: x-recent-history.

The history is in memory only, as it is in RabbitMQ: a restart begins with an empty one.

Source: RabbitMQ's plugin rabbitmq_recent_history_exchange; texts and order as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final, cast

from leveret.broker.model.exchanges.fanout import FanoutMatcher
from leveret.broker.model.terms import term
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import INTEGER_TAGS, Table, boolean

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.binding import Binding, Destination
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message

LENGTH: Final = "x-recent-history-length"
NO_STORE: Final = "x-recent-history-no-store"
DEFAULT_LENGTH: Final = 20
HISTORY_BYTES: Final = 64 * 1024 * 1024  # of bodies; beyond, the oldest are forgotten, whatever the length


class RecentHistoryMatcher:
    """Routes to all bindings, and keeps the last messages for whoever is bound later.

    Raises:
        PreconditionFailed: the length is no positive whole number.
    """

    __slots__ = ("_body_bytes", "_fanout", "_length", "history")

    cacheable: ClassVar[bool] = False

    def __init__(self, arguments: Table) -> None:
        length = arguments.get(LENGTH)
        if length is not None and (length.tag not in INTEGER_TAGS or cast("int", length.value) <= 0):
            raise PreconditionFailed(
                f"Invalid argument {term(length)}, '{LENGTH}' must be a positive integer"
            )
        self._length = DEFAULT_LENGTH if length is None else cast("int", length.value)
        self._fanout = FanoutMatcher(arguments)
        self._body_bytes = 0
        self.history: deque[Message] = deque()  # oldest first

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything."""

    def bind(self, binding: Binding) -> None:
        """Add a binding; the vhost sends the history there."""
        self._fanout.bind(binding)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        self._fanout.unbind(binding)

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Return every destination, in binding order."""
        return self._fanout.destinations(routing_keys, headers)

    def choose(self, message: Message, routing_keys: list[str], turn: Turn) -> Collection[Destination]:
        """Remember a message, and return every destination."""
        headers = message.envelope.fields.headers
        if headers is None or not boolean(headers, NO_STORE):
            self.history.append(message)
            self._body_bytes += message.body_bytes
            while len(self.history) > self._length or self._body_bytes > HISTORY_BYTES:
                self._body_bytes -= self.history.popleft().body_bytes
        return self._fanout.destinations(routing_keys, headers)
