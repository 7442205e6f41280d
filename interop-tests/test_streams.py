"""Streams over AMQP 0-9-1: reading from offsets and times, credit, retention, what survives."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from blocking import Inbox, channel_closed
from brokers import Connect, Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

PREFETCH = 100


@pytest.fixture
def stream(channel: BlockingChannel, names: Names) -> str:
    """A stream whose publishes are confirmed, so that a message is there when a test goes on."""
    return declare(channel, names)


def declare(channel: BlockingChannel, names: Names, **arguments: object) -> str:
    """Declare a stream and confirm what the channel publishes."""
    name = names.queue()
    named = {argument.replace("_", "-"): value for argument, value in arguments.items()}
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "stream", **named})
    channel.confirm_delivery()
    return name


def publish(channel: BlockingChannel, stream: str, *bodies: bytes) -> None:
    """Publish messages, each after the one before was confirmed."""
    for body in bodies:
        channel.basic_publish("", stream, body)


def reader(
    connect: Connect, stream: str, offset: object = "first", prefetch: int = PREFETCH, **options: object
) -> Inbox:
    """Read the stream over a connection of its own."""
    channel = connect().channel()
    channel.basic_qos(prefetch_count=prefetch)
    arguments = {} if offset is None else {"x-stream-offset": offset}
    return Inbox(channel, stream, arguments=arguments, **options)


def offsets(inbox: Inbox) -> list[int]:
    """The offsets of what was delivered."""
    return [delivery.properties.headers["x-stream-offset"] for delivery in inbox.deliveries]


def test_every_reader_gets_every_message_with_its_offset(
    channel: BlockingChannel, connect: Connect, stream: str
) -> None:
    publish(channel, stream, b"a", b"b")
    one, other = reader(connect, stream), reader(connect, stream)
    publish(channel, stream, b"c")
    for inbox in (one, other):
        inbox.wait_for(3)
        assert inbox.bodies == [b"a", b"b", b"c"]
        assert offsets(inbox) == [0, 1, 2]
        assert not any(delivery.method.redelivered for delivery in inbox.deliveries)


def test_messages_stay_after_acks(channel: BlockingChannel, connect: Connect, stream: str) -> None:
    publish(channel, stream, b"a", b"b")
    first = reader(connect, stream)
    first.wait_for(2)
    first.channel.basic_ack(2, multiple=True)
    first.channel.connection.close()
    assert reader(connect, stream).wait_for(2)[0].body == b"a"


@pytest.mark.parametrize(
    ("offset", "bodies"),
    [
        ("first", [b"a", b"b", b"c", b"new"]),
        ("last", [b"c", b"new"]),
        ("next", [b"new"]),
        (None, [b"new"]),
        (0, [b"a", b"b", b"c", b"new"]),
        (1, [b"b", b"c", b"new"]),
        (3, [b"new"]),
        ("1h", [b"a", b"b", b"c", b"new"]),
    ],
)
def test_a_reader_begins_where_it_wants(
    channel: BlockingChannel, connect: Connect, stream: str, offset: object, bodies: list[bytes]
) -> None:
    publish(channel, stream, b"a", b"b", b"c")
    inbox = reader(connect, stream, offset)
    publish(channel, stream, b"new")
    inbox.wait_for(len(bodies))
    assert inbox.bodies == bodies


def test_a_reader_begins_at_a_time(channel: BlockingChannel, connect: Connect, stream: str) -> None:
    publish(channel, stream, b"before")
    time.sleep(2.1)  # a timestamp has whole seconds
    middle = datetime.now(UTC).replace(tzinfo=None)
    time.sleep(1.1)
    publish(channel, stream, b"after")
    assert reader(connect, stream, middle).wait_for(1)[0].body == b"after"
    assert reader(connect, stream, middle - timedelta(days=1)).wait_for(2)[0].body == b"before"


def test_an_offset_to_come_is_waited_for(channel: BlockingChannel, connect: Connect, stream: str) -> None:
    inbox = reader(connect, stream, 50)
    publish(channel, stream, b"a")
    assert inbox.after_a_while() == []


def test_headers_are_kept_beside_the_offset(channel: BlockingChannel, connect: Connect, stream: str) -> None:
    properties = BasicProperties(headers={"a": "z", "x-stream-offset": 77}, content_type="text/plain")
    channel.basic_publish("", stream, b"a", properties)
    (delivery,) = reader(connect, stream).wait_for(1)
    assert delivery.properties.headers == {"a": "z", "x-stream-offset": 0}
    assert delivery.properties.content_type == "text/plain"


def test_a_long_stream_is_read_in_order_with_a_small_prefetch(
    channel: BlockingChannel, connect: Connect, stream: str
) -> None:
    other = connect().channel()
    for number in range(3000):
        other.basic_publish("", stream, b"%d" % number)
    other.connection.close()
    inbox = reader(connect, stream, prefetch=200)
    acked = 0
    while len(inbox.deliveries) < 3000:
        inbox.wait_for(acked + 1)
        acked = len(inbox.deliveries)
        inbox.channel.basic_ack(acked, multiple=True)
    assert inbox.bodies == [b"%d" % number for number in range(3000)]
    assert offsets(inbox) == list(range(3000))


def test_acks_make_room(channel: BlockingChannel, connect: Connect, stream: str) -> None:
    publish(channel, stream, *[b"%d" % number for number in range(50)])
    inbox = reader(connect, stream, prefetch=1)
    held = len(inbox.after_a_while())
    assert 1 <= held < 50  # RabbitMQ delivers a few more than the limit
    inbox.channel.basic_ack(held, multiple=True)
    inbox.wait_for(held + 1)


def test_a_reader_without_a_prefetch_limit_is_refused(channel: BlockingChannel, stream: str) -> None:
    why = f"consumer prefetch count is not set for 'queue '{stream}' in vhost '/''"
    with channel_closed(406, f"PRECONDITION_FAILED - {why}"):
        Inbox(channel, stream)


def test_a_stream_is_deleted_although_it_has_messages_and_readers(
    channel: BlockingChannel, connect: Connect, stream: str
) -> None:
    publish(channel, stream, b"a")
    inbox = reader(connect, stream)
    inbox.wait_for(1)
    channel.queue_delete(stream, if_unused=True, if_empty=True)
    inbox.wait_for_cancel()


def test_messages_come_through_exchanges(
    channel: BlockingChannel, connect: Connect, stream: str, names: Names
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(stream, exchange, "a.#")
    channel.basic_publish(exchange, "a.b", b"1")
    (delivery,) = reader(connect, stream).wait_for(1)
    assert (delivery.method.exchange, delivery.method.routing_key) == (exchange, "a.b")


def test_old_segments_are_removed_and_the_newest_stays(
    channel: BlockingChannel, connect: Connect, names: Names
) -> None:
    stream = declare(channel, names, x_max_length_bytes=20_000, x_stream_max_segment_size_bytes=10_000)
    for number in range(100):
        publish(channel, stream, b"%03d" % number + b"x" * 1000)
    inbox = reader(connect, stream, prefetch=1000)
    inbox.wait_for(1)
    inbox.after_a_while()
    assert inbox.bodies[0][:3] != b"000"
    assert inbox.bodies[-1][:3] == b"099"
    assert offsets(inbox)[0] > 0
