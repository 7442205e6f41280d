"""Vhosts, users, permissions and parameters as rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, assert_never

from leveret.storage.changes import (
    AccessDefinition,
    ParameterCleared,
    ParameterSet,
    PermissionCleared,
    PermissionSet,
    TopicPermissionCleared,
    TopicPermissionSet,
    UserDeleted,
    UserSet,
    VHostAdded,
    VHostDeleted,
)
from leveret.storage.reading import read_name
from leveret.storage.rows import stored_name

if TYPE_CHECKING:
    import sqlite3

# Tables with a column `vhost`: nothing of a deleted vhost stays in them
_OF_VHOST: Final = (
    "queues",
    "exchanges",
    "exchange_queues",
    "bindings",
    "permissions",
    "topic_permissions",
    "parameters",
)


class AccessRows:
    """Writes them.

    Args:
        connection: where to write, inside a transaction of the caller's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def apply(self, definition: AccessDefinition) -> None:
        """Write one change. Messages are not looked at."""
        match definition:
            case VHostAdded(name, description, tags, default_queue_type):
                self._set(
                    "vhosts (name, description, tags, default_queue_type)",
                    "name",
                    (stored_name(name), stored_name(description), _json(tags), default_queue_type),
                )
            case VHostDeleted(name):
                self._clear("vhosts", "name", name)
                for table in _OF_VHOST:
                    self._clear(table, "vhost", name)
            case UserSet(name, password_hash, hashing_algorithm, tags, limits):
                self._set(
                    "users (name, password_hash, hashing_algorithm, tags, limits)",
                    "name",
                    (stored_name(name), password_hash, hashing_algorithm, _json(tags), limits),
                )
            case UserDeleted(name):
                self._clear("users", "name", name)
                self._clear("permissions", "user", name)
                self._clear("topic_permissions", "user", name)
            case PermissionSet(user, vhost, configure, write, read):
                self._set(
                    "permissions (user, vhost, configure, write, read)",
                    "user, vhost",
                    tuple(map(stored_name, (user, vhost, configure, write, read))),
                )
            case PermissionCleared(user, vhost):
                self._clear("permissions", "user, vhost", user, vhost)
            case TopicPermissionSet(user, vhost, exchange, write, read):
                self._set(
                    "topic_permissions (user, vhost, exchange, write, read)",
                    "user, vhost, exchange",
                    tuple(map(stored_name, (user, vhost, exchange, write, read))),
                )
            case TopicPermissionCleared(user, vhost, exchange):
                self._clear("topic_permissions", "user, vhost, exchange", user, vhost, exchange)
            case ParameterSet(vhost, component, name, value):
                self._set(
                    "parameters (vhost, component, name, value)",
                    "vhost, component, name",
                    (stored_name(vhost), component, stored_name(name), value),
                )
            case ParameterCleared(vhost, component, name):
                self._clear("parameters", "vhost, component, name", vhost, component, name)
            case _:
                assert_never(definition)

    def _set(self, columns: str, key: str, values: tuple[object, ...]) -> None:
        """Insert a row, or change the one with its key."""
        table, names = columns.rstrip(")").split(" (")
        changed = ", ".join(f"{name} = excluded.{name}" for name in names.split(", "))
        self._connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})"
            f" ON CONFLICT ({key}) DO UPDATE SET {changed}",
            values,
        )

    def _clear(self, table: str, key: str, *values: str) -> None:
        """Delete the rows with a key."""
        condition = " AND ".join(f"{name} = ?" for name in key.split(", "))
        self._connection.execute(f"DELETE FROM {table} WHERE {condition}", tuple(map(stored_name, values)))


def read_vhosts(connection: sqlite3.Connection) -> list[VHostAdded]:
    """Return the vhosts, oldest first. This connection, as the following ones, gives text as bytes."""
    rows = connection.execute(
        "SELECT name, description, tags, default_queue_type FROM vhosts ORDER BY vhost_id"
    )
    return [
        VHostAdded(read_name(name), read_name(description), tuple(json.loads(tags)), read_name(queue_type))
        for name, description, tags, queue_type in rows
    ]


def read_users(connection: sqlite3.Connection) -> list[UserSet]:
    """Return the users, oldest first."""
    rows = connection.execute(
        "SELECT name, password_hash, hashing_algorithm, tags, limits FROM users ORDER BY user_id"
    )
    return [
        UserSet(
            read_name(name),
            read_name(password_hash),
            read_name(algorithm),
            tuple(json.loads(tags)),
            read_name(limits),
        )
        for name, password_hash, algorithm, tags, limits in rows
    ]


def read_permissions(connection: sqlite3.Connection) -> list[PermissionSet]:
    """Return the permissions, oldest first."""
    rows = connection.execute(
        "SELECT user, vhost, configure, write, read FROM permissions ORDER BY permission_id"
    )
    return [PermissionSet(*map(read_name, row)) for row in rows]


def read_topic_permissions(connection: sqlite3.Connection) -> list[TopicPermissionSet]:
    """Return the topic permissions, oldest first."""
    rows = connection.execute(
        "SELECT user, vhost, exchange, write, read FROM topic_permissions ORDER BY permission_id"
    )
    return [TopicPermissionSet(*map(read_name, row)) for row in rows]


def read_parameters(connection: sqlite3.Connection) -> list[ParameterSet]:
    """Return the parameters, oldest first."""
    rows = connection.execute("SELECT vhost, component, name, value FROM parameters ORDER BY parameter_id")
    return [ParameterSet(*map(read_name, row)) for row in rows]


def _json(tags: tuple[str, ...]) -> str:
    return json.dumps(list(tags))
