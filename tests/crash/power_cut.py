"""A disk that can lose its power: what was not synced is gone.

SIGKILL alone cannot show a missing fsync, because the kernel's page cache outlives the process. Here the data
lies on an ext4 file system in an image file, mounted through a loop device. A cut stops the broker, copies
the image (that is, what has reached the block layer), kills the broker, and mounts the copy in the image's
place. It needs root and a kernel that lets us mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .broker import DEFAULT_COMMAND, ProcessBroker

IMAGE_BYTES = 512 << 20

# Pretends that write-ahead logs are synced. With SQLite that is what synchronous=NORMAL does between
# checkpoints.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    return n > 4 && memcmp(path + n - 4, "-wal", 4) == 0;
}
int fsync(int fd) {
    return is_log(fd) ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    return is_log(fd) ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class CannotCut(Exception):
    """This machine does not let us emulate a power cut."""


class CuttableDisk:
    """An ext4 file system in an image file. Use as a context manager: it is mounted inside."""

    def __init__(self, directory: Path) -> None:
        self.mount_point = directory / "disk"
        memory = Path("/dev/shm")
        self._images = (memory if memory.is_dir() else directory) / f"leveret-power-cut-{os.getpid()}"
        self._image = self._images / "0.img"
        self._cuts = 0

    def __enter__(self) -> CuttableDisk:
        if os.geteuid() != 0:
            raise CannotCut("mounting a loop device needs root")
        for tool in ("mkfs.ext4", "mount", "umount", "findmnt"):
            if shutil.which(tool) is None:
                raise CannotCut(f"there is no {tool}")
        self._images.mkdir()
        self.mount_point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(CannotCut):
            self._unmount()
        shutil.rmtree(self._images, ignore_errors=True)

    def _mount(self) -> None:
        # The kernel commits the journal by itself only after `commit` seconds; the default of 5 would hide
        # faults.
        run("mount", "-o", "loop,commit=300", str(self._image), str(self.mount_point))

    def _unmount(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                run("umount", str(self.mount_point))
            except CannotCut:  # busy: a child of the broker is still on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def copy(self) -> Path:
        """Copy what has reached the image, at one point in time. Nobody may write to the file system
        meanwhile."""
        self._cuts += 1
        copy = self._images / f"{self._cuts}.img"
        while True:
            before = self._writes()
            run("cp", "--sparse=always", str(self._image), str(copy))
            if self._writes() == before:  # the kernel did not write by itself in between
                return copy

    def _writes(self) -> str:
        device = Path(run("findmnt", "-n", "-o", "SOURCE", str(self.mount_point)).strip())
        return " ".join((Path("/sys/block") / device.name / "stat").read_text().split()[4:7])

    def replace(self, copy: Path) -> None:
        """Put a copy in the place of the image. Nobody may have a file open."""
        self._unmount()
        self._image.unlink()
        self._image = copy
        self._mount()


class CuttableBroker(ProcessBroker):
    """A broker whose end is a power cut instead of a kill."""

    def __init__(
        self,
        directory: Path,
        disk: CuttableDisk,
        command: str = DEFAULT_COMMAND,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(directory, command, environment, data=disk.mount_point / "leveret.db")
        self._disk = disk

    def kill(self) -> None:
        """Stop the process, keep what it had synced, kill it, and go back to what was kept."""
        self.check_alive()
        os.killpg(self.pid, signal.SIGSTOP)
        wait_until_stopped(self.pid)
        copy = self._disk.copy()
        super().kill()
        self._disk.replace(copy)


def wait_until_stopped(pid: int) -> None:
    """Wait until every thread has come out of its system call and stopped."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        states = [
            stat.read_text().rpartition(")")[2].split()[0]
            for stat in Path(f"/proc/{pid}/task").glob("*/stat")
        ]
        if all(state in "TtZX" for state in states):
            return
        time.sleep(0.001)
    raise TimeoutError("the broker does not stop for SIGSTOP")


def build_shim(directory: Path) -> Path:
    """Compile the library that forgets to sync write-ahead logs, for LD_PRELOAD.

    Raises:
        CannotCut: there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotCut("there is no C compiler")
    source = directory / "forget.c"
    source.write_text(SHIM)
    run(compiler, "-shared", "-fPIC", "-O1", "-o", str(directory / "forget.so"), str(source), "-ldl")
    return directory / "forget.so"


def run(*command: str) -> str:
    """Run a command; return its output.

    Raises:
        CannotCut: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise CannotCut(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
