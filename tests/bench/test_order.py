"""Every way in which messages and confirms can go wrong is found, counted once, and named."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.bench.order import Confirms, Faults, Order
from leveret.broker.bench.scenarios import TOPIC_KEYS, topic_positions


def judged(
    numbers: Iterable[int], published: int, positions: tuple[int, ...] = (0,), cycle: int = 1
) -> list[str]:
    """Return what is said of a queue to which these messages came."""
    faults = Faults()
    order = Order("queue", faults, cycle, positions)
    for number in numbers:
        order.take(number)
    order.finish(published)
    return faults.describe()


def test_messages_that_come_once_and_in_order_are_right() -> None:
    assert judged([1, 2, 3], 3) == []


def test_a_lost_message_is_named() -> None:
    assert judged([1, 2, 4], 4) == ["1 lost (first: message 3 of queue)"]


def test_the_last_message_may_be_the_lost_one() -> None:
    assert judged([1, 2], 4) == ["2 lost (first: message 3 of queue)"]


def test_a_queue_to_which_nothing_came_has_lost_all() -> None:
    assert judged([], 5) == ["5 lost (first: message 1 of queue)"]


def test_a_message_delivered_twice_is_named() -> None:
    assert judged([1, 2, 2, 3], 3) == ["1 delivered twice (first: message 2 of queue)"]


def test_a_message_that_comes_late_is_out_of_order_and_not_lost() -> None:
    assert judged([1, 3, 2], 3) == ["1 out of order (first: message 2 of queue came late)"]


def test_a_message_that_nobody_published_is_named() -> None:
    assert judged([1, 2], 1) == ["1 never published (first: message 2 in queue)"]


def test_a_message_for_another_queue_is_named() -> None:
    assert judged([1, 2, 5], 8, positions=(0,), cycle=4) == [
        "1 in a queue that is not bound for it (first: message 2 in queue)"
    ]


def test_a_queue_bound_to_some_keys_is_due_their_messages_only() -> None:
    assert judged([2, 4, 6, 8], 8, positions=(1, 3), cycle=4) == []
    assert judged([2, 6, 8], 8, positions=(1, 3), cycle=4) == ["1 lost (first: message 4 of queue)"]


def test_ever_so_many_lost_messages_are_counted_without_being_remembered() -> None:
    assert judged([1, 10_000_000], 10_000_000) == ["9,999,998 lost (first: message 2 of queue)"]


def test_faults_of_a_kind_are_counted_and_the_first_is_told() -> None:
    faults, others = Faults(), Faults()
    faults.add("lost", "message 1")
    others.add("lost", "message 7", 2)
    others.add("damaged", "message 8")
    faults.merge(others)
    assert faults.describe() == ["3 lost (first: message 1)", "1 damaged (first: message 8)"]


@given(st.lists(st.integers(1, 6), max_size=9))
def test_only_all_messages_once_and_in_order_pass(numbers: list[int]) -> None:
    assert (judged(numbers, 6) == []) == (numbers == [1, 2, 3, 4, 5, 6])


@given(st.integers(0, TOPIC_KEYS - 1), st.integers(0, 350))
def test_the_count_of_due_messages_is_that_of_the_bound_positions(queue: int, published: int) -> None:
    positions = topic_positions(queue)
    due = [number for number in range(1, published + 1) if (number - 1) % TOPIC_KEYS in positions]
    assert Order("queue", Faults(), TOPIC_KEYS, positions).count(published) == len(due)
    assert judged(due, published, positions, TOPIC_KEYS) == []


# -- confirms


def confirmed(*frames: tuple[int, bool], published: int, is_nack: bool = False) -> list[str]:
    """Return what is said of a channel with these confirms, each a tag and whether it is for all up to it."""
    faults = Faults()
    confirms = Confirms("channel", faults)
    for tag, multiple in frames:
        confirms.take(tag, multiple, published, is_nack)
    confirms.finish(published)
    return faults.describe()


def test_each_publish_confirmed_once_is_right_in_any_order() -> None:
    assert confirmed((3, False), (1, False), (2, False), (5, True), published=5) == []


def test_a_confirm_for_all_covers_single_ones_before_it() -> None:
    assert confirmed((2, False), (4, False), (3, True), published=4) == []


def test_tag_0_confirms_all_that_was_published() -> None:
    assert confirmed((1, False), (0, True), published=9) == []


def test_a_publish_that_is_never_confirmed_is_named() -> None:
    assert confirmed((1, False), (3, False), published=3) == [
        "1 never confirmed (first: publish 2 on channel)"
    ]


def test_a_publish_confirmed_twice_is_named() -> None:
    assert confirmed((1, False), (1, False), published=1) == [
        "1 confirmed twice (first: publish 1 on channel)"
    ]
    assert confirmed((2, True), (2, True), published=2) == [
        "1 confirmed twice (first: publish 2 and all before it on channel)"
    ]


def test_a_confirm_for_what_was_never_published_is_named() -> None:
    assert confirmed((1, False), (2, False), published=1) == [
        "1 confirmed that were never published (first: publish 2 on channel)"
    ]


def test_a_refused_publish_is_named() -> None:
    assert confirmed((1, False), published=1, is_nack=True) == [
        "1 refused with basic.nack (first: publish 1 on channel)"
    ]
