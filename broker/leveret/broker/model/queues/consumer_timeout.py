"""Consumer timeouts: a channel that keeps a delivery unacked for too long is closed. HOT.

Theory of operation
-------------------
No delivery knows when it was made. A channel on which there is a timeout is looked at now and then, at most
once in `LOOK_MS` as RabbitMQ does, and each time the next delivery tag is marked with the time: what has a
lower tag was delivered before. So a delivery is told to be late no sooner than its timeout allows, and no
later than two looks after that.

The timeout of a delivery is the smaller one of its consumer and its queue, and if neither has one that of the
broker. 0 is none.

Source: RabbitMQ guide "Consumers", delivery acknowledgement timeout.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from leveret.protocol.errors import PreconditionFailed

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.queues.queue import Queue

LOOK_MS: Final = 60_000  # between two looks at a channel; half of its shortest timeout if that is less
LOOK_MIN_MS: Final = 100
MARKS_MAX: Final = 1000  # of one channel; beyond it every other one is removed
CLOSED_MAX: Final = 1000  # and as many as are open: watches of closed channels that nobody has removed


class Watch:
    """What is known of the times of one channel's deliveries."""

    __slots__ = ("_marks", "armed_at_ms", "channel", "least_ms", "marks_max")

    def __init__(self, channel: Channel, least_ms: int) -> None:
        self.channel = channel
        self.least_ms = least_ms  # the shortest timeout on it
        self.marks_max: int = MARKS_MAX
        self.armed_at_ms: int = 0
        self._marks: list[tuple[int, int]] = []  # when, delivery tag of the next delivery then

    @property
    def interval_ms(self) -> int:
        """How long to wait between two looks."""
        return max(LOOK_MIN_MS, min(LOOK_MS, self.least_ms // 2))

    def look(self, now_ms: int, default_ms: int) -> int:
        """Look at the channel.

        Args:
            now_ms: the time.
            default_ms: timeout of deliveries that have none of their own; 0 for none.

        Returns:
            the timeout of a delivery that is late; 0 if there is none.
        """
        unacked = self.channel.unacked
        marks = self._marks
        used = 0
        for tag, entry in unacked.items():
            while used < len(marks) and marks[used][1] <= tag:
                used += 1
            if used == len(marks) or now_ms - marks[used][0] < self.least_ms:
                break
            timeout_ms = timeout_of(entry.queue, entry.consumer, default_ms)
            if timeout_ms and now_ms - marks[used][0] >= timeout_ms:
                return timeout_ms
        self._forget_marks()
        tag = self.channel.next_delivery_tag
        if unacked and (not marks or marks[-1][1] < tag):
            marks.append((now_ms, tag))
        return 0

    def _forget_marks(self) -> None:
        """Remove the marks behind which nothing is unacked any more."""
        marks = self._marks
        oldest = next(iter(self.channel.unacked), self.channel.next_delivery_tag)
        gone = 0
        while gone < len(marks) and marks[gone][1] <= oldest:
            gone += 1
        del marks[:gone]
        if len(marks) > self.marks_max:
            del marks[::2]


class Watches:
    """The channels to look at."""

    __slots__ = ("_heap", "_number", "_open", "closed_max", "default_ms")

    def __init__(self) -> None:
        self.default_ms: int = 0  # timeout where nobody says another
        self.closed_max: int = CLOSED_MAX
        self._heap: list[tuple[int, int, Watch]] = []  # when, a number, whom to look at
        self._number: int = 0
        self._open: int = 0  # watches of open channels when they were counted last

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, queue: Queue, consumer: Consumer | None, channel: Channel) -> None:
        """Look after the deliveries from a queue to a consumer, or to basic.get, if they have a timeout."""
        timeout_ms = timeout_of(queue, consumer, self.default_ms)
        if not timeout_ms:
            return
        watch = channel.watch
        if watch is None:
            watch = channel.watch = Watch(channel, timeout_ms)
        elif watch.least_ms <= timeout_ms:
            return
        watch.least_ms = timeout_ms
        self._arm(watch, queue.turn.now_ms)

    def _arm(self, watch: Watch, now_ms: int) -> None:
        watch.armed_at_ms = now_ms + watch.interval_ms
        self._number += 1
        heappush(self._heap, (watch.armed_at_ms, self._number, watch))
        if len(self._heap) > self.closed_max + 2 * self._open:
            self._heap = [item for item in self._heap if _is_due(*item)]
            heapify(self._heap)
            self._open = len(self._heap)

    @property
    def next_ms(self) -> int:
        """When to look next; 0 for never."""
        return self._heap[0][0] if self._heap else 0

    def late(self, now_ms: int) -> list[tuple[Channel, PreconditionFailed]]:
        """Look at the channels whose turn it is.

        Returns:
            those that have to be closed, and with which error.
        """
        found: list[tuple[Channel, PreconditionFailed]] = []
        while self._heap and self._heap[0][0] <= now_ms:
            item = heappop(self._heap)
            if not _is_due(*item):
                continue
            watch = item[2]
            timeout_ms = watch.look(now_ms, self.default_ms)
            if timeout_ms:
                found.append((watch.channel, _timed_out(watch.channel, timeout_ms)))
            else:
                self._arm(watch, now_ms)
        return found


def timeout_of(queue: Queue, consumer: Consumer | None, default_ms: int) -> int:
    """Return the timeout of a delivery from a queue; 0 for none."""
    of_queue = queue.arguments.consumer_timeout_ms
    of_consumer = None if consumer is None else consumer.timeout_ms
    if of_queue is None and of_consumer is None:
        return default_ms
    return min(filter(None, (of_queue, of_consumer)), default=0)


def _is_due(at_ms: int, _: int, watch: Watch) -> bool:
    return watch.armed_at_ms == at_ms and not watch.channel.is_closed


def _timed_out(channel: Channel, timeout_ms: int) -> PreconditionFailed:
    return PreconditionFailed(
        f"delivery acknowledgement on channel {channel.number} timed out. Timeout value used: {timeout_ms}"
        " ms. This timeout value can be configured, see consumers doc guide to learn more"
    )
