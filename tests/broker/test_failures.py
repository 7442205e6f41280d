"""What the user is told when the broker cannot start or go on."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from leveret.broker.config import Settings
from leveret.broker.failures import explain
from leveret.storage.store import NewerSchemaError, NotAStoreError, StoreError, StoreLockedError

SETTINGS = Settings(data=Path("mine.db"), port=5999, host="10.1.2.3")


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "text", "exit_code"),
    [
        (
            StoreLockedError("mine.db is in use by another process: stop that one, or use another file"),
            "mine.db is in use by another process: stop that one, or use another file (--data FILE, or"
            " --memory)",
            75,
        ),
        (
            NotAStoreError("mine.db is an SQLite database of another program: use another file"),
            "mine.db is an SQLite database of another program: use another file (--data FILE); this one was"
            " left as it is",
            78,
        ),
        (
            NewerSchemaError("mine.db has the data format 9"),
            "mine.db has the data format 9 (--data FILE); this one was left as it is",
            78,
        ),
        (
            StoreError("mine.db: disk I/O error"),
            "mine.db: disk I/O error; nothing was confirmed that is not on disk",
            74,
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "mine.db"),
            "mine.db: Permission denied",
            74,
        ),
        (
            os_error(errno.EADDRINUSE),
            "port 5999 is in use; stop that program, or choose another port with --port, for example"
            " --port 6000",
            1,
        ),
        (
            os_error(errno.EACCES),
            "no permission to listen on port 5999; choose one above 1023 with --port",
            1,
        ),
        (
            os_error(errno.EADDRNOTAVAIL),
            "10.1.2.3 is not an address of this machine; choose one with --host (0.0.0.0 is every IPv4"
            " address)",
            1,
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "there is no address for the host '10.1.2.3'; choose another with --host",
            1,
        ),
        (os_error(errno.EMFILE), "the limit of open files is reached; raise it with ulimit -n", 1),
        (os_error(errno.EIO), "Input/output error (host 10.1.2.3, port 5999, data mine.db)", 74),
    ],
)
def test_a_failure_is_one_line_with_the_way_out(error: Exception, text: str, exit_code: int) -> None:
    failure = explain(error, SETTINGS, proc=Path("/nobody-is-in-the-way"))
    assert (failure.text, failure.exit_code, failure.is_bug) == (text, exit_code, False)


def test_an_error_that_a_nursery_wrapped_is_found() -> None:
    wrapped = ExceptionGroup("outer", [ExceptionGroup("inner", [StoreLockedError()])])
    assert explain(wrapped, SETTINGS).exit_code == 75


def test_the_program_that_has_the_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(port=taken.getsockname()[1])
        text = explain(os_error(errno.EADDRINUSE), settings).text
    assert f"pid {os.getpid()})" in text
