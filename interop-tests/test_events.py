"""amq.rabbitmq.event tells the same of queues, bindings and consumers, whoever the broker is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from brokers import Connect, Names
from pika.adapters.blocking_connection import BlockingChannel

EVENTS = "amq.rabbitmq.event"
Event = tuple[str, dict[str, Any]]  # routing key, headers but for the time


@pytest.fixture
def watcher(connect: Connect) -> BlockingChannel:
    """A channel for those who watch."""
    channel = connect().channel()
    try:
        channel.exchange_declare(EVENTS, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        pytest.skip("this broker has no exchange of events")
    return channel


def watch(channel: BlockingChannel, *keys: str) -> Iterator[Event]:
    """Bind a queue, and give what comes; a test takes as much as it waits for."""
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key in keys:
        channel.queue_bind(queue, EVENTS, key)
    return _events(channel, queue)


def _events(channel: BlockingChannel, queue: str) -> Iterator[Event]:
    for method, properties, body in channel.consume(queue, auto_ack=True):
        assert body == b""
        assert properties.delivery_mode == 2
        headers = dict(properties.headers)
        assert headers.pop("timestamp_in_ms") // 1000 == properties.timestamp
        yield method.routing_key, headers


def of(events: Iterator[Event], name: str) -> Event:
    """Take the next event about something of this name: a broker may be shared."""
    return next(event for event in events if name in event[1].values())


def test_queues_come_and_go(connect: Connect, names: Names, watcher: BlockingChannel) -> None:
    events = watch(watcher, "queue.created", "queue.deleted")
    channel, name = connect().channel(), names.queue()
    channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
    channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
    channel.queue_delete(name)
    by = {"user_who_performed_action": "guest"}
    created = {
        **by, "exclusive": False, "owner_pid": "", "auto_delete": False, "durable": True, "name": name,
        "vhost": "/",
    }  # fmt: skip
    key, headers = of(events, name)
    assert headers.pop("arguments")[0].startswith('{<<"x-max-length">>,')
    assert (key, headers) == ("queue.created", created)
    assert of(events, name) == ("queue.deleted", {**by, "name": name, "vhost": "/"})


def test_exchanges_and_bindings_come_and_go(connect: Connect, names: Names, watcher: BlockingChannel) -> None:
    events = watch(watcher, "exchange.*", "binding.*")
    channel, exchange, queue = connect().channel(), names.exchange(), names.queue()
    channel.queue_declare(queue, exclusive=True)
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k")
    keys = {of(events, exchange)[0] for _ in range(2)}
    assert keys == {"exchange.created", "binding.created"}
    assert {of(events, exchange)[0] for _ in range(2)} == {"binding.deleted", "exchange.deleted"}


def test_what_goes_with_a_connection_is_done_by_the_broker(
    connect: Connect, names: Names, watcher: BlockingChannel
) -> None:
    events = watch(watcher, "queue.deleted")
    connection, name = connect(), names.queue()
    connection.channel().queue_declare(name, exclusive=True)
    connection.close()
    by = {"user_who_performed_action": "rmq-internal"}
    assert of(events, name) == ("queue.deleted", {**by, "name": name, "vhost": "/"})


def test_a_connection_is_told_with_its_name(connect: Connect, names: Names, watcher: BlockingChannel) -> None:
    events = watch(watcher, "connection.created", "channel.created")
    own = names.queue()
    connect(client_properties={"connection_name": own}).channel(7)
    created = next(headers for _, headers in events if own in str(headers.get("client_properties")))
    assert (created["user"], created["vhost"], created["protocol"]) == ("guest", "/", "{0,9,1}")
    _, channel = of(events, created["pid"])
    assert (channel["number"], channel["name"]) == (7, f"{created['name']} (7)")
