"""Measures Leveret beside RabbitMQ, where that is installed, and writes docs/reference/benchmarks.md.

    make bench                      # all scenarios; writes the page and its chart
    make bench ARGS=--quick         # a look: short, once, written to build/benchmarks
    make bench ARGS="rpc topic"     # only these, also to build/benchmarks

Each round starts both brokers anew, on free ports and new data, and runs each scenario on the one and then on
the other; every second round begins with the other one. What else the machine does so falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docs.benchmarks.machine import Machine
from docs.benchmarks.page import CHART, PAGE, Findings, Start, chart, make_command, page

from leveret.broker.bench import report
from leveret.broker.bench.processes import BrokerProcesses
from leveret.broker.bench.run import Options
from leveret.broker.bench.runner import Target, run_one
from leveret.broker.bench.scenarios import SCENARIOS
from leveret.broker.bench.wire import Unreachable, parse_url

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "interop-tests"))

from starting import CannotRun, rabbitmq_script, running_leveret, running_rabbitmq  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = "/var/tmp"  # on a disk, where /tmp may be memory
SETTLE_S: Final = 1.0  # after a start, before the size is looked at
LOAD_MAX: Final = 0.5  # above it there is a word about it
ROUNDS: Final = 5
SECONDS: Final = 1.5
QUICK_ROUNDS: Final = 1
QUICK_SECONDS: Final = 0.5

# Scenarios that are a number of messages: on the page, and for a quick look
BACKLOGS: Final = {"backlog": (500_000, 50_000), "backlog-persistent": (100_000, 10_000)}
IDLE: Final = (1000, 100)

# Sizes are told best by a broker that has done nothing yet, so these are first.
ORDER: Final = ("idle", "backlog", *(name for name in SCENARIOS if name not in ("idle", "backlog")))


def options_for(name: str, seconds: float, quick: bool) -> Options:
    """Return how much of a scenario is run."""
    if name in BACKLOGS:
        return Options(seconds, BACKLOGS[name][quick])
    return Options(2 * seconds, IDLE[quick]) if name == "idle" else Options(seconds)


@contextlib.contextmanager
def running(
    folder: Path, command: str, with_rabbitmq: bool, findings: Findings, complaints: list[str]
) -> Iterator[list[Target]]:
    """Run the brokers, Leveret first, and note how long each took to start and how large it then is."""
    with contextlib.ExitStack() as stack:
        targets = []
        for number, name in enumerate(("leveret", "rabbitmq") if with_rabbitmq else ("leveret",)):
            data = folder / name
            data.mkdir()
            before = time.perf_counter()
            broker = (
                running_rabbitmq(data, False, plugins=())
                if name == "rabbitmq"
                else running_leveret(data, command, complaints)
            )
            target = Target.found(parse_url(stack.enter_context(broker)), None)
            seconds = time.perf_counter() - before
            targets.append(target)
            time.sleep(SETTLE_S)
            rss = BrokerProcesses(target.pid).rss_bytes() if target.pid is not None else None
            findings.starts.append(Start(number, seconds, rss))
        yield targets


def run_round(
    names: list[str], targets: list[Target], turn: int, choice: argparse.Namespace, findings: Findings
) -> None:
    """Run each scenario once on each broker."""
    order = list(enumerate(targets))
    if turn % 2:
        order.reverse()
    progress = report.Progress(sys.stderr)
    for name in names:
        options = options_for(name, choice.seconds, choice.quick)
        for number, target in order:
            result = run_one(name, target, options, partial(progress.show, name))
            progress.clear()
            print(report.row(result), flush=True)
            findings.results.append((number, result))


def run_rounds(
    names: list[str], folder: Path, choice: argparse.Namespace, findings: Findings, complaints: list[str]
) -> None:
    """Run all rounds; `complaints` takes what Leveret did wrong beside what the checks found."""
    with_rabbitmq = not choice.only_leveret and rabbitmq_script() is not None
    if not with_rabbitmq and not choice.only_leveret:
        print("RabbitMQ is not installed (apt-get install rabbitmq-server): Leveret is measured alone")
    if findings.machine.load > LOAD_MAX:
        print(f"The machine is busy (load {findings.machine.load:.2f}): rates and latencies will suffer")
    print(report.header())
    for turn in range(choice.rounds):
        own = folder / str(turn)
        own.mkdir(mode=0o755)
        with running(own, choice.leveret, with_rabbitmq, findings, complaints) as targets:
            run_round(names, targets, turn, choice, findings)


def version(command: str) -> str:
    """Return the version of the Leveret that a command starts, and whether it is compiled."""
    asked = [*shlex.split(command)[:-1], "--version"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    return answer.stdout.strip().replace("leveret", "Leveret", 1)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("make bench", description="Measure Leveret beside RabbitMQ.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only these; the page is left alone")
    parser.add_argument("--quick", action="store_true", help="a short look; the page is left alone")
    parser.add_argument("--rounds", type=int, help=f"runs of each scenario ({ROUNDS}; quick {QUICK_ROUNDS})")
    parser.add_argument("--seconds", type=float, help=f"of each run ({SECONDS}; quick {QUICK_SECONDS})")
    parser.add_argument("--only-leveret", action="store_true", help="leave RabbitMQ out, and the page alone")
    parser.add_argument(
        "--leveret",
        default=f"{shlex.quote(sys.executable)} -m leveret serve",
        help="command that starts Leveret",
    )
    choice = parser.parse_args()
    unknown = [name for name in choice.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    choice.rounds = choice.rounds or (QUICK_ROUNDS if choice.quick else ROUNDS)
    choice.seconds = choice.seconds or (QUICK_SECONDS if choice.quick else SECONDS)
    return choice


def main() -> int:
    """Measure and write."""
    choice = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [name for name in ORDER if not choice.scenarios or name in choice.scenarios]
    is_trial = choice.quick or choice.scenarios or choice.only_leveret
    complaints: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leveret-bench-", dir=DATA) as folder:
        Path(folder).chmod(0o755)  # RabbitMQ may run as another user
        findings = Findings(
            Machine.this(Path(folder)), make_command(sys.argv[1:]),
            version(choice.leveret), choice.rounds, choice.seconds, datetime.now(UTC),
        )  # fmt: skip
        try:
            run_rounds(names, Path(folder), choice, findings, complaints)
        except (CannotRun, Unreachable) as reason:
            print(f"\n{reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
    findings.minutes = (time.monotonic() - started) / 60
    write(findings, ROOT / ("build/benchmarks" if is_trial else "docs/reference"))
    for complaint in complaints:
        print(f"\nLeveret {complaint}; see its log above.")
    return 1 if complaints or any(not result.is_ok for _number, result in findings.results) else 0


def write(findings: Findings, folder: Path) -> None:
    """Write the page, the chart, and every run for those who want more than medians."""
    raw = "".join(json.dumps(result.to_json()) + "\n" for _number, result in findings.results)
    files = {
        folder / PAGE: page(findings),
        folder / CHART: chart(findings),
        ROOT / "build/benchmarks/results.jsonl": raw,
    }
    print()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
