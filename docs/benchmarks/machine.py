"""What figures depend on beside the brokers: the machine, its disk, and what else it was doing."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

SYNCS: Final = 200
BLOCK: Final = b"\xa5" * 4096
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures come from."""

    cpu: str
    cores: int  # that this process may use
    memory_gib: float
    kernel: str
    python: str  # that runs the generator; the brokers tell their own
    file_system: str  # of the data
    fdatasync_ms: float  # median, of 4 KiB appended to a file there
    load: float  # average over the minute before

    @classmethod
    def this(cls, data: Path) -> Machine:
        """Look at this machine; `data` is the folder where the brokers keep theirs."""
        return cls(
            cpu=cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            file_system=file_system(data, Path("/proc/mounts").read_text(encoding="utf-8")),
            fdatasync_ms=fdatasync_ms(data),
            load=os.getloadavg()[0],
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return what there is to say, as label and value."""
        return [
            ("CPU", f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB of memory"),
            ("kernel", self.kernel),
            ("disk", f"{self.file_system}; one fdatasync takes {self.fdatasync_ms:.2f} ms"),
            ("Python", self.python),
            ("load before", f"{self.load:.2f}"),
        ]


def cpu_model(cpuinfo: str) -> str:
    """Return the name of the first processor in /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        label, _colon, value = line.partition(":")
        if label.strip() in ("model name", "Model", "Hardware"):
            return " ".join(value.split())
    return platform.machine()


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that a path is on, by the longest mount point above it."""
    points = {point: kind for _device, point, kind, *_rest in map(str.split, mounts.splitlines())}
    path = path.resolve()
    for above in (path, *path.parents):
        if str(above) in points:
            return points[str(above)]
    return "unknown"


def fdatasync_ms(folder: Path) -> float:
    """Return how long the disk takes to make 4 KiB durable."""
    probe = folder / "fdatasync"
    durations = []
    with probe.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(BLOCK)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            durations.append(time.perf_counter() - before)
    probe.unlink()
    return 1000 * median(durations)
