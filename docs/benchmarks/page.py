"""Makes docs/reference/benchmarks.md and its chart of what was measured."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from leveret.broker.bench import plot
from leveret.broker.bench.figures import ratio
from leveret.broker.bench.report import figure, rounded
from leveret.broker.bench.runner import Summary, summarise_all
from leveret.broker.bench.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from docs.benchmarks.machine import Machine

    from leveret.broker.bench.run import Result

PAGE: Final = "benchmarks.md"
CHART: Final = "benchmarks.svg"
MADE: Final = "<!-- Made by `make bench`; changes here are lost. -->"
CHART_TITLE: Final = "What each broker carries on the same machine"
NOTHING: Final = "–"  # noqa: RUF001  a dash, as in tables
KIB: Final = 1024
MB: Final = 1e6

# The other scenarios are full all the time: how long a message takes there is how long the queue is.
TIMED: Final = ("persistent-1", "many", "rpc", "churn", "churn-8", "declare", "declare-durable", "idle")

UNITS: Final = {
    "fanout": "deliveries",
    "topic": "deliveries",
    "rpc": "replies",
    "churn": "connections",
    "churn-8": "connections",
    "declare": "operations",
    "declare-durable": "operations",
    "idle": "connections opened",
}


class Start(NamedTuple):
    """How a broker started."""

    broker: int  # its number
    seconds: float  # from the command to the first answer
    rss_bytes: int | None  # a moment later, if it can be seen


@dataclass
class Findings:
    """All that a run of `make bench` found out."""

    machine: Machine
    command: str  # that does it again
    version: str  # of Leveret, and how it runs
    rounds: int
    seconds: float
    when: datetime
    results: list[tuple[int, Result]] = field(default_factory=list)  # with the broker's number
    starts: list[Start] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def brokers(self) -> list[str]:
        """The names of the brokers, by number."""
        names = {number: result.broker for number, result in self.results}
        return [names[number] for number in sorted(names)]

    @property
    def rows(self) -> list[list[Summary]]:
        """Medians: for each scenario, or phase of one, those of each broker."""
        names = list(SCENARIOS)
        return summarise_all(sorted(self.results, key=lambda each: names.index(each[1].scenario)))


def make_command(arguments: list[str]) -> str:
    """Return the command that gives these arguments; how Leveret is started is make's own."""
    own = [each for each in arguments if not each.startswith("--leveret=")]
    return f"make bench ARGS={shlex.quote(shlex.join(own))}" if own else "make bench"


def chart(findings: Findings) -> str:
    """Return the chart as SVG."""
    return plot.chart(findings.rows, CHART_TITLE)


def page(findings: Findings) -> str:
    """Return the page as Markdown."""
    rows, brokers = findings.rows, findings.brokers
    parts = [
        "# Benchmarks",
        MADE,
        _introduction(findings),
        f"![Rates of {' and '.join(brokers)}, as bars]({CHART})",
        "## Rate and CPU",
        "CPU is what the broker used, in seconds for a million messages published, operations or\n"
        "connections. It is the steadiest figure: compare it first." + _ratio_note(brokers),
        _rates(findings, rows),
        "## Latency",
        "Only where the broker is not full all the time: elsewhere it tells how long the queues were. At a\n"
        "rate (`many`) it counts from when each message was due.",
        _latencies(findings, rows),
        "## Memory, and the start",
        _sizes(findings, rows),
        "## The scenarios",
        _scenarios(findings),
        "To measure a broker of your own, and to read figures: [Measure a broker](../how-to/measure.md).\n"
        "Where the time goes: [How fast it is, and why](../explanation/performance.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ratio_note(brokers: Sequence[str]) -> str:
    names = [each.partition(" ")[0] for each in brokers]
    return f" A ratio is {' by '.join(names)}." if len(names) > 1 else ""


def _introduction(findings: Findings) -> str:
    brokers = findings.brokers
    how = "taking turns on the same machine" if len(brokers) > 1 else "alone"
    medians = f"medians of {findings.rounds} rounds" if findings.rounds > 1 else "one round"
    rows = [
        ("date", f"{findings.when:%Y-%m-%d}; it took {findings.minutes:.1f} minutes"),
        ("command", f"`{findings.command}`"),
        ("brokers", "; ".join([findings.version, *brokers[1:]]) + "; with their defaults, on new data"),
        *findings.machine.rows(),
    ]
    return (
        f"{' and '.join(brokers)}, {how}; {medians}, each with brokers started anew.\n"
        "The load generator, `leveret bench`, runs on the same cores. It checks every message for loss,\n"
        f"doubles, order and content: {_verdict(findings)}.\n\n" + _table(["", ""], rows)
    )


def _verdict(findings: Findings) -> str:
    runs = len(findings.results)
    failed = sum(not result.is_ok for _number, result in findings.results)
    if failed:
        return f"**{failed} of {runs} runs found a fault**"
    return f"all {runs} runs ended `ok`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _compared(
    findings: Findings, rows: Sequence[Sequence[Summary]], value: Callable[[Summary], float | None],
    show: Callable[[float | None], str],
) -> list[list[str]]:  # fmt: skip
    """Return for each row what each broker has, and then the first one's figure by the second one's."""
    cells = []
    for row in rows:
        values = [value(each) for each in row]
        values += [None] * (len(findings.brokers) - len(values))
        shown = [show(each).replace("-", NOTHING) for each in values]
        if len(values) > 1:
            times = ratio(values[0], values[1])
            shown.append(NOTHING if times is None else _times(times))
        cells.append(shown)
    return cells


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _columns(findings: Findings, what: str) -> list[str]:
    names = [f"{name.partition(' ')[0]}, {what}" for name in findings.brokers]
    return [*names, "ratio"] if len(names) > 1 else names


def _rates(findings: Findings, rows: Sequence[Sequence[Summary]]) -> str:
    rates = _compared(findings, rows, lambda each: each.rate, rounded)
    costs = _compared(findings, rows, lambda each: each.cpu_per_million, figure)
    lines = []
    for row, rate, cost in zip(rows, rates, costs, strict=True):
        name = row[0].scenario
        if row[0].is_paced:
            rate[-1:] = ["paced"] if len(rate) > 1 else rate[-1:]
        note = "" if all(each.is_ok for each in row) else " (**a check failed**)"
        lines.append([f"`{name}`{note}", UNITS.get(name, "messages"), *rate, *cost])
    header = ["scenario", "", *_columns(findings, "per second"), *_columns(findings, "CPU s/M")]
    return _table(header, lines)


def _latencies(findings: Findings, rows: Sequence[Sequence[Summary]]) -> str:
    timed = [row for row in rows if row[0].scenario in TIMED]
    if not timed:
        return "Nothing of this kind was run."
    halves = _compared(findings, timed, lambda each: each.p50_ms, figure)
    tails = _compared(findings, timed, lambda each: each.p99_ms, figure)
    lines = [
        [f"`{row[0].scenario}`", *half, *tail] for row, half, tail in zip(timed, halves, tails, strict=True)
    ]
    return _table(["scenario", *_columns(findings, "p50 ms"), *_columns(findings, "p99 ms")], lines)


def _sizes(findings: Findings, rows: Sequence[Sequence[Summary]]) -> str:
    lines = [
        ["from the command to the first answer, s", *_start(findings, lambda start: start.seconds)],
        ["resident when idle, MB", *_start(findings, lambda start: (start.rss_bytes or 0) / MB)],
    ]
    extras = [
        ("idle", "resident_bytes_per_connection", KIB, "resident for each idle connection, KiB"),
        ("idle", "idle_cpu_percent", 1, "CPU with all of them idle, percent of a core"),
        ("idle", "wake_all_ms", 1, "ms to wake all of them with a message each"),
        ("backlog, fill", "resident_bytes_per_message", 1, "resident for each waiting 16 B message, bytes"),
        (
            "backlog-persistent, fill", "resident_bytes_per_message", 1,
            "the same, persistent and of 1 KiB",
        ),
    ]  # fmt: skip
    for scenario, name, unit, words in extras:
        found = [row for row in rows if row[0].scenario == scenario]
        if found:
            values = [each.extra.get(name) for each in found[0]]
            lines.append([words, *(NOTHING if value is None else figure(value / unit) for value in values)])
    return _table(["", *findings.brokers], lines)


def _start(findings: Findings, value: Callable[[Start], float]) -> list[str]:
    """Return the median of each broker."""
    return [
        figure(median(value(start) for start in findings.starts if start.broker == number))
        for number in range(len(findings.brokers))
    ]


def _scenarios(findings: Findings) -> str:
    published = {result.scenario: result.published for _number, result in findings.results}
    lines = []
    for name, scenario in SCENARIOS.items():
        if name in published:
            amount = "" if scenario.has_rate else f" (here {published[name]:,})"
            lines.append([f"`{name}`", scenario.about + amount])
    return _table(["scenario", "what it does"], lines)
