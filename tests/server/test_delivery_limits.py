"""How often messages came back: the headers that tell it, the limit, and what survives.

Source: RabbitMQ guide "Quorum Queues", poison message handling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import Field, Table, from_python, longstr

from .harness import PERSISTENT, Broker, ChannelOfTest, delivery_tag, is_redelivered
from .test_policies import clear_policy, set_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..peer import Content

pytestmark = pytest.mark.usefixtures("either_way")

QUORUM: dict[str, object] = {"x-queue-type": "quorum"}
Counts = tuple[Field | None, Field | None]
NONE: Counts = (None, None)


def counting(broker: Broker | None = None, **arguments: object) -> ChannelOfTest:
    """A channel and a durable classic queue "q" that has one persistent message."""
    channel = (broker or Broker()).channel()
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.declare("q", durable=True, arguments={"x-delivery-limit": 100} | named)
    channel.publish("q", b"a", properties=PERSISTENT)
    return channel


def times(deliveries: int, acquired: int | None = None) -> Counts:
    return Field("l", deliveries), Field("l", deliveries if acquired is None else acquired)


def counts(message: Content | None) -> Counts:
    """Both headers of a message."""
    assert message is not None
    headers = message.fields.headers or {}
    return headers.get("x-delivery-count"), headers.get("x-acquired-count")


def got(channel: ChannelOfTest, queue: str = "q") -> Content:
    message = channel.get(queue, no_ack=False)
    assert message is not None
    return message


def reject(channel: ChannelOfTest) -> None:
    channel.reject(delivery_tag(got(channel)), requeue=True)


def nack(channel: ChannelOfTest) -> None:
    channel.nack(delivery_tag(got(channel)))


def nack_all(channel: ChannelOfTest) -> None:
    got(channel)
    channel.nack(0, multiple=True)


def recover(channel: ChannelOfTest) -> None:
    got(channel)
    channel.recover()


def close_the_channel(channel: ChannelOfTest) -> None:
    got(channel)
    channel.close()
    channel.call(commands.Channel.Open)


def lose_the_connection(channel: ChannelOfTest) -> None:
    other = channel.broker.channel()
    got(other)
    other.client.vanish()


WAYS_BACK = [reject, nack, nack_all, recover, close_the_channel, lose_the_connection]


# what is counted


@pytest.mark.parametrize("come_back", WAYS_BACK)
def test_every_way_back_counts(come_back: Callable[[ChannelOfTest], None]) -> None:
    channel = counting()
    come_back(channel)
    come_back(channel)
    message = got(channel)
    assert counts(message) == times(2)
    assert is_redelivered(message)


def test_a_first_delivery_has_no_counts() -> None:
    assert counts(got(counting())) == NONE


def test_a_delivery_that_was_only_cancelled_is_not_counted() -> None:
    channel = counting()
    channel.consume("q")
    channel.cancel()
    (message,) = channel.delivered()
    channel.ack(delivery_tag(message))
    assert channel.get("q") is None


def test_consumers_are_told_as_well() -> None:
    channel = counting()
    channel.qos(1)
    channel.consume("q")
    (first,) = channel.delivered()
    channel.reject(delivery_tag(first), requeue=True)
    (second,) = channel.delivered()
    assert [counts(first), counts(second)] == [NONE, times(1)]


def test_each_message_has_its_own_counts() -> None:
    channel = counting()
    channel.publish("q", b"b", properties=PERSISTENT)
    channel.consume("q")
    first, second = channel.delivered()
    channel.reject(delivery_tag(first), requeue=True)
    channel.reject(delivery_tag(channel.delivered()[0]), requeue=True)
    channel.reject(delivery_tag(second), requeue=True)
    assert [(message.body, counts(message)) for message in channel.delivered()] == [
        (b"a", times(2)),
        (b"b", times(1)),
    ]


def test_a_transient_message_is_counted_too() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-delivery-limit": 5})
    channel.publish("q", b"a")
    reject(channel)
    assert counts(got(channel)) == times(1)


def test_a_plain_classic_queue_counts_nothing() -> None:
    channel = Broker().channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"a", properties=PERSISTENT)
    reject(channel)
    message = got(channel)
    assert counts(message) == NONE
    assert is_redelivered(message)


def test_a_negative_limit_counts_for_ever() -> None:
    channel = counting(x_delivery_limit=-1)
    for _ in range(150):
        reject(channel)
    assert counts(got(channel)) == times(150)


def test_all_else_in_a_message_stays_as_it_was() -> None:
    channel = counting()
    headers: Table = {"a": Field("I", 1), "z": Field("S", b"\xff"), "x-delivery-count": Field("S", b"mine")}
    properties = replace(headers=headers, content_type="text/plain", expiration="60000", priority=3)
    channel.drain("q")
    channel.publish("q", b"body", properties=properties)
    assert counts(got(channel)) == (Field("S", b"mine"), None)
    channel.recover()
    message = got(channel)
    assert message.body == b"body"
    assert message.fields.headers == headers | {
        "x-delivery-count": Field("l", 1),
        "x-acquired-count": Field("l", 1),
    }
    assert (message.fields.content_type, message.fields.expiration) == (b"text/plain", b"60000")
    assert message.fields.priority == 3


def test_an_ack_in_a_transaction_that_is_rolled_back_counts_nothing() -> None:
    channel = counting()
    channel.call(commands.Tx.Select)
    channel.reject(delivery_tag(got(channel)), requeue=True)
    channel.call(commands.Tx.Rollback)
    channel.recover()
    assert counts(got(channel)) == times(1)


def test_nacks_need_not_count() -> None:
    channel = counting(Broker(nacks_count=False), x_delivery_limit=1)
    for _ in range(3):
        nack(channel)
    assert counts(got(channel)) == times(0, 3)
    channel.recover()
    reject(channel)
    assert counts(got(channel)) == times(1, 5)
    channel.reject(delivery_tag_of_last(channel), requeue=True)
    assert channel.get("q") is None


def delivery_tag_of_last(channel: ChannelOfTest) -> int:
    session = channel.client.session
    assert session.connection is not None
    return session.connection.channels[channel.number].next_delivery_tag - 1


# the limit


@pytest.mark.parametrize("come_back", WAYS_BACK)
def test_a_message_that_came_back_too_often_is_dropped(come_back: Callable[[ChannelOfTest], None]) -> None:
    channel = counting(x_delivery_limit=2)
    for _ in range(3):
        come_back(channel)
    assert channel.get("q") is None
    assert channel.counts("q") == (0, 0)
    channel.broker.restart()
    assert channel.broker.channel().get("q") is None


def test_a_limit_of_nought_allows_one_delivery() -> None:
    channel = counting(x_delivery_limit=0)
    reject(channel)
    assert channel.get("q") is None


def test_such_a_message_is_dead_lettered() -> None:
    channel = counting(None, x_delivery_limit=1, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    channel.declare("dead")
    reject(channel)
    reject(channel)
    dead = channel.get("dead")
    assert dead is not None
    assert dead.fields.headers is not None
    (entry,) = cast("list[Field]", dead.fields.headers["x-death"].value)
    death = cast("Table", entry.value)
    assert (longstr(death, "reason"), longstr(death, "queue")) == ("delivery_limit", "q")
    assert counts(dead) == NONE
    assert dead.fields.headers["x-last-death-reason"] == from_python("delivery_limit")


def test_only_the_messages_beyond_the_limit_are_let_go() -> None:
    channel = counting(x_delivery_limit=1)
    reject(channel)
    channel.publish("q", b"b", properties=PERSISTENT)
    channel.consume("q")
    assert channel.bodies() == [b"a", b"b"]
    channel.cancel()
    channel.nack(0, multiple=True)
    assert channel.drain("q") == [b"b"]


def test_unacked_messages_are_right_when_one_is_let_go() -> None:
    channel = counting(x_delivery_limit=0)
    reject(channel)
    assert channel.broker.node.vhosts["/"].queues["q"].messages == 0


def test_a_quorum_queue_has_a_limit_of_twenty() -> None:
    channel = Broker().channel()
    channel.declare("q", durable=True, arguments=QUORUM)
    channel.publish("q", b"a", properties=PERSISTENT)
    for _ in range(20):
        reject(channel)
    assert counts(got(channel)) == times(20)
    channel.recover()
    assert channel.get("q") is None


def test_a_limit_that_is_no_number_is_ignored() -> None:
    channel = counting(x_delivery_limit="5")
    for _ in range(10):
        reject(channel)
    assert counts(got(channel)) == NONE


# policies


def test_a_policy_sets_the_limit() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q")
    channel.publish("q", b"a")
    set_policy(broker, {"delivery-limit": 1})
    reject(channel)
    assert counts(got(channel)) == times(1)
    channel.recover()
    assert channel.get("q") is None


def test_the_smaller_of_argument_and_policy_holds() -> None:
    channel = counting(x_delivery_limit=5)
    set_policy(channel.broker, {"delivery-limit": 0})
    reject(channel)
    assert channel.get("q") is None


def test_an_unlimited_argument_yields_to_the_policy() -> None:
    channel = counting(x_delivery_limit=-1)
    set_policy(channel.broker, {"delivery-limit": 0})
    reject(channel)
    assert channel.get("q") is None


def test_counting_ends_with_the_policy() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q")
    channel.publish("q", b"a")
    set_policy(broker, {"delivery-limit": 1})
    reject(channel)
    clear_policy(broker)
    for _ in range(5):
        reject(channel)
    assert counts(got(channel)) == NONE


# restarts


def test_counts_survive_a_restart() -> None:
    channel = counting()
    reject(channel)
    reject(channel)
    channel.broker.restart()
    channel = channel.broker.channel()
    message = got(channel)
    assert counts(message) == times(2)
    assert is_redelivered(message)
    channel.recover()
    assert counts(got(channel)) == times(3)


def test_counts_survive_a_crash() -> None:
    channel = counting()
    reject(channel)
    got(channel)
    channel.broker.crash()
    assert counts(got(channel.broker.channel())) == times(1)


def test_an_orderly_stop_counts_like_any_lost_connection() -> None:
    channel = counting()
    got(channel)
    channel.broker.restart()
    assert counts(got(channel.broker.channel())) == times(1)


def test_the_limit_holds_over_a_restart() -> None:
    channel = counting(x_delivery_limit=2)
    reject(channel)
    channel.broker.restart()
    channel = channel.broker.channel()
    reject(channel)
    channel.broker.restart()
    channel = channel.broker.channel()
    assert counts(got(channel)) == times(2)
    channel.recover()
    assert channel.get("q") is None


def test_a_message_that_was_acked_leaves_no_counts() -> None:
    channel = counting()
    reject(channel)
    channel.ack(delivery_tag(got(channel)))
    channel.broker.restart()
    channel = channel.broker.channel()
    channel.publish("q", b"b", properties=PERSISTENT)
    channel.broker.restart()
    assert counts(got(channel.broker.channel())) == NONE


def test_returns_of_a_message_that_is_not_stored_yet_are_stored_with_it() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True, arguments=QUORUM)
    channel.consume("q")
    channel.publish("q", b"warm", properties=PERSISTENT)
    channel.ack(1)
    channel.delivered()
    broker.hold_store()
    channel.publish("q", b"a", properties=PERSISTENT)
    channel.publish("q", b"b", properties=PERSISTENT)
    for message in channel.delivered():
        channel.reject(delivery_tag(message), requeue=True)
    channel.ack(delivery_tag(channel.delivered()[0]))
    broker.release_store()
    broker.crash()
    channel = broker.channel()
    message = got(channel)
    assert (message.body, counts(message)) == (b"b", times(1))
    assert channel.get("q") is None
