"""What survives a restart or a crash, what counts as redelivered afterwards, and what a failing disk does.

Source: RabbitMQ guides "Queues" (durability) and "Reliability".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replace_fields

import pytest
from pamqp import commands

from leveret.protocol.properties import replace

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

Ending = Callable[[Broker], None]
both_endings = pytest.mark.parametrize("end", [Broker.restart, Broker.crash], ids=["restart", "crash"])


def redelivered(channel: ChannelOfTest, queue: str) -> list[tuple[bytes, bool]]:
    """Get all messages: body and redelivered bit."""
    told: list[tuple[bytes, bool]] = []
    while (message := channel.get(queue)) is not None:
        told.append((message.body, is_redelivered(message)))
    return told


# What survives


@both_endings
def test_durable_exchanges_queues_and_their_bindings_survive(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare_exchange("e", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    channel.declare_exchange("f", "fanout", durable=True)
    channel.declare("q", durable=True, arguments={"x-max-length": 9})
    channel.bind("q", "e", "a.*", arguments={"x": 1})
    channel.call(commands.Exchange.Bind, source="e", destination="f", routing_key="b.*")
    channel.bind("q", "f")
    end(broker)
    channel = broker.channel()
    channel.declare_exchange("e", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    channel.declare("q", durable=True, arguments={"x-max-length": 9})
    channel.publish("a.1", b"1", exchange="e")
    channel.publish("b.1", b"2", exchange="e")
    assert channel.drain("q") == [b"1", b"2"]


@both_endings
def test_transient_things_and_bindings_with_a_transient_end_do_not_survive(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare_exchange("transient")
    channel.declare("t")
    channel.declare("q", durable=True)
    channel.bind("q", "transient", "k")
    channel.bind("t", "amq.direct", "k")
    end(broker)
    channel = broker.channel()
    assert not channel.exists("t")
    channel.declare("t", durable=True)
    channel.publish("k", b"1", exchange="amq.direct")
    assert channel.ready("t") == 0
    with pytest.raises(Refused):
        channel.call(commands.Exchange.Declare, exchange="transient", passive=True)


@both_endings
def test_deleted_and_unbound_things_do_not_come_back(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    for queue in ("q", "gone"):
        channel.declare(queue, durable=True)
        channel.bind(queue, "amq.direct", "k")
    channel.declare_exchange("e", durable=True)
    channel.publish("k", b"1", exchange="amq.direct", properties=PERSISTENT)
    channel.delete("gone")
    channel.call(commands.Queue.Unbind, queue="q", exchange="amq.direct", routing_key="k")
    channel.call(commands.Exchange.Delete, exchange="e")
    end(broker)
    channel = broker.channel()
    assert not channel.exists("gone")
    channel.publish("k", b"2", exchange="amq.direct")
    assert channel.drain("q") == [b"1"]


@both_endings
def test_persistent_messages_of_durable_queues_survive_in_order(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    for number in range(10):
        channel.publish(
            "q", b"%d" % number, properties=PERSISTENT if number % 2 else replace(delivery_mode=1)
        )
    end(broker)
    channel = broker.channel()
    assert channel.ready("q") == 5
    assert channel.drain("q") == [b"1", b"3", b"5", b"7", b"9"]


@both_endings
def test_properties_and_body_survive_byte_for_byte(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.bind("q", "amq.topic", "#")
    properties = replace(delivery_mode=2, headers={}, content_type="", priority=7, message_id=b"\xff")
    channel.publish("key \udce9", bytes(range(256)), exchange="amq.topic", properties=properties)
    end(broker)
    message = broker.channel().get("q")
    assert message is not None
    assert (message.properties, message.body) == (properties, bytes(range(256)))
    assert isinstance(message.method, commands.Basic.GetOk)
    assert (message.method.exchange, message.method.routing_key) == ("amq.topic", "key \udce9")


@both_endings
def test_acked_messages_do_not_come_back_and_unacked_ones_do(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", b"3", b"4", properties=PERSISTENT)
    channel.consume("q")
    channel.ack(2)
    channel.reject(3)
    end(broker)
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"4", True)]


@both_endings
def test_messages_taken_without_ack_do_not_come_back(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    channel.consume("q", no_ack=True)
    end(broker)
    assert broker.channel().ready("q") == 0


@both_endings
def test_a_message_in_several_queues_survives_in_each_on_its_own(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    for queue in ("a", "b"):
        channel.declare(queue, durable=True)
        channel.bind(queue, "amq.fanout")
    channel.publish("", b"1", exchange="amq.fanout", properties=PERSISTENT)
    channel.get("a")
    end(broker)
    channel = broker.channel()
    assert (channel.ready("a"), channel.drain("b")) == (0, [b"1"])


@both_endings
def test_requeued_messages_keep_their_places(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", b"3", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    channel.get("q", no_ack=False)
    channel.nack(1)
    end(broker)
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"2", True), (b"3", end is Broker.crash)]


@both_endings
def test_several_lives_in_a_row(end: Ending) -> None:
    broker = Broker()
    broker.channel().declare("q", durable=True)
    expected: list[bytes] = []
    for number in range(6):
        channel = broker.channel()
        channel.publish("q", b"%d" % number, properties=PERSISTENT)
        expected.append(b"%d" % number)
        if number % 3 == 2:
            channel.get("q")
            expected.pop(0)
        end(broker)
    assert broker.channel().drain("q") == expected


# Crashes


def test_what_was_not_confirmed_may_be_lost_and_what_was_is_not() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.confirm()
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.hold_store()
    channel.publish("q", b"2", properties=PERSISTENT)
    channel.publish("q", b"3", properties=PERSISTENT)
    assert channel.confirms() == ["ack 1"]
    broker.crash()
    assert broker.channel().drain("q") == [b"1"]


def test_an_ack_that_was_not_durable_brings_the_message_back_as_redelivered() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    broker.hold_store()
    channel.ack(1)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"1", True)]


def test_nothing_is_delivered_before_it_is_durable_that_deliveries_begin() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.hold_store()
    channel.consume("q")
    assert channel.bodies() == []
    broker.release_store()
    assert channel.bodies() == [b"1"]


def test_get_waits_for_the_same() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.hold_store()
    channel.send(commands.Basic.Get, queue="q")
    channel.send(commands.Basic.Qos, prefetch_count=1)
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == ["Basic.GetOk", "Basic.QosOk"]


# Redelivered


def test_after_a_clean_stop_only_what_was_out_is_redelivered() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", b"3", properties=PERSISTENT)
    channel.qos(2)
    channel.consume("q")
    broker.restart()
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"2", True), (b"3", False)]


def test_after_a_crash_what_nobody_could_have_got_is_not_redelivered() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"1", False), (b"2", False)]


def test_after_a_crash_with_a_consumer_everything_stored_may_have_been_delivered() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.qos(1)
    channel.consume("q")
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"2", True)]


def test_after_a_crash_without_consumers_it_is_exact_again() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    channel.qos(1)
    channel.consume("q")
    channel.cancel()
    channel.publish("q", b"3", properties=PERSISTENT)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"2", False), (b"3", False)]


@both_endings
def test_a_message_published_after_a_restart_is_new(end: Ending) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    channel.consume("q", no_ack=True)
    end(broker)
    channel = broker.channel()
    channel.publish("q", b"3", properties=PERSISTENT)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"3", False)]


def test_a_second_crash_without_deliveries_changes_nothing() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    broker.crash()
    broker.channel().publish("q", b"2", properties=PERSISTENT)
    broker.crash()
    assert redelivered(broker.channel(), "q") == [(b"1", True), (b"2", False)]


# The end


def test_a_stop_tells_every_client() -> None:
    broker = Broker()
    channel = broker.channel()
    broker.node.begin_stop()
    broker.run()
    with pytest.raises(Refused) as refused:
        channel.check_open()
    text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    assert (refused.value.code, refused.value.text) == (320, text)


def test_nothing_is_confirmed_when_the_disk_fails() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.confirm()
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.fail_store()
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert (refused.value.code, refused.value.is_hard) == (541, True)
    assert channel.names() == []
    assert broker.node.is_done


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (commands.Queue.Declare, {"queue": "new", "durable": True}),
        (commands.Queue.Purge, {"queue": "q"}),
        (commands.Tx.Commit, {}),
    ],
)
def test_no_reply_is_sent_that_waited_for_a_failing_disk(
    method: type[commands.Queue.Declare], fields: dict[str, object]
) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.call(commands.Tx.Select)
    channel.publish("q", b"2", properties=PERSISTENT)
    broker.hold_store()
    channel.send(method, **fields)
    broker.fail_store()
    assert channel.client.take_names() == ["Connection.Close"]


def test_a_stop_does_not_send_replies_whose_batch_is_not_durable() -> None:
    broker = Broker()
    channel = broker.channel()
    broker.hold_store()
    channel.send(commands.Queue.Declare, queue="q", durable=True)
    broker.node.begin_stop()
    broker.run()
    assert channel.client.take_names() == ["Connection.Close"]


def test_after_the_disk_has_failed_nothing_is_taken() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.confirm()
    broker.fail_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.publish("q", b"2")
    assert channel.client.take_names() == ["Connection.Close"]


def test_a_message_that_left_while_its_batch_was_written_does_not_come_back() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.consume("q")
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.ack(1)
    broker.release_store()
    broker.crash()
    assert broker.channel().ready("q") == 0


def test_an_exchange_of_a_type_that_nobody_knows_any_more_stays_and_routes_nowhere() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare_exchange("e", "fanout", durable=True)
    channel.declare("q", durable=True)
    channel.bind("q", "e")
    stored = broker.disk.exchanges["/", "e"]
    broker.disk.exchanges["/", "e"] = replace_fields(stored, type="x-of-the-future")
    broker.restart()
    channel = broker.channel()
    channel.publish("k", b"m", exchange="e", mandatory=True)
    assert [message.body for message in channel.returned()] == [b"m"]
    channel.call(commands.Exchange.Delete, exchange="e")
    broker.restart()
    assert ("/", "e") not in broker.disk.exchanges
