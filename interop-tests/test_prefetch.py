"""basic.qos: limits per consumer and per channel, also changed while consumers run."""

from __future__ import annotations

import pytest
from blocking import Inbox, ready
from pika.adapters.blocking_connection import BlockingChannel


@pytest.fixture
def full(channel: BlockingChannel, queue: str) -> str:
    """The name of a queue with ten messages."""
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    return queue


def test_without_a_limit_everything_is_delivered(channel: BlockingChannel, full: str) -> None:
    assert len(Inbox(channel, full).wait_for(10)) == 10


def test_a_consumer_holds_no_more_than_its_limit(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=3)

    assert len(Inbox(channel, full).after_a_while()) == 3


def test_every_ack_makes_room_for_one_more(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, full)
    inbox.wait_for(3)

    channel.basic_ack(inbox.deliveries[1].method.delivery_tag)

    inbox.wait_for(4)
    assert len(inbox.after_a_while()) == 4


def test_an_ack_of_several_makes_room_for_several(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, full)
    inbox.wait_for(3)

    channel.basic_ack(inbox.deliveries[2].method.delivery_tag, multiple=True)

    inbox.wait_for(6)
    assert len(inbox.after_a_while()) == 6


def test_a_reject_makes_room_as_well(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, full)
    inbox.wait_for(1)

    channel.basic_reject(inbox.deliveries[0].method.delivery_tag, requeue=False)

    inbox.wait_for(2)
    assert inbox.bodies == [b"0", b"1"]


def test_each_consumer_has_its_own_limit(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=2)
    inboxes = [Inbox(channel, full) for _ in range(2)]
    for inbox in inboxes:
        inbox.wait_for(2)

    assert [len(inbox.after_a_while()) for inbox in inboxes] == [2, 2]


def test_a_new_limit_applies_to_new_consumers_only(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=1)
    old = Inbox(channel, full)
    old.wait_for(1)
    channel.basic_qos(prefetch_count=4)
    new = Inbox(channel, full)
    new.wait_for(4)

    assert (len(old.after_a_while()), len(new.deliveries)) == (1, 4)


def test_consumers_without_acknowledgement_have_no_limit(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=1)

    assert len(Inbox(channel, full, auto_ack=True).wait_for(10)) == 10


def test_messages_taken_with_get_do_not_count(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=1)
    channel.basic_get(full)

    assert len(Inbox(channel, full).wait_for(1)) == 1


def test_a_channel_limit_is_shared_by_its_consumers(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=3, global_qos=True)
    inboxes = [Inbox(channel, full) for _ in range(2)]
    inboxes[0].after_a_while()

    assert sum(len(inbox.deliveries) for inbox in inboxes) == 3


def test_a_channel_limit_is_not_shared_between_channels(
    channel: BlockingChannel, second_channel: BlockingChannel, full: str
) -> None:
    inboxes = []
    for each in (channel, second_channel):
        each.basic_qos(prefetch_count=3, global_qos=True)
        inboxes.append(Inbox(each, full))
    inboxes[0].after_a_while()

    assert [len(inbox.deliveries) for inbox in inboxes] == [3, 3]


def test_both_limits_count(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=5, global_qos=True)
    channel.basic_qos(prefetch_count=3)
    channel.basic_qos(prefetch_count=5, global_qos=True)
    inboxes = [Inbox(channel, full) for _ in range(2)]
    inboxes[0].after_a_while()

    assert sorted(len(inbox.deliveries) for inbox in inboxes) == [2, 3]


def test_raising_the_channel_limit_serves_running_consumers_at_once(
    channel: BlockingChannel, full: str
) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    inbox = Inbox(channel, full)
    inbox.wait_for(2)

    channel.basic_qos(prefetch_count=5, global_qos=True)

    inbox.wait_for(5)
    assert len(inbox.after_a_while()) == 5


def test_removing_the_channel_limit_serves_running_consumers_at_once(
    channel: BlockingChannel, full: str
) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    inbox = Inbox(channel, full)
    inbox.wait_for(2)

    channel.basic_qos(prefetch_count=0, global_qos=True)

    assert len(inbox.wait_for(10)) == 10


def test_lowering_the_channel_limit_takes_nothing_back(channel: BlockingChannel, full: str) -> None:
    channel.basic_qos(prefetch_count=4, global_qos=True)
    inbox = Inbox(channel, full)
    inbox.wait_for(4)
    channel.basic_qos(prefetch_count=2, global_qos=True)

    channel.basic_ack(inbox.deliveries[1].method.delivery_tag, multiple=True)

    assert len(inbox.after_a_while()) == 4
    channel.basic_ack(inbox.deliveries[3].method.delivery_tag, multiple=True)
    inbox.wait_for(6)
    assert len(inbox.after_a_while()) == 6


def test_a_full_consumer_leaves_the_rest_to_others(
    channel: BlockingChannel, other_channel: BlockingChannel, full: str
) -> None:
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, full)
    first.wait_for(2)
    second = Inbox(other_channel, full)
    second.wait_for(8)

    assert (first.bodies, second.bodies) == ([b"0", b"1"], [b"%d" % number for number in range(2, 10)])


def test_what_is_not_delivered_stays_ready(
    channel: BlockingChannel, second_channel: BlockingChannel, full: str
) -> None:
    channel.basic_qos(prefetch_count=4)
    Inbox(channel, full).wait_for(4)

    assert ready(second_channel, full) == 6


def test_cancelling_a_consumer_keeps_its_messages_in_the_channel_limit(
    channel: BlockingChannel, full: str
) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    first = Inbox(channel, full)
    first.wait_for(2)
    channel.basic_cancel(first.tag)
    second = Inbox(channel, full)
    assert second.after_a_while() == []

    channel.basic_ack(first.deliveries[0].method.delivery_tag)

    assert second.wait_for(1)[0].body == b"2"
