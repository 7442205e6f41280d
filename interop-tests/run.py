#!/usr/bin/env python3
"""Run the interop suite against a RabbitMQ and against Leveret, both started for it, and compare.

    python interop-tests/run.py [options] [options and arguments of pytest]

Exits with 1 when a test fails on Leveret (one that fails on RabbitMQ, too, is wrong itself) or Leveret
misbehaves, and with 2 when there is nothing to compare because a broker does not start.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import matrix
import programs
from starting import CTL, ROOT, STOP_S, CannotRun, install_packages, running_leveret, running_rabbitmq

HERE = Path(__file__).resolve().parent
PASSED, FAILED, ERROR, SKIPPED, MISSING = "passed", "FAILED", "ERROR", "skipped", "not run"
BAD = (FAILED, ERROR, MISSING)
LEVERET = "Leveret"
# Tests (regular expressions for "file::test") that RabbitMQ passes and Leveret cannot pass yet -> why
NOT_YET: dict[str, str] = {}


@dataclass
class Run:
    """What the suite said about one broker."""

    broker: str
    outcomes: dict[str, str] = field(default_factory=dict)  # "file::test" -> PASSED, FAILED ...
    reasons: dict[str, str] = field(default_factory=dict)  # "file::test" -> the first line of what went wrong
    versions: dict[str, str] = field(default_factory=dict)  # language of a client program -> its library's
    seconds: float = 0

    def outcome(self, test: str) -> str:
        """Return the outcome of a test, which may not have been run at all."""
        return self.outcomes.get(test, MISSING)

    def summary(self, tests: list[str]) -> str:
        """Count the outcomes of some tests."""
        counts = Counter(self.outcome(test) for test in tests)
        return ", ".join(f"{counts[kind]} {kind}" for kind in (PASSED, *BAD, SKIPPED) if counts[kind])


def introduce(name: str, url: str) -> str:
    """Return the name of a broker and the version it tells its clients."""
    import pika  # here, so that --help needs nothing

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties = connection._impl.server_properties
    version = properties.get("broker_version") or properties.get("version", "")
    return f"{name} {version}" if version[:1].isdigit() else name


def run_pytest(command: list[str]) -> int:
    """Run pytest and return its exit code.

    When this script is told to stop, so is pytest, in the way that lets it stop what its tests have started.
    """
    pytest = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return pytest.wait()
    except BaseException:
        pytest.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.wait(STOP_S)
        pytest.kill()
        raise


def run_suite(name: str, url: str, directory: Path, pytest_arguments: list[str]) -> Run:
    """Run the suite against one broker."""
    run = Run(introduce(name, url))
    print(f"\n{run.broker} at {url}", flush=True)
    results = directory / f"{name}.xml"
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", str(HERE), "-q", "--broker", url, f"--junitxml={results}"]
    if (script := directory / name.lower() / CTL).exists():
        command += ["--ctl", str(script)]
    code = run_pytest([*command, "-p", "no:cacheprovider", *pytest_arguments])
    run.seconds = time.monotonic() - started
    if code not in (0, 1) or not results.exists():
        raise CannotRun(f"pytest gave up with exit code {code}")
    for case in ElementTree.parse(results).iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        for kind, outcome in (("error", ERROR), ("failure", FAILED), ("skipped", SKIPPED)):
            if (trouble := case.find(kind)) is not None:
                run.outcomes[test] = outcome
                run.reasons[test] = (trouble.get("message") or "").strip().partition("\n")[0]
                break
        else:
            run.outcomes.setdefault(test, PASSED)
    for told in ElementTree.parse(results).iter("property"):
        run.versions[(told.get("name") or "").removeprefix("version of ")] = told.get("value") or ""
    return run


def sentence(test: str) -> str:
    """Return the name of a test as people read it."""
    name, bracket, parameters = test.partition("::")[2].partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f" [{parameters}" if bracket else "")


def print_table(rows: list[list[str]]) -> None:
    """Print rows in columns that are as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(runs: list[Run], full: bool) -> list[str]:
    """Print what the suite said, side by side, and return the tests that the last broker should pass."""
    tests = list(dict.fromkeys(test for run in runs for test in run.outcomes))
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.partition("::")[0].removeprefix("test_").replace("_", " "), []).append(test)
    print()
    rows = [["", *(run.broker for run in runs)]]
    for name, members in files.items():
        rows.append([name, *(run.summary(members) for run in runs)])
        if full:
            rows += [["  " + sentence(test), *(run.outcome(test) for run in runs)] for test in members]
    rows.append(["together", *(f"{run.summary(tests)} in {run.seconds:.0f} s" for run in runs)])
    print_table(rows)

    notable = [test for test in tests if any(run.outcome(test) in BAD for run in runs)]
    if notable:
        print(f"\n{'Different, or failing everywhere' if len(runs) > 1 else 'Failing'}:\n")
        print_table(
            [["", *(run.broker for run in runs)]]
            + [
                [f"{test.partition('::')[0]}: {sentence(test)}", *(run.outcome(test) for run in runs)]
                for test in notable
            ]
        )
        for run in runs:
            for test in notable:
                if test in run.reasons and run.outcome(test) in BAD:
                    print(f"\n  {run.broker}, {test}\n    {run.reasons[test][:300]}")
    failing = [test for test in notable if runs[-1].outcome(test) in BAD]
    if not runs[-1].broker.startswith(LEVERET):
        return failing
    not_yet = {test: reason for test in tests if (reason := reason_not_yet(test)) is not None}
    for test, reason in not_yet.items():
        print(f"\n  Not yet there, {reason}: {test} {runs[-1].outcome(test)}")
    there = [test for test in not_yet if runs[-1].outcome(test) == PASSED]  # to be taken off the list
    return [test for test in failing if test not in not_yet] + there


def reason_not_yet(test: str) -> str | None:
    """Return what Leveret has not got that a test needs; None if it has to pass."""
    return next((reason for pattern, reason in NOT_YET.items() if re.fullmatch(pattern, test)), None)


def report_matrix(runs: list[Run], write: bool, complete: bool) -> None:
    """Print what each client program did; write the page on it if asked to, else compare a complete run."""
    outcomes = [run.outcomes for run in runs]
    reasons = runs[-1].reasons
    print(f"\nClient programs on {' and '.join(run.broker for run in runs)}:\n")
    print_table(matrix.rows(outcomes, reasons))
    for reason in sorted({text for text in reasons.values() if text.startswith(matrix.NOT_RUN)}):
        print(f"\n  {reason}")
    page = matrix.page([run.broker for run in runs], outcomes, reasons, runs[-1].versions)
    if write:
        matrix.PAGE.write_text(page, encoding="utf-8")
    elif complete and len(runs) == 2 and page != matrix.PAGE.read_text(encoding="utf-8"):
        print("\nThis is not what docs/reference/clients.md tells; --write-matrix writes it.")


def install_for_programs() -> None:
    """Install what the client programs need; what cannot be had is skipped, and the end tells it."""
    if packages := programs.packages_to_install():
        try:
            install_packages(packages)
        except CannotRun as reason:
            print(f"Some clients are left out: {reason}", flush=True)


def main() -> int:
    """Run the suite as the command line says."""
    parser = argparse.ArgumentParser(
        description="Run the interop suite against RabbitMQ and Leveret, and compare.",
        epilog="Everything else is given to pytest, for example: -k dead_letter",
    )
    parser.add_argument("--only", choices=["rabbitmq", "leveret"], help="run against one of them")
    parser.add_argument(
        "--full", action="store_true", help="print every test, not only files and differences"
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="install RabbitMQ and what the client programs need, if missing (Debian, root)",
    )
    parser.add_argument(
        "--write-matrix", action="store_true", help="write docs/reference/clients.md as this run has it"
    )
    parser.add_argument("--rabbitmq-url", metavar="URL", help="use a RabbitMQ that runs already")
    parser.add_argument("--leveret-url", metavar="URL", help="use a Leveret that runs already")
    parser.add_argument(
        "--leveret-command",
        metavar="COMMAND",
        help="how to start Leveret, for example '.venv/serve/bin/leveret serve'",
    )
    options, pytest_arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    runs: list[Run] = []
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="leveret-interop-") as temporary:
        directory = Path(temporary)
        directory.chmod(0o755)  # RabbitMQ may run as another user
        for name in ("rabbitmq", "leveret"):
            (directory / name).mkdir()
        try:
            if options.install:
                install_for_programs()
            if not pytest_arguments:  # else only what is asked for is built, when its test comes
                print("Building the client programs", flush=True)
                programs.build_all()
            if options.only != "leveret":
                with (
                    contextlib.nullcontext(options.rabbitmq_url)
                    if options.rabbitmq_url
                    else running_rabbitmq(directory / "rabbitmq", options.install)
                ) as url:
                    runs.append(run_suite("RabbitMQ", url, directory, pytest_arguments))
            if options.only != "rabbitmq":
                with (
                    contextlib.nullcontext(options.leveret_url)
                    if options.leveret_url
                    else running_leveret(directory / "leveret", options.leveret_command, complaints)
                ) as url:
                    runs.append(run_suite("Leveret", url, directory, pytest_arguments))
        except CannotRun as reason:
            print(f"\n{reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        failing = report(runs, options.full)
        if any(test.startswith("test_clients::") for run in runs for test in run.outcomes):
            report_matrix(runs, options.write_matrix, complete=not pytest_arguments)
    if failing:
        print(f"\n{len(failing)} of the tests that should pass fail on {runs[-1].broker}.")
    for complaint in complaints:
        print(f"\nLeveret {complaint}; see its log above.")
    return 1 if failing or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
