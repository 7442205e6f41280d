"""From the exchange a message is published to, to the queues it goes into. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.exchanges.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from leveret.broker.model.exchanges.binding import Destination
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message
    from leveret.protocol.tables import Table


class Route:
    """Where messages go.

    `cacheable` says that every message with these routing keys, published to this exchange, goes to these
    queues, whatever its headers, until an exchange or a binding of the vhost comes or goes.
    `depends_on_message` says that only each message itself, with `route_message`, tells where it goes; the
    queues are then those that it may go to. `is_kept` says that an exchange on the way has taken the message,
    to pass it on later or because it has been there before.
    """

    __slots__ = ("cacheable", "depends_on_message", "is_kept", "queues")

    def __init__(
        self, queues: list[Destination], cacheable: bool, depends_on_message: bool, is_kept: bool
    ) -> None:
        self.queues = queues
        self.cacheable = cacheable
        self.depends_on_message = depends_on_message
        self.is_kept = is_kept


def route(
    exchange: Exchange,
    routing_keys: list[str],
    headers: Table | None,
    find_exchange: Callable[[str], Exchange | None],
) -> Route:
    """Find the queues for a message, each once, in a fixed order: nearest exchange first, then by binding.

    Every exchange is visited once, so circles are harmless. An exchange whose bindings lead nowhere, not even
    to another exchange, passes the message to its alternate exchange. One that does not exist is ignored, and
    so is the default exchange in that place: RabbitMQ does the same.

    Args:
        exchange: the message is published to.
        routing_keys: its routing key first, then those of its CC and BCC headers.
        headers: of the message; they may be left out as long as the route is cacheable.
        find_exchange: looks up an exchange of the vhost by name.

    Source: RabbitMQ, exchange-to-exchange bindings and alternate exchanges.
    """
    return _route(exchange, routing_keys, headers, find_exchange, None, None)


def route_message(
    exchange: Exchange,
    routing_keys: list[str],
    message: Message,
    find_exchange: Callable[[str], Exchange | None],
    turn: Turn,
) -> Route:
    """Do the same for one message, once: exchanges on the way may remember it, or take a chance."""
    return _route(exchange, routing_keys, message.envelope.fields.headers, find_exchange, message, turn)


def _route(
    exchange: Exchange,
    routing_keys: list[str],
    headers: Table | None,
    find_exchange: Callable[[str], Exchange | None],
    message: Message | None,
    turn: Turn | None,
) -> Route:
    pending: list[Exchange] = [exchange]
    seen: set[Exchange] = {exchange}
    queues: dict[Destination, None] = {}
    cacheable = True
    depends_on_message = False
    is_kept = False
    visited = 0
    while visited < len(pending):
        source = pending[visited]
        visited += 1
        matcher = source.matcher
        if not matcher.cacheable:
            cacheable = False
        destinations: Collection[Destination] | None
        if not source.depends_on_message:
            destinations = matcher.destinations(routing_keys, headers)
        else:
            depends_on_message = True
            if message is None or turn is None:
                destinations = matcher.destinations(routing_keys, headers)
            else:
                destinations = source.pass_on(message, routing_keys, turn)
        if destinations is None:
            is_kept = True
        elif destinations:
            for destination in destinations:
                if isinstance(destination, Exchange):
                    if destination not in seen:
                        seen.add(destination)
                        pending.append(destination)
                else:
                    queues[destination] = None
        elif source.alternate_exchange:
            alternate = find_exchange(source.alternate_exchange)
            if alternate is not None and alternate not in seen:
                seen.add(alternate)
                pending.append(alternate)
    return Route(list(queues), cacheable and not depends_on_message, depends_on_message, is_kept)
