"""Prints what each stage of a message's way costs, beside what the machine itself takes.

Run it from the repository: `.venv/bin/python -m tests.guard.stages`.

Every figure is microseconds a message, the least of several rounds of `RUN` messages, in one thread and
without sockets between the stages, but where something is passed on or answered: there the clients are
another process, and its time does not count. Which form runs, interpreted or compiled, is whichever is on
the path.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp import commands

from leveret.broker.version import is_compiled
from leveret.protocol.connection import FrameReader
from leveret.protocol.properties import NO_PROPERTIES
from leveret.storage.batch import Batch
from leveret.storage.changes import QueueDeclared
from leveret.storage.direct_io import DirectIoError, DirectWriter
from leveret.storage.records import encode_batch
from leveret.storage.redo_log import NAME_BYTES, RedoLog
from leveret.storage.sqlite import SqliteStore

from ..storage.engines import Content
from .loops import NO_ARGUMENTS, PERSISTENT, NoDisk, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leveret.broker.server.session import Session

RUN: Final = 2000  # messages
ROUNDS: Final = 9
READ_BYTES: Final = 65536  # what one `recv` brings
SYNCS: Final = 50
ANSWERS: Final = 3000
PASSED_ON: Final = 20_000
PAGES_BYTES: Final = 16384  # that a commit of one small row writes


class Kind(NamedTuple):
    """A kind of message."""

    title: str
    body_bytes: int
    persistent: bool


KINDS: Final = (Kind("16 bytes, transient", 16, False), Kind("1 KiB, persistent, confirmed", 1024, True))


def main() -> None:
    """Print a table for each kind of message."""
    print(f"{'compiled' if is_compiled() else 'interpreted'}, microseconds a message")
    for kind in KINDS:
        print(f"\n{kind.title}")
        for name, cost in stages(kind):
            print(f"  {cost:8.3f}  {name}")


def stages(kind: Kind) -> Iterator[tuple[str, float]]:
    """Yield what each stage costs."""
    properties = PERSISTENT if kind.persistent else NO_PROPERTIES
    server = Server()
    bodies = [os.urandom(kind.body_bytes) for _ in range(RUN)]
    data = b"".join(server.peer.publish(1, "", "q", body, properties) for body in bodies)
    reads = [data[start : start + READ_BYTES] for start in range(0, len(data), READ_BYTES)]
    yield "machine: copy the bytes once", least(lambda: timed(bytearray, data))
    yield "machine: send and receive them over loopback", over_loopback(data)
    if not kind.persistent:
        yield "machine: pass a request and its reply on, one at a time", passed_on()
    parsing = least(lambda: parse(reads))
    yield "parse", parsing
    yield "route and enqueue", least(lambda: enqueue(kind, reads)) - parsing
    yield "deliver without acks", least(lambda: deliver(kind, reads, no_ack=True)[0])
    yield "deliver, and keep for the ack", least(lambda: deliver(kind, reads, no_ack=False)[0])
    yield "join the output", least(lambda: deliver(kind, reads, no_ack=True)[1])
    yield "an ack", least(lambda: settle(kind, reads))
    if kind.persistent:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
            yield from storing(Path(directory), bodies, properties, data)


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes, in seconds."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def least(measure: Callable[[], float]) -> float:
    """Return the least of several measurements, in microseconds a message."""
    return min(measure() for _ in range(ROUNDS)) / RUN * 1e6


def over_loopback(data: bytes) -> float:
    """Send the bytes in pieces of a `recv` and read each before the next."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()

        def send() -> None:
            for start in range(0, len(data), READ_BYTES):
                left = sender.send(data[start : start + READ_BYTES])
                while left:
                    left -= len(receiver.recv(READ_BYTES))

        with sender, receiver:
            return least(lambda: timed(send))


def parse(reads: list[bytes]) -> float:
    """Make events of the bytes."""
    reader = FrameReader(1 << 27)
    reader.frame_max = 131072
    reader.is_running = True
    reader.open_channel(1)

    def take() -> None:
        for data in reads:
            reader.receive_data(data)
            while reader.next_event() is not None:
                pass

    return timed(take)


def prepared(kind: Kind) -> tuple[Server, Session]:
    """Return a broker with a queue, and a connection that publishes."""
    server = Server()
    publisher = server.connect()
    server.call(publisher, commands.Queue.Declare, queue="q", durable=kind.persistent)
    if kind.persistent:
        server.call(publisher, commands.Confirm.Select)
    return server, publisher


def receive(server: Server, session: Session, reads: list[bytes]) -> float:
    """Have the bytes arrive in one turn, which does not end yet."""
    server.node.begin_turn()
    began = time.perf_counter()
    for data in reads:
        session.receive(data)
    return time.perf_counter() - began


def enqueue(kind: Kind, reads: list[bytes]) -> float:
    """Parse, route and enqueue."""
    server, publisher = prepared(kind)
    return receive(server, publisher, reads)


def delivered(kind: Kind, reads: list[bytes], *, no_ack: bool) -> tuple[Server, Session, float]:
    """Return a broker that has delivered all, its consumer, and how long delivering took."""
    server, publisher = prepared(kind)
    consumer = server.consumer("q", no_ack=no_ack)
    receive(server, publisher, reads)
    return server, consumer, timed(server.node.end_turn)


def deliver(kind: Kind, reads: list[bytes], *, no_ack: bool) -> tuple[float, float]:
    """Return how long delivering takes, and joining what is to be written."""
    _, consumer, seconds = delivered(kind, reads, no_ack=no_ack)
    return seconds, timed(consumer.outbox.take)


def settle(kind: Kind, reads: list[bytes]) -> float:
    """Take an ack of each delivery."""
    server, consumer, _ = delivered(kind, reads, no_ack=False)
    consumer.outbox.take()
    return receive(server, consumer, [server.acks(0, RUN)])


def storing(
    directory: Path, bodies: list[bytes], properties: bytes, data: bytes
) -> Iterator[tuple[str, float]]:
    """Yield what the store costs, CPU time, and the disk beside it, elapsed time."""
    descriptor = os.open(directory / "bytes", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, data, 0)
    syncs = []
    for start in range(SYNCS):
        os.pwrite(descriptor, data[:1024], start * 1024)
        syncs.append(timed(os.fdatasync, descriptor))
    os.close(descriptor)
    yield "machine: one fdatasync of 1 KiB, whole", min(syncs) * 1e6
    cost = answered_by_a_thread(directory / "pages")
    yield "machine: an answer that waits until a thread has synced 16 KiB", cost
    with suppress(DirectIoError):
        cost = answered_directly(directory / "record")
        yield "machine: an answer that waits until the kernel has written 1 KiB", cost
    yield "record a batch of one message", recorded(Content(bodies[0], properties=properties))
    with closing(SqliteStore(directory / "stages.db", describe=lambda _: None)) as store:
        store.load()
        batch = Batch(1)
        batch.definitions.append(QueueDeclared(1, "/", "q", False, NO_ARGUMENTS))
        store.apply(batch)
        messages = [Content(body, properties=properties) for body in bodies]
        writes, reading, removals = [], [], []
        for _ in range(ROUNDS):
            batch = Batch(2)
            batch.enqueue(1, 1, list(messages))
            writes.append(cpu_time(store.apply, batch))
            reading.append(cpu_time(store.read, 1, 0, RUN, RUN, len(data)))
            batch = Batch(3)
            for position, body in enumerate(bodies, 1):
                batch.settle(1, position, len(body))
            removals.append(cpu_time(store.apply, batch))
        yield "write a row, with the commit of 2,000", min(writes) / RUN * 1e6
        yield "read a row back", min(reading) / RUN * 1e6
        yield "remove a row", min(removals) / RUN * 1e6


def recorded(message: Content) -> float:
    """Return the CPU time of a record with a message, the one before settled, and of merging it."""
    log = RedoLog(Path("none"), bytes(NAME_BYTES), NoDisk())

    def run() -> None:
        behind = Batch(1)
        for number in range(2, RUN):
            batch = Batch(number)
            batch.enqueue(1, number, [message])
            batch.settle(1, number - 1, message.body_bytes)
            assert log.record(encode_batch(batch))
            assert log.finish()
            behind.absorb(batch)
            log.forget(log.last)

    return least(lambda: cpu_time(run))


def passed_on() -> float:
    """Return the CPU time of passing a request on to another connection, and the reply back.

    It is what a broker cannot go below that carries one request at a time: two wake-ups, two messages in and
    two out.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as poll:
        client = multiprocessing.get_context("spawn").Process(
            target=request, args=(listener.getsockname()[1], PASSED_ON)
        )
        client.start()
        peers = [listener.accept()[0] for _ in range(2)]
        other = {}
        for peer in peers:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(peer, select.EPOLLIN)
            other[peer.fileno()] = (peer, peers[0] if peer is peers[1] else peers[1])
        began = time.process_time()
        left = 2 * PASSED_ON
        while left:
            for ready, _ in poll.poll():
                peer, receiver = other[ready]
                receiver.send(peer.recv(READ_BYTES))
                left -= 1
        seconds = time.process_time() - began
        for peer in peers:
            peer.close()
        client.join()
    return seconds / PASSED_ON * 1e6


def request(port: int, count: int) -> None:
    """Send a request on one connection, take and answer it on another, take the answer, and so on."""
    with (
        socket.create_connection(("127.0.0.1", port)) as asking,
        socket.create_connection(("127.0.0.1", port)) as answering,
    ):
        for connection in (asking, answering):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            asking.send(bytes(64))
            answering.send(answering.recv(READ_BYTES))
            asking.recv(READ_BYTES)


def answered_by_a_thread(file: Path) -> float:
    """Return the CPU time of an answer to each request, sent when another thread has written and synced.

    It is what a broker cannot go below that confirms one message at a time with a thread that waits for the
    disk, whatever its language: two wake-ups, a write, a sync.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, bytes(2 * PAGES_BYTES), 0)
    os.fsync(descriptor)
    waker = os.eventfd(0)
    requests: SimpleQueue[bool] = SimpleQueue()

    def write() -> None:
        page = os.urandom(PAGES_BYTES)
        while requests.get():
            os.pwrite(descriptor, page, 0)
            os.fdatasync(descriptor)
            os.eventfd_write(waker, 1)

    writer = threading.Thread(target=write)
    writer.start()
    cost = answered(lambda: requests.put(True), lambda: True, waker)
    requests.put(False)
    writer.join()
    os.close(waker)
    os.close(descriptor)
    return cost


def answered_directly(file: Path) -> float:
    """Return the same where the kernel writes 1 KiB by itself: what confirms by the redo log cannot go below.

    Raises:
        DirectIoError: there is no such thing here.
    """
    file.write_bytes(bytes(PAGES_BYTES))
    waker = os.eventfd(0)
    writer = DirectWriter(file, PAGES_BYTES, waker)
    record = os.urandom(1024)
    cost = answered(lambda: writer.write(record, 0), writer.finish, waker)
    writer.close()
    os.close(waker)
    return cost


def answered(begin: Callable[[], None], is_done: Callable[[], bool], waker: int) -> float:
    """Return the CPU time of an answer to each request, sent when something has been done for it.

    Args:
        begin: begins to do it.
        is_done: whether it is done; asked after `waker` was added to.
        waker: an eventfd.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as poll:
        client = multiprocessing.get_context("spawn").Process(
            target=ask, args=(listener.getsockname()[1], ANSWERS)
        )
        client.start()
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(peer, select.EPOLLIN)
            poll.register(waker, select.EPOLLIN)
            began = time.process_time()
            left = ANSWERS
            while left:
                for ready, _ in poll.poll():
                    if ready == waker:
                        os.eventfd_read(waker)
                        if is_done():
                            peer.send(b"confirm")
                            left -= 1
                    elif peer.recv(READ_BYTES):
                        begin()
            seconds = time.process_time() - began
        client.join()
    return seconds / ANSWERS * 1e6


def ask(port: int, count: int) -> None:
    """Send a request, wait for the answer, and so on."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            connection.send(bytes(1024))
            connection.recv(READ_BYTES)


def cpu_time(call: Callable[..., object], *arguments: object) -> float:
    """Return the CPU seconds that a call takes, of all threads."""
    began = time.process_time()
    call(*arguments)
    return time.process_time() - began


if __name__ == "__main__":
    main()
