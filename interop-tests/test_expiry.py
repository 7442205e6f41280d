"""Message TTL and queue expiry."""

from __future__ import annotations

import time

import pika
import pytest
from blocking import Inbox, drain, exists, get, sync, wait_until_ready
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from waiting import eventually


def declare(channel: BlockingChannel, names: Names, **arguments: object) -> str:
    """Declare a queue with x-arguments, given with underscores, and return its name."""
    queue = names.queue()
    channel.queue_declare(
        queue, arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    )
    return queue


def test_a_message_expires_after_the_queues_ttl(confirming: BlockingChannel, names: Names) -> None:
    queue = declare(confirming, names, message_ttl=100)
    confirming.basic_publish("", queue, b"x")

    wait_until_ready(confirming, queue, 0)


def test_a_message_expires_after_its_own_ttl(confirming: BlockingChannel, queue: str) -> None:
    confirming.basic_publish("", queue, b"x", BasicProperties(expiration="100"))

    wait_until_ready(confirming, queue, 0)


@pytest.mark.parametrize(("of_queue", "of_message"), [(60_000, "50"), (50, "60000")])
def test_the_smaller_of_both_ttls_counts(
    confirming: BlockingChannel, names: Names, of_queue: int, of_message: str
) -> None:
    queue = declare(confirming, names, message_ttl=of_queue)
    confirming.basic_publish("", queue, b"x", BasicProperties(expiration=of_message))

    wait_until_ready(confirming, queue, 0)


def test_a_message_does_not_expire_before_its_time(confirming: BlockingChannel, names: Names) -> None:
    queue = declare(confirming, names, message_ttl=400)
    started = time.monotonic()
    confirming.basic_publish("", queue, b"x")
    wait_until_ready(confirming, queue, 0)

    assert time.monotonic() - started >= 0.4


def test_messages_without_a_ttl_stay_behind_expired_ones(confirming: BlockingChannel, queue: str) -> None:
    confirming.basic_publish("", queue, b"short", BasicProperties(expiration="50"))
    confirming.basic_publish("", queue, b"for ever")
    wait_until_ready(confirming, queue, 1)

    assert drain(confirming, queue) == [b"for ever"]


def test_an_expired_message_behind_a_living_one_is_not_delivered(
    confirming: BlockingChannel, names: Names, queue: str
) -> None:
    confirming.basic_publish("", queue, b"living")
    confirming.basic_publish("", queue, b"dying", BasicProperties(expiration="50"))
    confirming.basic_publish("", queue, b"living as well", BasicProperties(expiration="60000"))
    clock = declare(confirming, names, message_ttl=50)
    confirming.basic_publish("", clock, b"published last, with the same time to live")
    wait_until_ready(confirming, clock, 0)

    assert drain(confirming, queue) == [b"living", b"living as well"]


def test_a_ttl_of_zero_expires_a_message_that_waits(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, message_ttl=0)
    channel.basic_publish("", queue, b"x")

    assert drain(channel, queue) == []


def test_a_ttl_of_zero_reaches_a_consumer_that_waits(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, message_ttl=0)
    inbox = Inbox(channel, queue)

    channel.basic_publish("", queue, b"x")

    assert inbox.wait_for(1)[0].body == b"x"


def test_a_delivered_message_does_not_expire(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, message_ttl=50)
    inbox = Inbox(channel, queue)
    channel.basic_publish("", queue, b"held")
    inbox.wait_for(1)
    inbox.after_a_while(0.2)

    channel.basic_ack(inbox.deliveries[0].method.delivery_tag)

    sync(channel)  # the channel lives: the tag was known


def test_a_requeued_message_keeps_its_deadline(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, message_ttl=50)
    channel.basic_publish("", queue, b"x")
    delivery = get(channel, queue, auto_ack=False)
    channel.connection.sleep(0.2)

    channel.basic_nack(delivery.method.delivery_tag)

    assert drain(channel, queue) == []


def test_the_expiration_property_is_delivered(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"x", BasicProperties(expiration="60000"))

    assert get(channel, queue).properties.expiration == "60000"


def wait_until_gone(channel: BlockingChannel, queue: str) -> None:
    """Publish to a queue until that finds it missing: the one way to look that is no use of the queue."""
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda _channel, _method, _properties, body: returned.append(body))

    def publish_in_vain() -> bool:
        channel.basic_publish("", queue, b"x", mandatory=True)
        channel.connection.sleep(0.02)
        return bool(returned)

    eventually(publish_in_vain, f"{queue} to go")


def test_an_unused_queue_expires_though_it_is_published_to(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    queue = declare(channel, names, expires=100)

    wait_until_gone(channel, queue)

    assert not exists(connection, queue)


def test_a_queue_does_not_expire_before_its_time(channel: BlockingChannel, names: Names) -> None:
    queue = declare(channel, names, expires=400)
    started = time.monotonic()

    wait_until_gone(channel, queue)

    assert time.monotonic() - started >= 0.4


def test_a_consumer_keeps_a_queue_alive(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    queue = declare(channel, names, expires=150)
    channel.basic_consume(queue, lambda *_: None)

    connection.sleep(0.5)

    assert exists(connection, queue)


def test_a_queue_expires_after_its_last_consumer_went(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    queue = declare(channel, names, expires=150)
    channel.basic_cancel(channel.basic_consume(queue, lambda *_: None))

    wait_until_gone(channel, queue)

    assert not exists(connection, queue)


@pytest.mark.parametrize("use", ["get", "declare", "passive declare"])
def test_using_a_queue_keeps_it_alive(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names, use: str
) -> None:
    queue = declare(channel, names, expires=500)
    uses = {
        "get": lambda: channel.basic_get(queue),
        "declare": lambda: channel.queue_declare(queue, arguments={"x-expires": 500}),
        "passive declare": lambda: channel.queue_declare(queue, passive=True),
    }

    for _ in range(8):
        connection.sleep(0.1)
        uses[use]()

    assert exists(connection, queue)
