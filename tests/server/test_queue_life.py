"""How queues come and go: exclusive, auto-delete, deleted, purged; when their replies are sent.

Source: RabbitMQ guide "Queues"; AMQP 0-9-1 class queue (50).
"""

from __future__ import annotations

import pytest
from pamqp import commands

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused

pytestmark = pytest.mark.usefixtures("either_way")

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be "
    "originally declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


# Exclusive


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (commands.Queue.Declare, {"exclusive": True}),
        (commands.Queue.Declare, {}),
        (commands.Queue.Declare, {"passive": True}),
        (commands.Queue.Bind, {"exchange": "amq.direct"}),
        (commands.Queue.Purge, {}),
        (commands.Queue.Delete, {}),
        (commands.Basic.Get, {}),
        (commands.Basic.Consume, {}),
    ],
)
def test_an_exclusive_queue_is_locked_for_other_connections(
    method: type[commands.Queue.Declare], fields: dict[str, object]
) -> None:
    broker = Broker()
    owner, other = broker.channel(), broker.channel()
    owner.declare("q", exclusive=True)
    with pytest.raises(Refused) as refused:
        other.call(method, queue="q", **fields)
    assert (refused.value.code, refused.value.text) == (405, LOCKED)
    assert not refused.value.is_hard


def test_an_exclusive_queue_is_unbound_by_its_owner_only() -> None:
    broker = Broker()
    owner, other = broker.channel(), broker.channel()
    owner.declare("q", exclusive=True)
    binding = {"queue": "q", "exchange": "amq.direct", "routing_key": "k"}
    other.call(commands.Queue.Unbind, **binding)  # nothing is there to be unbound
    owner.call(commands.Queue.Bind, **binding)
    with pytest.raises(Refused) as refused:
        other.call(commands.Queue.Unbind, **binding)
    assert (refused.value.code, refused.value.text) == (405, LOCKED)
    owner.publish("k", b"1", exchange="amq.direct")
    assert owner.drain("q") == [b"1"]


def test_anybody_can_publish_to_an_exclusive_queue() -> None:
    broker = Broker()
    owner, other = broker.channel(), broker.channel()
    owner.declare("q", exclusive=True)
    other.publish("q", b"1")
    assert owner.drain("q") == [b"1"]


def test_all_channels_of_the_owner_can_use_it() -> None:
    client = Broker().connect()
    client.channel(1).declare("q", exclusive=True)
    two = client.channel(2)
    two.declare("q", exclusive=True)
    two.publish("q", b"1")
    assert two.drain("q") == [b"1"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_owner_cannot_change_its_mind(exclusive: bool) -> None:
    channel = Broker().channel()
    channel.declare("q", exclusive=not exclusive)
    with pytest.raises(Refused) as refused:
        channel.declare("q", exclusive=exclusive)
    assert refused.value.text == LOCKED


def test_exclusive_drops_durable() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", exclusive=True, durable=True)
    channel.declare("q", exclusive=True, durable=False)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.restart()
    assert not broker.channel().exists("q")


@pytest.mark.parametrize("in_order", [False, True])
def test_an_exclusive_queue_goes_with_its_connection(in_order: bool) -> None:
    broker = Broker()
    owner, other = broker.channel(), broker.channel()
    owner.declare("q", exclusive=True)
    owner.bind("q", "amq.fanout")
    owner.consume("q")
    if in_order:
        owner.client.close()
    else:
        owner.client.vanish()
    assert not other.exists("q")
    other.publish("", b"1", exchange="amq.fanout", mandatory=True)
    assert other.names() == ["Basic.Return"]


def test_an_exclusive_queue_outlives_its_channel_and_its_consumers() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q", exclusive=True)
    one.consume("q")
    one.cancel()
    one.close()
    assert two.counts("q") == (0, 0)


def test_a_hard_error_deletes_exclusive_queues_before_the_close_is_answered() -> None:
    broker = Broker()
    owner, other = broker.channel(), broker.channel()
    owner.declare("q", exclusive=True)
    owner.publish("q", b"1", immediate=True)
    assert not other.exists("q")


# Auto-delete


def auto_delete_queue(broker: Broker) -> tuple[ChannelOfTest, ChannelOfTest]:
    channel, other = broker.channel(), broker.channel()
    channel.declare("q", auto_delete=True)
    return channel, other


def test_an_auto_delete_queue_without_a_consumer_stays() -> None:
    channel, other = auto_delete_queue(Broker())
    channel.publish("q", b"1")
    channel.get("q")
    channel.client.vanish()
    assert other.exists("q")


def test_an_auto_delete_queue_goes_with_its_last_consumer() -> None:
    channel, other = auto_delete_queue(Broker())
    channel.consume("q")
    other.consume("q")
    channel.cancel()
    assert channel.exists("q")
    other.close()
    assert not channel.exists("q")


def test_it_is_gone_before_cancel_ok() -> None:
    channel, _ = auto_delete_queue(Broker())
    channel.consume("q")
    with channel.client.at_once():
        channel.send(commands.Basic.Cancel, consumer_tag="c")
        channel.send(commands.Queue.Declare, queue="q", passive=True)
    assert channel.names() == ["Basic.CancelOk", "Channel.Close"]


def test_an_auto_delete_queue_goes_with_the_connection_of_its_consumer() -> None:
    channel, other = auto_delete_queue(Broker())
    channel.publish("q", b"1")
    channel.consume("q")
    channel.client.vanish()
    assert not other.exists("q")


def test_a_durable_auto_delete_queue_is_gone_after_a_crash() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, auto_delete=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.consume("q")
    channel.cancel()
    broker.crash()
    assert not broker.channel().exists("q")


# Delete and purge


def test_deleting_tells_how_many_messages_were_ready() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish_all("q", b"1", b"2", b"3")
    channel.get("q", no_ack=False)
    assert channel.delete("q") == 2
    assert channel.delete("q") == 0


def test_a_queue_in_use_is_not_deleted_if_it_must_be_unused() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q")
    with pytest.raises(Refused) as refused:
        channel.delete("q", if_unused=True)
    assert refused.value.text == "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"
    assert refused.value.method_ids == (50, 40)


def test_a_queue_with_ready_messages_is_not_deleted_if_it_must_be_empty() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1")
    with pytest.raises(Refused) as refused:
        channel.delete("q", if_empty=True, if_unused=True)
    assert refused.value.text == "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"


def test_unacked_messages_do_not_keep_a_queue_from_being_empty() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1")
    channel.get("q", no_ack=False)
    assert channel.delete("q", if_empty=True, if_unused=True) == 0


def test_a_new_queue_of_the_same_name_is_empty() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    with channel.client.at_once():
        channel.send(commands.Queue.Delete, queue="q")
        channel.send(commands.Queue.Declare, queue="q", durable=True)
        channel.publish("q", b"3", properties=PERSISTENT)
    assert channel.names() == ["Queue.DeleteOk", "Queue.DeclareOk"]
    channel.nack(1)
    broker.restart()
    assert broker.channel().drain("q") == [b"3"]


def test_a_purge_drops_ready_messages_only() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish_all("q", b"1", b"2", b"3")
    channel.get("q", no_ack=False)
    assert channel.purge("q") == 2
    assert channel.purge("q") == 0
    channel.publish("q", b"4")
    channel.nack(1)
    assert channel.drain("q") == [b"1", b"4"]


def test_purged_messages_do_not_come_back() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    channel.nack(1)
    channel.publish("q", b"3", properties=PERSISTENT)
    assert channel.purge("q") == 3
    broker.crash()
    assert broker.channel().ready("q") == 0


def test_purge_ok_of_persistent_messages_comes_when_it_is_durable() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.hold_store()
    channel.send(commands.Queue.Purge, queue="q")
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == ["Queue.PurgeOk"]


def test_a_purge_of_a_missing_queue_is_not_found() -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.purge("q")
    assert refused.value.text == "NOT_FOUND - no queue 'q' in vhost '/'"


# Replies and durability


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (commands.Queue.Declare, {"queue": "new", "durable": True}),
        (commands.Exchange.Declare, {"exchange": "new", "exchange_type": "topic", "durable": True}),
        (commands.Queue.Bind, {"queue": "q", "exchange": "amq.fanout"}),
        (commands.Queue.Unbind, {"queue": "q", "exchange": "amq.topic", "routing_key": "k"}),
        (commands.Queue.Delete, {"queue": "q"}),
    ],
)
def test_replies_about_durable_things_come_when_they_are_durable(
    method: type[commands.Queue.Declare], fields: dict[str, object]
) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.bind("q", "amq.topic", "k")
    broker.hold_store()
    channel.send(method, **fields)
    channel.send(commands.Basic.Qos, prefetch_count=1)
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == [*method.valid_responses, "Basic.QosOk"]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (commands.Queue.Declare, {"queue": "new"}),
        (commands.Queue.Declare, {"queue": "new", "durable": True, "exclusive": True}),
        (commands.Queue.Declare, {"queue": "q", "durable": True}),
        (commands.Queue.Declare, {"queue": "q", "passive": True}),
        (commands.Exchange.Declare, {"exchange": "new", "exchange_type": "topic"}),
        (commands.Queue.Bind, {"queue": "t", "exchange": "amq.fanout"}),
        (commands.Queue.Delete, {"queue": "t"}),
        (commands.Queue.Purge, {"queue": "t"}),
        (commands.Basic.Get, {"queue": "t"}),
        (commands.Basic.Consume, {"queue": "q"}),
    ],
)
def test_other_replies_do_not_wait_for_the_store(
    method: type[commands.Queue.Declare], fields: dict[str, object]
) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.declare("t")
    broker.hold_store()
    channel.send(method, **fields)
    assert channel.names()[0] in method.valid_responses


def test_a_declare_of_a_queue_that_is_being_written_waits_too() -> None:
    broker = Broker()
    one, two = broker.channel(), broker.channel()
    broker.hold_store()
    one.send(commands.Queue.Declare, queue="q", durable=True)
    two.send(commands.Queue.Declare, queue="q", durable=True)
    assert one.names() + two.names() == []
    broker.release_store()
    assert one.names() + two.names() == ["Queue.DeclareOk", "Queue.DeclareOk"]


def test_a_connection_that_waits_disturbs_no_other() -> None:
    broker = Broker()
    one, two = broker.channel(), broker.channel()
    broker.hold_store()
    one.send(commands.Queue.Declare, queue="q", durable=True)
    two.declare("t")
    two.publish("t", b"1")
    assert two.drain("t") == [b"1"]


def test_ids_of_transient_queues_are_used_again() -> None:
    channel = Broker().channel()
    for _ in range(50):
        channel.declare("q")
        channel.delete("q")
    channel.declare("q")
    queue = channel.broker.node.vhosts["/"].queues["q"]
    assert queue.id <= 2
