"""Errors have RabbitMQ's codes, names and texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.protocol import errors
from leveret.protocol.errors import (
    AMQPException,
    ChannelException,
    ConnectionException,
    InternalError,
    NotFound,
    cut_short_string,
    octets,
    printable_octets,
)


@pytest.mark.parametrize(
    ("name", "code", "reply_name", "level"),
    [
        ("ContentTooLarge", 311, "CONTENT_TOO_LARGE", ChannelException),
        ("AccessRefused", 403, "ACCESS_REFUSED", ChannelException),
        ("NotFound", 404, "NOT_FOUND", ChannelException),
        ("ResourceLocked", 405, "RESOURCE_LOCKED", ChannelException),
        ("PreconditionFailed", 406, "PRECONDITION_FAILED", ChannelException),
        ("ConnectionForced", 320, "CONNECTION_FORCED", ConnectionException),
        ("InvalidPath", 402, "INVALID_PATH", ConnectionException),
        ("LoginRefused", 403, "ACCESS_REFUSED", ConnectionException),
        ("FrameError", 501, "FRAME_ERROR", ConnectionException),
        ("FieldSyntaxError", 502, "SYNTAX_ERROR", ConnectionException),
        ("CommandInvalid", 503, "COMMAND_INVALID", ConnectionException),
        ("ChannelNotOpen", 504, "CHANNEL_ERROR", ConnectionException),
        ("UnexpectedFrame", 505, "UNEXPECTED_FRAME", ConnectionException),
        ("ResourceError", 506, "RESOURCE_ERROR", ConnectionException),
        ("NotAllowed", 530, "NOT_ALLOWED", ConnectionException),
        ("MethodNotImplemented", 540, "NOT_IMPLEMENTED", ConnectionException),
        ("InternalError", 541, "INTERNAL_ERROR", ConnectionException),
    ],
)
def test_each_error_has_its_code_its_name_and_closes_what_rabbitmq_closes(
    name: str, code: int, reply_name: str, level: type[AMQPException]
) -> None:
    error = getattr(errors, name)("text")
    assert (error.reply_code, error.reply_text) == (code, f"{reply_name} - text")
    assert isinstance(error, level)


def test_an_error_names_the_method_that_failed_once_it_is_known() -> None:
    error = NotFound("no queue 'q' in vhost '/'")
    assert (error.class_id, error.method_id) == (0, 0)
    error.class_id, error.method_id = 50, 10
    assert str(error) == "404 NOT_FOUND - no queue 'q' in vhost '/'"
    assert (error.class_id, error.method_id) == (50, 10)


def test_an_error_without_an_explanation_is_its_name() -> None:
    assert InternalError().reply_text == "INTERNAL_ERROR"


def test_a_long_text_is_cut_to_252_bytes_and_three_dots() -> None:
    text = NotFound("x" * 300).reply_text
    assert text == ("NOT_FOUND - " + "x" * 300)[:252] + "..."


@given(
    st.text(max_size=300) | st.binary(max_size=400).map(lambda data: data.decode("utf-8", "surrogateescape"))
)
def test_a_cut_text_fits_and_is_no_cut_character(text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8", "surrogateescape")
    cut = cut_short_string(text)
    assert len(cut.encode()) <= 255
    assert cut == text or (cut.endswith("...") and text.startswith(cut[:-3]))


def test_bytes_are_shown_as_erlang_shows_them() -> None:
    assert octets(b"abc") == "<<97,98,99>>"
    assert octets(b"") == "<<>>"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", "<<>>"),
        (b"abc", '<<"abc">>'),
        (b"\0abc", "<<0,97,98,99>>"),
        (b'a"b\\', r'<<"a\"b\\">>'),
        (b"a\r\n\t", r'<<"a\r\n\t">>'),
        (b"caf\xe9", '<<"café">>'),
        (b"\x80", "<<128>>"),
    ],
)
def test_printable_bytes_are_shown_as_text(data: bytes, shown: str) -> None:
    assert printable_octets(data) == shown
