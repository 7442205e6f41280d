"""Messages as rows: written and removed with few large statements. Reading them back: reading.py. HOT.

Each statement that runs in the writer's thread lets go of the interpreter lock, and may wait long for it
while the event loop is busy. So rows go into statements of up to `STATEMENT_ROWS` rows, and removals into
statements of up to `STATEMENT_RANGES` ranges. The number of rows in a statement is a power of two: few
different statements exist, and sqlite3 keeps them prepared.

Small bodies and property lists are handed to sqlite3 as `bytearray`: it looks for an adapter for every
`bytes` object, which takes longer than the copy.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from leveret.storage.changes import MAX_POSITION
from leveret.storage.checksum import checksum_seed, crc32_function
from leveret.storage.schema import MESSAGES, PERSISTENT, POSITION_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from leveret.storage.batch import StoredContent

STATEMENT_ROWS: Final = 512
STATEMENT_BYTES: Final = (
    256 * 1024
)  # of bodies in one statement; sqlite3 keeps a copy until the statement's next use
STATEMENT_RANGES: Final = 128
TEXT_BODY_MAX: Final = 64 * 1024  # longer bodies are not looked at, and stored as BLOB
LARGE_BODY: Final = STATEMENT_BYTES  # from here on a row has a statement of its own
ENVELOPE_CACHE: Final = 1024  # number of different envelopes remembered
ENVELOPE_CACHE_PROPERTIES_MAX: Final = 1024  # bytes; larger property lists are not remembered

T = TypeVar("T")
Value = int | str | bytes | bytearray | None

INSERT: Final = (
    " (id, exchange, routing_key, properties, properties_json, checksum, body,"
    " persistent, dead_lettered, expires_at_ms) "
)
PLAIN_WIDTH: Final = 7
PLAIN_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, 1, 0, NULL)"  # a persistent message like most
FULL_WIDTH: Final = 10
FULL_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# With 0 as the last parameter it does nothing but replace sqlite3's copy of the row before.
INSERT_LARGE: Final = INSERT + " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE ?"
NO_ROW: Final[tuple[int, ...]] = (0,) * (FULL_WIDTH + 1)


class Envelope:
    """What rows of many messages share, as it is stored."""

    __slots__ = ("exchange", "properties", "properties_json", "routing_key", "seed")

    def __init__(
        self,
        exchange: str | bytes,
        routing_key: str | bytes,
        properties: bytearray,
        properties_json: str | None,
        seed: int,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.properties_json = properties_json
        self.seed = seed  # checksum of the names and properties, to be continued with the body


def stored_name(name: str) -> str | bytes:
    """Return a name as it is stored: text, or its bytes if they are not UTF-8."""
    if name.isascii():
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape")
    return name


def readable(describe: Callable[[bytes], str | None], table: bytes) -> str | None:
    """Return JSON that can be stored as text: bytes that were not UTF-8 become JSON's own escapes."""
    try:
        text = describe(table)
    except Exception:  # a table that nobody can read is no reason not to keep the message
        return None
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def stored_body(body: bytes) -> str | bytes | bytearray:
    """Return a body as it is stored: as text if it is text and not long, so that people can read it."""
    if len(body) > TEXT_BODY_MAX:
        return body
    if body.find(0) < 0:  # what is not text mostly has a zero, and a failing decode costs more
        try:
            return body.decode()
        except UnicodeDecodeError:
            pass
    return bytearray(body)


class RowWriter:
    """Collects rows and inserts them.

    Args:
        connection: where to insert them, inside a transaction of the caller's.
        describe: makes readable JSON of a raw property list, or None.
    """

    def __init__(self, connection: sqlite3.Connection, describe: Callable[[bytes], str | None]) -> None:
        self._connection = connection
        self._describe = describe
        self._envelopes: dict[tuple[str, str, bytes], Envelope] = {}
        self._table: str = MESSAGES
        self._plain: list[Value] = []  # rows of PLAIN_WIDTH values, one after another
        self._full: list[Value] = []  # rows of FULL_WIDTH values
        self._bytes = 0  # of bodies in both

    def add(
        self,
        queue_id: int,
        entries: Mapping[int, StoredContent],
        expiries: Mapping[int, int],
        persistent: int,
    ) -> int:
        """Insert messages of a queue, some of them at once and the rest on `flush`.

        Args:
            queue_id: the queue.
            entries: position -> message.
            expiries: position -> wall-clock ms, where there is one.
            persistent: `PERSISTENT`, `DELAYED`, or 0 if they do not survive a restart.

        Returns:
            the length of the bodies.
        """
        crc32 = crc32_function()
        base = queue_id << POSITION_BITS
        plain = self._plain
        total = 0
        last: bytes | None = None
        envelope = Envelope("", "", bytearray(), None, 0)
        exchange = routing_key = ""
        for position, message in entries.items():
            properties = message.properties
            if not (
                properties is last and message.routing_key == routing_key and message.exchange == exchange
            ):
                last, exchange, routing_key = properties, message.exchange, message.routing_key
                envelope = self._envelope(exchange, routing_key, properties)
            body = message.body
            size = len(body)
            total += size
            row: tuple[Value, ...] = (
                base | position,
                envelope.exchange,
                envelope.routing_key,
                envelope.properties,
                envelope.properties_json,
                crc32(body, envelope.seed),
                stored_body(body),
            )
            dead_lettered = message.dead_lettered
            if size >= LARGE_BODY:
                self._insert_large((*row, persistent, int(dead_lettered), expiries.get(position), 1))
                continue
            if persistent == PERSISTENT and not dead_lettered and position not in expiries:
                plain += row
            else:
                self._full += (*row, persistent, int(dead_lettered), expiries.get(position))
            self._bytes += size
            if self._bytes >= STATEMENT_BYTES or len(plain) >= STATEMENT_ROWS * PLAIN_WIDTH:
                self.flush()
        return total

    def into(self, table: str) -> None:
        """Insert what is added from now on into a table."""
        if table != self._table:
            self.flush()
            self._table = table

    def flush(self) -> None:
        """Insert what is left."""
        for rows, row, width in ((self._plain, PLAIN_ROW, PLAIN_WIDTH), (self._full, FULL_ROW, FULL_WIDTH)):
            for count, values in in_chunks(rows, width, STATEMENT_ROWS):
                self._connection.execute(_insert_sql(self._table, row, count), values)
            rows.clear()
        self._bytes = 0

    def _insert_large(self, row: tuple[Value, ...]) -> None:
        sql = f"INSERT INTO {self._table}{INSERT_LARGE}"
        self._connection.execute(sql, row)
        self._connection.execute(sql, NO_ROW)

    def _envelope(self, exchange: str, routing_key: str, properties: bytes) -> Envelope:
        key = (exchange, routing_key, properties)
        envelope = self._envelopes.get(key)
        if envelope is None:
            envelope = Envelope(
                stored_name(exchange),
                stored_name(routing_key),
                bytearray(properties),
                readable(self._describe, properties),
                checksum_seed(
                    exchange.encode("utf-8", "surrogateescape"),
                    routing_key.encode("utf-8", "surrogateescape"),
                    properties,
                ),
            )
            if len(properties) <= ENVELOPE_CACHE_PROPERTIES_MAX:
                if len(self._envelopes) >= ENVELOPE_CACHE:
                    self._envelopes.clear()
                self._envelopes[key] = envelope
        return envelope


def delete_rows(connection: sqlite3.Connection, ranges: list[int], table: str = "messages") -> int:
    """Delete the rows of ranges of ids, given as first, last, first, last, ...

    Returns:
        how many there were.
    """
    return sum(
        connection.execute(_delete_sql(table, count), values).rowcount
        for count, values in in_chunks(ranges, 2, STATEMENT_RANGES)
    )


def id_range(queue_id: int) -> tuple[int, int]:
    """Return the first and the last id that messages of a queue can have. The first is that of position 0."""
    base = queue_id << POSITION_BITS
    return base, base | MAX_POSITION


def id_ranges(queue_id: int, positions: Iterable[int]) -> list[int]:
    """Return ranges of ids that hold exactly the given positions, as first, last, first, last, ..."""
    base = queue_id << POSITION_BITS
    ascending = sorted(positions)
    first = previous = ascending[0]
    if ascending[-1] - first == len(ascending) - 1:
        return [base | first, base | ascending[-1]]
    ranges: list[int] = []
    for position in ascending:
        if position > previous + 1:
            ranges += (base | first, base | previous)
            first = position
        previous = position
    ranges += (base | first, base | previous)
    return ranges


def in_chunks(values: list[T], width: int, largest: int) -> Iterator[tuple[int, list[T]]]:
    """Cut rows of `width` values into chunks of a power of two of rows, `largest` at most.

    Yields: number of rows, their values.
    """
    start = 0
    while left := (len(values) - start) // width:
        count = min(largest, 1 << (left.bit_length() - 1))
        stop = start + count * width
        yield count, values[start:stop] if count < left or start else values
        start = stop


@cache
def _insert_sql(table: str, row: str, count: int) -> str:
    return f"INSERT INTO {table}{INSERT}VALUES {', '.join([row] * count)}"


@cache
def _delete_sql(table: str, count: int) -> str:
    return f"DELETE FROM {table} WHERE {' OR '.join(['id BETWEEN ? AND ?'] * count)}"
