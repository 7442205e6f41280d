"""What the store does beside the commits: it copies the log, and removes what was removed in the large."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import pytest

from leveret.storage import checkpoint, removal, sqlite
from leveret.storage.batch import Batch
from leveret.storage.changes import QueueDeleted
from leveret.storage.checkpoint import IDLE_CHECKPOINT_BYTES, Checkpointer
from leveret.storage.sqlite import SqliteStore
from leveret.storage.turns import TurnLock

from .engines import Content, SqliteEngine, bodies, declared, define, enqueue, open_store, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1024 * 1024


def count_rows(path: Path) -> int:
    """Return how many message rows the file has, removed ones too."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
        return int(count)


def purge(store: SqliteStore, count: int) -> None:
    """Purge messages with bodies of one byte from position 1 on."""
    batch = Batch(1)
    batch.purge(1, 1, count, count, count)
    store.apply(batch)


class TestLargeRemovals:
    """Many rows go later, but nobody sees them."""

    @pytest.fixture
    def idle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep the housekeeper from working."""
        monkeypatch.setattr(SqliteStore, "_wake_if_needed", lambda *_: None)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        """A store with a queue of 5,000 messages."""
        store = open_store(tmp_path / "leveret.db")
        define(store, declared(1))
        enqueue(store, 1, 1, *[b"x"] * 5000)
        yield store
        store.close()

    @pytest.mark.usefixtures("idle")
    def test_a_large_purge_only_writes_down_the_range(self, store: SqliteStore, tmp_path: Path) -> None:
        purge(store, 4998)
        assert list(bodies(store, 1)) == [4999, 5000]
        assert count_rows(tmp_path / "leveret.db") == 5000
        with closing(sqlite3.connect(tmp_path / "leveret.db")) as connection:
            assert connection.execute("SELECT count(*) FROM queue_messages").fetchone() == (2,)
            assert connection.execute("SELECT messages, body_bytes FROM list_queues").fetchone() == (2, 2)

    @pytest.mark.usefixtures("idle")
    def test_a_start_does_not_see_what_is_still_to_be_removed(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        batch = Batch(1)
        batch.purge(1, 1, 2500, 2500, 2500)
        batch.purge(1, 2502, 5000, 2499, 2499)
        store.apply(batch)
        store.close()
        again = open_store(tmp_path / "leveret.db")
        (queue,) = again.load().queues
        again.close()
        assert (queue.first_position, queue.last_position, queue.messages) == (2501, 2501, 1)
        assert count_rows(tmp_path / "leveret.db") == 5000

    @pytest.mark.usefixtures("idle")
    def test_deleting_what_is_left_of_a_purged_queue_is_quick_too(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        purge(store, 4999)
        define(store, QueueDeleted(1))
        assert count_rows(tmp_path / "leveret.db") == 5000
        store.close()
        again = open_store(tmp_path / "leveret.db")
        assert again.load().queues == []
        define(again, declared(1))
        enqueue(again, 1, 1, b"new")
        assert bodies(again, 1) == {1: b"new"}
        again.close()

    def test_the_rows_go_in_the_end(self, store: SqliteStore, tmp_path: Path) -> None:
        purge(store, 5000)
        while count_rows(tmp_path / "leveret.db"):  # commits go on beside it
            enqueue(store, 1, 10_000, b"y")
            purge_one = Batch(1)
            purge_one.settle(1, 10_000, 1)
            store.apply(purge_one)
        store.close()
        assert count_rows(tmp_path / "leveret.db") == 0

    def test_a_start_goes_on_with_it(
        self, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "_wake_if_needed", lambda *_: None)
            purge(store, 5000)
            store.close()
        again = open_store(tmp_path / "leveret.db")
        again.load()
        assert again._housekeeper is not None
        while count_rows(tmp_path / "leveret.db"):
            again._housekeeper.join(0.001)
        again.close()

    def test_messages_of_a_transient_queue_are_removed_by_a_start_however_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removal, "ROWS_A_TIME", 100)
        store = open_store(tmp_path / "leveret.db")
        define(store, declared(2))
        batch = Batch(1)
        for message in range(1, 500):
            batch.spill(1, message, Content(b"x"))
            batch.spill(2, message, Content(b"x"))
            batch.spill(3, message, Content(b"x"))
        store.apply(batch)
        store.close()
        again = open_store(tmp_path / "leveret.db")
        assert again.load().queues[0].messages == 0
        assert bodies(again, 1) == bodies(again, 2) == bodies(again, 3) == {}
        assert again._housekeeper is not None
        while count_rows(tmp_path / "leveret.db"):
            again._housekeeper.join(0.001)
        again.close()


def log_number(path: Path) -> int:
    """Return how often the log was begun, which its header tells."""
    header = path.with_name(f"{path.name}-wal").read_bytes()[:16]
    return int.from_bytes(header[12:16], "big")


def write_until_the_log_begins_anew(engine: SqliteEngine) -> None:
    """Enqueue and settle messages; fail if the log becomes much longer than it should."""
    number = log_number(engine.path)
    position = 1_000_000
    while log_number(engine.path) == number:
        enqueue(engine.store, 1, position, b"x" * 50_000)
        settle(engine.store, 1, position, body_bytes=50_000)
        position += 1
        assert engine.path.with_name("leveret.db-wal").stat().st_size < 8 * MIB


class TestCheckpoints:
    """The log is copied beside the commits."""

    @pytest.fixture
    def short_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let happen early what would happen after many megabytes."""
        monkeypatch.setattr(sqlite, "CHECKPOINT_BYTES", 256 * 1024)
        monkeypatch.setattr(checkpoint, "LAST_PASS_BYTES", 64 * 1024)

    @pytest.mark.usefixtures("short_log")
    def test_the_log_begins_anew_under_load(self, sqlite_engine: SqliteEngine) -> None:
        define(sqlite_engine.store, declared(1))
        write_until_the_log_begins_anew(sqlite_engine)
        write_until_the_log_begins_anew(sqlite_engine)

    @pytest.mark.usefixtures("short_log")
    def test_the_log_begins_anew_while_somebody_reads_all_the_time(self, sqlite_engine: SqliteEngine) -> None:
        store = sqlite_engine.store
        define(store, declared(1))
        enqueue(store, 1, 1, *[b"x" * 1000] * 1000)
        is_done = threading.Event()

        def read() -> None:
            while not is_done.is_set():
                store.read(1, 0, 1000, 1000, MIB)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(6):
                write_until_the_log_begins_anew(sqlite_engine)
        finally:
            is_done.set()
            reader.join()

    def test_a_checkpoint_is_done_when_asked_for(self, sqlite_engine: SqliteEngine) -> None:
        define(sqlite_engine.store, declared(1))
        enqueue(sqlite_engine.store, 1, 1, b"x" * IDLE_CHECKPOINT_BYTES)
        before = sqlite_engine.path.stat().st_size
        sqlite_engine.store.checkpoint()
        store = sqlite_engine.store
        assert isinstance(store, SqliteStore)
        assert store._housekeeper is not None
        while sqlite_engine.path.stat().st_size == before:
            store._housekeeper.join(0.001)

    def test_a_little_is_not_worth_a_checkpoint(self, sqlite_engine: SqliteEngine) -> None:
        define(sqlite_engine.store, declared(1))
        sqlite_engine.store.checkpoint()
        assert isinstance(sqlite_engine.store, SqliteStore)
        assert sqlite_engine.store._housekeeper is None

    @pytest.mark.usefixtures("short_log")
    def test_a_reader_elsewhere_that_does_not_end_stops_nothing(self, sqlite_engine: SqliteEngine) -> None:
        store = sqlite_engine.store
        define(store, declared(1))
        with closing(sqlite3.connect(sqlite_engine.path, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM queues").fetchall()
            for n in range(10):
                enqueue(store, 1, n + 1, b"x" * MIB)
            connection.execute("COMMIT")
        assert len(bodies(store, 1)) == 10


class Log:
    """A log in place of SQLite's: commits append, and one that finds it copied in full begins it anew."""

    def __init__(self) -> None:
        self.frames = 0
        self.copied = 0
        self.passes: list[str] = []
        self.is_exclusive = False
        self.commit: Callable[[], None] | None = None  # what goes on beside a pass

    def execute(self, _: str) -> Log:
        """Run a pass."""
        assert self.is_exclusive or self.copied < self.frames, "this is the race of the WAL-reset bug"
        self.passes.append("exclusive" if self.is_exclusive else "beside")
        end = self.frames
        if self.commit is not None and not self.is_exclusive:
            self.commit()
        self.copied = end
        return self

    def fetchone(self) -> None:
        """Nobody looks at the result."""


class BusyWriter(threading.Event):
    """Commits whenever somebody waits for a commit."""

    def __init__(self, commit: Callable[[], None]) -> None:
        super().__init__()
        self.commit = commit

    def wait(self, timeout: float | None = None) -> bool:
        """Commit."""
        self.commit()
        return True


class TestPasses:
    """The order of things in a checkpoint."""

    def make(self, log: Log) -> Checkpointer:
        """Return a checkpointer of a log that notes what runs alone."""

        class Exclusive(nullcontext[None]):
            def __enter__(self) -> None:
                log.is_exclusive = True

            def __exit__(self, *_: object) -> None:
                log.is_exclusive = False

        return Checkpointer(log, Exclusive)  # type: ignore[arg-type]

    def commit(self, log: Log, checkpointer: Checkpointer, wal_bytes: int) -> None:
        """Append to the log."""
        log.frames, log.copied = (0, 0) if log.copied == log.frames else (log.frames, log.copied)
        log.frames += wal_bytes
        checkpointer.committed(wal_bytes)

    def test_much_is_copied_beside_the_commits_and_the_rest_alone(self) -> None:
        log = Log()
        checkpointer = self.make(log)
        self.commit(log, checkpointer, 20 * MIB)
        log.commit = partial(self.commit, log, checkpointer, 1000)
        checkpointer.run()
        assert log.passes == ["beside", "exclusive"]
        assert checkpointer.pending_bytes == 0

    def test_without_a_commit_since_the_last_pass_the_rest_is_copied_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint, "COMMIT_WAIT_S", 0)
        log = Log()
        checkpointer = self.make(log)
        self.commit(log, checkpointer, 20 * MIB)
        log.commit = partial(self.commit, log, checkpointer, 20 * MIB)
        checkpointer.run()
        assert log.passes == ["beside", "exclusive"]

    def test_a_little_is_copied_alone(self) -> None:
        log = Log()
        checkpointer = self.make(log)
        self.commit(log, checkpointer, 1000)
        checkpointer.run()
        assert log.passes == ["exclusive"]

    def test_no_pass_begins_beside_commits_while_the_log_is_copied_in_full(self) -> None:
        log = Log()
        checkpointer = self.make(log)
        for _ in range(3):
            self.commit(log, checkpointer, 2 * MIB)
            checkpointer.run()
            checkpointer.run()
        assert log.passes == ["beside"] * 3

    def test_when_commits_are_as_fast_as_the_copying_it_ends_all_the_same(self) -> None:
        log = Log()
        checkpointer = self.make(log)
        self.commit(log, checkpointer, 20 * MIB)
        log.commit = partial(self.commit, log, checkpointer, 20 * MIB)
        checkpointer._has_committed = BusyWriter(log.commit)
        checkpointer.run()
        assert log.passes == ["beside", "beside", "exclusive"]
        assert log.copied == log.frames

    def test_a_stopped_checkpointer_copies_nothing(self) -> None:
        log = Log()
        checkpointer = self.make(log)
        self.commit(log, checkpointer, 20 * MIB)
        checkpointer.stop()
        checkpointer.run()
        assert log.passes == []


def test_who_waits_for_a_turn_is_next() -> None:
    lock = TurnLock()
    turns: list[str] = []

    def other() -> None:
        with lock:
            turns.append("other")

    thread = threading.Thread(target=other)
    with lock:
        thread.start()
        while not lock.is_awaited:
            thread.join(0.001)
        turns.append("this")
    with lock:
        turns.append("this again")
    thread.join()
    assert turns == ["this", "other", "this again"]
