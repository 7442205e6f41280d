"""A timer that wakes whoever waits in an epoll object: Linux's timerfd.

A wait with a timeout has the kernel set a timer and take it back each time, which on a virtual machine is a
tenth of what a single message costs. This one is set once for many waits. Python has timerfd from 3.13 on
only, so the C library is called.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Final

_NONBLOCK: Final = os.O_NONBLOCK  # TFD_NONBLOCK
_CLOEXEC: Final = os.O_CLOEXEC  # TFD_CLOEXEC


class _Time(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Times(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (("interval", _Time), ("first", _Time))


class Timer:
    """Makes its descriptor readable at a time.

    It stays readable; to be registered with `EPOLLET`, so that each time it goes off is told once.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._set = library.timerfd_settime
        self._set.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._times = _Times()
        self._times_at = ctypes.byref(self._times)
        self.fd: int = library.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            self._fail()

    def go_off_in(self, ms: int) -> None:
        """Go off in so many milliseconds, at least 1, and not when it was to before."""
        seconds, rest = divmod(max(1, ms), 1000)
        self._times.first.seconds = seconds
        self._times.first.nanoseconds = rest * 1_000_000
        if self._set(self.fd, 0, self._times_at, None):
            self._fail()

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self.fd)

    def _fail(self) -> None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
