"""Fixtures of the interop suite, which runs unchanged against any AMQP 0-9-1 broker.

    pytest interop-tests --broker amqp://guest:guest@127.0.0.1:5672/

The broker may be shared with others: every name is unique, and what a test made is deleted after it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the modules beside this one; pytest's importlib mode does not add it

from brokers import DEFAULT_URL, Broker, Connect, Names  # noqa: E402
from cuttable import Relay  # noqa: E402
from wire import Peer  # noqa: E402

TIME_LIMIT_S = 30
CLEAN_UP_LIMIT_S = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --broker."""
    parser.addoption(
        "--broker",
        default=os.environ.get("INTEROP_BROKER_URL", DEFAULT_URL),
        metavar="URL",
        help="AMQP URL of the broker under test (or INTEROP_BROKER_URL; default: %(default)s)",
    )

    parser.addoption(
        "--ctl",
        default=os.environ.get("INTEROP_CTL"),
        metavar="COMMAND",
        help="rabbitmqctl or the like, for that broker (or INTEROP_CTL); without it some tests are skipped",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of the time limit, and let warnings inside the clients be warnings.

    The project's own tests turn them into errors, and this run shares their settings.
    """
    config.addinivalue_line(
        "markers", f"time_limit(seconds): a test that hangs fails after this long ({TIME_LIMIT_S} by default)"
    )
    config.addinivalue_line("filterwarnings", "default")  # while a test runs
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
    warnings.simplefilter("default")  # between tests and at the end
    warnings.simplefilter("ignore", ResourceWarning)


class Hanging(BaseException):
    """Raised in the main thread when the time limit is over.

    A BaseException, so that no client library swallows it as one of its own failures.
    """


def _time_limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("time_limit")
    return float(marker.args[0]) if marker else TIME_LIMIT_S


def _limited(phase: str, seconds: float) -> Generator[None, object, object]:
    def give_up(signum: int, frame: object) -> None:
        raise Hanging(f"{phase} took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    except Hanging as hang:
        raise AssertionError(str(hang)) from hang
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Limit the time of the fixtures."""
    return (yield from _limited("setup", _time_limit_s(item)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Limit the time of the test."""
    return (yield from _limited("test", _time_limit_s(item)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Limit the time of the clean-up."""
    return (yield from _limited("clean-up", CLEAN_UP_LIMIT_S))


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    """The broker under test; the run ends at once when nobody listens there."""
    address = Broker.from_url(request.config.getoption("--broker"))
    try:
        socket.create_connection((address.host, address.port), timeout=5).close()
    except OSError as error:
        pytest.exit(f"no broker at {address.host}:{address.port}: {error}", returncode=2)
    return address


class Ctl:
    """Administers the broker under test with rabbitmqctl's verbs, and cleans up."""

    def __init__(self, command: str) -> None:
        self._command = command.split()
        self._undo: list[tuple[str, ...]] = []

    def run(self, *line: str) -> tuple[int, str, str]:
        """Run a verb; exit code, output, errors."""
        done = subprocess.run([*self._command, *line], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def ok(self, *line: str) -> str:
        """Run a verb that must succeed; what it prints but for banners."""
        code, out, err = self.run("-q", *line)
        assert code == 0, err
        return out

    def add_user(self, configure: str = "", write: str = "", read: str = "") -> tuple[str, str]:
        """Make a user with permissions in the vhost "/"; name and password."""
        name, password = Names.text("it.u"), Names.text("it.pw")
        self.ok("add_user", name, password)
        self._undo.append(("delete_user", name))
        self.ok("set_permissions", name, configure, write, read)
        return name, password

    def add_vhost(self) -> str:
        """Make a vhost that guest may do everything in; its name."""
        name = Names.text("it.v")
        self.ok("add_vhost", name)
        self._undo.append(("delete_vhost", name))
        self.ok("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return name

    def later(self, *line: str) -> None:
        """Run a verb after the test."""
        self._undo.append(line)

    def clean_up(self) -> None:
        """Undo what was made."""
        for line in reversed(self._undo):
            self.run(*line)


@pytest.fixture
def ctl(request: pytest.FixtureRequest) -> Iterator[Ctl]:
    """rabbitmqctl, or what is like it."""
    command = request.config.getoption("--ctl")
    if command is None:
        pytest.skip("no --ctl for this broker")
    found = Ctl(command)
    yield found
    found.clean_up()


class Janitor:
    """Deletes what tests left behind, over a connection of its own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    def delete(self, names: Names) -> None:
        """Delete all queues and exchanges of these names that still exist."""
        for queue in names.queues:
            self._try(BlockingChannel.queue_delete, queue)
        for exchange in names.exchanges:
            self._try(BlockingChannel.exchange_delete, exchange)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _try(self, delete: Callable[[BlockingChannel, str], object], name: str) -> None:
        with contextlib.suppress(AMQPError):  # exclusive to a connection on its way out, with which it goes
            delete(self._open_channel(), name)

    def _open_channel(self) -> BlockingChannel:
        if self._connection is None or self._connection.is_closed:
            self._connection = pika.BlockingConnection(self._broker.pika_parameters(heartbeat=0))
        if self._channel is None or self._channel.is_closed:
            self._channel = self._connection.channel()
        return self._channel


@pytest.fixture(scope="session")
def janitor(broker: Broker) -> Iterator[Janitor]:
    """The clean-up of the whole run."""
    janitor = Janitor(broker)
    yield janitor
    janitor.close()


@pytest.fixture
def names(janitor: Janitor) -> Iterator[Names]:
    """Unique names; queues and exchanges that got one are deleted after the test."""
    names = Names()
    yield names
    janitor.delete(names)


@pytest.fixture
def connect(broker: Broker, names: Names) -> Iterator[Connect]:
    """A function that opens connections; those still open are closed after the test."""
    opened: list[pika.BlockingConnection] = []

    def connect(**changes: Any) -> pika.BlockingConnection:
        opened.append(pika.BlockingConnection(broker.pika_parameters(**changes)))
        return opened[-1]

    yield connect
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect: Connect) -> pika.BlockingConnection:
    """A connection."""
    return connect()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel on `connection`."""
    return connection.channel()


@pytest.fixture
def second_channel(connection: pika.BlockingConnection) -> BlockingChannel:
    """Another channel on the same connection."""
    return connection.channel()


@pytest.fixture
def confirming(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel in confirm mode on the same connection: publishing waits for the broker's answer."""
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


@pytest.fixture
def other_connection(connect: Connect) -> pika.BlockingConnection:
    """A second connection."""
    return connect()


@pytest.fixture
def other_channel(other_connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel on the second connection."""
    return other_connection.channel()


@pytest.fixture
def queue(names: Names, channel: BlockingChannel) -> str:
    """The name of an empty queue without any arguments."""
    name = names.queue()
    channel.queue_declare(name)
    return name


@pytest.fixture
def peer(broker: Broker, names: Names) -> Iterator[Peer]:
    """A raw AMQP connection, logged in, with channel 1 open."""
    peer = Peer(broker)
    peer.login()
    peer.open_channel(1)
    yield peer
    peer.disconnect()


@pytest.fixture
def relay(broker: Broker) -> Iterator[Relay]:
    """A relay in front of the broker; `relay.broker` is its address."""
    relay = Relay(broker)
    yield relay
    relay.close()


@pytest.fixture
def stranger(broker: Broker) -> Iterator[Peer]:
    """A raw TCP connection to the broker on which nothing was said yet."""
    peer = Peer(broker)
    yield peer
    peer.disconnect()
