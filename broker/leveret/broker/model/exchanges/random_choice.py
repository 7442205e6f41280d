"""The exchanges that choose a destination by chance: x-random and x-local-random.

Source: RabbitMQ's plugin rabbitmq_random_exchange, shares as seen on RabbitMQ 3.10; x-local-random of 4.x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from leveret.broker.model.arguments import CLASSIC
from leveret.protocol.errors import PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.binding import Binding, Destination
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message
    from leveret.protocol.tables import Table

LOCAL_RANDOM: Final = "x-local-random"


class RandomMatcher:
    """Routes each message to the destination of one of the bindings, whatever the keys."""

    __slots__ = ("_destinations", "_places")

    cacheable: ClassVar[bool] = False

    def __init__(self, arguments: Table) -> None:
        self._places: dict[Binding, int] = {}  # binding -> where its destination is in the list
        self._destinations: list[tuple[Binding, Destination]] = []

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything."""

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        self._places[binding] = len(self._destinations)
        self._destinations.append((binding, binding.destination))

    def unbind(self, binding: Binding) -> None:
        """Remove a binding; the last one takes its place."""
        place = self._places.pop(binding)
        last = self._destinations.pop()
        if last[0] is not binding:
            self._destinations[place] = last
            self._places[last[0]] = place

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Return every destination that a message may go to."""
        return dict.fromkeys(destination for _, destination in self._destinations)

    def choose(self, message: Message, routing_keys: list[str], turn: Turn) -> Collection[Destination]:
        """Choose by chance."""
        if not self._destinations:
            return ()
        return (self._destinations[turn.chance(len(self._destinations))][1],)


class LocalRandomMatcher(RandomMatcher):
    """The same for classic queues; here all queues are local."""

    __slots__ = ()

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Refuse a binding key.

        Raises:
            PreconditionFailed: there is one.
        """
        if binding_key:
            raise PreconditionFailed(f"Non empty binding '{binding_key}' key not permitted")


def check_local_destination(queue_type: str | None) -> None:
    """Refuse what an x-local-random exchange cannot lead to.

    Args:
        queue_type: of the queue to be bound; None if it is an exchange.

    Raises:
        PreconditionFailed: it is no classic queue.
    """
    if queue_type is None:
        raise PreconditionFailed("Destination not found")
    if queue_type != CLASSIC:
        raise PreconditionFailed(f"Queue type rabbit_{queue_type}_queue not valid for this exchange type")
