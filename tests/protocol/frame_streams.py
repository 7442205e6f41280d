"""What hypothesis makes for the tests of a connection's input: what a client sends on several channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle

from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.methods import make
from leveret.protocol.properties import NO_PROPERTIES, replace
from leveret.protocol.tables import Field

from ..peer import Peer
from .frame_oracle import Limits

LIMITS = Limits(frame_max=64, max_message_bytes=300)
CHANNELS = (1, 2, 300)
PEER = Peer(frame_max=LIMITS.frame_max)
ROOM = LIMITS.frame_max - 8  # body bytes of a full frame
KEYS = (("", "q"), ("", ""), ("e", "q"), ("e", "a.longer.key"), ("\udcff", "é"))  # exchange and routing key
PROPERTY_LISTS = (
    NO_PROPERTIES,
    replace(delivery_mode=2),
    replace(app_id="one"),
    replace(app_id="two"),
    replace(headers={"n": Field("I", 1)}, type="t"),
)

Frames = list[bytes]


def publish_frame(channel: int, exchange: str, routing_key: str, **bits: bool) -> bytes:
    """Make the method frame of a publish."""
    method = make(commands.Basic.Publish, exchange=exchange, routing_key=routing_key, **bits)
    return PEER.send(channel, method)


def publish(
    channel: int,
    key: tuple[str, str] = ("", "q"),
    properties: bytes = NO_PROPERTIES,
    body: bytes = b"body",
    *,
    room: int = ROOM,
    with_empty_frames: bool = False,
    mandatory: bool = False,
    immediate: bool = False,
) -> Frames:
    """Make all frames of a message, its body cut at `room` bytes."""
    frames = [
        publish_frame(channel, *key, mandatory=mandatory, immediate=immediate),
        PEER.content_header(channel, len(body), properties),
    ]
    for start in range(0, len(body), room):
        frames += [PEER.body(channel, b"")] if with_empty_frames else []
        frames.append(PEER.body(channel, body[start : start + room]))
    return frames


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Make an ack."""
    return PEER.send(channel, commands.Basic.Ack, delivery_tag=tag, multiple=multiple)


def nack(channel: int, tag: int, *, multiple: bool = False, requeue: bool = True) -> bytes:
    """Make a nack."""
    return PEER.send(channel, commands.Basic.Nack, delivery_tag=tag, multiple=multiple, requeue=requeue)


def reject(channel: int, tag: int, *, requeue: bool = True) -> bytes:
    """Make a reject."""
    return PEER.send(channel, commands.Basic.Reject, delivery_tag=tag, requeue=requeue)


def too_large(channel: int) -> Frames:
    """Publish more than is allowed, agree that the channel is closed, and open it again."""
    return [
        publish_frame(channel, "", "q"),
        PEER.content_header(channel, 301),
        PEER.body(channel, b"x" * ROOM),
        PEER.send(channel, commands.Basic.Qos),
        ack(channel, 7),
        *publish(channel),
        PEER.send(channel, commands.Channel.CloseOk),
        PEER.send(channel, commands.Channel.Open),
    ]


def reopened(channel: int) -> Frames:
    """Close a channel and open it again."""
    return [PEER.send(channel, commands.Channel.Close), PEER.send(channel, commands.Channel.Open)]


def joined(parts: Iterable[Frames]) -> Frames:
    """Put frames one after another."""
    return [frame for part in parts for frame in part]


def _repeated(frames: Frames, times: int) -> Frames:
    return frames * times


def _ack_run(channel: int, tags: list[int], last_is_multiple: bool) -> Frames:
    acks = [ack(channel, tag) for tag in tags]
    return [*acks, ack(channel, 9, multiple=True)] if last_is_multiple else acks


# A body may look like anything; this one holds whole frames.
BODIES = (b"", b"\xce", b"body", b"x" * ROOM, b"".join(publish(1)), bytes(150))

channels = st.sampled_from(CHANNELS)
tags = st.sampled_from((0, 1, 2, 1 << 24, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 64) - 1))
publishes = st.builds(
    _repeated,
    st.builds(
        publish,
        channels,
        st.sampled_from(KEYS),
        st.sampled_from(PROPERTY_LISTS),
        st.sampled_from(BODIES),
        room=st.sampled_from((ROOM, LIMITS.frame_max, 7, 40)),
        with_empty_frames=st.booleans(),
        mandatory=st.booleans(),
        immediate=st.booleans(),
    ),
    st.integers(1, 4),
)
settlements: st.SearchStrategy[Frames] = st.one_of(
    st.builds(_ack_run, channels, st.lists(tags, min_size=1, max_size=4), st.booleans()),
    st.builds(nack, channels, tags, multiple=st.booleans(), requeue=st.booleans()).map(lambda frame: [frame]),
    st.builds(reject, channels, tags, requeue=st.booleans()).map(lambda frame: [frame]),
).map(list)  # one choice of `streams`, not three
others: st.SearchStrategy[Frames] = st.one_of(
    st.just([PEER.heartbeat_frame()]),
    channels.map(lambda channel: [PEER.send(channel, commands.Basic.Qos, prefetch_count=5)]),
    channels.map(lambda channel: [PEER.send(channel, commands.Queue.Declare, queue="q", durable=True)]),
    channels.map(reopened),
    channels.map(too_large),
).map(list)


def interleaved(parts: list[Frames], turns: list[int]) -> Frames:
    """Mix the frames of several channels: each channel's stay in order, `turns` of them go at a time."""
    waiting: dict[bytes, Frames] = {}  # channel number on the wire -> its frames
    for part in parts:
        for frame in part:
            waiting.setdefault(frame[1:3], []).append(frame)
    turn: Iterator[int] = cycle(turns)
    mixed: Frames = []
    while waiting:
        for number in list(waiting):
            count = next(turn)
            mixed += waiting[number][:count]
            waiting[number] = waiting[number][count:]
            if not waiting[number]:
                del waiting[number]
    return mixed


streams = st.builds(
    interleaved,
    st.lists(publishes | st.tuples(publishes, settlements | others).map(joined), max_size=8),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
)
cut_places = st.lists(st.integers(0, 1000), max_size=6)  # thousandths of the whole
