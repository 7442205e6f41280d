"""Dead-lettering: when, where to, and what it writes into the message.

Source: RabbitMQ guide "Dead Letter Exchanges"; x-death as 4.x writes it.
"""

from __future__ import annotations

from typing import cast

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import Array, Field, Table, from_python, longstr

from ..peer import Content
from .harness import PERSISTENT, START_MS, Broker, ChannelOfTest, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

TO_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def with_dead_letters(broker: Broker | None = None, **arguments: object) -> ChannelOfTest:
    """A channel, queue "q" that sends its dead letters to queue "dead"."""
    channel = (broker or Broker()).channel()
    channel.declare("dead", durable=True)
    channel.declare(
        "q", durable=True, arguments=TO_DEAD | {k.replace("_", "-"): v for k, v in arguments.items()}
    )
    return channel


def deaths(message: Content | None) -> list[tuple[str | None, str | None, object]]:
    """Queue, reason and count of each entry of x-death."""
    assert message is not None
    return [
        (longstr(entry, "queue"), longstr(entry, "reason"), entry["count"].value)
        for entry in entries(message)
    ]


def entries(message: Content) -> list[Table]:
    headers = message.fields.headers or {}
    return [cast("Table", field.value) for field in cast("Array", headers["x-death"].value)]


def got(channel: ChannelOfTest, queue: str, *, no_ack: bool = True) -> Content:
    message = channel.get(queue, no_ack=no_ack)
    assert message is not None
    return message


def reject_one(channel: ChannelOfTest, queue: str) -> None:
    message = got(channel, queue, no_ack=False)
    assert isinstance(message.method, commands.Basic.GetOk)
    assert message.method.delivery_tag is not None
    channel.reject(message.method.delivery_tag)


# When


@pytest.mark.parametrize("by_nack", [False, True])
def test_a_rejected_message_is_dead_lettered(by_nack: bool) -> None:
    channel = with_dead_letters()
    channel.publish("q", b"1")
    got(channel, "q", no_ack=False)
    if by_nack:
        channel.nack(1, requeue=False)
    else:
        channel.reject(1)
    message = got(channel, "dead")
    assert (message.body, deaths(message)) == (b"1", [("q", "rejected", 1)])


def test_an_expired_message_is_dead_lettered() -> None:
    channel = with_dead_letters(x_message_ttl=100)
    channel.publish("q", b"1")
    channel.broker.advance(100)
    assert deaths(got(channel, "dead")) == [("q", "expired", 1)]


def test_a_message_dropped_at_the_head_is_dead_lettered() -> None:
    channel = with_dead_letters(x_max_length=1)
    channel.publish_all("q", b"1", b"2")
    message = got(channel, "dead")
    assert (message.body, deaths(message)) == (b"1", [("q", "maxlen", 1)])


def test_a_refused_message_is_dead_lettered_where_asked() -> None:
    channel = with_dead_letters(x_max_length=1, x_overflow="reject-publish-dlx")
    channel.publish_all("q", b"1", b"2")
    message = got(channel, "dead")
    assert (message.body, deaths(message)) == (b"2", [("q", "maxlen", 1)])


def test_a_refused_message_is_not_dead_lettered_otherwise() -> None:
    channel = with_dead_letters(x_max_length=1, x_overflow="reject-publish")
    channel.publish_all("q", b"1", b"2")
    assert channel.ready("dead") == 0


def test_acks_purges_and_deletions_dead_letter_nothing() -> None:
    channel = with_dead_letters()
    channel.publish_all("q", b"1", b"2", b"3")
    got(channel, "q", no_ack=False)
    channel.ack(1)
    got(channel, "q", no_ack=False)
    channel.purge("q")
    channel.delete("q")
    channel.check_open()
    assert channel.ready("dead") == 0


def test_a_requeue_dead_letters_nothing() -> None:
    channel = with_dead_letters()
    channel.publish("q", b"1")
    got(channel, "q", no_ack=False)
    channel.nack(1, requeue=True)
    assert (channel.ready("q"), channel.ready("dead")) == (1, 0)


def test_messages_that_expire_while_unread_die_in_the_order_of_their_deadlines() -> None:
    channel = with_dead_letters()
    for body, expiration in ((b"late", "300"), (b"soon", "100"), (b"later", "400"), (b"middle", "200")):
        channel.publish("q", body, properties=replace(expiration=expiration))
    channel.broker.advance(1000)
    assert channel.drain("dead") == [b"soon", b"middle", b"late", b"later"]


# Where to


def test_without_its_exchange_a_dead_letter_is_dropped() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-dead-letter-exchange": "nope"})
    channel.publish("q", b"1")
    reject_one(channel, "q")
    assert channel.ready("q") == 0


def test_the_dead_letter_exchange_may_come_later_and_may_be_internal() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-dead-letter-exchange": "dlx"})
    channel.declare_exchange("dlx", "fanout", internal=True)
    channel.bind(channel.declare("dead"), "dlx")
    channel.publish("q", b"1")
    reject_one(channel, "q")
    assert channel.drain("dead") == [b"1"]


def test_a_dead_letter_keeps_its_routing_keys_with_cc_and_bcc() -> None:
    channel = Broker().channel()
    channel.declare_exchange("dlx")
    for queue in ("a", "b", "c"):
        channel.declare(queue)
        channel.bind(queue, "dlx", "key-" + queue)
    channel.declare("q", arguments={"x-dead-letter-exchange": "dlx"})
    channel.bind("q", "amq.fanout")
    headers = {"CC": from_python(["key-b"]), "BCC": from_python(["key-c"])}
    channel.publish("key-a", b"1", exchange="amq.fanout", properties=replace(headers=headers))
    reject_one(channel, "q")
    messages = [got(channel, queue) for queue in ("a", "b", "c")]
    for message in messages:
        assert isinstance(message.method, commands.Basic.GetOk)
        assert (message.method.exchange, message.method.routing_key) == ("dlx", "key-a")
        assert entries(message)[0]["routing-keys"] == from_python(["key-a", "key-b"])
        assert message.fields.headers is not None
        assert "BCC" not in message.fields.headers


def test_a_dead_letter_routing_key_takes_the_place_of_all_others() -> None:
    channel = with_dead_letters()
    channel.declare("cc")
    channel.bind("q", "amq.fanout")
    properties = replace(headers={"CC": from_python(["cc"])})
    channel.publish("k", b"1", exchange="amq.fanout", properties=properties)
    reject_one(channel, "q")
    message = got(channel, "dead")
    assert isinstance(message.method, commands.Basic.GetOk)
    assert (message.method.exchange, message.method.routing_key) == ("", "dead")
    assert message.fields.headers is not None
    assert message.fields.headers["CC"] == from_python(["cc"])
    assert channel.ready("cc") == 0


def test_a_dead_letter_may_go_into_several_queues() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-dead-letter-exchange": "amq.fanout"})
    channel.bind(channel.declare("a"), "amq.fanout")
    channel.bind(channel.declare("b"), "amq.fanout")
    channel.publish("q", b"1")
    reject_one(channel, "q")
    assert (channel.drain("a"), channel.drain("b")) == ([b"1"], [b"1"])


def test_a_dead_letter_that_a_full_queue_refuses_is_dropped() -> None:
    channel = with_dead_letters()
    channel.delete("dead")
    channel.declare("dead", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.publish_all("q", b"1", b"2")
    reject_one(channel, "q")
    reject_one(channel, "q")
    assert channel.drain("dead") == [b"1"]


def test_a_dead_letter_reaches_a_waiting_consumer() -> None:
    channel = with_dead_letters(x_message_ttl=100)
    channel.consume("dead")
    channel.publish("q", b"1")
    assert channel.bodies() == []
    channel.broker.advance(100)
    assert channel.bodies() == [b"1"]


# What it writes


def test_what_a_first_death_writes() -> None:
    channel = with_dead_letters()
    channel.bind("q", "amq.topic", "a.b")
    properties = replace(
        headers={"zebra": from_python(1)}, expiration="5000", priority=3, delivery_mode=2, message_id="m"
    )
    channel.publish("a.b", b"1", exchange="amq.topic", properties=properties)
    channel.broker.advance(2500)
    reject_one(channel, "q")
    message = got(channel, "dead")
    expected = {
        "original-expiration": Field("S", b"5000"),
        "count": Field("l", 1),
        "reason": Field("S", b"rejected"),
        "queue": Field("S", b"q"),
        "time": Field("T", (START_MS + 2500) // 1000),
        "exchange": Field("S", b"amq.topic"),
        "routing-keys": Field("A", [Field("S", b"a.b")]),
    }
    assert [list(entry.items()) for entry in entries(message)] == [list(expected.items())]
    headers = message.fields.headers
    assert headers is not None
    assert list(headers) == [
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "zebra",
    ]
    assert message.fields.expiration is None
    assert (message.fields.priority, message.fields.delivery_mode) == (3, 2)
    assert message.fields.message_id == b"m"
    assert not is_redelivered(message)


def test_the_old_expiration_no_longer_holds_after_a_death() -> None:
    channel = with_dead_letters()
    channel.publish("q", b"1", properties=replace(expiration="100"))
    channel.broker.advance(1_000_000)
    assert channel.ready("dead") == 1


def test_the_next_queue_s_ttl_begins_anew() -> None:
    channel = with_dead_letters(x_message_ttl=100)
    channel.delete("dead")
    channel.declare("dead", arguments={"x-message-ttl": 100})
    channel.publish("q", b"1")
    channel.broker.advance(199)
    assert channel.ready("dead") == 1
    channel.broker.advance(1)
    assert channel.ready("dead") == 0


def test_a_chain_of_deaths_is_told_latest_first() -> None:
    channel = Broker().channel()
    channel.declare("third")
    channel.declare(
        "second", arguments={"x-message-ttl": 50} | TO_DEAD | {"x-dead-letter-routing-key": "third"}
    )
    channel.declare("first", arguments=TO_DEAD | {"x-dead-letter-routing-key": "second"})
    channel.publish("first", b"1")
    reject_one(channel, "first")
    channel.broker.advance(50)
    message = got(channel, "third")
    assert deaths(message) == [("second", "expired", 1), ("first", "rejected", 1)]
    headers = message.fields.headers or {}
    told = [longstr(headers, f"x-{which}-death-queue") for which in ("first", "last")]
    assert told == ["first", "second"]


def test_a_retry_loop_counts_its_rounds() -> None:
    channel = Broker().channel()
    channel.declare("work", arguments=TO_DEAD | {"x-dead-letter-routing-key": "wait"})
    channel.declare("wait", arguments=TO_DEAD | {"x-dead-letter-routing-key": "work", "x-message-ttl": 100})
    channel.publish("work", b"1")
    for count in (1, 2, 3):
        reject_one(channel, "work")
        channel.broker.advance(100)
        message = got(channel, "work", no_ack=False)
        assert deaths(message) == [("wait", "expired", count), ("work", "rejected", count)]
        channel.recover()


def test_a_loop_without_a_reject_ends() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-message-ttl": 100, "x-dead-letter-exchange": ""})
    channel.publish("q", b"1")
    channel.broker.advance(100)
    assert channel.ready("q") == 0


def test_a_loop_of_two_queues_without_a_reject_ends() -> None:
    channel = Broker().channel()
    to_p = {"x-message-ttl": 100, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "p"}
    channel.declare("q", arguments=to_p)
    channel.declare("p", arguments=to_p | {"x-dead-letter-routing-key": "q"})
    channel.publish("q", b"1")
    channel.broker.advance(100)
    assert (channel.ready("q"), channel.ready("p")) == (0, 1)
    channel.broker.advance(100)
    assert (channel.ready("q"), channel.ready("p")) == (0, 0)


def test_a_queue_may_dead_letter_a_rejected_message_to_itself() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-dead-letter-exchange": ""})
    channel.publish("q", b"1")
    reject_one(channel, "q")
    reject_one(channel, "q")
    assert deaths(got(channel, "q")) == [("q", "rejected", 2)]


def test_the_x_death_of_a_client_is_no_history() -> None:
    channel = with_dead_letters()
    channel.publish("q", b"1")
    reject_one(channel, "q")
    spoofed = got(channel, "dead").properties
    channel.publish("q", b"2", properties=spoofed)
    assert got(channel, "q", no_ack=False).properties == spoofed
    channel.recover()
    reject_one(channel, "q")
    assert deaths(got(channel, "dead")) == [("q", "rejected", 1)]


def test_the_x_death_of_a_client_may_count_as_in_rabbitmq_3() -> None:
    channel = with_dead_letters(Broker(trusts_x_death=True))
    channel.publish("q", b"1")
    reject_one(channel, "q")
    published = got(channel, "dead")
    headers = published.fields.headers
    assert headers is not None
    channel.publish("q", b"2", properties=replace(headers={"x-death": headers["x-death"]}))
    reject_one(channel, "q")
    dead = got(channel, "dead")
    assert deaths(dead) == [("q", "rejected", 2)]
    assert "x-first-death-queue" not in (dead.fields.headers or {})


def test_the_history_outlives_a_crash() -> None:
    broker = Broker()
    channel = with_dead_letters(broker)
    channel.declare("dead", durable=True)
    channel.delete("dead")
    channel.declare("dead", durable=True, arguments=TO_DEAD | {"x-dead-letter-routing-key": "q"})
    channel.publish("q", b"1", properties=PERSISTENT)
    reject_one(channel, "q")
    reject_one(channel, "dead")
    broker.crash()
    channel = broker.channel()
    reject_one(channel, "q")
    assert deaths(got(channel, "dead")) == [("q", "rejected", 2), ("dead", "rejected", 1)]


def test_a_dead_letter_is_moved_in_one_batch() -> None:
    broker = Broker()
    channel = with_dead_letters(broker, x_message_ttl=100)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.hold_store()
    broker.advance(100)
    broker.crash()
    assert broker.channel().counts("dead")[0] + broker.channel().counts("q")[0] == 1
