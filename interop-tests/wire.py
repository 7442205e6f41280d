"""AMQP 0-9-1 by hand: a peer that can say anything, also what no client library would.

Written against the specification and without any codec package, so that it shares no mistakes
with the broker or the clients under test.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from brokers import Broker

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

# (class, method) by name, as far as tests use them
CONNECTION_START, CONNECTION_START_OK = (10, 10), (10, 11)
CONNECTION_TUNE, CONNECTION_TUNE_OK = (10, 30), (10, 31)
CONNECTION_OPEN, CONNECTION_OPEN_OK = (10, 40), (10, 41)
CONNECTION_CLOSE, CONNECTION_CLOSE_OK = (10, 50), (10, 51)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
CHANNEL_FLOW, CHANNEL_FLOW_OK = (20, 20), (20, 21)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
ACCESS_REQUEST, ACCESS_REQUEST_OK = (30, 10), (30, 11)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
QUEUE_DELETE, QUEUE_DELETE_OK = (50, 40), (50, 41)
BASIC_QOS, BASIC_QOS_OK = (60, 10), (60, 11)
BASIC_CONSUME, BASIC_CONSUME_OK = (60, 20), (60, 21)
BASIC_CANCEL, BASIC_CANCEL_OK = (60, 30), (60, 31)
BASIC_PUBLISH, BASIC_RETURN, BASIC_DELIVER = (60, 40), (60, 50), (60, 60)
BASIC_GET, BASIC_GET_OK, BASIC_GET_EMPTY = (60, 70), (60, 71), (60, 72)
BASIC_ACK, BASIC_REJECT, BASIC_NACK = (60, 80), (60, 90), (60, 120)
BASIC_RECOVER, BASIC_RECOVER_OK = (60, 110), (60, 111)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)
TX_SELECT, TX_SELECT_OK, TX_COMMIT, TX_COMMIT_OK = (90, 10), (90, 11), (90, 20), (90, 21)

# the property flags that tests set, highest bit first
CONTENT_TYPE, HEADERS, DELIVERY_MODE, EXPIRATION = 0x8000, 0x2000, 0x1000, 0x0100


class Disconnected(Exception):
    """The broker dropped the TCP connection."""


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    channel: int
    payload: bytes


class Method(NamedTuple):
    """A method frame, its arguments still encoded."""

    channel: int
    name: tuple[int, int]
    arguments: bytes


class Close(NamedTuple):
    """What connection.close or channel.close says."""

    channel: int
    reply_code: int
    reply_text: str
    method: tuple[int, int]


class Content(NamedTuple):
    """A message as basic.deliver, basic.get-ok or basic.return brings it."""

    method: Method
    properties: bytes
    body: bytes


def shortstr(text: str | bytes) -> bytes:
    """Encode a short string."""
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def longstr(text: str | bytes) -> bytes:
    """Encode a long string."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


def field(key: str | bytes, tag: str, value: bytes = b"") -> bytes:
    """Encode one entry of a table, the value being encoded already."""
    return shortstr(key) + tag.encode() + value


def table(*fields: bytes) -> bytes:
    """Encode a table of encoded fields."""
    return longstr(b"".join(fields))


def queue_declare(queue: str | bytes, flags: int = 0, arguments: bytes = b"\0\0\0\0") -> bytes:
    """Encode the arguments of queue.declare.

    Flags: passive 1, durable 2, exclusive 4, auto-delete 8, no-wait 16.
    """
    return b"\0\0" + shortstr(queue) + bytes([flags]) + arguments


def exchange_declare(
    exchange: str | bytes, kind: str, flags: int = 0, arguments: bytes = b"\0\0\0\0"
) -> bytes:
    """Encode the arguments of exchange.declare; flags: passive 1, durable 2, auto-delete 4, internal 8."""
    return b"\0\0" + shortstr(exchange) + shortstr(kind) + bytes([flags]) + arguments


def basic_publish(exchange: str | bytes, routing_key: str | bytes, flags: int = 0) -> bytes:
    """Encode the arguments of basic.publish; flags: mandatory 1, immediate 2."""
    return b"\0\0" + shortstr(exchange) + shortstr(routing_key) + bytes([flags])


def basic_consume(queue: str, tag: str = "", flags: int = 0, arguments: bytes = b"\0\0\0\0") -> bytes:
    """Encode the arguments of basic.consume; flags: no-local 1, no-ack 2, exclusive 4, no-wait 8."""
    return b"\0\0" + shortstr(queue) + shortstr(tag) + bytes([flags]) + arguments


def basic_get(queue: str, no_ack: bool = True) -> bytes:
    """Encode the arguments of basic.get."""
    return b"\0\0" + shortstr(queue) + bytes([no_ack])


CAPABLE = table(
    field(
        "capabilities",
        "F",
        table(
            field("authentication_failure_close", "t", b"\1"),
            field("consumer_cancel_notify", "t", b"\1"),
            field("basic.nack", "t", b"\1"),
        ),
    )
)


class Peer:
    """One TCP connection on which frames are sent and received by hand."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.socket = socket.create_connection((broker.host, broker.port), timeout=10)
        self._received = b""

    # sending ---------------------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        self.socket.sendall(data)

    def send_frame(self, kind: int, channel: int, payload: bytes, end: bytes = FRAME_END) -> None:
        """Send one frame."""
        self.send_bytes(struct.pack(">BHI", kind, channel, len(payload)) + payload + end)

    def send_method(self, channel: int, name: tuple[int, int], arguments: bytes = b"") -> None:
        """Send a method frame."""
        self.send_frame(METHOD, channel, struct.pack(">HH", *name) + arguments)

    def send_header(
        self, channel: int, body_size: int, properties: bytes = b"\0\0", class_id: int = 60
    ) -> None:
        """Send a content header; `properties` starts with the property flags."""
        self.send_frame(HEADER, channel, struct.pack(">HHQ", class_id, 0, body_size) + properties)

    def publish(
        self, routing_key: str | bytes, body: bytes, properties: bytes = b"\0\0", exchange: str | bytes = ""
    ) -> None:
        """Publish on channel 1, in as many body frames as 131072 bytes a frame need."""
        self.send_method(1, BASIC_PUBLISH, basic_publish(exchange, routing_key))
        self.send_header(1, len(body), properties)
        for start in range(0, len(body), 131064):
            self.send_frame(BODY, 1, body[start : start + 131064])

    # receiving -------------------------------------------------------------------------------------

    def receive_bytes(self, count: int) -> bytes:
        """Receive exactly so many bytes.

        Raises:
            Disconnected: the connection ended before.
        """
        while len(self._received) < count:
            try:
                data = self.socket.recv(65536)
            except ConnectionError as error:
                raise Disconnected from error
            if not data:
                raise Disconnected
            self._received += data
        data, self._received = self._received[:count], self._received[count:]
        return data

    def receive_frame(self) -> Frame:
        """Receive the next frame, heartbeats included."""
        kind, channel, size = struct.unpack(">BHI", self.receive_bytes(7))
        payload = self.receive_bytes(size)
        assert self.receive_bytes(1) == FRAME_END
        return Frame(kind, channel, payload)

    def receive_method(self, *expected: tuple[int, int]) -> Method:
        """Receive the next frame that is no heartbeat; it must be a method, and one of the expected."""
        frame = self.receive_frame()
        while frame.kind == HEARTBEAT:
            frame = self.receive_frame()
        assert frame.kind == METHOD
        class_id, method_id = struct.unpack_from(">HH", frame.payload)
        method = Method(frame.channel, (class_id, method_id), frame.payload[4:])
        assert not expected or method.name in expected, f"expected {expected}, received {method}"
        return method

    def receive_content(self, *expected: tuple[int, int]) -> Content:
        """Receive a method with its header and body."""
        method = self.receive_method(*expected)
        header = self.receive_frame()
        assert (header.kind, header.channel) == (HEADER, method.channel)
        class_id, weight, size = struct.unpack_from(">HHQ", header.payload)
        assert (class_id, weight) == (60, 0)
        body = b""
        while len(body) < size:
            frame = self.receive_frame()
            assert (frame.kind, frame.channel) == (BODY, method.channel)
            body += frame.payload
        return Content(method, header.payload[12:], body)

    def receive_close(self) -> Close:
        """Receive a connection.close or channel.close, and answer it."""
        method = self.receive_method(CONNECTION_CLOSE, CHANNEL_CLOSE)
        code, length = struct.unpack_from(">HB", method.arguments)
        text = method.arguments[3 : 3 + length].decode()
        class_id, method_id = struct.unpack_from(">HH", method.arguments, 3 + length)
        self.send_method(method.channel, (method.name[0], method.name[1] + 1))
        return Close(method.channel, code, text, (class_id, method_id))

    def receive_end(self) -> None:
        """Read until the broker ends the connection; frames on the way are ignored."""
        try:
            while True:
                self.receive_bytes(1)
        except Disconnected:
            pass

    def receive_close_or_end(self) -> int:
        """Receive a close of the connection and return its code, or 0 if it just ends."""
        try:
            close = self.receive_close()
        except Disconnected:
            return 0
        assert close.channel == 0
        return close.reply_code

    def ask(self, channel: int, name: tuple[int, int], arguments: bytes, answer: tuple[int, int]) -> Method:
        """Send a method and receive its answer."""
        self.send_method(channel, name, arguments)
        return self.receive_method(answer)

    # conversations ---------------------------------------------------------------------------------

    def start(self) -> Method:
        """Send the protocol header and receive connection.start."""
        self.send_bytes(PROTOCOL_HEADER)
        return self.receive_method(CONNECTION_START)

    def send_start_ok(
        self,
        mechanism: str = "PLAIN",
        response: bytes | None = None,
        client_properties: bytes = CAPABLE,
        locale: str = "en_US",
    ) -> None:
        """Send connection.start-ok, by default with the right login."""
        plain = b"\0" + self.broker.user.encode() + b"\0" + self.broker.password.encode()
        answer = plain if response is None else response
        self.send_method(
            0,
            CONNECTION_START_OK,
            client_properties + shortstr(mechanism) + longstr(answer) + shortstr(locale),
        )

    def login(self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> None:
        """Go through the whole handshake."""
        self.start()
        self.send_start_ok()
        self.finish_login(channel_max, frame_max, heartbeat)

    def finish_login(self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> None:
        """Go through the rest of the handshake after connection.start-ok."""
        self.receive_method(CONNECTION_TUNE)
        self.send_method(0, CONNECTION_TUNE_OK, struct.pack(">HIH", channel_max, frame_max, heartbeat))
        self.ask(0, CONNECTION_OPEN, shortstr(self.broker.vhost) + b"\0\0", CONNECTION_OPEN_OK)

    def open_channel(self, channel: int) -> None:
        """Open a channel."""
        self.ask(channel, CHANNEL_OPEN, b"\0", CHANNEL_OPEN_OK)

    def declare_queue(self, queue: str | bytes, flags: int = 0, arguments: bytes = b"\0\0\0\0") -> None:
        """Declare a queue on channel 1."""
        self.ask(1, QUEUE_DECLARE, queue_declare(queue, flags, arguments), QUEUE_DECLARE_OK)

    def get(self, queue: str) -> Content:
        """Fetch a message without acknowledgement on channel 1."""
        self.send_method(1, BASIC_GET, basic_get(queue))
        return self.receive_content(BASIC_GET_OK)

    def disconnect(self) -> None:
        """Drop the TCP connection."""
        self.socket.close()
