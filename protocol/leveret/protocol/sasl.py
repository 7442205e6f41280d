"""How a client proves who it is: the mechanisms PLAIN and AMQPLAIN.

Source: AMQP 0-9-1 connection.start-ok (10, 11); RabbitMQ guide "Access Control", "Authentication Mechanisms".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from leveret.protocol import tables
from leveret.protocol.errors import CommandInvalid, FieldSyntaxError

PLAIN: Final = "PLAIN"
AMQPLAIN: Final = "AMQPLAIN"
MECHANISMS: Final = (PLAIN, AMQPLAIN)  # as offered in connection.start


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client claims to be; the password is never shown."""

    user: str
    password: str = field(repr=False)


def parse_response(mechanism: str, response: bytes) -> Credentials:
    """Read the response of connection.start-ok.

    RabbitMQ closes the connection without a word in the cases below. The texts do not repeat the response,
    because it may hold a password.

    Raises:
        CommandInvalid: the mechanism is not offered; its name is case-sensitive.
        FieldSyntaxError: the response is not what the mechanism asks for.
    """
    if mechanism == PLAIN:
        return _parse_plain(response)
    if mechanism == AMQPLAIN:
        return _parse_amqplain(response)
    raise CommandInvalid(f"unknown authentication mechanism '{mechanism}'")


def _parse_plain(response: bytes) -> Credentials:
    """Split NUL user NUL password; RabbitMQ wants the authorization identity in front to be empty."""
    parts = response.split(b"\0")
    if len(parts) != 3 or parts[0]:
        raise FieldSyntaxError("response invalid: PLAIN expects NUL, user, NUL, password")
    user, password = (part.decode("utf-8", "surrogateescape") for part in parts[1:])
    return Credentials(user, password)


def _parse_amqplain(response: bytes) -> Credentials:
    """Read a field table without its length; the order of the keys is free."""
    try:
        table = tables.decode_fields(response)
    except FieldSyntaxError as error:
        raise FieldSyntaxError(f"response invalid: {error.text}") from error
    user = tables.longstr(table, "LOGIN")
    password = tables.longstr(table, "PASSWORD")
    if user is None or password is None:
        raise FieldSyntaxError("response invalid: AMQPLAIN expects strings LOGIN and PASSWORD")
    return Credentials(user, password)
