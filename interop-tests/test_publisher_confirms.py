"""Publisher confirms."""

from __future__ import annotations

import struct

import pytest
from blocking import channel_closed, drain
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError
from wire import (
    BASIC_ACK,
    BASIC_NACK,
    BASIC_PUBLISH,
    BASIC_QOS,
    BASIC_QOS_OK,
    BODY,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    DELIVERY_MODE,
    TX_SELECT,
    TX_SELECT_OK,
    Peer,
    basic_publish,
)

PERSISTENT = struct.pack(">HB", DELIVERY_MODE, 2)


@pytest.fixture
def publisher(peer: Peer) -> Peer:
    """A raw connection whose channel 1 is in confirm mode."""
    peer.ask(1, CONFIRM_SELECT, b"\0", CONFIRM_SELECT_OK)
    return peer


def answers(publisher: Peer, count: int) -> dict[int, tuple[int, int]]:
    """Receive acks and nacks until `count` publishes are answered: delivery tag -> BASIC_ACK or BASIC_NACK.

    An answer for a tag that has one already fails the test.
    """
    answered: dict[int, tuple[int, int]] = {}
    while len(answered) < count:
        method = publisher.receive_method(BASIC_ACK, BASIC_NACK)
        tag, flags = struct.unpack(">QB", method.arguments)
        tags = [tag] if not flags & 1 else [each for each in range(1, tag + 1) if each not in answered]
        assert tag not in answered
        answered |= dict.fromkeys(tags, method.name)
    return answered


def test_a_message_for_a_queue_is_confirmed(publisher: Peer, queue: str) -> None:
    publisher.publish(queue, b"x")

    assert answers(publisher, 1) == {1: BASIC_ACK}


def test_a_persistent_message_for_a_durable_queue_is_confirmed(publisher: Peer, names: Names) -> None:
    queue = names.queue()
    publisher.declare_queue(queue, 2)

    publisher.publish(queue, b"x", PERSISTENT)

    assert answers(publisher, 1) == {1: BASIC_ACK}


def test_a_message_for_no_queue_is_confirmed(publisher: Peer, names: Names) -> None:
    publisher.publish(names.text(), b"x")

    assert answers(publisher, 1) == {1: BASIC_ACK}


@pytest.mark.parametrize("properties", [b"\0\0", PERSISTENT], ids=["transient", "persistent"])
def test_every_publish_of_many_is_confirmed_once(publisher: Peer, names: Names, properties: bytes) -> None:
    queue = names.queue()
    publisher.declare_queue(queue, 2)

    for _ in range(500):
        publisher.publish(queue, b"x", properties)

    assert answers(publisher, 500) == dict.fromkeys(range(1, 501), BASIC_ACK)


def test_counting_starts_with_confirm_select(peer: Peer, queue: str) -> None:
    peer.publish(queue, b"before")
    peer.ask(1, CONFIRM_SELECT, b"\0", CONFIRM_SELECT_OK)
    peer.publish(queue, b"after")

    assert answers(peer, 1) == {1: BASIC_ACK}


def test_selecting_again_does_not_reset_the_count(publisher: Peer, queue: str) -> None:
    publisher.publish(queue, b"1")
    answers(publisher, 1)
    publisher.ask(1, CONFIRM_SELECT, b"\0", CONFIRM_SELECT_OK)
    publisher.publish(queue, b"2")

    assert struct.unpack(">QB", publisher.receive_method(BASIC_ACK).arguments)[0] == 2


def test_every_channel_counts_for_itself(publisher: Peer, queue: str) -> None:
    publisher.publish(queue, b"1")
    answers(publisher, 1)
    publisher.open_channel(2)
    publisher.ask(2, CONFIRM_SELECT, b"\0", CONFIRM_SELECT_OK)
    publisher.send_method(2, BASIC_PUBLISH, basic_publish("", queue))
    publisher.send_header(2, 1)
    publisher.send_frame(BODY, 2, b"1")

    method = publisher.receive_method(BASIC_ACK)
    assert (method.channel, struct.unpack_from(">Q", method.arguments)) == (2, (1,))


def test_selecting_without_wait_is_not_answered(peer: Peer, queue: str) -> None:
    peer.send_method(1, CONFIRM_SELECT, b"\1")
    peer.publish(queue, b"x")

    assert answers(peer, 1) == {1: BASIC_ACK}  # the very next frame


def test_a_message_for_several_queues_is_confirmed_once(
    publisher: Peer, channel: BlockingChannel, names: Names
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "fanout")
    for durable in (False, True):
        queue = names.queue()
        channel.queue_declare(queue, durable=durable)
        channel.queue_bind(queue, exchange)

    publisher.publish("", b"x", PERSISTENT, exchange=exchange)

    assert answers(publisher, 1) == {1: BASIC_ACK}
    publisher.ask(1, BASIC_QOS, bytes(7), BASIC_QOS_OK)  # no second one before this answer


@pytest.fixture
def small(channel: BlockingChannel, names: Names) -> str:
    """The name of a queue that refuses a third message."""
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    return queue


def test_a_message_that_a_full_queue_refuses_is_nacked(confirming: BlockingChannel, small: str) -> None:
    for body in (b"1", b"2"):
        confirming.basic_publish("", small, body)

    with pytest.raises(NackError):
        confirming.basic_publish("", small, b"3")


def test_only_the_refused_messages_are_nacked(publisher: Peer, small: str) -> None:
    for _ in range(4):
        publisher.publish(small, b"x")

    assert answers(publisher, 4) == {1: BASIC_ACK, 2: BASIC_ACK, 3: BASIC_NACK, 4: BASIC_NACK}


def test_one_refusing_queue_is_enough_for_a_nack(
    confirming: BlockingChannel, names: Names, small: str, queue: str
) -> None:
    exchange = names.exchange()
    confirming.exchange_declare(exchange, "fanout")
    for each in (small, queue):
        confirming.queue_bind(each, exchange)
    for body in (b"1", b"2"):
        confirming.basic_publish(exchange, "", body)

    with pytest.raises(NackError):
        confirming.basic_publish(exchange, "", b"3")

    assert (drain(confirming, small), drain(confirming, queue)) == ([b"1", b"2"], [b"1", b"2", b"3"])


def test_a_refused_mandatory_message_is_nacked_and_not_returned(publisher: Peer, small: str) -> None:
    for _ in range(2):
        publisher.publish(small, b"x")
    publisher.send_method(1, BASIC_PUBLISH, basic_publish("", small, 1))
    publisher.send_header(1, 0)

    assert answers(publisher, 3)[3] == BASIC_NACK


def test_room_made_lets_the_next_message_in(confirming: BlockingChannel, small: str) -> None:
    for body in (b"1", b"2"):
        confirming.basic_publish("", small, body)
    confirming.basic_get(small, auto_ack=True)

    confirming.basic_publish("", small, b"3")

    assert drain(confirming, small) == [b"2", b"3"]


def test_a_channel_in_confirm_mode_cannot_become_transactional(publisher: Peer) -> None:
    publisher.send_method(1, TX_SELECT)

    assert publisher.receive_close() == (
        1,
        406,
        "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
        TX_SELECT,
    )


def test_a_transactional_channel_cannot_confirm(peer: Peer) -> None:
    peer.ask(1, TX_SELECT, b"", TX_SELECT_OK)
    peer.send_method(1, CONFIRM_SELECT, b"\0")

    assert peer.receive_close() == (
        1,
        406,
        "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
        CONFIRM_SELECT,
    )


def test_a_failing_publish_is_not_confirmed(confirming: BlockingChannel, names: Names) -> None:
    with channel_closed(404):
        confirming.basic_publish(names.text(), "k", b"x")


@pytest.fixture
def consumed(channel: BlockingChannel, queue: str) -> str:
    """The name of a queue with a consumer that takes everything."""
    channel.basic_consume(queue, lambda *_: None, auto_ack=True)
    return queue


def test_a_message_handed_to_a_consumer_at_once_is_confirmed(publisher: Peer, consumed: str) -> None:
    publisher.publish(consumed, b"x", PERSISTENT)

    assert answers(publisher, 1) == {1: BASIC_ACK}


def test_an_expired_message_was_confirmed(confirming: BlockingChannel, queue: str) -> None:
    confirming.basic_publish("", queue, b"x", BasicProperties(expiration="0"))

    assert drain(confirming, queue) == []
