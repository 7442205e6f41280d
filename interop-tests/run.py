#!/usr/bin/env python3
"""Run the interop suite against a RabbitMQ and against Leveret, both started for it, and compare.

    python interop-tests/run.py [options] [options and arguments of pytest]

Exits with 1 when a test that RabbitMQ passes fails on Leveret or Leveret itself misbehaves, and with 2 when
there is nothing to compare because a broker does not start.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RABBITMQ_START_S, LEVERET_START_S, STOP_S = 90, 30, 20
PASSED, FAILED, ERROR, SKIPPED, MISSING = "passed", "FAILED", "ERROR", "skipped", "not run"
BAD = (FAILED, ERROR, MISSING)


class CannotRun(Exception):
    """There is no broker to test, and the text says why and what to do."""


# processes ---------------------------------------------------------------------------------------------


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


# RabbitMQ ----------------------------------------------------------------------------------------------


def rabbitmq_script() -> Path | None:
    """Find the script that starts RabbitMQ.

    Debian's one in the PATH starts it for root and rabbitmq only; the one behind it starts it for anybody.
    """
    inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if inner.exists():
        return inner
    found = shutil.which("rabbitmq-server", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")
    return Path(found) if found else None


def install_rabbitmq() -> None:
    """Install Debian's RabbitMQ without letting it start as a service."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotRun("--install needs root and apt-get")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        print("Installing rabbitmq-server", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"],
            env=quiet,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"rabbitmq-server cannot be installed: {shlex.join(error.cmd)} failed") from error
    finally:
        if ours:
            policy.unlink()


@contextlib.contextmanager
def running_rabbitmq(directory: Path, install: bool) -> Iterator[str]:
    """Run a RabbitMQ of our own, with nothing of the machine's configuration, and yield its URL."""
    if rabbitmq_script() is None and install:
        install_rabbitmq()
    script = rabbitmq_script()
    if script is None:
        raise CannotRun(
            "RabbitMQ is not installed. Install it (apt-get install rabbitmq-server), let this script do it\n"
            "(--install, as root), name one that runs (--rabbitmq-url), or leave it out (--only leveret)."
        )
    amqp, distribution, epmd = free_ports(3)
    user = "rabbitmq" if os.geteuid() == 0 else None
    (directory / "enabled_plugins").write_text("[].\n")
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
            time.sleep(0.2)
        yield f"amqp://guest:guest@127.0.0.1:{amqp}/"
    finally:
        for process in reversed(started):
            process.stop()


# Leveret -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_leveret(directory: Path, command: str | None, complaints: list[str]) -> Iterator[str]:
    """Run a Leveret on a new data file and yield its URL.

    `complaints` receives what there is to say in the end: that it died, did not stop well, or logged a bug.
    """
    roots = [str(ROOT / root) for root in ("broker", "protocol", "storage")]
    path = os.pathsep.join([*roots, *filter(None, [os.environ.get("PYTHONPATH")])])
    start = shlex.split(command) if command else [sys.executable, "-m", "leveret", "serve"]
    options = ["--host", "127.0.0.1", "--port", "0", "--data", str(directory / "leveret.db")]
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


def leveret_port(broker: Process) -> int:
    """Wait until Leveret listens, and return the port that it says it chose."""
    deadline = time.monotonic() + LEVERET_START_S
    while not (url := re.search(r"amqp://\S*?:(\d+)", broker.output())) or not speaks_amqp(int(url[1])):
        if broker.ended() or time.monotonic() > deadline:
            raise CannotRun(f"Leveret does not start. It says:\n\n{broker.output()[-3000:]}")
        time.sleep(0.05)
    return int(url[1])


# the suite ---------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the suite said about one broker."""

    broker: str
    outcomes: dict[str, str] = field(default_factory=dict)  # "file::test" -> PASSED, FAILED ...
    reasons: dict[str, str] = field(default_factory=dict)  # "file::test" -> the first line of what went wrong
    seconds: float = 0

    def outcome(self, test: str) -> str:
        """Return the outcome of a test, which may not have been run at all."""
        return self.outcomes.get(test, MISSING)

    def summary(self, tests: list[str]) -> str:
        """Count the outcomes of some tests."""
        counts = Counter(self.outcome(test) for test in tests)
        return ", ".join(f"{counts[kind]} {kind}" for kind in (PASSED, *BAD, SKIPPED) if counts[kind])


def introduce(name: str, url: str) -> str:
    """Return the name of a broker and the version it tells its clients."""
    import pika  # here, so that --help needs nothing

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties = connection._impl.server_properties
    version = properties.get("broker_version") or properties.get("version", "")
    return f"{name} {version}" if version[:1].isdigit() else name


def run_pytest(command: list[str]) -> int:
    """Run pytest and return its exit code.

    When this script is told to stop, so is pytest, in the way that lets it stop what its tests have started.
    """
    pytest = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return pytest.wait()
    except BaseException:
        pytest.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.wait(STOP_S)
        pytest.kill()
        raise


def run_suite(name: str, url: str, directory: Path, pytest_arguments: list[str]) -> Run:
    """Run the suite against one broker."""
    run = Run(introduce(name, url))
    print(f"\n{run.broker} at {url}", flush=True)
    results = directory / f"{name}.xml"
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", str(HERE), "-q", "--broker", url, f"--junitxml={results}"]
    code = run_pytest([*command, "-p", "no:cacheprovider", *pytest_arguments])
    run.seconds = time.monotonic() - started
    if code not in (0, 1) or not results.exists():
        raise CannotRun(f"pytest gave up with exit code {code}")
    for case in ElementTree.parse(results).iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        for kind, outcome in (("error", ERROR), ("failure", FAILED), ("skipped", SKIPPED)):
            if (trouble := case.find(kind)) is not None:
                run.outcomes[test] = outcome
                run.reasons[test] = (trouble.get("message") or "").strip().partition("\n")[0]
                break
        else:
            run.outcomes.setdefault(test, PASSED)
    return run


def sentence(test: str) -> str:
    """Return the name of a test as people read it."""
    name, bracket, parameters = test.partition("::")[2].partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f" [{parameters}" if bracket else "")


def print_table(rows: list[list[str]]) -> None:
    """Print rows in columns that are as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(runs: list[Run], full: bool) -> list[str]:
    """Print what the suite said, side by side, and return the tests on which the last broker is worse."""
    tests = list(dict.fromkeys(test for run in runs for test in run.outcomes))
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.partition("::")[0].removeprefix("test_").replace("_", " "), []).append(test)
    print()
    rows = [["", *(run.broker for run in runs)]]
    for name, members in files.items():
        rows.append([name, *(run.summary(members) for run in runs)])
        if full:
            rows += [["  " + sentence(test), *(run.outcome(test) for run in runs)] for test in members]
    rows.append(["together", *(f"{run.summary(tests)} in {run.seconds:.0f} s" for run in runs)])
    print_table(rows)

    notable = [test for test in tests if any(run.outcome(test) in BAD for run in runs)]
    if notable:
        print(f"\n{'Different, or failing everywhere' if len(runs) > 1 else 'Failing'}:\n")
        print_table(
            [["", *(run.broker for run in runs)]]
            + [
                [f"{test.partition('::')[0]}: {sentence(test)}", *(run.outcome(test) for run in runs)]
                for test in notable
            ]
        )
        for run in runs:
            for test in notable:
                if test in run.reasons and run.outcome(test) in BAD:
                    print(f"\n  {run.broker}, {test}\n    {run.reasons[test][:300]}")
    return [
        test
        for test in notable
        if runs[-1].outcome(test) in BAD and (len(runs) == 1 or runs[0].outcome(test) == PASSED)
    ]


def main() -> int:
    """Run the suite as the command line says."""
    parser = argparse.ArgumentParser(
        description="Run the interop suite against RabbitMQ and Leveret, and compare.",
        epilog="Everything else is given to pytest, for example: -k dead_letter",
    )
    parser.add_argument("--only", choices=["rabbitmq", "leveret"], help="run against one of them")
    parser.add_argument(
        "--full", action="store_true", help="print every test, not only files and differences"
    )
    parser.add_argument(
        "--install", action="store_true", help="install RabbitMQ if it is missing (Debian, root)"
    )
    parser.add_argument("--rabbitmq-url", metavar="URL", help="use a RabbitMQ that runs already")
    parser.add_argument("--leveret-url", metavar="URL", help="use a Leveret that runs already")
    parser.add_argument(
        "--leveret-command",
        metavar="COMMAND",
        help="how to start Leveret, for example '.venv/serve/bin/leveret serve'",
    )
    options, pytest_arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    runs: list[Run] = []
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="leveret-interop-") as temporary:
        directory = Path(temporary)
        directory.chmod(0o755)  # RabbitMQ may run as another user
        for name in ("rabbitmq", "leveret"):
            (directory / name).mkdir()
        try:
            if options.only != "leveret":
                with (
                    contextlib.nullcontext(options.rabbitmq_url)
                    if options.rabbitmq_url
                    else running_rabbitmq(directory / "rabbitmq", options.install)
                ) as url:
                    runs.append(run_suite("RabbitMQ", url, directory, pytest_arguments))
            if options.only != "rabbitmq":
                with (
                    contextlib.nullcontext(options.leveret_url)
                    if options.leveret_url
                    else running_leveret(directory / "leveret", options.leveret_command, complaints)
                ) as url:
                    runs.append(run_suite("Leveret", url, directory, pytest_arguments))
        except CannotRun as reason:
            print(f"\n{reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        worse = report(runs, options.full)
    if worse:
        print(f"\n{len(worse)} of the tests that should pass fail on {runs[-1].broker}.")
    for complaint in complaints:
        print(f"\nLeveret {complaint}; see its log above.")
    return 1 if worse or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
