"""Files of cases: what is said, and what RabbitMQ answers.

    == a queue that nobody declared is not found
    > queue.declare queue=$q passive
    < channel.close 404 NOT_FOUND - no queue '$q' in vhost '/' (50,10)

A line that begins with `>` is sent, `<` is what came before anything else was done. In front may stand a
connection, a letter, and a channel: `B2>`. Without them it is connection A and channel 1. A connection is
there when it first says something, with channels 1, 2 and 3 open.

    +> basic.get queue=$q                   goes out together with the line above it
    connect B until=tuning heartbeat=1      another kind of connection: see `Connect`
    wait 300                                milliseconds; also shows that nothing comes
    drop B                                  the client's socket closes
    pieces 3                                what is sent from here on comes in pieces of so many bytes
    because ...                             in the file of differences: why those that follow are there

What can be sent is in `peer.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from transcripts.values import TranscriptError

HERE = Path(__file__).parent
CASES = HERE / "cases"
DIFFERENCES = HERE / "known_differences.txt"
NOT_YET = "not there yet"
LINE = re.compile(r"([A-Z]?)(\d*)(\+?)> (.*)")
ANSWER = re.compile(r"[A-Z]?\d*< ")
STAGES = ("tcp", "starting", "tuning", "opening", "running")  # how far `connect` goes


@dataclass
class Connect:
    """How a connection is made.

    Attributes:
        name: its letter.
        until: the stage of the handshake in which the case takes over.
        channels: which are opened.
        tune: what tune-ok says.
        capable: whether the client announces its capabilities.
    """

    name: str
    until: str = "running"
    channels: tuple[int, ...] = (1, 2, 3)
    tune: dict[str, int] = field(
        default_factory=lambda: {"channel-max": 2047, "frame-max": 131072, "heartbeat": 0}
    )
    capable: bool = True


@dataclass
class Said:
    """A line that is sent."""

    connection: str
    channel: int
    text: str


@dataclass
class Step:
    """One thing that a case does, and what the broker answers to it.

    Attributes:
        source: the lines of the file that say it.
        line: the number of the last of them.
        said: the lines to be sent, if it is that.
        expected: what comes.
    """

    source: list[str]
    line: int
    connect: Connect | None = None
    said: list[Said] = field(default_factory=list)
    wait_s: float = 0
    drop: str = ""
    pieces: int = 0
    expected: list[str] = field(default_factory=list)


@dataclass
class Case:
    """One conversation."""

    name: str
    file: Path
    because: str = ""
    steps: list[Step] = field(default_factory=list)

    @property
    def transcript(self) -> list[str]:
        """All lines of the case."""
        return [line for step in self.steps for line in (*step.source, *step.expected)]

    def told(self, answers: list[list[str]]) -> list[str]:
        """Return the lines of the case with other answers."""
        answered = zip(self.steps, answers, strict=True)
        return [line for step, lines in answered for line in (*step.source, *lines)]


def read(file: Path) -> list[Case]:
    """Read the cases of one file.

    Raises:
        TranscriptError: something in it makes no sense.
    """
    cases: list[Case] = []
    because = ""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            if line.startswith("== "):
                cases.append(Case(line[3:], file, because))
            elif line.startswith("because "):
                because = line.removeprefix("because ")
            elif line and not line.startswith("#"):
                _read_line(cases[-1], line, number)
        except (TranscriptError, ValueError, LookupError) as error:
            raise TranscriptError(f"{file.name}, line {number}: {line}: {error}") from error
    return cases


def read_all() -> list[Case]:
    """Read all cases, in order.

    Raises:
        TranscriptError: two have the same name, or something in a file makes no sense.
    """
    cases = [case for file in sorted(CASES.glob("*.txt")) for case in read(file)]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TranscriptError(f"more than one case has the name {twice}")
    return cases


def read_differences(cases: list[Case]) -> dict[str, Case]:
    """Read in which cases Leveret differs, with what it answers; one without steps is not there yet.

    Raises:
        TranscriptError: a difference belongs to no case, says other things than its case, or has no reason.
    """
    known = {case.name: case for case in cases}
    differences: dict[str, Case] = {}
    for difference in read(DIFFERENCES):
        case = known.get(difference.name)
        if not case or not difference.because or difference.name in differences:
            raise TranscriptError(
                f"a difference without a case or a reason, or told twice: {difference.name}"
            )
        same = [step.source for step in case.steps] == [step.source for step in difference.steps]
        if not same and not difference.because.startswith(NOT_YET):
            raise TranscriptError(f"the case says something else than its difference: {difference.name}")
        differences[difference.name] = difference
    return differences


def _read_line(case: Case, line: str, number: int) -> None:
    if ANSWER.match(line):
        case.steps[-1].expected.append(line)
        return
    if found := LINE.match(line):
        said = Said(found[1] or "A", int(found[2] or 1), found[4])
        if not found[3]:
            case.steps.append(Step([], number))
        case.steps[-1].source.append(line)
        case.steps[-1].line = number
        case.steps[-1].said.append(said)
        return
    verb, *words = line.split()
    step = Step([line], number)
    match verb:
        case "connect":
            step.connect = _connect(words)
        case "wait":
            step.wait_s = int(words[0]) / 1000
        case "drop":
            step.drop = words[0]
        case "pieces":
            step.pieces = int(words[0])
        case _:
            raise TranscriptError("nobody knows what that means")
    case.steps.append(step)


def _connect(words: list[str]) -> Connect:
    connect = Connect(words[0])
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name == "until" and value in STAGES:
            connect.until = value
        elif name == "channels":
            connect.channels = tuple(int(number) for number in value.split(",") if number)
        elif name in connect.tune:
            connect.tune[name] = int(value)
        elif word == "incapable":
            connect.capable = False
        else:
            raise TranscriptError(f"connect knows no {word}")
    return connect
