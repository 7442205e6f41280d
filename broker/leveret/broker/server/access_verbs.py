"""Verbs about users, what lets them in and what they may do. Texts are rabbitmqctl's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.server.calls import EX_DATA, EX_NO_USER, EX_UNAVAILABLE, Answer, Call, Refusal, table

if TYPE_CHECKING:
    from collections.abc import Callable

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


def require_user(call: Call) -> None:
    """Refuse a user that does not exist, in the words of most verbs about one user."""
    if call[0] not in call.node.authority.users:
        raise Refusal(f'Error:\n{{:no_such_user, "{call[0]}"}}', EX_UNAVAILABLE)


def _list_user_permissions(call: Call) -> Answer:
    require_user(call)
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
    require_user(call)
    rows = [
        [each.vhost, each.exchange, each.write, each.read]
        for topics in call.node.authority.topic_permissions.values()
        for each in topics.values()
        if each.user == call[0]
    ]
    return table(["vhost", "exchange", "write", "read"], rows)


ACCESS_VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
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
}
