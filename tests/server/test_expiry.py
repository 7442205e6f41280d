"""Message TTL and queue expiry.

Source: RabbitMQ guide "Time-To-Live and Expiration". Unlike in RabbitMQ, messages expire
wherever they are in a queue.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.properties import replace

from .harness import PERSISTENT, Broker, ChannelOfTest, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

HOUR_MS = 3_600_000


def expiring(milliseconds: int) -> bytes:
    return replace(expiration=str(milliseconds))


def queue_with_ttl(milliseconds: int, **fields: object) -> ChannelOfTest:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-message-ttl": milliseconds}, **fields)
    return channel


# Messages


def test_messages_of_a_queue_expire_by_time_alone() -> None:
    channel = queue_with_ttl(HOUR_MS)
    broker = channel.broker
    channel.publish("q", b"1")
    broker.advance(1000)
    channel.publish("q", b"2")
    broker.advance(HOUR_MS - 1001)
    assert channel.ready("q") == 2
    broker.advance(1)
    assert channel.ready("q") == 1
    broker.advance(1000)
    assert channel.ready("q") == 0


def test_a_message_expires_by_its_own_expiration() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1", properties=expiring(100))
    channel.broker.advance(99)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


@pytest.mark.parametrize(("of_queue", "of_message"), [(100, 500), (500, 100)])
def test_the_shorter_of_both_counts(of_queue: int, of_message: int) -> None:
    channel = queue_with_ttl(of_queue)
    channel.publish("q", b"1", properties=expiring(of_message))
    channel.broker.advance(99)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_a_message_expires_behind_one_that_lives() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"long", properties=expiring(1000))
    channel.publish("q", b"none")
    channel.publish("q", b"short", properties=expiring(10))
    channel.publish("q", b"last")
    channel.broker.advance(10)
    assert channel.ready("q") == 3
    assert channel.drain("q") == [b"long", b"none", b"last"]


def test_messages_in_front_of_the_first_with_an_expiration_stay() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish_all("q", *[b"x"] * 3000)
    channel.publish("q", b"short", properties=expiring(10))
    channel.broker.advance(10)
    assert channel.drain("q") == [b"x"] * 3000


def test_an_expired_message_is_not_delivered_to_a_consumer() -> None:
    channel = queue_with_ttl(100)
    channel.publish("q", b"1")
    channel.broker.now_ms += 101  # nobody has looked at the time yet
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c")
    assert channel.names() == ["Basic.ConsumeOk"]


def test_an_expired_message_is_not_got() -> None:
    channel = queue_with_ttl(100)
    channel.publish("q", b"1")
    channel.broker.now_ms += 100
    assert channel.get("q") is None


@pytest.mark.parametrize("by_message", [False, True])
def test_ttl_zero_delivers_to_a_waiting_consumer(by_message: bool) -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={} if by_message else {"x-message-ttl": 0})
    channel.consume("q")
    channel.publish_all("q", b"1", b"2", properties=expiring(0) if by_message else PERSISTENT)
    assert channel.bodies() == [b"1", b"2"]


@pytest.mark.parametrize("by_message", [False, True])
def test_ttl_zero_without_a_consumer_expires_at_once(by_message: bool) -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={} if by_message else {"x-message-ttl": 0})
    channel.publish("q", b"1", properties=expiring(0) if by_message else PERSISTENT)
    assert channel.get("q") is None
    channel.consume("q")
    assert channel.bodies() == []


def test_ttl_zero_expires_what_a_consumer_has_no_room_for() -> None:
    channel = queue_with_ttl(0)
    channel.qos(1)
    channel.consume("q")
    channel.publish_all("q", b"1", b"2")
    channel.ack(1)
    assert channel.bodies() == [b"1"]


@pytest.mark.parametrize("by_message", [False, True])
def test_ttl_zero_expires_what_is_requeued(by_message: bool) -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={} if by_message else {"x-message-ttl": 0})
    channel.consume("q")
    channel.publish("q", b"1", properties=expiring(0) if by_message else PERSISTENT)
    assert channel.bodies() == [b"1"]
    channel.nack(1)
    assert channel.bodies() == []
    assert channel.ready("q") == 0


def test_a_requeued_message_that_expires_is_dead_lettered() -> None:
    channel = Broker().channel()
    channel.declare("dead")
    arguments = {"x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.declare("q", arguments=arguments)
    channel.consume("q")
    channel.publish("q", b"1")
    channel.nack(1)
    assert channel.drain("dead") == [b"1"]


def test_ttl_zero_reaches_a_consumer_of_a_durable_queue_from_consume_ok_on() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q", durable=True, arguments={"x-message-ttl": 0})
    broker.hold_store()
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c")
    assert channel.names() == []
    broker.release_store()
    broker.hold_store()
    assert channel.names() == ["Basic.ConsumeOk"]
    other.publish("q", b"1")
    assert channel.bodies() == [b"1"]


def test_unacked_messages_do_not_expire() -> None:
    channel = queue_with_ttl(100)
    channel.publish("q", b"1")
    channel.consume("q")
    channel.broker.advance(1000)
    assert channel.bodies() == [b"1"]
    channel.ack(1)
    channel.check_open()


def test_a_message_requeued_after_its_deadline_expires_at_once() -> None:
    channel = queue_with_ttl(100)
    channel.publish_all("q", b"1", b"2")
    channel.get("q", no_ack=False)
    channel.broker.advance(1000)
    channel.nack(1)
    assert channel.ready("q") == 0


def test_a_message_requeued_in_time_keeps_its_deadline() -> None:
    channel = queue_with_ttl(100)
    channel.publish("q", b"1")
    channel.get("q", no_ack=False)
    channel.broker.advance(50)
    channel.nack(1)
    channel.broker.advance(49)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_a_message_delivered_and_requeued_keeps_its_deadline() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q")
    channel.publish("q", b"1", properties=expiring(100))
    channel.cancel()
    channel.nack(1)
    channel.broker.advance(99)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_expired_messages_leave_the_store() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={"x-message-ttl": 100})
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    broker.advance(100)
    broker.crash()
    assert broker.channel().ready("q") == 0


@pytest.mark.parametrize("by_message", [False, True])
def test_the_time_while_the_broker_is_down_counts(by_message: bool) -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={} if by_message else {"x-message-ttl": 100})
    channel.publish("q", b"1", properties=replace(delivery_mode=2, expiration="100" if by_message else None))
    broker.advance(50)
    channel.publish("q", b"2", properties=replace(delivery_mode=2, expiration="100" if by_message else None))
    broker.stop()
    broker.now_ms += 60
    broker.crash()
    assert broker.channel().drain("q") == [b"2"]


def test_after_a_restart_messages_expire_without_anybody_reading() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=replace(delivery_mode=2, expiration="100"))
    channel.publish("q", b"2", properties=replace(delivery_mode=2))
    channel.publish("q", b"3", properties=replace(delivery_mode=2, expiration="200"))
    broker.restart()
    broker.advance(100)
    assert broker.channel().ready("q") == 2
    broker.advance(100)
    assert broker.channel().ready("q") == 1


def test_many_deadlines_of_a_long_queue_are_kept() -> None:
    channel = Broker().channel()
    channel.declare("q")
    for number in range(30):
        channel.publish_all("q", *[b"%d" % number] * 300, properties=expiring(1000 + 10 * number))
    channel.broker.advance(1000 + 145)
    assert channel.ready("q") == 15 * 300
    channel.broker.advance(145)
    assert channel.ready("q") == 0


# Where only the head expires, as in RabbitMQ


def only_at_the_head(**arguments: object) -> ChannelOfTest:
    channel = Broker(expires_at_head_only=True).channel()
    channel.declare("q", arguments={name.replace("_", "-"): value for name, value in arguments.items()})
    return channel


def test_a_message_that_is_due_waits_for_those_before_it_where_only_the_head_expires() -> None:
    channel = only_at_the_head()
    channel.publish("q", b"long", properties=expiring(1000))
    channel.publish("q", b"short", properties=expiring(100))
    channel.broker.advance(999)
    assert channel.ready("q") == 2
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_a_message_that_comes_to_the_head_and_is_due_is_never_delivered() -> None:
    channel = only_at_the_head()
    for body, ttl_ms in ((b"1", HOUR_MS), (b"2", 100), (b"3", HOUR_MS), (b"4", 100)):
        channel.publish("q", body, properties=expiring(ttl_ms))
    channel.broker.advance(101)
    assert channel.ready("q") == 4
    channel.consume("q")
    assert channel.bodies() == [b"1", b"3"]
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_a_get_lets_the_next_message_expire_if_it_is_due() -> None:
    channel = only_at_the_head(x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    channel.declare("dead")
    channel.publish("q", b"1")
    channel.publish("q", b"2", properties=expiring(100))
    channel.publish("q", b"3")
    channel.broker.advance(200)
    got = channel.get("q")
    assert got is not None
    assert got.body == b"1"
    channel.broker.advance(1)
    assert (channel.ready("q"), channel.ready("dead")) == (1, 1)


def test_a_deadline_that_is_yet_to_come_holds_at_the_head() -> None:
    channel = only_at_the_head()
    channel.publish("q", b"1")
    channel.publish("q", b"2", properties=expiring(500))
    channel.get("q", no_ack=True)
    channel.broker.advance(499)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


# Queues


def test_an_unused_queue_expires() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-expires": 1000})
    channel.broker.advance(999)
    assert channel.exists("q")
    channel.broker.advance(1000)
    assert not channel.exists("q")


def test_get_and_declare_are_uses_but_publish_and_ack_are_not() -> None:
    channel = Broker().channel()
    broker = channel.broker
    for name in ("got", "declared", "published", "acked"):
        channel.declare(name, arguments={"x-expires": 1000})
    channel.publish("acked", b"1")
    channel.get("acked", no_ack=False)
    broker.advance(500)
    channel.get("got")
    channel.declare("declared", arguments={"x-expires": 1000})
    channel.publish("published", b"1")
    channel.ack(1)
    broker.advance(500)
    assert [channel.exists(name) for name in ("got", "declared", "published", "acked")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_queue_with_a_consumer_does_not_expire_and_counts_from_its_cancel() -> None:
    channel = Broker().channel()
    broker = channel.broker
    channel.declare("q", arguments={"x-expires": 1000})
    channel.consume("q")
    broker.advance(5000)
    channel.cancel()
    broker.advance(999)
    assert channel.client.channel(2).exists("q")
    broker.advance(1000)
    assert not channel.exists("q")


def test_an_expired_queue_dead_letters_nothing() -> None:
    channel = Broker().channel()
    channel.declare("dead")
    arguments = {"x-expires": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.declare("q", arguments=arguments)
    channel.publish("q", b"1")
    channel.broker.advance(1000)
    assert channel.ready("dead") == 0
    assert not channel.exists("q")


def test_a_durable_queue_starts_its_time_anew_with_the_broker() -> None:
    broker = Broker()
    broker.channel().declare("q", durable=True, arguments={"x-expires": 1000})
    broker.advance(900)
    broker.restart()
    broker.advance(900)
    channel = broker.channel()
    assert channel.exists("q")
    broker.advance(1000)
    assert not channel.exists("q")
    broker.restart()
    assert not broker.channel().exists("q")


def test_an_expiring_queue_expires_its_messages_too() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-expires": 1000, "x-message-ttl": 100})
    channel.publish("q", b"1")
    channel.broker.advance(100)
    assert channel.ready("q") == 0
    channel.broker.advance(1000)
    assert not channel.exists("q")


def test_messages_got_before_a_requeue_are_marked_redelivered() -> None:
    channel = queue_with_ttl(100)
    channel.publish("q", b"1")
    channel.get("q", no_ack=False)
    channel.nack(1)
    message = channel.get("q")
    assert message is not None
    assert is_redelivered(message)
