"""A lock for threads that take turns."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class TurnLock:
    """A lock that a thread cannot take again before one that waits for it has had its turn.

    With a plain lock, a thread that comes back at once mostly finds it free, and another can wait for ever.
    """

    def __init__(self) -> None:
        self._next = Lock()  # held by who waits for its turn
        self._turn = Lock()

    def __enter__(self) -> None:
        with self._next:
            self._turn.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.release()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._next.locked()
