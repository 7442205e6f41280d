"""Messages that wait in an exchange come once, though the broker is killed while they wait or move."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from .broker import ProcessBroker
from .client import Connection, Content, content_frames, method_frame

if TYPE_CHECKING:
    from pathlib import Path

    from pamqp.common import FieldValue

pytestmark = pytest.mark.crash

EXCHANGE, QUEUE = "later", "due"
A_TIME = 100  # messages published before the publisher waits for their confirms
DELAYS_MS = (1, 1500)
QUIET_S = 3.0  # nothing comes for so long: all is there


def connect(broker: ProcessBroker) -> Connection:
    """Connect, open a channel and declare what is needed."""
    connection = Connection("127.0.0.1", broker.port)
    connection.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
    arguments: dict[str, FieldValue] = {"x-delayed-type": "fanout"}
    exchange = commands.Exchange.Declare(
        exchange=EXCHANGE, exchange_type="x-delayed-message", durable=True, arguments=arguments
    )
    connection.call(1, exchange, commands.Exchange.DeclareOk)
    connection.call(1, commands.Queue.Declare(queue=QUEUE, durable=True), commands.Queue.DeclareOk)
    connection.call(1, commands.Queue.Bind(queue=QUEUE, exchange=EXCHANGE), commands.Queue.BindOk)
    return connection


class Publisher:
    """Publishes delayed messages, and knows which were confirmed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.published = 0
        self.confirmed: set[int] = set()

    def publish_until(self, connection: Connection, end: float) -> None:
        """Publish, a hundred at a time."""
        connection.call(1, commands.Confirm.Select(), commands.Confirm.SelectOk)
        before = self.published
        while time.monotonic() < end:
            connection.send(b"".join(self.message() for _ in range(A_TIME)))
            confirmed = 0
            while confirmed < self.published - before:
                for _, thing in connection.read(1.0):
                    if isinstance(thing, commands.Basic.Ack):
                        confirmed = max(confirmed, thing.delivery_tag or 0)
                self.confirmed.update(range(before + 1, before + confirmed + 1))

    def message(self) -> bytes:
        """Return the frames of a message with the next number."""
        self.published += 1
        delay = Field("I", self.random.randint(*DELAYS_MS))
        properties = replace(headers={"x-delay": delay}, delivery_mode=2)
        publish = commands.Basic.Publish(exchange=EXCHANGE, routing_key="k")
        return method_frame(1, publish) + content_frames(1, properties, b"%d" % self.published, 131072)


def consume_all(connection: Connection) -> list[int]:
    """Take whatever is in the queue, and comes there until it is quiet."""
    consume = commands.Basic.Consume(queue=QUEUE, no_ack=True)
    connection.call(1, consume, commands.Basic.ConsumeOk)
    numbers: list[int] = []
    while arrived := connection.read(QUIET_S):
        numbers += [int(thing.body) for _, thing in arrived if isinstance(thing, Content)]
    return numbers


def test_a_broker_that_is_killed_keeps_delayed_messages(
    place: Path, capsys: pytest.CaptureFixture[str], seed: int, kills: int, broker_command: str
) -> None:
    publisher = Publisher(seed)
    with ProcessBroker(place, broker_command) as broker:
        for _ in range(max(1, kills // 2)):
            broker.start()
            connection = connect(broker)
            publisher.publish_until(connection, time.monotonic() + publisher.random.uniform(0.2, 1.0))
            connection.send(b"".join(publisher.message() for _ in range(A_TIME)))
            time.sleep(publisher.random.uniform(0, 0.02))
            broker.kill()
            connection.cut()
        broker.start()
        connection = connect(broker)
        received = consume_all(connection)
        connection.close()
    with capsys.disabled():
        print(f"{publisher.published} delayed, {len(publisher.confirmed)} confirmed, {len(received)} came")
    assert len(received) == len(set(received)), f"seed {seed}: some came twice"
    assert not publisher.confirmed - set(received), f"seed {seed}: some were lost"
