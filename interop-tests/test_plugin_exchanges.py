"""The exchange types of RabbitMQ's bundled plugins; skipped where a broker does not have them."""

from __future__ import annotations

import pytest
from blocking import channel_closed, drain
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker


def declare(channel: BlockingChannel, exchange: str, type_name: str, **arguments: object) -> None:
    """Declare an exchange; skip the test if the broker does not have the type."""
    try:
        channel.exchange_declare(
            exchange,
            type_name,
            arguments={name.replace("_", "-"): value for name, value in arguments.items()},
        )
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
        if "unknown exchange type" in error.reply_text:
            pytest.skip(f"the broker has no {type_name}")
        raise


@pytest.fixture
def exchange(names: Names) -> str:
    """A name for the exchange under test."""
    return names.exchange()


@pytest.fixture
def other(channel: BlockingChannel, names: Names) -> str:
    """A second queue."""
    name = names.queue()
    channel.queue_declare(name)
    return name


def shares(channel: BlockingChannel, exchange: str, queue: str, other: str) -> tuple[int, int]:
    """Publish with 400 keys and count what two queues get."""
    for number in range(400):
        channel.basic_publish(exchange, f"key.{number}", b"m")
    return len(drain(channel, queue)), len(drain(channel, other))


def test_consistent_hash_shares_by_weight(
    confirming: BlockingChannel, exchange: str, queue: str, other: str
) -> None:
    declare(confirming, exchange, "x-consistent-hash")
    confirming.queue_bind(queue, exchange, "1")
    confirming.queue_bind(other, exchange, "3")

    light, heavy = shares(confirming, exchange, queue, other)

    assert light + heavy == 400
    assert 50 < light < 150


def test_consistent_hash_keeps_the_first_weight_of_a_queue(
    confirming: BlockingChannel, exchange: str, queue: str, other: str
) -> None:
    declare(confirming, exchange, "x-consistent-hash")
    for name, weight in ((queue, "1"), (queue, "9"), (other, "3")):
        confirming.queue_bind(name, exchange, weight)

    light, heavy = shares(confirming, exchange, queue, other)

    assert light + heavy == 400
    assert 50 < light < 150


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("abc", 'The binding key must be an integer: <<"abc">>'),
        ("", "The binding key must be an integer: <<>>"),
        (" 4", 'The binding key must be an integer: <<" 4">>'),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
    ],
)
def test_consistent_hash_refuses_what_is_no_weight(
    channel: BlockingChannel, exchange: str, queue: str, key: str, text: str
) -> None:
    declare(channel, exchange, "x-consistent-hash")

    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        channel.queue_bind(queue, exchange, key)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"hash-header": "h", "hash-property": "message_id"},
            "hash-header and hash-property are mutually exclusive",
        ),
        ({"hash-property": "foo"}, "Unsupported property: foo"),
    ],
)
def test_consistent_hash_refuses_what_cannot_be_hashed(
    channel: BlockingChannel, exchange: str, arguments: dict[str, object], text: str
) -> None:
    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        declare(channel, exchange, "x-consistent-hash", **arguments)


@pytest.mark.parametrize("arguments", [{"hash-header": "user"}, {"hash-property": "correlation_id"}])
def test_consistent_hash_takes_a_header_or_a_property(
    confirming: BlockingChannel, exchange: str, queue: str, other: str, arguments: dict[str, str]
) -> None:
    declare(confirming, exchange, "x-consistent-hash", **arguments)
    confirming.queue_bind(queue, exchange, "1")
    confirming.queue_bind(other, exchange, "1")
    for number in range(100):
        properties = BasicProperties(headers={"user": str(number)}, correlation_id=str(number))
        confirming.basic_publish(exchange, "same", b"m", properties)

    assert min(len(drain(confirming, queue)), len(drain(confirming, other))) > 20


def test_modulus_hash_gives_each_binding_its_share(
    confirming: BlockingChannel, exchange: str, queue: str, other: str
) -> None:
    declare(confirming, exchange, "x-modulus-hash")
    for name, key in ((queue, "a"), (queue, "b"), (other, "a")):
        confirming.queue_bind(name, exchange, key)

    two, one = shares(confirming, exchange, queue, other)

    assert two + one == 400
    assert 90 < one < 180


def test_random_gives_each_binding_its_share(
    confirming: BlockingChannel, exchange: str, queue: str, other: str
) -> None:
    declare(confirming, exchange, "x-random")
    for name, key in ((queue, "a"), (queue, "b"), (other, "a")):
        confirming.queue_bind(name, exchange, key)

    two, one = shares(confirming, exchange, queue, other)

    assert two + one == 400
    assert 80 < one < 190


def test_recent_history_comes_with_each_new_binding(
    confirming: BlockingChannel, exchange: str, queue: str
) -> None:
    declare(confirming, exchange, "x-recent-history", x_recent_history_length=3)
    for number in range(5):
        confirming.basic_publish(exchange, f"k{number}", str(number).encode())
    hidden = BasicProperties(headers={"x-recent-history-no-store": True})
    confirming.basic_publish(exchange, "hidden", b"hidden", hidden)
    shown = BasicProperties(headers={"x-recent-history-no-store": "true"})
    confirming.basic_publish(exchange, "shown", b"shown", shown)

    confirming.queue_bind(queue, exchange, "a")
    assert drain(confirming, queue) == [b"3", b"4", b"shown"]

    confirming.queue_bind(queue, exchange, "a")
    assert drain(confirming, queue) == []

    confirming.queue_bind(queue, exchange, "b")
    assert drain(confirming, queue) == [b"3", b"4", b"shown"]


@pytest.mark.parametrize(("length", "shown"), [(0, "0"), (-1, "-1"), ("a", '<<"a">>'), (True, "true")])
def test_recent_history_wants_a_positive_length(
    channel: BlockingChannel, exchange: str, length: object, shown: str
) -> None:
    text = f"Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"

    with channel_closed(406, f"PRECONDITION_FAILED - {text}"):
        declare(channel, exchange, "x-recent-history", x_recent_history_length=length)
