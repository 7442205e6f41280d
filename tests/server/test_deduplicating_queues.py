"""Queues with x-message-deduplication: a message whose key is there already is left out."""

from __future__ import annotations

import pytest

from leveret.broker.server.vhosts import delete_vhost
from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from .harness import Broker, ChannelOfTest, Refused

pytestmark = pytest.mark.usefixtures("either_way")

ARGUMENTS = {"x-message-deduplication": True}


@pytest.fixture
def broker() -> Broker:
    """A broker."""
    return Broker()


@pytest.fixture
def channel(broker: Broker) -> ChannelOfTest:
    """A channel with a durable queue `q` that wants no duplicates."""
    channel = broker.channel()
    channel.declare("q", durable=True, arguments=ARGUMENTS)
    return channel


def key(value: str, **properties: object) -> bytes:
    """Return properties of a persistent message with a key."""
    headers = {"x-deduplication-header": Field("S", value.encode())}
    return replace(headers=headers, **({"delivery_mode": 2} | properties))  # type: ignore[arg-type]


def publish(channel: ChannelOfTest, body: bytes, value: str = "a", **properties: object) -> None:
    channel.publish("q", body, properties=key(value, **properties))


# -- the plugin's rule: as long as the message is in the queue


def test_a_duplicate_of_a_ready_message_is_left_out(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    publish(channel, b"2")
    publish(channel, b"3", "b")
    assert channel.drain("q") == [b"1", b"3"]


def test_duplicates_in_one_piece_are_left_out(channel: ChannelOfTest) -> None:
    channel.publish_all("q", b"1", b"2", b"3", properties=key("a"))
    assert channel.drain("q") == [b"1"]


def test_messages_without_a_key_are_never_left_out(channel: ChannelOfTest) -> None:
    channel.publish_all("q", b"1", b"1")
    assert channel.drain("q") == [b"1", b"1"]


def test_a_duplicate_of_an_unacked_message_is_left_out(channel: ChannelOfTest) -> None:
    channel.consume("q")
    publish(channel, b"1")
    publish(channel, b"2")
    assert channel.bodies() == [b"1"]


def test_an_ack_lets_the_key_go(channel: ChannelOfTest) -> None:
    channel.consume("q")
    publish(channel, b"1")
    channel.ack(1)
    publish(channel, b"2")
    assert channel.bodies() == [b"1", b"2"]


def test_a_delivery_without_ack_lets_the_key_go(channel: ChannelOfTest) -> None:
    channel.consume("q", no_ack=True)
    publish(channel, b"1")
    publish(channel, b"2")
    assert channel.bodies() == [b"1", b"2"]


def test_a_get_without_ack_lets_the_key_go(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.drain("q")
    publish(channel, b"2")
    assert channel.drain("q") == [b"2"]


def test_a_get_that_waits_for_an_ack_keeps_the_key(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.get("q", no_ack=False)
    publish(channel, b"2")
    assert channel.ready("q") == 0
    channel.ack(1)
    publish(channel, b"3")
    assert channel.drain("q") == [b"3"]


def test_a_rejection_lets_the_key_go(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.get("q", no_ack=False)
    channel.reject(1)
    publish(channel, b"2")
    assert channel.drain("q") == [b"2"]


def test_a_requeued_message_keeps_its_key(channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.get("q", no_ack=False)
    channel.reject(1, requeue=True)
    publish(channel, b"2")
    assert channel.drain("q") == [b"1"]
    publish(channel, b"3")
    assert channel.drain("q") == [b"3"]


def test_a_purge_lets_the_keys_of_ready_messages_go(channel: ChannelOfTest) -> None:
    publish(channel, b"1", "unacked")
    channel.get("q", no_ack=False)
    publish(channel, b"2", "ready")
    channel.purge("q")
    publish(channel, b"3", "unacked")
    publish(channel, b"4", "ready")
    assert channel.drain("q") == [b"4"]


def test_an_expired_message_lets_the_key_go(channel: ChannelOfTest) -> None:
    publish(channel, b"1", expiration="1000")
    channel.broker.advance(1000)
    publish(channel, b"2")
    assert channel.drain("q") == [b"2"]


def test_a_key_expires_with_the_ttl_though_its_message_is_unacked(channel: ChannelOfTest) -> None:
    publish(channel, b"1", expiration="1000")
    channel.get("q", no_ack=False)
    channel.broker.advance(999)
    publish(channel, b"2")
    channel.broker.advance(1)
    publish(channel, b"3")
    assert channel.drain("q") == [b"3"]


def test_a_dropped_message_lets_the_key_go(channel: ChannelOfTest) -> None:
    channel.declare("short", arguments=ARGUMENTS | {"x-max-length": 1})
    for body, value in ((b"1", "a"), (b"2", "b"), (b"3", "a")):
        channel.publish("short", body, properties=key(value))
    assert channel.drain("short") == [b"3"]


def test_a_refused_message_leaves_no_key(channel: ChannelOfTest) -> None:
    arguments = ARGUMENTS | {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.declare("short", arguments=arguments)
    channel.publish("short", b"1", properties=key("a"))
    channel.publish("short", b"2", properties=key("b"))
    channel.purge("short")
    channel.publish("short", b"3", properties=key("b"))
    assert channel.drain("short") == [b"3"]


def test_a_duplicate_is_confirmed_when_the_message_before_is_on_disk(channel: ChannelOfTest) -> None:
    channel.confirm()
    channel.broker.hold_store()
    publish(channel, b"1")
    publish(channel, b"2")
    assert channel.confirms() == []
    channel.broker.release_store()
    assert channel.confirms() == ["ack 2 multiple"]


def test_duplicates_are_counted(broker: Broker, channel: ChannelOfTest) -> None:
    for _ in range(3):
        publish(channel, b"m")
    (window,) = broker.node.turn.windows.values()
    assert window.duplicates == 2


def test_each_queue_has_keys_of_its_own(channel: ChannelOfTest) -> None:
    channel.declare("other", arguments=ARGUMENTS)
    for queue in ("q", "other"):
        channel.bind(queue, "amq.fanout")
    publish(channel, b"1")
    channel.publish("", b"2", exchange="amq.fanout", properties=key("a"))
    assert (channel.drain("q"), channel.drain("other")) == ([b"1"], [b"2"])


def test_keys_of_persistent_messages_survive_a_crash(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    broker.crash()
    channel = broker.channel()
    publish(channel, b"2")
    assert channel.drain("q") == [b"1"]
    publish(channel, b"3")
    assert channel.drain("q") == [b"3"]


def test_keys_of_transient_messages_go_with_them(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"1", delivery_mode=1)
    broker.crash()
    channel = broker.channel()
    publish(channel, b"2")
    assert channel.drain("q") == [b"2"]


def test_a_key_that_was_let_go_does_not_come_back(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.drain("q")
    broker.crash()
    channel = broker.channel()
    publish(channel, b"2")
    assert channel.drain("q") == [b"2"]


@pytest.mark.parametrize("message_memory_bytes", [2000])
def test_messages_that_are_only_on_disk_have_keys(message_memory_bytes: int) -> None:
    broker = Broker(message_memory_bytes=message_memory_bytes)
    channel = broker.channel()
    channel.declare("q", durable=True, arguments=ARGUMENTS)
    for number in range(3000):
        publish(channel, b"%d" % number, str(number))
    publish(channel, b"again", "2990")
    assert [int(body) for body in channel.drain("q")] == list(range(3000))
    assert not any(broker.disk.keys.values())


def test_the_keys_go_with_the_queue(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    channel.delete("q")
    assert not broker.node.turn.windows
    assert not any(broker.disk.keys.values())


def test_the_keys_go_with_the_vhost(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"1")
    delete_vhost(broker.node, "/")
    broker.run()
    assert not broker.node.turn.windows
    assert not any(broker.disk.keys.values())


@pytest.mark.parametrize("value", [False, "true", 1])
def test_only_true_leaves_duplicates_out(channel: ChannelOfTest, value: object) -> None:
    channel.declare("plain", arguments={"x-message-deduplication": value})
    for body in (b"1", b"2"):
        channel.publish("plain", body, properties=key("a"))
    assert channel.drain("plain") == [b"1", b"2"]


# -- LavinMQ's rule: as long as the key is remembered


def test_with_a_cache_size_keys_are_remembered_after_the_message_has_gone(channel: ChannelOfTest) -> None:
    channel.declare("window", durable=True, arguments=ARGUMENTS | {"x-cache-size": 2})
    for body, value in ((b"1", "a"), (b"2", "a"), (b"3", "b"), (b"4", "c"), (b"5", "a")):
        channel.publish("window", body, properties=key(value))
        channel.broker.run()
    assert channel.drain("window") == [b"1", b"3", b"4", b"5"]
    channel.publish("window", b"6", properties=key("a"))
    assert channel.drain("window") == []


def test_with_a_cache_ttl_keys_are_remembered_for_that_time(channel: ChannelOfTest) -> None:
    channel.declare("window", arguments=ARGUMENTS | {"x-cache-ttl": 1000})
    for body, wait_ms in ((b"1", 999), (b"2", 1), (b"3", 0)):
        channel.publish("window", body, properties=key("a"))
        channel.broker.advance(wait_ms)
    assert channel.drain("window") == [b"1", b"3"]


def test_another_header_can_have_the_key(channel: ChannelOfTest) -> None:
    channel.declare("window", arguments=ARGUMENTS | {"x-deduplication-header": "id"})
    for body in (b"1", b"2"):
        channel.publish("window", body, properties=replace(headers={"id": Field("S", b"a")}))
    assert channel.drain("window") == [b"1"]


def test_remembered_keys_survive_a_crash(broker: Broker, channel: ChannelOfTest) -> None:
    channel.declare("window", durable=True, arguments=ARGUMENTS | {"x-cache-size": 2})
    channel.publish("window", b"1", properties=key("a"))
    channel.drain("window")
    broker.crash()
    channel = broker.channel()
    channel.publish("window", b"2", properties=key("a"))
    assert channel.drain("window") == []


def test_a_wrong_cache_size_is_refused(channel: ChannelOfTest) -> None:
    with pytest.raises(Refused, match="'x-cache-size' must be an integer greater than 0"):
        channel.declare("window", arguments=ARGUMENTS | {"x-cache-size": 0})
