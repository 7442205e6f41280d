"""Threads that wait for the disk, so that the event loop never does.

The writer applies one batch at a time; the node hands it the next when it is done, and everything that
gathered meanwhile is in that one (group commit). The reader brings back messages of long queues. Both answer
through a list and wake the event loop, which takes the answers in its own thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from leveret.storage.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.storage.changes import Batch, StoredMessage


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Read messages of a queue with after < position <= up_to."""

    queue_id: int
    generation: int
    after: int
    up_to: int
    limit: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class DueRequest:
    """Read messages that wait in an exchange, behind the one that is due at a time and has a position."""

    queue_id: int
    generation: int
    after_due_ms: int
    after: int
    limit: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """A batch is on stable storage."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Loaded:
    """Messages were read back."""

    request: LoadRequest | DueRequest
    messages: list[StoredMessage]


@dataclass(frozen=True, slots=True)
class Failed:
    """The store gave up; nothing it was doing may be confirmed."""

    error: StoreError


Answer = Written | Loaded | Failed


def read(store: Store, request: LoadRequest | DueRequest) -> list[StoredMessage]:
    """Do what a request asks for.

    Raises:
        StoreError: the data cannot be read.
    """
    if isinstance(request, DueRequest):
        return store.read_delayed(
            request.queue_id, request.after_due_ms, request.after, request.limit, request.max_bytes
        )
    return store.read(request.queue_id, request.after, request.up_to, request.limit, request.max_bytes)


class Committer:
    """Runs a store in two threads.

    Args:
        store: the engine, already loaded.
        wake: wakes the event loop; called from the threads.
    """

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._requests: SimpleQueue[LoadRequest | DueRequest | None] = SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._threads = [
            threading.Thread(target=self._write, name="leveret-writer", daemon=True),
            threading.Thread(target=self._read, name="leveret-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, batch: Batch) -> None:
        """Apply a batch; `Written` follows. The batch must not change any more."""
        self._batches.put(batch)

    def read(self, request: LoadRequest | DueRequest) -> None:
        """Read messages back; `Loaded` follows."""
        self._requests.put(request)

    def answers(self) -> list[Answer]:
        """Return what was done since the last call, in order."""
        done: list[Answer] = []
        while self._answers:
            done.append(self._answers.popleft())
        return done

    def close(self) -> None:
        """Finish what was handed over, then close the store."""
        self._batches.put(None)
        self._requests.put(None)
        for thread in self._threads:
            thread.join()
        self._store.close()

    def _answer(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._wake()

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._store.apply(batch)
            except StoreError as error:
                self._answer(Failed(error))
                return
            self._answer(Written(batch))
            if self._batches.empty():
                self._store.checkpoint()

    def _read(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                messages = read(self._store, request)
            except StoreError as error:
                self._answer(Failed(error))
                return
            self._answer(Loaded(request, messages))
