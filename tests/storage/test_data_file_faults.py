"""When the disk fails, or the process is killed: what was confirmed is there, and nothing is made up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from leveret.storage.batch import Batch
from leveret.storage.checkpoint import IDLE_CHECKPOINT_BYTES
from leveret.storage.connections import open_connection
from leveret.storage.sqlite import SqliteStore
from leveret.storage.store import CorruptMessageError, StoreError

from .engines import (
    NO_LIMIT,
    Content,
    SqliteEngine,
    bodies,
    declared,
    define,
    describe,
    enqueue,
    open_store,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tells the number of each batch once `apply` has returned.
WRITE_FOR_EVER = """
import sys
from pathlib import Path
from leveret.storage.batch import Batch
from leveret.storage.changes import QueueDeclared
from leveret.storage.sqlite import SqliteStore
from tests.storage.engines import Content
store = SqliteStore(Path(sys.argv[1]), describe=str)
store.load()
number = 0
while True:
    number += 1
    batch = Batch(number)
    if number == 1:
        batch.definitions.append(QueueDeclared(1, "/", "orders", False, b""))
    batch.enqueue(1, number * 10, [Content(b"%d" % number)] * 10)
    if number > 3:
        for position in range(10):
            batch.settle(1, (number - 3) * 10 + position, len(b"%d" % (number - 3)))
    store.apply(batch)
    print(number, flush=True)
"""


class FailingConnection(sqlite3.Connection):
    """A connection to a disk that fails when told to."""

    failing = False

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        """Fail on commit and on checkpoint."""
        if self.failing and sql.startswith(("COMMIT", "PRAGMA wal_checkpoint")):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)  # type: ignore[arg-type]


class FailingDisk:
    """Hands connections to a store and can make them fail."""

    def __init__(self) -> None:
        self.connections: list[FailingConnection] = []

    def connect(self, path: Path, read_only: bool) -> sqlite3.Connection:
        """Open a connection; the first one is the writer's, the third one copies the log."""
        mode = "ro" if read_only else "rwc"
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            factory=FailingConnection,
        )
        self.connections.append(connection)
        return connection


@pytest.fixture
def disk() -> FailingDisk:
    """A disk that works at first."""
    return FailingDisk()


@pytest.fixture
def store(tmp_path: Path, disk: FailingDisk) -> Iterator[SqliteStore]:
    """A store on it with one queue and one message."""
    store = SqliteStore(tmp_path / "leveret.db", describe=describe, connect=disk.connect)
    store.load()
    define(store, declared(1))
    enqueue(store, 1, 1, b"confirmed")
    yield store
    store.close()


class TestErrors:
    """The first error ends it."""

    def test_a_failed_commit_is_an_error_and_nothing_is_tried_again(
        self, store: SqliteStore, disk: FailingDisk, tmp_path: Path
    ) -> None:
        disk.connections[0].failing = True
        with pytest.raises(StoreError, match=r"cannot write to .*leveret\.db: disk I/O error"):
            enqueue(store, 1, 2, b"lost")
        disk.connections[0].failing = False  # as SQLite does: the next commit would succeed
        with pytest.raises(StoreError, match="the store has stopped: cannot write to"):
            enqueue(store, 1, 3, b"refused")
        with pytest.raises(StoreError, match="stopped"):
            store.load()
        store.close()
        again = open_store(tmp_path / "leveret.db")
        assert again.load().queues[0].messages == 1
        assert bodies(again, 1) == {1: b"confirmed"}
        again.close()

    def test_after_a_failed_commit_the_log_is_not_copied(
        self, store: SqliteStore, disk: FailingDisk, tmp_path: Path
    ) -> None:
        before = (tmp_path / "leveret.db").read_bytes()
        disk.connections[0].failing = True
        with pytest.raises(StoreError):
            enqueue(store, 1, 2, b"lost")
        disk.connections[0].failing = False
        store.checkpoint()
        store.close()
        assert (tmp_path / "leveret.db").read_bytes() == before
        assert (tmp_path / "leveret.db-wal").stat().st_size > 0

    def test_a_full_disk_is_an_error_that_says_so(self, store: SqliteStore, disk: FailingDisk) -> None:
        disk.connections[0].execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match=r"the disk is full: free some space .*\(SQLITE_FULL"):
            enqueue(store, 1, 2, b"x" * 100_000)
        disk.connections[0].execute("PRAGMA max_page_count = 1000000")
        with pytest.raises(StoreError, match="stopped"):
            enqueue(store, 1, 2, b"small")

    def test_an_error_while_copying_the_log_stops_the_store(self, tmp_path: Path, disk: FailingDisk) -> None:
        store = SqliteStore(tmp_path / "leveret.db", describe=describe, connect=disk.connect)
        define(store, declared(1))
        disk.connections[2].failing = True
        enqueue(store, 1, 1, b"x" * IDLE_CHECKPOINT_BYTES)
        store.checkpoint()
        assert store._housekeeper is not None
        store._housekeeper.join(10)
        with pytest.raises(StoreError, match="stopped"):
            enqueue(store, 1, 2, b"refused")
        store.close()

    def test_an_error_at_the_end_is_told_and_nothing_is_lost(self, tmp_path: Path, disk: FailingDisk) -> None:
        path = tmp_path / "leveret.db"
        store = SqliteStore(path, describe=describe, connect=disk.connect)
        define(store, declared(1))
        enqueue(store, 1, 1, b"confirmed")
        disk.connections[2].failing = True
        with pytest.raises(StoreError, match="disk I/O error"):
            store.close()
        store.close()
        again = open_store(path)
        assert bodies(again, 1) == {1: b"confirmed"}
        again.close()

    def test_another_program_that_holds_the_file_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"

        def impatient(path: Path, read_only: bool) -> sqlite3.Connection:
            connection = open_connection(path, read_only)
            connection.execute("PRAGMA busy_timeout = 0")
            return connection

        store = SqliteStore(path, describe=describe, connect=impatient)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another program is writing to it"):
                define(store, declared(1))
        store.close()

    def test_a_batch_that_cannot_be_read_confirms_nothing(self, store: SqliteStore, tmp_path: Path) -> None:
        batch = Batch(1)
        batch.enqueue(1, 2, [Content(b"lost"), Content(cast("bytes", None))])  # a bug
        with pytest.raises(StoreError, match="TypeError"):
            store.apply(batch)
        with pytest.raises(StoreError, match=r"stopped.*TypeError"):
            enqueue(store, 1, 2, b"refused")
        store.close()
        again = open_store(tmp_path / "leveret.db")
        assert bodies(again, 1) == {1: b"confirmed"}
        again.close()

    def test_a_message_whose_properties_cannot_be_described_is_stored(self, tmp_path: Path) -> None:
        def fail(_: bytes) -> str:
            raise ZeroDivisionError

        store = SqliteStore(tmp_path / "leveret.db", describe=fail, describe_arguments=fail)
        define(store, declared(1))
        enqueue(store, 1, 1, b"a")
        assert bodies(store, 1) == {1: b"a"}
        store.close()


class TestKill:
    """The process ends without a word."""

    @pytest.mark.parametrize("lines", [1, 2, 7, 40])
    def test_every_batch_that_was_applied_survives_a_kill_and_none_is_half_there(
        self, tmp_path: Path, lines: int
    ) -> None:
        path = tmp_path / "leveret.db"
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            told += process.stdout.readlines()
        applied = int(told[-1])
        store = open_store(path)
        (queue,) = store.load().queues
        found = bodies(store, 1)
        newest = int(found[queue.last_position])
        assert newest in (applied, applied + 1)  # the last one may have ended before it could be told
        numbers = range(max(1, newest - 2), newest + 1)
        assert found == {number * 10 + n: b"%d" % number for number in numbers for n in range(10)}
        assert queue.messages == len(found)
        store.close()

    def test_a_log_that_ends_in_the_middle_of_a_batch_loses_that_batch_only(
        self, sqlite_engine: SqliteEngine, tmp_path: Path
    ) -> None:
        define(sqlite_engine.store, declared(1))
        enqueue(sqlite_engine.store, 1, 1, b"first")
        log = tmp_path / "leveret.db-wal"
        complete = log.stat().st_size
        enqueue(sqlite_engine.store, 1, 2, *[b"x" * 5000] * 5)
        torn = tmp_path / "torn.db"
        torn.write_bytes((tmp_path / "leveret.db").read_bytes())
        (tmp_path / "torn.db-wal").write_bytes(log.read_bytes()[: complete + 12_345])
        store = open_store(torn)
        assert store.load().queues[0].messages == 1
        assert bodies(store, 1) == {1: b"first"}
        store.close()


class TestCorruption:
    """A disk that gives back other bytes."""

    @pytest.fixture
    def path(self, sqlite_engine: SqliteEngine) -> Path:
        """A closed data file with three messages."""
        define(sqlite_engine.store, declared(1))
        batch = Batch(1)
        batch.enqueue(
            1,
            1,
            [
                Content(b"body of the first", routing_key="first key", properties=b"first properties"),
                Content(b"body of the second", routing_key="second key", properties=b"second properties"),
                Content(b"\x00 body of the third" * 10_000),
            ],
        )
        sqlite_engine.store.apply(batch)
        sqlite_engine.close()
        return sqlite_engine.path

    @pytest.mark.parametrize("where", [b"body of the second", b"second key", b"second properties"])
    @pytest.mark.parametrize("bit", [0, 7])
    def test_a_changed_bit_is_found_on_read(self, path: Path, where: bytes, bit: int) -> None:
        data = bytearray(path.read_bytes())
        data[data.index(where) + 3] ^= 1 << bit
        path.write_bytes(data)
        store = open_store(path)
        store.load()
        with pytest.raises(
            CorruptMessageError, match="position 2 of queue 'orders' in vhost '/' is damaged"
        ) as caught:
            store.read(1, 0, NO_LIMIT, 10, NO_LIMIT)
        assert (caught.value.queue_id, caught.value.position) == (1, 2)
        assert [m.position for m in store.read(1, 0, 1, 10, NO_LIMIT)] == [1]
        assert [m.position for m in store.read(1, 2, 3, 10, NO_LIMIT)] == [3]
        settle(store, 1, 2, body_bytes=18)
        assert list(bodies(store, 1)) == [1, 3]
        store.close()

    def test_a_changed_page_of_a_long_body_is_found_on_read(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[data.rindex(b"third")] ^= 1
        path.write_bytes(data)
        store = open_store(path)
        store.load()
        with pytest.raises(CorruptMessageError, match="position 3"):
            store.read(1, 2, 3, 10, NO_LIMIT)
        store.close()

    def test_a_value_of_another_type_is_found_on_read(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE messages SET properties = 5 WHERE body = 'body of the second'")
            connection.commit()
        store = open_store(path)
        store.load()
        with pytest.raises(CorruptMessageError, match="position 2"):
            store.read(1, 0, NO_LIMIT, 10, NO_LIMIT)
        store.close()

    def test_pages_that_cannot_be_read_stop_reading_of_that_queue_only(
        self, sqlite_engine: SqliteEngine, tmp_path: Path
    ) -> None:
        define(sqlite_engine.store, declared(1), declared(2, "other"))
        enqueue(sqlite_engine.store, 1, 1, *[b"x" * 5000] * 50)
        enqueue(sqlite_engine.store, 2, 1, b"fine")
        sqlite_engine.close()
        with closing(sqlite3.connect(sqlite_engine.path)) as connection:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        data = bytearray(sqlite_engine.path.read_bytes())
        middle = data.index(b"x" * 5000, len(data) * 3 // 4) // page_bytes * page_bytes
        data[middle : middle + page_bytes] = bytes(page_bytes)
        sqlite_engine.path.write_bytes(data)
        store = open_store(sqlite_engine.path)
        store.load()
        with pytest.raises(StoreError, match=r"cannot read queue 1 of .*: it is damaged"):
            bodies(store, 1)
        assert bodies(store, 2) == {1: b"fine"}
        enqueue(store, 2, 2, b"still works")
        store.close()

    def test_a_page_of_zeros_is_an_error_and_not_an_empty_queue(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            (root,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'messages'"
            ).fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        data = bytearray(path.read_bytes())
        data[(root - 1) * page_bytes : root * page_bytes] = bytes(page_bytes)
        path.write_bytes(data)
        store = open_store(path)
        with pytest.raises(StoreError, match=r"it is damaged: restore a backup"):
            store.load()
        store.close()
