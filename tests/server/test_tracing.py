"""The firehose: amq.rabbitmq.trace gets copies of what is published and delivered in a vhost that traces.

Headers, their order and their types are those of RabbitMQ 3.10.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.broker.server.vhosts import add_vhost, delete_vhost
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table, encode_table, from_python

from ..peer import Content
from .harness import Broker, ChannelOfTest, Refused, delivery_tag


class Traced:
    """A broker that traces, a channel on it, a queue `q`, and a queue of copies."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.channel = self.broker.channel()
        self.channel.declare("q")
        self.channel.declare("copies")
        self.channel.bind("copies", "amq.rabbitmq.trace", "#")
        self.switch(is_on=True)

    def switch(self, *, is_on: bool) -> None:
        self.broker.node.trace(self.broker.node.vhosts["/"], is_on)

    def copies(self) -> list[Content]:
        """Take the copies."""
        taken: list[Content] = []
        while (copy := self.channel.get("copies")) is not None:
            taken.append(copy)
        return taken

    def keys(self) -> list[str]:
        """Take the copies; their routing keys."""
        return [routing_key(copy) for copy in self.copies()]


@pytest.fixture
def traced() -> Traced:
    return Traced()


def routing_key(copy: Content) -> str:
    assert isinstance(copy.method, commands.Basic.GetOk)
    return copy.method.routing_key or ""


def headers_of(copy: Content) -> Table:
    headers = Properties.parse(copy.properties).headers
    assert headers is not None
    return headers


def strings(field: Field) -> list[str]:
    assert isinstance(field.value, list)
    return [element.value.decode() for element in field.value]


def test_nothing_is_copied_unless_somebody_asks() -> None:
    traced = Traced()
    traced.switch(is_on=False)
    traced.channel.publish("q", b"a")
    traced.channel.get("q")
    assert traced.keys() == []


def test_a_publish_is_copied_with_all_about_it(traced: Traced) -> None:
    sent = replace(
        content_type="text/plain", headers={"a": Field("I", 1)}, delivery_mode=2, timestamp=1_700_000_000
    )
    traced.channel.publish("q", b"hello", properties=sent)
    (copy,) = traced.copies()
    assert (routing_key(copy), copy.body) == ("publish.", b"hello")
    name = traced.broker.clients[0].session.name
    assert copy.properties == replace(
        headers={
            "exchange_name": from_python(""),
            "routing_keys": from_python(["q"]),
            "properties": Field(
                "F",
                {
                    "timestamp": Field("I", 1_700_000_000),
                    "delivery_mode": Field("I", 2),
                    "headers": Field("F", {"a": Field("I", 1)}),
                    "content_type": from_python("text/plain"),
                },
            ),
            "node": from_python(traced.broker.node.name),
            "vhost": from_python("/"),
            "connection": from_python(name),
            "channel": Field("I", 1),
            "user": from_python("guest"),
            "routed_queues": from_python(["q"]),
        }
    )


def test_a_delivery_is_copied_with_who_got_it(traced: Traced) -> None:
    traced.channel.consume("q", no_ack=True)
    traced.channel.publish("q", b"hello")
    _, copy = traced.copies()
    assert (routing_key(copy), copy.body) == ("deliver.q", b"hello")
    assert list(headers_of(copy)) == [
        "exchange_name", "routing_keys", "properties", "node", "redelivered", "vhost", "connection",
        "channel", "user",
    ]  # fmt: skip
    assert headers_of(copy)["redelivered"] == Field("I", 0)


def test_a_get_is_copied_and_says_whether_it_was_redelivered(traced: Traced) -> None:
    traced.channel.publish("q")
    message = traced.channel.get("q", no_ack=False)
    assert message is not None
    traced.channel.reject(delivery_tag(message), requeue=True)
    traced.channel.get("q")
    copies = [copy for copy in traced.copies() if routing_key(copy) == "deliver.q"]
    assert [headers_of(copy)["redelivered"].value for copy in copies] == [0, 1]


def test_a_requeued_message_is_copied_each_time_a_consumer_gets_it(traced: Traced) -> None:
    traced.channel.publish("q")
    traced.channel.consume("q")
    traced.channel.reject(delivery_tag(traced.channel.delivered()[0]), requeue=True)
    assert traced.keys() == ["publish.", "deliver.q", "deliver.q"]


def test_copies_are_not_copied(traced: Traced) -> None:
    traced.channel.publish("q")
    traced.copies()
    assert traced.copies() == []


def test_the_routing_key_of_a_publish_names_the_exchange(traced: Traced) -> None:
    traced.channel.bind("q", "amq.topic", "a.#")
    traced.channel.publish("a.b", exchange="amq.topic")
    (copy,) = traced.copies()
    assert routing_key(copy) == "publish.amq.topic"
    assert strings(headers_of(copy)["routing_keys"]) == ["a.b"]
    assert strings(headers_of(copy)["routed_queues"]) == ["q"]


def test_a_message_for_nobody_is_copied(traced: Traced) -> None:
    traced.channel.publish("nobody", mandatory=True)
    traced.channel.publish("nobody", exchange="amq.topic")
    routed = [strings(headers_of(copy)["routed_queues"]) for copy in traced.copies()]
    assert routed == [["nobody"], []]  # the default exchange names queues that do not exist


def test_routing_keys_of_cc_and_bcc_are_told(traced: Traced) -> None:
    headers = {"CC": from_python(["q", "x"]), "BCC": from_python(["y"])}
    traced.channel.publish("q", properties=replace(headers=headers))
    traced.channel.get("q")
    for copy in traced.copies():
        told = headers_of(copy)
        assert strings(told["routing_keys"]) == ["q", "q", "x", "y"]
        properties = told["properties"].value
        assert isinstance(properties, dict)
        assert list(properties["headers"].value) == ["CC"]


def test_a_refused_publish_is_not_copied(traced: Traced) -> None:
    other = traced.broker.channel()
    other.publish("q", exchange="missing")
    with pytest.raises(Refused):
        other.check_open()
    assert traced.copies() == []


def test_a_publish_in_a_transaction_is_copied_before_it_is_committed(traced: Traced) -> None:
    other = traced.broker.channel()
    other.call(commands.Tx.Select)
    other.publish("q")
    assert traced.keys() == ["publish."]
    other.call(commands.Tx.Commit)
    assert traced.channel.ready("q") == 1
    assert traced.copies() == []


def test_a_dead_letter_is_copied_when_it_is_delivered(traced: Traced) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-message-ttl": 1}
    traced.channel.declare("short", arguments=arguments)
    traced.channel.publish("short", b"a")
    traced.broker.advance(1)
    traced.channel.get("q")
    keys = traced.copies()
    assert [routing_key(copy) for copy in keys] == ["publish.", "deliver.q"]
    assert strings(headers_of(keys[1])["routing_keys"]) == ["q"]


def test_a_direct_reply_is_copied_as_published_only(traced: Traced) -> None:
    asking, answering = traced.broker.channel(), traced.broker.channel()
    asking.consume("amq.rabbitmq.reply-to", no_ack=True)
    asking.publish("q", properties=replace(reply_to="amq.rabbitmq.reply-to"))
    request = answering.get("q")
    assert request is not None
    reply_to = Properties.parse(request.properties).reply_to
    assert reply_to is not None
    traced.copies()
    answering.publish(reply_to.decode(), b"reply")
    assert asking.bodies() == [b"reply"]
    (copy,) = traced.copies()
    assert strings(headers_of(copy)["routed_queues"]) == []


def test_confirms_come_as_without_tracing(traced: Traced) -> None:
    traced.channel.confirm()
    traced.channel.publish_all("q", b"1", b"2")
    assert traced.channel.confirms() == ["ack 2 multiple"]
    assert [copy.body for copy in traced.copies()] == [b"1", b"2"]


def test_a_stream_copies_what_its_readers_get(traced: Traced) -> None:
    traced.channel.declare("s", durable=True, arguments={"x-queue-type": "stream"})
    traced.channel.publish("s", b"a")
    traced.channel.qos(10)
    traced.channel.consume("s", arguments={"x-stream-offset": "first"})
    copy = traced.copies()[-1]
    properties = headers_of(copy)["properties"].value
    assert routing_key(copy) == "deliver.s"
    assert isinstance(properties, dict)
    assert properties["headers"].value == {"x-stream-offset": Field("l", 0)}


def test_queues_declared_while_tracing_are_traced(traced: Traced) -> None:
    traced.channel.declare("new")
    traced.channel.publish("new")
    traced.channel.get("new")
    assert traced.keys() == ["publish.", "deliver.new"]


def test_other_vhosts_are_not_traced(traced: Traced) -> None:
    add_vhost(traced.broker.node, "other")
    traced.broker.node.authority.set_permissions("guest", "other", ".*", ".*", ".*")
    other = traced.broker.channel(vhost="other")
    other.declare("q")
    other.declare("copies")
    other.bind("copies", "amq.rabbitmq.trace", "#")
    other.publish("q")
    assert other.ready("copies") == 0
    assert traced.copies() == []


def test_tracing_ends_with_the_broker(traced: Traced) -> None:
    traced.broker.restart()
    assert traced.broker.node.vhosts["/"].tracer is None


def test_publishers_wait_for_an_alarm_also_while_they_are_traced(traced: Traced) -> None:
    publisher = traced.broker.channel()
    traced.broker.node.set_alarm("disk", True)
    publisher.publish("q", b"a")
    assert traced.channel.ready("q") == 0
    traced.broker.node.set_alarm("disk", False)
    traced.broker.run()
    assert traced.channel.ready("q") == 1
    assert traced.keys() == ["publish."]


def test_a_queue_that_takes_copies_of_its_own_deliveries_keeps_its_order(traced: Traced) -> None:
    traced.channel.bind("q", "amq.rabbitmq.trace", "deliver.q")
    traced.channel.consume("q", no_ack=True)
    traced.channel.publish_all("q", b"1", b"2", b"3")
    bodies = traced.channel.bodies()
    assert bodies[:3] == [b"1", b"2", b"3"]
    assert sorted(bodies[3:]) == [b"1", b"2", b"3"]


def test_a_long_exchange_name_is_cut_to_fit_the_routing_key(traced: Traced) -> None:
    name = "e" * 250
    traced.channel.declare_exchange(name)
    traced.channel.publish("k", exchange=name)
    assert traced.keys() == [f"publish.{name}"[:255]]


def test_headers_that_are_too_deep_for_a_copy_are_left_out_of_it(traced: Traced) -> None:
    deep: Table = {}
    for _ in range(31):
        deep = {"n": Field("F", deep)}
    assert encode_table(deep)
    publisher: ChannelOfTest = traced.broker.channel()
    publisher.publish("q", b"a", properties=replace(headers=deep, app_id="app"))
    (copy,) = traced.copies()
    properties = headers_of(copy)["properties"].value
    assert isinstance(properties, dict)
    assert list(properties) == ["app_id"]


def test_a_message_with_more_routing_keys_than_a_copy_has_room_for_is_not_copied(traced: Traced) -> None:
    publisher = traced.broker.channel()
    publisher.publish("q", b"a", properties=replace(headers={"CC": distinct_keys(9_000)}))
    publisher.publish("q", b"b")
    assert [copy.body for copy in traced.copies()] == [b"b"]
    assert traced.channel.drain("q") == [b"a", b"b"]


def distinct_keys(count: int) -> Field:
    return from_python([f"{number:x}" for number in range(count)])


def test_a_vhost_that_is_traced_can_be_deleted(traced: Traced) -> None:
    node = traced.broker.node
    add_vhost(node, "v")
    traced.switch(is_on=False)
    node.trace(node.vhosts["v"], True)
    assert node.is_watchful
    delete_vhost(node, "v")
    assert not node.is_watchful
