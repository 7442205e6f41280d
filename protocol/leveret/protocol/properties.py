"""The 14 basic properties, read from and spliced into the bytes of a content header. HOT.

A message keeps its property list as the bytes that came, from the property flags on, and is delivered with
them. `Properties` looks into those bytes; `replace` makes new ones in which only the named properties
differ.

What RabbitMQ passes through passes here too: short strings that are not UTF-8, empty strings, any
timestamp, the unused flag bit 1. The headers are checked with the rest, and decoded when somebody asks for
them.

Source: AMQP 0-9-1 section 4.2.6.1 and class basic (60).
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Final, TypeAlias

from leveret.protocol import tables
from leveret.protocol.errors import FieldSyntaxError

CONTENT_TYPE: Final = 1 << 15
CONTENT_ENCODING: Final = 1 << 14
HEADERS: Final = 1 << 13
DELIVERY_MODE: Final = 1 << 12
PRIORITY: Final = 1 << 11
CORRELATION_ID: Final = 1 << 10
REPLY_TO: Final = 1 << 9
EXPIRATION: Final = 1 << 8
MESSAGE_ID: Final = 1 << 7
TIMESTAMP: Final = 1 << 6
TYPE: Final = 1 << 5
USER_ID: Final = 1 << 4
APP_ID: Final = 1 << 3
CLUSTER_ID: Final = 1 << 2
MORE_FLAGS: Final = 1  # another word of flags follows

NO_PROPERTIES: Final = b"\0\0"
PERSISTENT: Final = 2  # a delivery mode

PROPERTY_NAMES: Final = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)  # in the order of their flags and values


class Properties:
    """The properties of one message; None stands for a property that is not set.

    Short strings are the bytes that came. `headers_raw` is the table with its 4-byte length, `headers` the
    same decoded.
    """

    __slots__ = (
        "_headers",
        "app_id",
        "cluster_id",
        "content_encoding",
        "content_type",
        "correlation_id",
        "delivery_mode",
        "expiration",
        "headers_raw",
        "message_id",
        "priority",
        "reply_to",
        "reply_to_at",
        "timestamp",
        "type",
        "user_id",
    )

    def __init__(self) -> None:
        self.content_type: bytes | None = None
        self.content_encoding: bytes | None = None
        self.headers_raw: bytes | None = None
        self.delivery_mode: int | None = None
        self.priority: int | None = None
        self.correlation_id: bytes | None = None
        self.reply_to: bytes | None = None
        self.reply_to_at: int = 0  # where in the property list it begins, with its length
        self.expiration: bytes | None = None
        self.message_id: bytes | None = None
        self.timestamp: int | None = None
        self.type: bytes | None = None
        self.user_id: bytes | None = None
        self.app_id: bytes | None = None
        self.cluster_id: bytes | None = None
        self._headers: tables.Table | None = None

    @staticmethod
    def parse(raw: bytes) -> Properties:
        """Read a property list, from the property flags to the end of the content header.

        Raises:
            FieldSyntaxError: it is cut short or goes on behind the last property, has flags that nobody
                knows, or its headers are no table (RabbitMQ has no words for this: 541 INTERNAL_ERROR).
        """
        properties = Properties()
        try:
            position = _read(properties, raw)
        except IndexError as error:
            raise FieldSyntaxError("content header is truncated") from error
        if position != len(raw):
            reason = "is truncated" if position > len(raw) else "has bytes behind its properties"
            raise FieldSyntaxError(f"content header {reason}")
        return properties

    def replace_reply_to(self, raw: bytes, reply_to: bytes) -> bytes:
        """Put another reply-to into the property list that this was parsed from, which has one.

        The quick form of `replace`, for direct reply-to: each request needs it.
        """
        assert self.reply_to is not None
        at = self.reply_to_at
        return raw[:at] + len(reply_to).to_bytes(1, "big") + reply_to + raw[at + 1 + len(self.reply_to) :]

    def with_reply_to(self, reply_to: bytes) -> Properties:
        """Return what `parse` would return for the result of `replace_reply_to`."""
        made = Properties()
        made.content_type = self.content_type
        made.content_encoding = self.content_encoding
        made.headers_raw = self.headers_raw
        made.delivery_mode = self.delivery_mode
        made.priority = self.priority
        made.correlation_id = self.correlation_id
        made.reply_to = reply_to
        made.reply_to_at = self.reply_to_at
        made.expiration = self.expiration
        made.message_id = self.message_id
        made.timestamp = self.timestamp
        made.type = self.type
        made.user_id = self.user_id
        made.app_id = self.app_id
        made.cluster_id = self.cluster_id
        return made

    @property
    def headers(self) -> tables.Table | None:
        """The headers, decoded at the first use and then shared: do not change them."""
        if self._headers is None and self.headers_raw is not None:
            self._headers = tables.decode_table(self.headers_raw)[0]
        return self._headers


def _read(properties: Properties, raw: bytes) -> int:
    """Fill in the properties; the result is where they end, which may be behind the end of `raw`."""
    flags: int = (raw[0] << 8) | raw[1]
    position: int = 2 if not flags & MORE_FLAGS else _skip_more_flags(raw)
    start: int
    if flags & CONTENT_TYPE:
        start = position + 1
        position = start + raw[position]
        properties.content_type = raw[start:position]
    if flags & CONTENT_ENCODING:
        start = position + 1
        position = start + raw[position]
        properties.content_encoding = raw[start:position]
    if flags & HEADERS:
        start = position
        position = tables.check_table(raw, start)
        properties.headers_raw = raw[start:position]
    if flags & DELIVERY_MODE:
        properties.delivery_mode = raw[position]
        position += 1
    if flags & PRIORITY:
        properties.priority = raw[position]
        position += 1
    if flags & CORRELATION_ID:
        start = position + 1
        position = start + raw[position]
        properties.correlation_id = raw[start:position]
    if flags & REPLY_TO:
        properties.reply_to_at = position
        start = position + 1
        position = start + raw[position]
        properties.reply_to = raw[start:position]
    if flags & EXPIRATION:
        start = position + 1
        position = start + raw[position]
        properties.expiration = raw[start:position]
    if flags & MESSAGE_ID:
        start = position + 1
        position = start + raw[position]
        properties.message_id = raw[start:position]
    if flags & TIMESTAMP:
        start = position
        position += 8
        properties.timestamp = int.from_bytes(raw[start:position], "big")
    if flags & TYPE:
        start = position + 1
        position = start + raw[position]
        properties.type = raw[start:position]
    if flags & USER_ID:
        start = position + 1
        position = start + raw[position]
        properties.user_id = raw[start:position]
    if flags & APP_ID:
        start = position + 1
        position = start + raw[position]
        properties.app_id = raw[start:position]
    if flags & CLUSTER_ID:
        start = position + 1
        position = start + raw[position]
        properties.cluster_id = raw[start:position]
    return position


def _skip_more_flags(raw: bytes) -> int:
    """Walk over further words of flags, which are legal as long as they set nothing."""
    position = 2
    while True:
        word = (raw[position] << 8) | raw[position + 1]
        position += 2
        if word & ~MORE_FLAGS:
            raise FieldSyntaxError("content header has unknown property flags")
        if not word & MORE_FLAGS:
            return position


class Keep(Enum):
    """The type of `KEEP`: leave a property as it is."""

    KEEP = 0


KEEP: Final = Keep.KEEP
ShortString: TypeAlias = bytes | str | Keep | None
Octet: TypeAlias = int | Keep | None


def replace(
    raw: bytes = NO_PROPERTIES,
    *,
    content_type: ShortString = KEEP,
    content_encoding: ShortString = KEEP,
    headers: tables.Table | Keep | None = KEEP,
    delivery_mode: Octet = KEEP,
    priority: Octet = KEEP,
    correlation_id: ShortString = KEEP,
    reply_to: ShortString = KEEP,
    expiration: ShortString = KEEP,
    message_id: ShortString = KEEP,
    timestamp: Octet = KEEP,
    type: ShortString = KEEP,  # noqa: A002  # the name of the property
    user_id: ShortString = KEEP,
    app_id: ShortString = KEEP,
    cluster_id: ShortString = KEEP,
) -> bytes:
    """Set or, with None, remove the named properties of a property list; every other byte stays.

    Without `raw` it makes a property list from nothing.

    Raises:
        FieldSyntaxError: `raw` is malformed.
        ValueError: a value has no room in its property.
    """
    changes: tuple[tables.Table | bytes | str | int | Keep | None, ...] = (
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        type,
        user_id,
        app_id,
        cluster_id,
    )
    old = encoded_values(raw)
    values: list[bytes] = []
    flags = (raw[0] << 8) | raw[1]
    for index, change in enumerate(changes):
        value = old[index] if isinstance(change, Keep) else _encode(index, change)
        if value is None:
            flags &= ~(CONTENT_TYPE >> index)
        else:
            flags |= CONTENT_TYPE >> index
            values.append(value)
    more_flags = raw[2 : _skip_more_flags(raw)] if flags & MORE_FLAGS else b""
    return flags.to_bytes(2, "big") + more_flags + b"".join(values)


def encoded_values(raw: bytes) -> list[bytes | None]:
    """Split a property list into the bytes of its 14 values, None for one that is not set."""
    Properties.parse(raw)  # from here on every length can be trusted
    flags = (raw[0] << 8) | raw[1]
    position = _skip_more_flags(raw) if flags & MORE_FLAGS else 2
    values: list[bytes | None] = []
    for index in range(len(PROPERTY_NAMES)):
        flag = CONTENT_TYPE >> index
        if not flags & flag:
            values.append(None)
            continue
        if flag == HEADERS:
            end = position + 4 + int.from_bytes(raw[position : position + 4], "big")
        elif flag in (DELIVERY_MODE, PRIORITY):
            end = position + 1
        elif flag == TIMESTAMP:
            end = position + 8
        else:
            end = position + 1 + raw[position]
        values.append(raw[position:end])
        position = end
    return values


def _encode(index: int, value: tables.Table | bytes | str | int | None) -> bytes | None:
    """Encode the value of the property with this index."""
    if value is None:
        return None
    if isinstance(value, dict):
        return tables.encode_table(value)
    if isinstance(value, int):
        size = 8 if CONTENT_TYPE >> index == TIMESTAMP else 1
        if not 0 <= value < 1 << 8 * size:
            raise ValueError(f"{value} is out of range for {PROPERTY_NAMES[index]}")
        return value.to_bytes(size, "big")
    text = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if len(text) > 255:
        raise ValueError(f"{PROPERTY_NAMES[index]} has at most 255 bytes, not {len(text)}")
    return len(text).to_bytes(1, "big") + text


def to_json(raw: bytes) -> str | None:
    """Show the properties that are set as a JSON object under their AMQP names; None if there are none.

    Raises:
        FieldSyntaxError: `raw` is malformed.
    """
    properties = Properties.parse(raw)
    shown: dict[str, object] = {}
    for name in PROPERTY_NAMES:
        if name == "headers":
            if properties.headers is not None:
                shown[name] = tables.to_json(properties.headers)
            continue
        value: bytes | int | None = getattr(properties, name)
        if value is not None:
            shown[name] = tables.json_bytes(value) if isinstance(value, bytes) else value
    return json.dumps(shown, ensure_ascii=False) if shown else None
