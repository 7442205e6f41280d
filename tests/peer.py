"""An AMQP client without a socket: it makes the bytes a client sends and reads the bytes a broker sends.

Import it from a test one folder down with `from ..peer import Peer`. A conversation is two calls:

    peer = Peer()
    out = broker.receive(peer.handshake())            # bytes to the broker
    events = peer.receive(out)                        # what they say

Every frame can be made by hand (`Peer.frame`), so malformed input is as easy as good input. What comes from
the broker
is read strictly: a frame that a careful client would refuse raises `ProtocolViolation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamqp import commands

from leveret.protocol.methods import CONTENT_METHODS, class_id, decode_method, encode_method, make, method_id
from leveret.protocol.properties import NO_PROPERTIES, Properties, to_json

if TYPE_CHECKING:
    from pamqp.base import Frame

METHOD = 1
HEADER = 2
BODY = 3
HEARTBEAT = 8
FRAME_END = 0xCE

CLIENT_PROPERTIES: dict[str, object] = {
    "product": "test peer",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    },
}


class ProtocolViolation(AssertionError):
    """The broker sent what no client should have to accept."""


@dataclass(frozen=True, slots=True)
class ProtocolHeader:
    """The 8 bytes that answer a refused protocol header."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method without content."""

    channel: int
    method: Frame

    @property
    def name(self) -> str:
        """pamqp's name of the method, such as `Queue.DeclareOk`."""
        return self.method.name

    @property
    def error(self) -> tuple[int, str, tuple[int, int]]:
        """Reply code, reply text, class and method id of a close."""
        close = self.method
        assert isinstance(close, commands.Connection.Close | commands.Channel.Close), self.name
        assert close.reply_code is not None
        return close.reply_code, close.reply_text, (close.class_id or 0, close.method_id or 0)

    def __repr__(self) -> str:
        """Show the fields, for failed assertions."""
        fields = ", ".join(f"{name}={getattr(self.method, name)!r}" for name in self.method.attributes())
        return f"{self.name}({fields}) on channel {self.channel}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Content(Method):
    """A method with content, complete: basic.deliver, basic.get-ok or basic.return."""

    properties: bytes  # from the property flags on
    body: bytes

    @property
    def fields(self) -> Properties:
        """The properties, parsed."""
        return Properties.parse(self.properties)

    def __repr__(self) -> str:
        """Show the fields, the properties and the start of the body."""
        return (
            f"{Method.__repr__(self)}, {to_json(self.properties)}, {len(self.body)} bytes {self.body[:40]!r}"
        )


Event = ProtocolHeader | Heartbeat | Method


class Peer:
    """One connection, as the client sees it.

    Args:
        user: name for PLAIN.
        password: password for PLAIN.
        vhost: vhost to open.
        channel_max: told in tune-ok.
        frame_max: told in tune-ok; publishes are cut at it, and larger body frames from the broker refused.
        heartbeat: told in tune-ok, seconds.
        client_properties: told in start-ok.
    """

    def __init__(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        channel_max: int = 2047,
        frame_max: int = 131072,
        heartbeat: int = 0,
        client_properties: dict[str, object] | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.vhost = vhost
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat = heartbeat
        self.client_properties = CLIENT_PROPERTIES if client_properties is None else client_properties
        self._buffer = b""
        self._contents: dict[int, _Incoming] = {}  # channel -> a content that is not complete

    # What the client sends

    @staticmethod
    def header(version: bytes = b"\x00\x00\x09\x01") -> bytes:
        """Make a protocol header."""
        return b"AMQP" + version

    def start_ok(self, mechanism: str = "PLAIN", response: bytes | None = None) -> bytes:
        """Make connection.start-ok."""
        if response is None:
            response = f"\0{self.user}\0{self.password}".encode()
        return self.send(
            0,
            commands.Connection.StartOk,
            client_properties=self.client_properties,
            mechanism=mechanism,
            response=response.decode("utf-8", "surrogateescape"),
            locale="en_US",
        )

    def tune_ok(self) -> bytes:
        """Make connection.tune-ok."""
        return self.send(
            0,
            commands.Connection.TuneOk,
            channel_max=self.channel_max,
            frame_max=self.frame_max,
            heartbeat=self.heartbeat,
        )

    def open(self) -> bytes:
        """Make connection.open."""
        return self.send(0, commands.Connection.Open, virtual_host=self.vhost)

    def handshake(self, *channels: int) -> bytes:
        """Make everything from the protocol header to connection.open, and open channels, in one go."""
        opened = b"".join(self.send(channel, commands.Channel.Open) for channel in channels)
        return self.header() + self.start_ok() + self.tune_ok() + self.open() + opened

    @staticmethod
    def send(channel: int, method: Frame | type[Frame], **fields: object) -> bytes:
        """Make a method frame from a method, or from its class and the fields that are not empty."""
        return encode_method(channel, make(method, **fields) if isinstance(method, type) else method)

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        properties: bytes = NO_PROPERTIES,
        *,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> bytes:
        """Make a whole publish; `properties` is raw, as `leveret.protocol.properties.replace` makes it."""
        method = make(
            commands.Basic.Publish,
            exchange=exchange,
            routing_key=routing_key,
            mandatory=mandatory,
            immediate=immediate,
        )
        return encode_method(channel, method) + self.content(channel, body, properties)

    def content(self, channel: int, body: bytes, properties: bytes = NO_PROPERTIES) -> bytes:
        """Make a content header frame and the body frames after it."""
        room = self.frame_max - 8 if self.frame_max else max(len(body), 1)
        frames = [self.content_header(channel, len(body), properties)]
        frames += [self.body(channel, body[start : start + room]) for start in range(0, len(body), room)]
        return b"".join(frames)

    @classmethod
    def content_header(
        cls,
        channel: int,
        body_bytes: int,
        properties: bytes = NO_PROPERTIES,
        *,
        class_id: int = 60,
        weight: int = 0,
    ) -> bytes:
        """Make a content header frame."""
        payload = class_id.to_bytes(2, "big") + weight.to_bytes(2, "big") + body_bytes.to_bytes(8, "big")
        return cls.frame(HEADER, channel, payload + properties)

    @classmethod
    def body(cls, channel: int, data: bytes) -> bytes:
        """Make one body frame."""
        return cls.frame(BODY, channel, data)

    @classmethod
    def heartbeat_frame(cls) -> bytes:
        """Make a heartbeat frame."""
        return cls.frame(HEARTBEAT, 0, b"")

    @staticmethod
    def frame(
        kind: int, channel: int, payload: bytes, *, size: int | None = None, end: int = FRAME_END
    ) -> bytes:
        """Make any frame, with a wrong size or end octet if wanted."""
        length = len(payload) if size is None else size
        head = kind.to_bytes(1, "big") + channel.to_bytes(2, "big") + length.to_bytes(4, "big")
        return head + payload + end.to_bytes(1, "big")

    # What the client receives

    def receive(self, data: bytes) -> list[Event]:
        """Read bytes from the broker, in any split; a content is one event, told when it is complete.

        Raises:
            ProtocolViolation: the broker broke a rule.
        """
        buffer = self._buffer + data
        events: list[Event] = []
        start = 0
        while True:
            if buffer[start : start + 4] == b"AMQP" and len(buffer) - start >= 8:
                events.append(ProtocolHeader(buffer[start : start + 8]))
                start += 8
                continue
            end = start + 7 + int.from_bytes(buffer[start + 3 : start + 7], "big")
            if len(buffer) - start < 8 or len(buffer) <= end or buffer[start : start + 4] == b"AMQP":
                self._buffer = buffer[start:]
                return events
            kind = buffer[start]
            channel = int.from_bytes(buffer[start + 1 : start + 3], "big")
            if buffer[end] != FRAME_END:
                raise ProtocolViolation(f"frame ends in {buffer[end]}")
            size = end + 1 - start
            if kind != HEADER and self.frame_max and size > self.frame_max:  # a header cannot be split
                raise ProtocolViolation(f"a frame of {size} bytes, but frame_max is {self.frame_max}")
            payload = buffer[start + 7 : end]
            start = end + 1
            event = self._read_frame(kind, channel, payload)
            if event is not None:
                events.append(event)

    def _read_frame(self, kind: int, channel: int, payload: bytes) -> Event | None:
        if kind == HEARTBEAT:
            if channel or payload:
                raise ProtocolViolation("a heartbeat with a channel or a payload")
            return Heartbeat()
        incoming = self._contents.get(channel)
        if kind == METHOD:
            if incoming is not None:
                raise ProtocolViolation("a method in the middle of a content")
            method = decode_method(payload)
            if type(method) not in CONTENT_METHODS:
                return Method(channel, method)
            self._contents[channel] = _Incoming(method)
            return None
        if kind not in (HEADER, BODY):
            raise ProtocolViolation(f"unknown frame type {kind}")
        if incoming is None:
            raise ProtocolViolation("a content frame without its method")
        incoming.take(kind, payload)
        if not incoming.is_complete:
            return None
        del self._contents[channel]
        return Content(channel, incoming.method, incoming.properties, incoming.body)


class _Incoming:
    """A content of which not all frames are there."""

    def __init__(self, method: Frame) -> None:
        self.method = method
        self.properties = b""
        self.body = b""
        self._body_bytes = -1  # no header yet

    @property
    def is_complete(self) -> bool:
        return self._body_bytes == len(self.body)

    def take(self, kind: int, payload: bytes) -> None:
        if kind == HEADER:
            if self._body_bytes >= 0:
                raise ProtocolViolation("two headers for one content")
            if payload[:4] != b"\x00\x3c\x00\x00" or len(payload) < 14:
                raise ProtocolViolation(f"content header of {len(payload)} bytes starts {payload[:4]!r}")
            self._body_bytes = int.from_bytes(payload[4:12], "big")
            self.properties = payload[12:]
            Properties.parse(self.properties)
            return
        if self._body_bytes < 0:
            raise ProtocolViolation("a body before its header")
        if not payload:
            raise ProtocolViolation("an empty body frame")
        self.body += payload
        if len(self.body) > self._body_bytes:
            raise ProtocolViolation("more body than announced")


def ids(method: Frame | type[Frame]) -> tuple[int, int]:
    """Return class and method id, as a close names them."""
    return class_id(method), method_id(method)
