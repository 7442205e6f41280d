"""Field tables with every type tag kept, so that decoding and encoding again gives the same bytes.

A value is a `Field`: RabbitMQ's type tag and a plain Python value. Which Python type goes with which tag:

    t bool     b B s u I i l L T int     f d float     S x bytes     D (scale, unsigned)     A list of Field
    F Table (dict of key to Field)     V None

Keys are `str`, decoded from UTF-8 with surrogate escapes, so any byte string survives. Of duplicate keys the first wins.
RabbitMQ reads some tags differently from the specification: `s` and `u` are 16 bit, `L` is signed.

Source: AMQP 0-9-1 section 4.2.5.5; RabbitMQ "Protocol 0-9-1 extensions and errata", section 3.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Final, NamedTuple, TypeAlias

from leveret.protocol.errors import SHORT_STRING_MAX, FieldSyntaxError


class Field(NamedTuple):
    """One value of a table or an array, with the tag it has on the wire."""

    tag: str
    value: object


Table: TypeAlias = dict[str, Field]
Array: TypeAlias = list[Field]

TABLE_DEPTH_MAX: Final = 64  # tables and arrays inside each other
HEADERS_COUNT_MAX: Final = 65_536  # keys and elements of one table, nested ones included

TYPE_NAMES: Final = {
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
