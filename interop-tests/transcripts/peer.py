"""One AMQP connection without a socket: lines of a transcript to bytes, and bytes to lines.

What can be sent:

    queue.declare queue=$q durable            a method
    basic.publish routing-key=$q : "abc" delivery-mode=2      with its content: a body and properties
    content "abc" headers={a: 1}              a content header and body frames
    header size=3 class=60 weight=0 type=x    a content header; `raw="\\x80\\x00..."` instead of properties
    body "abc"                                a body frame
    reopen                                    channel.close-ok and channel.open
    method 60 200 "abc"                       a method by its numbers, with its arguments as they are
    frame 5 "abc" size=200000 end=0           a frame of any type
    heartbeat
    bytes "AMQP\\x00\\x00\\x09\\x01"

Heartbeats that come are not told.
"""

from __future__ import annotations

import struct

from transcripts.language import Connect, Said
from transcripts.methods import (
    CONTENT,
    FIELDS,
    IDS,
    NAMES,
    PROPERTIES,
    encoded_method,
    encoded_properties,
    read_fields,
    written_method,
    written_properties,
)
from transcripts.values import Reader, TranscriptError, readable, written

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
CAPABILITIES = (
    "{capabilities: {authentication_failure_close: true, basic.nack: true, connection.blocked: true,"
    " consumer_cancel_notify: true, publisher_confirms: true}}"
)
MENTIONED = 100  # bytes of a body that are told
DECLARED = {"queue.declare": "queue", "exchange.declare": "exchange"}


class Peer:
    """A connection as its client sees it.

    Attributes:
        declared: names of queues and exchanges that it tried to make.
        has_ended: the broker has closed the socket.
        is_closing: one side has sent connection.close.
        is_closed: the broker has answered it.
    """

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.name = "" if connect.name == "A" else connect.name
        self.declared: set[bytes] = set()
        self.has_ended = False
        self.is_closing = False
        self.is_closed = False
        self.frame_max = 131072
        self._received = b""
        self._contents: dict[int, _Content] = {}  # channel -> a content that is not complete

    # sending -----------------------------------------------------------------------------------------------

    def handshake(self, stage: str) -> bytes:
        """Return what a client says to get into a stage of the handshake."""
        tune = " ".join(f"{name}={value}" for name, value in self.connect.tune.items())
        properties = f"client-properties={CAPABILITIES} " if self.connect.capable else ""
        if stage == "starting":
            return PROTOCOL_HEADER
        if stage == "tuning":
            return self._of(
                0, f'connection.start-ok {properties}mechanism=PLAIN response="\\x00guest\\x00guest"'
            )
        if stage == "opening":
            self.frame_max = self.connect.tune["frame-max"]
            return self._of(0, f"connection.tune-ok {tune}")
        opening = self._of(0, "connection.open virtual-host=/")
        return opening + b"".join(self._of(channel, "channel.open") for channel in self.connect.channels)

    def say(self, said: Said) -> bytes:
        """Return the bytes of a line, whose names are real ones already."""
        return self._of(said.channel, said.text)

    def _of(self, channel: int, text: str) -> bytes:
        reader = Reader(text)
        verb = reader.word(r"\S+")
        if verb in IDS:
            return self._method(channel, verb, reader)
        match verb:
            case "content":
                return self._content(channel, reader)
            case "header":
                return self._header(channel, reader)
            case "body":
                return frame(BODY, channel, reader.string())
            case "reopen":
                return self._of(channel, "channel.close-ok") + self._of(channel, "channel.open")
            case "method":
                ids = struct.pack(">HH", int(reader.word(r"\d+")), int(reader.word(r"\d+")))
                return frame(METHOD, channel, ids + (b"" if reader.at_end() else reader.string()))
            case "frame":
                return self._frame(channel, reader)
            case "heartbeat":
                return frame(HEARTBEAT, channel, b"")
            case "bytes":
                return reader.string()
        raise TranscriptError(f"nobody knows how to say {text!r}")

    def _method(self, channel: int, name: str, reader: Reader) -> bytes:
        values = read_fields(reader, FIELDS[name])
        if name in DECLARED and DECLARED[name] in values:
            self.declared.add(values[DECLARED[name]][1:].replace(b"\r", b"").replace(b"\n", b""))
        self.is_closing = self.is_closing or name == "connection.close"
        content = self._content(channel, reader) if reader.sees(": ") else b""
        return frame(METHOD, channel, encoded_method(name, values)) + content

    def _content(self, channel: int, reader: Reader) -> bytes:
        body = reader.string()
        properties = encoded_properties(read_fields(reader, PROPERTIES))
        room = self.frame_max - 8
        pieces = [frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
        return frame(HEADER, channel, struct.pack(">HHQ", 60, 0, len(body)) + properties) + b"".join(pieces)

    def _header(self, channel: int, reader: Reader) -> bytes:
        own = (("size", "longlong"), ("class", "short"), ("weight", "short"), ("raw", "longstr"))
        values = read_fields(reader, (*own, *PROPERTIES))
        properties = values["raw"][4:] if "raw" in values else encoded_properties(values)
        start = values.get("class", b"\0\x3c") + values.get("weight", b"\0\0") + values.get("size", bytes(8))
        return frame(HEADER, channel, start + properties)

    def _frame(self, channel: int, reader: Reader) -> bytes:
        kind = int(reader.word(r"\d+"))
        payload = (
            b"" if reader.text.startswith(" size", reader.position) or reader.at_end() else reader.string()
        )
        values = read_fields(reader, (("size", "long"), ("end", "octet")))
        size = values.get("size", struct.pack(">I", len(payload)))
        return struct.pack(">BH", kind, channel) + size + payload + values.get("end", b"\xce")

    # receiving ---------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[str]:
        """Return what the broker says with these bytes and those before them; none are the end."""
        if not data:
            self.has_ended = True
            return [f"{self.name}0< eof"]
        self._received += data
        lines: list[str] = []
        while (taken := self._next_frame()) is not None:
            lines += taken
        return lines

    def _next_frame(self) -> list[str] | None:
        data = self._received
        if data[:4] == b"AMQP":
            if len(data) < 8:
                return None
            self._received = data[8:]
            return [f"{self.name}0< {written(data[:8])}"]
        if len(data) < 7 or len(data) < 8 + int.from_bytes(data[3:7], "big"):
            return None
        kind, channel, size = struct.unpack_from(">BHI", data)
        self._received = data[8 + size :]
        if data[7 + size] != 0xCE:
            raise TranscriptError(f"the broker sent a frame that ends in {data[7 + size]}")
        label = f"{self.name}{'' if channel == 1 else channel}< "
        return [label + line for line in self._told(kind, channel, data[7 : 7 + size])]

    def _told(self, kind: int, channel: int, payload: bytes) -> list[str]:
        content = self._contents.get(channel)
        if kind == METHOD and not content:
            name = NAMES[struct.unpack_from(">HH", payload)]
            self.is_closing = self.is_closing or name == "connection.close"
            self.is_closed = self.is_closed or name == "connection.close-ok"
            text = written_method(name, payload[4:])
            if name not in CONTENT:
                return [text]
            self._contents[channel] = _Content(text)
            return []
        if kind == HEARTBEAT:
            return []
        if kind not in (HEADER, BODY) or not content:
            raise TranscriptError(f"the broker sent a frame of type {kind} out of place: {payload!r}")
        content.take(kind, payload)
        if not content.is_complete:
            return []
        del self._contents[channel]
        return [content.told()]


class _Content:
    """A message of which not all frames are there."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.properties = ""
        self.body = b""
        self.size = -1  # no header yet

    @property
    def is_complete(self) -> bool:
        return len(self.body) >= self.size >= 0

    def take(self, kind: int, payload: bytes) -> None:
        """Take a header or body frame."""
        if kind == BODY and self.size >= 0:
            self.body += payload
        elif kind == HEADER and self.size < 0 and payload[:4] == b"\0\x3c\0\0":
            self.size = int.from_bytes(payload[4:12], "big")
            self.properties = written_properties(payload[12:])
        else:
            raise TranscriptError(f"the broker sent a frame of type {kind} out of place: {payload!r}")

    def told(self) -> str:
        """Return the whole message as a line."""
        text = f'"{readable(self.body)}"' if len(self.body) <= MENTIONED else f"{len(self.body)} bytes"
        return " ".join(filter(None, (self.method, ":", text, self.properties)))


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Make a frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
