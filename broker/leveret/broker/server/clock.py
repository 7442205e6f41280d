"""The time as the event loop reads it, once a turn. HOT."""

from __future__ import annotations

import time
from typing import Final

_MONOTONIC_AT_START_MS: Final = int(time.monotonic() * 1000)
_WALL_AT_START_MS: Final = int(time.time() * 1000)


def steady_wall_clock() -> int:
    """Return the milliseconds since 1970 as they were at start, and counted on without jumps."""
    return _WALL_AT_START_MS + int(time.monotonic() * 1000) - _MONOTONIC_AT_START_MS
