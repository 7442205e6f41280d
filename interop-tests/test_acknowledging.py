"""Acknowledging, rejecting, requeueing and recovering; the order in which messages come back."""

from __future__ import annotations

import pytest
from blocking import Inbox, channel_closed, connection_closed, drain, get, sync, wait_until_ready
from pika.adapters.blocking_connection import BlockingChannel
from wire import (
    BASIC_ACK,
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    BASIC_NACK,
    BASIC_RECOVER,
    BASIC_REJECT,
    Peer,
    basic_consume,
)


@pytest.fixture
def five(channel: BlockingChannel, queue: str) -> dict[bytes, int]:
    """Five unacknowledged messages of `queue`, 1 to 5, by their delivery tags."""
    for number in range(1, 6):
        channel.basic_publish("", queue, b"%d" % number)
    deliveries = [get(channel, queue, auto_ack=False) for _ in range(5)]
    return {delivery.body: delivery.method.delivery_tag for delivery in deliveries}


def test_an_acknowledged_message_does_not_come_back(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_ack(five[b"3"])
    channel.close()

    assert drain(other_channel, queue) == [b"1", b"2", b"4", b"5"]


def test_an_ack_may_cover_all_before_it(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_ack(five[b"3"], multiple=True)
    channel.close()

    assert drain(other_channel, queue) == [b"4", b"5"]


def test_an_ack_of_zero_covers_everything(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_ack(0, multiple=True)
    channel.close()

    assert drain(other_channel, queue) == []


def test_an_ack_of_zero_is_fine_when_nothing_is_open(channel: BlockingChannel) -> None:
    channel.basic_ack(0, multiple=True)
    sync(channel)


def test_a_rejected_message_is_gone(channel: BlockingChannel, queue: str, five: dict[bytes, int]) -> None:
    channel.basic_reject(five[b"2"], requeue=False)

    assert drain(channel, queue) == []


def test_a_nack_may_drop_all_before_it(channel: BlockingChannel, queue: str, five: dict[bytes, int]) -> None:
    channel.basic_nack(five[b"3"], multiple=True, requeue=False)
    channel.basic_nack(0, multiple=True, requeue=True)

    assert drain(channel, queue) == [b"4", b"5"]


def test_a_requeued_message_is_marked_redelivered(
    channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_reject(five[b"1"], requeue=True)

    assert get(channel, queue).method.redelivered is True


def test_a_requeued_message_returns_to_its_place(
    channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_nack(five[b"4"])
    channel.basic_nack(five[b"2"])
    channel.basic_publish("", queue, b"6")

    assert drain(channel, queue) == [b"2", b"4", b"6"]


def test_a_nack_of_all_keeps_the_order(channel: BlockingChannel, queue: str, five: dict[bytes, int]) -> None:
    channel.basic_publish("", queue, b"6")
    channel.basic_nack(0, multiple=True)

    assert drain(channel, queue) == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_closing_the_channel_returns_messages_in_order(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    other_channel.basic_publish("", queue, b"6")
    channel.close()

    deliveries = [get(other_channel, queue) for _ in range(6)]
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == [
        (b"1", True),
        (b"2", True),
        (b"3", True),
        (b"4", True),
        (b"5", True),
        (b"6", False),
    ]


def test_a_channel_error_returns_messages(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    with channel_closed(404):
        channel.queue_declare(queue + ".missing", passive=True)

    wait_until_ready(other_channel, queue, 5)


def test_a_broken_connection_returns_messages_in_order(
    peer: Peer, channel: BlockingChannel, queue: str
) -> None:
    for number in range(1, 4):
        channel.basic_publish("", queue, b"%d" % number)
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    for _ in range(3):
        peer.receive_content(BASIC_DELIVER)

    peer.disconnect()
    wait_until_ready(channel, queue, 3)

    assert drain(channel, queue) == [b"1", b"2", b"3"]


def test_a_requeued_message_goes_to_the_next_consumer(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_qos(prefetch_count=1)
    first = Inbox(channel, queue)
    channel.basic_publish("", queue, b"1")
    first.wait_for(1)
    second = Inbox(other_channel, queue)
    channel.basic_cancel(first.tag)

    channel.basic_nack(first.deliveries[0].method.delivery_tag)

    assert second.wait_for(1)[0].method.redelivered is True


@pytest.mark.parametrize("tag", [1, 99, 2**40])
def test_an_unknown_delivery_tag_is_refused(channel: BlockingChannel, tag: int) -> None:
    channel.basic_ack(tag)

    with channel_closed(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"):
        sync(channel)


def test_zero_without_multiple_is_an_unknown_delivery_tag(peer: Peer) -> None:
    peer.send_method(1, BASIC_ACK, bytes(8) + b"\0")

    assert peer.receive_close() == (1, 406, "PRECONDITION_FAILED - unknown delivery tag 0", BASIC_ACK)


@pytest.mark.parametrize(
    ("method", "flags"), [(BASIC_ACK, 0), (BASIC_REJECT, 0), (BASIC_NACK, 0), (BASIC_ACK, 1)]
)
def test_an_unknown_delivery_tag_is_blamed_on_its_method(
    peer: Peer, method: tuple[int, int], flags: int
) -> None:
    peer.send_method(1, method, (7).to_bytes(8) + bytes([flags]))

    assert peer.receive_close() == (1, 406, "PRECONDITION_FAILED - unknown delivery tag 7", method)


def test_acknowledging_twice_is_refused(channel: BlockingChannel, five: dict[bytes, int]) -> None:
    channel.basic_ack(five[b"2"])
    channel.basic_ack(five[b"2"])

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 2"):
        sync(channel)


def test_an_ack_of_several_needs_its_own_tag_open(channel: BlockingChannel, five: dict[bytes, int]) -> None:
    channel.basic_ack(five[b"2"])
    channel.basic_ack(five[b"2"], multiple=True)

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 2"):
        sync(channel)


def test_a_delivery_without_acknowledgement_cannot_be_acknowledged(
    channel: BlockingChannel, queue: str
) -> None:
    channel.basic_publish("", queue, b"x")
    channel.basic_ack(get(channel, queue, auto_ack=True).method.delivery_tag)

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1"):
        sync(channel)


def test_a_delivery_is_acknowledged_on_its_own_channel(
    second_channel: BlockingChannel, five: dict[bytes, int]
) -> None:
    second_channel.basic_ack(five[b"1"])

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1"):
        sync(second_channel)


def test_recover_returns_all_messages_of_the_channel(
    channel: BlockingChannel, queue: str, five: dict[bytes, int]
) -> None:
    channel.basic_recover(requeue=True)

    deliveries = [get(channel, queue) for _ in range(5)]
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == [
        (b"%d" % number, True) for number in range(1, 6)
    ]


def test_after_recover_the_old_tags_are_unknown(channel: BlockingChannel, five: dict[bytes, int]) -> None:
    channel.basic_recover(requeue=True)
    channel.basic_ack(five[b"1"])

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1"):
        sync(channel)


def test_recover_async_returns_messages_without_an_answer(
    peer: Peer, channel: BlockingChannel, queue: str
) -> None:
    channel.basic_publish("", queue, b"x")
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    peer.receive_content(BASIC_DELIVER)

    peer.send_method(1, (60, 100), b"\1")

    again = peer.receive_content(BASIC_DELIVER)  # the very next frame
    assert (again.method.arguments[10:11], again.body) == (b"\1", b"x")


def test_recover_without_requeue_is_not_implemented(channel: BlockingChannel) -> None:
    with connection_closed(540, "NOT_IMPLEMENTED - requeue=false"):
        channel.basic_recover(requeue=False)


def test_recover_without_requeue_is_blamed_on_recover(peer: Peer) -> None:
    peer.send_method(1, BASIC_RECOVER, b"\0")

    assert peer.receive_close() == (0, 540, "NOT_IMPLEMENTED - requeue=false", BASIC_RECOVER)
