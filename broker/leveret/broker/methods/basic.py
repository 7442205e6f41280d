"""basic: publish, get, consume, cancel, qos, ack, nack, reject and recover. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.access import IMPERSONATOR
from leveret.broker.model.arguments import check_consumer_arguments
from leveret.broker.model.consumer import Consumer
from leveret.broker.model.message_properties import (
    BCC,
    extra_routing_keys,
    may_have_extra_routing_keys,
    parse_expiration,
    without_bcc,
)
from leveret.broker.model.publish import Publish
from leveret.broker.model.queues.returned import FAILED, GIVEN_BACK, KEPT
from leveret.broker.model.replies import PREFIX, REPLY_TO
from leveret.broker.model.rules.grants import EXCHANGE, QUEUE, TOPIC
from leveret.protocol.content import Envelope, Message
from leveret.protocol.errors import (
    NO_ROUTE,
    MethodNotImplemented,
    NotAllowed,
    PreconditionFailed,
)
from leveret.protocol.events import ACK, NACK, Published, Settled
from leveret.protocol.frames import encode_deliveries, encode_get_ok, encode_return
from leveret.protocol.methods import arguments_of, make
from leveret.protocol.properties import Properties

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel, Settlement
    from leveret.broker.model.exchanges.exchange import Exchange
    from leveret.broker.model.queues.queue import Queue

COUNT_MAX: Final = 0xFFFFFFFF
REPLY_TO_BYTES: Final = REPLY_TO.encode()


def basic_publish(channel: Channel, event: Published) -> None:
    """Route a run of messages and hand it to the queues, or to the open transaction.

    Raises:
        MethodNotImplemented: immediate is set.
        NotFound: there is no such exchange.
        AccessRefused: no permission to write to the exchange or its topic, or it is internal.
        PreconditionFailed: a property is invalid.

    Source: AMQP 0-9-1 basic.publish (60, 40).
    """
    if event.immediate:
        raise MethodNotImplemented("immediate=true")
    messages = event.messages
    envelope = messages[0].envelope
    key = envelope.routing_key
    if envelope.needs_attention or (key.startswith(PREFIX) and not envelope.exchange):
        publish = prepare(channel, messages, event.mandatory)
    else:
        if channel.connection.grants.is_restricted:
            _require_write(channel, envelope.exchange, [key])
        queues = channel.connection.vhost.router.routes.get((envelope.exchange, key))
        keys: list[str] | None = None
        if queues is None:
            queues = channel.connection.vhost.router.route(envelope.exchange, [key], None)
            if queues is None:
                queues, keys = [], [key]
        publish = Publish(messages, -1, queues, [], event.mandatory, keys)
    if channel.transaction is not None:
        channel.transaction.publishes.append(publish)
    else:
        enqueue(channel, publish)


def prepare(channel: Channel, messages: list[Message], mandatory: bool) -> Publish:
    """Check and route messages with properties that mean something to the broker."""
    envelope = messages[0].envelope
    fields = envelope.fields
    vhost = channel.vhost
    channel.connection.grants.require_write(EXCHANGE, envelope.exchange)
    vhost.router.require_publishable(envelope.exchange)
    if fields.reply_to == REPLY_TO_BYTES:
        messages = _with_reply_name(channel, messages)
        envelope = messages[0].envelope
    ttl_ms = -1 if fields.expiration is None else parse_expiration(fields.expiration)
    keys = [envelope.routing_key]
    headers_raw = fields.headers_raw
    if headers_raw is not None and may_have_extra_routing_keys(headers_raw):
        headers = fields.headers
        assert headers is not None
        extra = extra_routing_keys(headers)
        keys += [key for key in extra if key != envelope.routing_key]
        if BCC in headers:
            raw = without_bcc(envelope.raw)
            messages = _with_properties(messages, raw, Properties.parse(raw))
            messages[0].envelope.bcc_keys = extra
    if channel.connection.grants.is_restricted:
        _require_write(channel, envelope.exchange, keys)
    if fields.user_id is not None:
        _check_user_id(channel, fields.user_id)
    queue_keys = keys
    reply_names: list[str] = []
    if not envelope.exchange:
        queue_keys = [key for key in keys if not key.startswith(PREFIX)]
        reply_names = [key for key in keys if key.startswith(PREFIX)]
    queues: list[Queue] | None = []
    if len(queue_keys) == 1:
        queues = vhost.router.routes.get((envelope.exchange, queue_keys[0]))
    if queues is None or len(queue_keys) > 1:
        queues = vhost.router.route(envelope.exchange, queue_keys, fields.headers)
        if queues is None:
            return Publish(messages, ttl_ms, [], [], mandatory, queue_keys)
    return Publish(messages, ttl_ms, queues, reply_names, mandatory)


def _require_write(channel: Channel, exchange_name: str, routing_keys: list[str]) -> None:
    """Check the permissions to publish."""
    grants = channel.connection.grants
    grants.require_write(EXCHANGE, exchange_name)
    exchange = channel.vhost.exchanges.get(exchange_name)
    if exchange is not None and exchange.type_name == TOPIC and not exchange.internal:
        grants.require_topic_write(exchange_name, routing_keys)


def _with_reply_name(channel: Channel, messages: list[Message]) -> list[Message]:
    """Put the name of the channel's reply consumer into the reply-to property."""
    if channel.reply_consumer_tag is None:
        raise PreconditionFailed("fast reply consumer does not exist")
    fields = messages[0].envelope.fields
    reply_to = channel.reply_name.encode()
    raw = fields.replace_reply_to(messages[0].envelope.raw, reply_to)
    return _with_properties(messages, raw, fields.with_reply_to(reply_to))


def _with_properties(messages: list[Message], raw: bytes, fields: Properties) -> list[Message]:
    old = messages[0].envelope
    envelope = Envelope(old.exchange, old.routing_key, raw, fields, old.channel, old.frame_max)
    return [message.with_envelope(envelope) for message in messages]


def _check_user_id(channel: Channel, user_id: bytes) -> None:
    user = channel.connection.user
    claimed = user_id.decode("utf-8", "surrogateescape")
    if claimed != user.name and IMPERSONATOR not in user.tags:
        raise PreconditionFailed(
            f"user_id property set to '{claimed}' but authenticated user was '{user.name}'"
        )


def enqueue(channel: Channel, publish: Publish) -> bool:
    """Hand routed messages to their queues; return or confirm them as asked.

    Returns:
        False if a queue refused one of them.
    """
    messages = publish.messages
    queues = publish.queues
    is_reply = False
    for name in publish.reply_names:
        requester = channel.vhost.replies.find(name)
        if requester is not None:
            _deliver_reply(requester, messages)
            is_reply = True
    if not queues:
        if publish.keys is not None:
            return _enqueue_each(channel, publish, publish.keys)
        if publish.mandatory and not is_reply:
            for message in messages:
                _return(channel, message)
        if channel.confirms:
            channel.note_published(len(messages), 0, False)
        return True
    batch = 0
    persistent = messages[0].envelope.persistent
    may_refuse = False
    for queue in queues:
        if queue.durable and (persistent or queue.keeps_transient):
            batch = channel.turn.batch.number
        if queue.may_refuse:
            may_refuse = True
    if may_refuse and channel.confirms and len(messages) > 1:
        accepted = True
        for message in messages:
            if not _enqueue_run(channel, queues, [message], message.body_bytes, publish.ttl_ms, batch):
                accepted = False
        return accepted
    return _enqueue_run(channel, queues, messages, publish.body_bytes, publish.ttl_ms, batch)


def _return(channel: Channel, message: Message) -> None:
    """Give a mandatory message back that no queue wants."""
    outbox = channel.outbox
    outbox.write(encode_return(channel.number, outbox.frame_max, NO_ROUTE, "NO_ROUTE", message))


def _enqueue_each(channel: Channel, publish: Publish, keys: list[str]) -> bool:
    """Route each message by itself, and hand it to its queues."""
    vhost = channel.vhost
    exchange = vhost.exchanges.get(publish.messages[0].envelope.exchange)
    accepted = True
    for message in publish.messages:
        queues: list[Queue] = []
        is_kept = False
        if exchange is not None and not _waits_for_nobody(channel, exchange, publish, keys):
            queues, is_kept = vhost.router.queues_of(exchange, keys, message)
        if not queues and not is_kept and publish.mandatory:
            _return(channel, message)
        batch = 0
        # A duplicate is confirmed no sooner than the message that was there before.
        if (
            is_kept
            or (exchange is not None and exchange.queue_id)
            or any(q.durable and (message.envelope.persistent or q.keeps_transient) for q in queues)
        ):
            batch = channel.turn.batch.number
        if not _enqueue_run(channel, queues, [message], message.body_bytes, publish.ttl_ms, batch):
            accepted = False
    return accepted


def _waits_for_nobody(channel: Channel, exchange: Exchange, publish: Publish, keys: list[str]) -> bool:
    """Whether a mandatory message would wait in an exchange that leads nowhere: then it is returned at once.

    RabbitMQ returns every mandatory message that waits.
    """
    if not publish.mandatory or exchange.delay is None:
        return False
    headers = publish.messages[0].envelope.fields.headers
    return not channel.vhost.router.may_lead_somewhere(exchange, keys, headers)


def _enqueue_run(
    channel: Channel, queues: list[Queue], messages: list[Message], body_bytes: int, ttl_ms: int, batch: int
) -> bool:
    accepted = True
    is_shared = len(queues) > 1
    for queue in queues:
        if not queue.enqueue(messages, body_bytes, ttl_ms, is_shared):
            accepted = False
    if channel.confirms:
        channel.note_published(len(messages), batch, not accepted)
    return accepted


def _deliver_reply(requester: Channel, messages: list[Message]) -> None:
    """Deliver direct replies to the channel that waits for them."""
    consumer_prefix = requester.reply_prefix
    outbox = requester.outbox
    tag = requester.next_delivery_tag
    requester.next_delivery_tag = tag + len(messages)
    size = encode_deliveries(
        outbox.pieces, consumer_prefix, requester.number, outbox.frame_max, tag, False, messages
    )
    outbox.wrote(size)


def basic_settle(channel: Channel, event: Settled) -> None:
    """Ack, nack or reject deliveries.

    Raises:
        PreconditionFailed: a delivery tag is not outstanding.

    Source: AMQP 0-9-1 basic.ack (60, 80), reject (60, 90); RabbitMQ's nack (60, 120).
    """
    is_ack = event.method_id == ACK
    if is_ack and not event.multiple and channel.transaction is None:
        channel.ack(event.tags)
        return
    cause = KEPT
    if event.requeue:
        cause = GIVEN_BACK if event.method_id == NACK else FAILED
    for tag in event.tags:
        settlement = channel.take(tag, event.multiple)
        settlement.is_ack = is_ack
        settlement.cause = cause
        _settle(channel, settlement)


def _settle(channel: Channel, settlement: Settlement) -> None:
    if channel.transaction is not None:
        channel.transaction.settlements.append(settlement)
    else:
        channel.settle(settlement)


def basic_get(channel: Channel, method: commands.Basic.Get) -> None:
    """Hand over the message at the head of a queue.

    Raises:
        AccessRefused: no permission to read from the queue.
        MethodNotImplemented: it is a stream.
        NotFound: there is no such queue.
        ResourceLocked: it is exclusive to another connection.
        NotInMemoryError: its head is being read back; the method is to be handled again.

    Source: AMQP 0-9-1 basic.get (60, 70).
    """
    name = channel.queue_name(method.queue)
    channel.connection.grants.require_read(QUEUE, name)
    queue = channel.vhost.open_queue(name, channel.connection)
    queue.touch()
    entry = queue.get(method.no_ack)
    if entry is None:
        channel.send(make(commands.Basic.GetEmpty))
        return
    tag = channel.next_delivery_tag
    channel.next_delivery_tag = tag + 1
    if not method.no_ack:
        channel.unacked[tag] = entry
        channel.turn.watches.watch(queue, None, channel)
    outbox = channel.outbox
    ready = min(queue.messages_ready, COUNT_MAX)
    outbox.write(
        encode_get_ok(channel.number, outbox.frame_max, tag, entry.redelivered, queue.shown(entry), ready)
    )
    if queue.tracer is not None:
        queue.tracer.delivered(queue, channel, [queue.shown(entry)], entry.redelivered)


def basic_consume(channel: Channel, method: commands.Basic.Consume) -> None:
    """Begin to deliver the messages of a queue.

    Raises:
        AccessRefused: no permission to read from the queue, or it is in exclusive use, or it is to be and has
            consumers.
        NotAllowed: the consumer tag is in use on this channel.
        MethodNotImplemented: it is a stream, and the consumer does not ack.
        NotFound: there is no such queue.
        PreconditionFailed: an argument is invalid; it is a stream, and there is no prefetch limit.
        ResourceLocked: the queue is exclusive to another connection.

    Source: AMQP 0-9-1 basic.consume (60, 20).
    """
    vhost = channel.vhost
    tag = method.consumer_tag or vhost.generate_name("amq.ctag")
    if method.queue == REPLY_TO:
        _consume_replies(channel, method, tag)
        return
    name = channel.queue_name(method.queue)
    _require_free_tag(channel, tag)
    channel.connection.grants.require_read(QUEUE, name)
    queue = vhost.open_queue(name, channel.connection)
    arguments = arguments_of(method)
    priority = check_consumer_arguments(name, vhost.name, arguments, queue.arguments.queue_type)
    consumer = Consumer(channel, queue, tag, method.no_ack, method.exclusive, priority, arguments)
    queue.admit(consumer)
    channel.consumers[tag] = consumer
    queue.add_consumer(consumer)
    if not method.no_ack:
        channel.turn.watches.watch(queue, consumer, channel)
    channel.turn.events.consumer_created(consumer)
    if not method.nowait:
        reply = make(commands.Basic.ConsumeOk, consumer_tag=tag)
        if queue.spares_what_is_taken:
            channel.connection.send_when_durable(channel.number, reply, queue.note_batch)
        else:
            channel.send(reply)


def _require_free_tag(channel: Channel, tag: str) -> None:
    if tag in channel.consumers or tag == channel.reply_consumer_tag:
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    if len(channel.consumers) >= channel.connection.consumers_per_channel:
        raise NotAllowed(
            f"reached maximum ({channel.connection.consumers_per_channel}) of consumers per channel"
        )


def _consume_replies(channel: Channel, method: commands.Basic.Consume, tag: str) -> None:
    """Begin to deliver direct replies."""
    if tag != channel.reply_consumer_tag:
        _require_free_tag(channel, tag)
    if not method.no_ack:
        raise PreconditionFailed("reply consumer cannot acknowledge")
    if channel.reply_consumer_tag is not None:
        raise PreconditionFailed("reply consumer already set")
    channel.open_reply_consumer(tag, channel.vhost.replies.open(channel))
    if not method.nowait:
        channel.send(make(commands.Basic.ConsumeOk, consumer_tag=tag))


def basic_cancel(channel: Channel, method: commands.Basic.Cancel) -> None:
    """Stop delivering to a consumer; what it has unacked stays with the channel.

    Source: AMQP 0-9-1 basic.cancel (60, 30).
    """
    tag = method.consumer_tag or ""
    consumer = channel.consumers.pop(tag, None)
    if consumer is not None:
        channel.vhost.remove_consumer(consumer)
    elif tag == channel.reply_consumer_tag:
        channel.close_reply_consumer()
    if not method.nowait:
        channel.send(make(commands.Basic.CancelOk, consumer_tag=tag))


def basic_cancel_ok(channel: Channel, method: commands.Basic.CancelOk) -> None:
    """Take a client's answer to a cancel from the server, which needs none.

    Source: RabbitMQ 4.x (60, 31).
    """


def basic_qos(channel: Channel, method: commands.Basic.Qos) -> None:
    """Limit how many deliveries may be unacked.

    Raises:
        MethodNotImplemented: a limit in bytes.

    Source: AMQP 0-9-1 basic.qos (60, 10); RabbitMQ guide "Consumer Prefetch".
    """
    if method.prefetch_size:
        raise MethodNotImplemented(f"prefetch_size!=0 ({method.prefetch_size})")
    channel.set_prefetch(method.prefetch_count, bool(method.global_))
    channel.send(make(commands.Basic.QosOk))


def basic_recover(channel: Channel, method: commands.Basic.Recover) -> None:
    """Put everything unacked on the channel back into its queues.

    Raises:
        MethodNotImplemented: requeue is not set.

    Source: AMQP 0-9-1 basic.recover (60, 110).
    """
    _recover(channel, method.requeue)
    channel.send(make(commands.Basic.RecoverOk))


def basic_recover_async(channel: Channel, method: commands.Basic.RecoverAsync) -> None:
    """Do the same without a reply.

    Raises:
        MethodNotImplemented: requeue is not set.

    Source: AMQP 0-9-1 basic.recover-async (60, 100).
    """
    _recover(channel, method.requeue)


def _recover(channel: Channel, requeue: bool) -> None:
    if not requeue:
        raise MethodNotImplemented("requeue=false")
    settlement = channel.take(0, True)
    settlement.cause = GIVEN_BACK
    channel.settle(settlement)  # also in a transaction, which holds only what the client settles itself
