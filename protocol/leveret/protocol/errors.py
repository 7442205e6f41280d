"""Reply codes: one class for each way RabbitMQ refuses something, and the codes that are not errors.

An error is raised anywhere below the session and caught there. A `ChannelException` closes the channel it
happened on, a `ConnectionException` the connection; on channel 0 it is always the connection. The text is
RabbitMQ's, word for word, because clients and people match on it.

Source: AMQP 0-9-1 section 1.2, "Reply codes".
"""

from __future__ import annotations

from typing import ClassVar, Final

REPLY_SUCCESS: Final = 200  # in a close that is not an error
NO_ROUTE: Final = 312  # only in basic.return
NO_CONSUMERS: Final = 313  # only in basic.return

SHORT_STRING_MAX: Final = 255  # bytes


class AMQPException(Exception):
    """Something the peer must be told with a close method.

    Args:
        text: What went wrong, without the name of the reply code; may be empty.
        class_id: Class of the method that failed, or 0 when no method is to blame or it is not known yet.
        method_id: Method that failed, or 0.
    """

    reply_code: ClassVar[int] = 541
    reply_name: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, text: str = "", class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.class_id = class_id
        self.method_id = method_id

    @property
    def reply_text(self) -> str:
        """The text as it goes on the wire: `NAME - text`, or the name alone, in at most 255 bytes."""
        return cut_short_string(f"{self.reply_name} - {self.text}" if self.text else self.reply_name)

    def __str__(self) -> str:
        """Show the code and the text as the peer gets them."""
        return f"{self.reply_code} {self.reply_text}"


class ChannelException(AMQPException):
    """Closes the channel ("soft")."""


class ConnectionException(AMQPException):
    """Closes the connection ("hard")."""


class ContentTooLarge(ChannelException):
    """The content is larger than the server takes."""

    reply_code = 311
    reply_name = "CONTENT_TOO_LARGE"


class AccessRefused(ChannelException):
    """No permission, a reserved name, or an exclusive consumer in the way."""

    reply_code = 403
    reply_name = "ACCESS_REFUSED"


class NotFound(ChannelException):
    """There is no such queue or exchange."""

    reply_code = 404
    reply_name = "NOT_FOUND"


class ResourceLocked(ChannelException):
    """The queue is exclusive to another connection."""

    reply_code = 405
    reply_name = "RESOURCE_LOCKED"


class PreconditionFailed(ChannelException):
    """Inequivalent or bad arguments, an unknown delivery tag, and the like."""

    reply_code = 406
    reply_name = "PRECONDITION_FAILED"


class ConnectionForced(ConnectionException):
    """An operator, or the end of the broker, closes the connection."""

    reply_code = 320
    reply_name = "CONNECTION_FORCED"


class InvalidPath(ConnectionException):
    """Unknown vhost in the specification; RabbitMQ says NOT_ALLOWED instead."""

    reply_code = 402
    reply_name = "INVALID_PATH"


class LoginRefused(ConnectionException):
    """A refused login: the code of `AccessRefused`, but the connection is closed."""

    reply_code = 403
    reply_name = "ACCESS_REFUSED"


class FrameError(ConnectionException):
    """Bytes that are no frame, or a method that cannot be decoded."""

    reply_code = 501
    reply_name = "FRAME_ERROR"


class FieldSyntaxError(ConnectionException):
    """An illegal field: a table that cannot be decoded, a malformed SASL response."""

    reply_code = 502
    reply_name = "SYNTAX_ERROR"


class CommandInvalid(ConnectionException):
    """A method that the server does not handle, or an unknown SASL mechanism."""

    reply_code = 503
    reply_name = "COMMAND_INVALID"


class ChannelNotOpen(ConnectionException):
    """A method on a channel that is not open, or in the wrong state of the connection."""

    reply_code = 504
    reply_name = "CHANNEL_ERROR"


class UnexpectedFrame(ConnectionException):
    """A frame of the wrong kind, usually in the middle of a content."""

    reply_code = 505
    reply_name = "UNEXPECTED_FRAME"


class ResourceError(ConnectionException):
    """The server lacks what it needs to go on."""

    reply_code = 506
    reply_name = "RESOURCE_ERROR"


class NotAllowed(ConnectionException):
    """Access to a vhost, a limit, a consumer tag in use, a refused tuning."""

    reply_code = 530
    reply_name = "NOT_ALLOWED"


class MethodNotImplemented(ConnectionException):
    """Part of the specification that RabbitMQ does not have either."""

    reply_code = 540
    reply_name = "NOT_IMPLEMENTED"


class InternalError(ConnectionException):
    """A bug of the server."""

    reply_code = 541
    reply_name = "INTERNAL_ERROR"


def cut_short_string(text: str, limit: int = SHORT_STRING_MAX) -> str:
    """Shorten a text to `limit` bytes of UTF-8; a cut falls between characters and ends in `...`."""
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) <= limit:
        return text
    end = limit - 3
    while end > 0 and encoded[end] & 0xC0 == 0x80:  # not into the middle of a character
        end -= 1
    return encoded[:end].decode("utf-8", "surrogateescape") + "..."


def octets(data: bytes) -> str:
    """Bytes as Erlang's `~w` prints a binary: `<<97,98,99>>`."""
    return "<<" + ",".join(map(str, data[: SHORT_STRING_MAX * 2])) + ">>"


def printable_octets(data: bytes) -> str:
    r"""Bytes as Erlang's `~p` prints a binary: `<<"abc">>` if all are printable Latin-1, else `<<1,2,3>>`."""
    if not data or not all(32 <= byte <= 126 or byte >= 160 or byte in _ERLANG_ESCAPES for byte in data):
        return octets(data)
    shown = "".join(_ERLANG_ESCAPES.get(byte, chr(byte)) for byte in data[: SHORT_STRING_MAX * 2])
    return f'<<"{shown}">>'


_ERLANG_ESCAPES: Final = {
    8: r"\b",
    9: r"\t",
    10: r"\n",
    11: r"\v",
    12: r"\f",
    13: r"\r",
    27: r"\e",
    34: r"\"",
    92: r"\\",
}  # byte -> how Erlang writes it between quotes
