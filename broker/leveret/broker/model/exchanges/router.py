"""Where messages go in a vhost: exchanges and bindings followed, and what was found remembered. HOT.

A route that depends on nothing but exchange and routing key is kept in `Router.routes`, so that a run of
publishes costs one look into a dictionary. Whatever changes an exchange, a binding or a policy clears it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.model.exchanges.routing import Route, route, route_message
from leveret.broker.model.queues.queue import Queue
from leveret.protocol.errors import AccessRefused, NotFound

if TYPE_CHECKING:
    from leveret.broker.model.exchanges.delay import Delay
    from leveret.broker.model.exchanges.exchange import Exchange
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message
    from leveret.protocol.tables import Table

ROUTES_MAX: Final = 100_000  # cached routes; more and the cache starts again


class Router:
    """Finds the queues that a message goes into.

    Args:
        turn: what the current turn gathers.
        vhost_name: for errors.
        exchanges: of the vhost, by name; as they are at any moment.
        queues: of the vhost, by name; as they are at any moment.
    """

    __slots__ = ("_exchanges", "_queues", "_turn", "_vhost_name", "routes")

    def __init__(
        self, turn: Turn, vhost_name: str, exchanges: dict[str, Exchange], queues: dict[str, Queue]
    ) -> None:
        self._turn = turn
        self._vhost_name = vhost_name
        self._exchanges = exchanges
        self._queues = queues
        # (exchange, routing key) -> queues, for routes that depend on nothing else; the default exchange
        # needs none
        self.routes: dict[tuple[str, str], list[Queue]] = {}

    def exchange(self, name: str) -> Exchange:
        """Return an exchange.

        Raises:
            NotFound: there is none of this name.
        """
        exchange = self._exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no exchange '{name}' in vhost '{self._vhost_name}'")
        return exchange

    def require_publishable(self, name: str) -> Exchange:
        """Return an exchange that clients may publish to.

        Raises:
            AccessRefused: it is internal.
            NotFound: there is none of this name.
        """
        exchange = self.exchange(name)
        if exchange.internal:
            raise AccessRefused(f"cannot publish to internal exchange '{name}' in vhost '{self._vhost_name}'")
        return exchange

    def route(self, exchange_name: str, routing_keys: list[str], headers: Table | None) -> list[Queue] | None:
        """Find the queues that a client's message goes into.

        Args:
            exchange_name: where it is published to.
            routing_keys: its routing key first, then those of its CC and BCC headers.
            headers: of the message.

        Returns:
            None if that depends on each message: ask `queues_of` for each.

        Raises:
            AccessRefused, NotFound: see `require_publishable`.
        """
        exchange = self.require_publishable(exchange_name)
        return self.queues_for(exchange, routing_keys, headers)

    def queues_for(
        self, exchange: Exchange, routing_keys: list[str], headers: Table | None
    ) -> list[Queue] | None:
        """Find the queues that a message goes into from an exchange, which may be an internal one.

        Returns:
            None if that depends on each message: ask `queues_of` for each.
        """
        is_single = len(routing_keys) == 1
        if is_single and not exchange.name:
            queue = self._queues.get(routing_keys[0])
            return [queue] if queue is not None else []
        found = route(exchange, routing_keys, headers, self._exchanges.get)
        if found.depends_on_message:
            return None
        queues = _queues_in(found)
        if found.cacheable and is_single and not exchange.internal:
            if len(self.routes) >= ROUTES_MAX:
                self.routes.clear()
            self.routes[(exchange.name, routing_keys[0])] = queues
        return queues

    def queues_of(
        self, exchange: Exchange, routing_keys: list[str], message: Message
    ) -> tuple[list[Queue], bool]:
        """Find the queues that one message goes into, and have the exchanges on the way do what they do.

        Returns:
            the queues, and whether an exchange has taken the message.
        """
        found = route_message(exchange, routing_keys, message, self._exchanges.get, self._turn)
        return _queues_in(found), found.is_kept

    def may_lead_somewhere(self, exchange: Exchange, routing_keys: list[str], headers: Table | None) -> bool:
        """Whether a message that waits in an exchange would have a queue to go to if its time came now."""
        return bool(_queues_in(route(exchange, routing_keys, headers, self._exchanges.get)))

    def route_due(self, delay: Delay) -> None:
        """Route messages whose time has come, by the bindings of this moment."""
        exchange = self._exchanges.get(delay.exchange_name)
        if exchange is None or exchange.delay is not delay:
            return
        for content in delay.take_due():
            message, keys, ttl_ms = delay.released(content)
            self._turn.released = message
            for queue in self.queues_of(exchange, keys, message)[0]:
                queue.enqueue([message], message.body_bytes, ttl_ms)


def _queues_in(found: Route) -> list[Queue]:
    return [queue for queue in found.queues if isinstance(queue, Queue)]
