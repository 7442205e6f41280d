"""Logging in with PLAIN and AMQPLAIN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.protocol.errors import AMQPException, CommandInvalid, FieldSyntaxError
from leveret.protocol.sasl import MECHANISMS, Credentials, parse_response
from leveret.protocol.tables import Field, Table, encode_table

from .strategies import surrogate_escaped


def amqplain(table: Table) -> bytes:
    """Encode an AMQPLAIN response: a table without its length."""
    return encode_table(table)[4:]


def test_plain_comes_first_because_clients_take_the_first_they_know() -> None:
    assert MECHANISMS == ("PLAIN", "AMQPLAIN")


def test_plain_carries_user_and_password_between_zero_bytes() -> None:
    assert parse_response("PLAIN", b"\0guest\0secret") == Credentials("guest", "secret")


@given(st.binary().filter(lambda data: b"\0" not in data), st.binary().filter(lambda data: b"\0" not in data))
def test_plain_takes_any_bytes_as_user_and_password(user: bytes, password: bytes) -> None:
    assert parse_response("PLAIN", b"\0" + user + b"\0" + password) == Credentials(
        surrogate_escaped(user), surrogate_escaped(password)
    )


@pytest.mark.parametrize(
    "response", [b"", b"junk", b"\0guest", b"a\0guest\0guest", b"\0guest\0guest\0x", b"\0"]
)
def test_a_malformed_plain_response_is_a_syntax_error(response: bytes) -> None:
    with pytest.raises(FieldSyntaxError) as caught:
        parse_response("PLAIN", response)
    assert (
        caught.value.reply_text == "SYNTAX_ERROR - response invalid: PLAIN expects NUL, user, NUL, password"
    )


@pytest.mark.parametrize("tag", ["S", "x"])
def test_amqplain_is_a_table_with_login_and_password_in_any_order(tag: str) -> None:
    login, password = Field(tag, b"guest"), Field(tag, b"secret")
    wanted = Credentials("guest", "secret")
    assert parse_response("AMQPLAIN", amqplain({"LOGIN": login, "PASSWORD": password})) == wanted
    assert parse_response("AMQPLAIN", amqplain({"PASSWORD": password, "LOGIN": login})) == wanted


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (b"", "AMQPLAIN expects strings LOGIN and PASSWORD"),
        (amqplain({"LOGIN": Field("S", b"a")}), "AMQPLAIN expects strings LOGIN and PASSWORD"),
        (
            amqplain({"LOGIN": Field("S", b"a"), "PASSWORD": Field("l", 1)}),
            "AMQPLAIN expects strings LOGIN and PASSWORD",
        ),
        (b"junk", "field table is truncated"),
        (b"\0guest\0secret", "unknown field table type 'g'"),
    ],
)
def test_a_malformed_amqplain_response_is_a_syntax_error(response: bytes, text: str) -> None:
    with pytest.raises(FieldSyntaxError) as caught:
        parse_response("AMQPLAIN", response)
    assert caught.value.reply_text == f"SYNTAX_ERROR - response invalid: {text}"


@pytest.mark.parametrize("mechanism", ["FOO", "plain", "EXTERNAL", "ANONYMOUS", ""])
def test_a_mechanism_that_is_not_offered_is_command_invalid(mechanism: str) -> None:
    with pytest.raises(CommandInvalid) as caught:
        parse_response(mechanism, b"\0guest\0guest")
    assert caught.value.reply_text == f"COMMAND_INVALID - unknown authentication mechanism '{mechanism}'"


def test_a_password_is_not_shown() -> None:
    assert repr(Credentials("guest", "secret")) == "Credentials(user='guest')"


@given(st.sampled_from(MECHANISMS), st.binary(max_size=80))
def test_random_bytes_log_in_or_are_an_error_for_the_peer(mechanism: str, response: bytes) -> None:
    try:
        credentials = parse_response(mechanism, response)
    except AMQPException:
        return
    assert isinstance(credentials, Credentials)
