"""The clients of the crash test write down what is true, or the checker would see faults that are none."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from pamqp import commands

from .checker import check
from .client import Refused
from .history import History
from .topology import Topology
from .workload import Administrator, Shared

if TYPE_CHECKING:
    from pamqp.base import Frame


class FakeConnection:
    """A broker without durable storage: it knows its queues, and every binding is there."""

    frame_max = 131072

    def __init__(self) -> None:
        self.messages: dict[str, int] = {}  # queue -> messages

    def call(self, _number: int, method: Frame, _answer: type[Frame]) -> Frame | None:
        """Answer a method."""
        if isinstance(method, commands.Queue.Declare):
            if method.passive and method.queue not in self.messages:
                raise Refused("no queue", 404)
            return commands.Queue.DeclareOk(method.queue, self.messages.setdefault(method.queue, 0), 0)
        if isinstance(method, commands.Queue.Purge):
            self.messages[method.queue] = 0
        elif isinstance(method, commands.Queue.Delete):
            del self.messages[method.queue]
        return None

    def send(self, data: bytes) -> None:
        """Take what a transaction publishes to the default exchange."""
        for queue in self.messages:
            routing_key = bytes([len(queue)]) + queue.encode()
            self.messages[queue] += data.count(b"\x00\x28" + bytes(3) + routing_key)

    def close_channel(self, _number: int) -> None:
        """Close."""

    def read(self, _timeout: float) -> list[tuple[int, object]]:
        """Return the answers to a message that proves a binding."""
        return [(1, commands.Basic.Ack(1)), (1, commands.Basic.GetEmpty())]


def test_an_administrator_knows_how_many_messages_are_in_a_queue_that_it_made_anew() -> None:
    sink = io.StringIO()
    administrator = Administrator(Shared(History(sink), Topology("t-"), 0, seed=1), 0, territory=1)
    connection = FakeConnection()
    for _ in range(20):
        administrator.look(connection)  # type: ignore[arg-type]  # no socket
        for _ in range(50):
            administrator.change_something(connection)  # type: ignore[arg-type]
        connection.messages.clear()

    violations = check(map(json.loads, sink.getvalue().splitlines()))
    assert "wrong count" not in {violation.what for violation in violations}
