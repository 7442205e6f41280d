"""Log lines: one event a line, for people or as JSON. Never one per message.

    get_logger().info("connection opened", peer="127.0.0.1:52100", user="guest")

An event's name is constant text; what varies goes into its keys. Whatever a client sent may stand in a value:
control characters are escaped, so that nobody can forge a line or steer a terminal. A log that cannot be
written (full disk, closed pipe) is lost; the broker goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Event = dict[str, object]  # the name under "event", then under "level" its level, and what varies

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SECRETS: Final = frozenset(("password", "response", "secret", "token"))  # keys whose values are never written

_RESET: Final = "\x1b[0m"
_COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_DIM: Final = "\x1b[2m"
_FRAMES: Final = 4  # of a traceback in one line


class Copy(NamedTuple):
    """Who else gets the lines, and from which level on."""

    take: Callable[[str, str], None]  # level, line
    level: str


def configure(log_format: str, level: str, stream: TextIO | None = None, copy: Copy | None = None) -> None:
    """Send what is logged from now on to `stream`, by default standard output.

    Args:
        log_format: console or json.
        level: debug, info, warning or error.
        stream: where lines go; colours are used if it is a terminal that wants them.
        copy: gets lines, too, without colours.
    """
    out = sys.stdout if stream is None else stream
    if log_format == "json":
        render: Callable[[Event], str] = render_json
        render_copy: Callable[[Event], str] = render_json
    else:
        render = ConsoleRenderer(colours=wants_colours(out), tracebacks=level == "debug")
        render_copy = render_plain
    line_logger = LineLogger(out)
    shown_from = LEVELS[level]
    copied_from = max(LEVELS.values()) + 1 if copy is None else LEVELS[copy.level]

    def handle(event_level: str, event: Event) -> None:
        number = LEVELS[event_level]
        if copy is not None and number >= copied_from:
            copy.take(event_level, render_copy({**event, "level": event_level}))
        if number >= shown_from:
            line_logger.write(render({**event, "level": event_level}))

    output.handle = handle
    output.least = min(shown_from, copied_from)


class Output:
    """Where events go: nowhere, until `configure` says where."""

    __slots__ = ("handle", "least")

    def __init__(self) -> None:
        self.least = 0  # levels below it are not handled
        self.handle: Callable[[str, Event], None] = lambda _level, _event: None


output: Final = Output()


class Logger:
    """Takes events: a name that is constant text, and what varies as keywords."""

    __slots__ = ()

    def debug(self, event: str, **values: object) -> None:
        """Tell what only helps to find a fault."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Tell what is as it should be."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Tell what somebody should look at."""
        self._log("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """Tell what failed."""
        self._log("error", event, values)

    def exception(self, event: str, **values: object) -> None:
        """Tell what failed, with the exception in `exc_info` or the one that is being handled."""
        self._log("error", event, {"exc_info": True, **values})

    def _log(self, level: str, event: str, values: Event) -> None:
        if LEVELS[level] >= output.least:
            output.handle(level, {"event": event, **values})


_LOGGER: Final = Logger()


def get_logger() -> Logger:
    """Return what takes the events."""
    return _LOGGER


def wants_colours(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal and nobody asked for plain text (NO_COLOR, TERM=dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class LineLogger:
    """Writes finished lines, each at once."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Write a line, or lose it."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except BrokenPipeError:
            _discard(self._stream)
        except (OSError, ValueError):  # no space; or the stream is closed
            return


def _discard(stream: TextIO) -> None:
    """Let what is written from now on vanish: nobody reads, and Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class ConsoleRenderer:
    """`12:03:04.512 info    connection opened  peer=127.0.0.1:52100 user=guest`."""

    __slots__ = ("_colours", "_tracebacks")

    def __init__(self, *, colours: bool, tracebacks: bool) -> None:
        self._colours = colours
        self._tracebacks = tracebacks

    def __call__(self, event: Event) -> str:
        """Return the line. With tracebacks, those of an exception follow it, indented."""
        level = str(event.pop("level"))
        name = one_line(str(event.pop("event", "")))
        error = _error(event)
        pairs = [f"{key}={_console_value(value)}" for key, value in _without_secrets(event).items()]
        if error is not None:
            pairs.append(f"error={_console_value(brief(error))}")
        time = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
        if self._colours:
            line = f"{_DIM}{time}{_RESET} {_COLOURS.get(level, '')}{level:<7}{_RESET} {name}"
            line += f"  {_DIM}{' '.join(pairs)}{_RESET}" if pairs else ""
        else:
            line = "  ".join((f"{time} {level:<7} {name}", *((" ".join(pairs),) if pairs else ())))
        if error is not None and self._tracebacks:
            text = "".join(traceback.format_exception(error))
            line += "".join(f"\n    {one_line(each)}" for each in text.splitlines())
        return line


def render_plain(event: Event) -> str:
    """Return `2026-11-22 09:17:20.702051+00:00 [info] stopped  key=value`, as RabbitMQ begins its lines."""
    level = event.pop("level")
    name = one_line(str(event.pop("event", "")))
    error = _error(event)
    pairs = [f"{key}={_console_value(value)}" for key, value in _without_secrets(event).items()]
    if error is not None:
        pairs.append(f"error={_console_value(brief(error))}")
    return "  ".join((f"{datetime.now(UTC)} [{level}] {name}", *((" ".join(pairs),) if pairs else ())))


def render_json(event: Event) -> str:
    """Return the event as one JSON object; an exception is in the keys error and traceback."""
    line: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.pop("level"),
        "event": event.pop("event", ""),
    }
    error = _error(event)
    line |= {key: _json_value(value) for key, value in _without_secrets(event).items()}
    if error is not None:
        line["error"] = one_line(brief(error))
        text = "".join(traceback.format_exception(error))
        line["traceback"] = [one_line(each) for each in text.splitlines()]
    return json.dumps(line, ensure_ascii=True, default=lambda value: one_line(str(value)))


def one_line(text: str) -> str:
    r"""Return the text with what is not printable escaped: control characters, separators, surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(error: BaseException) -> str:
    """Return an exception and its innermost frames in one line: `KeyError: 'q' at a.py:88 < b.py:40`."""
    frames = traceback.extract_tb(error.__traceback__)[: -_FRAMES - 1 : -1]
    places = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames)
    text = "".join(traceback.format_exception_only(error)).strip()
    return f"{text} at {places}" if places else text


def _error(event: Event) -> BaseException | None:
    given = event.pop("exc_info", None)
    if isinstance(given, BaseException):
        return given
    return sys.exc_info()[1] if given else None


def _without_secrets(event: Mapping[str, object]) -> dict[str, object]:
    return {key: "***" if key in SECRETS else value for key, value in event.items()}


def _console_value(value: object) -> str:
    text = one_line(value if isinstance(value, str) else str(value))
    return text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def _json_value(value: object) -> object:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(str(key)): _json_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    return value


class Throttle:
    """Lets an event that a stranger can cause through at most `limit` times in `interval_s`."""

    __slots__ = ("_admitted", "_held_back", "_interval_s", "_limit", "_since_s")

    def __init__(self, limit: int, interval_s: float) -> None:
        self._limit = limit
        self._interval_s = interval_s
        self._since_s = float("-inf")
        self._admitted = 0
        self._held_back = 0

    def admit(self, now_s: float) -> int | None:
        """Return how many events were held back since the last admitted one, or None if this one is too."""
        if now_s - self._since_s >= self._interval_s:
            self._since_s, self._admitted = now_s, 0
        if self._admitted >= self._limit:
            self._held_back += 1
            return None
        self._admitted += 1
        held_back, self._held_back = self._held_back, 0
        return held_back
