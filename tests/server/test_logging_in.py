"""From the protocol header to the open connection.

Source: AMQP 0-9-1 sections 2.2.4 and 4.2; RabbitMQ guides "Access Control" and "Authentication Failure
Notifications". Where RabbitMQ 3.10 drops the connection without a word, the answer of 4.x or a plain reason
is given.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.tables import Field, encode_table

from ..peer import CLIENT_PROPERTIES, Method, Peer, ProtocolHeader
from .closes import NOTHING, Close, answer, close_ok, is_gone
from .harness import Broker, Client, logged_events

HEADER = Peer.header()
REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism {}. "
    "For details see the broker logfile."
)


def stranger(broker: Broker | None = None, **peer: object) -> Client:
    """A client that has said nothing yet."""
    return (broker or Broker()).connect(opened=False, **peer)


def started(**peer: object) -> Client:
    client = stranger(**peer)  # type: ignore[arg-type]  # no broker among them
    client.send(HEADER)
    client.take()
    return client


def tuning(**peer: object) -> Client:
    client = started(**peer)
    client.send(client.peer.start_ok())
    client.take()
    return client


def opening(**peer: object) -> Client:
    client = tuning(**peer)
    client.send(client.peer.tune_ok())
    client.take()
    return client


def amqplain(**fields: Field) -> bytes:
    return encode_table(fields)[4:]


# the protocol header


@pytest.mark.parametrize("header", [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\x00\x09", b"AMQP\x01\x01\x09\x01"])
def test_the_broker_introduces_itself_to_amqp_0_9(header: bytes) -> None:
    client = stranger()
    client.send(header)
    [start] = client.take()
    assert isinstance(start, Method)
    assert isinstance(start.method, commands.Connection.Start)
    assert (start.method.version_major, start.method.version_minor) == (0, 9)
    assert start.method.mechanisms == "PLAIN AMQPLAIN"
    assert start.method.locales == "en_US"


def test_the_protocol_header_may_come_byte_by_byte() -> None:
    client = stranger()
    for index in range(7):
        client.send(HEADER[index : index + 1])
        assert client.take() == []
    assert answer(client, HEADER[7:]) == ["Connection.Start"]


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"AMQP\0\0\x09\x02",
        b"AMQP\x01\x01\x08\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x00\x01\x00\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"xyz",
    ],
)
def test_any_other_header_is_answered_with_ours_and_the_end(first_bytes: bytes) -> None:
    client = stranger()
    client.send(first_bytes)
    assert client.take() == [ProtocolHeader(HEADER)]
    assert is_gone(client)


def test_nothing_is_read_after_a_refused_header() -> None:
    client = stranger()
    client.send(b"AMQP\0\0\x09\x02" + client.peer.handshake())
    assert client.take() == [ProtocolHeader(HEADER)]


def test_a_health_check_that_says_nothing_is_not_logged() -> None:
    client = stranger()
    with logged_events() as logs:
        client.vanish()
    assert logs == []


# logging in


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"\0guest\0guest"),
        ("AMQPLAIN", amqplain(LOGIN=Field("S", b"guest"), PASSWORD=Field("S", b"guest"))),
        ("AMQPLAIN", amqplain(z=Field("t", True), PASSWORD=Field("x", b"guest"), LOGIN=Field("S", b"guest"))),
    ],
)
def test_a_known_user_is_told_the_limits(mechanism: str, response: bytes) -> None:
    client = started()
    client.send(client.peer.start_ok(mechanism, response))
    [tune] = client.take()
    assert isinstance(tune, Method)
    assert isinstance(tune.method, commands.Connection.Tune)
    assert (tune.method.channel_max, tune.method.frame_max, tune.method.heartbeat) == (2047, 131072, 60)


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"\0guest\0wrong"),
        ("PLAIN", b"\0nobody\0guest"),
        ("PLAIN", b"\0guest\0"),
        ("PLAIN", b"\0g\xff\0guest"),
        ("AMQPLAIN", amqplain(LOGIN=Field("S", b"guest"), PASSWORD=Field("S", b"wrong"))),
    ],
)
def test_a_refused_login_is_told_to_clients_that_can_hear_it(mechanism: str, response: bytes) -> None:
    client = started()
    refused = answer(client, client.peer.start_ok(mechanism, response))
    assert refused == Close(0, 403, REFUSED.format(mechanism), NOTHING)


def test_a_refused_login_without_the_capability_ends_in_silence_after_three_seconds() -> None:
    client = started(client_properties={})
    assert answer(client, client.peer.start_ok(response=b"\0guest\0wrong")) == []
    client.broker.advance(2_999)
    assert not is_gone(client)
    client.broker.advance(1)
    assert is_gone(client)


def test_a_refused_login_can_be_answered_at_once() -> None:
    client = started()
    answer(client, client.peer.start_ok(response=b"\0guest\0wrong"))
    assert answer(client, close_ok(client)) == []
    assert is_gone(client)


@pytest.mark.parametrize(
    ("mechanism", "response", "code", "text"),
    [
        ("PLAIN", b"junk", 502, "SYNTAX_ERROR - response invalid: PLAIN expects NUL, user, NUL, password"),
        (
            "PLAIN",
            b"x\0guest\0guest",
            502,
            "SYNTAX_ERROR - response invalid: PLAIN expects NUL, user, NUL, password",
        ),
        ("AMQPLAIN", b"\5LOGINS\0", 502, "SYNTAX_ERROR - response invalid: field table is truncated"),
        ("plain", b"\0guest\0guest", 503, "COMMAND_INVALID - unknown authentication mechanism 'plain'"),
        ("EXTERNAL", b"", 503, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'"),
    ],
)
def test_a_malformed_login_is_told_too(mechanism: str, response: bytes, code: int, text: str) -> None:
    client = started()
    assert answer(client, client.peer.start_ok(mechanism, response)) == Close(0, code, text, NOTHING)


def test_a_malformed_login_without_the_capability_ends_in_silence() -> None:
    client = started(client_properties={"capabilities": {"authentication_failure_close": "yes"}})
    assert answer(client, client.peer.start_ok(response=b"junk")) == []
    client.broker.advance(3_000)
    assert is_gone(client)


def test_guest_logs_in_from_this_machine_only() -> None:
    broker = Broker()
    session = broker.node.open_session("10.0.0.9", "10.0.0.9:1 -> 10.0.0.1:5672", False)
    assert session is not None
    client = Client(broker, session, Peer())
    broker.clients.append(client)
    client.send(HEADER)
    assert answer(client, client.peer.start_ok()) == Close(0, 403, REFUSED.format("PLAIN"), NOTHING)


def test_a_long_password_has_room_before_tuning() -> None:
    client = started()
    refused = answer(client, client.peer.start_ok(response=b"\0guest\0" + b"x" * 7_500))
    assert refused == Close(0, 403, REFUSED.format("PLAIN"), NOTHING)


def test_frames_before_tuning_are_at_most_8_kib() -> None:
    client = started()
    refused = answer(client, Peer.frame(1, 0, b"", size=8_193))
    text = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}"
    assert refused == Close(0, 501, text, NOTHING)


# tuning


@pytest.mark.parametrize(
    "limits",
    [
        {"frame_max": 4096},
        {"frame_max": 131072},
        {"channel_max": 1},
        {"channel_max": 2047},
        {"heartbeat": 0},
        {"heartbeat": 65535},
    ],
)
def test_the_client_may_lower_the_limits_and_choose_any_heartbeat(limits: dict[str, int]) -> None:
    client = tuning(**limits)
    assert answer(client, client.peer.tune_ok() + client.peer.open()) == ["Connection.OpenOk"]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"frame_max": 4095}, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        ({"frame_max": 0}, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (
            {"frame_max": 131073},
            "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)",
        ),
        (
            {"channel_max": 0},
            "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
        ),
        (
            {"channel_max": 2048},
            "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)",
        ),
    ],
)
def test_the_client_cannot_raise_the_limits(limits: dict[str, int], text: str) -> None:
    client = tuning(**limits)
    assert answer(client, client.peer.tune_ok()) == Close(0, 530, f"NOT_ALLOWED - {text}", (10, 30))


# opening


def test_the_whole_handshake_may_come_in_one_piece_with_channels_behind() -> None:
    client = stranger()
    assert answer(client, client.peer.handshake(1, 2)) == [
        "Connection.Start",
        "Connection.Tune",
        "Connection.OpenOk",
        "Channel.OpenOk",
        "Channel.OpenOk",
    ]


@pytest.mark.parametrize("vhost", ["nope", "", "é" * 100, "v" * 255])
def test_a_missing_vhost_is_not_allowed(vhost: str) -> None:
    client = opening(vhost=vhost)
    refused = answer(client, client.peer.open())
    assert isinstance(refused, Close)
    assert refused[:2] == (0, 530)
    assert refused.text.startswith(f"NOT_ALLOWED - vhost {vhost[:20]}")
    assert refused.ids == (10, 40)


# methods and frames in the wrong state


@pytest.mark.parametrize(
    ("data", "code", "text", "ids"),
    [
        (
            Peer.send(1, commands.Channel.Open),
            505,
            "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>",
            NOTHING,
        ),
        (
            Peer.send(0, commands.Channel.Open),
            504,
            "CHANNEL_ERROR - unexpected method in connection state opening",
            (20, 10),
        ),
        (
            Peer.send(0, commands.Connection.Close),
            504,
            "CHANNEL_ERROR - unexpected method in connection state opening",
            (10, 50),
        ),
        (Peer.body(1, b"abc"), 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"abc">>', NOTHING),
        (Peer.body(0, b"abc"), 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"abc">>', NOTHING),
        (Peer.frame(8, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", NOTHING),
        (
            Peer.frame(5, 0, b"abc"),
            501,
            'FRAME_ERROR - type 5, all octets = <<"abc">>: unknown_frame',
            NOTHING,
        ),
    ],
)
def test_before_open_only_open_is_expected(data: bytes, code: int, text: str, ids: tuple[int, int]) -> None:
    assert answer(opening(), data) == Close(0, code, text, ids)


@pytest.mark.parametrize(
    "method",
    [
        commands.Connection.StartOk,
        commands.Connection.TuneOk,
        commands.Connection.Open,
        commands.Connection.CloseOk,
        commands.Channel.Open,
        commands.Queue.Declare,
    ],
)
def test_a_running_connection_expects_few_methods_on_channel_0(method: type) -> None:
    refused = answer(Broker().connect(), Peer.send(0, method))
    assert isinstance(refused, Close)
    assert refused[:3] == (0, 504, "CHANNEL_ERROR - unexpected method in connection state running")


def test_a_new_secret_is_taken() -> None:
    secret = Peer.send(0, commands.Connection.UpdateSecret, new_secret="x", reason="expired")
    assert answer(Broker().connect(), secret) == ["Connection.UpdateSecretOk"]


def test_a_refused_peer_gains_no_time_by_going_on() -> None:
    client = started()
    answer(client, Peer.frame(5, 0, b"abc"))
    client.broker.advance(2_000)
    assert answer(client, Peer.frame(5, 0, b"abc") * 3) == []
    client.broker.advance(1_000)
    assert is_gone(client)


# limits


@pytest.mark.parametrize("stage", [stranger, started, tuning, opening])
def test_the_handshake_has_ten_seconds(stage: type) -> None:
    client = stage()
    client.broker.advance(9_999)
    assert not is_gone(client)
    client.broker.advance(1)
    assert is_gone(client)
    assert client.take() == []


def test_an_open_connection_has_all_the_time() -> None:
    client = Broker().connect()
    client.broker.advance(1_000_000)
    assert not is_gone(client)


def test_an_address_has_a_limit_of_connections_that_have_not_logged_in() -> None:
    broker = Broker()
    strangers = [stranger(broker) for _ in range(64)]
    assert broker.node.open_session("127.0.0.1", "one more", True) is None
    assert broker.node.open_session("10.0.0.1", "another address", False) is not None
    strangers[0].send(strangers[0].peer.handshake())
    assert broker.node.open_session("127.0.0.1", "one more", True) is not None


def test_the_broker_has_a_limit_of_connections_that_have_not_logged_in() -> None:
    broker = Broker(unauthenticated_connections=3)
    sessions = [broker.node.open_session(f"10.0.0.{n}", "stranger", False) for n in range(4)]
    assert [session is not None for session in sessions] == [True, True, True, False]
    first = sessions[0]
    assert first is not None
    broker.node.session_closed(first)
    assert broker.node.open_session("10.0.0.9", "stranger", False) is not None


def test_client_properties_are_read_in_any_legal_form() -> None:
    properties = {**CLIENT_PROPERTIES, "capabilities": "none", "x" * 200: [1, {"y": None}]}
    client = started(client_properties=properties)
    assert answer(client, client.peer.start_ok()) == ["Connection.Tune"]
