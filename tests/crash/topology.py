"""The queues, exchanges and routes of the crash test's workload.

Where a message must go is written down as a table and not computed, so that the test does not repeat the
broker's routing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamqp import base, commands

if TYPE_CHECKING:
    from pamqp.common import FieldValue


@dataclass(frozen=True)
class Route:
    """A way to publish, and the queues it must lead to."""

    exchange: str
    key: str
    queues: tuple[str, ...]
    mandatory: bool = False


# What each of the four consumers takes. Two of them share "mail"; the others have a queue to themselves.
CONSUMED = (("orders", "eu"), ("mail", "audit"), ("search", "mail", "sales"), ("billing",))
QUEUES = ("orders", "mail", "audit", "search", "billing", "eu", "sales")
WITHOUT_DEAD_LETTERS = "audit"

ROUTES = (
    Route("", "orders", ("orders",)),
    Route("direct", "post", ("mail",), mandatory=True),
    Route("fanout", "", ("audit", "search", "billing")),
    Route("topic", "eu.order.new", ("eu", "sales"), mandatory=True),
    Route("topic", "us.order.new", ("sales",)),
    Route("topic", "eu.mail", ("eu",)),
    Route("topic", "us.mail", (), mandatory=True),
    Route("topic", "us.mail", ()),
)
BINDINGS = (
    ("direct", "post", "mail"),
    ("fanout", "", "audit"),
    ("fanout", "", "search"),
    ("fanout", "", "billing"),
    ("topic", "eu.#", "eu"),
    ("topic", "*.order.*", "sales"),
)


@dataclass(frozen=True)
class Topology:
    """The names of one run: all of them begin with a prefix, so that runs do not meet on a shared broker."""

    prefix: str

    def name(self, name: str) -> str:
        """Return the full name of a queue or exchange; the default exchange keeps its own."""
        return self.prefix + name if name else ""

    def dead(self, queue: str) -> str | None:
        """Return the full name of the dead letter queue of a queue, if it has one."""
        return None if queue == WITHOUT_DEAD_LETTERS else self.name(f"{queue}.dead")

    def queues(self) -> dict[str, str | None]:
        """Return all queues with their dead letter queues, by full name."""
        work = {self.name(queue): self.dead(queue) for queue in QUEUES}
        return work | {dead: None for dead in work.values() if dead is not None}

    def dead_letter_queues(self) -> list[str]:
        """Return the full names of the dead letter queues."""
        return [dead for dead in self.queues().values() if dead is not None]

    def routes(self) -> list[Route]:
        """Return the routes by full name."""
        routes = []
        for route in ROUTES:
            key = route.key if route.exchange else self.name(route.key)
            queues = tuple(self.name(queue) for queue in route.queues)
            routes.append(Route(self.name(route.exchange), key, queues, route.mandatory))
        return routes

    def declarations(self) -> list[tuple[str, str, base.Frame, type[base.Frame]]]:
        """Return (kind, name, method, answer) for everything, in an order that works."""
        methods: list[tuple[str, str, base.Frame, type[base.Frame]]] = []
        for queue, dead in self.queues().items():
            arguments: dict[str, FieldValue] = {}
            if dead is not None:
                arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
            declare = commands.Queue.Declare(queue=queue, durable=True, arguments=arguments)
            methods.append(("queue", queue, declare, commands.Queue.DeclareOk))
        for kind in ("direct", "fanout", "topic"):
            exchange = commands.Exchange.Declare(exchange=self.name(kind), exchange_type=kind, durable=True)
            methods.append(("exchange", self.name(kind), exchange, commands.Exchange.DeclareOk))
        for kind, key, queue in BINDINGS:
            bind = commands.Queue.Bind(queue=self.name(queue), exchange=self.name(kind), routing_key=key)
            methods.append(("binding", f"{kind}-{key}-{queue}", bind, commands.Queue.BindOk))
        return methods

    def removals(self) -> list[tuple[base.Frame, type[base.Frame]]]:
        """Return (method, answer) for taking everything away again."""
        methods: list[tuple[base.Frame, type[base.Frame]]] = [
            (commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk) for queue in self.queues()
        ]
        methods += [
            (commands.Exchange.Delete(exchange=self.name(kind)), commands.Exchange.DeleteOk)
            for kind in ("direct", "fanout", "topic")
        ]
        return methods
