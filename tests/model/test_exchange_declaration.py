"""Declaring an exchange: its type, its arguments, and declaring it again."""

from __future__ import annotations

import pytest

from leveret.broker.model.exchanges.exchange import EXCHANGE_TYPES, Exchange
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Field, Table

AE_A: Table = {"alternate-exchange": Field("S", b"a")}


@pytest.mark.parametrize("type_name", ["direct", "fanout", "topic", "headers"])
def test_the_four_types_are_known(type_name: str) -> None:
    assert isinstance(Exchange("/", "e", type_name).matcher, EXCHANGE_TYPES[type_name])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("bogus", "unknown exchange type 'bogus'"),
        ("Direct", "unknown exchange type 'Direct'"),
        ("", "invalid exchange type ''"),
    ],
)
def test_an_unknown_type_is_refused(type_name: str, text: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        Exchange("/", "e", type_name)
    assert refused.value.text == text


def test_an_unknown_type_is_refused_for_an_existing_exchange_too() -> None:
    with pytest.raises(PreconditionFailed) as refused:
        Exchange("/", "e", "direct").check_equivalent("bogus", False, False, False, {})
    assert refused.value.text == "unknown exchange type 'bogus'"


def test_the_alternate_exchange_comes_from_the_argument() -> None:
    assert Exchange("/", "e", "direct", arguments=AE_A).alternate_exchange == "a"
    assert Exchange("/", "e", "direct").alternate_exchange is None


@pytest.mark.parametrize(
    ("field", "type_name"),
    [
        (Field("b", 1), "byte"),
        (Field("x", b"a"), "binary"),
        (Field("V", None), "void"),
        (Field("A", []), "array"),
    ],
)
def test_an_alternate_exchange_must_be_a_long_string(field: Field, type_name: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        Exchange("/", "xae", "direct", arguments={"alternate-exchange": field})
    text = f"invalid type '{type_name}' for arg 'alternate-exchange' in exchange 'xae' in vhost '/'"
    assert refused.value.text == text


@pytest.mark.parametrize(
    ("type_name", "durable", "auto_delete", "internal", "arguments", "reason"),
    [
        ("fanout", True, True, True, AE_A, "'type'|received 'fanout' but current is 'direct'"),
        ("direct", True, True, True, AE_A, "'durable'|received 'true' but current is 'false'"),
        ("direct", False, True, True, AE_A, "'auto_delete'|received 'true' but current is 'false'"),
        ("direct", False, False, True, AE_A, "'internal'|received 'true' but current is 'false'"),
        (
            *("direct", False, False, False, AE_A),
            "'alternate-exchange'|received the value 'a' of type 'longstr' but current is none",
        ),
    ],
)
def test_the_first_difference_in_rabbitmqs_order_is_reported(
    type_name: str, durable: bool, auto_delete: bool, internal: bool, arguments: Table, reason: str
) -> None:
    exchange = Exchange("/", "e", "direct")
    with pytest.raises(PreconditionFailed) as refused:
        exchange.check_equivalent(type_name, durable, auto_delete, internal, arguments)
    argument, values = reason.split("|")
    assert refused.value.text == f"inequivalent arg {argument} for exchange 'e' in vhost '/': {values}"


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({}, "received none but current is the value 'a' of type 'longstr'"),
        ({"alternate-exchange": Field("S", b"b")}, "received 'b' but current is 'a'"),
        ({"alternate-exchange": Field("b", 1)}, "received '1' but current is 'a'"),
        ({"alternate-exchange": Field("V", None)}, "received none but current is 'a'"),
    ],
)
def test_another_alternate_exchange_is_another_exchange(arguments: Table, values: str) -> None:
    exchange = Exchange("/", "e", "direct", arguments=AE_A)
    with pytest.raises(PreconditionFailed) as refused:
        exchange.check_equivalent("direct", False, False, False, arguments)
    assert (
        refused.value.text == f"inequivalent arg 'alternate-exchange' for exchange 'e' in vhost '/': {values}"
    )


def test_other_arguments_are_not_compared() -> None:
    exchange = Exchange("/", "e", "direct", arguments={**AE_A, "mine": Field("b", 1)})
    exchange.check_equivalent("direct", False, False, False, {**AE_A, "yours": Field("b", 2)})
