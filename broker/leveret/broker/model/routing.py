"""From the exchange a message is published to, to the queues it goes into. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.binding import Destination
    from leveret.protocol.tables import Table


class Route:
    """Where messages go.

    `cacheable` says that every message with these routing keys, published to this exchange, goes to these
    queues, whatever its headers, until an exchange or a binding of the vhost comes or goes.
    """

    __slots__ = ("cacheable", "queues")

    def __init__(self, queues: list[Destination], cacheable: bool) -> None:
        self.queues = queues
        self.cacheable = cacheable


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
    pending: list[Exchange] = [exchange]
    seen: set[Exchange] = {exchange}
    queues: dict[Destination, None] = {}
    cacheable = True
    visited = 0
    while visited < len(pending):
        source = pending[visited]
        visited += 1
        matcher = source.matcher
        if not matcher.cacheable:
            cacheable = False
        destinations = matcher.destinations(routing_keys, headers)
        if destinations:
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
    return Route(list(queues), cacheable)
