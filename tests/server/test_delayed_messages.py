"""x-delayed-message and x-delayed-exchange: a message waits in its exchange for its time."""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.broker.model.exchanges import delay
from leveret.broker.server.vhosts import delete_vhost
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table

from .harness import Broker, ChannelOfTest, Refused

pytestmark = pytest.mark.usefixtures("either_way")

DELAYED = "x-delayed-message"


@pytest.fixture
def broker() -> Broker:
    """A broker."""
    return Broker()


@pytest.fixture
def channel(broker: Broker) -> ChannelOfTest:
    """A channel with a durable exchange `later` that delays, and a queue `q` bound to it by `k`."""
    channel = broker.channel()
    declare(channel)
    channel.declare("q", durable=True)
    channel.bind("q", "later", "k")
    return channel


def declare(channel: ChannelOfTest, name: str = "later", type_name: str = "direct", **fields: object) -> None:
    channel.declare_exchange(
        name, DELAYED, **({"durable": True, "arguments": {"x-delayed-type": type_name}} | fields)
    )


def delayed(value: Field | int, **properties: object) -> bytes:
    """Return properties with an `x-delay`."""
    field = value if isinstance(value, Field) else Field("I", value)
    return replace(headers={"x-delay": field}, **properties)  # type: ignore[arg-type]


def publish(channel: ChannelOfTest, body: bytes, delay_ms: int, key: str = "k") -> None:
    channel.publish(key, body, exchange="later", properties=delayed(delay_ms))


def headers_of(channel: ChannelOfTest, queue: str = "q") -> Table | None:
    message = channel.get(queue)
    assert message is not None
    return Properties.parse(message.properties).headers


# -- waiting


def test_a_message_comes_when_its_time_is_over(channel: ChannelOfTest) -> None:
    publish(channel, b"m", 1000)
    channel.broker.advance(999)
    assert channel.ready("q") == 0
    channel.broker.advance(1)
    assert channel.drain("q") == [b"m"]


def test_messages_come_in_the_order_of_their_times(channel: ChannelOfTest) -> None:
    for body, delay_ms in ((b"3", 300), (b"1", 100), (b"2", 200), (b"1 too", 100)):
        publish(channel, body, delay_ms)
    channel.broker.advance(1000)
    assert channel.drain("q") == [b"1", b"1 too", b"2", b"3"]


def test_a_message_without_a_delay_goes_on_at_once(channel: ChannelOfTest) -> None:
    channel.publish("k", b"m", exchange="later")
    channel.publish_all("k", b"1", b"2", exchange="later", properties=replace(message_id="x"))
    assert channel.drain("q") == [b"m", b"1", b"2"]


@pytest.mark.parametrize("tag", ["b", "B", "s", "u", "I", "i", "l", "L"])
def test_a_delay_may_be_any_integer(channel: ChannelOfTest, tag: str) -> None:
    channel.publish("k", b"m", exchange="later", properties=delayed(Field(tag, 100)))
    assert channel.ready("q") == 0
    channel.broker.advance(100)
    assert channel.ready("q") == 1


@pytest.mark.parametrize("value", [Field("S", b"100"), Field("d", 100.9), Field("f", 100.0)])
def test_a_delay_may_be_a_decimal_string_or_a_float(channel: ChannelOfTest, value: Field) -> None:
    channel.publish("k", b"m", exchange="later", properties=delayed(value))
    channel.broker.advance(99)
    assert channel.ready("q") == 0
    channel.broker.advance(1)
    assert channel.ready("q") == 1


@pytest.mark.parametrize(
    "value",
    [
        Field("I", 0),
        Field("I", -1),
        Field("l", 4294967296),
        Field("t", True),
        Field("V", None),
        Field("S", b"soon"),
        Field("S", b""),
        Field("S", b"9" * 5000),
        Field("S", b"-5"),
        Field("d", float("nan")),
        Field("d", float("inf")),
        Field("d", 0.5),
    ],
)
def test_anything_else_is_no_delay_and_stays_as_it_is(channel: ChannelOfTest, value: Field) -> None:
    properties = delayed(value)
    channel.publish("k", b"m", exchange="later", properties=properties)
    message = channel.get("q")
    assert message is not None
    assert message.properties == properties


def test_the_longest_delay_is_49_days(channel: ChannelOfTest) -> None:
    channel.publish("k", b"m", exchange="later", properties=delayed(Field("l", 4294967295)))
    channel.broker.advance(4294967294)
    assert channel.ready("q") == 0
    channel.broker.advance(1)
    assert headers_of(channel) == {"x-delay": Field("I", -2147483648)}


def test_a_message_that_waits_is_in_no_queue_count(channel: ChannelOfTest) -> None:
    publish(channel, b"m", 1000)
    assert channel.counts("q") == (0, 0)


def test_a_consumer_gets_a_message_when_its_time_is_over(channel: ChannelOfTest) -> None:
    channel.consume("q", no_ack=True)
    publish(channel, b"m", 1000)
    assert channel.bodies() == []
    channel.broker.advance(1000)
    assert channel.bodies() == [b"m"]


# -- what comes out


def test_the_header_is_made_negative(channel: ChannelOfTest) -> None:
    properties = replace(headers={"a": Field("S", b"b"), "x-delay": Field("l", 500)}, message_id="m")
    channel.publish("k", b"m", exchange="later", properties=properties)
    channel.broker.advance(500)
    message = channel.get("q")
    assert message is not None
    assert isinstance(message.method, commands.Basic.GetOk)
    assert (message.method.exchange, message.method.routing_key) == ("later", "k")
    expected = {"a": Field("S", b"b"), "x-delay": Field("I", -500)}
    assert message.properties == replace(headers=expected, message_id="m")


def test_a_second_delayed_exchange_does_not_delay_again(channel: ChannelOfTest) -> None:
    declare(channel, "second", "fanout")
    channel.call(commands.Exchange.Bind, source="later", destination="second", routing_key="k")
    channel.declare("end")
    channel.bind("end", "second")
    publish(channel, b"m", 100)
    channel.broker.advance(100)
    assert channel.drain("end") == [b"m"]


def test_an_exchange_behind_another_delays(channel: ChannelOfTest) -> None:
    channel.declare_exchange("first", "fanout")
    channel.call(commands.Exchange.Bind, source="first", destination="later", routing_key="")
    channel.publish("k", b"m", exchange="first", properties=delayed(100))
    assert channel.ready("q") == 0
    channel.broker.advance(100)
    message = channel.get("q")
    assert message is not None
    assert isinstance(message.method, commands.Basic.GetOk)
    assert message.method.exchange == "first"


def test_dead_letters_wait_too(channel: ChannelOfTest) -> None:
    arguments = {"x-dead-letter-exchange": "later", "x-dead-letter-routing-key": "k"}
    channel.declare("work", arguments=arguments)
    channel.publish("work", b"m", properties=delayed(100))
    message = channel.get("work", no_ack=False)
    assert message is not None
    channel.reject(1)
    assert channel.ready("q") == 0
    channel.broker.advance(100)
    headers = headers_of(channel)
    assert headers is not None
    assert headers["x-first-death-queue"] == Field("S", b"work")


def test_the_bindings_of_the_moment_count(channel: ChannelOfTest) -> None:
    publish(channel, b"m", 100)
    channel.call(commands.Queue.Unbind, queue="q", exchange="later", routing_key="k")
    channel.declare("new")
    channel.bind("new", "later", "k")
    channel.broker.advance(100)
    assert (channel.drain("q"), channel.drain("new")) == ([], [b"m"])


def test_the_alternate_exchange_gets_what_is_unroutable_when_its_time_is_over(channel: ChannelOfTest) -> None:
    arguments = {"x-delayed-type": "direct", "alternate-exchange": "amq.fanout"}
    declare(channel, "other", arguments=arguments)
    channel.bind("q", "amq.fanout")
    channel.publish("nobody", b"m", exchange="other", properties=delayed(100))
    assert channel.ready("q") == 0
    channel.broker.advance(100)
    assert channel.drain("q") == [b"m"]


def test_the_ttl_begins_in_the_queue(channel: ChannelOfTest) -> None:
    properties = delayed(1000, expiration="100")
    channel.publish("k", b"m", exchange="later", properties=properties)
    channel.broker.advance(1000)
    assert channel.ready("q") == 1
    channel.broker.advance(101)
    assert channel.ready("q") == 0


def test_cc_and_bcc_are_kept_for_the_time_when_it_is_routed(channel: ChannelOfTest) -> None:
    for queue in ("cc", "bcc"):
        channel.declare(queue)
        channel.bind(queue, "later", queue)
    headers: Table = {
        "CC": Field("A", [Field("S", b"cc")]),
        "BCC": Field("A", [Field("S", b"bcc")]),
        "x-delay": Field("I", 100),
    }
    channel.publish("k", b"m", exchange="later", properties=replace(headers=headers))
    channel.broker.advance(100)
    assert set(headers_of(channel) or ()) == {"CC", "x-delay"}
    assert set(headers_of(channel, "cc") or ()) == {"CC", "x-delay"}
    assert set(headers_of(channel, "bcc") or ()) == {"CC", "x-delay"}


@pytest.mark.parametrize(
    ("type_name", "bound"), [("topic", "a.#"), ("fanout", ""), ("x-consistent-hash", "1"), ("x-random", "")]
)
def test_it_routes_like_its_type(channel: ChannelOfTest, type_name: str, bound: str) -> None:
    declare(channel, "other", type_name)
    channel.bind("q", "other", bound)
    channel.publish("a.b", b"m", exchange="other", properties=delayed(100))
    channel.broker.advance(100)
    assert channel.drain("q") == [b"m"]


# -- confirms, returns, transactions


def test_a_confirm_comes_when_the_message_is_stored(channel: ChannelOfTest) -> None:
    channel.confirm()
    channel.broker.hold_store()
    publish(channel, b"m", 1000)
    assert channel.confirms() == []
    channel.broker.release_store()
    assert channel.confirms() == ["ack 1"]


def test_a_mandatory_message_is_not_returned_if_it_has_somewhere_to_go(channel: ChannelOfTest) -> None:
    channel.confirm()
    channel.publish("k", b"m", exchange="later", properties=delayed(100), mandatory=True)
    assert channel.returned() == []
    assert channel.confirms() == ["ack 1"]
    channel.broker.advance(100)
    assert channel.drain("q") == [b"m"]


def test_a_mandatory_message_is_returned_if_nothing_matches(channel: ChannelOfTest) -> None:
    channel.confirm()
    channel.publish("nobody", b"m", exchange="later", properties=delayed(100), mandatory=True)
    assert [message.body for message in channel.returned()] == [b"m"]
    assert channel.confirms() == ["ack 1"]
    channel.bind("q", "later", "nobody")
    channel.broker.advance(100)
    assert channel.drain("q") == []


def test_the_time_of_a_transaction_begins_at_its_commit(channel: ChannelOfTest) -> None:
    channel.call(commands.Tx.Select)
    publish(channel, b"m", 100)
    channel.broker.advance(100)
    assert channel.ready("q") == 0
    channel.call(commands.Tx.Commit)
    channel.broker.advance(99)
    assert channel.ready("q") == 0
    channel.broker.advance(1)
    assert channel.ready("q") == 1


def test_a_transaction_that_is_rolled_back_leaves_nothing(channel: ChannelOfTest) -> None:
    channel.call(commands.Tx.Select)
    publish(channel, b"m", 100)
    channel.call(commands.Tx.Rollback)
    channel.broker.advance(100)
    assert channel.ready("q") == 0


# -- restarts


@pytest.mark.parametrize("properties", [delayed(1000), delayed(1000, delivery_mode=2)])
def test_a_message_survives_a_crash_whatever_its_delivery_mode(
    broker: Broker, channel: ChannelOfTest, properties: bytes
) -> None:
    channel.publish("k", b"m", exchange="later", properties=properties)
    broker.advance(400)
    broker.crash()
    channel = broker.channel()
    broker.advance(599)
    assert channel.ready("q") == 0
    broker.advance(1)
    assert channel.drain("q") == [b"m"]


def test_what_became_due_while_the_broker_was_down_comes_at_the_start(
    broker: Broker, channel: ChannelOfTest
) -> None:
    publish(channel, b"2", 200)
    publish(channel, b"1", 100)
    broker.stop()
    broker.now_ms += 5000
    broker.crash()
    broker.advance(1)
    assert broker.channel().drain("q") == [b"1", b"2"]


def test_a_message_that_was_routed_does_not_come_again(broker: Broker, channel: ChannelOfTest) -> None:
    channel.publish("k", b"m", exchange="later", properties=delayed(100, delivery_mode=2))
    broker.advance(100)
    broker.crash()
    broker.advance(1000)
    assert broker.channel().drain("q") == [b"m"]


def test_a_crash_between_the_exchange_and_the_queue_loses_and_doubles_nothing(
    broker: Broker, channel: ChannelOfTest
) -> None:
    channel.publish("k", b"m", exchange="later", properties=delayed(100, delivery_mode=2))
    broker.hold_store()
    broker.advance(100)
    broker.crash()
    broker.advance(1)
    assert broker.channel().drain("q") == [b"m"]


def test_new_messages_after_a_restart_do_not_disturb_the_old_ones(
    broker: Broker, channel: ChannelOfTest
) -> None:
    publish(channel, b"old", 1000)
    broker.restart()
    channel = broker.channel()
    publish(channel, b"new", 500)
    broker.restart()
    broker.advance(2000)
    assert broker.channel().drain("q") == [b"new", b"old"]


def test_an_exchange_that_is_not_durable_leaves_nothing(broker: Broker, channel: ChannelOfTest) -> None:
    declare(channel, "passing", durable=False)
    channel.publish("k", b"m", exchange="passing", properties=delayed(1000))
    broker.restart()
    assert not broker.node.turn.delays[1].count
    assert all(len(queue) == 0 for queue in broker.disk.messages.values())


# -- deleting


def test_messages_go_with_their_exchange(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"m", 100)
    channel.call(commands.Exchange.Delete, exchange="later")
    declare(channel)
    channel.bind("q", "later", "k")
    broker.advance(100)
    assert channel.drain("q") == []
    broker.crash()
    broker.advance(100)
    assert broker.channel().drain("q") == []


def test_messages_go_with_an_exchange_that_deletes_itself(broker: Broker, channel: ChannelOfTest) -> None:
    declare(channel, "short", "fanout", auto_delete=True)
    channel.bind("q", "short")
    channel.publish("k", b"m", exchange="short", properties=delayed(100))
    channel.call(commands.Queue.Unbind, queue="q", exchange="short", routing_key="")
    broker.advance(100)
    assert channel.ready("q") == 0
    assert len(broker.node.turn.delays) == 1


def test_messages_go_with_their_vhost(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"m", 100)
    delete_vhost(broker.node, "/")
    broker.advance(1000)
    assert not broker.node.turn.delays
    assert not any(len(queue) for queue in broker.disk.messages.values())


# -- declaring


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {},
        {"x-delayed-type": "bogus"},
        {"x-delayed-type": 1},
        {"x-delayed-type": ""},
        {"x-delayed-type": DELAYED},
    ],
)
def test_the_type_to_route_by_must_exist(broker: Broker, arguments: dict[str, object] | None) -> None:
    with pytest.raises(Refused) as refusal:
        declare(broker.channel(), arguments=arguments)
    assert not refusal.value.is_hard
    assert refusal.value.text == (
        "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type"
    )


def test_the_type_to_route_by_checks_the_bindings(broker: Broker) -> None:
    channel = broker.channel()
    declare(channel, "hash", "x-consistent-hash")
    channel.declare("q")
    with pytest.raises(Refused, match="The binding key must be an integer"):
        channel.bind("q", "hash", "k")


# -- LavinMQ's way


def test_any_exchange_can_delay_and_then_removes_the_header(channel: ChannelOfTest) -> None:
    channel.declare_exchange("lavin", "fanout", arguments={"x-delayed-exchange": True})
    channel.bind("q", "lavin")
    headers = {"x-delay": Field("I", 100), "a": Field("I", 1)}
    channel.publish("k", b"m", exchange="lavin", properties=replace(headers=headers))
    assert channel.ready("q") == 0
    channel.broker.advance(100)
    assert headers_of(channel) == {"a": Field("I", 1)}


def test_a_delay_is_nothing_to_other_exchanges(channel: ChannelOfTest) -> None:
    channel.publish("q", b"m", properties=delayed(100))
    assert headers_of(channel) == {"x-delay": Field("I", 100)}


# -- many


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep only a few messages in memory."""
    monkeypatch.setattr(delay, "NEAR_MESSAGES", 4)


ORDERS = {
    "growing": list(range(100, 200)),
    "falling": list(range(200, 100, -1)),
    "mixed": [100 + number * 37 % 100 for number in range(100)],
    "equal": [100] * 100,
}


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("delays", ORDERS.values(), ids=ORDERS)
def test_many_messages_come_in_order_whatever_memory_holds(
    broker: Broker, channel: ChannelOfTest, delays: list[int]
) -> None:
    for number, delay_ms in enumerate(delays):
        publish(channel, b"%d" % number, delay_ms)
    expected = [number for _, number in sorted((delay_ms, n) for n, delay_ms in enumerate(delays))]
    broker.advance(150)
    first = channel.drain("q")
    broker.advance(1000)
    assert [int(body) for body in first + channel.drain("q")] == expected


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("delays", ORDERS.values(), ids=ORDERS)
def test_many_messages_come_in_order_after_a_crash(
    broker: Broker, channel: ChannelOfTest, delays: list[int]
) -> None:
    for number, delay_ms in enumerate(delays):
        publish(channel, b"%d" % number, delay_ms)
    broker.crash()
    channel = broker.channel()
    publish(channel, b"100", 50)
    expected = [100] + [number for _, number in sorted((delay_ms, n) for n, delay_ms in enumerate(delays))]
    broker.advance(1000)
    assert [int(body) for body in channel.drain("q")] == expected


@pytest.mark.usefixtures("small_window")
def test_messages_that_are_not_yet_written_are_not_forgotten(broker: Broker, channel: ChannelOfTest) -> None:
    for number in range(20):
        publish(channel, b"%d" % number, 100 + number)
    broker.hold_store()
    for number in range(20, 40):
        publish(channel, b"%d" % number, 100 + number)
    broker.advance(110)
    broker.release_store()
    broker.advance(1000)
    assert [int(body) for body in channel.drain("q")] == list(range(40))


@pytest.mark.usefixtures("small_window")
def test_memory_holds_only_those_that_are_due_next(broker: Broker, channel: ChannelOfTest) -> None:
    for number in range(100):
        publish(channel, b"m", 1000 - number)
    (waiting,) = broker.node.turn.delays.values()
    assert waiting.count == 100
    assert len(waiting._near) + len(waiting._unwritten) <= 8


def test_all_that_is_due_at_once_takes_a_few_turns(broker: Broker, channel: ChannelOfTest) -> None:
    messages = delay.DUE_MAX + 10
    channel.publish_all("k", *[b"m"] * messages, exchange="later", properties=delayed(100))
    broker.advance(100)
    assert channel.ready("q") == delay.DUE_MAX
    broker.advance(1)
    assert channel.ready("q") == messages


def test_what_is_due_waits_while_the_store_is_behind(broker: Broker, channel: ChannelOfTest) -> None:
    publish(channel, b"m", 100)
    broker.node.turn.memory_bytes += 1 << 40
    broker.advance(150)
    broker.node.turn.memory_bytes -= 1 << 40
    assert channel.ready("q") == 0
    broker.advance(delay.RETRY_MS)
    assert channel.ready("q") == 1


def test_times_that_mean_nothing_any_more_are_removed(
    broker: Broker, channel: ChannelOfTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delay, "STALE_DUE_MAX", 5)
    for number in range(50):
        publish(channel, b"%d" % number, 1000 - number)
    assert len(broker.node.turn.due) <= 8
    broker.advance(1000)
    assert len(channel.drain("q")) == 50
