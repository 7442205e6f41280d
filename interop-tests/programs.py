"""Programs in other languages, each with a client library of its own: how they are built, what they tell.

A program is started with the URL of the broker, a prefix for its names and the port of a relay in front of
the broker. It writes one JSON object a line:

    {"client": "amqplib", "version": "2.3.1"}                  first, who it is
    {"step": "get", "outcome": "ok"}                           for each of STEPS, in any order
    {"step": "get", "outcome": "failed", "detail": "..."}      the broker did not do what was expected
    {"step": "get", "outcome": "absent", "detail": "..."}      the library cannot do it
    {"ask": "cut"}                                             cut the relay's connections, then write a line
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from brokers import Broker
from cuttable import Relay

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "clients"
BUILT = HERE.parent / "build" / "clients"
BUILD_LIMIT_S, RUN_LIMIT_S = 900, 120
MAVEN_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0"
OK, ABSENT = "ok", "absent"

STEPS = {
    "connect": "connects with heartbeat, frame size, channel limit and a name",
    "server-properties": "reads the server's properties and capabilities",
    "idle": "stays connected while idle, with a heartbeat of one second",
    "wrong-password": "is told that the password is wrong",
    "unknown-vhost": "is told that there is no such vhost",
    "many-channels": "opens a hundred channels",
    "blocked-listener": "listens for connection.blocked",
    "update-secret": "updates the secret of its connection",
    "declare-queue": "declares queues, again and passively, and lets the server name one",
    "queue-arguments": "declares a queue with ten arguments, twice",
    "unknown-queue": "gets 404 for an unknown queue, and goes on",
    "other-properties": "gets 406 for a queue with other arguments",
    "locked-queue": "gets 405 for an exclusive queue of another connection",
    "exchange-types": "declares exchanges of the four types, again and passively, and deletes them",
    "route-direct": "routes by a direct exchange, and unbinds",
    "route-fanout": "routes by a fanout exchange",
    "route-topic": "routes by a topic exchange",
    "route-headers": "routes by a headers exchange",
    "exchange-to-exchange": "binds exchanges to exchanges, and unbinds",
    "alternate-exchange": "routes by an alternate exchange",
    "default-exchange": "publishes to the default exchange, which takes no bindings",
    "purge-delete": "is told how many messages a purge and a delete removed",
    "delete-conditions": "gets 406 when a queue to delete is not empty or in use",
    "properties": "sends and reads all properties",
    "headers": "sends and reads headers of all types that it knows",
    "large": "sends and reads a message of many frames",
    "empty": "sends and reads an empty message",
    "mandatory": "gets back a mandatory message that no queue takes",
    "confirm": "has a message confirmed, after its return if it has no route",
    "confirm-many": "has a thousand messages confirmed",
    "confirm-nack": "gets a nack from a full queue that rejects publishes",
    "get": "gets single messages, and counts what is left",
    "consume-ack": "consumes in order, and acks single and multiple",
    "consume-no-ack": "consumes without acks",
    "nack": "nacks, requeues and drops messages",
    "reject": "rejects, requeues and drops messages",
    "recover": "asks for its unacked messages again",
    "prefetch": "gets no more than its prefetch count",
    "cancel": "cancels a consumer",
    "server-cancel": "is told that the queue of its consumer is gone",
    "exclusive-consumer": "gets 403 for a consumer beside an exclusive one",
    "consumer-priority": "consumes with priorities",
    "unknown-delivery-tag": "gets 406 for acking what it never got",
    "message-ttl": "reads x-death of a message that expired",
    "dead-letter-rejected": "reads x-death of a message that was rejected in a circle",
    "max-length": "dead-letters what a full queue drops",
    "priority": "gets messages by priority",
    "tx-commit": "commits transactions",
    "tx-rollback": "rolls transactions back",
    "direct-reply-to": "calls over direct reply-to",
    "rpc-queue": "calls over a queue for the replies",
    "closed-channel": "learns why a channel was closed, and goes on",
    "closed-connection": "learns why the connection was closed, and connects again",
    "recovery": "recovers connection, queue and consumer after the network failed",
}


def dotted(text: str) -> tuple[int, ...]:
    """Read the first version number in a text."""
    word = next((word for word in text.replace("(", " ").split() if word.lstrip("gov")[:1].isdigit()), "0")
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in word.split("-")[0].split("."))


@dataclass(frozen=True)
class Program:
    """A program: what it needs, how it is built and how it is run, in a copy of its folder."""

    language: str  # also the name of its folder
    library: str
    tools: dict[str, tuple[int, ...]]  # command -> the lowest version that will do
    packages: tuple[str, ...]  # Debian's, for who lacks it
    run: tuple[str, ...]
    build: tuple[tuple[str, ...], ...] = ()
    probe: tuple[str, ...] = ()  # fails where the library is missing, if it does not come with the build
    prepare: Callable[[Path], None] = field(default=lambda folder: None)

    @property
    def folder(self) -> Path:
        """Where it is built."""
        return BUILT / self.language

    def missing(self) -> str | None:
        """Say what this machine lacks for it."""
        for tool, lowest in self.tools.items():
            if not shutil.which(tool):
                return f"{tool} is not installed"
            ask = [tool, "version"] if tool == "go" else [tool, "--version"]
            found = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
            if dotted(found) < lowest:
                return f"{tool} is older than {'.'.join(map(str, lowest))}"
        if self.probe and subprocess.run(self.probe, capture_output=True, check=False).returncode != 0:
            return f"the library {self.library} is not installed"
        return None

    def make(self) -> None:
        """Build it, if its sources have changed since.

        Raises:
            RuntimeError: a command failed; its output is in the text.
        """
        files = sorted(path for path in (SOURCES / self.language).rglob("*") if path.is_file())
        tracked = [path for path in files if not {"node_modules", "target"} & set(path.parts)]
        digest = hashlib.sha256(repr(self.build).encode())
        for path in tracked:
            digest.update(f"{path.relative_to(SOURCES)}\n".encode() + path.read_bytes())
        stamp = self.folder / ".made"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        stamp.unlink(missing_ok=True)
        for path in tracked:
            copy = self.folder / path.relative_to(SOURCES / self.language)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        self.prepare(self.folder)
        for command in self.build:
            made = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.STDOUT, timeout=BUILD_LIMIT_S, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                raise RuntimeError(f"{self.language}: {' '.join(command)} failed:\n{made.stdout[-3000:]}")
        stamp.write_text(digest.hexdigest())


def pin_crates(folder: Path) -> None:
    """Make a Cargo.lock of versions.lock, which lacks the line that tells where each crate comes from."""
    lock = folder / "Cargo.lock"
    lock.unlink(missing_ok=True)
    subprocess.run(["cargo", "generate-lockfile", "-q"], cwd=folder, check=True, timeout=BUILD_LIMIT_S)
    source = next(line for line in lock.read_text().splitlines() if line.startswith("source = "))
    pinned = (folder / "versions.lock").read_text()
    lock.write_text(pinned.replace("\nchecksum = ", f"\n{source}\nchecksum = "))


PROGRAMS = [
    Program(
        language="node",
        library="amqplib",
        tools={"node": (18,), "npm": (8,)},
        packages=("nodejs", "npm"),
        build=(("npm", "ci", "--no-audit", "--no-fund"),),
        run=("node", "client.js"),
    ),
    Program(
        language="go",
        library="amqp091-go",
        tools={"go": (1, 20)},
        packages=("golang",),
        build=(("go", "build", "-mod=readonly", "-o", "client", "."),),
        run=("./client",),
    ),
    Program(
        language="java",
        library="amqp-client",
        tools={"javac": (11,), "mvn": (3,)},
        packages=("default-jdk-headless", "maven"),
        build=(
            ("mvn", "-B", "-q", f"{MAVEN_DEPENDENCIES}:copy-dependencies", "-DoutputDirectory=lib"),
            ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "src/Client.java"),
        ),
        run=("java", "-cp", "lib/*:classes", "Client"),
    ),
    Program(
        language="ruby",
        library="bunny",
        tools={"ruby": (3,)},
        packages=("ruby", "ruby-bunny"),
        probe=("ruby", "-e", "require 'bunny'"),
        run=("ruby", "client.rb"),
    ),
    Program(
        language="rust",
        library="lapin",
        tools={"cargo": (1, 88)},
        packages=("cargo",),
        prepare=pin_crates,
        build=(("cargo", "build", "-q", "--locked"),),
        run=("target/debug/client",),
    ),
    Program(
        language="php",
        library="php-amqplib",
        tools={"php": (8,)},
        packages=("php-cli", "php-amqplib"),
        probe=("php", "-r", "require 'PhpAmqpLib/autoload.php';"),
        run=("php", "client.php"),
    ),
    Program(
        language="c",
        library="librabbitmq",
        tools={"cc": ()},
        packages=("gcc", "libc6-dev", "librabbitmq-dev"),
        probe=("cc", "-E", "-include", "amqp.h", "-x", "c", "/dev/null"),
        build=(("cc", "-std=gnu11", "-Wall", "-Wextra", "-o", "client", "client.c", "-lrabbitmq"),),
        run=("./client",),
    ),
]


@dataclass
class Result:
    """What a program told of a broker."""

    version: str = ""
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)  # step -> its outcome and the detail
    unavailable: str | None = None  # why it was not run
    trouble: str = ""  # why it stopped early


def run(program: Program, broker: Broker) -> Result:
    """Build a program where it can be, run it against a broker and collect what it tells."""
    if missing := program.missing():
        return Result(unavailable=f"{missing} (Debian: {' '.join(program.packages)})")
    result = Result()
    try:
        program.make()
    except (RuntimeError, subprocess.SubprocessError, StopIteration) as error:
        result.trouble = str(error)
        return result
    relay = Relay(broker)
    prefix = f"it.{program.language}.{uuid.uuid4().hex[:8]}"
    command = [*program.run, broker.url, prefix, str(relay.broker.port)]
    with (program.folder / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=program.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        limit = threading.Timer(RUN_LIMIT_S, process.kill)
        limit.start()
        try:
            _listen(process, relay, result)
            code = process.wait(RUN_LIMIT_S)
        finally:
            limit.cancel()
            process.kill()
            process.wait()
            relay.close()
        if code != 0:
            errors.seek(0)
            result.trouble = f"stopped with exit code {code}: {errors.read()[-2000:]}"
    return result


def _listen(process: subprocess.Popen[str], relay: Relay, result: Result) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    for text in process.stdout:
        try:
            line = json.loads(text)
        except ValueError:
            result.trouble += f"it wrote {text!r}; "
            continue
        if "ask" in line:
            relay.cut()
            process.stdin.write("done\n")
            process.stdin.flush()
        elif "client" in line:
            result.version = line["version"]
        else:
            result.outcomes[line["step"]] = (line["outcome"], line.get("detail", ""))


def build_all() -> None:
    """Build all that this machine can build, side by side, so that no test has to wait for it.

    What cannot be built is told by the tests of its program.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        for program in PROGRAMS:
            if not program.missing():
                pool.submit(program.make)


def packages_to_install() -> list[str]:
    """Name Debian's packages for the programs that this machine cannot run, and for the tools."""
    needed = {name for program in PROGRAMS if program.missing() for name in program.packages}
    return sorted(needed | (set() if shutil.which("amqp-get") else {"amqp-tools"}))
