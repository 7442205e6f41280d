"""Rows of messages become messages again. HOT.

A long queue is read back some thousand rows at a time, and mostly all of them have the same exchange, routing
key and properties. So what is made of these three, the names as text and the checksum as far as the body, is
kept from one row to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from leveret.storage.changes import MAX_POSITION, StoredMessage
from leveret.storage.schema import DELAYED, NOT_REMOVED, POSITION_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = tuple[Any, ...]  # of READ; damage can turn any value into one of another type
READ: Final = (
    "SELECT id, persistent, dead_lettered, expires_at_ms, checksum, exchange, routing_key, properties,"
    f" CAST(body AS BLOB) FROM messages WHERE id > ? AND id <= ? AND {NOT_REMOVED} ORDER BY id LIMIT ?"
)
_READ_DELAYED: Final = (
    "SELECT id, persistent, dead_lettered, expires_at_ms, checksum, exchange, routing_key, properties,"
    f" CAST(body AS BLOB) FROM messages WHERE persistent = {DELAYED} AND id >> {POSITION_BITS} = ?"
)
# Two statements: in one, SQLite would walk over all that are due at the same time and were read before.
READ_DUE_THEN: Final = (
    f"{_READ_DELAYED} AND expires_at_ms = ? AND id > ? AND {NOT_REMOVED} ORDER BY id LIMIT ?"
)
READ_DUE_LATER: Final = (
    f"{_READ_DELAYED} AND expires_at_ms > ? AND {NOT_REMOVED} ORDER BY expires_at_ms, id LIMIT ?"
)


class DamagedRowError(Exception):
    """A row is not as it was written."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def read_messages(rows: Iterable[Row], max_bytes: int) -> list[StoredMessage]:
    """Return the messages of rows of READ, until their bodies have `max_bytes` or more.

    Args:
        rows: with names and bodies as bytes, whatever they are stored as.
        max_bytes: at least one message is returned if there is a row.

    Raises:
        DamagedRowError: a checksum is wrong.
    """
    messages: list[StoredMessage] = []
    body_bytes = 0
    exchange = routing_key = properties = b""
    exchange_name = routing_key_name = ""
    seed = 0
    for row in rows:
        row_id: int = row[0]
        try:
            row_exchange: bytes = row[5]
            row_key: bytes = row[6]
            row_properties: bytes = row[7]
            body: bytes = row[8]
            if row_properties != properties or row_key != routing_key or row_exchange != exchange:
                exchange, routing_key, properties = row_exchange, row_key, row_properties
                exchange_name, routing_key_name = read_name(exchange), read_name(routing_key)
                seed = checksum_seed(exchange, routing_key, properties)
            is_damaged = crc32(body, seed) != row[4]
        except (TypeError, AttributeError):
            is_damaged = True
        if is_damaged:
            raise DamagedRowError(row_id & MAX_POSITION)
        messages.append(
            StoredMessage(
                row_id & MAX_POSITION,
                exchange_name,
                routing_key_name,
                properties,
                body,
                bool(row[1]),
                bool(row[2]),
                row[3],
            )
        )
        body_bytes += len(body)
        if body_bytes >= max_bytes:
            break
    return messages


def checksum_seed(exchange: bytes, routing_key: bytes, properties: bytes) -> int:
    """Return the CRC-32 of everything but the body, which it is continued with."""
    return crc32(properties, crc32(routing_key, crc32(exchange)))


def read_name(name: bytes) -> str:
    """Return a name read as bytes."""
    return name.decode("utf-8", "surrogateescape")
