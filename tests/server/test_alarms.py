"""Publishers wait while the machine is short of memory or disk; nobody else does."""

from __future__ import annotations

import pytest
from pamqp import commands

from ..peer import Method
from .harness import Broker, Client

UNBLOCKED = "Connection.Unblocked"


def told(client: Client) -> list[str]:
    """Take what the client was told about being blocked."""
    methods = [event.method for event in client.take(0) if isinstance(event, Method)]
    return [
        method.reason or "" if isinstance(method, commands.Connection.Blocked) else method.name
        for method in methods
    ]


@pytest.fixture
def broker() -> Broker:
    return Broker()


def clear(broker: Broker, resource: str) -> None:
    broker.node.set_alarm(resource, False)
    broker.run()


def test_who_publishes_during_an_alarm_is_told_and_goes_on_when_it_is_over(broker: Broker) -> None:
    channel = broker.channel()
    channel.confirm()
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue, b"waits")
    assert told(channel.client) == ["low on memory"]
    assert channel.confirms() == []
    clear(broker, "memory")
    assert told(channel.client) == [UNBLOCKED]
    assert channel.confirms() == ["ack 1"]
    assert channel.drain(queue) == [b"waits"]


def test_nothing_at_all_is_read_from_a_blocked_connection(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    broker.node.set_alarm("disk", True)
    channel.publish(queue, b"1")
    channel.send(commands.Queue.Declare, queue="later")
    channel.publish(queue, b"2")
    assert channel.client.session.is_resting
    assert channel.names() == []
    clear(broker, "disk")
    assert not channel.client.session.is_resting
    assert channel.names() == ["Queue.DeclareOk"]
    assert channel.drain(queue) == [b"1", b"2"]


def test_who_does_not_publish_is_not_blocked(broker: Broker) -> None:
    publisher, other = broker.channel(), broker.channel()
    queue = publisher.declare("q")
    publisher.publish(queue, b"before")
    broker.node.set_alarm("disk", True)
    publisher.publish(queue, b"waits")
    assert other.drain(queue) == [b"before"]
    other.declare("another")
    assert told(other.client) == []


def test_a_blocked_connection_gets_its_deliveries(broker: Broker) -> None:
    blocked, other = broker.channel(), broker.channel()
    queue = other.declare("q")
    other.publish_all(queue, b"1", b"2")
    broker.node.set_alarm("disk", True)
    with blocked.client.at_once():
        blocked.send(commands.Basic.Consume, queue=queue, no_ack=True)
        blocked.publish(queue, b"3")
    assert blocked.bodies() == [b"1", b"2"]


def test_a_second_alarm_is_not_told_and_only_the_end_of_the_last_one_counts(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue)
    broker.node.set_alarm("disk", True)
    broker.run()
    assert told(channel.client) == ["low on memory"]
    clear(broker, "memory")
    assert told(channel.client) == []
    clear(broker, "disk")
    assert told(channel.client) == [UNBLOCKED]


def test_both_alarms_are_told_in_one(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    broker.node.set_alarm("disk", True)
    channel.publish(queue)
    assert told(channel.client) == ["low on disk & memory"]


def test_a_client_that_does_not_know_connection_blocked_just_waits(broker: Broker) -> None:
    channel = broker.channel(client_properties={})
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue, b"waits")
    assert told(channel.client) == []
    clear(broker, "memory")
    assert told(channel.client) == []
    assert channel.drain(queue) == [b"waits"]


def test_a_blocked_connection_is_not_missed_for_want_of_heartbeats(broker: Broker) -> None:
    channel = broker.channel(heartbeat=10)
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue, b"waits")
    broker.advance(60_000)
    clear(broker, "memory")
    assert channel.drain(queue) == [b"waits"]


def test_a_blocked_connection_that_breaks_is_forgotten(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue, b"was never taken")
    channel.client.session.connection_broken()
    broker.run()
    clear(broker, "memory")
    assert broker.channel().ready(queue) == 0


def test_the_broker_stops_though_publishers_are_blocked(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    broker.node.set_alarm("memory", True)
    channel.publish(queue)
    broker.stop()


def test_publishing_goes_on_after_a_second_alarm_as_after_the_first(broker: Broker) -> None:
    channel = broker.channel()
    queue = channel.declare("q")
    for body in (b"1", b"2"):
        broker.node.set_alarm("disk", True)
        channel.publish(queue, body)
        clear(broker, "disk")
        assert told(channel.client) == ["low on disk", UNBLOCKED]
    assert channel.drain(queue) == [b"1", b"2"]
