"""The broker's side of the hot methods as bytes: deliveries, get-ok, returns and confirms. HOT.

Each function makes whole frames. A delivery is joined from four pieces: what repeats for the consumer, with
all of the delivery tag but its last octet; that octet, from a table, because to make bytes of an integer is
as much work as all the rest; what repeats for the exchange and routing key; and the content frames as they
came. `methods.py` is the plain version that these are tested against.
"""

from __future__ import annotations

from typing import Final

from leveret.protocol.content import FRAME_END, BareMessage, Message, short_string

HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

BASIC_DELIVER: Final = b"\x00\x3c\x00\x3c"
BASIC_GET_OK: Final = b"\x00\x3c\x00\x47"
BASIC_RETURN: Final = b"\x00\x3c\x00\x32"
BASIC_ACK: Final = b"\x00\x3c\x00\x50"
BASIC_NACK: Final = b"\x00\x3c\x00\x78"
TAG_AND_FLAG: Final = 9  # bytes: a delivery tag and one octet of bits
# The last octet of a delivery tag and the octet of bits, by that octet: without and with `redelivered`
_TAG_ENDS: Final = [bytes([octet, 0]) for octet in range(256)]
_REDELIVERED_TAG_ENDS: Final = [bytes([octet, 1]) for octet in range(256)]


def deliver_prefix(consumer_tag: str) -> bytes:
    """Return the part of basic.deliver's payload that is the same for all deliveries to a consumer."""
    return BASIC_DELIVER + short_string(consumer_tag)


def encode_deliveries(
    out: list[bytes],
    prefix: bytes,
    channel: int,
    frame_max: int,
    first_tag: int,
    redelivered: bool,
    messages: list[Message],
) -> int:
    """Append deliveries with consecutive tags to `out`.

    Args:
        out: pieces to be joined and written.
        prefix: `deliver_prefix` of the consumer.
        channel: number of the consumer's channel.
        frame_max: what its connection negotiated.
        first_tag: delivery tag of the first message.
        redelivered: the bit, the same for all.
        messages: in order.

    Returns:
        how many bytes were appended.
    """
    start = b"\x01" + channel.to_bytes(2, "big")
    tag_ends = _REDELIVERED_TAG_ENDS if redelivered else _TAG_ENDS
    last: bytes = b""
    head: bytes = b""  # up to the last octet of the tag, so it is the same for 256 of them
    head_size = 0
    tag = first_tag
    written = 0
    for message in messages:
        envelope = message.envelope
        suffix = envelope.suffix
        octet = tag & 255
        if suffix is not last or octet == 0:
            size = len(prefix) + TAG_AND_FLAG + len(suffix) - 1
            head = start + size.to_bytes(4, "big") + prefix + (tag >> 8).to_bytes(7, "big")
            head_size = len(head) + 2 + len(suffix)
            last = suffix
        out.append(head)
        out.append(tag_ends[octet])
        out.append(suffix)
        written += head_size
        tag += 1
        if channel == envelope.channel and (
            envelope.frame_max <= frame_max or message.body_bytes + 8 <= frame_max
        ):
            if isinstance(message, BareMessage):
                out.append(message.start)
                out.append(message.bare_body)
                out.append(FRAME_END)
                written += len(message.start) + message.body_bytes + len(FRAME_END)
                continue
            content = message.content
        else:
            content = message.frames_for(channel, frame_max)
        out.append(content)
        written += len(content)
    return written


def encode_get_ok(
    channel: int, frame_max: int, tag: int, redelivered: bool, message: Message, message_count: int
) -> bytes:
    """Encode basic.get-ok with its content; `message_count` is what is still ready in the queue."""
    suffix = message.envelope.suffix[:-1]
    payload = (
        BASIC_GET_OK
        + (tag << 8 | (1 if redelivered else 0)).to_bytes(9, "big")
        + suffix
        + min(message_count, 0xFFFFFFFF).to_bytes(4, "big")
    )
    return method_frame(channel, payload) + message.frames_for(channel, frame_max)


def encode_return(channel: int, frame_max: int, reply_code: int, reply_text: str, message: Message) -> bytes:
    """Encode basic.return with its content."""
    payload = (
        BASIC_RETURN + reply_code.to_bytes(2, "big") + short_string(reply_text) + message.envelope.suffix[:-1]
    )
    return method_frame(channel, payload) + message.frames_for(channel, frame_max)


def encode_ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Encode basic.ack, the confirm of a publish or of all up to it."""
    return (
        b"\x01"
        + channel.to_bytes(2, "big")
        + b"\x00\x00\x00\x0d"
        + BASIC_ACK
        + (tag << 8 | (1 if multiple else 0)).to_bytes(9, "big")
        + FRAME_END
    )


def encode_nack(channel: int, tag: int, multiple: bool) -> bytes:
    """Encode basic.nack to a publisher. RabbitMQ sets the requeue bit, which means nothing here."""
    return (
        b"\x01"
        + channel.to_bytes(2, "big")
        + b"\x00\x00\x00\x0d"
        + BASIC_NACK
        + (tag << 8 | (3 if multiple else 2)).to_bytes(9, "big")
        + FRAME_END
    )


def method_frame(channel: int, payload: bytes) -> bytes:
    """Wrap an encoded method into its frame."""
    return b"\x01" + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + FRAME_END
