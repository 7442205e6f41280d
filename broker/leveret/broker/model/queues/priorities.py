"""The ready messages of a queue with `x-max-priority`: a backlog for each priority that is in use. HOT.

Theory of operation
-------------------
A `Level` is the backlog of one priority. It has a queue id of its own, so positions, rows, windows and pages
are what they are in a plain queue; the lowest has the id of the queue. A level begins with the first message
of its priority, and stays as long as the queue: 256 priorities that nobody uses cost nothing.

To its queue a `PriorityBacklog` looks like one backlog. What comes in goes to its level; what goes out comes
from the highest level that has messages, the head. `count` and `body_bytes` are those of all levels;
`entry_count` and `ready_position` are those of the head, and told again whenever it changes.

Which level an entry is of, it knows itself. It could not be told from the priority of the message: one that
came to the queue before its priorities were obeyed is in the lowest level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.queues.backlog import WINDOW_MESSAGES, Backlog
from leveret.broker.model.queues.entry import Entry
from leveret.storage.changes import MAX_POSITION, PriorityLevelDeclared

if TYPE_CHECKING:
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.queues.queue_ids import QueueIds
    from leveret.broker.model.turn import Load, Turn
    from leveret.protocol.content import Message
    from leveret.storage.stored import Stored, StoredPriorityLevel


class LevelEntry(Entry):
    """One message in a queue with priorities."""

    __slots__ = ("level",)

    def __init__(
        self,
        level: Level,
        queue: Queue,
        position: int,
        message: Message,
        redelivered: bool,
        expires_at_ms: int,
    ) -> None:
        super().__init__(queue, position, message, redelivered, expires_at_ms)
        self.level = level


class Level(Backlog):
    """What waits with one priority."""

    __slots__ = ("_levels", "noted_up_to", "priority")

    def __init__(
        self,
        levels: PriorityBacklog,
        queue: Queue,
        turn: Turn,
        queue_id: int,
        durable: bool,
        is_timed: bool,
        priority: int,
    ) -> None:
        super().__init__(queue, turn, queue_id, durable, is_timed)
        self._levels = levels
        self.priority = priority
        self.noted_up_to: int = 0  # the store knows that messages up to here were delivered

    @property
    def queue_id(self) -> int:
        """Under which the store has its messages."""
        return self._queue_id

    def entry_of(self, message: Message, position: int) -> Entry:
        """Make an entry of this level; see `Backlog.entry_of`."""
        entry = self._make_entry(position, message, False, 0)
        if self._spilled_from <= position <= self._spilled_up_to:
            entry.is_spilled = True
        return entry

    def _make_entry(self, position: int, message: Message, redelivered: bool, expires_at_ms: int) -> Entry:
        return LevelEntry(self, self._queue, position, message, redelivered, expires_at_ms)

    def _request_load(self) -> None:
        if not self._is_loading:
            self._levels.to_load.append(self)
        super()._request_load()

    def _forget_load(self) -> None:
        """Ignore what is being read back, and do not ask for it if that is still to be done."""
        super()._forget_load()
        if self in self._levels.to_load:
            self._levels.to_load.remove(self)

    def _window(self) -> int:
        """Return its share of what the queue keeps in memory."""
        return self._share(super()._window())

    def _share(self, of: int) -> int:
        return max(1, of // self._levels.level_count)

    def refill(self) -> None:
        """Keep the window filled: that of the head as in a plain queue, that of another with its share."""
        if self is self._levels.head or self.entry_count < self._share(WINDOW_MESSAGES):
            super().refill()

    def wanted_loads(self) -> list[Load]:
        """Return what is to be read back; see `refill`."""
        wanted = super().wanted_loads()
        if self is not self._levels.head:
            for load in wanted:
                load.limit = self._share(load.limit)
                load.max_bytes = self._share(load.max_bytes)
        return wanted

    def note_delivered(self) -> None:
        """Record exactly what has been delivered."""
        super().note_delivered()
        self.noted_up_to = self.delivered_up_to


class PriorityBacklog(Backlog):
    """What waits in a queue with priorities.

    Args:
        queue: whose messages these are.
        turn: what the current turn gathers.
        queue_id: under which the store knows the queue, and its lowest level.
        durable: whether persistent messages go to the store.
        is_timed: whether messages have deadlines from the start.
        max_priority: the highest; a message with a higher one counts as this.
        queue_ids: has promised as many ids.
    """

    __slots__ = (
        "_by_priority",
        "_head",
        "_in_order",
        "_max_priority",
        "_queue_ids",
        "_taken_from",
        "_was_delivering",
        "_watch_restored",
        "to_load",
    )

    def __init__(
        self,
        queue: Queue,
        turn: Turn,
        queue_id: int,
        durable: bool,
        is_timed: bool,
        max_priority: int,
        queue_ids: QueueIds,
    ) -> None:
        super().__init__(queue, turn, queue_id, durable, is_timed)
        self._max_priority = max_priority
        self._queue_ids = queue_ids
        self._by_priority: dict[int, Level] = {}
        self._in_order: list[Level] = []  # the same, highest first
        self._head: Level | None = None  # the highest with messages, or any if there are none
        self._taken_from: Level | None = None  # where messages were taken from last
        self.to_load: list[Level] = []  # whose next messages are to be read back
        self._was_delivering: bool = False  # the last run crashed while it delivered
        self._watch_restored: bool = False

    # -- levels

    @property
    def level_count(self) -> int:
        """How many levels are in use."""
        return len(self._in_order)

    @property
    def head(self) -> Level | None:
        """The level that messages are taken from next."""
        return self._head

    def _level_for(self, message: Message) -> Level:
        priority = message.envelope.fields.priority
        if priority is None:
            priority = 0
        elif priority > self._max_priority:
            priority = self._max_priority
        level = self._by_priority.get(priority)
        return self._begin(priority) if level is None else level

    def _begin(self, priority: int) -> Level:
        """Begin a level with the first message of its priority."""
        if not priority:
            return self._add(0, self._queue_id)
        queue_id = self._queue_ids.take_promised()
        if self.durable:
            self._turn.batch.definitions.append(PriorityLevelDeclared(queue_id, self._queue_id, priority))
        return self._add(priority, queue_id)

    def _add(self, priority: int, queue_id: int) -> Level:
        queue = self._queue
        is_timed = queue.arguments.message_ttl_ms is not None
        level = Level(self, queue, self._turn, queue_id, self.durable, is_timed, priority)
        if priority:
            self._turn.levels[queue_id] = queue
        self._by_priority[priority] = level
        index = 0
        while index < len(self._in_order) and self._in_order[index].priority > priority:
            index += 1
        self._in_order.insert(index, level)
        return level

    def _find_head(self) -> None:
        for level in self._in_order:
            if level.count:
                self._head = level
                break
        self._tell_of_head()

    def _tell_of_head(self) -> None:
        head = self._head
        if head is not None:
            self.entry_count = head.entry_count
            self.ready_position = head.ready_position

    def _count_anew(self) -> None:
        """Count what is in all levels."""
        count = body_bytes = 0
        for level in self._in_order:
            count += level.count
            body_bytes += level.body_bytes
            if level.is_timed:
                self.is_timed = True
        self.count = count
        self.body_bytes = body_bytes
        self._find_head()

    def _left(self, level: Level, count: int, body_bytes: int) -> None:
        """Note that messages were taken from the head."""
        self._taken_from = level
        self.count -= count
        self.body_bytes -= body_bytes
        if level.count:
            self._tell_of_head()
        else:
            self._find_head()

    # -- in

    def append(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool) -> None:
        """Append messages of one envelope to the level of their priority; see `Backlog.append`."""
        level = self._level_for(messages[0])
        level.append(messages, body_bytes, ttl_ms, is_shared)
        self.count += len(messages)
        self.body_bytes += body_bytes
        if level.is_timed:
            self.is_timed = True
        head = self._head
        if head is None or not head.count or level.priority > head.priority:
            self._head = level
        self._tell_of_head()

    def put_back(self, entries: list[Entry]) -> None:
        """Queue entries again, each at its old position in its level."""
        by_level: dict[Level, list[Entry]] = {}
        for entry in entries:
            assert isinstance(entry, LevelEntry)
            by_level.setdefault(entry.level, []).append(entry)
        for level, its_entries in by_level.items():
            level.put_back(its_entries)
        self._count_anew()

    # -- out

    @property
    def ready_count(self) -> int:
        """Messages of the head that nobody has touched."""
        return 0 if self._head is None else self._head.ready_count

    def take_ready(self, count: int) -> list[Message]:
        """Take the first messages of the head; see `Backlog.take_ready`."""
        head = self._head
        assert head is not None
        body_bytes = head.body_bytes
        messages = head.take_ready(count)
        self._left(head, count, body_bytes - head.body_bytes)
        return messages

    def take_entries(self, count: int) -> list[Entry]:
        """Take the first entries of the head. There must be as many."""
        head = self._head
        assert head is not None
        body_bytes = head.body_bytes
        entries = head.take_entries(count)
        self._left(head, count, body_bytes - head.body_bytes)
        return entries

    def pop(self) -> Entry | None:
        """Take the message that is next; None if there is none, or it has to be read back first."""
        head = self._head
        if head is None:
            return None
        entry = head.pop()
        if entry is None:
            self._tell_of_head()
        else:
            self._left(head, 1, entry.message.body_bytes)
        return entry

    def entry_of(self, message: Message, position: int) -> Entry:
        """Make an entry for a message that was taken last."""
        level = self._taken_from
        assert level is not None
        return level.entry_of(message, position)

    def is_stored_at(self, position: int) -> bool:
        """Whether messages at this position, of those taken last, may be in the store."""
        level = self._taken_from
        assert level is not None
        return level.is_stored_at(position)

    @property
    def has_spilled(self) -> bool:
        """Whether messages are, or were, in the store for want of memory."""
        return any(level.has_spilled for level in self._in_order)

    def forget_entry(self, entry: Entry) -> None:
        """Remove a message from the store, if it is there."""
        assert isinstance(entry, LevelEntry)
        entry.level.forget_entry(entry)

    def forget_entries(self, entries: list[Entry]) -> None:
        """Remove messages from the store, if they are there."""
        for entry in entries:
            self.forget_entry(entry)

    def forget(self, message: Message, position: int) -> None:
        """Do the same for a message that was taken last."""
        level = self._taken_from
        assert level is not None
        level.forget(message, position)

    def note_return(self, entry: Entry) -> None:
        """Have the store remember how often a message came back; see `Backlog.note_return`."""
        assert isinstance(entry, LevelEntry)
        entry.level.note_return(entry)

    # -- deadlines

    @property
    def next_deadline_ms(self) -> int:
        """When the next message in a window expires; 0 for never."""
        first = 0
        for level in self._in_order:
            next_ms = level.next_deadline_ms
            if next_ms and (not first or next_ms < first):
                first = next_ms
        return first

    def expire(self, up_to_ms: int) -> list[Entry]:
        """Take all messages in the windows whose deadline is not after a time, by deadline."""
        expired: list[Entry] = []
        for level in self._in_order:
            expired += level.expire(up_to_ms)
        expired.sort(key=_deadline)
        self._count_anew()
        return expired

    def alive_entries(self, most: int, up_to_ms: int) -> int:
        """Count the first entries of the head; see `Backlog.alive_entries`."""
        return 0 if self._head is None else self._head.alive_entries(most, up_to_ms)

    # -- the windows of long levels

    def refill(self) -> None:
        """Keep the head's window filled where somebody waits for messages, or deadlines are watched."""
        head = self._head
        if head is not None:
            head.is_wanted = self.is_wanted
            head.refill()
            self._tell_of_head()

    def relieve(self) -> bool:
        """Begin to page out a level, the lowest that is worth it, because memory is short."""
        for level in reversed(self._in_order):
            if level.relieve():
                self._tell_of_head()
                return True
        return False

    def page_out(self, durable: int) -> bool:
        """Drop from memory what `relieve` asked for; see `Backlog.page_out`."""
        is_done = True
        for level in self._in_order:
            if not level.page_out(durable):
                is_done = False
        self._tell_of_head()
        return is_done

    def wanted_loads(self) -> list[Load]:
        """Return what is to be read back, once `Turn.loads` names the queue."""
        wanted: list[Load] = []
        for level in self.to_load:
            wanted += level.wanted_loads()
        self.to_load = []
        return wanted

    def loaded(self, generation: int, rows: list[Stored]) -> bool:
        """Take back messages of a level; see `Backlog.loaded`."""
        for level in self._in_order:
            if level.generation == generation:
                level.is_wanted = self.is_wanted and level is self._head
                level.loaded(generation, rows)
                self._count_anew()
                return True
        return False

    # -- restart

    def restore(
        self, messages: int, body_bytes: int, first: int, last: int, delivered_up_to: int, watch: bool
    ) -> None:
        """Begin with what the store holds of the lowest level; `restore_level` follows for the others."""
        self._was_delivering = delivered_up_to == MAX_POSITION
        self._watch_restored = watch
        if messages:
            self._add(0, self._queue_id).restore(messages, body_bytes, first, last, delivered_up_to, watch)
            self._count_anew()
        elif delivered_up_to:
            self.note_delivered()

    def restore_level(self, stored: StoredPriorityLevel) -> None:
        """Begin with what the store holds of another level."""
        self._queue_ids.reserve_promised(stored.queue_id)
        level = self._add(stored.priority, stored.queue_id)
        level.restore(
            stored.messages,
            stored.body_bytes,
            stored.first_position,
            stored.last_position,
            MAX_POSITION if self._was_delivering else stored.delivered_up_to,
            self._watch_restored or stored.first_expires,
        )
        level.noted_up_to = level.delivered_up_to
        self._count_anew()

    def note_delivered(self) -> None:
        """Record exactly what has been delivered: of the queue, and where that is new of its levels."""
        for level in self._in_order:
            if level.priority and level.delivered_up_to != level.noted_up_to:
                level.note_delivered()
        lowest = self._by_priority.get(0)
        if lowest is not None:
            lowest.note_delivered()
        else:
            super().note_delivered()

    # -- all at once

    def purge(self) -> None:
        """Drop everything, also from the store."""
        for level in self._in_order:
            level.purge()
        self._is_empty()

    def clear(self) -> None:
        """Drop everything from memory."""
        for level in self._in_order:
            level.clear()
        self._is_empty()

    def _is_empty(self) -> None:
        self.to_load = []
        self._count_anew()

    def let_go(self, with_vhost: bool) -> None:
        """Drop everything for good, and the levels with it; see `Backlog.let_go`."""
        self.clear()
        batch = self._turn.batch
        used = 0
        for level in self._in_order:
            if level.priority:
                used += 1
                queue_id = level.queue_id
                del self._turn.levels[queue_id]
                is_stored = self.durable or level.has_spilled
                if self.durable and with_vhost:
                    batch.forget_queue(queue_id)
                elif is_stored:
                    batch.delete_queue(queue_id)
                self._queue_ids.release(queue_id, batch.number if is_stored else 0)
        self._queue_ids.give_up_promised(self._max_priority - used)

    def shrink(self) -> None:
        """Let go of tables that are empty."""
        for level in self._in_order:
            level.shrink()


def _deadline(entry: Entry) -> int:
    return entry.expires_at_ms
