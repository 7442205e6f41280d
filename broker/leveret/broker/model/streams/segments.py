"""The segments of a stream: what retention removes at once.

A segment is a run of messages. Messages come into the newest one, which is open; when it has its size the
next message closes it and opens another. Retention removes the oldest closed segments, and never the open
one, so the newest message of a stream is always there, and with it the knowledge which offset is next.

Source: RabbitMQ guide "Streams", data retention.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SEGMENTS_MAX: Final = 10_000  # closed ones of a stream; then the open one grows, whatever its size
ROW_BYTES: Final = 32  # what a message counts beside its body, so that empty ones do not count nothing


class Segment:
    """A run of messages: first <= position <= last."""

    __slots__ = ("body_bytes", "first", "last", "last_ms")

    def __init__(self, first: int, last: int, body_bytes: int, last_ms: int) -> None:
        self.first = first
        self.last = last
        self.body_bytes = body_bytes
        self.last_ms = last_ms  # when the last message came

    @property
    def messages(self) -> int:
        """How many messages it has."""
        return self.last + 1 - self.first

    @property
    def size(self) -> int:
        """What it counts against limits."""
        return self.body_bytes + self.messages * ROW_BYTES


class Segments:
    """All segments of one stream.

    Args:
        last: position of the last message of the stream so far.
        now_ms: the time.
    """

    __slots__ = ("_closed", "_closed_bytes", "_open")

    def __init__(self, last: int, now_ms: int) -> None:
        self._closed: deque[Segment] = deque()  # oldest first
        self._closed_bytes: int = 0  # their sizes
        self._open = Segment(last + 1, last, 0, now_ms)

    @property
    def oldest(self) -> Segment | None:
        """The oldest closed one."""
        return self._closed[0] if self._closed else None

    @property
    def body_bytes(self) -> int:
        """Length of the bodies of all messages."""
        messages = self._open.last + 1 - (self._closed[0].first if self._closed else self._open.first)
        return self.size - messages * ROW_BYTES

    @property
    def size(self) -> int:
        """What all of them count."""
        return self._closed_bytes + self._open.size

    def add(self, body_bytes: int, now_ms: int, segment_bytes: int) -> Segment | None:
        """Add a message.

        Returns:
            the segment that was closed before, if one was.
        """
        full = None
        current = self._open
        if current.size >= segment_bytes and current.messages and len(self._closed) < SEGMENTS_MAX:
            full = current
            self._closed.append(full)
            self._closed_bytes += full.size
            current = self._open = Segment(full.last + 1, full.last, 0, now_ms)
        current.last += 1
        current.body_bytes += body_bytes
        current.last_ms = now_ms
        return full

    def add_run(self, messages: int, body_bytes: int, now_ms: int, segment_bytes: int) -> bool:
        """Add several messages if the open segment has room for all of them.

        Returns:
            False if it has not, and they must be added one by one.
        """
        current = self._open
        if current.size + body_bytes + messages * ROW_BYTES >= segment_bytes:
            return False
        current.last += messages
        current.body_bytes += body_bytes
        current.last_ms = now_ms
        return True

    def remove_oldest(self) -> Segment:
        """Remove the oldest closed segment, which there must be."""
        removed = self._closed.popleft()
        self._closed_bytes -= removed.size
        return removed

    def restore(self, first: int, last: int, body_bytes: int) -> None:
        """Begin with the messages of the store, all of them in the open segment."""
        self._open.first, self._open.last, self._open.body_bytes = first, last, body_bytes

    def restore_closed(self, segment: Segment) -> None:
        """Cut a closed segment off the beginning of the open one; the oldest comes first."""
        self._closed.append(segment)
        self._closed_bytes += segment.size
        self._open.first = segment.last + 1
        self._open.body_bytes = max(0, self._open.body_bytes - segment.body_bytes)
