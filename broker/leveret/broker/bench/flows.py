"""Flows of messages from publishers to consumers, and the phases of a run: publish, drain, check."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.figures import NS, WARM_UP_NS, Histogram, Pace, SendTimes
from leveret.broker.bench.inbox import Stream
from leveret.broker.bench.order import Confirms, Order
from leveret.broker.bench.publisher import Publisher, publish_rows
from leveret.protocol.properties import NO_PROPERTIES, PERSISTENT, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.run import Run
    from leveret.broker.bench.wire import Connection

STALL_NS: Final = 20 * NS  # without any progress a run is over: what has not come is lost
PREFETCH: Final = 1000  # of consumers that acknowledge
ACK_EVERY: Final = 100  # deliveries they acknowledge at once
LENGTH_MAX: Final = 3  # a run is not to last longer than so many times the seconds that it is to publish
LOOK_SHARE: Final = 8  # after this part of the seconds it is clear how fast messages are delivered


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
        prefetch: of consumers that acknowledge.
        ack_every: how many deliveries they acknowledge at once.
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
        prefetch: int = PREFETCH,
        ack_every: int = ACK_EVERY,
        rate: float | None = None,
        publisher_count: int = 1,
    ) -> None:
        self.run = run
        self.body_bytes = run.options.size or body_bytes
        self.persistent = persistent
        self.window = window
        self.confirms = confirms
        self.acks = acks
        self.prefetch = prefetch
        self.ack_every = ack_every
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
            routes=routes, ack_every=self.ack_every if self.acks else 0, send=connection.send, on_run=on_run,
        )  # fmt: skip
        stream.measured_from_ns = self._measured_from_ns
        own = queue if queue.startswith(self.run.prefix) else None
        self.consumers.append(_Consumer(stream, publisher, connection, channel, own))
        self.run.consume(connection, channel, queue, stream, self.prefetch if self.acks else None)
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
            if timed and (now >= self.start_ns + length_ns or self._is_far_behind(now, length_ns)):
                for publisher in self.publishers:
                    publisher.is_stopped = True
            is_stalled = watch.is_stalled(now, sum(counts))
            pending = any(publisher.connection.has_pending for publisher in self.publishers)
            return is_stalled or (not pending and all(publisher.is_done for publisher in self.publishers))

        run.loop.run(is_over)
        pace.mark(time.perf_counter_ns(), self._counts())
        result = run.result
        result.publish_rate, result.deliver_rate, result.confirm_rate = pace.rates()

    def _is_far_behind(self, now: int, length_ns: int) -> bool:
        """Whether to publish no more, because what waits already will take too long to deliver."""
        passed = now - self.start_ns
        if self._rate or passed < length_ns // LOOK_SHARE or not self.consumers:
            return False
        delivered = self.delivered
        due = sum(each.stream.order.count(each.publisher.published) for each in self.consumers)
        return due * passed > max(delivered, 1) * LENGTH_MAX * length_ns

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
