"""What can stop a broker from starting or running, in one line for the user, with the way out."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from leveret.broker.config import EX_CONFIG, ConfigError
from leveret.broker.logs import brief, one_line
from leveret.broker.occupants import PROC, file_occupant, port_occupant
from leveret.storage.store import NewerSchemaError, NotAStoreError, StoreError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

    from leveret.broker.config import Settings

EX_FAILURE: Final = 1
EX_IOERR: Final = 74  # the data cannot be read or written
EX_TEMPFAIL: Final = 75  # the data is in use


@dataclass(frozen=True, slots=True)
class Failure:
    """What the user is told, and the exit code."""

    text: str
    exit_code: int
    is_bug: bool = False  # nobody foresaw it: the traceback is worth showing


def explain(error: BaseException, settings: Settings, proc: Path = PROC) -> Failure:
    """Return what to say about an error that ended the broker; `proc` shows who is in the way."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a nursery wraps what it raises
    match error:
        case ConfigError():
            return Failure(str(error), error.exit_code)
        case StoreError():
            return _explain_store(error, settings, proc)
        case OSError() if error.filename is not None:
            return Failure(f"{error.filename}: {error.strerror}", EX_IOERR)
        case OSError():
            return _explain_listen(error, settings, proc)
        case _:
            more = "" if settings.log_level == "debug" else " (--log-level debug shows all of it)"
            return Failure(
                f"this is a bug in Leveret: {one_line(brief(error))}{more}", EX_FAILURE, is_bug=True
            )


def _explain_store(error: StoreError, settings: Settings, proc: Path) -> Failure:
    text = one_line(str(error)) or f"{settings.data} cannot be used"
    match error:
        case StoreLockedError():
            occupant = file_occupant(settings.data, proc)
            by = f"; it is {occupant}" if occupant else ""
            return Failure(f"{text} (--data FILE, or --memory){by}", EX_TEMPFAIL)
        case NotAStoreError() | NewerSchemaError():
            return Failure(f"{text} (--data FILE); this one was left as it is", EX_CONFIG)
        case _:
            return Failure(f"{text}; nothing was confirmed that is not on disk", EX_IOERR)


def _explain_listen(error: OSError, settings: Settings, proc: Path) -> Failure:
    host, port = settings.host, settings.port
    match error.errno:
        case errno.EADDRINUSE:
            occupant = port_occupant(port, proc)
            by = f" ({occupant})" if occupant else ""
            return Failure(
                f"port {port} is in use{by}; stop that program, or choose another port with --port, for"
                f" example --port {port + 1 if port < 65535 else 0}",
                EX_FAILURE,
            )
        case errno.EACCES | errno.EPERM:
            return Failure(
                f"no permission to listen on port {port}; choose one above 1023 with --port", EX_FAILURE
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return Failure(
                f"{host} is not an address of this machine; choose one with --host (0.0.0.0 is every IPv4"
                " address)",
                EX_FAILURE,
            )
        case errno.EMFILE | errno.ENFILE:
            return Failure("the limit of open files is reached; raise it with ulimit -n", EX_FAILURE)
    if isinstance(error, socket.gaierror):
        return Failure(f"there is no address for the host {host!r}; choose another with --host", EX_FAILURE)
    text = error.strerror or (os.strerror(error.errno) if error.errno else one_line(str(error)))
    return Failure(f"{text} (host {host}, port {port}, data {settings.data})", EX_IOERR)
