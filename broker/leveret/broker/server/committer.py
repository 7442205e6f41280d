"""Threads that wait for the disk, so that the event loop never does. HOT.

The writer applies one batch at a time; the node hands it the next when it is done, and everything that
gathered meanwhile is in that one (group commit). Small batches go into the redo log instead, where the disk
can have one, and the writer makes rows of them later (write_behind.py). The reader brings back messages of
long queues. Both answer through a list and wake the event loop, which takes the answers in its own thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from leveret.broker.server.write_behind import Job, WriteBehind
from leveret.storage.redo_log import RedoLog
from leveret.storage.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.storage.batch import Batch
    from leveret.storage.stored import Stored, StoredMessage


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
    """Messages of a queue were read back."""

    request: LoadRequest
    messages: list[Stored]


@dataclass(frozen=True, slots=True)
class LoadedDue:
    """Messages that wait in an exchange were read."""

    request: DueRequest
    messages: list[StoredMessage]


@dataclass(frozen=True, slots=True)
class Failed:
    """The store gave up; nothing it was doing may be confirmed."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class Applied:
    """There are rows of all batches up to this one."""

    number: int


Answer = Written | Applied | Loaded | LoadedDue | Failed
SETTLING_WAITS_MS: Final = 5  # for a batch that somebody waits for, if that may save a write of its own


class OpenLog:
    """Asks the writer for the redo log."""


def read(store: Store, request: LoadRequest | DueRequest) -> Loaded | LoadedDue:
    """Do what a request asks for.

    Raises:
        StoreError: the data cannot be read.
    """
    queue_id, limit, max_bytes = request.queue_id, request.limit, request.max_bytes
    if isinstance(request, DueRequest):
        due = store.read_delayed(queue_id, request.after_due_ms, request.after, limit, max_bytes)
        return LoadedDue(request, due)
    return Loaded(request, store.read(queue_id, request.after, request.up_to, limit, max_bytes))


class Committer:
    """Runs a store in two threads, and its redo log in the event loop.

    Args:
        store: the engine, already loaded.
        wake: wakes the event loop; called from the threads.
        wake_fd: an eventfd that wakes it, too; without one there is no redo log.
    """

    def __init__(self, store: Store, wake: Callable[[], None], wake_fd: int | None = None) -> None:
        self._store = store
        self._wake = wake
        self._wake_fd = wake_fd
        self._write_behind = WriteBehind()
        self._is_log_asked_for = wake_fd is None
        self._has_failed = False
        self._jobs: SimpleQueue[Job | OpenLog | None] = SimpleQueue()
        self._requests: SimpleQueue[LoadRequest | DueRequest | None] = SimpleQueue()
        self._done: deque[Answer | Job | RedoLog] = deque()  # by the threads
        self._threads = [
            threading.Thread(target=self._write, name="leveret-writer", daemon=True),
            threading.Thread(target=self._read, name="leveret-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, batch: Batch, with_rows: bool) -> None:
        """Put a batch on stable storage; `Written` follows, and `Applied`.

        Args:
            batch: what to write, when the one before is `Written`. Nobody else may change it any more.
            with_rows: its messages, and those before, are to be readable once it is `Written`.
        """
        behind = self._write_behind
        try:
            if not with_rows and behind.record(batch):
                return
        except StoreError as error:
            self._answer(Failed(error))
            return
        for job in behind.jobs_for(batch):
            self._jobs.put(job)
        if behind.is_called_for and not self._is_log_asked_for:
            self._is_log_asked_for = True
            self._jobs.put(OpenLog())

    def read(self, request: LoadRequest | DueRequest) -> None:
        """Read messages back; `Loaded` or `LoadedDue` follows."""
        self._requests.put(request)

    @property
    def settling_waits_ms(self) -> int:
        """How long a batch that only settles is better kept open for others to join it."""
        return 0 if self._write_behind.log is None else SETTLING_WAITS_MS

    def next_wake_ms(self) -> int:
        """Return when `answers` has something to do though nothing woke the loop; 0 for never."""
        return self._write_behind.due_ms

    def answers(self, now_ms: int) -> list[Answer]:
        """Return what was done since the last call, in order, and have due rows made."""
        done: list[Answer] = []
        behind = self._write_behind
        try:
            batch = behind.finish(now_ms)
        except StoreError as error:
            self._has_failed = True
            return [Failed(error)]
        if batch is not None:
            done.append(Written(batch))
        if 0 < behind.due_ms <= now_ms:
            self.make_rows()
        if self._done:
            done += self._take_done()
        return done

    def _take_done(self) -> list[Answer]:
        done: list[Answer] = []
        while self._done:
            item = self._done.popleft()
            if isinstance(item, Job):
                self._write_behind.done(item)
                done.append(Applied(item.batch.number))
                if item.written is not None:
                    done.append(Written(item.written))
            elif isinstance(item, RedoLog):
                self._write_behind.log = item
            else:
                self._has_failed = self._has_failed or isinstance(item, Failed)
                done.append(item)
        return done

    def make_rows(self) -> None:
        """Make the rows of what is written, now."""
        if (job := self._write_behind.take_behind()) is not None:
            self._jobs.put(job)

    def close(self) -> list[StoreError]:
        """Finish what was handed over, make all rows, and close the store.

        Returns:
            what went wrong on the way.

        Raises:
            StoreError: the store could not be closed.
        """
        failures: list[StoreError] = []
        if not self._has_failed:
            try:
                self._write_behind.wait()
            except StoreError as error:
                failures.append(error)
            else:
                self.make_rows()
        self._jobs.put(None)
        self._requests.put(None)
        for thread in self._threads:
            thread.join()
        failures += [answer.error for answer in self._take_done() if isinstance(answer, Failed)]
        self._store.close()
        return failures

    def _answer(self, answer: Answer | Job | RedoLog) -> None:
        self._done.append(answer)
        self._wake()

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if isinstance(job, OpenLog):
                    self._open_log()
                    continue
                self._store.apply(job.batch, job.recorded)
            except StoreError as error:
                self._answer(Failed(error))
                return
            self._answer(job)
            if self._jobs.empty():
                self._store.checkpoint()

    def _open_log(self) -> None:
        assert self._wake_fd is not None
        log = self._store.open_redo_log(self._wake_fd)
        if log is not None:
            self._answer(log)

    def _read(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                answer = read(self._store, request)
            except StoreError as error:
                self._answer(Failed(error))
                return
            self._answer(answer)
