"""basic.publish: what is refused, what comes back, and that content arrives as it was sent.

Source: AMQP 0-9-1 basic.publish (60, 40); RabbitMQ guides "Publishers", "Sender-selected Distribution",
"Validated User-ID".
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.properties import NO_PROPERTIES, replace
from leveret.protocol.tables import Field, Table, from_python

from ..peer import Content
from .harness import PERSISTENT, Broker, ChannelOfTest, Refused

PUBLISH = (60, 40)


def with_headers(**headers: object) -> bytes:
    return replace(headers={name: from_python(value) for name, value in headers.items()})


def close_of(channel: ChannelOfTest) -> tuple[int, str, tuple[int, int], bool]:
    with pytest.raises(Refused) as caught:
        channel.check_open()
    return caught.value.code, caught.value.text, caught.value.method_ids, caught.value.is_hard


# Routing


def test_a_message_is_delivered_with_its_exchange_and_routing_key() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.bind("q", "amq.direct", "k")
    channel.publish("k", b"body", exchange="amq.direct", properties=replace(app_id="me"))
    message = channel.get("q")
    assert message is not None
    assert isinstance(message.method, commands.Basic.GetOk)
    assert (message.method.exchange, message.method.routing_key) == ("amq.direct", "k")
    assert (message.body, message.fields.app_id) == (b"body", b"me")


def test_an_unroutable_mandatory_message_comes_back() -> None:
    channel = Broker().channel()
    channel.publish("nowhere", b"body", properties=replace(type="t"), mandatory=True)
    returned = channel.returned()
    assert len(returned) == 1
    method = returned[0].method
    assert isinstance(method, commands.Basic.Return)
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("", "nowhere")
    assert (returned[0].body, returned[0].fields.type) == (b"body", b"t")


def test_an_unroutable_message_is_dropped_without_mandatory() -> None:
    channel = Broker().channel()
    channel.publish("nowhere", b"body")
    assert channel.take() == []


def test_a_return_comes_before_its_confirm() -> None:
    channel = Broker().channel()
    channel.confirm()
    with channel.client.at_once():
        channel.publish("nowhere", b"1", mandatory=True)
        channel.publish("nowhere", b"2", mandatory=True)
    assert channel.names() == ["Basic.Return", "Basic.Return", "Basic.Ack"]


def test_a_message_that_a_queue_refuses_does_not_come_back() -> None:
    channel = Broker().channel()
    channel.confirm()
    channel.declare("q", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.publish("q", b"1", mandatory=True)
    assert channel.names() == ["Basic.Nack"]


def test_a_message_goes_once_into_a_queue_that_matches_twice() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.bind("q", "amq.topic", "a.*")
    channel.bind("q", "amq.topic", "*.b")
    channel.publish("a.b", b"1", exchange="amq.topic")
    assert channel.drain("q") == [b"1"]


def test_a_message_goes_into_all_queues_of_a_fanout() -> None:
    channel = Broker().channel()
    queues = [channel.declare(name) for name in ("a", "b", "c")]
    for queue in queues:
        channel.bind(queue, "amq.fanout")
    channel.publish_all("", b"1", b"2", exchange="amq.fanout")
    assert [channel.drain(queue) for queue in queues] == [[b"1", b"2"]] * 3


# CC and BCC


def test_cc_and_bcc_add_routing_keys() -> None:
    channel = Broker().channel()
    queues = [channel.declare(name) for name in ("to", "cc", "bcc")]
    channel.publish("to", b"1", properties=with_headers(CC=["cc", "to"], BCC=["bcc"], other=1))
    messages = [channel.get(queue) for queue in queues]
    for message in messages:
        assert message is not None
        assert message.fields.headers == {"CC": from_python(["cc", "to"]), "other": from_python(1)}
        assert isinstance(message.method, commands.Basic.GetOk)
        assert message.method.routing_key == "to"
    assert [channel.ready(queue) for queue in queues] == [0, 0, 0]


def test_a_message_routed_by_cc_alone_does_not_come_back() -> None:
    channel = Broker().channel()
    channel.declare("cc")
    channel.publish("nowhere", b"1", properties=with_headers(CC=["cc"]), mandatory=True)
    assert channel.returned() == []
    assert channel.drain("cc") == [b"1"]


def test_bcc_is_not_in_a_returned_message() -> None:
    channel = Broker().channel()
    channel.publish("nowhere", b"1", properties=with_headers(BCC=["x"]), mandatory=True)
    assert channel.returned()[0].fields.headers == {}


def test_what_is_no_string_in_cc_is_skipped() -> None:
    channel = Broker().channel()
    channel.declare("cc")
    channel.publish("nowhere", b"1", properties=with_headers(CC=[1, "cc", True]))
    assert channel.drain("cc") == [b"1"]


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_cc_that_is_no_array_is_refused(name: str) -> None:
    channel = Broker().channel()
    channel.publish("q", b"1", properties=with_headers(**{name: "text"}))
    text = f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{name}",longstr}}'
    assert close_of(channel) == (406, text, PUBLISH, False)


# What is refused


def test_a_publish_to_a_missing_exchange_closes_the_channel() -> None:
    channel = Broker().channel()
    channel.publish("k", b"1", exchange="nonono")
    text = "NOT_FOUND - no exchange 'nonono' in vhost '/'"
    assert close_of(channel) == (404, text, PUBLISH, False)


def test_publishes_behind_a_refused_one_are_dropped_and_those_before_are_kept() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.confirm()
    with channel.client.at_once():
        channel.publish("q", b"1")
        channel.publish("k", b"2", exchange="nonono")
        channel.publish("q", b"3")
    assert channel.confirms() == ["ack 1"]
    assert close_of(channel)[0] == 404
    channel.reopen()
    assert channel.drain("q") == [b"1"]


def test_an_internal_exchange_takes_no_publishes() -> None:
    channel = Broker().channel()
    channel.declare_exchange("inside", "fanout", internal=True)
    channel.publish("k", b"1", exchange="inside")
    text = "ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/'"
    assert close_of(channel) == (403, text, PUBLISH, False)


def test_an_internal_exchange_passes_on_what_another_one_sends_it() -> None:
    channel = Broker().channel()
    channel.declare_exchange("inside", "fanout", internal=True)
    channel.call(commands.Exchange.Bind, source="amq.fanout", destination="inside")
    channel.bind(channel.declare("q"), "inside")
    channel.publish("k", b"1", exchange="amq.fanout")
    assert channel.drain("q") == [b"1"]


def test_immediate_is_not_implemented() -> None:
    channel = Broker().channel()
    channel.publish("q", b"1", immediate=True)
    assert close_of(channel) == (540, "NOT_IMPLEMENTED - immediate=true", PUBLISH, True)


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("10x", '{leftover_string,"x"}'),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_an_invalid_expiration_is_refused(expiration: str, reason: str) -> None:
    channel = Broker().channel()
    channel.publish("q", b"1", properties=replace(expiration=expiration))
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"
    assert close_of(channel) == (406, text, PUBLISH, False)


@pytest.mark.parametrize("expiration", ["+5", "007", "315360000000"])
def test_an_unusual_expiration_is_accepted_and_delivered_unchanged(expiration: str) -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1", properties=replace(expiration=expiration))
    message = channel.get("q")
    assert message is not None
    assert message.fields.expiration == expiration.encode()


def test_another_users_id_is_refused() -> None:
    channel = Broker().channel()
    channel.publish("q", b"1", properties=replace(user_id="other"))
    text = "PRECONDITION_FAILED - user_id property set to 'other' but authenticated user was 'guest'"
    assert close_of(channel) == (406, text, PUBLISH, False)


def test_ones_own_user_id_is_accepted() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"1", properties=replace(user_id="guest"))
    assert channel.drain("q") == [b"1"]


def test_a_message_larger_than_allowed_closes_the_channel_and_its_body_is_ignored() -> None:
    channel = Broker(max_message_bytes=10).channel()
    channel.declare("q")
    channel.publish("q", b"x" * 11)
    text = "PRECONDITION_FAILED - message size 11 is larger than configured max size 10"
    assert close_of(channel) == (406, text, PUBLISH, False)
    channel.reopen()
    channel.publish("q", b"x" * 10)
    assert channel.drain("q") == [b"x" * 10]


def test_an_unknown_delivery_mode_counts_as_transient() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish("q", b"1", properties=replace(delivery_mode=3))
    assert channel.ready("q") == 1
    broker.restart()
    assert broker.channel().ready("q") == 0


# Content


def test_properties_pass_byte_for_byte() -> None:
    channel = Broker().channel()
    channel.declare("q")
    headers: Table = {
        "z": Field("d", 0.1),
        "a": Field("l", -(2**63)),
        "t": Field("F", {"nested": Field("A", [Field("V", None), Field("t", True), Field("D", (2, 5))])}),
        "s": Field("S", b"\xff\xfe"),
        "x": Field("x", b"\0\1"),
    }
    properties = replace(headers=headers, content_type="", priority=255, timestamp=2**63, cluster_id="c")
    channel.publish("q", b"1", properties=properties)
    message = channel.get("q")
    assert message is not None
    assert message.properties == properties


def test_an_empty_body_has_no_body_frame() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.publish("q", b"")
    assert channel.drain("q") == [b""]


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000])
@pytest.mark.parametrize(("sent_at", "received_at"), [(4096, 131072), (131072, 4096), (4096, 4096)])
def test_a_body_arrives_whatever_the_frame_sizes(size: int, sent_at: int, received_at: int) -> None:
    broker = Broker()
    publisher = broker.channel(frame_max=sent_at)
    consumer = broker.channel(7, frame_max=received_at)
    consumer.declare("q")
    consumer.consume("q", no_ack=True)
    body = bytes(index % 251 for index in range(size))
    publisher.publish_all("q", body, body + b"!", body)
    assert consumer.bodies() == [body, body + b"!", body]


def test_contents_of_two_channels_may_interleave() -> None:
    client = Broker().connect()
    one, two = client.channel(1), client.channel(2)
    one.declare("q")
    peer = client.peer
    publish = [peer.publish(number, "", "q")[: -len(peer.content(number, b""))] for number in (1, 2)]
    client.send(
        publish[0]
        + peer.content_header(1, 4)
        + peer.body(1, b"ab")
        + publish[1]
        + peer.content_header(2, 2)
        + peer.body(2, b"xy")
        + peer.body(1, b"cd")
    )
    assert one.drain("q") == [b"xy", b"abcd"]
    assert two.take() == []


BODIES = st.lists(st.tuples(st.sampled_from([b"", b"a", b"bb" * 20, b"c" * 300]), st.booleans()), max_size=6)


@settings(max_examples=60)
@given(BODIES, st.lists(st.integers(0, 4000), max_size=12), st.sampled_from([40, 131072]))
def test_messages_arrive_in_order_however_the_bytes_are_split(
    messages: list[tuple[bytes, bool]], cuts: list[int], frame_max: int
) -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.confirm()
    client = channel.client
    client.peer.frame_max = frame_max
    data = b"".join(
        client.peer.publish(1, "", "q", body, PERSISTENT if persistent else NO_PROPERTIES)
        for body, persistent in messages
    )
    client.peer.frame_max = 131072
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        client.send(data[start:end])
    channel.confirms()
    got = [channel.get("q") for _ in messages]
    assert all(isinstance(message, Content) for message in got)
    assert [(m.body, m.properties == PERSISTENT) for m in got if m is not None] == messages


def test_a_publish_and_its_content_arrive_when_every_byte_comes_alone() -> None:
    channel = Broker().channel()
    channel.declare("q")
    peer = channel.client.peer
    data = peer.publish(1, "", "q", b"one") + peer.publish(1, "amq.direct", "longer key", b"two")
    data += peer.publish(1, "", "q", b"three")
    for index in range(len(data)):
        channel.client.send(data[index : index + 1])
    assert channel.drain("q") == [b"one", b"three"]
