"""When sessions are to look at their clocks: handshakes, heartbeats, closes that wait for an answer. HOT.

A heap has a place for each time that a session asked for. Mostly, what it waits for is over before, and a
place in the middle of a heap cannot be taken back. So a session is asked again when its place comes first,
and passed over if it is not due.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from leveret.broker.server.session import Session

TIMERS_MIN: Final = 1000  # beyond this and the next for each session, timers of closed sessions are removed
TIMERS_PER_SESSION: Final = 8


class SessionTimers:
    """The timers of all sessions.

    Args:
        sessions: those that are open; a timer of any other is stale.
    """

    __slots__ = ("_count", "_sessions", "heap")

    def __init__(self, sessions: dict[Session, None]) -> None:
        self.heap: list[tuple[int, int, Session]] = []  # when, a number, whose; also stale ones
        self._count: int = 0  # ever
        self._sessions = sessions

    def arm(self, session: Session, at_ms: int) -> None:
        """Have `Session.on_timer` called; 0 for never."""
        if at_ms:
            self._count += 1
            heappush(self.heap, (at_ms, self._count, session))

    def run(self, now_ms: int) -> None:
        """Call the sessions that are due."""
        while self.heap and self.heap[0][0] <= now_ms:
            session = heappop(self.heap)[2]
            due_ms = session.next_timer_ms()
            if session in self._sessions and due_ms and due_ms <= now_ms:
                session.on_timer()

    def drop_stale(self) -> None:
        """Forget the first timers if nothing is due then any more: handshakes are done, sessions closed."""
        heap = self.heap
        while heap:
            at_ms, _, session = heap[0]
            due_ms = session.next_timer_ms()
            if session in self._sessions and due_ms and due_ms <= at_ms:
                break
            heappop(heap)

    def session_closed(self) -> None:
        """Forget the timers of closed sessions if there are many."""
        if len(self.heap) > TIMERS_MIN + TIMERS_PER_SESSION * len(self._sessions):
            self.heap = [timer for timer in self.heap if timer[2] in self._sessions]
            heapify(self.heap)
