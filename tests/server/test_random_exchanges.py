"""x-random and x-local-random: each message goes to one of the bound queues."""

from __future__ import annotations

import pytest
from pamqp import commands

from .harness import Broker, ChannelOfTest, Refused

MESSAGES = 600


@pytest.fixture(params=["x-random", "x-local-random"])
def channel(request: pytest.FixtureRequest) -> ChannelOfTest:
    """A channel with an exchange `e` of either type and queues `one` and `two` bound to it."""
    channel = Broker().channel()
    channel.declare_exchange("e", request.param)
    for queue in ("one", "two"):
        channel.declare(queue)
        channel.bind(queue, "e")
    return channel


def test_each_message_goes_to_one_queue_by_chance(channel: ChannelOfTest) -> None:
    channel.publish_all("any", *[b"m"] * MESSAGES, exchange="e")
    counts = [channel.ready("one"), channel.ready("two")]
    assert sum(counts) == MESSAGES
    assert min(counts) > MESSAGES // 3


def test_an_unbound_queue_gets_nothing(channel: ChannelOfTest) -> None:
    channel.call(commands.Queue.Unbind, queue="one", exchange="e", routing_key="")
    channel.publish_all("any", *[b"m"] * 10, exchange="e")
    assert (channel.ready("one"), channel.ready("two")) == (0, 10)


def test_a_message_comes_back_if_nothing_is_bound(channel: ChannelOfTest) -> None:
    channel.delete("one")
    channel.delete("two")
    channel.publish("any", b"m", exchange="e", mandatory=True)
    assert [message.body for message in channel.returned()] == [b"m"]


def test_every_message_is_confirmed_once(channel: ChannelOfTest) -> None:
    channel.confirm()
    channel.publish_all("any", *[b"m"] * 10, exchange="e")
    assert channel.confirms() == ["ack 10 multiple"]


def test_a_transaction_leaves_it_to_chance_too(channel: ChannelOfTest) -> None:
    channel.call(commands.Tx.Select)
    channel.publish_all("any", *[b"m"] * 50, exchange="e")
    assert (channel.ready("one"), channel.ready("two")) == (0, 0)
    channel.call(commands.Tx.Commit)
    counts = [channel.ready("one"), channel.ready("two")]
    assert sum(counts) == 50
    assert min(counts) > 0


def test_a_message_through_another_exchange_is_left_to_chance_too(channel: ChannelOfTest) -> None:
    channel.declare_exchange("outer", "fanout")
    channel.call(commands.Exchange.Bind, source="outer", destination="e", routing_key="")
    channel.publish_all("any", *[b"m"] * 50, exchange="outer")
    counts = [channel.ready("one"), channel.ready("two")]
    assert sum(counts) == 50
    assert min(counts) > 0


def test_dead_letters_are_left_to_chance_too(channel: ChannelOfTest) -> None:
    channel.declare("short", arguments={"x-max-length": 1, "x-dead-letter-exchange": "e"})
    channel.publish_all("short", *[b"m"] * 51)
    counts = [channel.ready("one"), channel.ready("two")]
    assert sum(counts) == 50
    assert min(counts) > 0


def test_x_random_counts_each_binding() -> None:
    channel = Broker().channel()
    channel.declare_exchange("e", "x-random")
    for queue, key in (("one", "a"), ("one", "b"), ("two", "a")):
        channel.declare(queue)
        channel.bind(queue, "e", key)
    channel.publish_all("any", *[b"m"] * MESSAGES, exchange="e")
    assert channel.ready("one") > 1.5 * channel.ready("two") > 0


def test_x_local_random_wants_no_binding_key() -> None:
    channel = Broker().channel()
    channel.declare_exchange("e", "x-local-random")
    channel.declare("q")
    with pytest.raises(Refused) as refusal:
        channel.bind("q", "e", "k")
    assert refusal.value.text == "PRECONDITION_FAILED - Non empty binding 'k' key not permitted"


def test_x_local_random_wants_classic_queues() -> None:
    channel = Broker().channel()
    channel.declare_exchange("e", "x-local-random")
    channel.declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    with pytest.raises(Refused) as refusal:
        channel.bind("q", "e")
    assert (
        refusal.value.text
        == "PRECONDITION_FAILED - Queue type rabbit_quorum_queue not valid for this exchange type"
    )


def test_x_local_random_wants_queues() -> None:
    channel = Broker().channel()
    channel.declare_exchange("e", "x-local-random")
    with pytest.raises(Refused) as refusal:
        channel.call(commands.Exchange.Bind, source="e", destination="amq.fanout", routing_key="")
    assert refusal.value.text == "PRECONDITION_FAILED - Destination not found"
