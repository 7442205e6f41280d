"""Methods are read and written as pamqp does where pamqp is right, and as RabbitMQ does where it is not."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, commands, frame
from pamqp import encode as pamqp_encode

from leveret.protocol import methods
from leveret.protocol.errors import AMQPException, CommandInvalid, FieldSyntaxError, FrameError
from leveret.protocol.methods import (
    CLIENT_METHODS,
    CONTENT_METHODS,
    METHODS,
    Access,
    arguments_of,
    decode_method,
    encode_method,
    make,
)
from leveret.protocol.tables import Field, Table, decode_table, encode_table

from .strategies import field_tables, names, plain_tables

RESERVED = ("Channel.Open", "Channel.OpenOk")  # pamqp insists on "0" where RabbitMQ has nothing
METHOD_NAME = operator.attrgetter("name")
ALL_METHODS = list(METHODS.values())
PAMQP_METHODS = [method for method in ALL_METHODS if method.name not in RESERVED and method.index >> 16 != 30]

few = settings(max_examples=15)  # for each of the 60 methods

# What pamqp has no other value for.
FIXED = {"ticket": 0, "capabilities": "", "insist": False, "known_hosts": "", "cluster_id": ""}

pamqp_names = st.text("abcXYZ019-_.:@#,/+ ", max_size=60)
pamqp_values: dict[str, st.SearchStrategy[object]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 255),
    "short": st.integers(0, (1 << 16) - 1),
    "long": st.integers(0, (1 << 32) - 1),
    "longlong": st.integers(0, (1 << 63) - 1),
    "shortstr": pamqp_names,
    "longstr": st.text(st.characters(codec="utf-8"), max_size=60),
    "table": plain_tables,
}
rabbitmq_values: dict[str, st.SearchStrategy[object]] = {
    **pamqp_values,
    "longlong": st.integers(0, (1 << 64) - 1),
    "shortstr": st.text(st.characters(codec="utf-8"), max_size=60),
    "longstr": names,
    "table": field_tables,
}


def kinds(method: type[base.Frame]) -> dict[str, str]:
    """Return pamqp's types of a method's fields."""
    return {name: method.amqp_type(name) for name in method.attributes()}


def drawn(
    method: type[base.Frame], data: st.DataObject, values: dict[str, st.SearchStrategy[object]]
) -> dict[str, object]:
    """Draw a value for each field."""
    return {
        name: FIXED[name] if name in FIXED else data.draw(values[kind])
        for name, kind in kinds(method).items()
    }


def fields_of(method: base.Frame) -> dict[str, object]:
    """Return the fields that a method has."""
    return {name: getattr(method, name) for name in method.attributes()}


def by_pamqp(method: type[base.Frame], fields: dict[str, object]) -> bytes:
    """Encode a method with pamqp."""
    made = make(method, **fields)
    return frame.marshal(made, 7)


def tagged(method: type[base.Frame], fields: dict[str, object]) -> dict[str, object]:
    """Give plain tables the types that pamqp gives them."""
    return {
        name: decode_table(pamqp_encode.field_table(fields[name]))[0]  # type: ignore[arg-type]  # a plain table
        if kind == "table"
        else fields[name]
        for name, kind in kinds(method).items()
    }


@pytest.mark.parametrize("method", PAMQP_METHODS, ids=METHOD_NAME)
@few
@given(data=st.data())
def test_encoding_equals_pamqp(method: type[base.Frame], data: st.DataObject) -> None:
    fields = drawn(method, data, pamqp_values)
    assert encode_method(7, make(method, **tagged(method, fields))) == by_pamqp(method, fields)


@pytest.mark.parametrize("method", PAMQP_METHODS, ids=METHOD_NAME)
@few
@given(data=st.data())
def test_what_pamqp_encodes_is_decoded(method: type[base.Frame], data: st.DataObject) -> None:
    fields = drawn(method, data, pamqp_values)
    decoded = decode_method(by_pamqp(method, fields)[7:-1])
    assert type(decoded) is method
    assert fields_of(decoded) == tagged(method, fields)


@pytest.mark.parametrize("method", PAMQP_METHODS, ids=METHOD_NAME)
@pytest.mark.filterwarnings("ignore:This command is deprecated")
@few
@given(data=st.data())
def test_what_we_encode_pamqp_decodes(method: type[base.Frame], data: st.DataObject) -> None:
    fields = drawn(method, data, pamqp_values)
    raw = encode_method(7, make(method, **fields))
    size, channel, decoded = frame.unmarshal(raw)
    assert isinstance(decoded, method)
    assert (size, channel, fields_of(decoded)) == (len(raw), 7, fields)


@pytest.mark.parametrize(
    "method", [*PAMQP_METHODS, Access.Request, Access.RequestOk], ids=lambda method: method.name
)
@given(data=st.data())
def test_every_method_survives_encoding_and_decoding(method: type[base.Frame], data: st.DataObject) -> None:
    layout = methods._LAYOUTS[method.index].fields  # ours, so that Access is among them
    fields = {name: data.draw(rabbitmq_values[kind]) for name, kind in layout if name not in FIXED}
    raw = encode_method(1, make(method, **fields))
    decoded = decode_method(raw[7:-1])
    assert {name: getattr(decoded, name) for name in fields} == fields
    assert encode_method(1, decoded) == raw


@given(names, names)
def test_methods_with_content_take_names_of_any_bytes(exchange: str, routing_key: str) -> None:
    raw = encode_method(1, make(commands.Basic.Publish, exchange=exchange, routing_key=routing_key))
    decoded = decode_method(raw[7:-1])
    assert fields_of(decoded)["exchange"] == exchange
    assert fields_of(decoded)["routing_key"] == routing_key


@pytest.mark.parametrize("name", ["é!", "q!x", "<a>", "x" * 255])
def test_names_that_pamqp_refuses_are_encoded_and_decoded(name: str) -> None:
    decoded = decode_method(encode_method(1, make(commands.Queue.DeclareOk, queue=name))[7:-1])
    assert isinstance(decoded, commands.Queue.DeclareOk)
    assert decoded.queue == name


def test_a_name_over_255_bytes_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="queue has at most 255 bytes, not 256"):
        encode_method(1, make(commands.Queue.DeclareOk, queue="é" * 128))


def test_a_number_without_room_in_its_field_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="65536 is out of range for channel_max"):
        encode_method(0, make(commands.Connection.Tune, channel_max=65536))


def test_a_long_reply_text_is_cut_between_characters() -> None:
    raw = encode_method(1, make(commands.Channel.Close, reply_code=404, reply_text="é" * 200))
    decoded = decode_method(raw[7:-1])
    assert isinstance(decoded, commands.Channel.Close)
    assert decoded.reply_text == "é" * 126 + "..."


def test_fields_that_are_not_given_are_empty() -> None:
    assert encode_method(1, make(commands.Queue.Declare)) == encode_method(
        1, make(commands.Queue.Declare, queue="", passive=False, arguments={})
    )


def test_pamqp_objects_with_unset_fields_are_encoded() -> None:
    close = commands.Connection.Close(320, "CONNECTION_FORCED")
    decoded = decode_method(encode_method(0, close)[7:-1])
    assert fields_of(decoded) == {
        "reply_code": 320,
        "reply_text": "CONNECTION_FORCED",
        "class_id": 0,
        "method_id": 0,
    }


def test_a_method_is_not_made_with_a_field_it_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"Queue\.Delete has no field if_big"):
        make(commands.Queue.Delete, if_big=True)


@pytest.mark.parametrize(
    ("method", "payload"),
    [(commands.Channel.OpenOk(), b"\0\x14\0\x0b\0\0\0\0"), (commands.Channel.Open(), b"\0\x14\0\x0a\0")],
)
def test_reserved_fields_of_channel_open_are_empty_as_in_rabbitmq(method: base.Frame, payload: bytes) -> None:
    assert encode_method(1, method)[7:-1] == payload
    assert type(decode_method(payload)) is type(method)


def test_plain_arguments_get_the_types_of_rabbitmq() -> None:
    raw = encode_method(
        0, make(commands.Connection.Start, server_properties={"a": "x", "b": {"c": True}, "n": 1})
    )
    decoded = decode_method(raw[7:-1])
    assert fields_of(decoded)["server_properties"] == {
        "a": Field("S", b"x"),
        "b": Field("F", {"c": Field("t", True)}),
        "n": Field("l", 1),
    }


@given(field_tables)
def test_arguments_keep_their_types(table: Table) -> None:
    decoded = decode_method(encode_method(1, make(commands.Queue.Declare, queue="q", arguments=table))[7:-1])
    assert arguments_of(decoded) == table


def test_a_method_without_arguments_has_an_empty_table() -> None:
    assert arguments_of(make(commands.Queue.Declare)) == {}
    assert arguments_of(make(commands.Tx.Select)) == {}


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ((10, 60), "Connection.Blocked"),
        ((10, 61), "Connection.Unblocked"),
        ((10, 70), "Connection.UpdateSecret"),
        ((10, 71), "Connection.UpdateSecretOk"),
        ((30, 10), "Access.Request"),
        ((30, 11), "Access.RequestOk"),
        ((40, 30), "Exchange.Bind"),
        ((40, 31), "Exchange.BindOk"),
        ((40, 40), "Exchange.Unbind"),
        ((40, 51), "Exchange.UnbindOk"),
        ((60, 100), "Basic.RecoverAsync"),
        ((60, 120), "Basic.Nack"),
        ((85, 10), "Confirm.Select"),
    ],
)
def test_the_methods_that_rabbitmq_adds_are_known(ids: tuple[int, int], name: str) -> None:
    method = METHODS[ids]
    assert method.name == name
    assert (methods.class_id(method), methods.method_id(method)) == ids


def test_only_four_methods_carry_content() -> None:
    assert {method.name for method in CONTENT_METHODS} == {
        "Basic.Publish",
        "Basic.Return",
        "Basic.Deliver",
        "Basic.GetOk",
    }


def test_a_client_sends_no_answers_but_those_to_the_server() -> None:
    assert {method.name for method in CLIENT_METHODS if method.name.endswith("Ok")} == {
        "Connection.StartOk",
        "Connection.SecureOk",
        "Connection.TuneOk",
        "Connection.CloseOk",
        "Channel.CloseOk",
    }


def test_every_synchronous_method_of_a_client_has_its_answer_in_the_catalogue() -> None:
    known = {method.name for method in ALL_METHODS}
    assert all(set(method.valid_responses) <= known for method in CLIENT_METHODS)


# The texts below were seen on RabbitMQ 3.10, except where a test says otherwise.

DECLARE = b"\0\x32\0\x0a"


@pytest.mark.parametrize(
    ("payload", "shown", "ids"),
    [
        (DECLARE + b"\0\0", "<<0,0>>", (50, 10)),
        (DECLARE + b"\0\0\x01q\0\0\0\0\0xyz", "<<0,0,1,113,0,0,0,0,0,120,121,122>>", (50, 10)),
        (DECLARE + b"\0\0\x01q\0\0\0\x01\xf4abc", "<<0,0,1,113,0,0,0,1,244,97,98,99>>", (50, 10)),
        (DECLARE + b"\0\0\x09q", "<<0,0,9,113>>", (50, 10)),
        (DECLARE, "<<>>", (50, 10)),
        (b"\0\x3c\0\x0aabc", "<<97,98,99>>", (60, 10)),
        (b"\0\x5a\0\x0aabc", "<<97,98,99>>", (90, 10)),
        (b"\0\x3c\0\x50\0\0", "<<0,0>>", (60, 80)),
        (b"\0\x3c\0\x28\0\0\0\0", "<<0,0,0,0>>", (60, 40)),
        (b"\0\x14\0\x14", "<<>>", (20, 20)),
        (b"\0\x0a\0\x15\0\0\0", "<<0,0,0>>", (10, 21)),
        (b"\0\x0a\0\x15\xff\xff\xff\xff", "<<255,255,255,255>>", (10, 21)),
    ],
)
def test_arguments_that_do_not_fit_the_method_are_a_frame_error(
    payload: bytes, shown: str, ids: tuple[int, int]
) -> None:
    with pytest.raises(FrameError) as caught:
        decode_method(payload)
    assert caught.value.reply_text == f"FRAME_ERROR - cannot decode {shown}"
    assert (caught.value.class_id, caught.value.method_id) == ids


def test_a_long_undecodable_method_is_shown_in_at_most_255_bytes() -> None:
    with pytest.raises(FrameError) as caught:
        decode_method(b"\0\x3c\0\x0a" + b"abc" * 40)
    assert caught.value.reply_text == ("FRAME_ERROR - cannot decode <<" + "97,98,99," * 40)[:252] + "..."


@pytest.mark.parametrize(
    "payload",
    [DECLARE + b"\0\0\x02\xff\xfe\0\0\0\0\0", b"\0\x3c\0\x1e\x01\xff\0", b"\0\x0a\0\x28\x01\xc3\0\0"],
)
def test_a_short_string_that_is_not_utf8_is_a_frame_error_without_ids(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        decode_method(payload)
    assert caught.value.reply_text == "FRAME_ERROR - Malformed UTF-8 in shortstr"
    assert (caught.value.class_id, caught.value.method_id) == (0, 0)


def test_keys_and_values_of_arguments_need_not_be_utf8() -> None:
    table = encode_table({"\udcff": Field("S", b"\xff")})
    decoded = decode_method(DECLARE + b"\0\0\x01q\0" + table)
    assert arguments_of(decoded) == {"\udcff": Field("S", b"\xff")}


def test_a_malformed_table_is_a_syntax_error_with_the_ids_of_the_method() -> None:
    # RabbitMQ drops the connection without a word.
    with pytest.raises(FieldSyntaxError) as caught:
        decode_method(DECLARE + b"\0\0\x01q\0\0\0\0\x05\x01aU\0\x01")
    assert caught.value.reply_text == "SYNTAX_ERROR - unknown field table type 'U'"
    assert (caught.value.class_id, caught.value.method_id) == (50, 10)


@pytest.mark.parametrize("ids", [(50, 99), (99, 10), (70, 10), (0, 0), (65535, 65535)])
def test_an_unknown_method_is_command_invalid_without_ids(ids: tuple[int, int]) -> None:
    # RabbitMQ drops the connection without a word.
    with pytest.raises(CommandInvalid) as caught:
        decode_method(ids[0].to_bytes(2, "big") + ids[1].to_bytes(2, "big"))
    assert caught.value.reply_text == f"COMMAND_INVALID - unknown method ({ids[0]},{ids[1]})"
    assert (caught.value.class_id, caught.value.method_id) == (0, 0)


def test_unused_bits_of_a_row_are_ignored() -> None:
    decoded = decode_method(DECLARE + b"\0\0\x01q\xe8\0\0\0\0")
    assert isinstance(decoded, commands.Queue.Declare)
    assert (decoded.passive, decoded.auto_delete) == (False, True)


@given(st.binary(max_size=80))
def test_random_bytes_are_a_method_or_an_error_for_the_peer(payload: bytes) -> None:
    try:
        decoded = decode_method(payload)
    except AMQPException:
        return
    assert type(decoded) in ALL_METHODS


@given(st.sampled_from(ALL_METHODS), st.binary(max_size=80))
def test_random_arguments_are_a_method_or_an_error_for_the_peer(
    method: type[base.Frame], arguments: bytes
) -> None:
    try:
        decoded = decode_method(method.index.to_bytes(4, "big") + arguments)
    except AMQPException:
        return
    assert type(decoded) is method


@given(st.sampled_from(PAMQP_METHODS), st.data())
def test_a_damaged_method_is_a_method_or_an_error_for_the_peer(
    method: type[base.Frame], data: st.DataObject
) -> None:
    fields = drawn(method, data, rabbitmq_values)
    payload = bytearray(encode_method(1, make(method, **fields))[7:-1])
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_method(bytes(payload))
    except AMQPException:
        return
    assert type(decoded) in ALL_METHODS
