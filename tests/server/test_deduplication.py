"""x-message-deduplication: a message whose key has been there goes nowhere."""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.broker.model import deduplication
from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from .harness import Broker, ChannelOfTest, Refused

pytestmark = pytest.mark.usefixtures("either_way")

DEDUPLICATION = "x-message-deduplication"


@pytest.fixture
def broker() -> Broker:
    """A broker."""
    return Broker()


@pytest.fixture
def channel(broker: Broker) -> ChannelOfTest:
    """A channel with queues `q` and `other`."""
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.declare("other")
    return channel


def key(value: object, *, ttl_ms: int | None = None, header: str = "x-deduplication-header") -> bytes:
    """Return properties with a key."""
    field = value if isinstance(value, Field) else Field("S", str(value).encode())
    headers = {header: field} | ({} if ttl_ms is None else {"x-cache-ttl": Field("I", ttl_ms)})
    return replace(headers=headers, delivery_mode=2)


def publish(channel: ChannelOfTest, body: bytes, value: object, ttl_ms: int | None = None) -> None:
    channel.publish("k", body, exchange="e", properties=key(value, ttl_ms=ttl_ms))


class TestTheExchangeType:
    """As the community plugin has it."""

    @pytest.fixture
    def channel(self, channel: ChannelOfTest) -> ChannelOfTest:
        """A channel with an exchange `e` that remembers three keys, and both queues bound to it."""
        channel.declare_exchange("e", DEDUPLICATION, durable=True, arguments={"x-cache-size": 3})
        channel.bind("q", "e", "any")
        channel.bind("other", "e")
        return channel

    def test_the_first_message_with_a_key_goes_to_all_queues(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        publish(channel, b"2", "b")
        assert (channel.drain("q"), channel.drain("other")) == ([b"1", b"2"], [b"1", b"2"])

    def test_a_repeat_goes_nowhere(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        publish(channel, b"again", "a")
        assert (channel.drain("q"), channel.drain("other")) == ([b"1"], [b"1"])

    def test_repeats_in_one_piece_go_nowhere(self, channel: ChannelOfTest) -> None:
        channel.publish_all("k", b"1", b"2", b"3", exchange="e", properties=key("a"))
        assert channel.drain("q") == [b"1"]

    def test_messages_without_a_key_are_always_routed(self, channel: ChannelOfTest) -> None:
        channel.publish_all("k", b"1", b"2", exchange="e")
        channel.publish_all("k", b"3", b"4", exchange="e", properties=replace(headers={"a": Field("I", 1)}))
        assert channel.drain("q") == [b"1", b"2", b"3", b"4"]

    def test_the_oldest_key_makes_room(self, channel: ChannelOfTest) -> None:
        for number in range(4):
            publish(channel, b"%d" % number, number)
        publish(channel, b"repeat", 1)
        publish(channel, b"forgotten", 0)
        assert channel.drain("q") == [b"0", b"1", b"2", b"3", b"forgotten"]

    @pytest.mark.parametrize("value", [Field("t", True), Field("V", None), Field("d", 1.5), Field("S", b"")])
    def test_a_key_may_have_any_value(self, channel: ChannelOfTest, value: Field) -> None:
        publish(channel, b"1", value)
        publish(channel, b"2", value)
        assert channel.drain("q") == [b"1"]

    def test_integers_are_the_same_in_every_size(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", Field("b", 7))
        publish(channel, b"2", Field("l", 7))
        assert channel.drain("q") == [b"1"]

    def test_an_integer_is_not_its_text(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", Field("b", 7))
        publish(channel, b"2", "7")
        assert channel.drain("q") == [b"1", b"2"]

    def test_long_keys_are_told_apart(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "x" * 1000)
        publish(channel, b"2", "x" * 1000 + "y")
        publish(channel, b"3", "x" * 1000)
        assert channel.drain("q") == [b"1", b"2"]

    def test_the_header_may_say_how_long(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a", ttl_ms=1000)
        channel.broker.advance(999)
        publish(channel, b"2", "a")
        channel.broker.advance(1)
        publish(channel, b"3", "a")
        assert channel.drain("q") == [b"1", b"3"]

    def test_the_argument_says_how_long(self, channel: ChannelOfTest) -> None:
        arguments = {"x-cache-size": "10", "x-cache-ttl": 1000}
        channel.declare_exchange("short", DEDUPLICATION, arguments=arguments)
        channel.bind("q", "short")
        for body, wait_ms in ((b"1", 999), (b"2", 1), (b"3", 0)):
            channel.publish("k", body, exchange="short", properties=key("a"))
            channel.broker.advance(wait_ms)
        assert channel.drain("q") == [b"1", b"3"]

    def test_a_repeat_is_confirmed(self, channel: ChannelOfTest) -> None:
        channel.confirm()
        publish(channel, b"1", "a")
        publish(channel, b"2", "a")
        assert channel.confirms() == ["ack 1", "ack 2"]

    def test_a_repeat_is_confirmed_no_sooner_than_the_first(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        broker.hold_store()
        publish(channel, b"1", "a")
        second = broker.channel()
        second.confirm()
        publish(second, b"2", "a")
        assert second.confirms() == []
        broker.release_store()
        assert second.confirms() == ["ack 1"]

    def test_a_mandatory_repeat_comes_back(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        channel.publish("k", b"2", exchange="e", properties=key("a"), mandatory=True)
        assert [message.body for message in channel.returned()] == [b"2"]

    def test_a_transaction_that_is_rolled_back_leaves_no_key(self, channel: ChannelOfTest) -> None:
        channel.call(commands.Tx.Select)
        publish(channel, b"1", "a")
        channel.call(commands.Tx.Rollback)
        publish(channel, b"2", "a")
        channel.call(commands.Tx.Commit)
        assert channel.drain("q") == [b"2"]

    def test_the_keys_are_gone_after_a_restart(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        broker.restart()
        channel = broker.channel()
        publish(channel, b"2", "a")
        assert channel.drain("q") == [b"1", b"2"]

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({}, "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"),
            (
                {"x-cache-size": 0},
                "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0",
            ),
            (
                {"x-cache-size": "many"},
                "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0",
            ),
            (
                {"x-cache-size": 1, "x-cache-ttl": 0},
                "Invalid argument, 'x-cache-ttl' must be an integer greater than 0",
            ),
            (
                {"x-cache-size": 1, "x-cache-ttl": True},
                "Invalid argument, 'x-cache-ttl' must be an integer greater than 0",
            ),
            (
                {"x-cache-size": 1, "x-cache-persistence": "tape"},
                "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'",
            ),
        ],
    )
    def test_wrong_arguments_are_refused(
        self, broker: Broker, arguments: dict[str, object], error: str
    ) -> None:
        with pytest.raises(Refused) as refusal:
            broker.channel().declare_exchange("wrong", DEDUPLICATION, arguments=arguments)
        assert refusal.value.text == f"PRECONDITION_FAILED - {error}"


class TestKeysOnDisk:
    """A window that survives."""

    @pytest.fixture
    def channel(self, channel: ChannelOfTest) -> ChannelOfTest:
        """A channel with a durable exchange `e` that stores its keys, and `q` bound to it."""
        arguments = {"x-cache-size": 3, "x-cache-persistence": "disk"}
        channel.declare_exchange("e", DEDUPLICATION, durable=True, arguments=arguments)
        channel.bind("q", "e")
        return channel

    def test_a_repeat_after_a_crash_goes_nowhere(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        broker.crash()
        channel = broker.channel()
        publish(channel, b"2", "a")
        assert channel.drain("q") == [b"1"]

    def test_a_key_and_its_message_are_lost_together(self, broker: Broker, channel: ChannelOfTest) -> None:
        broker.hold_store()
        publish(channel, b"1", "a")
        broker.crash()
        channel = broker.channel()
        publish(channel, b"2", "a")
        assert channel.drain("q") == [b"2"]

    def test_a_key_expires_while_the_broker_is_down(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a", ttl_ms=1000)
        broker.stop()
        broker.now_ms += 1000
        broker.crash()
        channel = broker.channel()
        publish(channel, b"2", "a")
        assert channel.drain("q") == [b"1", b"2"]

    def test_no_more_keys_are_stored_than_are_remembered(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        for number in range(10):
            publish(channel, b"m", number)
        assert sum(len(keys) for keys in broker.disk.keys.values()) == 3
        broker.restart()
        channel = broker.channel()
        channel.purge("q")
        publish(channel, b"repeat", 7)
        publish(channel, b"forgotten", 6)
        assert channel.drain("q") == [b"forgotten"]

    def test_the_keys_go_with_their_exchange(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        channel.call(commands.Exchange.Delete, exchange="e")
        assert not any(broker.disk.keys.values())
        assert not broker.node.turn.windows


class TestLavinsExchangeArgument:
    """Any exchange can leave duplicates out."""

    @pytest.fixture
    def channel(self, channel: ChannelOfTest) -> ChannelOfTest:
        """A channel with a durable direct exchange `e` that wants no duplicates, and `q` bound to it."""
        arguments = {"x-message-deduplication": True, "x-cache-size": 3}
        channel.declare_exchange("e", "direct", durable=True, arguments=arguments)
        channel.bind("q", "e", "k")
        return channel

    def test_it_routes_like_its_type_without_repeats(self, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        publish(channel, b"2", "a")
        channel.publish("nobody", b"3", exchange="e", properties=key("b"))
        publish(channel, b"4", "c")
        assert channel.drain("q") == [b"1", b"4"]

    def test_a_repeat_is_dropped_without_a_word(self, channel: ChannelOfTest) -> None:
        channel.confirm()
        publish(channel, b"1", "a")
        channel.publish("k", b"2", exchange="e", properties=key("a"), mandatory=True)
        assert channel.returned() == []
        assert channel.confirms() == ["ack 1", "ack 2"]

    def test_the_keys_survive_a_crash(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", "a")
        broker.crash()
        channel = broker.channel()
        publish(channel, b"2", "a")
        assert channel.drain("q") == [b"1"]

    def test_another_header_can_have_the_key(self, channel: ChannelOfTest) -> None:
        arguments = {"x-message-deduplication": True, "x-deduplication-header": "id"}
        channel.declare_exchange("named", "fanout", arguments=arguments)
        channel.bind("q", "named")
        for body, header in ((b"1", "id"), (b"2", "id"), (b"3", "x-deduplication-header")):
            channel.publish("k", body, exchange="named", properties=key("a", header=header))
        assert channel.drain("q") == [b"1", b"3"]

    def test_128_keys_are_remembered_if_nothing_else_is_said(self, channel: ChannelOfTest) -> None:
        channel.declare_exchange("long", "fanout", arguments={"x-message-deduplication": True})
        channel.bind("q", "long")
        for number in (*range(129), 1, 0):
            channel.publish("k", b"%d" % number, exchange="long", properties=key(number))
        assert channel.drain("q")[128:] == [b"128", b"0"]

    def test_a_repeat_of_a_message_that_waits_is_dropped(self, channel: ChannelOfTest) -> None:
        arguments = {"x-message-deduplication": True, "x-delayed-exchange": True}
        channel.declare_exchange("later", "fanout", arguments=arguments)
        channel.bind("q", "later")
        headers = {"x-deduplication-header": Field("S", b"a"), "x-delay": Field("I", 100)}
        for body in (b"1", b"2"):
            channel.publish("k", body, exchange="later", properties=replace(headers=headers))
        channel.broker.advance(100)
        assert channel.drain("q") == [b"1"]

    def test_a_window_of_any_size_has_its_limit(
        self, channel: ChannelOfTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deduplication, "CACHE_SIZE_MAX", 2)
        arguments = {"x-message-deduplication": True, "x-cache-size": 1 << 40}
        channel.declare_exchange("large", "fanout", arguments=arguments)
        channel.bind("q", "large")
        for number in range(5):
            channel.publish("k", b"m", exchange="large", properties=key(number))
        (size,) = [len(window) for window in channel.broker.node.turn.windows.values() if len(window)]
        assert size == 2
