"""Random histories of a queue with priorities against sorted lists."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.broker.model.queues.backlog import WINDOW_MESSAGES
from leveret.protocol.properties import replace

from .harness import Broker, delivery_tag

MAXIMUM = 4

few = st.integers(1, 20)
many = st.integers(WINDOW_MESSAGES - 1, WINDOW_MESSAGES + 300)
steps = st.one_of(
    st.tuples(st.sampled_from(["persistent", "transient"]), st.integers(0, 6), st.one_of(few, few, many)),
    st.tuples(st.just("take"), st.just(0), st.one_of(few, few, many)),
    st.tuples(st.just("hold"), st.just(0), few),
    st.tuples(st.sampled_from(["ack", "requeue", "reject"]), st.integers(0, 30), st.just(0)),
    st.tuples(st.sampled_from(["requeue all", "purge", "restart", "crash"]), st.just(0), st.just(0)),
)


@dataclass(frozen=True, order=True)
class Known:
    """A message, ordered as it must be delivered."""

    behind: int  # the less the priority
    number: int
    is_persistent: bool


class History:
    """A queue, and what must be in it."""

    def __init__(self, *, durable: bool, has_redo_log: bool) -> None:
        self.durable = durable
        self.broker = Broker(has_redo_log, message_memory_bytes=100_000)
        self.published = 0
        self.ready: list[Known] = []  # in order
        self.held: dict[int, Known] = {}  # by delivery tag
        self.begin()

    def begin(self) -> None:
        self.channel = self.broker.channel()
        self.taker = self.channel.client.channel(2)
        self.channel.declare("q", durable=self.durable, arguments={"x-max-priority": MAXIMUM})

    def step(self, name: str, which: int, count: int) -> None:
        """Do one thing."""
        if name in ("persistent", "transient"):
            self.publish(which, count, is_persistent=name == "persistent")
        elif name == "take":
            self.take(min(count, len(self.ready)))
        elif name == "hold":
            for _ in range(min(count, len(self.ready))):
                message = self.channel.get("q", no_ack=False)
                assert message is not None
                self.held[delivery_tag(message)] = known = self.ready.pop(0)
                assert message.body == b"%d" % known.number
        elif name in ("ack", "requeue", "reject"):
            self.settle(name, which)
        elif name == "requeue all":
            self.channel.nack(0, multiple=True)
            self.ready = sorted(self.ready + list(self.held.values()))
            self.held = {}
        elif name == "purge":
            assert self.channel.purge("q") == len(self.ready)
            self.ready = []
        else:
            self.end(name)
        assert self.channel.ready("q") == len(self.ready)

    def publish(self, priority: int, count: int, *, is_persistent: bool) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        mode = 2 if is_persistent else 1
        properties = replace(delivery_mode=mode, priority=priority)
        self.channel.publish_all("q", *[b"%d" % number for number in numbers], properties=properties)
        self.ready += [Known(-min(priority, MAXIMUM), number, is_persistent) for number in numbers]
        self.ready.sort()

    def take(self, count: int) -> None:
        """Have a consumer take messages, in runs."""
        if count:
            self.taker.qos(count)
            self.taker.consume("q")
            self.taker.cancel()
            got = self.taker.delivered()
            assert [message.body for message in got] == [b"%d" % known.number for known in self.ready[:count]]
            self.taker.ack(delivery_tag(got[-1]), multiple=True)
            self.ready = self.ready[count:]

    def settle(self, name: str, which: int) -> None:
        if not self.held:
            return
        tag = list(self.held)[which % len(self.held)]
        known = self.held.pop(tag)
        if name == "ack":
            self.channel.ack(tag)
        elif name == "reject":
            self.channel.reject(tag)
        else:
            self.channel.nack(tag)
            insort(self.ready, known)

    def end(self, how: str) -> None:
        if how == "restart":
            self.broker.restart()
        else:
            self.broker.crash()
        left = sorted(self.ready + list(self.held.values())) if self.durable else []
        self.ready = [known for known in left if known.is_persistent]
        self.held = {}
        self.begin()

    def finish(self) -> None:
        """Take all that is left: by a consumer, which takes runs."""
        self.step("requeue all", 0, 0)
        self.channel.consume("q", no_ack=True)
        assert self.channel.bodies() == [b"%d" % known.number for known in self.ready]
        self.channel.cancel()
        assert self.broker.node.turn.memory_bytes == 0
        assert all(not len(messages) for messages in self.broker.disk.messages.values())
        self.channel.delete("q")
        assert not self.broker.disk.levels


@settings(max_examples=40)
@given(st.lists(steps, max_size=25), st.booleans(), st.booleans())
def test_messages_come_by_priority_and_then_by_age(
    history: list[tuple[str, int, int]], durable: bool, has_redo_log: bool
) -> None:
    queue = History(durable=durable, has_redo_log=has_redo_log)
    for name, which, count in history:
        queue.step(name, which, count)
    queue.finish()


mortal_steps = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 6), st.one_of(st.none(), st.integers(1, 1000))),
    st.tuples(st.just("advance"), st.integers(1, 600), st.none()),
    st.tuples(st.sampled_from(["hold", "requeue all", "restart", "crash"]), st.integers(1, 5), st.none()),
)


@dataclass(frozen=True, order=True)
class Mortal:
    """A message that may expire, ordered as it must be delivered."""

    behind: int
    number: int
    dies_ms: int  # when; far away if it does not


class MortalHistory:
    """A queue whose dead letters are kept, and what must be in both."""

    NEVER_MS = 1 << 60

    def __init__(self, *, has_redo_log: bool) -> None:
        self.broker = Broker(has_redo_log)
        self.published = 0
        self.ready: list[Mortal] = []  # in order
        self.held: list[Mortal] = []
        self.dead: list[int] = []  # numbers
        self.begin()

    def begin(self) -> None:
        self.channel = self.broker.channel()
        self.channel.declare("dead", durable=True)
        arguments = {
            "x-max-priority": MAXIMUM,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "dead",
        }
        self.channel.declare("q", durable=True, arguments=arguments)

    def step(self, name: str, number: int, ttl_ms: int | None) -> None:
        """Do one thing."""
        if name == "publish":
            self.publish(number, ttl_ms)
        elif name == "advance":
            self.broker.advance(number)
        elif name == "hold":
            for _ in range(min(number, len(self.ready))):
                message = self.channel.get("q", no_ack=False)
                assert message is not None
                self.held.append(self.ready.pop(0))
                assert message.body == b"%d" % self.held[-1].number
        elif name == "requeue all":
            self.channel.nack(0, multiple=True)
            self.come_back()
        else:
            if name == "restart":
                self.broker.restart()
            else:
                self.broker.crash()
            self.come_back()
            self.begin()
        self.expire()

    def publish(self, priority: int, ttl_ms: int | None) -> None:
        expiration = None if ttl_ms is None else str(ttl_ms)
        properties = replace(delivery_mode=2, priority=priority, expiration=expiration)
        self.channel.publish("q", b"%d" % self.published, properties=properties)
        dies_ms = self.NEVER_MS if ttl_ms is None else self.broker.now_ms + ttl_ms
        insort(self.ready, Mortal(-min(priority, MAXIMUM), self.published, dies_ms))
        self.published += 1

    def come_back(self) -> None:
        self.ready = sorted(self.ready + self.held)
        self.held = []

    def expire(self) -> None:
        now_ms = self.broker.now_ms
        self.dead += [message.number for message in self.ready if message.dies_ms <= now_ms]
        self.ready = [message for message in self.ready if message.dies_ms > now_ms]
        assert self.channel.ready("q") == len(self.ready)
        assert self.channel.ready("dead") == len(self.dead)

    def finish(self) -> None:
        """Take all that is left."""
        self.step("requeue all", 0, None)
        assert self.channel.drain("q") == [b"%d" % message.number for message in self.ready]
        assert sorted(map(int, self.channel.drain("dead"))) == sorted(self.dead)
        assert self.broker.node.turn.memory_bytes == 0


@settings(max_examples=30)
@given(st.lists(mortal_steps, max_size=30), st.booleans())
def test_messages_of_every_priority_expire_when_their_time_comes(
    history: list[tuple[str, int, int | None]], has_redo_log: bool
) -> None:
    queue = MortalHistory(has_redo_log=has_redo_log)
    for name, number, ttl_ms in history:
        queue.step(name, number, ttl_ms)
    queue.finish()
