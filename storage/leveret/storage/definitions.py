"""Exchanges, queues and bindings as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from leveret.storage.access import AccessRows
from leveret.storage.changes import (
    AccessDefinition,
    Bound,
    Definition,
    ExchangeDeclared,
    ExchangeDeleted,
    ExchangeQueueDeclared,
    PriorityLevelDeclared,
    QueueDeclared,
    QueueDeleted,
    QueueDelivered,
    QueuePurged,
    SegmentClosed,
    SegmentRemoved,
    Unbound,
)
from leveret.storage.reading import read_name
from leveret.storage.rows import readable, stored_name
from leveret.storage.stored import StoredOffset

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


class Definitions:
    """Writes definitions.

    Args:
        connection: where to write, inside a transaction of the caller's.
        describe: makes readable JSON of a raw field table, or None.
    """

    def __init__(self, connection: sqlite3.Connection, describe: Callable[[bytes], str | None]) -> None:
        self._connection = connection
        self._describe = describe
        self._access = AccessRows(connection)

    def apply(self, definition: Definition) -> None:
        """Write one change. Messages are not looked at."""
        if isinstance(definition, AccessDefinition):
            self._access.apply(definition)
            return
        execute = self._connection.execute
        match definition:
            case ExchangeDeclared(vhost, name, type_, auto_delete, internal, arguments):
                execute(
                    "INSERT INTO exchanges"
                    " (vhost, name, type, auto_delete, internal, arguments, arguments_json)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (vhost, name) DO UPDATE SET type = excluded.type,"
                    " auto_delete = excluded.auto_delete, internal = excluded.internal,"
                    " arguments = excluded.arguments, arguments_json = excluded.arguments_json",
                    (
                        *map(stored_name, (vhost, name, type_)),
                        auto_delete,
                        internal,
                        *self._arguments(arguments),
                    ),
                )
            case ExchangeDeleted(vhost, name):
                execute(
                    "DELETE FROM exchanges WHERE vhost = ? AND name = ?",
                    (stored_name(vhost), stored_name(name)),
                )
            case QueueDeclared(queue_id, vhost, name, auto_delete, arguments):
                execute(
                    "INSERT INTO queues (queue_id, vhost, name, auto_delete, arguments, arguments_json)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        queue_id,
                        stored_name(vhost),
                        stored_name(name),
                        auto_delete,
                        *self._arguments(arguments),
                    ),
                )
            case ExchangeQueueDeclared(queue_id, vhost, exchange):
                execute(
                    "INSERT INTO exchange_queues VALUES (?, ?, ?)",
                    (queue_id, stored_name(vhost), stored_name(exchange)),
                )
            case PriorityLevelDeclared(queue_id, of, priority):
                execute(
                    "INSERT INTO priority_levels (queue_id, of_queue_id, priority) VALUES (?, ?, ?)",
                    (queue_id, of, priority),
                )
            case QueueDeleted(queue_id):
                execute("DELETE FROM queues WHERE queue_id = ?", (queue_id,))
                execute("DELETE FROM priority_levels WHERE queue_id = ?", (queue_id,))
                execute("DELETE FROM exchange_queues WHERE queue_id = ?", (queue_id,))
                self.forget_keys(queue_id)
                self.forget_stream(queue_id)
            case SegmentClosed(queue_id, first, last, body_bytes, last_ms):
                execute(
                    "INSERT INTO stream_segments VALUES (?, ?, ?, ?, ?)",
                    (queue_id, last, first, body_bytes, last_ms),
                )
            case SegmentRemoved(queue_id, last):
                execute(
                    "DELETE FROM stream_segments WHERE queue_id = ? AND last_position = ?", (queue_id, last)
                )
            case QueueDelivered(queue_id, up_to):
                for table in ("queues", "priority_levels"):
                    found = execute(
                        f"UPDATE {table} SET delivered_up_to = ? WHERE queue_id = ?", (up_to, queue_id)
                    )
                    if found.rowcount:
                        break
            case Bound(vhost, source, destination, to_exchange, binding_key, arguments):
                execute(
                    "INSERT OR IGNORE INTO bindings (vhost, source, destination, to_exchange, binding_key,"
                    " arguments, arguments_json) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *map(stored_name, (vhost, source, destination)),
                        to_exchange,
                        stored_name(binding_key),
                        *self._arguments(arguments),
                    ),
                )
            case Unbound(vhost, source, destination, to_exchange, binding_key, arguments):
                execute(
                    "DELETE FROM bindings WHERE vhost = ? AND source = ? AND destination = ?"
                    " AND to_exchange = ? AND binding_key = ? AND arguments = ?",
                    (
                        *map(stored_name, (vhost, source, destination)),
                        to_exchange,
                        stored_name(binding_key),
                        arguments,
                    ),
                )
            case QueuePurged():
                pass
            case _:
                assert_never(definition)

    def forget_levels(self, vhost: str) -> None:
        """Remove the priority levels of the queues of a vhost that is being deleted."""
        self._connection.execute(
            "DELETE FROM priority_levels WHERE of_queue_id IN (SELECT queue_id FROM queues WHERE vhost = ?)",
            (stored_name(vhost),),
        )

    def forget_keys(self, queue_id: int) -> None:
        """Remove the keys of deduplication of a queue or an exchange that is being deleted."""
        self._connection.execute("DELETE FROM deduplication_keys WHERE queue_id = ?", (queue_id,))

    def forget_stream(self, queue_id: int) -> None:
        """Remove what is known of a stream beside its messages."""
        self._connection.execute("DELETE FROM stream_segments WHERE queue_id = ?", (queue_id,))
        self._connection.execute("DELETE FROM stream_offsets WHERE queue_id = ?", (queue_id,))

    def _arguments(self, arguments: bytes) -> tuple[bytes, str | None]:
        return arguments, readable(self._describe, arguments)


def read_exchanges(connection: sqlite3.Connection) -> list[ExchangeDeclared]:
    """Return the exchanges in order of declaration. The connection gives text as bytes."""
    rows = connection.execute(
        "SELECT vhost, name, type, auto_delete, internal, arguments FROM exchanges ORDER BY exchange_id"
    )
    return [
        ExchangeDeclared(
            read_name(vhost), read_name(name), read_name(type_), bool(auto_delete), bool(internal), arguments
        )
        for vhost, name, type_, auto_delete, internal, arguments in rows
    ]


def read_bindings(connection: sqlite3.Connection) -> list[Bound]:
    """Return the bindings in the order they were made. The connection gives text as bytes."""
    rows = connection.execute(
        "SELECT vhost, source, destination, to_exchange, binding_key, arguments FROM bindings"
        " ORDER BY binding_id"
    )
    return [
        Bound(
            read_name(vhost),
            read_name(source),
            read_name(destination),
            bool(to_exchange),
            read_name(binding_key),
            arguments,
        )
        for vhost, source, destination, to_exchange, binding_key, arguments in rows
    ]


def read_segments(connection: sqlite3.Connection) -> list[SegmentClosed]:
    """Return the closed segments of all streams, those of one in their order."""
    rows = connection.execute(
        "SELECT queue_id, first_position, last_position, body_bytes, last_ms FROM stream_segments"
        " ORDER BY queue_id, last_position"
    )
    return [SegmentClosed(*row) for row in rows]


def read_offsets(connection: sqlite3.Connection) -> list[StoredOffset]:
    """Return how far consumers have read their streams. The connection gives text as bytes."""
    rows = connection.execute(
        "SELECT queue_id, consumer_tag, position FROM stream_offsets ORDER BY queue_id, consumer_tag"
    )
    return [StoredOffset(queue_id, read_name(tag), position) for queue_id, tag, position in rows]
