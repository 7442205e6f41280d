"""What the broker answers to frames and methods that are wrong."""

from __future__ import annotations

import struct

import pika
import pytest
from blocking import drain
from brokers import Broker, Names
from pika.adapters.blocking_connection import BlockingChannel
from wire import (
    ACCESS_REQUEST,
    ACCESS_REQUEST_OK,
    BASIC_DELIVER,
    BASIC_GET,
    BASIC_GET_EMPTY,
    BASIC_PUBLISH,
    BASIC_QOS,
    BASIC_QOS_OK,
    BODY,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CHANNEL_FLOW,
    CHANNEL_FLOW_OK,
    CHANNEL_OPEN,
    CHANNEL_OPEN_OK,
    CONNECTION_CLOSE,
    CONNECTION_CLOSE_OK,
    CONNECTION_OPEN,
    CONNECTION_TUNE,
    CONNECTION_TUNE_OK,
    EXCHANGE_DECLARE,
    HEADER,
    HEADERS,
    HEARTBEAT,
    METHOD,
    QUEUE_DECLARE,
    QUEUE_DECLARE_OK,
    Disconnected,
    Peer,
    basic_get,
    basic_publish,
    exchange_declare,
    field,
    queue_declare,
    shortstr,
    table,
)

NOTHING = (0, 0)
BYE = b"\0\0" + shortstr("") + bytes(4)


def closed(peer: Peer) -> tuple[int, int, str, tuple[int, int]]:
    """Receive a close: the channel (0 for the connection), code, text and the method blamed."""
    return tuple(peer.receive_close())  # type: ignore[return-value]


# frames ------------------------------------------------------------------------------------------------


def test_an_unknown_frame_type_is_a_frame_error(peer: Peer) -> None:
    peer.send_frame(5, 1, b"abc")

    assert closed(peer) == (0, 501, 'FRAME_ERROR - type 5, all octets = <<"abc">>: unknown_frame', NOTHING)


def test_a_frame_without_its_end_is_a_frame_error(peer: Peer) -> None:
    peer.send_frame(METHOD, 1, struct.pack(">HH", *BASIC_QOS) + bytes(7), end=b"\0")

    code, text = closed(peer)[1:3]
    assert (code, text.partition(",")[0]) == (501, "FRAME_ERROR - type 1")
    assert text.endswith("{invalid_frame_end_marker,0}")


def test_a_frame_over_the_negotiated_size_is_a_frame_error(peer: Peer) -> None:
    peer.send_bytes(struct.pack(">BHI", BODY, 1, 131073))

    assert closed(peer) == (
        0,
        501,
        "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}",
        NOTHING,
    )


def test_a_heartbeat_on_a_channel_is_unexpected(peer: Peer) -> None:
    peer.send_frame(HEARTBEAT, 1, b"")

    assert closed(peer) == (0, 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", NOTHING)


def test_content_on_channel_zero_is_unexpected(peer: Peer) -> None:
    peer.send_frame(BODY, 0, b"abc")

    assert closed(peer) == (0, 505, 'UNEXPECTED_FRAME - type 3, all octets = <<"abc">>', NOTHING)


@pytest.mark.parametrize("kind", [HEADER, BODY], ids=["header", "body"])
def test_content_without_a_method_is_unexpected(peer: Peer, kind: int) -> None:
    peer.send_frame(kind, 1, struct.pack(">HHQ", 60, 0, 1) + bytes(2))

    assert closed(peer) == (
        0,
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        NOTHING,
    )


def test_a_method_instead_of_the_header_is_unexpected(peer: Peer) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", "k"))
    peer.send_method(1, BASIC_QOS, bytes(7))

    assert closed(peer) == (
        0,
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        BASIC_PUBLISH,
    )


def test_a_body_instead_of_the_header_is_unexpected(peer: Peer) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", "k"))
    peer.send_frame(BODY, 1, b"x")

    assert closed(peer)[1:] == (
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        BASIC_PUBLISH,
    )


def test_a_header_of_another_class_is_unexpected(peer: Peer) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", "k"))
    peer.send_header(1, 0, class_id=50)

    assert closed(peer) == (
        0,
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
        BASIC_PUBLISH,
    )


def test_a_method_instead_of_the_body_is_unexpected(peer: Peer) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", "k"))
    peer.send_header(1, 5)
    peer.send_method(1, BASIC_QOS, bytes(7))

    assert closed(peer) == (
        0,
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        BASIC_PUBLISH,
    )


def test_a_body_frame_after_an_empty_message_is_unexpected(peer: Peer) -> None:
    peer.publish("k", b"")
    peer.send_frame(BODY, 1, b"")

    assert closed(peer)[:3] == (
        0,
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
    )


def test_a_method_with_too_few_bytes_is_a_frame_error(peer: Peer) -> None:
    peer.send_method(1, BASIC_QOS, bytes(3))

    channel, code, text, method = closed(peer)
    assert (channel, code, text.partition("<")[0], method) == (
        0,
        501,
        "FRAME_ERROR - cannot decode ",
        BASIC_QOS,
    )


def test_a_method_with_too_many_bytes_is_a_frame_error(peer: Peer) -> None:
    peer.send_method(1, BASIC_QOS, bytes(8))

    channel, code, text, method = closed(peer)
    assert (channel, code, text.partition("<")[0], method) == (
        0,
        501,
        "FRAME_ERROR - cannot decode ",
        BASIC_QOS,
    )


@pytest.mark.parametrize("name", [(60, 999), (77, 10)], ids=["method", "class"])
def test_an_unknown_method_ends_the_connection(peer: Peer, name: tuple[int, int]) -> None:
    peer.send_method(1, name)

    assert peer.receive_close_or_end() in (0, 503, 540)  # RabbitMQ says nothing


@pytest.mark.parametrize("name", [QUEUE_DECLARE_OK, BASIC_DELIVER], ids=["declare-ok", "deliver"])
def test_a_method_that_only_the_broker_sends_is_invalid(peer: Peer, name: tuple[int, int]) -> None:
    arguments = {
        QUEUE_DECLARE_OK: shortstr("q") + bytes(8),
        BASIC_DELIVER: shortstr("t") + bytes(9) + shortstr("") + shortstr("k"),
    }
    peer.send_method(1, name, arguments[name])
    if name == BASIC_DELIVER:
        peer.send_header(1, 0)

    channel, code, text, _ = closed(peer)
    assert (channel, code, text) == (0, 503, "COMMAND_INVALID - unimplemented method")


def test_an_unknown_type_in_an_argument_table_ends_the_connection(peer: Peer, names: Names) -> None:
    peer.send_method(1, QUEUE_DECLARE, queue_declare(names.queue(), arguments=table(field("k", "Z"))))

    assert peer.receive_close_or_end() in (0, 501, 502)  # RabbitMQ says nothing


def test_an_unknown_type_in_a_header_table_ends_the_connection(peer: Peer, names: Names) -> None:
    queue = names.queue()
    peer.declare_queue(queue)
    peer.publish(queue, b"x", struct.pack(">H", HEADERS) + table(field("CC", "Z")))

    channel, code, _, _ = closed(peer)
    assert channel == 0
    assert code in (541, 502)  # RabbitMQ fails over it, which is no model to follow


# channels ----------------------------------------------------------------------------------------------


def test_a_method_on_a_channel_that_is_not_open_is_a_channel_error(peer: Peer) -> None:
    peer.send_method(7, QUEUE_DECLARE, queue_declare("q"))

    assert closed(peer) == (0, 504, "CHANNEL_ERROR - expected 'channel.open'", QUEUE_DECLARE)


def test_closing_a_channel_that_is_not_open_is_a_channel_error(peer: Peer) -> None:
    peer.send_method(7, CHANNEL_CLOSE, BYE)

    assert closed(peer) == (0, 504, "CHANNEL_ERROR - expected 'channel.open'", CHANNEL_CLOSE)


def test_opening_a_channel_twice_is_a_channel_error(peer: Peer) -> None:
    peer.send_method(1, CHANNEL_OPEN, b"\0")

    assert closed(peer) == (0, 504, "CHANNEL_ERROR - second 'channel.open' seen", CHANNEL_OPEN)


@pytest.mark.parametrize("number", [2, 99, 65535])
def test_channel_numbers_may_be_chosen_freely(peer: Peer, number: int) -> None:
    peer.open_channel(number)

    peer.ask(number, BASIC_QOS, bytes(7), BASIC_QOS_OK)


def test_a_channel_number_may_be_used_again_after_closing(peer: Peer) -> None:
    for _ in range(3):
        peer.ask(1, CHANNEL_CLOSE, BYE, CHANNEL_CLOSE_OK)
        peer.open_channel(1)


def test_a_channel_number_may_be_used_again_after_an_error(peer: Peer, names: Names) -> None:
    peer.send_method(1, BASIC_GET, basic_get(names.text()))
    assert closed(peer)[1] == 404

    peer.open_channel(1)


def test_after_a_channel_error_frames_are_ignored_until_close_ok(
    peer: Peer, channel: BlockingChannel, queue: str, names: Names
) -> None:
    peer.send_method(1, BASIC_GET, basic_get(names.text()))
    peer.receive_method(CHANNEL_CLOSE)
    peer.publish(queue, b"ignored")
    peer.send_method(1, CHANNEL_CLOSE_OK)
    peer.open_channel(1)

    assert drain(channel, queue) == []


def test_two_closes_that_cross_are_both_answered(peer: Peer, names: Names) -> None:
    peer.send_method(1, BASIC_GET, basic_get(names.text()))
    peer.send_method(1, CHANNEL_CLOSE, BYE)

    peer.receive_method(CHANNEL_CLOSE)
    peer.receive_method(CHANNEL_CLOSE_OK)
    peer.send_method(1, CHANNEL_CLOSE_OK)
    peer.open_channel(1)


def test_opening_a_channel_again_before_close_ok_is_a_channel_error(peer: Peer, names: Names) -> None:
    peer.send_method(1, BASIC_GET, basic_get(names.text()))
    peer.receive_method(CHANNEL_CLOSE)
    peer.send_method(1, CHANNEL_OPEN, b"\0")

    assert closed(peer) == (0, 504, "CHANNEL_ERROR - second 'channel.open' seen", CHANNEL_OPEN)


def test_a_soft_error_names_the_method_that_failed(peer: Peer, names: Names) -> None:
    missing = names.text()
    peer.send_method(1, EXCHANGE_DECLARE, exchange_declare(missing, "", 1))

    assert closed(peer) == (1, 404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'", EXCHANGE_DECLARE)


def test_methods_may_be_sent_before_the_answer_to_the_last_one(peer: Peer, names: Names) -> None:
    queues = [names.queue() for _ in range(20)]
    for queue in queues:
        peer.send_method(1, QUEUE_DECLARE, queue_declare(queue))
        peer.send_method(1, BASIC_GET, basic_get(queue))

    for queue in queues:
        assert peer.receive_method(QUEUE_DECLARE_OK).arguments.startswith(shortstr(queue))
        peer.receive_method(BASIC_GET_EMPTY)


def test_no_wait_leaves_out_the_answer(peer: Peer, names: Names) -> None:
    queue = names.queue()
    peer.send_method(1, QUEUE_DECLARE, queue_declare(queue, 16))

    peer.ask(1, BASIC_GET, basic_get(queue), BASIC_GET_EMPTY)


def test_no_wait_does_not_leave_out_the_error(peer: Peer) -> None:
    peer.send_method(1, QUEUE_DECLARE, queue_declare("amq.interop", 16))

    assert closed(peer)[:2] == (1, 403)


def test_channel_flow_on_is_answered(peer: Peer) -> None:
    assert peer.ask(1, CHANNEL_FLOW, b"\1", CHANNEL_FLOW_OK).arguments == b"\1"


def test_channel_flow_off_is_not_implemented(peer: Peer) -> None:
    peer.send_method(1, CHANNEL_FLOW, b"\0")

    assert closed(peer) == (0, 540, "NOT_IMPLEMENTED - active=false", CHANNEL_FLOW)


def test_access_request_of_old_clients_is_answered(peer: Peer) -> None:
    assert peer.ask(1, ACCESS_REQUEST, shortstr("/data") + b"\x1f", ACCESS_REQUEST_OK).arguments == b"\0\1"


def test_channel_open_ok_has_an_empty_long_string(peer: Peer) -> None:
    assert peer.ask(2, CHANNEL_OPEN, b"\0", CHANNEL_OPEN_OK).arguments == bytes(4)


# the connection ----------------------------------------------------------------------------------------


def test_a_second_connection_open_is_unexpected(peer: Peer) -> None:
    peer.send_method(0, CONNECTION_OPEN, shortstr("/") + b"\0\0")

    assert closed(peer) == (
        0,
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        CONNECTION_OPEN,
    )


def test_a_channel_method_on_channel_zero_is_unexpected(peer: Peer) -> None:
    peer.send_method(0, CHANNEL_OPEN, b"\0")

    assert closed(peer)[:3] == (
        0,
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
    )


def test_a_connection_close_is_answered(peer: Peer) -> None:
    peer.ask(0, CONNECTION_CLOSE, BYE, CONNECTION_CLOSE_OK)


def test_after_a_connection_error_only_the_close_is_answered(peer: Peer) -> None:
    peer.send_frame(HEARTBEAT, 1, b"")
    peer.send_method(1, QUEUE_DECLARE, queue_declare(""))

    assert peer.receive_method(CONNECTION_CLOSE).channel == 0
    peer.send_method(0, CONNECTION_CLOSE_OK)
    with pytest.raises(Disconnected):
        peer.receive_bytes(1)


def test_no_other_connection_notices_a_protocol_error(
    peer: Peer, connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    peer.send_bytes(b"\xff" * 1000)
    peer.receive_end()

    channel.basic_publish("", queue, b"still here")
    assert drain(channel, queue) == [b"still here"]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"AMQP\0\0\x09\x02", id="another revision"),
        pytest.param(b"AMQP\0\0\x0a\0", id="0-10"),
        pytest.param(b"AMQX\0\0\x09\x01", id="another protocol"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
    ],
)
def test_another_protocol_is_answered_with_the_right_header(stranger: Peer, header: bytes) -> None:
    stranger.send_bytes(header)

    assert stranger.receive_bytes(4) == b"AMQP"
    stranger.receive_end()


def test_the_refusal_names_the_version_spoken(stranger: Peer) -> None:
    stranger.send_bytes(b"AMQP\0\0\x09\x02")

    assert stranger.receive_bytes(8) == b"AMQP\0\0\x09\x01"


def test_a_peer_that_comes_and_goes_is_no_trouble(
    broker: Broker, channel: BlockingChannel, queue: str
) -> None:
    for farewell in (b"", b"AM", b"AMQP\0\0\x09\x01"):
        visitor = Peer(broker)
        visitor.send_bytes(farewell)
        visitor.disconnect()

    channel.basic_publish("", queue, b"still here")
    assert drain(channel, queue) == [b"still here"]


@pytest.mark.parametrize(
    ("channel_max", "frame_max"),
    [
        pytest.param(2048, 131072, id="too many channels"),
        pytest.param(2047, 0, id="no frame limit"),
        pytest.param(2047, 131073, id="frames too large"),
    ],
)
def test_a_client_cannot_tune_beyond_the_limits(stranger: Peer, channel_max: int, frame_max: int) -> None:
    stranger.start()
    stranger.send_start_ok()
    stranger.receive_method(CONNECTION_TUNE)
    stranger.send_method(0, CONNECTION_TUNE_OK, struct.pack(">HIH", channel_max, frame_max, 0))

    assert stranger.receive_close_or_end() in (0, 530)  # RabbitMQ 3 says nothing
