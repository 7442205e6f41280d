"""Many equal frames at once: runs of publishes to send, runs of deliveries to expect.

A run is a table. All rows have the bytes of one template, except for counters that go up by one from row to
row: the message's number (at the start of its body, and at the end too if there is room) and, in deliveries,
the delivery tag. The table is built column by column. The template is repeated, and each byte of a counter is
one strided assignment, `run[offset::row_bytes] = column`, where the column of the lowest byte is a slice of a
long 0, 1, ... 255, 0, 1, ... That is one loop in C for each byte that changes, about 20 ns a row where a
loop in Python takes a microsecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.protocol.content import FRAME_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN_MAX: Final = 32768  # rows in one run
COUNTER_BYTES: Final = 8
NUMBER_TWICE_MIN: Final = 24  # bodies of this size have the number at their end as well

# The two lowest bytes of consecutive numbers, long enough for a run from any start.
_LOWEST: Final = bytes(range(256)) * (RUN_MAX // 256 + 1)
_SECOND: Final = b"".join(bytes([each]) * 256 for each in range(256)) + b"".join(
    bytes([each]) * 256 for each in range(RUN_MAX // 256)
)
_HIGHER: Final = 5  # bytes of a counter, from the lowest, that are filled in: a million million


class Rows:
    """A template and where its counters are.

    Args:
        template: the bytes of one row; what stands in the counters' places does not matter.
        numbers: for each copy of the message's number, the offsets of its 8 bytes, highest first.
        tags: the same for the delivery tag.
    """

    __slots__ = ("_counters", "_number_places", "_pieces", "_tag_places", "row", "row_bytes")

    def __init__(
        self, template: bytes, numbers: Sequence[Sequence[int]], tags: Sequence[Sequence[int]] = ()
    ) -> None:
        blank = bytearray(template)
        copies = [(False, list(offsets)) for offsets in numbers] + [(True, list(offsets)) for offsets in tags]
        self._counters: list[tuple[bool, int, int]] = []  # whether it is of the tag; which byte; offset
        for is_tag, offsets in copies:
            for power, offset in enumerate(reversed(offsets)):
                blank[offset] = 0
                if power < _HIGHER:
                    self._counters.append((is_tag, power, offset))
        self.row = bytes(blank)
        self.row_bytes = len(blank)
        # For a single row: its pieces, and which of them are counters. None if a counter is not in one piece.
        self._pieces: list[bytes] = []
        self._number_places: list[int] = []
        self._tag_places: list[int] = []
        self._cut(copies)

    def _cut(self, copies: list[tuple[bool, list[int]]]) -> None:
        if any(offsets[-1] - offsets[0] != COUNTER_BYTES - 1 for _is_tag, offsets in copies):
            return
        end = 0
        for is_tag, offsets in sorted(copies, key=lambda copy: copy[1]):
            self._pieces += [self.row[end : offsets[0]], b""]
            (self._tag_places if is_tag else self._number_places).append(len(self._pieces) - 1)
            end = offsets[-1] + 1
        self._pieces.append(self.row[end:])

    def build(self, count: int, number: int, tag: int = 0) -> bytes | bytearray:
        """Return `count` rows (at most RUN_MAX), the first with this number and this tag."""
        if count == 1:
            return self.one(number, tag)
        run = bytearray(self.row) * count
        stride = self.row_bytes
        for is_tag, power, offset in self._counters:
            first = tag if is_tag else number
            if power == 0:
                first &= 255
                run[offset::stride] = _LOWEST[first : first + count]
            elif power == 1:
                first &= 65535
                run[offset::stride] = _SECOND[first : first + count]
            elif first + count > 1 << 8 * power:  # else it stays zero
                run[offset::stride] = _constant(first, count, power)
        return run

    def one(self, number: int, tag: int = 0) -> bytes:
        """Return the row with this number and tag."""
        pieces = self._pieces
        if not pieces:
            run = bytearray(self.row)
            for is_tag, power, offset in self._counters:
                run[offset] = (tag if is_tag else number) >> 8 * power & 255
            return bytes(run)
        shown = number.to_bytes(COUNTER_BYTES, "big")
        for place in self._number_places:
            pieces[place] = shown
        for place in self._tag_places:
            pieces[place] = tag.to_bytes(COUNTER_BYTES, "big")
        return b"".join(pieces)


def _constant(first: int, count: int, power: int) -> bytes:
    """Return the column of a byte that changes at most once in a run."""
    before = min(count, 65536 - (first & 65535))
    column = bytes([first >> 8 * power & 255]) * before
    return column + bytes([(first + count - 1) >> 8 * power & 255]) * (count - before)


def body_template(body_bytes: int, stream: int) -> bytes:
    """Return a body without its number; bodies of other streams differ from it.

    Args:
        body_bytes: at least 8.
        stream: number of the publisher.
    """
    filler = bytes((7 * each + 31 * stream) & 255 for each in range(256))
    rest = stream.to_bytes(2, "big") + filler * (body_bytes // 256 + 1)
    return (bytes(COUNTER_BYTES) + rest)[:body_bytes]


def body_rows(body_bytes: int, stream: int) -> Rows:
    """Return the rows that are bodies alone, without frames."""
    numbers = [range(start, start + COUNTER_BYTES) for start in _number_offsets(body_bytes)]
    return Rows(body_template(body_bytes, stream), numbers)


def content_rows(frames: bytes, content: int, body_bytes: int, tag: int | None = None) -> Rows:
    """Return the rows for messages that travel as these frames do.

    Args:
        frames: a method frame, a content header frame, body frames.
        content: offset of the header frame.
        body_bytes: size of the body.
        tag: offset of the delivery tag, if there is one.
    """
    numbers = [
        [_in_frames(frames, content, each) for each in range(start, start + COUNTER_BYTES)]
        for start in _number_offsets(body_bytes)
    ]
    tags = [] if tag is None else [range(tag, tag + COUNTER_BYTES)]
    return Rows(frames, numbers, tags)


def _number_offsets(body_bytes: int) -> list[int]:
    return [0, body_bytes - COUNTER_BYTES] if body_bytes >= NUMBER_TWICE_MIN else [0]


def _in_frames(frames: bytes, content: int, offset: int) -> int:
    """Return where the byte at `offset` of the body is; its frames may be cut anywhere."""
    at = content + FRAME_OVERHEAD + _payload_bytes(frames, content)
    while offset >= _payload_bytes(frames, at):
        offset -= _payload_bytes(frames, at)
        at += FRAME_OVERHEAD + _payload_bytes(frames, at)
    return at + 7 + offset


def _payload_bytes(frames: bytes, at: int) -> int:
    return int.from_bytes(frames[at + 3 : at + 7], "big")
