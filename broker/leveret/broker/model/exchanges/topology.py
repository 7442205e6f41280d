"""All bindings of one vhost, from both ends, and what goes when one end goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.exchanges.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.binding import Binding, Destination
    from leveret.protocol.tables import Table


class Removed:
    """What an unbinding or a deletion took with it, in order."""

    __slots__ = ("bindings", "exchanges")

    def __init__(self) -> None:
        self.bindings: list[Binding] = []
        self.exchanges: list[Exchange] = []  # auto-delete exchanges that lost their last binding


class Topology:
    """Who is bound to whom.

    A binding is known to its source, which routes by it, and here by its destination, so that a queue among
    100,000 is bound, unbound and deleted without a look at the others."""

    __slots__ = ("_incoming",)

    def __init__(self) -> None:
        self._incoming: dict[Destination, dict[Binding, None]] = {}

    def bind(
        self, source: Exchange, destination: Destination, binding_key: str, arguments: Table
    ) -> Binding | None:
        """Add a binding.

        Returns:
            None if there is an identical one already.

        Raises:
            PreconditionFailed: the exchange type has no use for this key or these arguments.

        Source: AMQP 0-9-1 queue.bind (50, 20), exchange.bind (40, 30).
        """
        binding = source.bind(destination, binding_key, arguments)
        if binding is not None:
            self._incoming.setdefault(destination, {})[binding] = None
        return binding

    def unbind(
        self, source: Exchange, destination: Destination, binding_key: str, arguments: Table
    ) -> Removed:
        """Remove a binding if it is there, and its source if that was its last one and it is auto-delete.

        Source: AMQP 0-9-1 queue.unbind (50, 50), exchange.unbind (40, 40).
        """
        removed = Removed()
        binding = source.unbind(destination, binding_key, arguments)
        if binding is not None:
            self._forget(binding)
            removed.bindings.append(binding)
            if _is_abandoned(source):
                removed.exchanges.append(source)
                self._cut_off(source, removed)
        return removed

    def delete(self, end: Destination) -> Removed:
        """Remove all bindings of a queue or an exchange that is being deleted, in both directions."""
        removed = Removed()
        self._cut_off(end, removed)
        return removed

    def incoming(self, destination: Destination) -> Collection[Binding]:
        """Bindings that lead to a queue or an exchange, in the order in which they were made."""
        return self._incoming.get(destination, {}).keys()

    def _cut_off(self, end: Destination, removed: Removed) -> None:
        """Remove the bindings of one end; sources that are left without any and auto-delete follow."""
        pending = [end]
        for lost in pending:  # grows
            if isinstance(lost, Exchange):
                for binding in list(lost.bindings):
                    lost.unbind(binding.destination, binding.binding_key, binding.arguments)
                    self._forget(binding)
                    removed.bindings.append(binding)
            for binding in self._incoming.pop(lost, {}):
                source = binding.source
                source.unbind(lost, binding.binding_key, binding.arguments)
                removed.bindings.append(binding)
                if _is_abandoned(source) and source not in pending:
                    pending.append(source)
                    removed.exchanges.append(source)

    def _forget(self, binding: Binding) -> None:
        incoming = self._incoming[binding.destination]
        del incoming[binding]
        if not incoming:
            del self._incoming[binding.destination]


def _is_abandoned(exchange: Exchange) -> bool:
    """Whether an exchange must go, its last binding as a source having gone."""
    return exchange.auto_delete and not exchange.bindings
