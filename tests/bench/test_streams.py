"""What a consumer reads, byte by byte: sound deliveries pass in any pieces, and no planted fault passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from leveret.broker.bench.figures import Histogram, SendTimes
from leveret.broker.bench.inbox import BrokerClosed, Inbox, Stream
from leveret.broker.bench.order import Faults, Order
from leveret.broker.bench.rows import body_rows
from leveret.protocol.content import encode_content
from leveret.protocol.methods import encode_method, make
from leveret.protocol.properties import NO_PROPERTIES

FRAME_MAX = 131072
BODY_BYTES = 40


@dataclass
class Consumer:
    """A consumer of the queue `queue` on channel 1, that its broker is played for."""

    faults: Faults = field(default_factory=Faults)
    sent: list[bytes] = field(default_factory=list)
    ack_every: int = 0

    def __post_init__(self) -> None:
        self.order = Order("queue", self.faults)
        self.times = SendTimes()
        self.times.sent(1, 0)
        self.inbox = Inbox(self.sent.append)
        self.stream = Stream(
            self.order, BODY_BYTES, 0, self.times, Histogram(),
            routes=[("", "queue")], ack_every=self.ack_every, send=self.sent.append,
        )  # fmt: skip
        self.inbox.takers[1] = self.stream

    def receive(self, data: bytes) -> None:
        room = self.inbox.room()
        room[: len(data)] = data
        self.inbox.received(len(data))

    def verdict(self, published: int) -> list[str]:
        self.inbox.process(may_wait=False)
        self.order.finish(published)
        return self.faults.describe()


def body(number: int) -> bytes:
    return body_rows(BODY_BYTES, 0).one(number)


def delivery(
    number: int, tag: int | None = None, *, content: bytes | None = None, exchange: str = "",
    key: str = "queue", redelivered: bool = False, frame_max: int = FRAME_MAX,
) -> bytes:  # fmt: skip
    method = make(
        commands.Basic.Deliver, consumer_tag="bench-1", delivery_tag=tag or number, redelivered=redelivered,
        exchange=exchange, routing_key=key,
    )  # fmt: skip
    content = body(number) if content is None else content
    return encode_method(1, method) + encode_content(1, frame_max, NO_PROPERTIES, content)


def test_deliveries_pass() -> None:
    consumer = Consumer()
    consumer.receive(b"".join(map(delivery, range(1, 501))))
    assert consumer.verdict(500) == []
    assert consumer.order.taken == 500


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_deliveries_pass_in_any_pieces(sizes: list[int]) -> None:
    consumer, data = Consumer(), b"".join(map(delivery, range(1, 31)))
    for size in sizes:
        if data:
            consumer.receive(data[:size])
            data = data[size:]
    if data:
        consumer.receive(data)
    assert consumer.verdict(30) == []


def test_a_body_in_several_frames_passes() -> None:
    consumer = Consumer()
    consumer.receive(b"".join(delivery(number, frame_max=24) for number in range(1, 20)))
    assert consumer.verdict(19) == []


SWAPPED = {50: 51, 51: 50}
FAULTS: dict[str, tuple[Callable[[int], bytes], list[str]]] = {
    "a lost message": (
        lambda n: b"" if n == 50 else delivery(n, n - (n > 50)),
        ["1 lost (first: message 50 of queue)"],
    ),
    "a message twice": (
        lambda n: delivery(n, n + (n > 50)) + (delivery(50, 51) if n == 50 else b""),
        ["1 delivered twice (first: message 50 of queue)"],
    ),
    "two messages in the wrong order": (
        lambda n: delivery(SWAPPED.get(n, n), n),
        ["1 out of order (first: message 50 of queue came late)"],
    ),
    "another byte in a body": (
        lambda n: delivery(n, content=body(n)[:20] + b"\xff" + body(n)[21:]) if n == 50 else delivery(n),
        ["1 damaged (first: a body of 40 bytes in queue)"],
    ),
    "a body cut short": (
        lambda n: delivery(n, content=body(n)[:-1]) if n == 50 else delivery(n),
        ["1 damaged (first: a body of 39 bytes in queue)"],
    ),
    "a wrong delivery tag": (
        lambda n: delivery(n, 99) if n == 100 else delivery(n),
        ["1 with a wrong delivery tag (first: 99 where 100 was due)"],
    ),
    "the redelivered bit": (
        lambda n: delivery(n, redelivered=n == 50),
        ["1 redelivered without cause (first: message 50 in queue)"],
    ),
    "another routing key": (
        lambda n: delivery(n, key="other" if n == 50 else "queue"),
        ["1 with a wrong exchange or routing key (first: message 50 in queue has ('', 'other'))"],
    ),
    "another exchange": (
        lambda n: delivery(n, exchange="amq.topic" if n == 50 else ""),
        ["1 with a wrong exchange or routing key (first: message 50 in queue has ('amq.topic', 'queue'))"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("piece", [1 << 16, 97])
def test_a_planted_fault_is_found_amid_sound_messages(fault: str, piece: int) -> None:
    """In one piece it is in the midst of a run that is compared at once, in small ones at its edges."""
    plant, verdict = FAULTS[fault]
    consumer, data = Consumer(), b"".join(map(plant, range(1, 101)))
    for start in range(0, len(data), piece):
        consumer.receive(data[start : start + piece])
    assert consumer.verdict(100) == verdict


def test_acks_are_sent_for_each_so_many_and_for_the_rest() -> None:
    consumer = Consumer(ack_every=10)
    for number in range(1, 26):
        consumer.receive(delivery(number))
    consumer.stream.ack()
    acks = [
        encode_method(1, make(commands.Basic.Ack, delivery_tag=tag, multiple=True)) for tag in (10, 20, 25)
    ]
    assert consumer.sent == acks


def test_a_channel_that_the_broker_closes_ends_the_run() -> None:
    close = make(
        commands.Channel.Close, reply_code=404, reply_text="NOT_FOUND - no queue", class_id=60, method_id=20
    )
    with pytest.raises(BrokerClosed, match="the broker closed a channel: 404 NOT_FOUND - no queue"):
        Consumer().receive(encode_method(1, close))


def test_an_end_without_a_word_ends_the_run() -> None:
    with pytest.raises(BrokerClosed, match="without a word"):
        Consumer().inbox.received(0)


def test_a_frame_without_its_end_octet_ends_the_run() -> None:
    broken = bytearray(delivery(1))
    broken[-1] = 0
    with pytest.raises(BrokerClosed, match="0x0, not 0xce"):
        Consumer().receive(bytes(broken))


def test_a_message_that_comes_back_ends_the_run() -> None:
    back = make(
        commands.Basic.Return, reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="queue"
    )
    with pytest.raises(BrokerClosed, match="a message came back: 312 NO_ROUTE"):
        Consumer().receive(encode_method(1, back) + encode_content(1, FRAME_MAX, NO_PROPERTIES, b"x"))
