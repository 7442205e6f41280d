"""Field tables keep every type and every byte, and refuse what is no table without harm."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode as pamqp_decode
from pamqp import encode as pamqp_encode

from leveret.protocol import tables
from leveret.protocol.errors import FieldSyntaxError
from leveret.protocol.tables import Field, Table, decode_fields, decode_table, encode_table

from .strategies import RANGES, field_tables, plain_tables, surrogate_escaped


def with_length(data: bytes) -> bytes:
    """Put the 4-byte length in front."""
    return len(data).to_bytes(4, "big") + data


def one(value: bytes, key: bytes = b"k") -> bytes:
    """Encode a table with one key and these bytes (tag and value) behind it."""
    return with_length(len(key).to_bytes(1, "big") + key + value)


@given(field_tables)
def test_a_table_survives_encoding_and_decoding(table: Table) -> None:
    raw = encode_table(table)
    assert decode_table(raw) == (table, len(raw))


@given(field_tables)
def test_the_bytes_of_a_table_survive_decoding_and_encoding(table: Table) -> None:
    raw = encode_table(table)
    assert encode_table(decode_table(raw)[0]) == raw


@given(field_tables, st.binary(max_size=8), st.binary(max_size=8))
def test_a_table_is_found_between_other_bytes(table: Table, before: bytes, after: bytes) -> None:
    raw = encode_table(table)
    assert decode_table(before + raw + after, len(before)) == (table, len(before) + len(raw))


@given(plain_tables)
def test_tables_of_pamqp_are_read_and_written_the_same(plain: dict[str, object]) -> None:
    raw = pamqp_encode.field_table(plain)  # type: ignore[arg-type]  # its value type is invariant
    table, _ = decode_table(raw)
    assert encode_table(table) == raw


@given(plain_tables)
def test_pamqp_reads_our_tables_as_the_values_they_were_made_of(plain: dict[str, object]) -> None:
    raw = encode_table({key: tables.from_python(value) for key, value in plain.items()})
    assert pamqp_decode.field_table(raw) == (len(raw), plain)


@pytest.mark.parametrize(("tag", "value"), [(tag, limit) for tag, both in RANGES.items() for limit in both])
def test_integers_keep_their_type_at_both_limits(tag: str, value: int) -> None:
    raw = encode_table({"k": Field(tag, value)})
    assert decode_table(raw)[0] == {"k": Field(tag, value)}


@pytest.mark.parametrize(
    ("tag", "value"), [(tag, limit) for tag, (low, high) in RANGES.items() for limit in (low - 1, high + 1)]
)
def test_an_integer_without_room_in_its_type_is_not_encoded(tag: str, value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_table({"k": Field(tag, value)})


@pytest.mark.parametrize(
    "value",
    [
        b"t\x01",
        b"b\xff",
        b"B\xff",
        b"s\xff\xfe",
        b"u\xff\xfe",
        b"I\xff\xff\xff\xfe",
        b"i\xff\xff\xff\xfe",
        b"l\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"L\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"f\x3f\x8c\xcc\xcd",
        b"d\x3f\xf1\x99\x99\x99\x99\x99\x9a",
        b"d\x7f\xf8\x00\x00\x00\x00\x00\x01",
        b"D\x02\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff\xff\xff\xff\xff",
        b"S\x00\x00\x00\x02\xff\xfe",
        b"x\x00\x00\x00\x02\xff\xfe",
        b"A\x00\x00\x00\x00",
        b"A\x00\x00\x00\x03VVV",
        b"F\x00\x00\x00\x00",
        b"F\x00\x00\x00\x03\x01aV",
        b"V",
    ],
)
def test_every_type_comes_back_byte_for_byte(value: bytes) -> None:
    raw = one(value)
    assert encode_table(decode_table(raw)[0]) == raw


@pytest.mark.parametrize("tag", sorted(tables.TYPE_NAMES))
def test_every_type_has_a_name_for_error_texts(tag: str) -> None:
    assert tables.TYPE_NAMES[tag].isalpha()


def test_short_integers_are_16_bit_signed_and_unsigned_as_rabbitmq_reads_them() -> None:
    raw = with_length(b"\x01as\xff\xff\x01bu\xff\xff")
    assert decode_table(raw)[0] == {"a": Field("s", -1), "b": Field("u", 65535)}


def test_a_boolean_is_true_if_any_bit_is_set() -> None:
    assert decode_table(one(b"t\x02"))[0] == {"k": Field("t", True)}


def test_the_first_of_duplicate_keys_wins() -> None:
    raw = with_length(b"\x01kB\x01\x01kB\x02")
    assert decode_table(raw)[0] == {"k": Field("B", 1)}


def test_a_key_may_be_any_255_bytes() -> None:
    key = bytes(range(256))[1:]
    raw = one(b"V", key)
    table, _ = decode_table(raw)
    assert list(table) == [surrogate_escaped(key)]
    assert encode_table(table) == raw


def test_a_key_over_255_bytes_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="at most 255 bytes"):
        encode_table({"k" * 256: Field("V", None)})


def test_an_unknown_tag_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="unknown field table type 'U'"):
        encode_table({"k": Field("U", 1)})


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "field table without a length"),
        (b"\0\0\0", "field table without a length"),
        (b"\0\0\0\x05\x01kV", "field table is longer than the data"),
        (b"\xff\xff\xff\xff\x01kV", "field table is longer than the data"),
        (with_length(b"\x09k"), "field table is truncated"),
        (with_length(b"\x01k"), "field table is truncated"),
        (one(b"I\0\0"), "field table is truncated"),
        (one(b"S\0\0"), "field table is truncated"),
        (one(b"S\0\0\0\x05abc"), "field table is truncated"),
        (one(b"x\xff\xff\xff\xffabc"), "field table is truncated"),
        (one(b"A\0\0\0\x05V"), "field table is truncated"),
        (one(b"F\0\0\0\x03\x01aI"), "field table is truncated"),
        (one(b"U\0\x01"), "unknown field table type 'U'"),
        (one(b"\0"), "unknown field table type 0"),
        (one(b"A\0\0\0\x01\xff"), "unknown field table type 255"),
    ],
)
def test_a_malformed_table_is_a_syntax_error(raw: bytes, text: str) -> None:
    with pytest.raises(FieldSyntaxError) as caught:
        decode_table(raw)
    assert caught.value.reply_text == f"SYNTAX_ERROR - {text}"


def test_a_value_may_not_reach_into_the_table_around_it() -> None:
    inner = b"\x01aI\0\0"  # two bytes short; the outer table has them
    with pytest.raises(FieldSyntaxError, match="truncated"):
        decode_table(with_length(b"\x01kF" + with_length(inner) + b"\x01bV"))


@given(st.binary(max_size=200))
def test_random_bytes_are_a_table_or_a_syntax_error(data: bytes) -> None:
    try:
        table, end = decode_table(data)
    except FieldSyntaxError:
        return
    assert end <= len(data)
    assert tables.check_table(data) == end
    json.dumps(tables.to_json(table))


@given(field_tables, st.data())
def test_a_damaged_table_is_a_table_or_a_syntax_error(table: Table, data: st.DataObject) -> None:
    raw = bytearray(encode_table(table))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded, end = decode_table(bytes(raw))
    except FieldSyntaxError:
        return
    assert decode_table(encode_table(decoded))[0].keys() == decoded.keys()
    assert end <= len(raw)


def nested_tables(depth: int) -> bytes:
    """Encode tables inside each other, the outermost counted."""
    raw = with_length(b"")
    for _ in range(depth - 1):
        raw = with_length(b"\x01kF" + raw)
    return raw


def nested_arrays(depth: int) -> bytes:
    """Encode a table with arrays inside each other, the table counted."""
    raw = with_length(b"")
    for _ in range(depth - 2):
        raw = with_length(b"A" + raw)
    return one(b"A" + raw)


@pytest.mark.parametrize("nested", [nested_tables, nested_arrays])
def test_tables_and_arrays_nest_up_to_the_limit(nested: type) -> None:
    raw = nested(tables.TABLE_DEPTH_MAX)
    assert encode_table(decode_table(raw)[0]) == raw


@pytest.mark.parametrize("nested", [nested_tables, nested_arrays])
@pytest.mark.parametrize("depth", [tables.TABLE_DEPTH_MAX + 1, 3_000])
def test_deeper_nesting_is_a_syntax_error(nested: type, depth: int) -> None:
    with pytest.raises(FieldSyntaxError, match="nested deeper than 32 levels"):
        decode_table(nested(depth))


def test_a_table_has_up_to_1024_keys() -> None:
    raw = with_length(b"".join(b"\x04%04dV" % number for number in range(1024)))
    assert len(decode_table(raw)[0]) == 1024


def test_more_keys_are_a_syntax_error() -> None:
    raw = with_length(b"".join(b"\x04%04dV" % number for number in range(1025)))
    with pytest.raises(FieldSyntaxError, match="more than 1024 keys"):
        decode_table(raw)


def test_too_many_values_inside_are_a_syntax_error_that_costs_no_memory() -> None:
    raw = one(b"A" + with_length(b"V" * 1_000_000))
    tracemalloc.start()
    with pytest.raises(FieldSyntaxError, match="more than 16384 values"):
        decode_table(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_amqplain_fields_are_a_table_without_its_length() -> None:
    fields = b"\x05LOGINS\0\0\0\x05guest"
    assert decode_fields(fields) == {"LOGIN": Field("S", b"guest")}


def test_plain_values_get_the_types_that_rabbitmq_uses() -> None:
    plain: dict[str, object] = {
        "text": "é",
        "bytes": b"\xff",
        "true": True,
        "number": 1,
        "float": 1.5,
        "list": [1, "a"],
        "dict": {"a": None},
        "kept": Field("b", 1),
    }
    assert tables.from_python(plain) == Field(
        "F",
        {
            "text": Field("S", "é".encode()),
            "bytes": Field("S", b"\xff"),
            "true": Field("t", True),
            "number": Field("l", 1),
            "float": Field("d", 1.5),
            "list": Field("A", [Field("l", 1), Field("S", b"a")]),
            "dict": Field("F", {"a": Field("V", None)}),
            "kept": Field("b", 1),
        },
    )


def test_a_value_of_no_field_type_is_refused() -> None:
    with pytest.raises(TypeError, match="no field table type for object"):
        tables.from_python(object())


TABLE: Table = {
    "text": Field("S", b"caf\xe9"),
    "bytes": Field("x", b"abc"),
    "number": Field("u", 7),
    "flag": Field("t", True),
    "table": Field("F", {}),
    "array": Field("A", []),
    "void": Field("V", None),
}


def test_a_value_is_read_by_its_kind() -> None:
    assert tables.longstr(TABLE, "text") == "caf\udce9"
    assert tables.longstr(TABLE, "bytes") == "abc"
    assert tables.integer(TABLE, "number") == 7
    assert tables.boolean(TABLE, "flag") is True
    assert tables.nested(TABLE, "table") == {}
    assert tables.array(TABLE, "array") == []


@pytest.mark.parametrize("key", ["void", "missing"])
def test_a_value_of_another_kind_reads_as_none(key: str) -> None:
    assert tables.longstr(TABLE, key) is None
    assert tables.integer(TABLE, key) is None
    assert tables.boolean(TABLE, key) is None
    assert tables.nested(TABLE, key) is None
    assert tables.array(TABLE, key) is None


NUMBERS = [Field(tag, 1) for tag in "bBsuIilLT"] + [Field("f", 1.0), Field("d", 1.0)]


@pytest.mark.parametrize("left", NUMBERS)
@pytest.mark.parametrize("right", NUMBERS)
def test_numbers_and_timestamps_are_equal_by_value(left: Field, right: Field) -> None:
    assert tables.same_value(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Field("S", b"a"), Field("x", b"a")),
        (Field("t", True), Field("t", True)),
        (Field("V", None), Field("V", None)),
        (Field("D", (1, 10)), Field("D", (1, 10))),
        (Field("A", [Field("l", 1)]), Field("A", [Field("l", 1)])),
        (
            Field("F", {"a": Field("l", 1), "b": Field("V", None)}),
            Field("F", {"b": Field("V", None), "a": Field("l", 1)}),
        ),
    ],
)
def test_other_values_are_equal_to_their_own_kind(left: Field, right: Field) -> None:
    assert tables.same_value(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Field("l", 1), Field("l", 2)),
        (Field("l", 1), Field("S", b"1")),
        (Field("S", b"1"), Field("l", 1)),
        (Field("S", b"a"), Field("S", b"b")),
        (Field("t", True), Field("l", 1)),
        (Field("l", 1), Field("t", True)),
        (Field("D", (0, 1)), Field("l", 1)),
        (Field("D", (0, 1)), Field("D", (1, 10))),
        (Field("V", None), Field("S", b"")),
        (Field("A", [Field("l", 1)]), Field("A", [Field("b", 1)])),
        (Field("A", [Field("l", 1)]), Field("A", [])),
        (Field("F", {"a": Field("l", 1)}), Field("F", {"b": Field("l", 1)})),
        (Field("A", []), Field("F", {})),
    ],
)
def test_values_of_different_kinds_are_never_equal(left: Field, right: Field) -> None:
    assert not tables.same_value(left, right)


def test_a_table_is_shown_as_json() -> None:
    table: Table = {
        "text": Field("S", "é".encode()),
        "bytes": Field("x", b"\xff\xfe"),
        "time": Field("T", 1 << 63),
        "price": Field("D", (2, 1999)),
        "tiny": Field("D", (255, 1)),
        "half": Field("d", 0.5),
        "nan": Field("d", float("nan")),
        "flag": Field("t", False),
        "nothing": Field("V", None),
        "list": Field("A", [Field("b", -1), Field("F", {"k": Field("S", b"v")})]),
        "bad\udcffkey": Field("l", 1),
    }
    assert json.loads(json.dumps(tables.to_json(table), allow_nan=False)) == {
        "text": "é",
        "bytes": {"base64": "//4="},
        "time": 9223372036854775808,
        "price": "19.99",
        "tiny": "1E-255",
        "half": 0.5,
        "nan": "nan",
        "flag": False,
        "nothing": None,
        "list": [-1, {"k": "v"}],
        "bad\\xffkey": 1,
    }


def test_doubles_keep_all_64_bits() -> None:
    value = struct.pack(">d", 1.1)
    assert decode_table(one(b"d" + value))[0]["k"].value == 1.1
