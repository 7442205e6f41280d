"""queue.declare, bind, unbind, purge and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from leveret.broker.methods.exchange import without_line_breaks
from leveret.broker.model.replies import is_reply_name
from leveret.broker.model.rules.grants import QUEUE
from leveret.protocol.errors import NotFound
from leveret.protocol.methods import arguments_of, make

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel

COUNT_MAX = 0xFFFFFFFF


def queue_declare(channel: Channel, method: commands.Queue.Declare) -> None:
    """Create a queue, or check that it exists.

    Raises:
        AccessRefused: no permission to configure the queue (passive: none at all), or a reserved "amq." name.
        NotFound: passive, and there is no such queue.
        PreconditionFailed: it exists with other properties or arguments, or an argument is invalid.
        ResourceLocked: it is exclusive to another connection.

    Source: AMQP 0-9-1 queue.declare (50, 10); RabbitMQ guide "Queues", property equivalence.
    """
    vhost = channel.vhost
    if is_reply_name(method.queue):
        _declare_reply_queue(channel, method, method.queue)
        return
    name = without_line_breaks(method.queue)
    if method.passive:
        channel.connection.grants.require_any(QUEUE, name)
        queue = vhost.open_queue(name, channel.connection)
        queue.touch()
    else:
        queue = vhost.declare_queue(
            channel.connection,
            name,
            method.durable,
            method.exclusive,
            method.auto_delete,
            arguments_of(method),
        )
    channel.last_queue_name = queue.name
    if not method.nowait:
        reply = make(
            commands.Queue.DeclareOk,
            queue=queue.name,
            message_count=min(queue.messages_ready, COUNT_MAX),
            consumer_count=queue.consumer_count,
        )
        if queue.durable:
            channel.send_when_defined(reply)
        else:
            channel.send(reply)


def _declare_reply_queue(channel: Channel, method: commands.Queue.Declare, name: str) -> None:
    """Answer for a direct reply-to name: an empty queue with one consumer, while that one lives."""
    if not channel.vhost.replies.is_alive(name):
        raise NotFound(f"no queue '{name}' in vhost '{channel.vhost.name}'")
    channel.last_queue_name = name
    if not method.nowait:
        channel.send(make(commands.Queue.DeclareOk, queue=name, message_count=0, consumer_count=1))


def queue_bind(channel: Channel, method: commands.Queue.Bind) -> None:
    """Bind a queue to an exchange; an identical binding is there only once.

    Raises:
        AccessRefused: no permission to write to the queue or to read from the exchange, or it is the default
            exchange.
        NotFound: the exchange or the queue does not exist, or no queue was declared for an empty name.
        ResourceLocked: the queue is exclusive to another connection.

    Source: AMQP 0-9-1 queue.bind (50, 20).
    """
    name, key = _queue_and_key(channel, method.queue, method.routing_key)
    channel.vhost.bind(
        without_line_breaks(method.exchange), name, False, key, arguments_of(method), channel.connection
    )
    if not method.nowait:
        channel.send_when_defined(make(commands.Queue.BindOk))


def queue_unbind(channel: Channel, method: commands.Queue.Unbind) -> None:
    """Remove a binding; one that is not there counts as removed.

    Raises:
        AccessRefused: as for `queue_bind`.

    Source: AMQP 0-9-1 queue.unbind (50, 50).
    """
    name, key = _queue_and_key(channel, method.queue, method.routing_key)
    channel.vhost.unbind(
        without_line_breaks(method.exchange), name, False, key, arguments_of(method), channel.connection
    )
    channel.send_when_defined(make(commands.Queue.UnbindOk))


def _queue_and_key(channel: Channel, queue: str, key: str) -> tuple[str, str]:
    """Fill in the queue last declared on the channel; without a key too, its name is the key."""
    name = without_line_breaks(channel.queue_name(queue))
    if not queue and not key:
        return name, name
    return name, key


def queue_purge(channel: Channel, method: commands.Queue.Purge) -> None:
    """Drop the ready messages of a queue.

    Raises:
        AccessRefused: no permission to read from the queue.
        MethodNotImplemented: it is a stream.
        NotFound: there is no such queue.
        ResourceLocked: it is exclusive to another connection.

    Source: AMQP 0-9-1 queue.purge (50, 30).
    """
    name = channel.queue_name(method.queue)
    channel.connection.grants.require_read(QUEUE, name)
    queue = channel.vhost.open_queue(name, channel.connection)
    count = queue.purge()
    if not method.nowait:
        reply = make(commands.Queue.PurgeOk, message_count=min(count, COUNT_MAX))
        if queue.durable and count:
            channel.connection.send_when_durable(channel.number, reply, channel.turn.batch.number)
        else:
            channel.send(reply)


def queue_delete(channel: Channel, method: commands.Queue.Delete) -> None:
    """Delete a queue; one that is not there counts as deleted.

    Raises:
        AccessRefused: no permission to configure the queue.
        PreconditionFailed: if-unused, and it has consumers; if-empty, and it has ready messages.
        ResourceLocked: it is exclusive to another connection.

    Source: AMQP 0-9-1 queue.delete (50, 40).
    """
    vhost = channel.vhost
    name = without_line_breaks(channel.queue_name(method.queue))
    channel.connection.grants.require_configure(QUEUE, name)
    count = 0
    consumers = []
    if name in vhost.queues:
        queue = vhost.open_queue(name, channel.connection)
        vhost.require_deletable(queue, method.if_unused, method.if_empty)
        consumers = queue.consumers
        count = vhost.delete_queue(queue)
    if not method.nowait:
        channel.send_when_defined(make(commands.Queue.DeleteOk, message_count=min(count, COUNT_MAX)))
    for consumer in consumers:  # the deleting channel's own ones hear of it after the reply
        consumer.cancelled_by_broker()
