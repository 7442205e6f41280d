"""Logging in, tuning, heartbeats, channels and connections in numbers."""

from __future__ import annotations

import struct
import time

import pika
import pytest
from blocking import connection_closed, drain
from brokers import Broker, Connect, Names
from pika.exceptions import ProbableAccessDeniedError, ProbableAuthenticationError
from wire import (
    BASIC_QOS,
    BASIC_QOS_OK,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CHANNEL_OPEN,
    CHANNEL_OPEN_OK,
    CONNECTION_OPEN,
    CONNECTION_OPEN_OK,
    CONNECTION_TUNE,
    CONNECTION_TUNE_OK,
    HEARTBEAT,
    Peer,
    field,
    longstr,
    shortstr,
)

REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism {}. "
    "For details see the broker logfile."
)


def test_the_broker_announces_its_capabilities(connection: pika.BlockingConnection) -> None:
    properties = connection._impl.server_properties

    assert properties["capabilities"] == {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    }


@pytest.mark.parametrize(
    "key", ["product", "version", "platform", "copyright", "information", "cluster_name"]
)
def test_the_broker_introduces_itself(connection: pika.BlockingConnection, key: str) -> None:
    assert isinstance(connection._impl.server_properties[key], str)


def test_the_broker_says_rabbitmq_3_to_clients_that_look(connection: pika.BlockingConnection) -> None:
    properties = connection._impl.server_properties

    assert (properties["product"], properties["version"].split(".")[0]) == ("RabbitMQ", "3")


def test_connection_start_speaks_0_9_and_offers_plain_and_amqplain(stranger: Peer) -> None:
    start = stranger.start().arguments
    (size,) = struct.unpack_from(">I", start, 2)
    mechanisms, locales = start[6 + size :], b"\0\0\0\x05en_US"

    assert start[:2] == b"\0\x09"
    assert mechanisms.endswith(locales)
    assert {"PLAIN", "AMQPLAIN"} <= set(mechanisms[4 : -len(locales)].decode().split())


def test_connection_tune_offers_rabbitmqs_limits(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok()

    assert struct.unpack(">HIH", stranger.receive_method(CONNECTION_TUNE).arguments) == (2047, 131072, 60)


def test_open_ok_is_an_empty_short_string(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok()
    stranger.receive_method(CONNECTION_TUNE)
    stranger.send_method(0, CONNECTION_TUNE_OK, struct.pack(">HIH", 2047, 131072, 0))

    answer = stranger.ask(0, CONNECTION_OPEN, shortstr(stranger.broker.vhost) + b"\0\0", CONNECTION_OPEN_OK)
    assert answer.arguments == b"\0"


def test_amqplain_logs_in(stranger: Peer) -> None:
    broker = stranger.broker
    stranger.start()
    stranger.send_start_ok(
        "AMQPLAIN",
        field("LOGIN", "S", longstr(broker.user)) + field("PASSWORD", "S", longstr(broker.password)),
    )
    stranger.finish_login()


def test_amqplain_takes_its_fields_in_any_order(stranger: Peer) -> None:
    broker = stranger.broker
    stranger.start()
    stranger.send_start_ok(
        "AMQPLAIN",
        field("PASSWORD", "S", longstr(broker.password)) + field("LOGIN", "S", longstr(broker.user)),
    )
    stranger.finish_login()


def test_any_locale_will_do(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok(locale="fr_FR")
    stranger.finish_login()


def test_a_wrong_password_is_refused(broker: Broker) -> None:
    wrong = broker.with_login(broker.user, "wrong")

    with pytest.raises(ProbableAuthenticationError, match="ACCESS_REFUSED"):
        pika.BlockingConnection(wrong.pika_parameters())


def test_an_unknown_user_is_refused(broker: Broker, names: Names) -> None:
    unknown = broker.with_login(names.text(), "guest")

    with pytest.raises(ProbableAuthenticationError, match="ACCESS_REFUSED"):
        pika.BlockingConnection(unknown.pika_parameters())


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_the_refusal_names_the_mechanism(stranger: Peer, mechanism: str) -> None:
    responses = {
        "PLAIN": b"\0guest\0wrong",
        "AMQPLAIN": field("LOGIN", "S", longstr("guest")) + field("PASSWORD", "S", longstr("wrong")),
    }
    stranger.start()
    stranger.send_start_ok(mechanism, responses[mechanism])

    assert stranger.receive_close() == (0, 403, REFUSED.format(mechanism), (0, 0))


def test_a_client_without_the_capability_is_refused_silently(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok(response=b"\0guest\0wrong", client_properties=bytes(4))

    stranger.receive_end()


def test_an_empty_password_is_refused(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok(response=b"\0guest\0")

    assert stranger.receive_close()[1] == 403


@pytest.mark.parametrize("mechanism", ["plain", "FOO"])
def test_an_unknown_mechanism_ends_the_connection(stranger: Peer, mechanism: str) -> None:
    stranger.start()
    stranger.send_start_ok(mechanism)

    assert stranger.receive_close_or_end() in (0, 503)  # RabbitMQ says nothing


def test_a_malformed_plain_response_ends_the_connection(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok(response=b"junk")

    assert stranger.receive_close_or_end() in (0, 502)  # RabbitMQ says nothing


def test_a_missing_vhost_is_not_allowed(broker: Broker) -> None:
    with pytest.raises((ProbableAccessDeniedError, pika.exceptions.ConnectionClosedByBroker), match="530"):
        pika.BlockingConnection(broker.pika_parameters(virtual_host="nope"))


def test_a_missing_vhost_is_named(stranger: Peer) -> None:
    stranger.start()
    stranger.send_start_ok()
    stranger.receive_method(CONNECTION_TUNE)
    stranger.send_method(0, CONNECTION_TUNE_OK, struct.pack(">HIH", 2047, 131072, 0))
    stranger.send_method(0, CONNECTION_OPEN, shortstr("nope") + b"\0\0")

    assert stranger.receive_close() == (0, 530, "NOT_ALLOWED - vhost nope not found", CONNECTION_OPEN)


# limits ------------------------------------------------------------------------------------------------


def test_a_connection_has_two_thousand_channels(broker: Broker) -> None:
    peer = Peer(broker)
    peer.login()

    for number in range(1, 2048):
        peer.send_method(number, CHANNEL_OPEN, b"\0")
    for _ in range(1, 2048):
        peer.receive_method(CHANNEL_OPEN_OK)
    peer.disconnect()


def test_more_channels_than_agreed_are_not_allowed(connect: Connect) -> None:
    connection = connect(channel_max=2)
    connection.channel(1)
    connection.channel(2)
    connection._impl.params.channel_max = 9

    with connection_closed(
        530, "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    ):
        connection.channel(3)


def test_a_closed_channel_makes_room_for_another(broker: Broker) -> None:
    peer = Peer(broker)
    peer.login(channel_max=1)

    for number in (1, 9, 3):
        peer.open_channel(number)
        peer.ask(number, CHANNEL_CLOSE, b"\0\0\0" + bytes(4), CHANNEL_CLOSE_OK)
    peer.disconnect()


def test_a_hundred_connections_at_once(broker: Broker, connect: Connect, names: Names) -> None:
    queue = names.queue()
    channels = [connect().channel() for _ in range(100)]
    channels[0].queue_declare(queue)
    for channel in channels:
        channel.confirm_delivery()
        channel.basic_publish("", queue, b"x")

    assert drain(channels[0], queue) == [b"x"] * 100


def test_a_small_frame_size_is_respected(connect: Connect, names: Names) -> None:
    connection = connect(frame_max=8192)
    channel = connection.channel()
    queue = names.queue()
    channel.queue_declare(queue)

    channel.basic_publish("", queue, b"x" * 100_000)

    assert drain(channel, queue) == [b"x" * 100_000]


# heartbeats --------------------------------------------------------------------------------------------


@pytest.fixture
def beating(stranger: Peer) -> Peer:
    """A raw connection with a heartbeat of one second."""
    stranger.login(heartbeat=1)
    return stranger


def test_the_broker_sends_heartbeats_every_half_interval(beating: Peer) -> None:
    started = time.monotonic()
    for _ in range(4):
        assert beating.receive_frame() == (HEARTBEAT, 0, b"")
        beating.send_frame(HEARTBEAT, 0, b"")

    assert 1.4 < time.monotonic() - started < 3


def test_a_silent_client_is_dropped_after_two_to_three_intervals(beating: Peer) -> None:
    started = time.monotonic()
    beating.receive_end()

    assert 1.8 < time.monotonic() - started < 4


def test_a_client_that_beats_is_kept(beating: Peer) -> None:
    for _ in range(8):
        assert beating.receive_frame().kind == HEARTBEAT
        beating.send_frame(HEARTBEAT, 0, b"")

    beating.open_channel(1)


def test_any_traffic_counts_as_a_heartbeat(beating: Peer) -> None:
    beating.open_channel(1)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        beating.ask(1, BASIC_QOS, bytes(7), BASIC_QOS_OK)
        time.sleep(0.3)


def test_a_heartbeat_of_zero_means_none(stranger: Peer) -> None:
    stranger.login(heartbeat=0)
    stranger.socket.settimeout(2.5)

    with pytest.raises(TimeoutError):
        stranger.receive_frame()


def test_pika_keeps_an_idle_connection_alive(connect: Connect) -> None:
    connection = connect(heartbeat=1)

    connection.sleep(3.5)

    assert connection.channel().is_open
