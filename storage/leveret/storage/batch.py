"""The changes that must survive a restart, in the order the model made them. HOT.

The model appends to the open `Batch`; the server hands it to a `Store`, which applies it as one transaction.
A batch is also what a replicated journal would carry, so it holds no SQL, row or file. Records of definitions
(changes.py) keep their order; messages are grouped by queue, because a queue's messages are independent of
another's.

A message that is settled before its batch is handed over leaves the batch again and is never written. The
same holds where several batches are applied as one (`Batch.absorb`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from leveret.storage.changes import (
    ExchangeQueueDeclared,
    PriorityLevelDeclared,
    QueueDeclared,
    QueueDeleted,
    QueueDelivered,
    QueuePurged,
    SegmentClosed,
    SegmentRemoved,
)

if TYPE_CHECKING:
    from leveret.storage.changes import Definition

EPOCH: Final = 1  # of the owner of the data; a single node never changes it
NEVER: Final = 0  # when a key of deduplication expires
FORGOTTEN: Final = -1  # a key, or the offset of a consumer, that is gone

_OfQueue = (
    ExchangeQueueDeclared
    | PriorityLevelDeclared
    | QueueDeclared
    | QueueDeleted
    | QueueDelivered
    | QueuePurged
    | SegmentClosed
    | SegmentRemoved
)


class StoredContent(Protocol):
    """A message as the store sees it; the broker's own message has these attributes."""

    @property
    def exchange(self) -> str:
        """Name of the exchange it was published to (bytes that are not UTF-8 as surrogate escapes)."""

    @property
    def routing_key(self) -> str:
        """Its routing key (bytes that are not UTF-8 as surrogate escapes)."""

    @property
    def properties(self) -> bytes:
        """The raw AMQP property list, from the property flags on."""

    @property
    def dead_lettered(self) -> bool:
        """Whether the broker itself wrote its x-death header."""

    @property
    def body(self) -> bytes:
        """The body; possibly built on each call, so ask once."""

    @property
    def body_bytes(self) -> int:
        """Length of the body, without building it."""


class Returned(NamedTuple):
    """What is known of a stored message that came back from a consumer."""

    delivery_count: int  # returns that count towards the delivery limit
    acquired_count: int  # all returns
    retry_at_ms: int  # when it may be delivered again; 0 for at once


class Batch:
    """Changes that become durable together: definitions, enqueued and spilled, settled, returned.

    Invariants kept by the methods: a position of one queue is in at most one of `enqueued`, `spilled` and
    `settled`; a queue deleted in this batch has no messages in it; a queue id is not used again in the batch
    that deletes it.
    """

    __slots__ = (
        "_declared",
        "definitions",
        "delayed",
        "enqueued",
        "epoch",
        "expiries",
        "keys",
        "number",
        "offsets",
        "returned",
        "settled",
        "spilled",
        "streamed",
    )

    def __init__(self, number: int, epoch: int = EPOCH) -> None:
        self.number = number
        self.epoch = epoch
        self.definitions: list[Definition] = []
        self.enqueued: dict[int, dict[int, StoredContent]] = {}  # queue id -> position -> persistent message
        self.spilled: dict[int, dict[int, StoredContent]] = {}  # queue id -> position -> transient message
        self.delayed: dict[int, dict[int, StoredContent]] = {}  # queue id -> position -> delayed message
        self.streamed: dict[int, dict[int, StoredContent]] = {}  # queue id -> position -> message of a stream
        # Queue id -> consumer tag -> position up to which it has read a stream, or `FORGOTTEN`
        self.offsets: dict[int, dict[str, int]] = {}
        # Queue id -> position of a stored message -> what is known of its returns; it may be gone by now
        self.returned: dict[int, dict[int, Returned]] = {}
        # Queue id -> key of deduplication -> when it expires, `NEVER` or `FORGOTTEN`; in order.
        self.keys: dict[int, dict[bytes, int]] = {}
        self.expiries: dict[
            int, dict[int, int]
        ] = {}  # queue id -> position -> wall-clock ms; only where one is set
        self.settled: dict[
            int, dict[int, int]
        ] = {}  # queue id -> position of a stored message -> its body bytes
        # Ids declared in `definitions`; not known before another batch is absorbed
        self._declared: set[int] | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self.definitions
            or self.settled
            or (self.enqueued and any(self.enqueued.values()))
            or (self.spilled and any(self.spilled.values()))
            or (self.delayed and any(self.delayed.values()))
            or self.streamed
            or self.offsets
            or self.returned
            or self.keys
        )

    def only_settles(self, most: int) -> bool:
        """Whether this removes `most` messages at most, and does nothing else."""
        return not (
            self.definitions
            or (self.enqueued and any(self.enqueued.values()))
            or (self.spilled and any(self.spilled.values()))
            or (self.delayed and any(self.delayed.values()))
            or self.streamed
            or self.offsets
            or self.returned
            or self.keys
            or sum(map(len, self.settled.values())) > most
        )

    def enqueue(self, queue_id: int, first: int, messages: list[StoredContent]) -> None:
        """Append persistent messages at positions first, first + 1, ..."""
        entries = self.enqueued.get(queue_id)
        if entries is None:
            entries = self.enqueued[queue_id] = {}
        if len(messages) == 1:
            entries[first] = messages[0]
        else:
            entries.update(zip(range(first, first + len(messages)), messages, strict=True))

    def spill(self, queue_id: int, position: int, message: StoredContent) -> None:
        """Store a transient message to free its memory; it does not survive a restart."""
        self.spilled.setdefault(queue_id, {})[position] = message

    def expire_at(self, queue_id: int, position: int, expires_at_ms: int) -> None:
        """Remember the deadline of a message enqueued or spilled in this batch."""
        self.expiries.setdefault(queue_id, {})[position] = expires_at_ms

    def delay(self, queue_id: int, position: int, due_ms: int, message: StoredContent) -> None:
        """Store a message that waits in an exchange for its time, whatever its delivery mode."""
        self.delayed.setdefault(queue_id, {})[position] = message
        self.expire_at(queue_id, position, due_ms)

    def undelay(self, queue_id: int, position: int, body_bytes: int) -> None:
        """Remove such a message: from this batch if it is still in it, else from the store."""
        if self.delayed.get(queue_id, {}).pop(position, None) is None:
            self.settled.setdefault(queue_id, {})[position] = body_bytes

    def stream(self, queue_id: int, first: int, messages: list[StoredContent], now_ms: int) -> None:
        """Append messages to a stream at positions first, first + 1, ..., whatever their delivery mode."""
        entries = self.streamed.setdefault(queue_id, {})
        times = self.expiries.setdefault(queue_id, {})
        position = first
        for message in messages:
            entries[position] = message
            times[position] = now_ms
            position += 1

    def note_offset(self, queue_id: int, consumer_tag: str, position: int) -> None:
        """Remember up to which position a consumer has read a stream, or that this is `FORGOTTEN`."""
        self.offsets.setdefault(queue_id, {})[consumer_tag] = position

    def note_return(self, queue_id: int, position: int, returned: Returned) -> None:
        """Remember that a stored message came back; it is forgotten with the message."""
        self.returned.setdefault(queue_id, {})[position] = returned

    def remember_key(self, queue_id: int, key: bytes, expires_at_ms: int) -> None:
        """Store a key of deduplication, as the youngest."""
        keys = self.keys.setdefault(queue_id, {})
        keys.pop(key, None)
        keys[key] = expires_at_ms

    def forget_key(self, queue_id: int, key: bytes) -> None:
        """Remove a key of deduplication."""
        self.keys.setdefault(queue_id, {})[key] = FORGOTTEN

    def settle(self, queue_id: int, position: int, body_bytes: int) -> None:
        """Remove a message: from this batch if it is still in it, else from the store."""
        entries = self.enqueued.get(queue_id)
        if entries is not None and entries.pop(position, None) is not None:
            return
        if self.spilled and self.spilled.get(queue_id, {}).pop(position, None) is not None:
            return
        settled = self.settled.get(queue_id)
        if settled is None:
            settled = self.settled[queue_id] = {}
        settled[position] = body_bytes

    def settle_all(self, queue_id: int, positions: list[int], body_bytes: list[int]) -> None:
        """Do the same with several messages; `body_bytes` is of each."""
        if self.enqueued.get(queue_id) or self.spilled.get(queue_id):
            for index, position in enumerate(positions):
                self.settle(queue_id, position, body_bytes[index])
        else:
            self.settled.setdefault(queue_id, {}).update(zip(positions, body_bytes, strict=True))

    def purge(self, queue_id: int, first: int, last: int, count: int, body_bytes: int) -> None:
        """Remove a range of messages, all stored by batches before; others are settled singly."""
        self.definitions.append(QueuePurged(queue_id, first, last, count, body_bytes))

    def delete_queue(self, queue_id: int) -> None:
        """Remove a queue and whatever this batch holds of it."""
        self.forget_queue(queue_id)
        self.definitions.append(QueueDeleted(queue_id))

    def forget_queue(self, queue_id: int) -> None:
        """Drop whatever this batch holds of a queue; what is stored of it goes with its vhost."""
        for by_queue in (
            self.enqueued,
            self.spilled,
            self.delayed,
            self.streamed,
            self.expiries,
            self.settled,
            self.returned,
        ):
            by_queue.pop(queue_id, None)
        self.keys.pop(queue_id, None)
        self.offsets.pop(queue_id, None)

    def absorb(self, later: Batch) -> None:
        """Become what this batch and the next one are in a row, without what cancels out. `later` stays.

        Messages that the later batch settles leave this one. What this one holds of a queue that the later
        one deletes is dropped; if it also declares the queue, nothing is left of that.

        It relies on what the model does: no position is used twice, no queue id is used again before the
        batch that deletes it is applied, and a purge is of messages whose batches are applied. Neither batch
        may have transient, delayed or streamed messages, or delete a vhost. O(later), and O(definitions) in
        addition if it deletes a queue that this batch declares.
        """
        assert later.epoch == self.epoch
        self.number = later.number
        if later.definitions:
            self._absorb_definitions(later.definitions)
        for queue_id, settled in later.settled.items():
            self._absorb_settled(queue_id, settled)
        for queue_id, entries in later.enqueued.items():
            mine = self.enqueued.get(queue_id)
            if mine is None:
                self.enqueued[queue_id] = entries.copy()
            else:
                mine.update(entries)
        for queue_id, expiries in later.expiries.items():
            entries = later.enqueued.get(queue_id, {})
            for position, expires_at_ms in expiries.items():
                if position in entries:
                    self.expire_at(queue_id, position, expires_at_ms)
        for queue_id, returned in later.returned.items():
            gone = later.settled.get(queue_id, {})
            for position, known in returned.items():
                if position not in gone:
                    self.note_return(queue_id, position, known)
        for queue_id, offsets in later.offsets.items():
            for consumer_tag, position in offsets.items():
                self.note_offset(queue_id, consumer_tag, position)
        for queue_id, keys in later.keys.items():
            for key, expires_at_ms in keys.items():
                self.remember_key(queue_id, key, expires_at_ms)

    def _absorb_definitions(self, later: list[Definition]) -> None:
        """Append definitions, and take out all of queues that are declared and deleted."""
        declared = self._declared
        if declared is None:
            declared = self._declared = set()
            for definition in self.definitions:
                _note_declared(declared, definition)
        cancelled: set[int] = set()
        for definition in later:
            _note_declared(declared, definition)
            self.definitions.append(definition)
            if isinstance(definition, QueueDeleted):
                self.forget_queue(definition.queue_id)
                if definition.queue_id in declared:
                    declared.discard(definition.queue_id)
                    cancelled.add(definition.queue_id)
            elif isinstance(definition, QueuePurged):
                self._forget_returns(definition)
        if cancelled:
            self.definitions = [
                definition
                for definition in self.definitions
                if not (isinstance(definition, _OfQueue) and definition.queue_id in cancelled)
            ]

    def _absorb_settled(self, queue_id: int, settled: dict[int, int]) -> None:
        """Take messages out of this batch, and remove from the store those that are not in it."""
        entries = self.enqueued.get(queue_id)
        expiries = self.expiries.get(queue_id)
        returned = self.returned.get(queue_id)
        mine = self.settled.get(queue_id)
        for position, body_bytes in settled.items():
            if entries is not None and entries.pop(position, None) is not None:
                if expiries is not None:
                    expiries.pop(position, None)
            else:
                if mine is None:
                    mine = self.settled[queue_id] = {}
                mine[position] = body_bytes
            if returned is not None:
                returned.pop(position, None)
        if returned is not None and not returned:
            del self.returned[queue_id]

    def _forget_returns(self, purged: QueuePurged) -> None:
        """Drop what is known of messages that are purged."""
        returned = self.returned.pop(purged.queue_id, {})
        for position, known in returned.items():
            if not purged.first <= position <= purged.last:
                self.note_return(purged.queue_id, position, known)


def _note_declared(declared: set[int], definition: Definition) -> None:
    if isinstance(definition, QueueDeclared | ExchangeQueueDeclared | PriorityLevelDeclared):
        declared.add(definition.queue_id)
