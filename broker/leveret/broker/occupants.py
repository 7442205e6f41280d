"""Finds the process that holds a port or a file, to name it in an error. Without /proc it finds none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC: Final = Path("/proc")
_LISTEN: Final = "0A"


def port_occupant(port: int, proc: Path = PROC) -> str:
    """Return who listens on a TCP port, as `beam.smp, pid 4711`; empty if that cannot be seen."""
    links = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    return _describe(proc, _processes_with(links, proc)) if links else ""


def file_occupant(path: Path, proc: Path = PROC) -> str:
    """Return another process that has a file open, or a file beside it whose name begins with its name."""
    start = str(path.resolve())
    others = (
        pid
        for pid, link in _open_links(proc)
        if (link == start or link.startswith(start + "-")) and pid != os.getpid()
    )
    return _describe(proc, others)


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            # sl, local_address as HEX:PORT, rem_address, state, ..., inode
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _processes_with(links: set[str], proc: Path) -> Iterator[int]:
    return (pid for pid, link in _open_links(proc) if link in links)


def _open_links(proc: Path) -> Iterator[tuple[int, str]]:
    try:
        pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    except OSError:
        return
    for pid in pids:
        try:
            descriptors = list((proc / str(pid) / "fd").iterdir())
        except OSError:  # it has ended, or belongs to another user
            continue
        for descriptor in descriptors:
            try:
                yield pid, str(descriptor.readlink())
            except OSError:
                continue


def _describe(proc: Path, pids: Iterable[int]) -> str:
    pid = next(iter(pids), None)
    if pid is None:
        return ""
    try:
        return f"{(proc / str(pid) / 'comm').read_text().strip()}, pid {pid}"
    except OSError:
        return f"pid {pid}"
