"""What the guard says of figures, without counting anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from . import figures
from .__main__ import FIGURES
from .figures import Figures
from .forms import FORMS
from .loops import LOOPS, REFERENCES

LAST = Figures("Python 3.11.7, SQLite 3.40.1", {"Python": 1000.0, "SQLite": 2000.0}, {"topic": 500.0})


def compare(now: Figures, last: Figures | None = LAST, reference: str = "Python") -> figures.Row:
    """Compare figures of one loop."""
    [row] = figures.compare(last, now, {"topic": reference})
    return row


def counted(topic: float) -> Figures:
    """Figures like the last ones, but for the loop."""
    return replace(LAST, loops={"topic": topic})


@pytest.mark.parametrize("instructions", [1.0, 500.0, 600.0])
def test_a_loop_that_takes_up_to_20_percent_more_passes(instructions: float) -> None:
    assert compare(counted(instructions)).problem is None


def test_a_loop_that_takes_more_than_that_fails() -> None:
    assert compare(counted(605.0)).problem == "takes 21% more than it did (20% are allowed)"


def test_a_loop_without_a_figure_fails() -> None:
    assert compare(counted(500.0), replace(LAST, loops={})).problem == "has no last figure"
    assert compare(counted(500.0), None).problem == "has no last figure"
    assert compare(counted(500.0), replace(LAST, references={})).problem == "has no last figure"


def test_a_loop_that_is_no_longer_counted_fails() -> None:
    assert compare(replace(LAST, loops={})).problem == "has a last figure, and was not counted"


@pytest.mark.parametrize(("instructions", "fails"), [(650.0, False), (750.0, True)])
def test_a_python_that_takes_more_for_everything_is_compared_by_its_reference_loop(
    instructions: float, fails: bool
) -> None:
    slower = Figures("Python 3.12.1, SQLite 3.40.1", {"Python": 1200.0, "SQLite": 2000.0}, {})
    row = compare(replace(slower, loops={"topic": instructions}))
    assert row.last == 600.0
    assert (row.problem is not None) == fails


def test_a_loop_that_is_mostly_sqlite_is_compared_by_sqlite() -> None:
    slower = Figures("Python 3.11.7, SQLite 3.50.0", {"Python": 1000.0, "SQLite": 3000.0}, {"topic": 750.0})
    assert compare(slower, reference="SQLite").change == 0.0


def test_the_table_shows_the_change_and_what_failed() -> None:
    now = counted(700.0)
    lines = figures.table("compiled", LAST, now, [compare(now)]).splitlines()
    assert [line.split() for line in lines[1:]] == [["topic", "500", "700", "+40.0%", "FAILED"]]


def test_the_table_says_that_it_compares_two_pythons() -> None:
    now = replace(LAST, made_with="Python 3.13.0, SQLite 3.40.1")
    text = figures.table("compiled", LAST, now, [compare(now)])
    assert "of Python 3.11.7, SQLite 3.40.1, are scaled to Python 3.13.0, SQLite 3.40.1" in text


def test_the_table_says_that_a_gain_should_be_kept() -> None:
    now = counted(400.0)
    assert "make guard ARGS=--update" in figures.table("compiled", LAST, now, [compare(now)])


def test_what_another_python_gains_is_not_to_be_kept() -> None:
    now = replace(counted(400.0), made_with="Python 3.13.0, SQLite 3.40.1")
    assert "make guard ARGS=--update" not in figures.table("compiled", LAST, now, [compare(now)])


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert figures.read(path) == {}
    figures.write(path, {"compiled": LAST})
    assert figures.read(path) == {"compiled": LAST}


@pytest.mark.parametrize("form", FORMS)
def test_there_is_a_figure_of_every_loop(form: str) -> None:
    last = figures.read(FIGURES)[form]
    assert list(last.loops) == list(LOOPS)
    assert list(last.references) == list(REFERENCES)


@pytest.mark.parametrize("loop", [*REFERENCES, *LOOPS])
def test_a_loop_does_what_it_counts(loop: str) -> None:
    rounds = (REFERENCES | LOOPS)[loop].start()
    next(rounds)
    next(rounds)
    rounds.close()
