"""tx.select, commit and rollback.

Source: RabbitMQ "Broker Semantics", AMQP 0-9-1 class tx (90). Unlike RabbitMQ's, a commit is atomic
over all queues.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.properties import replace

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")


def transactional(broker: Broker | None = None, **queue: object) -> ChannelOfTest:
    """A transactional channel, and queue "q"."""
    channel = (broker or Broker()).channel()
    channel.declare("q", **queue)
    channel.call(commands.Tx.Select)
    return channel


def commit(channel: ChannelOfTest) -> None:
    channel.call(commands.Tx.Commit)


def rollback(channel: ChannelOfTest) -> None:
    channel.call(commands.Tx.Rollback)


@pytest.mark.parametrize(
    ("method", "ids"), [(commands.Tx.Commit, (90, 20)), (commands.Tx.Rollback, (90, 30))]
)
def test_commit_and_rollback_need_a_select(
    method: type[commands.Tx.Commit | commands.Tx.Rollback], ids: tuple[int, int]
) -> None:
    channel = Broker().channel()
    with pytest.raises(Refused) as refused:
        channel.call(method)
    assert refused.value.text == "PRECONDITION_FAILED - channel is not transactional"
    assert refused.value.method_ids == ids


def test_a_confirming_channel_cannot_become_transactional() -> None:
    channel = Broker().channel()
    channel.confirm()
    with pytest.raises(Refused) as refused:
        channel.call(commands.Tx.Select)
    assert refused.value.text == "PRECONDITION_FAILED - cannot switch from confirm to tx mode"


def test_publishes_appear_at_commit() -> None:
    channel = transactional()
    channel.publish_all("q", b"1", b"2")
    assert channel.ready("q") == 0
    commit(channel)
    assert channel.drain("q") == [b"1", b"2"]


def test_select_may_be_repeated() -> None:
    channel = transactional()
    channel.publish("q", b"1")
    channel.call(commands.Tx.Select)
    commit(channel)
    assert channel.ready("q") == 1


def test_a_rollback_forgets_publishes() -> None:
    channel = transactional()
    channel.publish("q", b"1")
    rollback(channel)
    channel.publish("q", b"2")
    commit(channel)
    assert channel.drain("q") == [b"2"]


def test_returns_come_at_commit_before_commit_ok() -> None:
    channel = transactional()
    channel.publish("nowhere", b"1", mandatory=True)
    assert channel.take() == []
    channel.send(commands.Tx.Commit)
    assert channel.names() == ["Basic.Return", "Tx.CommitOk"]


def test_a_missing_exchange_is_reported_at_once_and_undoes_everything() -> None:
    channel = transactional()
    channel.publish("q", b"1")
    channel.publish("k", b"2", exchange="nonono")
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.code == 404
    channel.reopen()
    assert channel.ready("q") == 0


def test_a_tag_settled_in_a_transaction_is_no_longer_outstanding() -> None:
    channel = transactional()
    channel.publish("q", b"1")
    commit(channel)
    channel.get("q", no_ack=False)
    channel.ack(1)
    channel.ack(1)
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == "PRECONDITION_FAILED - unknown delivery tag 1"


def test_a_rollback_makes_tags_outstanding_again_and_redelivers_nothing() -> None:
    broker = Broker()
    channel = transactional(broker)
    broker.channel().publish_all("q", b"1", b"2", b"3")
    channel.consume("q")
    channel.ack(2)
    channel.reject(1, requeue=True)
    rollback(channel)
    assert channel.bodies() == [b"1", b"2", b"3"]
    channel.ack(3, multiple=True)
    commit(channel)
    channel.close()
    assert channel.client.channel(2).ready("q") == 0


def test_settlements_take_effect_at_commit() -> None:
    broker = Broker()
    channel = transactional(broker)
    other = broker.channel()
    other.publish_all("q", b"1", b"2", b"3")
    for _ in range(3):
        channel.get("q", no_ack=False)
    channel.ack(1)
    channel.reject(2, requeue=True)
    channel.nack(3, requeue=False)
    assert other.ready("q") == 0
    commit(channel)
    message = other.get("q")
    assert message is not None
    assert (message.body, is_redelivered(message)) == (b"2", True)
    assert other.ready("q") == 0


def test_room_in_the_prefetch_window_comes_at_commit() -> None:
    broker = Broker()
    channel = transactional(broker)
    broker.channel().publish_all("q", b"1", b"2")
    channel.qos(1)
    channel.consume("q")
    channel.ack(1)
    assert channel.bodies() == [b"1"]
    commit(channel)
    assert channel.bodies() == [b"2"]


def test_a_closed_channel_undoes_its_transaction() -> None:
    broker = Broker()
    channel = transactional(broker)
    other = broker.channel()
    other.publish("q", b"1")
    channel.get("q", no_ack=False)
    channel.ack(1)
    channel.publish("q", b"2")
    channel.close()
    message = other.get("q")
    assert message is not None
    assert (message.body, is_redelivered(message)) == (b"1", True)
    assert other.ready("q") == 0


def test_recover_does_not_wait_for_commit_and_leaves_what_was_settled() -> None:
    broker = Broker()
    channel = transactional(broker)
    other = broker.channel()
    other.publish_all("q", b"1", b"2")
    channel.get("q", no_ack=False)
    channel.get("q", no_ack=False)
    channel.ack(1)
    channel.recover()
    assert other.ready("q") == 1
    commit(channel)
    assert other.drain("q") == [b"2"]


def test_a_commit_that_a_queue_refuses_closes_the_channel() -> None:
    channel = transactional(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.publish_all("q", b"1", b"2")
    with pytest.raises(Refused) as refused:
        commit(channel)
    assert refused.value.text == "PRECONDITION_FAILED - partial tx completion"
    assert (refused.value.method_ids, refused.value.is_hard) == ((90, 20), False)
    channel.reopen()
    assert channel.drain("q") == [b"1"]


def test_commit_ok_comes_when_everything_is_durable() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.send(commands.Tx.Commit)
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == ["Tx.CommitOk"]


def test_a_commit_is_one_batch_over_all_queues() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    channel.declare("p", durable=True)
    other = broker.channel()
    other.publish("p", b"0", properties=PERSISTENT)
    channel.get("p", no_ack=False)
    written = broker.store.batches_written
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.publish("p", b"2", properties=PERSISTENT)
    channel.ack(1)
    assert broker.store.batches_written == written
    commit(channel)
    assert broker.store.batches_written == written + 1


def test_a_crash_before_commit_ok_undoes_the_whole_transaction() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    channel.declare("p", durable=True)
    broker.channel().publish("p", b"0", properties=PERSISTENT)
    channel.get("p", no_ack=False)
    broker.hold_store()
    channel.publish("q", b"1", properties=PERSISTENT)
    channel.ack(1)
    channel.send(commands.Tx.Commit)
    broker.crash()
    channel = broker.channel()
    assert channel.drain("q") == []
    assert channel.drain("p") == [b"0"]


def test_commit_ok_comes_when_consumers_took_all_before_it_was_written() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    channel.consume("q", no_ack=True)
    with channel.client.at_once():
        channel.publish("q", b"1", properties=PERSISTENT)
        channel.send(commands.Tx.Commit)
        channel.send(commands.Basic.Qos, prefetch_count=1)
    assert sorted(channel.names()) == ["Basic.Deliver", "Basic.QosOk", "Tx.CommitOk"]


def test_an_empty_commit_waits_for_nothing() -> None:
    broker = Broker()
    channel = transactional(broker)
    broker.hold_store()
    commit(channel)
    channel.publish("q", b"1")
    commit(channel)
    assert channel.ready("q") == 1


def test_a_dead_letter_of_a_commit_is_in_its_batch() -> None:
    broker = Broker()
    channel = transactional(
        broker, durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    )
    channel.declare("dead", durable=True)
    broker.channel().publish("q", b"1", properties=PERSISTENT)
    channel.get("q", no_ack=False)
    channel.reject(1)
    written = broker.store.batches_written
    commit(channel)
    assert broker.store.batches_written == written + 1
    broker.crash()
    assert broker.channel().drain("dead") == [b"1"]


def test_an_expiration_counts_from_the_commit() -> None:
    channel = transactional()
    channel.publish("q", b"1", properties=replace(expiration="100"))
    channel.broker.advance(99)
    commit(channel)
    channel.broker.advance(99)
    assert channel.ready("q") == 1
    channel.broker.advance(1)
    assert channel.ready("q") == 0


def test_a_publish_to_a_queue_deleted_before_commit_is_dropped() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    channel.publish("q", b"1", properties=PERSISTENT)
    other = broker.channel()
    other.delete("q")
    other.declare("p", durable=True)
    commit(channel)
    broker.restart()
    assert broker.channel().ready("p") == 0


def test_acks_of_a_queue_deleted_before_commit_do_no_harm() -> None:
    broker = Broker()
    channel = transactional(broker, durable=True)
    other = broker.channel()
    other.publish_all("q", b"1", b"2", b"3", properties=PERSISTENT)
    channel.consume("q")
    channel.ack(1)
    channel.reject(2, requeue=True)
    channel.reject(3)
    other.delete("q")
    commit(channel)
    broker.restart()
