"""amq.rabbitmq.event tells what happens, with RabbitMQ's routing keys and headers.

Keys, headers, their order and their types are those of RabbitMQ 3.10 with its event exchange plugin.
"""

from __future__ import annotations

import json

import pytest
from pamqp import commands

from leveret.broker.model.own_messages import OwnMessage
from leveret.broker.model.rules.policies import POLICY, make_policy
from leveret.broker.model.turn import OWN_MESSAGES_MAX
from leveret.broker.server.vhosts import add_vhost, delete_vhost
from leveret.protocol.properties import NO_PROPERTIES, Properties
from leveret.protocol.tables import Table, to_json

from ..peer import Content
from .harness import START_MS, Broker, ChannelOfTest, Refused


class Watched:
    """A broker, a channel on it, and a queue of events on a connection of its own."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.channel = self.broker.channel()
        self.watcher = self.broker.channel()
        self.watcher.declare("events", exclusive=True)
        self.watcher.bind("events", "amq.rabbitmq.event", "#")
        self.events()

    def events(self) -> list[Content]:
        """Take the events."""
        taken: list[Content] = []
        while (event := self.watcher.get("events")) is not None:
            taken.append(event)
        return taken

    def keys(self) -> list[str]:
        """Take the events; their routing keys."""
        return [routing_key(event) for event in self.events()]

    def told(self) -> list[tuple[str, dict[str, object]]]:
        """Take the events; routing keys, and headers without the time."""
        told = []
        for event in self.events():
            headers = to_json(headers_of(event))
            assert headers.pop("timestamp_in_ms") == self.broker.now_ms
            told.append((routing_key(event), headers))
        return told


@pytest.fixture
def watched() -> Watched:
    return Watched()


def routing_key(event: Content) -> str:
    assert isinstance(event.method, commands.Basic.GetOk)
    return event.method.routing_key or ""


def headers_of(event: Content) -> Table:
    headers = Properties.parse(event.properties).headers
    assert headers is not None
    return headers


def test_the_exchange_is_in_the_default_vhost_only() -> None:
    broker = Broker()
    add_vhost(broker.node, "other")
    exchange = broker.node.vhosts["/"].exchanges["amq.rabbitmq.event"]
    assert (exchange.type_name, exchange.durable, exchange.internal) == ("topic", True, True)
    assert "amq.rabbitmq.event" not in broker.node.vhosts["other"].exchanges


def test_nothing_is_made_while_nobody_listens() -> None:
    broker = Broker()
    broker.channel().declare("q")
    assert not broker.node.turn.own_messages


def test_an_event_is_persistent_has_no_body_and_tells_the_time(watched: Watched) -> None:
    watched.channel.declare("q")
    (event,) = watched.events()
    properties = Properties.parse(event.properties)
    assert (event.body, properties.delivery_mode, properties.timestamp) == (b"", 2, START_MS // 1000)
    assert [(name, field.tag) for name, field in headers_of(event).items()] == [
        ("user_who_performed_action", "S"),
        ("exclusive", "t"),
        ("owner_pid", "S"),
        ("arguments", "A"),
        ("auto_delete", "t"),
        ("durable", "t"),
        ("name", "S"),
        ("vhost", "S"),
        ("timestamp_in_ms", "l"),
    ]


def test_queues_come_and_go(watched: Watched) -> None:
    watched.channel.declare("q", arguments={"x-max-length": 5})
    watched.channel.declare("q", arguments={"x-max-length": 5})
    watched.channel.delete("q")
    by = {"user_who_performed_action": "guest"}
    created = {
        **by, "exclusive": False, "owner_pid": "", "arguments": ['{<<"x-max-length">>,long,5}'],
        "auto_delete": False, "durable": False, "name": "q", "vhost": "/",
    }  # fmt: skip
    assert watched.told() == [
        ("queue.created", created),
        ("queue.deleted", {**by, "name": "q", "vhost": "/"}),
    ]


def test_what_goes_with_something_else_is_done_by_the_broker(watched: Watched) -> None:
    watched.channel.declare("q", auto_delete=True)
    watched.channel.bind("q", "amq.topic", "a")
    watched.channel.consume("q")
    watched.events()
    watched.channel.cancel()
    told = [(key, headers["user_who_performed_action"]) for key, headers in watched.told()]
    assert told == [
        ("consumer.deleted", "guest"), ("binding.deleted", "rmq-internal"), ("queue.deleted", "rmq-internal"),
    ]  # fmt: skip


def test_a_queue_that_expires_is_deleted_by_the_broker(watched: Watched) -> None:
    watched.channel.declare("q", arguments={"x-expires": 1000})
    watched.events()
    watched.broker.advance(1000)
    by = "rmq-internal"
    assert watched.told() == [("queue.deleted", {"user_who_performed_action": by, "name": "q", "vhost": "/"})]


def test_exchanges_and_bindings_come_and_go(watched: Watched) -> None:
    watched.channel.declare("q")
    watched.channel.declare_exchange("e", "fanout", auto_delete=True)
    watched.channel.bind("q", "e", "k")
    watched.channel.bind("q", "e", "k")
    watched.channel.call(commands.Queue.Unbind, queue="q", exchange="e", routing_key="k")
    (_, *told) = watched.told()
    by = {"user_who_performed_action": "guest"}
    binding = {
        **by, "vhost": "/", "arguments": [], "routing_key": "k", "destination_kind": "queue",
        "destination_name": "q", "source_kind": "exchange", "source_name": "e",
    }  # fmt: skip
    exchange = {
        **by, "policy": "", "arguments": [], "internal": False, "auto_delete": True, "durable": False,
        "type": "fanout", "name": "e", "vhost": "/",
    }  # fmt: skip
    assert told == [
        ("exchange.created", exchange),
        ("binding.created", binding),
        ("binding.deleted", binding),
        ("exchange.deleted", {**by, "name": "e", "vhost": "/"}),
    ]


def test_a_connection_is_told_from_its_login_to_its_end(watched: Watched) -> None:
    client = watched.broker.connect()
    channel = client.channel(7)
    channel.declare("q", exclusive=True)
    channel.consume("q")
    client.close()
    assert watched.keys() == [
        "user.authentication.success", "connection.created", "channel.created", "queue.created",
        "consumer.created", "consumer.deleted", "channel.closed", "queue.deleted", "connection.closed",
    ]  # fmt: skip


def test_a_connection_tells_who_and_where_it_is(watched: Watched) -> None:
    client = watched.broker.connect()
    login, created = watched.told()
    assert login[1]["peer_host"] == "{127,0,0,1}"
    assert login[1]["connection_name"] == client.session.name
    assert (created[1]["user"], created[1]["vhost"], created[1]["port"]) == ("guest", "/", 5672)
    assert created[1]["pid"] == client.session.pid


def test_a_channel_and_its_consumers_are_told_by_pid(watched: Watched) -> None:
    watched.channel.declare("q")
    watched.events()
    channel = watched.channel.client.channel(3)
    channel.consume("q", "tag", no_ack=True)
    (opened, consuming) = watched.told()
    assert opened[1]["number"] == 3
    assert opened[1]["connection"] == channel.client.session.pid
    assert consuming[1]["channel"] == opened[1]["pid"]
    assert (consuming[1]["consumer_tag"], consuming[1]["ack_required"]) == ("tag", False)


def test_a_refused_login_is_told_with_its_reason(watched: Watched) -> None:
    client = watched.broker.connect(opened=False, password="wrong")
    client.send(client.peer.handshake())
    client.vanish()
    failure, closed = watched.events()
    assert routing_key(failure) == "user.authentication.failure"
    error = to_json(headers_of(failure))["error"]
    assert isinstance(error, list)
    assert bytes(error) == b"user 'guest' - invalid credentials"
    assert routing_key(closed) == "connection.closed"


def test_a_channel_that_an_error_closes_is_told(watched: Watched) -> None:
    with pytest.raises(Refused):
        watched.channel.counts("missing")
    assert watched.keys() == ["channel.closed"]


def test_users_permissions_and_vhosts_are_told(watched: Watched) -> None:
    node = watched.broker.node
    node.turn.actor = "rmq-cli"
    node.authority.add_user("ana", "pw")
    node.authority.set_password("ana", "")
    node.authority.set_tags("ana", ("management",))
    node.authority.set_limits("ana", {"max-channels": 1})
    node.authority.set_limits("ana", {})
    node.authority.set_permissions("ana", "/", "", "", "")
    node.authority.set_topic_permissions("ana", "/", "amq.topic", "a", "b")
    node.authority.clear_topic_permissions("ana", "/")
    node.authority.clear_permissions("ana", "/")
    node.delete_user("ana")
    watched.broker.run()
    assert watched.keys() == [
        "user.created", "user.password.cleared", "user.tags.set", "user.limits.set", "user.limits.cleared",
        "permission.created", "topic.permission.created", "topic.permission.deleted", "permission.deleted",
        "user.deleted",
    ]  # fmt: skip
    add_vhost(node, "v")
    delete_vhost(node, "v")
    watched.broker.run()
    keys = watched.keys()
    assert keys.index("vhost.created") == 7  # behind its exchanges
    assert keys[-1] == "vhost.deleted"


def test_a_policy_is_told_with_the_queues_that_it_changes(watched: Watched) -> None:
    vhost = watched.broker.node.vhosts["/"]
    watched.channel.declare("q")
    watched.channel.declare("other")
    watched.events()
    watched.broker.node.turn.actor = "rmq-cli"
    vhost.set_policy(POLICY, make_policy(POLICY, "p", "^q$", {"max-length": 5}, 1, "queues"))
    vhost.clear_policy(POLICY, "p")
    vhost.set_limits({"max-queues": 5})
    watched.broker.run()
    updated, set_, cleared, policy_cleared, parameter, limits = watched.told()
    assert (updated[0], updated[1]["name"], set_[0]) == ("queue.policy.updated", "q", "policy.set")
    assert set_[1]["definition"] == {"max-length": 5}
    assert (cleared[0], policy_cleared[0]) == ("queue.policy.cleared", "policy.cleared")
    assert (parameter[0], limits[0]) == ("parameter.set", "vhost.limits.set")


def test_alarms_are_told(watched: Watched) -> None:
    watched.broker.node.set_alarm("disk", True)
    watched.broker.node.set_alarm("disk", False)
    watched.broker.run()
    assert watched.keys() == ["alarm.set", "alarm.cleared"]


@pytest.mark.parametrize("value", [1 << 70, [[]] * 17_000, json.loads("[" * 100 + "]" * 100)])
def test_a_parameter_that_no_table_has_room_for_is_told_without_its_value(
    watched: Watched, value: object
) -> None:
    watched.broker.node.global_parameters.set("p", value)
    watched.broker.run()
    ((key, headers),) = watched.told()
    assert (key, headers["name"], "value" in headers) == ("parameter.set", "p", False)


def test_only_what_is_bound_for_arrives() -> None:
    broker = Broker()
    channel: ChannelOfTest = broker.channel()
    channel.declare("q")
    channel.bind("q", "amq.rabbitmq.event", "queue.*")
    channel.declare("new")
    channel.declare_exchange("e")
    assert channel.ready("q") == 1


def test_a_binding_of_a_durable_queue_survives_a_restart() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("kept", durable=True)
    channel.bind("kept", "amq.rabbitmq.event", "exchange.created")
    broker.restart()
    channel = broker.channel()
    channel.declare_exchange("e")
    assert channel.ready("kept") == 1


def test_the_end_of_the_last_connection_is_told_to_a_durable_queue() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("kept", durable=True)
    channel.bind("kept", "amq.rabbitmq.event", "connection.closed")
    broker.restart()
    assert broker.channel().ready("kept") == 1


def test_a_binding_survives_also_where_the_default_vhost_is_another_now() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("kept", durable=True)
    channel.bind("kept", "amq.rabbitmq.event", "queue.created")
    broker.settings = type(broker.settings)(default_vhost="other")
    broker.crash()
    channel = broker.channel()
    channel.declare("new")
    assert channel.ready("kept") == 0


def test_more_events_than_there_is_room_for_are_dropped(watched: Watched) -> None:
    turn = watched.broker.node.turn
    nowhere = OwnMessage("no vhost", "e", "k", NO_PROPERTIES, b"")
    turn.own_messages.extend([nowhere] * (OWN_MESSAGES_MAX - 1))
    for name in ("first", "second"):
        turn.events.tell("queue.deleted", {"name": name})
    assert turn.own_messages_dropped == 1
    watched.broker.run()
    assert [headers["name"] for _, headers in watched.told()] == ["first"]
    assert turn.own_messages_dropped == 0
