"""What the user sees: rows, the comparison, the chart, the progress bar."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from leveret.broker.bench import plot, report
from leveret.broker.bench.run import Result
from leveret.broker.bench.runner import Comparison, Summary, summarise_all

SVG = "{http://www.w3.org/2000/svg}"


def result(broker: str = "Leveret 1", *, rate: float = 1000.0, **changes: object) -> Result:
    made = Result("transient", broker, "amqp://127.0.0.1:5672/", through_rate=rate, cpu_per_million=0.5)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def compared(*rates: tuple[float, float]) -> list[list[Summary]]:
    results = [
        (number, result(f"Broker {number}", rate=rate)) for pair in rates for number, rate in enumerate(pair)
    ]
    return summarise_all(results)


def bars(svg: str) -> list[float]:
    """Return how long the bars are."""
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(rect.attrib["width"]) for rect in rects if rect.get("x") == str(plot.LABEL_WIDTH)]


def test_figures_have_three_digits() -> None:
    assert [report.figure(each) for each in (1234.5, 12.345, 1.2345, 0.12345, None)] == [
        "1,234", "12.3", "1.23", "0.123", "-",
    ]  # fmt: skip
    assert report.rounded(1_234_567.0) == "1,230,000"


def test_a_row_is_as_wide_as_its_header() -> None:
    row = report.row(result(publish_rate=1e6, latency_ms={"p50": 0.5, "p99": 2.5, "max": 9.0}))
    assert row.endswith("ok")
    assert row.index("ok") == report.header().index("result")
    assert "1,000,000" in row


def test_what_did_not_hold_follows_its_row() -> None:
    lines = report.row(
        result(verdict=["3 lost (first: message 1)", "1 damaged (first: message 2)"])
    ).splitlines()
    assert lines[0].endswith("FAILED")
    assert lines[1:] == ["    3 lost (first: message 1)", "    1 damaged (first: message 2)"]


def test_what_only_one_scenario_tells_follows_its_row() -> None:
    assert report.row(result(extra={"resident_bytes_per_message": 61.4})).splitlines()[1:] == [
        "    bytes resident for each waiting message: 61.4"
    ]


def test_a_generator_that_had_no_time_left_is_told() -> None:
    busy = result(seconds=2.0, generator_cpu_seconds=1.9)
    assert report.row(busy).splitlines()[1:] == [
        "    the generator was busy for 95% of the time: the broker may be faster than this"
    ]
    assert not result(seconds=2.0, generator_cpu_seconds=1.0).is_generator_busy


def test_a_comparison_shows_medians_and_ratios() -> None:
    [[first, second]] = compared((100.0, 50.0), (300.0, 10.0), (200.0, 20.0))
    assert (first.rate, second.rate, first.runs) == (200.0, 20.0, 3)
    table = report.comparison([Comparison(first, second)])
    assert "A: Broker 0   B: Broker 1   medians of 3" in table
    assert Comparison(first, second).rate_ratio == 10.0
    assert Comparison(first, second).to_json()["comparison"] == "transient"


def test_phases_are_rows_of_their_own_also_when_the_first_run_broke_off() -> None:
    phases = {"fill": {"rate": 10.0, "cpu_per_million": 1.0}, "drain": {"rate": 20.0, "cpu_per_million": 2.0}}
    runs = [result(verdict=["broken off"]), result(phases=phases), result(phases=phases)]
    rows = summarise_all([(0, each) for each in runs])
    assert [(row[0].scenario, row[0].rate, row[0].is_ok) for row in rows] == [
        ("transient, fill", 10.0, False), ("transient, drain", 20.0, False),
    ]  # fmt: skip


def test_two_brokers_bars_show_their_ratio() -> None:
    long, short = bars(plot.chart(compared((1000.0, 250.0))))
    assert long == plot.BAR_SPACE
    assert short == long / 4


def test_one_brokers_bars_share_a_logarithmic_scale() -> None:
    [summary] = summarise_all([(0, result(rate=1_000_000.0))])[0]
    assert bars(plot.chart([[summary]])) == [plot.BAR_SPACE]
    assert "logarithmic" in plot.chart([[summary]])


def test_a_chart_is_sound_with_names_that_have_angle_brackets_or_nothing_to_show() -> None:
    svg = plot.chart(summarise_all([(0, result("a <b> & c"))]), title="<rates>")
    assert "a <b> & c" in [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert bars(plot.chart([])) == []


def test_what_ran_at_a_given_rate_is_not_in_the_chart() -> None:
    assert bars(plot.chart(summarise_all([(0, result(sent_late_ms={"p50": 0.1}))]))) == []


def test_the_bar_fills_and_then_drains() -> None:
    assert report.bar("rpc", 0.5, 1000).count("█") == report.BAR_WIDTH // 2
    assert report.bar("rpc", 1.25, 1000).endswith("1,000 draining")


def test_no_bar_is_written_where_nobody_looks() -> None:
    stream = io.StringIO()
    progress = report.Progress(stream)
    progress.show("rpc", 0.5, 1)
    progress.clear()
    assert stream.getvalue() == ""
