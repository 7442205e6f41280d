"""Watches free disk space and the process's memory, and raises the alarms that have publishers wait.

The looks are system calls that can hang on a network disk, so they are done in a thread. The nearer the disk
is to its limit, the sooner comes the next look: at `WRITE_RATE` it is not overrun in between.

Source: RabbitMQ guides "Memory Threshold and Limit", "Free Disk Space Alarms"; cgroups(7).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from leveret.storage.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.config import Settings
    from leveret.broker.server.node import Node
    from leveret.storage.store import Store

LOOK_S: Final = 1.0
SOONEST_LOOK_S: Final = 0.05
WRITE_RATE: Final = 1 << 30  # bytes a second; disks are rarely filled faster
CGROUP_LIMITS: Final = (  # of version 2 and 1
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is, in bytes; None where it cannot be told or does not matter."""

    disk_free: int | None
    memory_used: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Where alarms begin, in bytes; 0 for never."""

    disk_free: int
    memory_used: int


def limits_of(settings: Settings) -> Limits:
    """Return the limits that the settings mean on this machine."""
    share = settings.memory_high_watermark
    memory = int(share * machine_memory_bytes()) if share <= 1 else int(share)
    return Limits(0 if settings.memory else settings.disk_free_bytes, memory)


def machine_memory_bytes(cgroup_limits: tuple[str, ...] = CGROUP_LIMITS) -> int:
    """Return the memory that this process may use: the machine's, or less in a container. 0 if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return 0
    for path in cgroup_limits:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            return min(total, int(text))
    return total


def resident_bytes() -> int | None:
    """Return how much memory this process takes; None where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def look_at(settings: Settings, store: Store) -> Resources:
    """Return what there is now. What the data file has free inside counts as free."""
    disk_free = None
    if not settings.memory:
        try:
            disk_free = shutil.disk_usage(settings.data.resolve().parent).free + store.reusable_bytes()
        except (OSError, StoreError):  # the data file says so itself, with its next batch
            disk_free = None
    return Resources(disk_free, resident_bytes())


def judge(node: Node, limits: Limits, resources: Resources) -> float:
    """Raise or clear the alarms.

    Returns:
        after how many seconds to look again.
    """
    wait_s = LOOK_S
    if limits.disk_free and resources.disk_free is not None:
        room = resources.disk_free - limits.disk_free
        node.set_alarm("disk", room < 0, free_bytes=resources.disk_free, limit_bytes=limits.disk_free)
        wait_s = min(LOOK_S, max(SOONEST_LOOK_S, abs(room) / WRITE_RATE))
    if limits.memory_used and resources.memory_used is not None:
        used = resources.memory_used
        node.set_alarm("memory", used > limits.memory_used, used_bytes=used, limit_bytes=limits.memory_used)
    return wait_s


async def watch(node: Node, settings: Settings, store: Store, wake: Callable[[], None]) -> None:
    """Look at the resources until cancelled."""
    while True:
        resources = await trio.to_thread.run_sync(look_at, settings, store, abandon_on_cancel=True)
        before = dict(node.alarms)
        wait_s = judge(node, node.limits, resources)
        if before != node.alarms:
            wake()
        await trio.sleep(wait_s)
