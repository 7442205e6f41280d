"""One connection to a broker: the URL, the handshake, calls and their replies, output that waits.

The socket never blocks. While a scenario sets up or takes down, `call` waits for a reply; while it runs, the
loop calls `receive` and `flush` when the socket is ready.
"""

from __future__ import annotations

import select
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast
from urllib.parse import unquote, urlsplit

from pamqp import commands
from pamqp.base import Frame

from leveret.broker.bench.inbox import BUFFER_BYTES, Content, Inbox
from leveret.protocol.content import DEFAULT_FRAME_MAX
from leveret.protocol.handshake import PROTOCOL_HEADER
from leveret.protocol.methods import encode_method, make

if TYPE_CHECKING:
    from leveret.broker.bench.publisher import Publisher
    from leveret.protocol import tables

CONNECT_TIMEOUT_S: Final = 10.0
REPLY_TIMEOUT_S: Final = 60.0

CLIENT_PROPERTIES: Final = {
    "product": "leveret bench",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    },
}

F = TypeVar("F", bound=Frame)


class Unreachable(Exception):
    """The broker cannot be loaded: it does not answer, or refuses what a scenario needs."""


class Url(NamedTuple):
    """Where a broker is, and as whom to log in."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    def __str__(self) -> str:
        """Show it without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"amqp://{host}:{self.port}/" + ("" if self.vhost == "/" else self.vhost)


def parse_url(text: str) -> Url:
    """Read amqp://user:password@host:port/vhost; all but the scheme may be left out.

    Raises:
        ValueError: it is not such a URL.
    """
    parts = urlsplit(text)
    if parts.scheme != "amqp":
        raise ValueError("it must begin with amqp:// (TLS is not supported)")
    if parts.query or parts.fragment:
        raise ValueError("parameters after ? or # are not supported")
    return Url(
        parts.hostname or "127.0.0.1",
        parts.port or 5672,
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        unquote(parts.path[1:]) or "/",
    )


def is_this_machine(host: str) -> bool:
    """Whether a host is this one, by a loopback address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(address[0]).is_loopback for *_rest, address in found)


class Connection:
    """An open AMQP connection."""

    def __init__(self, url: Url, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Connect, log in and open the vhost.

        Raises:
            Unreachable: that failed.
        """
        self.inbox = Inbox(self.send, buffer_bytes)
        self.publisher: Publisher | None = None  # which publishes on this connection when it has room
        self.server_properties: tables.Table = {}
        self.frame_max = DEFAULT_FRAME_MAX
        self.interest = 0  # what the loop waits for on this socket
        self._pending: bytes | bytearray | memoryview = b""
        try:
            self.socket = socket.create_connection((url.host, url.port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise Unreachable(f"cannot connect: {error.strerror or error}") from error
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._open(url)
        except BaseException:
            self.socket.close()
            raise

    def _open(self, url: Url) -> None:
        self.send(PROTOCOL_HEADER)
        start = self._expect(0, commands.Connection.Start)
        self.server_properties = cast("tables.Table", start.server_properties)
        response = f"\0{url.user}\0{url.password}"
        tune = self.call(
            0,
            commands.Connection.StartOk,
            commands.Connection.Tune,
            client_properties=CLIENT_PROPERTIES,
            mechanism="PLAIN",
            response=response,
            locale="en_US",
        )
        self.frame_max = min(tune.frame_max or DEFAULT_FRAME_MAX, DEFAULT_FRAME_MAX)
        tuned = make(
            commands.Connection.TuneOk, channel_max=tune.channel_max, frame_max=self.frame_max, heartbeat=0
        )
        self.send(encode_method(0, tuned))
        self.call(0, commands.Connection.Open, commands.Connection.OpenOk, virtual_host=url.vhost)

    # -- output

    @property
    def has_pending(self) -> bool:
        """Whether the kernel has not taken all yet."""
        return bool(self._pending)

    @property
    def wants_to_write(self) -> bool:
        """Whether to wait until the socket takes more."""
        return bool(self._pending) or (self.publisher is not None and self.publisher.is_eager)

    def send(self, data: bytes | bytearray) -> None:
        """Write whole frames; what the kernel does not take waits."""
        if self._pending:
            self._pending = b"".join((self._pending, data))
        else:
            self._pending = data
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            BrokerClosed: the connection is gone.
        """
        try:
            sent = self.socket.send(self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            self.inbox.lost(error)
        if sent == len(self._pending):
            self._pending = b""
        else:
            self._pending = memoryview(self._pending)[sent:]

    # -- input

    def receive(self) -> None:
        """Read once and process it.

        Raises:
            BrokerClosed: the broker ended the connection or a channel.
        """
        try:
            size = self.socket.recv_into(self.inbox.room())
        except BlockingIOError:
            return
        except OSError as error:
            self.inbox.lost(error)
        self.inbox.received(size)

    # -- calls

    def call(self, channel: int, method: type[Frame], reply: type[F], **fields: object) -> F:
        """Send a method and wait for the reply; deliveries that come meanwhile are taken.

        Raises:
            BrokerClosed: the broker answered with a close.
            Unreachable: it did not answer, or with something else.
        """
        self.send(encode_method(channel, make(method, **fields)))
        return self._expect(channel, reply)

    def get(self, channel: int, queue: str) -> Content | None:
        """Fetch one message with basic.get, acknowledged by that; None if there is none."""
        self.send(encode_method(channel, make(commands.Basic.Get, queue=queue, no_ack=True)))
        reply = self._next_reply(channel)
        return reply if isinstance(reply, Content) else None

    def _expect(self, channel: int, reply: type[F]) -> F:
        answer = self._next_reply(channel)
        if not isinstance(answer, reply):
            raise Unreachable(f"the broker answered {answer!r} where {reply.name} was due")
        return answer

    def _next_reply(self, channel: int) -> Frame | Content:
        deadline = time.monotonic() + REPLY_TIMEOUT_S
        replies = self.inbox.replies
        while not replies:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN | (select.POLLOUT if self._pending else 0))
            for _descriptor, events in poll.poll(1000 * REPLY_TIMEOUT_S):
                if events & select.POLLOUT:
                    self.flush()
                if events & ~select.POLLOUT:
                    self.receive()
            if time.monotonic() > deadline:
                raise Unreachable(f"the broker did not answer for {REPLY_TIMEOUT_S:.0f} s")
        came_on, reply = replies.popleft()
        if came_on != channel:
            raise Unreachable(f"a reply came on channel {came_on} where one on {channel} was due")
        return reply

    def open_channel(self, channel: int) -> None:
        """Open a channel."""
        self.call(channel, commands.Channel.Open, commands.Channel.OpenOk)

    def close(self) -> None:
        """Close in order."""
        self.call(
            0, commands.Connection.Close, commands.Connection.CloseOk, reply_code=200, reply_text="done"
        )
        self.socket.close()
