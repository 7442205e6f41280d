"""Numbers: latency histograms, when messages were sent or due, rates without warm-up, medians.

A latency counts from the moment a message was *due*. Without a rate that is when it was sent. With one it is
when the schedule wanted it sent: if the broker, or the generator, held up the ones before it, the wait is in
the figure (no coordinated omission).
"""

from __future__ import annotations

from bisect import bisect_right
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PRECISION_BITS: Final = 7  # values are told apart to 1 part in 128
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
NS: Final = 1_000_000_000
WARM_UP_NS: Final = NS  # left out at the start of a run, or a quarter of it if that is less


class Histogram:
    """Durations in ns, kept to better than 1 %: a bucket for each power of two and 128th of it."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}  # lowest value of the bucket -> how many
        self.count = 0
        self._highest = 0
        self._last = 0  # a value and how often it came in a row, not in the buckets yet: runs are common
        self._last_count = 0

    def add(self, value: int, count: int = 1) -> None:
        """Count a duration; a negative one is 0."""
        self.count += count
        if value == self._last:
            self._last_count += count
            return
        self._settle()
        self._last, self._last_count = value, count

    def _settle(self) -> None:
        """Put the last value into its bucket."""
        if not self._last_count:
            return
        value = max(self._last, 0)
        shift = max(value.bit_length() - _PRECISION_BITS - 1, 0)
        bucket = value >> shift << shift
        self._buckets[bucket] = self._buckets.get(bucket, 0) + self._last_count
        self._highest = max(self._highest, value)
        self._last_count = 0

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self._settle()
        other._settle()
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        self._highest = max(self._highest, other._highest)

    @property
    def highest(self) -> int:
        """The longest of all, exactly."""
        self._settle()
        return self._highest

    def percentile(self, share: float) -> int:
        """Return the duration that this share of all (0 to 1) does not exceed; 0 if there is none."""
        self._settle()
        wanted = share * self.count
        seen = 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted:
                width = 1 << max(bucket.bit_length() - _PRECISION_BITS - 1, 0)
                return min(bucket + width // 2, self.highest)
        return 0

    def summary_ms(self) -> dict[str, float] | None:
        """Return the percentiles and the highest in ms; None if there is nothing."""
        if not self.count:
            return None
        values = {name: self.percentile(share) for name, share in PERCENTILES.items()}
        return {name: round(value / 1e6, 4) for name, value in {**values, "max": self.highest}.items()}


class SendTimes:
    """When the messages of one publisher were sent, or due.

    Args:
        interval_ns: between messages that are due at a rate; None for those sent when possible.
    """

    def __init__(self, interval_ns: float | None = None) -> None:
        self.interval_ns = interval_ns
        self.start_ns = 0  # when message 1 is due
        self._firsts: list[int] = []  # number of the first message of each run
        self._times: list[int] = []  # when the run was sent
        self._low = self._high = 0  # the numbers of the run that was asked for last, but the newest,
        self._low_time = 0  # and its time

    def due_ns(self, number: int) -> int:
        """Return when a message is due; only with a rate."""
        assert self.interval_ns is not None
        return self.start_ns + int((number - 1) * self.interval_ns)

    def sent(self, first: int, now_ns: int) -> None:
        """Note that a run from this number on is on its way."""
        if self.interval_ns is None:
            self._firsts.append(first)
            self._times.append(now_ns)

    def add_latencies(self, into: Histogram, first: int, count: int, now_ns: int, from_ns: int) -> None:
        """Count the latency of messages that have come, but for those due before `from_ns`."""
        if self.interval_ns is not None:
            for number in range(first, first + count):
                due_ns = self.due_ns(number)
                if due_ns >= from_ns:
                    into.add(now_ns - due_ns)
            return
        if self._low <= first and first + count <= self._high:
            if self._low_time >= from_ns:
                into.add(now_ns - self._low_time, count)
            return
        place = bisect_right(self._firsts, first) - 1
        if 0 <= place < len(self._firsts) - 1:
            self._low, self._high = self._firsts[place : place + 2]
            self._low_time = self._times[place]
        end = first + count
        while place >= 0 and first < end:
            following = self._firsts[place + 1] if place + 1 < len(self._firsts) else end
            part = min(following, end) - first
            if self._times[place] >= from_ns:
                into.add(now_ns - self._times[place], part)
            first += part
            place += 1


class Pace:
    """Counts at the end of the warm-up and at the end of publishing, for rates in between."""

    def __init__(self, start_ns: int, warm_up_ns: int) -> None:
        self.warm_ns = start_ns + warm_up_ns
        self._warm_up_ns = warm_up_ns
        self._points: list[tuple[int, tuple[int, ...]]] = [(start_ns, ())]

    def mark(self, now_ns: int, counts: tuple[int, ...]) -> None:
        """Note the counts now: once when the warm-up is over, and once at the end."""
        self._points.append((now_ns, counts))

    def rates(self) -> tuple[float, ...]:
        """Return each rate per second since the warm-up, if that is long enough, or since the start."""
        (from_ns, before), (to_ns, after) = self._points[-2:]
        if to_ns - from_ns < self._warm_up_ns:
            from_ns, before = self._points[0]
        seconds = max(to_ns - from_ns, 1) / NS
        before = before or (0,) * len(after)
        return tuple((late - early) / seconds for early, late in zip(before, after, strict=True))


def medians(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratio(left: float | None, right: float | None) -> float | None:
    """Return left / right, if both are known and it exists."""
    return left / right if left is not None and right else None
