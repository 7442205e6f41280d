"""Values in error texts look as Erlang prints them."""

from __future__ import annotations

import pytest

from leveret.broker.model.terms import binary_term, float_term, resource_name, shown, string_term, term
from leveret.protocol.tables import Field


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (Field("l", -7), "-7"),
        (Field("T", 5), "5"),
        (Field("t", False), "false"),
        (Field("V", None), "undefined"),
        (Field("D", (2, 314)), "{2,314}"),
        (Field("S", b"a"), '<<"a">>'),
        (Field("f", 0.5), "0.5"),
        (
            Field("A", [Field("l", 1), Field("S", b"a"), Field("d", 1.5), Field("V", None)]),
            '[{long,1},{longstr,<<"a">>},{double,1.5},{void,undefined}]',
        ),
        (
            Field("F", {"k": Field("S", b"v"), "j": Field("b", 3)}),
            '[{<<"k">>,longstr,<<"v">>},{<<"j">>,byte,3}]',
        ),
        (Field("A", []), "[]"),
    ],
)
def test_a_value_is_printed_as_an_erlang_term(field: Field, expected: str) -> None:
    assert term(field) == expected


def test_strings_are_shown_bare_in_texts_about_differences() -> None:
    assert shown(Field("S", b"a\xff")) == "a\udcff"
    assert shown(Field("b", 1)) == "1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1.0"),
        (100.0, "100.0"),
        (1000.0, "1.0e3"),
        (1234.0, "1234.0"),
        (-1500000.0, "-1.5e6"),
        (1e22, "1.0e22"),
        (0.1, "0.1"),
        (0.001, "0.001"),
        (1.5e-7, "1.5e-7"),
        (0.0, "0.0"),
        (float("inf"), "inf"),
    ],
)
def test_a_float_is_printed_in_its_shortest_form(value: float, expected: str) -> None:
    assert float_term(value) == expected


@pytest.mark.parametrize(
    ("data", "binary", "string"),
    [
        (b"", "<<>>", "[]"),
        (b"some", '<<"some">>', '"some"'),
        ("é".encode(), '<<"é">>', '"é"'),
        (b'"\\\n\x1b', r'<<"\"\\\n\e">>', r'"\"\\\n\e"'),
        (b"a\0", "<<97,0>>", "[97,0]"),
        (b"\x80", "<<128>>", "[128]"),
    ],
)
def test_bytes_are_quoted_if_they_are_printable(data: bytes, binary: str, string: str) -> None:
    assert binary_term(data) == binary
    assert string_term(data) == string


def test_a_resource_is_named_with_its_vhost() -> None:
    assert resource_name("queue", "q", "/") == "queue 'q' in vhost '/'"
