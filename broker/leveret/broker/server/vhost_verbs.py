"""Verbs about vhosts, and about what is in them and connected to them. Texts are rabbitmqctl's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from leveret.broker.server.calls import EX_UNAVAILABLE, EX_USAGE, Answer, Call, Refusal, table
from leveret.broker.server.listings import (
    BINDING,
    CHANNEL,
    CONNECTION,
    CONSUMER,
    EXCHANGE,
    QUEUE,
    bindings,
    connection_pid,
    consumers,
    open_sessions,
)
from leveret.broker.server.vhosts import add_vhost, delete_vhost
from leveret.protocol.errors import MethodNotImplemented, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_TYPES: Final = ("classic", "quorum", "stream")

# -- vhosts


def _add_vhost(call: Call) -> None:
    queue_type = call.options.get("default-queue-type", "")
    if queue_type and queue_type not in QUEUE_TYPES:
        raise Refusal(
            "Error:\nUnsupported default queue type. Supported types are: classic, quorum, stream", EX_USAGE
        )
    given = [name for name in ("description", "tags", "default-queue-type") if name in call.options]
    if call[0] in call.node.vhosts and not given:
        return  # as RabbitMQ, without an error
    tags = tuple(tag.strip() for tag in call.options.get("tags", "").split(",") if tag.strip())
    add_vhost(call.node, call[0], call.options.get("description", ""), tags, queue_type)


def _delete_vhost(call: Call) -> None:
    delete_vhost(call.node, call[0])


def _set_vhost_tags(call: Call) -> None:
    vhost = call.node.vhost(call[0])
    add_vhost(call.node, call[0], vhost.description, tuple(call.arguments[1:]), vhost.default_queue_type)


def _list_vhosts(call: Call) -> Answer:
    rows = []
    for vhost in call.node.vhosts.values():
        values: dict[str, object] = {
            "name": vhost.name,
            "description": vhost.description,
            "tags": list(vhost.tags),
            "default_queue_type": vhost.default_queue_type or "undefined",
            "tracing": vhost.tracer is not None,
        }
        rows.append([values.get(column) for column in call.arguments])
    return table(call.arguments, rows)


def _trace(is_on: bool) -> Callable[[Call], Answer]:
    def trace(call: Call) -> Answer:
        call.node.trace(call.node.vhost(call.vhost_name), is_on)
        return {"text": f"Trace {'enabled' if is_on else 'disabled'} for vhost {call.vhost_name}"}

    return trace


# -- what there is


def _listed(call: Call, values: dict[str, Callable[[Any], object]], things: list[Any]) -> Answer:
    columns = call.arguments
    getters = [values.get(column, _nothing) for column in columns]
    return table(columns, [[get(thing) for get in getters] for thing in things])


def _nothing(_: object) -> object:
    return ""


def _list_queues(call: Call) -> Answer:
    call.node.catch_up()
    vhost = call.vhost
    return _listed(call, QUEUE, [] if vhost is None else [(vhost, q) for q in vhost.queues.values()])


def _list_exchanges(call: Call) -> Answer:
    vhost = call.vhost
    return _listed(call, EXCHANGE, [] if vhost is None else [(vhost, e) for e in vhost.exchanges.values()])


def _list_bindings(call: Call) -> Answer:
    return _listed(call, BINDING, [] if call.vhost is None else bindings(call.vhost))


def _list_connections(call: Call) -> Answer:
    return _listed(call, CONNECTION, open_sessions(call.node))


def _list_channels(call: Call) -> Answer:
    call.node.catch_up()
    channels = [
        (session, channel)
        for session in open_sessions(call.node)
        if session.connection is not None
        for channel in session.connection.channels.values()
    ]
    return _listed(call, CHANNEL, channels)


def _list_consumers(call: Call) -> Answer:
    return _listed(call, CONSUMER, [] if call.vhost is None else consumers(call.node, call.vhost))


# -- operations


def _close_connection(call: Call) -> None:
    for session in open_sessions(call.node):
        if call[0] in (connection_pid(session), session.name):
            session.force_close(call[1])
            return
    raise Refusal(f'Error:\nError:\n{{:invalid_pid_syntax, "{call[0]}"}}', EX_UNAVAILABLE)


def _close_all_connections(call: Call) -> Answer:
    closed = 0
    for session in open_sessions(call.node):
        connection = session.connection
        if connection is not None and ("global" in call.options or connection.vhost is call.vhost):
            session.force_close(call[0])
            closed += 1
    return {"text": f"Closed {closed} connections"}


def _close_all_user_connections(call: Call) -> None:
    for session in open_sessions(call.node):
        if session.user is not None and session.user.name == call[0]:
            session.force_close(call[1])


def _delete_queue(call: Call) -> Answer:
    call.node.catch_up()
    vhost = call.vhost
    queue = None if vhost is None else vhost.queues.get(call[0])
    if vhost is None or queue is None:
        raise Refusal("Error:\nQueue not found", EX_USAGE)
    try:
        vhost.require_deletable(queue, "if-unused" in call.options, "if-empty" in call.options)
    except PreconditionFailed as error:
        what = "in use" if error.text.endswith("in use") else "not empty"
        raise Refusal(f"Error:\nQueue is {what}", EX_USAGE) from None
    cancelled = list(queue.consumers)
    call.node.turn.actor = "cli_user"  # as RabbitMQ
    count = vhost.delete_queue(queue)
    for consumer in cancelled:
        consumer.cancelled_by_broker()
    return {"text": f"Queue was successfully deleted with {count} ready messages"}


def _purge_queue(call: Call) -> None:
    call.node.catch_up()
    vhost = call.vhost
    queue = None if vhost is None else vhost.queues.get(call[0])
    if queue is None:
        raise Refusal("Error:\nnot_found", EX_UNAVAILABLE)
    try:
        queue.purge()
    except MethodNotImplemented as error:
        raise Refusal(f"Error:\n{error.text}", EX_UNAVAILABLE) from None


VHOST_VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
    "add_vhost": _add_vhost,
    "delete_vhost": _delete_vhost,
    "set_vhost_tags": _set_vhost_tags,
    "list_vhosts": _list_vhosts,
    "trace_on": _trace(True),
    "trace_off": _trace(False),
    "list_queues": _list_queues,
    "list_exchanges": _list_exchanges,
    "list_bindings": _list_bindings,
    "list_connections": _list_connections,
    "list_channels": _list_channels,
    "list_consumers": _list_consumers,
    "close_connection": _close_connection,
    "close_all_connections": _close_all_connections,
    "close_all_user_connections": _close_all_user_connections,
    "delete_queue": _delete_queue,
    "purge_queue": _purge_queue,
}
