"""What a publish asks for in its properties: an expiration, and more routing keys with CC and BCC."""

from __future__ import annotations

import pytest

from leveret.broker.model.message_properties import (
    extra_routing_keys,
    may_have_extra_routing_keys,
    parse_expiration,
    visible_routing_keys,
    without_bcc,
)
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table, encode_table


def keys(*names: str) -> Field:
    return Field("A", [Field("S", name.encode()) for name in names])


@pytest.mark.parametrize(
    ("text", "expiration_ms"),
    [(b"0", 0), (b"-0", 0), (b"+5000", 5000), (b"0005000", 5000), (b"315360000000", 315360000000)],
)
def test_an_expiration_is_decimal_milliseconds(text: bytes, expiration_ms: int) -> None:
    assert parse_expiration(text) == expiration_ms


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"abc", "no_integer"),
        (b"", "no_integer"),
        (b" 5", "no_integer"),
        (b"-", "no_integer"),
        (b"--5", "no_integer"),
        ("\u0661".encode(), "no_integer"),
        (b"-1", "{value_negative,-1}"),
        (b"315360000001", "{value_too_large,315360000001}"),
        (b"10x", '{leftover_string,"x"}'),
        (b"5 ", '{leftover_string," "}'),
        (b"1_000", '{leftover_string,"_000"}'),
        (b"5.0", '{leftover_string,".0"}'),
        (b"-315360000001x", '{leftover_string,"x"}'),
        (b'5"\\\n', '{leftover_string,"\\"\\\\\\n"}'),
        (b"5\0", "{leftover_string,[0]}"),
        (b"5\x80", "{leftover_string,[128]}"),
        ("5é".encode(), '{leftover_string,"é"}'),
    ],
)
def test_an_invalid_expiration_is_refused_with_rabbitmqs_text(text: bytes, detail: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        parse_expiration(text)
    assert refused.value.text == f"invalid expiration '{text.decode('utf-8', 'surrogateescape')}': {detail}"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, []),
        ({"CC": keys("a", "b")}, ["a", "b"]),
        ({"BCC": keys("c"), "CC": keys("a", "a")}, ["a", "c"]),
        ({"CC": keys("a"), "BCC": keys("a", "b")}, ["a", "b"]),
        ({"cc": keys("a"), "Bcc": keys("b")}, []),
        ({"CC": Field("A", [Field("b", 1), Field("x", b"no"), Field("S", b"a"), keys("inner")])}, ["a"]),
        ({"CC": keys()}, []),
    ],
)
def test_cc_and_bcc_add_routing_keys(headers: Table, expected: list[str]) -> None:
    assert extra_routing_keys(headers) == expected


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"CC": Field("S", b"k")}, '"CC",longstr'),
        ({"BCC": Field("S", b"k")}, '"BCC",longstr'),
        ({"BCC": Field("b", 1), "CC": Field("t", True)}, '"CC",bool'),
        ({"CC": Field("V", None)}, '"CC",void'),
        ({"CC": Field("F", {})}, '"CC",table'),
    ],
)
def test_cc_and_bcc_must_be_arrays(headers: Table, detail: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        extra_routing_keys(headers)
    assert refused.value.text == f"invalid message: {{unacceptable_type_in_header,{detail}}}"


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_the_quick_look_finds_cc_and_bcc_in_encoded_headers(name: str) -> None:
    assert may_have_extra_routing_keys(encode_table({"a": Field("b", 1), name: keys("k")}))
    assert not may_have_extra_routing_keys(encode_table({"a": Field("b", 1), name.lower(): keys("k")}))


def test_the_receiver_sees_the_routing_key_and_cc() -> None:
    assert visible_routing_keys("k", None) == ["k"]
    assert visible_routing_keys("k", {"CC": keys("a", "k"), "BCC": keys("b")}) == ["k", "a"]


def test_bcc_is_removed_and_nothing_else_changes() -> None:
    headers: Table = {"z": Field("b", 1), "BCC": keys("k"), "CC": keys("l"), "a": Field("d", 1.1)}
    raw = replace(content_type="text/plain", headers=headers, correlation_id="id")
    cleaned = without_bcc(raw)
    del headers["BCC"]
    assert Properties.parse(cleaned).headers_raw == encode_table(headers)
    assert cleaned == replace(raw, headers=headers)


def test_a_header_table_with_only_bcc_stays_as_an_empty_table() -> None:
    assert without_bcc(replace(headers={"BCC": keys("k")})) == replace(headers={})


def test_without_bcc_the_properties_stay_as_they_came() -> None:
    raw = replace(headers={"CC": keys("k")})
    assert without_bcc(raw) is raw
    assert without_bcc(b"\0\0") == b"\0\0"
