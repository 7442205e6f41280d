"""Log lines stay single, hide secrets, and never stop the broker."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from leveret.broker import logs


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def console_line(level: str = "info", stream: io.StringIO | None = None, **values: object) -> str:
    """Return the line of an event without its time."""
    stream = stream or io.StringIO()
    logs.configure("console", level, stream)
    logs.get_logger().info("connection opened", **values)
    return stream.getvalue().partition(" ")[2]


def json_line(**values: object) -> dict[str, object]:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    logs.get_logger().info("connection opened", **values)
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, object] = json.loads(line)
    del parsed["time"]
    return parsed


def failing_line(log_format: str, level: str) -> str:
    stream = io.StringIO()
    logs.configure(log_format, level, stream)
    try:
        raise KeyError("q")  # noqa: TRY301  (the log needs an exception that was raised)
    except KeyError:
        logs.get_logger().exception("unexpected error", channel=1)
    return stream.getvalue()


def test_a_console_line_has_level_event_and_keys() -> None:
    assert console_line(peer="127.0.0.1:1", user="guest") == (
        "info    connection opened  peer=127.0.0.1:1 user=guest\n"
    )


def test_a_value_with_spaces_is_quoted() -> None:
    assert console_line(reason="no route") == 'info    connection opened  reason="no route"\n'


def test_an_event_below_the_level_is_not_written() -> None:
    assert console_line(level="warning") == ""


def test_a_json_line_is_one_object() -> None:
    assert json_line(channels=3, names=["a", "b"]) == {
        "level": "info",
        "event": "connection opened",
        "channels": 3,
        "names": ["a", "b"],
    }


@pytest.mark.parametrize("forged", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\x85b", "a\u2028b", "a\udc80b", "a\0b"])
def test_what_a_client_sent_cannot_forge_a_line(forged: str) -> None:
    line = console_line(user=forged)
    assert len(line.splitlines()) == 1
    assert line.rstrip("\n").isprintable()
    assert str(json_line(user=forged)["user"]).isprintable()


def test_secrets_are_not_written() -> None:
    assert "hush" not in console_line(user="guest", password="hush")
    assert json_line(password="hush")["password"] == "***"


def test_an_exception_is_one_line_with_its_place() -> None:
    line = failing_line("console", "info")
    assert len(line.splitlines()) == 1
    assert "error=\"KeyError: 'q' at test_logs.py:" in line


def test_the_debug_level_adds_the_traceback() -> None:
    assert "    Traceback (most recent call last):\n" in failing_line("console", "debug")


def test_json_has_the_traceback_in_the_same_line() -> None:
    (line,) = failing_line("json", "info").splitlines()
    assert json.loads(line)["traceback"][0] == "Traceback (most recent call last):"


def test_a_log_that_cannot_be_written_is_lost_silently() -> None:
    logs.configure("console", "info", Full())
    logs.get_logger().info("connection opened")


def test_a_reader_that_goes_away_does_not_change_the_exit_code() -> None:
    code = (
        "from leveret.broker import logs; logs.configure('console', 'info'); input()\n"
        "for _ in range(3): logs.get_logger().info('connection opened')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait() == 0


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[32m" in console_line(stream=Terminal())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_plain_text_gets_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert "\x1b" not in console_line(stream=Terminal())


def test_a_throttle_admits_some_and_counts_the_rest() -> None:
    throttle = logs.Throttle(2, interval_s=10.0)
    assert [throttle.admit(now_s) for now_s in (0.0, 1.0, 2.0, 3.0)] == [0, 0, None, None]
    assert [throttle.admit(now_s) for now_s in (10.0, 11.0, 12.0)] == [2, 0, None]
