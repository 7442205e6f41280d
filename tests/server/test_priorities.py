"""Queues with priorities: what comes first, and that everything else is as in a plain queue.

Source: RabbitMQ guide "Priority Queue Support".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from leveret.broker.model.queues import returned
from leveret.broker.model.queues.backlog import WINDOW_MESSAGES
from leveret.broker.model.queues.queue_ids import QueueIds
from leveret.broker.model.rules.policies import ALL, POLICY, Policy
from leveret.broker.server.vhosts import delete_vhost
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import from_python
from leveret.storage.changes import MAX_QUEUE_ID

from ..peer import Content
from .harness import START_MS, Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered, messages_left

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("either_way")


def prioritised(
    maximum: int = 5, *, durable: bool = True, broker: Broker | None = None, **arguments: object
) -> ChannelOfTest:
    """A channel of a broker with a queue "q" that has priorities."""
    channel = (Broker() if broker is None else broker).channel()
    table = {"x-max-priority": maximum} | {k.replace("_", "-"): v for k, v in arguments.items()}
    channel.declare("q", durable=durable, arguments=table)
    return channel


def publish(channel: ChannelOfTest, *messages: tuple[bytes, int | None], **properties: object) -> None:
    """Publish persistent messages, given as body and priority."""
    for body, priority in messages:
        fields = {"delivery_mode": 2, "priority": priority} | properties
        given = {name: value for name, value in fields.items() if value is not None}
        channel.publish("q", body, properties=replace(**given))  # type: ignore[arg-type]  # as tests give them


LEVELS = ((b"1a", 1), (b"5a", 5), (b"1b", 1), (b"3", 3), (b"5b", 5))
IN_ORDER = [b"5a", b"5b", b"3", b"1a", b"1b"]


class TestOrder:
    """The highest priority first, and in a priority the oldest."""

    def test_the_highest_priority_comes_first_and_the_oldest_of_the_same(self) -> None:
        channel = prioritised()
        sent = [(b"none", None), (b"1", 1), (b"5a", 5), (b"9", 9), (b"0", 0), (b"5b", 5), (b"2", 2)]
        publish(channel, *sent)
        assert channel.ready("q") == 7
        assert channel.drain("q") == [b"5a", b"9", b"5b", b"2", b"1", b"none", b"0"]

    def test_a_consumer_gets_them_in_this_order(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        channel.consume("q")
        assert channel.bodies() == IN_ORDER

    def test_a_priority_above_the_maximum_counts_as_that_and_is_delivered_as_it_was(self) -> None:
        channel = prioritised(2)
        publish(channel, (b"2", 2), (b"255", 255))
        first, second = channel.get("q"), channel.get("q")
        assert first is not None
        assert second is not None
        assert (first.body, second.body) == (b"2", b"255")
        assert Properties.parse(second.properties).priority == 255

    def test_there_are_up_to_256_of_them(self) -> None:
        channel = prioritised(255)
        publish(channel, *[(b"%d" % priority, priority) for priority in range(256)])
        assert channel.drain("q") == [b"%d" % priority for priority in range(255, -1, -1)]

    def test_without_a_maximum_or_with_0_the_order_is_that_of_publishing(self) -> None:
        channel = prioritised(0)
        publish(channel, *LEVELS)
        assert channel.drain("q") == [body for body, _ in LEVELS]

    def test_what_a_consumer_holds_is_not_overtaken(self) -> None:
        channel = prioritised()
        channel.qos(1)
        channel.consume("q")
        publish(channel, (b"low", 1), (b"mid", 2), (b"high", 5))
        assert channel.bodies() == [b"low"]
        channel.ack(1)
        assert channel.bodies() == [b"high"]
        channel.ack(2)
        assert channel.bodies() == [b"mid"]

    def test_a_run_of_publishes_is_sorted_like_single_ones(self) -> None:
        channel = prioritised()
        for priority in (1, 4, 2):
            bodies = [b"%d-%d" % (priority, number) for number in range(100)]
            channel.publish_all("q", *bodies, properties=replace(priority=priority))
        expected = [b"%d-%d" % (priority, number) for priority in (4, 2, 1) for number in range(100)]
        assert channel.drain("q") == expected

    def test_consumers_take_turns(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        with channel.client.at_once():
            channel.send(commands.Basic.Consume, queue="q", consumer_tag="a", no_ack=True)
            channel.send(commands.Basic.Consume, queue="q", consumer_tag="b", no_ack=True)
        got = channel.delivered()
        assert [message.body for message in got] == IN_ORDER

    def test_a_single_active_consumer_gets_all_in_order(self) -> None:
        channel = prioritised(x_single_active_consumer=True)
        channel.consume("q", "a", no_ack=True)
        channel.consume("q", "b", no_ack=True)
        publish(channel, *LEVELS)
        assert channel.bodies("a") == [body for body, _ in LEVELS]
        assert channel.bodies("b") == []
        channel.cancel("a")
        publish(channel, *LEVELS)
        assert channel.bodies("b") == [body for body, _ in LEVELS]

    def test_a_transaction_is_sorted_when_it_is_committed(self) -> None:
        channel = prioritised()
        channel.call(commands.Tx.Select)
        publish(channel, *LEVELS)
        assert channel.ready("q") == 0
        channel.call(commands.Tx.Commit)
        assert channel.drain("q") == IN_ORDER


class TestSettling:
    """What comes back takes its old place."""

    def test_a_requeued_message_returns_to_its_place_in_its_priority(self) -> None:
        channel = prioritised()
        publish(channel, (b"a", 1), (b"b", 1), (b"c", 2))
        got = [channel.get("q", no_ack=False) for _ in range(2)]
        assert [message.body for message in got if message is not None] == [b"c", b"a"]
        channel.nack(0, multiple=True)
        again = [channel.get("q", no_ack=False) for _ in range(3)]
        seen = [(message.body, is_redelivered(message)) for message in again if message is not None]
        assert seen == [(b"c", True), (b"a", True), (b"b", False)]

    def test_what_a_lost_channel_held_returns_to_its_places(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        other = channel.client.broker.channel()
        other.consume("q")
        assert other.bodies() == IN_ORDER
        other.close()
        assert channel.drain("q") == IN_ORDER

    def test_acks_remove_what_they_name_whatever_its_priority(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        channel.consume("q")
        assert channel.bodies() == IN_ORDER
        for tag in (2, 3, 5):
            channel.ack(tag)
        channel.client.broker.crash()
        channel = channel.client.broker.channel()
        assert channel.drain("q") == [b"5a", b"1a"]

    def test_rejected_messages_are_dead_lettered_with_their_priority(self) -> None:
        channel = prioritised(x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
        channel.declare("dead", arguments={"x-max-priority": 9})
        publish(channel, (b"low", 1), (b"high", 7))
        channel.consume("q")
        channel.reject(2)
        channel.reject(1)
        assert channel.drain("dead") == [b"high", b"low"]


class TestCounts:
    """They are of all priorities together."""

    def test_declares_gets_purges_and_deletes_count_all(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        got = channel.get("q")
        assert got is not None
        assert messages_left(got) == 4
        assert channel.ready("q") == 4
        assert channel.purge("q") == 4
        assert channel.ready("q") == 0
        publish(channel, *LEVELS)
        assert channel.delete("q") == 5

    def test_a_purge_removes_all_but_the_unacked(self) -> None:
        channel = prioritised()
        publish(channel, *LEVELS)
        channel.get("q", no_ack=False)
        assert channel.purge("q") == 4
        channel.client.broker.crash()
        assert channel.client.broker.channel().drain("q") == [b"5a"]

    def test_nothing_is_left_of_a_queue_that_was_deleted(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, *LEVELS)
        channel.delete("q")
        assert broker.disk.levels == {}
        assert all(not len(messages) for messages in broker.disk.messages.values())
        assert broker.node.turn.memory_bytes == 0
        for _ in range(3):
            prioritised(broker=broker)
            publish(channel, *LEVELS)
            assert channel.delete("q") == 5

    def test_nothing_is_left_of_a_vhost_that_was_deleted(self) -> None:
        broker = Broker()
        publish(prioritised(broker=broker), *LEVELS)
        delete_vhost(broker.node, "/")
        broker.run()
        assert broker.disk.levels == {}
        assert broker.disk.messages == {}
        assert broker.node.turn.levels == {}

    def test_another_maximum_is_another_queue(self) -> None:
        channel = prioritised(5)
        with pytest.raises(Refused) as refused:
            channel.declare("q", durable=True, arguments={"x-max-priority": 6})
        assert refused.value.text == (
            "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'q' in vhost '/':"
            " received '6' but current is '5'"
        )


class TestLengthLimits:
    """The head is what is next: the oldest of the highest priority."""

    def test_the_head_is_dropped_which_has_the_highest_priority(self) -> None:
        channel = prioritised(x_max_length=2)
        publish(channel, (b"5", 5), (b"1", 1), (b"3", 3))
        assert channel.drain("q") == [b"3", b"1"]

    def test_a_new_message_may_be_the_head_itself(self) -> None:
        channel = prioritised(x_max_length=2, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
        channel.declare("dead")
        publish(channel, (b"1", 1), (b"2", 2), (b"5", 5), (b"0", None))
        assert channel.drain("q") == [b"1", b"0"]
        assert channel.drain("dead") == [b"5", b"2"]

    def test_bytes_of_all_priorities_count(self) -> None:
        channel = prioritised(x_max_length_bytes=6)
        publish(channel, (b"aaaa", 1), (b"bb", 2))
        assert channel.ready("q") == 2
        publish(channel, (b"c", 0))
        assert channel.drain("q") == [b"aaaa", b"c"]

    def test_a_full_queue_refuses_every_priority(self) -> None:
        channel = prioritised(x_max_length=1, x_overflow="reject-publish")
        channel.confirm()
        publish(channel, (b"1", 1), (b"5", 5))
        assert channel.confirms() == ["ack 1", "nack 2"]
        assert channel.drain("q") == [b"1"]


class TestExpiry:
    """Messages expire in every priority."""

    def test_the_heads_of_all_priorities_expire(self) -> None:
        channel = prioritised()
        publish(channel, (b"1", 1), expiration="500")
        publish(channel, (b"stays", 1))
        publish(channel, (b"5", 5), expiration="500")
        channel.client.broker.advance(1000)
        assert channel.ready("q") == 1
        assert channel.drain("q") == [b"stays"]

    def test_a_lower_priority_expires_behind_a_higher_one_that_lives(self) -> None:
        channel = prioritised(x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
        channel.declare("dead")
        publish(channel, (b"lives", 5))
        publish(channel, (b"late", 3), expiration="700")
        publish(channel, (b"soon", 1), expiration="500")
        channel.client.broker.advance(1000)
        assert channel.drain("dead") == [b"soon", b"late"]
        assert channel.drain("q") == [b"lives"]

    def test_the_queue_s_ttl_holds_for_all(self) -> None:
        channel = prioritised(x_message_ttl=100)
        publish(channel, *LEVELS)
        channel.client.broker.advance(99)
        assert channel.ready("q") == 5
        channel.client.broker.advance(2)
        assert channel.ready("q") == 0

    def test_messages_expire_after_a_restart_without_anybody_reading(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, (b"stays", None))
        publish(channel, (b"4", 4), expiration="1000")
        broker.crash()
        broker.advance(1001)
        assert broker.channel().ready("q") == 1

    def test_a_deadline_holds_after_a_restart(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
        channel.declare("dead", durable=True)
        publish(channel, (b"4", 4), expiration="1000")
        broker.crash()
        broker.advance(1001)
        assert broker.now_ms > START_MS
        assert broker.channel().drain("dead") == [b"4"]


class TestRestarts:
    """Persistent messages come back in their order."""

    @pytest.mark.parametrize("end", [Broker.restart, Broker.crash])
    def test_messages_are_there_in_their_order(self, end: Callable[[Broker], None]) -> None:
        broker = Broker()
        publish(prioritised(broker=broker), *LEVELS)
        end(broker)
        channel = broker.channel()
        assert channel.ready("q") == 5
        publish(channel, (b"3b", 3), (b"1c", 1), (b"4", 4))
        assert channel.drain("q") == [b"5a", b"5b", b"4", b"3", b"3b", b"1a", b"1b", b"1c"]

    def test_after_an_orderly_stop_only_what_was_delivered_is_redelivered(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, *LEVELS)
        channel.qos(3)
        channel.consume("q")
        broker.restart()
        seen = redelivered(broker.channel())
        assert seen == [(b"5a", True), (b"5b", True), (b"3", True), (b"1a", False), (b"1b", False)]

    def test_after_a_crash_of_a_queue_that_delivered_everything_may_be_redelivered(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, *LEVELS)
        channel.qos(1)
        channel.consume("q")
        broker.crash()
        channel = broker.channel()
        publish(channel, (b"new", 3))
        seen = dict(redelivered(channel))
        assert seen == dict.fromkeys(IN_ORDER, True) | {b"new": False}

    def test_after_a_crash_of_a_queue_that_did_not_deliver_nothing_is_redelivered(self) -> None:
        broker = Broker()
        publish(prioritised(broker=broker), *LEVELS)
        broker.crash()
        assert redelivered(broker.channel()) == [(body, False) for body in IN_ORDER]

    def test_what_was_delivered_is_remembered_over_several_restarts(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, (b"a", 4), (b"b", 4))
        channel.get("q", no_ack=False)
        broker.restart()
        broker.restart()
        assert redelivered(broker.channel()) == [(b"a", True), (b"b", False)]

    def test_positions_that_were_delivered_before_a_restart_are_not_after_it(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, (b"a", 4), (b"b", 4))
        assert channel.drain("q") == [b"a", b"b"]
        broker.restart()
        publish(broker.channel(), (b"c", 4))
        broker.restart()
        assert redelivered(broker.channel()) == [(b"c", False)]

    def test_transient_messages_are_gone(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker)
        publish(channel, (b"a", 4), (b"b", 2), delivery_mode=1)
        publish(channel, (b"c", 3))
        broker.restart()
        assert broker.channel().drain("q") == [b"c"]

    def test_messages_of_a_version_that_did_not_sort_stay_in_their_order(self) -> None:
        broker = Broker()
        channel = broker.channel()
        channel.declare("q", durable=True)
        publish(channel, (b"1", 1), (b"5", 5))
        (declared,) = broker.disk.queues.values()
        broker.hold_store()
        table = bytes.fromhex("00000014") + b"\x0ex-max-priorityI" + bytes.fromhex("00000005")
        broker.disk.queues[declared.queue_id] = type(declared)(
            declared.queue_id, declared.vhost, declared.name, declared.auto_delete, table
        )
        broker.crash()
        channel = broker.channel()
        publish(channel, (b"new", 1))
        got = channel.get("q")
        assert got is not None
        assert got.body == b"new"
        held = [channel.get("q", no_ack=False) for _ in range(2)]
        assert [message.body for message in held if message is not None] == [b"1", b"5"]
        channel.nack(0, multiple=True)
        assert channel.drain("q") == [b"1", b"5"]
        broker.crash()
        assert broker.channel().ready("q") == 0


class TestLongQueues:
    """Long backlogs leave memory and come back, and nobody can tell."""

    COUNT = 2 * WINDOW_MESSAGES

    def fill(self, channel: ChannelOfTest, *, mode: int) -> dict[int, list[bytes]]:
        bodies: dict[int, list[bytes]] = {1: [], 3: [], 5: []}
        for start in range(0, self.COUNT, 500):
            for priority, all_bodies in bodies.items():
                more = [b"%d-%d" % (priority, number) for number in range(start, start + 500)]
                all_bodies += more
                channel.publish_all("q", *more, properties=replace(delivery_mode=mode, priority=priority))
        return bodies

    @pytest.mark.parametrize("mode", [1, 2])
    def test_messages_come_back_in_order(self, mode: int) -> None:
        broker = Broker(message_memory_bytes=200_000)
        channel = prioritised(broker=broker, durable=mode == 2)
        bodies = self.fill(channel, mode=mode)
        assert broker.node.turn.memory_bytes < 2_000_000
        channel.consume("q", no_ack=True)
        assert channel.bodies() == bodies[5] + bodies[3] + bodies[1]
        assert broker.node.turn.memory_bytes == 0
        assert all(not len(messages) for messages in broker.disk.messages.values())
        channel.delete("q")
        assert broker.disk.levels == {}

    def test_higher_ones_that_come_meanwhile_are_next(self) -> None:
        broker = Broker(message_memory_bytes=200_000)
        channel = prioritised(broker=broker)
        bodies = self.fill(channel, mode=2)
        channel.qos(10)
        channel.consume("q")
        assert channel.bodies() == bodies[5][:10]
        publish(channel, (b"urgent", 9), (b"less", 4))
        channel.ack(10, multiple=True)
        assert channel.bodies() == bodies[5][10:20]
        assert channel.purge("q") == 3 * self.COUNT + 2 - 20
        broker.crash()
        assert broker.channel().drain("q") == bodies[5][10:20]

    def test_a_restart_brings_all_back(self) -> None:
        broker = Broker(message_memory_bytes=200_000)
        bodies = self.fill(prioritised(broker=broker), mode=2)
        broker.crash()
        assert broker.node.turn.memory_bytes == 0
        channel = broker.channel()
        assert channel.ready("q") == 3 * self.COUNT
        channel.consume("q", no_ack=True)
        assert channel.bodies() == bodies[5] + bodies[3] + bodies[1]

    def test_levels_share_the_window_of_a_queue(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker, x_dead_letter_exchange="dead")
        self.fill(channel, mode=2)
        broker.crash()
        (queue,) = broker.node.vhosts["/"].queues.values()
        in_memory = queue.messages_ready - sum(
            level.paged_count
            for level in queue.backlog._in_order  # type: ignore[attr-defined]  # it has priorities
        )
        assert WINDOW_MESSAGES < in_memory < 2 * WINDOW_MESSAGES

    def test_what_is_over_a_limit_is_read_back_to_be_dropped(self) -> None:
        broker = Broker(message_memory_bytes=200_000)
        bodies = self.fill(prioritised(broker=broker), mode=2)
        channel = broker.channel()
        channel.get("q", no_ack=False)
        broker.crash()
        channel = broker.channel()
        broker.node.vhosts["/"].set_policy(POLICY, Policy("p", ".*", {"max-length": 10}, 0, ALL))
        broker.run()
        assert channel.drain("q") == bodies[1][-10:]


class TestDeduplication:
    """Both arguments at once."""

    def test_a_duplicate_of_another_priority_is_left_out(self) -> None:
        channel = prioritised(x_message_deduplication=True)
        header = {"x-deduplication-header": from_python("k")}
        publish(channel, (b"first", 1), headers=header)
        publish(channel, (b"second", 5), headers=header)
        publish(channel, (b"other", 3))
        assert channel.drain("q") == [b"other", b"first"]
        publish(channel, (b"third", 5), headers=header)
        assert channel.drain("q") == [b"third"]


class TestReturnedMessages:
    """Delivery limits and delayed retry, in every priority."""

    def test_a_limit_holds_over_a_crash(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker, x_delivery_limit=2)
        publish(channel, (b"low", 1), (b"high", 4))
        for _ in range(2):
            channel.get("q", no_ack=False)
            channel.recover()
        broker.crash()
        channel = broker.channel()
        got = channel.get("q", no_ack=False)
        assert got is not None
        assert got.body == b"high"
        channel.recover()
        assert channel.drain("q") == [b"low"]

    def test_what_waits_to_be_tried_again_returns_to_its_priority(self) -> None:
        broker = Broker()
        channel = prioritised(broker=broker, x_delayed_retry_type="all", x_delayed_retry_min=1000)
        publish(channel, (b"low", 1), (b"high", 4))
        channel.get("q", no_ack=False)
        channel.nack(1)
        assert channel.ready("q") == 1
        broker.crash()
        channel = broker.channel()
        broker.advance(1001)
        assert channel.drain("q") == [b"high", b"low"]

    def test_where_too_many_wait_each_returns_to_its_own_priority(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker = Broker()
        channel = prioritised(broker=broker, x_delayed_retry_type="all", x_delayed_retry_min=1000)
        publish(channel, (b"low", 1), (b"high", 4), (b"mid", 2))
        channel.consume("q")
        channel.nack(0, multiple=True)
        channel.cancel()
        assert channel.ready("q") == 0
        monkeypatch.setattr(returned, "WAITING_MESSAGES_MAX", 1)
        broker.crash()
        channel = broker.channel()
        seen = channel.drain("q")
        broker.advance(1001)
        seen += channel.drain("q")
        assert sorted(seen) == [b"high", b"low", b"mid"]
        broker.crash()
        assert broker.channel().ready("q") == 0


class TestQueueIds:
    """Every priority that is in use takes one, and they are promised when the queue is declared."""

    def test_a_queue_is_refused_if_it_could_not_have_all(self) -> None:
        ids = QueueIds()
        for _ in range(MAX_QUEUE_ID // 256):
            ids.allocate(255)
        with pytest.raises(PreconditionFailed):
            ids.allocate(255)
        assert ids.allocate(254) <= MAX_QUEUE_ID
        with pytest.raises(PreconditionFailed):
            ids.allocate()

    def test_what_was_promised_is_there(self) -> None:
        ids = QueueIds()
        taken = [ids.allocate(MAX_QUEUE_ID - 1), ids.take_promised(), ids.take_promised()]
        assert taken == [1, 2, 3]
        with pytest.raises(PreconditionFailed):
            ids.allocate()

    def test_what_a_deleted_queue_did_not_take_is_for_others(self) -> None:
        broker = Broker()
        prioritised(255, broker=broker)
        channel = broker.channel()
        publish(channel, *LEVELS)
        broker.restart()
        channel = broker.channel()
        channel.delete("q")
        assert not broker.disk.queues
        assert broker.node._queue_ids.allocate(MAX_QUEUE_ID - 1)


def redelivered(channel: ChannelOfTest) -> list[tuple[bytes, bool]]:
    """Get all messages, each with its redelivered bit."""
    got: list[Content] = []
    while (message := channel.get("q", no_ack=False)) is not None:
        got.append(message)
    assert [delivery_tag(message) for message in got] == list(range(1, len(got) + 1))
    return [(message.body, is_redelivered(message)) for message in got]
