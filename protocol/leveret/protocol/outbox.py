"""A connection's output: pieces of bytes, joined and written once a turn. HOT.

Joining costs less than handing many small pieces to the kernel, and more than handing over large ones: those
are written as they are, in one call.
"""

from __future__ import annotations

from typing import Final

LARGE_PIECES: Final = 8 * 1024  # bytes on average, from which on pieces are not joined


class Outbox:
    """What waits to be written to one peer.

    Whoever writes first after a flush puts the outbox on the list of those to flush, which all outboxes
    share. The size counts until the bytes have left for the kernel: above `high` consumers of the connection
    get no more deliveries, until it has fallen to half of that.
    """

    __slots__ = ("dirty", "frame_max", "has_written", "high", "is_full", "pieces", "size", "to_flush")

    def __init__(self, to_flush: list[Outbox], high: int) -> None:
        self.to_flush = to_flush
        self.high = high
        self.frame_max: int = 131072
        self.pieces: list[bytes] = []
        self.size: int = 0  # bytes in `pieces` and in what a partial write left over
        self.dirty: bool = False
        self.is_full: bool = False
        self.has_written: bool = False  # anything since somebody set it to False

    def write(self, piece: bytes) -> None:
        """Append whole frames."""
        self.pieces.append(piece)
        self.wrote(len(piece))

    def wrote(self, size: int) -> None:
        """Note that `size` bytes were appended to `pieces`."""
        self.size += size
        self.has_written = True
        if self.size > self.high:
            self.is_full = True
        if not self.dirty:
            self.dirty = True
            self.to_flush.append(self)

    def take(self) -> bytes:
        """Return all that waits, as one."""
        pieces = self.pieces
        self.dirty = False
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    @property
    def has_large_pieces(self) -> bool:
        """Whether to write what waits without joining it; asked when all that was taken has left."""
        return self.size >= LARGE_PIECES * len(self.pieces)

    def take_pieces(self) -> list[bytes]:
        """Return all that waits, as it is."""
        pieces = self.pieces
        self.pieces = []
        self.dirty = False
        return pieces

    def sent(self, size: int) -> bool:
        """Note that bytes have left.

        Returns:
            whether consumers may go on after a pause.
        """
        self.size -= size
        if self.is_full and self.size * 2 <= self.high:
            self.is_full = False
            return True
        return False
