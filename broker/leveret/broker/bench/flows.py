"""What scenarios are made of: a run on one broker, and flows of messages from publishers to consumers."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.figures import NS, WARM_UP_NS, Histogram, Pace, SendTimes
from leveret.broker.bench.inbox import BrokerClosed, Stream
from leveret.broker.bench.loop import Loop
from leveret.broker.bench.order import Confirms, Faults, Order
from leveret.broker.bench.publisher import Publisher, publish_rows
from leveret.broker.bench.wire import Connection, Unreachable, Url
from leveret.protocol import tables
from leveret.protocol.properties import NO_PROPERTIES, PERSISTENT, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.processes import BrokerProcesses

STALL_NS: Final = 20 * NS  # without any progress a run is over: what has not come is lost
TICK_NS: Final = NS // 5  # between two looks at the broker's size, and two pictures of the progress bar
PREFETCH: Final = 1000  # of consumers that acknowledge
ACK_EVERY: Final = 100  # deliveries they acknowledge at once


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
    blocked: int = 0  # how often the broker asked to pause
    phases: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether everything that was checked held."""
        return not self.verdict

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {"ok": self.is_ok, **asdict(self)}


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

    def connect(self, *channels: int) -> Connection:
        """Connect and open channels."""
        connection = Connection(self.url)
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
        self, connection: Connection, channel: int, queue: str, stream: Stream, *, acks: bool
    ) -> None:
        """Start a consumer whose deliveries the stream takes."""
        connection.inbox.takers[channel] = stream
        if acks:
            connection.call(channel, commands.Basic.Qos, commands.Basic.QosOk, prefetch_count=PREFETCH)
        connection.call(
            channel, commands.Basic.Consume, commands.Basic.ConsumeOk,
            queue=queue, consumer_tag=f"bench-{channel}", no_ack=not acks,
        )  # fmt: skip

    # -- take down

    def close(self) -> None:
        """Delete what was declared and close the connections; what fails here is left as it is."""
        failures = (BrokerClosed, Unreachable, OSError)
        with contextlib.suppress(*failures):
            cleaner = Connection(self.url)
            cleaner.open_channel(1)
            for name in self._queues:
                cleaner.call(1, commands.Queue.Delete, commands.Queue.DeleteOk, queue=name)
            for name in self._exchanges:
                cleaner.call(1, commands.Exchange.Delete, commands.Exchange.DeleteOk, exchange=name)
            cleaner.close()
        self.loop.close()
        for connection in self._connections:
            connection.socket.close()

    # -- measuring

    def begin(self) -> int:
        """Note that the load begins; return the time."""
        self.is_under_way = True
        self._generator_cpu_s = time.process_time()
        if self.processes is not None:
            self._cpu_s = self.processes.cpu_seconds()
        return time.perf_counter_ns()

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


@dataclass(slots=True)
class _Consumer:
    """A stream and where it comes from."""

    stream: Stream
    publisher: Publisher
    connection: Connection
    channel: int
    queue: str | None  # to be empty in the end; None for a reply queue


class Flow:
    """Messages from publishers to consumers.

    Args:
        run: what it belongs to.
        body_bytes: size of the bodies, unless the user gave one.
        persistent: whether they are published with delivery mode 2.
        window: publishes that may be out; None for any number.
        confirms: whether the publishers ask for confirms.
        acks: whether the consumers acknowledge.
        rate: messages per second of all publishers, unless the user gave one.
    """

    def __init__(
        self,
        run: Run,
        body_bytes: int = 16,
        *,
        persistent: bool = False,
        window: int | None = None,
        confirms: bool = False,
        acks: bool = False,
        rate: float | None = None,
        publisher_count: int = 1,
    ) -> None:
        self.run = run
        self.body_bytes = run.options.size or body_bytes
        self.persistent = persistent
        self.window = window
        self.confirms = confirms
        self.acks = acks
        self.publishers: list[Publisher] = []
        self.consumers: list[_Consumer] = []
        self.latency = Histogram()
        self.confirm_latency = Histogram()
        self.late = Histogram()
        self.start_ns = 0
        self._publisher_count = publisher_count
        self._rate = run.options.rate or rate
        self._measured_from_ns = 0

    def add_publisher(
        self,
        connection: Connection,
        channel: int,
        routes: list[tuple[str, str]],
        properties: bytes = NO_PROPERTIES,
        limit: int | None = None,
    ) -> Publisher:
        """Add a publisher that uses the exchanges and routing keys in turns."""
        run = self.run
        number = len(self.publishers)
        if self.persistent:
            properties = replace(properties, delivery_mode=PERSISTENT)
        kinds = [
            publish_rows(
                channel, exchange, key, self.body_bytes,
                publisher=number, properties=properties, frame_max=connection.frame_max,
            )
            for exchange, key in routes
        ]  # fmt: skip
        count = self._publisher_count
        wanted = limit or run.options.messages
        if wanted is not None:
            wanted = wanted // count + (number < wanted % count)
        confirms = None
        if self.confirms:
            connection.call(channel, commands.Confirm.Select, commands.Confirm.SelectOk)
            confirms = Confirms(f"channel {channel} of publisher {number + 1}", run.faults)
        publisher = Publisher(
            connection, channel, kinds, SendTimes(count * NS / self._rate if self._rate else None),
            limit=wanted, window=self.window, confirms=confirms,
            confirm_latency=self.confirm_latency, late=self.late,
        )  # fmt: skip
        self.publishers.append(publisher)
        return publisher

    def add_consumer(
        self,
        connection: Connection,
        channel: int,
        queue: str,
        publisher: Publisher,
        routes: list[tuple[str, str]],
        *,
        cycle: int = 1,
        positions: tuple[int, ...] = (0,),
        on_run: Callable[[int, int], None] | None = None,
        latency: Histogram | None = None,
    ) -> Stream:
        """Add a consumer of a queue that gets this publisher's messages, or those at `positions`."""
        order = Order(f"queue {queue.removeprefix(self.run.prefix)}", self.run.faults, cycle, positions)
        stream = Stream(
            order, self.body_bytes, self.publishers.index(publisher), publisher.times,
            self.latency if latency is None else latency,
            routes=routes, ack_every=ACK_EVERY if self.acks else 0, send=connection.send, on_run=on_run,
        )  # fmt: skip
        stream.measured_from_ns = self._measured_from_ns
        own = queue if queue.startswith(self.run.prefix) else None
        self.consumers.append(_Consumer(stream, publisher, connection, channel, own))
        self.run.consume(connection, channel, queue, stream, acks=self.acks)
        return stream

    # -- counts

    @property
    def published(self) -> int:
        """How many messages were published."""
        return sum(publisher.published for publisher in self.publishers)

    @property
    def delivered(self) -> int:
        """How many messages came to consumers, counted once for each queue."""
        return sum(consumer.stream.order.taken for consumer in self.consumers)

    @property
    def confirmed(self) -> int:
        """How many publishes were confirmed."""
        return sum(each.confirms.count for each in self.publishers if each.confirms is not None)

    def _counts(self) -> tuple[int, int, int]:
        return self.published, self.delivered, self.confirmed

    # -- phases

    def go(self) -> None:
        """Publish and consume, then check that everything has come."""
        self.publish()
        self.drain()
        self.finish()

    def publish(self, start_ns: int | None = None) -> None:
        """Publish for the seconds or the number of messages that are wanted, and note the rates."""
        run = self.run
        timed = all(publisher.limit is None for publisher in self.publishers)
        self.start_ns = now = run.begin() if start_ns is None else start_ns
        length_ns = int(run.options.seconds * NS)
        warm_up_ns = min(WARM_UP_NS, length_ns // 4) if timed else 0
        self._measured_from_ns = now + warm_up_ns
        for consumer in self.consumers:
            consumer.stream.measured_from_ns = self._measured_from_ns
        for number, publisher in enumerate(self.publishers):
            publisher.measured_from_ns = self._measured_from_ns
            publisher.start(now, int(number * NS / self._rate) if self._rate else 0)
        if self._rate:
            run.loop.pace(self.publishers)
        for publisher in self.publishers:
            run.loop.add(publisher.connection)
        pace = Pace(now, warm_up_ns)
        wanted = sum(publisher.limit or 0 for publisher in self.publishers)
        is_warm = not timed
        watch = _Watch(
            now, max(STALL_NS, int(3 * self._publisher_count * NS / self._rate) if self._rate else 0)
        )

        def is_over(now: int) -> bool:
            nonlocal is_warm
            counts = self._counts()
            run.tick(now, (now - self.start_ns) / length_ns if timed else counts[0] / wanted, sum(counts[:2]))
            if not is_warm and now >= pace.warm_ns:
                is_warm = True
                pace.mark(now, counts)
            if timed and now >= self.start_ns + length_ns:
                for publisher in self.publishers:
                    publisher.is_stopped = True
            is_stalled = watch.is_stalled(now, sum(counts))
            pending = any(publisher.connection.has_pending for publisher in self.publishers)
            return is_stalled or (not pending and all(publisher.is_done for publisher in self.publishers))

        run.loop.run(is_over)
        pace.mark(time.perf_counter_ns(), self._counts())
        result = run.result
        result.publish_rate, result.deliver_rate, result.confirm_rate = pace.rates()

    def drain(self) -> None:
        """Wait for what is still to come."""
        run = self.run
        for publisher in self.publishers:
            publisher.is_stopped = True
        watch = _Watch(time.perf_counter_ns())
        due = sum(each.stream.order.count(each.publisher.published) for each in self.consumers)

        def is_over(now: int) -> bool:
            delivered, confirmed = self.delivered, self.confirmed
            run.tick(now, 1 + delivered / max(due, 1), delivered)
            is_complete = delivered >= due and (not self.confirms or confirmed >= self.published)
            return is_complete or watch.is_stalled(now, delivered + confirmed)

        run.loop.run(is_over)

    def last_ns(self) -> int:
        """Return when the last delivery or confirm came."""
        came = [consumer.stream.last_ns for consumer in self.consumers]
        came += [publisher.last_confirm_ns for publisher in self.publishers]
        return max(came, default=0) or time.perf_counter_ns()

    def note(self) -> None:
        """Note in the result what was measured; nothing after this counts."""
        run, result = self.run, self.run.result
        result.published, result.delivered, result.confirmed = self._counts()
        result.seconds = max(self.last_ns() - self.start_ns, 1) / NS
        done = result.delivered if self.consumers else result.confirmed
        result.through_rate = done / result.seconds
        if not self.consumers:
            result.deliver_rate = None
        if not self.confirms:
            result.confirm_rate = None
        result.latency_ms = self.latency.summary_ms()
        result.confirm_ms = self.confirm_latency.summary_ms()
        result.sent_late_ms = self.late.summary_ms()
        result.blocked = sum(publisher.connection.inbox.blocked_count for publisher in self.publishers)
        run.end(result.published)

    def finish(self) -> None:
        """Note the figures, then check."""
        self.note()
        self.check()

    def check(self) -> None:
        """See that nothing is missing, nothing more comes, and the queues are empty."""
        for consumer in self.consumers:
            consumer.connection.inbox.process(may_wait=False)
            consumer.stream.ack()
        for consumer in self.consumers:
            self._check_queue(consumer)
            consumer.stream.order.finish(consumer.publisher.published)
        for publisher in self.publishers:
            if publisher.confirms is not None:
                publisher.confirms.finish(publisher.published)

    def _check_queue(self, consumer: _Consumer) -> None:
        """Cancel the consumer and look what is left; the acks before on this channel count."""
        if consumer.queue is None:
            return
        connection, channel = consumer.connection, consumer.channel
        connection.call(
            channel, commands.Basic.Cancel, commands.Basic.CancelOk, consumer_tag=f"bench-{channel}"
        )
        consumer.stream.ack()
        deleted = connection.call(
            channel, commands.Queue.Delete, commands.Queue.DeleteOk, queue=consumer.queue
        )
        if deleted.message_count:
            order = consumer.stream.order
            self.run.faults.add("left in a queue whose messages all came", order.name, deleted.message_count)


class _Watch:
    """Tells when nothing has happened for too long."""

    def __init__(self, now_ns: int, patience_ns: int = STALL_NS) -> None:
        self._patience_ns = patience_ns
        self._count = -1
        self._since_ns = now_ns

    def is_stalled(self, now_ns: int, count: int) -> bool:
        """Whether the count has not changed for that long."""
        if count != self._count:
            self._count, self._since_ns = count, now_ns
        return now_ns - self._since_ns > self._patience_ns
