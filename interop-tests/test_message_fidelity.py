"""What is published is what is delivered, to the byte."""

from __future__ import annotations

import struct

import pytest
from brokers import Broker, Names
from wire import (
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    BASIC_PUBLISH,
    BASIC_QOS,
    BASIC_QOS_OK,
    BASIC_REJECT,
    BODY,
    CONTENT_TYPE,
    HEADER,
    HEADERS,
    Peer,
    basic_consume,
    basic_publish,
    field,
    longstr,
    shortstr,
    table,
)


@pytest.fixture
def queue(peer: Peer, names: Names) -> str:
    """The name of a durable queue."""
    queue = names.queue()
    peer.declare_queue(queue, 2)
    return queue


def nested(depth: int) -> bytes:
    """Encode tables and arrays in one another."""
    value = field("k", "F", table())
    for _ in range(depth):
        value = field("k", "A", longstr(b"F" + table(value)))
    return value


FIELDS = {
    "true": field("k", "t", b"\1"),
    "false": field("k", "t", b"\0"),
    "signed 8 bit": field("k", "b", b"\x80"),
    "unsigned 8 bit": field("k", "B", b"\xff"),
    "signed 16 bit": field("k", "s", b"\x80\0"),
    "unsigned 16 bit": field("k", "u", b"\xff\xff"),
    "signed 32 bit": field("k", "I", b"\x80\0\0\0"),
    "unsigned 32 bit": field("k", "i", b"\xff\xff\xff\xff"),
    "signed 64 bit": field("k", "l", struct.pack(">q", -(2**63))),
    "a small number in 64 bit": field("k", "l", struct.pack(">q", 1)),
    "float": field("k", "f", struct.pack(">f", 1.5)),
    "double": field("k", "d", struct.pack(">d", 1.1)),
    "the smallest double": field("k", "d", struct.pack(">d", 5e-324)),
    "decimal": field("k", "D", b"\2" + struct.pack(">I", 314)),
    "a large decimal": field("k", "D", b"\xff" + b"\xff\xff\xff\xff"),
    "string": field("k", "S", longstr("grüße")),
    "empty string": field("k", "S", longstr("")),
    "string that is no text": field("k", "S", longstr(b"\xff\xfe\0")),
    "bytes": field("k", "x", longstr(bytes(range(256)))),
    "timestamp": field("k", "T", struct.pack(">Q", 1_700_000_000)),
    "timestamp beyond any calendar": field("k", "T", struct.pack(">Q", 2**63)),
    "void": field("k", "V"),
    "array": field("k", "A", longstr(b"t\1" + b"S" + longstr("two") + b"V" + b"d" + struct.pack(">d", 0.1))),
    "empty array": field("k", "A", longstr("")),
    "table": field("k", "F", table(field("b", "I", bytes(4)), field("a", "l", bytes(8)))),
    "empty table": field("k", "F", table()),
    "deeply nested": nested(8),
    "key of 255 bytes": field("k" * 255, "I", bytes(4)),
    "empty key": field("", "I", bytes(4)),
    "key that is no text": field(b"\xff", "I", bytes(4)),
    "key with accents": field("clé", "I", bytes(4)),
    "keys not in order": field("z", "I", bytes(4)) + field("a", "I", bytes(4)) + field("m", "I", bytes(4)),
}


@pytest.mark.parametrize("fields", [pytest.param(value, id=name) for name, value in FIELDS.items()])
def test_a_header_is_delivered_byte_for_byte(peer: Peer, queue: str, fields: bytes) -> None:
    properties = struct.pack(">H", HEADERS) + table(fields)

    peer.publish(queue, b"x", properties)

    assert peer.get(queue).properties == properties


def test_a_large_header_table_is_delivered_byte_for_byte(peer: Peer, queue: str) -> None:
    properties = struct.pack(">H", HEADERS) + table(
        *(field(f"key {number}", "S", longstr("v" * 100)) for number in range(1000))
    )

    peer.publish(queue, b"x", properties)

    assert peer.get(queue).properties == properties


ALL_PROPERTIES = (
    struct.pack(">H", 0xFFFC)
    + shortstr("application/x-anything; at=all")
    + shortstr("gzip")
    + table(field("n", "I", bytes(4)))
    + b"\2"  # delivery mode
    + b"\xff"  # priority
    + shortstr("correlation")
    + shortstr("reply")
    + shortstr("3600000")  # expiration
    + shortstr("message")
    + struct.pack(">Q", 2**40)
    + shortstr("type")
    + shortstr("guest")
    + shortstr("app")
    + shortstr("cluster")
)


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param(b"\0\0", id="none"),
        pytest.param(ALL_PROPERTIES, id="all fourteen"),
        pytest.param(struct.pack(">H", CONTENT_TYPE) + shortstr(""), id="present but empty"),
        pytest.param(struct.pack(">H", CONTENT_TYPE) + shortstr("x" * 255), id="255 bytes"),
        pytest.param(struct.pack(">H", CONTENT_TYPE) + shortstr(b"\xff\xfe"), id="no text"),
        pytest.param(struct.pack(">H", HEADERS) + table(), id="an empty header table"),
    ],
)
def test_properties_are_delivered_byte_for_byte(peer: Peer, queue: str, properties: bytes) -> None:
    peer.publish(queue, b"x", properties)

    assert peer.get(queue).properties == properties


def test_properties_are_the_same_for_a_consumer(peer: Peer, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)

    peer.publish(queue, b"x", ALL_PROPERTIES)

    assert peer.receive_content(BASIC_DELIVER).properties == ALL_PROPERTIES


def test_properties_are_the_same_after_requeueing(peer: Peer, queue: str) -> None:
    peer.publish(queue, b"x", ALL_PROPERTIES)
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    first = peer.receive_content(BASIC_DELIVER)

    peer.send_method(1, BASIC_REJECT, first.method.arguments[2:10] + b"\1")

    assert peer.receive_content(BASIC_DELIVER).properties == ALL_PROPERTIES


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x", id="one byte"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(b"\xce" * 1000, id="frame ends"),
        pytest.param(b"x" * 131063, id="one byte less than a frame"),
        pytest.param(b"x" * 131064, id="exactly one frame"),
        pytest.param(b"x" * 131065, id="one byte more than a frame"),
        pytest.param(b"x" * 262128, id="exactly two frames"),
        pytest.param(bytes(range(256)) * 4096, id="one MiB"),
        pytest.param(bytes(range(250)) * 40_000, id="ten MB"),
    ],
)
def test_a_body_is_delivered_byte_for_byte(peer: Peer, queue: str, body: bytes) -> None:
    peer.publish(queue, body)

    assert peer.get(queue).body == body


def test_a_large_body_reaches_a_consumer(peer: Peer, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)
    body = bytes(range(250)) * 40_000

    peer.publish(queue, body)

    assert peer.receive_content(BASIC_DELIVER).body == body


def test_a_body_may_come_in_frames_of_any_size(peer: Peer, queue: str) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", queue))
    peer.send_header(1, 10)
    for piece in (b"a", b"", b"bcde", b"f", b"ghij"):
        peer.send_frame(BODY, 1, piece)

    assert peer.get(queue).body == b"abcdefghij"


def test_frames_may_come_byte_by_byte(peer: Peer, queue: str) -> None:
    method = struct.pack(">HH", *BASIC_PUBLISH) + basic_publish("", queue)
    header = struct.pack(">HHQ", 60, 0, 3) + b"\0\0"
    stream = b"".join(
        struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
        for kind, payload in ((1, method), (HEADER, header), (BODY, b"abc"))
    )

    for position in range(len(stream)):
        peer.send_bytes(stream[position : position + 1])

    assert peer.get(queue).body == b"abc"


def test_contents_of_two_channels_may_be_interleaved(peer: Peer, queue: str) -> None:
    peer.open_channel(2)
    for channel in (1, 2):
        peer.send_method(channel, BASIC_PUBLISH, basic_publish("", queue))
    for channel in (2, 1):
        peer.send_header(channel, 2)
    for channel in (1, 2, 1, 2):
        peer.send_frame(BODY, channel, b"%d" % channel)
    peer.ask(2, BASIC_QOS, bytes(7), BASIC_QOS_OK)

    assert {peer.get(queue).body, peer.get(queue).body} == {b"11", b"22"}


def test_a_body_is_split_for_a_receiver_with_small_frames(broker: Broker, peer: Peer, queue: str) -> None:
    small = Peer(broker)
    small.login(frame_max=4096)
    small.open_channel(1)
    peer.publish(queue, b"x" * 10_000)
    peer.ask(1, BASIC_QOS, bytes(7), BASIC_QOS_OK)

    small.ask(1, BASIC_CONSUME, basic_consume(queue, "t"), BASIC_CONSUME_OK)

    small.receive_method(BASIC_DELIVER)
    assert small.receive_frame().kind == HEADER
    assert [len(small.receive_frame().payload) for _ in range(3)] == [4088, 4088, 1824]
    small.disconnect()


def test_an_empty_body_has_no_body_frame(peer: Peer, queue: str) -> None:
    peer.ask(1, BASIC_CONSUME, basic_consume(queue, "t", 2), BASIC_CONSUME_OK)

    for _ in range(2):
        peer.publish(queue, b"")

    for _ in range(2):
        peer.receive_method(BASIC_DELIVER)
        assert peer.receive_frame().kind == HEADER
