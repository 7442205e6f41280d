"""Writes that nobody waits for."""

from __future__ import annotations

import ctypes
import errno
import os
import select
from typing import TYPE_CHECKING

import pytest

from leveret.storage.direct_io import BLOCK_BYTES, DirectIoError, DirectWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITE_MAX = 4 * BLOCK_BYTES
PATIENCE_MS = 20_000


@pytest.fixture
def notified() -> Iterator[int]:
    """An eventfd."""
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=["in memory", "on disk"])
def path(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with blocks."""
    path = (tmp_path if request.param == "in memory" else tmp_path_factory.mktemp("disk")) / "file"
    path.write_bytes(b"." * 8 * BLOCK_BYTES)
    return path


@pytest.fixture
def writer(path: Path, notified: int) -> Iterator[DirectWriter]:
    """A writer of the file."""
    try:
        writer = DirectWriter(path, WRITE_MAX, notified)
    except DirectIoError as error:
        pytest.skip(str(error))
    yield writer
    writer.close()


def wait_for(notified: int) -> None:
    """Wait until the eventfd is added to, and take it back."""
    poll = select.poll()
    poll.register(notified, select.POLLIN)
    assert poll.poll(PATIENCE_MS)
    os.eventfd_read(notified)


def test_what_is_written_is_in_the_file_when_the_eventfd_tells(
    writer: DirectWriter, path: Path, notified: int
) -> None:
    os.eventfd_read(notified)  # from the trial
    writer.write(b"first", BLOCK_BYTES)
    wait_for(notified)
    assert writer.finish()
    assert path.read_bytes()[BLOCK_BYTES : BLOCK_BYTES + 5] == b"first"


def test_the_last_block_is_filled_with_zeros(writer: DirectWriter, path: Path) -> None:
    writer.write(b"x" * (BLOCK_BYTES + 1), 0)
    writer.wait()
    content = path.read_bytes()
    assert content[: BLOCK_BYTES + 1] == b"x" * (BLOCK_BYTES + 1)
    assert content[BLOCK_BYTES + 1 : 2 * BLOCK_BYTES] == bytes(BLOCK_BYTES - 1)
    assert content[2 * BLOCK_BYTES :] == b"." * 6 * BLOCK_BYTES


def test_a_short_write_after_a_long_one_leaves_nothing_of_that(writer: DirectWriter, path: Path) -> None:
    writer.write(b"x" * WRITE_MAX, 0)
    writer.wait()
    writer.write(b"y", 4 * BLOCK_BYTES)
    writer.wait()
    assert path.read_bytes()[4 * BLOCK_BYTES : 5 * BLOCK_BYTES] == b"y" + bytes(BLOCK_BYTES - 1)


def test_nothing_is_finished_that_was_not_begun(writer: DirectWriter) -> None:
    assert not writer.finish()
    writer.wait()


def test_a_write_is_finished_once(writer: DirectWriter, notified: int) -> None:
    os.eventfd_read(notified)  # from the trial
    writer.write(b"x", 0)
    wait_for(notified)
    assert writer.finish()
    assert not writer.finish()


def test_an_error_of_the_kernel_is_told(writer: DirectWriter) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        writer.write(b"x", -BLOCK_BYTES)


def test_closing_waits_for_what_was_begun(writer: DirectWriter, path: Path) -> None:
    writer.write(b"last", 0)
    writer.close()
    writer.close()
    assert path.read_bytes()[:4] == b"last"


def test_what_is_no_file_cannot_be_opened(tmp_path: Path, notified: int) -> None:
    with pytest.raises(FileNotFoundError):
        DirectWriter(tmp_path / "none", WRITE_MAX, notified)


def test_on_a_processor_nobody_tried_it_is_not_there(
    path: Path, notified: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leveret.storage.direct_io._NUMBERS", {})
    with pytest.raises(DirectIoError, match="Linux only"):
        DirectWriter(path, WRITE_MAX, notified)


class BusyDisk:
    """Takes the place of `syscall`: the disk is too busy, once, to take a request or to do it."""

    def __init__(self, writer: DirectWriter, *, at_once: bool) -> None:
        self._writer = writer
        self._call = writer._call
        self._at_once = at_once
        self._is_busy = True

    def __call__(self, number: int, *arguments: object) -> int:
        if self._is_busy and self._at_once and number == self._writer._submit_number:
            self._is_busy = False
            ctypes.set_errno(errno.EAGAIN)
            return -1
        result: int = self._call(number, *arguments)
        if self._is_busy and not self._at_once and number == self._writer._get_number and result == 1:
            self._is_busy = False
            self._writer._event.result = -errno.EAGAIN
            self._writer._request.rw_flags = 8
        return result


def test_a_disk_that_would_keep_us_waiting_refuses(
    writer: DirectWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_call", BusyDisk(writer, at_once=True))
    with pytest.raises(BlockingIOError):
        writer.write(b"x", 0)
    assert not writer.is_busy
    writer.write(b"y", 0)
    writer.wait()
    assert path.read_bytes()[:1] == b"y"


def test_a_write_that_was_taken_is_done_however_long_it_takes(
    writer: DirectWriter, path: Path, notified: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_call", BusyDisk(writer, at_once=False))
    os.eventfd_read(notified)  # from the trial
    writer.write(b"x", BLOCK_BYTES)
    wait_for(notified)
    assert not writer.finish()
    wait_for(notified)
    assert writer.finish()
    assert path.read_bytes()[BLOCK_BYTES : BLOCK_BYTES + 1] == b"x"
