"""Moves what was committed from the write-ahead log into the data file, without delaying commits.

Theory of operation. Commits append to the log; a checkpoint copies the log's pages into the data file, and
once all of them are copied the next commit begins the log anew. While commits go on, a checkpoint never has
all of them. So passes run beside the commits, each shorter than the one before, until little is left; the
last pass holds the commits up for the milliseconds that this little takes.

A pass beside the commits must not begin while the log is complete, that is, copied in full and about to begin
anew: before SQLite 3.51.3 a checkpoint that begins in that instant can miss it, and a later one then skips
committed pages (SQLite's documentation of WAL, "The WAL-reset bug"). It cannot happen here: such a pass
begins only after a commit that returned since the last pass ended, and after that commit the log has
something to copy, so that it cannot begin anew. The last pass runs without commits beside it.
"""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager

CHECKPOINT_BYTES: Final = 16 * 1024 * 1024  # in the log: a checkpoint begins
IDLE_CHECKPOINT_BYTES: Final = 8 * 1024 * 1024  # the same if there is nothing else to do
LAST_PASS_BYTES: Final = 1024 * 1024  # what the last pass, which commits wait for, may leave to do
LOG_BYTES_MAX: Final = 48 * 1024 * 1024  # in the log: the last pass comes however much is left
COMMIT_WAIT_S: Final = 0.05  # without a commit nobody is kept waiting by the last pass
WAL_FILE_BYTES_MAX: Final = 64 * 1024 * 1024  # a log that was larger once is cut to this when it begins anew


class Checkpointer:
    """Copies pages on a connection of its own.

    Args:
        connection: the connection.
        exclusive: gives a context in which nobody commits, and no reader of our own is at work.
    """

    def __init__(
        self, connection: sqlite3.Connection, exclusive: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._connection = connection
        self._exclusive = exclusive
        self._written = 0  # bytes appended to the log by commits that have returned; an estimate
        self._copied = 0  # of these, what passes have copied
        self._log_begin = 0  # of these, what is not in the log any more
        self._written_at_end = 0  # value of `_written` when the last pass ended
        self._has_committed = Event()  # since then
        self._is_stopped = False

    def committed(self, wal_bytes: int) -> None:
        """Count a commit that wrote something. Called where nobody else commits."""
        self._written += wal_bytes
        self._has_committed.set()

    @property
    def pending_bytes(self) -> int:
        """About how much there is to copy."""
        return self._written - self._copied

    def stop(self) -> None:
        """Begin no pass any more: what a failed commit left in the log is not to be trusted."""
        self._is_stopped = True

    def run(self) -> None:
        """Copy everything. Called in one thread at a time."""
        while (
            self.pending_bytes > LAST_PASS_BYTES
            and self._written - self._log_begin < LOG_BYTES_MAX
            and not self._is_stopped
            and self._may_pass_beside()
        ):
            self._pass()
        with self._exclusive():
            if self.pending_bytes:
                self._pass()
            self._log_begin = self._written

    def _may_pass_beside(self) -> bool:
        """Wait for a commit since the last pass; whether there was one."""
        if self._written == self._written_at_end:
            self._has_committed.wait(COMMIT_WAIT_S)
        return self._written != self._written_at_end

    def _pass(self) -> None:
        if self._is_stopped:
            return
        written = self._written
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._copied = written
        self._has_committed.clear()
        self._written_at_end = self._written
