"""Memory goes back to the system when a burst is over, and not before."""

from __future__ import annotations

import sys

import pytest

from leveret.broker.server.giving_back import LOOK_S, WORTH_BYTES, GivingBack
from leveret.protocol.properties import replace

from .harness import Broker

IDLE_BYTES = 42_000_000


class Process:
    """A process as the system sees it: it keeps what it once had until it gives it back."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.cpu_s = 1.0
        self.resident = IDLE_BYTES
        self.waiting = 0
        self.times_given_back = 0
        self.giving_back = GivingBack(
            self._give_back,
            lambda: self.now_s,
            lambda: self.cpu_s,
            lambda: self.resident,
            lambda: self.waiting,
        )

    def _give_back(self) -> None:
        self.times_given_back += 1
        self.resident = IDLE_BYTES + self.waiting

    def hold(self, waiting: int) -> None:
        """Have so many bytes of messages."""
        self.waiting = waiting
        self.resident = max(self.resident, IDLE_BYTES + waiting)

    def pass_time(self, *, busy: bool) -> None:
        self.now_s += LOOK_S
        self.cpu_s += LOOK_S / 2 if busy else LOOK_S / 1000
        self.giving_back.look()


@pytest.fixture
def process() -> Process:
    return Process()


def test_nothing_is_done_while_nothing_happens(process: Process) -> None:
    process.pass_time(busy=False)
    assert process.times_given_back == 0


def test_after_a_burst_memory_is_given_back_once(process: Process) -> None:
    process.hold(20 * WORTH_BYTES)
    process.hold(0)
    process.pass_time(busy=False)
    process.pass_time(busy=False)
    assert process.resident == IDLE_BYTES
    assert process.times_given_back == 1


def test_a_busy_broker_keeps_its_memory_until_it_is_quiet(process: Process) -> None:
    process.hold(20 * WORTH_BYTES)
    process.hold(0)
    process.pass_time(busy=True)
    assert process.times_given_back == 0
    process.pass_time(busy=False)
    assert process.times_given_back == 1


def test_a_backlog_that_waited_long_is_given_back_when_it_has_gone(process: Process) -> None:
    process.hold(20 * WORTH_BYTES)
    process.pass_time(busy=False)
    process.pass_time(busy=False)
    assert process.times_given_back == 1
    process.hold(0)
    process.pass_time(busy=True)
    process.pass_time(busy=False)
    assert process.times_given_back == 2
    assert process.resident == IDLE_BYTES


def test_a_little_is_not_worth_the_trouble(process: Process) -> None:
    process.hold(WORTH_BYTES // 2)
    process.hold(0)
    process.pass_time(busy=False)
    assert process.times_given_back == 0


def test_tables_that_were_large_shrink_when_they_are_empty() -> None:
    broker = Broker()
    channel = broker.channel()
    queue = channel.declare("q")
    channel.publish_all(queue, *[b""] * 5000, properties=replace(expiration="3600000"))
    channel.consume(queue)
    model = next(iter(broker.node.sessions)).connection
    assert model is not None
    large = sys.getsizeof(model.channels[1].unacked)
    channel.ack(5000, multiple=True)
    assert sys.getsizeof(model.channels[1].unacked) == large
    broker.node.shrink()
    assert sys.getsizeof(model.channels[1].unacked) < 100


def test_what_is_unacked_stays_when_tables_shrink() -> None:
    broker = Broker()
    channel = broker.channel()
    queue = channel.declare("q")
    channel.publish_all(queue, b"1", b"2")
    assert channel.get(queue, no_ack=False) is not None
    broker.node.shrink()
    channel.ack(1)
    assert channel.drain(queue) == [b"2"]
