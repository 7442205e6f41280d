"""Publishing in a vhost that is traced: the long way of basic.publish, with copies for the firehose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.methods.basic import enqueue, prepare
from leveret.broker.model.tracing import published_routing_keys
from leveret.protocol.errors import MethodNotImplemented

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.tracing import Tracer
    from leveret.protocol.events import Published


def publish_traced(channel: Channel, event: Published, tracer: Tracer) -> None:
    """Do what `basic_publish` does, and copy what is published; in a transaction before it is committed.

    Raises:
        AMQPException: as `basic_publish`; then there is no copy.
    """
    if event.immediate:
        raise MethodNotImplemented("immediate=true")
    publish = prepare(channel, event.messages, event.mandatory)
    envelope = publish.messages[0].envelope
    keys = published_routing_keys(envelope)
    tracer.published(channel, publish, keys)
    if channel.transaction is not None:
        channel.transaction.publishes.append(publish)
    else:
        enqueue(channel, publish)
