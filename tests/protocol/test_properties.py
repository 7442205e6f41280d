"""Message properties pass through byte for byte, and can be read and replaced one by one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header

from leveret.protocol.errors import FieldSyntaxError
from leveret.protocol.properties import (
    NO_PROPERTIES,
    PROPERTY_NAMES,
    Properties,
    encoded_values,
    replace,
    to_json,
)
from leveret.protocol.tables import Field, encode_table

from .strategies import field_tables, plain_tables

OCTETS = ("delivery_mode", "priority")
SHORT_STRINGS = tuple(name for name in PROPERTY_NAMES if name not in (*OCTETS, "headers", "timestamp"))

short_strings = st.none() | st.binary(max_size=60)
octets = st.none() | st.integers(0, 255)
values = st.fixed_dictionaries(
    dict.fromkeys(SHORT_STRINGS, short_strings)
    | dict.fromkeys(OCTETS, octets)
    | {"headers": st.none() | field_tables, "timestamp": st.none() | st.integers(0, (1 << 64) - 1)}
)


def value_of(properties: Properties, name: str) -> object:
    """Read a property by its name."""
    value: object = getattr(properties, name)
    return value


@given(values)
def test_properties_survive_encoding_and_parsing(wanted: dict[str, object]) -> None:
    properties = Properties.parse(replace(**wanted))  # type: ignore[arg-type]  # by name, of the right type
    assert {name: value_of(properties, name) for name in PROPERTY_NAMES} == wanted


@given(values)
def test_replacing_nothing_changes_nothing(wanted: dict[str, object]) -> None:
    raw = replace(**wanted)  # type: ignore[arg-type]  # by name, of the right type
    assert replace(raw) == raw


@given(values, st.binary(max_size=255), st.binary(max_size=255))
def test_the_quick_way_to_replace_reply_to_makes_the_same_bytes(
    wanted: dict[str, object], old: bytes, new: bytes
) -> None:
    raw = replace(**{**wanted, "reply_to": old})  # type: ignore[arg-type]  # by name, of the right type
    parsed = Properties.parse(raw)
    replaced = parsed.replace_reply_to(raw, new)
    assert replaced == replace(raw, reply_to=new)
    quick, plain = parsed.with_reply_to(new), Properties.parse(replaced)
    for name in (*PROPERTY_NAMES, "headers_raw", "reply_to_at"):
        assert getattr(quick, name) == getattr(plain, name), name


@given(values, values, st.sets(st.sampled_from(PROPERTY_NAMES)))
def test_only_the_named_properties_change(
    before: dict[str, object], after: dict[str, object], names: set[str]
) -> None:
    raw = replace(**before)  # type: ignore[arg-type]  # by name, of the right type
    changes = {name: after[name] for name in names}
    changed = replace(raw, **changes)  # type: ignore[arg-type]  # by name, of the right type
    assert changed == replace(**(before | changes))  # type: ignore[arg-type]  # by name, of the right type


@given(
    plain_tables,
    st.sampled_from([None, 1, 2]),
    st.none() | st.integers(0, 255),
    *[st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)] * 3,
)
def test_properties_made_by_pamqp_are_read_the_same(
    headers: dict[str, object],
    delivery_mode: int | None,
    priority: int | None,
    content_type: str | None,
    reply_to: str | None,
    app_id: str | None,
) -> None:
    made = commands.Basic.Properties(
        content_type=content_type,
        headers=headers,  # type: ignore[arg-type]  # its value type is invariant
        delivery_mode=delivery_mode,
        priority=priority,
        reply_to=reply_to,
        app_id=app_id,
    )
    raw = header.ContentHeader(properties=made).marshal()[12:]
    properties = Properties.parse(raw)
    assert properties.content_type == (None if content_type is None else content_type.encode())
    assert properties.delivery_mode == delivery_mode
    assert properties.priority == priority
    assert properties.reply_to == (None if reply_to is None else reply_to.encode())
    assert properties.app_id == (None if app_id is None else app_id.encode())
    assert properties.headers is not None
    assert encode_table(properties.headers) == properties.headers_raw
    assert replace(raw) == raw


def test_a_message_without_properties_has_none_set() -> None:
    properties = Properties.parse(NO_PROPERTIES)
    assert [value_of(properties, name) for name in PROPERTY_NAMES] == [None] * 14


@pytest.mark.parametrize("name", SHORT_STRINGS)
def test_an_empty_string_is_a_property_that_is_set(name: str) -> None:
    raw = replace(**{name: b""})  # type: ignore[arg-type]  # a short string
    assert value_of(Properties.parse(raw), name) == b""


@pytest.mark.parametrize("name", SHORT_STRINGS)
def test_a_property_may_be_any_255_bytes(name: str) -> None:
    data = bytes(range(1, 256))
    raw = replace(**{name: data})  # type: ignore[arg-type]  # a short string
    assert value_of(Properties.parse(raw), name) == data


@pytest.mark.parametrize("name", SHORT_STRINGS)
def test_a_property_over_255_bytes_is_not_encoded(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has at most 255 bytes"):
        replace(**{name: b"x" * 256})  # type: ignore[arg-type]  # a short string


def test_text_becomes_its_utf8_bytes() -> None:
    assert Properties.parse(replace(reply_to="é\udcff")).reply_to == b"\xc3\xa9\xff"


@pytest.mark.parametrize(
    ("name", "value"), [("priority", 256), ("delivery_mode", -1), ("timestamp", 1 << 64)]
)
def test_a_number_without_room_in_its_property_is_not_encoded(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"out of range for {name}"):
        replace(**{name: value})  # type: ignore[arg-type]  # a number


def test_headers_are_kept_as_bytes_and_decoded_once() -> None:
    table = {"n": Field("L", 5)}
    properties = Properties.parse(replace(headers=table))
    assert properties.headers_raw == encode_table(table)
    assert properties.headers == table
    assert properties.headers is properties.headers


def test_untouched_headers_keep_duplicate_keys_and_odd_booleans_when_another_property_changes() -> None:
    headers = b"\0\0\0\x0c\x01at\x07\x01ab\x01\x01at\x00"
    raw = b"\x20\x00" + headers
    assert replace(raw, expiration="5") == b"\x21\x00" + headers + b"\x015"


def test_an_unused_flag_bit_passes_through() -> None:
    raw = b"\x10\x02\x02"
    assert Properties.parse(raw).delivery_mode == 2
    assert replace(raw, priority=1) == b"\x18\x02\x02\x01"


def test_more_words_of_flags_are_legal_while_they_set_nothing() -> None:
    raw = b"\x10\x01\x00\x01\x00\x00\x02"
    assert Properties.parse(raw).delivery_mode == 2
    assert replace(raw, delivery_mode=1, app_id="a") == b"\x10\x09\x00\x01\x00\x00\x01\x01a"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "content header is truncated"),
        (b"\0", "content header is truncated"),
        (b"\x80\0", "content header is truncated"),
        (b"\x80\0\x09ab", "content header is truncated"),
        (b"\x10\0", "content header is truncated"),
        (b"\x00\x40\0\0", "content header is truncated"),
        (b"\x10\x01\0", "content header is truncated"),
        (b"\0\0z", "content header has bytes behind its properties"),
        (b"\x10\0\x02zzz", "content header has bytes behind its properties"),
        (b"\x10\x01\0\x02\x02", "content header has unknown property flags"),
        (b"\x20\0\0\0", "field table without a length"),
        (b"\x20\0\0\0\0\x09ab", "field table is longer than the data"),
        (b"\x20\0\0\0\0\x04\x01aI\x01", "field table is truncated"),
        (b"\x20\0\0\0\0\x03\x01aU", "unknown field table type 'U'"),
    ],
)
def test_a_malformed_property_list_is_a_syntax_error(raw: bytes, text: str) -> None:
    with pytest.raises(FieldSyntaxError) as caught:
        Properties.parse(raw)
    assert caught.value.reply_text == f"SYNTAX_ERROR - {text}"


@given(st.binary(max_size=120))
def test_random_bytes_are_properties_or_a_syntax_error(raw: bytes) -> None:
    try:
        properties = Properties.parse(raw)
    except FieldSyntaxError:
        return
    assert replace(raw) == raw
    shown = to_json(raw)
    assert (shown is None) == all(value is None for value in encoded_values(raw))
    assert (properties.headers is None) == (properties.headers_raw is None)


@given(values, st.data())
def test_damaged_properties_are_properties_or_a_syntax_error(
    wanted: dict[str, object], data: st.DataObject
) -> None:
    raw = bytearray(replace(**wanted))  # type: ignore[arg-type]  # by name, of the right type
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        Properties.parse(bytes(raw))
    except FieldSyntaxError:
        return
    assert replace(bytes(raw)) == raw


def test_properties_are_shown_as_json_under_their_amqp_names() -> None:
    raw = replace(
        content_type="text/plain",
        headers={"retries": Field("b", 3)},
        delivery_mode=2,
        correlation_id=b"\xff",
        timestamp=1 << 63,
        type="order",
        cluster_id="",
    )
    assert json.loads(to_json(raw) or "") == {
        "content_type": "text/plain",
        "headers": {"retries": 3},
        "delivery_mode": 2,
        "correlation_id": {"base64": "/w=="},
        "timestamp": 9223372036854775808,
        "type": "order",
        "cluster_id": "",
    }


def test_no_properties_have_no_json() -> None:
    assert to_json(NO_PROPERTIES) is None
