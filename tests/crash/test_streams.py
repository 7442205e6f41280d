"""A stream keeps what it confirmed, and what a reader saw at an offset, though the broker is killed."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from pamqp import commands, header

from leveret.protocol.properties import replace

from .broker import ProcessBroker
from .client import Connection, Content, Incoming, content_frames, method_frame

if TYPE_CHECKING:
    from pathlib import Path

    from pamqp.common import FieldValue

pytestmark = pytest.mark.crash

STREAM = "log"
SEGMENT_BYTES = 100_000  # so that there are many
KEPT_BYTES = 1_000_000  # of a stream with retention
PUBLISHERS = 2
UNCONFIRMED_MAX = 500  # of a publisher
LOOK_BACK = 200  # messages that a reader reads again in the next life
QUIET_S = 1.0  # nothing comes for so long: all is there

Body = tuple[int, int]  # which publisher, the how many-th of its messages


def connect(broker: ProcessBroker) -> Connection:
    """Connect and open a channel."""
    connection = Connection("127.0.0.1", broker.port)
    connection.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
    return connection


def declare(connection: Connection, max_bytes: int) -> None:
    """Make the stream, or look that it is as it was made."""
    arguments: dict[str, FieldValue] = {
        "x-queue-type": "stream",
        "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
    }
    if max_bytes:
        arguments["x-max-length-bytes"] = max_bytes
    method = commands.Queue.Declare(queue=STREAM, durable=True, arguments=arguments)
    connection.call(1, method, commands.Queue.DeclareOk)


class Publisher:
    """Publishes in bursts, and knows which of its messages were confirmed."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.published = 0
        self.confirmed = 0  # all up to this number
        self.lost: set[int] = set()  # those that nobody ever answered
        self._connection: Connection | None = None
        self._before = 0  # published on earlier connections

    def begin(self, connection: Connection) -> None:
        """Publish on a new connection from now on."""
        self.lost.update(range(self.confirmed + 1, self.published + 1))
        self._connection = connection
        self._before = self.confirmed = self.published
        connection.call(1, commands.Confirm.Select(), commands.Confirm.SelectOk)

    def work(self) -> None:
        """Publish a burst, and take what confirms have come."""
        assert self._connection is not None
        if self.published - self.confirmed < UNCONFIRMED_MAX:
            self._connection.send(b"".join(self._message() for _ in range(self.random.choice((1, 5, 50)))))
        for _, thing in self._connection.read(0.001):
            if isinstance(thing, commands.Basic.Ack):
                self.confirmed = max(self.confirmed, self._before + (thing.delivery_tag or 0))

    def _message(self) -> bytes:
        self.published += 1
        body = b"%d:%d\n" % (self.number, self.published) + bytes(self.random.randrange(3000))
        properties = replace(delivery_mode=self.random.choice((1, 2)))
        publish = commands.Basic.Publish(exchange="", routing_key=STREAM)
        return method_frame(1, publish) + content_frames(1, properties, body, 131072)


class Reader:
    """Reads a stream, and remembers what was at which offset.

    Args:
        may_skip: retention may overtake it.
    """

    def __init__(self, *, may_skip: bool = False) -> None:
        self._may_skip = may_skip
        self.seen: dict[int, Body] = {}
        self.violations: list[str] = []
        self._connection: Connection | None = None
        self._next: int | None = None

    def begin(self, connection: Connection, offset: int | str) -> None:
        """Read from an offset on."""
        self._connection = connection
        self._next = None
        connection.call(1, commands.Basic.Qos(prefetch_count=100), commands.Basic.QosOk)
        consume = commands.Basic.Consume(queue=STREAM, arguments={"x-stream-offset": offset})
        connection.call(1, consume, commands.Basic.ConsumeOk)

    def look_back(self) -> int:
        """Return an offset so far back that some of what was seen is seen again."""
        return max(0, max(self.seen, default=0) - LOOK_BACK)

    def work(self, timeout: float = 0.001) -> bool:
        """Take what has come and ack it; whether there was something."""
        assert self._connection is not None
        arrived = [each for each in self._connection.read(timeout) if isinstance(each[1], Content)]
        last = 0
        for each in arrived:
            last = self._take(each)
        if last:
            self._connection.send(method_frame(1, commands.Basic.Ack(last, multiple=True)))
        return bool(arrived)

    def _take(self, arrived: Incoming) -> int:
        content = arrived[1]
        assert isinstance(content, Content)
        assert isinstance(content.method, commands.Basic.Deliver)
        offset = offset_in(content.properties)
        head = content.body.partition(b"\n")[0]
        publisher, _, n = head.partition(b":")
        body = int(publisher), int(n)
        if self._next is not None and (offset < self._next if self._may_skip else offset != self._next):
            self.violations.append(f"offset {offset} where {self._next} was due")
        self._next = offset + 1
        if self.seen.setdefault(offset, body) != body:
            self.violations.append(f"offset {offset} is {body} and was {self.seen[offset]}")
        return content.method.delivery_tag or 0


def offset_in(properties: bytes) -> int:
    """Return the x-stream-offset of a raw property list."""
    parsed = header.ContentHeader()
    parsed.unmarshal(b"\x00\x3c" + bytes(10) + properties)
    offset = (parsed.properties.headers or {})["x-stream-offset"]
    assert isinstance(offset, int)
    return offset


@pytest.mark.parametrize("max_bytes", [0, KEPT_BYTES], ids=["everything", "the last megabyte"])
def test_a_broker_that_is_killed_keeps_its_streams(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    seed: int,
    kills: int,
    broker_command: str,
    max_bytes: int,
) -> None:
    dice = random.Random(seed)
    publishers = [Publisher(number, seed) for number in range(PUBLISHERS)]
    reader = Reader(may_skip=bool(max_bytes))
    kept = Reader()
    with ProcessBroker(place, broker_command) as broker:
        for _ in range(max(1, kills // 2)):
            broker.start()
            live(broker, publishers, reader, dice.uniform(0.2, 2.0), max_bytes)
        broker.start()
        connection = connect(broker)
        declare(connection, max_bytes)
        kept.begin(connection, "first")
        while kept.work(QUIET_S):
            pass
        connection.close()
    with capsys.disabled():
        print(f"{sum(each.published for each in publishers)} published, {len(kept.seen)} kept")
    judge(publishers, reader, kept, whole=not max_bytes)


def live(
    broker: ProcessBroker, publishers: list[Publisher], reader: Reader, seconds: float, max_bytes: int
) -> None:
    """Publish and read until the broker is killed."""
    connections = [connect(broker) for _ in range(PUBLISHERS + 1)]
    declare(connections[-1], max_bytes)
    reader.begin(connections[-1], reader.look_back())
    for publisher, connection in zip(publishers, connections, strict=False):
        publisher.begin(connection)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for publisher in publishers:
            publisher.work()
        reader.work()
    broker.kill()
    for connection in connections:
        connection.cut()


def judge(publishers: list[Publisher], reader: Reader, kept: Reader, *, whole: bool) -> None:
    """Hold what is in the stream at the end against what was confirmed, and what a reader saw before."""
    assert not reader.violations + kept.violations
    assert max(kept.seen, default=-1) >= max(reader.seen), "what a reader has seen was forgotten"
    first = min(kept.seen)
    differences = [at for at in kept.seen.keys() & reader.seen.keys() if kept.seen[at] != reader.seen[at]]
    assert not differences, f"other messages at offsets {differences[:5]}"
    if whole:
        assert first == 0
    for publisher in publishers:
        numbers = [n for of, n in (kept.seen[at] for at in sorted(kept.seen)) if of == publisher.number]
        assert numbers == sorted(set(numbers)), "out of order, or twice"
        oldest = 1 if whole else min(numbers, default=1)
        confirmed = set(range(oldest, publisher.confirmed + 1)) - publisher.lost
        assert not confirmed - set(numbers), "confirmed, and not there"
