"""What the verbs of `leveret ctl` do to a node. Texts and exit codes of errors are rabbitmqctl's.

A verb takes its arguments as text, changes or looks at the node within one turn, and returns what is to be
shown. The answer goes out when what it changed is on stable storage.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from leveret.broker.access import MAX_CHANNELS, MAX_CONNECTIONS
from leveret.broker.model.events import BY_CTL
from leveret.broker.model.rules.authority import (
    AdministrationError,
    InvalidPattern,
    InvalidValue,
    NoSuchUser,
    NoSuchVHost,
    UserExists,
)
from leveret.broker.model.rules.policies import ALL, OPERATOR_POLICY, POLICY, make_policy, shown
from leveret.broker.model.vhost import MAX_QUEUES, VHOST_LIMITS
from leveret.broker.server.calls import (
    EX_DATA,
    EX_NO_USER,
    EX_SOFTWARE,
    EX_UNAVAILABLE,
    EX_USAGE,
    Answer,
    Call,
    Refusal,
    table,
)
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
from leveret.broker.server.node_verbs import NODE_VERBS
from leveret.broker.server.vhosts import add_vhost, delete_vhost
from leveret.protocol.errors import MethodNotImplemented, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.server.node import Node


def answer(node: Node, request: dict[str, Any]) -> Answer:
    """Do a verb.

    Returns:
        what the command is told, see control_socket.py.
    """
    node.turn.actor = BY_CTL
    try:
        result = _verb(request)(Call(node, request))
    except Refusal as refusal:
        return {"error": refusal.text, "code": refusal.code}
    except AdministrationError as error:
        return _told(error)
    return result or {}


def _verb(request: dict[str, Any]) -> Callable[[Call], Answer | None]:
    verb = VERBS.get(str(request.get("verb")))
    if verb is None:
        raise Refusal(f"Command '{request.get('verb')}' not found.", EX_USAGE)
    return verb


def _told(error: AdministrationError) -> Answer:
    if isinstance(error, NoSuchUser):
        return {"error": f"Error:\n{error}", "code": EX_NO_USER}
    if isinstance(error, UserExists):
        return {"error": f"Error:\n{error}", "code": EX_SOFTWARE}
    if isinstance(error, NoSuchVHost):
        return {"error": str(error), "code": EX_DATA}
    if isinstance(error, InvalidPattern):
        detail = f"{{:invalid_regexp, '{error.pattern}', {{'{error.reason}', {error.position}}}}}"
        return {"error": f"Error:\n{detail}", "code": EX_UNAVAILABLE}
    return {"error": f"Error:\n{error}", "code": EX_UNAVAILABLE}


# -- users


def _add_user(call: Call) -> None:
    call.node.authority.add_user(call[0], call[1])


def _delete_user(call: Call) -> None:
    call.node.delete_user(call[0])


def _change_password(call: Call) -> None:
    call.node.authority.set_password(call[0], call[1])


def _clear_password(call: Call) -> None:
    call.node.authority.set_password(call[0], "")


def _authenticate_user(call: Call) -> None:
    name = call[0]
    if call.node.authority.authenticate(name, call[1]) is None:
        raise Refusal(
            f"Error:\nError: failed to authenticate user \"{name}\"\nuser '{name}' - invalid credentials",
            EX_DATA,
        )


def _set_user_tags(call: Call) -> None:
    call.node.authority.set_tags(call[0], tuple(call.arguments[1:]))


def _list_users(call: Call) -> Answer:
    rows = [[user.name, list(user.tags)] for user in call.node.authority.users.values()]
    return table(["user", "tags"], rows)


# -- permissions


def _of_user_and_vhost(call: Call) -> None:
    """Refuse a user or a vhost that does not exist, in the words of the verbs about permissions."""
    if call[0] not in call.node.authority.users:
        raise Refusal(f"Error:\nUser {call[0]} does not exist", EX_NO_USER)
    if call.vhost is None:
        raise Refusal(f"Error:\nVirtual host {call.vhost_name} does not exist", EX_UNAVAILABLE)


def _set_permissions(call: Call) -> None:
    _of_user_and_vhost(call)
    call.node.authority.set_permissions(call[0], call.vhost_name, call[1], call[2], call[3])


def _clear_permissions(call: Call) -> None:
    _of_user_and_vhost(call)
    call.node.authority.clear_permissions(call[0], call.vhost_name)


def _list_permissions(call: Call) -> Answer:
    call.node.vhost(call.vhost_name)
    rows = [
        [each.user, each.configure, each.write, each.read]
        for each in call.node.authority.permissions.values()
        if each.vhost == call.vhost_name
    ]
    return table(["user", "configure", "write", "read"], rows)


def _require_user(call: Call) -> None:
    if call[0] not in call.node.authority.users:
        raise Refusal(f'Error:\n{{:no_such_user, "{call[0]}"}}', EX_UNAVAILABLE)


def _list_user_permissions(call: Call) -> Answer:
    _require_user(call)
    rows = [
        [each.vhost, each.configure, each.write, each.read]
        for each in call.node.authority.permissions.values()
        if each.user == call[0]
    ]
    return table(["vhost", "configure", "write", "read"], rows)


def _set_topic_permissions(call: Call) -> None:
    _of_user_and_vhost(call)
    call.node.authority.set_topic_permissions(call[0], call.vhost_name, call[1], call[2], call[3])


def _clear_topic_permissions(call: Call) -> None:
    _of_user_and_vhost(call)
    exchange = call[1] if len(call.arguments) > 1 else None
    call.node.authority.clear_topic_permissions(call[0], call.vhost_name, exchange)


def _list_topic_permissions(call: Call) -> Answer:
    call.node.vhost(call.vhost_name)
    rows = [
        [each.user, each.exchange, each.write, each.read]
        for topics in call.node.authority.topic_permissions.values()
        for each in topics.values()
        if each.vhost == call.vhost_name
    ]
    return table(["user", "exchange", "write", "read"], rows)


def _list_user_topic_permissions(call: Call) -> Answer:
    _require_user(call)
    rows = [
        [each.vhost, each.exchange, each.write, each.read]
        for topics in call.node.authority.topic_permissions.values()
        for each in topics.values()
        if each.user == call[0]
    ]
    return table(["vhost", "exchange", "write", "read"], rows)


# -- vhosts

QUEUE_TYPES: Final = ("classic", "quorum", "stream")


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


# -- policies


def _json(text: str) -> Any:  # noqa: ANN401 - whatever it is
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("Error:\nJSON decoding error. Reason: badarg", EX_UNAVAILABLE) from None


def _set(kind: str) -> Callable[[Call], None]:
    def set_policy(call: Call) -> None:
        vhost = call.node.vhost(call.vhost_name)
        policy = make_policy(
            kind,
            call[0],
            call[1],
            _json(call[2]),
            _json(call.options.get("priority", "0")),
            call.options.get("apply-to", ALL),
        )
        vhost.set_policy(kind, policy)

    return set_policy


def _clear(kind: str) -> Callable[[Call], None]:
    def clear_policy(call: Call) -> None:
        if not call.node.vhost(call.vhost_name).clear_policy(kind, call[0]):
            raise InvalidValue("Parameter does not exist")

    return clear_policy


def _list(kind: str) -> Callable[[Call], Answer]:
    def list_policies(call: Call) -> Answer:
        vhost = call.node.vhost(call.vhost_name)
        rows = [
            [vhost.name, each.name, each.pattern, each.apply_to, _compact(each.definition), each.priority]
            for each in vhost.policies.by_name[kind].values()
        ]
        return table(["vhost", "name", "pattern", "apply-to", "definition", "priority"], rows)

    return list_policies


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- parameters


def _set_parameter(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    component, name, text = call[0], call[1], call[2]
    value = _json(text)
    if component == POLICY:
        raise InvalidValue("policies may not be set using this method")
    if component == VHOST_LIMITS:
        vhost.set_limits(_limits(text, (MAX_CONNECTIONS, MAX_QUEUES), "limits", "Validation failed\n\n"))
    elif component == OPERATOR_POLICY:
        if not isinstance(value, dict) or not isinstance(value.get("pattern"), str):
            raise InvalidValue(f'Validation failed\n\nKey "pattern" not found in {name}\n')
        pattern, definition = value["pattern"], value.get("definition", {})
        priority, apply_to = value.get("priority", 0), value.get("apply-to", ALL)
        policy = make_policy(OPERATOR_POLICY, name, pattern, definition, priority, apply_to)
        vhost.set_policy(OPERATOR_POLICY, policy)
    else:
        raise InvalidValue(f"Validation failed\n\ncomponent {component} not found\n")


def _clear_parameter(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    if call[0] == VHOST_LIMITS and call[1] == "limits" and vhost.limits:
        vhost.clear_limits()
    elif call[0] != OPERATOR_POLICY or not vhost.clear_policy(OPERATOR_POLICY, call[1]):
        raise InvalidValue("Parameter does not exist")


def _list_parameters(call: Call) -> Answer:
    vhost = call.node.vhost(call.vhost_name)
    policies = vhost.policies.by_name[OPERATOR_POLICY].values()
    rows: list[list[Any]] = [
        [OPERATOR_POLICY, each.name, _compact(json.loads(each.to_json()))] for each in policies
    ]
    if vhost.limits:
        rows.append([VHOST_LIMITS, "limits", _compact(vhost.limits)])
    return table(["component", "name", "value"], rows)


def _set_global_parameter(call: Call) -> None:
    call.node.global_parameters.set(call[0], _json(call[1]))


def _clear_global_parameter(call: Call) -> None:
    if not call.node.global_parameters.clear(call[0]):
        raise InvalidValue("Parameter does not exist")


def _list_global_parameters(call: Call) -> Answer:
    rows: list[list[Any]] = [
        [name, _compact(value)] for name, value in call.node.global_parameters.by_name.items()
    ]
    return table(["name", "value"], rows)


# -- limits


def _limits(text: str, known: tuple[str, ...], what: str, begin: str) -> dict[str, int]:
    """Read a JSON object of limits.

    Raises:
        InvalidValue: it is not one, or has something else in it.
    """
    limits = _json(text)
    end = "\n" if begin else ""
    if not isinstance(limits, dict):
        raise InvalidValue(f"{begin}{what} should be a JSON object{end}")
    for name, value in limits.items():
        if name in known and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidValue(f"{begin}{name} should be a number, actually was {shown(value)}{end}")
    unknown = [f"{{{shown(name)},{shown(value)}}}" for name, value in limits.items() if name not in known]
    if unknown:
        raise InvalidValue(f"{begin}Unrecognised terms [{','.join(unknown)}] in {what}{end}")
    return limits


def _set_vhost_limits(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    begin = "Validation failed\n\n"
    vhost.set_limits(_limits(call[0], (MAX_CONNECTIONS, MAX_QUEUES), "limits", begin))


def _clear_vhost_limits(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    if not vhost.limits:
        raise InvalidValue("Parameter does not exist")
    vhost.clear_limits()


def _list_vhost_limits(call: Call) -> Answer:
    if "global" in call.options:
        rows: list[list[Any]] = [
            [vhost.name, _compact(vhost.limits)] for vhost in call.node.vhosts.values() if vhost.limits
        ]
        return table(["vhost", "limits"], rows)
    limits = call.node.vhost(call.vhost_name).limits
    return {"text": _compact(limits) if limits else ""}


def _set_user_limits(call: Call) -> None:
    _require_user(call)
    limits = _limits(call[1], (MAX_CONNECTIONS, MAX_CHANNELS), "user-limits", "")
    call.node.authority.set_limits(call[0], {**call.node.authority.users[call[0]].limits, **limits})


def _clear_user_limits(call: Call) -> None:
    _require_user(call)
    kept = dict(call.node.authority.users[call[0]].limits)
    for name in list(kept) if call[1] == "all" else [call[1]]:
        kept.pop(name, None)
    call.node.authority.set_limits(call[0], kept)


def _list_user_limits(call: Call) -> Answer:
    users = call.node.authority.users
    if "global" in call.options:
        rows: list[list[Any]] = [[user.name, _compact(user.limits)] for user in users.values() if user.limits]
        return table(["user", "limits"], rows)
    name = call.options.get("user", "guest")
    user = users.get(name)
    if user is None:
        raise Refusal(f'Error:\n{{:no_such_user, "{name}"}}', EX_UNAVAILABLE)
    return {"text": _compact(user.limits)}


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


VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
    "add_user": _add_user,
    "delete_user": _delete_user,
    "change_password": _change_password,
    "clear_password": _clear_password,
    "authenticate_user": _authenticate_user,
    "set_user_tags": _set_user_tags,
    "list_users": _list_users,
    "set_permissions": _set_permissions,
    "clear_permissions": _clear_permissions,
    "list_permissions": _list_permissions,
    "list_user_permissions": _list_user_permissions,
    "set_topic_permissions": _set_topic_permissions,
    "clear_topic_permissions": _clear_topic_permissions,
    "list_topic_permissions": _list_topic_permissions,
    "list_user_topic_permissions": _list_user_topic_permissions,
    "add_vhost": _add_vhost,
    "delete_vhost": _delete_vhost,
    "set_vhost_tags": _set_vhost_tags,
    "list_vhosts": _list_vhosts,
    "trace_on": _trace(True),
    "trace_off": _trace(False),
    "set_policy": _set(POLICY),
    "clear_policy": _clear(POLICY),
    "list_policies": _list(POLICY),
    "set_operator_policy": _set(OPERATOR_POLICY),
    "clear_operator_policy": _clear(OPERATOR_POLICY),
    "list_operator_policies": _list(OPERATOR_POLICY),
    "set_parameter": _set_parameter,
    "clear_parameter": _clear_parameter,
    "list_parameters": _list_parameters,
    "set_global_parameter": _set_global_parameter,
    "clear_global_parameter": _clear_global_parameter,
    "list_global_parameters": _list_global_parameters,
    "set_vhost_limits": _set_vhost_limits,
    "clear_vhost_limits": _clear_vhost_limits,
    "list_vhost_limits": _list_vhost_limits,
    "set_user_limits": _set_user_limits,
    "clear_user_limits": _clear_user_limits,
    "list_user_limits": _list_user_limits,
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
    **NODE_VERBS,
}
