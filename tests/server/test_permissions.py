"""What users may do to which names: configure, write and read, per vhost, as regular expressions.

Source: RabbitMQ guide "Access Control"; the texts are those of 4.x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import from_python

from .harness import Broker, ChannelOfTest, Refused

if TYPE_CHECKING:
    from pamqp.base import Frame

Q, X = commands.Queue, commands.Exchange
RIGHTS = CONFIGURE, WRITE, READ = "configure", "write", "read"


def limited(
    configure: str = "", write: str = "", read: str = "", *, broker: Broker | None = None
) -> ChannelOfTest:
    """A channel of a user with these permissions, in a broker with a queue, two exchanges and a binding."""
    broker = broker or Broker()
    administrator = broker.channel()
    administrator.declare("queue")
    administrator.declare_exchange("source")
    administrator.declare_exchange("destination")
    administrator.bind("queue", "source", "k")
    broker.node.authority.add_user("lim", "pw")
    permit(broker, configure, write, read)
    return broker.channel(user="lim", password="pw")


def permit(broker: Broker, configure: str = "", write: str = "", read: str = "") -> None:
    broker.node.authority.set_permissions("lim", "/", configure, write, read)
    broker.run()


def refusal(channel: ChannelOfTest, method: type[Frame], **fields: object) -> str:
    with pytest.raises(Refused) as refused:
        channel.call(method, **fields)
    assert (refused.value.code, refused.value.is_hard) == (403, False)
    assert refused.value.method_ids == (method.index >> 16, method.index & 0xFFFF)
    return refused.value.text


def denied(permission: str, what: str) -> str:
    verb = f"{permission} " if permission else ""
    return f"ACCESS_REFUSED - {verb}access to {what} in vhost '/' refused for user 'lim'"


# every method

METHODS: list[tuple[type[Frame], dict[str, Any], list[tuple[str, str]]]] = [
    (X.Declare, {"exchange": "new", "exchange_type": "direct"}, [(CONFIGURE, "exchange 'new'")]),
    (X.Declare, {"exchange": "source", "exchange_type": "direct"}, [(CONFIGURE, "exchange 'source'")]),
    (
        X.Declare,
        {"exchange": "new", "exchange_type": "direct", "arguments": {"alternate-exchange": "source"}},
        [(CONFIGURE, "exchange 'new'"), (READ, "exchange 'new'"), (WRITE, "exchange 'source'")],
    ),
    (X.Delete, {"exchange": "source"}, [(CONFIGURE, "exchange 'source'")]),
    (X.Delete, {"exchange": "missing"}, [(CONFIGURE, "exchange 'missing'")]),
    (
        X.Bind,
        {"source": "source", "destination": "destination"},
        [(WRITE, "exchange 'destination'"), (READ, "exchange 'source'")],
    ),
    (
        X.Unbind,
        {"source": "source", "destination": "destination"},
        [(WRITE, "exchange 'destination'"), (READ, "exchange 'source'")],
    ),
    (Q.Declare, {"queue": "new"}, [(CONFIGURE, "queue 'new'")]),
    (Q.Declare, {"queue": "queue"}, [(CONFIGURE, "queue 'queue'")]),
    (
        Q.Declare,
        {"queue": "new", "arguments": {"x-dead-letter-exchange": "source"}},
        [(CONFIGURE, "queue 'new'"), (READ, "queue 'new'"), (WRITE, "exchange 'source'")],
    ),
    (
        Q.Declare,
        {"queue": "new", "arguments": {"x-dead-letter-exchange": ""}},
        [(CONFIGURE, "queue 'new'"), (READ, "queue 'new'"), (WRITE, "exchange 'amq.default'")],
    ),
    (Q.Delete, {"queue": "queue"}, [(CONFIGURE, "queue 'queue'")]),
    (Q.Delete, {"queue": "missing"}, [(CONFIGURE, "queue 'missing'")]),
    (
        Q.Bind,
        {"queue": "queue", "exchange": "source", "routing_key": "k"},
        [(WRITE, "queue 'queue'"), (READ, "exchange 'source'")],
    ),
    (
        Q.Unbind,
        {"queue": "queue", "exchange": "source", "routing_key": "k"},
        [(WRITE, "queue 'queue'"), (READ, "exchange 'source'")],
    ),
    (Q.Purge, {"queue": "queue"}, [(READ, "queue 'queue'")]),
    (commands.Basic.Get, {"queue": "queue"}, [(READ, "queue 'queue'")]),
    (commands.Basic.Consume, {"queue": "queue"}, [(READ, "queue 'queue'")]),
]
NEEDED = [
    pytest.param(
        method, fields, needed[index], [permission for permission, _ in needed], id=f"{number}-{index}"
    )
    for number, (method, fields, needed) in enumerate(METHODS)
    for index in range(len(needed))
]


def with_tables(fields: dict[str, Any]) -> dict[str, Any]:
    if "arguments" not in fields:
        return fields
    return fields | {"arguments": {name: from_python(value) for name, value in fields["arguments"].items()}}


@pytest.mark.parametrize(("method", "fields", "missing", "needed"), NEEDED)
def test_a_method_without_one_of_its_permissions_closes_the_channel(
    method: type[Frame], fields: dict[str, Any], missing: tuple[str, str], needed: list[str]
) -> None:
    permission, what = missing
    channel = limited(*[".*" if name in needed and name != permission else "" for name in RIGHTS])
    assert refusal(channel, method, **with_tables(fields)) == denied(permission, what)


@pytest.mark.parametrize(
    ("method", "fields", "needed"),
    [
        pytest.param(*row[:2], [name for name, _ in row[2]], id=str(number))
        for number, row in enumerate(METHODS)
    ],
)
def test_a_method_needs_no_other_permission(
    method: type[Frame], fields: dict[str, Any], needed: list[str]
) -> None:
    limited(*[".*" if name in needed else "" for name in RIGHTS]).call(method, **with_tables(fields))


def test_what_is_refused_is_not_done() -> None:
    broker = Broker()
    channel = limited(broker=broker)
    refusal(channel, Q.Declare, queue="new")
    channel.reopen()
    refusal(channel, Q.Delete, queue="queue")
    assert broker.channel().exists("queue")
    assert not broker.channel().exists("new")


@pytest.mark.parametrize(
    ("method", "fields"),
    [(Q.Declare, {"queue": "queue"}), (X.Declare, {"exchange": "source"})],
)
def test_a_passive_declare_needs_any_one_permission(method: type[Frame], fields: dict[str, str]) -> None:
    channel = limited()
    name = next(iter(fields.values()))
    kind = next(iter(fields))
    assert refusal(channel, method, passive=True, **fields) == denied("", f"{kind} '{name}'")
    channel.reopen()
    for permission in (CONFIGURE, WRITE, READ):
        permit(channel.broker, **{permission: name})
        channel.call(method, passive=True, **fields)


@pytest.mark.parametrize("name", ["missing", "queue"])
def test_permission_is_looked_at_before_existence(name: str) -> None:
    channel = limited()
    assert refusal(channel, Q.Purge, queue=name) == denied(READ, f"queue '{name}'")


def test_with_permission_a_missing_queue_is_not_found() -> None:
    with pytest.raises(Refused, match="NOT_FOUND - no queue 'missing'"):
        limited(read=".*").call(Q.Purge, queue="missing")


def test_the_default_exchange_is_refused_before_permissions() -> None:
    channel = limited()
    assert refusal(channel, Q.Bind, queue="queue", exchange="") == (
        "ACCESS_REFUSED - operation not permitted on the default exchange"
    )


def test_a_reserved_queue_name_is_refused_before_permissions() -> None:
    assert refusal(limited(), Q.Declare, queue="amq.x") == (
        "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"
    )


def test_a_server_named_queue_is_checked_under_its_name() -> None:
    assert limited(configure=r"^amq\.gen-").declare("").startswith("amq.gen-")
    assert "access to queue 'amq.gen-" in refusal(limited(configure="^q"), Q.Declare)


# publishing


def test_publishing_needs_write_permission_on_the_exchange() -> None:
    channel = limited(write="^destination$", read=".*")
    channel.publish("k", exchange="destination")
    channel.check_open()
    channel.publish("k", exchange="source")
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == denied(WRITE, "exchange 'source'")
    assert refused.value.method_ids == (60, 40)


def test_the_default_exchange_is_called_amq_default() -> None:
    channel = limited(write="^amq\\.default$", read=".*")
    channel.publish("queue", b"a")
    assert channel.drain("queue") == [b"a"]
    permit(channel.broker, write="^x$")
    channel.publish("queue")
    with pytest.raises(Refused, match=r"write access to exchange 'amq\.default' in vhost '/' refused"):
        channel.check_open()


@pytest.mark.parametrize("properties", [b"\0\0", replace(priority=1, headers={"CC": from_python(["x"])})])
def test_publishing_to_a_missing_exchange_without_permission_is_refused(properties: bytes) -> None:
    channel = limited()
    channel.publish("k", exchange="missing", properties=properties)
    with pytest.raises(Refused, match="write access to exchange 'missing'"):
        channel.check_open()


def test_a_route_that_others_have_used_does_not_open_it() -> None:
    channel = limited()
    administrator = channel.broker.channel()
    administrator.publish("k", b"a", exchange="source")
    channel.publish("k", b"b", exchange="source")
    with pytest.raises(Refused, match="write access to exchange 'source'"):
        channel.check_open()
    assert administrator.drain("queue") == [b"a"]


# patterns


@pytest.mark.parametrize(
    ("pattern", "name", "is_allowed"),
    [
        ("", "q", False), (".*", "q", True), ("q", "a queue", True), ("^q", "a queue", False),
        ("^(a|b)$", "b", True), ("^(a|b)$", "c", False), ("^$", "q", False),
    ],
)  # fmt: skip
def test_a_pattern_is_looked_for_anywhere_in_the_name(pattern: str, name: str, is_allowed: bool) -> None:
    channel = limited(configure=pattern)
    if is_allowed:
        channel.declare(name)
    else:
        refusal(channel, Q.Declare, queue=name)


# changes while connected


def test_a_change_of_permissions_holds_for_open_connections() -> None:
    channel = limited(configure="^a$")
    channel.declare("a")
    permit(channel.broker, configure="^b$")
    channel.declare("b")
    assert refusal(channel, Q.Declare, queue="a") == denied(CONFIGURE, "queue 'a'")


def test_without_permissions_open_connections_may_do_nothing() -> None:
    channel = limited(".*", ".*", ".*")
    channel.publish("k", exchange="source")
    channel.broker.node.authority.clear_permissions("lim", "/")
    channel.publish("k", exchange="source")
    with pytest.raises(Refused, match="write access to exchange 'source'"):
        channel.check_open()


# topic permissions


def topical(write: str = ".*", read: str = ".*") -> ChannelOfTest:
    """A channel of a user who may do everything but for routing keys at amq.topic."""
    channel = limited(".*", ".*", ".*")
    channel.broker.node.authority.set_topic_permissions("lim", "/", "amq.topic", write, read)
    channel.broker.run()
    return channel


def topic_refused(permission: str, key: str) -> str:
    return denied(permission, f"topic '{key}' in exchange 'amq.topic'")


def test_routing_keys_of_a_topic_exchange_can_be_restricted() -> None:
    channel = topical(write="^ok")
    channel.bind("queue", "amq.topic", "#")
    channel.publish("ok.1", b"a", exchange="amq.topic")
    assert channel.drain("queue") == [b"a"]
    channel.publish("bad.key", exchange="amq.topic")
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert refused.value.text == topic_refused(WRITE, "bad.key")


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_every_further_routing_key_is_checked_too(header: str) -> None:
    channel = topical(write="^ok")
    properties = replace(headers={header: from_python(["ok.2", "bad"])})
    channel.publish("ok.1", exchange="amq.topic", properties=properties)
    with pytest.raises(Refused, match="write access to topic 'bad'"):
        channel.check_open()


@pytest.mark.parametrize("method", [Q.Bind, Q.Unbind])
def test_binding_keys_of_a_topic_exchange_can_be_restricted(method: type[Frame]) -> None:
    channel = topical(read="^ok")
    channel.call(method, queue="queue", exchange="amq.topic", routing_key="ok.#")
    text = refusal(channel, method, queue="queue", exchange="amq.topic", routing_key="a.#")
    assert text == topic_refused(READ, "a.#")


def test_other_exchanges_and_users_are_not_restricted() -> None:
    channel = topical(write="^ok", read="^ok")
    channel.bind("queue", "source", "any")
    channel.publish("any", b"a", exchange="source")
    other = channel.broker.channel()
    other.bind("queue", "amq.topic", "#")
    other.publish("any", b"b", exchange="amq.topic")
    assert channel.drain("queue") == [b"a", b"b"]


def test_user_and_vhost_can_be_part_of_a_topic_pattern() -> None:
    channel = topical(write="^{vhost}-{username}$")
    channel.publish("/-lim", exchange="amq.topic")
    channel.check_open()
    channel.publish("/-other", exchange="amq.topic")
    with pytest.raises(Refused, match="topic '/-other'"):
        channel.check_open()


def test_cleared_topic_permissions_restrict_nothing() -> None:
    channel = topical(write="^ok")
    channel.broker.node.authority.clear_topic_permissions("lim", "/")
    channel.publish("any", exchange="amq.topic")
    channel.check_open()


# beside permissions


def test_direct_replies_need_no_permission_on_the_side_that_asks() -> None:
    channel = limited()
    channel.call(commands.Basic.Consume, queue="amq.rabbitmq.reply-to", no_ack=True)


def test_an_impersonator_may_publish_as_anybody() -> None:
    channel = limited(write=".*")
    channel.publish("k", properties=replace(user_id="other"))
    with pytest.raises(Refused, match="user_id property set to 'other' but authenticated user was 'lim'"):
        channel.check_open()
    channel.reopen()
    channel.broker.node.authority.set_tags("lim", ("impersonator",))
    channel.publish("k", properties=replace(user_id="other"))
    channel.check_open()


def test_permissions_survive_a_restart() -> None:
    channel = topical(write="^ok")
    channel.broker.restart()
    channel = channel.broker.channel(user="lim", password="pw")
    channel.publish("bad", exchange="amq.topic")
    with pytest.raises(Refused, match="topic 'bad'"):
        channel.check_open()
