"""One process at a time: a lock beside the data file.

The lock is on a file of its own, not on the data file. SQLite guards that one with POSIX locks, which a
process loses as soon as it closes any descriptor of the same file, and which on some systems collide with
flock. The file is removed on release; a killed process leaves it behind, unlocked, which does no harm.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from leveret.storage.store import StoreError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """An exclusive lock for the life of the process, or until `release`."""

    def __init__(self, data: Path) -> None:
        real = data.resolve()  # two names of one file must meet at one lock
        self._data = data
        self._path = real.with_name(f"{real.name}-lock")
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: another process (or another store in this one) has it.
            StoreError: the lock's file cannot be made.
        """
        try:
            while self._descriptor < 0:
                self._try_once()
        except BlockingIOError as error:
            raise StoreLockedError(
                f"{self._data} is in use by another process: stop that one, or use another file"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot lock {self._data}: {self._path}: {error.strerror}") from error

    def release(self) -> None:
        """Let go of the lock. Harmless if it is not held."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)  # while we hold it: nobody else can have locked this very file
            os.close(self._descriptor)
            self._descriptor = -1

    def _try_once(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(descriptor):
                return
            self._descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the file is still there, and not removed by its owner since we opened it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
