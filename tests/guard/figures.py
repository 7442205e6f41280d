"""The last figures of the hot loops, and whether the ones of now are within them.

Instructions do not depend on how busy a machine is, but they do on how Python was built: the same loop takes
10 % fewer on Debian's Python 3.11.2 than on a 3.11.7 built without profile, and 15 % more on a 3.12. So two
loops that have nothing to do with Leveret are counted in the same run, one of plain Python and one of SQLite.
What is compared is how many times as many a loop takes as its reference. That differed by at most 15 % among
the Pythons tried (3.11 to 3.13, two builds), and by 4 % among runs of the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REGRESSION_MAX: Final = 0.2
WORTH_KEEPING: Final = -0.1  # a gain that the next loss could hide behind


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted in one form, interpreted or compiled."""

    made_with: str  # Python, SQLite
    references: dict[str, float]  # instructions in a round
    loops: dict[str, float]  # instructions for a message


@dataclass(frozen=True, slots=True)
class Row:
    """A loop, then and now."""

    loop: str
    last: float | None  # instructions for a message, as they would be with the references of now
    now: float | None

    @property
    def change(self) -> float | None:
        """How much more it takes now: 0.1 is 10 %."""
        if self.last is None or self.now is None:
            return None
        return self.now / self.last - 1

    @property
    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        if self.last is None:
            return "has no last figure"
        if self.change is None:
            return "has a last figure, and was not counted"
        if self.change > REGRESSION_MAX:
            return f"takes {self.change:.0%} more than it did ({REGRESSION_MAX:.0%} are allowed)"
        return None


def compare(last: Figures | None, now: Figures, reference_of: Mapping[str, str]) -> list[Row]:
    """Compare all loops.

    Args:
        last: None if there are no figures of this form.
        now: counted just now.
        reference_of: name of a loop -> name of its reference.
    """
    rows: list[Row] = []
    loops = now.loops if last is None else {**now.loops, **last.loops}
    for loop in loops:
        then = None
        reference = reference_of.get(loop, "Python")
        if last is not None and loop in last.loops and reference in last.references:
            then = last.loops[loop] * now.references[reference] / last.references[reference]
        rows.append(Row(loop, then, now.loops.get(loop)))
    return rows


def table(form: str, last: Figures | None, now: Figures, rows: list[Row]) -> str:
    """Return the rows as text, with what to know about them."""
    lines = [
        f"{form + ': instructions a message':<40}{'last':>10}{'now':>10}{'change':>9}",
        *(
            f"  {row.loop:<38}{_number(row.last)}{_number(row.now)}{_percent(row.change)}"
            + ("" if row.problem is None else "  FAILED")
            for row in rows
        ),
    ]
    is_same_python = last is None or last.made_with == now.made_with
    if last is not None and not is_same_python:
        lines.append(
            f"  The last figures, of {last.made_with}, are scaled to {now.made_with} by the reference loops."
        )
    if is_same_python and any(row.change is not None and row.change < WORTH_KEEPING for row in rows):
        lines.append("  Keep what was gained: make guard ARGS=--update")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10,.0f}"


def _percent(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:>+9.1%}"


def read(path: Path) -> dict[str, Figures]:
    """Return the last figures by form; none if there is no file."""
    if not path.exists():
        return {}
    return {form: Figures(**each) for form, each in json.loads(path.read_text()).items()}


def write(path: Path, figures: Mapping[str, Figures]) -> None:
    """Make these the last figures."""
    path.write_text(json.dumps({form: asdict(each) for form, each in figures.items()}, indent=2) + "\n")
