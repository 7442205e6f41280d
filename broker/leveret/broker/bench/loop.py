"""The loop that serves the generator's sockets while a scenario runs."""

from __future__ import annotations

import contextlib
import heapq
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.publisher import Publisher
    from leveret.broker.bench.wire import Connection

CHECK_NS: Final = 5_000_000  # between two looks whether a phase is over
RETRY_NS: Final = 500_000  # until a publisher that is due but has to wait for the broker is asked again
_TIMER_SLACK: Final = Path("/proc/self/timerslack_ns")


class Loop:
    """An epoll object and what waits on it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._paced: list[tuple[int, int, Publisher]] = []  # a heap: when due, a number to tell apart, who
        with contextlib.suppress(OSError):  # sleeps end when they should, not up to 50 us later
            _TIMER_SLACK.write_text("1")

    def add(self, connection: Connection) -> None:
        """Serve a connection."""
        descriptor = connection.socket.fileno()
        if descriptor not in self._connections:
            self._connections[descriptor] = connection
            connection.interest = select.EPOLLIN
            self._epoll.register(descriptor, select.EPOLLIN)
        self._update(connection)

    def pace(self, publishers: list[Publisher]) -> None:
        """Publish for these at their rates; they have started."""
        self._paced = [(each.times.start_ns, number, each) for number, each in enumerate(publishers)]
        heapq.heapify(self._paced)

    def close(self) -> None:
        """Forget all; the connections stay open."""
        self._epoll.close()
        self._connections.clear()
        self._paced.clear()

    def run(self, is_over: Callable[[int], bool]) -> None:
        """Serve until a look at the clock says that it is over."""
        now = time.perf_counter_ns()
        next_check = now
        while True:
            if now >= next_check:
                if is_over(now):
                    return
                next_check = now + CHECK_NS
            self._turn(self._publish_due(now, next_check) - now)
            now = time.perf_counter_ns()

    def _turn(self, wait_ns: int) -> None:
        """Wait for sockets and serve each once."""
        # epoll counts in milliseconds, select in microseconds; an epoll object can be selected.
        if self._paced and wait_ns > 0:
            select.select([self._epoll], (), (), wait_ns / 1e9)
            wait_ns = 0
        for descriptor, events in self._epoll.poll(max(wait_ns, 0) / 1e9):
            connection = self._connections[descriptor]
            if events & ~select.EPOLLOUT:
                connection.receive()
            if connection.has_pending:
                connection.flush()
            if connection.publisher is not None and connection.publisher.is_eager:
                connection.publisher.publish(0)
            self._update(connection)

    def _publish_due(self, now: int, wake_ns: int) -> int:
        """Publish what is due at a rate, and return when to wake for the next."""
        paced = self._paced
        while paced and paced[0][0] <= now:
            _due, number, publisher = paced[0]
            publisher.publish(now)
            self._update(publisher.connection)
            if publisher.is_done:
                heapq.heappop(paced)
            else:
                due = publisher.next_due_ns
                heapq.heapreplace(paced, (due or now + RETRY_NS, number, publisher))
        return min(wake_ns, paced[0][0]) if paced else wake_ns

    def _update(self, connection: Connection) -> None:
        interest = select.EPOLLIN | (select.EPOLLOUT if connection.wants_to_write else 0)
        if interest != connection.interest:
            connection.interest = interest
            self._epoll.modify(connection.socket, interest)
