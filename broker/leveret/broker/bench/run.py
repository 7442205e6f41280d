"""A run: one scenario on one broker; what it declares, opens and measures, and the result it gives."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.figures import NS
from leveret.broker.bench.inbox import BUFFER_BYTES, BrokerClosed
from leveret.broker.bench.loop import Loop
from leveret.broker.bench.order import Faults
from leveret.broker.bench.wire import Connection, Unreachable, Url
from leveret.protocol import tables
from leveret.protocol.errors import AMQPException

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.inbox import Taker
    from leveret.broker.bench.processes import BrokerProcesses

TICK_NS: Final = NS // 5  # between two looks at the broker's size, and two pictures of the progress bar
GENERATOR_BUSY: Final = 0.9  # share of its core from which on the generator may be what limits

_FAILURES: Final = (BrokerClosed, Unreachable, AMQPException, OSError)


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wants of a run; None leaves it to the scenario."""

    seconds: float = 5.0
    messages: int | None = None  # a fixed amount instead of the seconds
    size: int | None = None
    rate: float | None = None


@dataclass(slots=True)
class Result:
    """What a run gave; rates are per second."""

    scenario: str
    broker: str = ""
    url: str = ""
    verdict: list[str] = field(default_factory=list)  # empty: everything held
    published: int = 0
    delivered: int = 0
    confirmed: int = 0
    seconds: float = 0.0  # from the first publish to the last delivery or confirm
    publish_rate: float | None = None
    deliver_rate: float | None = None
    confirm_rate: float | None = None
    through_rate: float | None = None  # all that was done, by the whole time
    latency_ms: dict[str, float] | None = None
    confirm_ms: dict[str, float] | None = None
    sent_late_ms: dict[str, float] | None = None
    broker_cpu_seconds: float | None = None
    cpu_per_million: float | None = None
    peak_rss_mb: float | None = None
    generator_cpu_seconds: float = 0.0
    generator_processes: int = 1
    blocked: int = 0  # how often the broker asked to pause
    phases: dict[str, dict[str, float | None]] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)  # what only this scenario tells; units in the names

    @property
    def is_ok(self) -> bool:
        """Whether everything that was checked held."""
        return not self.verdict

    @property
    def generator_share(self) -> float:
        """How busy the generator was while the load went on: 1 is all that it could have used."""
        cores = min(self.generator_processes, os.cpu_count() or 1)
        return self.generator_cpu_seconds / (self.seconds * cores) if self.seconds else 0.0

    @property
    def is_generator_busy(self) -> bool:
        """Whether the generator may be what limits the rate, not the broker."""
        return self.generator_share >= GENERATOR_BUSY

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {"ok": self.is_ok, "generator_share": round(self.generator_share, 3), **asdict(self)}


class Run:
    """One scenario on one broker.

    Args:
        scenario: its name.
        url: the broker.
        options: what the user wants.
        processes: of the broker, if they can be seen.
        progress: is told now and then how much is done (0 to 1, or more when only the rest is to come) and
            how many messages or operations were done.
    """

    def __init__(
        self,
        scenario: str,
        url: Url,
        options: Options,
        processes: BrokerProcesses | None = None,
        progress: Callable[[float, int], None] = lambda _share, _count: None,
    ) -> None:
        self.url = url
        self.options = options
        self.processes = processes
        self.progress = progress
        self.faults = Faults()
        self.loop = Loop()
        self.result = Result(scenario, url=str(url))
        self.is_under_way = False  # set up: what breaks now is the broker's fault
        self.prefix = f"leveret-bench-{os.getpid()}-"
        self._connections: list[Connection] = []
        self._queues: list[str] = []
        self._exchanges: list[str] = []
        self._next_tick_ns = 0
        self._cpu_s = 0.0
        self._generator_cpu_s = 0.0

    # -- set up

    def connect(self, *channels: int, buffer_bytes: int = BUFFER_BYTES) -> Connection:
        """Connect and open channels."""
        connection = Connection(self.url, buffer_bytes)
        self._connections.append(connection)
        if not self.result.broker:
            self.result.broker = broker_name(connection.server_properties)
        for channel in channels:
            connection.open_channel(channel)
        self.loop.add(connection)
        return connection

    def queue(self, connection: Connection, name: str, *, durable: bool = False) -> str:
        """Declare a queue on channel 1; it is deleted when the run is over."""
        name = self.prefix + name
        self._queues.append(name)
        connection.call(1, commands.Queue.Declare, commands.Queue.DeclareOk, queue=name, durable=durable)
        return name

    def exchange(self, connection: Connection, name: str, kind: str) -> str:
        """Declare an exchange on channel 1; it is deleted when the run is over."""
        name = self.prefix + name
        self._exchanges.append(name)
        connection.call(
            1, commands.Exchange.Declare, commands.Exchange.DeclareOk, exchange=name, exchange_type=kind
        )
        return name

    def consume(
        self, connection: Connection, channel: int, queue: str, taker: Taker, prefetch: int | None = None
    ) -> None:
        """Start a consumer whose deliveries the taker reads; without a prefetch it does not acknowledge."""
        connection.inbox.takers[channel] = taker
        if prefetch is not None:
            connection.call(channel, commands.Basic.Qos, commands.Basic.QosOk, prefetch_count=prefetch)
        connection.call(
            channel, commands.Basic.Consume, commands.Basic.ConsumeOk,
            queue=queue, consumer_tag=f"bench-{channel}", no_ack=prefetch is None,
        )  # fmt: skip

    # -- take down

    def close(self) -> None:
        """Delete what was declared and close the connections; what fails here is left as it is."""
        if self._queues or self._exchanges:
            with contextlib.suppress(*_FAILURES):
                self._delete_all()
        self.loop.close()
        is_orderly = not self.faults  # else the broker may be silent, and nobody wants to wait for that
        for connection in self._connections:
            if is_orderly:
                try:
                    connection.close()
                except _FAILURES:
                    is_orderly = False
            connection.socket.close()

    def _delete_all(self) -> None:
        cleaner = Connection(self.url)
        cleaner.open_channel(1)
        for name in self._queues:
            cleaner.call(1, commands.Queue.Delete, commands.Queue.DeleteOk, queue=name)
        for name in self._exchanges:
            cleaner.call(1, commands.Exchange.Delete, commands.Exchange.DeleteOk, exchange=name)
        cleaner.close()

    # -- measuring

    def begin(self) -> int:
        """Note that the load begins; return the time."""
        self.is_under_way = True
        self._generator_cpu_s = time.process_time()
        self._cpu_s = self.broker_cpu_s()
        return time.perf_counter_ns()

    def broker_cpu_s(self) -> float:
        """Return the CPU time that the broker has used; 0 if it cannot be seen."""
        return 0.0 if self.processes is None else self.processes.cpu_seconds()

    def broker_rss_bytes(self) -> int:
        """Return the resident size of the broker; 0 if it cannot be seen."""
        return 0 if self.processes is None else self.processes.rss_bytes()

    def end(self, operations: int) -> None:
        """Note that the load is over, and that so many operations were done."""
        result = self.result
        result.generator_cpu_seconds += time.process_time() - self._generator_cpu_s
        if self.processes is not None:
            used = self.processes.cpu_seconds() - self._cpu_s
            result.broker_cpu_seconds = (result.broker_cpu_seconds or 0.0) + used
            result.cpu_per_million = result.broker_cpu_seconds * 1e6 / operations if operations else None
            self.processes.sample_rss()
            result.peak_rss_mb = round(self.processes.peak_rss_bytes / 1e6, 1)

    def tick(self, now_ns: int, share: float, count: int) -> None:
        """Look at the broker, and tell how far the run is, if it is time."""
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + TICK_NS
            if self.processes is not None:
                self.processes.sample_rss()
            self.progress(share, count)


def broker_name(properties: tables.Table) -> str:
    """Return what a broker calls itself, such as `Leveret 0.1.0` or `RabbitMQ 3.10.8`."""
    name = tables.longstr(properties, "broker")
    if name is not None:
        return f"{name} {tables.longstr(properties, 'broker_version') or ''}".strip()
    product = tables.longstr(properties, "product") or "a broker"
    return f"{product} {tables.longstr(properties, 'version') or ''}".strip()
