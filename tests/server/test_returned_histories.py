"""Whatever comes back, how and when: counts, limits, waits and order are those of a plain list."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret.broker.model.queues import backlog
from leveret.protocol.properties import NO_PROPERTIES, replace
from leveret.protocol.tables import integer

from .harness import PERSISTENT, Broker, ChannelOfTest, delivery_tag

LIMIT = 2
RETRY_MS = 100

KINDS = [
    "publish",
    "get",
    "ack",
    "reject",
    "nack",
    "nack-all",
    "recover",
    "close",
    "restart",
    "crash",
    "purge",
]
KINDS += ["publish", "get", "get", *4 * ["try"], *2 * ["wait"]]
steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), min_size=15, max_size=60)


@dataclass
class Plain:
    """One message."""

    number: int
    is_kept: bool  # over a restart
    priority: int = 0
    deliveries: int = 0
    is_out: bool = False
    ready_at_ms: int = 0


@dataclass
class PlainQueue:
    """What a queue should do."""

    has_retry: bool
    has_priorities: bool
    now_ms: int
    messages: list[Plain] = field(default_factory=list)  # in order

    def give_back(self, message: Plain) -> None:
        message.is_out = False
        message.deliveries += 1
        if message.deliveries > LIMIT:
            self.messages.remove(message)
        elif self.has_retry:
            message.ready_at_ms = self.now_ms + RETRY_MS * message.deliveries

    @property
    def ready(self) -> list[Plain]:
        found = [m for m in self.messages if not m.is_out and m.ready_at_ms <= self.now_ms]
        return sorted(found, key=lambda m: -m.priority)


class Conversation:
    """A queue, and what it should be."""

    def __init__(self, arguments: dict[str, object], *, has_redo_log: bool) -> None:
        self.broker = Broker(has_redo_log)
        self.channel: ChannelOfTest = self.broker.channel()
        self.channel.declare("q", durable=True, arguments=arguments)
        self.is_quorum = arguments.get("x-queue-type") == "quorum"
        self.plain = PlainQueue(
            "x-delayed-retry-type" in arguments, "x-max-priority" in arguments, self.broker.now_ms
        )
        self.out: dict[int, Plain] = {}  # delivery tag -> message
        self.published = 0

    def do(self, what: str, number: int) -> None:
        """Do one thing, and compare."""
        getattr(self, f"do_{what.replace('-', '_')}")(number)
        self.plain.now_ms = self.broker.now_ms
        queue = self.broker.node.vhosts["/"].queues["q"]
        assert queue.messages == len(self.plain.messages)
        assert queue.messages_unacknowledged == len(self.out)

    def do_publish(self, number: int) -> None:
        self.published += 1
        priority = number % 3 if self.plain.has_priorities else 0
        is_persistent = number % 4 > 0
        base = PERSISTENT if is_persistent else NO_PROPERTIES
        self.channel.publish("q", b"%d" % self.published, properties=replace(base, priority=priority))
        self.plain.messages.append(Plain(self.published, is_persistent or self.is_quorum, priority))

    def do_get(self, _: int) -> None:
        expected = self.plain.ready[:1]
        message = self.channel.get("q", no_ack=False)
        if message is None:
            assert not expected
            return
        headers = message.fields.headers or {}
        assert [(int(message.body), integer(headers, "x-delivery-count") or 0)] == [
            (m.number, m.deliveries) for m in expected
        ]
        expected[0].is_out = True
        self.out[delivery_tag(message)] = expected[0]

    def pick(self, number: int) -> tuple[int, Plain] | None:
        if not self.out:
            return None
        tag = list(self.out)[number % len(self.out)]
        return tag, self.out.pop(tag)

    def do_ack(self, number: int) -> None:
        if picked := self.pick(number):
            self.channel.ack(picked[0])
            self.plain.messages.remove(picked[1])

    def do_reject(self, number: int) -> None:
        if picked := self.pick(number):
            self.channel.reject(picked[0], requeue=True)
            self.plain.give_back(picked[1])

    def do_try(self, _: int) -> None:
        self.do_get(0)
        self.do_reject(-1)

    def do_nack(self, number: int) -> None:
        if picked := self.pick(number):
            self.channel.nack(picked[0])
            self.plain.give_back(picked[1])

    def do_nack_all(self, _: int) -> None:
        self.channel.nack(0, multiple=True)
        self.all_come_back()

    def do_recover(self, _: int) -> None:
        self.channel.recover()
        self.all_come_back()

    def do_close(self, _: int) -> None:
        self.channel.client.vanish()
        self.all_come_back()
        self.channel = self.broker.channel()

    def all_come_back(self) -> None:
        for message in self.out.values():
            self.plain.give_back(message)
        self.out.clear()

    def do_wait(self, number: int) -> None:
        self.broker.advance(number * 20)

    def do_purge(self, _: int) -> None:
        gone = [m for m in self.plain.messages if not m.is_out]
        assert self.channel.purge("q") == len(gone)
        self.plain.messages = [m for m in self.plain.messages if m.is_out]

    def do_restart(self, _: int) -> None:
        self.all_come_back()
        self.broker.restart()
        self.begin_again()

    def do_crash(self, _: int) -> None:
        for message in self.out.values():
            message.is_out = False
        self.out.clear()
        self.broker.crash()
        self.begin_again()

    def begin_again(self) -> None:
        self.plain.messages = [m for m in self.plain.messages if m.is_kept]
        self.channel = self.broker.channel()


RETRY: dict[str, object] = {"x-delayed-retry-type": "all", "x-delayed-retry-min": RETRY_MS}
LIMITED: dict[str, object] = {"x-delivery-limit": LIMIT}


@pytest.mark.parametrize(
    "arguments",
    [
        LIMITED,
        LIMITED | {"x-queue-type": "quorum"},
        LIMITED | RETRY,
        LIMITED | RETRY | {"x-queue-type": "quorum"},
        LIMITED | RETRY | {"x-max-priority": 2},
    ],
    ids=["classic", "quorum", "classic-retry", "quorum-retry", "priorities-retry"],
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps, has_redo_log=st.booleans())
def test_a_queue_does_what_a_plain_list_does(
    arguments: dict[str, object],
    history: list[tuple[str, int]],
    has_redo_log: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "WINDOW_MESSAGES", 3)
    conversation = Conversation(arguments, has_redo_log=has_redo_log)
    for what, number in history:
        conversation.do(what, number)
    conversation.do_wait(100)
    conversation.plain.now_ms = conversation.broker.now_ms
    for _ in range(len(conversation.plain.ready) + 1):
        conversation.do_get(0)
