"""A connection's input: runs of deliveries that are as they must be, and everything else frame by frame.

A `Stream` knows what its consumer is due. Once it has seen one delivery, it builds the bytes of as many as
the buffer could hold, and if the buffer has just these bytes, all are checked: tag, redelivered bit,
exchange, routing key, properties, number and body. If it has not, the first frame that differs is decoded,
and the message judged field by field; if it is sound, the rows that come are expected to look like it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, Protocol

from pamqp import commands

from leveret.broker.bench.rows import RUN_MAX, Rows, body_rows, content_rows
from leveret.protocol.content import FRAME_OVERHEAD
from leveret.protocol.methods import CONTENT_METHODS, decode_method, encode_method, make

if TYPE_CHECKING:
    from collections.abc import Callable

    from pamqp.base import Frame

    from leveret.broker.bench.figures import Histogram, SendTimes
    from leveret.broker.bench.order import Order

BUFFER_BYTES: Final = 1 << 19
READ_MIN: Final = 1 << 16  # room for one read; below it what is parsed makes way
WAIT: Final = -1  # more bytes are needed
TAG_AT: Final = 12  # offset of the delivery tag in basic.deliver, without the consumer tag

_METHOD: Final = 1
_HEADER: Final = 2
_BODY: Final = 3
_HEARTBEAT: Final = 8


class BrokerClosed(Exception):
    """The broker closed the connection or a channel, or the connection broke."""


class Content(NamedTuple):
    """A method with its content, complete."""

    channel: int
    method: Frame
    properties: bytes  # from the property flags on
    body: bytes
    frames: bytes  # all of it, as it came
    header_at: int  # where in the frames the content header begins


class Taker(Protocol):
    """What reads the frames of one channel by itself."""

    def take(self, buffer: bytearray, start: int, end: int, now_ns: int) -> int:
        """Read as much as is understood at a glance; return where it ends, or WAIT."""

    def take_content(self, content: Content) -> None:
        """Take a message that was read frame by frame."""


class Inbox:
    """The input of one connection.

    Args:
        send: writes to the connection.
        buffer_bytes: what it reads at once; the buffer grows for frames that are larger.
    """

    def __init__(self, send: Callable[[bytes], None], buffer_bytes: int = BUFFER_BYTES) -> None:
        self.takers: dict[int, Taker] = {}  # by channel
        self.replies: deque[tuple[int, Frame | Content]] = deque()  # with the channel
        self.blocked = False  # the broker wants no publishes, by connection.blocked or channel.flow
        self.blocked_count = 0
        self._send = send
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._partial: dict[int, list[bytes]] = {}  # channel -> frames of a content on its way
        self._missing: dict[int, int] = {}  # channel -> body bytes still to come; -1 before the header

    def room(self) -> memoryview:
        """Return where to read into."""
        left = self._end - self._start
        if left == 0:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < READ_MIN:
            size = len(self._buffer) * (2 if left > len(self._buffer) // 2 else 1)
            moved = bytearray(size)
            moved[:left] = self._view[self._start : self._end]
            self._buffer, self._view = moved, memoryview(moved)
            self._start, self._end = 0, left
        return self._view[self._end :]

    def received(self, size: int) -> None:
        """Process what was read into the room; 0 bytes are the end of the connection."""
        if size == 0:
            raise BrokerClosed("the broker closed the connection without a word")
        self._end += size
        self.process()

    def lost(self, error: OSError) -> NoReturn:
        """Tell that the socket failed."""
        raise BrokerClosed(f"the connection broke: {error.strerror or error}") from error

    def process(self, may_wait: bool = True) -> None:
        """Parse the buffer; without waiting, even a message that is shorter than was due is read."""
        buffer = self._buffer
        end = self._end
        now = time.perf_counter_ns()
        while end - self._start >= FRAME_OVERHEAD:
            start = self._start
            channel = buffer[start + 1] << 8 | buffer[start + 2]
            taker = self.takers.get(channel)
            if taker is not None and channel not in self._partial:
                taken = taker.take(buffer, start, end, now)
                if taken > start:
                    self._start = taken
                    continue
                if taken == WAIT and may_wait:
                    return
            stop = start + FRAME_OVERHEAD + int.from_bytes(buffer[start + 3 : start + 7], "big")
            if buffer.startswith(b"AMQP", start):
                raise BrokerClosed(f"the broker wants another protocol: {bytes(buffer[start : start + 8])!r}")
            if stop > end:
                return
            self._start = stop
            self._read_frame(channel, bytes(buffer[start:stop]))

    # -- frame by frame

    def _read_frame(self, channel: int, frame: bytes) -> None:
        kind = frame[0]
        if frame[-1] != 0xCE:
            raise BrokerClosed(f"a frame ends in {frame[-1]:#x}, not 0xce")
        if kind == _HEARTBEAT:
            return
        if kind == _METHOD and channel not in self._partial:
            method = decode_method(frame[7:-1])
            if type(method) in CONTENT_METHODS:
                self._partial[channel] = [frame]
                self._missing[channel] = -1
            else:
                self._read_method(channel, method)
            return
        frames = self._partial.get(channel)
        if frames is None or kind != (_HEADER if self._missing[channel] < 0 else _BODY):
            raise BrokerClosed(f"a frame of type {kind} came where it makes no sense")
        frames.append(frame)
        if kind == _HEADER:
            self._missing[channel] = int.from_bytes(frame[11:19], "big")
        else:
            self._missing[channel] -= len(frame) - FRAME_OVERHEAD
        if self._missing[channel] <= 0:
            del self._partial[channel]
            self._read_content(channel, frames)

    def _read_content(self, channel: int, frames: list[bytes]) -> None:
        method = decode_method(frames[0][7:-1])
        body = b"".join(frame[7:-1] for frame in frames[2:])
        content = Content(channel, method, frames[1][19:-1], body, b"".join(frames), len(frames[0]))
        taker = self.takers.get(channel)
        if isinstance(method, commands.Basic.Return):
            raise BrokerClosed(f"a message came back: {method.reply_code} {method.reply_text}")
        if taker is not None and isinstance(method, commands.Basic.Deliver):
            taker.take_content(content)
        else:
            self.replies.append((channel, content))

    def _read_method(self, channel: int, method: Frame) -> None:
        match method:
            case commands.Connection.Blocked():
                self.blocked = True
                self.blocked_count += 1
            case commands.Connection.Unblocked():
                self.blocked = False
            case commands.Channel.Flow():
                self.blocked = not method.active
                self.blocked_count += not method.active
                self._send(encode_method(channel, make(commands.Channel.FlowOk, active=method.active)))
            case commands.Connection.Close():
                self._send(encode_method(0, make(commands.Connection.CloseOk)))
                raise BrokerClosed(
                    f"the broker closed the connection: {method.reply_code} {method.reply_text}"
                )
            case commands.Channel.Close():
                raise BrokerClosed(f"the broker closed a channel: {method.reply_code} {method.reply_text}")
            case commands.Basic.Cancel():
                raise BrokerClosed(f"the broker cancelled the consumer {method.consumer_tag}")
            case _:
                self.replies.append((channel, method))


class Stream:
    """What one consumer gets.

    Args:
        order: which messages, in which order.
        body_bytes: size of their bodies.
        publisher: number of the publisher, which the bodies show.
        times: when its messages were sent or due.
        latency: takes the time from there to here.
        routes: exchange and routing key for each of the order's positions; empty for direct replies, whose
            routing key is the broker's, and whose delivery tag RabbitMQ leaves at 1.
        ack_every: acknowledge after so many, with `multiple`; 0 for a consumer that does not acknowledge.
        send: writes the acks.
        on_run: is told the first number and the count of messages that were due and came.
    """

    def __init__(
        self,
        order: Order,
        body_bytes: int,
        publisher: int,
        times: SendTimes,
        latency: Histogram,
        *,
        routes: list[tuple[str, str]],
        ack_every: int = 0,
        send: Callable[[bytes], None] | None = None,
        on_run: Callable[[int, int], None] | None = None,
    ) -> None:
        self.order = order
        self.times = times
        self.latency = latency
        self.measured_from_ns = 0  # latencies of messages due before are left out
        self.last_ns = 0  # when the last one came
        self.properties = b""  # of the last one that was read frame by frame
        self._body_bytes = body_bytes
        self._bodies = body_rows(body_bytes, publisher)
        self._routes = routes
        self._ack_every = ack_every
        self._send = send
        self._on_run = on_run
        self._is_reply = not routes
        self._tag = 1  # the next delivery tag
        self._tag_step = 1
        self._acked = 0
        self._channel = 0
        self._rows: list[Rows | None] = [None] * len(order.positions)

    def take(self, buffer: bytearray, start: int, end: int, now_ns: int) -> int:
        """Read the messages that are byte for byte as they must be."""
        order = self.order
        rows = self._rows[order.kind]
        if rows is None:
            return start
        stride = rows.row_bytes
        first = order.due
        if end - start < stride:
            head = rows.row[:TAG_AT]
            return WAIT if head.startswith(buffer[start : min(end, start + TAG_AT)]) else start
        if order.cycle > 1 or end - start < 2 * stride:  # the next message is of another kind, or not here
            count = 1
            if not buffer.startswith(rows.one(first, self._tag), start):
                return start
        else:
            count = min((end - start) // stride, RUN_MAX)
            due = rows.build(count, first, self._tag)
            if not buffer.startswith(due, start):
                count = _equal_rows(buffer, start, due, stride)
                if count == 0:
                    return start
        self._tag += count * self._tag_step
        order.advance(count)
        self._came(first, count, now_ns)
        return start + count * stride

    def _came(self, first: int, count: int, now_ns: int) -> None:
        self.last_ns = now_ns
        self.times.add_latencies(self.latency, first, count, now_ns, self.measured_from_ns)
        if self._ack_every and self._tag - 1 - self._acked >= self._ack_every:
            self.ack()
        if self._on_run is not None:
            self._on_run(first, count)

    def ack(self) -> None:
        """Acknowledge all that came."""
        if self._ack_every and self._send is not None and self._tag - 1 > self._acked:
            self._acked = self._tag - 1
            ack = make(commands.Basic.Ack, delivery_tag=self._acked, multiple=True)
            self._send(encode_method(self._channel, ack))

    def take_content(self, content: Content) -> None:
        """Judge a message field by field."""
        order = self.order
        deliver = content.method
        assert isinstance(deliver, commands.Basic.Deliver)
        self._channel = content.channel
        number = int.from_bytes(content.body[:8], "big")
        what = f"message {number} in {order.name}"
        tag = deliver.delivery_tag or 0
        if self._is_reply and tag == self._tag - 1:
            self._tag, self._tag_step = tag, 0
        if tag != self._tag:
            order.faults.add("with a wrong delivery tag", f"{tag} where {self._tag} was due")
        self._tag = tag + self._tag_step
        if deliver.redelivered:
            order.faults.add("redelivered without cause", what)
        if len(content.body) != self._body_bytes or content.body != self._bodies.one(number):
            order.faults.add("damaged", f"a body of {len(content.body)} bytes in {order.name}")
            order.advance(1)  # it stands for the one that was due
            return
        was_due = number == order.due
        kind = order.kind
        if not order.take(number):
            return
        if was_due and not self._is_reply:
            route = (deliver.exchange, deliver.routing_key)
            if route != self._routes[kind]:
                order.faults.add("with a wrong exchange or routing key", f"{what} has {route}")
        if was_due and not deliver.redelivered:
            assert deliver.consumer_tag is not None
            tag_at = TAG_AT + len(deliver.consumer_tag.encode("utf-8", "surrogateescape"))
            self._rows[kind] = content_rows(content.frames, content.header_at, self._body_bytes, tag_at)
            self.properties = content.properties
        self._came(number, 1, time.perf_counter_ns())


def _equal_rows(buffer: bytearray, start: int, due: bytes | bytearray, stride: int) -> int:
    """Return how many rows at the start are as they are due."""
    count = 0
    for at in range(0, len(due), stride):
        if not buffer.startswith(due[at : at + stride], start + at):
            break
        count += 1
    return count
