"""Direct reply-to: replies without a queue.

Source: RabbitMQ guide "Direct Reply-to".
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.properties import NO_PROPERTIES, replace

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered

REPLY_TO = "amq.rabbitmq.reply-to"


def requester(broker: Broker) -> ChannelOfTest:
    """A channel that takes replies, and queue "rpc" for its requests."""
    channel = broker.channel()
    channel.declare("rpc")
    channel.consume(REPLY_TO, "replies", no_ack=True)
    return channel


def request(channel: ChannelOfTest, responder: ChannelOfTest) -> str:
    """Send a request; the name that its reply is to be sent to."""
    channel.publish("rpc", b"?", properties=replace(reply_to=REPLY_TO, correlation_id="1"))
    message = responder.get("rpc")
    assert message is not None
    assert message.fields.correlation_id == b"1"
    assert message.fields.reply_to is not None
    return message.fields.reply_to.decode()


def test_a_reply_comes_as_a_delivery_to_the_requester() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel(9)
    name = request(channel, responder)
    assert name.startswith(REPLY_TO + ".")
    responder.publish(name, b"!", properties=replace(correlation_id="1"))
    (reply,) = channel.delivered()
    assert isinstance(reply.method, commands.Basic.Deliver)
    assert (reply.method.consumer_tag, reply.method.exchange, reply.method.routing_key) == (
        "replies",
        "",
        name,
    )
    assert (reply.body, reply.fields.correlation_id) == (b"!", b"1")
    assert not is_redelivered(reply)


def test_replies_take_tags_of_the_channel_and_need_no_ack() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    responder.publish_all(name, b"1", b"2")
    assert [delivery_tag(reply) for reply in channel.delivered()] == [1, 2]
    channel.ack(1)
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == "PRECONDITION_FAILED - unknown delivery tag 1"


def test_a_request_without_a_reply_consumer_is_refused() -> None:
    channel = Broker().channel()
    channel.publish("rpc", b"?", properties=replace(reply_to=REPLY_TO))
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == "PRECONDITION_FAILED - fast reply consumer does not exist"
    assert refused.value.method_ids == (60, 40)


def test_another_reply_to_is_left_alone() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"?", properties=replace(reply_to="mine"))
    message = channel.get("q")
    assert message is not None
    assert message.fields.reply_to == b"mine"


def test_the_reply_consumer_cannot_acknowledge() -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.consume(REPLY_TO)
    assert refused.value.text == "PRECONDITION_FAILED - reply consumer cannot acknowledge"
    assert refused.value.method_ids == (60, 20)


def test_a_channel_has_one_reply_consumer() -> None:
    channel = requester(Broker())
    with pytest.raises(Refused) as refused:
        channel.consume(REPLY_TO, "other", no_ack=True)
    assert refused.value.text == "PRECONDITION_FAILED - reply consumer already set"


def test_its_tag_is_a_tag_like_others() -> None:
    channel = requester(Broker())
    with pytest.raises(Refused) as refused:
        channel.consume("rpc", "replies")
    assert refused.value.text == "NOT_ALLOWED - attempt to reuse consumer tag 'replies'"


def test_a_cancelled_reply_consumer_gets_nothing_and_may_be_replaced() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    channel.cancel("replies")
    responder.publish(name, b"!")
    assert channel.delivered() == []
    channel.consume(REPLY_TO, "again", no_ack=True)
    responder.publish(name, b"!")
    assert channel.delivered() == []
    responder.publish(request(channel, responder), b"!")
    assert channel.bodies("again") == [b"!"]


def test_a_reply_to_a_requester_that_is_gone_is_dropped_or_comes_back() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    channel.client.vanish()
    responder.publish(name, b"!")
    assert responder.take() == []
    responder.publish(name, b"!", mandatory=True)
    assert responder.names() == ["Basic.Return"]


def test_a_mandatory_reply_that_arrives_does_not_come_back() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    responder.publish(name, b"!", mandatory=True)
    assert responder.take() == []
    assert channel.bodies() == [b"!"]


@pytest.mark.parametrize("properties", [NO_PROPERTIES, PERSISTENT])
def test_replies_are_confirmed_at_once(properties: bytes) -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    responder.confirm()
    broker.hold_store()
    responder.publish(name, b"!", properties=properties)
    channel.client.vanish()
    responder.publish(name, b"!", properties=properties)
    assert responder.confirms() == ["ack 1", "ack 2"]


@pytest.mark.parametrize("key", [REPLY_TO, REPLY_TO + ".garbage", REPLY_TO + "."])
def test_other_names_are_unroutable(key: str) -> None:
    channel = requester(Broker())
    channel.publish(key, b"!", mandatory=True)
    assert channel.names() == ["Basic.Return"]


def test_a_reply_goes_by_the_default_exchange_only() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    responder.publish(name, b"!", exchange="amq.direct")
    assert channel.bodies() == []


def test_a_reply_may_be_a_request_itself() -> None:
    broker = Broker()
    one, two = requester(broker), requester(broker)
    name = request(one, two)
    two.publish(name, b"!?", properties=replace(reply_to=REPLY_TO))
    (reply,) = one.delivered()
    assert reply.fields.reply_to is not None
    one.publish(reply.fields.reply_to.decode(), b"!!")
    assert two.bodies() == [b"!!"]


def test_a_large_reply_is_cut_for_its_receiver() -> None:
    broker = Broker()
    channel = broker.channel(3, frame_max=4096)
    channel.declare("rpc")
    channel.consume(REPLY_TO, "replies", no_ack=True)
    responder = broker.channel()
    responder.publish(request(channel, responder), b"x" * 100_000)
    assert channel.bodies() == [b"x" * 100_000]


# The names as queues


def test_the_bare_name_can_be_declared_and_shows_one_consumer() -> None:
    channel = Broker().channel()
    assert channel.counts(REPLY_TO) == (0, 1)
    assert channel.declare(REPLY_TO, durable=True) == REPLY_TO


def test_a_full_name_can_be_declared_while_its_consumer_lives() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    assert responder.counts(name) == (0, 1)
    channel.close()
    with pytest.raises(Refused) as refused:
        responder.counts(name)
    assert refused.value.text == f"NOT_FOUND - no queue '{name}' in vhost '/'"


@pytest.mark.parametrize("method", [commands.Basic.Get, commands.Basic.Consume, commands.Queue.Purge])
def test_a_full_name_is_no_queue_to_read_from(
    method: type[commands.Basic.Get | commands.Basic.Consume | commands.Queue.Purge],
) -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    with pytest.raises(Refused) as refused:
        responder.call(method, queue=name)
    assert refused.value.code == 404


def test_deleting_a_full_name_does_nothing() -> None:
    broker = Broker()
    channel, responder = requester(broker), broker.channel()
    name = request(channel, responder)
    assert responder.delete(name) == 0
    responder.publish(name, b"!")
    assert channel.bodies() == [b"!"]


def test_a_reply_committed_after_its_requester_has_gone_is_dropped() -> None:
    broker = Broker()
    client = broker.connect()
    channel, responder = client.channel(1), client.channel(2)
    channel.declare("rpc")
    channel.consume(REPLY_TO, "replies", no_ack=True)
    name = request(channel, responder)
    responder.call(commands.Tx.Select)
    responder.publish(name, b"!")
    channel.close()
    responder.call(commands.Tx.Commit)
    assert channel.take() == []
