"""Percentiles, rates and medians; latencies that no stall can hide from."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.bench.figures import NS, Histogram, Pace, SendTimes, medians, ratio

MS = 1_000_000
durations = st.lists(st.integers(0, 100 * NS), min_size=1, max_size=300)


def histogram(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@given(durations, st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_that_of_the_sorted_values_to_one_percent(values: list[int], share: float) -> None:
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert abs(histogram(values).percentile(share) - exact) <= exact / 100


@given(durations, durations)
def test_merged_histograms_are_as_one_that_counted_all(left: list[int], right: list[int]) -> None:
    merged, whole = histogram(left), histogram(left + right)
    merged.merge(histogram(right))
    assert merged.count == whole.count
    assert merged.summary_ms() == whole.summary_ms()


def test_a_run_of_equal_durations_counts_each() -> None:
    made = Histogram()
    made.add(5 * MS, 99)
    made.add(70 * MS)
    assert made.count == 100
    assert made.percentile(0.99) < 6 * MS
    assert made.summary_ms() == {"p50": 4.9971, "p90": 4.9971, "p99": 4.9971, "p99.9": 69.9924, "max": 70.0}


def test_the_highest_is_exact_and_nothing_is_above_it() -> None:
    made = histogram([1, 1_000_003])
    assert made.highest == 1_000_003
    assert made.percentile(1.0) <= 1_000_003


def test_a_clock_that_went_back_counts_as_no_time() -> None:
    assert histogram([-5]).percentile(1.0) == 0


def test_without_durations_there_is_no_summary() -> None:
    assert Histogram().summary_ms() is None
    assert Histogram().percentile(0.5) == 0


def test_at_a_rate_a_stall_is_in_the_latency_of_all_that_was_due_in_it() -> None:
    """The generator could not send for a second; whoever counted from the sending would see 1 ms each."""
    times, latency = SendTimes(interval_ns=MS), Histogram()
    times.start_ns = 0
    times.sent(1, NS)  # all thousand at once, a second late
    times.add_latencies(latency, 1, 1000, NS + MS, from_ns=0)
    assert latency.count == 1000
    assert latency.highest == NS + MS
    assert abs(latency.percentile(0.5) - NS // 2) < NS // 100


def test_without_a_rate_latency_counts_from_the_run_that_a_message_was_sent_in() -> None:
    times, latency = SendTimes(), Histogram()
    times.sent(1, 10 * MS)
    times.sent(101, 20 * MS)
    times.sent(201, 30 * MS)
    times.add_latencies(latency, 51, 100, 40 * MS, from_ns=0)  # half of the first run, half of the second
    assert latency.count == 100
    assert latency.percentile(0.5) == latency.percentile(0.01)
    assert abs(latency.percentile(0.5) - 20 * MS) <= MS // 5
    assert latency.highest == 30 * MS


def test_a_run_is_found_again_for_each_of_its_parts() -> None:
    times, latency = SendTimes(), Histogram()
    times.sent(1, 0)
    times.sent(101, 50 * MS)
    for first in range(1, 101, 10):
        times.add_latencies(latency, first, 10, 60 * MS, from_ns=0)
    assert (latency.count, latency.highest) == (100, 60 * MS)
    assert latency.percentile(0.0) == latency.percentile(1.0)


def test_messages_due_in_the_warm_up_are_left_out() -> None:
    paced, unpaced = SendTimes(interval_ns=MS), SendTimes()
    unpaced.sent(1, 0)
    unpaced.sent(6, 10 * MS)
    for times in (paced, unpaced):
        latency = Histogram()
        times.add_latencies(latency, 1, 10, 20 * MS, from_ns=5 * MS)
        assert latency.count == 5


def test_rates_begin_after_the_warm_up() -> None:
    pace = Pace(0, warm_up_ns=NS)
    pace.mark(NS, (10, 0))
    pace.mark(3 * NS, (2010, 500))
    assert pace.rates() == (1000.0, 250.0)


def test_what_ended_soon_after_the_warm_up_is_measured_from_the_start() -> None:
    pace = Pace(0, warm_up_ns=NS)
    pace.mark(NS, (1000,))
    pace.mark(NS + NS // 2, (1500,))
    assert pace.rates() == (1000.0,)


def test_rates_without_a_warm_up_begin_at_the_start() -> None:
    pace = Pace(NS, warm_up_ns=0)
    pace.mark(2 * NS, (300,))
    assert pace.rates() == (300.0,)


def test_a_median_leaves_out_what_is_not_known() -> None:
    assert medians([None, 3.0, 1.0, 2.0]) == 2.0
    assert medians([None]) is None


def test_a_ratio_to_nothing_is_not_known() -> None:
    assert ratio(6.0, 3.0) == 2.0
    assert [ratio(None, 3.0), ratio(6.0, None), ratio(6.0, 0.0)] == [None, None, None]
