"""What a client must not send is refused in RabbitMQ's words, after all that came before, at every split.

Source: AMQP 0-9-1 section 2.3.5 and 4.2.3; RabbitMQ's rabbit_reader and rabbit_command_assembler.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.connection import FrameReader
from leveret.protocol.errors import (
    AMQPException,
    CommandInvalid,
    FieldSyntaxError,
    FrameError,
    PreconditionFailed,
    UnexpectedFrame,
)
from leveret.protocol.properties import replace

from .frame_oracle import (
    METHOD,
    PUBLISH,
    Effect,
    Failure,
    Limits,
    Message,
    Oracle,
    cut,
    effects_of,
    open_reader,
    read_in_pieces,
)
from .frame_streams import (
    CHANNELS,
    LIMITS,
    PEER,
    Frames,
    ack,
    cut_places,
    joined,
    nack,
    publish,
    publish_frame,
    streams,
)

PUBLISH_FRAME = publish_frame(1, "", "q")
PUBLISH_OCTETS = "0,60,0,40,0,0,0,1,113,0"  # its payload
HEADER = PEER.content_header(1, 4)
NONE = (0, 0)


class Refusal(NamedTuple):
    """Frames on channel 1, the last of which is refused, and how."""

    name: str
    frames: Frames
    error: type[AMQPException]
    text: str
    ids: tuple[int, int] = NONE
    channel: int = 1
    is_lost: bool = False


def with_end(frame: bytes, end: int) -> bytes:
    """Replace the end octet."""
    return frame[:-1] + bytes([end])


def wrong_end(name: str, before: Frames, frame: bytes, described: str) -> Refusal:
    text = f"{described}: {{invalid_frame_end_marker,7}}"
    return Refusal(name, [*before, with_end(frame, 7)], FrameError, text, channel=0, is_lost=True)


def misplaced(name: str, frames: Frames, text: str) -> Refusal:
    return Refusal(name, frames, UnexpectedFrame, text, PUBLISH)


def undecodable(name: str, payload: bytes, shown: str, ids: tuple[int, int]) -> Refusal:
    return Refusal(name, [PEER.frame(METHOD, 1, payload)], FrameError, f"cannot decode <<{shown}>>", ids)


def unknown(name: str, frame: bytes, described: str) -> Refusal:
    return Refusal(name, [frame], FrameError, f"{described}: unknown_frame", channel=0)


NO_HEADER = "expected content header for class 60, got non content header frame instead"
NO_BODY = "expected content body, got non content body frame instead"
NO_METHOD = "expected method frame, got non method frame instead"

REFUSALS = [
    # Frames
    wrong_end("a publish that ends wrong", [], PUBLISH_FRAME, f"type 1, all octets = <<{PUBLISH_OCTETS}>>"),
    wrong_end(
        "a long publish that ends wrong",
        [],
        publish_frame(1, "", "a long routing key"),
        "type 1, first 16 octets = <<0,60,0,40,0,0,0,18,97,32,108,111,110,103,32,114>>",
    ),
    wrong_end(
        "a header that ends wrong",
        [PUBLISH_FRAME],
        HEADER,
        "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,4,0,0>>",
    ),
    wrong_end(
        "the header of an empty body that ends wrong",
        [PUBLISH_FRAME],
        PEER.content_header(1, 0),
        "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>",
    ),
    wrong_end(
        "a body that ends wrong",
        [PUBLISH_FRAME, HEADER],
        PEER.body(1, b"abcd"),
        'type 3, all octets = <<"abcd">>',
    ),
    wrong_end(
        "a long body that ends wrong",
        [PUBLISH_FRAME, PEER.content_header(1, 200), PEER.body(1, bytes(56))],
        PEER.body(1, b"abcdefghijklmnop" + bytes(40)),
        'type 3, first 16 octets = <<"abcdefghijklmnop">>',
    ),
    wrong_end(
        "an ack that ends wrong", [], ack(1, 5), "type 1, all octets = <<0,60,0,80,0,0,0,0,0,0,0,5,0>>"
    ),
    wrong_end(
        "an ack after others that ends wrong",
        [ack(1, 4)],
        ack(1, 5, multiple=True),
        "type 1, all octets = <<0,60,0,80,0,0,0,0,0,0,0,5,1>>",
    ),
    wrong_end(
        "a nack that ends wrong", [], nack(1, 5), "type 1, all octets = <<0,60,0,120,0,0,0,0,0,0,0,5,2>>"
    ),
    wrong_end("a heartbeat that ends wrong", [], PEER.heartbeat_frame(), "type 8, all octets = <<>>"),
    Refusal(
        "a frame that is too large",
        [PEER.body(1, bytes(65))],
        FrameError,
        "type 3, all octets = <<>>: {frame_too_large,65,56}",
        channel=0,
        is_lost=True,
    ),
    Refusal(
        "a publish that is too large",
        [publish_frame(1, "", "k" * 56)],
        FrameError,
        "type 1, all octets = <<>>: {frame_too_large,65,56}",
        channel=0,
        is_lost=True,
    ),
    Refusal(
        "a header that is too large",
        [PUBLISH_FRAME, PEER.content_header(1, 0, replace(app_id="x" * 50))],
        FrameError,
        "type 2, all octets = <<>>: {frame_too_large,65,56}",
        channel=0,
        is_lost=True,
    ),
    Refusal(
        "a body frame that is too large",
        [PUBLISH_FRAME, PEER.content_header(1, 65), PEER.body(1, bytes(65))],
        FrameError,
        "type 3, all octets = <<>>: {frame_too_large,65,56}",
        channel=0,
        is_lost=True,
    ),
    unknown("a frame of unknown type", PEER.frame(5, 1, b"abc"), 'type 5, all octets = <<"abc">>'),
    unknown("a method without ids", PEER.frame(1, 1, b"\0\x3c\0"), "type 1, all octets = <<0,60,0>>"),
    unknown("a header without a size", PEER.frame(2, 1, bytes(3)), "type 2, all octets = <<0,0,0>>"),
    unknown("a heartbeat with a payload", PEER.frame(8, 0, b"x"), 'type 8, all octets = <<"x">>'),
    Refusal(
        "a heartbeat on a channel",
        [PEER.frame(8, 1, b"")],
        UnexpectedFrame,
        "type 8, all octets = <<>>",
        channel=0,
    ),
    Refusal(
        "a body on channel 0",
        [PEER.body(0, b"abc")],
        UnexpectedFrame,
        'type 3, all octets = <<"abc">>',
        channel=0,
    ),
    # Contents
    Refusal("a body out of nowhere", [PEER.body(1, b"abcd")], UnexpectedFrame, NO_METHOD),
    Refusal("a header out of nowhere", [HEADER], UnexpectedFrame, NO_METHOD),
    Refusal(
        "a body after an empty one", [*publish(1, body=b""), PEER.body(1, b"")], UnexpectedFrame, NO_METHOD
    ),
    Refusal("a body after the last", [*publish(1), PEER.body(1, b"x")], UnexpectedFrame, NO_METHOD),
    Refusal("a body on a closed channel", [PEER.body(9, b"x")], UnexpectedFrame, NO_METHOD, channel=9),
    misplaced("a body before its header", [PUBLISH_FRAME, PEER.body(1, b"abcd")], NO_HEADER),
    misplaced("a publish before a header", [PUBLISH_FRAME, PUBLISH_FRAME], NO_HEADER),
    misplaced("an ack before a header", [PUBLISH_FRAME, ack(1, 1)], NO_HEADER),
    misplaced("a weight", [PUBLISH_FRAME, PEER.content_header(1, 4, weight=1)], NO_HEADER),
    misplaced(
        "a header of another class",
        [PUBLISH_FRAME, PEER.content_header(1, 4, class_id=50)],
        "expected content header for class 60, got one for class 50 instead",
    ),
    misplaced("a second header", [PUBLISH_FRAME, HEADER, HEADER], NO_BODY),
    misplaced("a publish before a body", [PUBLISH_FRAME, HEADER, PUBLISH_FRAME], NO_BODY),
    misplaced("an ack in a body", [PUBLISH_FRAME, HEADER, PEER.body(1, b"abc"), ack(1, 1)], NO_BODY),
    misplaced("a close in a body", [PUBLISH_FRAME, HEADER, PEER.send(1, commands.Channel.Close)], NO_BODY),
    Refusal(
        "a body longer than announced",
        [PUBLISH_FRAME, HEADER, PEER.body(1, b"abcde")],
        FrameError,
        "content body frame exceeds remaining content size",
        PUBLISH,
    ),
    Refusal(
        "a long body longer than announced",
        [PUBLISH_FRAME, PEER.content_header(1, 49), PEER.body(1, bytes(50))],
        FrameError,
        "content body frame exceeds remaining content size",
        PUBLISH,
    ),
    Refusal(
        "a second body frame longer than announced",
        [PUBLISH_FRAME, HEADER, PEER.body(1, b"abc"), PEER.body(1, b"de")],
        FrameError,
        "content body frame exceeds remaining content size",
        PUBLISH,
    ),
    Refusal(
        "a third long body frame longer than announced",
        [PUBLISH_FRAME, PEER.content_header(1, 120), *[PEER.body(1, bytes(50))] * 3],
        FrameError,
        "content body frame exceeds remaining content size",
        PUBLISH,
    ),
    misplaced(
        "an ack between long body frames",
        [PUBLISH_FRAME, PEER.content_header(1, 120), PEER.body(1, bytes(50)), ack(1, 1)],
        NO_BODY,
    ),
    Refusal(
        "a message larger than any can be",
        [PUBLISH_FRAME, PEER.content_header(1, 536870913)],
        FrameError,
        "content body size 536870913 exceeds maximum allowed size 536870912",
        PUBLISH,
    ),
    Refusal(
        "a message of more than 4 GiB",
        [PUBLISH_FRAME, PEER.content_header(1, 1 << 32)],
        FrameError,
        "content body size 4294967296 exceeds maximum allowed size 536870912",
        PUBLISH,
    ),
    # Properties
    Refusal(
        "a header without property flags",
        [PUBLISH_FRAME, PEER.content_header(1, 4, b""), PEER.body(1, b"abcd")],
        FieldSyntaxError,
        "content header is truncated",
    ),
    Refusal(
        "properties cut short",
        [PUBLISH_FRAME, PEER.content_header(1, 4, b"\x80\0\x05te"), PEER.body(1, b"abcd")],
        FieldSyntaxError,
        "content header is truncated",
    ),
    Refusal(
        "bytes behind the properties",
        [PUBLISH_FRAME, PEER.content_header(1, 0, b"\0\0\0")],
        FieldSyntaxError,
        "content header has bytes behind its properties",
    ),
    Refusal(
        "unknown property flags",
        [PUBLISH_FRAME, PEER.content_header(1, 0, b"\0\x01\0\x02")],
        FieldSyntaxError,
        "content header has unknown property flags",
    ),
    # Methods
    undecodable("a publish of nothing", b"\0\x3c\0\x28", "", PUBLISH),
    undecodable("a publish without bits", b"\0\x3c\0\x28\0\0\0\0", "0,0,0,0", PUBLISH),
    undecodable("a publish with a long name", b"\0\x3c\0\x28\0\0\x05e\0\0", "0,0,5,101,0,0", PUBLISH),
    undecodable("a publish with a long key", b"\0\x3c\0\x28\0\0\0\x02k\0", "0,0,0,2,107,0", PUBLISH),
    undecodable("a publish and a byte", b"\0\x3c\0\x28\0\0\0\0\0\0", "0,0,0,0,0,0", PUBLISH),
    undecodable("an ack without bits", b"\0\x3c\0\x50" + bytes(8), "0,0,0,0,0,0,0,0", (60, 80)),
    undecodable("an ack and a byte", b"\0\x3c\0\x50" + bytes(10), "0,0,0,0,0,0,0,0,0,0", (60, 80)),
    undecodable("a nack and a byte", b"\0\x3c\0\x78" + bytes(10), "0,0,0,0,0,0,0,0,0,0", (60, 120)),
    undecodable("a reject without bits", b"\0\x3c\0\x5a" + bytes(8), "0,0,0,0,0,0,0,0", (60, 90)),
    Refusal(
        "an unknown method", [PEER.frame(1, 1, b"\0\x3c\0\x63")], CommandInvalid, "unknown method (60,99)"
    ),
]

# What a client that knows nothing of its error goes on with.
AFTER = [*publish(1), ack(1, 9), PEER.heartbeat_frame()]


def effects_in(pieces: list[bytes]) -> list[Effect]:
    return read_in_pieces(open_reader(LIMITS, CHANNELS), pieces)


def failure_of(refusal: Refusal) -> Failure:
    return Failure(refusal.error, refusal.text, refusal.ids, refusal.channel, refusal.is_lost)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused_after_what_came_before_at_every_split(refusal: Refusal) -> None:
    data = b"".join([*publish(1) * 2, *publish(1, body=b""), *refusal.frames, *AFTER])
    expected = Oracle(LIMITS, CHANNELS).read(data)
    assert expected[-1] == failure_of(refusal)
    assert [effect.body for effect in expected if isinstance(effect, Message)][:3] == [b"body", b"body", b""]
    places = range(len(data) + 1)
    assert all(effects_in([data[:place], data[place:]]) == expected for place in places)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused_byte_by_byte(refusal: Refusal) -> None:
    data = b"".join([*refusal.frames, *AFTER])
    effects = effects_in([bytes([octet]) for octet in data])
    assert effects[-1] == failure_of(refusal)


@settings(max_examples=100)
@given(streams, st.sampled_from(REFUSALS), st.integers(0, 1000), cut_places)
def test_it_is_refused_the_same_in_the_middle_of_anything(
    frames: Frames, refusal: Refusal, place: int, cuts: list[int]
) -> None:
    place = place * len(frames) // 1000
    data = b"".join([*frames[:place], *refusal.frames, *frames[place:], *AFTER])
    pieces = cut(data, [place * len(data) // 1000 for place in cuts])
    assert effects_in(pieces) == Oracle(LIMITS, CHANNELS).read(data)


@settings(max_examples=100)
@given(streams, st.integers(0, 1000), st.integers(1, 255), cut_places)
def test_damaged_input_is_refused_the_same_however_it_is_split(
    frames: Frames, place: int, change: int, cuts: list[int]
) -> None:
    damaged = bytearray(b"".join([*publish(1), *frames, *AFTER]))
    damaged[place * (len(damaged) - 1) // 1000] ^= change
    data = bytes(damaged)
    pieces = cut(data, [place * len(data) // 1000 for place in cuts])
    assert effects_in(pieces) == Oracle(LIMITS, CHANNELS).read(data)


@settings(max_examples=100)
@given(st.binary(max_size=60), cut_places)
def test_noise_is_refused_the_same_however_it_is_split(noise: bytes, cuts: list[int]) -> None:
    data = b"".join(publish(1)) + noise
    pieces = cut(data, [place * len(data) // 1000 for place in cuts])
    assert effects_in(pieces) == Oracle(LIMITS, CHANNELS).read(data)


def test_a_frame_that_is_too_large_is_refused_before_it_is_there() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(b"\x03\0\x01\0\0\0\x41")
    with pytest.raises(FrameError, match="frame_too_large,65,56"):
        reader.next_event()
    assert (reader.is_lost, reader.buffered_bytes) == (True, 0)


def test_contents_are_not_expected_before_the_connection_is_open() -> None:
    reader = FrameReader(1000)
    reader.receive_data(PEER.body(1, b"abc"))
    with pytest.raises(UnexpectedFrame, match='type 3, all octets = <<"abc">>'):
        reader.next_event()


@pytest.mark.parametrize(
    ("limit", "announced", "words"),
    [
        (300, 301, "configured max size 300"),
        (0, 1, "configured max size 0"),
        (536870911, 536870912, "configured max size 536870911"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "in one piece"])
def test_a_message_that_is_too_large_closes_its_channel_at_its_header(
    limit: int, announced: int, words: str, size: int
) -> None:
    data = b"".join(
        [*publish(1, body=b""), PUBLISH_FRAME, PEER.content_header(1, announced), *publish(2, body=b"")]
    )
    reader = open_reader(Limits(LIMITS.frame_max, limit), CHANNELS)
    first, refused, last = read_in_pieces(reader, cut(data, range(size, len(data), size)))
    text = f"message size {announced} is larger than {words}"
    assert refused == Failure(PreconditionFailed, text, PUBLISH, 1)
    assert isinstance(first, Message)
    assert isinstance(last, Message)
    assert (first.channel, last.channel) == (1, 2)
    assert reader.is_discarding(1)


def test_a_message_that_is_too_large_is_refused_also_when_all_of_it_is_there() -> None:
    first, refused = effects_in([b"".join([*publish(1), *publish(1, body=bytes(301))])])
    assert isinstance(first, Message)
    text = "message size 301 is larger than configured max size 300"
    assert refused == Failure(PreconditionFailed, text, PUBLISH, 1)


def test_a_message_of_exactly_the_largest_size_is_taken() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(b"".join(joined([publish(1, body=bytes(300)), publish(1, body=bytes(300))])))
    (event,) = iter(reader.next_event, None)
    assert [message.body for message in effects_of(event) if isinstance(message, Message)] == [bytes(300)] * 2
