"""Runs scenarios on one broker or two in turn, and sums up what several runs of the same gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from leveret.broker.bench.figures import medians, ratio
from leveret.broker.bench.inbox import BrokerClosed
from leveret.broker.bench.processes import BrokerProcesses, listening_pid
from leveret.broker.bench.run import Options, Result, Run
from leveret.broker.bench.scenarios import SCENARIOS
from leveret.broker.bench.wire import Unreachable, Url, is_this_machine
from leveret.protocol.errors import AMQPException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Target(NamedTuple):
    """A broker to load."""

    url: Url
    pid: int | None = None

    @classmethod
    def found(cls, url: Url, pid: int | None) -> Target:
        """Return the broker at the URL; without a pid, with its process if it is here and can be seen."""
        if pid is None and is_this_machine(url.host):
            pid = listening_pid(url.port)
        return cls(url, pid)


def run_one(name: str, target: Target, options: Options, progress: Callable[[float, int], None]) -> Result:
    """Run a scenario once.

    Raises:
        Unreachable: the broker cannot be loaded; nothing was measured.
    """
    processes = BrokerProcesses(target.pid) if target.pid is not None else None
    run = Run(name, target.url, options, processes, progress)
    try:
        SCENARIOS[name].run(run)
    except (BrokerClosed, Unreachable, AMQPException) as error:
        if not run.is_under_way:
            raise Unreachable(f"{target.url}: {error}") from error
        run.faults.add("broken off", str(error))
    finally:
        run.close()
    run.result.verdict = run.faults.describe()
    return run.result


def run_all(
    names: Sequence[str],
    targets: Sequence[Target],
    options: Options,
    repeat: int,
    progress: Callable[[str, float, int], None],
) -> Iterator[tuple[int, Result]]:
    """Run all scenarios, each `repeat` times on each broker in turn.

    Yields: the broker's number, and the result.
    """
    for name in names:

        def tell(share: float, count: int, name: str = name) -> None:
            progress(name, share, count)

        for _ in range(repeat):
            for number, target in enumerate(targets):
                yield number, run_one(name, target, options, tell)


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of the runs of one scenario, or one phase of it, on one broker."""

    scenario: str
    broker: str
    runs: int
    is_ok: bool
    rate: float | None  # all that was done, by the whole time, per second
    cpu_per_million: float | None
    p50_ms: float | None
    p99_ms: float | None
    peak_rss_mb: float | None
    is_paced: bool  # the rate was given, not found
    is_generator_busy: bool  # in some run the generator may have been what limited
    extra: dict[str, float]  # medians of what only this scenario tells

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {"median": True, **asdict(self)}


def summarise(results: Sequence[Result]) -> list[Summary]:
    """Sum up runs of the same scenario on the same broker: one summary, or one for each phase."""
    first = results[0]

    def summary(name: str, rates: list[float | None], cpu: list[float | None], latency: bool) -> Summary:
        latencies = [result.latency_ms or result.confirm_ms or {} for result in results] if latency else []
        return Summary(
            name, first.broker, len(results), all(result.is_ok for result in results),
            medians(rates), medians(cpu),
            medians(each.get("p50") for each in latencies), medians(each.get("p99") for each in latencies),
            medians(result.peak_rss_mb for result in results), first.sent_late_ms is not None,
            any(result.is_generator_busy for result in results), _extra(results),
        )  # fmt: skip

    phases = next((result.phases for result in results if result.phases), {})
    if not phases:
        rates = [result.through_rate for result in results]
        return [summary(first.scenario, rates, [result.cpu_per_million for result in results], True)]
    return [
        summary(
            f"{first.scenario}, {phase}",
            [result.phases.get(phase, {}).get("rate") for result in results],
            [result.phases.get(phase, {}).get("cpu_per_million") for result in results],
            False,
        )
        for phase in phases
    ]


def _extra(results: Sequence[Result]) -> dict[str, float]:
    medians_of = {name: medians(result.extra.get(name) for result in results) for name in results[0].extra}
    return {name: value for name, value in medians_of.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same scenario on two brokers; each ratio is the first broker's figure by the second's."""

    first: Summary
    second: Summary

    @property
    def rate_ratio(self) -> float | None:
        """Above 1 the first broker does more per second."""
        return ratio(self.first.rate, self.second.rate)

    @property
    def cpu_ratio(self) -> float | None:
        """Below 1 the first broker needs less for the same."""
        return ratio(self.first.cpu_per_million, self.second.cpu_per_million)

    @property
    def p50_ratio(self) -> float | None:
        """Below 1 the first broker answers sooner."""
        return ratio(self.first.p50_ms, self.second.p50_ms)

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "comparison": self.first.scenario,
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "rate_ratio": self.rate_ratio,
            "cpu_ratio": self.cpu_ratio,
            "p50_ratio": self.p50_ratio,
        }


def summarise_all(results: Sequence[tuple[int, Result]]) -> list[list[Summary]]:
    """Sum up everything: for each scenario (or phase) one summary for each broker, in order."""
    grouped: dict[str, dict[int, list[Result]]] = {}
    for number, result in results:
        grouped.setdefault(result.scenario, {}).setdefault(number, []).append(result)
    rows: list[list[Summary]] = []
    for by_broker in grouped.values():
        columns = [summarise(by_broker[number]) for number in sorted(by_broker)]
        rows += [list(row) for row in zip(*columns, strict=False)]
    return rows
