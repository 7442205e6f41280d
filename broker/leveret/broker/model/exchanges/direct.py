"""The direct exchange, and the default exchange, which is one without bindings. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from leveret.broker.model.exchanges.binding import (
    Binding,
    Destination,
    Destinations,
    add_destination,
    drop_destination,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from leveret.protocol.tables import Table


class DirectMatcher:
    """Routes to the bindings whose key equals a routing key."""

    __slots__ = ("_by_key",)

    cacheable: ClassVar[bool] = True

    def __init__(self, arguments: Table) -> None:
        self._by_key: dict[str, Destinations] = {}

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything."""

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        destinations = self._by_key.get(binding.binding_key)
        if destinations is None:
            destinations = self._by_key[binding.binding_key] = {}
        add_destination(destinations, binding.destination)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        destinations = self._by_key[binding.binding_key]
        drop_destination(destinations, binding.destination)
        if not destinations:
            del self._by_key[binding.binding_key]

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find the destinations in binding order. O(destinations found)."""
        if len(routing_keys) == 1:
            return self._by_key.get(routing_keys[0], ())
        found: Destinations = {}
        for key in routing_keys:
            destinations = self._by_key.get(key)
            if destinations is not None:
                found.update(destinations)
        return found


class DefaultMatcher:
    """Routes to the queue whose name is the routing key; every queue is bound by being there."""

    __slots__ = ("_queues",)

    cacheable: ClassVar[bool] = False  # queues come and go without a binding

    def __init__(self, queues: Mapping[str, Destination]) -> None:
        self._queues = queues

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything; nobody may bind here anyway."""

    def bind(self, binding: Binding) -> None:
        """Never happens: clients are refused with ACCESS_REFUSED before."""
        raise AssertionError("the default exchange has no bindings")

    def unbind(self, binding: Binding) -> None:
        """Never happens, see `bind`."""
        raise AssertionError("the default exchange has no bindings")

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find the queues of these names."""
        found: list[Destination] = []
        for key in routing_keys:
            queue = self._queues.get(key)
            if queue is not None and queue not in found:
                found.append(queue)
        return found
