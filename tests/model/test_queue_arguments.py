"""The x-arguments of queues and consumers: what is accepted, what it means, and the text of every refusal."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from leveret.broker.model.arguments import QueueArguments, check_consumer_arguments, check_equivalent_queue
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Field, Table

QUORUM: Table = {"x-queue-type": Field("S", b"quorum")}
DLX: Table = {"x-dead-letter-exchange": Field("S", b"dlx")}


def text(value: str) -> Field:
    return Field("S", value.encode())


def long(value: int) -> Field:
    return Field("l", value)


def parse(table: Table) -> QueueArguments:
    """Check the arguments of a queue that is durable and nothing else, as quorum queues must be."""
    return QueueArguments.from_table("q", "/", table, durable=True)


def refusal(table: Table) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        parse(table)
    return refused.value.text


def test_without_arguments_nothing_is_set() -> None:
    assert parse({}) == QueueArguments({})


def test_every_argument_of_a_classic_queue_has_its_typed_value() -> None:
    table = {
        "x-message-ttl": long(0),
        "x-expires": Field("I", 5),
        "x-max-length": Field("B", 0),
        "x-max-length-bytes": Field("L", 1000),
        "x-overflow": text("reject-publish"),
        "x-dead-letter-exchange": text(""),
        "x-dead-letter-routing-key": text("rk"),
        "x-max-priority": Field("u", 255),
        "x-single-active-consumer": Field("t", True),
        "x-delivery-limit": long(3),
        "x-consumer-timeout": Field("i", 7000),
        "x-queue-mode": text("lazy"),
        "x-queue-version": long(2),
        "x-queue-type": text("classic"),
        "x-queue-master-locator": text("anything"),
    }
    assert parse(table) == QueueArguments(
        table,
        message_ttl_ms=0,
        expires_ms=5,
        max_length=0,
        max_length_bytes=1000,
        overflow="reject-publish",
        dead_letter_exchange="",
        dead_letter_routing_key="rk",
        max_priority=255,
        single_active_consumer=True,
        delivery_limit=3,
        counts_returns=True,
        consumer_timeout_ms=7000,
    )


def test_a_maximum_priority_of_zero_means_no_priorities() -> None:
    assert parse({"x-max-priority": long(0)}).max_priority is None


@pytest.mark.parametrize("tag", "bBsuIilL")
def test_any_integer_type_is_an_integer(tag: str) -> None:
    assert parse({"x-max-length": Field(tag, 7)}).max_length == 7


def test_arguments_that_nobody_knows_are_kept_and_not_checked() -> None:
    table: Table = {"x-anything": Field("A", []), "Mine": Field("V", None)}
    assert parse(table).table == table


@pytest.mark.parametrize("name", ["", "undefined", "classic"])
def test_an_empty_type_means_classic(name: str) -> None:
    assert parse({"x-queue-type": text(name)}).queue_type == "classic"


@pytest.mark.parametrize(
    ("name", "field", "detail"),
    [
        ("x-message-ttl", text("1"), '"expected integer, got longstr"'),
        ("x-message-ttl", Field("d", 1.0), '"expected integer, got double"'),
        ("x-message-ttl", Field("t", True), '"expected integer, got bool"'),
        ("x-message-ttl", Field("T", 5), '"expected integer, got timestamp"'),
        ("x-message-ttl", Field("V", None), '"expected integer, got void"'),
        ("x-message-ttl", long(-1), "{value_negative,-1}"),
        ("x-message-ttl", long(315360000001), "{value_too_large,315360000001}"),
        ("x-expires", text("1"), '"expected integer, got longstr"'),
        ("x-expires", long(-1), "{value_negative,-1}"),
        ("x-expires", long(0), "{value_zero,0}"),
        ("x-expires", long(315360000001), "{value_too_large,315360000001}"),
        ("x-max-length", long(-1), "{value_negative,-1}"),
        ("x-max-length", text("a"), '"expected integer, got longstr"'),
        ("x-max-length-bytes", long(-1), "{value_negative,-1}"),
        ("x-max-length-bytes", Field("D", (0, 5)), '"expected integer, got decimal"'),
        ("x-max-priority", text("1"), '"expected integer, got longstr"'),
        ("x-max-priority", long(-1), "{value_negative,-1}"),
        ("x-max-priority", long(256), "{max_value_exceeded,256}"),
        ("x-overflow", text("bogus"), "invalid_overflow"),
        ("x-overflow", text(""), "invalid_overflow"),
        ("x-overflow", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-overflow", Field("x", b"drop-head"), "{unacceptable_type,binary}"),
        ("x-dead-letter-routing-key", text("rk"), "routing_key_but_no_dlx_defined"),
        ("x-dead-letter-routing-key", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-queue-mode", text("bogus"), "\"unsupported queue mode 'bogus'\""),
        ("x-queue-mode", Field("S", b'a"\n\x1b'), '"unsupported queue mode \'a\\"\\n\\e\'"'),
        ("x-queue-mode", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-queue-version", long(3), "\"unsupported queue version '3'\""),
        ("x-queue-version", long(0), "\"unsupported queue version '0'\""),
        ("x-queue-version", long(-3), "{value_negative,-3}"),
        ("x-queue-version", text("1"), '"expected integer, got longstr"'),
        ("x-queue-type", text("bogus"), "\"unsupported queue type 'bogus'\""),
        ("x-queue-type", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-queue-type", Field("x", b"classic"), "{unacceptable_type,binary}"),
        ("x-single-active-consumer", text("true"), "{unacceptable_type,longstr}"),
        ("x-single-active-consumer", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-queue-leader-locator", text("bogus"), "invalid_queue_locator_arg"),
        ("x-consumer-timeout", long(-1), "{value_negative,-1}"),
    ],
)
def test_a_wrong_argument_is_refused_with_rabbitmqs_text(name: str, field: Field, detail: str) -> None:
    assert refusal({name: field}) == f"invalid arg '{name}' for queue 'q' in vhost '/': {detail}"


def test_text_that_is_not_printable_is_shown_as_octets() -> None:
    octets = ",".join(map(str, b"unsupported queue mode '\x9f'"))
    detail = refusal({"x-queue-mode": Field("S", b"\x9f")}).partition("'/': ")[2]
    assert detail == f"[{octets}]"


@pytest.mark.parametrize(
    ("field", "type_name"),
    [(Field("b", 1), "byte"), (Field("x", b"a"), "binary"), (Field("V", None), "void")],
)
def test_a_dead_letter_exchange_must_be_a_long_string(field: Field, type_name: str) -> None:
    expected = f"invalid type '{type_name}' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
    assert refusal({"x-dead-letter-exchange": field, "x-expires": text("wrong too")}) == expected


@pytest.mark.parametrize(
    ("table", "first"),
    [
        ({"x-message-ttl": text("a"), "x-expires": text("b")}, "x-expires"),
        ({"x-queue-mode": text("a"), "x-max-priority": text("b")}, "x-max-priority"),
        ({"x-expires": text("a"), "x-queue-type": text("b")}, "x-queue-type"),
    ],
)
def test_of_several_wrong_arguments_rabbitmqs_first_is_reported(table: Table, first: str) -> None:
    assert refusal(table).startswith(f"invalid arg '{first}' ")


@pytest.mark.parametrize(
    ("table", "name", "queue_type"),
    [
        ({"x-dead-letter-strategy": text("at-least-once")}, "x-dead-letter-strategy", "classic"),
        ({"x-max-age": text("1D")}, "x-max-age", "classic"),
        ({"x-max-in-memory-length": long(1)}, "x-max-in-memory-length", "classic"),
        ({**QUORUM, "x-max-priority": text("wrong too")}, "x-max-priority", "quorum"),
        ({**QUORUM, "x-queue-mode": text("lazy")}, "x-queue-mode", "quorum"),
        ({**QUORUM, "x-max-age": text("1D"), "x-queue-mode": text("lazy")}, "x-max-age", "quorum"),
    ],
)
def test_an_argument_of_another_type_of_queue_is_refused(table: Table, name: str, queue_type: str) -> None:
    expected = f"invalid arg '{name}' for queue 'q' in vhost '/' of queue type rabbit_{queue_type}_queue"
    assert refusal(table) == expected


@pytest.mark.parametrize(
    ("durable", "exclusive", "auto_delete", "flag"),
    [
        (False, False, False, "non-durable"),
        (True, True, False, "exclusive-owner"),
        (True, False, True, "auto-delete"),
        (False, True, True, "auto-delete"),
    ],
)
def test_a_quorum_queue_is_durable_and_nothing_else(
    durable: bool, exclusive: bool, auto_delete: bool, flag: str
) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        QueueArguments.from_table("q", "/", QUORUM, durable, exclusive, auto_delete)
    assert refused.value.text == f"invalid property '{flag}' for queue 'q' in vhost '/'"


def test_wrong_arguments_of_a_quorum_queue_come_before_its_flags() -> None:
    with pytest.raises(PreconditionFailed, match="expected integer"):
        QueueArguments.from_table("q", "/", {**QUORUM, "x-expires": text("a")})


@pytest.mark.parametrize(
    ("table", "limit"),
    [
        ({}, None),
        ({"x-delivery-limit": long(-1)}, None),
        ({"x-delivery-limit": long(0)}, 0),
        (QUORUM, 20),
        ({**QUORUM, "x-delivery-limit": long(-1)}, None),
        ({**QUORUM, "x-delivery-limit": long(2)}, 2),
        ({**QUORUM, "x-delivery-limit": text("ignored")}, 20),
    ],
)
def test_quorum_queues_limit_deliveries_unless_told_otherwise(table: Table, limit: int | None) -> None:
    assert parse(table).delivery_limit == limit


def test_a_quorum_queue_that_rejects_publishes_to_the_dlx_drops_its_head_instead() -> None:
    overflow = {"x-overflow": text("reject-publish-dlx")}
    assert parse({**QUORUM, **overflow}).overflow == "drop-head"
    assert parse(overflow).overflow == "reject-publish-dlx"


def test_a_quorum_queue_needs_a_name() -> None:
    QueueArguments.refuse_server_name({})
    with pytest.raises(PreconditionFailed) as refused:
        QueueArguments.refuse_server_name(QUORUM)
    assert refused.value.text == "Cannot declare a server-named queue for type rabbit_quorum_queue"


@dataclass
class Queue:
    """A declared queue."""

    arguments: QueueArguments
    name: str = "q"
    vhost_name: str = "/"
    durable: bool = True
    auto_delete: bool = False


def difference(current: Table, received: Table, durable: bool = True, auto_delete: bool = False) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        check_equivalent_queue(Queue(parse(current)), durable, auto_delete, received)
    return refused.value.text


TTL: Table = {"x-message-ttl": Field("s", 1000)}


@pytest.mark.parametrize(
    ("current", "received", "name", "values"),
    [
        (TTL, {"x-message-ttl": long(1001)}, "x-message-ttl", "received '1001' but current is '1000'"),
        (TTL, {"x-message-ttl": text("1000")}, "x-message-ttl", "received '1000' but current is '1000'"),
        (TTL, {"x-message-ttl": Field("d", 1e3)}, "x-message-ttl", "received '1.0e3' but current is '1000'"),
        (TTL, {"x-message-ttl": Field("V", None)}, "x-message-ttl", "received none but current is '1000'"),
        (
            *(TTL, {"x-message-ttl": Field("A", [Field("S", b"a")])}, "x-message-ttl"),
            "received '[{longstr,<<\"a\">>}]' but current is '1000'",
        ),
        (TTL, {}, "x-message-ttl", "received none but current is the value '1000' of type 'short'"),
        (
            {},
            {"x-expires": long(5)},
            "x-expires",
            "received the value '5' of type 'long' but current is none",
        ),
        (
            *({"x-expires": long(9)}, {"x-expires": long(-5)}, "x-expires"),
            "received '-5' but current is '9'",
        ),
        (
            *({"x-single-active-consumer": Field("t", True)}, {}, "x-single-active-consumer"),
            "received none but current is the value 'true' of type 'bool'",
        ),
        (
            DLX,
            {"x-dead-letter-exchange": text("é")},
            *("x-dead-letter-exchange", "received 'é' but current is 'dlx'"),
        ),
        ({}, QUORUM, "x-queue-type", "received the value 'quorum' of type 'longstr' but current is none"),
        (
            *({}, {"x-queue-type": Field("b", 1)}, "x-queue-type"),
            "received the value '1' of type 'byte' but current is none",
        ),
        (QUORUM, {}, "x-queue-type", "received none but current is the value 'quorum' of type 'longstr'"),
    ],
)
def test_another_argument_is_reported_as_rabbitmq_does(
    current: Table, received: Table, name: str, values: str
) -> None:
    expected = f"inequivalent arg '{name}' for queue 'q' in vhost '/': {values}"
    assert difference(current, received) == expected


def test_flags_are_compared_before_arguments() -> None:
    start = "for queue 'q' in vhost '/': received"
    assert (
        difference(TTL, {}, False, True)
        == f"inequivalent arg 'durable' {start} 'false' but current is 'true'"
    )
    assert (
        difference(TTL, {}, True, True)
        == f"inequivalent arg 'auto_delete' {start} 'true' but current is 'false'"
    )


@pytest.mark.parametrize(
    ("current", "received"),
    [
        (TTL, {"x-message-ttl": Field("L", 1000)}),
        (TTL, {"x-message-ttl": Field("T", 1000)}),
        (DLX, {"x-dead-letter-exchange": Field("x", b"dlx")}),
        ({}, {"x-queue-type": text("classic")}),
        ({"x-queue-type": text("classic")}, {}),
        ({"x-anything": long(1)}, {"x-anything": long(2)}),
        ({}, {"x-max-age": text("1D"), "x-consumer-timeout": long(5)}),
    ],
)
def test_declarations_that_mean_the_same_are_equivalent(current: Table, received: Table) -> None:
    check_equivalent_queue(Queue(parse(current)), True, False, received)


CLASSIC_ORDER = {
    "x-expires": long(5),
    "x-message-ttl": long(5),
    "x-dead-letter-exchange": text("a"),
    "x-dead-letter-routing-key": text("b"),
    "x-max-length": long(5),
    "x-max-length-bytes": long(5),
    "x-max-priority": long(5),
    "x-overflow": text("drop-head"),
    "x-queue-mode": text("lazy"),
    "x-queue-version": long(1),
    "x-single-active-consumer": Field("t", True),
    "x-queue-type": text("quorum"),
    "x-queue-master-locator": text("client-local"),
}
QUORUM_ORDER = {
    "x-dead-letter-exchange": text("a"),
    "x-dead-letter-routing-key": text("b"),
    "x-dead-letter-strategy": text("at-most-once"),
    "x-expires": long(5),
    "x-max-length": long(5),
    "x-max-length-bytes": long(5),
    "x-max-in-memory-length": long(5),
    "x-max-in-memory-bytes": long(5),
    "x-overflow": text("drop-head"),
    "x-single-active-consumer": Field("t", True),
    "x-queue-type": text("classic"),
    "x-quorum-initial-group-size": long(1),
    "x-delivery-limit": long(3),
    "x-message-ttl": long(5),
    "x-queue-leader-locator": text("client-local"),
}


@pytest.mark.parametrize(
    ("current", "order", "index"),
    [
        *(({}, CLASSIC_ORDER, index) for index in range(len(CLASSIC_ORDER))),
        *((QUORUM, QUORUM_ORDER, index) for index in range(len(QUORUM_ORDER))),
    ],
)
def test_arguments_are_compared_in_rabbitmqs_order(current: Table, order: Table, index: int) -> None:
    """Of the arguments from the index on, given in reverse, the first of the order is reported."""
    received = {**current, **dict(reversed(list(order.items())[index:]))}
    assert difference(current, received).startswith(f"inequivalent arg '{list(order)[index]}' ")


@pytest.mark.parametrize(
    ("field", "priority"), [(None, 0), (long(-5), -5), (Field("b", 7), 7), (long(2**62), 2**62)]
)
def test_a_consumers_priority_is_any_integer(field: Field | None, priority: int) -> None:
    table = {} if field is None else {"x-priority": field}
    assert check_consumer_arguments("o", "/", {**table, "x-anything": Field("V", None)}) == priority


@pytest.mark.parametrize(
    ("table", "queue_type", "reason"),
    [
        ({"x-priority": text("1")}, "classic", "'x-priority'|: \"expected integer, got longstr\""),
        ({"x-priority": Field("d", 1.0)}, "classic", "'x-priority'|: \"expected integer, got double\""),
        (
            *({"x-stream-offset": text("first"), "x-priority": text("1")}, "classic"),
            "'x-priority'|: \"expected integer, got longstr\"",
        ),
        (
            *({"x-cancel-on-ha-failover": text("a")}, "classic"),
            "'x-cancel-on-ha-failover'|: {unacceptable_type,longstr}",
        ),
        (
            *({"x-cancel-on-ha-failover": Field("t", True)}, "quorum"),
            "'x-cancel-on-ha-failover'| of queue type rabbit_quorum_queue",
        ),
        (
            *({"x-stream-offset": text("first")}, "classic"),
            "'x-stream-offset'| of queue type rabbit_classic_queue",
        ),
        ({"x-stream-filter": text("a")}, "quorum", "'x-stream-filter'| of queue type rabbit_quorum_queue"),
    ],
)
def test_a_wrong_argument_of_a_consumer_is_refused(table: Table, queue_type: str, reason: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        check_consumer_arguments("o", "/", table, queue_type)
    name, rest = reason.split("|")
    assert refused.value.text == f"invalid arg {name} for queue 'o' in vhost '/'{rest}"
