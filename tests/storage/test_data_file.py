"""The data file: what opening it refuses, and what people see in it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from leveret.storage.batch import Batch
from leveret.storage.changes import Bound, ExchangeDeclared
from leveret.storage.connections import set_up_writer
from leveret.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from leveret.storage.sqlite import SqliteStore
from leveret.storage.store import NewerSchemaError, NotAStoreError, StoreError, StoreLockedError

from .engines import Content, SqliteEngine, bodies, declared, define, enqueue, open_store, settle, spill

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD = """
import sys
from pathlib import Path
from leveret.storage.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), describe=str)
print("open", flush=True)
sys.stdin.read()
"""


WITHOUT_LOCKS = """
import sys
from pathlib import Path
from threading import Thread
from leveret.storage.batch import Batch
from leveret.storage.connections import do_without_locks
from tests.storage.engines import Content, declared, define, enqueue, open_store, read
assert do_without_locks()
store = open_store(Path(sys.argv[1]))
store.load()
define(store, declared(1))
writer = Thread(target=lambda: [enqueue(store, 1, first, b"x", b"y") for first in range(1, 400, 2)])
writer.start()
found = 0
while found < 400:
    found += len(read(store, 1, found, 400, 10, 1000))
writer.join()
store.close()
"""


def rows_of(path: Path, query: str) -> list[dict[str, object]]:
    """Read the file as any program would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def careless_json(raw: bytes) -> str:
    """Make JSON with half characters in it."""
    return json.dumps(raw.decode("utf-8", "surrogateescape"), ensure_ascii=False)


def test_connections_without_locks_write_and_read_at_once(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path / "leveret.db")], check=True)
    assert len(rows_of(tmp_path / "leveret.db", "SELECT * FROM messages")) == 400


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has `leveret.db` open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "leveret.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o777)
        yield path
        path.chmod(0o700)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user with no rights if we are root, who may write everywhere."""
    if os.getuid() == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


class TestOpening:
    """Which files are taken."""

    def test_a_file_that_another_process_has_open_is_refused(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        path = tmp_path / "leveret.db"
        with pytest.raises(StoreLockedError, match=r"leveret\.db is in use by another process"):
            open_store(path)
        with pytest.raises(StoreLockedError):  # the first refusal has not freed it
            open_store(path)
        holder.kill()
        holder.wait()
        open_store(path).close()

    def test_a_symbolic_link_leads_to_the_same_lock(
        self, sqlite_engine: SqliteEngine, tmp_path: Path
    ) -> None:
        link = tmp_path / "link.db"
        link.symlink_to(sqlite_engine.path)
        with pytest.raises(StoreLockedError):
            open_store(link)

    def test_only_the_data_file_is_left_after_a_stop(
        self, sqlite_engine: SqliteEngine, tmp_path: Path
    ) -> None:
        define(sqlite_engine.store, declared(1))
        sqlite_engine.close()
        assert [entry.name for entry in tmp_path.iterdir()] == ["leveret.db"]

    def test_an_empty_file_becomes_a_data_file(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"
        path.touch()
        open_store(path).close()
        assert rows_of(path, "PRAGMA application_id") == [{"application_id": APPLICATION_ID}]

    @pytest.mark.parametrize("content", [b"hi", b"not a database\n" * 1000, b"\0" * 8192])
    def test_a_file_that_is_no_database_is_refused_and_left_alone(
        self, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(NotAStoreError, match=r"notes\.txt"):
            open_store(path)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        "script", ["CREATE TABLE t (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
    )
    def test_a_database_of_another_program_is_refused_and_left_alone(
        self, tmp_path: Path, script: str
    ) -> None:
        path = tmp_path / "other.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(script)
        before = path.read_bytes()
        with pytest.raises(NotAStoreError, match="another program"):
            open_store(path)
        assert path.read_bytes() == before

    def test_a_file_of_a_later_version_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"
        open_store(path).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        before = path.read_bytes()
        with pytest.raises(NewerSchemaError, match=f"format {SCHEMA_VERSION + 1}"):
            open_store(path)
        assert path.read_bytes() == before

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"there is no directory .*missing"):
            open_store(tmp_path / "missing" / "leveret.db")

    def test_a_directory_is_no_data_file(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is a directory"):
            open_store(tmp_path)

    @pytest.mark.parametrize("read_only", ["file", "directory"])
    def test_what_cannot_be_written_is_refused(self, open_directory: Path, read_only: str) -> None:
        path = open_directory / "leveret.db"
        open_store(path).close()
        path.chmod(0o444)
        open_directory.chmod(0o777 if read_only == "file" else 0o555)
        with as_nobody(), pytest.raises(StoreError, match=r"leveret\.db.*(read-only|Permission denied)"):
            open_store(path)

    def test_what_cannot_be_looked_at_is_refused(self, open_directory: Path) -> None:
        path = open_directory / "leveret.db"
        open_store(path).close()
        open_directory.chmod(0)
        with as_nobody(), pytest.raises(StoreError, match=r"leveret\.db: Permission denied"):
            open_store(path)

    def test_an_sqlite_that_is_too_old_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
        with pytest.raises(StoreError, match=r"3\.35\.0 or later is needed"):
            open_store(tmp_path / "leveret.db")

    def test_a_file_system_without_shared_memory_is_told(self) -> None:
        # SQLite keeps a database in memory without a write-ahead log, too.
        with (
            closing(sqlite3.connect(":memory:", isolation_level=None)) as connection,
            pytest.raises(StoreError, match="cannot have a write-ahead log"),
        ):
            set_up_writer(connection, Path("leveret.db"), 0)

    def test_a_path_can_have_any_characters(self, tmp_path: Path) -> None:
        path = tmp_path / "a?b#c%20 ü.db"
        store = open_store(path)
        define(store, declared(1))
        store.close()
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_a_failed_open_can_be_tried_again(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"
        path.write_bytes(b"not a database")
        with pytest.raises(NotAStoreError):
            open_store(path)
        path.unlink()
        open_store(path).close()


class TestViews:
    """What people see."""

    def test_messages_can_be_read(self, sqlite_engine: SqliteEngine) -> None:
        store = sqlite_engine.store
        define(store, declared(1), declared(2, "images", vhost="other"))
        batch = Batch(1)
        batch.enqueue(1, 7, [Content('{"id": "ü"}'.encode(), "shop", "order.new")])
        batch.expire_at(1, 7, 1_700_000_000_123)
        batch.enqueue(2, 1, [Content(b"\x89PNG\x00", properties=b"")])
        batch.spill(2, 2, Content(b""))
        store.apply(batch)
        assert rows_of(sqlite_engine.path, "SELECT * FROM queue_messages ORDER BY queue DESC, position") == [
            {
                "vhost": "/",
                "queue": "orders",
                "priority": 0,
                "position": 7,
                "exchange": "shop",
                "routing_key": "order.new",
                "properties": '{"bytes": 3}',
                "body": '{"id": "ü"}',
                "body_bytes": 12,
                "persistent": 1,
                "expires_at": "2023-11-14 22:13:20.123",
            },
            {
                "vhost": "other",
                "queue": "images",
                "priority": 0,
                "position": 1,
                "exchange": "",
                "routing_key": "orders",
                "properties": None,
                "body": None,
                "body_bytes": 5,
                "persistent": 1,
                "expires_at": None,
            },
            {
                "vhost": "other",
                "queue": "images",
                "priority": 0,
                "position": 2,
                "exchange": "",
                "routing_key": "orders",
                "properties": '{"bytes": 3}',
                "body": "",
                "body_bytes": 0,
                "persistent": 0,
                "expires_at": None,
            },
        ]

    def test_a_body_that_is_json_can_be_queried(self, sqlite_engine: SqliteEngine) -> None:
        define(sqlite_engine.store, declared(1))
        enqueue(sqlite_engine.store, 1, 1, b'{"total": 5}', b'{"total": 50}')
        query = "SELECT position FROM queue_messages WHERE queue = 'orders' AND body ->> 'total' > 10"
        assert rows_of(sqlite_engine.path, query) == [{"position": 2}]

    def test_a_long_text_is_not_shown_but_its_length_is(self, sqlite_engine: SqliteEngine) -> None:
        define(sqlite_engine.store, declared(1))
        enqueue(sqlite_engine.store, 1, 1, b"x" * 65_536, b"x" * 65_537)
        query = "SELECT length(body) AS length, body_bytes FROM queue_messages ORDER BY position"
        assert rows_of(sqlite_engine.path, query) == [
            {"length": 65_536, "body_bytes": 65_536},
            {"length": None, "body_bytes": 65_537},
        ]

    def test_definitions_can_be_read(self, sqlite_engine: SqliteEngine) -> None:
        define(
            sqlite_engine.store,
            ExchangeDeclared("/", "logs", "topic", auto_delete=True, internal=False, arguments=b"1234"),
            declared(1, arguments=b"12345"),
            declared(2, "empty"),
            Bound("/", "logs", "orders", to_exchange=False, binding_key="a.#", arguments=b""),
            Bound("/", "logs", "amq.fanout", to_exchange=True, binding_key="", arguments=b"1"),
        )
        enqueue(sqlite_engine.store, 1, 1, b"four", b"five")
        spill(sqlite_engine.store, 1, 3, b"six")
        path = sqlite_engine.path
        assert rows_of(path, "SELECT * FROM list_exchanges") == [
            {
                "vhost": "/",
                "name": "logs",
                "type": "topic",
                "auto_delete": 1,
                "internal": 0,
                "arguments": '{"bytes": 4}',
            }
        ]
        queue = {"vhost": "/", "auto_delete": 0}
        assert rows_of(path, "SELECT * FROM list_queues") == [
            queue | {"name": "orders", "messages": 3, "body_bytes": 11, "arguments": '{"bytes": 5}'},
            queue | {"name": "empty", "messages": 0, "body_bytes": 0, "arguments": None},
        ]
        binding = {"vhost": "/", "source": "logs"}
        assert rows_of(path, "SELECT * FROM list_bindings") == [
            binding
            | {"destination": "orders", "destination_kind": "queue", "binding_key": "a.#", "arguments": None},
            binding
            | {
                "destination": "amq.fanout",
                "destination_kind": "exchange",
                "binding_key": "",
                "arguments": '{"bytes": 1}',
            },
        ]

    def test_json_with_bytes_that_are_not_utf8_stays_json(self, tmp_path: Path) -> None:
        path = tmp_path / "leveret.db"
        store = SqliteStore(path, describe=careless_json)
        define(store, declared(1))
        batch = Batch(1)
        batch.enqueue(1, 1, [Content(properties=b"caf\xe9")])
        store.apply(batch)
        store.close()
        (row,) = rows_of(path, "SELECT properties ->> '$' IS NOT NULL AS ok, properties FROM queue_messages")
        assert row == {"ok": 1, "properties": '"caf\\udce9"'}

    def test_another_program_can_read_while_the_store_is_open(self, sqlite_engine: SqliteEngine) -> None:
        store = sqlite_engine.store
        define(store, declared(1))
        with closing(sqlite3.connect(sqlite_engine.path)) as connection:
            connection.execute("BEGIN")
            assert connection.execute("SELECT count(*) FROM queue_messages").fetchone() == (0,)
            enqueue(store, 1, 1, b"a")
            store.checkpoint()
            assert connection.execute("SELECT count(*) FROM queue_messages").fetchone() == (0,)
            connection.execute("COMMIT")
            assert connection.execute("SELECT count(*) FROM queue_messages").fetchone() == (1,)
        assert bodies(store, 1) == {1: b"a"}

    def test_messages_edited_while_the_store_was_closed_are_counted_anew(
        self, sqlite_engine: SqliteEngine
    ) -> None:
        define(sqlite_engine.store, declared(1), declared(2, "other"))
        enqueue(sqlite_engine.store, 1, 1, b"a")
        sqlite_engine.close()
        with closing(sqlite3.connect(sqlite_engine.path)) as connection:
            connection.execute("UPDATE messages SET id = (2 << 43) + 9")
            connection.commit()
        queues = sqlite_engine.restart().queues
        assert [(q.messages, q.body_bytes, q.first_position, q.last_position) for q in queues] == [
            (0, 0, 1, 0),
            (1, 1, 9, 9),
        ]


def test_what_removed_messages_took_is_told_as_reusable(sqlite_engine: SqliteEngine) -> None:
    store = sqlite_engine.store
    define(store, declared(1))
    before = store.reusable_bytes()
    for position in range(1, 11):
        enqueue(store, 1, position, b"x" * 100_000)
    settle(store, 1, *range(1, 11), body_bytes=100_000)
    assert store.reusable_bytes() - before >= 900_000
