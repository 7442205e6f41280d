"""basic.get, consume and cancel, whose turn it is, and how much a consumer is given.

Source: RabbitMQ guides "Consumers", "Consumer Prefetch", "Consumer Priorities"; AMQP 0-9-1 class basic (60).
"""

from __future__ import annotations

import pytest
from pamqp import commands

from ..peer import Content
from .harness import Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered, messages_left

IN_USE = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"


def queue_of(channel: ChannelOfTest, count: int) -> str:
    """Declare a queue with messages 1, 2, ..."""
    queue = channel.declare("q")
    channel.publish_all(queue, *bodies(1, count))
    return queue


def bodies(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last + 1)]


# basic.get


def test_get_tells_how_many_messages_are_left() -> None:
    channel = Broker().channel()
    queue_of(channel, 3)
    messages = [channel.get("q", no_ack=False) for _ in range(3)]
    assert [messages_left(message) for message in messages if message] == [2, 1, 0]
    assert [delivery_tag(message) for message in messages if message] == [1, 2, 3]
    assert channel.get("q") is None


def test_get_from_a_missing_queue_is_not_found() -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.get("nope")
    assert refused.value.text == "NOT_FOUND - no queue 'nope' in vhost '/'"
    assert refused.value.method_ids == (60, 70)


def test_an_empty_queue_name_is_the_queue_last_declared() -> None:
    channel = Broker().channel()
    queue_of(channel, 2)
    message = channel.get()
    assert message is not None
    assert message.body == b"1"
    channel.consume(no_ack=True)
    assert channel.bodies() == [b"2"]


def test_an_empty_queue_name_without_a_declare_is_not_found() -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.get()
    assert refused.value.text == "NOT_FOUND - no previously declared queue"


def test_get_works_beside_an_exclusive_consumer() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    channel.qos(1)
    channel.consume("q", exclusive=True)
    channel.publish_all("q", b"1", b"2")
    message = other.get("q")
    assert message is not None
    assert message.body == b"2"


def test_get_ignores_prefetch() -> None:
    channel = Broker().channel()
    queue_of(channel, 3)
    channel.qos(1, globally=True)
    assert [channel.get("q", no_ack=False) is not None for _ in range(3)] == [True] * 3


def test_what_get_took_does_not_count_against_prefetch() -> None:
    channel = Broker().channel()
    queue_of(channel, 5)
    channel.qos(2, globally=True)
    channel.get("q", no_ack=False)
    channel.consume("q")
    assert channel.bodies() == [b"2", b"3"]


# basic.consume


def test_consume_ok_comes_before_the_first_delivery() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c")
    assert channel.names() == ["Basic.ConsumeOk", "Basic.Deliver"]


def test_consume_without_wait_has_no_consume_ok() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c", nowait=True)
    assert channel.names() == ["Basic.Deliver"]


def test_the_server_chooses_a_tag_for_an_empty_one() -> None:
    channel = Broker().channel()
    channel.declare("q")
    reply = channel.call(commands.Basic.Consume, queue="q").method
    assert isinstance(reply, commands.Basic.ConsumeOk)
    tag = reply.consumer_tag or ""
    assert tag.startswith("amq.ctag-")
    assert len(tag) == len("amq.ctag-") + 22


def test_a_tag_in_use_on_the_channel_closes_the_connection() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q", "t")
    with pytest.raises(Refused) as refused:
        channel.consume("q", "t")
    assert refused.value.is_hard
    assert refused.value.text == "NOT_ALLOWED - attempt to reuse consumer tag 't'"
    assert refused.value.method_ids == (60, 20)


def test_a_channel_has_so_many_consumers_at_most() -> None:
    channel = Broker(consumers_per_channel=2).channel()
    channel.declare("q")
    channel.consume("q", "1")
    channel.consume("q", "2")
    with pytest.raises(Refused) as refused:
        channel.consume("q", "3")
    text = "NOT_ALLOWED - reached maximum (2) of consumers per channel"
    assert (refused.value.code, refused.value.text, refused.value.method_ids) == (530, text, (60, 20))


def test_a_tag_may_be_in_use_on_another_channel() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    one.consume("q", "t")
    two.consume("q", "t")
    assert one.counts("q") == (0, 2)


def test_a_cancelled_tag_may_be_used_again() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.consume("q", "t")
    channel.cancel("t")
    channel.consume("q", "t")
    assert channel.counts("q") == (0, 1)


def test_an_exclusive_consumer_keeps_others_away() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    channel.consume("q", exclusive=True)
    with pytest.raises(Refused) as refused:
        other.consume("q")
    assert (refused.value.code, refused.value.text, refused.value.method_ids) == (403, IN_USE, (60, 20))
    other.reopen()
    channel.cancel()
    other.consume("q")


def test_an_exclusive_consumer_wants_to_be_the_only_one() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    channel.consume("q")
    with pytest.raises(Refused) as refused:
        other.consume("q", exclusive=True)
    assert refused.value.text == IN_USE


def test_exclusive_use_ends_with_its_channel() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    channel.consume("q", exclusive=True)
    channel.close()
    other.consume("q")


def test_no_local_is_ignored() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.consume("q", no_local=True)
    assert channel.bodies() == [b"1"]


def test_a_consumer_priority_must_be_an_integer() -> None:
    channel = Broker().channel()
    channel.declare("q")
    with pytest.raises(Refused) as refused:
        channel.consume("q", arguments={"x-priority": "high"})
    text = (
        "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': "
        '"expected integer, got longstr"'
    )
    assert (refused.value.text, refused.value.method_ids) == (text, (60, 20))


def test_deliveries_without_ack_have_tags_and_leave_nothing_unacked() -> None:
    channel = Broker().channel()
    queue_of(channel, 2)
    channel.consume("q", no_ack=True)
    assert [delivery_tag(delivery) for delivery in channel.delivered()] == [1, 2]
    channel.ack(1)
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == "PRECONDITION_FAILED - unknown delivery tag 1"
    channel.reopen()
    assert channel.ready("q") == 0


def test_tags_count_deliveries_of_all_consumers_and_gets() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.declare("p")
    channel.publish_all("p", b"a", b"b")
    channel.consume("q", "c")
    assert delivery_tag(channel.delivered()[0]) == 1
    message = channel.get("p")
    assert message is not None
    assert delivery_tag(message) == 2
    channel.consume("p", "d", no_ack=True)
    assert delivery_tag(channel.delivered()[0]) == 3


def test_redelivered_is_false_the_first_time() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.consume("q")
    assert not is_redelivered(channel.delivered()[0])


# basic.cancel


def test_cancel_ok_comes_after_the_last_delivery() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q")
    with channel.client.at_once():
        channel.publish("q", b"1")
        channel.send(commands.Basic.Cancel, consumer_tag="c")
        channel.publish("q", b"2")
    assert channel.names() == ["Basic.Deliver", "Basic.CancelOk"]
    assert channel.ready("q") == 1


def test_an_unknown_tag_is_cancelled_all_the_same() -> None:
    channel = Broker().channel()
    reply = channel.call(commands.Basic.Cancel, consumer_tag="nope").method
    assert isinstance(reply, commands.Basic.CancelOk)
    assert reply.consumer_tag == "nope"


def test_what_a_cancelled_consumer_has_can_still_be_acked() -> None:
    channel = Broker().channel()
    queue_of(channel, 2)
    channel.qos(1)
    channel.consume("q")
    channel.cancel()
    channel.ack(1)
    channel.close()
    channel = channel.client.channel(2)
    assert channel.drain("q") == [b"2"]


def test_what_a_cancelled_consumer_has_goes_back_with_its_channel() -> None:
    channel = Broker().channel()
    queue_of(channel, 2)
    channel.consume("q")
    channel.cancel()
    assert channel.ready("q") == 0
    channel.close()
    channel = channel.client.channel(2)
    assert channel.drain("q") == [b"1", b"2"]


def test_a_cancel_ok_of_the_client_is_accepted() -> None:
    channel = Broker().channel()
    channel.send(commands.Basic.CancelOk, consumer_tag="c")
    channel.declare("q")


def test_consumers_hear_that_their_queue_was_deleted() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    channel.consume("q", "mine")
    other.consume("q", "theirs")
    channel.send(commands.Queue.Delete, queue="q")
    assert channel.names() == ["Queue.DeleteOk", "Basic.Cancel"]
    notice = other.reply("Basic.Cancel").method
    assert isinstance(notice, commands.Basic.Cancel)
    assert (notice.consumer_tag, notice.nowait) == ("theirs", True)


def test_a_durable_queue_s_own_consumer_hears_of_its_deletion_after_delete_ok() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.consume("q")
    broker.hold_store()
    channel.send(commands.Queue.Delete, queue="q")
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == ["Queue.DeleteOk", "Basic.Cancel"]


def test_a_client_that_does_not_understand_cancel_hears_nothing() -> None:
    broker = Broker()
    channel, other = broker.channel(), broker.channel(client_properties={})
    channel.declare("q")
    other.consume("q")
    channel.delete("q")
    assert other.take() == []


def test_a_tag_is_free_again_after_its_queue_was_deleted() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q", "t")
    channel.delete("q")
    channel.declare("q")
    channel.consume("q", "t")


def test_deliveries_of_a_deleted_queue_can_still_be_acked() -> None:
    channel = Broker().channel()
    queue_of(channel, 3)
    channel.consume("q")
    channel.delete("q")
    channel.ack(1)
    channel.reject(2, requeue=True)
    channel.nack(3, requeue=False)
    channel.check_open()


# Whose turn it is


def test_consumers_take_turns() -> None:
    client = Broker().connect()
    channels = [client.channel(number) for number in (1, 2, 3)]
    channels[0].declare("q")
    for channel in channels:
        channel.consume("q")
    channels[0].publish_all("q", *bodies(1, 7))
    assert [channel.bodies() for channel in channels] == [
        [b"1", b"4", b"7"],
        [b"2", b"5"],
        [b"3", b"6"],
    ]
    channels[0].publish_all("q", *bodies(8, 9))
    assert [channel.bodies() for channel in channels] == [[], [b"8"], [b"9"]]


def test_a_consumer_without_room_is_passed_over() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    one.qos(1)
    one.consume("q")
    two.consume("q")
    one.publish_all("q", *bodies(1, 5))
    assert one.bodies() == [b"1"]
    assert two.bodies() == bodies(2, 5)


def test_messages_go_to_whoever_has_room_until_nobody_has() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    one.qos(2)
    one.consume("q")
    two.qos(3)
    two.consume("q")
    one.publish_all("q", *bodies(1, 9))
    assert sorted(one.bodies() + two.bodies()) == bodies(1, 5)
    assert one.ready("q") == 4


def test_higher_priority_is_served_first() -> None:
    client = Broker().connect()
    low, high = client.channel(1), client.channel(2)
    low.declare("q")
    low.consume("q", arguments={"x-priority": -1})
    high.qos(2)
    high.consume("q", arguments={"x-priority": 5})
    low.publish_all("q", *bodies(1, 4))
    assert high.bodies() == [b"1", b"2"]
    assert low.bodies() == [b"3", b"4"]


def test_a_single_active_consumer_gets_everything_until_it_goes() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q", arguments={"x-single-active-consumer": True})
    one.qos(2)
    one.consume("q")
    two.consume("q", arguments={"x-priority": 10})
    one.publish_all("q", *bodies(1, 4))
    assert (one.bodies(), two.bodies()) == ([b"1", b"2"], [])
    one.cancel()
    assert two.bodies() == [b"3", b"4"]


def test_consumers_of_one_channel_take_turns_and_the_channel_gets_messages_in_order() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.consume("q", "a")
    channel.consume("q", "b")
    channel.publish_all("q", *bodies(1, 5))
    deliveries = channel.delivered()
    assert [delivery.body for delivery in deliveries] == bodies(1, 5)
    assert [delivery_tag(delivery) for delivery in deliveries] == [1, 2, 3, 4, 5]
    assert [
        delivery.method.consumer_tag
        for delivery in deliveries
        if isinstance(delivery.method, commands.Basic.Deliver)
    ] == ["a", "b", "a", "b", "a"]


def test_after_the_single_active_consumer_comes_the_highest_priority_and_keeps_its_place() -> None:
    client = Broker().connect()
    one, two, three, four = (client.channel(number) for number in (1, 2, 3, 4))
    one.declare("q", arguments={"x-single-active-consumer": True})
    one.consume("q")
    two.consume("q")
    three.consume("q", arguments={"x-priority": 1})
    one.cancel()
    one.publish("q", b"1")
    four.consume("q", arguments={"x-priority": 2})
    one.publish("q", b"2")
    assert [channel.bodies() for channel in (one, two, three, four)] == [[], [], [b"1", b"2"], []]
    three.cancel()
    one.publish("q", b"3")
    four.cancel()
    one.publish("q", b"4")
    assert [channel.bodies() for channel in (one, two, three, four)] == [[], [b"4"], [], [b"3"]]


def test_a_single_active_consumer_cannot_be_exclusive() -> None:
    channel = Broker().channel()
    channel.declare("q", arguments={"x-single-active-consumer": True})
    with pytest.raises(Refused) as refused:
        channel.consume("q", exclusive=True)
    assert refused.value.text == IN_USE


# Prefetch


def test_a_consumer_gets_no_more_than_its_prefetch_count() -> None:
    channel = Broker().channel()
    queue_of(channel, 5)
    channel.qos(2)
    channel.consume("q")
    assert channel.bodies() == [b"1", b"2"]
    channel.ack(1)
    assert channel.bodies() == [b"3"]
    channel.ack(3, multiple=True)
    assert channel.bodies() == [b"4", b"5"]


def test_each_consumer_has_its_own_prefetch_count() -> None:
    channel = Broker().channel()
    queue_of(channel, 5)
    channel.qos(2)
    channel.consume("q", "a")
    channel.consume("q", "b")
    assert (channel.bodies("a"), channel.bodies("b")) == ([b"1", b"2"], [b"3", b"4"])


@pytest.mark.parametrize("singly", [True, False])
def test_acks_make_room_for_the_consumer_that_had_the_message(singly: bool) -> None:
    channel = Broker().channel()
    queue_of(channel, 9)
    channel.declare("p")
    channel.publish_all("p", b"x", b"y")
    channel.qos(2)
    channel.consume("q", "a")
    channel.consume("q", "b")
    channel.qos(1)
    channel.consume("p", "c")
    assert [channel.bodies(tag) for tag in "abc"] == [[b"1", b"2"], [b"3", b"4"], [b"x"]]
    if singly:
        with channel.client.at_once():
            for tag in (1, 2, 3, 5):
                channel.ack(tag)
    else:
        channel.ack(3, multiple=True)
        channel.ack(5)
    assert (len(channel.bodies("a")), len(channel.bodies("b")), channel.bodies("c")) == (2, 1, [b"y"])


def test_a_changed_prefetch_count_is_for_later_consumers() -> None:
    channel = Broker().channel()
    queue_of(channel, 6)
    channel.qos(1)
    channel.consume("q", "a")
    channel.qos(3)
    assert channel.bodies("a") == [b"1"]
    channel.consume("q", "b")
    assert channel.bodies("b") == [b"2", b"3", b"4"]


def test_a_global_prefetch_count_is_shared() -> None:
    channel = Broker().channel()
    queue_of(channel, 6)
    channel.qos(3, globally=True)
    channel.consume("q", "a")
    channel.consume("q", "b")
    assert channel.bodies() == [b"1", b"2", b"3"]
    channel.ack(1)
    assert channel.bodies() == [b"4"]


def test_a_global_prefetch_count_is_shared_over_queues() -> None:
    channel = Broker().channel()
    queue_of(channel, 3)
    channel.declare("p")
    channel.publish_all("p", b"a", b"b")
    channel.qos(3, globally=True)
    channel.consume("q", "a")
    channel.consume("p", "b")
    assert (channel.bodies("a"), channel.bodies("b")) == (bodies(1, 3), [])
    channel.ack(3, multiple=True)
    assert channel.bodies("b") == [b"a", b"b"]


def test_a_changed_global_prefetch_count_holds_at_once() -> None:
    channel = Broker().channel()
    queue_of(channel, 6)
    channel.qos(1, globally=True)
    channel.consume("q")
    assert channel.bodies() == [b"1"]
    channel.qos(3, globally=True)
    assert channel.bodies() == [b"2", b"3"]
    channel.qos(1, globally=True)
    channel.ack(2, multiple=True)
    assert channel.bodies() == []
    channel.ack(3)
    assert channel.bodies() == [b"4"]
    channel.qos(0, globally=True)
    assert channel.bodies() == [b"5", b"6"]


def test_local_and_global_prefetch_hold_together() -> None:
    channel = Broker().channel()
    queue_of(channel, 9)
    channel.qos(2)
    channel.qos(3, globally=True)
    channel.consume("q", "a")
    channel.consume("q", "b")
    assert (channel.bodies("a"), channel.bodies("b")) == ([b"1", b"2"], [b"3"])


def test_no_ack_ignores_prefetch() -> None:
    channel = Broker().channel()
    queue_of(channel, 5)
    channel.qos(1)
    channel.qos(1, globally=True)
    channel.consume("q", no_ack=True)
    assert channel.bodies() == bodies(1, 5)


def test_no_ack_waits_while_a_global_prefetch_count_is_used_up() -> None:
    channel = Broker().channel()
    queue_of(channel, 1)
    channel.declare("p")
    channel.qos(1, globally=True)
    channel.consume("q", "a")
    channel.consume("p", "b", no_ack=True)
    channel.publish_all("p", b"x", b"y")
    assert (channel.bodies("a"), channel.bodies("b")) == ([b"1"], [])
    channel.ack(1)
    assert channel.bodies("b") == [b"x", b"y"]


def test_queues_take_turns_in_a_global_prefetch_count() -> None:
    channel = Broker().channel()
    channel.qos(1, globally=True)
    for name in "abc":
        channel.declare(name)
        channel.consume(name, name)
    for name in "abc":
        channel.publish_all(name, *[name.encode()] * 4)
    got = []
    for tag in range(1, 10):
        got += channel.bodies()
        channel.ack(tag)
    assert sorted(got) == [b"a"] * 3 + [b"b"] * 3 + [b"c"] * 3


def test_a_prefetch_size_is_not_implemented() -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.call(commands.Basic.Qos, prefetch_size=1)
    assert refused.value.text == "NOT_IMPLEMENTED - prefetch_size!=0 (1)"
    assert (refused.value.method_ids, refused.value.is_hard) == ((60, 10), True)


def test_a_client_that_does_not_read_gets_no_more_until_it_does() -> None:
    broker = Broker()
    publisher, consumer = broker.channel(), broker.channel()
    consumer.declare("q")
    consumer.consume("q", no_ack=True)
    consumer.client.is_stuck = True
    for number in range(100):
        publisher.publish("q", str(number).encode() + b"x" * 50_000)
    waiting = publisher.ready("q")
    assert 0 < waiting < 100
    consumer.client.read_again()
    assert publisher.ready("q") == 0
    assert [int(body[:-50_000]) for body in consumer.bodies()] == list(range(100))


def test_more_than_a_client_s_buffer_is_delivered_to_one_that_reads() -> None:
    broker = Broker()
    publisher, consumer = broker.channel(), broker.channel()
    consumer.declare("q")
    publisher.publish_all("q", *[b"x" * 50_000] * 100)
    consumer.send(commands.Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    assert len([event for event in consumer.take() if isinstance(event, Content)]) == 100
