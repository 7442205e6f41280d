"""Opens the data file, and says in words what went wrong with it."""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from leveret.storage import schema
from leveret.storage.store import NotAStoreError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Connect = Callable[[Path, bool], sqlite3.Connection]  # path, read only

BUSY_S: Final = 10.0  # how long to wait for another program that writes to the file
OLDEST_SQLITE: Final = (3, 35, 0)
SQLITE_CONFIG_MULTITHREAD: Final = 2  # of sqlite3.h
STATEMENTS_KEPT: Final = 256  # prepared statements for each connection

# After a deletion the freed pages are only marked as free: SQLite as Debian builds it would overwrite them
# with zeros, and write them a second time.
WRITER_PRAGMAS: Final = (
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: fsync alone does not reach the disk
    "wal_autocheckpoint = 0",
    "secure_delete = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",  # an I/O error must be an error code, not a signal
    "cache_size = -8192",
)
READER_PRAGMAS: Final = ("cell_size_check = ON", "mmap_size = 0", "cache_size = -2048")
CHECKPOINT_PRAGMAS: Final = (
    "synchronous = FULL",
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
    "wal_autocheckpoint = 0",
    "mmap_size = 0",
)

# primary result code -> what it means and what to do
ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space and start again",
    sqlite3.SQLITE_READONLY: "it is read-only: make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check the permissions of the file and its directory",
    sqlite3.SQLITE_BUSY: "another program is writing to it: stop that one",
    sqlite3.SQLITE_IOERR: "the disk reported an error: check it, then start again",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a backup, or save what `sqlite3 FILE .recover` can read",
}


def do_without_locks() -> bool:
    """Have SQLite not lock a connection in each call: each is used by one thread at a time.

    That saves some ten locks for each row. It is SQLite's mode "multi-thread" instead of "serialized", which
    Python's module cannot ask for. It holds for the whole process; no connection may be open yet.

    Returns:
        whether it was possible; if not, nothing but the speed is different.

    Source: https://sqlite.org/threadsafe.html
    """
    try:
        library = ctypes.CDLL(_sqlite3.__file__)  # finds what it is linked with, too
        library.sqlite3_shutdown()  # importing the module has initialized it
        is_done = library.sqlite3_config(SQLITE_CONFIG_MULTITHREAD) == sqlite3.SQLITE_OK
        library.sqlite3_initialize()
    except (AttributeError, OSError):  # it is built in, or hides its functions
        return False
    return bool(is_done)


def open_connection(path: Path, read_only: bool) -> sqlite3.Connection:
    """Open the file; it is made if it is not there and `read_only` is false."""
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,  # transactions are ours to begin and end
        check_same_thread=False,  # each is used by one thread at a time
        cached_statements=STATEMENTS_KEPT,
    )


def set_pragmas(connection: sqlite3.Connection, pragmas: tuple[str, ...]) -> None:
    """Make settings that hold for a connection."""
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()


def set_up_writer(connection: sqlite3.Connection, path: Path, wal_file_bytes_max: int) -> None:
    """Make the file ours, or check that it is, and prepare the connection for writing.

    Raises:
        NotAStoreError: the file has something else in it; it is left as it is.
        NewerSchemaError: a later version wrote it; it is left as it is.
        StoreError: it cannot have a write-ahead log.
    """
    schema.check(connection, path)
    connection.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")  # has an effect on an empty file only
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path} cannot have a write-ahead log there: use a local file system")
    connection.execute(f"PRAGMA journal_size_limit = {wal_file_bytes_max}").close()
    set_pragmas(connection, WRITER_PRAGMAS)
    schema.prepare(connection, path)


def require_place(path: Path) -> None:
    """Check what can be checked without opening the file.

    Raises:
        StoreError: there can be no data file at this path.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"Python's sqlite3 has SQLite {sqlite3.sqlite_version}; {oldest} or later is needed")
    try:
        is_directory, has_parent = path.is_dir(), path.resolve().parent.is_dir()
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    if is_directory:
        raise StoreError(f"{path} is a directory: give the path of a file in it")
    if not has_parent:
        raise StoreError(f"there is no directory {path.parent}: make it, or use another path")
    # SQLite would open it for reading only, and not say so before the first change.
    if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreError(f"cannot write to {path}: {ADVICE[sqlite3.SQLITE_READONLY]}")


def explain(error: sqlite3.Error, path: Path, doing: str) -> StoreError:
    """Return the error for our caller, with what to do about it."""
    code = getattr(error, "sqlite_errorcode", None)  # absent if the error is of the sqlite3 module's making
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code is not None and code & 0xFF == sqlite3.SQLITE_NOTADB:
        return NotAStoreError(f"{path} is not an SQLite database: use another file")
    advice = ADVICE.get(code & 0xFF) if code is not None else None
    return StoreError(f"cannot {doing} {path}: {advice or error} ({name}{f': {error}' if advice else ''})")
