"""The states of a connection from protocol header to close, and what is negotiated on the way."""

from __future__ import annotations

import pytest
from pamqp import base, commands

from leveret.protocol import handshake
from leveret.protocol.errors import ChannelNotOpen, NotAllowed, UnexpectedFrame
from leveret.protocol.handshake import State, Tuning, negotiate, next_state
from leveret.protocol.methods import decode_method, encode_method, make
from leveret.protocol.tables import Field, Table

Connection = commands.Connection
SERVER = Tuning()


def test_a_connection_goes_from_start_to_close() -> None:
    state: State | None = State.STARTING
    visited = [state]
    for method in (
        Connection.StartOk,
        Connection.TuneOk,
        Connection.Open,
        Connection.UpdateSecret,
        Connection.Close,
    ):
        assert state is not None
        state = next_state(state, 0, make(method))
        visited.append(state)
    assert visited == [
        State.STARTING,
        State.TUNING,
        State.OPENING,
        State.RUNNING,
        State.RUNNING,
        State.CLOSED,
    ]


def test_a_mechanism_may_ask_for_a_second_response() -> None:
    assert next_state(State.SECURING, 0, make(Connection.SecureOk)) is State.TUNING


@pytest.mark.parametrize(
    ("state", "method", "ids"),
    [
        (State.STARTING, Connection.Open, (10, 40)),
        (State.STARTING, Connection.Close, (10, 50)),
        (State.TUNING, Connection.Open, (10, 40)),
        (State.TUNING, Connection.Close, (10, 50)),
        (State.TUNING, Connection.SecureOk, (10, 21)),
        (State.OPENING, Connection.TuneOk, (10, 31)),
        (State.OPENING, Connection.StartOk, (10, 11)),
        (State.OPENING, Connection.Close, (10, 50)),
        (State.OPENING, Connection.Blocked, (10, 60)),
        (State.OPENING, commands.Queue.Declare, (50, 10)),
        (State.RUNNING, Connection.StartOk, (10, 11)),
        (State.RUNNING, Connection.Open, (10, 40)),
        (State.RUNNING, Connection.Start, (10, 10)),
        (State.RUNNING, Connection.CloseOk, (10, 51)),
        (State.RUNNING, Connection.Blocked, (10, 60)),
        (State.RUNNING, Connection.UpdateSecretOk, (10, 71)),
        (State.RUNNING, commands.Channel.Open, (20, 10)),
        (State.RUNNING, commands.Basic.Ack, (60, 80)),
    ],
)
def test_a_method_in_the_wrong_state_is_a_channel_error(
    state: State, method: type[base.Frame], ids: tuple[int, int]
) -> None:
    with pytest.raises(ChannelNotOpen) as caught:
        next_state(state, 0, make(method))
    assert caught.value.reply_text == f"CHANNEL_ERROR - unexpected method in connection state {state.value}"
    assert (caught.value.class_id, caught.value.method_id) == ids


@pytest.mark.parametrize("state", [State.STARTING, State.SECURING, State.TUNING, State.OPENING])
def test_a_method_on_another_channel_before_the_connection_is_open_is_an_unexpected_frame(
    state: State,
) -> None:
    with pytest.raises(UnexpectedFrame) as caught:
        next_state(state, 1, make(commands.Channel.Open))
    assert caught.value.reply_text == "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>"
    assert (caught.value.class_id, caught.value.method_id) == (0, 0)


def test_a_legal_method_does_not_count_on_another_channel() -> None:
    with pytest.raises(UnexpectedFrame):
        next_state(State.OPENING, 1, make(Connection.Open, virtual_host="/"))


def test_a_close_that_crosses_ours_is_answered_and_close_ok_still_awaited() -> None:
    assert next_state(State.CLOSING, 0, make(Connection.Close)) is State.CLOSING
    assert next_state(State.CLOSING, 0, make(Connection.CloseOk)) is State.CLOSED


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
@pytest.mark.parametrize(("channel", "method"), [(0, Connection.Open), (1, commands.Queue.Declare)])
def test_anything_else_is_ignored_while_closing(state: State, channel: int, method: type[base.Frame]) -> None:
    assert next_state(state, channel, make(method)) is None


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_in_the_table(state: State) -> None:
    assert state in handshake.TRANSITIONS


@pytest.mark.parametrize("header", [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\0\x09", b"AMQP\x01\x01\x09\x01"])
def test_the_headers_of_0_9_1_and_0_9_are_accepted(header: bytes) -> None:
    assert handshake.refusal(header) is None


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"AMQP\x03\x01\0\0", "AMQP 1.0 client, which needs AMQP 0-9-1"),
        (b"AMQP\x00\x01\0\0", "AMQP 1.0 client, which needs AMQP 0-9-1"),
        (b"AMQP\x00\x00\x0a\x00", "AMQP version 0.0.10.0 is not supported"),
        (b"AMQP\x01\x01\x08\x00", "AMQP version 1.1.8.0 is not supported"),
        (b"GET / HT", "HTTP request on an AMQP port"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS client on a plain port"),
        (b"rubbish!", 'no AMQP protocol header: <<"rubbish!">>'),
        (b"AMQ", 'no AMQP protocol header: <<"AMQ">>'),
    ],
)
def test_a_refused_header_is_named_for_the_log(header: bytes, reason: str) -> None:
    assert handshake.refusal(header) == reason


@pytest.mark.parametrize(
    "client",
    [
        Tuning(2047, 131072, 60),
        Tuning(1, 4096, 0),
        Tuning(2047, 131072, 65535),
        Tuning(9, 8192, 1),
    ],
)
def test_the_values_of_the_client_count_within_the_limits_and_any_heartbeat_does(client: Tuning) -> None:
    assert negotiate(SERVER, client) == client


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (Tuning(2047, 4095, 0), "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (
            Tuning(2047, 131073, 0),
            "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)",
        ),
        (Tuning(2047, 0, 0), "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (
            Tuning(2048, 131072, 0),
            "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)",
        ),
        (
            Tuning(0, 131072, 0),
            "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
        ),
    ],
)
def test_values_outside_the_limits_are_not_allowed(client: Tuning, text: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        negotiate(SERVER, client)
    assert caught.value.reply_text == f"NOT_ALLOWED - {text}"
    assert (caught.value.class_id, caught.value.method_id) == (10, 30)


@pytest.mark.parametrize("client", [Tuning(0, 0, 0), Tuning(65535, 1 << 31, 0)])
def test_a_server_without_limits_allows_everything(client: Tuning) -> None:
    assert negotiate(Tuning(0, 0, 60), client) == client


PROPERTIES = handshake.server_properties(
    broker_version="0.1.0", platform="Python 3.11.9", cluster_name="leveret@host"
)


def test_the_server_introduces_itself_as_a_rabbitmq_that_celery_works_with() -> None:
    start = handshake.start_method(PROPERTIES, ("PLAIN", "AMQPLAIN"))
    decoded = decode_method(encode_method(0, start)[7:-1])
    assert isinstance(decoded, Connection.Start)
    assert (decoded.version_major, decoded.version_minor) == (0, 9)
    assert (decoded.mechanisms, decoded.locales) == ("PLAIN AMQPLAIN", "en_US")
    told: Table = decoded.server_properties  # type: ignore[assignment]  # decoded tables are tagged
    assert told["product"] == Field("S", b"RabbitMQ")
    assert told["version"] == Field("S", b"3.13.7")
    assert told["broker"] == Field("S", b"Leveret")
    assert told["broker_version"] == Field("S", b"0.1.0")


def test_server_properties_are_sorted_by_key() -> None:
    assert list(PROPERTIES) == sorted(PROPERTIES)


def test_server_capabilities_are_all_true_and_in_the_order_of_rabbitmq() -> None:
    start = handshake.start_method(PROPERTIES, ("PLAIN",))
    decoded = decode_method(encode_method(0, start)[7:-1])
    assert isinstance(decoded, Connection.Start)
    told: Table = decoded.server_properties  # type: ignore[assignment]  # decoded tables are tagged
    capabilities = told["capabilities"]
    assert capabilities.tag == "F"
    assert capabilities.value == dict.fromkeys(handshake.CAPABILITIES, Field("t", True))
    assert list(handshake.CAPABILITIES) == [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ]


def test_the_name_and_three_capabilities_of_the_client_are_used() -> None:
    capabilities: Table = {
        "authentication_failure_close": Field("t", True),
        "connection.blocked": Field("t", False),
        "consumer_cancel_notify": Field("l", 1),
    }
    client = handshake.read_client_properties(
        {"connection_name": Field("S", b"worker"), "capabilities": Field("F", capabilities)}
    )
    assert client == handshake.ClientProperties("worker", True, False, False)


def test_a_client_may_tell_nothing_of_itself() -> None:
    assert handshake.read_client_properties({}) == handshake.ClientProperties(None, False, False, False)
