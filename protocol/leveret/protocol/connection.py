"""One AMQP connection's input: bytes in, in any split; events out, as few as possible. HOT.

Theory of operation
-------------------
`receive_data` only keeps bytes; `next_event` parses up to the next thing worth telling, so that what an event
changes (a limit tuned, a channel closed) holds for the very next frame. Publishes, acks, nacks and rejects
have events of their own; everything else is a `MethodReceived`.

A run of publishes looks alike. While frames repeat the publish frame before them byte for byte, the messages
join one `Published` event: exchange and routing key are decoded once, and as long as the property list
repeats too, all share an `Envelope`. The whole start of a message (publish frame, header frame, first seven
bytes of the body frame) is remembered as `prefix`; when the buffer starts with it, the message is known to be
well formed without looking at its fields.

A content that is not complete in the buffer, or interleaved with other channels' frames, takes the slow path:
the channel's `ChannelInput` is a state machine that goes from IDLE to HEADER (a publish was read) to BODY and
back, frame by frame. Only that path makes errors, so their texts stand in one place.

Of a large body, all frames in a row are taken as one piece, and what is there of the last one too, so that
its bytes are copied once: when all are there and are joined. Such a frame is *open*: its rest comes next.

Source: AMQP 0-9-1 section 2.3 and 4.2; RabbitMQ's rabbit_reader, rabbit_command_assembler and rabbit_channel
for texts.
"""

from __future__ import annotations

from typing import Final

from leveret.protocol.content import (
    DEFAULT_FRAME_MAX,
    FRAME_END,
    FRAME_OVERHEAD,
    Envelope,
    Message,
    body_frame,
)
from leveret.protocol.errors import FieldSyntaxError, FrameError, PreconditionFailed, UnexpectedFrame
from leveret.protocol.events import ACK, NACK, PUBLISH, REJECT, Event, MethodReceived, Published, Settled
from leveret.protocol.methods import decode_method, octets, printable_octets
from leveret.protocol.properties import Properties

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8
END: Final = 0xCE
FOUR_ZEROS: Final = bytes(4)

HANDSHAKE_FRAME_MAX: Final = 8192  # before tuning; leaves room for long tokens as passwords
BODY_BYTES_MAX: Final = 536870912  # no message can be larger, whatever is configured
SMALL_BODY: Final = 1024  # bytes; smaller parts of a body are not kept as frames of their own
PART_MIN: Final = 16 * 1024  # bytes; of a frame that is not complete, less is not taken yet
SHOWN: Final = 17  # octets of a payload that an error text needs: 16, and whether there are more
PROPERTIES_CACHE_MAX: Final = 256  # property lists of a connection kept parsed; publishers repeat them
PROPERTIES_CACHED_BYTES_MAX: Final = 1024  # longer ones are not kept

BASIC: Final = 60
PUBLISH_IDS: Final = b"\x00\x3c\x00\x28"
ACK_IDS: Final = b"\x00\x3c\x00\x50"
REJECT_IDS: Final = b"\x00\x3c\x00\x5a"
NACK_IDS: Final = b"\x00\x3c\x00\x78"
HEADER_MIN: Final = 12  # payload bytes of a content header before its properties
PUBLISH_MIN: Final = 9  # payload bytes of a publish with an empty exchange and routing key
# channel.open, close and close-ok: what counts on a channel that an error closed
CHANNEL_STATE: Final = (b"\x00\x14\x00\x0a", b"\x00\x14\x00\x28", b"\x00\x14\x00\x29")

IDLE: Final = 0
HEADER: Final = 1
BODY: Final = 2


class ChannelInput:
    """What is remembered of a channel's input: the last publish, and a content on its way."""

    __slots__ = (
        "ack_start",
        "announced",
        "chunks",
        "envelope",
        "exchange",
        "immediate",
        "loose",
        "mandatory",
        "number",
        "prefix",
        "prefix_body",
        "prefix_total",
        "publish_frame",
        "received",
        "routing_key",
        "state",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.state: int = IDLE
        self.publish_frame: bytes = b""
        self.exchange: str = ""
        self.routing_key: str = ""
        self.mandatory: bool = False
        self.immediate: bool = False
        self.envelope: Envelope | None = None
        self.prefix: bytes = b""
        self.prefix_body: int = 0  # body bytes of a message that starts with the prefix
        self.prefix_total: int = 0  # bytes of all its frames
        self.chunks: list[bytes | memoryview] = []  # frames of the content on its way
        self.loose: bytearray = bytearray()  # small pieces of its body, behind them
        self.announced: int = 0  # its body bytes
        self.received: int = 0  # of them, so far
        self.ack_start: bytes = b"\x01" + number.to_bytes(2, "big") + b"\x00\x00\x00\x0d" + ACK_IDS


class FrameReader:
    """The input side of one connection."""

    __slots__ = (
        "_buffer",
        "_channels",
        "_discarding",
        "_missing",
        "_offset",
        "_open_channel",
        "_open_start",
        "_properties",
        "channel_in_progress",
        "frame_max",
        "is_lost",
        "is_running",
        "max_message_bytes",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self.frame_max: int = HANDSHAKE_FRAME_MAX
        self.max_message_bytes = max_message_bytes
        self.channel_in_progress: int = 0  # the channel of the frame that raised
        self.is_lost: bool = False  # where the next frame begins is anybody's guess
        self.is_running: bool = False  # the connection is open: there may be channels
        self._buffer: bytes = b""
        self._offset: int = 0
        self._channels: dict[int, ChannelInput] = {}
        self._discarding: set[int] = set()
        self._missing: int = 0  # bytes of the open frame that have not come, its end octet among them
        self._open_channel: ChannelInput | None = None  # whose it is; None if that is closed
        self._open_start: bytes = b""  # of its payload
        self._properties: dict[bytes, Properties] = {}

    # -- what the session tells

    def open_channel(self, number: int) -> None:
        """Expect methods and contents on a channel."""
        self._channels[number] = ChannelInput(number)
        self._discarding.discard(number)

    def discard_channel(self, number: int) -> None:
        """Drop everything on a channel but close and close-ok: an error closed it, unknown to the peer."""
        self._forget(number)
        self._discarding.add(number)

    def is_discarding(self, number: int) -> bool:
        """Whether a channel was closed by an error, and the peer has not answered yet."""
        return number in self._discarding

    @property
    def discarding_count(self) -> int:
        """Channels closed by an error whose close-ok has not come."""
        return len(self._discarding)

    def close_channel(self, number: int) -> None:
        """Forget a channel."""
        self._forget(number)
        self._discarding.discard(number)

    def _forget(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        if channel is self._open_channel:
            self._open_channel = None  # the rest of its frame comes nevertheless

    # -- bytes in, events out

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        if self._offset == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._offset :] + data
        self._offset = 0

    def take_protocol_header(self) -> bytes | None:
        """Return the first 8 bytes once they are there, or fewer if they cannot be AMQP any more."""
        header = self._buffer[self._offset : self._offset + 8]
        if len(header) < 8 and b"AMQP".startswith(header[:4]):
            return None
        self._offset += len(header)
        return header

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet parsed."""
        return len(self._buffer) - self._offset

    @property
    def expected_bytes(self) -> int:
        """Bytes that are still to come of a large body, if its frames are as large as they may be; or 0."""
        channel = self._open_channel
        if channel is None:
            return 0
        room = self.frame_max - FRAME_OVERHEAD
        left = channel.announced - channel.received
        return self._missing + left + FRAME_OVERHEAD * ((left + room - 1) // room)

    def next_event(self) -> Event | None:
        """Parse up to the next event; None when more bytes are needed.

        Raises:
            FrameError, UnexpectedFrame, FieldSyntaxError: the connection must be closed.
            PreconditionFailed: a message larger than the configured maximum; the channel must be closed.
        """
        buffer = self._buffer
        end: int = len(buffer)
        if self._missing:
            completed = self._read_open_frame(end)
            if completed is not None:
                return completed
        while True:
            offset: int = self._offset
            if self._missing or offset + 7 > end:
                self._release()
                return None
            kind: int = buffer[offset]
            number: int = (buffer[offset + 1] << 8) | buffer[offset + 2]
            size: int = (
                (buffer[offset + 3] << 24)
                | (buffer[offset + 4] << 16)
                | (buffer[offset + 5] << 8)
                | buffer[offset + 6]
            )
            if size > self.frame_max:
                self.channel_in_progress = 0
                self.is_lost = True
                self._offset = end
                raise FrameError(
                    f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{self.frame_max - 8}}}"
                )
            stop: int = offset + 8 + size
            if kind == FRAME_BODY:
                receiving = self._channels.get(number)
                if receiving is not None and receiving.state == BODY:
                    completed = self._read_bodies(receiving, offset, 0, end)
                    if completed is not None:
                        return completed
                    if self._offset != offset:
                        continue
            if stop > end:
                self._release()
                return None
            if kind == FRAME_METHOD and size >= PUBLISH_MIN:
                channel = self._channels.get(number)
                if channel is not None and channel.state == IDLE:
                    ids = buffer[offset + 7 : offset + 11]
                    if ids == PUBLISH_IDS:
                        published = self._read_publishes(channel, offset, stop)
                        if published is not None:
                            return published
                        continue
                    if ids == ACK_IDS and size == 13:
                        return self._read_acks(channel, offset)
            self._offset = stop
            event = self._read_frame(
                kind, number, buffer[offset + 7 : stop - 1], buffer[stop - 1], offset, stop
            )
            if event is not None:
                return event

    def _release(self) -> None:
        """Let go of bytes that are parsed, so that an idle connection does not keep its last read."""
        if self._offset:
            self._buffer = self._buffer[self._offset :]
            self._offset = 0

    # -- the fast paths

    def _read_publishes(self, channel: ChannelInput, offset: int, stop: int) -> Published | None:
        """Read as many complete messages of one kind as there are; None if not even one is complete."""
        buffer = self._buffer
        end: int = len(buffer)
        if buffer[offset:stop] != channel.publish_frame:
            self._start_publish(channel, offset, stop)
        publish_frame = channel.publish_frame
        publish_size: int = len(publish_frame)
        messages: list[Message] = []
        prefix = channel.prefix
        prefix_size: int = len(prefix)
        prefix_body: int = channel.prefix_body
        prefix_total: int = channel.prefix_total
        envelope = channel.envelope
        while True:  # compiled, a slice and a comparison take a sixth of what `startswith` does
            if envelope is not None and prefix_total and buffer[offset : offset + prefix_size] == prefix:
                stop = offset + prefix_total
                if stop > end or buffer[stop - 1] != END:
                    break
                messages.append(Message(envelope, buffer[offset + publish_size : stop], prefix_body))
                offset = stop
                continue
            if buffer[offset : offset + publish_size] != publish_frame:
                break
            stop = self._read_content(channel, offset + publish_size, end)
            if stop == 0:
                break
            if channel.envelope is not envelope:
                if messages:  # other properties: an event of their own
                    channel.prefix_total = 0
                    break
                envelope = channel.envelope
            assert envelope is not None
            body: int = channel.announced
            messages.append(Message(envelope, buffer[offset + publish_size : stop], body))
            first_body: int = offset + publish_size + 8 + self._size_at(offset + publish_size)
            if body == 0:
                channel.prefix = buffer[offset:first_body]
                channel.prefix_total = stop - offset
            elif self._size_at(first_body) == body:
                channel.prefix = buffer[offset : first_body + 7]
                channel.prefix_total = stop - offset
            else:
                channel.prefix_total = 0
            channel.prefix_body = body
            prefix = channel.prefix
            prefix_size = len(prefix)
            prefix_body = body
            prefix_total = channel.prefix_total
            offset = stop
        if messages:
            self._offset = offset
            return Published(channel.number, channel.mandatory, channel.immediate, messages)
        # Not even one is complete: the publish is consumed, and its content goes frame by frame.
        self._offset = offset + publish_size
        channel.state = HEADER
        return None

    def _size_at(self, offset: int) -> int:
        """Payload size of the frame at an offset: the 4 bytes behind the first 3."""
        buffer = self._buffer
        return (
            (buffer[offset + 3] << 24)
            | (buffer[offset + 4] << 16)
            | (buffer[offset + 5] << 8)
            | buffer[offset + 6]
        )

    def _start_publish(self, channel: ChannelInput, offset: int, stop: int) -> None:
        """Decode a publish frame that differs from the one before."""
        frame = self._buffer[offset:stop]
        self.channel_in_progress = channel.number
        exchange_end: int = 14 + frame[13] if stop - offset > 14 else 0
        key_end: int = exchange_end + 1 + frame[exchange_end] if 0 < exchange_end < len(frame) - 1 else 0
        if key_end + 2 != len(frame) or frame[key_end + 1] != END:
            self._offset = stop
            self._check_end(FRAME_METHOD, frame[7:-1], frame[-1])
            raise FrameError(f"cannot decode {octets(frame[11:-1])}", class_id=BASIC, method_id=PUBLISH)
        channel.exchange = str(frame[14:exchange_end], "utf-8", "surrogateescape")
        channel.routing_key = str(frame[exchange_end + 1 : key_end], "utf-8", "surrogateescape")
        bits: int = frame[key_end]
        channel.mandatory = bits & 1 != 0
        channel.immediate = bits & 2 != 0
        channel.publish_frame = frame
        channel.envelope = None
        channel.prefix_total = 0

    def _read_content(self, channel: ChannelInput, offset: int, end: int) -> int:
        """Check a whole content in the buffer.

        Returns:
            where it ends, with the channel's `announced` and `envelope` set; 0 if it is not complete, or if
            anything about it is unusual (the slow path finds out what).
        """
        buffer = self._buffer
        if offset + 22 > end or buffer[offset] != FRAME_HEADER:
            return 0
        number: int = channel.number
        if (buffer[offset + 1] << 8) | buffer[offset + 2] != number:
            return 0
        size: int = self._size_at(offset)
        stop: int = offset + 8 + size
        if size < 14 or size > self.frame_max or stop > end or buffer[stop - 1] != END:
            return 0
        if (
            buffer[offset + 7 : offset + 15] != b"\x00\x3c\x00\x00\x00\x00\x00\x00"
        ):  # basic, weight 0, under 4 GiB
            return 0
        announced: int = int.from_bytes(buffer[offset + 15 : offset + 19], "big")
        if announced > self.max_message_bytes:
            return 0
        body_start: int = stop
        left: int = announced
        while left > 0:
            if stop + 7 > end or buffer[stop] != FRAME_BODY:
                return 0
            if (buffer[stop + 1] << 8) | buffer[stop + 2] != number:
                return 0
            part: int = self._size_at(stop)
            stop += 8 + part
            left -= part
            if part > self.frame_max - FRAME_OVERHEAD:
                return 0
            if left != 0 and part < SMALL_BODY and part * 4 < self.frame_max:
                return 0
            if left < 0 or stop > end or buffer[stop - 1] != END:
                return 0
        raw = buffer[offset + 19 : body_start - 1]
        if channel.envelope is None or channel.envelope.raw != raw:
            try:
                channel.envelope = self._envelope(channel, raw)
            except FieldSyntaxError:
                return 0
        channel.announced = announced
        return stop

    def _envelope(self, channel: ChannelInput, raw: bytes) -> Envelope:
        """Make the envelope for a property list."""
        fields = self._properties.get(raw)
        if fields is None:
            fields = Properties.parse(raw)
            if len(raw) <= PROPERTIES_CACHED_BYTES_MAX:
                if len(self._properties) >= PROPERTIES_CACHE_MAX:
                    self._properties.clear()
                self._properties[raw] = fields
        return Envelope(channel.exchange, channel.routing_key, raw, fields, channel.number, self.frame_max)

    def _read_open_frame(self, end: int) -> Published | None:
        """Take more of the open frame, and the frames behind it."""
        offset: int = self._offset
        missing: int = self._missing
        channel = self._open_channel
        if channel is not None:
            if end - offset < missing and end - offset < self._part_min():
                return None
            return self._read_bodies(channel, offset, missing, end)
        if missing > end - offset:
            self._missing = missing - (end - offset)
            self._offset = end
            return None
        self._missing = 0
        self._offset = offset + missing
        self._check_end(FRAME_BODY, self._open_start, self._buffer[offset + missing - 1])
        return None

    def _part_min(self) -> int:
        return max(SHOWN, min(PART_MIN, self.frame_max // 4))

    def _read_bodies(self, channel: ChannelInput, start: int, missing: int, end: int) -> Published | None:
        """Take body frames in a row as one piece, and the last of them even if it is not complete.

        What is unusual is left where it is, for the slow path to look at.

        Args:
            channel: whose content is on its way.
            start: where the open frame goes on, or the next frame begins.
            missing: bytes of the open frame; 0 if none is open.
            end: of the buffer.

        Returns:
            the event, if the body is complete.
        """
        buffer = self._buffer
        number: int = channel.number
        room: int = self.frame_max - FRAME_OVERHEAD
        small: int = min(SMALL_BODY, room // 4)
        left: int = channel.announced - channel.received  # body bytes behind the open frame
        at: int = start
        while missing or left:
            size: int = 0
            if missing == 0:
                if at + 7 > end or buffer[at] != FRAME_BODY:
                    break
                if (buffer[at + 1] << 8) | buffer[at + 2] != number:
                    break
                size = self._size_at(at)
                if size > room or size > left:
                    break
                if size < small and (size != left or channel.loose):
                    break
                missing = FRAME_OVERHEAD + size
                if at + missing > end:
                    if end - at - 7 < self._part_min():
                        missing = 0
                        break
                    self._open_start = buffer[at + 7 : at + 7 + SHOWN]
            if at + missing > end:
                missing -= end - at
                at = end
                left -= size
                break
            if buffer[at + missing - 1] != END:
                if size:
                    missing = 0
                    break
                self._missing = 0
                self._open_channel = None
                self._offset = at + missing
                self._check_end(FRAME_BODY, self._open_start, buffer[at + missing - 1])
            at += missing
            missing = 0
            left -= size
        self._missing = missing
        self._open_channel = channel if missing else None
        if at == start:
            return None
        self._offset = at
        if channel.loose:
            channel.chunks.append(body_frame(number, bytes(channel.loose)))
            channel.loose.clear()
        if (at - start) * 4 >= len(buffer) * 3:
            channel.chunks.append(memoryview(buffer)[start:at])  # it keeps no more than a third beside it
        else:
            channel.chunks.append(buffer[start:at])
        channel.received = channel.announced - left
        if missing or left:
            return None
        return self._complete(channel)

    def _read_acks(self, channel: ChannelInput, offset: int) -> Settled:
        """Read a run of acks of single deliveries, or one ack of many."""
        buffer = self._buffer
        end: int = len(buffer)
        start = channel.ack_start
        start_size: int = len(start)
        tags: list[int] = []
        while offset + 21 <= end and buffer[offset : offset + start_size] == start:
            if buffer[offset + 20] != END:
                if tags:
                    break
                self._offset = offset + 21
                self.channel_in_progress = channel.number
                self._check_end(FRAME_METHOD, buffer[offset + 7 : offset + 20], buffer[offset + 20])
            tag: int = self._size_at(offset + 12)
            if buffer[offset + 11 : offset + 15] != FOUR_ZEROS:  # it has more than 32 bits
                tag = int.from_bytes(buffer[offset + 11 : offset + 19], "big")
            if buffer[offset + 19] & 1:
                if tags:
                    break
                self._offset = offset + 21
                return Settled(channel.number, ACK, [tag], True, False)
            tags.append(tag)
            offset += 21
        self._offset = offset
        return Settled(channel.number, ACK, tags, False, False)

    # -- the slow path, frame by frame

    def _check_end(self, kind: int, payload: bytes, end_octet: int) -> None:
        if end_octet != END:
            self.channel_in_progress = 0
            self.is_lost = True
            raise FrameError(f"{describe_frame(kind, payload)}: {{invalid_frame_end_marker,{end_octet}}}")

    def _read_frame(
        self, kind: int, number: int, payload: bytes, end_octet: int, offset: int, stop: int
    ) -> Event | None:
        """Handle one complete frame."""
        self.channel_in_progress = number
        self._check_end(kind, payload, end_octet)
        if not _is_known(kind, len(payload)):
            self.channel_in_progress = 0
            raise FrameError(f"{describe_frame(kind, payload)}: unknown_frame")
        if kind == FRAME_HEARTBEAT:
            if number:
                self.channel_in_progress = 0
                raise UnexpectedFrame(describe_frame(kind, payload))
            return None
        if number in self._discarding and (kind != FRAME_METHOD or payload[:4] not in CHANNEL_STATE):
            return None
        if kind != FRAME_METHOD and (number == 0 or not self.is_running):
            raise UnexpectedFrame(describe_frame(kind, payload))
        channel = self._channels.get(number)
        if channel is not None and channel.state != IDLE:
            return self._continue_content(channel, kind, payload, offset, stop)
        if kind != FRAME_METHOD:
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if channel is not None:
            ids = payload[:4]
            if ids == PUBLISH_IDS:  # too short to be one: the decoder says so
                raise FrameError(f"cannot decode {octets(payload[4:])}", class_id=BASIC, method_id=PUBLISH)
            if ids == NACK_IDS and len(payload) == 13:
                bits: int = payload[12]
                tag = int.from_bytes(payload[4:12], "big")
                return Settled(number, NACK, [tag], bits & 1 != 0, bits & 2 != 0)
            if ids == REJECT_IDS and len(payload) == 13:
                tag = int.from_bytes(payload[4:12], "big")
                return Settled(number, REJECT, [tag], False, payload[12] & 1 != 0)
        return MethodReceived(number, decode_method(payload))

    def _continue_content(
        self, channel: ChannelInput, kind: int, payload: bytes, offset: int, stop: int
    ) -> Published | None:
        """Take the next frame of a content on its way; the event when it is complete."""
        if channel.state == HEADER:
            self._take_header(channel, kind, payload)
        else:
            if kind != FRAME_BODY:
                raise UnexpectedFrame(
                    "expected content body, got non content body frame instead",
                    class_id=BASIC,
                    method_id=PUBLISH,
                )
            channel.received += len(payload)
            if channel.received > channel.announced:
                raise FrameError(
                    "content body frame exceeds remaining content size", class_id=BASIC, method_id=PUBLISH
                )
        if kind == FRAME_BODY:
            self._take_body(channel, payload, offset, stop)
        else:
            channel.chunks.append(self._buffer[offset:stop])
        if channel.received < channel.announced:
            channel.state = BODY
            return None
        return self._complete(channel)

    def _complete(self, channel: ChannelInput) -> Published:
        """Make the event of a content whose last frame has come."""
        envelope = channel.envelope
        assert envelope is not None
        content = b"".join(channel.chunks)
        channel.chunks = []
        channel.state = IDLE
        message = Message(envelope, content, channel.announced)
        return Published(channel.number, channel.mandatory, channel.immediate, [message])

    def _take_body(self, channel: ChannelInput, payload: bytes, offset: int, stop: int) -> None:
        """Keep a body frame. Small ones are joined, so that a message costs its size however it was cut."""
        room: int = self.frame_max - FRAME_OVERHEAD
        loose = channel.loose
        small: int = min(SMALL_BODY, room // 4)
        is_small = len(payload) < small
        if is_small:
            loose += payload
        if loose and (not is_small or len(loose) > room - small or channel.received == channel.announced):
            channel.chunks.append(body_frame(channel.number, bytes(loose)))
            loose.clear()
        if len(payload) > room:
            # Taken although it is up to 8 bytes too large, as RabbitMQ does, but passed on as two frames.
            channel.chunks.append(body_frame(channel.number, payload[:room]))
            channel.chunks.append(body_frame(channel.number, payload[room:]))
        elif not is_small:
            channel.chunks.append(self._buffer[offset:stop])

    def _take_header(self, channel: ChannelInput, kind: int, payload: bytes) -> None:
        """Check a content header and begin a content with it."""
        if kind != FRAME_HEADER or payload[2:4] != b"\x00\x00":
            raise UnexpectedFrame(
                "expected content header for class 60, got non content header frame instead",
                class_id=BASIC,
                method_id=PUBLISH,
            )
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != BASIC:
            raise UnexpectedFrame(
                f"expected content header for class 60, got one for class {class_id} instead",
                class_id=BASIC,
                method_id=PUBLISH,
            )
        announced = int.from_bytes(payload[4:12], "big")
        if announced > BODY_BYTES_MAX:
            raise FrameError(
                f"content body size {announced} exceeds maximum allowed size {BODY_BYTES_MAX}",
                class_id=BASIC,
                method_id=PUBLISH,
            )
        if announced > self.max_message_bytes:
            words = "max size" if self.max_message_bytes == BODY_BYTES_MAX else "configured max size"
            raise PreconditionFailed(
                f"message size {announced} is larger than {words} {self.max_message_bytes}",
                class_id=BASIC,
                method_id=PUBLISH,
            )
        raw = payload[12:]
        if channel.envelope is None or channel.envelope.raw != raw:
            channel.envelope = self._envelope(channel, raw)
            channel.prefix_total = 0
        channel.announced = announced
        channel.received = 0
        channel.chunks = []
        channel.loose.clear()


def _is_known(kind: int, size: int) -> bool:
    """Whether a frame of this type can have a payload of so many bytes."""
    if kind == FRAME_METHOD:
        return size >= 4
    if kind == FRAME_HEADER:
        return size >= HEADER_MIN
    return kind == FRAME_BODY or (kind == FRAME_HEARTBEAT and size == 0)


def describe_frame(kind: int, payload: bytes) -> str:
    """Name a frame the way RabbitMQ's errors do."""
    if len(payload) > 16:
        return f"type {kind}, first 16 octets = {printable_octets(payload[:16])}"
    return f"type {kind}, all octets = {printable_octets(payload)}"


__all__ = [
    "ACK",
    "DEFAULT_FRAME_MAX",
    "FRAME_END",
    "NACK",
    "PUBLISH",
    "REJECT",
    "Event",
    "FrameReader",
    "MethodReceived",
    "Published",
    "Settled",
]
