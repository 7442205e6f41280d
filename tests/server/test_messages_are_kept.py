"""In any conversation every message is ready, unacked or settled, once, and order is kept.

Random publishes, gets, consumers, settlements, purges, restarts and crashes run against a broker with little
memory, or with enough for packed messages, and against a list: the plain version of a queue.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pamqp import commands

from leveret.protocol.properties import NO_PROPERTIES

from .harness import PERSISTENT, Broker, ChannelOfTest, delivery_tag, is_redelivered

LITTLE_MEMORY = 40_000  # so that long queues are paged out
ENOUGH_MEMORY = 100_000_000  # so that they stay, packed


@dataclass(slots=True)
class Kept:
    """A message as the model knows it."""

    body: bytes
    persistent: bool
    maybe_delivered: bool = False  # handed out before: it must be marked; after a crash it may be
    must_be_marked: bool = False


class QueueMachine(RuleBasedStateMachine):
    """One durable queue, a publisher, and a channel that takes messages."""

    def __init__(self) -> None:
        super().__init__()
        self.published = 0
        self.ready: list[Kept] = []  # in order
        self.unacked: dict[int, Kept] = {}  # by delivery tag
        self.order: dict[bytes, int] = {}  # body -> place
        self.prefetch = 0
        self.consumes = False

    @initialize(memory=st.sampled_from([LITTLE_MEMORY, ENOUGH_MEMORY]), has_redo_log=st.booleans())
    def declare(self, memory: int, has_redo_log: bool) -> None:
        self.broker = Broker(has_redo_log, message_memory_bytes=memory)
        self._open()
        self.taker.declare("q", durable=True)

    def _open(self) -> None:
        self.publisher = self.broker.channel()
        self.publisher.confirm()
        self.taker = self.broker.channel(5)
        self.consumes = False
        self.prefetch = 0

    # -- what happens

    @rule(count=st.sampled_from([1, 2, 7, 300, 2500, 9000]), persistent=st.booleans())
    def publish(self, count: int, persistent: bool) -> None:
        self._publish(count, persistent)
        assert self.publisher.confirms()
        self._take_deliveries()

    @rule(
        counts=st.lists(st.sampled_from([1, 300, 2500, 9000]), min_size=1, max_size=3),
        persistent=st.booleans(),
        done=st.integers(0, 3),
    )
    def publish_while_the_store_is_slow(self, counts: list[int], persistent: bool, done: int) -> None:
        self.broker.hold_store()
        for count in counts:
            self._publish(count, persistent)
            for _ in range(done):
                self.broker.release_one()
            self._take_what_came()
            if self.consumes and self.consumer_tags:
                tag = max(self.consumer_tags)
                self.unacked = {each: kept for each, kept in self.unacked.items() if each > tag}
                self.consumer_tags.clear()
                self.taker.ack(tag, multiple=True)
        self._take_what_came()
        self.broker.release_store()
        assert self.publisher.confirms()
        self._take_deliveries()

    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        message = self.taker.get("q", no_ack=no_ack)
        if not self.ready:
            assert message is None
            return
        expected = self.ready.pop(0)
        assert message is not None
        assert message.body == expected.body
        self._check_mark(expected, is_redelivered(message))
        if not no_ack:
            self.unacked[delivery_tag(message)] = expected

    @precondition(lambda self: not self.consumes)
    @rule(prefetch=st.sampled_from([0, 1, 5, 300]))
    def consume(self, prefetch: int) -> None:
        self.taker.qos(prefetch)
        self.prefetch = prefetch
        self.outstanding = 0
        self.consumes = True
        self.consumer_tags: set[int] = set()
        self.taker.consume("q")
        self._take_deliveries()

    @precondition(lambda self: self.consumes)
    @rule()
    def cancel(self) -> None:
        self.taker.cancel()
        self._take_deliveries()
        self.consumes = False

    @precondition(lambda self: self.unacked)
    @rule(data=st.data(), way=st.sampled_from(["ack", "nack", "drop"]), multiple=st.booleans())
    def settle(self, data: st.DataObject, way: str, multiple: bool) -> None:
        tags = sorted(self.unacked)
        tag = tags[data.draw(st.integers(0, len(tags) - 1))]
        settled = [each for each in tags if each <= tag] if multiple else [tag]
        messages = [self.unacked.pop(each) for each in settled]
        if way == "nack":
            self._requeue(messages)
        if self.consumes:
            self.consumer_tags.difference_update(settled)
        if way == "ack":
            self.taker.ack(tag, multiple=multiple)
        else:
            self.taker.nack(tag, multiple=multiple, requeue=way == "nack")
        self._take_deliveries()

    @rule()
    def recover(self) -> None:
        self._requeue(list(self.unacked.values()))
        self.unacked.clear()
        if self.consumes:
            self.consumer_tags.clear()
        self.taker.recover()
        self._take_deliveries()

    @rule()
    def purge(self) -> None:
        assert self.publisher.purge("q") == len(self.ready)
        self.ready.clear()

    @rule()
    def lose_the_taker(self) -> None:
        self._requeue(list(self.unacked.values()))
        self.unacked.clear()
        self.taker.client.vanish()
        self.taker = self.broker.channel(5)
        self.consumes = False

    @rule()
    def restart(self) -> None:
        self._requeue(list(self.unacked.values()))
        self._begin_again()
        self.broker.restart()
        self._open()

    @rule()
    def crash(self) -> None:
        for message in self.ready:
            message.maybe_delivered = True
        self._requeue(list(self.unacked.values()))
        self._begin_again()
        self.broker.crash()
        self._open()

    @rule(count=st.integers(0, 3), acks=st.booleans())
    def crash_before_anything_is_durable(self, count: int, acks: bool) -> None:
        self.broker.hold_store()
        self.publisher.publish_all("q", *[b"lost"] * count, properties=PERSISTENT)
        assert not self.publisher.confirms()
        if acks:
            self.taker.ack(0, multiple=True)
        self.crash()

    # -- the model

    def _publish(self, count: int, persistent: bool) -> None:
        bodies = [b"%d" % number for number in range(self.published, self.published + count)]
        self.published += count
        for body in bodies:
            self.order[body] = len(self.order)
            self.ready.append(Kept(body, persistent))
        self.publisher.publish_all("q", *bodies, properties=PERSISTENT if persistent else NO_PROPERTIES)

    def _requeue(self, messages: list[Kept]) -> None:
        for message in messages:
            message.must_be_marked = True
        self.ready = sorted(self.ready + messages, key=lambda message: self.order[message.body])

    def _begin_again(self) -> None:
        self.unacked.clear()
        self.ready = [message for message in self.ready if message.persistent]

    def _check_mark(self, expected: Kept, marked: bool) -> None:
        if expected.must_be_marked:
            assert marked, expected
        elif not expected.maybe_delivered:
            assert not marked, expected

    def _take_deliveries(self) -> None:
        """Check what the consumer got: in order, as much as it has room for."""
        self._take_what_came()
        if self.consumes:
            if self.prefetch:
                assert len(self.consumer_tags) <= self.prefetch
                assert not self.ready or len(self.consumer_tags) == self.prefetch
            else:
                assert not self.ready

    def _take_what_came(self) -> None:
        for delivery in self.taker.delivered():
            assert self.consumes
            assert self.ready, delivery
            expected = self.ready.pop(0)
            assert delivery.body == expected.body
            self._check_mark(expected, is_redelivered(delivery))
            self.unacked[delivery_tag(delivery)] = expected
            self.consumer_tags.add(delivery_tag(delivery))

    @invariant()
    def counts_are_right(self) -> None:
        queue = self.broker.node.vhosts["/"].queues.get("q")
        if queue is not None:
            assert queue.messages_ready == len(self.ready)
            assert queue.messages_unacknowledged == len(self.unacked)
            assert self.broker.node.turn.memory_bytes >= 0

    def teardown(self) -> None:
        """Everything is accounted for at the end, in memory and on the disk."""
        if "q" not in self.broker.node.vhosts["/"].queues:
            return
        self.taker.client.vanish()
        rest = self.broker.channel()
        rest.consume("q", no_ack=True)
        self._requeue(list(self.unacked.values()))
        assert rest.bodies() == [message.body for message in self.ready]
        assert self.broker.node.turn.memory_bytes == 0
        self.broker.crash()
        channel: ChannelOfTest = self.broker.channel()
        reply = channel.call(commands.Queue.Declare, queue="q", passive=True).method
        assert isinstance(reply, commands.Queue.DeclareOk)
        assert reply.message_count == 0


TestMessagesAreKept = QueueMachine.TestCase
TestMessagesAreKept.settings = settings(max_examples=25, stateful_step_count=30)
