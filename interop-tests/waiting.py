"""Waiting for a broker on the other side of a socket: never a fixed sleep, always until something is true."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 10.0
QUIET_S = 0.25  # how long "nothing arrives" is watched


def eventually(condition: Callable[[], object], what: str = "", patience_s: float = PATIENCE_S) -> None:
    """Ask `condition` again and again until it is true.

    Raises:
        AssertionError: it was still false after `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain: {what or condition}"
        time.sleep(0.01)


def with_asyncio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test in an asyncio loop of its own, whatever async plugins pytest has."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run
