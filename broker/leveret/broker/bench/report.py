"""What the user sees: a line for each run in one aligned table, the comparison, the progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

    from leveret.broker.bench.run import Result
    from leveret.broker.bench.runner import Comparison

NOTHING: Final = "-"
BAR_WIDTH: Final = 24

# heading -> width; all but the first and the last are aligned to the right
_COLUMNS: Final = {
    "scenario": 18,
    "broker": 16,
    "published/s": 11,
    "delivered/s": 11,
    "through/s": 11,
    "p50 ms": 9,
    "p99 ms": 9,
    "max ms": 9,
    "cpu s/M": 8,
    "rss MB": 7,
    "result": 6,
}
_COMPARED: Final = {
    "scenario": 26,
    "rate A": 11,
    "rate B": 11,
    "A/B": 6,
    "cpu s/M A": 9,
    "cpu s/M B": 9,
    "A/B ": 6,
    "p50 ms A": 9,
    "p50 ms B": 9,
    "A/B  ": 6,
}

MAY_LIMIT: Final = "the broker may be faster than this"

# What only some scenarios tell: name in JSON -> in words
EXTRAS: Final = {
    "resident_bytes_per_message": "bytes resident for each waiting message",
    "resident_bytes_per_connection": "bytes resident for each connection",
    "idle_cpu_percent": "CPU while nothing happens, percent of a core",
    "wake_all_ms": "ms until each had got a message",
}

LEGEND: Final = (
    "published/s, delivered/s: while publishing, without the warm-up; in backlog of its two phases.\n"
    "through/s: all that was done, by the whole time until the last of it; in idle connections opened.\n"
    "cpu s/M: CPU seconds of the broker for a million published messages, operations or connections.\n"
    "Latency counts from when a message was sent or, at a given rate, due; with confirms and no consumer\n"
    "it is that of the confirm.\n"
)


def header(columns: dict[str, int] = _COLUMNS) -> str:
    """Return the line of headings."""
    return _line(list(columns), columns)


def row(result: Result) -> str:
    """Return the line of a run; what did not hold, and what else it tells, follow in lines of their own."""
    latency = result.latency_ms or result.confirm_ms or {}
    cells = [
        result.scenario,
        result.broker[:16],
        count(result.publish_rate),
        count(result.deliver_rate),
        count(result.through_rate),
        *(figure(latency.get(name)) for name in ("p50", "p99", "max")),
        figure(result.cpu_per_million),
        figure(result.peak_rss_mb),
        "ok" if result.is_ok else "FAILED",
    ]
    extra = [f"{EXTRAS.get(name, name)}: {figure(value)}" for name, value in result.extra.items()]
    notes = [*result.verdict, *extra]
    if result.is_generator_busy:
        notes.append(f"the generator was busy for {result.generator_share:.0%} of the time: {MAY_LIMIT}")
    return "\n".join([_line(cells, _COLUMNS), *(f"    {note}" for note in notes)])


def comparison(rows: list[Comparison]) -> str:
    """Return the table of medians and ratios."""
    first, second = rows[0].first, rows[0].second
    lines = [
        f"A: {first.broker}   B: {second.broker}   medians of {first.runs}",
        _line(list(_COMPARED), _COMPARED),
    ]
    for each in rows:
        a, b = each.first, each.second
        cells = [
            a.scenario,
            count(a.rate), count(b.rate), figure(each.rate_ratio),
            figure(a.cpu_per_million), figure(b.cpu_per_million), figure(each.cpu_ratio),
            figure(a.p50_ms), figure(b.p50_ms), figure(each.p50_ratio),
        ]  # fmt: skip
        lines.append(_line(cells, _COMPARED))
    return "\n".join(lines)


def _line(cells: list[str], columns: dict[str, int]) -> str:
    pairs = zip(cells, columns.items(), strict=True)
    left = ("scenario", "broker", "result")
    aligned = [cell.ljust(width) if name in left else cell.rjust(width) for cell, (name, width) in pairs]
    return "  ".join(aligned).rstrip()


def count(value: float | None) -> str:
    """Show a rate, as 1,234,567."""
    return NOTHING if value is None else f"{value:,.0f}"


def rounded(rate: float | None) -> str:
    """Show a rate with no more than the three digits that may be trusted."""
    return count(rate if rate is None else float(f"{rate:.3g}"))


def figure(value: float | None) -> str:
    """Show a figure with three digits that count."""
    if value is None:
        return NOTHING
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


class Progress:
    """A bar on a terminal that the next line replaces; elsewhere nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = False
        self._is_terminal = stream.isatty()

    def show(self, name: str, share: float, count: int) -> None:
        """Show how far a scenario is; a share above 1 is that of what is still to come, and 1."""
        if self._is_terminal:
            self._is_shown = True
            self._stream.write(f"\r{bar(name, share, count)}\x1b[K")
            self._stream.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self._is_shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def bar(name: str, share: float, count: int) -> str:
    """Return the bar."""
    is_draining = share > 1
    part = min(max(share - 1 if is_draining else share, 0.0), 1.0)
    filled = round(part * BAR_WIDTH)
    drawn = "█" * filled + "░" * (BAR_WIDTH - filled)
    return f"{name:<18}  {drawn}  {count:,}{' draining' if is_draining else ''}"
