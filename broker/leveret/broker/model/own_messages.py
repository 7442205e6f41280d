"""Messages that the broker itself publishes: copies of traced messages, events, lines of the log.

Whoever has one puts it into the turn (`Turn.publish_own`); the server routes them before it delivers. So they
may be made anywhere, also in the middle of a delivery or a deletion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.protocol.content import DEFAULT_FRAME_MAX, Envelope, Message, encode_content, make_envelope
from leveret.protocol.errors import FieldSyntaxError

if TYPE_CHECKING:
    from leveret.broker.model.vhost import VHost

ROUTING_KEY_BYTES: Final = 255


class OwnMessage:
    """A message on its way to an exchange.

    Args:
        vhost_name: where the exchange is; if it is gone, so is the message.
        exchange_name: of the exchange.
        routing_key: cut after 255 bytes.
        raw: the property list, from the property flags on.
        body: of the message.
    """

    __slots__ = ("body", "exchange_name", "raw", "routing_key", "vhost_name")

    def __init__(
        self, vhost_name: str, exchange_name: str, routing_key: str, raw: bytes, body: bytes
    ) -> None:
        self.vhost_name = vhost_name
        self.exchange_name = exchange_name
        self.routing_key = _cut(routing_key)
        self.raw = raw
        self.body = body

    def publish(self, vhost: VHost) -> None:
        """Route it into queues. One with more in its headers than there may be is dropped."""
        exchange = vhost.exchanges.get(self.exchange_name)
        if exchange is None:
            return
        try:
            envelope: Envelope = make_envelope(self.exchange_name, self.routing_key, self.raw)
        except FieldSyntaxError:
            return
        content = encode_content(envelope.channel, DEFAULT_FRAME_MAX, self.raw, self.body)
        message = Message(envelope, content, len(self.body))
        keys = [self.routing_key]
        queues = vhost.router.queues_for(exchange, keys, envelope.fields.headers)
        if queues is None:
            queues = vhost.router.queues_of(exchange, keys, message)[0]
        for queue in queues:
            queue.enqueue([message], message.body_bytes, -1, len(queues) > 1)


def _cut(routing_key: str) -> str:
    raw = routing_key.encode("utf-8", "surrogateescape")
    if len(raw) <= ROUTING_KEY_BYTES:
        return routing_key
    return raw[:ROUTING_KEY_BYTES].decode("utf-8", "surrogateescape")
