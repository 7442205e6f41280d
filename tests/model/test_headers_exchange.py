"""The headers exchange: when the arguments of a binding match the headers of a message."""

from __future__ import annotations

import pytest

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Field, Table


class Queue:
    """Something with a name to bind."""

    name = "q"


def matches(arguments: Table, headers: Table | None) -> bool:
    exchange = Exchange("/", "h", "headers")
    exchange.bind(Queue(), "ignored", arguments)
    return bool(exchange.matcher.destinations(["k"], headers))


def text(value: str) -> Field:
    return Field("S", value.encode())


ONE = Field("b", 1)
TWO = Field("b", 2)
ANY = {"x-match": text("any")}
ALL_WITH_X = {"x-match": text("all-with-x")}
ANY_WITH_X = {"x-match": text("any-with-x")}


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({}, None, True),
        ({}, {}, True),
        ({}, {"a": ONE}, True),
        (ANY, {"a": ONE}, False),
        ({"a": ONE, "b": TWO}, {"a": ONE, "b": TWO, "c": ONE}, True),
        ({"a": ONE, "b": TWO}, {"a": ONE}, False),
        ({"a": ONE, "b": TWO}, {"a": ONE, "b": ONE}, False),
        ({"x-match": text("all"), "a": ONE}, None, False),
        ({**ANY, "a": ONE, "b": TWO}, {"b": TWO}, True),
        ({**ANY, "a": ONE, "b": TWO}, {"b": ONE}, False),
        ({**ANY, "a": ONE}, None, False),
        ({**ANY, "x-foo": ONE}, {"x-foo": ONE}, False),
        ({"x-foo": ONE}, {}, True),
        ({"X-foo": ONE}, {}, False),
        ({**ALL_WITH_X, "x-foo": ONE}, {}, False),
        ({**ALL_WITH_X, "x-foo": ONE}, {"x-foo": ONE}, True),
        ({**ANY_WITH_X, "x-foo": ONE, "b": TWO}, {"x-foo": ONE}, True),
        (ANY_WITH_X, ANY_WITH_X, False),
    ],
)
def test_all_or_any_of_the_arguments_must_be_among_the_headers(
    arguments: Table, headers: Table | None, expected: bool
) -> None:
    assert matches(arguments, headers) is expected


VALUES = {
    "byte": Field("b", 1),
    "long": Field("l", 1),
    "double": Field("d", 1.0),
    "timestamp": Field("T", 1),
    "true": Field("t", True),
    "text": Field("S", b"1"),
    "binary": Field("x", b"1"),
    "decimal": Field("D", (0, 1)),
    "void": Field("V", None),
    "bytes inside": Field("A", [Field("b", 1)]),
    "longs inside": Field("A", [Field("l", 1)]),
    "table": Field("F", {"a": Field("b", 1)}),
}
NUMBERS = {"byte", "long", "double", "timestamp"}
STRINGS = {"text", "binary"}


def equals(wanted: str) -> set[str]:
    if wanted == "void":
        return set(VALUES)
    return NUMBERS if wanted in NUMBERS else STRINGS if wanted in STRINGS else {wanted}


@pytest.mark.parametrize("wanted", VALUES)
def test_values_match_across_types_as_in_rabbitmq(wanted: str) -> None:
    """Numbers and timestamps match by value, strings by bytes; void wants only that the header is there."""
    matching = {name for name, value in VALUES.items() if matches({"k": VALUES[wanted]}, {"k": value})}
    assert matching == equals(wanted)


def test_a_void_needs_the_header_to_be_there() -> None:
    assert not matches({**ANY, "a": Field("V", None)}, {})


@pytest.mark.parametrize(
    ("x_match", "reason"),
    [
        (Field("S", b"some"), 'value <<"some">>; expected all, any, all-with-x, or any-with-x'),
        (Field("S", b""), "value <<>>; expected all, any, all-with-x, or any-with-x"),
        (Field("S", b"\0\1"), "value <<0,1>>; expected all, any, all-with-x, or any-with-x"),
        (Field("b", 1), "type byte (value 1); expected longstr"),
        (Field("t", True), "type bool (value true); expected longstr"),
        (Field("x", b"all"), 'type binary (value <<"all">>); expected longstr'),
        (
            Field("A", [Field("S", b"a"), Field("b", 1)]),
            'type array (value [{longstr,<<"a">>},{byte,1}]); expected longstr',
        ),
    ],
)
def test_an_unknown_x_match_is_refused(x_match: Field, reason: str) -> None:
    exchange = Exchange("/", "h", "headers")
    with pytest.raises(PreconditionFailed) as refused:
        exchange.bind(Queue(), "", {"x-match": x_match})
    assert refused.value.text == f"Invalid x-match field {reason}"
    assert not exchange.bindings


def test_a_queue_with_two_matching_bindings_is_reached_once_and_unbinding_one_leaves_the_other() -> None:
    exchange = Exchange("/", "h", "headers")
    queue = Queue()
    exchange.bind(queue, "", {"a": ONE})
    exchange.bind(queue, "", {"b": TWO})
    assert len(exchange.matcher.destinations(["k"], {"a": ONE, "b": TWO})) == 1
    exchange.unbind(queue, "", {"a": ONE})
    assert not exchange.matcher.destinations(["k"], {"a": ONE})
    assert exchange.matcher.destinations(["k"], {"b": TWO})
