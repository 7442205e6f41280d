"""Streams over AMQP 0-9-1: messages that stay, readers at any offset, retention, filters, remembered offsets.

Source: RabbitMQ guide "Streams"; errors as seen on RabbitMQ 3.10, but for those that close the connection
with 541 there and say what is wrong in 4.x. Offsets that the broker remembers are LavinMQ's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp import commands

from leveret.broker.model.rules.policies import Policy
from leveret.broker.model.streams.segments import ROW_BYTES
from leveret.broker.model.streams.stream_reader import READ_MESSAGES
from leveret.broker.model.streams.stream_tail import TAIL_MESSAGES
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table, from_python
from leveret.storage.changes import QueuePurged

from ..peer import Content
from .harness import (
    PERSISTENT,
    START_MS,
    Broker,
    ChannelOfTest,
    Client,
    Refused,
    delivery_tag,
    is_redelivered,
)

pytestmark = pytest.mark.usefixtures("either_way")

Ending = Callable[[Broker], None]
both_endings = pytest.mark.parametrize("end", [Broker.restart, Broker.crash], ids=["restart", "crash"])
TRANSIENT = replace(delivery_mode=1)
ALL = 65_535  # the highest prefetch count
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


def declare(channel: ChannelOfTest, **arguments: Any) -> None:  # noqa: ANN401 - of many types
    """Declare the stream `s`; underscores in names of arguments stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.declare("s", durable=True, arguments={"x-queue-type": "stream", **named})


def stream(broker: Broker, *bodies: bytes, **arguments: Any) -> ChannelOfTest:  # noqa: ANN401
    """Declare a stream with messages; the channel that did it."""
    channel = broker.channel()
    declare(channel, **arguments)
    for body in bodies:
        channel.publish("s", body)
    return channel


def reader(
    client: Client,
    number: int = 2,
    prefetch: int = ALL,
    tag: str = "c",
    **arguments: Any,  # noqa: ANN401 - of many types
) -> ChannelOfTest:
    """Consume the stream on a channel of its own; without arguments from its first message on."""
    channel = client.channel(number)
    channel.qos(prefetch)
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.consume("s", tag, arguments=named or {"x-stream-offset": "first"})
    return channel


def read(channel: ChannelOfTest, **arguments: Any) -> list[bytes]:  # noqa: ANN401 - of many types
    """Read the stream once, on a channel that is closed again; the bodies."""
    other = reader(channel.client, 99, **arguments)
    bodies = other.bodies()
    other.close()
    return bodies


def offset(delivery: Content) -> int:
    """The offset that a delivery tells."""
    field = headers(delivery)["x-stream-offset"]
    assert field.tag == "l"
    assert isinstance(field.value, int)
    return field.value


def headers(delivery: Content) -> Table:
    """The headers of a delivery."""
    table = Properties.parse(delivery.properties).headers
    assert table is not None
    return table


def refusal(call: Callable[[], object]) -> tuple[int, str, bool]:
    """Code, text and whether the connection is closed."""
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.code, caught.value.text, caught.value.is_hard


# Messages stay


def test_messages_stay_after_they_were_acked() -> None:
    channel = stream(Broker(), b"1", b"2")
    first = reader(channel.client)
    for delivery in first.delivered():
        first.ack(delivery_tag(delivery))
    assert read(channel) == [b"1", b"2"]


def test_every_reader_gets_every_message_by_itself() -> None:
    channel = stream(Broker(), b"1", b"2")
    one, other = reader(channel.client, 2), reader(channel.client, 3, prefetch=1)
    channel.publish("s", b"3")
    assert (one.bodies(), other.bodies()) == ([b"1", b"2", b"3"], [b"1"])


def test_two_consumers_of_one_channel_read_by_themselves() -> None:
    channel = stream(Broker(), b"1")
    both = reader(channel.client, tag="a")
    both.consume("s", "b", arguments={"x-stream-offset": "first"})
    channel.publish("s", b"2")
    assert (both.bodies("a"), both.bodies("b")) == ([b"1", b"2"], [b"1", b"2"])


def test_each_delivery_tells_its_offset_and_is_never_redelivered() -> None:
    channel = stream(Broker(), b"1", b"2")
    read(channel)
    deliveries = reader(channel.client).delivered()
    assert [offset(delivery) for delivery in deliveries] == [0, 1]
    assert not any(is_redelivered(delivery) for delivery in deliveries)


def test_properties_are_as_they_were_published_and_the_offset_is_added_to_the_headers() -> None:
    channel = stream(Broker())
    table: Table = {"b": Field("x", b"\x00"), "a": Field("I", 7)}
    properties = replace(content_type="text/plain", content_encoding="gzip", headers=table, priority=3)
    channel.publish("s", b"", properties=properties)
    (delivery,) = reader(channel.client).delivered()
    expected = {**table, "x-stream-offset": Field("l", 0)}
    assert delivery.properties == replace(properties, headers=expected)


def test_an_offset_that_a_publisher_wrote_is_replaced() -> None:
    channel = stream(Broker())
    table: Table = {"x-stream-offset": from_python("mine"), "a": from_python(1)}
    channel.publish("s", b"", properties=replace(headers=table))
    (delivery,) = reader(channel.client).delivered()
    assert headers(delivery) == {"a": table["a"], "x-stream-offset": Field("l", 0)}


def test_large_bodies_are_cut_into_the_frames_of_each_reader() -> None:
    broker = Broker()
    channel = stream(broker, b"x" * 300_000)
    small = broker.connect(frame_max=4096)
    assert reader(small).bodies() == [b"x" * 300_000]
    assert reader(channel.client).bodies() == [b"x" * 300_000]


def test_messages_come_through_exchanges_like_into_any_queue() -> None:
    channel = stream(Broker())
    channel.bind("s", "amq.topic", "a.#")
    channel.publish("a.b", b"1", exchange="amq.topic")
    (delivery,) = reader(channel.client).delivered()
    assert isinstance(delivery.method, commands.Basic.Deliver)
    assert (delivery.method.exchange, delivery.method.routing_key) == ("amq.topic", "a.b")


def test_dead_letters_can_go_into_a_stream() -> None:
    channel = stream(Broker())
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "s", "x-message-ttl": 10}
    channel.declare("q", arguments=dead)
    channel.publish("q", b"1")
    channel.broker.advance(20)
    assert read(channel) == [b"1"]


def test_an_expiration_means_nothing_in_a_stream() -> None:
    channel = stream(Broker())
    channel.publish("s", b"1", properties=replace(expiration="10"))
    channel.broker.advance(HOUR)
    assert read(channel) == [b"1"]


def test_the_number_of_messages_is_told_and_no_consumers() -> None:
    channel = stream(Broker(), b"1", b"2")
    reader(channel.client)
    assert channel.counts("s") == (2, 0)


# Durability


@both_endings
def test_all_messages_survive_whatever_their_delivery_mode(end: Ending) -> None:
    broker = Broker()
    channel = stream(broker)
    channel.publish("s", b"1", properties=TRANSIENT)
    channel.publish("s", b"2", properties=PERSISTENT)
    channel.publish("s", b"3")
    end(broker)
    deliveries = reader(broker.connect()).delivered()
    assert [(d.body, offset(d), is_redelivered(d)) for d in deliveries] == [
        (b"1", 0, False),
        (b"2", 1, False),
        (b"3", 2, False),
    ]
    assert Properties.parse(deliveries[0].properties).delivery_mode == 1


@both_endings
def test_offsets_go_on_after_a_restart(end: Ending) -> None:
    broker = Broker()
    stream(broker, b"1", b"2")
    end(broker)
    channel = broker.channel()
    channel.publish("s", b"3")
    assert [offset(d) for d in reader(channel.client).delivered()] == [0, 1, 2]


def test_a_confirm_waits_until_also_a_transient_message_is_durable() -> None:
    channel = stream(Broker())
    channel.confirm()
    channel.broker.hold_store()
    channel.publish("s", b"1", properties=TRANSIENT)
    assert channel.confirms() == []
    channel.broker.release_store()
    assert channel.confirms() == ["ack 1"]


def test_readers_get_only_what_is_durable() -> None:
    """Or another message could have an offset after a crash that a reader had remembered."""
    broker = Broker()
    channel = stream(broker)
    live = reader(channel.client)
    broker.hold_store()
    channel.publish("s", b"1")
    assert live.bodies() == []
    broker.release_store()
    assert live.bodies() == [b"1"]


def test_a_transaction_publishes_into_a_stream_when_it_is_committed() -> None:
    channel = stream(Broker())
    live = reader(channel.client)
    channel.call(commands.Tx.Select)
    channel.publish("s", b"1")
    assert live.bodies() == []
    channel.call(commands.Tx.Commit)
    assert live.bodies() == [b"1"]


@both_endings
def test_a_deleted_stream_is_gone_and_a_new_one_is_empty(end: Ending) -> None:
    broker = Broker()
    channel = stream(broker, b"1")
    live = reader(channel.client)
    assert channel.delete("s", if_unused=True, if_empty=True) == 0
    assert "Basic.Cancel" in live.names()
    declare(channel)
    end(broker)
    channel = broker.channel()
    channel.publish("s", b"2")
    assert [(d.body, offset(d)) for d in reader(channel.client).delivered()] == [(b"2", 0)]


# Where a reader begins


@pytest.mark.parametrize(
    ("start", "bodies"),
    [
        ("first", [b"0", b"1", b"2", b"3", b"new"]),
        ("last", [b"3", b"new"]),
        ("next", [b"new"]),
        (0, [b"0", b"1", b"2", b"3", b"new"]),
        (2, [b"2", b"3", b"new"]),
        (4, [b"new"]),
        (5, []),
        (-1, [b"3", b"new"]),
        (-3, [b"1", b"2", b"3", b"new"]),
        (-100, [b"0", b"1", b"2", b"3", b"new"]),
    ],
)
def test_a_reader_begins_at_an_offset(start: str | int, bodies: list[bytes]) -> None:
    channel = stream(Broker(), b"0", b"1", b"2", b"3")
    live = reader(channel.client, x_stream_offset=start)
    channel.publish("s", b"new")
    assert live.bodies() == bodies


def test_without_an_offset_a_reader_gets_what_is_new() -> None:
    channel = stream(Broker(), b"old")
    live = reader(channel.client, x_unknown=1)
    channel.publish("s", b"new")
    assert live.bodies() == [b"new"]


def test_an_offset_to_come_is_waited_for() -> None:
    channel = stream(Broker(), b"0")
    live = reader(channel.client, x_stream_offset=2)
    channel.publish("s", b"1")
    channel.publish("s", b"2")
    assert live.bodies() == [b"2"]


def test_messages_that_came_together_are_the_last_ones_together() -> None:
    channel = stream(Broker(), b"0")
    channel.publish_all("s", b"1", b"2")
    assert read(channel, x_stream_offset="last") == [b"1", b"2"]


@pytest.mark.parametrize("start", ["first", "last", "next", 7, -7])
def test_any_offset_will_do_while_a_stream_is_empty(start: str | int) -> None:
    channel = stream(Broker())
    live = reader(channel.client, x_stream_offset=start)
    channel.publish("s", b"0")
    assert live.bodies() == ([] if start == 7 else [b"0"])


def timed(messages: int) -> ChannelOfTest:
    """A stream into which a message comes every minute: 0, 1, ..."""
    channel = stream(Broker())
    for number in range(messages):
        channel.publish("s", b"%d" % number)
        channel.broker.advance(MINUTE)
    return channel


@pytest.mark.parametrize(
    ("seconds", "first"), [(-1000, 0), (0, 0), (1, 1), (60, 1), (61, 2), (299, 5), (300, 5), (539, 9)]
)
@both_endings
def test_a_reader_begins_at_a_time(end: Ending, seconds: int, first: int) -> None:
    broker = timed(10).broker
    end(broker)
    bodies = read(broker.channel(), x_stream_offset=Field("T", START_MS // 1000 + seconds))
    assert bodies == [b"%d" % number for number in range(first, 10)]


def test_a_time_to_come_is_what_is_new() -> None:
    channel = timed(3)
    live = reader(channel.client, x_stream_offset=Field("T", START_MS // 1000 + 10 * HOUR))
    channel.publish("s", b"new")
    assert live.bodies() == [b"new"]


@pytest.mark.parametrize(
    ("ago", "first"), [("90s", 9), ("2m", 8), ("1h", 0), ("1D", 0), ("1M", 0), ("1Y", 0), ("1s", 10)]
)
def test_a_reader_begins_some_time_ago(ago: str, first: int) -> None:
    bodies = read(timed(10), x_stream_offset=ago)
    assert bodies == [b"%d" % number for number in range(first, 10)]


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (from_python("bogus"), '{longstr,<<"bogus">>}'),
        (from_python("1x"), '{longstr,<<"1x">>}'),
        (from_python("0h"), '{longstr,<<"0h">>}'),
        (from_python(True), "{bool,true}"),
        (Field("d", 1.5), "{double,1.5}"),
    ],
)
def test_an_offset_that_makes_no_sense_is_refused(start: Field, shown: str) -> None:
    channel = stream(Broker())
    channel.qos(1)
    assert refusal(lambda: channel.consume("s", arguments={"x-stream-offset": start})) == (
        406,
        "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 's' in vhost '/':"
        f" {{invalid_stream_offset_arg,{shown}}}",
        False,
    )


# Credit


def test_a_reader_gets_no_more_than_its_prefetch_and_acks_make_room() -> None:
    channel = stream(Broker(), b"1", b"2", b"3", b"4")
    slow = reader(channel.client, prefetch=2)
    assert slow.bodies() == [b"1", b"2"]
    slow.ack(2)
    assert slow.bodies() == [b"3"]
    slow.ack(3, multiple=True)
    assert slow.bodies() == [b"4"]


@pytest.mark.parametrize("requeue", [True, False])
def test_nack_and_reject_only_make_room(requeue: bool) -> None:
    channel = stream(Broker(), b"1", b"2", b"3")
    slow = reader(channel.client, prefetch=1)
    slow.nack(1, requeue=requeue)
    slow.reject(2, requeue=requeue)
    assert slow.bodies() == [b"1", b"2", b"3"]


def test_recover_only_makes_room() -> None:
    channel = stream(Broker(), b"1", b"2", b"3")
    slow = reader(channel.client, prefetch=2)
    slow.recover()
    assert slow.bodies() == [b"1", b"2", b"3"]


def test_a_limit_for_the_whole_channel_holds() -> None:
    channel = stream(Broker(), b"1", b"2")
    slow = channel.client.channel(2)
    slow.qos(1, globally=True)
    slow.consume("s", arguments={"x-stream-offset": "first"})
    assert slow.bodies() == [b"1"]
    slow.ack(1)
    assert slow.bodies() == [b"2"]


def test_a_cancelled_reader_gets_nothing_more_and_may_ack_what_it_has() -> None:
    channel = stream(Broker(), b"1", b"2")
    slow = reader(channel.client, prefetch=1)
    slow.cancel()
    slow.ack(1)
    assert slow.bodies() == [b"1"]


def test_a_reader_that_does_not_read_its_socket_gets_the_rest_later() -> None:
    broker = Broker()
    channel = stream(broker)
    client = broker.connect()
    live = reader(client)
    client.is_stuck = True
    bodies = [b"%d" % number * 1000 for number in range(3000)]
    channel.publish_all("s", *bodies)
    assert client.session.outbox.size < 3_000_000
    client.read_again()
    broker.run()
    assert live.bodies() == bodies


# Long streams


def test_a_reader_goes_through_many_more_messages_than_are_read_at_once() -> None:
    channel = stream(Broker())
    bodies = [b"%d" % number for number in range(3 * READ_MESSAGES + 7)]
    channel.publish_all("s", *bodies)
    first, second = reader(channel.client, 2), reader(channel.client, 3, prefetch=100)
    assert first.bodies() == bodies
    seen: list[bytes] = []
    while deliveries := second.delivered():
        seen += [delivery.body for delivery in deliveries]
        second.ack(delivery_tag(deliveries[-1]), multiple=True)
    assert seen == bodies


def test_a_stream_takes_no_memory_for_messages_that_nobody_waits_for() -> None:
    broker = Broker()
    channel = stream(broker)
    before = broker.node.turn.memory_bytes
    channel.publish_all("s", *[b"x" * 1000] * 2 * TAIL_MESSAGES)
    assert broker.node.turn.memory_bytes == before
    reader(channel.client)
    assert broker.node.turn.memory_bytes == before


def test_slow_readers_leave_only_so_much_in_memory() -> None:
    broker = Broker()
    channel = stream(broker)
    reader(channel.client, prefetch=1)
    before = broker.node.turn.memory_bytes
    for _ in range(5):
        channel.publish_all("s", *[b"x" * 1000] * TAIL_MESSAGES)
    assert broker.node.turn.memory_bytes - before < 2 * TAIL_MESSAGES * 1200
    channel.client.channel(3).delete("s")
    assert broker.node.turn.memory_bytes == before


# Retention


def segment(*bodies: bytes) -> int:
    """What messages count."""
    return sum(len(body) + ROW_BYTES for body in bodies)


def limited(broker: Broker, **arguments: Any) -> ChannelOfTest:  # noqa: ANN401 - of many types
    """A stream with segments of two messages of ten bytes."""
    return stream(broker, x_stream_max_segment_size_bytes=segment(b"x" * 20) + ROW_BYTES, **arguments)


def numbered(first: int, end: int) -> list[bytes]:
    return [b"%010d" % number for number in range(first, end)]


def fill(channel: ChannelOfTest, first: int, end: int) -> None:
    for body in numbered(first, end):
        channel.publish("s", body)


def test_whole_segments_are_removed_when_there_are_more_bytes_than_allowed() -> None:
    channel = limited(Broker(), x_max_length_bytes=5 * segment(b"x" * 10))
    fill(channel, 0, 5)
    assert read(channel) == numbered(0, 5)
    fill(channel, 5, 7)
    assert read(channel) == numbered(2, 7)
    assert channel.counts("s") == (5, 0)


def test_the_newest_segment_stays_however_large_it_is() -> None:
    channel = stream(Broker(), b"1", b"2", x_max_length_bytes=1)
    assert read(channel) == [b"1", b"2"]


def test_messages_of_one_turn_are_removed_too_once_they_are_stored() -> None:
    channel = limited(Broker(), x_max_length_bytes=2 * segment(b"x" * 10))
    channel.publish_all("s", *numbered(0, 100))
    assert read(channel) == numbered(98, 100)


def test_an_offset_that_was_removed_means_the_oldest_that_is_there() -> None:
    channel = limited(Broker(), x_max_length_bytes=2 * segment(b"x" * 10))
    fill(channel, 0, 8)
    assert read(channel, x_stream_offset=1) == numbered(6, 8)
    assert read(channel, x_stream_offset="first") == numbered(6, 8)
    assert read(channel, x_stream_offset=Field("T", 1)) == numbered(6, 8)


def test_a_reader_that_is_overtaken_by_retention_goes_on_with_what_is_there() -> None:
    channel = limited(Broker(), x_max_length_bytes=2 * segment(b"x" * 10))
    fill(channel, 0, 2)
    slow = reader(channel.client, prefetch=1)
    channel.publish_all("s", *numbered(2, 3000))
    slow.ack(1)
    slow.ack(2)
    slow.ack(3)
    offsets = [offset(delivery) for delivery in slow.delivered()]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0


def test_segments_whose_newest_message_is_too_old_are_removed_when_it_is() -> None:
    channel = limited(Broker(), x_max_age="1h")
    for first in (0, 2, 4):
        fill(channel, first, first + 2)
        channel.broker.advance(10 * MINUTE)
    channel.broker.advance(30 * MINUTE)
    assert read(channel) == numbered(0, 6)
    channel.broker.advance(SECOND)
    assert read(channel) == numbered(2, 6)
    channel.broker.advance(DAY)
    assert read(channel) == numbered(4, 6)


@both_endings
def test_retention_goes_on_after_a_restart(end: Ending) -> None:
    broker = Broker()
    fill(limited(broker, x_max_age="1h", x_max_length_bytes=4 * segment(b"x" * 10)), 0, 6)
    end(broker)
    channel = broker.channel()
    assert read(channel) == numbered(2, 6)
    fill(channel, 6, 7)
    assert read(channel) == numbered(4, 7)
    end(broker)
    broker.advance(DAY)
    channel = broker.channel()
    assert read(channel) == numbered(6, 7)
    channel.publish("s", b"new")
    assert [offset(d) for d in reader(channel.client).delivered()] == [6, 7]


def test_what_became_too_old_while_the_broker_was_down_is_removed_at_the_start() -> None:
    broker = Broker()
    fill(limited(broker, x_max_age="1h"), 0, 4)
    broker.stop()
    broker.now_ms += DAY
    broker.crash()
    assert read(broker.channel()) == numbered(2, 4)


def test_removing_a_segment_takes_one_change_however_many_messages_it_has() -> None:
    broker = Broker()
    size = segment(*numbered(0, 1000)) - 1
    channel = stream(broker, x_stream_max_segment_size_bytes=size, x_max_length_bytes=1)
    channel.publish_all("s", *numbered(0, 1000))
    broker.hold_store()
    channel.publish("s", b"next")
    purges = [d for d in broker.store.last_batch_held.definitions if isinstance(d, QueuePurged)]
    assert [(purge.first, purge.last) for purge in purges] == [(1, 1000)]


def test_policies_limit_streams_at_once() -> None:
    broker = Broker()
    channel = limited(broker)
    fill(channel, 0, 6)
    vhost = broker.node.vhosts["/"]
    vhost.set_policy("policy", Policy("p", "^s$", {"max-length-bytes": 4 * segment(b"x" * 10)}))
    broker.run()
    assert read(channel) == numbered(2, 6)
    vhost.set_policy("policy", Policy("p", "^s$", {"max-age": "1h"}))
    broker.advance(2 * HOUR)
    assert read(channel) == numbered(4, 6)


# Filters


def publish_filtered(channel: ChannelOfTest) -> None:
    """Publish messages with the filter values a, b, none, c, and the number 1, which is none either."""
    for body, value in ((b"A", "a"), (b"B", "b"), (b"-", None), (b"C", "c"), (b"1", 1)):
        table = {} if value is None else {"x-stream-filter-value": from_python(value)}
        channel.publish("s", body, properties=replace(headers=table))


@pytest.mark.parametrize(
    ("arguments", "bodies"),
    [
        ({}, [b"A", b"B", b"-", b"C", b"1"]),
        ({"x_stream_filter": "b"}, [b"B"]),
        ({"x_stream_filter": ["a", "c"]}, [b"A", b"C"]),
        ({"x_stream_filter": "b", "x_stream_match_unfiltered": True}, [b"B", b"-", b"1"]),
        ({"x_stream_filter": "nothing"}, []),
        ({"x_stream_match_unfiltered": True}, [b"A", b"B", b"-", b"C", b"1"]),
    ],
)
def test_a_reader_gets_exactly_the_messages_that_match_its_filter(
    arguments: dict[str, Any], bodies: list[bytes]
) -> None:
    channel = stream(Broker())
    publish_filtered(channel)
    assert read(channel, x_stream_offset="first", **arguments) == bodies
    live = reader(channel.client, x_stream_offset="next", **arguments)
    publish_filtered(channel)
    assert live.bodies() == bodies


def test_a_filter_goes_through_a_long_stream_whatever_the_prefetch() -> None:
    channel = stream(Broker())
    channel.publish_all("s", *numbered(0, 2 * READ_MESSAGES))
    publish_filtered(channel)
    one = reader(channel.client, prefetch=1, x_stream_offset="first", x_stream_filter="c")
    assert one.bodies() == [b"C"]


@pytest.mark.parametrize("value", [1, [1], True])
def test_a_filter_is_of_strings(value: object) -> None:
    channel = stream(Broker())
    channel.qos(1)
    code, text, is_hard = refusal(lambda: channel.consume("s", arguments={"x-stream-filter": value}))
    assert (code, is_hard) == (406, False)
    assert "invalid arg 'x-stream-filter' for queue 's' in vhost '/': {unacceptable_type," in text


# Offsets that the broker remembers


def tracking(
    client: Client,
    number: int = 2,
    prefetch: int = 1,
    tag: str = "c",
    **more: Any,  # noqa: ANN401 - of many types
) -> ChannelOfTest:
    """Consume the stream with an offset that the broker remembers."""
    return reader(client, number, prefetch, tag, x_stream_automatic_offset_tracking=True, **more)


@both_endings
def test_a_reader_goes_on_behind_what_it_acked(end: Ending) -> None:
    broker = Broker()
    channel = stream(broker, b"0", b"1", b"2", b"3")
    before = tracking(channel.client, prefetch=2, x_stream_offset="first")
    before.ack(1)
    assert before.bodies() == [b"0", b"1", b"2"]
    end(broker)
    assert tracking(broker.connect(), prefetch=9, x_stream_offset="first").bodies() == [b"1", b"2", b"3"]


def test_what_is_acked_out_of_order_is_not_skipped() -> None:
    channel = stream(Broker(), b"0", b"1", b"2", b"3")
    before = tracking(channel.client, prefetch=3, x_stream_offset="first")
    before.ack(1)
    before.ack(3)
    before.close()
    assert tracking(channel.client, 3, prefetch=9).bodies() == [b"1", b"2", b"3"]


def test_what_was_unacked_when_a_reader_went_is_delivered_to_the_next() -> None:
    channel = stream(Broker(), b"0", b"1")
    before = tracking(channel.client, prefetch=2, x_stream_offset="first")
    before.ack(1)
    before.close()
    assert tracking(channel.client, 3).bodies() == [b"1"]


def test_what_is_acked_after_a_cancel_counts_too() -> None:
    channel = stream(Broker(), b"0", b"1", b"2")
    leaving = tracking(channel.client, prefetch=3, x_stream_offset="first")
    leaving.cancel("c")
    leaving.ack(2, multiple=True)
    assert tracking(channel.client, 3, prefetch=9).bodies() == [b"2"]
    leaving.close()


def test_an_ack_after_a_cancel_does_not_turn_the_next_reader_back() -> None:
    channel = stream(Broker(), b"0", b"1", b"2")
    leaving = tracking(channel.client, prefetch=3, x_stream_offset="first")
    leaving.cancel("c")
    following = tracking(channel.client, 3, prefetch=9, x_stream_offset="first")
    following.ack(3, multiple=True)
    leaving.ack(1)
    following.close()
    assert tracking(channel.client, 4, prefetch=9).bodies() == []


def test_each_consumer_tag_has_an_offset_of_its_own() -> None:
    channel = stream(Broker(), b"0", b"1")
    one = tracking(channel.client, 2, 9, "a", x_stream_offset="first")
    other = tracking(channel.client, 3, 9, "b", x_stream_offset="first")
    one.ack(1)
    other.ack(2, multiple=True)
    one.close()
    other.close()
    assert tracking(channel.client, 4, 9, "a").bodies() == [b"1"]
    assert tracking(channel.client, 5, 9, "b").bodies() == []


def test_a_reader_without_tracking_begins_as_it_says_whatever_is_remembered() -> None:
    channel = stream(Broker(), b"0", b"1")
    tracking(channel.client, prefetch=9, x_stream_offset="first").ack(2, multiple=True)
    assert reader(channel.client, 3, x_stream_offset="first").bodies() == [b"0", b"1"]


# What a stream cannot


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda channel: channel.get("s"), "basic.get"),
        (lambda channel: channel.purge("s"), "queue.purge"),
        (lambda channel: channel.consume("s", no_ack=True), "automatic acknowledgement"),
    ],
    ids=["get", "purge", "no-ack"],
)
def test_some_methods_are_not_for_streams(call: Callable[[ChannelOfTest], object], text: str) -> None:
    channel = stream(Broker())
    channel.qos(1)
    assert refusal(lambda: call(channel)) == (
        540,
        f"NOT_IMPLEMENTED - {text} not supported by stream queues queue 's' in vhost '/'",
        True,
    )


def test_a_reader_must_have_a_prefetch_limit() -> None:
    channel = stream(Broker())
    assert refusal(lambda: channel.consume("s", no_ack=True)) == (
        406,
        "PRECONDITION_FAILED - consumer prefetch count is not set for 'queue 's' in vhost '/''",
        False,
    )


def test_an_exclusive_reader_is_one_like_any_other() -> None:
    channel = stream(Broker(), b"1")
    one = channel.client.channel(2)
    one.qos(1)
    one.consume("s", "a", exclusive=True, arguments={"x-stream-offset": "first"})
    one.consume("s", "b", exclusive=True, arguments={"x-stream-offset": "first"})
    assert (one.bodies("a"), one.bodies("b")) == ([b"1"], [b"1"])


@pytest.mark.parametrize("name", ["x-priority", "x-cancel-on-ha-failover"])
def test_arguments_of_other_consumers_are_refused(name: str) -> None:
    channel = stream(Broker())
    channel.qos(1)
    value = True if name == "x-cancel-on-ha-failover" else 5
    _, text, _ = refusal(lambda: channel.consume("s", arguments={name: value}))
    assert text == (
        f"PRECONDITION_FAILED - invalid arg '{name}' for queue 's' in vhost '/' of queue type"
        " rabbit_stream_queue"
    )
