"""How far a consumer has read a stream, and what was read ahead for it. HOT.

A reader looks for its place first if it begins at a time: messages know when they came, and later ones came
later, so it halves the range in which the place is, reading one message a time. Then it reads on, a window
after the other, until it has caught up with the tail that the stream keeps in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.model.turn import Load
from leveret.protocol.content import Envelope
from leveret.protocol.properties import Properties, encoded_values, replace
from leveret.protocol.tables import encode_table

if TYPE_CHECKING:
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.streams.stream_arguments import ReaderArguments
    from leveret.storage.stored import StoredMessage

READ_MESSAGES: Final = 1000  # read ahead for a consumer
READ_BYTES: Final = 256 * 1024
OFFSET_HEADER: Final = "x-stream-offset"
FILTER_HEADER: Final = "x-stream-filter-value"
OFFSET_FIELD: Final = b"\x0fx-stream-offsetl"  # its name and type; 8 bytes follow
HEADERS_INDEX: Final = 2  # among the properties


class Stamp:
    """What messages of the same exchange, routing key and properties have in common when they are delivered.

    Their property list on the wire is `before`, the offset in 8 bytes, `after`.
    """

    __slots__ = ("after", "before", "envelope", "exchange", "filter_value", "raw", "routing_key")

    def __init__(self, exchange: str, routing_key: str, raw: bytes, channel: int, frame_max: int) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.raw = raw
        fields = Properties.parse(raw)
        self.filter_value: bytes | None = None
        entries = b""
        headers = fields.headers
        if headers:
            value = headers.get(FILTER_HEADER)
            if value is not None and value.tag == "S" and isinstance(value.value, bytes):
                self.filter_value = value.value
            if OFFSET_HEADER in headers:
                others = {name: field for name, field in headers.items() if name != OFFSET_HEADER}
                entries = encode_table(others)[4:]
            elif fields.headers_raw is not None:
                entries = fields.headers_raw[4:]
        without = replace(raw, headers={})
        values = [value or b"" for value in encoded_values(without)]
        at = len(without) - sum(len(value) for value in values[HEADERS_INDEX:])
        size = len(entries) + len(OFFSET_FIELD) + 8
        self.before: bytes = without[:at] + size.to_bytes(4, "big") + entries + OFFSET_FIELD
        self.after: bytes = without[at + 4 :]
        # Content is made for this channel, so it goes out as it is.
        self.envelope: Envelope = Envelope(exchange, routing_key, raw, fields, channel, frame_max)

    def is_for(self, exchange: str, routing_key: str, raw: bytes) -> bool:
        """Whether it is the stamp of such messages."""
        return raw == self.raw and routing_key == self.routing_key and exchange == self.exchange

    def properties(self, position: int) -> bytes:
        """Return the property list of the message at a position."""
        return self.before + (position - 1).to_bytes(8, "big") + self.after


class Reader:
    """One consumer of a stream.

    Args:
        consumer: who it is.
        arguments: what it asked for.
    """

    __slots__ = (
        "_high",
        "_low",
        "_requested_up_to",
        "arguments",
        "consumer",
        "index",
        "is_loading",
        "is_seeking",
        "next_position",
        "outstanding",
        "stamp",
        "tracks_offset",
        "window",
        "window_bytes",
    )

    def __init__(self, consumer: Consumer, arguments: ReaderArguments, next_position: int) -> None:
        self.consumer = consumer
        self.arguments = arguments
        self.next_position = next_position
        self.tracks_offset: bool = arguments.tracks_offset
        self.outstanding: dict[int, None] = {}  # unacked positions in order, if it is remembered what is read
        self.window: list[StoredMessage] = []  # read ahead
        self.window_bytes: int = 0
        self.index: int = 0  # of the next message in it
        self.is_loading: bool = False
        self.is_seeking: bool = False
        self.stamp: Stamp | None = None
        self._low: int = 0
        self._high: int = 0
        self._requested_up_to: int = 0

    # -- finding its place

    def seek(self, first: int, end: int) -> None:
        """Look for the first message, first <= position < end, that came at its time or later; else `end`."""
        self._low = first
        self._high = end
        self.next_position = end
        self.is_seeking = first < end

    def _sought(self, rows: list[StoredMessage]) -> None:
        middle = (self._low + self._high) // 2
        came_ms = rows[0].expires_at_ms if rows else None
        if came_ms is not None and came_ms >= self.arguments.start.time_ms:
            self._high = middle
        else:
            self._low = middle + 1  # too early, or removed meanwhile
        if self._low >= self._high:
            self.next_position = self._high
            self.is_seeking = False

    # -- reading ahead

    @property
    def wants_more(self) -> bool:
        """Whether the next window is to be read: it is better asked for before this one is used up."""
        return not self.is_loading and 2 * (len(self.window) - self.index) < READ_MESSAGES

    def load(self, queue_id: int, generation: int, first: int, up_to: int) -> Load:
        """Return what to read next.

        Args:
            queue_id: of the stream.
            generation: tells this request from others.
            first: position of the oldest message that is there.
            up_to: position of the newest that may be read.
        """
        self.is_loading = True
        if self.is_seeking:
            self._low = max(self._low, min(first, self._high - 1))
            middle = (self._low + self._high) // 2
            return Load(queue_id, generation, middle - 1, middle, 1, 1)
        after = self.next_position - 1
        if self.index < len(self.window):
            after = self.window[-1].position
        self._requested_up_to = up_to
        return Load(queue_id, generation, max(after, first - 1), up_to, READ_MESSAGES, READ_BYTES)

    def loaded(self, rows: list[StoredMessage]) -> int:
        """Take what was read.

        Returns:
            how many more bytes of messages are held now.
        """
        self.is_loading = False
        if self.is_seeking:
            self._sought(rows)
            return 0
        before = self.window_bytes
        self.window = self.window[self.index :] + rows
        self.index = 0
        self.window_bytes = 0
        for row in self.window:
            self.window_bytes += len(row.body)
        if not self.window:  # somebody has edited the file, or retention was quicker
            self.next_position = max(self.next_position, self._requested_up_to + 1)
        return self.window_bytes - before

    # -- what is delivered

    def wants(self, filter_value: bytes | None) -> bool:
        """Whether it has asked for messages with a filter value, or for those without."""
        filters = self.arguments.filters
        if filters is None:
            return True
        if filter_value is None:
            return self.arguments.match_unfiltered
        return filter_value in filters

    def settled(self, position: int) -> int:
        """Note that a message is settled.

        Returns:
            the position up to which all are.
        """
        self.outstanding.pop(position, None)
        for oldest in self.outstanding:
            return oldest - 1
        return self.next_position - 1
