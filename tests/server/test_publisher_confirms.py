"""Publisher confirms: when they come, in which form, and that none comes early.

Source: RabbitMQ guide "Consumer Acknowledgements and Publisher Confirms".
"""

from __future__ import annotations

import pytest
from pamqp import commands

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused

pytestmark = pytest.mark.usefixtures("either_way")


def confirming(broker: Broker, *, durable: bool = True, **queue: object) -> ChannelOfTest:
    """A channel in confirm mode, and queue "q"."""
    channel = broker.channel()
    channel.declare("q", durable=durable, **queue)
    channel.confirm()
    return channel


def test_a_persistent_message_is_confirmed_when_it_is_durable() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    assert channel.confirms() == []
    broker.release_store()
    assert channel.confirms() == ["ack 1"]


@pytest.mark.parametrize(("durable", "is_persistent"), [(True, False), (False, True), (False, False)])
def test_what_need_not_be_durable_is_confirmed_at_once(durable: bool, is_persistent: bool) -> None:
    broker = Broker()
    channel = confirming(broker, durable=durable)
    broker.hold_store()
    if is_persistent:
        channel.publish("q", b"1", properties=PERSISTENT)
    else:
        channel.publish("q", b"1")
    assert channel.confirms() == ["ack 1"]


def test_an_unroutable_message_is_confirmed_at_once() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("nowhere", b"1", properties=PERSISTENT)
    assert channel.confirms() == ["ack 1"]


def test_a_batch_is_confirmed_with_one_ack() -> None:
    channel = confirming(Broker())
    channel.publish_all("q", *[b"x"] * 50, properties=PERSISTENT)
    assert channel.confirms() == ["ack 50 multiple"]


def test_publishes_while_a_batch_is_written_wait_for_the_next() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.publish("q", b"2", properties=PERSISTENT)
    channel.publish("q", b"3", properties=PERSISTENT)
    broker.release_one()
    assert channel.confirms() == ["ack 1"]
    broker.release_one()
    assert channel.confirms() == ["ack 3 multiple"]


def test_a_message_in_two_queues_is_confirmed_when_both_have_it() -> None:
    broker = Broker()
    channel = confirming(broker)
    channel.declare("transient")
    channel.bind("q", "amq.fanout")
    channel.bind("transient", "amq.fanout")
    broker.hold_store()
    channel.publish("", b"1", exchange="amq.fanout", properties=PERSISTENT)
    assert channel.confirms() == []
    broker.release_store()
    assert channel.confirms() == ["ack 1"]


def test_a_message_delivered_and_acked_before_it_is_written_is_confirmed() -> None:
    broker = Broker()
    channel = confirming(broker)
    channel.consume("q", no_ack=True)
    written = broker.store.batches_written
    channel.publish("q", b"1", properties=PERSISTENT)
    assert sorted(channel.names()) == ["Basic.Ack", "Basic.Deliver"]
    assert broker.store.batches_written == written


def test_a_message_that_expires_before_it_is_written_is_confirmed() -> None:
    channel = confirming(Broker(), arguments={"x-message-ttl": 0})
    channel.publish("q", b"1", properties=PERSISTENT)
    assert channel.confirms() == ["ack 1"]


def test_a_message_dropped_at_the_head_is_confirmed() -> None:
    channel = confirming(Broker(), arguments={"x-max-length": 1})
    channel.publish_all("q", b"1", b"2", b"3", properties=PERSISTENT)
    assert channel.confirms() == ["ack 3 multiple"]
    assert channel.drain("q") == [b"3"]


def test_messages_of_a_deleted_queue_are_confirmed() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.publish("q", b"2", properties=PERSISTENT)
    other = broker.channel()
    other.send(commands.Queue.Delete, queue="q")
    broker.release_store()
    assert channel.confirms() == ["ack 1", "ack 2"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_refused_message_gets_a_nack(overflow: str) -> None:
    channel = confirming(Broker(), arguments={"x-max-length": 2, "x-overflow": overflow})
    channel.publish_all("q", b"1", b"2", b"3", b"4")
    assert channel.confirms() == ["ack 2 multiple", "nack 3", "nack 4"]
    channel.get("q")
    channel.publish_all("q", b"5", b"6")
    assert channel.confirms() == ["ack 5", "nack 6"]


def test_the_nack_has_the_requeue_bit_set() -> None:
    channel = confirming(Broker(), arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.publish("q", b"1")
    method = channel.reply("Basic.Nack").method
    assert isinstance(method, commands.Basic.Nack)
    assert method.requeue


def test_one_queue_that_refuses_is_enough_and_the_others_keep_the_message() -> None:
    channel = confirming(Broker(), arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.declare("other")
    channel.bind("q", "amq.fanout")
    channel.bind("other", "amq.fanout")
    channel.publish("", b"1", exchange="amq.fanout")
    assert channel.confirms() == ["nack 1"]
    assert channel.drain("other") == [b"1"]


def test_an_ack_never_covers_what_is_still_pending() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    with channel.client.at_once():
        channel.publish("q", b"1")
        channel.publish("q", b"2", properties=PERSISTENT)
        channel.publish("nowhere", b"3")
    early = channel.confirms()
    broker.release_store()
    assert early == ["ack 1"]
    assert channel.confirms() == ["ack 3 multiple"]


def test_a_refused_transient_message_behind_one_that_needs_no_write_is_nacked() -> None:
    channel = confirming(Broker(), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.declare("d", durable=True)
    channel.consume("d", no_ack=True)
    with channel.client.at_once():
        channel.publish("d", b"1", properties=PERSISTENT)
        channel.publish("q", b"2")
        channel.publish("q", b"3")
        channel.publish("q", b"4")
    assert channel.confirms() == ["ack 2 multiple", "nack 3", "nack 4"]


def test_numbers_begin_with_select_and_count_every_publish() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"before")
    channel.confirm()
    channel.publish("q", b"1")
    channel.publish("nowhere", b"2")
    channel.confirm()
    channel.publish("q", b"3")
    assert channel.confirms() == ["ack 1", "ack 2", "ack 3"]


def test_numbers_are_a_channel_s_own() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    one.confirm()
    two.confirm()
    one.publish_all("q", b"1", b"2")
    two.publish("q", b"1")
    assert one.confirms() == ["ack 2 multiple"]
    assert two.confirms() == ["ack 1"]


def test_a_transactional_channel_cannot_confirm() -> None:
    channel = Broker().channel()
    channel.call(commands.Tx.Select)
    with pytest.raises(Refused) as refused:
        channel.confirm()
    assert refused.value.text == "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
    assert refused.value.method_ids == (85, 10)


def test_a_closed_channel_s_publishes_stay_and_are_not_confirmed() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.close()
    broker.release_store()
    assert channel.confirms() == []
    assert channel.client.channel(2).ready("q") == 1


def test_confirms_done_by_the_time_of_the_close_come_before_close_ok() -> None:
    channel = confirming(Broker())
    with channel.client.at_once():
        channel.publish("q", b"1")
        channel.send(commands.Channel.Close)
    assert channel.names() == ["Basic.Ack", "Channel.CloseOk"]


def test_a_lost_publisher_disturbs_nobody() -> None:
    broker = Broker()
    channel = confirming(broker)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.client.vanish()
    broker.release_store()
    assert broker.channel().ready("q") == 1
