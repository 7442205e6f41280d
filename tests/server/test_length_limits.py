"""Length limits and what happens at them.

Source: RabbitMQ guide "Queue Length Limit".
"""

from __future__ import annotations

import pytest

from leveret.protocol.properties import replace

from .harness import PERSISTENT, Broker, ChannelOfTest

pytestmark = pytest.mark.usefixtures("either_way")


def limited(**arguments: object) -> ChannelOfTest:
    channel = Broker().channel()
    channel.declare("q", durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
    channel.confirm()
    return channel


def test_the_oldest_messages_are_dropped() -> None:
    channel = limited(x_max_length=2)
    channel.publish_all("q", b"1", b"2", b"3", b"4", b"5")
    assert channel.drain("q") == [b"4", b"5"]


def test_bytes_of_bodies_count() -> None:
    channel = limited(x_max_length_bytes=10)
    channel.publish_all("q", b"aaaa", b"bbbb", b"cc")
    assert channel.ready("q") == 3
    channel.publish("q", b"d")
    assert channel.drain("q") == [b"bbbb", b"cc", b"d"]


def test_whichever_limit_is_exceeded_first_counts() -> None:
    channel = limited(x_max_length=3, x_max_length_bytes=5)
    channel.publish_all("q", b"", b"", b"", b"")
    assert channel.ready("q") == 3
    channel.publish("q", b"12345")
    assert channel.ready("q") == 3
    channel.publish("q", b"6")
    assert channel.drain("q") == [b"6"]


def test_a_message_larger_than_the_limit_is_dropped_itself() -> None:
    channel = limited(x_max_length_bytes=3)
    channel.publish_all("q", b"1", b"1234")
    assert channel.ready("q") == 0


def test_limit_zero_keeps_nothing() -> None:
    channel = limited(x_max_length=0)
    channel.publish("q", b"1")
    assert channel.ready("q") == 0


@pytest.mark.parametrize("limits", [{"x_max_length": 0}, {"x_max_length": 1}, {"x_max_length_bytes": 1}])
def test_what_a_consumer_takes_at_once_is_not_dropped(limits: dict[str, object]) -> None:
    channel = limited(**limits)
    channel.consume("q", no_ack=True)
    sent = [b"%d" % number for number in range(100)]
    channel.publish_all("q", *sent, properties=PERSISTENT)
    assert channel.bodies() == sent


def test_what_exceeds_a_consumer_s_room_is_dropped() -> None:
    channel = limited(x_max_length=1)
    channel.qos(2)
    channel.consume("q")
    channel.publish_all("q", b"1", b"2", b"3", b"4", b"5")
    assert channel.bodies() == [b"1", b"2"]
    assert channel.drain("q") == [b"5"]


def test_unacked_messages_do_not_count_and_a_requeue_drops_again() -> None:
    channel = limited(x_max_length=2)
    channel.publish_all("q", b"1", b"2")
    channel.get("q", no_ack=False)
    channel.get("q", no_ack=False)
    channel.publish_all("q", b"3", b"4")
    assert channel.ready("q") == 2
    channel.nack(1)
    assert channel.drain("q") == [b"3", b"4"]
    channel.nack(2)
    assert channel.drain("q") == [b"2"]


def test_reject_publish_refuses_the_new_message() -> None:
    channel = limited(x_max_length=2, x_overflow="reject-publish")
    channel.publish_all("q", b"1", b"2", b"3")
    assert channel.drain("q") == [b"1", b"2"]


def test_reject_publish_counts_bytes_with_the_new_message() -> None:
    channel = limited(x_max_length_bytes=4, x_overflow="reject-publish")
    channel.publish_all("q", b"123", b"45", b"6")
    assert channel.confirms() == ["ack 1", "nack 2", "ack 3"]
    assert channel.drain("q") == [b"123", b"6"]


def test_reject_publish_without_confirms_drops_silently() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.publish_all("q", b"1", b"2")
    assert channel.drain("q") == [b"1"]
    assert channel.take() == []


def test_limit_zero_with_reject_publish_refuses_even_with_a_consumer() -> None:
    channel = limited(x_max_length=0, x_overflow="reject-publish")
    channel.consume("q")
    channel.publish("q", b"1")
    assert channel.confirms() == ["nack 1"]
    assert channel.bodies() == []


def test_reject_publish_takes_what_a_consumer_takes_in_one_batch() -> None:
    channel = limited(x_max_length=1, x_overflow="reject-publish")
    channel.consume("q", no_ack=True)
    channel.publish_all("q", *[b"x"] * 50)
    assert channel.confirms() == ["ack 50 multiple"]
    assert channel.bodies() == [b"x"] * 50


def test_a_requeue_may_exceed_the_limit_of_a_queue_that_refuses() -> None:
    channel = limited(x_max_length=1, x_overflow="reject-publish")
    channel.publish("q", b"1")
    channel.get("q", no_ack=False)
    channel.publish("q", b"2")
    channel.nack(1)
    assert channel.drain("q") == [b"1", b"2"]


def test_dropped_messages_leave_the_store() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={"x-max-length": 2})
    for number in range(5):
        channel.publish("q", b"%d" % number, properties=PERSISTENT)
    broker.crash()
    assert broker.channel().drain("q") == [b"3", b"4"]


def test_messages_that_a_crash_gives_back_count_from_the_start() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("dead", durable=True)
    arguments = {"x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.declare("q", durable=True, arguments=arguments)
    for body in (b"1", b"2", b"3", b"4"):
        channel.publish("q", body, properties=PERSISTENT)
        if body < b"3":
            channel.get("q", no_ack=False)
    broker.crash()
    channel = broker.channel()
    assert channel.ready("q") == 2
    assert channel.drain("dead") == [b"1", b"2"]
    assert channel.drain("q") == [b"3", b"4"]


def test_what_has_expired_while_the_head_is_read_back_does_not_count() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={"x-max-length": 2})
    channel.publish("q", b"kept", properties=PERSISTENT)
    broker.restart()
    channel = broker.channel()
    channel.publish_all("q", b"1", b"2", b"3", properties=replace(expiration="0"))
    assert channel.drain("q") == [b"kept"]


def test_the_limit_holds_after_a_restart() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={"x-max-length": 2})
    channel.publish_all("q", b"1", b"2", properties=PERSISTENT)
    broker.restart()
    channel = broker.channel()
    channel.publish("q", b"3", properties=PERSISTENT)
    assert channel.ready("q") == 2
    assert channel.drain("q") == [b"2", b"3"]
