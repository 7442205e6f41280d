"""Dead-lettering: when, where to, and what becomes of the message."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from blocking import Inbox, drain, get, get_soon, wait_until_ready
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from wire import HEADERS, Peer, field, longstr, shortstr, table


@pytest.fixture
def grave(channel: BlockingChannel, names: Names) -> str:
    """The name of a queue bound to the fanout exchange of the same name."""
    name = names.exchange(names.queue())
    channel.exchange_declare(name, "fanout")
    channel.queue_declare(name)
    channel.queue_bind(name, name)
    return name


def mortal(channel: BlockingChannel, names: Names, grave: str, **arguments: object) -> str:
    """Declare a queue that dead-letters to `grave`, with more x-arguments."""
    queue = names.queue()
    more = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": grave} | more)
    return queue


def reject_one(channel: BlockingChannel, queue: str) -> None:
    """Take one message, waiting for it, and reject it without requeueing."""
    channel.basic_reject(get_soon(channel, queue, auto_ack=False).method.delivery_tag, requeue=False)


def deaths(delivery: Any) -> list[tuple[str, str, int]]:
    """Return (queue, reason, count) of each entry of x-death."""
    return [
        (death["queue"], death["reason"], death["count"]) for death in delivery.properties.headers["x-death"]
    ]


def test_a_rejected_message_is_dead_lettered(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x")
    reject_one(channel, queue)

    assert get_soon(channel, grave).body == b"x"


def test_a_message_nacked_without_requeue_is_dead_lettered(
    channel: BlockingChannel, names: Names, grave: str
) -> None:
    queue = mortal(channel, names, grave)
    for body in (b"1", b"2"):
        channel.basic_publish("", queue, body)
        get(channel, queue, auto_ack=False)
    channel.basic_nack(0, multiple=True, requeue=False)

    assert [get_soon(channel, grave).body for _ in range(2)] == [b"1", b"2"]


def test_an_expired_message_is_dead_lettered(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave, message_ttl=20)
    channel.basic_publish("", queue, b"x")

    assert deaths(get_soon(channel, grave)) == [(queue, "expired", 1)]


def test_expired_messages_are_dead_lettered_in_order(
    channel: BlockingChannel, names: Names, grave: str
) -> None:
    queue = mortal(channel, names, grave, message_ttl=50)
    bodies = [b"%d" % number for number in range(50)]
    for body in bodies:
        channel.basic_publish("", queue, body)
    wait_until_ready(channel, grave, 50)

    assert drain(channel, grave) == bodies


def test_a_dropped_message_is_dead_lettered(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave, max_length=1)
    for body in (b"1", b"2"):
        channel.basic_publish("", queue, body)

    assert deaths(get_soon(channel, grave)) == [(queue, "maxlen", 1)]


@pytest.mark.parametrize("end", ["ack", "requeue", "purge", "delete"])
def test_other_ends_are_no_deaths(channel: BlockingChannel, names: Names, grave: str, end: str) -> None:
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x")
    ends = {
        "ack": lambda: channel.basic_ack(get(channel, queue, auto_ack=False).method.delivery_tag),
        "requeue": lambda: channel.basic_nack(get(channel, queue, auto_ack=False).method.delivery_tag),
        "purge": lambda: channel.queue_purge(queue),
        "delete": lambda: channel.queue_delete(queue),
    }
    ends[end]()
    channel.connection.sleep(0.1)

    assert drain(channel, grave) == []


def test_a_dead_letter_keeps_its_routing_key(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x")
    reject_one(channel, queue)

    method = get_soon(channel, grave).method
    assert (method.exchange, method.routing_key, method.redelivered) == (grave, queue, False)


def test_a_queue_may_give_dead_letters_another_routing_key(
    channel: BlockingChannel, names: Names, queue: str
) -> None:
    source = mortal(channel, names, "", dead_letter_routing_key=queue)
    channel.basic_publish("", source, b"x")
    reject_one(channel, source)

    method = get_soon(channel, queue).method
    assert (method.exchange, method.routing_key) == ("", queue)


def test_a_missing_dead_letter_exchange_loses_the_message(channel: BlockingChannel, names: Names) -> None:
    queue = mortal(channel, names, names.text())
    channel.basic_publish("", queue, b"x")
    reject_one(channel, queue)

    assert drain(channel, queue) == []  # and the channel lives


def test_dead_letters_may_go_to_an_internal_exchange(
    channel: BlockingChannel, names: Names, queue: str
) -> None:
    internal = names.exchange()
    channel.exchange_declare(internal, "fanout", internal=True)
    channel.queue_bind(queue, internal)
    source = mortal(channel, names, internal)
    channel.basic_publish("", source, b"x")
    reject_one(channel, source)

    assert get_soon(channel, queue).body == b"x"


def test_the_properties_stay_as_they_were(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave)
    properties = {
        "content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 3,
        "correlation_id": "c", "reply_to": "r", "message_id": "m", "timestamp": 1_600_000_000, "type": "t",
        "app_id": "a",
    }  # fmt: skip
    channel.basic_publish("", queue, b"x", BasicProperties(headers={"n": 1}, **properties))
    reject_one(channel, queue)

    dead = get_soon(channel, grave).properties
    assert {name: getattr(dead, name) for name in properties} == properties
    assert dead.headers["n"] == 1


def test_x_death_tells_the_story(channel: BlockingChannel, names: Names, grave: str) -> None:
    key = names.text()
    queue = mortal(channel, names, grave)
    channel.queue_bind(queue, "amq.topic", key)
    now = time.time()
    channel.basic_publish("amq.topic", key, b"x", BasicProperties(headers={"CC": ["cc"], "BCC": ["bcc"]}))
    reject_one(channel, queue)

    (death,) = get_soon(channel, grave).properties.headers["x-death"]
    assert abs(death.pop("time").timestamp() - now) < 5
    assert death == {
        "count": 1,
        "reason": "rejected",
        "queue": queue,
        "exchange": "amq.topic",
        "routing-keys": [key, "cc"],
    }


def test_the_fields_of_x_death_have_rabbitmqs_types(
    peer: Peer, channel: BlockingChannel, names: Names, grave: str
) -> None:
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x")
    reject_one(channel, queue)
    wait_until_ready(channel, grave, 1)

    properties = peer.get(grave).properties
    start = properties.index(shortstr("x-death"))
    assert properties[start:].startswith(shortstr("x-death") + b"A")
    for expected in (
        field("count", "l", struct.pack(">q", 1)),
        field("reason", "S", longstr("rejected")),
        field("queue", "S", longstr(queue)),
        field("exchange", "S", longstr("")),
        field("routing-keys", "A", longstr(b"S" + longstr(queue))),
    ):
        assert expected in properties
    assert shortstr("time") + b"T" in properties


def test_the_first_death_is_remembered(channel: BlockingChannel, names: Names, grave: str) -> None:
    second = mortal(channel, names, grave, message_ttl=10)
    first = mortal(channel, names, "", dead_letter_routing_key=second)
    channel.basic_publish("", first, b"x")
    reject_one(channel, first)

    dead = get_soon(channel, grave)
    assert deaths(dead) == [(second, "expired", 1), (first, "rejected", 1)]
    assert [dead.properties.headers[f"x-first-death-{what}"] for what in ("queue", "reason", "exchange")] == [
        first, "rejected", "",
    ]  # fmt: skip


def test_the_expiration_is_taken_off_and_told(channel: BlockingChannel, names: Names, grave: str) -> None:
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x", BasicProperties(expiration="20"))

    dead = get_soon(channel, grave)
    assert dead.properties.expiration is None
    assert dead.properties.headers["x-death"][0]["original-expiration"] == "20"


def test_a_retry_loop_counts(channel: BlockingChannel, names: Names) -> None:
    waiting, working = names.queue(), names.queue()
    channel.queue_declare(
        working, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": waiting}
    )
    channel.queue_declare(
        waiting,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": working, "x-message-ttl": 10},
    )
    channel.basic_publish("", working, b"x")
    for _ in range(3):
        reject_one(channel, working)

    assert deaths(get_soon(channel, working)) == [(waiting, "expired", 3), (working, "rejected", 3)]


def test_a_loop_of_nothing_but_expiry_is_cut(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(
        queue,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, "x-message-ttl": 10},
    )
    channel.basic_publish("", queue, b"x")
    channel.connection.sleep(0.1)

    assert drain(channel, queue) == []


def test_a_dead_letter_also_goes_by_its_cc_keys(channel: BlockingChannel, names: Names, queue: str) -> None:
    direct = names.exchange()
    channel.exchange_declare(direct, "direct")
    channel.queue_bind(queue, direct, "copy")
    source = mortal(channel, names, direct)
    channel.basic_publish("", source, b"x", BasicProperties(headers={"CC": ["copy"]}))
    reject_one(channel, source)

    assert get_soon(channel, queue).body == b"x"


def test_a_dead_letter_with_a_new_key_does_not_go_by_its_cc_keys(
    channel: BlockingChannel, names: Names, queue: str
) -> None:
    target = names.queue()
    channel.queue_declare(target)
    source = mortal(channel, names, "", dead_letter_routing_key=target)
    channel.basic_publish("", source, b"x", BasicProperties(headers={"CC": [names.text()]}))
    channel.queue_declare(names.queue())
    reject_one(channel, source)

    assert get_soon(channel, target).method.routing_key == target


def test_a_dead_letter_expires_anew_in_its_next_queue(
    channel: BlockingChannel, names: Names, grave: str
) -> None:
    second = mortal(channel, names, grave, message_ttl=20)
    first = mortal(channel, names, "", dead_letter_routing_key=second, message_ttl=20)
    channel.basic_publish("", first, b"x")

    assert deaths(get_soon(channel, grave)) == [(second, "expired", 1), (first, "expired", 1)]


def test_a_dead_letter_reaches_a_waiting_consumer(channel: BlockingChannel, names: Names, grave: str) -> None:
    inbox = Inbox(channel, grave)
    queue = mortal(channel, names, grave)
    channel.basic_publish("", queue, b"x")
    reject_one(channel, queue)

    assert inbox.wait_for(1)[0].body == b"x"


def test_other_headers_survive_dead_lettering_byte_for_byte(
    peer: Peer, channel: BlockingChannel, names: Names, grave: str
) -> None:
    queue = mortal(channel, names, grave)
    double = field("double", "d", struct.pack(">d", 1.1))
    big = field("big", "l", struct.pack(">q", 2**62 + 1))
    nested = field("nested", "F", table(field("void", "V"), field("small", "b", b"\xff")))
    peer.publish(queue, b"x", struct.pack(">H", HEADERS) + table(double, big, nested))
    reject_one(channel, queue)
    wait_until_ready(channel, grave, 1)

    properties = peer.get(grave).properties
    assert [each in properties for each in (double, big, nested)] == [True] * 3
