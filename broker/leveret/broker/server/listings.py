"""What rabbitmqctl's lists show of queues, exchanges, bindings, connections, channels and consumers.

Each dictionary maps the name of a column to a function of the thing. A field table is shown as rabbitmqctl's
JSON does: a list of [name, type, value].
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.broker.model.queues.queue import Queue
from leveret.broker.model.rules.policies import EXCHANGES, OPERATOR_POLICY, POLICY
from leveret.broker.model.terms import type_name
from leveret.protocol.handshake import State, read_client_properties
from leveret.protocol.tables import STRING_TAGS, Array, Field, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.channel import Channel
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.exchanges.binding import Binding
    from leveret.broker.model.vhost import VHost
    from leveret.broker.server.node import Node
    from leveret.broker.server.session import Session

RUNNING: Final = "running"
TLS_COLUMNS: Final = (
    "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash", "peer_cert_subject", "peer_cert_issuer",
    "peer_cert_validity",
)  # fmt: skip


def table_as_list(table: Table) -> list[list[object]]:
    """Show a field table."""
    return [[name, type_name(field), _value(field)] for name, field in table.items()]


def _value(field: Field) -> object:
    tag, value = field
    if tag in STRING_TAGS:
        return cast("bytes", value).decode("utf-8", "surrogateescape")
    if tag == "F":
        return table_as_list(cast("Table", value))
    if tag == "A":
        return [_value(item) for item in cast("Array", value)]
    if tag == "D":
        scale, unscaled = cast("tuple[int, int]", value)
        return unscaled / 10**scale
    return value


# -- pids. RabbitMQ has Erlang's; these look alike and are as good for `close_connection`.


def connection_pid(session: Session) -> str:
    """Return what stands for a connection in lists."""
    return session.pid


def channel_pid(session: Session, channel: Channel) -> str:
    """Return what stands for a channel in lists."""
    return f"<leveret.{session.number}.{channel.number}>"


def open_sessions(node: Node) -> list[Session]:
    """Return the sessions whose connections are open."""
    return [s for s in node.sessions if s.connection is not None and s.state is State.RUNNING]


# -- queues: (vhost, queue)


def _of_queue(get: Callable[[Queue], object]) -> Callable[[Any], object]:
    def of_pair(pair: tuple[VHost, Queue]) -> object:
        return get(pair[1])

    return of_pair


def _policy(which: str) -> Callable[[Any], object]:
    """Return what shows the name of the policy or operator policy that applies."""

    def of_pair(pair: tuple[VHost, Queue | Exchange]) -> object:
        vhost, thing = pair
        if not thing.name:
            return ""  # the default exchange has none
        kind = thing.arguments.queue_type if isinstance(thing, Queue) else EXCHANGES
        applied = vhost.policies.applied(thing.name, kind)
        policy = applied.policy if which == POLICY else applied.operator_policy
        return policy.name if policy is not None else ""

    return of_pair


def _effective(pair: tuple[VHost, Queue]) -> object:
    vhost, queue = pair
    definition = vhost.policies.applied(queue.name, queue.arguments.queue_type).definition
    return json.dumps(definition, separators=(",", ":")) if definition else ""


def _exclusive_tag(queue: Queue) -> str:
    return queue.consumers[0].tag if queue.exclusive_consumer and queue.consumers else ""


def _active_tag(queue: Queue) -> str:
    active = queue.active_consumer
    return active.tag if active is not None and queue.arguments.single_active_consumer else ""


QUEUE: Final[dict[str, Callable[[Any], object]]] = {
    "name": _of_queue(lambda queue: queue.name),
    "durable": _of_queue(lambda queue: queue.durable),
    "auto_delete": _of_queue(lambda queue: queue.auto_delete),
    "exclusive": _of_queue(lambda queue: queue.owner is not None),
    "arguments": _of_queue(lambda queue: table_as_list(queue.arguments.table)),
    "policy": _policy(POLICY),
    "operator_policy": _policy(OPERATOR_POLICY),
    "effective_policy_definition": _effective,
    "pid": _of_queue(lambda queue: f"<leveret.queue.{queue.id}>"),
    "owner_pid": _of_queue(lambda queue: queue.owner.name if queue.owner is not None else ""),
    "exclusive_consumer_tag": _of_queue(_exclusive_tag),
    "single_active_consumer_tag": _of_queue(_active_tag),
    "messages_ready": _of_queue(lambda queue: queue.messages_ready),
    "messages_unacknowledged": _of_queue(lambda queue: queue.messages_unacknowledged),
    "messages": _of_queue(lambda queue: queue.messages),
    "message_bytes_ready": _of_queue(lambda queue: queue.message_bytes_ready),
    "consumers": _of_queue(lambda queue: len(queue.consumers)),
    "state": _of_queue(lambda queue: RUNNING),
    "type": _of_queue(lambda queue: queue.arguments.queue_type),
}


# -- exchanges: (vhost, exchange)


def _of_exchange(get: Callable[[Exchange], object]) -> Callable[[Any], object]:
    def of_pair(pair: tuple[VHost, Exchange]) -> object:
        return get(pair[1])

    return of_pair


EXCHANGE: Final[dict[str, Callable[[Any], object]]] = {
    "name": _of_exchange(lambda exchange: exchange.name),
    "type": _of_exchange(lambda exchange: exchange.type_name),
    "durable": _of_exchange(lambda exchange: exchange.durable),
    "auto_delete": _of_exchange(lambda exchange: exchange.auto_delete),
    "internal": _of_exchange(lambda exchange: exchange.internal),
    "arguments": _of_exchange(lambda exchange: table_as_list(exchange.arguments)),
    "policy": _policy(POLICY),
}


# -- bindings: each as (source, kind of destination, destination, key, arguments)


def bindings(vhost: VHost) -> list[tuple[str, str, str, str, Table]]:
    """Return the bindings of a vhost; first those of the default exchange, which every queue has."""
    implicit = [("", "queue", name, name, cast("Table", {})) for name in vhost.queues]
    return implicit + [_binding(each) for exchange in vhost.exchanges.values() for each in exchange.bindings]


def _binding(binding: Binding) -> tuple[str, str, str, str, Table]:
    destination = binding.destination
    kind = "exchange" if isinstance(destination, Exchange) else "queue"
    return binding.source.name, kind, destination.name, binding.binding_key, binding.arguments


BINDING: Final[dict[str, Callable[[Any], object]]] = {
    "source_name": lambda row: row[0],
    "source_kind": lambda row: "exchange",
    "destination_name": lambda row: row[2],
    "destination_kind": lambda row: row[1],
    "routing_key": lambda row: row[3],
    "arguments": lambda row: table_as_list(row[4]),
}


# -- connections: sessions


def _of_connection(get: Callable[[Connection], object]) -> Callable[[Any], object]:
    def of_session(session: Session) -> object:
        return "" if session.connection is None else get(session.connection)

    return of_session


def _address(session: Session, end: int) -> tuple[str, int]:
    """Return address and port of the peer (0) or of ours (1)."""
    host, _, port = session.name.split(" -> ")[end].rpartition(":")
    return host, int(port)


CONNECTION: Final[dict[str, Callable[[Any], object]]] = {
    "pid": connection_pid,
    "name": lambda session: session.name,
    "user_provided_name": _of_connection(
        lambda connection: read_client_properties(connection.client_properties).connection_name or ""
    ),
    "user": _of_connection(lambda connection: connection.user.name),
    "vhost": _of_connection(lambda connection: connection.vhost.name),
    "state": lambda session: RUNNING,
    "channels": _of_connection(lambda connection: len(connection.channels)),
    "protocol": lambda session: "{0,9,1}",
    "host": lambda session: _address(session, 1)[0],
    "port": lambda session: _address(session, 1)[1],
    "peer_host": lambda session: _address(session, 0)[0],
    "peer_port": lambda session: _address(session, 0)[1],
    "ssl": lambda session: False,
    **dict.fromkeys(TLS_COLUMNS, lambda session: ""),
    "auth_mechanism": lambda session: session.mechanism,
    "timeout": lambda session: session.heartbeat_s,
    "frame_max": lambda session: session.outbox.frame_max,
    "channel_max": _of_connection(lambda connection: connection.channel_max),
    "client_properties": _of_connection(lambda connection: table_as_list(connection.client_properties)),
    "connected_at": lambda session: session.opened_at_ms,
}


# -- channels: (session, channel)


def _of_channel(get: Callable[[Channel], object]) -> Callable[[Any], object]:
    def of_pair(pair: tuple[Session, Channel]) -> object:
        return get(pair[1])

    return of_pair


def _uncommitted(channel: Channel) -> int:
    transaction = channel.transaction
    return 0 if transaction is None else sum(len(publish.messages) for publish in transaction.publishes)


def _acks_uncommitted(channel: Channel) -> int:
    transaction = channel.transaction
    return 0 if transaction is None else sum(len(each.entries) for each in transaction.settlements)


CHANNEL: Final[dict[str, Callable[[Any], object]]] = {
    "pid": lambda pair: channel_pid(*pair),
    "connection": lambda pair: connection_pid(pair[0]),
    "name": lambda pair: f"{pair[0].name} ({pair[1].number})",
    "number": _of_channel(lambda channel: channel.number),
    "user": _of_channel(lambda channel: channel.connection.user.name),
    "vhost": _of_channel(lambda channel: channel.vhost.name),
    "transactional": _of_channel(lambda channel: channel.transaction is not None),
    "confirm": _of_channel(lambda channel: channel.confirms),
    "consumer_count": _of_channel(lambda channel: len(channel.consumers)),
    "messages_unacknowledged": _of_channel(lambda channel: len(channel.unacked)),
    "messages_uncommitted": _of_channel(_uncommitted),
    "acks_uncommitted": _of_channel(_acks_uncommitted),
    "messages_unconfirmed": _of_channel(lambda channel: channel.published_up_to - channel.confirmed_up_to),
    "prefetch_count": _of_channel(lambda channel: channel.prefetch_count),
    "global_prefetch_count": _of_channel(lambda channel: channel.global_prefetch_count),
}


# -- consumers: (session, consumer)


def consumers(node: Node, vhost: VHost) -> list[tuple[Session, Consumer]]:
    """Return the consumers of a vhost."""
    return [
        (session, consumer)
        for session in open_sessions(node)
        if session.connection is not None and session.connection.vhost is vhost
        for channel in session.connection.channels.values()
        for consumer in channel.consumers.values()
    ]


def _is_active(consumer: Consumer) -> bool:
    queue = consumer.queue
    return not queue.arguments.single_active_consumer or queue.active_consumer is consumer


CONSUMER: Final[dict[str, Callable[[Any], object]]] = {
    "queue_name": lambda pair: pair[1].queue.name,
    "channel_pid": lambda pair: channel_pid(pair[0], pair[1].channel),
    "consumer_tag": lambda pair: pair[1].tag,
    "ack_required": lambda pair: not pair[1].no_ack,
    "prefetch_count": lambda pair: pair[1].prefetch_count,
    "active": lambda pair: _is_active(pair[1]),
    "arguments": lambda pair: table_as_list(pair[1].arguments),
}
