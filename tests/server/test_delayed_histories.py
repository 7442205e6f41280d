"""Whatever happens meanwhile: each delayed message comes once, and not before its time."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.broker.model.exchanges import delay
from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from .harness import Broker, ChannelOfTest

KINDS = ["publish", "publish", "publish", "advance", "advance", "hold", "release", "release one", "crash"]
steps = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(1, 60), min_size=1, max_size=12)), max_size=30
)


class History:
    """A broker and what it should deliver: a transient queue and consumer get each message at its time."""

    def __init__(self, has_redo_log: bool) -> None:
        self.broker = Broker(has_redo_log)
        self.waiting: dict[bytes, int] = {}  # body -> when it is due
        self.channel = self.begin()
        self.published = 0

    def begin(self) -> ChannelOfTest:
        """Declare what is needed and consume."""
        channel = self.broker.channel()
        arguments = {"x-delayed-type": "fanout"}
        channel.declare_exchange("later", "x-delayed-message", durable=True, arguments=arguments)
        channel.declare("q", auto_delete=True)
        channel.bind("q", "later")
        channel.consume("q", no_ack=True)
        return channel

    def step(self, what: str, numbers: list[int]) -> None:
        """Do one thing."""
        if what == "publish":
            with self.channel.client.at_once():
                for number in numbers:
                    self.publish(number)
        elif what == "advance":
            self.broker.advance(numbers[0])
        elif what == "hold":
            self.broker.hold_store()
        elif what == "release":
            self.broker.release_store()
        elif what == "release one":
            self.broker.release_one()
        else:
            self.crash()
        self.check()

    def publish(self, delay_ms: int) -> None:
        """Publish a message."""
        self.published += 1
        body = b"%d" % self.published
        self.waiting[body] = self.broker.now_ms + delay_ms
        headers = {"x-delay": Field("I", delay_ms)}
        self.channel.publish("k", body, exchange="later", properties=replace(headers=headers))

    def crash(self) -> None:
        """Make everything durable that is under way, and crash."""
        self.broker.release_store()
        self.check()
        self.broker.crash()
        self.channel = self.begin()

    def check(self) -> None:
        """Compare what was delivered since the last step."""
        bodies = self.channel.bodies()
        times = [self.waiting.pop(body) for body in bodies]  # each is there, so none comes twice
        assert times == sorted(times)
        assert all(time <= self.broker.now_ms for time in times)

    def finish(self) -> None:
        """Wait for the rest."""
        self.broker.release_store()
        self.broker.advance(200)
        self.check()
        assert not self.waiting
        (kept,) = self.broker.node.turn.delays.values()
        assert (kept.count, kept.body_bytes) == (0, 0)
        assert not len(self.broker.disk.messages.get(kept.queue_id, ()))


@settings(max_examples=150, deadline=None)
@given(steps, st.booleans())
def test_each_message_comes_once_and_in_order(
    history: list[tuple[str, list[int]]], has_redo_log: bool
) -> None:
    with patch.object(delay, "NEAR_MESSAGES", 4), patch.object(delay, "DUE_MAX", 3):
        broker = History(has_redo_log)
        for step in history:
            broker.step(*step)
        broker.finish()
