"""What a publish says in its properties and the broker must act on: expiration, CC and BCC.

Source: AMQP 0-9-1 basic.publish (60, 40); RabbitMQ guides "Time-To-Live" and "Sender-selected Distribution".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

from leveret.broker.model.arguments import TTL_MAX_MS
from leveret.broker.model.terms import string_term, type_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.properties import Properties, replace

if TYPE_CHECKING:
    from leveret.protocol.tables import Array, Table

CC: Final = "CC"
BCC: Final = "BCC"
_CC_KEY: Final = b"\x02CC"
_BCC_KEY: Final = b"\x03BCC"
_NUMBER: Final = re.compile(rb"[+-]?[0-9]+")


def parse_expiration(expiration: bytes) -> int:
    """Read the expiration property, milliseconds in decimal.

    Raises:
        PreconditionFailed: it is no number, negative, or more than ten years.
    """
    number = _NUMBER.match(expiration)
    if number is None:
        raise _invalid_expiration(expiration, "no_integer")
    rest = expiration[number.end() :]
    if rest:
        raise _invalid_expiration(expiration, f"{{leftover_string,{string_term(rest)}}}")
    expiration_ms = int(number[0])
    if expiration_ms < 0:
        raise _invalid_expiration(expiration, f"{{value_negative,{expiration_ms}}}")
    if expiration_ms > TTL_MAX_MS:
        raise _invalid_expiration(expiration, f"{{value_too_large,{expiration_ms}}}")
    return expiration_ms


def may_have_extra_routing_keys(headers_raw: bytes) -> bool:
    """Whether encoded headers can have a CC or BCC; a quick look that may be wrong in saying yes."""
    return _CC_KEY in headers_raw or _BCC_KEY in headers_raw


def extra_routing_keys(headers: Table) -> list[str]:
    """Routing keys of the CC header, then of the BCC header, each once; what is no string is left out.

    Raises:
        PreconditionFailed: one of the headers is not an array.
    """
    return list(dict.fromkeys(_keys_of(headers, CC) + _keys_of(headers, BCC)))


def visible_routing_keys(routing_key: str, headers: Table | None) -> list[str]:
    """Routing keys that the receiver of a message may know: its own, then those of its CC header.

    They are what the broker has of a message that it read back from the store.
    """
    return [routing_key] if headers is None else list(dict.fromkeys([routing_key, *_keys_of(headers, CC)]))


def without_bcc(raw: bytes) -> bytes:
    """Remove the BCC header from a property list; without one the same bytes come back."""
    headers = Properties.parse(raw).headers
    if headers is None or BCC not in headers:
        return raw
    return replace(raw, headers={name: field for name, field in headers.items() if name != BCC})


def _keys_of(headers: Table, name: str) -> list[str]:
    field = headers.get(name)
    if field is None:
        return []
    if field.tag != "A":
        raise PreconditionFailed(
            f'invalid message: {{unacceptable_type_in_header,"{name}",{type_name(field)}}}'
        )
    elements = cast("Array", field.value)
    return [
        cast("bytes", element.value).decode("utf-8", "surrogateescape")
        for element in elements
        if element.tag == "S"
    ]


def _invalid_expiration(expiration: bytes, detail: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"invalid expiration '{expiration.decode('utf-8', 'surrogateescape')}': {detail}"
    )
