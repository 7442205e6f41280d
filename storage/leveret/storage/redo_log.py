"""The redo log: small batches are on stable storage here before there are rows of them. HOT.

Theory of operation. What makes a single persistent message dear is not its row but the commit: a transaction
writes several pages, and a thread has to wait for the disk. So a small batch is encoded into one record
(records.py), which one direct write (direct_io.py) puts on stable storage, and its rows are made some
milliseconds later, together with those of the batches that came after it; a message that was consumed by then
never becomes a row. The data file tells up to which record it has them (`redo_applied`), so after a crash the
records behind that one are applied again, which is why the log is called that.

The file has a fixed size and is used as a ring of blocks. A record begins with a block and lies in one
piece: a header with the log's own random name, the record's number and a checksum, then the batch. Numbers
begin with 1 and have no gaps, and a record is only written when the one before it is on stable storage. So if
a record is missing and a later one is there, the file was damaged, and nobody may start as if nothing had
happened. If the last one is damaged it was being written when the power went, and nobody had a confirm. A
batch that goes into the data file past the log takes a number, too: so records can never be applied to an
older copy of the data file.

A log lives as long as the store is open: a stop in order leaves none, and a start begins a new one once it
is needed.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from leveret.storage.checksum import crc32_function
from leveret.storage.direct_io import BLOCK_BYTES
from leveret.storage.records import DamagedRecordError, decode_batch
from leveret.storage.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from leveret.storage.batch import Batch

LOG_BYTES: Final = 4 * 1024 * 1024
RECORD_BYTES_MAX: Final = 64 * 1024
NAME_BYTES: Final = 16
SUFFIX: Final = "-redo"  # behind the name of the data file
_HEADER: Final = Struct(f">8s{NAME_BYTES}sQI")  # magic, name of the log, number, bytes of the batch
_CHECKSUM: Final = Struct(">I")  # CRC-32 of the header and the batch
HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
RECORD_BATCH_BYTES_MAX: Final = RECORD_BYTES_MAX - HEADER_BYTES
_MAGIC: Final = b"LVRTREDO"
_BLOCKS: Final = LOG_BYTES // BLOCK_BYTES


class Writer(Protocol):
    """Puts bytes on stable storage without waiting: a `DirectWriter`, or a fake in tests."""

    def write(self, data: bytes, offset: int) -> None:
        """See `DirectWriter.write`."""

    def finish(self) -> bool:
        """See `DirectWriter.finish`."""

    def wait(self) -> None:
        """See `DirectWriter.wait`."""

    def close(self) -> None:
        """See `DirectWriter.close`."""


class RedoLog:
    """Records batches, one at a time. Used by one thread.

    Args:
        path: the file, only named in errors.
        name: of this log, `NAME_BYTES` that no other log has.
        writer: of the file, which is `LOG_BYTES` long.
    """

    def __init__(self, path: Path, name: bytes, writer: Writer) -> None:
        self._path = path
        self._name = name
        self._writer = writer
        self._next_block = 0
        self._kept: deque[tuple[int, int]] = deque()  # number and first block of the records still needed
        self.last: int = 0  # number of the last record, or batch without one

    @property
    def is_empty(self) -> bool:
        """Whether the data file has the rows of all records."""
        return not self._kept

    def record(self, batch: bytes) -> bool:
        """Begin to write an encoded batch as the next record.

        Returns:
            whether there is room for it, and the disk takes it without keeping us waiting.

        Raises:
            StoreError: it cannot be written.
        """
        size = HEADER_BYTES + len(batch)
        blocks = -(-size // BLOCK_BYTES)
        start = self._place(blocks) if size <= RECORD_BYTES_MAX else None
        if start is None:
            return False
        header = _HEADER.pack(_MAGIC, self._name, self.last + 1, len(batch))
        crc32 = crc32_function()
        checksum = _CHECKSUM.pack(crc32(batch, crc32(header, 0)))
        try:
            self._writer.write(b"".join((header, checksum, batch)), start * BLOCK_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._failure(error) from error
        self.last += 1
        self._kept.append((self.last, start))
        self._next_block = start + blocks
        return True

    def _place(self, blocks: int) -> int | None:
        """Return where so many blocks in a row are free."""
        if not self._kept:
            return 0
        oldest = self._kept[0][1]
        start = self._next_block
        if start > oldest:
            if start + blocks <= _BLOCKS:
                return start
            start = 0
        return start if start + blocks <= oldest else None

    def skip(self) -> int:
        """Return the number of a batch that is applied without a record, when all before it are written."""
        self.last += 1
        return self.last

    def finish(self) -> bool:
        """Tell whether the last record is on stable storage by now.

        Raises:
            StoreError: it could not be written.
        """
        try:
            return self._writer.finish()
        except OSError as error:
            raise self._failure(error) from error

    def wait(self) -> None:
        """Wait until the last record is on stable storage.

        Raises:
            StoreError: it could not be written.
        """
        try:
            self._writer.wait()
        except OSError as error:
            raise self._failure(error) from error

    def forget(self, number: int) -> None:
        """Give the room of records up to a number free: the data file has their rows."""
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()

    def close(self) -> None:
        """Release the file. Twice is harmless."""
        self._writer.close()

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write to {self._path}: {error.strerror}: check the disk, then start again")


def log_path(data: Path) -> Path:
    """Return where the redo log of a data file is."""
    return data.with_name(data.name + SUFFIX)


def make_file(path: Path, mode: int) -> None:
    """Make the file of an empty log, and put it on stable storage with all its blocks.

    Args:
        path: where; what is there is overwritten.
        mode: the permissions of the data file.

    Raises:
        OSError: there is no room for it, or it cannot be written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.fchmod(file, mode)
        zeros = bytes(RECORD_BYTES_MAX)
        for offset in range(0, LOG_BYTES, RECORD_BYTES_MAX):
            _write_all(file, zeros, offset)
        os.truncate(file, LOG_BYTES)
        os.fsync(file)
    finally:
        os.close(file)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data = data[written:]
        offset += written


def remove_file(path: Path) -> None:
    """Remove the file of a log that is not needed any more, if there is one."""
    with suppress(OSError):  # what stays is recognised by its name as not needed, and written over
        path.unlink()


def read_file(path: Path) -> bytes | None:
    """Return what is in the file of a log; None if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def batches_in(data: bytes, path: Path, name: bytes, applied: int) -> list[bytes]:
    """Return the encoded batches that the data file does not have, oldest first.

    Args:
        data: what is in the file of the log.
        path: of that file.
        name: of the log that the data file was used with.
        applied: number of the last record that the data file has.

    Raises:
        StoreError: records are missing.
    """
    found: dict[int, bytes] = {}
    for start in range(0, len(data), BLOCK_BYTES):
        record = _record_at(data, start, name)
        if record is not None and record[0] > applied:
            found[record[0]] = record[1]
    batches: list[bytes] = []
    while (batch := found.pop(applied + len(batches) + 1, None)) is not None:
        batches.append(batch)
    if found or len(data) != LOG_BYTES:
        raise StoreError(
            f"{path} does not continue where its data file ends: it is damaged, or the data file was replaced"
            " by an older copy. Restore both together, or remove it to begin with what the data file has"
        )
    return batches


def merge(batches: list[bytes], path: Path) -> Batch:
    """Return what encoded batches in a row come to; at least one.

    Raises:
        StoreError: they cannot be read by this version.
    """
    try:
        merged = decode_batch(batches[0])
        for batch in batches[1:]:
            merged.absorb(decode_batch(batch))
    except DamagedRecordError as error:
        raise StoreError(
            f"{path} cannot be read: {error}. If a newer version wrote it, start that one again"
        ) from error
    return merged


def _record_at(data: bytes, start: int, name: bytes) -> tuple[int, bytes] | None:
    """Return number and batch of the record that begins somewhere; None if there is none of this log."""
    if data[start : start + len(_MAGIC)] != _MAGIC or start + HEADER_BYTES > len(data):
        return None
    _, its_name, number, size = _HEADER.unpack_from(data, start)
    if its_name != name or size > RECORD_BATCH_BYTES_MAX:
        return None
    begin = start + HEADER_BYTES
    batch = data[begin : begin + size]
    (checksum,) = _CHECKSUM.unpack_from(data, start + _HEADER.size)
    crc32 = crc32_function()
    if crc32(batch, crc32(data[start : start + _HEADER.size], 0)) != checksum:
        return None
    return number, batch
