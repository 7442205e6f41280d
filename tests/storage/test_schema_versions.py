"""A data file of any earlier version opens, with everything in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from leveret.storage import schema
from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import (
    Bound,
    ExchangeDeclared,
    ParameterSet,
    PermissionSet,
    SegmentClosed,
    TopicPermissionSet,
    UserSet,
    VHostAdded,
)
from leveret.storage.schema import SCHEMA_VERSION
from leveret.storage.store import StaleEpochError, StoreError
from leveret.storage.stored import (
    StoredExchangeQueue,
    StoredKey,
    StoredMessage,
    StoredOffset,
    StoredPriorityLevel,
    StoredQueue,
)

from .engines import declared, define, everything, open_store, with_returned

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = range(1, SCHEMA_VERSION + 1)
NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")


def restore(version: int, path: Path) -> None:
    """Make the data file that was kept of a version."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"schema-{version}.sql").read_text(encoding="utf-8"))


def schema_of(path: Path) -> set[tuple[str, str, str]]:
    """Return everything that was created in a file: type, name, SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_an_earlier_version_has_everything(tmp_path: Path, version: int) -> None:
    path = tmp_path / "leveret.db"
    restore(version, path)
    store = open_store(path)
    found = store.load()
    assert found.exchanges == [
        ExchangeDeclared("/", "logs", "topic", auto_delete=True, internal=False, arguments=bytes(4))
    ]
    assert found.queues == [
        StoredQueue(1, "/", "orders", False, bytes(4), 2, 3, 25, 1, 3),
        StoredQueue(2, "other", NOT_UTF8, False, b"", 0, 1, 1, 10, 10),
    ]
    assert found.bindings == [
        Bound("/", "logs", "orders", to_exchange=False, binding_key="a.#", arguments=b""),
        Bound("/", "logs", "amq.fanout", to_exchange=True, binding_key="", arguments=b"\x01"),
    ]
    properties = b"\x10\x00\x02"
    assert [with_returned(message, None) for message in everything(store, 1)] == [
        StoredMessage(1, "logs", "a.b", properties, '{"id": "ü"}'.encode(), True, False, None),
        StoredMessage(2, "", "orders", properties, b"\x00\xff binary", True, False, 1_700_000_000_123),
        StoredMessage(3, "", "orders", properties, b"dead", True, True, None),
    ]
    assert everything(store, 2) == [StoredMessage(10, "", NOT_UTF8, properties, b"x", True, False, None)]
    with pytest.raises(StaleEpochError):
        store.apply(Batch(1, epoch=2))
    store.close()


def test_users_and_policies_of_an_earlier_version_are_there(tmp_path: Path) -> None:
    restore(2, tmp_path / "leveret.db")
    store = open_store(tmp_path / "leveret.db")
    found = store.load()
    store.close()
    assert found.vhosts == [
        VHostAdded("/", "Default virtual host", (), ""),
        VHostAdded("other", "", ("a", "b"), "quorum"),
    ]
    assert found.users == [
        UserSet(
            "ana",
            "5bTV43HDuI/eI4Nq4D+kIUwpOcOhidcssAZgJVkAdLcsZn9p",
            "rabbit_password_hashing_sha256",
            ("management",),
            '{"max-channels": 9}',
        )
    ]
    assert found.permissions == [PermissionSet("ana", "/", "^a", ".*", "")]
    assert found.topic_permissions == [TopicPermissionSet("ana", "/", "amq.topic", "^a", ".*")]
    assert found.parameters == [
        ParameterSet("/", "policy", "ttl", '{"pattern": "^a", "definition": {"message-ttl": 1}}')
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migrated_file_is_the_same_as_a_new_one(tmp_path: Path, version: int) -> None:
    """If this fails for the newest version, the format was changed: see the top of schema.py."""
    restore(version, tmp_path / "old.db")
    open_store(tmp_path / "old.db").close()
    open_store(tmp_path / "new.db").close()
    assert schema_of(tmp_path / "old.db") == schema_of(tmp_path / "new.db")


class TestMigrations:
    """How a migration goes, on one that is made up."""

    NEXT = SCHEMA_VERSION + 1
    ADD_COLUMN = "ALTER TABLE queues ADD COLUMN note TEXT"

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A data file of this version with a queue."""
        path = tmp_path / "leveret.db"
        store = open_store(path)
        define(store, declared(1))
        store.close()
        return path

    def migrate(self, path: Path, migrations: dict[int, tuple[str, ...]], version: int) -> None:
        """Open a file as a later version would."""
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            schema.prepare(connection, path, migrations, version)

    def version_of(self, path: Path) -> int:
        """Return the schema version a file says it has."""
        with closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            return int(version)

    def test_steps_are_taken_in_order(self, path: Path) -> None:
        fill = "UPDATE queues SET note = 'from a migration'"
        self.migrate(path, {SCHEMA_VERSION: (self.ADD_COLUMN,), self.NEXT: (fill,)}, self.NEXT + 1)
        assert self.version_of(path) == self.NEXT + 1
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT name, note FROM queues").fetchall() == [
                ("orders", "from a migration")
            ]
            assert connection.execute("SELECT name FROM list_queues").fetchall() == [("orders",)]

    def test_a_step_that_fails_leaves_the_file_as_it_was(self, path: Path) -> None:
        before = schema_of(path)
        with pytest.raises(sqlite3.Error):
            self.migrate(path, {SCHEMA_VERSION: (self.ADD_COLUMN, "UPDATE nothing SET x = 1")}, self.NEXT)
        assert self.version_of(path) == SCHEMA_VERSION
        assert schema_of(path) == before
        open_store(path).close()

    def test_a_version_without_a_way_forward_is_refused(self, path: Path) -> None:
        with pytest.raises(StoreError, match=f"data format {SCHEMA_VERSION}, which this version cannot read"):
            self.migrate(path, {}, self.NEXT)
        assert self.version_of(path) == SCHEMA_VERSION


def test_what_exchanges_keep_of_an_earlier_version_is_there(tmp_path: Path) -> None:
    restore(2, tmp_path / "leveret.db")
    store = open_store(tmp_path / "leveret.db")
    found = store.load()
    store.close()
    assert found.exchange_queues == [StoredExchangeQueue(3, "/", "later", 0, 0, 0)]
    assert found.keys == [StoredKey(3, b"\x00\xff", 0), StoredKey(1, b"\x01", 1_700_000_000_000)]


def test_what_is_known_of_streams_of_an_earlier_version_is_there(tmp_path: Path) -> None:
    restore(2, tmp_path / "leveret.db")
    store = open_store(tmp_path / "leveret.db")
    found = store.load()
    store.close()
    assert found.segments == [SegmentClosed(1, 1, 2, 20, 1_700_000_000_000)]
    assert found.offsets == [StoredOffset(1, "reader", 2)]


def test_what_is_known_of_returned_messages_of_an_earlier_version_is_there(tmp_path: Path) -> None:
    restore(3, tmp_path / "leveret.db")
    store = open_store(tmp_path / "leveret.db")
    store.load()
    found = [message.returned for message in everything(store, 1)]
    store.close()
    assert found == [None, Returned(2, 3, 1_700_000_000_000), None]


def test_messages_of_other_priorities_of_an_earlier_version_are_there(tmp_path: Path) -> None:
    restore(3, tmp_path / "leveret.db")
    store = open_store(tmp_path / "leveret.db")
    found = store.load()
    bodies = [message.body for message in everything(store, 7)]
    store.close()
    assert found.priority_levels == [StoredPriorityLevel(7, 1, 5, 2, 1, 1, 3, 3)]
    assert bodies == [b"x"]
