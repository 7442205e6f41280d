"""Queues longer than memory: messages leave it and come back, and nobody can tell.

Source: RabbitMQ guide "Classic Queues": most of a long queue is on disk.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.broker.model.queues.backlog import SPILL_BYTES, WINDOW_BYTES, WINDOW_MESSAGES
from leveret.protocol.properties import NO_PROPERTIES, replace

from .harness import PERSISTENT, Broker, ChannelOfTest, delivery_tag, is_redelivered

pytestmark = pytest.mark.usefixtures("either_way")

COUNT = 3 * WINDOW_MESSAGES
MEMORY = 200_000


def long_queue(
    *, durable: bool = True, properties: bytes = PERSISTENT, **arguments: object
) -> tuple[Broker, ChannelOfTest]:
    """A broker with little memory, and queue "q" with messages 0, 1, 2, ... most of which are paged out."""
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q", durable=durable, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
    publish(channel, 0, COUNT, properties)
    assert paged(broker) > WINDOW_MESSAGES // 2
    return broker, channel


def publish(channel: ChannelOfTest, first: int, last: int, properties: bytes = PERSISTENT) -> None:
    for start in range(first, last, 500):
        bodies = [b"%d" % number for number in range(start, min(start + 500, last))]
        channel.publish_all("q", *bodies, properties=properties)


def paged(broker: Broker) -> int:
    return broker.node.vhosts["/"].queues["q"].backlog.paged_count


def drain(channel: ChannelOfTest, queue: str = "q") -> list[int]:
    """Take all messages with a consumer; their numbers."""
    channel.consume(queue, "drain", no_ack=True)
    channel.cancel("drain")
    return numbers(channel.bodies("drain"))


def numbers(bodies: list[bytes]) -> list[int]:
    return [int(body) for body in bodies]


def test_messages_come_back_in_order() -> None:
    broker, channel = long_queue()
    assert channel.ready("q") == COUNT
    channel.consume("q", no_ack=True)
    assert numbers(channel.bodies()) == list(range(COUNT))
    assert paged(broker) == 0
    assert broker.node.turn.memory_bytes == 0


def test_transient_messages_of_transient_queues_too() -> None:
    broker, channel = long_queue(durable=False, properties=NO_PROPERTIES)
    assert drain(channel) == list(range(COUNT))
    assert broker.node.turn.memory_bytes == 0


def test_memory_is_kept_under_its_limit() -> None:
    broker = Broker(message_memory_bytes=4_000_000)
    channel = broker.channel()
    channel.declare("q", durable=True)
    for _ in range(300):
        channel.publish_all("q", *[b"x" * 1000] * 100, properties=PERSISTENT)
    assert broker.node.turn.memory_bytes < 5_000_000
    assert channel.ready("q") == 30_000
    channel.qos(1000)
    channel.consume("q")
    assert broker.node.turn.memory_bytes < 8_000_000


def test_what_consumers_get_next_stays_in_memory() -> None:
    broker = Broker(message_memory_bytes=8_000_000)
    channel = broker.channel()
    channel.declare("q", durable=True)
    for _ in range(200):
        channel.publish_all("q", *[b"x" * 1000] * 100, properties=PERSISTENT)
    assert 10_000 < paged(broker) < 20_000
    channel.qos(1)
    channel.consume("q")
    other = broker.channel()
    broker.hold_store()
    other.consume("q", no_ack=True)
    assert len(other.bodies()) > 4000  # nothing can be read now
    broker.release_store()
    assert other.ready("q") == 0


def test_a_queue_gives_up_memory_for_others_that_need_it() -> None:
    broker = Broker(message_memory_bytes=8_000_000)
    channel = broker.channel()
    for name in ("q", "p"):
        channel.declare(name, durable=True)
        for _ in range(200):
            channel.publish_all(name, *[b"x" * 1000] * 100, properties=PERSISTENT)
    for _ in range(50):
        for name in ("q", "p"):
            channel.publish(name, b"x" * 1000, properties=PERSISTENT)
    assert broker.node.turn.memory_bytes < 8_200_000
    shares = [20_050 - broker.node.vhosts["/"].queues[name].backlog.paged_count for name in ("q", "p")]
    assert min(shares) > 1000


def test_large_messages_come_back_a_few_at_a_time() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q", durable=True)
    for _ in range(20):
        channel.publish("q", bytes(WINDOW_BYTES // 4), properties=PERSISTENT)
    broker.restart()
    channel = broker.channel()
    channel.qos(1)
    channel.consume("q")
    assert len(channel.delivered()) == 1
    assert broker.node.turn.memory_bytes < 2 * WINDOW_BYTES


def test_transient_messages_are_spilled_a_part_at_a_time() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q", durable=False)
    broker.hold_store()
    body = bytes(SPILL_BYTES // 1000)
    for _ in range(4):
        channel.publish_all("q", *[body] * 1000, properties=NO_PROPERTIES)
    spilled = broker.store.last_batch_held.spilled
    assert 900 < sum(len(messages) for messages in spilled.values()) <= 1001

    broker.release_store()
    assert paged(broker) > 1500
    assert channel.ready("q") == 4000


def test_messages_published_while_paged_stay_behind() -> None:
    _, channel = long_queue()
    channel.qos(10)
    channel.consume("q")
    got = numbers(channel.bodies())
    publish(channel, COUNT, COUNT + 1000)
    channel.cancel()
    channel.ack(0, multiple=True)
    got += drain(channel)
    assert got == list(range(COUNT + 1000))


def test_persistent_and_transient_messages_stay_in_order() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q", durable=True)
    for start in range(0, COUNT, 100):
        publish(channel, start, start + 100, PERSISTENT if start % 200 else NO_PROPERTIES)
    assert paged(broker) > 0
    assert drain(channel) == list(range(COUNT))


def test_transient_messages_that_were_paged_out_do_not_survive_a_restart() -> None:
    broker, channel = long_queue(properties=NO_PROPERTIES)
    channel.publish("q", b"1", properties=PERSISTENT)
    broker.restart()
    assert broker.channel().drain("q") == [b"1"]


def test_get_waits_until_its_message_is_back() -> None:
    broker, channel = long_queue()
    broker.restart()
    channel = broker.channel()
    broker.hold_store()
    channel.send(commands.Basic.Get, queue="q", no_ack=True)
    channel.send(commands.Basic.Qos, prefetch_count=1)
    assert channel.names() == []
    broker.release_store()
    assert channel.names() == ["Basic.GetOk", "Basic.QosOk"]


def test_get_waits_no_longer_when_the_queue_is_purged() -> None:
    broker, channel = long_queue()
    broker.restart()
    channel, other = broker.channel(), broker.channel()
    with channel.client.at_once():
        for _ in range(WINDOW_MESSAGES):
            channel.send(commands.Basic.Get, queue="q", no_ack=True)
    assert len(channel.take()) == WINDOW_MESSAGES
    assert other.ready("q") == COUNT - WINDOW_MESSAGES
    broker.hold_store()
    get = channel.client.peer.send(1, commands.Basic.Get, queue="q", no_ack=True)
    purge = other.client.peer.send(1, commands.Queue.Purge, queue="q")
    broker.turn((channel.client, get), (other.client, purge))
    broker.release_store()
    assert channel.names() == ["Basic.GetEmpty"]
    assert other.names() == ["Queue.PurgeOk"]
    assert other.ready("q") == 0
    assert broker.node.turn.memory_bytes == 0


def test_get_of_a_paged_queue_that_is_deleted_is_not_found() -> None:
    broker, _ = long_queue()
    broker.restart()
    channel, other = broker.channel(), broker.channel()
    broker.hold_store()
    channel.send(commands.Basic.Get, queue="q", no_ack=True)
    other.send(commands.Queue.Delete, queue="q")
    broker.release_store()
    assert channel.names() == ["Channel.Close"]
    assert other.names() == ["Queue.DeleteOk"]


def test_a_purge_takes_what_is_paged_out() -> None:
    broker, channel = long_queue()
    first = channel.get("q", no_ack=False)
    assert first is not None
    assert channel.purge("q") == COUNT - 1
    publish(channel, 100, 110)
    channel.nack(delivery_tag(first))
    broker.crash()
    channel = broker.channel()
    assert drain(channel) == [0, *range(100, 110)]
    assert broker.node.turn.memory_bytes == 0


def test_a_purge_while_messages_are_being_paged_out() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel, other = broker.channel(), broker.channel()
    channel.declare("q")
    broker.hold_store()
    for start in range(0, COUNT, 1000):
        publish(channel, start, start + 1000, NO_PROPERTIES)
    assert paged(broker) == 0
    count = other.purge("q")
    assert count >= 1000
    broker.release_store()
    publish(channel, COUNT, COUNT + 10, NO_PROPERTIES)
    assert drain(channel) == list(range(count, COUNT + 10))
    assert broker.node.turn.memory_bytes == 0


def test_a_queue_deleted_while_paged_leaves_nothing() -> None:
    broker, channel = long_queue(durable=False, properties=NO_PROPERTIES)
    assert channel.delete("q") == COUNT
    assert broker.node.turn.memory_bytes == 0
    assert not broker.disk.messages
    channel.declare("q")
    assert channel.ready("q") == 0


def test_a_queue_deleted_while_it_is_read_back_disturbs_no_later_one() -> None:
    broker, _ = long_queue()
    broker.restart()
    channel = broker.channel()
    channel.qos(1)
    channel.consume("q")
    broker.hold_store()
    other = broker.channel()
    with channel.client.at_once():
        for tag in range(1, WINDOW_MESSAGES):
            channel.ack(tag)
    other.send(commands.Queue.Delete, queue="q")
    other.send(commands.Queue.Declare, queue="p", durable=True)
    broker.release_store()
    assert other.names() == ["Queue.DeleteOk", "Queue.DeclareOk"]
    assert other.ready("p") == 0


def test_requeued_messages_go_in_front_of_what_is_paged_out() -> None:
    broker, channel = long_queue()
    other = broker.channel()
    channel.qos(50)
    channel.consume("q")
    channel.cancel()
    got = channel.delivered()
    for message in got[::2]:
        channel.nack(delivery_tag(message))
    first = other.get("q")
    assert first is not None
    assert (first.body, is_redelivered(first)) == (b"0", True)
    channel.close()
    assert drain(other) == list(range(1, COUNT))


def test_more_requeued_messages_than_the_window_are_all_counted() -> None:
    broker, channel = long_queue()
    channel.consume("q")
    channel.cancel()
    assert len(channel.delivered()) == COUNT
    publish(channel, COUNT, COUNT + 100)
    channel.nack(0, multiple=True)
    publish(channel, COUNT + 100, 2 * COUNT)
    channel.consume("q", no_ack=True)
    assert numbers(channel.bodies()) == list(range(2 * COUNT))
    assert broker.node.turn.memory_bytes == 0


def test_messages_delivered_and_acked_while_paging_leave_the_store() -> None:
    broker, channel = long_queue()
    channel.qos(700)
    channel.consume("q")
    for _ in range(COUNT):
        tags = [delivery_tag(message) for message in channel.delivered()]
        if not tags:
            break
        channel.ack(tags[-1], multiple=True)
    assert channel.ready("q") == 0
    broker.crash()
    assert broker.channel().ready("q") == 0


def test_deadlines_of_paged_messages_hold() -> None:
    broker, channel = long_queue(x_message_ttl=60_000)
    broker.advance(59_000)
    publish(channel, COUNT, COUNT + 10)
    assert channel.ready("q") == COUNT + 10
    broker.advance(1_000)
    assert drain(channel) == list(range(COUNT, COUNT + 10))


def test_deadlines_of_paged_transient_messages_hold() -> None:
    properties = replace(expiration="60000")
    broker, channel = long_queue(durable=False, properties=properties)
    broker.advance(59_000)
    publish(channel, COUNT, COUNT + 10, NO_PROPERTIES)
    broker.advance(1_000)
    assert drain(channel) == list(range(COUNT, COUNT + 10))


def test_expired_paged_messages_are_dead_lettered_in_order() -> None:
    broker, channel = long_queue(
        x_message_ttl=60_000, x_dead_letter_exchange="", x_dead_letter_routing_key="dead"
    )
    channel.declare("dead", durable=True)
    broker.advance(60_000)
    assert channel.ready("q") == 0
    assert drain(channel, "dead") == list(range(COUNT))


def test_a_limited_queue_drops_its_oldest_message_though_it_is_paged_out() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q", durable=True, arguments={"x-max-length": COUNT})
    publish(channel, 0, COUNT + 3000)
    assert channel.ready("q") == COUNT
    assert drain(channel) == list(range(3000, COUNT + 3000))


def test_the_x_death_of_a_paged_message_stays_its_history() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    loop = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "first", "x-message-ttl": 1000}
    channel.declare("q", arguments=loop)
    channel.declare(
        "first",
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-message-ttl": 0},
    )
    for _ in range(12):
        channel.publish_all("first", *[b"x"] * 500)
    assert paged(broker) > 0
    broker.advance(1000)
    assert (channel.ready("q"), channel.ready("first")) == (0, 0)


def test_a_restored_queue_delivers_in_order_to_several_consumers() -> None:
    broker, _ = long_queue()
    broker.restart()
    one, two = broker.channel(), broker.channel()
    one.consume("q", no_ack=True)
    two.consume("q", no_ack=True)
    first, second = numbers(one.bodies()), numbers(two.bodies())
    assert first == sorted(first)
    assert second == sorted(second)
    assert sorted(first + second) == list(range(COUNT))


def test_only_messages_that_were_paged_out_are_removed_from_the_store() -> None:
    broker = Broker(message_memory_bytes=MEMORY)
    channel = broker.channel()
    channel.declare("q")
    publish(channel, 0, 100, NO_PROPERTIES)
    channel.qos(100)
    channel.consume("q")
    publish(channel, 100, COUNT, NO_PROPERTIES)
    assert paged(broker) > 0
    written = broker.store.batches_written
    channel.ack(100, multiple=True)
    assert broker.store.batches_written == written
    channel.ack(0, multiple=True)
