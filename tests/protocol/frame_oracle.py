"""How a connection's input is read, written plainly: all of it at once, one frame after another.

`Oracle.read` says what some bytes mean as a list of effects; `read_in_pieces` gets such a list from a
`FrameReader` that is fed the same bytes in pieces. Both act on the effects as a session does: channels are
opened and closed by methods, and an error closes a channel until the peer agrees. The first error that closes
the connection is the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from pamqp import base, commands

from leveret.protocol.connection import FrameReader
from leveret.protocol.errors import (
    AMQPException,
    ChannelException,
    FrameError,
    PreconditionFailed,
    UnexpectedFrame,
    printable_octets,
)
from leveret.protocol.events import ACK, NACK, REJECT, Event, MethodReceived, Published, Settled
from leveret.protocol.methods import decode_method
from leveret.protocol.properties import Properties

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PUBLISH = (60, 40)
CHANNEL_STATE = (b"\0\x14\0\x0a", b"\0\x14\0\x28", b"\0\x14\0\x29")  # channel.open, close, close-ok
SETTLING = (commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject)


class Message(NamedTuple):
    """A message was published."""

    channel: int
    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool
    properties: bytes
    body: bytes


class Settlement(NamedTuple):
    """One ack, nack or reject."""

    channel: int
    method_id: int
    tag: int
    multiple: bool
    requeue: bool


class OtherMethod(NamedTuple):
    """Any other method."""

    channel: int
    name: str
    fields: tuple[object, ...]


class Failure(NamedTuple):
    """Something that closes the channel or the connection."""

    error: type[AMQPException]
    text: str
    ids: tuple[int, int]
    channel: int  # 0: nothing to do with a channel
    is_lost: bool = False  # nobody knows where the next frame begins


Effect = Message | Settlement | OtherMethod | Failure


class Limits(NamedTuple):
    """What was negotiated and configured."""

    frame_max: int = 64
    max_message_bytes: int = 300


class Oracle:
    """The input side of one open connection."""

    def __init__(self, limits: Limits, channels: Iterable[int]) -> None:
        self.limits = limits
        self.contents: dict[int, Content | None] = dict.fromkeys(
            channels
        )  # open channel -> content on its way
        self.discarding: set[int] = set()  # channels that an error closed

    def read(self, data: bytes) -> list[Effect]:
        """Return what the bytes mean, up to the first error that closes the connection."""
        effects: list[Effect] = []
        while len(data) >= 7:
            kind, channel, size = struct.unpack(">BHI", data[:7])
            if size > self.limits.frame_max:
                text = (
                    f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{self.limits.frame_max - 8}}}"
                )
                return [*effects, Failure(FrameError, text, (0, 0), 0, is_lost=True)]
            if len(data) < size + 8:
                break
            payload, end, data = data[7 : 7 + size], data[7 + size], data[8 + size :]
            if end != 0xCE:
                text = f"{described(kind, payload)}: {{invalid_frame_end_marker,{end}}}"
                return [*effects, Failure(FrameError, text, (0, 0), 0, is_lost=True)]
            try:
                effect = self.read_frame(kind, channel, payload)
            except ChannelException as error:
                effects.append(failure(error, channel))
                del self.contents[channel]
                self.discarding.add(channel)
            except AMQPException as error:
                is_of_the_connection = str(error).endswith("unknown_frame") or kind == HEARTBEAT
                return [*effects, failure(error, 0 if is_of_the_connection else channel)]
            else:
                effects += [] if effect is None else [effect]
        return effects

    def read_frame(self, kind: int, channel: int, payload: bytes) -> Effect | None:
        """Take one well-formed frame."""
        smallest = {METHOD: 4, HEADER: 12, BODY: 0, HEARTBEAT: 0}
        if kind not in smallest or len(payload) < smallest[kind] or (kind == HEARTBEAT and payload):
            raise FrameError(f"{described(kind, payload)}: unknown_frame")
        if kind == HEARTBEAT:
            if channel:
                raise UnexpectedFrame(described(kind, payload))
            return None
        if channel in self.discarding:
            return self.read_while_discarding(kind, channel, payload)
        if kind != METHOD and channel == 0:
            raise UnexpectedFrame(described(kind, payload))
        content = self.contents.get(channel)
        if content is None and kind == METHOD:
            return self.read_method(channel, decode_method(payload))
        if content is None:
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        content.take(kind, payload, self.limits)
        if not content.is_complete:
            return None
        self.contents[channel] = None
        return content.message(channel)

    def read_method(self, channel: int, method: base.Frame) -> Effect | None:
        """Take a method where one is expected."""
        if channel in self.contents and isinstance(method, commands.Basic.Publish):
            self.contents[channel] = Content(method)
            return None
        if channel in self.contents and isinstance(method, SETTLING):
            return Settlement(
                channel,
                method.index & 0xFFFF,
                method.delivery_tag or 0,
                getattr(method, "multiple", False),
                getattr(method, "requeue", False),
            )
        if isinstance(method, commands.Channel.Open):
            self.contents[channel] = None
        elif isinstance(method, commands.Channel.Close):
            self.contents.pop(channel, None)
        return other_method(channel, method)

    def read_while_discarding(self, kind: int, channel: int, payload: bytes) -> Effect | None:
        """Take a frame on a channel that an error closed: only its open, close and close-ok count."""
        if kind != METHOD or payload[:4] not in CHANNEL_STATE:
            return None
        method = decode_method(payload)
        if isinstance(method, commands.Channel.CloseOk):
            self.discarding.remove(channel)
        return other_method(channel, method)


class Content:
    """A publish of which not all frames are there."""

    def __init__(self, method: commands.Basic.Publish) -> None:
        self.method = method
        self.properties: bytes | None = None  # no header yet
        self.announced = 0
        self.body = b""

    @property
    def is_complete(self) -> bool:
        """Whether the whole body is there."""
        return self.properties is not None and len(self.body) == self.announced

    def take(self, kind: int, payload: bytes, limits: Limits) -> None:
        """Add a frame."""
        if self.properties is None:
            self.take_header(kind, payload, limits)
            return
        if kind != BODY:
            raise UnexpectedFrame("expected content body, got non content body frame instead", *PUBLISH)
        self.body += payload
        if len(self.body) > self.announced:
            raise FrameError("content body frame exceeds remaining content size", *PUBLISH)

    def take_header(self, kind: int, payload: bytes, limits: Limits) -> None:
        """Add the header frame."""
        expected = "expected content header for class 60, got"
        if kind != HEADER:
            raise UnexpectedFrame(f"{expected} non content header frame instead", *PUBLISH)
        class_id, weight, self.announced = struct.unpack(">HHQ", payload[:12])
        if weight != 0:
            raise UnexpectedFrame(f"{expected} non content header frame instead", *PUBLISH)
        if class_id != 60:
            raise UnexpectedFrame(f"{expected} one for class {class_id} instead", *PUBLISH)
        if self.announced > 536870912:
            raise FrameError(
                f"content body size {self.announced} exceeds maximum allowed size 536870912", *PUBLISH
            )
        if self.announced > limits.max_message_bytes:
            limit = f"configured max size {limits.max_message_bytes}"
            raise PreconditionFailed(f"message size {self.announced} is larger than {limit}", *PUBLISH)
        Properties.parse(payload[12:])
        self.properties = payload[12:]

    def message(self, channel: int) -> Message:
        """Return the complete message."""
        assert self.properties is not None
        method = self.method
        return Message(
            channel,
            method.exchange,
            method.routing_key,
            method.mandatory,
            method.immediate,
            self.properties,
            self.body,
        )


def described(kind: int, payload: bytes) -> str:
    """Name a frame as RabbitMQ does."""
    which = "first 16 octets" if len(payload) > 16 else "all octets"
    return f"type {kind}, {which} = {printable_octets(payload[:16])}"


def failure(error: AMQPException, channel: int, is_lost: bool = False) -> Failure:
    """Describe an error that was raised."""
    return Failure(type(error), error.text, (error.class_id, error.method_id), channel, is_lost)


def other_method(channel: int, method: base.Frame) -> OtherMethod:
    """Describe a method without an event of its own."""
    return OtherMethod(channel, method.name, tuple(getattr(method, name) for name in method.attributes()))


def open_reader(limits: Limits, channels: Iterable[int]) -> FrameReader:
    """Return the reader of a connection that is open."""
    reader = FrameReader(limits.max_message_bytes)
    reader.frame_max = limits.frame_max
    reader.is_running = True
    for channel in channels:
        reader.open_channel(channel)
    return reader


def read_in_pieces(reader: FrameReader, pieces: Iterable[bytes]) -> list[Effect]:
    """Feed pieces to a reader as they would come from a socket; return what came out, piece after piece."""
    effects: list[Effect] = []
    for piece in pieces:
        reader.receive_data(piece)
        while True:
            try:
                event = reader.next_event()
            except AMQPException as error:
                effects.append(failure(error, reader.channel_in_progress, reader.is_lost))
                if not isinstance(error, ChannelException):
                    return effects
                reader.discard_channel(reader.channel_in_progress)
                continue
            if event is None:
                break
            effects += effects_of(event)
            if isinstance(event, MethodReceived):
                follow(reader, event)
    return effects


def follow(reader: FrameReader, event: MethodReceived) -> None:
    """Do what a session does about channels."""
    if reader.is_discarding(event.channel):
        if isinstance(event.method, commands.Channel.CloseOk):
            reader.close_channel(event.channel)
    elif isinstance(event.method, commands.Channel.Open):
        reader.open_channel(event.channel)
    elif isinstance(event.method, commands.Channel.Close):
        reader.close_channel(event.channel)


def effects_of(event: Event) -> list[Effect]:
    """Take an event apart."""
    if isinstance(event, Published):
        assert event.messages
        assert len({id(message.envelope) for message in event.messages}) == 1
        return [
            Message(
                event.channel,
                message.exchange,
                message.routing_key,
                event.mandatory,
                event.immediate,
                message.properties,
                message.body,
            )
            for message in event.messages
        ]
    if isinstance(event, Settled):
        assert event.method_id in (ACK, NACK, REJECT)
        assert len(event.tags) == 1 or (event.method_id == ACK and not event.multiple and event.tags)
        return [
            Settlement(event.channel, event.method_id, tag, event.multiple, event.requeue)
            for tag in event.tags
        ]
    assert isinstance(event, MethodReceived)
    return [other_method(event.channel, event.method)]


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut bytes at some places."""
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]
