"""Runs all loops once, in a process whose instructions are counted: `python -m tests.guard.count`."""

from __future__ import annotations

import gc
import json
import os
import platform
import sqlite3

from leveret.broker.logs import configure
from leveret.broker.version import is_compiled

from .loops import LOOPS, REFERENCES


def mark() -> None:
    """End one count and begin the next: callgrind does so where this function of the C library begins."""
    os.getppid()


def main() -> None:
    """Count each loop between two marks, and tell which they were."""
    configure("console", "error")
    loops = REFERENCES | LOOPS
    for loop in loops.values():
        rounds = loop.start()
        for _ in range(loop.rounds):
            next(rounds)
        gc.collect()
        gc.disable()  # it would begin in one loop or in another
        mark()
        for _ in range(loop.rounds):
            next(rounds)
        mark()
        gc.enable()
        rounds.close()
    told = {
        "loops": list(loops),
        "compiled": is_compiled(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
