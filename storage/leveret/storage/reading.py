"""Rows of messages become messages again. HOT.

A long queue is read back some thousand rows at a time, and mostly all of them have the same exchange, routing
key and properties, no deadline, and were never dead-lettered. Every column that is fetched takes a tenth of
what the row takes, most of it locks in SQLite's interface. So SQLite is told what the last row of the queue
was like (`Kind`) and compares for itself; of rows like it only the body is fetched, and id and checksum as
one number, and there is one object for a run of them. Where rows differ from each other all columns of all
are fetched, and what is made of the names and the checksum as far as the body is kept from row to row.

The rows of a long queue lie in several tables (blocks.py), each with those between two positions.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from leveret.storage.changes import MAX_POSITION
from leveret.storage.checksum import checksum_seed, crc32_function
from leveret.storage.schema import DELAYED, NOT_REMOVED, PERSISTENT, POSITION_BITS, block_table, not_settled
from leveret.storage.stored import Stored, StoredMessage, StoredRun

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from leveret.storage.blocks import Blocks

KINDS_MAX: Final = 1024  # queues of which it is known what their last row was like
KIND_PROPERTIES_MAX: Final = 1024  # bytes; a longer property list is not kept
MIXED_SHARE: Final = 8  # one row in so many differs from the one before: all columns are fetched next time

CHECKSUM_BITS: Final = 32
CHECKSUM_MASK: Final = (1 << CHECKSUM_BITS) - 1
# Positions that one statement looks at, so that they and a checksum are one number
SPAN_MAX: Final = (1 << (63 - CHECKSUM_BITS)) - 1

Row = tuple[Any, ...]  # of Statements.read; damage can turn any value into one of another type
_COLUMNS: Final = (
    "SELECT"
    " id, persistent, dead_lettered, expires_at_ms, checksum, exchange, routing_key, properties, body FROM"
)
# The first half is looked at once a statement.
_IS_THERE: Final = f"(NOT EXISTS (SELECT 1 FROM removed_ranges) OR {NOT_REMOVED})"
# NULL where the row is not like the one before, or has no checksum. Of a damaged checksum 32 bits are taken,
# so that nothing but the body is judged by it.
_COLUMNS_ALIKE: Final = f"""\
SELECT
    CASE
        WHEN persistent = {PERSISTENT} AND dead_lettered = 0 AND expires_at_ms IS NULL
            AND exchange = ?4 AND routing_key = ?5 AND properties = ?6
        THEN (id - ?1) << {CHECKSUM_BITS} | (checksum & {CHECKSUM_MASK})
    END,
    body
FROM"""


class Statements:
    """How to read rows of a table.

    Args:
        table: its name.
        is_there: condition for a row that is not removed; empty for none.
    """

    __slots__ = ("read", "read_alike")

    def __init__(self, table: str, is_there: str) -> None:
        rows = f" {table} WHERE id > ?1 AND id <= ?2{is_there} ORDER BY id LIMIT ?3"
        self.read = _COLUMNS + rows
        self.read_alike = _COLUMNS_ALIKE + rows


_ALL_QUEUES: Final = Statements("messages", f" AND {_IS_THERE}")
_READ_DELAYED: Final = f"{_COLUMNS} messages WHERE persistent = {DELAYED} AND id >> {POSITION_BITS} = ?"
# Two statements: in one, SQLite would walk over all that are due at the same time and were read before.
READ_DUE_THEN: Final = f"{_READ_DELAYED} AND expires_at_ms = ? AND id > ? AND {_IS_THERE} ORDER BY id LIMIT ?"
READ_DUE_LATER: Final = (
    f"{_READ_DELAYED} AND expires_at_ms > ? AND {_IS_THERE} ORDER BY expires_at_ms, id LIMIT ?"
)


class DamagedRowError(Exception):
    """A row is not as it was written."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Kind:
    """What rows of `Statements.read_alike` have in common.

    Args:
        message: one of them.
    """

    __slots__ = ("exchange", "parameters", "properties", "routing_key", "seed")

    def __init__(self, message: StoredMessage) -> None:
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.properties = message.properties
        exchange = message.exchange.encode("utf-8", "surrogateescape")
        routing_key = message.routing_key.encode("utf-8", "surrogateescape")
        self.seed = checksum_seed(exchange, routing_key, message.properties)
        self.parameters = (_parameter(exchange), _parameter(routing_key), message.properties)


class Window:
    """What is read, up to a limit.

    Args:
        limit: messages.
        max_bytes: of their bodies; it is full with the message that brings them there.
    """

    __slots__ = ("body_bytes_left", "found", "messages_left")

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.found: list[Stored] = []
        self.messages_left = limit
        self.body_bytes_left = max_bytes

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read."""
        return self.messages_left <= 0 or self.body_bytes_left <= 0


class QueueReader:
    """Reads messages of queues in the order of their positions.

    Args:
        connection: gives text as bytes.
        blocks: of long queues.
    """

    def __init__(self, connection: sqlite3.Connection, blocks: Blocks) -> None:
        self._connection = connection
        self._blocks = blocks
        self._block_statements: dict[tuple[int, bool], Statements] = {}  # 2 * BLOCKS at most
        self._kinds: dict[int, Kind] = {}  # queue id -> what its last row was like, if more may be like it

    def read(self, queue_id: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Stored]:
        """See `Store.read`.

        Raises:
            DamagedRowError: a checksum is wrong.
        """
        window = Window(limit, max_bytes)
        if not self._blocks.of(queue_id):
            self._read(_ALL_QUEUES, queue_id, after, up_to, window)
            return window.found
        base = queue_id << POSITION_BITS
        for block, first, last in self._blocks.parts(queue_id, base + after + 1, base + up_to):
            if block is None:
                statements = _ALL_QUEUES
            else:
                statements = self._statements(block.number, block.is_settled_behind(first))
            self._read(statements, queue_id, first - 1 - base, last - base, window)
            if window.is_full:
                break
        return window.found

    def _statements(self, number: int, has_settled: bool) -> Statements:
        key = (number, has_settled)
        found = self._block_statements.get(key)
        if found is None:
            table = block_table(number)
            is_there = f" AND {not_settled(number, table)}" if has_settled else ""
            found = self._block_statements[key] = Statements(table, is_there)
        return found

    def _read(self, statements: Statements, queue_id: int, after: int, up_to: int, window: Window) -> None:
        base = queue_id << POSITION_BITS
        kind = self._kinds.get(queue_id)
        if kind is not None:
            end = min(up_to, after + SPAN_MAX)
            of_kind = (base + after, base + end, window.messages_left, *kind.parameters)
            # An open cursor would keep the log from beginning anew.
            with closing(self._connection.execute(statements.read_alike, of_kind)) as rows:
                after, is_unlike = read_alike(rows, after, kind, window)
            if window.is_full or (end == up_to and not is_unlike):
                return
        parameters = (base + after, base + up_to, window.messages_left)
        with closing(self._connection.execute(statements.read, parameters)) as rows:
            others = read_messages(rows, window.body_bytes_left)
        for message in others:
            window.body_bytes_left -= len(message.body)
        window.messages_left -= len(others)
        window.found += others
        if others:
            self._kinds.pop(queue_id, None)
            if _are_alike(others) and len(others[-1].properties) <= KIND_PROPERTIES_MAX:
                if len(self._kinds) >= KINDS_MAX:
                    self._kinds.clear()
                self._kinds[queue_id] = Kind(others[-1])


def read_alike(rows: Iterable[Row], after: int, kind: Kind, window: Window) -> tuple[int, bool]:
    """Add rows of `Statements.read_alike`, until the window is full.

    Args:
        rows: of positions behind `after`.
        after: the statement's own parameter.
        kind: what they are compared with.
        window: where they go.

    Returns:
        the position of the last one, `after` if there is none; and whether the next is not of this kind.

    Raises:
        DamagedRowError: a checksum is wrong.
    """
    crc32 = crc32_function()
    seed = kind.seed
    last = after
    run: StoredRun | None = None
    bodies: list[bytes] = []
    for row in rows:
        if row[0] is None:
            return last, True
        number: int = row[0]
        position = after + (number >> CHECKSUM_BITS)
        try:
            body: bytes = row[1]
            is_damaged = crc32(body, seed) != number & CHECKSUM_MASK
        except TypeError:
            is_damaged = True
        if is_damaged:
            raise DamagedRowError(position)
        if run is None or position != last + 1:
            run = StoredRun(position, kind.exchange, kind.routing_key, kind.properties)
            bodies = run.bodies
            window.found.append(run)
        last = position
        bodies.append(body)
        size = len(body)
        run.body_bytes += size
        window.messages_left -= 1
        window.body_bytes_left -= size
        if window.body_bytes_left <= 0:
            break
    return last, False


def read_messages(rows: Iterable[Row], max_bytes: int) -> list[StoredMessage]:
    """Return the messages of rows of `Statements.read`, until their bodies have `max_bytes` or more.

    Args:
        rows: with names and bodies as bytes, whatever they are stored as.
        max_bytes: at least one message is returned if there is a row.

    Raises:
        DamagedRowError: a checksum is wrong.
    """
    crc32 = crc32_function()
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


def _are_alike(messages: list[StoredMessage]) -> bool:
    """Whether few of them differ from the one before in what is not fetched with READ_ALIKE."""
    last = messages[-1]
    if last.expires_at_ms is not None or last.dead_lettered or not last.persistent:
        return False
    changes = 0
    before = last
    for message in messages:
        if (
            message.properties != before.properties
            or message.routing_key != before.routing_key
            or message.exchange != before.exchange
            or message.expires_at_ms is not None
        ):
            changes += 1
        before = message
    return changes * MIXED_SHARE <= len(messages)


def _parameter(name: bytes) -> str | bytes:
    """Return a name as it was stored: text, or bytes if it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def read_name(name: bytes) -> str:
    """Return a name read as bytes."""
    return name.decode("utf-8", "surrogateescape")
