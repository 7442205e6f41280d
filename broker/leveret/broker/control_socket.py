"""The local socket by which `leveret ctl` reaches a broker: where it is, and one line of JSON each way.

A request is `{"verb", "arguments", "options"}`. The answer is `{"table": {"columns", "rows"}}`, `{"text"}`,
`{}`, or `{"error", "code"}`. A connection carries one request.

Whoever may connect may do everything, so the socket is for its owner only.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.broker.config import Settings

AUTO: Final = "auto"
NONE: Final = "none"
REQUEST_BYTES_MAX: Final = 1024 * 1024
PATH_BYTES_MAX: Final = 107  # of a path that a socket can be bound to


def control_path(settings: Settings, port: int) -> Path | None:
    """Return where the socket of a broker is; None if it has none.

    Args:
        settings: of the broker.
        port: that it listens on.
    """
    if settings.control_socket == NONE:
        return None
    if settings.control_socket != AUTO:
        return Path(settings.control_socket)
    if settings.memory:
        return memory_path(port)
    return settings.data.with_name(settings.data.name + ".sock")


def memory_path(port: int) -> Path:
    """Return where the socket of a broker without a data file is."""
    return Path(tempfile.gettempdir()) / f"leveret-{os.getuid()}" / f"{port}.sock"


def listen(path: Path) -> socket.socket:
    """Make the socket; one that a crash left behind is replaced.

    Raises:
        OSError: it cannot be made.
    """
    if path.parent == memory_path(0).parent:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        require_own(path.parent)
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        with reachable(path) as address:
            listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect to a broker.

    Raises:
        OSError: nobody listens there.
    """
    if path.parent == memory_path(0).parent:
        require_own(path.parent)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.settimeout(timeout_s)
        with reachable(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def require_own(folder: Path) -> None:
    """Refuse a folder in a place where anybody can make one.

    Raises:
        PermissionError: it belongs to somebody else, or others may write to it.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder of this user's alone")


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Give a path that is short enough for a socket."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
