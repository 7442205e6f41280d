"""AMQPStorm: threads, and its own ideas about heartbeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import amqpstorm
import pytest
from brokers import Broker, Names
from waiting import eventually


@pytest.fixture
def storm(broker: Broker) -> Iterator[amqpstorm.Connection]:
    """A connection."""
    with amqpstorm.UriConnection(f"{broker.url}?heartbeat=10&timeout=10") as connection:
        yield connection


@pytest.fixture
def channel(storm: amqpstorm.Connection, names: Names) -> Iterator[amqpstorm.Channel]:
    """A channel."""
    with storm.channel(rpc_timeout=10) as channel:
        yield channel


@pytest.fixture
def queue(channel: amqpstorm.Channel, names: Names) -> str:
    """The name of an empty queue."""
    queue = names.queue()
    channel.queue.declare(queue)
    return queue


def test_a_message_goes_round(channel: amqpstorm.Channel, queue: str) -> None:
    properties = {"content_type": "text/plain", "headers": {"key": "value", "n": 1}, "delivery_mode": 2}
    amqpstorm.Message.create(channel, "grüße", properties).publish(queue)

    message = channel.basic.get(queue)
    message.ack()
    assert (message.body, message.content_type) == ("grüße", "text/plain")
    assert message.properties["headers"] == {"key": "value", "n": 1}


def test_an_empty_queue_is_none(channel: amqpstorm.Channel, queue: str) -> None:
    assert channel.basic.get(queue) is None


def test_a_callback_receives_messages_in_order(channel: amqpstorm.Channel, queue: str) -> None:
    bodies: list[str] = []

    def keep(message: amqpstorm.Message) -> None:
        bodies.append(str(message.body))
        message.ack()
        if len(bodies) == 100:
            channel.stop_consuming()

    channel.basic.qos(10)
    for number in range(100):
        channel.basic.publish(str(number), queue)
    channel.basic.consume(keep, queue)
    channel.start_consuming()

    assert bodies == [str(number) for number in range(100)]


def test_publishes_are_confirmed(channel: amqpstorm.Channel, queue: str) -> None:
    channel.confirm_deliveries()

    assert [channel.basic.publish("x", queue) for _ in range(20)] == [True] * 20


def test_a_refused_publish_is_false(channel: amqpstorm.Channel, names: Names) -> None:
    queue = names.queue()
    channel.queue.declare(queue, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.confirm_deliveries()

    assert channel.basic.publish("x", queue) is False


def test_an_unroutable_message_is_an_error(channel: amqpstorm.Channel, names: Names) -> None:
    channel.confirm_deliveries()

    with pytest.raises(amqpstorm.AMQPMessageError) as error:
        channel.basic.publish("x", names.text(), mandatory=True)
    assert error.value.error_code == 312


def test_topology_calls_are_answered(channel: amqpstorm.Channel, names: Names, queue: str) -> None:
    source, destination = names.exchange(), names.exchange()
    for exchange in (source, destination):
        channel.exchange.declare(exchange, "topic", durable=True)
    channel.exchange.bind(destination, source, "a.#")
    channel.queue.bind(queue, destination, "#.b")
    channel.basic.publish("x", "a.b", source)
    purged = channel.queue.purge(queue)
    channel.queue.unbind(queue, destination, "#.b")
    channel.exchange.unbind(destination, source, "a.#")
    channel.exchange.delete(source)

    assert purged["message_count"] == 1


@pytest.mark.parametrize(("code", "name"), [(404, "missing"), (403, "reserved"), (406, "inequivalent")])
def test_a_channel_error_has_its_code(channel: amqpstorm.Channel, queue: str, code: int, name: str) -> None:
    actions = {
        "missing": lambda: channel.queue.declare(queue + ".missing", passive=True),
        "reserved": lambda: channel.queue.declare("amq.interop"),
        "inequivalent": lambda: channel.queue.declare(queue, durable=True),
    }

    with pytest.raises(amqpstorm.AMQPChannelError) as error:
        actions[name]()
    assert error.value.error_code == code


def test_a_connection_error_has_its_code(storm: amqpstorm.Connection, channel: amqpstorm.Channel) -> None:
    with pytest.raises(amqpstorm.AMQPConnectionError) as error:
        channel.basic.qos(prefetch_size=1)

    assert error.value.error_code == 540


def test_a_refused_login_is_an_error(broker: Broker) -> None:
    with pytest.raises(amqpstorm.AMQPConnectionError):
        amqpstorm.Connection(broker.host, broker.user, "wrong", port=broker.port, timeout=5)


def test_recover_gives_messages_back(channel: amqpstorm.Channel, queue: str) -> None:
    channel.basic.publish("x", queue)
    first = channel.basic.get(queue)
    channel.basic.recover(requeue=True)
    second = channel.basic.get(queue)

    assert (first.redelivered, second.redelivered) == (False, True)


def test_a_transaction_is_all_or_nothing(channel: amqpstorm.Channel, queue: str) -> None:
    with channel.tx:
        channel.basic.publish("kept", queue)
    channel.tx.select()
    channel.basic.publish("discarded", queue)
    channel.tx.rollback()

    assert (channel.basic.get(queue).body, channel.basic.get(queue)) == ("kept", None)


def test_a_cancel_from_the_broker_is_noticed(
    storm: amqpstorm.Connection, channel: amqpstorm.Channel, queue: str
) -> None:
    channel.basic.consume(lambda _message: None, queue)
    with storm.channel() as other:
        other.queue.delete(queue)

    eventually(lambda: not channel.consumer_tags, "the consumer tag to go")


def test_an_idle_connection_lives_on_heartbeats(broker: Broker, names: Names) -> None:
    with amqpstorm.UriConnection(f"{broker.url}?heartbeat=1&timeout=10") as connection:
        channel = connection.channel()
        time.sleep(3.5)

        channel.queue.declare(names.queue())


def test_threads_share_a_connection(
    storm: amqpstorm.Connection, channel: amqpstorm.Channel, queue: str
) -> None:
    def publish() -> None:
        with storm.channel() as own:
            own.confirm_deliveries()
            for _ in range(50):
                own.basic.publish("x", queue)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert channel.queue.declare(queue, passive=True)["message_count"] == 200


def test_a_large_body_goes_round(channel: amqpstorm.Channel, queue: str) -> None:
    channel.basic.publish("x" * 1_000_000, queue)

    assert channel.basic.get(queue).body == "x" * 1_000_000
