"""The command line: one line for every mistake, exit codes, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from leveret.broker.cli import main, run_guarded
from leveret.broker.config import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was written to standard error, which is one line."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("leveret: ")
    assert err.index("\n") == len(err) - 1
    return err.removeprefix("leveret: ").rstrip()


def raising(error: BaseException) -> int:
    def run(_settings: Settings) -> int:
        raise error

    return run_guarded(run, Settings())


def test_the_version_tells_which_way_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(("leveret 0.1.0 (compiled, ", "leveret 0.1.0 (interpreted, "))


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Run the broker until Ctrl-C." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text", "exit_code"),
    [
        (["serve", "--prot", "1"], "unknown option --prot; the nearest known one is --port", 64),
        (["serv"], "No such command 'serv'. Did you mean 'serve'? (see leveret --help)", 64),
        (["serve", "--port"], "Option '--port' requires an argument", 64),
        (["serve", "now"], "Got unexpected extra argument (now)", 64),
        (["serve", "--port", "http"], "--port: 'http' is not allowed; give a whole number", 64),
        (["serve", "--log-level", "loud"], "--log-level: 'loud' is not allowed; give debug, info,", 64),
        (["serve", "--memory", "--data", "x"], "--memory keeps nothing on disk, so --data has no use", 64),
        (["serve", "--config", "gone.toml"], "--config: there is no file gone.toml", 78),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(
    arguments: list[str], text: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == exit_code
    assert complaint(capsys).startswith(text)


def test_the_exit_code_of_the_server_is_that_of_the_command() -> None:
    assert run_guarded(lambda _settings: 74, Settings()) == 74


def test_ctrl_c_during_start_up_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unforeseen_error_shows_its_place_but_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(ZeroDivisionError("one\ntwo")) == 1
    text = complaint(capsys)
    assert text.startswith(r"this is a bug in Leveret: ZeroDivisionError: one\ntwo at test_cli.py:")
    assert text.endswith("(--log-level debug shows all of it)")


def test_the_debug_level_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_settings: Settings) -> int:
        raise ZeroDivisionError

    run_guarded(run, Settings(log_level="debug"))
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")


def test_the_command_line_imports_neither_trio_nor_sqlite() -> None:
    code = "import sys, leveret.broker.cli; print(sorted({'trio', 'sqlite3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
