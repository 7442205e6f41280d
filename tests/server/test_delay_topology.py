"""Delays made of 28 levels of queues, as Celery and NServiceBus build them.

Level n holds a message for 2^n seconds if bit n of its delay is set, and else passes it on at once; the
bits are the first 28 words of the routing key. Each level dead-letters into the next lower one.

Source: kombu's transport/native_delayed_delivery.py and NServiceBus's delay infrastructure, as topologies.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import pytest
from pamqp import commands

from leveret.protocol.tables import longstr

from .harness import PERSISTENT, Broker, ChannelOfTest

if TYPE_CHECKING:
    from leveret.protocol.tables import Array, Table

LEVELS = 28
LONGEST_S = 2**LEVELS - 1


@pytest.fixture(params=["classic", "quorum"])
def channel(request: pytest.FixtureRequest) -> ChannelOfTest:
    """A broker with the levels and a queue "work" that messages for "task" come to."""
    channel = Broker().channel()
    channel.confirm()
    channel.declare_exchange("delivery", "topic", durable=True)
    for level in range(LEVELS):
        channel.declare_exchange(f"level-{level}", "topic", durable=True)
    for level in range(LEVELS):
        above = "*." * (LEVELS - 1 - level)  # words of the levels that it has passed
        lower = f"level-{level - 1}" if level else "delivery"
        arguments = {
            "x-queue-type": request.param,
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": lower,
        }
        if request.param == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        channel.declare(f"level-{level}", durable=True, arguments=arguments)
        channel.bind(f"level-{level}", f"level-{level}", f"{above}1.#")
        bind = {"destination": lower, "source": f"level-{level}", "routing_key": f"{above}0.#"}
        channel.call(commands.Exchange.Bind, **bind)
    channel.declare("work", durable=True)
    channel.bind("work", "delivery", "#.task")
    return channel


def delay(channel: ChannelOfTest, seconds: int, body: bytes = b"") -> None:
    """Publish a task that is due in so many seconds."""
    bits = f"{seconds:0{LEVELS}b}"
    highest = max(0, seconds.bit_length() - 1)
    channel.publish(
        ".".join((*bits, "task")), body, exchange=f"level-{highest}", properties=PERSISTENT, mandatory=True
    )
    assert channel.returned() == []


def pass_seconds(channel: ChannelOfTest, seconds: float) -> None:
    channel.client.broker.advance(int(seconds * 1000))


@pytest.mark.parametrize("seconds", [1, 2, 3, 5, 60, 3600, 86_399, 2**20, 2**27, LONGEST_S])
def test_a_message_comes_when_its_delay_is_over_and_not_before(channel: ChannelOfTest, seconds: int) -> None:
    delay(channel, seconds)
    pass_seconds(channel, seconds - 0.001)
    assert channel.ready("work") == 0
    pass_seconds(channel, 0.001)
    assert channel.ready("work") == 1


def test_a_message_without_delay_comes_at_once(channel: ChannelOfTest) -> None:
    delay(channel, 0)
    assert channel.ready("work") == 1


def test_many_delays_at_once_come_in_the_order_in_which_they_are_due(channel: ChannelOfTest) -> None:
    seconds = random.Random(7).sample(range(1, 100_000), 200)
    for each in seconds:
        delay(channel, each, str(each).encode())
    pass_seconds(channel, 100_000)
    assert [int(body) for body in channel.drain("work")] == sorted(seconds)


def test_delays_go_on_after_a_crash(channel: ChannelOfTest) -> None:
    broker = channel.client.broker
    delay(channel, 1000, b"still due")
    assert channel.confirms()
    broker.advance(600_000)
    broker.crash()
    broker.advance(399_999)
    again = broker.channel()
    assert again.ready("work") == 0
    broker.advance(1)
    assert again.drain("work") == [b"still due"]


def test_each_level_that_held_a_message_is_in_its_deaths(channel: ChannelOfTest) -> None:
    delay(channel, 0b1011)
    pass_seconds(channel, 0b1011)
    message = channel.get("work")
    assert message is not None
    deaths = cast("Array", (message.fields.headers or {})["x-death"].value)
    queues = [longstr(cast("Table", death.value), "queue") for death in deaths]
    assert queues == ["level-0", "level-1", "level-3"]
