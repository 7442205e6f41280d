"""Random histories of a stream against a list: what is published, removed, lost in a crash, and read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from leveret.broker.model.streams.segments import ROW_BYTES
from leveret.broker.model.streams.stream_reader import READ_MESSAGES
from leveret.protocol.properties import Properties
from leveret.protocol.tables import Field

from ..peer import Content
from .harness import START_MS, Broker, ChannelOfTest, delivery_tag

SEGMENT_BYTES = 10 * (ROW_BYTES + 20)
MAX_BYTES = 4 * SEGMENT_BYTES

counts = st.one_of(st.integers(1, 30), st.integers(READ_MESSAGES - 1, READ_MESSAGES + 1))
steps = st.one_of(
    st.tuples(st.just("publish"), counts),
    st.tuples(st.just("lose"), counts),
    st.tuples(st.just("advance"), st.integers(1, 5000)),
    st.tuples(st.sampled_from(["restart", "crash"]), st.just(0)),
    st.tuples(st.just("read"), st.integers(-50, 3000)),
    st.tuples(st.just("read at"), st.integers(-10, 60)),
)


class History:
    """A stream, and what must be in it."""

    def __init__(self, *, is_limited: bool, has_redo_log: bool) -> None:
        self.is_limited = is_limited
        self.broker = Broker(has_redo_log)
        self.came_ms: list[int] = []  # of each message by offset
        self.published = 0  # messages, with those that were lost in a crash
        self.bodies: list[bytes] = []  # by offset
        self.first = 0  # the lowest offset seen so far
        self.declare()

    def declare(self) -> None:
        self.channel = self.broker.channel()
        arguments: dict[str, object] = {"x-queue-type": "stream"}
        if self.is_limited:
            arguments |= {
                "x-max-length-bytes": MAX_BYTES,
                "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
            }
        self.channel.declare("s", durable=True, arguments=arguments)

    def publish(self, count: int) -> list[bytes]:
        """Publish messages that are all different."""
        bodies = [b"%020d" % number for number in range(self.published, self.published + count)]
        self.published += count
        self.channel.publish_all("s", *bodies)
        return bodies

    def step(self, name: str, number: int) -> None:
        """Do one thing."""
        if name == "publish":
            self.bodies += self.publish(number)
            self.came_ms += [self.broker.now_ms] * number
        elif name == "lose":
            self.broker.hold_store()
            self.publish(number)
            self.end("crash")
        elif name == "advance":
            self.broker.advance(number)
        elif name == "read":
            self.check(Field("l", number), self.position_of(number))
        elif name == "read at":
            time_s = START_MS // 1000 + number
            late = (at for at, came_ms in enumerate(self.came_ms) if came_ms >= time_s * 1000)
            self.check(Field("T", time_s), next(late, len(self.bodies)))
        else:
            self.end(name)

    def end(self, how: str) -> None:
        if how == "restart":
            self.broker.restart()
        else:
            self.broker.crash()
        self.declare()

    def position_of(self, offset: int) -> int:
        return offset if offset >= 0 else max(0, len(self.bodies) + offset)

    def check(self, start: Field, expected: int) -> None:
        """Read from somewhere to the end: everything from there, or from the oldest message that is left."""
        deliveries = self.read(start)
        seen = [(offset(delivery), delivery.body) for delivery in deliveries]
        if not seen:
            assert expected >= len(self.bodies)
            return
        begin = seen[0][0]
        if begin > expected:
            assert self.is_limited
            self.first = max(self.first, begin)
            assert (len(self.bodies) - begin) * (20 + ROW_BYTES) <= MAX_BYTES
        assert begin == max(expected, self.first)
        assert seen == list(enumerate(self.bodies))[begin:]

    def read(self, start: Field) -> list[Content]:
        channel = ChannelOfTest(self.channel.client, 2)
        channel.call(commands.Channel.Open)
        channel.qos(700)
        channel.consume("s", arguments={"x-stream-offset": start})
        deliveries: list[Content] = []
        while more := channel.delivered():
            deliveries += more
            channel.ack(delivery_tag(more[-1]), multiple=True)
        channel.close()
        return deliveries


def offset(delivery: Content) -> int:
    headers = Properties.parse(delivery.properties).headers
    assert headers is not None
    value = headers["x-stream-offset"].value
    assert isinstance(value, int)
    return value


@settings(max_examples=60)
@given(st.lists(steps, max_size=12), st.booleans(), st.booleans())
def test_a_stream_is_what_was_published_without_what_was_removed(
    history: list[tuple[str, int]], is_limited: bool, has_redo_log: bool
) -> None:
    stream = History(is_limited=is_limited, has_redo_log=has_redo_log)
    for name, number in history:
        stream.step(name, number)
    stream.check(Field("S", b"first"), 0)
