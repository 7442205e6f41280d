"""The redo log: what was recorded comes back after a crash, in order, and nothing else does."""

from __future__ import annotations

import os
import shutil
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.storage.batch import Batch
from leveret.storage.direct_io import BLOCK_BYTES, DirectWriter
from leveret.storage.records import encode_batch
from leveret.storage.redo_log import (
    HEADER_BYTES,
    LOG_BYTES,
    NAME_BYTES,
    RECORD_BATCH_BYTES_MAX,
    RedoLog,
    batches_in,
    log_path,
    make_file,
)
from leveret.storage.sqlite import SqliteStore
from leveret.storage.store import StoreError

from .engines import Content, bodies, declared, define, enqueue, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = Path("leveret.db-redo")
NAME = b"n" * NAME_BYTES


class Image:
    """The file of a log, in memory. Every write is done at once, unless it is to fail."""

    def __init__(self) -> None:
        self.data = bytearray(LOG_BYTES)
        self.failure: OSError | None = None

    def write(self, data: bytes, offset: int) -> None:
        assert offset % BLOCK_BYTES == 0
        assert offset + len(data) <= LOG_BYTES
        self.data[offset : offset + len(data)] = data

    def finish(self) -> bool:
        if self.failure is not None:
            raise self.failure
        return True

    def wait(self) -> None:
        self.finish()

    def close(self) -> None:
        pass

    def found(self, applied: int = 0, name: bytes = NAME) -> list[bytes]:
        return batches_in(bytes(self.data), PATH, name, applied)


@pytest.fixture
def image() -> Image:
    """An empty file."""
    return Image()


@pytest.fixture
def log(image: Image) -> RedoLog:
    """The log in it."""
    return RedoLog(PATH, NAME, image)


class TestRecords:
    """What is found after a crash."""

    def test_batches_come_back_in_their_order(self, image: Image, log: RedoLog) -> None:
        written = [b"one", b"two" * 2000, b"", b"four"]
        for batch in written:
            assert log.record(batch)
        assert image.found() == written

    def test_those_that_are_applied_do_not(self, image: Image, log: RedoLog) -> None:
        for batch in (b"one", b"two", b"three"):
            log.record(batch)
        assert image.found(applied=1) == [b"two", b"three"]
        assert image.found(applied=3) == []

    def test_those_of_another_log_do_not(self, image: Image, log: RedoLog) -> None:
        log.record(b"one")
        assert image.found(name=b"m" * NAME_BYTES) == []

    def test_what_looks_like_a_record_in_a_message_is_none(self, image: Image, log: RedoLog) -> None:
        other = Image()
        RedoLog(PATH, b"m" * NAME_BYTES, other).record(b"forged")
        forged = bytes(other.data[:BLOCK_BYTES])
        log.record(bytes(BLOCK_BYTES - HEADER_BYTES) + forged)
        assert len(image.found()) == 1

    def test_a_record_that_was_being_written_is_not_there(self, image: Image, log: RedoLog) -> None:
        log.record(b"confirmed")
        before = bytes(image.data)
        log.record(b"x" * 3 * BLOCK_BYTES)
        after = bytes(image.data)
        for torn in (BLOCK_BYTES + 512, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES, 4 * BLOCK_BYTES):
            image.data[:] = after[:torn] + before[torn:]
            assert image.found() == [b"confirmed"]

    def test_a_record_that_is_missing_is_an_error(self, image: Image, log: RedoLog) -> None:
        for batch in (b"one", b"two", b"three"):
            log.record(batch)
        image.data[BLOCK_BYTES + HEADER_BYTES] ^= 1
        with pytest.raises(StoreError, match=r"leveret\.db-redo does not continue where its data file ends"):
            image.found()

    def test_a_batch_that_was_applied_without_a_record_leaves_a_gap(self, image: Image, log: RedoLog) -> None:
        log.record(b"one")
        assert log.skip() == 2
        log.record(b"three")
        assert image.found(applied=2) == [b"three"]
        with pytest.raises(StoreError, match="replaced by an older copy"):
            image.found()

    def test_a_file_that_is_too_short_is_an_error(self, image: Image, log: RedoLog) -> None:
        log.record(b"one")
        del image.data[-1]
        with pytest.raises(StoreError, match="damaged"):
            image.found()

    @given(flipped=st.integers(0, 2 * BLOCK_BYTES * 8 - 1))
    def test_no_bit_can_change_unnoticed(self, flipped: int) -> None:
        image = Image()
        log = RedoLog(PATH, NAME, image)
        log.record(b"one" * 1000)
        log.record(b"two" * 1000)
        log.record(b"three")
        before = image.found()
        image.data[flipped // 8] ^= 1 << flipped % 8
        with suppress(StoreError):
            assert image.found() == before  # it was in the padding


class TestRoom:
    """The file is a ring."""

    def test_without_room_nothing_is_recorded(self, image: Image, log: RedoLog) -> None:
        count = 0
        while log.record(b"%d" % count):
            count += 1
        assert count == LOG_BYTES // BLOCK_BYTES
        assert log.last == count
        assert len(image.found()) == count

    def test_what_is_applied_gives_its_room_away(self, image: Image, log: RedoLog) -> None:
        while log.record(b"old"):
            pass
        log.forget(2)
        assert log.record(b"new")
        assert log.record(b"newer")
        assert not log.record(b"newest")
        assert image.found(applied=2)[-2:] == [b"new", b"newer"]

    def test_a_record_lies_in_one_piece(self, image: Image, log: RedoLog) -> None:
        while log.record(b"old"):
            pass
        log.forget(1)
        assert not log.record(b"x" * BLOCK_BYTES)
        log.forget(2)
        assert log.record(b"x" * BLOCK_BYTES)
        assert image.found(applied=2)[-1] == b"x" * BLOCK_BYTES

    def test_a_batch_that_is_too_large_is_not_recorded(self, log: RedoLog) -> None:
        assert not log.record(bytes(RECORD_BATCH_BYTES_MAX + 1))
        assert log.is_empty
        assert log.record(bytes(RECORD_BATCH_BYTES_MAX))
        assert not log.is_empty

    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(["record"] * 3 + ["apply"]), st.integers(1, RECORD_BATCH_BYTES_MAX)),
            max_size=300,
        )
    )
    def test_it_does_what_a_list_does(self, steps: list[tuple[str, int]]) -> None:
        image = Image()
        log = RedoLog(PATH, NAME, image)
        kept: deque[bytes] = deque()
        applied = 0
        for step, size in steps:
            if step == "record":
                batch = size.to_bytes(4, "big") + bytes(size - 4 if size > 4 else 0)
                if log.record(batch):
                    kept.append(batch)
            elif kept:
                done = size % len(kept) + 1
                for _ in range(done):
                    kept.popleft()
                applied += done
                log.forget(applied)
            assert log.is_empty == (not kept)
        assert image.found(applied) == list(kept)


class TestErrors:
    """The disk fails."""

    def test_a_disk_that_is_too_busy_records_nothing(
        self, image: Image, log: RedoLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(data: bytes, offset: int) -> None:
            raise BlockingIOError

        with monkeypatch.context() as patch:
            patch.setattr(image, "write", refuse)
            assert not log.record(b"one")
        assert log.is_empty
        assert log.record(b"two")
        assert image.found() == [b"two"]

    def test_a_write_that_fails_is_an_error_that_says_so(self, image: Image, log: RedoLog) -> None:
        log.record(b"one")
        image.failure = OSError(5, "Input/output error")
        with pytest.raises(StoreError, match=r"cannot write to leveret\.db-redo: Input/output error: check"):
            log.finish()
        with pytest.raises(StoreError, match="Input/output error"):
            log.wait()


class Recorder:
    """A store with a redo log."""

    def __init__(self, path: Path, *, is_new: bool = True) -> None:
        self.path = path
        self.store: SqliteStore = open_store(path)
        self.store.load()
        if is_new:
            define(self.store, declared(1))
        self._notified = os.eventfd(0)
        log = self.store.open_redo_log(self._notified)
        if log is None:
            pytest.skip("no direct I/O here")
        self.log = log

    def record(self, batch: Batch) -> None:
        """Record a batch, and wait until it is on stable storage."""
        assert self.log.record(encode_batch(batch))
        self.log.wait()

    def publish(self, position: int, body: bytes) -> Batch:
        """Record a message."""
        batch = Batch(position)
        batch.enqueue(1, position, [Content(body)])
        self.record(batch)
        return batch

    def crash(self) -> Path:
        """Return a copy of the files as they are at this moment."""
        copy = self.path.with_name("copy.db")
        for suffix in ("", "-wal", "-redo"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        return copy

    def close(self) -> None:
        self.store.close()
        os.close(self._notified)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A store with a queue and a redo log."""
    recorder = Recorder(tmp_path / "leveret.db")
    yield recorder
    recorder.close()


def found(path: Path) -> dict[int, bytes]:
    """Start a store, and return the messages of its queue."""
    store = open_store(path)
    (queue,) = store.load().queues
    messages = bodies(store, 1)
    assert queue.messages == len(messages)
    store.close()
    return messages


class TestStore:
    """A data file with a redo log."""

    def test_what_was_recorded_is_there_after_a_crash(self, recorder: Recorder) -> None:
        recorder.publish(1, b"a")
        recorder.publish(2, b"b")
        copy = recorder.crash()
        assert found(copy) == {1: b"a", 2: b"b"}
        assert found(copy) == {1: b"a", 2: b"b"}

    def test_what_was_settled_is_not(self, recorder: Recorder) -> None:
        recorder.publish(1, b"a")
        recorder.publish(2, b"b")
        settling = Batch(3)
        settling.settle(1, 1, 1)
        recorder.record(settling)
        assert found(recorder.crash()) == {2: b"b"}

    def test_what_was_applied_is_not_applied_again(self, recorder: Recorder) -> None:
        recorder.store.apply(recorder.publish(1, b"a"), recorded=1)
        settling = Batch(2)
        settling.settle(1, 1, 1)
        recorder.record(settling)
        recorder.store.apply(settling, recorded=2)
        recorder.publish(2, b"b")
        assert found(recorder.crash()) == {2: b"b"}

    def test_a_batch_with_nothing_left_in_it_still_says_what_was_recorded(self, recorder: Recorder) -> None:
        batch = recorder.publish(1, b"a")
        settling = Batch(2)
        settling.settle(1, 1, 1)
        recorder.record(settling)
        batch.absorb(settling)
        recorder.store.apply(batch, recorded=2)
        recorder.log.forget(2)
        recorder.publish(2, b"b")  # over the first record
        assert found(recorder.crash()) == {2: b"b"}

    def test_queues_are_there_with_their_messages(self, recorder: Recorder) -> None:
        batch = Batch(1)
        batch.definitions.append(declared(2, "new"))
        batch.enqueue(2, 1, [Content(b"x")])
        recorder.record(batch)
        store = open_store(recorder.crash())
        assert [(queue.name, queue.messages) for queue in store.load().queues] == [("orders", 0), ("new", 1)]
        store.close()

    def test_after_a_crash_the_next_run_has_a_log_of_its_own(self, recorder: Recorder) -> None:
        recorder.publish(1, b"a")
        recorder.publish(2, b"b")
        again = Recorder(recorder.crash(), is_new=False)
        again.publish(3, b"c")
        shutil.copytree(again.path.parent, again.path.parent / "second")
        again.close()
        assert found(again.path.parent / "second" / again.path.name) == {1: b"a", 2: b"b", 3: b"c"}

    def test_after_a_stop_in_order_there_is_none(self, recorder: Recorder) -> None:
        recorder.store.apply(recorder.publish(1, b"a"), recorded=1)
        recorder.log.forget(1)
        recorder.store.close()
        assert not log_path(recorder.path).exists()
        assert found(recorder.path) == {1: b"a"}

    def test_a_stop_with_records_that_are_not_applied_keeps_it(self, recorder: Recorder) -> None:
        recorder.publish(1, b"a")
        recorder.store.close()
        assert log_path(recorder.path).exists()
        assert found(recorder.path) == {1: b"a"}
        assert not log_path(recorder.path).exists()

    def test_transient_messages_that_a_record_settles_are_counted_once(self, recorder: Recorder) -> None:
        spilling = Batch(1)
        spilling.spill(1, 1, Content(b"t"))
        spilling.spill(1, 2, Content(b"u"))
        recorder.store.apply(spilling)
        enqueue(recorder.store, 1, 3, b"a")
        settling = Batch(2)
        settling.settle(1, 1, 1)
        recorder.record(settling)
        assert found(recorder.crash()) == {3: b"a"}

    def test_a_log_that_was_removed_is_done_without(self, recorder: Recorder) -> None:
        enqueue(recorder.store, 1, 1, b"a")
        recorder.publish(2, b"b")
        copy = recorder.crash()
        log_path(copy).unlink()
        assert found(copy) == {1: b"a"}

    def test_an_older_copy_of_the_data_file_is_not_continued(self, recorder: Recorder) -> None:
        older = recorder.crash()
        for number in range(1, 5):
            recorder.store.apply(recorder.publish(number, b"a"), recorded=number)
            recorder.log.forget(number)
        shutil.copy(log_path(recorder.path), log_path(older))
        store = open_store(older)
        with pytest.raises(StoreError, match="replaced by an older copy"):
            store.load()
        store.close()
        log_path(older).unlink()
        assert found(older) == {}

    def test_it_has_the_permissions_of_the_data_file(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"
        open_store(path).close()
        path.chmod(0o640)
        recorder = Recorder(path)
        assert log_path(path).stat().st_mode & 0o777 == 0o640
        recorder.close()

    def test_without_room_for_it_there_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, mode: int) -> None:
            make_file(path, mode)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("leveret.storage.sqlite.make_file", full)
        store = open_store(tmp_path / "leveret.db")
        store.load()
        assert store.open_redo_log(0) is None
        assert not log_path(tmp_path / "leveret.db").exists()
        define(store, declared(1))
        store.close()

    def test_where_the_disk_takes_no_direct_writes_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: DirectWriter, data: bytes, offset: int) -> None:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(DirectWriter, "write", refuse)
        store = open_store(tmp_path / "leveret.db")
        store.load()
        notified = os.eventfd(0)
        assert store.open_redo_log(notified) is None
        assert not log_path(tmp_path / "leveret.db").exists()
        store.close()
        os.close(notified)
