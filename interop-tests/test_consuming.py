"""basic.get, basic.consume and basic.cancel."""

from __future__ import annotations

import re

import pika
import pytest
from blocking import Inbox, channel_closed, connection_closed, consumers, drain, get, get_soon
from brokers import Broker, Names
from pika.adapters.blocking_connection import BlockingChannel
from wire import (
    BASIC_ACK,
    BASIC_CANCEL,
    BASIC_CANCEL_OK,
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    BASIC_GET,
    BASIC_GET_EMPTY,
    BASIC_QOS,
    BASIC_QOS_OK,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    QUEUE_DELETE,
    QUEUE_DELETE_OK,
    Peer,
    basic_consume,
    basic_get,
    shortstr,
)


def publish(channel: BlockingChannel, queue: str, *bodies: bytes) -> None:
    """Publish bodies to a queue."""
    for body in bodies:
        channel.basic_publish("", queue, body)


# basic.get ---------------------------------------------------------------------------------------------


def test_get_tells_how_many_messages_are_left(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"1", b"2", b"3")

    assert [get(channel, queue).method.message_count for _ in range(3)] == [2, 1, 0]


def test_get_tells_where_the_message_was_published(channel: BlockingChannel, queue: str) -> None:
    channel.queue_bind(queue, "amq.topic", queue + ".#")
    channel.basic_publish("amq.topic", queue + ".a.b", b"x")

    method = get(channel, queue).method
    assert (method.exchange, method.routing_key, method.redelivered) == ("amq.topic", queue + ".a.b", False)


def test_get_from_an_empty_queue_is_empty(peer: Peer, queue: str) -> None:
    answer = peer.ask(1, BASIC_GET, basic_get(queue), BASIC_GET_EMPTY)

    assert answer.arguments == b"\0"


def test_get_from_a_missing_queue_is_not_found(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.basic_get(missing)


def test_get_ignores_the_prefetch_limit(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"1", b"2")
    channel.basic_qos(prefetch_count=1, global_qos=True)

    assert [get(channel, queue, auto_ack=False).body for _ in range(2)] == [b"1", b"2"]


def test_get_works_beside_an_exclusive_consumer(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue, exclusive=True)
    publish(channel, queue, b"to the consumer", b"to get")
    inbox.wait_for(1)

    assert get(other_channel, queue).body == b"to get"


# basic.consume -----------------------------------------------------------------------------------------


def test_a_consumer_receives_what_waits_and_what_comes(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"waiting")
    inbox = Inbox(channel, queue)
    publish(channel, queue, b"coming")
    inbox.wait_for(2)

    assert inbox.bodies == [b"waiting", b"coming"]


def test_delivery_tags_count_from_one_per_channel(
    channel: BlockingChannel, second_channel: BlockingChannel, queue: str
) -> None:
    publish(channel, queue, b"1", b"2", b"3")
    get_soon(second_channel, queue)
    inbox = Inbox(channel, queue)

    assert [delivery.method.delivery_tag for delivery in inbox.wait_for(2)] == [1, 2]


def test_deliveries_without_acknowledgement_count_too(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"1", b"2")
    get(channel, queue, auto_ack=True)

    assert get(channel, queue).method.delivery_tag == 2


def test_a_delivery_names_consumer_exchange_and_key(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue, consumer_tag="my tag")
    publish(channel, queue, b"x")

    (delivery,) = inbox.wait_for(1)
    assert delivery.method == pika.spec.Basic.Deliver("my tag", 1, False, "", queue)


def test_the_broker_makes_a_consumer_tag(peer: Peer, queue: str) -> None:
    answer = peer.ask(1, BASIC_CONSUME, basic_consume(queue), BASIC_CONSUME_OK)

    assert re.fullmatch(rb".amq\.ctag-[A-Za-z0-9_-]{22}", answer.arguments, re.DOTALL)


def test_consume_ok_comes_before_the_first_delivery(peer: Peer, channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"waiting already")

    answer = peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)

    assert answer.arguments == shortstr("t")
    assert peer.receive_content(BASIC_DELIVER).body == b"waiting already"


def test_a_consume_without_wait_is_not_answered(peer: Peer, channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"first sign")

    peer.send_method(1, BASIC_CONSUME, basic_consume(queue, "t", 8))

    assert peer.receive_content(BASIC_DELIVER).body == b"first sign"


def test_a_consumer_tag_cannot_be_used_twice_on_a_channel(peer: Peer, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    peer.send_method(1, BASIC_CONSUME, basic_consume(queue, "t"))

    assert peer.receive_close() == (0, 530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", BASIC_CONSUME)


def test_a_consumer_tag_may_be_used_on_two_channels(
    channel: BlockingChannel, second_channel: BlockingChannel, queue: str
) -> None:
    for each in (channel, second_channel):
        Inbox(each, queue, consumer_tag="t")

    assert consumers(channel, queue) == 2


def test_consuming_a_missing_queue_is_not_found(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.basic_consume(missing, lambda *_: None)


def test_consumers_take_turns(channel: BlockingChannel, queue: str) -> None:
    inboxes = [Inbox(channel, queue) for _ in range(3)]
    publish(channel, queue, *(str(number).encode() for number in range(9)))
    for inbox in inboxes:
        inbox.wait_for(3)

    assert sorted(inbox.bodies for inbox in inboxes) == [
        [b"0", b"3", b"6"],
        [b"1", b"4", b"7"],
        [b"2", b"5", b"8"],
    ]


def test_no_local_is_ignored(peer: Peer, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t", 1), BASIC_CONSUME_OK)

    peer.publish(queue, b"from myself")

    assert peer.receive_content(BASIC_DELIVER).body == b"from myself"


def test_an_exclusive_consumer_keeps_others_out(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_consume(queue, lambda *_: None, exclusive=True)

    with channel_closed(403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"):
        other_channel.basic_consume(queue, lambda *_: None)


def test_a_queue_with_a_consumer_takes_no_exclusive_one(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_consume(queue, lambda *_: None)

    with channel_closed(403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"):
        other_channel.basic_consume(queue, lambda *_: None, exclusive=True)


def test_a_queue_is_free_once_its_exclusive_consumer_is_cancelled(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_cancel(channel.basic_consume(queue, lambda *_: None, exclusive=True))

    other_channel.basic_consume(queue, lambda *_: None, exclusive=True)


def test_a_consumer_of_higher_priority_is_served_first(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_qos(prefetch_count=2)
    high = Inbox(channel, queue, arguments={"x-priority": 10})
    low = Inbox(other_channel, queue)
    publish(channel, queue, b"1", b"2", b"3")
    high.wait_for(2)
    low.wait_for(1)

    assert (high.bodies, low.bodies) == ([b"1", b"2"], [b"3"])


def test_a_consumer_priority_must_be_an_integer(channel: BlockingChannel, queue: str) -> None:
    with channel_closed(
        406,
        f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': "
        '"expected integer, got longstr"',
    ):
        channel.basic_consume(queue, lambda *_: None, arguments={"x-priority": "high"})


def test_unknown_consumer_arguments_are_accepted(channel: BlockingChannel, queue: str) -> None:
    channel.basic_consume(
        queue, lambda *_: None, arguments={"x-note": "hello", "x-cancel-on-ha-failover": True}
    )


def test_without_acknowledgement_messages_are_gone_once_delivered(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, b"x")
    inbox.wait_for(1)
    channel.close()

    assert drain(other_channel, queue) == []


# basic.cancel ------------------------------------------------------------------------------------------


def test_a_cancelled_consumer_receives_nothing_more(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue)
    channel.basic_cancel(inbox.tag)

    publish(channel, queue, b"too late")

    assert (inbox.bodies, drain(channel, queue)) == ([], [b"too late"])


def test_a_delivery_can_be_acknowledged_after_cancelling(
    peer: Peer, channel: BlockingChannel, queue: str
) -> None:
    publish(channel, queue, b"1", b"2")
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    tags = [peer.receive_content(BASIC_DELIVER).method.arguments[2:10] for _ in range(2)]

    peer.ask(1, BASIC_CANCEL, shortstr("t") + b"\0", BASIC_CANCEL_OK)
    peer.send_method(1, BASIC_ACK, tags[0] + b"\0")
    peer.ask(1, CHANNEL_CLOSE, b"\0\0" + shortstr("") + bytes(4), CHANNEL_CLOSE_OK)

    assert drain(channel, queue) == [b"2"]


def test_cancelling_an_unknown_tag_is_fine(peer: Peer, names: Names) -> None:
    tag = shortstr(names.text())

    assert peer.ask(1, BASIC_CANCEL, tag + b"\0", BASIC_CANCEL_OK).arguments == tag


def test_a_client_without_the_capability_is_not_told_of_a_cancel(
    broker: Broker, channel: BlockingChannel, queue: str
) -> None:
    plain = Peer(broker)
    plain.start()
    plain.send_start_ok(client_properties=bytes(4))
    plain.finish_login()
    plain.open_channel(1)
    plain.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)

    channel.queue_delete(queue)

    # the next frame is the answer to the next question, no basic.cancel before it
    plain.ask(1, BASIC_QOS, bytes(7), BASIC_QOS_OK)
    plain.disconnect()


def test_the_deleting_channel_is_told_after_its_answer(peer: Peer, names: Names) -> None:
    queue = names.queue()
    peer.declare_queue(queue)
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)

    peer.ask(1, QUEUE_DELETE, b"\0\0" + shortstr(queue) + b"\0", QUEUE_DELETE_OK)

    assert peer.receive_method(BASIC_CANCEL).arguments == shortstr("t") + b"\1"


def test_a_consumer_whose_connection_breaks_is_gone(peer: Peer, channel: BlockingChannel, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    publish(channel, queue, b"x")
    peer.receive_content(BASIC_DELIVER)

    peer.disconnect()

    inbox = Inbox(channel, queue)
    (delivery,) = inbox.wait_for(1)
    assert (delivery.body, delivery.method.redelivered) == (b"x", True)


@pytest.mark.parametrize("count", [1, 100])
def test_many_consumers_on_one_channel_share_a_queue(
    channel: BlockingChannel, queue: str, count: int
) -> None:
    inboxes = [Inbox(channel, queue, auto_ack=True) for _ in range(count)]
    publish(channel, queue, *([b"x"] * count * 2))
    for inbox in inboxes:
        inbox.wait_for(2)

    assert [len(inbox.deliveries) for inbox in inboxes] == [2] * count


def test_reusing_a_tag_after_cancelling_is_fine(channel: BlockingChannel, queue: str) -> None:
    for _ in range(2):
        inbox = Inbox(channel, queue, consumer_tag="again", auto_ack=True)
        publish(channel, queue, b"x")
        inbox.wait_for(1)
        channel.basic_cancel("again")


def test_a_consumer_tag_of_255_bytes_is_fine(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue, consumer_tag="t" * 255)
    publish(channel, queue, b"x")

    assert inbox.wait_for(1)[0].method.consumer_tag == "t" * 255


def test_a_channel_error_cancels_the_channels_consumers(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_consume(queue, lambda *_: None)
    with channel_closed(404):
        channel.queue_declare(queue + ".missing", passive=True)

    assert consumers(other_channel, queue) == 0


def test_a_connection_error_cancels_the_connections_consumers(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    channel.basic_consume(queue, lambda *_: None)
    with connection_closed(540):
        channel.basic_qos(prefetch_size=1)

    assert consumers(other_channel, queue) == 0
