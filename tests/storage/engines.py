"""The engines as the tests see them: something that can be stopped, or crash, and be started again."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import MAX_POSITION, QueueDeclared
from leveret.storage.memory import MemoryDisk, MemoryStore
from leveret.storage.sqlite import SqliteStore
from leveret.storage.stored import Snapshot, StoredMessage, each_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.storage.changes import Definition
    from leveret.storage.store import Store

NO_LIMIT = MAX_POSITION


@dataclass(frozen=True, slots=True)
class Content:
    """A message as the broker hands it to the store."""

    body: bytes = b""
    exchange: str = ""
    routing_key: str = "orders"
    properties: bytes = b"\x10\x00\x02"
    dead_lettered: bool = False

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        return len(self.body)


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A temporary directory in memory if there is one to be had: syncs take no time there."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


class Engine(Protocol):
    """A store whose process can end."""

    store: Store
    found: Snapshot  # what the last start found

    def restart(self) -> Snapshot:
        """Stop in order and start again."""

    def crash(self) -> Snapshot:
        """Lose whatever is not on stable storage, and start again."""

    def close(self) -> None:
        """Stop for good."""


class MemoryEngine:
    """`MemoryStore` on a disk that survives it."""

    def __init__(self) -> None:
        self._disk = MemoryDisk()
        self.crash()

    def restart(self) -> Snapshot:
        """See `Engine.restart`."""
        self.store.close()
        return self.crash()

    def crash(self) -> Snapshot:
        """See `Engine.crash`: the old store is dropped without a word."""
        self.store: Store = MemoryStore(self._disk)
        self.found = self.store.load()
        return self.found

    def close(self) -> None:
        """See `Engine.close`."""
        self.store.close()


class SqliteEngine:
    """`SqliteStore` on a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._crashes = 0
        self.path = directory / "leveret.db"
        self._start()

    def restart(self) -> Snapshot:
        """See `Engine.restart`."""
        self.store.close()
        return self._start()

    def crash(self) -> Snapshot:
        """See `Engine.crash`: goes on with a copy of the files as they are at this moment."""
        self._crashes += 1
        copy = self._directory / f"after-crash-{self._crashes}.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.store.close()
        self.path = copy
        return self._start()

    def close(self) -> None:
        """See `Engine.close`."""
        self.store.close()

    def _start(self) -> Snapshot:
        self.store: Store = open_store(self.path)
        self.found = self.store.load()
        return self.found


def open_store(path: Path) -> SqliteStore:
    """Open a data file with describers that tests can recognise."""
    return SqliteStore(path, describe=describe, describe_arguments=describe)


def describe(table: bytes) -> str | None:
    """Make readable JSON, of a kind."""
    return f'{{"bytes": {len(table)}}}' if table else None


def declared(queue_id: int, name: str = "orders", vhost: str = "/", arguments: bytes = b"") -> QueueDeclared:
    """Return the record of a queue."""
    return QueueDeclared(queue_id, vhost, name, auto_delete=False, arguments=arguments)


def define(store: Store, *definitions: Definition) -> None:
    """Apply definitions as a batch."""
    batch = Batch(1)
    batch.definitions.extend(definitions)
    store.apply(batch)


def enqueue(store: Store, queue_id: int, first: int, *bodies: bytes) -> None:
    """Store persistent messages as a batch."""
    batch = Batch(1)
    batch.enqueue(queue_id, first, [Content(body) for body in bodies])
    store.apply(batch)


def spill(store: Store, queue_id: int, first: int, *bodies: bytes) -> None:
    """Store transient messages as a batch."""
    batch = Batch(1)
    for position, body in enumerate(bodies, first):
        batch.spill(queue_id, position, Content(body))
    store.apply(batch)


def settle(store: Store, queue_id: int, *positions: int, body_bytes: int = 1) -> None:
    """Remove messages with bodies of the same length as a batch."""
    batch = Batch(1)
    for position in positions:
        batch.settle(queue_id, position, body_bytes)
    store.apply(batch)


def everything(store: Store, queue_id: int) -> list[StoredMessage]:
    """Return all messages of a queue."""
    return read(store, queue_id, 0, NO_LIMIT, NO_LIMIT, NO_LIMIT)


def read(
    store: Store, queue_id: int, after: int, up_to: int, limit: int, max_bytes: int
) -> list[StoredMessage]:
    """Return what `Store.read` gives, one by one."""
    return each_of(store.read(queue_id, after, up_to, limit, max_bytes))


def bodies(store: Store, queue_id: int) -> dict[int, bytes]:
    """Return all messages of a queue: position -> body."""
    return {message.position: message.body for message in everything(store, queue_id)}


def with_returned(message: StoredMessage, returned: Returned | None) -> StoredMessage:
    """Return a copy of a message of which something else is known about its returns."""
    return StoredMessage(
        message.position,
        message.exchange,
        message.routing_key,
        message.properties,
        message.body,
        message.persistent,
        message.dead_lettered,
        message.expires_at_ms,
        returned,
    )
