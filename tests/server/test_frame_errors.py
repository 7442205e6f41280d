"""Frames and methods that are wrong: each closes its connection with RabbitMQ's words, and disturbs no other.

Source: AMQP 0-9-1 section 4.2; seen with RabbitMQ 3.10. What 3.10 has no useful answer for is answered as 4.x
does, or with the reason: a body larger than announced, unknown methods, malformed tables and properties.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.methods import CLIENT_METHODS, CONTENT_METHODS, METHODS, class_id, make, method_id
from leveret.protocol.tables import TABLE_DEPTH_MAX

from ..peer import Peer
from .closes import NOTHING, Close, answer, close_ok, is_gone, opened
from .harness import Broker

PUBLISH = Peer.send(1, commands.Basic.Publish, routing_key="nowhere")
PUBLISH_IDS = (60, 40)
QOS = Peer.send(1, commands.Basic.Qos)
DONE = ["Basic.QosOk"]
BYTES_16 = b"\0\x3c\0\x0a" + b"a" * 12
SHOWN_16 = "<<0,60,0,10,97,97,97,97,97,97,97,97,97,97,97,97>>"

NO_METHOD = "expected method frame, got non method frame instead"
NO_HEADER = "expected content header for class 60, got non content header frame instead"
NO_BODY = "expected content body, got non content body frame instead"


def raw_method(channel: int, ids: tuple[int, int], arguments: bytes = b"") -> bytes:
    return Peer.frame(1, channel, ids[0].to_bytes(2, "big") + ids[1].to_bytes(2, "big") + arguments)


def declare_with(arguments: bytes) -> bytes:
    """A queue.declare with a table given as bytes."""
    return raw_method(1, (50, 10), b"\0\0\1q\0" + len(arguments).to_bytes(4, "big") + arguments)


# frames


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (
            Peer.frame(3, 1, b"", size=131_073)[:7],
            "type 3, all octets = <<>>: {frame_too_large,131073,131064}",
        ),
        (
            Peer.frame(1, 0, b"", size=2**32 - 1)[:7],
            "type 1, all octets = <<>>: {frame_too_large,4294967295,131064}",
        ),
        (
            Peer.frame(1, 1, b"\0\x3c\0\x0a", end=0),
            "type 1, all octets = <<0,60,0,10>>: {invalid_frame_end_marker,0}",
        ),
        (Peer.frame(3, 1, b"", end=255), "type 3, all octets = <<>>: {invalid_frame_end_marker,255}"),
        (
            Peer.frame(1, 1, BYTES_16, end=1),
            f"type 1, all octets = {SHOWN_16}: {{invalid_frame_end_marker,1}}",
        ),
        (
            Peer.frame(1, 1, BYTES_16 + b"z", end=1),
            f"type 1, first 16 octets = {SHOWN_16}: {{invalid_frame_end_marker,1}}",
        ),
        (PUBLISH[:-1] + b"\0", None),
        (Peer.send(1, commands.Basic.Ack, delivery_tag=1)[:-1] + b"a", None),
    ],
)
def test_lost_framing_is_told_and_ends_in_three_seconds(frame: bytes, text: str | None) -> None:
    client = opened()
    refused = answer(client, frame)
    assert isinstance(refused, Close)
    assert refused == Close(0, 501, f"FRAME_ERROR - {text}" if text else refused.text, NOTHING)
    assert answer(client, close_ok(client)) == []
    client.broker.advance(3_000)
    assert is_gone(client)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Peer.frame(5, 1, b"abc"), 'type 5, all octets = <<"abc">>: unknown_frame'),
        (Peer.frame(0, 0, b""), "type 0, all octets = <<>>: unknown_frame"),
        (Peer.frame(4, 9, b"a\0"), "type 4, all octets = <<97,0>>: unknown_frame"),
        (Peer.frame(5, 1, b'"\n'), r'type 5, all octets = <<"\"\n">>: unknown_frame'),
        (Peer.frame(5, 1, b"a" * 17), 'type 5, first 16 octets = <<"aaaaaaaaaaaaaaaa">>: unknown_frame'),
        (Peer.frame(1, 1, b"\0\x3c\0"), "type 1, all octets = <<0,60,0>>: unknown_frame"),
        (Peer.frame(1, 0, b""), "type 1, all octets = <<>>: unknown_frame"),
        (Peer.frame(2, 1, b"ab"), 'type 2, all octets = <<"ab">>: unknown_frame'),
        (Peer.frame(8, 0, b"x"), 'type 8, all octets = <<"x">>: unknown_frame'),
        (Peer.frame(8, 1, b"x"), 'type 8, all octets = <<"x">>: unknown_frame'),
    ],
)
def test_a_frame_that_nobody_knows_is_a_frame_error(frame: bytes, text: str) -> None:
    client = opened()
    assert answer(client, frame) == Close(0, 501, f"FRAME_ERROR - {text}", NOTHING)
    assert answer(client, close_ok(client)) == []
    assert is_gone(client)


@pytest.mark.parametrize(
    ("frames", "text", "ids"),
    [
        (Peer.frame(8, 1, b""), "type 8, all octets = <<>>", NOTHING),
        (Peer.body(0, b"abc"), 'type 3, all octets = <<"abc">>', NOTHING),
        (Peer.content_header(1, 3), NO_METHOD, NOTHING),
        (Peer.body(1, b"abc"), NO_METHOD, NOTHING),
        (Peer.body(9, b"abc"), NO_METHOD, NOTHING),
        (PUBLISH + QOS, NO_HEADER, PUBLISH_IDS),
        (PUBLISH + PUBLISH, NO_HEADER, PUBLISH_IDS),
        (PUBLISH + Peer.body(1, b"abc"), NO_HEADER, PUBLISH_IDS),
        (PUBLISH + Peer.content_header(1, 3, weight=1), NO_HEADER, PUBLISH_IDS),
        (
            PUBLISH + Peer.content_header(1, 3, class_id=50),
            "expected content header for class 60, got one for class 50 instead",
            PUBLISH_IDS,
        ),
        (PUBLISH + Peer.content_header(1, 3) + QOS, NO_BODY, PUBLISH_IDS),
        (PUBLISH + Peer.content_header(1, 3) * 2, NO_BODY, PUBLISH_IDS),
        (PUBLISH + Peer.content_header(1, 0) + Peer.body(1, b""), NO_METHOD, NOTHING),
        (PUBLISH + Peer.content_header(1, 3) + Peer.body(1, b"abc") + Peer.body(1, b""), NO_METHOD, NOTHING),
    ],
)
def test_a_frame_of_the_wrong_kind_is_unexpected(frames: bytes, text: str, ids: tuple[int, int]) -> None:
    assert answer(opened(), frames) == Close(0, 505, f"UNEXPECTED_FRAME - {text}", ids)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (Peer.body(1, b"abcd"), "content body frame exceeds remaining content size"),
        (Peer.body(1, b"ab") + Peer.body(1, b"cd"), "content body frame exceeds remaining content size"),
    ],
)
def test_a_body_is_not_larger_than_announced(frames: bytes, text: str) -> None:
    refused = answer(opened(), PUBLISH, Peer.content_header(1, 3), frames)
    assert refused == Close(0, 501, f"FRAME_ERROR - {text}", PUBLISH_IDS)


@pytest.mark.parametrize("size", [536_870_913, 2**63, 2**64 - 1])
def test_half_a_gigabyte_is_the_most_that_can_be_announced(size: int) -> None:
    refused = answer(opened(), PUBLISH, Peer.content_header(1, size))
    text = f"FRAME_ERROR - content body size {size} exceeds maximum allowed size 536870912"
    assert refused == Close(0, 501, text, PUBLISH_IDS)


def test_a_message_over_the_configured_maximum_is_refused_at_its_header_and_its_body_is_ignored() -> None:
    client = opened(Broker(max_message_bytes=1000))
    refused = answer(client, PUBLISH, Peer.content_header(1, 1001))
    text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000"
    assert refused == Close(1, 406, text, PUBLISH_IDS)
    assert answer(client, Peer.body(1, b"\0\x14\0\x28" + b"x" * 997)) == []
    assert answer(
        client, Peer.send(1, commands.Channel.CloseOk), Peer.send(1, commands.Channel.Open), QOS
    ) == [
        "Channel.OpenOk",
        "Basic.QosOk",
    ]


@pytest.mark.parametrize("size", [4096 - 8, 4096])
def test_a_frame_may_be_eight_bytes_larger_than_it_should(size: int) -> None:
    client = opened(frame_max=4096)
    assert answer(client, PUBLISH, Peer.content_header(1, size), Peer.body(1, b"x" * size), QOS) == DONE


def test_empty_body_frames_are_legal_while_body_is_outstanding() -> None:
    bodies = [b"", b"a", b"", b"", b"bc"]
    frames = [Peer.body(1, body) for body in bodies]
    assert answer(opened(), PUBLISH, Peer.content_header(1, 3), *frames, QOS) == DONE


def test_heartbeats_may_come_anywhere_between_frames() -> None:
    beat = Peer.heartbeat_frame()
    content = beat.join([PUBLISH, Peer.content_header(1, 2), Peer.body(1, b"a"), Peer.body(1, b"b"), QOS])
    assert answer(opened(), content) == DONE


# methods


@pytest.mark.parametrize(
    ("ids", "arguments"),
    [
        ((50, 10), b"\0"),
        ((60, 10), b"\0\0\0\0\0\0\0z"),
        ((90, 10), b"x"),
        ((60, 40), b"\0\0\5a"),
        ((60, 40), b""),
        ((60, 40), b"\0\0\0\0\0\0"),
        ((60, 80), b"\0"),
        ((60, 80), b"\0" * 10),
        ((60, 90), b"\0" * 12),
        ((60, 120), b"\0"),
        ((50, 10), b"\0\0\xffabc"),
    ],
)
def test_arguments_that_do_not_fit_their_method_are_a_frame_error(
    ids: tuple[int, int], arguments: bytes
) -> None:
    shown = ",".join(map(str, arguments))
    refused = answer(opened(), raw_method(1, ids, arguments))
    assert refused == Close(0, 501, f"FRAME_ERROR - cannot decode <<{shown}>>", ids)


def test_a_long_reply_text_is_cut() -> None:
    refused = answer(opened(), raw_method(1, (50, 10), b"z" * 300))
    assert isinstance(refused, Close)
    assert len(refused.text) == 255
    assert refused.text.endswith(",12...")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"abc\xe2\x82"])
def test_names_must_be_utf_8(name: bytes) -> None:
    declare = Peer.send(1, commands.Queue.Declare, queue=name.decode("utf-8", "surrogateescape"))
    assert answer(opened(), declare) == Close(0, 501, "FRAME_ERROR - Malformed UTF-8 in shortstr", NOTHING)


def test_routing_keys_may_be_any_bytes() -> None:
    publish = Peer().publish(1, "", b"\xff\xfe".decode("utf-8", "surrogateescape"), mandatory=True)
    assert answer(opened(), publish, QOS) == ["Basic.Return", "Basic.QosOk"]


@pytest.mark.parametrize("channel", [0, 1, 9])
@pytest.mark.parametrize("ids", [(99, 99), (60, 200), (0, 0), (65535, 65535)])
def test_a_method_that_nobody_knows_is_invalid(channel: int, ids: tuple[int, int]) -> None:
    refused = answer(opened(), raw_method(channel, ids, b"xyz"))
    assert refused == Close(0, 503, f"COMMAND_INVALID - unknown method ({ids[0]},{ids[1]})", NOTHING)


@pytest.mark.parametrize(
    "method",
    [
        method
        for method in METHODS.values()
        if method not in CLIENT_METHODS
        and method not in CONTENT_METHODS
        and method is not commands.Basic.CancelOk
    ],
    ids=lambda method: method.name,
)
def test_a_method_that_only_a_server_sends_is_not_implemented(method: type) -> None:
    refused = answer(opened(), Peer.send(1, make(method)))
    ids = (class_id(method), method_id(method))
    assert refused == Close(0, 503, "COMMAND_INVALID - unimplemented method", ids)


@pytest.mark.parametrize(
    "method", [commands.Connection.Close, commands.Connection.Open], ids=lambda m: m.name
)
def test_methods_of_the_connection_belong_to_channel_0(method: type) -> None:
    refused = answer(opened(), Peer.send(1, method))
    assert isinstance(refused, Close)
    assert refused[:3] == (0, 503, "COMMAND_INVALID - unimplemented method")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (b"\1aU\0\0", "unknown field table type 'U'"),
        (b"\1a\0", "unknown field table type 0"),
        (b"\5a", "field table is truncated"),
        (b"\1aI\0", "field table is truncated"),
        (b"\1aS\0\0\1\0x", "field table is truncated"),
        (b"\1aS\xff\xff\xff\xffx", "field table is truncated"),
        (b"\1aF\0\0\0\3\1bU", "unknown field table type 'U'"),
    ],
)
def test_a_malformed_table_is_a_syntax_error(table: bytes, text: str) -> None:
    assert answer(opened(), declare_with(table)) == Close(0, 502, f"SYNTAX_ERROR - {text}", (50, 10))


def test_a_table_that_is_nested_too_deep_is_a_syntax_error() -> None:
    table = b"V"
    for _ in range(10_000):
        table = b"A" + len(table).to_bytes(4, "big") + table
    refused = answer(opened(), declare_with(b"\1a" + table))
    text = f"SYNTAX_ERROR - field table is nested deeper than {TABLE_DEPTH_MAX} levels"
    assert refused == Close(0, 502, text, (50, 10))


@pytest.mark.parametrize(
    "properties",
    [b"", b"\0", b"\0\0abc", b"\x80\0\5ab", b"\xff\xfc", b"\x20\0\0\0", b"\x20\0\0\0\0\3\1aU", b"\0\x40\0\0"],
)
def test_malformed_properties_are_a_syntax_error(properties: bytes) -> None:
    refused = answer(opened(), PUBLISH, Peer.content_header(1, 1, properties), Peer.body(1, b"x"))
    assert isinstance(refused, Close)
    assert refused[:2] == (0, 502)


@pytest.mark.parametrize("properties", [b"\x80\0\5ab", b"\x20\0\0\0\0\3\1aU"])
def test_messages_before_malformed_properties_are_taken(properties: bytes) -> None:
    client = opened()
    queue = client.channel(2).declare("q")
    good = client.peer.publish(1, "", queue, b"good")
    bad = Peer.send(1, commands.Basic.Publish, routing_key=queue)
    answer(client, good, good, bad, Peer.content_header(1, 1, properties), Peer.body(1, b"x"))
    assert opened(client.broker).channel(2).drain("q") == [b"good", b"good"]


# the end


def test_after_our_close_everything_but_close_and_close_ok_is_ignored() -> None:
    client = opened()
    answer(client, Peer.frame(5, 1, b"a"))
    more = [QOS, Peer.send(2, commands.Channel.Open), Peer.body(1, b"x"), Peer.frame(5, 1, b"a"), PUBLISH]
    assert answer(client, *more) == []
    assert answer(client, Peer.send(0, commands.Connection.Close)) == ["Connection.CloseOk"]
    assert answer(client, close_ok(client)) == []
    assert is_gone(client)


@pytest.mark.parametrize(("heartbeat", "seconds"), [(0, 30), (5, 5), (60, 30)])
def test_an_unanswered_close_ends_after_a_heartbeat_or_thirty_seconds(heartbeat: int, seconds: int) -> None:
    client = opened(heartbeat=heartbeat)
    answer(client, Peer.frame(5, 1, b"a"))
    client.broker.advance(seconds * 1000 - 1)
    assert not is_gone(client)
    client.broker.advance(1)
    assert is_gone(client)


def test_other_connections_notice_nothing() -> None:
    broker = Broker()
    bystander = opened(broker)
    answer(opened(broker), Peer.frame(5, 1, b"abc"))
    answer(opened(broker), b"\xff" * 100)
    assert bystander.take() == []
    assert answer(bystander, QOS) == DONE


def test_closing_a_connection_is_answered_and_ends_it() -> None:
    client = opened()
    assert answer(client, Peer.send(0, commands.Connection.Close), QOS) == ["Connection.CloseOk"]
    assert is_gone(client)


def test_no_reply_is_sent_that_the_store_has_not_made_true() -> None:
    client = opened()
    client.broker.hold_store()
    declare = Peer.send(1, commands.Queue.Declare, queue="q", durable=True)
    assert answer(client, declare) == []
    client.broker.fail_store()
    names = client.take_names()
    assert names == ["Connection.Close"]
