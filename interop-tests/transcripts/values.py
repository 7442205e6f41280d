"""Strings and field tables as transcripts write them, and as they are on the wire.

A string is a bare word, or quoted with `\\xNN` for a byte: `"a\\x00b"`. Pieces are joined with `+` and
repeated with `*`: `"n"*250`. In tables a value has its type in front unless it shows: `5` is `I:5`, `"a"` is
a long string, `true`, `void`, `[1, 2]` and `{key: 1}` are what they look like.

Written against the specification and RabbitMQ's table of types, without the broker's own codec, so that the
two share no mistakes.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

INTEGERS = {"b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q", "T": ">Q"}
FLOATS = {"f": ">f", "d": ">d"}
BARE = re.compile(r"[\w$%.*#/:<>+~!&@?;()=-]+")
WORD = re.compile(r"[A-Za-z_$%][\w.$%/+=-]*")  # a string of a table that needs no quotes
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|nan|-?inf")
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", '"': b'"'}
RUN_MIN = 20  # so many equal characters are written with a `*`


class Field(NamedTuple):
    """A value in a table with its type tag."""

    tag: str
    value: object


class TranscriptError(Exception):
    """A transcript does not say what it should, and where."""


# from text -----------------------------------------------------------------------------------------------


class Reader:
    """Reads a line of a transcript from left to right.

    Args:
        text: the line.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def at_end(self) -> bool:
        """Skip blanks, and tell whether nothing is left."""
        while self.text[self.position : self.position + 1] == " ":
            self.position += 1
        return self.position >= len(self.text)

    def sees(self, literal: str) -> bool:
        """Skip blanks, and take `literal` if it comes next."""
        if self.at_end() or not self.text.startswith(literal, self.position):
            return False
        self.position += len(literal)
        return True

    def word(self, pattern: str = r"[^\s=]+") -> str:
        """Take what matches the pattern."""
        self.at_end()
        found = re.compile(pattern).match(self.text, self.position)
        if not found:
            raise TranscriptError(f"unexpected {self.text[self.position :]!r} in {self.text!r}")
        self.position = found.end()
        return found[0]

    def string(self) -> bytes:
        """Take a string."""
        pieces = self._literal()
        while self.sees("+"):
            pieces += self._literal()
        return pieces

    def _literal(self) -> bytes:
        if not self.sees('"'):
            return self.word(BARE.pattern).encode()
        data = b""
        while not self.text.startswith('"', self.position):
            if self.position >= len(self.text):
                raise TranscriptError(f"a string without end in {self.text!r}")
            data += self._character()
        self.position += 1
        return data * int(self.word(r"\d+")) if self.sees("*") else data

    def _character(self) -> bytes:
        character = self.text[self.position]
        self.position += 1
        if character != "\\":
            return character.encode()
        escape = self.word(r"x[0-9a-f]{2}|[nrt\\\"]")
        return bytes.fromhex(escape[1:]) if escape[0] == "x" else ESCAPES[escape]

    def table(self) -> bytes:
        """Take a table and return it with its length in front; a string is a table's bytes as they are."""
        if not self.sees("{"):
            return longstr(self.string())
        data = b""
        while not self.sees("}"):
            self.at_end()
            quoted = self.text.startswith('"', self.position)
            key = self.string() if quoted else self.word(r"[\w$%.-]+").encode()
            if not self.sees(":"):
                raise TranscriptError(f"no value of {key!r} in {self.text!r}")
            data += shortstr(key) + self.value()
            self.sees(",")
        return longstr(data)

    def value(self) -> bytes:
        """Take a value of a table and return its tag and bytes."""
        self.at_end()
        rest = self.text[self.position :]
        if rest[:1] == "{":
            return b"F" + self.table()
        if rest[:1] == "[":
            return b"A" + self._array()
        if found := re.match(r"(true|false|void)\b", rest):
            self.position += found.end()
            return {"true": b"t\1", "false": b"t\0", "void": b"V"}[found[1]]
        if found := re.match(r"([bBsuIilLTfdDSxt]):", rest):
            self.position += 2
            return found[1].encode() + self._tagged(found[1])
        if re.match(r"-?\d+(?=[\s,}\]])", rest):
            return b"I" + self._tagged("I")
        return b"S" + longstr(self.string())

    def _tagged(self, tag: str) -> bytes:
        if tag in INTEGERS:
            return struct.pack(INTEGERS[tag], int(self.word(r"-?\d+")))
        if tag in FLOATS:
            return struct.pack(FLOATS[tag], float(self.word(NUMBER.pattern)))
        if tag == "D":
            scale, value = self.word(r"\d+/\d+").split("/")
            return struct.pack(">BI", int(scale), int(value))
        if tag == "t":
            return bytes([int(self.word(r"\d+"))])
        return longstr(self.string())

    def _array(self) -> bytes:
        data = b""
        self.sees("[")
        while not self.sees("]"):
            data += self.value()
            self.sees(",")
        return longstr(data)


def shortstr(data: bytes) -> bytes:
    """Encode a short string."""
    return bytes([len(data)]) + data


def longstr(data: bytes) -> bytes:
    """Encode a long string."""
    return struct.pack(">I", len(data)) + data


# from the wire -------------------------------------------------------------------------------------------


class Bytes:
    """Takes values off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        """Take so many bytes."""
        if len(self.data) - self.position < count:
            raise TranscriptError(f"the broker sent too little: {self.data!r}")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, layout: str) -> int:
        """Take an integer."""
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def shortstr(self) -> bytes:
        """Take a short string."""
        return self.take(self.number(">B"))

    def longstr(self) -> bytes:
        """Take a long string."""
        return self.take(self.number(">I"))

    def table(self) -> list[tuple[bytes, Field]]:
        """Take a table: its keys and values in order, a key as often as it came."""
        inner = Bytes(self.longstr())
        entries: list[tuple[bytes, Field]] = []
        while inner.position < len(inner.data):
            key = inner.shortstr()
            entries.append((key, inner.field()))
        return entries

    def field(self) -> Field:
        """Take a tag and its value."""
        tag = self.take(1).decode("latin-1")
        if tag in INTEGERS:
            return Field(tag, self.number(INTEGERS[tag]))
        if tag in FLOATS:
            layout = FLOATS[tag]
            return Field(tag, struct.unpack(layout, self.take(struct.calcsize(layout)))[0])
        if tag == "F":
            return Field(tag, self.table())
        if tag == "A":
            inner = Bytes(self.longstr())
            values: list[Field] = []
            while inner.position < len(inner.data):
                values.append(inner.field())
            return Field(tag, values)
        if tag == "D":
            return Field(tag, (self.number(">B"), self.number(">I")))
        if tag == "t":
            return Field(tag, self.number(">B"))
        if tag == "V":
            return Field(tag, None)
        if tag in "Sx":
            return Field(tag, self.longstr())
        raise TranscriptError(f"the broker sent a value of type {tag!r}")


# to text -------------------------------------------------------------------------------------------------


def written(data: bytes, bare: re.Pattern[str] = BARE) -> str:
    """Write a string, in quotes if it has to be."""
    text = readable(data)
    if bare.fullmatch(text) and not re.search(rf"(.)\1{{{RUN_MIN - 1}}}", text):
        return text
    pieces: list[str] = []
    start = 0
    for run in re.finditer(rf"([^\\])\1{{{RUN_MIN - 1},}}", text):
        pieces += [f'"{text[start : run.start()]}"'] if run.start() > start else []
        pieces.append(f'"{run[1]}"*{len(run[0])}')
        start = run.end()
    if start < len(text) or not pieces:
        pieces.append(f'"{text[start:]}"')
    return "+".join(pieces)


def readable(data: bytes, quoted: bool = True) -> str:
    """Return bytes as text in which everything that cannot be seen is escaped, and what quotes need."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(_escaped(character, quoted) for character in text)


def _escaped(character: str, quoted: bool) -> str:
    if quoted and character in '\\"':
        return "\\" + character
    if character.isprintable():
        return character
    named = {"\n": "\\n", "\r": "\\r"}
    raw = character.encode("utf-8", "surrogateescape")
    return named.get(character) or "".join(f"\\x{byte:02x}" for byte in raw)


def written_table(entries: list[tuple[bytes, Field]]) -> str:
    """Write a table."""
    return "{" + ", ".join(f"{written(key, WORD)}: {written_field(value)}" for key, value in entries) + "}"


def written_field(field: Field) -> str:
    """Write a value of a table."""
    tag, value = field
    match value:
        case list() if tag == "F":
            return written_table(value)
        case list():
            return "[" + ", ".join(written_field(each) for each in value) + "]"
        case bytes():
            text = written(value, WORD)
            text = f'"{text}"' if text in ("true", "false", "void") else text
            return text if tag == "S" else f"{tag}:{text}"
        case tuple():
            return f"{tag}:{value[0]}/{value[1]}"
        case None:
            return "void"
    if tag == "t":
        return {0: "false", 1: "true"}.get(value, f"t:{value}") if isinstance(value, int) else ""
    return str(value) if tag == "I" else f"{tag}:{value}"
