"""What a broker uses: CPU time and resident size of a process and all its descendants, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC: Final = Path("/proc")
_USER_TIME: Final = 11  # fields of stat behind the name in parentheses
_SYSTEM_TIME: Final = 12
_RESIDENT: Final = 21  # in pages
_LISTENS: Final = "0A"  # state of a socket in /proc/net/tcp


class BrokerProcesses:
    """The processes of one broker.

    Args:
        pid: the one that the others descend from.
        proc: where /proc is.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self.pid = pid
        self.peak_rss_bytes = 0
        self._proc = proc

    def exists(self) -> bool:
        """Whether there is such a process."""
        return (self._proc / str(self.pid) / "stat").exists()

    def cpu_seconds(self) -> float:
        """Return the user and system time of those that run now."""
        ticks = sum(fields[_USER_TIME] + fields[_SYSTEM_TIME] for fields in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Return the resident size; pages that processes share count in each."""
        return sum(fields[_RESIDENT] for fields in self._stats()) * os.sysconf("SC_PAGE_SIZE")

    def sample_rss(self) -> None:
        """Look at the resident size and keep the highest."""
        self.peak_rss_bytes = max(self.peak_rss_bytes, self.rss_bytes())

    def _stats(self) -> Iterator[list[int]]:
        for pid in self._tree():
            try:
                text = (self._proc / str(pid) / "stat").read_text()
            except OSError:  # it has ended
                continue
            yield [
                int(field) if field.lstrip("-").isdigit() else 0 for field in text.rpartition(")")[2].split()
            ]

    def _tree(self) -> list[int]:
        tree = [self.pid]
        for pid in tree:  # grows
            for children in (self._proc / str(pid) / "task").glob("*/children"):
                try:
                    tree += map(int, children.read_text().split())
                except OSError:
                    continue
        return tree


def listening_pid(port: int, proc: Path = PROC) -> int | None:
    """Return the process on this machine that listens on a TCP port; None if there is none, or it is hidden.

    Processes of other users are hidden from all but root.
    """
    sockets = {
        f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _listening(proc / "net" / name, port)
    }
    if not sockets:
        return None
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if any(str(each.readlink()) in sockets for each in (proc / str(pid) / "fd").iterdir()):
                return pid
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]
