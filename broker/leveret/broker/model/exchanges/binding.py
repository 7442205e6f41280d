"""A binding, and what an exchange type has to know about bindings. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from leveret.protocol.tables import Table, encode_table

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.exchange import Exchange
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message


class Destination(Protocol):
    """What a binding leads to: a queue or an exchange, hashed by identity."""

    @property
    def name(self) -> str:
        """Its name in its vhost."""


class Binding:
    """A rule by which an exchange passes messages on; equal only to itself."""

    __slots__ = ("arguments", "binding_key", "destination", "source")

    def __init__(
        self, source: Exchange, destination: Destination, binding_key: str, arguments: Table
    ) -> None:
        self.source = source
        self.destination = destination
        self.binding_key = binding_key
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"<Binding {self.source.name!r} -> {self.destination.name!r} by {self.binding_key!r}>"


class Matcher(Protocol):
    """The routing table of an exchange: an exchange type is a class of this shape.

    `cacheable` says whether what a routing key leads to stays the same until a binding changes.
    """

    cacheable: ClassVar[bool]

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Refuse what this type cannot bind.

        Raises:
            PreconditionFailed: the binding key or the arguments make no sense to this type.
        """

    def bind(self, binding: Binding) -> None:
        """Add a binding that is valid and not there yet."""

    def unbind(self, binding: Binding) -> None:
        """Remove a binding that is there."""

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find where a message goes from here.

        Args:
            routing_keys: at least one: its routing key, then its CC and BCC keys.
            headers: of the message; None if it has none.

        Returns:
            each destination once; valid until the next change of bindings, and not to be changed.
        """


class Chooser(Protocol):
    """A matcher whose choice depends on more of a message than its keys and headers, or on chance."""

    def choose(self, message: Message, routing_keys: list[str], turn: Turn) -> Collection[Destination]:
        """Find where one message goes from here, once for each message that comes.

        `destinations` of such a matcher finds where messages may go.
        """


# Destination -> number of bindings that lead there. Two bindings may differ in their arguments alone.
Destinations: TypeAlias = dict[Destination, int]
Identity: TypeAlias = tuple[Destination, str, bytes]


def identity(destination: Destination, binding_key: str, arguments: Table) -> Identity:
    """What tells bindings of one source apart; the order of the arguments does not."""
    if not arguments:
        return destination, binding_key, b""
    return destination, binding_key, encode_table(dict(sorted(arguments.items())))


def add_destination(destinations: Destinations, destination: Destination) -> None:
    """Count one more binding to a destination."""
    destinations[destination] = destinations.get(destination, 0) + 1


def drop_destination(destinations: Destinations, destination: Destination) -> None:
    """Count one binding less to a destination; at none it is gone."""
    count = destinations[destination] - 1
    if count:
        destinations[destination] = count
    else:
        del destinations[destination]
