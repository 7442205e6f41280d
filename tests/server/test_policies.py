"""Policies at work: they hold for queues and exchanges that are there, and for those to come.

Source: RabbitMQ guide "Policies".
"""

from __future__ import annotations

import pytest

from leveret.broker.model.rules.policies import ALL, OPERATOR_POLICY, POLICY, make_policy
from leveret.broker.server.vhosts import add_vhost

from .harness import PERSISTENT, Broker, ChannelOfTest

pytestmark = pytest.mark.usefixtures("either_way")


def set_policy(
    broker: Broker, definition: dict[str, object], *, kind: str = POLICY, name: str = "p", **fields: object
) -> None:
    given = {"pattern": "^q", "priority": 0, "apply_to": ALL} | fields
    broker.node.vhosts["/"].set_policy(kind, make_policy(kind, name, definition=definition, **given))  # type: ignore[arg-type]
    broker.run()


def clear_policy(broker: Broker, kind: str = POLICY, name: str = "p") -> bool:
    cleared = broker.node.vhosts["/"].clear_policy(kind, name)
    broker.run()
    return cleared


def with_messages(*bodies: bytes, **arguments: object) -> ChannelOfTest:
    channel = Broker().channel()
    channel.declare("q", arguments=arguments)
    channel.publish_all("q", *bodies)
    return channel


# when they hold


@pytest.mark.parametrize("name", ["q", "queue"])
def test_a_policy_holds_for_queues_to_come(name: str) -> None:
    broker = Broker()
    set_policy(broker, {"max-length": 1})
    channel = broker.channel()
    channel.declare(name)
    channel.publish_all(name, b"a", b"b")
    assert channel.drain(name) == [b"b"]


def test_a_queue_that_does_not_match_is_left_alone() -> None:
    broker = Broker()
    set_policy(broker, {"max-length": 1})
    channel = broker.channel()
    channel.declare("other")
    channel.publish_all("other", b"a", b"b")
    assert channel.drain("other") == [b"a", b"b"]


def test_a_lower_limit_drops_at_once() -> None:
    channel = with_messages(b"a", b"b", b"c")
    set_policy(channel.broker, {"max-length": 2})
    assert channel.drain("q") == [b"b", b"c"]


def test_a_cleared_policy_holds_no_more() -> None:
    channel = with_messages()
    set_policy(channel.broker, {"max-length": 0})
    assert clear_policy(channel.broker)
    assert not clear_policy(channel.broker)
    channel.publish_all("q", b"a", b"b")
    assert channel.drain("q") == [b"a", b"b"]


def test_a_policy_is_no_part_of_the_declaration() -> None:
    channel = with_messages()
    set_policy(channel.broker, {"max-length": 1, "message-ttl": 5})
    assert channel.declare("q") == "q"


def test_policies_survive_a_restart() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q", durable=True)
    channel.publish_all("q", b"a", b"b", b"c", properties=PERSISTENT)
    set_policy(broker, {"max-length": 2})
    set_policy(broker, {"max-length": 1}, kind=OPERATOR_POLICY)
    set_policy(broker, {"alternate-exchange": "amq.fanout"}, name="ae", pattern="^amq.direct$")
    clear_policy(broker, name="ae")
    broker.restart()
    channel = broker.channel()
    channel.publish("q", b"d")
    assert channel.drain("q") == [b"d"]
    assert list(broker.node.vhosts["/"].policies.by_name[POLICY]) == ["p"]


def test_another_vhost_has_its_own_policies() -> None:
    broker = Broker()
    add_vhost(broker.node, "v")
    broker.node.authority.set_permissions("guest", "v", ".*", ".*", ".*")
    set_policy(broker, {"max-length": 0})
    channel = broker.channel(vhost="v")
    channel.declare("q")
    channel.publish("q", b"a")
    assert channel.drain("q") == [b"a"]


# each of them


def test_message_ttl_is_for_messages_to_come() -> None:
    channel = with_messages(b"before")
    set_policy(channel.broker, {"message-ttl": 1000})
    channel.publish("q", b"after")
    channel.broker.advance(1001)
    assert channel.drain("q") == [b"before"]


def test_of_two_message_ttls_the_shorter_one_holds() -> None:
    channel = with_messages(**{"x-message-ttl": 1000})
    set_policy(channel.broker, {"message-ttl": 5000})
    channel.publish("q", b"a")
    channel.broker.advance(1001)
    assert channel.ready("q") == 0


def test_an_unused_queue_expires_from_when_the_policy_was_set() -> None:
    channel = with_messages()
    channel.broker.advance(5000)
    set_policy(channel.broker, {"expires": 1000})
    channel.broker.advance(999)
    assert "q" in channel.broker.node.vhosts["/"].queues
    channel.broker.advance(1)
    assert not channel.exists("q")


def test_a_queue_does_not_expire_once_the_policy_is_cleared() -> None:
    channel = with_messages()
    set_policy(channel.broker, {"expires": 1000})
    clear_policy(channel.broker)
    channel.broker.advance(2000)
    assert channel.exists("q")


def test_length_in_bytes_and_overflow() -> None:
    channel = with_messages(b"aaaa", b"bbbb")
    set_policy(channel.broker, {"max-length-bytes": 5, "overflow": "reject-publish"})
    channel.confirm()
    channel.publish("q", b"c")
    assert channel.confirms() == ["nack 1"]
    set_policy(channel.broker, {"max-length-bytes": 5})
    assert channel.drain("q") == [b"bbbb"]


def test_dead_letters_go_where_the_policy_says() -> None:
    channel = with_messages(b"a")
    channel.declare("dead")
    set_policy(channel.broker, {"dead-letter-exchange": "", "dead-letter-routing-key": "dead"})
    channel.get("q", no_ack=False)
    channel.reject(1)
    assert channel.drain("dead") == [b"a"]


def test_a_dead_letter_exchange_of_the_declaration_wins() -> None:
    channel = with_messages(b"a", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "mine"})
    channel.declare("mine")
    set_policy(channel.broker, {"dead-letter-routing-key": "theirs", "max-length": 0})
    assert channel.drain("mine") == [b"a"]


def test_what_an_exchange_cannot_route_goes_to_the_alternate_exchange_of_its_policy() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare_exchange("x")
    channel.declare("lost")
    channel.bind("lost", "amq.fanout")
    channel.publish("k", b"before", exchange="x")
    set_policy(broker, {"alternate-exchange": "amq.fanout"}, pattern="^(x|y)$")
    channel.publish("k", b"a", exchange="x")
    channel.declare_exchange("y")
    channel.publish("k", b"b", exchange="y")
    clear_policy(broker)
    channel.publish("k", b"after", exchange="x")
    assert channel.drain("lost") == [b"a", b"b"]


def test_an_alternate_exchange_of_the_declaration_wins() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("lost")
    channel.bind("lost", "amq.fanout")
    channel.declare_exchange("x", arguments={"alternate-exchange": "amq.fanout"})
    set_policy(broker, {"alternate-exchange": "amq.direct"}, pattern="^x$")
    channel.publish("k", b"a", exchange="x")
    assert channel.drain("lost") == [b"a"]


def test_an_operator_policy_limits_what_a_policy_and_an_argument_allow() -> None:
    channel = with_messages(b"a", b"b", b"c", b"d", **{"x-max-length": 3})
    set_policy(channel.broker, {"max-length": 5})
    assert channel.ready("q") == 3
    set_policy(channel.broker, {"max-length": 1}, kind=OPERATOR_POLICY, name="o")
    assert channel.ready("q") == 1
    clear_policy(channel.broker, OPERATOR_POLICY, "o")
    channel.publish_all("q", b"e", b"f", b"g")
    assert channel.ready("q") == 3


def test_delivery_limit_and_consumer_timeout_are_taken_over() -> None:
    channel = with_messages()
    set_policy(channel.broker, {"delivery-limit": 3, "consumer-timeout": 60_000})
    arguments = channel.broker.node.vhosts["/"].queues["q"].arguments
    assert (arguments.delivery_limit, arguments.consumer_timeout_ms) == (3, 60_000)


def test_keys_without_a_meaning_here_do_no_harm() -> None:
    channel = with_messages(b"a")
    set_policy(channel.broker, {"ha-mode": "all", "queue-mode": "lazy", "max-in-memory-length": 1})
    assert channel.drain("q") == [b"a"]
