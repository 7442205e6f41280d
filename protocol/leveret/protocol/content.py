"""Messages as they travel: a content header frame and body frames. HOT.

A message is kept as the frames it arrived in and goes out as the same bytes when the receiving channel has
the same number and takes frames that large; otherwise its frames are made anew. What the publishes of one run
share (exchange, routing key, properties) is one `Envelope`, so that a message is two objects, one of them
shared.
"""

from __future__ import annotations

from typing import Final

from leveret.protocol.properties import Properties

FRAME_END: Final = b"\xce"
FRAME_OVERHEAD: Final = 8  # type, channel, size and end octet around a payload
HEADER_FRAME_OVERHEAD: Final = (
    20  # and class, weight and body size in a content header, before the properties
)
BASIC_CLASS: Final = b"\x00\x3c\x00\x00"  # class id 60 and weight 0, the start of a content header
DEFAULT_FRAME_MAX: Final = 131072


def short_string(text: str) -> bytes:
    """Encode a short string; the text must not be longer than 255 bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    return len(raw).to_bytes(1, "big") + raw


class Envelope:
    """What a run of publishes on one channel has in common.

    `channel` and `frame_max` tell how the content frames of its messages are cut.
    """

    __slots__ = (
        "bcc_keys",
        "cc_is_spent",
        "channel",
        "dead_lettered",
        "exchange",
        "fields",
        "frame_max",
        "needs_attention",
        "persistent",
        "raw",
        "routing_key",
        "suffix",
    )

    def __init__(
        self, exchange: str, routing_key: str, raw: bytes, fields: Properties, channel: int, frame_max: int
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.raw = raw  # the property list, from the property flags on
        self.fields = fields
        self.channel = channel
        self.frame_max = frame_max
        self.dead_lettered: bool = False  # the broker itself wrote the x-death header
        self.cc_is_spent: bool = False  # a dead-letter routing key took the place of the CC header's keys
        self.bcc_keys: list[str] = []  # routing keys of a BCC header, which is no longer among the properties
        self.persistent: bool = fields.delivery_mode == 2
        # Properties that the broker must look at before it routes: most messages have none of them.
        self.needs_attention: bool = (
            fields.headers_raw is not None
            or fields.reply_to is not None
            or fields.expiration is not None
            or fields.user_id is not None
        )
        # What follows the delivery tag and the redelivered bit in basic.deliver, and the frame's end.
        self.suffix: bytes = short_string(exchange) + short_string(routing_key) + FRAME_END


class Message:
    """One message, shared by all queues that hold it."""

    __slots__ = ("body_bytes", "content", "envelope")

    def __init__(self, envelope: Envelope, content: bytes, body_bytes: int) -> None:
        self.envelope = envelope
        self.content = content  # its frames; empty in a `BareMessage`
        self.body_bytes = body_bytes

    def frames(self) -> bytes:
        """Return header frame and body frames, one after another."""
        return self.content

    @property
    def exchange(self) -> str:
        """Name of the exchange it was published to."""
        return self.envelope.exchange

    @property
    def routing_key(self) -> str:
        """Routing key it was published with."""
        return self.envelope.routing_key

    @property
    def properties(self) -> bytes:
        """Raw property list, from the property flags on."""
        return self.envelope.raw

    @property
    def dead_lettered(self) -> bool:
        """Whether the broker itself wrote its x-death header."""
        return self.envelope.dead_lettered

    @property
    def body(self) -> bytes:
        """The body, cut out of its frames."""
        content = self.content
        start = FRAME_OVERHEAD + int.from_bytes(content[3:7], "big")
        if start == len(content):
            return b""
        size = int.from_bytes(content[start + 3 : start + 7], "big")
        if size == self.body_bytes:
            return content[start + 7 : start + 7 + size]
        pieces: list[bytes] = []
        while start < len(content):
            size = int.from_bytes(content[start + 3 : start + 7], "big")
            pieces.append(content[start + 7 : start + 7 + size])
            start += FRAME_OVERHEAD + size
        return b"".join(pieces)

    def frames_for(self, channel: int, frame_max: int) -> bytes:
        """Return the content frames for a channel: as they are if they fit, else cut anew."""
        envelope = self.envelope
        if channel == envelope.channel and (
            envelope.frame_max <= frame_max or self.body_bytes + FRAME_OVERHEAD <= frame_max
        ):
            return self.content
        return encode_content(channel, frame_max, envelope.raw, self.body)

    def with_envelope(self, envelope: Envelope) -> Message:
        """Return the same body under other properties, exchange or routing key."""
        old = self.envelope
        if envelope.channel == old.channel and envelope.frame_max == old.frame_max:  # body frames stay
            body_frames = self.content[HEADER_FRAME_OVERHEAD + len(old.raw) :]
            content = _header_frame(envelope.channel, envelope.raw, self.body_bytes) + body_frames
        else:
            content = encode_content(envelope.channel, envelope.frame_max, envelope.raw, self.body)
        return Message(envelope, content, self.body_bytes)


class BareMessage(Message):
    """A message that was read from the store, with a body that fits into one frame and is not empty.

    Whoever sends it joins it with others, so its frames are not joined before.

    Args:
        envelope: of it.
        start: `content_start` for this body.
        bare_body: the body.
    """

    __slots__ = ("bare_body", "start")

    def __init__(self, envelope: Envelope, start: bytes, bare_body: bytes) -> None:
        super().__init__(envelope, b"", len(bare_body))
        self.start = start
        self.bare_body = bare_body

    @property
    def body(self) -> bytes:
        """The body."""
        return self.bare_body

    def frames(self) -> bytes:
        """Return header frame and body frame."""
        return encode_alike(self.start, self.bare_body)

    def frames_for(self, channel: int, frame_max: int) -> bytes:
        """Return the content frames for a channel."""
        return encode_content(channel, frame_max, self.envelope.raw, self.bare_body)

    def with_envelope(self, envelope: Envelope) -> Message:
        """Return the same body under other properties, exchange or routing key."""
        content = encode_content(envelope.channel, envelope.frame_max, envelope.raw, self.bare_body)
        return Message(envelope, content, self.body_bytes)


class MessageMaker:
    """Makes messages of bodies that were read from the store.

    Args:
        envelope: of all of them.
    """

    __slots__ = ("_body_max", "_envelope", "_start", "_start_size")

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._body_max: int = envelope.frame_max - FRAME_OVERHEAD  # that one frame has
        self._start: bytes = b""  # of the content of messages with bodies of one size
        self._start_size: int = -1

    def make(self, body: bytes) -> Message:
        """Return the message with this body."""
        envelope = self._envelope
        size = len(body)
        if size > self._body_max or not body:
            content = encode_content(envelope.channel, envelope.frame_max, envelope.raw, body)
            return Message(envelope, content, size)
        if size != self._start_size:
            self._start = content_start(envelope.channel, envelope.raw, size)
            self._start_size = size
        return BareMessage(envelope, self._start, body)


def encode_content(channel: int, frame_max: int, raw: bytes, body: bytes) -> bytes:
    """Encode a header frame and as many body frames as needed.

    The header cannot be split: with a property list longer than `frame_max` it is sent oversize, as RabbitMQ
    does.

    Args:
        channel: number of the channel that it goes to.
        frame_max: negotiated size, 8 bytes of each frame being its overhead.
        raw: property list, from the property flags on.
        body: the whole body; an empty one has no body frame.
    """
    size = len(body)
    room = frame_max - FRAME_OVERHEAD
    if size <= room:
        return encode_alike(content_start(channel, raw, size), body)
    start = b"\x03" + channel.to_bytes(2, "big")
    pieces = [_header_frame(channel, raw, size)]
    for offset in range(0, size, room):
        part = body[offset : offset + room]
        pieces.append(start + len(part).to_bytes(4, "big") + part + FRAME_END)
    return b"".join(pieces)


def content_start(channel: int, raw: bytes, size: int) -> bytes:
    """Return what comes before a body of this size that is one frame. See `encode_alike`."""
    header = _header_frame(channel, raw, size)
    if size == 0:
        return header
    return header + b"\x03" + channel.to_bytes(2, "big") + size.to_bytes(4, "big")


def encode_alike(start: bytes, body: bytes) -> bytes:
    """Encode content that begins like other content, with a body of the same size."""
    if not body:
        return start
    return b"".join([start, body, FRAME_END])


def _header_frame(channel: int, raw: bytes, size: int) -> bytes:
    return (
        b"\x02"
        + channel.to_bytes(2, "big")
        + (12 + len(raw)).to_bytes(4, "big")
        + BASIC_CLASS
        + size.to_bytes(8, "big")
        + raw
        + FRAME_END
    )


def body_frame(channel: int, part: bytes) -> bytes:
    """Encode one body frame."""
    return b"\x03" + channel.to_bytes(2, "big") + len(part).to_bytes(4, "big") + part + FRAME_END


def make_envelope(exchange: str, routing_key: str, raw: bytes) -> Envelope:
    """Make an envelope for messages that did not come from a publisher's socket."""
    return Envelope(exchange, routing_key, raw, Properties.parse(raw), 1, DEFAULT_FRAME_MAX)
