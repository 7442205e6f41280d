"""Length limits and the three overflow modes."""

from __future__ import annotations

import pytest
from blocking import Inbox, drain, get, get_soon
from brokers import Names
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError


def declare(channel: BlockingChannel, names: Names, **arguments: object) -> str:
    """Declare a queue with x-arguments, given with underscores, and return its name."""
    queue = names.queue()
    channel.queue_declare(
        queue, arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    )
    return queue


def publish(channel: BlockingChannel, queue: str, *bodies: bytes) -> None:
    """Publish bodies to a queue."""
    for body in bodies:
        channel.basic_publish("", queue, body)


@pytest.mark.parametrize("more", [{}, {"overflow": "drop-head"}], ids=["by default", "by name"])
def test_a_full_queue_drops_its_oldest_messages(
    channel: BlockingChannel, names: Names, more: dict[str, str]
) -> None:
    queue = declare(channel, names, max_length=2, **more)
    publish(channel, queue, b"1", b"2", b"3", b"4")

    assert drain(channel, queue) == [b"3", b"4"]


def test_a_limit_in_bytes_counts_bodies(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length_bytes=10)
    publish(channel, queue, b"aaaa", b"bbbb", b"cc", b"d")

    assert drain(channel, queue) == [b"bbbb", b"cc", b"d"]


def test_the_limit_reached_first_counts(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length=2, max_length_bytes=100)
    publish(channel, queue, b"a" * 60, b"b" * 60, b"c", b"d")

    assert drain(channel, queue) == [b"c", b"d"]


def test_a_message_over_the_byte_limit_drops_itself(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length_bytes=10)
    publish(channel, queue, b"a" * 11)

    assert drain(channel, queue) == []


def test_a_limit_of_zero_keeps_nothing(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length=0)
    publish(channel, queue, b"x")

    assert drain(channel, queue) == []


def test_a_limit_of_zero_still_serves_a_waiting_consumer(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length=0)
    inbox = Inbox(channel, queue)

    publish(channel, queue, b"x")

    assert inbox.wait_for(1)[0].body == b"x"


def test_unacknowledged_messages_do_not_count(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, max_length=2)
    publish(channel, queue, b"1", b"2")
    get(channel, queue, auto_ack=False)
    publish(channel, queue, b"3")

    assert drain(channel, queue) == [b"2", b"3"]


def test_a_requeued_message_pushes_a_queue_over_its_limit_and_is_dropped(
    channel: BlockingChannel, names: Names
) -> None:
    queue = declare(channel, names, max_length=2)
    publish(channel, queue, b"1", b"2")
    delivery = get(channel, queue, auto_ack=False)
    publish(channel, queue, b"3")

    channel.basic_nack(delivery.method.delivery_tag)

    assert drain(channel, queue) == [b"2", b"3"]


def test_dropped_messages_are_dead_lettered(channel: BlockingChannel, names: Names, queue: str) -> None:
    limited = declare(channel, names, max_length=1, dead_letter_exchange="", dead_letter_routing_key=queue)
    publish(channel, limited, b"old", b"new")

    dead = get_soon(channel, queue)
    assert (dead.body, dead.properties.headers["x-death"][0]["reason"]) == (b"old", "maxlen")


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_may_refuse_new_messages(
    confirming: BlockingChannel, names: Names, overflow: str
) -> None:
    queue = declare(confirming, names, max_length=2, overflow=overflow)
    publish(confirming, queue, b"1", b"2")

    with pytest.raises(NackError):
        publish(confirming, queue, b"3")

    assert drain(confirming, queue) == [b"1", b"2"]


def test_without_confirms_a_refused_message_is_dropped_silently(
    channel: BlockingChannel, names: Names
) -> None:
    queue = declare(channel, names, max_length=1, overflow="reject-publish")
    publish(channel, queue, b"1", b"2")

    assert drain(channel, queue) == [b"1"]


def test_a_byte_limit_may_refuse_new_messages(confirming: BlockingChannel, names: Names) -> None:
    queue = declare(confirming, names, max_length_bytes=10, overflow="reject-publish")
    publish(confirming, queue, b"12345678")

    with pytest.raises(NackError):
        publish(confirming, queue, b"90123")


def test_refused_messages_are_not_dead_lettered(
    confirming: BlockingChannel, names: Names, queue: str
) -> None:
    full = declare(
        confirming, names, max_length=0, overflow="reject-publish",
        dead_letter_exchange="", dead_letter_routing_key=queue,
    )  # fmt: skip
    with pytest.raises(NackError):
        publish(confirming, full, b"refused")
    publish(confirming, queue, b"sentinel")

    assert drain(confirming, queue) == [b"sentinel"]


def test_refused_messages_are_dead_lettered_on_demand(
    confirming: BlockingChannel, names: Names, queue: str
) -> None:
    full = declare(
        confirming, names, max_length=0, overflow="reject-publish-dlx",
        dead_letter_exchange="", dead_letter_routing_key=queue,
    )  # fmt: skip
    with pytest.raises(NackError):
        publish(confirming, full, b"refused")

    dead = get_soon(confirming, queue)
    assert (dead.body, dead.properties.headers["x-death"][0]["reason"]) == (b"refused", "maxlen")


def test_a_refusing_queue_of_length_zero_refuses_although_a_consumer_waits(
    confirming: BlockingChannel, names: Names
) -> None:
    queue = declare(confirming, names, max_length=0, overflow="reject-publish")
    confirming.basic_consume(queue, lambda *_: None)

    with pytest.raises(NackError):
        publish(confirming, queue, b"x")
