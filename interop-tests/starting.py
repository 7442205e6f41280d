"""Starts brokers for a while: a RabbitMQ that knows nothing of the machine's own, a Leveret on new data.

Each is a process with all its children, on free ports, and is stopped with them. `run.py` compares what they
do, `docs/benchmarks/run.py` how fast they do it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = (
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",
    "rabbitmq_event_exchange",
)  # bundled with RabbitMQ, for their exchange types, and for the exchange of events
CTL = "ctl"  # beside the data of a broker: a script with rabbitmqctl's verbs for it
RABBITMQ_START_S, LEVERET_START_S, STOP_S = 90, 30, 20
POLL_S = 0.02  # between two looks whether a broker answers


class CannotRun(Exception):
    """There is no broker to use, and the text says why and what to do."""


@dataclass
class Process:
    """A process with all its children, and what it has written."""

    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls, command: list[str], variables: dict[str, str], log: Path, user: str | None = None
    ) -> Process:
        """Start a command in a process group of its own, its output going to `log`."""
        account: dict[str, object] = {"user": user, "group": user, "extra_groups": []} if user else {}
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                env=os.environ | variables,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **account,  # type: ignore[call-overload]
            )
        return cls(popen, log)

    def output(self) -> str:
        """Return what was written until now."""
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        """Tell whether the process has ended."""
        return self.popen.poll() is not None

    def stop(self) -> int:
        """Ask it to stop, insist after a while, and return its exit code."""
        if not self.ended():
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def speaks_amqp(port: int) -> bool:
    """Tell whether something on the port answers the protocol header with connection.start."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(b"AMQP\0\0\x09\x01")
            return peer.recv(1) == b"\x01"
    except OSError:
        return False


def rabbitmq_script() -> Path | None:
    """Find the script that starts RabbitMQ.

    Debian's one in the PATH starts it for root and rabbitmq only; the one behind it starts it for anybody.
    """
    inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if inner.exists():
        return inner
    found = shutil.which("rabbitmq-server", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")
    return Path(found) if found else None


def install_packages(packages: list[str]) -> None:
    """Install Debian's packages without letting them start as services."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotRun("--install needs root and apt-get")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        print(f"Installing {' '.join(packages)}", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            env=quiet,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{packages[0]} cannot be installed: {shlex.join(error.cmd)} failed") from error
    finally:
        if ours:
            policy.unlink()


@contextlib.contextmanager
def running_rabbitmq(directory: Path, install: bool, plugins: tuple[str, ...] = PLUGINS) -> Iterator[str]:
    """Run a RabbitMQ of our own, with nothing of the machine's configuration, and yield its URL."""
    if rabbitmq_script() is None and install:
        install_packages(["rabbitmq-server"])
    script = rabbitmq_script()
    if script is None:
        raise CannotRun(
            "RabbitMQ is not installed. Install it (apt-get install rabbitmq-server), let this script do it\n"
            "(--install, as root), name one that runs (--rabbitmq-url), or leave it out (--only leveret)."
        )
    amqp, distribution, epmd = free_ports(3)
    user = "rabbitmq" if os.geteuid() == 0 else None
    (directory / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
    if user:
        for path in (directory, directory / "enabled_plugins"):
            shutil.chown(path, user)
    variables = {
        "HOME": str(directory),  # where Erlang keeps its cookie
        "RABBITMQ_NODENAME": f"interop-{amqp}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(amqp),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
    }
    rabbitmqctl = script.with_name("rabbitmqctl")
    write_ctl(directory, f"{rabbitmqctl} -n interop-{amqp}@localhost", variables, user)
    started: list[Process] = []
    try:
        if names := shutil.which("epmd"):  # else RabbitMQ starts one, and leaves it
            started.append(Process.start([names], variables, directory / "epmd.log", user))
        broker = Process.start([str(script)], variables, directory / "rabbitmq.log", user)
        started.append(broker)
        deadline = time.monotonic() + RABBITMQ_START_S
        while not speaks_amqp(amqp):
            if broker.ended() or time.monotonic() > deadline:
                raise CannotRun(f"RabbitMQ does not start. It says:\n\n{broker.output()[-3000:]}")
            time.sleep(POLL_S)
        yield f"amqp://guest:guest@127.0.0.1:{amqp}/"
    finally:
        for process in reversed(started):
            process.stop()


@contextlib.contextmanager
def running_leveret(directory: Path, command: str | None, complaints: list[str]) -> Iterator[str]:
    """Run a Leveret on a new data file and yield its URL.

    `complaints` receives what there is to say in the end: that it died, did not stop well, or logged a bug.
    """
    roots = [str(ROOT / root) for root in ("broker", "protocol", "storage")]
    path = os.pathsep.join([*roots, *filter(None, [os.environ.get("PYTHONPATH")])])
    start = shlex.split(command) if command else [sys.executable, "-m", "leveret", "serve"]
    options = ["--host", "127.0.0.1", "--port", "0", "--data", str(directory / "leveret.db")]
    ctl = f"{shlex.join(start[:-1])} ctl --socket {shlex.quote(str(directory / 'leveret.db.sock'))}"
    write_ctl(directory, ctl, {"PYTHONPATH": path}, None)
    broker = Process.start(
        [*start, *options], {} if command else {"PYTHONPATH": path}, directory / "leveret.log"
    )
    try:
        yield f"amqp://guest:guest@127.0.0.1:{leveret_port(broker)}/"
        if broker.ended():
            complaints.append("died")
    finally:
        code = broker.stop()
    if code != 0 and not complaints:
        complaints.append(f"stopped with exit code {code}")
    if "Traceback" in broker.output():
        complaints.append("logged a bug")
    if complaints:
        print(f"\nThe end of Leveret's log:\n\n{broker.output()[-6000:]}")


def write_ctl(directory: Path, command: str, variables: dict[str, str], user: str | None) -> None:
    """Write a script that runs rabbitmqctl's verbs for a broker."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    as_user = f'su -m -s /bin/sh {user} -c \'exec "$0" "$@"\' --' if user else "exec"
    script = directory / CTL
    script.write_text(f'#!/bin/sh\ncd /\nexport {settings}\n{as_user} {command} "$@"\n')
    script.chmod(0o755)


def leveret_port(broker: Process) -> int:
    """Wait until Leveret listens, and return the port that it says it chose."""
    deadline = time.monotonic() + LEVERET_START_S
    while not (url := re.search(r"amqp://\S*?:(\d+)", broker.output())) or not speaks_amqp(int(url[1])):
        if broker.ended() or time.monotonic() > deadline:
            raise CannotRun(f"Leveret does not start. It says:\n\n{broker.output()[-3000:]}")
        time.sleep(POLL_S)
    return int(url[1])
