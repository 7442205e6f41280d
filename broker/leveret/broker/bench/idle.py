"""The scenario of connections that do nothing: what each costs to open and to hold, and if it lives."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.figures import NS, Histogram
from leveret.broker.bench.flows import STALL_NS
from leveret.broker.bench.publisher import publish_rows
from leveret.broker.bench.rows import Rows, body_rows
from leveret.broker.bench.wire import Unreachable

if TYPE_CHECKING:
    from leveret.broker.bench.inbox import Content
    from leveret.broker.bench.order import Faults
    from leveret.broker.bench.run import Run
    from leveret.broker.bench.wire import Connection

CONNECTIONS: Final = 1000
BUFFER_BYTES: Final = 1 << 13  # of each; a thousand of the usual size would be half a gigabyte
SETTLE_NS: Final = NS  # after the last has opened, before anything is measured
OTHER_FILES: Final = 64  # that the generator has open


class _Sleeper:
    """The one message that a connection is woken with."""

    def __init__(self, number: int, bodies: Rows, faults: Faults) -> None:
        self.count = 0
        self._number = number
        self._bodies = bodies
        self._faults = faults

    def take(self, _buffer: bytearray, start: int, _end: int, _now_ns: int) -> int:
        """Leave every frame to be read one by one."""
        return start

    def take_content(self, content: Content) -> None:
        """Judge the message."""
        self.count += 1
        if content.body != self._bodies.one(self._number):
            self._faults.add("damaged", f"the message of connection {self._number}")
        if self.count > 1:
            self._faults.add("delivered twice", f"the message of connection {self._number}")


def idle(run: Run) -> None:
    """Open connections with a channel, an exclusive queue and a consumer each; hold them; wake them all."""
    count = run.options.messages or CONNECTIONS
    _allow_files(count + OTHER_FILES)
    publishing = run.connect(1)
    bodies = body_rows(run.options.size or 16, 0)
    sleepers = [_Sleeper(number, bodies, run.faults) for number in range(1, count + 1)]
    rss_bytes = run.broker_rss_bytes()
    start_ns = run.begin()
    _open(run, sleepers, start_ns)
    if run.processes is not None:
        run.result.extra["resident_bytes_per_connection"] = (run.broker_rss_bytes() - rss_bytes) / count
    _hold(run)
    _wake(run, publishing, sleepers)


def _allow_files(count: int) -> None:
    """Let this process open as many files as it may.

    Raises:
        Unreachable: that is not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and count > hard:
        raise Unreachable(f"{count:,} open files are needed, and this process may have {hard:,} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and count > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _queue(run: Run, number: int) -> str:
    return f"{run.prefix}idle-{number}"


def _open(run: Run, sleepers: list[_Sleeper], start_ns: int) -> None:
    """Open them one after another, and note what it took."""
    result, latency = run.result, Histogram()
    before_ns = start_ns
    for number, sleeper in enumerate(sleepers, 1):
        connection = run.connect(1, buffer_bytes=BUFFER_BYTES)
        name = _queue(run, number)
        connection.call(1, commands.Queue.Declare, commands.Queue.DeclareOk, queue=name, exclusive=True)
        run.consume(connection, 1, name, sleeper)
        now = time.perf_counter_ns()
        latency.add(now - before_ns)
        before_ns = now
        run.tick(now, number / len(sleepers), number)
    result.seconds = (before_ns - start_ns) / NS
    result.through_rate = len(sleepers) / result.seconds
    result.latency_ms = latency.summary_ms()
    run.loop.run(lambda now: now >= before_ns + SETTLE_NS)
    run.end(len(sleepers))


def _hold(run: Run) -> None:
    """Do nothing for a while, and note what that costs."""
    seconds = run.options.seconds
    before_s = run.broker_cpu_s()
    end_ns = time.perf_counter_ns() + int(seconds * NS)
    run.loop.run(lambda now: now >= end_ns)
    if run.processes is not None:
        run.result.extra["idle_cpu_percent"] = 100 * (run.broker_cpu_s() - before_s) / seconds


def _wake(run: Run, publishing: Connection, sleepers: list[_Sleeper]) -> None:
    """Publish a message to each, and wait until all have come."""
    size = run.options.size or 16
    start_ns = time.perf_counter_ns()
    for number, _sleeper in enumerate(sleepers, 1):
        rows = publish_rows(1, "", _queue(run, number), size, frame_max=publishing.frame_max)
        publishing.send(rows.one(number))
    run.loop.add(publishing)

    def is_over(now: int) -> bool:
        return all(sleeper.count for sleeper in sleepers) or now > start_ns + STALL_NS

    run.loop.run(is_over)
    result = run.result
    result.extra["wake_all_ms"] = (time.perf_counter_ns() - start_ns) / 1e6
    result.published = len(sleepers)
    result.delivered = sum(sleeper.count for sleeper in sleepers)
    asleep = [number for number, sleeper in enumerate(sleepers, 1) if not sleeper.count]
    if asleep:
        run.faults.add("lost", f"the message of connection {asleep[0]}", len(asleep))
