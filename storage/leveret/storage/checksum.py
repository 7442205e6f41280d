"""The CRC-32 that a message's row and a record of the redo log carry. HOT.

zlib-ng computes it with the processor's own instructions, in a sixth of the time that the standard library's
zlib takes for 1 KiB. It is imported when something is first checked: an idle broker does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Crc32 = Callable[[bytes, int], int]

_crc32: Crc32 | None = None


def crc32_function() -> Crc32:
    """Return a function that returns the CRC-32 of bytes, continued from that of what is before them."""
    global _crc32  # bound once
    if _crc32 is None:
        from zlib_ng.zlib_ng import crc32

        _crc32 = crc32
    return _crc32


def checksum_seed(exchange: bytes, routing_key: bytes, properties: bytes) -> int:
    """Return the CRC-32 of everything of a message but its body, which it is continued with."""
    crc32 = crc32_function()
    return crc32(properties, crc32(routing_key, crc32(exchange, 0)))
