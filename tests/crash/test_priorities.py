"""A queue with priorities keeps its messages and their order, though the broker is killed again and again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from leveret.protocol.properties import replace

from .broker import ProcessBroker
from .client import Connection, Content, content_frames, method_frame

if TYPE_CHECKING:
    from pathlib import Path

    from pamqp.common import FieldValue

pytestmark = pytest.mark.crash

QUEUE = "prioritised"
MAXIMUM = 9
A_TIME = 100  # messages published before the publisher waits for their confirms
PREFETCH = 50
QUIET_S = 2.0  # nothing comes for so long: all is there


def connect(broker: ProcessBroker) -> Connection:
    """Connect, open a channel and declare the queue."""
    connection = Connection("127.0.0.1", broker.port)
    connection.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
    arguments: dict[str, FieldValue] = {"x-max-priority": MAXIMUM}
    declare = commands.Queue.Declare(queue=QUEUE, durable=True, arguments=arguments)
    connection.call(1, declare, commands.Queue.DeclareOk)
    return connection


class Worker:
    """Publishes, and consumes a part of it; a body tells priority and number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.published = 0
        self.confirmed: set[bytes] = set()
        self.acked: set[bytes] = set()  # perhaps the broker never got the ack

    def publish_until(self, connection: Connection, end: float) -> None:
        """Publish, a hundred at a time."""
        connection.call(1, commands.Confirm.Select(), commands.Confirm.SelectOk)
        sent: list[bytes] = []
        while time.monotonic() < end:
            bodies = [self.body() for _ in range(A_TIME)]
            sent += bodies
            connection.send(b"".join(map(message, bodies)))
            confirmed = 0
            while confirmed < len(sent):
                for _, thing in connection.read(1.0):
                    if isinstance(thing, commands.Basic.Ack):
                        confirmed = max(confirmed, thing.delivery_tag or 0)
            self.confirmed.update(sent)

    def body(self) -> bytes:
        """Return the body of the next message."""
        self.published += 1
        return b"%d %d" % (self.random.randint(0, MAXIMUM), self.published)

    def consume(self, connection: Connection, count: int) -> None:
        """Take some messages and ack most of them; the rest stays unacked."""
        connection.call(1, commands.Basic.Qos(prefetch_count=PREFETCH), commands.Basic.QosOk)
        connection.call(1, commands.Basic.Consume(queue=QUEUE), commands.Basic.ConsumeOk)
        for _ in range(count // PREFETCH):
            for _, thing in connection.read(QUIET_S):
                if isinstance(thing, Content) and self.random.random() < 0.9:
                    assert isinstance(thing.method, commands.Basic.Deliver)
                    self.acked.add(thing.body)
                    ack = commands.Basic.Ack(delivery_tag=thing.method.delivery_tag or 0)
                    connection.send(method_frame(1, ack))


def message(body: bytes) -> bytes:
    """Return the frames of a message."""
    properties = replace(delivery_mode=2, priority=priority_of(body))
    publish = commands.Basic.Publish(exchange="", routing_key=QUEUE)
    return method_frame(1, publish) + content_frames(1, properties, body, 131072)


def priority_of(body: bytes) -> int:
    return int(body.split()[0])


def place_of(body: bytes) -> tuple[int, int]:
    """Return a key by which bodies come in the order in which they must be delivered."""
    priority, number = map(int, body.split())
    return -priority, number


def consume_all(connection: Connection) -> list[bytes]:
    """Take whatever is in the queue."""
    consume = commands.Basic.Consume(queue=QUEUE, no_ack=True)
    connection.call(1, consume, commands.Basic.ConsumeOk)
    bodies: list[bytes] = []
    while arrived := connection.read(QUIET_S):
        bodies += [thing.body for _, thing in arrived if isinstance(thing, Content)]
    return bodies


def test_a_broker_that_is_killed_keeps_priorities(
    place: Path, capsys: pytest.CaptureFixture[str], seed: int, kills: int, broker_command: str
) -> None:
    worker = Worker(seed)
    with ProcessBroker(place, broker_command) as broker:
        for _ in range(max(1, kills // 2)):
            broker.start()
            connection = connect(broker)
            worker.publish_until(connection, time.monotonic() + worker.random.uniform(0.2, 1.0))
            worker.consume(connection, worker.random.randint(0, 1000))
            connection.send(b"".join(message(worker.body()) for _ in range(A_TIME)))
            time.sleep(worker.random.uniform(0, 0.02))
            broker.kill()
            connection.cut()
        broker.start()
        connection = connect(broker)
        received = consume_all(connection)
        connection.close()
    with capsys.disabled():
        print(f"{worker.published} published, {len(worker.confirmed)} confirmed, {len(received)} came last")
    assert received == sorted(received, key=place_of), f"seed {seed}: out of order"
    assert len(received) == len(set(received)), f"seed {seed}: some came twice"
    assert not worker.confirmed - worker.acked - set(received), f"seed {seed}: some were lost"
