"""The history checker names every planted fault, and passes a history without one."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from .checker import Checker, HistoryError, Limits, check
from .history import Event, History, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = Limits(margin_s=0.02, quiet_s=0.1, come_back=3, notice_s=0.05)


def sha(text: str) -> str:
    """Return the digest of a body as histories have it."""
    return hashlib.sha256(text.encode()).hexdigest()


class Story:
    """Tells a history: a publisher `p`, two consumers, queues `a` and `b`, and `a.dead` for what `a`
    rejects."""

    def __init__(self) -> None:
        self.t = 100.0
        self._sink = io.StringIO()
        self._history = History(self._sink, now=lambda: self.t)
        self._incarnation = {"p": 1, "c": 1, "d": 1}
        self._tags = {"c": 0, "d": 0}
        self.add("setup", seed=1, queues={"a": "a.dead", "b": None, "a.dead": None})

    def add(self, event: str, **fields: object) -> None:
        """Add an event, a millisecond after the one before."""
        self.t += 0.001
        self._history.add(event, **fields)

    def wait(self, seconds: float) -> None:
        """Let time pass without an event."""
        self.t += seconds

    def channel(self, who: str) -> str:
        """Return the name of a client's present channel."""
        return f"{who}/{self._incarnation[who]}"

    def publish(self, n: int, *queues: str, persistent: bool = True, mandatory: bool = False) -> None:
        """Publish message n, which belongs into these queues."""
        self.add(
            "publish",
            channel=self.channel("p"),
            n=n,
            exchange="x",
            key="k",
            queues=list(queues),
            body=sha(f"body {n}"),
            properties=zlib.crc32(f"properties {n}".encode()),
            persistent=persistent,
            mandatory=mandatory,
        )

    def confirm(self, tag: int, *, ack: bool = True, multiple: bool = False) -> None:
        """Confirm (or refuse) a message."""
        self.add("confirm", channel=self.channel("p"), tag=tag, ack=ack, multiple=multiple)

    def send(self, *numbers: int, queues: tuple[str, ...] = ("a",)) -> None:
        """Publish messages and confirm them."""
        for n in numbers:
            self.publish(n, *queues)
            self.confirm(n)

    def consume(self, who: str, *queues: str) -> None:
        """Start to consume."""
        for queue in queues:
            self.add("consume", channel=self.channel(who), queue=queue)

    def deliver(self, who: str, n: int, queue: str = "a", *, again: bool = False, **changes: object) -> int:
        """Deliver message n of the publisher's first channel; return the delivery tag."""
        self._tags[who] += 1
        fields: dict[str, object] = {
            "of": "p/1",
            "n": n,
            "exchange": "x",
            "key": "k",
            "body": sha(f"body {n}"),
            "properties": zlib.crc32(f"properties {n}".encode()),
            "redelivered": again,
        }
        if queue == "a.dead":
            fields |= {"exchange": "", "key": "a.dead", "dead_from": ["a", "rejected"]}
        fields |= changes
        self.add("deliver", channel=self.channel(who), tag=self._tags[who], queue=queue, **fields)
        return self._tags[who]

    def settle(self, who: str, tag: int, how: str = "ack", *, multiple: bool = False) -> None:
        """Settle a delivery."""
        self.add("settle", channel=self.channel(who), tag=tag, multiple=multiple, how=how)

    def take(self, who: str, *numbers: int, queue: str = "a", again: bool = False) -> None:
        """Deliver messages and ack them."""
        for n in numbers:
            self.settle(who, self.deliver(who, n, queue, again=again))

    def end(self, who: str, event: str = "closed", **fields: object) -> None:
        """End a client's channel and give the client a new one."""
        self.add(event, channel=self.channel(who), **fields)
        self._incarnation[who] += 1
        if who in self._tags:
            self._tags[who] = 0

    def kill(self, *clients: str) -> None:
        """Kill the broker; these clients lose their channels; start it again."""
        self.add("kill")
        for who in clients:
            self.end(who, "lost")
        self.add("ready")

    def events(self) -> Iterator[Event]:
        """Yield the history."""
        for line in self._sink.getvalue().splitlines():
            yield json.loads(line)

    def verdict(self, limits: Limits = LIMITS, **left: int) -> list[str]:
        """Drain the queues (but for what is left), check, and return the violations as "property what"."""
        for queue in ("a", "b", "a.dead"):
            self.add("drained", queue=queue, messages=left.get(queue, 0))
        return [f"{found.property} {found.what}" for found in check(self.events(), limits)]


@pytest.fixture
def story() -> Story:
    """Return an empty story."""
    return Story()


def test_a_clean_history_passes(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "b", "a.dead")
    story.send(1, 2, queues=("a", "b"))
    story.publish(3, mandatory=True)
    story.add("returned", channel="p/1", n=3)
    story.publish(4, "a")
    story.publish(5, "a", persistent=False)
    story.confirm(5, multiple=True)
    story.publish(6, "a")
    story.confirm(6, ack=False)
    story.take("d", 1, 2, queue="b")
    story.take("c", 1)
    story.settle("c", story.deliver("c", 2), "requeue")
    second = story.deliver("c", 4)
    story.settle("c", story.deliver("c", 2, again=True), "drop")
    story.settle("c", second, multiple=True)
    story.take("d", 2, queue="a.dead")
    story.wait(1)
    story.publish(7, "a")
    story.deliver("c", 7)
    story.kill("p", "c", "d")
    story.consume("c", "a")
    story.take("c", 7, again=True)
    assert story.verdict() == []


# P1


def test_a_confirmed_message_that_never_comes_is_a_loss(story: Story) -> None:
    story.consume("c", "a")
    story.send(1, 2, 3)
    story.take("c", 1, 3)
    assert story.verdict() == ["P1 lost"]


def test_a_confirmed_message_that_a_kill_swallows_is_a_loss(story: Story) -> None:
    story.send(1)
    story.kill("p")
    assert story.verdict() == ["P1 lost"]


def test_an_unconfirmed_or_transient_message_may_be_lost_in_a_kill(story: Story) -> None:
    story.publish(1, "a", persistent=False)
    story.confirm(1)
    story.publish(2, "a")
    story.kill("p")
    assert story.verdict() == []


def test_a_transient_message_lost_without_a_kill_is_a_loss(story: Story) -> None:
    story.publish(1, "a", persistent=False)
    story.confirm(1)
    assert story.verdict() == ["P1 lost"]


def test_a_requeued_message_that_never_comes_again_is_a_loss(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "requeue")
    assert story.verdict() == ["P1 lost after requeue"]


def test_an_unacked_message_that_a_lost_consumer_takes_along_is_a_loss(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.deliver("c", 1)
    story.end("c", "lost", own=True)
    assert story.verdict() == ["P1 lost after requeue"]


def test_a_message_acked_in_a_transaction_that_was_not_committed_must_come_again(story: Story) -> None:
    story.add("transact", channel="c/1")
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.kill("p", "c")
    assert story.verdict() == ["P1 lost after requeue"]


def test_a_rejected_message_missing_from_the_dead_letter_queue_is_a_loss(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "drop")
    assert story.verdict() == ["P1 dead letter lost"]


def test_messages_that_nobody_can_get_are_a_loss(story: Story) -> None:
    assert story.verdict(b=2) == ["P1 not empty"]


# P2


def test_a_message_that_nobody_sent_is_an_invention(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.deliver("c", 2)
    assert story.verdict() == ["P2 invented"]


def test_a_message_without_a_name_is_an_invention(story: Story) -> None:
    story.consume("c", "a")
    story.deliver("c", 1, of=None)
    assert story.verdict() == ["P2 invented"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"body": sha("body 1, but not all of it")}, "changed body"),
        ({"properties": 1}, "changed properties"),
        ({"key": "other"}, "changed routing key"),
        ({"exchange": "other"}, "changed routing key"),
    ],
)
def test_a_changed_message_is_an_invention(story: Story, change: dict[str, Any], what: str) -> None:
    story.consume("c", "a")
    story.send(1)
    story.settle("c", story.deliver("c", 1, **change))
    assert story.verdict() == [f"P2 {what}"]


def test_a_message_from_a_queue_where_nobody_sent_it_is_an_invention(story: Story) -> None:
    story.consume("c", "a", "b")
    story.send(1)
    story.take("c", 1)
    story.take("c", 1, queue="b")
    assert story.verdict() == ["P2 wrong queue"]


def test_a_dead_letter_that_nobody_rejected_is_an_invention(story: Story) -> None:
    story.consume("c", "a", "a.dead")
    story.send(1)
    story.take("c", 1)
    story.take("c", 1, queue="a.dead")
    assert story.verdict() == ["P2 wrong queue"]


def test_a_dead_letter_with_a_wrong_history_is_an_invention(story: Story) -> None:
    story.consume("c", "a", "a.dead")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "drop")
    story.settle("c", story.deliver("c", 1, "a.dead", dead_from=["a", "expired"]))
    assert story.verdict() == ["P2 wrong x-death"]


# P3


def test_first_deliveries_out_of_publish_order_are_named(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "a")  # with a second consumer, only the flag tells a first delivery
    story.send(1, 2, 3)
    story.take("c", 1, 3, 2)
    assert story.verdict() == ["P3 out of order"]


def test_the_order_between_two_consumers_is_not_judged(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "a")
    story.send(1, 2, 3, 4)
    story.take("d", 2, 4)
    story.take("c", 1, 3)
    assert story.verdict() == []


def test_a_new_consumer_gets_nothing_older_than_what_was_seen_before(story: Story) -> None:
    story.consume("d", "a")
    story.send(1, 2)
    story.take("d", 2)
    story.consume("c", "a")
    story.take("c", 1)
    assert story.verdict() == ["P3 out of order"]


def test_messages_that_come_back_in_another_order_after_a_kill_are_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1, 2)
    story.kill("p", "c")
    story.consume("c", "a")
    story.consume("d", "a")
    story.take("c", 2, 1, again=True)
    assert story.verdict() == ["P3 out of order"]


def test_a_returned_message_at_the_wrong_place_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1, 2, 3)
    story.deliver("c", 1)
    story.end("c", "closed")
    story.wait(1)
    story.consume("c", "a")
    story.take("c", 2, 3)
    story.take("c", 1, again=True)
    assert story.verdict() == ["P3 not in its place"]


# P4


def test_a_first_delivery_marked_redelivered_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1, again=True)
    assert story.verdict() == ["P4 redelivered the first time"]


def test_a_delivery_that_may_have_died_unread_may_be_marked_redelivered(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "a")
    story.send(1)
    story.end("c", "lost", own=True)
    story.take("d", 1, again=True)
    assert story.verdict() == []


def test_a_kill_does_not_excuse_a_redelivered_mark_on_what_nobody_could_get(story: Story) -> None:
    story.send(1)
    story.kill("p")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    assert story.verdict() == ["P4 redelivered the first time"]


def test_a_delivery_may_have_died_unread_while_its_channel_was_closed(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "a")
    story.add("closing", channel="c/1")
    story.send(1)
    story.take("d", 1, again=True)
    story.end("c", "closed")
    story.send(2)
    story.take("d", 2, again=True)
    assert story.verdict() == ["P4 redelivered the first time"]


def test_a_second_delivery_not_marked_redelivered_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "requeue")
    story.take("c", 1)
    assert story.verdict() == ["P4 not marked redelivered"]


def test_a_kill_does_not_excuse_a_missing_redelivered_mark(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.deliver("c", 1)
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1)
    assert story.verdict() == ["P4 not marked redelivered"]


def test_a_message_handed_to_two_consumers_at_once_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.consume("d", "a")
    story.send(1)
    story.deliver("c", 1)
    story.take("d", 1, again=True)
    assert story.verdict() == ["P4 delivered twice"]


# P5


def test_a_message_that_comes_back_long_after_its_ack_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.wait(1)
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    assert story.verdict() == ["P5 came back"]


def test_an_ack_is_durable_when_a_later_publish_is_confirmed(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.wait(LIMITS.margin_s)
    story.send(2, queues=("b",))
    story.kill("p", "c")
    story.consume("c", "a", "b")
    story.take("c", 1, again=True)
    story.take("c", 2, queue="b")
    assert story.verdict() == ["P5 came back"]


def test_a_publish_before_the_ack_says_nothing_about_it(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.publish(2, "b")
    story.take("c", 1)
    story.wait(LIMITS.margin_s)
    story.confirm(2)
    story.kill("p", "c")
    story.consume("c", "a", "b")
    story.take("c", 1, again=True)
    story.take("c", 2, queue="b")
    assert story.verdict() == []


def test_an_ack_in_the_last_group_may_be_lost_in_a_kill(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    assert story.verdict() == []


def test_an_ack_may_be_lost_once_but_its_second_one_holds(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    story.wait(1)
    story.kill("c")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    assert story.verdict() == ["P5 came back"]


def test_more_returns_after_a_kill_than_the_last_group_can_hold_are_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1, 2, 3, 4)
    story.take("c", 1, 2, 3, 4)
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1, 2, 3, 4, again=True)
    assert story.verdict() == ["P5 too many came back"]


def test_an_acked_message_does_not_come_back_while_its_consumer_lives(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.take("c", 1, again=True)
    assert story.verdict() == ["P5 came back"]


def test_a_committed_ack_is_durable_at_once(story: Story) -> None:
    story.add("transact", channel="c/1")
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.add("commit", channel="c/1")
    story.add("committed", channel="c/1")
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 1, again=True)
    assert story.verdict() == ["P5 came back"]


def test_a_commit_without_an_answer_is_in_doubt(story: Story) -> None:
    story.add("transact", channel="c/1")
    story.consume("c", "a")
    story.send(1, 2)
    story.take("c", 1, 2)
    story.add("commit", channel="c/1")
    story.kill("p", "c")
    story.consume("c", "a")
    story.take("c", 2, again=True)
    assert story.verdict() == []


def test_a_rejected_message_in_both_queues_after_a_kill_is_named(story: Story) -> None:
    story.consume("c", "a", "a.dead")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "drop")
    story.kill("p", "c")
    story.consume("c", "a", "a.dead")
    story.take("c", 1, queue="a.dead")
    story.take("c", 1, again=True)
    assert story.verdict() == ["P5 came back"]


def test_a_rejection_in_the_last_group_may_be_lost_with_its_dead_letter(story: Story) -> None:
    story.consume("c", "a", "a.dead")
    story.send(1)
    story.settle("c", story.deliver("c", 1), "drop")
    story.take("c", 1, queue="a.dead")
    story.kill("p", "c")
    story.consume("c", "a", "a.dead")
    story.settle("c", story.deliver("c", 1, again=True), "drop")
    story.take("c", 1, queue="a.dead")
    assert story.verdict() == []


# P6


def test_a_confirm_for_nothing_is_a_phantom(story: Story) -> None:
    story.confirm(1)
    assert story.verdict() == ["P6 phantom confirm"]


def test_a_second_confirm_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.send(1)
    story.take("c", 1)
    story.confirm(1)
    assert story.verdict() == ["P6 second confirm"]


def test_a_confirmed_message_in_some_of_its_queues_is_a_partial_confirm(story: Story) -> None:
    story.consume("c", "a", "b")
    story.send(1, queues=("a", "b"))
    story.take("c", 1, queue="b")
    assert story.verdict() == ["P6 partial confirm"]


def test_a_refused_message_may_be_in_some_of_its_queues(story: Story) -> None:
    story.consume("c", "a", "b")
    story.publish(1, "a", "b")
    story.confirm(1, ack=False)
    story.take("c", 1, queue="b")
    assert story.verdict() == []


def test_a_mandatory_message_confirmed_without_its_return_is_named(story: Story) -> None:
    story.publish(1, mandatory=True)
    story.confirm(1)
    assert story.verdict() == ["P6 not returned"]


def test_a_publish_without_an_answer_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.publish(1, "a")
    story.take("c", 1)
    story.end("p", "closed")
    assert story.verdict() == ["P6 no answer"]


# P7


def change(story: Story, op: str, kind: str, name: str, *, phase: str = "ok", **fields: object) -> None:
    """Tell of a change of metadata that ended in this phase."""
    story.add("change", phase="invoke", op=op, kind=kind, name=name, **fields)
    if phase != "invoke":
        story.add("change", phase=phase, op=op, kind=kind, name=name, **fields)


def bound(story: Story) -> None:
    """Declare a queue and an exchange and bind them."""
    change(story, "declare", "queue", "q")
    change(story, "declare", "exchange", "x")
    change(story, "declare", "binding", "x-q", exchange="x", queue="q")


@pytest.mark.parametrize("kind", ["queue", "exchange", "binding"])
def test_a_declared_object_that_a_kill_takes_away_is_named(story: Story, kind: str) -> None:
    change(story, "declare", kind, "thing")
    story.kill()
    story.add("observe", kind=kind, name="thing", found=False)
    assert story.verdict() == ["P7 lost"]


@pytest.mark.parametrize("kind", ["queue", "exchange", "binding"])
def test_a_deleted_object_that_is_back_after_a_kill_is_named(story: Story, kind: str) -> None:
    change(story, "declare", kind, "thing")
    change(story, "delete", kind, "thing")
    story.kill()
    story.add("observe", kind=kind, name="thing", found=True)
    assert story.verdict() == ["P7 not gone"]


@pytest.mark.parametrize("found", [True, False])
def test_a_change_without_an_answer_may_go_either_way(story: Story, found: bool) -> None:
    change(story, "declare", "queue", "q", phase="unknown")
    story.kill()
    story.add("observe", kind="queue", name="q", found=found)
    assert story.verdict() == []


def test_a_change_in_doubt_does_not_change_its_mind(story: Story) -> None:
    change(story, "declare", "queue", "q", phase="unknown")
    story.add("observe", kind="queue", name="q", found=True)
    story.add("observe", kind="queue", name="q", found=False)
    assert story.verdict() == ["P7 lost"]


def test_an_object_with_other_arguments_after_a_kill_is_named(story: Story) -> None:
    change(story, "declare", "queue", "q")
    story.kill()
    story.add("observe", kind="queue", name="q", found="different", text="x-max-length")
    assert story.verdict() == ["P7 changed"]


def test_a_half_deleted_queue_is_named(story: Story) -> None:
    bound(story)
    change(story, "delete", "queue", "q", phase="unknown")
    story.kill()
    story.add("observe", kind="queue", name="q", found=True)
    story.add("observe", kind="binding", name="x-q", found=False)
    assert story.verdict() == ["P7 lost"]


def test_a_binding_that_outlives_its_queue_is_named(story: Story) -> None:
    bound(story)
    change(story, "delete", "queue", "q")
    change(story, "declare", "queue", "q")
    story.kill()
    story.add("observe", kind="queue", name="q", found=True)
    story.add("observe", kind="binding", name="x-q", found=True)
    assert story.verdict() == ["P7 not gone"]


def test_a_count_that_no_answer_explains_is_named(story: Story) -> None:
    change(story, "declare", "stock", "q", target=10, queue="q")
    change(story, "declare", "stock", "q", phase="unknown", target=15, queue="q")
    story.kill()
    story.add("observe", kind="stock", name="q", found=12)
    assert story.verdict() == ["P7 wrong count"]


def test_messages_of_a_queue_that_was_not_deleted_after_all_are_all_there(story: Story) -> None:
    change(story, "declare", "queue", "q")
    change(story, "declare", "stock", "q", target=10, queue="q")
    change(story, "delete", "queue", "q", phase="unknown")
    story.kill()
    story.add("observe", kind="queue", name="q", found=True)
    story.add("observe", kind="stock", name="q", found=0)
    assert story.verdict() == ["P7 wrong count"]


def test_messages_of_a_deleted_queue_do_not_come_back(story: Story) -> None:
    change(story, "declare", "queue", "q")
    change(story, "declare", "stock", "q", target=10, queue="q")
    change(story, "delete", "queue", "q")
    change(story, "declare", "queue", "q")
    story.kill()
    story.add("observe", kind="queue", name="q", found=True)
    story.add("observe", kind="stock", name="q", found=10)
    assert story.verdict() == ["P7 wrong count"]


def test_a_routable_message_that_is_returned_shows_a_lost_binding(story: Story) -> None:
    story.publish(1, "a", mandatory=True)
    story.add("returned", channel="p/1", n=1)
    story.kill("p")
    assert story.verdict() == ["P7 binding gone"]


# The service, and the checker itself


def test_a_connection_closed_by_the_broker_is_named(story: Story) -> None:
    story.add("refused", channel="p/1", text="541 INTERNAL_ERROR")
    assert story.verdict() == ["service closed by the broker"]


def test_a_connection_lost_without_a_kill_is_named(story: Story) -> None:
    story.consume("c", "a")
    story.end("c", "lost")
    assert story.verdict() == ["service hung up"]


def test_a_history_whose_queues_were_not_drained_is_not_judged(story: Story) -> None:
    with pytest.raises(HistoryError, match="nobody drained queue a"):
        check(story.events())


def test_a_history_with_a_gap_is_not_judged(story: Story) -> None:
    story.publish(2, "a")
    with pytest.raises(HistoryError, match="follows number 0"):
        check(story.events())


def test_only_so_many_violations_are_listed_and_all_are_counted(story: Story) -> None:
    for _ in range(5):
        story.add("refused", channel="p/1", text="")
    checker = Checker(replace(LIMITS, violations=2))
    for event in story.events():
        checker.feed(event)
    assert (len(checker.violations), checker.counts["violations"]) == (2, 5)


def test_a_history_file_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with path.open("w", encoding="utf-8") as sink:
        History(sink, now=lambda: 1.5).add("kill", text="café \udcff")
    assert list(read(path)) == [{"t": 1.5, "event": "kill", "text": "café \udcff"}]


def test_the_records_of_settled_messages_are_thrown_away(story: Story) -> None:
    story.consume("c", "a")
    checker = Checker(LIMITS)
    for n in range(1, 1001):
        story.send(n)
        story.take("c", n)
    for event in story.events():
        checker.feed(event)
    kept = len(checker._channels["p/1"].messages)
    assert kept < LIMITS.quiet_s / 0.004 + 2


def test_fifty_thousand_events_are_checked_in_the_time_of_a_million_a_minute(story: Story) -> None:
    story.consume("c", "a")
    for n in range(1, 12_501):
        story.send(n)
        story.take("c", n)
    events = list(story.events())
    began = time.process_time()
    check(
        [
            *events,
            *({"t": story.t, "event": "drained", "queue": q, "messages": 0} for q in ("a", "b", "a.dead")),
        ]
    )
    assert time.process_time() - began < 60 * len(events) / 1_000_000
