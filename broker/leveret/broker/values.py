"""Kinds of values a setting can have: from text, TOML or rabbitmq.conf to a checked Python value.

A kind has `allowed`, words that end the sentence "give ...", and `parse`, which raises ValueError for others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# RabbitMQ reads kB, MB, GB as decimal and kiB, MiB, GiB, k, M, G as binary units.
_UNITS: Final = {"": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3} | {
    name: unit for unit, names in ((KIB, "k kib"), (MIB, "m mib"), (GIB, "g gib")) for name in names.split()
}
_TRUE: Final = frozenset(("true", "yes", "on", "1"))
_FALSE: Final = frozenset(("false", "no", "off", "0"))


class Kind(Protocol[T_co]):
    """What a setting's values look like."""

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""

    def parse(self, value: object) -> T_co:
        """Return the checked value.

        Raises:
            ValueError: it is not allowed.
        """


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from `low` to `high`; `zero` tells what 0 means if it has a meaning of its own."""

    low: int
    high: int
    zero: str = ""

    @property
    def allowed(self) -> str:
        """The range."""
        return f"a whole number from {self.low} to {self.high}" + (f" ({self.zero})" if self.zero else "")

    def parse(self, value: object) -> int:
        """Return the number."""
        if isinstance(value, bool | float) or not re.fullmatch(r"[0-9]{1,18}", text := str(value).strip()):
            raise ValueError
        return _in_range(int(text), self.low, self.high)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time in seconds, whole or not."""

    low: float
    high: float
    zero: str = ""

    @property
    def allowed(self) -> str:
        """The range."""
        return f"seconds from {self.low:g} to {self.high:g}" + (f" ({self.zero})" if self.zero else "")

    def parse(self, value: object) -> float:
        """Return the seconds."""
        if isinstance(value, bool) or not re.fullmatch(
            r"[0-9]{1,12}(\.[0-9]{1,9})?", text := str(value).strip()
        ):
            raise ValueError
        return _in_range(float(text), self.low, self.high)


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """Whole milliseconds, as rabbitmq.conf has them; the value is in seconds."""

    seconds: Seconds

    @property
    def allowed(self) -> str:
        """The range."""
        zero = f" ({self.seconds.zero})" if self.seconds.zero else ""
        return f"milliseconds from {self.seconds.low * 1000:.0f} to {self.seconds.high * 1000:.0f}{zero}"

    def parse(self, value: object) -> float:
        """Return the seconds."""
        return _in_range(Integer(0, 10**15).parse(value) / 1000, self.seconds.low, self.seconds.high)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, with a unit or without."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The range and the units."""
        return f"{readable_size(self.low)} to {readable_size(self.high)}, in bytes or with KiB, MiB or GiB"

    def parse(self, value: object) -> int:
        """Return the bytes."""
        match = re.fullmatch(r"([0-9]{1,18})\s*([a-zA-Z]*)", str(value).strip())
        if isinstance(value, bool) or match is None or match[2].lower() not in _UNITS:
            raise ValueError
        return _in_range(int(match[1]) * _UNITS[match[2].lower()], self.low, self.high)


@dataclass(frozen=True, slots=True)
class SizeOrShare:
    """A number of bytes, or a share of something; the value is the share if it is 1 or less."""

    size: Size
    whole: str  # of what

    @property
    def allowed(self) -> str:
        """The range of both."""
        return f"a share of {self.whole} from 0.01 to 1.0, or {self.size.allowed}"

    def parse(self, value: object) -> float:
        """Return the share or the bytes."""
        if re.fullmatch(r"0\.[0-9]{1,6}|1(\.0{1,6})?", str(value).strip()):
            return _in_range(float(str(value)), 0.01, 1.0)
        return float(self.size.parse(value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words; `synonyms` maps other words to them."""

    words: tuple[str, ...]
    synonyms: tuple[tuple[str, str], ...] = ()

    @property
    def allowed(self) -> str:
        """The words."""
        return " or ".join((", ".join(self.words[:-1]), self.words[-1]))

    def parse(self, value: object) -> str:
        """Return the word."""
        word = str(value).strip().lower()
        word = dict(self.synonyms).get(word, word)
        if word not in self.words:
            raise ValueError
        return word


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    allowed: str = "true or false"

    def parse(self, value: object) -> bool:
        """Return the truth."""
        word = str(value).strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError
        return word in _TRUE


@dataclass(frozen=True, slots=True)
class Text:
    """Text of 1 to 255 bytes without control characters, of a given form."""

    allowed: str = "text of 1 to 255 bytes on one line"
    pattern: str = r".*"

    def parse(self, value: object) -> str:
        """Return the text."""
        if not isinstance(value, str) or not 1 <= len(value.encode(errors="surrogateescape")) <= 255:
            raise ValueError
        if not value.isprintable() or not re.fullmatch(self.pattern, value):
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Names:
    """Some names: a list in TOML, separated by commas elsewhere; `none` is the empty list."""

    allowed: str = "a list of names, separated by commas where it is one text; none for an empty list"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return the names."""
        if isinstance(value, str):
            value = [] if value.strip() in ("", "none") else [name.strip() for name in value.split(",")]
        if not isinstance(value, list | tuple):
            raise ValueError  # noqa: TRY004  # every refusal of a value is one
        return tuple(Text().parse(name) for name in value)


@dataclass(frozen=True, slots=True)
class FilePath:
    """The path of a file; `~` is the home folder."""

    allowed: str = "the path of a file"

    def parse(self, value: object) -> Path:
        """Return the path."""
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError
        return Path(value).expanduser()


def readable_size(size: int) -> str:
    """Return a number of bytes in the largest unit that divides it: `16 MiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1000**3, "GB"), (1000**2, "MB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


N = TypeVar("N", int, float)


def _in_range(number: N, low: N, high: N) -> N:
    if not low <= number <= high:
        raise ValueError
    return number
