"""The changes that must survive a restart, in the order the model made them. HOT.

The model appends to the open `Batch`; the server hands it to a `Store`, which applies it as one transaction.
A batch is also what a replicated journal would carry, so it holds no SQL, row or file. Records of definitions
(exchanges, queues, bindings) keep their order; messages are grouped by queue, because a queue's messages are
independent of another's.

A message that is settled before its batch is handed over leaves the batch again and is never written. The
same holds where several batches are applied as one (`Batch.absorb`).

Field tables (`arguments`) are AMQP-encoded bytes: the store keeps them and gives them back, and never looks
inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

EPOCH: Final = 1  # of the owner of the data; a single node never changes it
MAX_QUEUE_ID: Final = (1 << 20) - 1
MAX_POSITION: Final = (1 << 43) - 1
NEVER: Final = 0  # when a key of deduplication expires
FORGOTTEN: Final = -1  # a key, or the offset of a consumer, that is gone


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


@dataclass(frozen=True, slots=True)
class ExchangeDeclared:
    """A durable exchange exists from now on."""

    vhost: str
    name: str
    type: str
    auto_delete: bool
    internal: bool
    arguments: bytes


@dataclass(frozen=True, slots=True)
class ExchangeDeleted:
    """A durable exchange is gone. Its bindings are removed by records of their own."""

    vhost: str
    name: str


@dataclass(frozen=True, slots=True)
class QueueDeclared:
    """A durable queue exists from now on, under an id that no other queue has."""

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes


@dataclass(frozen=True, slots=True)
class ExchangeQueueDeclared:
    """A durable exchange keeps messages or keys of its own from now on, under the id of a queue.

    It is no queue otherwise. `QueueDeleted` ends it; that is also sent for an exchange that is not durable.
    """

    queue_id: int
    vhost: str
    exchange: str


@dataclass(frozen=True, slots=True)
class PriorityLevelDeclared:
    """A durable queue keeps the messages of a priority, not the lowest, under an id of their own from now on.

    `QueueDeleted` ends it; that is sent for each level of a queue that is deleted.
    """

    queue_id: int
    of: int  # queue id of the queue
    priority: int


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    """A queue is gone, with all its messages. Also sent for a transient queue that had spilled messages."""

    queue_id: int


@dataclass(frozen=True, slots=True)
class QueueDelivered:
    """Messages up to a position may have been delivered: after a restart they count as redelivered.

    Written with MAX_POSITION before the first delivery, and with the exact position when deliveries end.
    """

    queue_id: int
    up_to: int


@dataclass(frozen=True, slots=True)
class QueuePurged:
    """All messages with first <= position <= last are gone: `count` of them, `body_bytes` in all."""

    queue_id: int
    first: int
    last: int
    count: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class SegmentClosed:
    """Messages first <= position <= last of a stream are a segment: retention removes all of them or none."""

    queue_id: int
    first: int
    last: int
    body_bytes: int
    last_ms: int  # when the last one came


@dataclass(frozen=True, slots=True)
class SegmentRemoved:
    """The segment that ends with a position is gone. Its messages are removed by a record of their own."""

    queue_id: int
    last: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A binding between durable ends exists from now on."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool  # else to a queue
    binding_key: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class Unbound:
    """A binding between durable ends is gone."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool
    binding_key: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class VHostAdded:
    """A vhost exists from now on."""

    name: str
    description: str
    tags: tuple[str, ...]
    default_queue_type: str  # empty for none


@dataclass(frozen=True, slots=True)
class VHostDeleted:
    """A vhost is gone, with its durable queues and their messages, exchanges, bindings, permissions and
    parameters. Messages of it are in no later part of the batch."""

    name: str


@dataclass(frozen=True, slots=True)
class UserSet:
    """A user exists from now on, like this."""

    name: str
    password_hash: str  # base64 of a salt of 4 bytes and the hash; empty if no password lets the user in
    hashing_algorithm: str
    tags: tuple[str, ...]
    limits: str  # a JSON object


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """A user is gone, with all permissions."""

    name: str


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """What names a user may configure, write to and read from in a vhost, as regular expressions."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class PermissionCleared:
    """A user may do nothing in a vhost any more."""

    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class TopicPermissionSet:
    """What routing keys a user may write, and what binding keys read, at a topic exchange."""

    user: str
    vhost: str
    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class TopicPermissionCleared:
    """A user's routing keys at an exchange are not restricted any more."""

    user: str
    vhost: str
    exchange: str


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """A policy, a limit or the like, as RabbitMQ's runtime parameters: a JSON value under a name."""

    vhost: str
    component: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ParameterCleared:
    """A parameter is gone."""

    vhost: str
    component: str
    name: str


AccessDefinition = (
    VHostAdded
    | VHostDeleted
    | UserSet
    | UserDeleted
    | PermissionSet
    | PermissionCleared
    | TopicPermissionSet
    | TopicPermissionCleared
    | ParameterSet
    | ParameterCleared
)

Definition = (
    AccessDefinition
    | ExchangeDeclared
    | ExchangeDeleted
    | ExchangeQueueDeclared
    | PriorityLevelDeclared
    | QueueDeclared
    | QueueDeleted
    | QueueDelivered
    | QueuePurged
    | SegmentClosed
    | SegmentRemoved
    | Bound
    | Unbound
)

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
            or any(self.enqueued.values())
            or any(self.spilled.values())
            or any(self.delayed.values())
            or self.streamed
            or self.offsets
            or self.returned
            or self.keys
        )

    def only_settles(self, most: int) -> bool:
        """Whether this removes `most` messages at most, and does nothing else."""
        return not (
            self.definitions
            or any(self.enqueued.values())
            or any(self.spilled.values())
            or any(self.delayed.values())
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


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A durable queue as found at start."""

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes
    delivered_up_to: int  # messages up to this position may have been delivered (`QueueDelivered`); 0 if none
    messages: int
    body_bytes: int
    first_position: int  # of a waiting message; 1 if there is none
    last_position: int  # of a waiting message; 0 if there is none
    first_expires: bool = False  # the message at the first position has a deadline; true in streams


@dataclass(frozen=True, slots=True)
class StoredExchangeQueue:
    """What a durable exchange keeps, as found at start."""

    queue_id: int
    vhost: str
    exchange: str
    messages: int  # that wait for their time
    body_bytes: int
    last_position: int  # of them; 0 if there is none


@dataclass(frozen=True, slots=True)
class StoredPriorityLevel:
    """What a durable queue keeps with one priority, as found at start; see `StoredQueue`."""

    queue_id: int
    of: int
    priority: int
    delivered_up_to: int
    messages: int
    body_bytes: int
    first_position: int
    last_position: int
    first_expires: bool = False


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """Up to which position a consumer has read a stream, as found at start."""

    queue_id: int
    consumer_tag: str
    position: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of deduplication, as found at start."""

    queue_id: int
    key: bytes
    expires_at_ms: int  # `NEVER`


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a restart begins with. Messages stay in the store until they are read."""

    exchanges: list[ExchangeDeclared]
    queues: list[StoredQueue]
    bindings: list[Bound]
    vhosts: list[VHostAdded] = field(default_factory=list)
    users: list[UserSet] = field(default_factory=list)
    permissions: list[PermissionSet] = field(default_factory=list)
    topic_permissions: list[TopicPermissionSet] = field(default_factory=list)
    parameters: list[ParameterSet] = field(default_factory=list)
    exchange_queues: list[StoredExchangeQueue] = field(default_factory=list)
    keys: list[StoredKey] = field(default_factory=list)  # oldest first
    segments: list[SegmentClosed] = field(default_factory=list)  # of streams; those of one in their order
    offsets: list[StoredOffset] = field(default_factory=list)
    priority_levels: list[StoredPriorityLevel] = field(default_factory=list)


class StoredMessage:
    """One waiting message read back.

    No named tuple: a compiled class is made, and looked at, several times as fast.
    """

    __slots__ = (
        "body",
        "dead_lettered",
        "exchange",
        "expires_at_ms",
        "persistent",
        "position",
        "properties",
        "returned",
        "routing_key",
    )

    def __init__(
        self,
        position: int,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        persistent: bool,
        dead_lettered: bool,
        expires_at_ms: int | None,
        returned: Returned | None = None,
    ) -> None:
        self.position = position
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.persistent = persistent
        self.dead_lettered = dead_lettered
        self.expires_at_ms = expires_at_ms  # in a stream: when it came
        self.returned = returned  # if it came back

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        return len(self.body)

    def _values(self) -> tuple[object, ...]:
        return (
            self.position,
            self.exchange,
            self.routing_key,
            self.properties,
            self.body,
            self.persistent,
            self.dead_lettered,
            self.expires_at_ms,
            self.returned,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredMessage) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"StoredMessage{self._values()!r}"
