"""Which way a batch takes to stable storage: through the redo log, or straight into rows. HOT.

A small batch goes into the log as one record (redo_log.py), and is durable when that is written. Its rows are
made behind it: what was recorded is merged into one batch, and that is applied when nothing was recorded
for `QUIET_MS`, or its oldest part is `ROWS_BEHIND_MS` old. So where messages come one at a time, each is
confirmed after one write of 4 KiB. Other batches are applied at once, together with what is still behind:

* one that is too large for a record, or for which there is no room. Where many messages come at a time this
  is the better way: by the time their batch is applied most of it has been consumed, and need not be written;
* the first `FEW` of a row of small ones: who does a few things now and then may well look for the rows.

The order of batches is kept: none is begun before the one before it is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.storage.records import encode_batch, fits_record, is_recordable
from leveret.storage.redo_log import RECORD_BATCH_BYTES_MAX

if TYPE_CHECKING:
    from leveret.storage.batch import Batch
    from leveret.storage.redo_log import RedoLog

ROWS_BEHIND_MS: Final = 50  # how long a message that is durable may have no row yet
QUIET_MS: Final = 2  # the same while nothing else comes; clocks count whole milliseconds: 1 at least
FEW: Final = 16  # batches
ROW_MS: Final = 20  # a batch that comes later than this behind the one before begins a row
RECORD_ENTRIES_MAX: Final = 64  # messages, definitions and so on in a record; acks count by their bytes alone


def is_small(batch: Batch) -> bool:
    """Whether a batch is one for the log."""
    return is_recordable(batch) and fits_record(batch, RECORD_ENTRIES_MAX, RECORD_BATCH_BYTES_MAX)


class Job:
    """A batch for the thread that applies them.

    Args:
        batch: what to apply.
        recorded: see `Store.apply`.
        written: the batch that is durable then; None if it is already.
    """

    __slots__ = ("batch", "recorded", "written")

    def __init__(self, batch: Batch, recorded: int, written: Batch | None) -> None:
        self.batch = batch
        self.recorded = recorded
        self.written = written


class WriteBehind:
    """Batches that are recorded, and those behind them whose rows are to be made.

    Args:
        few: so many small batches in a row are not recorded.
    """

    def __init__(self, few: int = FEW) -> None:
        self.log: RedoLog | None = None
        self._few = few
        self._in_a_row: int = 0  # small batches
        self._recording: Batch | None = None
        self._recorded: int = 0  # number of the last record that is written, or batch that has none
        self._behind: Batch | None = None  # everything that is recorded and not handed out to be applied
        self._behind_since_ms: int = 0
        self._now_ms: int = 0
        self._written_ms: int = 0  # when the last batch became durable
        self._applying: int = 0  # jobs handed out that are not done

    def record(self, batch: Batch) -> bool:
        """Begin to record a batch, if that is its way. `finish` tells when it is durable.

        Raises:
            StoreError: it cannot be written.
        """
        if self._now_ms - self._written_ms > ROW_MS:
            self._in_a_row = 0
        if not is_small(batch):
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        log = self.log
        if log is None or not self.is_called_for or not log.record(encode_batch(batch)):
            return False
        self._recording = batch
        return True

    @property
    def is_called_for(self) -> bool:
        """Whether batches come that are to be recorded."""
        return self._in_a_row > self._few

    def jobs_for(self, batch: Batch) -> list[Job]:
        """Return what is to be applied for a batch that is not recorded."""
        behind = self._behind
        recorded = self._recorded
        if self.log is not None:
            self._recorded = self.log.skip()
        jobs: list[Job]
        if behind is None:
            jobs = [Job(batch, self._recorded, batch)]
        elif is_recordable(batch):
            behind.absorb(batch)
            jobs = [Job(behind, self._recorded, batch)]
        else:
            jobs = [Job(behind, recorded, None), Job(batch, self._recorded, batch)]
        self._behind = None
        self._applying += len(jobs)
        return jobs

    def finish(self, now_ms: int) -> Batch | None:
        """Take the time, and return the batch that was being recorded if it is durable by now.

        Raises:
            StoreError: it could not be written.
        """
        self._now_ms = now_ms
        batch = self._recording
        if batch is None or self.log is None or not self.log.finish():
            return None
        return self._is_recorded(batch)

    def _is_recorded(self, batch: Batch) -> Batch:
        self._recording = None
        self._written_ms = self._now_ms
        self._recorded += 1
        if self._behind is None:
            self._behind = batch
            self._behind_since_ms = self._now_ms
        else:
            self._behind.absorb(batch)
        return batch

    @property
    def due_ms(self) -> int:
        """When to make the rows that are behind; 0 if there are none, or others are being made."""
        if self._behind is None or self._applying or not self._behind:
            return 0
        return min(self._written_ms + QUIET_MS, self._behind_since_ms + ROWS_BEHIND_MS)

    def take_behind(self) -> Job | None:
        """Return what makes all rows that are behind."""
        behind = self._behind
        if behind is None:
            return None
        self._behind = None
        self._applying += 1
        return Job(behind, self._recorded, None)

    def done(self, job: Job) -> None:
        """Note that a job is done."""
        self._applying -= 1
        if job.written is not None:
            self._written_ms = self._now_ms
        if self.log is not None:
            self.log.forget(job.recorded)

    def wait(self) -> None:
        """Wait for the batch that is being recorded.

        Raises:
            StoreError: it could not be written.
        """
        if self._recording is not None and self.log is not None:
            self.log.wait()
            self._is_recorded(self._recording)
