"""Publishes numbered messages: as fast as the broker takes them, within a window, or at a rate."""

from __future__ import annotations

import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.inbox import WAIT, Content
from leveret.broker.bench.rows import RUN_MAX, Rows, body_template, content_rows
from leveret.protocol.content import encode_content
from leveret.protocol.methods import encode_method, make
from leveret.protocol.properties import NO_PROPERTIES

if TYPE_CHECKING:
    from leveret.broker.bench.figures import Histogram, SendTimes
    from leveret.broker.bench.order import Confirms
    from leveret.broker.bench.wire import Connection

CHUNK_BYTES: Final = 1 << 17  # written at once; then the other connections have their turn

_ACK: Final = b"\x00\x00\x00\x0d\x00\x3c\x00\x50"  # size, class id and method id
_NACK: Final = b"\x00\x00\x00\x0d\x00\x3c\x00\x78"
_CONFIRM_BYTES: Final = 21  # a frame with basic.ack or basic.nack


def publish_rows(
    channel: int,
    exchange: str,
    routing_key: str,
    body_bytes: int,
    *,
    publisher: int = 0,
    properties: bytes = NO_PROPERTIES,
    frame_max: int,
) -> Rows:
    """Return the rows of a run of publishes."""
    method = encode_method(channel, make(commands.Basic.Publish, exchange=exchange, routing_key=routing_key))
    content = encode_content(channel, frame_max, properties, body_template(body_bytes, publisher))
    return content_rows(method + content, len(method), body_bytes)


class Publisher:
    """Publishes on one channel.

    Args:
        connection: is not to publish for anybody else.
        channel: its number.
        kinds: rows that are used in turns, one message each.
        times: keeps when messages were sent; says when they are due, if there is a rate.
        limit: how many to publish in all; None until it is stopped.
        window: how many may be out, published and neither confirmed nor answered; None for any number.
        confirms: checks the confirms, if the channel has them.
    """

    def __init__(
        self,
        connection: Connection,
        channel: int,
        kinds: list[Rows],
        times: SendTimes,
        *,
        limit: int | None = None,
        window: int | None = None,
        confirms: Confirms | None = None,
        confirm_latency: Histogram | None = None,
        late: Histogram | None = None,
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.times = times
        self.limit = limit
        self.window = window
        self.confirms = confirms
        self.published = 0
        self.answered = 0  # replies, where there are no confirms
        self.measured_from_ns = 0
        self.last_confirm_ns = 0
        self.is_stopped = True
        self._kinds = kinds
        self._chunk = min(RUN_MAX, max(1, CHUNK_BYTES // kinds[0].row_bytes))
        self._confirm_latency = confirm_latency
        self._late = late
        if confirms is not None:
            connection.inbox.takers[channel] = self
        connection.publisher = self

    def start(self, now_ns: int, offset_ns: int = 0) -> None:
        """Begin; with a rate the first message is due after the offset."""
        self.times.start_ns = now_ns + offset_ns
        self.is_stopped = False

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        if self.is_stopped or self.connection.inbox.blocked:
            return 0
        room = self._chunk
        if self.limit is not None:
            room = min(room, self.limit - self.published)
        if self.window is not None:
            settled = self.answered if self.confirms is None else self.confirms.count
            room = min(room, self.window - (self.published - settled))
        return room

    @property
    def is_eager(self) -> bool:
        """Whether it publishes as soon as the socket takes bytes."""
        return self.times.interval_ns is None and self.room > 0

    @property
    def is_done(self) -> bool:
        """Whether it has published all it wants."""
        return self.is_stopped or (self.limit is not None and self.published >= self.limit)

    def publish(self, now_ns: int) -> None:
        """Publish as many messages as may be and, with a rate, are due."""
        if self.connection.has_pending:
            return
        count = self.room
        interval = self.times.interval_ns
        if interval is not None:
            due = int((now_ns - self.times.start_ns) / interval) + 1 if now_ns >= self.times.start_ns else 0
            count = min(count, due - self.published)
        if count <= 0:
            return
        first = self.published + 1
        kinds = self._kinds
        if len(kinds) == 1:
            run = kinds[0].build(count, first)
        else:
            at = (first - 1) % len(kinds)
            turns = islice(cycle(kinds), at, at + count)
            run = b"".join([rows.one(number) for number, rows in enumerate(turns, first)])
        now_ns = time.perf_counter_ns()
        if interval is not None and self._late is not None:
            self._late.add(now_ns - self.times.due_ns(first), count)
        self.times.sent(first, now_ns)
        self.published += count
        self.connection.send(run)

    @property
    def next_due_ns(self) -> int | None:
        """When the next message is due; None if none is, or it has to wait for the broker."""
        if self.times.interval_ns is None or self.room <= 0 or self.connection.has_pending:
            return None
        return self.times.due_ns(self.published + 1)

    # -- confirms

    def take(self, buffer: bytearray, start: int, end: int, now_ns: int) -> int:
        """Read a run of confirms."""
        confirms = self.confirms
        assert confirms is not None
        if end - start < _CONFIRM_BYTES:
            return WAIT if buffer[start] == 1 and buffer.startswith(_ACK[:4], start + 3) else start
        first = count = 0  # of single confirms one after another
        while end - start >= _CONFIRM_BYTES:
            is_nack = buffer.startswith(_NACK, start + 3)
            if not is_nack and not buffer.startswith(_ACK, start + 3):
                break
            if buffer[start + 1] << 8 | buffer[start + 2] != self.channel or buffer[start + 20] != 0xCE:
                break
            tag = int.from_bytes(buffer[start + 11 : start + 19], "big")
            if buffer[start + 19] & 1:
                low = confirms.low
                self._confirmed(first, count, now_ns)
                self._confirmed(low + 1, (tag or self.published) - low, now_ns)
                first = count = 0
                confirms.take(tag, True, self.published, is_nack)
            else:
                if tag != first + count:
                    self._confirmed(first, count, now_ns)
                    first, count = tag, 0
                count += 1
                confirms.take(tag, False, self.published, is_nack)
            start += _CONFIRM_BYTES
        self._confirmed(first, count, now_ns)
        return start

    def _confirmed(self, first: int, count: int, now_ns: int) -> None:
        if count > 0 and self._confirm_latency is not None:
            self.last_confirm_ns = now_ns
            self.times.add_latencies(self._confirm_latency, first, count, now_ns, self.measured_from_ns)

    def take_content(self, content: Content) -> None:
        """Leave a message alone: this channel has no consumer."""
        self.connection.inbox.replies.append((content.channel, content))
