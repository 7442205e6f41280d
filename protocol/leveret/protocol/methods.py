"""Methods: from the payload of a method frame to a method object, and from a method object to a frame.

pamqp's command classes are the catalogue: each lists its fields in order with their types. Only that
metadata is used. pamqp's own codec refuses names that RabbitMQ allows, loses the types of table values and
stumbles over bytes that are not UTF-8, so the fields are decoded and set here: tables as tagged `Table`s,
strings as `str` with surrogate escapes.

Source: AMQP 0-9-1 section 4.2.4 and RabbitMQ's extensions; texts of RabbitMQ's rabbit_reader and
rabbit_framing.
"""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple, TypeVar, cast

from pamqp import commands
from pamqp.base import Frame

from leveret.protocol import tables
from leveret.protocol.errors import (
    CommandInvalid,
    FieldSyntaxError,
    FrameError,
    cut_short_string,
    octets,
    printable_octets,
)
from leveret.protocol.tables import Field, Table

FRAME_METHOD: Final = b"\x01"
FRAME_END: Final = b"\xce"

M = TypeVar("M", bound=Frame)


class Access:
    """The class of AMQP 0-8 that old clients still use; RabbitMQ answers and forgets it."""

    class Request(Frame):
        """Ask for a ticket."""

        __slots__: ClassVar[list[str]] = ["active", "exclusive", "passive", "read", "realm", "write"]
        frame_id: ClassVar[int] = 10
        index: ClassVar[int] = 0x001E000A
        name: ClassVar[str] = "Access.Request"
        synchronous: ClassVar[bool] = True
        valid_responses: ClassVar[list[str]] = ["Access.RequestOk"]

        realm: str
        exclusive: bool
        passive: bool
        active: bool
        write: bool
        read: bool

    class RequestOk(Frame):
        """Grant a ticket, which nobody looks at."""

        __slots__: ClassVar[list[str]] = ["ticket"]
        frame_id: ClassVar[int] = 11
        index: ClassVar[int] = 0x001E000B
        name: ClassVar[str] = "Access.RequestOk"

        ticket: int


class _Layout(NamedTuple):
    """How a method looks on the wire."""

    method: type[Frame]
    fields: tuple[tuple[str, str], ...]  # name, pamqp's word for the type
    has_content: bool


CONTENT_METHODS: Final[frozenset[type[Frame]]] = frozenset(
    {commands.Basic.Publish, commands.Basic.Return, commands.Basic.Deliver, commands.Basic.GetOk}
)

# What a client may send; any other known method gets "unimplemented method".
CLIENT_METHODS: Final[frozenset[type[Frame]]] = frozenset(
    {
        commands.Connection.StartOk,
        commands.Connection.SecureOk,
        commands.Connection.TuneOk,
        commands.Connection.Open,
        commands.Connection.Close,
        commands.Connection.CloseOk,
        commands.Connection.UpdateSecret,
        commands.Channel.Open,
        commands.Channel.Flow,
        commands.Channel.Close,
        commands.Channel.CloseOk,
        Access.Request,
        commands.Exchange.Declare,
        commands.Exchange.Delete,
        commands.Exchange.Bind,
        commands.Exchange.Unbind,
        commands.Queue.Declare,
        commands.Queue.Bind,
        commands.Queue.Purge,
        commands.Queue.Delete,
        commands.Queue.Unbind,
        commands.Basic.Qos,
        commands.Basic.Consume,
        commands.Basic.Cancel,
        commands.Basic.Publish,
        commands.Basic.Get,
        commands.Basic.Ack,
        commands.Basic.Reject,
        commands.Basic.RecoverAsync,
        commands.Basic.Recover,
        commands.Basic.Nack,
        commands.Confirm.Select,
        commands.Tx.Select,
        commands.Tx.Commit,
        commands.Tx.Rollback,
    }
)

_ACCESS_LAYOUTS: Final = (
    _Layout(
        Access.Request,
        (
            ("realm", "shortstr"),
            ("exclusive", "bit"),
            ("passive", "bit"),
            ("active", "bit"),
            ("write", "bit"),
            ("read", "bit"),
        ),
        False,
    ),
    _Layout(Access.RequestOk, (("ticket", "short"),), False),
)

_INTEGER_SIZES: Final = {"octet": 1, "short": 2, "long": 4, "longlong": 8}  # type -> bytes, all unsigned

# pamqp sets these fields to "0"; RabbitMQ leaves them empty.
_ALWAYS_EMPTY: Final = frozenset({"out_of_band", "channel_id"})


def _pamqp_layout(method: type[Frame]) -> _Layout:
    fields = tuple((name, method.amqp_type(name)) for name in method.attributes())
    return _Layout(method, fields, method in CONTENT_METHODS)


# class id << 16 | method id -> layout
_LAYOUTS: Final[dict[int, _Layout]] = {
    layout.method.index: layout
    for layout in (*map(_pamqp_layout, commands.INDEX_MAPPING.values()), *_ACCESS_LAYOUTS)
}

METHODS: Final[dict[tuple[int, int], type[Frame]]] = {
    (index >> 16, index & 0xFFFF): layout.method for index, layout in _LAYOUTS.items()
}  # class id and method id -> the class of the method


def class_id(method: Frame | type[Frame]) -> int:
    """Class id of a method."""
    return method.index >> 16


def method_id(method: Frame | type[Frame]) -> int:
    """Method id of a method."""
    return method.index & 0xFFFF


def decode_method(payload: bytes) -> Frame:
    """Decode the payload of a method frame: class id, method id, arguments.

    Raises:
        CommandInvalid: nobody knows such a method (RabbitMQ drops the connection without a word).
        FrameError: the arguments are too short or too long, or a short string is not UTF-8 and the method
            carries no content.
        FieldSyntaxError: a table among the arguments is malformed (RabbitMQ drops the connection).
    """
    index = int.from_bytes(payload[:4], "big")
    layout = _LAYOUTS.get(index)
    if layout is None:
        raise CommandInvalid(f"unknown method ({index >> 16},{index & 0xFFFF})")
    try:
        return _decode_arguments(layout, payload)
    except IndexError as error:
        raise FrameError(f"cannot decode {octets(payload[4:])}", index >> 16, index & 0xFFFF) from error
    except FieldSyntaxError as error:
        raise FieldSyntaxError(error.text, index >> 16, index & 0xFFFF) from error


def _decode_arguments(layout: _Layout, payload: bytes) -> Frame:
    """Decode the arguments; an IndexError means that they do not fit the method."""
    method = layout.method.__new__(layout.method)
    position = 4
    bit = 0  # next bit of the octet before `position`; 0 when no row of bits (at most 8) has begun
    raw_tables: list[tuple[str, bytes]] = []
    malformed = False
    for name, kind in layout.fields:
        if kind == "bit":
            if bit == 0:
                bit = 1
                position += 1
            setattr(method, name, payload[position - 1] & bit != 0)
            bit <<= 1
            continue
        bit = 0
        size = _INTEGER_SIZES.get(kind)
        if size is not None:
            setattr(method, name, int.from_bytes(payload[position : position + size], "big"))
            position += size
            continue
        start = position + (1 if kind == "shortstr" else 4)
        position = start + int.from_bytes(payload[position:start], "big")
        if kind == "table":
            raw_tables.append((name, payload[start - 4 : position]))
            continue
        try:
            text = payload[start:position].decode()
        except UnicodeDecodeError:
            malformed = malformed or kind == "shortstr"
            text = payload[start:position].decode("utf-8", "surrogateescape")
        setattr(method, name, text)
    if position != len(payload):
        raise IndexError
    if malformed and not layout.has_content:
        raise FrameError("Malformed UTF-8 in shortstr")
    for name, raw in raw_tables:
        setattr(method, name, tables.decode_table(raw)[0])
    return method


def encode_method(channel: int, method: Frame) -> bytes:
    """Encode a method as a whole frame.

    Tables may be tagged (`Table`) or plain dictionaries, whose types `tables.from_python` chooses. A field
    that is None counts as zero or empty; a reply text that is too long is cut.

    Raises:
        ValueError: a value has no room in its field.
    """
    payload = method.index.to_bytes(4, "big") + _encode_arguments(method)
    return FRAME_METHOD + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + FRAME_END


def _encode_arguments(method: Frame) -> bytes:
    parts: list[bytes] = []
    bits = 0
    bit = 1  # value of the next bit; 1 when no row of bits has begun
    for name, kind in _LAYOUTS[method.index].fields:
        value = getattr(method, name)
        if kind == "bit":
            bits |= bit if value else 0
            bit <<= 1
            continue
        if bit != 1:
            parts.append(bits.to_bytes(1, "big"))
            bits, bit = 0, 1
        parts.append(_encode_value(name, kind, value))
    if bit != 1:
        parts.append(bits.to_bytes(1, "big"))
    return b"".join(parts)


def _encode_value(name: str, kind: str, value: object) -> bytes:
    size = _INTEGER_SIZES.get(kind)
    if size is not None:
        number = cast("int", value or 0)
        if not 0 <= number < 1 << 8 * size:
            raise ValueError(f"{number} is out of range for {name}")
        return number.to_bytes(size, "big")
    if kind == "table":
        return tables.encode_table(cast("Table", tables.from_python(value or {}).value))
    text = "" if value is None or name in _ALWAYS_EMPTY else cast("str", value)
    if name == "reply_text":
        text = cut_short_string(text)
    data = text.encode("utf-8", "surrogateescape")
    if kind == "longstr":
        return len(data).to_bytes(4, "big") + data
    if len(data) > 255:
        raise ValueError(f"{name} has at most 255 bytes, not {len(data)}")
    return len(data).to_bytes(1, "big") + data


def make(method: type[M], **fields: object) -> M:
    """Build a method without pamqp's checks of names, which are stricter than RabbitMQ's.

    A field that is not given is zero, False or empty.

    Raises:
        TypeError: the method has no such field.
    """
    made = method.__new__(method)
    for name, kind in _LAYOUTS[method.index].fields:
        setattr(made, name, fields.pop(name) if name in fields else _EMPTY[kind])
    if fields:
        raise TypeError(f"{method.name} has no field {', '.join(fields)}")
    return made


def arguments_of(method: Frame) -> Table:
    """Return the `arguments` table of a decoded method, whose type pamqp declares otherwise."""
    return cast("Table", getattr(method, "arguments", None) or {})


_EMPTY: Final[dict[str, object]] = {
    "bit": False,
    "octet": 0,
    "short": 0,
    "long": 0,
    "longlong": 0,
    "shortstr": "",
    "longstr": "",
    "table": None,
}  # type -> the value of a field that is not given


__all__ = [
    "CLIENT_METHODS",
    "CONTENT_METHODS",
    "METHODS",
    "Access",
    "Field",
    "Table",
    "arguments_of",
    "class_id",
    "decode_method",
    "encode_method",
    "make",
    "method_id",
    "octets",
    "printable_octets",
]
