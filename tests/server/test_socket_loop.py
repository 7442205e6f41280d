"""Real sockets: partial writes, slow readers, floods, broken connections, and the broker as a process."""

from __future__ import annotations

import json
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from pamqp import commands

from leveret.broker.config import Settings
from leveret.broker.server.clock import steady_wall_clock
from leveret.broker.server.committer import Committer
from leveret.broker.server.loop import PIECES_MAX, SocketLoop, Waker
from leveret.broker.server.node import Node
from leveret.broker.server.run import listen
from leveret.storage.memory import MemoryStore

from ..peer import Content, Event, Method, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENCE_S = 20  # for anything that should take milliseconds
QOS = Peer.send(1, commands.Basic.Qos)


class Server:
    """A broker without disk on a real socket, in this process."""

    def __init__(self, **settings: object) -> None:
        self.settings = Settings(memory=True, **settings)  # type: ignore[arg-type]  # any of its fields
        self.listeners = listen("127.0.0.1", 0)
        self.port: int = self.listeners[0].getsockname()[1]
        self.waker = Waker()
        store = MemoryStore()
        self.committer = Committer(store, self.waker.wake)
        self.node = Node(self.settings, self.committer, store.load(), steady_wall_clock, str)
        self.loop = SocketLoop(self.node, self.listeners, self.waker)
        self.wires: list[Wire] = []  # of clients; closed at the end

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        """Serve in a thread; close everything at the end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, self.loop.run)
                try:
                    yield nursery
                finally:
                    self.loop.stop()
        finally:
            self.close()

    def close(self) -> None:
        for wire in self.wires:
            wire.stream.socket.close()
        self.loop.close()
        self.committer.close()
        self.waker.close()

    async def until_left(self, sessions: int) -> None:
        """Wait until only so many sessions are left."""
        while len(self.node.sessions) != sessions:  # noqa: ASYNC110  # only the loop could set an event
            await trio.sleep(0.001)


class Wire:
    """A client on a socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.peer = Peer()
        self.events: list[Event] = []
        self.is_ended = False

    async def send(self, *data: bytes) -> None:
        await self.stream.send_all(b"".join(data))

    async def next(self) -> Event | None:
        """Return what comes next; None at the end of the connection."""
        while not self.events:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.is_ended = True
                return None
            self.events += self.peer.receive(data)
        return self.events.pop(0)

    async def expect(self, *names: str) -> Method:
        """Return the last of the methods that must come now."""
        for name in names:
            event = await self.next()
            assert isinstance(event, Method), f"{event} instead of {name}"
            assert event.name == name
        assert isinstance(event, Method)
        return event

    async def log_in(self, *channels: int) -> None:
        await self.send(self.peer.handshake(*channels))
        await self.expect("Connection.Start", "Connection.Tune", "Connection.OpenOk")
        await self.expect(*["Channel.OpenOk"] * len(channels))


@contextmanager
def patience() -> Iterator[None]:
    with trio.fail_after(PATIENCE_S):
        yield


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with made.running():
        yield made


async def connect(server: Server, *channels: int) -> Wire:
    """Connect, and log in if channels are named."""
    wire = Wire(await trio.open_tcp_stream("127.0.0.1", server.port))
    server.wires.append(wire)
    if channels:
        await wire.log_in(*channels)
    return wire


async def slow_reader(server: Server) -> Wire:
    """Connect with a receive buffer that is full at once."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", server.port))
    wire = Wire(trio.SocketStream(sock))
    server.wires.append(wire)
    await wire.log_in(1)
    return wire


# writing


async def test_a_large_message_arrives_in_as_many_writes_as_it_takes(server: Server) -> None:
    with patience():
        wire = await slow_reader(server)
        body = bytes(range(256)) * 20_000
        await wire.send(Peer.send(1, commands.Queue.Declare, queue="q"), wire.peer.publish(1, "", "q", body))
        await wire.send(Peer.send(1, commands.Basic.Get, queue="q", no_ack=True))
        message = await wire.expect("Queue.DeclareOk", "Basic.GetOk")
        assert isinstance(message, Content)
        assert message.body == body


async def test_small_and_large_output_keeps_its_order_over_partial_writes(server: Server) -> None:
    with patience():
        wire = await slow_reader(server)
        bodies = [bytes([number]) * (600_000 if number % 3 else 10) for number in range(12)]
        await wire.send(Peer.send(1, commands.Queue.Declare, queue="q"))
        await wire.expect("Queue.DeclareOk")
        for body in bodies:
            await wire.send(wire.peer.publish(1, "", "q", body))
        get = Peer.send(1, commands.Basic.Get, queue="q", no_ack=True)
        await wire.send(*[get + QOS] * len(bodies))
        for body in bodies:
            message = await wire.next()
            assert isinstance(message, Content)
            assert message.body == body
            await wire.expect("Basic.QosOk")


async def test_more_large_pieces_than_one_call_takes_are_all_written() -> None:
    server = Server(write_buffer_bytes=64 * 1024 * 1024)
    bodies = [bytes([number % 256]) * 40_000 for number in range(PIECES_MAX // 4 + 50)]  # 4 pieces each
    async with server.running():
        with patience():
            wire = await connect(server, 1)
            await wire.send(Peer.send(1, commands.Queue.Declare, queue="q"))
            for body in bodies:
                await wire.send(wire.peer.publish(1, "", "q", body))
            await wire.send(Peer.send(1, commands.Basic.Consume, queue="q", no_ack=True))
            await wire.expect("Queue.DeclareOk", "Basic.ConsumeOk")
            for body in bodies:
                message = await wire.expect("Basic.Deliver")
                assert isinstance(message, Content)
                assert message.body == body


async def test_a_client_that_does_not_read_holds_up_nobody_and_keeps_its_place(server: Server) -> None:
    with patience():
        slow = await slow_reader(server)
        fast = await connect(server, 1)
        bodies = [str(n).encode() + bytes(100_000) for n in range(100)]
        await fast.send(Peer.send(1, commands.Queue.Declare, queue="q"))
        await fast.expect("Queue.DeclareOk")
        await slow.send(Peer.send(1, commands.Basic.Consume, queue="q", consumer_tag="t", no_ack=True))
        for body in bodies:
            await fast.send(fast.peer.publish(1, "", "q", body), QOS)
            await fast.expect("Basic.QosOk")
        await fast.send(Peer.send(1, commands.Queue.Declare, queue="q", passive=True))
        declared = (await fast.expect("Queue.DeclareOk")).method
        assert isinstance(declared, commands.Queue.DeclareOk)
        assert declared.message_count  # the rest waits in the queue, not in the buffer of one client
        await slow.expect("Basic.ConsumeOk")
        for body in bodies:
            delivery = await slow.expect("Basic.Deliver")
            assert isinstance(delivery, Content)
            assert delivery.body == body


async def test_a_client_that_reads_no_replies_is_not_asked_for_more() -> None:
    server = Server(write_buffer_bytes=65536)
    gets = 100
    async with server.running() as nursery:
        with patience():
            wire = await slow_reader(server)
            body = bytes(100_000)
            await wire.send(Peer.send(1, commands.Queue.Declare, queue="q"))
            await wire.expect("Queue.DeclareOk")
            await wire.send(wire.peer.publish(1, "", "q", body))
            requests = Peer.send(1, commands.Basic.Get, queue="q") + Peer.send(
                1, commands.Basic.Recover, requeue=True
            )
            nursery.start_soon(wire.send, requests * gets)
            other = await connect(server, 1)
            for _ in range(20):
                await other.send(QOS)
                await other.expect("Basic.QosOk")
            # The other one's last reply may have come before the server's thread has noted that it left.
            assert 0 < max(session.outbox.size for session in list(server.node.sessions)) < 1_000_000
            for _ in range(gets):
                await wire.expect("Basic.GetOk", "Basic.RecoverOk")


# time


async def test_what_is_due_is_done_though_no_client_does_anything(server: Server) -> None:
    dying = {"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    with patience():
        wire = await connect(server, 1)
        await wire.send(
            Peer.send(1, commands.Queue.Declare, queue="dead"),
            Peer.send(1, commands.Queue.Declare, queue="q", arguments=dying),
            Peer.send(1, commands.Basic.Consume, queue="dead", no_ack=True),
            wire.peer.publish(1, "", "q", b"late"),
        )
        await wire.expect("Queue.DeclareOk", "Queue.DeclareOk", "Basic.ConsumeOk", "Basic.Deliver")


# many connections


async def test_hundreds_of_connections_are_served_at_once(server: Server) -> None:
    with patience():
        wires = [await connect(server, 1) for _ in range(300)]
        for wire in wires:
            await wire.send(QOS)
        for wire in wires:
            await wire.expect("Basic.QosOk")
        for wire in wires:
            await wire.stream.aclose()
        await server.until_left(0)


async def test_one_more_than_the_strangers_allowed_is_closed_at_once(server: Server) -> None:
    with patience():
        friend = await connect(server, 1)
        strangers = [await connect(server) for _ in range(64)]
        refused = await connect(server)
        assert await refused.next() is None
        await strangers[0].stream.aclose()
        await server.until_left(64)
        await connect(server, 1)
        await friend.send(QOS)
        await friend.expect("Basic.QosOk")


async def test_a_flood_of_publishes_leaves_others_their_turn(server: Server) -> None:
    with patience():
        flooder = await connect(server, 1)
        other = await connect(server, 1)
        flood = flooder.peer.publish(1, "", "nowhere", b"x" * 100) * 20_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flooder.send, flood * 5)
            for _ in range(100):
                await other.send(QOS)
                await other.expect("Basic.QosOk")
            nursery.cancel_scope.cancel()


# connections that break

STAGES = [
    b"",
    b"AMQP",
    Peer.header(),
    Peer.header() + Peer().start_ok()[:20],
    Peer.header() + Peer().start_ok(),
    Peer.header() + Peer().start_ok() + Peer().tune_ok(),
    Peer().handshake(),
    Peer().handshake(1),
    Peer().handshake(1) + Peer().publish(1, "", "q", b"abc")[:-5],
]


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("said", STAGES, ids=range(len(STAGES)))
async def test_a_connection_may_break_at_any_stage(server: Server, said: bytes, is_reset: bool) -> None:
    with patience():
        wire = await connect(server)
        await wire.send(said)
        if is_reset:
            wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await wire.stream.aclose()
        await server.until_left(0)
        await connect(server, 1)


async def test_a_client_may_stop_sending_before_it_stops_reading(server: Server) -> None:
    with patience():
        wire = await connect(server, 1)
        await wire.send(
            Peer.send(1, commands.Queue.Declare, queue="q"), wire.peer.publish(1, "", "q", b"last")
        )
        await wire.send(Peer.send(0, commands.Connection.Close))
        await wire.stream.send_eof()
        await wire.expect("Queue.DeclareOk", "Connection.CloseOk")
        assert await wire.next() is None
        other = await connect(server, 1)
        await other.send(Peer.send(1, commands.Basic.Get, queue="q"))
        await other.expect("Basic.GetOk")


async def test_a_refused_client_reads_why_before_the_end(server: Server) -> None:
    with patience():
        wire = await connect(server)
        await wire.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100_000)
        event = await wire.next()
        assert event is not None
        assert await wire.next() is None


async def test_a_close_reaches_a_client_that_is_still_sending(server: Server) -> None:
    with patience():
        wire = await connect(server, 1)
        await wire.send(Peer.frame(5, 1, b"abc"), wire.peer.publish(1, "", "nowhere", b"x" * 1_000_000))
        await wire.expect("Connection.Close")
        await wire.send(Peer.send(0, commands.Connection.CloseOk))
        assert await wire.next() is None
        await wire.stream.aclose()
        await server.until_left(0)


async def test_without_free_descriptors_clients_wait_until_there_are_some(server: Server) -> None:
    with patience():
        first = await connect(server, 1)
        waiting = trio.socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            # No descriptor beyond those in use: the loop is in this process, and so are the clients.
            resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
            await waiting.connect(("127.0.0.1", server.port))
            late = Wire(trio.SocketStream(waiting))
            server.wires.append(late)
            await late.send(late.peer.handshake())
            await first.send(QOS)
            await first.expect("Basic.QosOk")
            assert len(server.node.sessions) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await first.stream.aclose()
        await late.expect("Connection.Start", "Connection.Tune", "Connection.OpenOk")


# the process


class Process:
    """`leveret serve` as a user runs it."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "leveret", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self.port = 0
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "amqp://" in line:
                self.port = int(line.rpartition(":")[2])
            if "Server startup complete" in line:
                break
        self._has_more = threading.Condition()
        self._rest = threading.Thread(target=self._read_rest)
        self._rest.start()

    def _read_rest(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._has_more:
                self.lines.append(line)
                self._has_more.notify()

    def line_with(self, text: str) -> str:
        """Return the line that has this text; wait for it."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in self.lines if text in line]
            return bool(found)

        with self._has_more:
            assert self._has_more.wait_for(look, PATIENCE_S), f"no line has {text!r}: {self.lines}"
        return found[0]

    def wait(self) -> int:
        """Return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._rest.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    made = Process(tmp_path_factory.mktemp("serve"))
    yield made
    made.end()


def start_in(process: Process, *options: str) -> subprocess.CompletedProcess[str]:
    """Try to start another broker in the folder of a running one."""
    command = [sys.executable, "-m", "leveret", "serve", *options]
    folder = Path(f"/proc/{process.process.pid}/cwd").resolve()
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_a_second_broker_on_the_same_data_is_refused(process: Process) -> None:
    second = start_in(process, "--port", "0")
    assert second.returncode == 75
    assert second.stderr.startswith("leveret: ")
    assert f"pid {process.process.pid}" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_taken_port_is_one_line(process: Process) -> None:
    second = start_in(process, "--port", str(process.port), "--memory")
    assert second.returncode == 1
    assert second.stderr.startswith(f"leveret: port {process.port} ")
    assert second.stderr.count("\n") == 1


def test_sighup_changes_how_to_log_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    process = Process(tmp_path, "--memory")
    (tmp_path / "leveret.toml").write_text('[log]\nformat = "json"\n[amqp]\nheartbeat_s = 5\n')
    process.process.send_signal(signal.SIGHUP)
    reloaded = process.line_with("configuration reloaded")
    assert json.loads(reloaded)["need_a_restart"] == "heartbeat_s"
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_a_broken_configuration_at_sighup_changes_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path, "--memory")
    (tmp_path / "leveret.toml").write_text("prot = 5\n")
    process.process.send_signal(signal.SIGHUP)
    process.line_with("configuration not reloaded")
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


async def test_a_stop_is_told_to_clients_and_ends_with_0(process: Process) -> None:
    with patience():
        running = Wire(await trio.open_tcp_stream("127.0.0.1", process.port))
        await running.log_in(1)
        stranger = Wire(await trio.open_tcp_stream("127.0.0.1", process.port))
        await stranger.send(Peer.header())
        await stranger.expect("Connection.Start")
        process.process.send_signal(signal.SIGTERM)
        close = await running.expect("Connection.Close")
        assert close.error == (
            320,
            "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
            (0, 0),
        )
        await running.send(Peer.send(0, commands.Connection.CloseOk))
        assert await running.next() is None
        await running.stream.aclose()
        assert await stranger.next() is None
        await stranger.stream.aclose()
        assert await trio.to_thread.run_sync(process.wait) == 0
        assert "Traceback" not in "".join(process.lines)
