"""The firehose, switched on with rabbitmqctl's verbs: the same copies, but for names, from any broker."""

from __future__ import annotations

import struct

import pytest
from brokers import Broker, Names
from conftest import Ctl
from wire import (
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    BASIC_GET_OK,
    CONTENT_TYPE,
    DELIVERY_MODE,
    HEADERS,
    QUEUE_BIND,
    QUEUE_BIND_OK,
    Content,
    Peer,
    basic_consume,
    basic_get,
    field,
    longstr,
    shortstr,
    table,
)

AUTO_ACK, EXCLUSIVE = 2, 4
TRACE = "amq.rabbitmq.trace"


class Traced:
    """A vhost that traces, a connection to it, a queue `q`, and a consumer of the copies."""

    def __init__(self, broker: Broker, ctl: Ctl) -> None:
        self.ctl = ctl
        self.vhost = ctl.add_vhost()
        where = Broker(broker.host, broker.port, broker.user, broker.password, self.vhost)
        self.publisher, self.watcher = Peer(where), Peer(where)
        for peer in (self.publisher, self.watcher):
            peer.login()
            peer.open_channel(1)
        self.publisher.declare_queue("q")
        self.watcher.declare_queue("copies", EXCLUSIVE)
        binding = b"\0\0" + shortstr("copies") + shortstr(TRACE) + shortstr("#") + b"\0" + table()
        self.watcher.ask(1, QUEUE_BIND, binding, QUEUE_BIND_OK)
        self.watcher.ask(1, BASIC_CONSUME, basic_consume("copies", "c", AUTO_ACK), BASIC_CONSUME_OK)
        ctl.ok("trace_on", "-p", self.vhost)

    def copy(self) -> Content:
        """Receive the next copy."""
        return self.watcher.receive_content(BASIC_DELIVER)


@pytest.fixture
def traced(broker: Broker, ctl: Ctl, names: Names) -> Traced:
    return Traced(broker, ctl)


def routing_key(content: Content) -> str:
    arguments = content.method.arguments
    key = 1 + arguments[0] + 9
    key += 1 + arguments[key]
    return arguments[key + 1 : key + 1 + arguments[key]].decode()


def entries(content: Content) -> list[tuple[str, bytes]]:
    """Return the headers that say the same for every broker: name, and type with value."""
    flags, size = struct.unpack_from(">HI", content.properties)
    assert flags == HEADERS
    position, end = 6, 6 + size
    found: list[tuple[str, bytes]] = []
    while position < end:
        length = content.properties[position]
        name = content.properties[position + 1 : position + 1 + length].decode()
        start = position = position + 1 + length
        tag = content.properties[position : position + 1]
        sized = int.from_bytes(content.properties[position + 1 : position + 5], "big")
        position += 5 + (0 if tag == b"I" else sized)
        found.append((name, content.properties[start:position]))
    return found


def text(value: str) -> bytes:
    return b"S" + longstr(value)


def array(*values: str) -> bytes:
    return b"A" + longstr(b"".join(map(text, values)))


def test_a_publish_and_a_get_are_copied_byte_for_byte(traced: Traced) -> None:
    headers = table(field("a", "I", b"\0\0\0\1"))
    properties = struct.pack(">H", CONTENT_TYPE | HEADERS | DELIVERY_MODE) + shortstr("text/plain")
    traced.publisher.publish("q", b"hello", properties + headers + b"\2")
    published = traced.copy()
    told = table(
        field("delivery_mode", "I", b"\0\0\0\2"),
        field("headers", "F", headers),
        field("content_type", "S", longstr("text/plain")),
    )
    about = [("exchange_name", text("")), ("routing_keys", array("q")), ("properties", b"F" + told)]
    who = [("vhost", text(traced.vhost)), ("channel", b"I\0\0\0\1"), ("user", text("guest"))]
    assert (routing_key(published), published.body) == ("publish.", b"hello")
    found = [entry for entry in entries(published) if entry[0] not in ("node", "connection")]
    assert found == [*about, *who, ("routed_queues", array("q"))]
    traced.publisher.send_method(1, (60, 70), basic_get("q"))
    traced.publisher.receive_content(BASIC_GET_OK)
    delivered = traced.copy()
    assert (routing_key(delivered), delivered.body) == ("deliver.q", b"hello")
    found = [entry for entry in entries(delivered) if entry[0] not in ("node", "connection")]
    assert found == [*about, ("redelivered", b"I\0\0\0\0"), *who]


def test_a_message_for_nobody_is_copied(traced: Traced) -> None:
    traced.publisher.publish("nobody", b"a")
    copy = traced.copy()
    assert copy.body == b"a"
    assert dict(entries(copy))["routed_queues"] == array("nobody")


def test_copies_are_not_copied_and_nothing_is_after_the_end(traced: Traced) -> None:
    traced.publisher.publish("q", b"1")
    assert traced.copy().body == b"1"
    traced.ctl.ok("trace_off", "-p", traced.vhost)
    traced.publisher.publish("q", b"2")
    traced.ctl.ok("trace_on", "-p", traced.vhost)
    traced.publisher.publish("q", b"3")
    assert traced.copy().body == b"3"
