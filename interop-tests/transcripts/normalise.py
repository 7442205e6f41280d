"""What differs from run to run, and must not make two transcripts different.

* Names of queues and exchanges: `$` in a case is a prefix that no other case and no other run has. All
  prefixes are of the same length, so that texts which are cut are cut in the same place.
* Names that the broker makes up: the first of each kind is `%gen1`, `%ctag1` or `%reply1`, the second
  `%gen2`. A case can say them, too.
* Times that are about now are `%now`.
* Frames of different channels and connections may come in any order: what one step brought is sorted by
  connection and channel, and stays in order within it.
* A broker may confirm several messages in one frame: confirms that follow each other are one line with all
  tags.
* Once the broker has answered connection.close, it does not matter which side ends the connection.
* The server properties are told by name only, but for the capabilities.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

GENERATED = re.compile(
    r"amq\.(?P<kind>gen|ctag)-[\w-]{22}|amq\.rabbitmq\.reply-to\.(?P<secret>[\w.+/=-]{20,})"
)
TIME = re.compile(r"T:(\d{10})\b")
NOW_S = 3600  # a time within an hour is now
SERVER_PROPERTY = re.compile(
    r"\b(?!capabilities)(\w+): (?!true)(\"(?:[^\"\\]|\\.)*\"|[\w$%.][\w$%./-]*)(?=[,}])"
)
LABEL = re.compile(r"([A-Z]?)(\d*)< ")
CONFIRM = re.compile(r"(\w*< )basic\.(ack|nack) delivery-tag=(\d+)( multiple)?( requeue)?$")


class Names:
    """The names of one case in one run, as the case writes them and as the broker sees them.

    Args:
        run: a word of this run, always equally long.
        number: of the case in this run.
    """

    def __init__(self, run: str, number: int, now: Callable[[], float] = time.time) -> None:
        self.prefix = f"tr{run}-{number:04}-"
        self._now = now
        self._generated: dict[str, str] = {}  # as the broker made it -> as the case says it

    def expand(self, text: str) -> str:
        """Put real names into what a case says."""
        for real, short in self._generated.items():
            text = text.replace(short, real)
        return text.replace("$", self.prefix)

    def has(self, name: bytes) -> bool:
        """Tell whether a name is one that only this case uses."""
        return name.startswith(self.prefix.encode()) and bool(name.decode(errors="ignore").encode() == name)

    def shorten(self, text: str) -> str:
        """Put the case's names into what the broker said."""
        text = GENERATED.sub(self._shortened, text.replace(self.prefix, "$"))
        return TIME.sub(lambda found: "%now" if abs(int(found[1]) - self._now()) < NOW_S else found[0], text)

    def _shortened(self, found: re.Match[str]) -> str:
        kind = found["kind"] or "reply"
        if found[0] not in self._generated:
            count = sum(short.startswith(f"%{kind}") for short in self._generated.values())
            self._generated[found[0]] = f"%{kind}{count + 1}"
        return self._generated[found[0]]


def normalised(steps: list[list[str]]) -> list[list[str]]:
    """Return what each step of a conversation brought, in the form in which transcripts are compared."""
    confirmed: dict[str, set[int]] = {}  # label -> tags that were acked or nacked
    closed: set[str] = set()  # connections
    return [
        _merged(_without_ends(sorted(map(_told, lines), key=place), closed), confirmed) for lines in steps
    ]


def place(line: str) -> tuple[str, int]:
    """Return the connection and channel of a line, to sort by."""
    found = LABEL.match(line)
    assert found, line
    return found[1] or "A", int(found[2] or 1)


def _told(line: str) -> str:
    return SERVER_PROPERTY.sub(r"\1: *", line) if "connection.start" in line else line


def _without_ends(lines: list[str], closed: set[str]) -> list[str]:
    """Leave out the ends of connections that are closed, of which `closed` takes note."""
    told: list[str] = []
    for line in lines:
        if line.endswith("0< connection.close-ok"):
            closed.add(place(line)[0])
        if not line.endswith("0< eof") or place(line)[0] not in closed:
            told.append(line)
    return told


def _merged(lines: list[str], confirmed: dict[str, set[int]]) -> list[str]:
    merged: list[str] = []
    tags: list[int] = []  # of the confirms that the last line of `merged` tells
    start = ""
    for line in lines:
        found = CONFIRM.match(line)
        if not found:
            merged.append(line)
            start = ""
            continue
        label, verb, tag, multiple, requeue = found.groups()
        before = confirmed.setdefault(label, set())
        first = 1 if multiple else int(tag)
        new = [each for each in range(first, int(tag) + 1) if each not in before] or [int(tag)]
        before.update(new)
        if start != f"{label}basic.{verb}{requeue or ''}":
            start, tags = f"{label}basic.{verb}{requeue or ''}", []
            merged.append("")
        tags += new
        merged[-1] = f"{label}basic.{verb} tags={','.join(map(str, sorted(tags)))}{requeue or ''}"
    return merged
