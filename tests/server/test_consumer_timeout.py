"""Consumer timeouts: who keeps a delivery for too long loses its channel.

Source: RabbitMQ guide "Consumers", delivery acknowledgement timeout; the text as 3.10 sends it.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, is_redelivered
from .test_policies import set_policy

MINUTE_MS = 60_000
HALF_AN_HOUR_MS = 30 * MINUTE_MS


def consuming(broker: Broker | None = None, **arguments: object) -> ChannelOfTest:
    """A channel that consumes from queue "q" and has one delivery."""
    channel = (broker or Broker()).channel()
    channel.declare("q", arguments=arguments)
    channel.publish("q", b"a")
    channel.consume("q")
    assert channel.bodies() == [b"a"]
    return channel


def with_timeout(milliseconds: int, broker: Broker | None = None) -> ChannelOfTest:
    return consuming(broker, **{"x-consumer-timeout": milliseconds})


def is_open(channel: ChannelOfTest) -> bool:
    try:
        channel.check_open()
    except Refused:
        return False
    return True


def closed_after_ms(channel: ChannelOfTest, at_most_ms: int, step_ms: int = 100) -> int:
    """Return when the channel was closed; -1 if it was not."""
    for passed_ms in range(step_ms, at_most_ms + 1, step_ms):
        channel.broker.advance(step_ms)
        if not is_open(channel):
            return passed_ms
    return -1


def test_a_delivery_that_is_kept_for_too_long_closes_its_channel() -> None:
    channel = with_timeout(1000)
    channel.broker.advance(2000)
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == (
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms."
        " This timeout value can be configured, see consumers doc guide to learn more"
    )
    assert (refused.value.code, refused.value.method_ids, refused.value.is_hard) == (406, (0, 0), False)


def test_it_is_said_once() -> None:
    channel = with_timeout(1000)
    channel.broker.advance(20_000)
    assert channel.names() == ["Channel.Close"]


def test_the_message_goes_to_others() -> None:
    channel = with_timeout(1000)
    channel.broker.advance(2000)
    other = channel.broker.channel()
    message = other.get("q")
    assert message is not None
    assert is_redelivered(message)


def test_the_channel_can_be_opened_again() -> None:
    channel = with_timeout(1000)
    channel.broker.advance(2000)
    assert not is_open(channel)
    channel.reopen()
    assert channel.ready("q") == 1


def test_other_channels_go_on() -> None:
    channel = with_timeout(1000)
    other = channel.client.channel(2)
    channel.broker.advance(2000)
    assert other.ready("q") == 1


@pytest.mark.parametrize("timeout_ms", [3000, 15_000, HALF_AN_HOUR_MS])
def test_it_is_not_sooner_than_asked_for_and_not_much_later(timeout_ms: int) -> None:
    channel = with_timeout(timeout_ms)
    latest_ms = timeout_ms + 2 * min(MINUTE_MS, timeout_ms // 2)
    assert timeout_ms <= closed_after_ms(channel, latest_ms, timeout_ms // 30) <= latest_ms


def test_who_acks_in_time_keeps_its_channel() -> None:
    channel = with_timeout(1000)
    for tag in range(1, 20):
        channel.broker.advance(900)
        channel.ack(tag)
        channel.publish("q", b"b")
    channel.broker.advance(900)
    assert is_open(channel)
    assert closed_after_ms(channel, 2000) > 0


def test_one_late_delivery_among_many_that_are_acked_is_enough() -> None:
    channel = with_timeout(1000)
    for tag in range(2, 10):
        channel.publish("q", b"b")
        channel.ack(tag)
        channel.broker.advance(150)
    assert closed_after_ms(channel, 1000) > 0


def test_there_is_none_unless_asked_for() -> None:
    channel = consuming()
    channel.broker.advance(100 * HALF_AN_HOUR_MS)
    assert is_open(channel)
    assert channel.broker.node.next_wake_ms() is None or not channel.broker.node.turn.watches


def test_the_broker_may_have_one() -> None:
    channel = consuming(Broker(consumer_timeout_s=2.0))
    assert 2000 <= closed_after_ms(channel, 4000) <= 4000


def test_a_queue_or_a_consumer_can_do_without_the_brokers() -> None:
    channel = with_timeout(0, Broker(consumer_timeout_s=2.0))
    assert closed_after_ms(channel, 10_000) == -1


def test_a_consumer_may_have_one() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"a")
    channel.consume("q", arguments={"x-consumer-timeout": 3000})
    channel.delivered()
    assert 3000 <= closed_after_ms(channel, 6000) <= 6000


def test_the_shorter_one_of_queue_and_consumer_holds() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-consumer-timeout": 1000})
    channel.publish("q", b"a")
    channel.consume("q", arguments={"x-consumer-timeout": 60_000})
    channel.delivered()
    assert 1000 <= closed_after_ms(channel, 2000) <= 2000


def test_each_delivery_has_the_timeout_of_its_queue() -> None:
    channel = with_timeout(10_000)
    channel.declare("quick", arguments={"x-consumer-timeout": 1000})
    channel.declare("slow")
    channel.publish("slow", b"s")
    channel.publish("quick", b"b")
    channel.consume("slow", "s")
    channel.consume("quick", "b")
    channel.delivered()
    channel.broker.advance(500)
    channel.ack(3)
    assert 8000 <= closed_after_ms(channel, 11_000) <= 11_000


def test_a_policy_sets_it_for_consumers_that_are_there() -> None:
    broker = Broker()
    channel = consuming(broker)
    set_policy(broker, {"consumer-timeout": 1000})
    assert 1000 <= closed_after_ms(channel, 2500) <= 2500


def test_basic_get_is_looked_after_as_well() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-consumer-timeout": 1000})
    channel.publish("q", b"a")
    assert channel.get("q", no_ack=False) is not None
    assert 1000 <= closed_after_ms(channel, 2000) <= 2000


def test_who_need_not_ack_is_left_alone() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-consumer-timeout": 1000})
    channel.publish("q", b"a")
    channel.consume("q", no_ack=True)
    assert closed_after_ms(channel, 5000) == -1


def test_readers_of_streams_are_not_exempt() -> None:
    channel = Broker().channel()
    channel.declare("q", durable=True, arguments={"x-queue-type": "stream"})
    channel.qos(10)
    channel.consume("q", arguments={"x-consumer-timeout": 1000})
    channel.publish("q", b"a")
    assert len(channel.delivered()) == 1
    assert 1000 <= closed_after_ms(channel, 2000) <= 2000


def test_what_comes_back_counts_towards_the_delivery_limit() -> None:
    channel = consuming(None, **{"x-consumer-timeout": 1000, "x-delivery-limit": 0})
    channel.broker.advance(2000)
    assert channel.broker.channel().ready("q") == 0


def test_a_get_that_waits_for_the_store_is_forgotten_with_its_channel() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"a", properties=PERSISTENT)
    broker.restart()
    channel = broker.channel()
    channel.declare("other", arguments={"x-consumer-timeout": 1000})
    channel.publish("other", b"b")
    channel.consume("other")
    channel.delivered()
    broker.hold_store()
    channel.send(commands.Basic.Get, queue="q")
    broker.advance(2000)
    broker.release_store()
    assert channel.names() == ["Channel.Close"]
    assert channel.client.take_names() == []
    assert broker.channel().drain("q") == [b"a"]


def test_channels_that_are_closed_are_forgotten() -> None:
    broker = Broker(consumer_timeout_s=1800.0)
    broker.node.turn.watches.closed_max = 10
    client = broker.connect()
    client.channel(1).declare("q")
    for _ in range(50):
        channel = client.channel(2)
        channel.consume("q")
        channel.close()
    assert len(broker.node.turn.watches) <= 20


def test_marks_are_thinned_out() -> None:
    channel = with_timeout(100 * MINUTE_MS)
    session = channel.client.session
    assert session.connection is not None
    watch = session.connection.channels[1].watch
    assert watch is not None
    watch.marks_max = 4
    for tag in range(2, 90):
        channel.publish("q", b"b")
        channel.ack(tag)
        channel.broker.advance(MINUTE_MS)
    assert len(watch._marks) <= 4
    assert is_open(channel)
    assert closed_after_ms(channel, 120 * MINUTE_MS, MINUTE_MS) > 0
