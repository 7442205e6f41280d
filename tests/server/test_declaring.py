"""Declaring, deleting and binding: what is refused, in RabbitMQ's words and order.

Source: AMQP 0-9-1 classes exchange (40) and queue (50); RabbitMQ guides "Queues" (property equivalence) and
"Exchange to Exchange Bindings"; seen with RabbitMQ 3.10. An unknown exchange type is a channel's error, as in
4.x.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.tables import Field, Table, encode_table

from ..peer import Peer
from .closes import Close, answer, opened
from .harness import Broker, Refused

EXCHANGE_DECLARE = (40, 10)
EXCHANGE_DELETE = (40, 20)
QUEUE_DECLARE = (50, 10)
DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"


def declare_exchange(exchange: str = "e", kind: str = "direct", **fields: object) -> bytes:
    return Peer.send(1, commands.Exchange.Declare, exchange=exchange, exchange_type=kind, **fields)


def declare_queue(queue: str = "q", **fields: object) -> bytes:
    return Peer.send(1, commands.Queue.Declare, queue=queue, **fields)


def tagged(**arguments: Field) -> Table:
    """Arguments with the tags they shall have on the wire; an underscore stands for a hyphen."""
    return {key.replace("_", "-"): field for key, field in arguments.items()}


# exchanges


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("amq.direct", "direct"),
        ("amq.topic", "topic"),
        ("amq.fanout", "fanout"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ],
)
def test_predeclared_exchanges_are_there_and_durable(name: str, kind: str) -> None:
    client = opened()
    assert answer(client, declare_exchange(name, kind, durable=True)) == ["Exchange.DeclareOk"]
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{name}' in vhost '/': "
        "received 'false' but current is 'true'"
    )
    assert answer(client, declare_exchange(name, kind)) == Close(1, 406, text, EXCHANGE_DECLARE)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (commands.Exchange.Declare, {"exchange_type": "direct"}),
        (commands.Exchange.Declare, {"exchange_type": "direct", "passive": True}),
        (commands.Exchange.Delete, {}),
        (commands.Queue.Bind, {"queue": "nope"}),
        (commands.Queue.Unbind, {"queue": "nope"}),
        (commands.Exchange.Bind, {"destination": "amq.fanout"}),
        (commands.Exchange.Bind, {"source": "nope"}),
        (commands.Exchange.Unbind, {"source": "nope"}),
    ],
)
def test_the_default_exchange_is_nobodys(method: type, fields: dict[str, object]) -> None:
    refused = answer(opened(), Peer.send(1, method, **fields))
    assert isinstance(refused, Close)
    assert refused[:3] == (1, 403, DEFAULT_EXCHANGE)


@pytest.mark.parametrize(
    ("declare", "code", "text"),
    [
        (declare_exchange(kind="bogus"), 406, "PRECONDITION_FAILED - unknown exchange type 'bogus'"),
        (declare_exchange(kind="Direct"), 406, "PRECONDITION_FAILED - unknown exchange type 'Direct'"),
        (declare_exchange(kind=""), 406, "PRECONDITION_FAILED - invalid exchange type ''"),
        (declare_exchange("amq.direct", "bogus"), 406, "PRECONDITION_FAILED - unknown exchange type 'bogus'"),
        (declare_exchange("nope", "", passive=True), 404, "NOT_FOUND - no exchange 'nope' in vhost '/'"),
        (
            declare_exchange("amq.new"),
            403,
            "ACCESS_REFUSED - exchange name 'amq.new' contains reserved prefix 'amq.*'",
        ),
        (
            declare_exchange(arguments=tagged(alternate_exchange=Field("b", 5))),
            406,
            "PRECONDITION_FAILED - invalid type 'byte' for arg 'alternate-exchange' "
            "in exchange 'e' in vhost '/'",
        ),
    ],
)
def test_an_exchange_cannot_be_declared(declare: bytes, code: int, text: str) -> None:
    assert answer(opened(), declare) == Close(1, code, text, EXCHANGE_DECLARE)


def test_a_passive_declare_asks_for_nothing_but_the_name() -> None:
    declare = declare_exchange("amq.topic", "bogus", passive=True, auto_delete=True, arguments={"x": 1})
    assert answer(opened(), declare) == ["Exchange.DeclareOk"]


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ({"kind": "direct"}, {"kind": "fanout", "durable": True}, "'type'*'fanout' but current is 'direct'"),
        ({}, {"durable": True, "internal": True}, "'durable'*'true' but current is 'false'"),
        ({"auto_delete": True}, {}, "'auto_delete'*'false' but current is 'true'"),
        ({}, {"internal": True}, "'internal'*'true' but current is 'false'"),
        (
            {},
            {"arguments": {"alternate-exchange": "ae"}},
            "'alternate-exchange'*the value 'ae' of type 'longstr' but current is none",
        ),
        (
            {"arguments": {"alternate-exchange": "ae"}},
            {},
            "'alternate-exchange'*none but current is the value 'ae' of type 'longstr'",
        ),
        (
            {"arguments": {"alternate-exchange": "a"}},
            {"arguments": {"alternate-exchange": "b"}},
            "'alternate-exchange'*'b' but current is 'a'",
        ),
    ],
)
def test_an_exchange_is_declared_again_as_it_was(
    first: dict[str, object], second: dict[str, object], difference: str
) -> None:
    client = opened()
    assert answer(client, declare_exchange(**first)) == ["Exchange.DeclareOk"]  # type: ignore[arg-type]
    assert answer(client, declare_exchange(**first)) == ["Exchange.DeclareOk"]  # type: ignore[arg-type]
    argument, received = difference.split("*")
    what = f"inequivalent arg {argument} for exchange 'e' in vhost '/'"
    text = f"PRECONDITION_FAILED - {what}: received {received}"
    refused = answer(client, declare_exchange(**second))  # type: ignore[arg-type]
    assert refused == Close(1, 406, text, EXCHANGE_DECLARE)


def test_other_arguments_of_an_exchange_may_differ() -> None:
    names = answer(opened(), declare_exchange(), declare_exchange(arguments={"x": 1}))
    assert names == ["Exchange.DeclareOk"] * 2


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.nope"])
def test_system_exchanges_cannot_be_deleted(exchange: str) -> None:
    text = f"ACCESS_REFUSED - deletion of system exchange '{exchange}' in vhost '/' not allowed"
    refused = answer(opened(), Peer.send(1, commands.Exchange.Delete, exchange=exchange))
    assert refused == Close(1, 403, text, EXCHANGE_DELETE)


def test_a_missing_exchange_counts_as_deleted() -> None:
    delete = Peer.send(1, commands.Exchange.Delete, exchange="nope", if_unused=True)
    assert answer(opened(), delete) == ["Exchange.DeleteOk"]


def test_an_exchange_with_bindings_is_in_use_as_their_source_only() -> None:
    client = opened()
    delete = Peer.send(1, commands.Exchange.Delete, exchange="e", if_unused=True)
    into = Peer.send(1, commands.Exchange.Bind, source="amq.fanout", destination="e")
    out_of = Peer.send(1, commands.Exchange.Bind, source="e", destination="amq.fanout")
    text = "PRECONDITION_FAILED - exchange 'e' in vhost '/' in use"
    assert answer(client, declare_exchange(), into, delete)[-1] == "Exchange.DeleteOk"
    assert answer(client, declare_exchange(), out_of, delete) == Close(1, 406, text, EXCHANGE_DELETE)


# bindings


@pytest.mark.parametrize(
    ("method", "fields", "missing"),
    [
        (commands.Queue.Bind, {"queue": "nope", "exchange": "nope too"}, "exchange 'nope too'"),
        (commands.Queue.Bind, {"queue": "nope", "exchange": "amq.direct"}, "queue 'nope'"),
        (commands.Exchange.Bind, {"source": "nope", "destination": "nope too"}, "exchange 'nope'"),
        (commands.Exchange.Bind, {"source": "amq.direct", "destination": "nope"}, "exchange 'nope'"),
    ],
)
def test_both_ends_of_a_binding_exist(method: type, fields: dict[str, object], missing: str) -> None:
    refused = answer(opened(), Peer.send(1, method, **fields))
    assert isinstance(refused, Close)
    assert refused[:3] == (1, 404, f"NOT_FOUND - no {missing} in vhost '/'")


def test_what_is_missing_counts_as_unbound() -> None:
    unbinds = [
        Peer.send(1, commands.Queue.Unbind, queue="nope", exchange="nope"),
        Peer.send(1, commands.Queue.Unbind, queue="nope", exchange="amq.direct"),
        Peer.send(1, commands.Exchange.Unbind, source="nope", destination="nope"),
        Peer.send(1, commands.Exchange.Unbind, source="amq.direct", destination="amq.fanout"),
    ]
    assert answer(opened(), *unbinds) == ["Queue.UnbindOk"] * 2 + ["Exchange.UnbindOk"] * 2


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (
            Field("S", b"some"),
            'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x',
        ),
        (Field("b", 1), "Invalid x-match field type byte (value 1); expected longstr"),
    ],
)
def test_a_headers_binding_knows_how_to_match(match: Field, text: str) -> None:
    bind = Peer.send(
        1, commands.Queue.Bind, queue="q", exchange="amq.headers", arguments=tagged(x_match=match)
    )
    refused = answer(opened(), declare_queue(), bind)
    assert refused == Close(1, 406, f"PRECONDITION_FAILED - {text}", (50, 20))


# queues


def test_a_queue_without_a_name_gets_one() -> None:
    channel = Broker().channel()
    name = channel.declare(exclusive=True)
    assert name.startswith("amq.gen-")
    assert len(name) == len("amq.gen-") + 22
    assert name != channel.declare(exclusive=True)
    assert channel.counts(name) == (0, 0)


def test_a_name_that_the_server_chooses_may_begin_as_the_client_likes() -> None:
    channel = Broker().channel()
    name = channel.declare(arguments={"x-name-prefix": "é" * 32})
    assert name.startswith("é" * 32 + "-")
    assert len(name) == 32 + 1 + 22
    assert channel.declare(name) == name  # the argument is not kept, so it is not missing now
    assert channel.declare("q", arguments={"x-name-prefix": "p"}) == "q"


def test_what_a_name_begins_with_may_not_be_long() -> None:
    with pytest.raises(Refused) as refused:
        Broker().channel().declare(arguments={"x-name-prefix": "p" * 65})
    text = f"PRECONDITION_FAILED - Queue name prefix '{'p' * 65}' exceeds the 64-byte limit"
    assert (refused.value.code, refused.value.text) == (406, text)


@pytest.mark.parametrize("name", ["amq.foo", "amq."])
def test_names_with_the_reserved_prefix_cannot_be_declared(name: str) -> None:
    text = f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"
    assert answer(opened(), declare_queue(name)) == Close(1, 403, text, QUEUE_DECLARE)


def test_not_even_a_queue_that_the_server_named_can_be_declared_by_its_name() -> None:
    channel = Broker().channel()
    name = channel.declare(exclusive=True)
    text = f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"
    refused = answer(channel.client, declare_queue(name, exclusive=True))
    assert refused == Close(1, 403, text, QUEUE_DECLARE)


@pytest.mark.parametrize("name", ["nope", "amq.foo"])
def test_a_passive_declare_of_a_missing_queue_is_not_found(name: str) -> None:
    refused = answer(opened(), declare_queue(name, passive=True))
    assert refused == Close(1, 404, f"NOT_FOUND - no queue '{name}' in vhost '/'", QUEUE_DECLARE)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ({}, {"durable": True, "auto_delete": True}, "'durable'*'true' but current is 'false'"),
        (
            {"auto_delete": True},
            {"arguments": {"x-expires": 1}},
            "'auto_delete'*'false' but current is 'true'",
        ),
        (
            {"arguments": tagged(x_message_ttl=Field("s", 1000))},
            {"arguments": tagged(x_message_ttl=Field("l", 1001))},
            "'x-message-ttl'*'1001' but current is '1000'",
        ),
        (
            {"arguments": tagged(x_message_ttl=Field("s", 1000))},
            {},
            "'x-message-ttl'*none but current is the value '1000' of type 'short'",
        ),
        (
            {},
            {"arguments": tagged(x_expires=Field("s", 5000))},
            "'x-expires'*the value '5000' of type 'short' but current is none",
        ),
        (
            {"arguments": tagged(x_message_ttl=Field("s", 1000))},
            {"arguments": tagged(x_message_ttl=Field("S", b"1000"))},
            "'x-message-ttl'*'1000' but current is '1000'",
        ),
        (
            {"arguments": {"x-single-active-consumer": True}},
            {"arguments": {"x-single-active-consumer": False}},
            "'x-single-active-consumer'*'false' but current is 'true'",
        ),
    ],
)
def test_a_queue_is_declared_again_as_it_was(
    first: dict[str, object], second: dict[str, object], difference: str
) -> None:
    client = opened()
    assert answer(client, declare_queue(**first)) == ["Queue.DeclareOk"]  # type: ignore[arg-type]
    assert answer(client, declare_queue(**first)) == ["Queue.DeclareOk"]  # type: ignore[arg-type]
    argument, received = difference.split("*")
    text = (
        f"PRECONDITION_FAILED - inequivalent arg {argument} for queue 'q' in vhost '/': received {received}"
    )
    refused = answer(client, declare_queue(**second))  # type: ignore[arg-type]
    assert refused == Close(1, 406, text, QUEUE_DECLARE)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tagged(x_message_ttl=Field("b", 100)), tagged(x_message_ttl=Field("l", 100))),
        (tagged(unknown=Field("b", 1)), tagged(unknown=Field("S", b"x"))),
        (tagged(unknown=Field("b", 1)), {}),
        (tagged(x_queue_type=Field("S", b"classic")), {}),
        ({}, tagged(x_queue_type=Field("S", b"classic"))),
    ],
)
def test_some_differences_do_not_count(first: Table, second: Table) -> None:
    names = answer(opened(), declare_queue(arguments=first), declare_queue(arguments=second))
    assert names == ["Queue.DeclareOk"] * 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            tagged(x_message_ttl=Field("S", b"a")),
            "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        ),
        (
            tagged(x_expires=Field("l", 0)),
            "invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}",
        ),
        (
            tagged(x_max_length=Field("l", -1)),
            "invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}",
        ),
        (
            tagged(x_overflow=Field("S", b"bogus")),
            "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow",
        ),
        (
            tagged(x_max_age=Field("S", b"1D")),
            "invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue",
        ),
    ],
)
def test_invalid_arguments_are_refused(arguments: Table, text: str) -> None:
    refused = answer(opened(), declare_queue(arguments=arguments))
    assert refused == Close(1, 406, f"PRECONDITION_FAILED - {text}", QUEUE_DECLARE)


def test_every_type_of_value_is_legal_in_an_unknown_argument() -> None:
    values = {
        "t": True,
        "b": -1,
        "B": 255,
        "s": -1,
        "u": 65535,
        "I": -1,
        "i": 2**32 - 1,
        "l": -1,
        "L": -1,
        "T": 2**64 - 1,
        "f": 1.5,
        "d": 1.5,
        "D": (2, 150),
        "S": b"\xff",
        "x": b"\xff",
        "V": None,
        "A": [Field("b", 1)],
        "F": {"y": Field("b", 1)},
    }
    arguments = {"k" * 200 + tag: Field(tag, value) for tag, value in values.items()}
    assert len(encode_table(arguments)) > 1000
    assert answer(opened(), declare_queue(arguments=arguments)) == ["Queue.DeclareOk"]
