"""Field tables with every type tag kept, so that decoding and encoding again gives the same bytes. HOT.

A value is a `Field`: RabbitMQ's type tag and a plain Python value. Which Python type goes with which tag:

    t bool     b B s u I i l L T int     f d float     S x bytes     D (scale, unscaled value)
    A list of Field     F Table (dict of key to Field)     V None

Keys are `str`, decoded from UTF-8 with surrogate escapes, so any byte string survives. Of duplicate keys
the first wins. RabbitMQ reads some tags differently from the specification: `s` and `u` are 16 bit, `L` is
signed.

Input is first checked whole by `check_table`, which walks it without recursion and without building anything.
The decoder behind it may then trust every length, and is at most `TABLE_DEPTH_MAX` calls deep.

Source: AMQP 0-9-1 section 4.2.5.5; RabbitMQ "AMQP 0-9-1 Errata", section 3.
"""

from __future__ import annotations

import base64
import math
import struct
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias, cast

from leveret.protocol.errors import FieldSyntaxError


class Field(NamedTuple):
    """One value of a table or an array, with the tag it has on the wire."""

    tag: str
    value: object | None  # the same as object, which mypyc cannot load here


Table: TypeAlias = dict[str, Field]
Array: TypeAlias = list[Field]

TABLE_DEPTH_MAX: Final = 32  # tables and arrays inside each other, the outermost counted
HEADERS_COUNT_MAX: Final = 1_024  # keys of the outermost table
FIELDS_MAX: Final = 16_384  # keys and array elements in all, nested ones included

TYPE_NAMES: Final[dict[str, str]] = {
    "t": "bool",
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "f": "float",
    "d": "double",
    "D": "decimal",
    "S": "longstr",
    "x": "binary",
    "T": "timestamp",
    "A": "array",
    "F": "table",
    "V": "void",
}  # tag -> the name in RabbitMQ's error texts

INTEGER_TAGS: Final = frozenset("bBsuIilL")
NUMBER_TAGS: Final = frozenset("bBsuIilLfd")
STRING_TAGS: Final = frozenset("Sx")

# What follows a tag: 0 to 8 bytes, or a 4-byte length and a string, or a 4-byte length and more fields.
_STRING: Final = 9
_TABLE: Final = 10
_ARRAY: Final = 11
_UNKNOWN: Final = 12
_SHAPES: Final = {
    **dict.fromkeys("V", 0),
    **dict.fromkeys("tbB", 1),
    **dict.fromkeys("su", 2),
    **dict.fromkeys("Iif", 4),
    **dict.fromkeys("D", 5),
    **dict.fromkeys("lLdT", 8),
    **dict.fromkeys("Sx", _STRING),
    "F": _TABLE,
    "A": _ARRAY,
}
_SHAPE_OF: Final = bytes(_SHAPES.get(chr(octet), _UNKNOWN) for octet in range(256))  # tag octet -> shape

_FLOAT: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")
_INTEGERS: Final = {
    "b": (1, True),
    "B": (1, False),
    "s": (2, True),
    "u": (2, False),
    "I": (4, True),
    "i": (4, False),
    "l": (8, True),
    "L": (8, True),
    "T": (8, False),
}  # tag -> size in bytes, signed


def check_table(data: bytes, offset: int = 0) -> int:
    """Walk over the table whose 4-byte length is at `offset`.

    Returns:
        Where the table ends in `data`.

    Raises:
        FieldSyntaxError: an unknown tag, something that runs past its end, or more than a limit above allows.
    """
    position = offset + 4
    if position > len(data):
        raise FieldSyntaxError("field table without a length")
    end = position + int.from_bytes(data[offset:position], "big")
    if end > len(data):
        raise FieldSyntaxError("field table is longer than the data")
    outer_ends: list[int] = []
    outer_kinds: list[int] = []
    kind = _TABLE
    headers = 0
    fields = 0
    while True:
        if position == end:
            if not outer_ends:
                return end
            end = outer_ends.pop()
            kind = outer_kinds.pop()
            continue
        fields += 1
        if kind == _TABLE:
            position += 1 + data[position]  # the key
            if not outer_ends:
                headers += 1
                if headers > HEADERS_COUNT_MAX:
                    raise FieldSyntaxError(f"field table has more than {HEADERS_COUNT_MAX} keys")
        if position >= end:
            raise FieldSyntaxError("field table is truncated")
        shape = _SHAPE_OF[data[position]]
        position += 1
        if shape < _STRING:
            position += shape
        elif shape == _UNKNOWN:
            raise FieldSyntaxError(f"unknown field table type {_shown_tag(data[position - 1])}")
        else:
            length = int.from_bytes(data[position : position + 4], "big")
            position += 4
            if shape == _STRING:
                position += length
            elif position + length <= end:
                outer_ends.append(end)
                outer_kinds.append(kind)
                if len(outer_ends) >= TABLE_DEPTH_MAX:
                    raise FieldSyntaxError(f"field table is nested deeper than {TABLE_DEPTH_MAX} levels")
                end = position + length
                kind = shape
            else:
                position = end + 1
        if position > end:
            raise FieldSyntaxError("field table is truncated")
        if fields > FIELDS_MAX:
            raise FieldSyntaxError(f"field table has more than {FIELDS_MAX} values")


def decode_table(data: bytes, offset: int = 0) -> tuple[Table, int]:
    """Decode the table whose 4-byte length is at `offset`.

    Returns:
        The table, and where it ends in `data`.

    Raises:
        FieldSyntaxError: as `check_table`.
    """
    end = check_table(data, offset)
    return _decode_fields(data, offset + 4, end), end


def decode_fields(data: bytes) -> Table:
    """Decode a table that comes without its length, as in an AMQPLAIN response.

    Raises:
        FieldSyntaxError: as `check_table`.
    """
    return decode_table(len(data).to_bytes(4, "big") + data)[0]


def _decode_fields(data: bytes, position: int, end: int) -> Table:
    table: Table = {}
    while position < end:
        start = position + 1
        position = start + data[position]
        key = data[start:position].decode("utf-8", "surrogateescape")
        field, position = _decode_field(data, position)
        table.setdefault(key, field)
    return table


def _decode_array(data: bytes, position: int, end: int) -> Array:
    array: Array = []
    while position < end:
        field, position = _decode_field(data, position)
        array.append(field)
    return array


def _decode_field(data: bytes, position: int) -> tuple[Field, int]:
    """Decode the value whose tag is at `position`, in data that was checked."""
    tag = chr(data[position])
    position += 1
    shape = _SHAPE_OF[data[position - 1]]
    if shape >= _STRING:
        start = position + 4
        end = start + int.from_bytes(data[position:start], "big")
        if shape == _STRING:
            return Field(tag, data[start:end]), end
        if shape == _TABLE:
            return Field(tag, _decode_fields(data, start, end)), end
        return Field(tag, _decode_array(data, start, end)), end
    end = position + shape
    integer = _INTEGERS.get(tag)
    if integer is not None:
        return Field(tag, int.from_bytes(data[position:end], "big", signed=integer[1])), end
    if tag == "t":
        return Field(tag, data[position] != 0), end
    if tag == "d":
        return Field(tag, _DOUBLE.unpack_from(data, position)[0]), end
    if tag == "f":
        return Field(tag, _FLOAT.unpack_from(data, position)[0]), end
    if tag == "D":
        return Field(tag, (data[position], int.from_bytes(data[position + 1 : end], "big"))), end
    return Field(tag, None), end


def encode_table(table: Table) -> bytes:
    """Encode a table with its 4-byte length; keys keep their order.

    Raises:
        ValueError: a key over 255 bytes, an unknown tag, or a number that its tag has no room for.
    """
    parts: list[bytes] = []
    for key, field in table.items():
        name = key.encode("utf-8", "surrogateescape")
        if len(name) > 255:
            raise ValueError(f"a field table key has at most 255 bytes, not {len(name)}")
        parts.append(bytes((len(name),)) + name)
        parts.append(encode_field(field))
    return _with_length(b"".join(parts))


def encode_field(field: Field) -> bytes:
    """Encode one value with its tag in front.

    Raises:
        ValueError: as `encode_table`.
    """
    tag, value = field
    mark = tag.encode("latin-1")
    if tag in STRING_TAGS:
        return mark + _with_length(cast("bytes", value))
    if tag == "F":
        return mark + encode_table(cast("Table", value))
    if tag == "A":
        return mark + _with_length(b"".join([encode_field(element) for element in cast("Array", value)]))
    if tag == "t":
        return mark + (b"\1" if value else b"\0")
    if tag == "V":
        return mark
    integer = _INTEGERS.get(tag)
    try:
        if integer is not None:
            return mark + cast("int", value).to_bytes(integer[0], "big", signed=integer[1])
        if tag == "d":
            return mark + _DOUBLE.pack(value)
        if tag == "f":
            return mark + _FLOAT.pack(value)
        if tag == "D":
            scale, unscaled = cast("tuple[int, int]", value)
            return mark + scale.to_bytes(1, "big") + unscaled.to_bytes(4, "big")
    except OverflowError as error:
        raise ValueError(f"{value} does not fit a {TYPE_NAMES[tag]}") from error
    raise ValueError(f"unknown field table type {tag!r}")


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def from_python(value: object) -> Field:
    """Choose tags for plain values: str, bytes S, bool t, int l, float d, None V, list A, dict F.

    A `Field` inside is kept as it is, so any other tag can be had too.
    """
    if isinstance(value, Field):
        return value
    if isinstance(value, str):
        return Field("S", value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes | bytearray):
        return Field("S", bytes(value))
    if isinstance(value, bool):
        return Field("t", value)
    if isinstance(value, int):
        return Field("l", value)
    if isinstance(value, float):
        return Field("d", value)
    if isinstance(value, dict):
        return Field("F", {str(key): from_python(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Field("A", [from_python(item) for item in value])
    if value is None:
        return Field("V", None)
    raise TypeError(f"no field table type for {type(value).__name__}")


def longstr(table: Table, key: str) -> str | None:
    """Text of a string value (`S`, `x`); None if the key is missing or has another type."""
    field = table.get(key)
    if field is None or field.tag not in STRING_TAGS:
        return None
    return cast("bytes", field.value).decode("utf-8", "surrogateescape")


def integer(table: Table, key: str) -> int | None:
    """An integer of any integer type; None if the key is missing or has another type."""
    field = table.get(key)
    return cast("int", field.value) if field is not None and field.tag in INTEGER_TAGS else None


def boolean(table: Table, key: str) -> bool | None:
    """A boolean; None if the key is missing or has another type."""
    field = table.get(key)
    return cast("bool", field.value) if field is not None and field.tag == "t" else None


def nested(table: Table, key: str) -> Table | None:
    """A table inside; None if the key is missing or has another type."""
    field = table.get(key)
    return cast("Table", field.value) if field is not None and field.tag == "F" else None


def array(table: Table, key: str) -> Array | None:
    """An array inside; None if the key is missing or has another type."""
    field = table.get(key)
    return cast("Array", field.value) if field is not None and field.tag == "A" else None


def same_value(left: Field, right: Field) -> bool:
    """Whether two values are equal as RabbitMQ compares headers and arguments.

    Numbers and timestamps are equal by value whatever their type (1 equals 1.0), strings by their bytes (`S`
    and `x`). Everything else is equal only to its own kind, and inside arrays and tables the types must
    agree too.

    Source: RabbitMQ 3.10, a headers exchange with every pair of types.
    """
    if left.tag in NUMBER_TAGS or left.tag == "T":
        return (right.tag in NUMBER_TAGS or right.tag == "T") and left.value == right.value
    if left.tag in STRING_TAGS:
        return right.tag in STRING_TAGS and left.value == right.value
    return left == right


def to_json(table: Table) -> dict[str, object]:
    """Make a table readable: what `json.dumps` takes, with text where the bytes are text."""
    return {readable_text(key): json_value(field) for key, field in table.items()}


def json_value(field: Field) -> object:
    """Make a value readable: bytes that are no text become `{"base64": ...}`, decimals and NaN a string."""
    tag, value = field
    if tag in STRING_TAGS:
        return json_bytes(cast("bytes", value))
    if tag == "F":
        return to_json(cast("Table", value))
    if tag == "A":
        return [json_value(element) for element in cast("Array", value)]
    if tag == "D":
        scale, unscaled = cast("tuple[int, int]", value)
        return str(Decimal(unscaled).scaleb(-scale))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_bytes(data: bytes) -> object:
    """Text if the bytes are UTF-8, else `{"base64": ...}`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def readable_text(text: str) -> str:
    r"""Replace bytes that are not UTF-8 by `\xNN`, so that the text can go into JSON, logs and terminals."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shown_tag(octet: int) -> str:
    return f"'{chr(octet)}'" if 32 < octet < 127 else str(octet)
