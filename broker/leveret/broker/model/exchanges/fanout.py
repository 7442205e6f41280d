"""The fanout exchange."""

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
    from collections.abc import Collection

    from leveret.protocol.tables import Table


class FanoutMatcher:
    """Routes to all bindings, whatever the keys."""

    __slots__ = ("_destinations",)

    cacheable: ClassVar[bool] = True

    def __init__(self, arguments: Table) -> None:
        self._destinations: Destinations = {}

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything."""

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        add_destination(self._destinations, binding.destination)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        drop_destination(self._destinations, binding.destination)

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Return every destination, in binding order."""
        return self._destinations


class UnknownTypeMatcher(FanoutMatcher):
    """Stands for a type that only another version of Leveret knows: routes nowhere."""

    __slots__ = ()

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find nothing."""
        return ()
