"""The command `leveret bench`: its options, and what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click

from leveret.broker.bench import plot, report
from leveret.broker.bench.processes import BrokerProcesses
from leveret.broker.bench.rows import COUNTER_BYTES
from leveret.broker.bench.run import Options, Result
from leveret.broker.bench.runner import Comparison, Summary, Target, run_all, summarise_all
from leveret.broker.bench.scenarios import SCENARIOS
from leveret.broker.bench.wire import Unreachable, Url, parse_url

EX_VIOLATION: Final = 1  # something that was checked did not hold
EX_UNAVAILABLE: Final = 69  # the broker cannot be reached
DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"
REPEAT_COMPARED: Final = 3
BODY_BYTES_MAX: Final = 128 << 20


def _read_url(_context: click.Context, parameter: click.Parameter, text: str | None) -> Url | None:
    try:
        return None if text is None else parse_url(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not the URL of a broker: {error}", param=parameter) from error


def _check_pid(_context: click.Context, parameter: click.Parameter, pid: int | None) -> int | None:
    if pid is not None and not BrokerProcesses(pid).exists():
        raise click.BadParameter(f"there is no process {pid}", param=parameter)
    return pid


def _scenario_lines() -> str:
    lines = "\n".join(f"  {name:<19}{scenario.about}" for name, scenario in SCENARIOS.items())
    return f"\b\nScenarios:\n{lines}"


@click.command(epilog=_scenario_lines())
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...", type=click.Choice(list(SCENARIOS)))
@click.option(
    "--url", metavar="URL", callback=_read_url, default=DEFAULT_URL, show_default=True, help="The broker."
)
@click.option(
    "--pid",
    metavar="PID",
    type=int,
    callback=_check_pid,
    help="Its process, whose CPU time and size are measured; on this machine it is found by the port.",
)
@click.option("--compare", metavar="URL", callback=_read_url, help="A second broker; the two take turns.")
@click.option("--compare-pid", metavar="PID", type=int, callback=_check_pid, help="Its process.")
@click.option(
    "--seconds", metavar="S", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
    help="How long each scenario publishes.",
)  # fmt: skip
@click.option(
    "--messages", metavar="N", type=click.IntRange(1),
    help="How many messages or operations each has, in place of the seconds.",
)  # fmt: skip
@click.option(
    "--size", metavar="BYTES", type=click.IntRange(COUNTER_BYTES, BODY_BYTES_MAX),
    help="Size of the bodies, at least 8.",
)  # fmt: skip
@click.option(
    "--rate", metavar="R", type=click.FloatRange(0, min_open=True),
    help="Messages or operations per second; latency then counts from when each was due.",
)  # fmt: skip
@click.option(
    "--repeat", metavar="N", type=click.IntRange(1), help="Runs of each scenario.  [default: 1, compared 3]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line in place of the tables.")
@click.option(
    "--plot", "plot_file", metavar="FILE.svg", type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Draw the rates as a bar chart.",
)  # fmt: skip
@click.pass_context
def bench(
    context: click.Context,
    /,
    scenarios: tuple[str, ...],
    url: Url,
    pid: int | None,
    compare: Url | None,
    compare_pid: int | None,
    seconds: float,
    messages: int | None,
    size: int | None,
    rate: float | None,
    repeat: int | None,
    as_json: bool,
    plot_file: Path | None,
) -> None:
    """Load any AMQP 0-9-1 broker, measure it, and check what it delivers.

    Runs the scenarios that are named, or all; with --rate, all that can go at a rate. Each ends with ok, or
    with what did not hold: a message lost, doubled, out of order or damaged, a publish not confirmed exactly
    once. The exit code is 1 if anything did not hold.

    Names that it declares begin with leveret-bench, and are deleted afterwards.
    """
    if compare_pid is not None and compare is None:
        raise click.UsageError("--compare-pid needs --compare")
    if plot_file is not None and not plot_file.absolute().parent.is_dir():
        raise click.UsageError(f"--plot: there is no folder {plot_file.parent}")
    names = _names(scenarios, rate)
    targets = [Target.found(url, pid)]
    if compare is not None:
        targets.append(Target.found(compare, compare_pid))
    repeat = repeat or (REPEAT_COMPARED if compare is not None else 1)
    options = Options(seconds, messages, size, rate)
    output = _Output(as_json)
    results: list[tuple[int, Result]] = []
    failure: Unreachable | None = None
    try:
        for number, result in run_all(names, targets, options, repeat, output.progress.show):
            results.append((number, result))
            output.result(result)
    except Unreachable as error:
        failure = error
    finally:
        output.progress.clear()
    rows = summarise_all(results)
    if rows:
        output.summary(rows)
        if plot_file is not None:
            plot_file.write_text(plot.chart(rows), encoding="utf-8")
    if failure is not None:
        click.echo(f"leveret: {failure}", err=True)
    if any(not result.is_ok for _number, result in results):
        context.exit(EX_VIOLATION)
    context.exit(0 if failure is None else EX_UNAVAILABLE)


def _names(wanted: tuple[str, ...], rate: float | None) -> tuple[str, ...]:
    """Return the scenarios to run.

    Raises:
        click.UsageError: there is to be a rate, and one of them has none.
    """
    able = tuple(name for name, each in SCENARIOS.items() if rate is None or each.has_rate)
    for name in wanted:
        if name not in able:
            raise click.UsageError(f"{name} goes as fast as it can; it has no --rate")
    return wanted or able


class _Output:
    """Prints results as they come."""

    def __init__(self, as_json: bool) -> None:
        self.progress = report.Progress(sys.stderr)
        self._as_json = as_json
        self._has_header = False

    def result(self, result: Result) -> None:
        """Print one."""
        self.progress.clear()
        if self._as_json:
            click.echo(json.dumps(result.to_json()))
            return
        if not self._has_header:
            self._has_header = True
            click.echo(report.header())
        click.echo(report.row(result))

    def summary(self, rows: list[list[Summary]]) -> None:
        """Print medians and ratios, if there are any."""
        compared = [Comparison(row[0], row[1]) for row in rows if len(row) > 1]
        if self._as_json:
            medians = [each for row in rows for each in row if each.runs > 1]
            for each in compared or medians:
                click.echo(json.dumps(each.to_json()))
        else:
            if compared:
                click.echo("\n" + report.comparison(compared))
            click.echo("\n" + report.LEGEND, nl=False)
