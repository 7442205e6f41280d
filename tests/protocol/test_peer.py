"""The test peer says what it is told to say, and is strict about what it hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.methods import make
from leveret.protocol.properties import replace

from ..peer import Content, Event, Heartbeat, Method, Peer, ProtocolHeader, ProtocolViolation, ids

DELIVER = make(commands.Basic.Deliver, consumer_tag="c", delivery_tag=1, exchange="e", routing_key="k")


def test_a_handshake_is_the_header_and_four_methods() -> None:
    events = Peer().receive(Peer(vhost="v").handshake(1))
    assert events[0] == ProtocolHeader(b"AMQP\0\0\x09\x01")
    methods = [event for event in events if isinstance(event, Method)]
    assert [(event.channel, event.name) for event in methods] == [
        (0, "Connection.StartOk"),
        (0, "Connection.TuneOk"),
        (0, "Connection.Open"),
        (1, "Channel.Open"),
    ]


def test_a_body_is_cut_at_frame_max() -> None:
    frames = Peer(frame_max=4096).content(1, b"x" * 10_000)
    assert frames.count(b"\x03\x00\x01\x00\x00\x0f\xf8") == 2
    assert frames.count(b"\x03\x00\x01\x00\x00\x07\x20") == 1


@given(st.lists(st.binary(max_size=60), max_size=4), st.data())
def test_a_conversation_is_understood_at_every_split(bodies: list[bytes], data: st.DataObject) -> None:
    peer = Peer(frame_max=32)
    raw = b"".join(peer.send(1, DELIVER) + peer.content(1, body, replace(app_id="a")) for body in bodies)
    raw += peer.heartbeat_frame() + peer.send(2, commands.Queue.DeclareOk, queue="q")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    events: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        events += peer.receive(raw[start:end])
    contents = [event for event in events if isinstance(event, Content)]
    assert [content.body for content in contents] == bodies
    assert [content.fields.app_id for content in contents] == [b"a"] * len(bodies)
    assert events[-2] == Heartbeat()
    assert isinstance(events[-1], Method)
    assert (events[-1].channel, events[-1].name) == (2, "Queue.DeclareOk")


def test_contents_of_two_channels_may_interleave() -> None:
    peer = Peer()
    one, two = peer.send(1, DELIVER), peer.send(2, DELIVER)
    events = peer.receive(
        one
        + peer.content_header(1, 1)
        + two
        + peer.content_header(2, 1)
        + peer.body(2, b"b")
        + peer.body(1, b"a")
    )
    assert [(event.channel, event.body) for event in events if isinstance(event, Content)] == [
        (2, b"b"),
        (1, b"a"),
    ]


def test_a_close_is_read_as_code_text_and_ids() -> None:
    peer = Peer()
    raw = peer.send(
        1, commands.Channel.Close(404, "NOT_FOUND - no queue 'q' in vhost '/'", *ids(commands.Basic.Get))
    )
    (event,) = peer.receive(raw)
    assert isinstance(event, Method)
    assert event.error == (404, "NOT_FOUND - no queue 'q' in vhost '/'", (60, 70))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (Peer.frame(1, 0, b"\0\x0a\0\x33", end=0), "frame ends in 0"),
        (Peer.frame(3, 1, b"x" * 200_000), "a frame of 200008 bytes, but frame_max is 131072"),
        (Peer.frame(8, 1, b""), "a heartbeat with a channel"),
        (Peer.frame(5, 0, b""), "unknown frame type 5"),
        (Peer.body(1, b"x"), "a content frame without its method"),
        (Peer.send(1, DELIVER) + Peer.send(1, commands.Basic.QosOk), "a method in the middle of a content"),
        (Peer.send(1, DELIVER) + Peer.body(1, b"x"), "a body before its header"),
        (Peer.send(1, DELIVER) + Peer.content_header(1, 1) * 2, "two headers for one content"),
        (Peer.send(1, DELIVER) + Peer.content_header(1, 1, class_id=50), "content header of 14 bytes"),
        (Peer.send(1, DELIVER) + Peer.content_header(1, 1) + Peer.body(1, b"xy"), "more body than announced"),
        (Peer.send(1, DELIVER) + Peer.content_header(1, 1) + Peer.body(1, b""), "an empty body frame"),
    ],
)
def test_what_no_client_should_accept_is_a_violation(raw: bytes, text: str) -> None:
    with pytest.raises(ProtocolViolation, match=text):
        Peer().receive(raw)
