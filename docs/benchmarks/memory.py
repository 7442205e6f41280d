"""What one of each takes in the memory of a running broker.

    python docs/benchmarks/memory.py --port 5672 --pid PID

Opens a thousand of each, has messages wait, and divides what the process has grown by.
A broker that has just begun gives the truest figures. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pamqp import base, body, commands, frame, header

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 1000
MESSAGES = 200_000
LONG_STEPS = 3  # times as many; beyond that a queue of persistent messages of 1 KiB takes no more memory
BATCH = 500  # messages sent at once
SETTLE_S = 1.0
GIVEN_BACK_S = 11.0  # after which the broker has given back what earlier messages took


class Connection:
    """A connection with a channel, as bare as can be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.reply()
        self.call(0, commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
        self.send(0, commands.Connection.TuneOk(2047, 131072, 0))
        self.call(0, commands.Connection.Open("/"))

    def send(self, channel: int, method: base.Frame) -> None:
        """Send a method."""
        self.socket.sendall(frame.marshal(method, channel))

    def call(self, channel: int, method: base.Frame) -> object:
        """Send a method and return what answers it."""
        self.send(channel, method)
        return self.reply()

    def reply(self) -> object:
        """Return the next method that came."""
        while True:
            size = 8 + int.from_bytes(self._data[3:7], "big")
            if len(self._data) >= size:
                method = frame.unmarshal(self._data[:size])[2]
                self._data = self._data[size:]
                return method
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._data += data


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory, once it is at rest."""
    time.sleep(SETTLE_S)
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


class Waiting:
    """A queue in which messages wait."""

    def __init__(self, connection: Connection, size: int, persistent: bool) -> None:
        self._connection = connection
        self._declare = commands.Queue.Declare(queue="memory.waiting", durable=persistent)
        connection.call(1, self._declare)
        properties = commands.Basic.Properties(delivery_mode=2 if persistent else 1)
        self._message = (
            frame.marshal(commands.Basic.Publish(routing_key="memory.waiting"), 1)
            + frame.marshal(header.ContentHeader(0, size, properties), 1)
            + frame.marshal(body.ContentBody(bytes(size)), 1)
        )

    def publish(self) -> None:
        """Have more messages wait."""
        for _ in range(MESSAGES // BATCH):
            self._connection.socket.sendall(self._message * BATCH)
        self._connection.call(1, self._declare)  # its reply comes when they are all in the queue

    def delete(self) -> None:
        """Delete them, and wait until their memory is given back."""
        self._connection.call(1, commands.Queue.Delete(queue="memory.waiting"))
        time.sleep(GIVEN_BACK_S)


def measure_messages(connection: Connection, pid: int, size: int, persistent: bool) -> None:
    """Have messages wait, and delete them."""
    waiting = Waiting(connection, size, persistent)
    before = resident_bytes(pid)
    waiting.publish()
    taken = (resident_bytes(pid) - before) // MESSAGES
    kind = "persistent" if persistent else "transient"
    print(f"message of {size} bytes, {kind}: {taken} bytes", flush=True)
    waiting.delete()


def measure_long_queue(connection: Connection, pid: int) -> None:
    """Have so many persistent messages wait that most are on disk only, and then as many again.

    What is resident goes up and down while they come, so the most that was seen counts.
    """
    waiting = Waiting(connection, 1024, persistent=True)
    count = LONG_STEPS * MESSAGES
    most = []
    for _ in range(2):
        seen = []
        for _ in range(LONG_STEPS):
            waiting.publish()
            seen.append(resident_bytes(pid))
        most.append(max(seen))
    taken = (most[1] - most[0]) / count
    print(
        f"message of 1024 bytes, persistent, behind {count:,}: {taken:.1f} bytes;"
        f" {2 * count:,} of them: {most[1] / 1e6:.0f} MB in all",
        flush=True,
    )
    waiting.delete()


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--messages", action="store_true", help="waiting messages, too; takes a minute")
    options = parser.parse_args()
    pid = options.pid
    connection = Connection(options.port)
    connection.call(1, commands.Channel.Open())
    connection.call(1, commands.Exchange.Declare(exchange="memory.direct", exchange_type="direct"))
    connection.call(1, commands.Queue.Declare(queue="memory.bound"))

    def measure(what: str, make: Callable[[int], object]) -> None:
        before = resident_bytes(pid)
        for number in range(COUNT):
            make(number)
        print(f"{what}: {(resident_bytes(pid) - before) // COUNT} bytes", flush=True)

    connections: list[Connection] = []
    measure("connection", lambda _: connections.append(Connection(options.port)))
    measure("channel", lambda n: connection.call(2 + n, commands.Channel.Open()))
    measure(
        "queue", lambda n: connection.call(1, commands.Queue.Declare(queue=f"memory.{n}", exclusive=True))
    )
    measure(
        "binding",
        lambda n: connection.call(
            1, commands.Queue.Bind(queue="memory.bound", exchange="memory.direct", routing_key=f"key.{n}")
        ),
    )
    measure(
        "consumer",
        lambda n: connection.call(
            2 + n, commands.Basic.Consume(queue=f"memory.{n}", consumer_tag=f"tag.{n}")
        ),
    )
    if options.messages:  # last: what they leave free would be used again by the others
        for size in (16, 100, 1024):
            measure_messages(connection, pid, size, False)
            measure_messages(connection, pid, size, True)
        measure_long_queue(connection, pid)
    connection.call(1, commands.Queue.Delete(queue="memory.bound"))
    connection.call(1, commands.Exchange.Delete(exchange="memory.direct"))


if __name__ == "__main__":
    main()
