"""Gives memory back to the system when a burst is over.

The C library keeps what was freed between blocks that are still in use, for good: after 200 MB of messages of
1 KiB had come and gone, 203 MB stayed. `malloc_trim` gives back every page that is free, in about 11 ms for
that much, and 0.1 ms where there is nothing. So it is asked when it pays and nobody waits: the process has
hardly run since the last look, and it has grown, or fewer messages wait, since memory was last given back.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Final

import trio

from leveret.broker.server.resources import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 5.0  # between looks
QUIET_SHARE: Final = 0.05  # of a processor, used since the last look: less is quiet
WORTH_BYTES: Final = 8 * 1024 * 1024  # less is not worth giving back


class GivingBack:
    """Decides when to give memory back.

    Args:
        give_back: does it.
        clock_s: a clock that never jumps.
        cpu_s: processor time that this process has used.
        resident_bytes: memory that this process has.
        waiting_bytes: about what waiting messages take.
    """

    def __init__(
        self,
        give_back: Callable[[], object],
        clock_s: Callable[[], float],
        cpu_s: Callable[[], float],
        resident_bytes: Callable[[], int],
        waiting_bytes: Callable[[], int],
    ) -> None:
        self._give_back = give_back
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._resident_bytes = resident_bytes
        self._waiting_bytes = waiting_bytes
        self._looked_s = clock_s()
        self._cpu_then_s = cpu_s()
        self._resident_then = resident_bytes()
        self._waiting_then = waiting_bytes()  # the most since memory was last given back

    def look(self) -> None:
        """Give memory back if it is time."""
        now_s, cpu_s, waiting = self._clock_s(), self._cpu_s(), self._waiting_bytes()
        is_quiet = cpu_s - self._cpu_then_s < QUIET_SHARE * (now_s - self._looked_s)
        self._looked_s, self._cpu_then_s = now_s, cpu_s
        self._waiting_then = max(self._waiting_then, waiting)
        if not is_quiet:
            return
        if (
            waiting < self._waiting_then - WORTH_BYTES
            or self._resident_bytes() > self._resident_then + WORTH_BYTES
        ):
            self._give_back()
            self._resident_then = self._resident_bytes()
            self._waiting_then = waiting


async def give_back_memory(waiting_bytes: Callable[[], int], shrink: Callable[[], None]) -> None:
    """Look now and then, until cancelled. Where the C library is another one, it is left to itself.

    Args:
        waiting_bytes: about what waiting messages take.
        shrink: lets go of tables that are empty and were large; called before memory is given back.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return

    def give_back() -> None:
        shrink()
        trim(0)

    give_back()  # what only the start needed
    giving_back = GivingBack(
        give_back, time.monotonic, time.process_time, lambda: resident_bytes() or 0, waiting_bytes
    )
    while True:
        await trio.sleep(LOOK_S)
        giving_back.look()
