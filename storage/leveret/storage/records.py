"""A batch as a record of bytes, for a log that is written before the rows are. HOT.

A record holds what a small batch mostly has: definitions, persistent messages with their deadlines, what was
settled, returns, offsets and keys. All numbers are little-endian:

    record       format version (1), epoch (8), number (8), how many parts follow (4)
    part         what it holds (1), queue id (4; 0 for definitions), how many entries follow (4)
    definition   code of its class (1), its fields in order: numbers (8), booleans (1), texts and bytes as
                 their length (4) and themselves, tuples as how many (4) texts follow
    message      position (8), flags (1), length of its body (4); unless it is like the one before in its
                 part, the lengths of exchange, routing key and properties (4 each) and these; when it expires
                 (8) if a flag says so; the body
    settled      position (8), length of the body (8)
    returned     position (8), delivery count (8), acquired count (8), when it may be delivered again (8)
    offset       position (8), length (4) of the consumer tag, and that
    key          when it expires (8), length (4), and the key

Names that are not UTF-8 are surrogate escapes in a batch, and in a record the bytes they were. A record has
no checksum: whoever writes it adds one. Without, damage is found out or gives another batch; no exception but
`DamagedRecordError` comes of it.
"""

from __future__ import annotations

from dataclasses import fields
from struct import Struct
from typing import TYPE_CHECKING, Final, cast

from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import (
    MAX_POSITION,
    MAX_QUEUE_ID,
    Bound,
    ExchangeDeclared,
    ExchangeDeleted,
    ExchangeQueueDeclared,
    ParameterCleared,
    ParameterSet,
    PermissionCleared,
    PermissionSet,
    PriorityLevelDeclared,
    QueueDeclared,
    QueueDeleted,
    QueueDelivered,
    QueuePurged,
    SegmentClosed,
    SegmentRemoved,
    TopicPermissionCleared,
    TopicPermissionSet,
    Unbound,
    UserDeleted,
    UserSet,
    VHostAdded,
    VHostDeleted,
)
from leveret.storage.stored import StoredMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.storage.batch import StoredContent
    from leveret.storage.changes import Definition

FORMAT_VERSION: Final = 1

# What a part holds
_DEFINITIONS: Final = 1
_ENQUEUED: Final = 2
_SETTLED: Final = 3
_RETURNED: Final = 4
_OFFSETS: Final = 5
_KEYS: Final = 6

# Flags of a message
_ALIKE: Final = 1  # exchange, routing key and properties are those of the one before
_EXPIRES: Final = 2
_DEAD_LETTERED: Final = 4

_HEADER: Final = Struct("<BQQI")
_PART: Final = Struct("<BII")
_MESSAGE_ALIKE: Final = Struct("<QBI")
_ENVELOPE: Final = Struct("<III")
_MESSAGE: Final = Struct("<QBIIII")  # the two before in one
_PAIR: Final = Struct("<QQ")
_RETURN: Final = Struct("<Qqqq")
_NUMBER: Final = Struct("<q")
_NUMBER_AND_LENGTH: Final = Struct("<qI")
_LENGTH: Final = Struct("<I")

# A code is never used for another class again.
DEFINITION_CODES: Final[dict[int, type]] = {
    1: ExchangeDeclared,
    2: ExchangeDeleted,
    3: QueueDeclared,
    4: ExchangeQueueDeclared,
    5: PriorityLevelDeclared,
    6: QueueDeleted,
    7: QueueDelivered,
    8: QueuePurged,
    9: SegmentClosed,
    10: SegmentRemoved,
    11: Bound,
    12: Unbound,
    13: VHostAdded,
    14: VHostDeleted,
    15: UserSet,
    16: UserDeleted,
    17: PermissionSet,
    18: PermissionCleared,
    19: TopicPermissionSet,
    20: TopicPermissionCleared,
    21: ParameterSet,
    22: ParameterCleared,
}


class DamagedRecordError(Exception):
    """A record cannot have been written like this."""


class Layout:
    """How definitions of a class are written.

    Args:
        code: number of the class.
        definition: the class.
    """

    __slots__ = ("code", "fields", "make")

    def __init__(self, code: int, definition: type) -> None:
        self.code = code
        self.make = cast("Callable[..., Definition]", definition)
        # Names, and types as text; where the class is compiled they are there as types
        self.fields: list[tuple[str, str]] = [
            (field.name, field.type if isinstance(field.type, str) else field.type.__name__)
            for field in fields(definition)
        ]


_LAYOUTS: Final[dict[int, Layout]] = {
    code: Layout(code, definition) for code, definition in DEFINITION_CODES.items()
}
_LAYOUT_OF: Final[dict[type, Layout]] = {
    definition: _LAYOUTS[code] for code, definition in DEFINITION_CODES.items()
}


def is_recordable(batch: Batch) -> bool:
    """Whether a record can hold all of a batch.

    It cannot hold transient messages, delayed ones and those of streams. Nor can it hold that a vhost is
    deleted: which messages go with it cannot be told, so nothing could be merged with it.
    """
    for definition in batch.definitions:
        if isinstance(definition, VHostDeleted):
            return False
    return not (
        (batch.spilled and any(batch.spilled.values()))
        or (batch.delayed and any(batch.delayed.values()))
        or (batch.streamed and any(batch.streamed.values()))
    )


def fits_record(batch: Batch, max_entries: int, max_bytes: int) -> bool:
    """Whether the record of a batch surely has no more entries and bytes than this.

    What is settled counts by its bytes alone: an ack may settle hundreds of messages, and each is soon done.
    The more of it there is beyond, the less is looked at: a large batch costs nothing.
    """
    entries = len(batch.definitions) + len(batch.enqueued) + len(batch.settled)
    entries += len(batch.returned) + len(batch.offsets) + len(batch.keys)
    if entries > max_entries:
        return False
    entries = len(batch.definitions)
    parts = 1 if entries else 0
    for messages in batch.enqueued.values():
        entries += len(messages)
        parts += 1
    left = max_bytes - _HEADER.size
    for settled in batch.settled.values():
        parts += 1
        left -= len(settled) * _PAIR.size
    for returned in batch.returned.values():
        entries += len(returned)
        parts += 1
        left -= len(returned) * _RETURN.size
    for offsets in batch.offsets.values():
        entries += len(offsets)
        parts += 1
    for keys in batch.keys.values():
        entries += len(keys)
        parts += 1
    left -= parts * _PART.size
    if entries > max_entries or left < 0:
        return False
    for messages in batch.enqueued.values():
        left = _left_after_messages(messages, left)
        if left < 0:
            return False
    for definition in batch.definitions:
        left -= _definition_bytes(definition)
        if left < 0:
            return False
    for offsets in batch.offsets.values():
        for tag in offsets:
            left -= _NUMBER_AND_LENGTH.size + _most_bytes(tag)
    for keys in batch.keys.values():
        for key in keys:
            left -= _NUMBER_AND_LENGTH.size + len(key)
    return left >= 0


def _left_after_messages(messages: dict[int, StoredContent], left: int) -> int:
    """Take what messages of a queue need from the bytes that are left, until there are none."""
    last: bytes | None = None
    exchange = routing_key = ""
    for message in messages.values():
        left -= _MESSAGE.size + _NUMBER.size + message.body_bytes
        properties = message.properties
        if not (properties is last and message.routing_key == routing_key and message.exchange == exchange):
            last, exchange, routing_key = properties, message.exchange, message.routing_key
            left -= len(properties) + _most_bytes(exchange) + _most_bytes(routing_key)
        if left < 0:
            break
    return left


def _most_bytes(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def _definition_bytes(definition: Definition) -> int:
    size = 1
    for name, kind in _LAYOUT_OF[type(definition)].fields:
        value: object = getattr(definition, name)
        size += 8
        if isinstance(value, str):
            size += _most_bytes(value)
        elif isinstance(value, bytes):
            size += len(value)
        elif kind.startswith("tuple"):
            for text in cast("tuple[str, ...]", value):
                size += _LENGTH.size + _most_bytes(text)
    return size


def encode_batch(batch: Batch) -> bytes:
    """Return the record of a batch for which `is_recordable` is true, and which is no larger than 4 GiB."""
    pieces: list[bytes] = [b""]
    parts = 0
    if batch.definitions:
        parts += 1
        pieces.append(_PART.pack(_DEFINITIONS, 0, len(batch.definitions)))
        for definition in batch.definitions:
            _append_definition(pieces, definition)
    for queue_id, messages in batch.enqueued.items():
        if messages:
            parts += 1
            pieces.append(_PART.pack(_ENQUEUED, queue_id, len(messages)))
            _append_messages(pieces, messages, batch.expiries.get(queue_id) if batch.expiries else None)
    for queue_id, settled in batch.settled.items():
        if settled:
            parts += 1
            pieces.append(_PART.pack(_SETTLED, queue_id, len(settled)))
            for position, body_bytes in settled.items():
                pieces.append(_PAIR.pack(position, body_bytes))
    if batch.returned:
        for queue_id, returned in batch.returned.items():
            parts += 1
            pieces.append(_PART.pack(_RETURNED, queue_id, len(returned)))
            for position, known in returned.items():
                pieces.append(
                    _RETURN.pack(position, known.delivery_count, known.acquired_count, known.retry_at_ms)
                )
    if batch.offsets:
        for queue_id, offsets in batch.offsets.items():
            parts += 1
            pieces.append(_PART.pack(_OFFSETS, queue_id, len(offsets)))
            for tag, position in offsets.items():
                encoded = _encoded(tag)
                pieces += (_NUMBER_AND_LENGTH.pack(position, len(encoded)), encoded)
    if batch.keys:
        for queue_id, keys in batch.keys.items():
            parts += 1
            pieces.append(_PART.pack(_KEYS, queue_id, len(keys)))
            for key, expires_at_ms in keys.items():
                pieces += (_NUMBER_AND_LENGTH.pack(expires_at_ms, len(key)), key)
    pieces[0] = _HEADER.pack(FORMAT_VERSION, batch.epoch, batch.number, parts)
    return b"".join(pieces)


def _encoded(text: str) -> bytes:
    return text.encode() if text.isascii() else text.encode("utf-8", "surrogateescape")


def _append_messages(
    pieces: list[bytes], messages: dict[int, StoredContent], expiries: dict[int, int] | None
) -> None:
    last: bytes | None = None
    exchange = routing_key = ""
    for position, message in messages.items():
        flags = 0
        if message.dead_lettered:
            flags = _DEAD_LETTERED
        expires_at_ms: int | None = None
        if expiries is not None:
            expires_at_ms = expiries.get(position)
            if expires_at_ms is not None:
                flags |= _EXPIRES
        properties = message.properties
        body = message.body
        if properties == last and message.routing_key == routing_key and message.exchange == exchange:
            pieces.append(_MESSAGE_ALIKE.pack(position, flags | _ALIKE, len(body)))
        else:
            last, exchange, routing_key = properties, message.exchange, message.routing_key
            exchange_bytes = _encoded(exchange)
            key_bytes = _encoded(routing_key)
            pieces.append(
                _MESSAGE.pack(
                    position, flags, len(body), len(exchange_bytes), len(key_bytes), len(properties)
                )
            )
            pieces.append(exchange_bytes)
            pieces.append(key_bytes)
            pieces.append(properties)
        if expires_at_ms is not None:
            pieces.append(_NUMBER.pack(expires_at_ms))
        pieces.append(body)


def _append_definition(pieces: list[bytes], definition: Definition) -> None:
    layout = _LAYOUT_OF[type(definition)]
    pieces.append(layout.code.to_bytes(1, "little"))
    for name, _ in layout.fields:
        value: object = getattr(definition, name)
        if isinstance(value, str):
            _append_text(pieces, value)
        elif isinstance(value, bytes):
            pieces += (_LENGTH.pack(len(value)), value)
        elif isinstance(value, bool):
            pieces.append(b"\x01" if value else b"\x00")
        elif isinstance(value, int):
            pieces.append(_NUMBER.pack(value))
        else:
            texts = cast("tuple[str, ...]", value)
            pieces.append(_LENGTH.pack(len(texts)))
            for text in texts:
                _append_text(pieces, text)


def _append_text(pieces: list[bytes], text: str) -> None:
    encoded = _encoded(text)
    pieces += (_LENGTH.pack(len(encoded)), encoded)


def decode_batch(data: bytes) -> Batch:
    """Return the batch of a record; its messages are `StoredMessage`s.

    Raises:
        DamagedRecordError: this is no record, or not one of this version.
    """
    reader = _Reader(data)
    if not data or data[0] != FORMAT_VERSION:
        raise DamagedRecordError(f"the record has format {data[:1].hex() or 'nothing'}")
    _, epoch, number, parts = reader.numbers(_HEADER)
    batch = Batch(number, epoch)
    for _ in range(parts):
        holds, queue_id, count = reader.numbers(_PART)
        if queue_id > MAX_QUEUE_ID:
            raise DamagedRecordError(f"there is no queue {queue_id}")
        if holds == _DEFINITIONS:
            for _ in range(count):
                batch.definitions.append(reader.definition())
        elif holds == _ENQUEUED:
            reader.messages(batch, queue_id, count)
        elif holds == _SETTLED:
            settled = batch.settled.setdefault(queue_id, {})
            for _ in range(count):
                position, body_bytes = reader.numbers(_PAIR)
                settled[_checked(position)] = body_bytes
        elif holds == _RETURNED:
            returned = batch.returned.setdefault(queue_id, {})
            for _ in range(count):
                position, delivery_count, acquired_count, retry_at_ms = reader.numbers(_RETURN)
                returned[_checked(position)] = Returned(delivery_count, acquired_count, retry_at_ms)
        elif holds == _OFFSETS:
            offsets = batch.offsets.setdefault(queue_id, {})
            for _ in range(count):
                position, length = reader.numbers(_NUMBER_AND_LENGTH)
                offsets[reader.text(length)] = position
        elif holds == _KEYS:
            keys = batch.keys.setdefault(queue_id, {})
            for _ in range(count):
                expires_at_ms, length = reader.numbers(_NUMBER_AND_LENGTH)
                keys[reader.take(length)] = expires_at_ms
        else:
            raise DamagedRecordError(f"a part holds {holds}, which nobody knows")
    reader.require_end()
    return batch


def _checked(position: int) -> int:
    if position > MAX_POSITION:
        raise DamagedRecordError(f"there is no position {position}")
    return position


class _Reader:
    """Reads a record from its beginning to its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        start = self._at
        end = start + size
        if end > len(self._data):
            raise DamagedRecordError(f"the record ends at {len(self._data)}, not at {end} or later")
        self._at = end
        return self._data[start:end]

    def numbers(self, layout: Struct) -> tuple[int, ...]:
        """Return the next numbers."""
        return layout.unpack(self.take(layout.size))

    def text(self, size: int) -> str:
        """Return the next text, of so many bytes."""
        return self.take(size).decode("utf-8", "surrogateescape")

    def require_end(self) -> None:
        """Refuse what follows the last part."""
        if self._at != len(self._data):
            raise DamagedRecordError(f"the record ends at {len(self._data)}, not at {self._at}")

    def messages(self, batch: Batch, queue_id: int, count: int) -> None:
        """Read messages of a queue into a batch."""
        entries = batch.enqueued.setdefault(queue_id, {})
        exchange = routing_key = ""
        properties: bytes | None = None
        for _ in range(count):
            position, flags, body_bytes = self.numbers(_MESSAGE_ALIKE)
            if flags > _ALIKE | _EXPIRES | _DEAD_LETTERED:
                raise DamagedRecordError(f"a message has flags {flags}")
            if not flags & _ALIKE:
                exchange_bytes, key_bytes, properties_bytes = self.numbers(_ENVELOPE)
                exchange = self.text(exchange_bytes)
                routing_key = self.text(key_bytes)
                properties = self.take(properties_bytes)
            elif properties is None:
                raise DamagedRecordError("the first message of a queue is like one before")
            expires_at_ms: int | None = None
            if flags & _EXPIRES:
                expires_at_ms = self.numbers(_NUMBER)[0]
                batch.expire_at(queue_id, position, expires_at_ms)
            entries[_checked(position)] = StoredMessage(
                position,
                exchange,
                routing_key,
                properties,
                self.take(body_bytes),
                True,
                flags & _DEAD_LETTERED != 0,
                expires_at_ms,
            )

    def definition(self) -> Definition:
        """Return the next definition."""
        layout = _LAYOUTS.get(self.take(1)[0])
        if layout is None:
            raise DamagedRecordError("a definition has a code that nobody knows")
        values: list[object] = []
        for _, kind in layout.fields:
            if kind == "int":
                values.append(self.numbers(_NUMBER)[0])
            elif kind == "bool":
                byte = self.take(1)[0]
                if byte > 1:
                    raise DamagedRecordError(f"a boolean is {byte}")
                values.append(byte == 1)
            elif kind == "bytes":
                values.append(self.take(self._length()))
            elif kind == "str":
                values.append(self.text(self._length()))
            else:
                values.append(self._texts())
        return layout.make(*values)

    def _length(self) -> int:
        return self.numbers(_LENGTH)[0]

    def _texts(self) -> tuple[str, ...]:
        return tuple([self.text(self._length()) for _ in range(self._length())])
