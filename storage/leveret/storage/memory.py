"""The reference engine: plain dictionaries. Also the fake for tests, and what `--memory` uses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from threading import Lock
from typing import assert_never

from leveret.storage.batch import FORGOTTEN, Batch, Returned, StoredContent
from leveret.storage.changes import (
    AccessDefinition,
    Bound,
    Definition,
    ExchangeDeclared,
    ExchangeDeleted,
    ExchangeQueueDeclared,
    ParameterCleared,
    ParameterSet,
    PermissionCleared,
    PermissionSet,
    PriorityLevelDeclared,
    QueueDeclared,
    QueueDeleted,
    QueueDelivered,
    QueuePurged,
    SegmentClosed,
    SegmentRemoved,
    TopicPermissionCleared,
    TopicPermissionSet,
    Unbound,
    UserDeleted,
    UserSet,
    VHostAdded,
    VHostDeleted,
)
from leveret.storage.store import StaleEpochError, StoreError
from leveret.storage.stored import (
    Snapshot,
    Stored,
    StoredExchangeQueue,
    StoredKey,
    StoredMessage,
    StoredOffset,
    StoredPriorityLevel,
    StoredQueue,
    StoredRun,
)


@dataclass(frozen=True, slots=True)
class MemoryMessage:
    """A stored message; the content is the broker's own object, not a copy."""

    content: StoredContent
    persistent: bool
    expires_at_ms: int | None


class MemoryQueue:
    """The stored messages of one queue, by position."""

    def __init__(self) -> None:
        self._messages: dict[int, MemoryMessage] = {}
        self._due: list[tuple[int, int]] = []  # of those that wait for their time: when, position; ascending
        self._is_due_sorted = True
        self._order: list[int] = []  # their positions, ascending; positions that are gone leave it late
        self._returned: dict[int, Returned] = {}  # position -> what is known of the message's returns

    def __contains__(self, position: int) -> bool:
        return position in self._messages

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, position: int, message: MemoryMessage) -> None:
        """Add a message at a position that is free."""
        self._messages[position] = message
        if self._order and position <= self._order[-1]:
            self._order = sorted(self._messages)
        else:
            self._order.append(position)

    def delay(self, position: int, due_ms: int, content: StoredContent) -> None:
        """Add a message that waits for its time."""
        self.add(position, MemoryMessage(content, True, due_ms))
        self._due.append((due_ms, position))
        self._is_due_sorted = False

    def due_after(self, due_ms: int, position: int, limit: int) -> list[tuple[int, MemoryMessage]]:
        """Return messages that wait for their time, by time, behind that of a time and position."""
        if not self._is_due_sorted or len(self._due) > 2 * len(self._messages) + 8:
            self._due = sorted(due for due in self._due if due[1] in self._messages)
            self._is_due_sorted = True
        found: list[tuple[int, MemoryMessage]] = []
        for index in range(bisect_right(self._due, (due_ms, position)), len(self._due)):
            if len(found) == limit:
                break
            position = self._due[index][1]
            if position in self._messages:
                found.append((position, self._messages[position]))
        return found

    def remove(self, position: int) -> None:
        """Remove a message if it is there."""
        self._messages.pop(position, None)
        self._returned.pop(position, None)
        if len(self._order) > 2 * len(self._messages) + 8:
            self._order = sorted(self._messages)

    def note_returns(self, returned: dict[int, Returned]) -> None:
        """Remember what is known of the messages that are still there."""
        self._returned.update({p: known for p, known in returned.items() if p in self._messages})

    def returned(self, position: int) -> Returned | None:
        """Return what is known of a message's returns."""
        return self._returned.get(position)

    def between(self, first: int, last: int) -> list[tuple[int, MemoryMessage]]:
        """Return the messages with first <= position <= last, by position."""
        start, stop = bisect_left(self._order, first), bisect_right(self._order, last)
        return [(p, self._messages[p]) for p in self._order[start:stop] if p in self._messages]

    def remove_transient(self) -> None:
        """Remove what a restart removes."""
        self._messages = {p: message for p, message in self._messages.items() if message.persistent}
        self._returned = {p: known for p, known in self._returned.items() if p in self._messages}
        self._order = sorted(self._messages)

    @property
    def body_bytes(self) -> int:
        """Length of all bodies. O(messages)."""
        return sum(message.content.body_bytes for message in self._messages.values())

    @property
    def first_position(self) -> int:
        """Position of the first message; 1 if there is none."""
        return min(self._messages, default=1)

    @property
    def first_expires(self) -> bool:
        """Whether the first message has a deadline."""
        first = self._messages.get(self.first_position)
        return first is not None and first.expires_at_ms is not None

    @property
    def last_position(self) -> int:
        """Position of the last message; 0 if there is none."""
        return max(self._messages, default=0)


@dataclass(slots=True)
class MemoryDisk:
    """What outlives a `MemoryStore`: give the same disk to the next one, and it is a restart."""

    epoch: int = 0
    recorded: int = 0  # number of the last record of a redo log that is applied
    exchanges: dict[tuple[str, str], ExchangeDeclared] = field(
        default_factory=dict
    )  # vhost, name -> exchange
    queues: dict[int, QueueDeclared] = field(default_factory=dict)  # queue id -> queue
    delivered: dict[int, int] = field(default_factory=dict)  # queue id -> delivered up to this position
    bindings: dict[Bound, None] = field(default_factory=dict)  # an ordered set
    messages: dict[int, MemoryQueue] = field(default_factory=dict)  # queue id -> its messages
    exchange_queues: dict[int, ExchangeQueueDeclared] = field(default_factory=dict)  # by queue id
    levels: dict[int, PriorityLevelDeclared] = field(default_factory=dict)  # queue id -> priority of a queue
    keys: dict[int, dict[bytes, int]] = field(
        default_factory=dict
    )  # queue id -> key of deduplication -> when it expires
    segments: dict[int, dict[int, SegmentClosed]] = field(
        default_factory=dict
    )  # queue id -> last position -> segment of a stream
    offsets: dict[int, dict[str, int]] = field(default_factory=dict)  # queue id -> consumer tag -> position
    vhosts: dict[str, VHostAdded] = field(default_factory=dict)
    users: dict[str, UserSet] = field(default_factory=dict)
    permissions: dict[tuple[str, str], PermissionSet] = field(default_factory=dict)  # user, vhost
    topic_permissions: dict[tuple[str, str, str], TopicPermissionSet] = field(
        default_factory=dict
    )  # user, vhost, exchange
    parameters: dict[tuple[str, str, str], ParameterSet] = field(
        default_factory=dict
    )  # vhost, component, name


class MemoryStore:
    """Keeps everything in a `MemoryDisk`. A crash is to drop the store and open another on the same disk."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self._disk = MemoryDisk() if disk is None else disk
        self._lock = Lock()  # the writing and the reading thread
        self._failure: str | None = None

    def load(self) -> Snapshot:
        """See `Store.load`."""
        disk = self._disk
        with self._lock:
            self._require_usable()
            disk.levels = {
                level_id: level for level_id, level in disk.levels.items() if level.of in disk.queues
            }
            for queue_id in list(disk.messages):
                if not self._has_owner(queue_id):
                    del disk.messages[queue_id]
                else:
                    disk.messages[queue_id].remove_transient()
            disk.keys = {queue_id: keys for queue_id, keys in disk.keys.items() if self._has_owner(queue_id)}
            queues = [self._stored_queue(queue) for _, queue in sorted(disk.queues.items())]
            return Snapshot(
                list(disk.exchanges.values()),
                queues,
                list(disk.bindings),
                list(disk.vhosts.values()),
                list(disk.users.values()),
                list(disk.permissions.values()),
                list(disk.topic_permissions.values()),
                list(disk.parameters.values()),
                [self._stored_exchange_queue(queue) for _, queue in sorted(disk.exchange_queues.items())],
                [
                    StoredKey(queue_id, key, ms)
                    for queue_id, keys in disk.keys.items()
                    for key, ms in keys.items()
                ],
                [segment for _, of_queue in sorted(disk.segments.items()) for segment in of_queue.values()],
                [
                    StoredOffset(queue_id, tag, position)
                    for queue_id, offsets in sorted(disk.offsets.items())
                    for tag, position in sorted(offsets.items())
                ],
                [self._stored_level(level) for _, level in sorted(disk.levels.items())],
            )

    def open_redo_log(self, notified: int) -> None:
        """See `Store.open_redo_log`: memory is as quick as a log."""

    def apply(self, batch: Batch, recorded: int = 0) -> None:
        """See `Store.apply`."""
        disk = self._disk
        with self._lock:
            self._require_usable()
            if batch.epoch < disk.epoch:
                raise StaleEpochError(f"a batch of epoch {batch.epoch} came after epoch {disk.epoch}")
            self._check(batch)
            disk.epoch = batch.epoch
            disk.recorded = recorded or disk.recorded
            for definition in batch.definitions:
                self._define(definition)
            persistence = ((batch.enqueued, True), (batch.spilled, False), (batch.streamed, True))
            for by_queue, persistent in persistence:
                for queue_id, entries in by_queue.items():
                    queue = self._messages(queue_id)
                    expiries = batch.expiries.get(queue_id, {})
                    for position, content in entries.items():
                        queue.add(position, MemoryMessage(content, persistent, expiries.get(position)))
            for queue_id, entries in batch.delayed.items():
                for position, content in entries.items():
                    self._messages(queue_id).delay(position, batch.expiries[queue_id][position], content)
            for queue_id, read in batch.offsets.items():
                known = disk.offsets.get(queue_id, {}) | read
                disk.offsets[queue_id] = {tag: at for tag, at in known.items() if at != FORGOTTEN}
            for queue_id, changed in batch.keys.items():
                self._change_keys(disk.keys.setdefault(queue_id, {}), changed)
            for queue_id, settled in batch.settled.items():
                queue = self._messages(queue_id)
                for position in settled:
                    queue.remove(position)
            for queue_id, returned in batch.returned.items():
                self._messages(queue_id).note_returns(returned)

    def read(self, queue_id: int, after: int, up_to: int, limit: int, max_bytes: int) -> list[Stored]:
        """See `Store.read`."""
        with self._lock:
            self._require_usable()
            queue = self._messages(queue_id)
            found = queue.between(after + 1, up_to)[:limit]
        return _in_runs(self._read(queue, found, max_bytes))

    def read_delayed(
        self, queue_id: int, after_due_ms: int, after: int, limit: int, max_bytes: int
    ) -> list[StoredMessage]:
        """See `Store.read_delayed`."""
        with self._lock:
            self._require_usable()
            queue = self._messages(queue_id)
            found = queue.due_after(after_due_ms, after, limit)
        return self._read(queue, found, max_bytes)

    @staticmethod
    def _read(
        queue: MemoryQueue, found: list[tuple[int, MemoryMessage]], max_bytes: int
    ) -> list[StoredMessage]:
        messages: list[StoredMessage] = []
        body_bytes = 0
        for position, message in found:
            content = message.content
            body = content.body
            messages.append(
                StoredMessage(
                    position,
                    content.exchange,
                    content.routing_key,
                    content.properties,
                    body,
                    message.persistent,
                    content.dead_lettered,
                    message.expires_at_ms,
                    queue.returned(position),
                )
            )
            body_bytes += len(body)
            if body_bytes >= max_bytes:
                break
        return messages

    def reusable_bytes(self) -> int:
        """See `Store.reusable_bytes`."""
        return 0

    def checkpoint(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """See `Store.close`. The disk stays as it is."""
        self._failure = self._failure or "the store is closed"

    def _require_usable(self) -> None:
        if self._failure:
            raise StoreError(self._failure)

    def _has_owner(self, queue_id: int) -> bool:
        disk = self._disk
        return queue_id in disk.queues or queue_id in disk.exchange_queues or queue_id in disk.levels

    def _messages(self, queue_id: int) -> MemoryQueue:
        queue = self._disk.messages.get(queue_id)
        if queue is None:
            queue = self._disk.messages[queue_id] = MemoryQueue()
        return queue

    @staticmethod
    def _change_keys(keys: dict[bytes, int], changed: dict[bytes, int]) -> None:
        for key, expires_at_ms in changed.items():
            keys.pop(key, None)
            if expires_at_ms != FORGOTTEN:
                keys[key] = expires_at_ms

    def _stored_exchange_queue(self, queue: ExchangeQueueDeclared) -> StoredExchangeQueue:
        messages = self._messages(queue.queue_id)
        return StoredExchangeQueue(
            queue.queue_id,
            queue.vhost,
            queue.exchange,
            len(messages),
            messages.body_bytes,
            messages.last_position,
        )

    def _stored_level(self, level: PriorityLevelDeclared) -> StoredPriorityLevel:
        messages = self._messages(level.queue_id)
        return StoredPriorityLevel(
            level.queue_id,
            level.of,
            level.priority,
            self._disk.delivered.get(level.queue_id, 0),
            len(messages),
            messages.body_bytes,
            messages.first_position,
            messages.last_position,
            messages.first_expires,
        )

    def _stored_queue(self, queue: QueueDeclared) -> StoredQueue:
        messages = self._messages(queue.queue_id)
        return StoredQueue(
            queue.queue_id,
            queue.vhost,
            queue.name,
            queue.auto_delete,
            queue.arguments,
            self._disk.delivered.get(queue.queue_id, 0),
            len(messages),
            messages.body_bytes,
            messages.first_position,
            messages.last_position,
            messages.first_expires,
        )

    def _check(self, batch: Batch) -> None:
        """Refuse what no correct model sends: a batch is applied whole or not at all."""
        deleted = {d.queue_id for d in batch.definitions if isinstance(d, QueueDeleted)}
        vhosts = {d.name for d in batch.definitions if isinstance(d, VHostDeleted)}
        deleted.update(q.queue_id for q in self._disk.queues.values() if q.vhost in vhosts)
        names = {(q.vhost, q.name) for q in self._disk.queues.values() if q.queue_id not in deleted}
        for definition in batch.definitions:
            if isinstance(definition, QueueDeclared) and definition.queue_id not in deleted:
                name = (definition.vhost, definition.name)
                if definition.queue_id in self._disk.queues or name in names:
                    self._failure = f"queue {definition.queue_id} ({definition.name!r}) exists already"
                names.add(name)
        for by_queue in (batch.enqueued, batch.spilled, batch.streamed):
            for queue_id, entries in by_queue.items():
                if any(position in self._messages(queue_id) for position in entries):
                    self._failure = f"a position of queue {queue_id} is taken"
        self._require_usable()

    def _define(self, definition: Definition) -> None:
        if isinstance(definition, AccessDefinition):
            self._define_access(definition)
            return
        disk = self._disk
        match definition:
            case ExchangeDeclared():
                disk.exchanges[definition.vhost, definition.name] = definition
            case ExchangeDeleted():
                disk.exchanges.pop((definition.vhost, definition.name), None)
            case QueueDeclared():
                disk.queues[definition.queue_id] = definition
            case ExchangeQueueDeclared():
                disk.exchange_queues[definition.queue_id] = definition
            case PriorityLevelDeclared():
                disk.levels[definition.queue_id] = definition
            case QueueDeleted():
                self._delete_queue(definition.queue_id)
            case QueueDelivered():
                if definition.queue_id in disk.queues or definition.queue_id in disk.levels:
                    disk.delivered[definition.queue_id] = definition.up_to
            case QueuePurged():
                queue = self._messages(definition.queue_id)
                for position, _ in queue.between(definition.first, definition.last):
                    queue.remove(position)
            case SegmentClosed(queue_id, _, last):
                disk.segments.setdefault(queue_id, {})[last] = definition
            case SegmentRemoved(queue_id, last):
                disk.segments.get(queue_id, {}).pop(last, None)
            case Bound():
                disk.bindings[definition] = None
            case Unbound(vhost, source, destination, to_exchange, binding_key, arguments):
                disk.bindings.pop(
                    Bound(vhost, source, destination, to_exchange, binding_key, arguments), None
                )
            case _:
                assert_never(definition)

    def _define_access(self, definition: AccessDefinition) -> None:
        disk = self._disk
        match definition:
            case VHostAdded(name):
                disk.vhosts[name] = definition
            case VHostDeleted(name):
                self._delete_vhost(name)
            case UserSet(name):
                disk.users[name] = definition
            case UserDeleted(name):
                disk.users.pop(name, None)
                disk.permissions = {key: p for key, p in disk.permissions.items() if p.user != name}
                disk.topic_permissions = {
                    key: p for key, p in disk.topic_permissions.items() if p.user != name
                }
            case PermissionSet(user, vhost):
                disk.permissions[user, vhost] = definition
            case PermissionCleared(user, vhost):
                disk.permissions.pop((user, vhost), None)
            case TopicPermissionSet(user, vhost, exchange):
                disk.topic_permissions[user, vhost, exchange] = definition
            case TopicPermissionCleared(user, vhost, exchange):
                disk.topic_permissions.pop((user, vhost, exchange), None)
            case ParameterSet(vhost, component, name):
                disk.parameters[vhost, component, name] = definition
            case ParameterCleared(vhost, component, name):
                disk.parameters.pop((vhost, component, name), None)
            case _:
                assert_never(definition)

    def _delete_queue(self, queue_id: int) -> None:
        disk = self._disk
        for by_queue in (disk.queues, disk.delivered, disk.messages, disk.exchange_queues, disk.keys):
            by_queue.pop(queue_id, None)
        disk.segments.pop(queue_id, None)
        disk.offsets.pop(queue_id, None)
        disk.levels.pop(queue_id, None)

    def _delete_vhost(self, name: str) -> None:
        disk = self._disk
        disk.vhosts.pop(name, None)
        owners: list[QueueDeclared | ExchangeQueueDeclared] = [*disk.queues.values()]
        for queue in [*owners, *disk.exchange_queues.values()]:
            if queue.vhost == name:
                self._delete_queue(queue.queue_id)
        for level_id in [level_id for level_id, level in disk.levels.items() if level.of not in disk.queues]:
            self._delete_queue(level_id)
        disk.exchanges = {key: e for key, e in disk.exchanges.items() if e.vhost != name}
        disk.bindings = {b: None for b in disk.bindings if b.vhost != name}
        disk.permissions = {key: p for key, p in disk.permissions.items() if p.vhost != name}
        disk.topic_permissions = {key: p for key, p in disk.topic_permissions.items() if p.vhost != name}
        disk.parameters = {key: p for key, p in disk.parameters.items() if p.vhost != name}


def _in_runs(messages: list[StoredMessage]) -> list[Stored]:
    """Return messages with those in runs that may be in one."""
    found: list[Stored] = []
    for message in messages:
        if (
            not message.persistent
            or message.dead_lettered
            or message.expires_at_ms is not None
            or message.returned is not None
        ):
            found.append(message)
            continue
        last = found[-1] if found else None
        if (
            isinstance(last, StoredRun)
            and last.last_position + 1 == message.position
            and last.properties == message.properties
            and last.routing_key == message.routing_key
            and last.exchange == message.exchange
        ):
            run = last
        else:
            run = StoredRun(message.position, message.exchange, message.routing_key, message.properties)
            found.append(run)
        run.bodies.append(message.body)
        run.body_bytes += len(message.body)
    return found
