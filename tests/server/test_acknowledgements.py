"""Ack, nack, reject and recover; where requeued messages go, and what redelivered tells.

Source: RabbitMQ guides "Consumer Acknowledgements", "Negative Acknowledgements"; AMQP 0-9-1 class basic (60).
"""

from __future__ import annotations

import pytest
from pamqp import commands

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

ACK, NACK, REJECT = (60, 80), (60, 120), (60, 90)


def unacked(count: int, **queue: object) -> ChannelOfTest:
    """A channel with deliveries 1, 2, ... of queue "q" outstanding, and no consumer any more."""
    channel = Broker().channel()
    channel.declare("q", **queue)
    channel.publish_all("q", *bodies(range(1, count + 1)))
    channel.consume("q")
    channel.cancel()
    assert channel.bodies() == bodies(range(1, count + 1))
    return channel


def bodies(numbers: range | list[int]) -> list[bytes]:
    return [str(number).encode() for number in numbers]


def refusal(channel: ChannelOfTest) -> tuple[int, str, tuple[int, int], bool]:
    with pytest.raises(Refused) as caught:
        channel.check_open()
    return caught.value.code, caught.value.text, caught.value.method_ids, caught.value.is_hard


# Tags


def test_an_acked_message_is_gone() -> None:
    channel = unacked(1)
    channel.ack(1)
    channel.close()
    channel = channel.client.channel(2)
    assert channel.ready("q") == 0


def test_a_tag_can_be_acked_once() -> None:
    channel = unacked(2)
    channel.ack(1)
    channel.ack(1)
    assert refusal(channel) == (406, "PRECONDITION_FAILED - unknown delivery tag 1", ACK, False)


def test_acks_in_front_of_a_wrong_one_count() -> None:
    channel = unacked(3)
    with channel.client.at_once():
        channel.ack(2)
        channel.ack(9)
        channel.ack(1)
    assert refusal(channel)[1] == "PRECONDITION_FAILED - unknown delivery tag 9"
    channel.reopen()
    assert channel.drain("q") == bodies([1, 3])


@pytest.mark.parametrize("multiple", [False, True])
def test_a_tag_that_never_was_is_unknown(multiple: bool) -> None:
    channel = unacked(1)
    channel.nack(5, multiple=multiple)
    assert refusal(channel) == (406, "PRECONDITION_FAILED - unknown delivery tag 5", NACK, False)


def test_a_rejected_tag_must_be_outstanding() -> None:
    channel = unacked(1)
    channel.reject(0)
    assert refusal(channel) == (406, "PRECONDITION_FAILED - unknown delivery tag 0", REJECT, False)


def test_multiple_settles_everything_up_to_the_tag() -> None:
    channel = unacked(5)
    channel.ack(3, multiple=True)
    channel.close()
    assert channel.client.channel(2).drain("q") == bodies([4, 5])


def test_multiple_needs_its_own_tag_outstanding() -> None:
    channel = unacked(3)
    channel.ack(2)
    channel.ack(2, multiple=True)
    assert refusal(channel) == (406, "PRECONDITION_FAILED - unknown delivery tag 2", ACK, False)


def test_multiple_with_tag_zero_settles_everything() -> None:
    channel = unacked(3)
    channel.ack(2)
    channel.ack(0, multiple=True)
    channel.close()
    assert channel.client.channel(2).ready("q") == 0


def test_multiple_with_tag_zero_may_find_nothing() -> None:
    channel = Broker().channel()
    channel.ack(0, multiple=True)
    channel.nack(0, multiple=True)
    channel.check_open()


def test_tag_zero_alone_is_unknown() -> None:
    channel = unacked(1)
    channel.ack(0)
    assert refusal(channel) == (406, "PRECONDITION_FAILED - unknown delivery tag 0", ACK, False)


def test_multiple_skips_what_is_settled_or_never_needed_it() -> None:
    channel = unacked(4)
    channel.publish("q", b"5")
    assert channel.get("q", no_ack=True) is not None
    channel.publish("q", b"6")
    assert channel.get("q", no_ack=False) is not None
    channel.ack(2)
    channel.ack(6, multiple=True)
    channel.check_open()
    channel.close()
    assert channel.client.channel(2).ready("q") == 0


def test_multiple_settles_messages_that_were_got_from_several_queues() -> None:
    broker = Broker()
    channel = broker.channel()
    for queue in "pqr":
        channel.declare(queue, durable=True)
        channel.publish(queue, b"1", properties=PERSISTENT)
        channel.publish(queue, b"2", properties=PERSISTENT)
        channel.get(queue, no_ack=False)
    channel.ack(3, multiple=True)
    broker.restart()
    assert [broker.channel().drain(queue) for queue in "pqr"] == [[b"2"]] * 3


def test_tags_of_another_channel_are_unknown() -> None:
    channel = unacked(1)
    other = channel.client.channel(2)
    other.ack(1)
    assert refusal(other)[1] == "PRECONDITION_FAILED - unknown delivery tag 1"
    channel.ack(1)
    channel.check_open()


# Back into the queue


def test_requeued_messages_return_to_their_places() -> None:
    channel = unacked(5)
    channel.publish("q", b"6")
    channel.nack(4)
    channel.nack(2)
    channel.consume("q", "d")
    assert channel.bodies() == bodies([2, 4, 6])


def test_a_nack_of_all_keeps_the_order() -> None:
    channel = unacked(5)
    channel.nack(0, multiple=True)
    assert channel.drain("q") == bodies(range(1, 6))


def test_a_requeued_message_comes_at_once_to_the_only_consumer() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1")
    channel.consume("q")
    channel.reject(1, requeue=True)
    first, second = channel.delivered()
    assert [is_redelivered(first), is_redelivered(second)] == [False, True]
    assert delivery_tag(second) == 2


def test_a_message_rejected_for_good_is_gone() -> None:
    channel = unacked(2)
    channel.reject(1)
    channel.nack(2, requeue=False)
    channel.close()
    assert channel.client.channel(2).ready("q") == 0


def test_a_lost_channel_requeues_in_order() -> None:
    channel = unacked(5)
    channel.publish("q", b"6")
    channel.ack(3)
    channel.nack(2)
    channel.close()
    assert channel.client.channel(2).drain("q") == bodies([1, 2, 4, 5, 6])


def test_a_lost_connection_requeues_in_order_and_marks_what_was_out() -> None:
    channel = unacked(3)
    channel.publish("q", b"4")
    broker = channel.broker
    channel.client.vanish()
    channel = broker.channel()
    messages = [channel.get("q") for _ in range(4)]
    assert [(m.body, is_redelivered(m)) for m in messages if m is not None] == [
        (b"1", True),
        (b"2", True),
        (b"3", True),
        (b"4", False),
    ]


def test_a_lost_channel_s_messages_go_to_who_is_left() -> None:
    broker = Broker()
    one, two = broker.channel(), broker.channel()
    one.declare("q")
    one.consume("q")
    one.publish_all("q", b"1", b"2")
    two.consume("q")
    assert two.bodies() == []
    one.client.vanish()
    assert two.bodies() == [b"1", b"2"]


def test_messages_of_several_queues_go_back_each_to_its_own() -> None:
    channel = Broker().channel()
    channel.declare("p")
    channel.declare("q")
    channel.consume("p", "p")
    channel.consume("q", "q")
    for number in range(1, 7):
        channel.publish("pq"[number % 2], str(number).encode())
    channel.cancel("p")
    channel.cancel("q")
    channel.nack(5, multiple=True)
    assert channel.drain("q") == bodies([1, 3, 5])
    assert channel.drain("p") == bodies([2, 4])


def test_two_channels_hold_messages_that_return_in_order() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    one.publish_all("q", *bodies(range(1, 9)))
    for number in range(8):
        (one, two)[number % 2].get("q", no_ack=False)
    two.nack(0, multiple=True)
    one.nack(3, multiple=True)
    assert one.drain("q") == bodies([1, 2, 3, 4, 5, 6, 8])


# Recover


def test_recover_requeues_everything_before_recover_ok() -> None:
    channel = unacked(3)
    channel.ack(2)
    channel.recover()
    messages = [channel.get("q"), channel.get("q")]
    assert [(m.body, is_redelivered(m)) for m in messages if m is not None] == [(b"1", True), (b"3", True)]


def test_recovered_tags_are_unknown() -> None:
    channel = unacked(1)
    channel.recover()
    channel.ack(1)
    assert refusal(channel)[1] == "PRECONDITION_FAILED - unknown delivery tag 1"


def test_recovered_messages_may_come_back_to_the_same_consumer() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish_all("q", b"1", b"2")
    channel.consume("q")
    channel.delivered()
    channel.send(commands.Basic.Recover, requeue=True)
    assert channel.names() == ["Basic.RecoverOk", "Basic.Deliver", "Basic.Deliver"]


def test_recover_async_has_no_reply() -> None:
    channel = unacked(2)
    channel.send(commands.Basic.RecoverAsync, requeue=True)
    assert channel.names() == []
    assert channel.ready("q") == 2


@pytest.mark.parametrize(
    ("method", "ids"), [(commands.Basic.Recover, (60, 110)), (commands.Basic.RecoverAsync, (60, 100))]
)
def test_recover_without_requeue_is_not_implemented(
    method: type[commands.Basic.Recover], ids: tuple[int, int]
) -> None:
    channel = unacked(1)
    channel.send(method, requeue=False)
    assert refusal(channel) == (540, "NOT_IMPLEMENTED - requeue=false", ids, True)
