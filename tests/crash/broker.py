"""The broker under test, as a process that can be killed."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from pathlib import Path

READY = "Server startup complete"
DEFAULT_COMMAND = (
    f"{shlex.quote(sys.executable)} -m leveret serve --host 127.0.0.1 --port {{port}} --data {{data}}"
)
START_DEADLINE_S = 90.0


class BrokerFailed(Exception):
    """The broker did not start, or ended by itself."""


class Broker(Protocol):
    """What the loop needs of a broker."""

    port: int

    def start(self) -> None:
        """Start it on the data of the last life; return when it serves."""

    def begin_to_start(self) -> None:
        """Start it and do not wait."""

    def kill(self) -> None:
        """End it without warning; return when it is dead."""

    def stop(self) -> None:
        """End it in order, at the end of the run."""


class ProcessBroker:
    """A broker started by a command, killed with SIGKILL.

    The command is a template: `{port}` and `{data}` (a file name) are filled in. It must print a line with
    `Server startup complete`. Its output is kept in `broker.log`.
    """

    def __init__(
        self,
        directory: Path,
        command: str = DEFAULT_COMMAND,
        environment: dict[str, str] | None = None,
        data: Path | None = None,
    ) -> None:
        self.port = free_port()
        self.log = directory / "broker.log"
        data = data or directory.resolve() / "leveret.db"
        self._command = [part.format(port=self.port, data=data) for part in shlex.split(command)]
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    def begin_to_start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process and wait for its ready line.

        Raises:
            BrokerFailed: the line did not come.
        """
        self.begin_to_start()
        assert self._process is not None
        deadline = time.monotonic() + START_DEADLINE_S
        while READY not in self._output():
            if self._process.poll() is not None:
                raise BrokerFailed(
                    f"exit code {self._process.returncode} during the start:\n{self._output()[-3000:]}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerFailed(f"not ready after {START_DEADLINE_S} s:\n{self._output()[-3000:]}")
            time.sleep(0.01)

    def _output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill the process group with SIGKILL.

        Raises:
            BrokerFailed: it had.
        """
        self.check_alive()
        self._end(signal.SIGKILL, 10)

    def check_alive(self) -> None:
        """Check that it has not ended by itself.

        Raises:
            BrokerFailed: it has.
        """
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise BrokerFailed(f"it had ended by itself with exit code {code}:\n{self._output()[-3000:]}")

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not. For a broker that never started, nothing."""
        if self._process is not None and self._process.poll() is None:
            try:
                self._end(signal.SIGTERM, 15)
            except subprocess.TimeoutExpired:
                self._end(signal.SIGKILL, 10)

    def _end(self, number: signal.Signals, timeout: float) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)
        self._process.wait(timeout)


class RunningBroker:
    """A broker that somebody else runs: it can be worked with, not killed."""

    def __init__(self, port: int) -> None:
        self.port = port

    def start(self) -> None:
        """It runs."""

    def begin_to_start(self) -> None:
        """Refuse."""
        raise NotImplementedError("not ours to start")

    def kill(self) -> None:
        """Refuse."""
        raise NotImplementedError("not ours to kill")

    def stop(self) -> None:
        """It goes on running."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
