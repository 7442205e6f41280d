"""The page that `make bench` writes says what was measured, on what, and what went wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from docs.benchmarks.machine import Machine, cpu_model, fdatasync_ms, file_system
from docs.benchmarks.page import Findings, Start, chart, make_command, page

from leveret.broker.bench.run import Result

MACHINE = Machine("Some CPU", 2, 24.0, "Linux 6.1", "3.11.7", "ext4", 0.31, 0.05)
BROKERS = ("Leveret 1.0", "RabbitMQ 3.10.8")


def result(scenario: str, broker: int, rate: float, **changes: object) -> tuple[int, Result]:
    made = Result(
        scenario, BROKERS[broker], through_rate=rate, cpu_per_million=10.0 * (broker + 1), published=500
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return broker, made


def findings(*results: tuple[int, Result], rounds: int = 1) -> Findings:
    when = datetime(2026, 3, 1, tzinfo=UTC)
    starts = [Start(0, 0.2, 40_000_000), Start(0, 0.4, 42_000_000), Start(1, 9.0, 130_000_000)]
    return Findings(
        MACHINE, "make bench", "Leveret 1.0 (compiled)", rounds, 1.5, when, list(results), starts, 7.0
    )  # fmt: skip


def test_rates_and_costs_stand_side_by_side_with_their_ratio() -> None:
    text = page(findings(result("rpc", 0, 12_345.6), result("rpc", 1, 1_234.0)))
    assert "| scenario |  | Leveret, per second | RabbitMQ, per second | ratio |" in text
    assert "| `rpc` | replies | 12,300 | 1,230 | 10 | 10.0 | 20.0 | 0.50 |" in text


def test_figures_are_medians_of_the_rounds() -> None:
    runs = [result("transient", 0, rate) for rate in (100.0, 900.0, 200.0)]
    text = page(findings(*runs, rounds=3))
    assert "medians of 3 rounds" in text
    assert "| `transient` | messages | 200 | 10.0 |" in text


def test_a_fault_is_told_at_the_top_and_at_its_row() -> None:
    text = page(findings(result("rpc", 0, 5.0, verdict=["1 lost"]), result("rpc", 1, 5.0)))
    assert "**1 of 2 runs found a fault**" in text
    assert "| `rpc` (**a check failed**) |" in text


def test_when_all_held_it_says_so() -> None:
    assert "all 1 runs ended `ok`" in page(findings(result("rpc", 0, 5.0)))


def test_a_paced_scenario_has_no_ratio_of_rates() -> None:
    runs = [result("many", broker, 5000.0, sent_late_ms={"p50": 0.1}) for broker in (0, 1)]
    assert "| `many` | messages | 5,000 | 5,000 | paced |" in page(findings(*runs))


def test_latency_is_shown_where_it_is_not_a_queues_length() -> None:
    latency = {"p50": 0.25, "p99": 2.0, "max": 3.0}
    runs = [result(name, 0, 5.0, latency_ms=latency) for name in ("rpc", "transient")]
    section = page(findings(*runs)).partition("## Latency")[2].partition("\n## ")[0]
    assert "| `rpc` | 0.250 | 2.00 |" in section
    assert "transient" not in section


def test_sizes_and_starts_are_medians() -> None:
    idle = result("idle", 0, 5.0, extra={"resident_bytes_per_connection": 8192.0})
    text = page(findings(idle, result("idle", 1, 5.0)))
    assert "| from the command to the first answer, s | 0.300 | 9.00 |" in text
    assert "| resident when idle, MB | 41.0 | 130 |" in text
    assert "| resident for each idle connection, KiB | 8.00 | – |" in text  # noqa: RUF001


def test_machine_command_and_versions_are_told() -> None:
    text = page(findings(result("rpc", 0, 5.0), result("rpc", 1, 5.0)))
    machine = ("Some CPU, 2 cores", "Linux 6.1", "ext4; one fdatasync takes 0.31 ms", "3.11.7")
    others = ("2026-03-01", "7.0 minutes", "`make bench`", "Leveret 1.0 (compiled)", "RabbitMQ 3.10.8")
    assert [part for part in (*machine, *others) if part not in text] == []


def test_scenarios_are_in_the_order_of_the_command_and_described() -> None:
    text = page(findings(result("idle", 0, 5.0), result("transient", 0, 5.0)))
    assert text.index("| `transient` |") < text.index("| `idle` |")
    assert "a queue and a consumer each, that do nothing (here 500)" in text


def test_the_chart_names_both_brokers() -> None:
    svg = chart(findings(result("rpc", 0, 5.0), result("rpc", 1, 5.0)))
    texts = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert set(BROKERS) <= set(texts)


def test_the_command_is_the_one_to_type() -> None:
    assert make_command(["--leveret=.venv/serve/bin/leveret serve"]) == "make bench"
    assert make_command(["--leveret=x serve", "rpc", "--quick"]) == "make bench ARGS='rpc --quick'"


def test_a_processor_has_a_name() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Some  CPU @ 2GHz\n") == "Some CPU @ 2GHz"
    assert cpu_model("") != ""


def test_a_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path.resolve()} tmpfs rw 0 0\n"
    assert file_system(tmp_path / "data", mounts) == "tmpfs"
    assert file_system(Path("/"), mounts) == "ext4"


def test_the_disk_is_asked_how_long_it_takes(tmp_path: Path) -> None:
    assert fdatasync_ms(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
