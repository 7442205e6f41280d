"""x-recent-history: a queue that is bound gets the last messages, oldest first."""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from .harness import Broker, ChannelOfTest, Refused


@pytest.fixture
def channel() -> ChannelOfTest:
    """A channel with an exchange `e` that remembers three messages, and queues that are not bound."""
    channel = Broker().channel()
    channel.declare_exchange("e", "x-recent-history", arguments={"x-recent-history-length": 3})
    channel.declare("q")
    channel.declare("other")
    return channel


def publish(channel: ChannelOfTest, *bodies: bytes, properties: bytes = b"\0\0") -> None:
    channel.publish_all("k", *bodies, exchange="e", properties=properties)


def test_a_queue_that_is_bound_gets_the_last_messages_oldest_first(channel: ChannelOfTest) -> None:
    publish(channel, b"1", b"2", b"3", b"4", b"5")
    channel.bind("q", "e")
    assert channel.drain("q") == [b"3", b"4", b"5"]


def test_what_comes_later_goes_to_all_bound_queues(channel: ChannelOfTest) -> None:
    channel.bind("q", "e", "a")
    channel.bind("other", "e", "b")
    publish(channel, b"1")
    assert (channel.drain("q"), channel.drain("other")) == ([b"1"], [b"1"])


def test_each_new_binding_brings_the_history_again(channel: ChannelOfTest) -> None:
    channel.bind("q", "e", "a")
    publish(channel, b"1")
    channel.bind("q", "e", "b")
    assert channel.drain("q") == [b"1", b"1"]


def test_an_identical_binding_brings_nothing(channel: ChannelOfTest) -> None:
    channel.bind("q", "e", "a")
    publish(channel, b"1")
    channel.bind("q", "e", "a")
    assert channel.drain("q") == [b"1"]


def test_a_replayed_message_has_its_exchange_key_and_properties(channel: ChannelOfTest) -> None:
    publish(channel, b"1", properties=replace(message_id="m"))
    channel.bind("q", "e")
    message = channel.get("q")
    assert message is not None
    assert isinstance(message.method, commands.Basic.GetOk)
    assert (message.method.exchange, message.method.routing_key) == ("e", "k")
    assert message.properties == replace(message_id="m")


def test_a_message_can_ask_not_to_be_remembered(channel: ChannelOfTest) -> None:
    publish(channel, b"no", properties=replace(headers={"x-recent-history-no-store": Field("t", True)}))
    publish(channel, b"yes", properties=replace(headers={"x-recent-history-no-store": Field("S", b"true")}))
    channel.bind("q", "e")
    assert channel.drain("q") == [b"yes"]


def test_the_history_goes_through_an_exchange_that_is_bound(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.bind("q", "amq.direct", "k")
    channel.bind("other", "amq.direct", "else")
    channel.call(commands.Exchange.Bind, source="e", destination="amq.direct", routing_key="")
    assert (channel.drain("q"), channel.drain("other")) == ([b"1"], [])


def test_a_replayed_message_expires_by_its_own_ttl(channel: ChannelOfTest) -> None:
    publish(channel, b"1", properties=replace(expiration="1000"))
    channel.bind("q", "e")
    channel.broker.advance(1001)
    assert channel.ready("q") == 0


def test_twenty_messages_are_remembered_if_nothing_else_is_said(channel: ChannelOfTest) -> None:
    channel.declare_exchange("long", "x-recent-history")
    channel.publish_all("k", *[b"m"] * 30, exchange="long")
    channel.bind("q", "long")
    assert channel.ready("q") == 20


def test_a_restart_forgets_the_history() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare_exchange("e", "x-recent-history", durable=True)
    publish(channel, b"1", properties=replace(delivery_mode=2))
    broker.restart()
    channel = broker.channel()
    channel.declare("q")
    channel.bind("q", "e")
    assert channel.drain("q") == []


@pytest.mark.parametrize(("length", "shown"), [(0, "0"), (-1, "-1"), ("a", '<<"a">>'), (True, "true")])
def test_the_length_must_be_a_positive_integer(length: object, shown: str) -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refusal:
        channel.declare_exchange("e", "x-recent-history", arguments={"x-recent-history-length": length})
    assert refusal.value.text == (
        f"PRECONDITION_FAILED - Invalid argument {shown}, 'x-recent-history-length' must be"
        " a positive integer"
    )
