"""Messages that come back from consumers: how often they did, and when they may go out again.

Only some queues count: quorum queues, and those with a delivery limit or delayed retry. In them a message
that came back carries its counts (`Entry.returned`), tells them in two headers when it is delivered again,
and is let go once it has come back more often than the limit allows. The counts of a stored message are
stored, too.

With delayed retry, what came back waits before it is ready again. It is then neither ready nor unacked.

Source: RabbitMQ guide "Quorum Queues", poison message handling, and of 4.3 delayed retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from leveret.broker.model.queues.dead_letter import DELIVERY_LIMIT
from leveret.protocol.content import Envelope, Message
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, integer, longstr
from leveret.storage.batch import Returned

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.queues.entry import Entry
    from leveret.broker.model.queues.queue import Queue
    from leveret.protocol.tables import Table

X_DELIVERY_COUNT: Final = "x-delivery-count"
X_ACQUIRED_COUNT: Final = "x-acquired-count"

# How a message came back.
KEPT: Final = 0  # it did not
GIVEN_BACK: Final = 1  # by basic.nack or basic.recover
FAILED: Final = 2  # by basic.reject, or its channel was lost

X_RETRY_TYPE: Final = "x-delayed-retry-type"
X_RETRY_MIN: Final = "x-delayed-retry-min"
X_RETRY_MAX: Final = "x-delayed-retry-max"
X_RETRY_BACKOFF: Final = "x-delayed-retry-backoff"
X_RETRY_JITTER: Final = "x-delayed-retry-jitter"

RETRY_TYPES: Final = {
    "disabled": (),
    "all": (GIVEN_BACK, FAILED),
    "failed": (FAILED,),
    "returned": (GIVEN_BACK,),
}  # value of the argument -> which messages wait
LINEAR: Final = "linear"
EXPONENTIAL: Final = "exponential"
RETRY_MIN_MS: Final = 1000  # of a queue that sets only the type
RETRY_MAX_MS: Final = 315_360_000_000  # ten years, as TTLs have
DOUBLINGS_MAX: Final = 40  # of one millisecond: beyond ten years

WAITING_MESSAGES_MAX: Final = 100_000  # of one queue, unacked no more and not yet ready
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024  # of their bodies


@dataclass(frozen=True, slots=True)
class Retry:
    """How long messages of a queue wait that came back."""

    causes: tuple[int, ...]  # which of them
    min_ms: int
    max_ms: int
    is_exponential: bool  # the wait is doubled each time, else it grows by the same
    jitter_percent: int  # of a wait that chance takes away, at most

    def delay_ms(self, cause: int, count: int, chance: Callable[[int], int]) -> int:
        """Return how long a message waits; 0 if it does not.

        Args:
            cause: how it came back.
            count: how often it did.
            chance: see `Turn`.
        """
        if cause not in self.causes:
            return 0
        factor = 1 << min(count - 1, DOUBLINGS_MAX) if self.is_exponential else count
        delay_ms = min(self.min_ms * factor, self.max_ms)
        jitter_ms = delay_ms * self.jitter_percent // 100
        return delay_ms - chance(jitter_ms + 1) if jitter_ms else delay_ms


def retry_of(effective: Table) -> Retry | None:
    """Return the delayed retry that valid arguments of a queue ask for."""
    causes = RETRY_TYPES.get(longstr(effective, X_RETRY_TYPE) or "disabled", ())
    if not causes:
        return None
    min_ms = integer(effective, X_RETRY_MIN)
    max_ms = integer(effective, X_RETRY_MAX)
    return Retry(
        causes,
        RETRY_MIN_MS if min_ms is None else min_ms,
        RETRY_MAX_MS if max_ms is None else max_ms,
        longstr(effective, X_RETRY_BACKOFF) == EXPONENTIAL,
        integer(effective, X_RETRY_JITTER) or 0,
    )


def count_returns(queue: Queue, entries: list[Entry], cause: int) -> list[Entry]:
    """Count that unacked messages of a queue came back. Those that did so too often are let go.

    Returns:
        those that are ready again at once.
    """
    turn = queue.turn
    limit = queue.arguments.delivery_limit
    retry = queue.arguments.retry
    counts = 1 if cause == FAILED or turn.nacks_count else 0
    ready: list[Entry] = []
    for entry in entries:
        before = entry.returned
        deliveries = before.delivery_count + counts if before is not None else counts
        acquired = before.acquired_count + 1 if before is not None else 1
        if limit is not None and deliveries > limit:
            queue.discard(entry, DELIVERY_LIMIT)
            continue
        delay_ms = 0 if retry is None else retry.delay_ms(cause, deliveries or acquired, turn.chance)
        entry.consumer = None
        entry.returned = Returned(deliveries, acquired, turn.now_ms + delay_ms if delay_ms else 0)
        queue.backlog.note_return(entry)
        if delay_ms:
            ready += queue.hold_back(entry)
        else:
            ready.append(entry)
    return ready


def with_counts(entry: Entry) -> Message:
    """Return the message of an entry as it is delivered: with its counts, once it came back."""
    message = entry.message
    returned = entry.returned
    if returned is None or not returned.acquired_count:
        return message
    old = message.envelope
    headers = {
        **(old.fields.headers or {}),
        X_ACQUIRED_COUNT: Field("l", returned.acquired_count),
        X_DELIVERY_COUNT: Field("l", returned.delivery_count),
    }
    raw = replace(old.raw, headers=headers)
    return message.with_envelope(
        Envelope(old.exchange, old.routing_key, raw, Properties.parse(raw), old.channel, old.frame_max)
    )


class Waiting:
    """Messages of one queue that came back and wait.

    There is a limit to how many: what exceeds it is ready at once, beginning with what has waited longest.
    """

    __slots__ = ("_heap", "_number", "body_bytes")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry]] = []  # when, a number, which
        self._number: int = 0
        self.body_bytes: int = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entry: Entry) -> list[Entry]:
        """Let a message wait for its time.

        Returns:
            messages that have to be ready now, because too many wait.
        """
        assert entry.returned is not None
        self._number += 1
        heappush(self._heap, (entry.returned.retry_at_ms, self._number, entry))
        self.body_bytes += entry.message.body_bytes
        too_many: list[Entry] = []
        while len(self._heap) > WAITING_MESSAGES_MAX or self.body_bytes > WAITING_BYTES_MAX:
            too_many.append(self._pop())
        return too_many

    @property
    def next_ms(self) -> int:
        """When the next one is ready; 0 for never."""
        return self._heap[0][0] if self._heap else 0

    def take_due(self, now_ms: int) -> list[Entry]:
        """Take the messages whose time has come."""
        due: list[Entry] = []
        while self._heap and self._heap[0][0] <= now_ms:
            due.append(self._pop())
        return due

    def take_all(self) -> list[Entry]:
        """Take all messages."""
        entries = [entry for _, _, entry in self._heap]
        self._heap.clear()
        self.body_bytes = 0
        return entries

    def _pop(self) -> Entry:
        entry = heappop(self._heap)[2]
        self.body_bytes -= entry.message.body_bytes
        return entry
