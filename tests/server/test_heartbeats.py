"""Heartbeats: what is sent in silence, and how long silence is borne.

Source: AMQP 0-9-1 section 4.2.7; RabbitMQ guide "Detecting Dead TCP Connections with Heartbeats
and TCP Keepalives".
"""

from __future__ import annotations

import gc

import pytest
from pamqp import commands

from leveret.broker.server.session import Session

from ..peer import Heartbeat, Peer
from .closes import answer, is_gone, opened
from .harness import Broker

QOS = Peer.send(1, commands.Basic.Qos)
BEAT = Peer.heartbeat_frame()


def test_a_silent_broker_sends_one_every_half_interval() -> None:
    client = opened(heartbeat=10)
    client.broker.advance(5_000)
    assert client.take() == []  # it has just sent channel.open-ok
    client.broker.advance(5_000)
    assert client.take() == [Heartbeat()]
    client.broker.advance(5_000)
    assert client.take() == [Heartbeat()]


def test_anything_sent_counts_as_a_heartbeat() -> None:
    client = opened(heartbeat=10)
    client.broker.advance(5_000)
    assert answer(client, QOS) == ["Basic.QosOk"]
    client.broker.advance(5_000)
    assert client.take() == []


@pytest.mark.parametrize("seconds", [1, 19, 20, 21, 60])
def test_a_client_that_sends_heartbeats_is_kept(seconds: int) -> None:
    client = opened(heartbeat=seconds)
    for _ in range(10):
        client.broker.advance(1_000 * seconds)
        client.send(BEAT)
    assert not is_gone(client)
    assert client.take().count(Heartbeat()) >= 19


@pytest.mark.parametrize("seconds", [1, 10, 65535])
def test_a_silent_client_is_dropped_without_a_word_after_two_to_three_intervals(seconds: int) -> None:
    client = opened(heartbeat=seconds)
    client.broker.advance(2_000 * seconds)
    assert not is_gone(client)
    client.take()
    client.broker.advance(1_000 * seconds)
    assert is_gone(client)
    assert set(client.take()) <= {Heartbeat()}


@pytest.mark.parametrize("sign_of_life", [BEAT, QOS, b"\x08"])
def test_any_byte_is_a_sign_of_life(sign_of_life: bytes) -> None:
    client = opened(heartbeat=10)
    client.broker.advance(19_000)
    client.send(sign_of_life)
    client.broker.advance(19_000)
    assert not is_gone(client)
    client.broker.advance(12_000)
    assert is_gone(client)


def test_no_heartbeats_were_asked_for() -> None:
    client = opened(heartbeat=0)
    client.broker.advance(10_000_000)
    assert client.take() == []
    assert not is_gone(client)


def test_they_begin_with_tuning() -> None:
    client = Broker().connect(opened=False, heartbeat=2)
    client.send(client.peer.header() + client.peer.start_ok() + client.peer.tune_ok())
    client.take()
    client.broker.advance(2_000)
    assert Heartbeat() in client.take()


def test_what_a_silent_client_had_is_given_to_others() -> None:
    broker = Broker()
    silent = broker.connect(heartbeat=10).channel()
    silent.declare("q")
    silent.publish("q", b"a")
    silent.consume("q")
    silent.declare("its own", exclusive=True)
    broker.advance(30_000)
    other = broker.channel()
    message = other.get("q")
    assert message is not None
    assert message.body == b"a"
    assert not other.exists("its own")


def test_closed_connections_are_forgotten_before_their_heartbeats_are_due() -> None:
    broker = Broker()
    gc.collect()
    before = sum(isinstance(thing, Session) for thing in gc.get_objects())
    for _ in range(1_500):
        broker.connect(heartbeat=65535).vanish()
    gc.collect()
    assert sum(isinstance(thing, Session) for thing in gc.get_objects()) - before < 600


def test_connections_without_heartbeats_wake_the_broker_for_nothing_once_they_are_open() -> None:
    broker = Broker()
    clients = [opened(broker, heartbeat=0) for _ in range(3)]
    assert broker.node.next_wake_ms() is None
    clients[1].vanish()
    assert broker.node.next_wake_ms() is None


def test_a_handshake_still_ends_in_time_behind_those_that_are_done() -> None:
    broker = Broker()
    opened(broker, heartbeat=0)
    slow = broker.connect(opened=False)
    beating = opened(broker, heartbeat=60)
    opened(broker, heartbeat=0).vanish()
    broker.advance(int(broker.settings.handshake_timeout_s * 1000))
    assert is_gone(slow)
    assert not is_gone(beating)
    assert broker.node.next_wake_ms() == broker.now_ms + 20_000
