"""kombu: Celery's messaging library, on its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import kombu
import pytest
from amqp.exceptions import MessageNacked
from brokers import Broker, Names
from cuttable import Relay
from kombu.common import Broadcast
from kombu.mixins import ConsumerMixin
from kombu.pidbox import Mailbox
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)
from waiting import PATIENCE_S, eventually


@pytest.fixture
def connection(broker: Broker, names: Names) -> Iterator[kombu.Connection]:
    """A connection."""
    with kombu.Connection(broker.kombu_url, connect_timeout=5) as connection:
        yield connection


@pytest.fixture
def queue(connection: kombu.Connection, names: Names) -> kombu.Queue:
    """A durable queue bound to a topic exchange of its own."""
    exchange = kombu.Exchange(names.exchange(), type="topic", durable=True)
    queue = kombu.Queue(names.queue(), exchange, routing_key="k.#")(connection)
    queue.declare()
    return queue


def publish(connection: kombu.Connection, queue: kombu.Queue, body: object, **options: Any) -> None:
    """Publish to the queue's exchange."""
    kombu.Producer(connection).publish(body, exchange=queue.exchange, routing_key="k.x", **options)


def receive(connection: kombu.Connection, queue: kombu.Queue, count: int, **options: Any) -> list[Any]:
    """Consume and acknowledge `count` messages and return their bodies."""
    bodies: list[Any] = []

    def keep(body: Any, message: kombu.Message) -> None:
        bodies.append(body)
        message.ack()

    with kombu.Consumer(connection, [queue], callbacks=[keep], **options):
        while len(bodies) < count:
            connection.drain_events(timeout=PATIENCE_S)
    return bodies


def get_soon(queue: kombu.Queue) -> kombu.Message:
    """Fetch one message, waiting for it."""
    found: list[kombu.Message] = []

    def look() -> bool:
        if (message := queue.get()) is not None:
            found.append(message)
        return bool(found)

    eventually(look, f"a message in {queue.name}")
    return found[0]


def test_a_document_goes_round(connection: kombu.Connection, queue: kombu.Queue) -> None:
    document = {
        "text": "grüße",
        "number": 1.5,
        "list": [1, None, True],
        "nested": {"deep": {"deeper": "yes"}},
    }
    publish(connection, queue, document)

    assert receive(connection, queue, 1) == [document]


def test_messages_come_by_priority(connection: kombu.Connection, names: Names) -> None:
    queue = kombu.Queue(names.queue(), max_priority=5)(connection)
    queue.declare()
    producer = kombu.Producer(connection)
    for priority in (1, 5, None, 9, 3):
        producer.publish(priority, routing_key=queue.name, priority=priority)

    assert receive(connection, queue, 5) == [5, 9, 3, 1, None]


@pytest.mark.parametrize("serializer", ["json", "pickle", "raw"])
def test_bodies_may_be_serialized_in_many_ways(
    connection: kombu.Connection, queue: kombu.Queue, serializer: str
) -> None:
    body = b"\x00\xff\xce" if serializer == "raw" else {"a": [1, 2]}
    publish(connection, queue, body, serializer=serializer)

    assert receive(connection, queue, 1, accept=["json", "pickle", "application/data"]) == [body]


def test_bodies_may_be_compressed(connection: kombu.Connection, queue: kombu.Queue) -> None:
    publish(connection, queue, "x" * 100_000, compression="zlib")

    assert receive(connection, queue, 1) == ["x" * 100_000]


def test_messages_arrive_in_order(connection: kombu.Connection, queue: kombu.Queue) -> None:
    for number in range(200):
        publish(connection, queue, number)

    assert receive(connection, queue, 200, prefetch_count=10) == list(range(200))


def test_a_requeued_message_comes_again(connection: kombu.Connection, queue: kombu.Queue) -> None:
    publish(connection, queue, "x")
    first = queue.get()
    first.requeue()
    second = queue.get()

    assert (first.delivery_info["redelivered"], second.delivery_info["redelivered"]) == (False, True)


def test_a_rejected_message_is_dead_lettered(
    connection: kombu.Connection, queue: kombu.Queue, names: Names
) -> None:
    mortal = kombu.Queue(
        names.queue(),
        queue_arguments={
            "x-dead-letter-exchange": queue.exchange.name,
            "x-dead-letter-routing-key": "k.dead",
        },
    )(connection)
    mortal.declare()
    kombu.Producer(connection).publish("x", routing_key=mortal.name)
    mortal.get().reject()

    assert get_soon(queue).headers["x-death"][0]["queue"] == mortal.name


def test_queue_options_become_arguments(connection: kombu.Connection, names: Names) -> None:
    queue = kombu.Queue(
        names.queue(), max_length=5, max_length_bytes=1000, message_ttl=60.5, expires=60, auto_delete=True
    )(connection)
    queue.declare()

    arguments = {
        "x-max-length": 5, "x-max-length-bytes": 1000, "x-message-ttl": 60500, "x-expires": 60000,
    }  # fmt: skip
    again = kombu.Queue(queue.name, queue_arguments=arguments, auto_delete=True)(connection)
    again.declare()


def test_a_simple_queue_works(connection: kombu.Connection, names: Names) -> None:
    name = names.exchange(names.queue())
    with connection.SimpleQueue(name) as simple:
        for number in range(3):
            simple.put({"n": number})
        messages = [simple.get(timeout=PATIENCE_S) for _ in range(3)]
        for message in messages:
            message.ack()
        with pytest.raises(simple.Empty):
            simple.get_nowait()

    assert [message.payload for message in messages] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_broadcast_reaches_everybody(connection: kombu.Connection, names: Names) -> None:
    exchange = names.exchange()
    queues = [Broadcast(exchange, unique=True)(connection) for _ in range(3)]
    for queue in queues:
        names.queue(queue.name)
        queue.declare()
    kombu.Producer(connection).publish("to all", exchange=kombu.Exchange(exchange, type="fanout"))

    assert [receive(connection, queue, 1) for queue in queues] == [["to all"]] * 3


def test_publishing_may_wait_for_confirms(broker: Broker, names: Names) -> None:
    with kombu.Connection(broker.kombu_url, transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue(names.queue())(connection)
        queue.declare()
        for number in range(20):
            kombu.Producer(connection).publish(number, routing_key=queue.name)

        assert queue.queue_declare(passive=True).message_count == 20


def test_a_refused_publish_is_an_error(broker: Broker, names: Names) -> None:
    with kombu.Connection(broker.kombu_url, transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue(
            names.queue(), queue_arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )(connection)
        queue.declare()

        with pytest.raises(MessageNacked):
            kombu.Producer(connection).publish("x", routing_key=queue.name)


def test_kombu_takes_the_broker_for_one_with_channel_wide_prefetch(connection: kombu.Connection) -> None:
    connection.connect()

    assert connection.qos_semantics_matches_spec is False


def test_a_mailbox_answers_everybody(broker: Broker, names: Names) -> None:
    namespace = names.text()
    names.exchange(f"{namespace}.pidbox")
    names.exchange(f"reply.{namespace}.pidbox")
    mailbox = Mailbox(namespace, type="fanout", accept=["json"])
    stop = threading.Event()
    ready = threading.Barrier(3)

    def serve(hostname: str) -> None:
        with kombu.Connection(broker.kombu_url) as connection:
            bound = mailbox(connection)
            channel = connection.channel()
            node = bound.Node(hostname, channel=channel, state={"hostname": hostname})
            node.handlers["hello"] = lambda state, name: f"hello {name} from {state['hostname']}"
            with node.listen(channel=channel):
                ready.wait(PATIENCE_S)
                while not stop.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)

    threads = [threading.Thread(target=serve, args=(name,), daemon=True) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    ready.wait(PATIENCE_S)
    with kombu.Connection(broker.kombu_url) as connection:
        replies = mailbox(connection).multi_call("hello", {"name": "world"}, timeout=5, limit=2)
    stop.set()
    for thread in threads:
        thread.join()

    assert sorted(str(reply) for reply in replies) == [
        "{'one': 'hello world from one'}",
        "{'two': 'hello world from two'}",
    ]


class Listener(ConsumerMixin):  # type: ignore[misc]
    """A ConsumerMixin, which reconnects and resubscribes by itself."""

    def __init__(self, connection: kombu.Connection, queue: kombu.Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.bodies: list[Any] = []

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803 - kombu's name
        """Consume the queue."""
        return [Consumer([self.queue], callbacks=[self.keep], prefetch_count=5)]

    def has(self, body: Any) -> bool:
        """Tell whether a body was received."""
        return body in self.bodies

    def keep(self, body: Any, message: kombu.Message) -> None:
        """Note the body."""
        self.bodies.append(body)
        message.ack()


def test_a_consumer_mixin_survives_cut_connections(
    connection: kombu.Connection, relay: Relay, queue: kombu.Queue
) -> None:
    with kombu.Connection(relay.broker.kombu_url) as cut_off:
        listener = Listener(cut_off, kombu.Queue(queue.name, queue.exchange, routing_key="k.#"))
        thread = threading.Thread(target=listener.run, daemon=True)
        thread.start()
        for body in ("first", "second", "third"):
            publish(connection, queue, body)
            eventually(partial(listener.has, body), f"the {body} message")
            relay.cut()
        listener.should_stop = True
        thread.join(PATIENCE_S)

    assert set(listener.bodies) == {"first", "second", "third"}


def test_a_publish_is_retried_over_a_new_connection(
    connection: kombu.Connection, relay: Relay, queue: kombu.Queue
) -> None:
    with kombu.Connection(relay.broker.kombu_url, transport_options={"confirm_publish": True}) as cut_off:
        producer = kombu.Producer(cut_off)
        producer.publish(1, exchange=queue.exchange, routing_key="k.x")
        relay.cut()
        producer.publish(
            2,
            exchange=queue.exchange,
            routing_key="k.x",
            retry=True,
            retry_policy={"max_retries": 20, "interval_start": 0, "interval_step": 0.1},
        )

    assert receive(connection, queue, 2) == [1, 2]


def test_an_idle_connection_lives_on_heartbeats(broker: Broker) -> None:
    with kombu.Connection(broker.kombu_url, heartbeat=1) as connection:
        connection.connect()
        for _ in range(7):
            time.sleep(0.5)
            connection.heartbeat_check()
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.01)

        assert connection.connected


@pytest.fixture
def delayed(connection: kombu.Connection, names: Names) -> tuple[str, kombu.Queue]:
    """Celery's 28 levels of delay under a prefix of their own, and a queue at their end."""
    prefix = names.text()
    for level in range(28):
        names.exchange(names.queue(level_name(level, prefix)))
    names.exchange(f"{prefix}_celery_delayed_delivery")
    exchange = kombu.Exchange(names.exchange(), type="topic")
    queue = kombu.Queue(names.queue(), exchange, routing_key="task")(connection)
    queue.declare()
    declare_native_delayed_delivery_exchanges_and_queues(connection, "classic", prefix)
    bind_queue_to_native_delayed_delivery_exchange(connection, queue, prefix)
    return prefix, queue


def delay(connection: kombu.Connection, prefix: str, countdown: int) -> str:
    """Publish a message to arrive after `countdown` seconds and return its routing key."""
    key = str(calculate_routing_key(countdown, "task"))
    kombu.Producer(connection).publish(
        countdown, exchange=level_name(27, prefix), routing_key=key, delivery_mode=2
    )
    return key


def test_native_delayed_delivery_holds_messages_back(
    connection: kombu.Connection, delayed: tuple[str, kombu.Queue]
) -> None:
    prefix, queue = delayed
    started = time.monotonic()
    for countdown in (3, 1):
        delay(connection, prefix, countdown)

    assert receive(connection, queue, 2) == [1, 3]
    assert 2.9 < time.monotonic() - started < 6


def test_a_delayed_message_keeps_its_key_and_says_how_it_came(
    connection: kombu.Connection, delayed: tuple[str, kombu.Queue]
) -> None:
    prefix, queue = delayed
    key = delay(connection, prefix, 1)

    message = get_soon(queue)
    assert message.delivery_info["routing_key"] == key
    assert [death["queue"] for death in message.headers["x-death"]] == [level_name(0, prefix)]
