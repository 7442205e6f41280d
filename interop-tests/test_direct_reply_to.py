"""Direct reply-to: request and answer without a reply queue."""

from __future__ import annotations

import pika
import pytest
from blocking import Inbox, channel_closed, get_soon
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def replies(channel: BlockingChannel) -> Inbox:
    """The reply consumer of `channel`."""
    return Inbox(channel, REPLY_TO, auto_ack=True)


def ask(channel: BlockingChannel, queue: str) -> None:
    """Publish a request on the requester's channel."""
    channel.basic_publish(
        "",
        queue,
        b"question",
        BasicProperties(reply_to=REPLY_TO, correlation_id="c", content_type="text/plain"),
    )


def address(responder: BlockingChannel, queue: str) -> str:
    """Take the request and return the address that the broker wrote into it."""
    reply_to = get_soon(responder, queue).properties.reply_to
    assert isinstance(reply_to, str)
    return reply_to


def test_a_reply_comes_back_to_the_asking_channel(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)

    other_channel.basic_publish("", reply_to, b"answer", BasicProperties(correlation_id="c"))

    (delivery,) = replies.wait_for(1)
    assert (delivery.body, delivery.properties.correlation_id) == (b"answer", "c")
    assert delivery.method == pika.spec.Basic.Deliver(replies.tag, 1, False, "", reply_to)


def test_the_broker_writes_a_secret_address_into_the_request(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    request = get_soon(other_channel, queue).properties

    assert request.reply_to.startswith(REPLY_TO + ".")
    assert len(request.reply_to) > len(REPLY_TO) + 20
    assert (request.correlation_id, request.content_type) == ("c", "text/plain")


def test_several_requests_may_be_under_way(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    for _ in range(10):
        ask(channel, queue)
    for number in range(10):
        other_channel.basic_publish("", address(other_channel, queue), b"%d" % number)
    replies.wait_for(10)

    assert replies.bodies == [b"%d" % number for number in range(10)]


def test_every_channel_has_its_own_address(
    channel: BlockingChannel,
    second_channel: BlockingChannel,
    other_channel: BlockingChannel,
    replies: Inbox,
    queue: str,
) -> None:
    others = Inbox(second_channel, REPLY_TO, auto_ack=True)
    ask(second_channel, queue)
    other_channel.basic_publish("", address(other_channel, queue), b"to the second")

    assert others.wait_for(1)[0].body == b"to the second"
    assert replies.deliveries == []


def test_asking_without_a_reply_consumer_is_refused(confirming: BlockingChannel, queue: str) -> None:
    with channel_closed(406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
        ask(confirming, queue)


def test_replies_cannot_be_acknowledged(channel: BlockingChannel) -> None:
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        channel.basic_consume(REPLY_TO, lambda *_: None)


def test_a_channel_has_one_reply_consumer(channel: BlockingChannel, replies: Inbox) -> None:
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer already set"):
        channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)


def test_after_cancelling_there_may_be_a_new_reply_consumer(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    channel.basic_cancel(replies.tag)
    again = Inbox(channel, REPLY_TO, auto_ack=True)
    ask(channel, queue)
    other_channel.basic_publish("", address(other_channel, queue), b"answer")

    assert again.wait_for(1)[0].body == b"answer"


def test_the_bare_name_can_be_declared(channel: BlockingChannel) -> None:
    method = channel.queue_declare(REPLY_TO, passive=True).method

    assert (method.message_count, method.consumer_count) == (0, 1)


def test_a_responder_can_look_whether_the_requester_waits(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)

    method = other_channel.queue_declare(reply_to, passive=True).method
    assert (method.queue, method.message_count, method.consumer_count) == (reply_to, 0, 1)


def test_a_responder_can_see_that_the_requester_is_gone(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)
    channel.close()

    with channel_closed(404, f"NOT_FOUND - no queue '{reply_to}' in vhost '/'"):
        other_channel.queue_declare(reply_to, passive=True)


def test_a_reply_to_nobody_is_dropped(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)
    channel.close()
    other_channel.confirm_delivery()

    other_channel.basic_publish("", reply_to, b"too late")


def test_a_mandatory_reply_to_nobody_is_returned(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)
    channel.close()
    other_channel.confirm_delivery()

    with pytest.raises(UnroutableError):
        other_channel.basic_publish("", reply_to, b"too late", mandatory=True)


@pytest.mark.parametrize("name", [REPLY_TO, REPLY_TO + ".garbage"])
def test_other_names_with_the_prefix_are_unroutable(confirming: BlockingChannel, name: str) -> None:
    with pytest.raises(UnroutableError):
        confirming.basic_publish("", name, b"x", mandatory=True)


def test_a_reply_address_cannot_be_read_with_get(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)

    with channel_closed(404, f"NOT_FOUND - no queue '{reply_to}' in vhost '/'"):
        other_channel.basic_get(reply_to)


def test_deleting_a_reply_address_is_fine_and_changes_nothing(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, queue: str
) -> None:
    ask(channel, queue)
    reply_to = address(other_channel, queue)
    other_channel.queue_delete(reply_to)
    other_channel.basic_publish("", reply_to, b"answer")

    assert replies.wait_for(1)[0].body == b"answer"


def test_a_request_may_travel_through_any_exchange(
    channel: BlockingChannel, other_channel: BlockingChannel, replies: Inbox, names: Names, queue: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    channel.basic_publish(exchange, "", b"question", BasicProperties(reply_to=REPLY_TO))
    other_channel.basic_publish("", address(other_channel, queue), b"answer")

    assert replies.wait_for(1)[0].body == b"answer"
