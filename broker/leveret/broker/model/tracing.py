"""The firehose: copies of what is published and delivered in a vhost go to its exchange amq.rabbitmq.trace.

A vhost that traces has a `Tracer`, and so has each of its queues; others pay nothing for it but a look, once
for each run of deliveries. Copies are not traced again. Tracing does not outlive the broker, as in RabbitMQ.

Source: RabbitMQ guide "Firehose Tracer"; headers and their types as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.model.message_properties import extra_routing_keys, visible_routing_keys
from leveret.broker.model.own_messages import OwnMessage
from leveret.broker.model.replies import PREFIX
from leveret.protocol.errors import FieldSyntaxError, PreconditionFailed
from leveret.protocol.properties import PROPERTY_NAMES, Properties, replace
from leveret.protocol.tables import Field, Table, from_python

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.exchanges.exchange import Exchange
    from leveret.broker.model.publish import Publish
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Envelope, Message

TRACE_EXCHANGE: Final = "amq.rabbitmq.trace"
SIGNED_INT_MAX: Final = 0x7FFFFFFF


class Tracer:
    """Makes the copies of one vhost.

    Args:
        turn: takes the copies.
        vhost_name: that is traced.
        exchange: its exchange for copies; while nothing is bound to it none are made.
        node_name: for the header `node`.
    """

    __slots__ = ("_exchange", "_node_name", "_turn", "_vhost_name")

    def __init__(self, turn: Turn, vhost_name: str, exchange: Exchange, node_name: str) -> None:
        self._turn = turn
        self._vhost_name = vhost_name
        self._exchange = exchange
        self._node_name = node_name

    def published(self, channel: Channel, publish: Publish, routing_keys: list[str]) -> None:
        """Copy messages that were published and routed; before they are in their queues, or committed.

        Where each message is routed by itself, when its turn comes, `routed_queues` are those that it may go
        to.
        """
        if not self._exchange.bindings:
            return
        envelope = publish.messages[0].envelope
        routed = [queue.name for queue in publish.queues]
        if not envelope.exchange:  # as RabbitMQ: also queues that do not exist
            routed = [key for key in routing_keys if not key.startswith(PREFIX)]
        more = {"routed_queues": from_python(sorted(set(routed)))}
        headers = self._headers(envelope, envelope.fields, routing_keys, channel, {}, more)
        for message in publish.messages:
            self._copy(f"publish.{envelope.exchange}", headers, message)

    def delivered(self, queue: Queue, channel: Channel, messages: list[Message], redelivered: bool) -> None:
        """Copy messages that a consumer or a basic.get was given; `messages` may have several envelopes."""
        if not self._exchange.bindings:
            return
        more = {"redelivered": Field("I", int(redelivered))}
        for message in messages:
            envelope = message.envelope
            if envelope.exchange != TRACE_EXCHANGE:
                keys = _routing_keys(envelope)
                fields = _fields_as_sent(message)
                headers = self._headers(envelope, fields, keys, channel, more, {})
                self._copy(f"deliver.{queue.name}", headers, message)

    def _headers(
        self,
        envelope: Envelope,
        fields: Properties,
        routing_keys: list[str],
        channel: Channel,
        before: Table,
        behind: Table,
    ) -> bytes:
        """Encode what a copy tells, as its property list."""
        connection = channel.connection
        headers: Table = {
            "exchange_name": from_python(envelope.exchange),
            "routing_keys": from_python(routing_keys),
            "properties": Field("F", _properties(fields)),
            "node": from_python(self._node_name),
            **before,
            "vhost": from_python(self._vhost_name),
            "connection": from_python(connection.name),
            "channel": Field("I", channel.number),
            "user": from_python(connection.user.name),
            **behind,
        }
        return _property_list(headers)

    def _copy(self, key: str, headers: bytes, message: Message) -> None:
        self._turn.publish_own(OwnMessage(self._vhost_name, TRACE_EXCHANGE, key, headers, message.body))


def published_routing_keys(envelope: Envelope) -> list[str]:
    """Return the routing keys of a publish as its copy tells them: one that is named twice is there twice."""
    headers = envelope.fields.headers
    visible = [] if headers is None else extra_routing_keys(headers)
    return [envelope.routing_key, *dict.fromkeys([*visible, *envelope.bcc_keys])]


def _routing_keys(envelope: Envelope) -> list[str]:
    """Return those of a message in a queue: they may be the broker's own, if it is a dead letter."""
    if not envelope.dead_lettered:
        try:
            return published_routing_keys(envelope)
        except PreconditionFailed:  # a header that the broker did not look at
            return [envelope.routing_key]
    return visible_routing_keys(
        envelope.routing_key, None if envelope.cc_is_spent else envelope.fields.headers
    )


def _fields_as_sent(message: Message) -> Properties:
    """Return the properties that the receiver sees: a stream, for one, adds the offset."""
    frames = message.frames()
    end = 7 + int.from_bytes(frames[3:7], "big")  # of the content header's payload
    return Properties.parse(frames[19:end])


def _property_list(headers: Table) -> bytes:
    """Encode the headers of a copy; without those of the message if they are too deep for that."""
    raw = replace(headers=headers)
    try:
        Properties.parse(raw)
    except FieldSyntaxError:
        properties = headers["properties"].value
        assert isinstance(properties, dict)
        raw = replace(
            headers={
                **headers,
                "properties": Field("F", {n: f for n, f in properties.items() if n != "headers"}),
            }
        )
    return raw


def _properties(fields: Properties) -> Table:
    """Return the properties that are set as a table, the last one first."""
    table: Table = {}
    for name in reversed(PROPERTY_NAMES):
        if name == "headers":
            if fields.headers is not None:
                table[name] = Field("F", fields.headers)
            continue
        value: bytes | int | None = getattr(fields, name)
        if isinstance(value, int):
            table[name] = Field("I" if value <= SIGNED_INT_MAX else "l", min(value, (1 << 63) - 1))
        elif value is not None:
            table[name] = Field("S", value)
    return table
