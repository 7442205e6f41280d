"""Names and values as RabbitMQ prints them in its error texts, values as Erlang terms.

Texts are matched by clients and people, so a wrong `x-match` of the bytes `some` is shown as `<<"some">>`
here too. Bytes that are not UTF-8 stay in the text as surrogate escapes. Erlang breaks a long term over
lines; here it stays on one."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, cast

from leveret.protocol.tables import INTEGER_TAGS, STRING_TAGS, TYPE_NAMES, Array, Field, Table

_ESCAPES: Final = {
    8: rb"\b",
    9: rb"\t",
    10: rb"\n",
    11: rb"\v",
    12: rb"\f",
    13: rb"\r",
    27: rb"\e",
    34: rb"\"",
    92: rb"\\",
}  # octet -> how it is written between quotes


def resource_name(kind: str, name: str, vhost_name: str) -> str:
    """Name a queue or an exchange as error texts do: `queue 'q' in vhost '/'`."""
    return f"{kind} '{name}' in vhost '{vhost_name}'"


def type_name(field: Field) -> str:
    """RabbitMQ's name of the type of a value, such as `longstr`."""
    return TYPE_NAMES[field.tag]


def term(field: Field) -> str:
    """Print a value with `~p`."""
    tag, value = field
    if tag in INTEGER_TAGS or tag == "T":
        return str(value)
    if tag in STRING_TAGS:
        return binary_term(cast("bytes", value))
    if tag == "t":
        return "true" if value else "false"
    if tag == "A":
        elements = [f"{{{type_name(element)},{term(element)}}}" for element in cast("Array", value)]
        return f"[{','.join(elements)}]"
    if tag == "F":
        return _table_term(cast("Table", value))
    if tag == "D":
        scale, unscaled = cast("tuple[int, int]", value)
        return f"{{{scale},{unscaled}}}"
    if tag == "V":
        return "undefined"
    return float_term(cast("float", value))


def shown(field: Field) -> str:
    """Print a value as the texts about inequivalent arguments do: strings bare, everything else with `~p`."""
    if field.tag in STRING_TAGS:
        return cast("bytes", field.value).decode("utf-8", "surrogateescape")
    return term(field)


def binary_term(data: bytes) -> str:
    r"""Print bytes: `<<"text">>` if all are printable Latin-1, else `<<1,2>>`."""
    if data and _is_printable(data):
        return f'<<"{_escaped(data)}">>'
    return f"<<{','.join(map(str, data))}>>"


def string_term(data: bytes) -> str:
    """Print a list of octets: `"text"` if all are printable Latin-1, else `[1,2]`."""
    if data and _is_printable(data):
        return f'"{_escaped(data)}"'
    return f"[{','.join(map(str, data))}]"


def float_term(value: float) -> str:
    """Print a float in the shortest form that reads back as the same: `0.1`, `100.0`, `1.0e3`."""
    decimal = Decimal(repr(value)).normalize()
    sign, digit_tuple, exponent = decimal.as_tuple()
    if not isinstance(exponent, int) or not decimal:
        return repr(value)  # NaN, infinity and zero
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + exponent  # digits in front of the decimal point
    scientific = f"{digits[0]}.{digits[1:] or '0'}e{point - 1}"
    if 0 < point < len(digits):
        plain = f"{digits[:point]}.{digits[point:]}"
    elif point <= 0:
        plain = f"0.{'0' * -point}{digits}"
    else:
        plain = f"{digits}{'0' * (point - len(digits))}.0"
    return ("-" if sign else "") + (plain if len(plain) <= len(scientific) else scientific)


def _table_term(table: Table) -> str:
    fields: list[str] = []
    for key, field in table.items():
        name = binary_term(key.encode("utf-8", "surrogateescape"))
        fields.append(f"{{{name},{type_name(field)},{term(field)}}}")
    return f"[{','.join(fields)}]"


def _is_printable(data: bytes) -> bool:
    return all(32 <= octet <= 126 or octet >= 160 or octet in _ESCAPES for octet in data)


def _escaped(data: bytes) -> str:
    escaped = b"".join([_ESCAPES.get(octet) or bytes((octet,)) for octet in data])
    return escaped.decode("utf-8", "surrogateescape")
