"""Counts the instructions of the hot loops and compares them with the last figures: `make guard`.

Each form, interpreted and compiled, is one process under callgrind (`count.py`). Callgrind begins a new count
where a loop begins and where it ends, so neither start nor preparation is in it, and runs differ by less than
4 %. Then two brokers, one of each form, carry the same load in turn: the compiled one has to be 1.5 times as
fast (`faster.py`).

Exits with 1 if anything is slower than it may be, and with 2 if it cannot be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from . import faster, figures
from .figures import Figures
from .forms import FORMS, ROOT, CannotMeasure, environment
from .loops import LOOPS, REFERENCES

FIGURES: Final = Path(__file__).with_name("figures.json")
OUT: Final = ROOT / "build" / "guard"
COUNT_S_MAX: Final = 600
MARK: Final = "getppid"  # see `count.mark`


def main() -> int:
    """Measure, tell, and judge."""
    parser = argparse.ArgumentParser(prog="make guard", description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="make the figures of now the last figures")
    parser.add_argument("--install", action="store_true", help="install valgrind from Debian's packages")
    options = parser.parse_args()
    try:
        require_valgrind(options.install)
        counted = count_all()
        ratio = faster.measure()
    except CannotMeasure as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2
    problems = judge(counted)
    if options.update:
        figures.write(FIGURES, counted)
        print(f"\nWritten to {FIGURES.relative_to(ROOT)}")
        problems = []
    print(f"\ncompiled: {ratio:.1f} times as fast as interpreted (transient, CPU time of the broker)")
    if ratio < faster.RATIO_MIN:
        problems.append(f"compiled is {ratio:.2f} times as fast as interpreted, not {faster.RATIO_MIN} times")
    for problem in problems:
        print(f"guard: {problem}", file=sys.stderr)
    return 1 if problems else 0


def judge(counted: dict[str, Figures]) -> list[str]:
    """Print the change of each form; what is wrong with them."""
    last = figures.read(FIGURES)
    reference_of = {name: loop.reference for name, loop in LOOPS.items()}
    problems: list[str] = []
    for form, now in counted.items():
        rows = figures.compare(last.get(form), now, reference_of)
        print("\n" + figures.table(form, last.get(form), now, rows))
        problems += [f"{form}: {row.loop} {row.problem}" for row in rows if row.problem]
    print(f"\ncallgrind_annotate {OUT.relative_to(ROOT)}/FORM/LOOP shows where they went.")
    if problems:
        problems.append("if that is as it should be: make guard ARGS=--update, and say why in the commit")
    return problems


def require_valgrind(install: bool) -> None:
    """Look for valgrind.

    Args:
        install: whether to install it if it is missing.

    Raises:
        CannotMeasure: there is none.
    """
    if shutil.which("valgrind"):
        return
    if not install:
        raise CannotMeasure(
            "valgrind is not installed; apt-get install valgrind, or make guard ARGS=--install"
        )
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotMeasure("--install needs root and apt-get")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    print("Installing valgrind", flush=True)
    try:
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "valgrind"]
        subprocess.run(command, env=quiet, check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise CannotMeasure("valgrind cannot be installed") from error


def count_all() -> dict[str, Figures]:
    """Count in all forms side by side.

    Raises:
        CannotMeasure: a process failed.
    """
    shutil.rmtree(OUT, ignore_errors=True)
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for form in FORMS:
            (OUT / form).mkdir(parents=True)
            processes[form] = subprocess.Popen(
                [
                    "valgrind", "--tool=callgrind", f"--callgrind-out-file={OUT / form / 'counts'}",
                    f"--dump-before={MARK}", sys.executable, "-m", "tests.guard.count",
                ],
                env=environment(form), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        counted = {form: _finish(form, process) for form, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    for leftover in OUT.glob("*/counts*"):
        leftover.unlink()
    return counted


def _finish(form: str, process: subprocess.Popen[str]) -> Figures:
    try:
        output, errors = process.communicate(timeout=COUNT_S_MAX)
    except subprocess.TimeoutExpired as error:
        raise CannotMeasure(f"{form}: not done after {COUNT_S_MAX} s") from error
    if process.returncode:
        raise CannotMeasure(f"{form}: exit code {process.returncode}\n{errors[-3000:]}")
    told = json.loads(output.splitlines()[-1])
    if told["compiled"] != (form == "compiled"):
        raise CannotMeasure(f"{form}: these were not the {form} modules; make guard builds them")
    counts = {name: _take_count(form, number, name) for number, name in enumerate(told["loops"])}
    return Figures(
        f"Python {told['python']}, SQLite {told['sqlite']}",
        {name: counts[name] for name in REFERENCES},
        {name: round(counts[name] / (loop.messages * loop.rounds), 1) for name, loop in LOOPS.items()},
    )


def _take_count(form: str, number: int, name: str) -> int:
    """Return the instructions of a loop, and keep its profile in a file with its name."""
    found = OUT / form / f"counts.{2 * number + 2}"  # a file for each mark, and two marks for a loop
    try:
        profile = found.read_text()
        count = int(re.findall(r"^totals: (\d+)$", profile, re.MULTILINE)[0])
    except (OSError, IndexError) as error:
        raise CannotMeasure(f"{form}: callgrind counted nothing at {MARK}") from error
    if f"--dump-before={MARK}" not in profile or not count:
        raise CannotMeasure(f"{form}: {found.name} is not what was counted at {MARK}")
    # Where a profile begins in the middle of a call, callgrind_annotate counts all of it as one function's.
    profile = re.sub(r"^calls=0 .*\n.*\n", "", profile, flags=re.MULTILINE)
    found.with_name(re.sub(r"\W+", "-", name)).write_text(profile)
    return count


if __name__ == "__main__":
    sys.exit(main())
