"""Quorum queues on one node: durable queues that keep every message, and count how often it came back.

Source: RabbitMQ guide "Quorum Queues".
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import from_python

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

QUORUM: dict[str, object] = {"x-queue-type": "quorum"}


def quorum(broker: Broker | None = None, **arguments: object) -> ChannelOfTest:
    """A channel and a quorum queue "q"."""
    channel = (broker or Broker()).channel()
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.declare("q", durable=True, arguments=QUORUM | named)
    return channel


# what is kept


def test_transient_messages_survive_a_restart() -> None:
    channel = quorum()
    channel.publish("q", b"a")
    channel.publish("q", b"b", properties=PERSISTENT)
    channel.publish("q", b"c", properties=replace(delivery_mode=1))
    channel.broker.restart()
    channel = channel.broker.channel()
    message = channel.get("q")
    assert message is not None
    assert (message.body, message.fields.delivery_mode) == (b"a", None)
    assert channel.drain("q") == [b"b", b"c"]


def test_a_transient_message_is_confirmed_when_it_is_stored() -> None:
    channel = quorum()
    channel.confirm()
    channel.broker.hold_store()
    channel.publish("q", b"a")
    assert channel.confirms() == []
    channel.broker.release_store()
    assert channel.confirms() == ["ack 1"]


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_transient_message_that_was_consumed_does_not_come_back(no_ack: bool) -> None:
    channel = quorum()
    channel.publish_all("q", b"a", b"b")
    channel.consume("q", no_ack=no_ack)
    if not no_ack:
        channel.ack(2, multiple=True)
    channel.broker.crash()
    assert channel.broker.channel().get("q") is None


def test_messages_that_were_read_back_can_be_acked() -> None:
    channel = quorum()
    channel.publish_all("q", b"a", b"b", b"c")
    channel.broker.restart()
    channel = channel.broker.channel()
    message = channel.get("q", no_ack=False)
    assert message is not None
    channel.ack(delivery_tag(message))
    channel.broker.restart()
    assert channel.broker.channel().drain("q") == [b"b", b"c"]


def test_a_long_queue_of_transient_messages_is_paged_out() -> None:
    broker = Broker(message_memory_bytes=1024 * 1024)
    channel = quorum(broker)
    bodies = [b"%d" % number + bytes(1000) for number in range(5000)]
    channel.publish_all("q", *bodies)
    queue = broker.node.vhosts["/"].queues["q"]
    assert queue.backlog.paged_count
    broker.restart()
    assert broker.channel().drain("q") == bodies


def test_what_is_purged_does_not_come_back() -> None:
    channel = quorum()
    channel.publish_all("q", b"a", b"b")
    assert channel.purge("q") == 2
    channel.broker.restart()
    assert channel.broker.channel().get("q") is None


def test_counts_of_transient_messages_survive() -> None:
    channel = quorum(x_delivery_limit=1)
    channel.publish("q", b"a")
    for _ in range(2):
        message = channel.get("q", no_ack=False)
        assert message is not None
        channel.reject(delivery_tag(message), requeue=True)
        channel.broker.restart()
        channel = channel.broker.channel()
    assert channel.get("q") is None


def test_keys_of_deduplication_go_with_transient_messages() -> None:
    channel = quorum(x_message_deduplication=True)
    properties = replace(headers={"x-deduplication-header": from_python("key")})
    channel.publish("q", b"a", properties=properties)
    channel.broker.restart()
    channel = channel.broker.channel()
    channel.publish("q", b"again", properties=properties)
    assert channel.drain("q") == [b"a"]
    channel.publish("q", b"anew", properties=properties)
    assert channel.drain("q") == [b"anew"]


def test_a_classic_queue_forgets_transient_messages_as_before() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"a")
    broker.restart()
    assert broker.channel().get("q") is None


# what RabbitMQ refuses and nothing on one node forbids


def test_a_prefetch_limit_may_be_global() -> None:
    channel = quorum()
    channel.publish_all("q", b"a", b"b")
    channel.qos(1, globally=True)
    channel.consume("q")
    assert channel.bodies() == [b"a"]


def test_it_may_be_got_from_beside_a_single_active_consumer() -> None:
    channel = quorum(x_single_active_consumer=True)
    channel.publish("q", b"a")
    assert channel.drain("q") == [b"a"]


def test_a_consumer_may_be_exclusive() -> None:
    channel = quorum()
    channel.consume("q", exclusive=True)
    with pytest.raises(Refused, match="in exclusive use"):
        channel.consume("q", "other")


@pytest.mark.parametrize("flag", ["if_unused", "if_empty"])
def test_it_may_be_deleted_with_conditions(flag: str) -> None:
    assert quorum().delete("q", **{flag: True}) == 0


# arguments


@pytest.mark.parametrize(
    "name", ["x-quorum-initial-group-size", "x-quorum-target-group-size", "x-dead-letter-strategy"]
)
def test_an_argument_of_quorum_queues_is_refused_on_classic_queues(name: str) -> None:
    with pytest.raises(Refused) as refused:
        Broker().channel().declare("q", arguments={name: 1})
    assert refused.value.text == (
        f"PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/'"
        " of queue type rabbit_classic_queue"
    )


@pytest.mark.parametrize("name", ["x-quorum-initial-group-size", "x-quorum-target-group-size"])
def test_a_group_has_a_member(name: str) -> None:
    with pytest.raises(Refused, match="value_zero"):
        quorum(None, **{name.replace("-", "_"): 0})


@pytest.mark.parametrize(
    "name", ["x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"]
)
def test_an_argument_of_classic_queues_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="of queue type rabbit_quorum_queue"):
        Broker().channel().declare("q", durable=True, arguments=QUORUM | {name: 1})


@pytest.mark.parametrize(
    ("flags", "property_name"),
    [
        ({}, "non-durable"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
    ],
)
def test_it_must_be_durable_and_everybodys(flags: dict[str, bool], property_name: str) -> None:
    with pytest.raises(Refused, match=f"invalid property '{property_name}'"):
        Broker().channel().declare("q", arguments=QUORUM, **flags)


def test_the_default_type_of_a_vhost_makes_one() -> None:
    broker = Broker()
    broker.node.vhosts["/"].default_queue_type = "quorum"
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"a")
    broker.restart()
    channel = broker.channel()
    message = channel.get("q", no_ack=False)
    assert message is not None
    channel.call(commands.Basic.Recover, requeue=True)
    again = channel.get("q", no_ack=False)
    assert again is not None
    assert is_redelivered(again)
    assert again.fields.headers is not None
