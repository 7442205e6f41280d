"""The ready messages of one queue, in order: in memory, and in the store where there are many. HOT.

Theory of operation
-------------------
Positions number a queue's messages and only grow. A message that waits is in one of four places, in this
order:

* `entries`: messages with a state of their own, an `Entry` each (entry.py): requeued, with a deadline, or
  read back from the store one by one;
* `ready`: messages nobody has touched, at consecutive positions. A plain queue with quick consumers uses only
  this: a run of publishes is one `extend`, and no object is made per message and queue. Where there are very
  many of them they are packed (packed.py);
* the paged-out range: messages that are only in the store; known are its ends, its count and its bytes;
* `behind`: what arrived behind those, as in `ready`. When nothing is left in front of it, it is `ready`.

Messages leave from the left. A requeued entry goes back to its position, which is always left of the rest, so
RabbitMQ's order is kept exactly. When memory is short the paged-out range grows (`relieve`): by what is
`behind`, so that what consumers get next stays in memory; or, if that is little, by the end of `ready`, which
is how the range begins. When `entries` and `ready` run low, the next of the range are asked for. Runs of them
that differ in nothing but their bodies go to the end of `ready`, others become entries. In a queue with a
message TTL, or once a message with an expiration arrived (`is_timed`), the first messages are made
entries, and deadlines of the rest wait in `_ready_deadlines`; so deadlines work in the window, wherever in
it.

An entry is in the queue (`queued`), or out with a consumer or a getter (unacked), or gone. A queued entry
that expires in the middle of `entries` stays there as a tombstone (`queued` False) until it is reached.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush, merge
from typing import TYPE_CHECKING, Final

from leveret.broker.model.queues.entry import Entry
from leveret.broker.model.queues.packed import MESSAGE_OVERHEAD, Ready
from leveret.broker.model.turn import Load
from leveret.protocol.content import MessageMaker, make_envelope
from leveret.storage.changes import MAX_POSITION, QueueDelivered
from leveret.storage.stored import StoredRun

if TYPE_CHECKING:
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Envelope, Message
    from leveret.storage.batch import StoredContent
    from leveret.storage.stored import Stored, StoredMessage

WINDOW_MESSAGES: Final = 2000  # of a long queue kept in memory ahead of its consumers
WINDOW_BYTES: Final = 4 * 1024 * 1024
SPILL_BYTES: Final = 4 * 1024 * 1024  # about: of transient messages that one batch takes for want of memory
# What is behind is paged out if it is one message for so many in `ready`; else the end is: one of so many.
BEHIND_SHARE: Final = 8
CUT_SHARE: Final = 4


class Backlog:
    """What waits in a queue. Changes are noted in the turn's batch, memory in the turn's account.

    Args:
        queue: whose messages these are.
        turn: what the current turn gathers.
        queue_id: under which the store knows the queue.
        durable: whether persistent messages go to the store.
        is_timed: whether messages have deadlines from the start.
    """

    __slots__ = (
        "_behind",
        "_deadlines",
        "_entries",
        "_is_loading",
        "_is_split",
        "_loaded_up_to",
        "_next_position",
        "_paged_bytes",
        "_paged_last",
        "_queue",
        "_queue_id",
        "_ready",
        "_ready_deadlines",
        "_spilled_from",
        "_spilled_up_to",
        "_turn",
        "_uncertain_up_to",
        "body_bytes",
        "count",
        "delivered_up_to",
        "durable",
        "entry_count",
        "generation",
        "is_timed",
        "is_wanted",
        "keeps_transient",
        "page_request",
        "paged_count",
        "ready_position",
    )

    def __init__(self, queue: Queue, turn: Turn, queue_id: int, durable: bool, is_timed: bool) -> None:
        self._queue = queue
        self._turn = turn
        self._queue_id = queue_id
        self.durable = durable
        self.is_timed = is_timed
        self.keeps_transient: bool = False  # the store keeps messages whatever their delivery mode
        self.is_wanted: bool = False  # there are consumers, so the window is to be filled
        self.count: int = 0  # of ready messages, wherever they are
        self.body_bytes: int = 0  # of them
        self.entry_count: int = 0  # entries without tombstones
        self.ready_position: int = 1  # of the first message in `_ready`
        self.paged_count: int = 0
        self.delivered_up_to: int = 0  # highest position ever taken out
        # (batch, first position, last): what to page out once the batch is durable
        self.page_request: tuple[int, int, int] | None = None
        # A read that was asked for before a purge, or for an earlier queue with this id, is ignored.
        turn.load_generation += 1
        self.generation: int = turn.load_generation
        self._entries: deque[Entry] = deque()
        self._deadlines: list[tuple[int, int, Entry]] = []  # heap by time, then position
        self._ready: Ready = Ready(turn)
        self._behind: Ready = Ready(turn)
        self._is_split: bool = False  # what arrives goes to `_behind`
        self._next_position: int = 1  # of what arrives
        self._ready_deadlines: dict[int, int] = {}  # position in `_ready` or `_behind` -> wall-clock ms
        self._paged_bytes: int = 0
        self._paged_last: int = 0
        self._loaded_up_to: int = 0  # the paged-out range begins behind this position
        # Transient messages of `_ready` and `_behind` from here up to there are in the store.
        self._spilled_from: int = 0
        self._spilled_up_to: int = 0
        self._uncertain_up_to: int = 0  # messages of an earlier run up to here may have been delivered in it
        self._is_loading: bool = False

    def keep_transient(self) -> None:
        """Have the store keep messages whatever their delivery mode. Before there are any."""
        self.keeps_transient = True
        self._spilled_up_to = MAX_POSITION

    # -- in

    def append(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool) -> None:
        """Append messages of one envelope.

        Args:
            messages: in order; not kept.
            body_bytes: of all of them together.
            ttl_ms: after which they expire, -1 for never.
            is_shared: other queues have them, too.
        """
        count = len(messages)
        turn = self._turn
        position = self._next_position
        persistent = self.durable and (messages[0].envelope.persistent or self.keeps_transient)
        if persistent:
            stored: list[StoredContent] = messages  # type: ignore[assignment]  # a list is invariant
            turn.batch.enqueue(self._queue_id, position, stored)
            turn.unwritten_bytes += body_bytes
        if ttl_ms >= 0:
            self._note_deadlines(count, turn.now_ms + ttl_ms, persistent)
        if self._is_split:
            self._behind.extend(messages, body_bytes, is_shared)
        else:
            self._ready.extend(messages, body_bytes, is_shared)
        self._next_position = position + count
        self.count += count
        self.body_bytes += body_bytes
        turn.memory_bytes += body_bytes + count * MESSAGE_OVERHEAD
        if self.is_timed:
            self.refill()

    def _note_deadlines(self, count: int, expires_at_ms: int, persistent: bool) -> None:
        """Remember the deadline of `count` messages about to be appended."""
        self.is_timed = True
        position = self._next_position
        for _ in range(count):
            self._ready_deadlines[position] = expires_at_ms
            if persistent:
                self._turn.batch.expire_at(self._queue_id, position, expires_at_ms)
            position += 1

    def put_back(self, entries: list[Entry]) -> None:
        """Queue entries again, each at its old position. `entries` is in no particular order."""
        entries.sort(key=_position)
        body_bytes = 0
        for entry in entries:
            entry.queued = True
            body_bytes += entry.message.body_bytes
            if entry.expires_at_ms:
                self._watch(entry)
        count = len(entries)
        self.count += count
        self.body_bytes += body_bytes
        self._turn.memory_bytes += body_bytes + count * MESSAGE_OVERHEAD
        self.entry_count += count
        if not self._entries or entries[-1].position < self._entries[0].position:
            self._entries.extendleft(reversed(entries))
        else:
            self._entries = deque(merge(self._entries, entries, key=_position))

    # -- out

    @property
    def ready_count(self) -> int:
        """Messages that nobody has touched, in front of what is paged out."""
        return self._ready.count

    def take_ready(self, count: int) -> list[Message]:
        """Take the first messages of `ready`; the first of them is at `ready_position`.

        There must be as many, and no entries.
        """
        messages = self._ready.take(count)
        self.ready_position += count
        self.delivered_up_to = self.ready_position - 1
        body_bytes = 0
        for message in messages:
            body_bytes += message.body_bytes
        self._took(count, body_bytes)
        if self._is_split:
            self._advance()
        return messages

    def take_entries(self, count: int) -> list[Entry]:
        """Take the first entries. There must be as many."""
        taken: list[Entry] = []
        body_bytes = 0
        while len(taken) < count:
            entry = self._entries.popleft()
            if entry.queued:
                entry.queued = False
                body_bytes += entry.message.body_bytes
                taken.append(entry)
        if count and taken[-1].position > self.delivered_up_to:
            self.delivered_up_to = taken[-1].position
        self.entry_count -= count
        self._took(count, body_bytes)
        return taken

    def pop(self) -> Entry | None:
        """Take the message at the head; None if there is none, or it has to be read back first."""
        if not self.entry_count:
            self.refill()
        if self.entry_count:
            return self.take_entries(1)[0]
        if not self._ready.count:
            if self.paged_count:
                self._request_load()
            return None
        entry = self.entry_of(self._ready.first(), self.ready_position)
        self.take_ready(1)
        return entry

    def entry_of(self, message: Message, position: int) -> Entry:
        """Make an entry for a message that is, or was until now, in `ready`."""
        entry = Entry(self._queue, position, message, False, 0)
        if self._spilled_from <= position <= self._spilled_up_to:
            entry.is_spilled = True
        return entry

    def _make_entry(self, position: int, message: Message, redelivered: bool, expires_at_ms: int) -> Entry:
        return Entry(self._queue, position, message, redelivered, expires_at_ms)

    def _took(self, count: int, body_bytes: int) -> None:
        self.count -= count
        self.body_bytes -= body_bytes
        self._turn.memory_bytes -= body_bytes + count * MESSAGE_OVERHEAD

    def is_stored_at(self, position: int) -> bool:
        """Whether messages at this position may be in the store."""
        return self.durable or position <= self._spilled_up_to

    @property
    def has_spilled(self) -> bool:
        """Whether messages are, or were, in the store for want of memory."""
        return self._spilled_up_to > 0

    def forget_entry(self, entry: Entry) -> None:
        """Remove a message from the store, if it is there."""
        message = entry.message
        if entry.is_spilled or (self.durable and message.envelope.persistent):
            self._turn.batch.settle(self._queue_id, entry.position, message.body_bytes)

    def forget_entries(self, entries: list[Entry]) -> None:
        """Remove messages from the store, if they are there."""
        if len(entries) == 1:
            self.forget_entry(entries[0])
            return
        durable = self.durable
        positions: list[int] = []
        body_bytes: list[int] = []
        for entry in entries:
            message = entry.message
            if entry.is_spilled or (durable and message.envelope.persistent):
                positions.append(entry.position)
                body_bytes.append(message.body_bytes)
        if positions:
            self._turn.batch.settle_all(self._queue_id, positions, body_bytes)

    def forget(self, message: Message, position: int) -> None:
        """Do the same for a message that is, or was until now, in `ready`."""
        if (
            self.durable and message.envelope.persistent
        ) or self._spilled_from <= position <= self._spilled_up_to:
            self._turn.batch.settle(self._queue_id, position, message.body_bytes)

    def note_return(self, entry: Entry) -> None:
        """Have the store remember how often a message came back, if it keeps the message."""
        returned = entry.returned
        if returned is not None and (
            entry.is_spilled or (self.durable and entry.message.envelope.persistent)
        ):
            self._turn.batch.note_return(self._queue_id, entry.position, returned)

    # -- deadlines

    @property
    def next_deadline_ms(self) -> int:
        """When the next message in the window expires; 0 for never."""
        if self._turn.expires_at_head_only:
            return self._entries[0].expires_at_ms if self.entry_count else 0
        return self._deadlines[0][0] if self._deadlines else 0

    def expire(self, up_to_ms: int) -> list[Entry]:
        """Take all messages in the window whose deadline is not after a time, by deadline.

        With `Turn.expires_at_head_only` those of them that no other message is in front of.
        """
        if self._turn.expires_at_head_only:
            return self._expire_at_head(up_to_ms)
        expired: list[Entry] = []
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= up_to_ms:
            while deadlines and deadlines[0][0] <= up_to_ms:
                entry = heappop(deadlines)[2]
                if entry.queued and entry.expires_at_ms <= up_to_ms:
                    entry.queued = False  # a tombstone, unless it is the head
                    self.entry_count -= 1
                    self._took(1, entry.message.body_bytes)
                    expired.append(entry)
            entries = self._entries
            while entries and not entries[0].queued:
                entries.popleft()
            self.refill()  # and what comes into the window may be due, too
        return expired

    def _expire_at_head(self, up_to_ms: int) -> list[Entry]:
        expired: list[Entry] = []
        while self.entry_count and 0 < self._entries[0].expires_at_ms <= up_to_ms:
            expired += self.take_entries(1)
            self.refill()
        return expired

    def alive_entries(self, most: int, up_to_ms: int) -> int:
        """Count the first entries, up to so many, whose deadline is after a time."""
        count = 0
        for entry in self._entries:
            if count == most or 0 < entry.expires_at_ms <= up_to_ms:
                break
            count += 1
        return count

    def _watch(self, entry: Entry) -> None:
        if not self._turn.expires_at_head_only:
            heappush(self._deadlines, (entry.expires_at_ms, entry.position, entry))
        self._queue.arm(entry.expires_at_ms)

    # -- the window of a long queue

    def refill(self) -> None:
        """Keep `entries` filled where messages are to be read back, or deadlines are watched."""
        low = self._whole_window() // 2
        if self.entry_count > low:
            return
        if self.is_timed and self._ready.count:
            self._make_entries(self._window() - self.entry_count)
            if self.entry_count > low:
                return
        if self.paged_count and self._ready.count <= low and (self.is_wanted or self.is_timed):
            self._request_load()

    def _request_load(self) -> None:
        """Have the next messages of the paged-out range read back."""
        if not self._is_loading:
            self._is_loading = True
            self._turn.loads[self._queue] = None

    def _forget_load(self) -> None:
        """Ignore what is being read back."""
        self._is_loading = False
        self._turn.load_generation += 1
        self.generation = self._turn.load_generation

    def _window(self) -> int:
        """Return how many messages to keep in memory at the head: fewer if they are large."""
        return self._whole_window()

    def _whole_window(self) -> int:
        average = self.body_bytes // self.count if self.count else 0
        if average * WINDOW_MESSAGES > WINDOW_BYTES:
            return max(1, WINDOW_BYTES // average)
        return WINDOW_MESSAGES

    def _make_entries(self, count: int) -> None:
        """Give the first messages of `ready` a state of their own."""
        deadlines = self._ready_deadlines
        count = max(
            0, min(count, self._ready.count)
        )  # the window may be more than full with requeued messages
        for message in self._ready.take(count):
            position = self.ready_position
            entry = self.entry_of(message, position)
            entry.queued = True
            self._entries.append(entry)
            self.ready_position = position + 1
            if deadlines and position in deadlines:
                entry.expires_at_ms = deadlines.pop(position)
                self._watch(entry)
        self.entry_count += count
        self._advance()

    def _advance(self) -> None:
        """Go on with what lies behind, once there is nothing in front of it."""
        if self._is_split and not self._ready.count and not self.paged_count:
            self._ready, self._behind = self._behind, self._ready
            self.ready_position = self._next_position - self._ready.count
            self._is_split = False

    def relieve(self) -> bool:
        """Begin to page out what lies behind the window, because memory is short.

        Persistent messages are in the store or on their way there; transient ones are spilled with the open
        batch, a part at a time, lest it takes long and confirms wait for it. All of them leave memory when
        that batch is durable (`page_out`).

        Returns:
            whether there is such a request now.
        """
        if self.page_request is not None:
            return True
        window = self._window()
        ready = self._ready
        behind = self._behind
        if behind.count * BEHIND_SHARE > max(window, ready.count):
            first = self._next_position - behind.count
            transient, end = self._find_transient(behind, 0)
        elif ready.count and self.entry_count + ready.count > window + window // 2:  # as `refill` fills it
            # A part at a time: what is left is what consumers get next.
            excess = min(ready.count, self.entry_count + ready.count - window)
            count = excess if excess <= window else max(window, excess // CUT_SHARE)
            transient, end = self._find_transient(ready, ready.count - count)
            while end < ready.count:  # too many; those that are taken are to be at the end
                count -= ready.count - end
                transient, end = self._find_transient(ready, ready.count - count)
            first = self.ready_position + ready.count - count
            transient = [(index - ready.count + count, message) for index, message in transient]
            end = count
            self._is_split = True
        else:
            return False
        batch = self._turn.batch
        for index, message in transient:
            position = first + index
            batch.spill(self._queue_id, position, message)
            self._turn.unwritten_bytes += message.body_bytes
            expires_at_ms = self._ready_deadlines.get(position, 0)
            if expires_at_ms:
                batch.expire_at(self._queue_id, position, expires_at_ms)
        if not self.keeps_transient:
            self._spilled_from = first
            self._spilled_up_to = first + end - 1
        self.page_request = (batch.number, first, first + end - 1)
        return True

    def _find_transient(self, where: Ready, index: int) -> tuple[list[tuple[int, Message]], int]:
        """Look for messages that the store does not have, as many as one batch takes; see `Ready`."""
        if self.keeps_transient:
            return [], where.count
        return where.find_transient(index, self.durable, SPILL_BYTES)

    def page_out(self, durable: int) -> bool:
        """Drop from memory what `relieve` asked for, if the store has it by now.

        Args:
            durable: number of the last durable batch.

        Returns:
            whether the request is done with.
        """
        if self.page_request is None:
            return True
        batch, first, last = self.page_request
        if batch > durable:
            return False
        self.page_request = None
        if self.ready_position <= last < self.ready_position + self._ready.count - 1:
            # It was behind then, and has become ready since, with more that came.
            self._ready, self._behind = self._behind, self._ready
            self._is_split = True
        behind = self._next_position - self._behind.count  # position of the first
        if last >= behind:
            first = behind
            body_bytes = self._behind.drop(last + 1 - first)
            if not self.paged_count:
                self._loaded_up_to = first - 1
            self._paged_last = last
        else:
            first = max(first, self.ready_position)
            if first > last:
                return True  # all of it has been taken
            body_bytes = self._ready.drop_last(last + 1 - first)
            self._is_split = True
            if not self.paged_count:
                self._paged_last = last
            elif self._is_loading:
                self._forget_load()  # what is on its way comes behind what is paged out now
            self._loaded_up_to = first - 1
        if self._ready_deadlines:
            for position in range(first, last + 1):
                self._ready_deadlines.pop(position, None)
        count = last + 1 - first
        self.paged_count += count
        self._paged_bytes += body_bytes
        self._turn.memory_bytes -= body_bytes + count * MESSAGE_OVERHEAD
        self.refill()
        return True

    def wanted_loads(self) -> list[Load]:
        """Return what is to be read back, once `Turn.loads` names the queue."""
        if not self._is_loading:
            return []
        return [
            Load(
                self._queue_id,
                self.generation,
                self._loaded_up_to,
                self._paged_last,
                WINDOW_MESSAGES,
                WINDOW_BYTES,
            )
        ]

    def loaded(self, generation: int, rows: list[Stored]) -> bool:
        """Take back the next messages of the paged-out range.

        Returns:
            False if nobody wants them any more.
        """
        if generation != self.generation:
            return False
        self._is_loading = False
        count = 0
        body_bytes = 0
        others: list[StoredMessage] = []
        for row in rows:
            if isinstance(row, StoredRun) and not others and self._load_run(row):
                count += len(row.bodies)
                body_bytes += row.body_bytes
            else:
                others += row.messages()
        waiting: list[Entry] = []
        if others:
            if self._ready.count:
                self._make_entries(self._ready.count)  # they come before
            count += len(others)
            for message in others:
                body_bytes += message.body_bytes
            waiting = self._load_entries(others)
        self._turn.memory_bytes += body_bytes + count * MESSAGE_OVERHEAD
        self.paged_count -= count
        self._paged_bytes -= body_bytes
        if rows:
            self._loaded_up_to = rows[-1].last_position
        if not rows or self._loaded_up_to >= self._paged_last:
            # Whatever the counts say, there is no more; somebody may have edited the file.
            self.count -= self.paged_count
            self.body_bytes -= self._paged_bytes
            self.paged_count = 0
            self._paged_bytes = 0
            self._advance()
        if waiting:
            self._hold_back(waiting)
        self.refill()
        return True

    def _load_run(self, run: StoredRun) -> bool:
        """Append messages that were read back to `ready`.

        Returns:
            False if they do not belong there.
        """
        ready = self._ready
        if ready.count and (
            self.page_request is not None or self.ready_position + ready.count != run.position
        ):
            return False  # what is about to leave must stay the end; and positions are consecutive
        if self.is_timed or run.position <= self._uncertain_up_to:
            return False
        if not ready.count:
            self.ready_position = run.position
        maker = MessageMaker(make_envelope(run.exchange, run.routing_key, run.properties))
        ready.extend([maker.make(body) for body in run.bodies], run.body_bytes, False)
        return True

    def _load_entries(self, rows: list[StoredMessage]) -> list[Entry]:
        """Append messages that were read back to `entries`.

        Returns:
            those whose time has not come.
        """
        waiting: list[Entry] = []
        envelope: Envelope | None = None
        maker: MessageMaker | None = None
        for row in rows:
            if (
                envelope is None
                or maker is None
                or envelope.raw != row.properties
                or envelope.routing_key != row.routing_key
                or envelope.exchange != row.exchange
                or envelope.dead_lettered != row.dead_lettered
            ):
                envelope = make_envelope(row.exchange, row.routing_key, row.properties)
                envelope.dead_lettered = row.dead_lettered
                maker = MessageMaker(envelope)
            message = maker.make(row.body)
            redelivered = row.position <= self._uncertain_up_to
            entry = self._make_entry(row.position, message, redelivered, row.expires_at_ms or 0)
            entry.is_spilled = True
            if row.returned is not None:
                entry.returned = row.returned
                if row.returned.retry_at_ms > self._turn.now_ms:
                    waiting.append(entry)
                    continue
            entry.queued = True
            self._entries.append(entry)
            if entry.expires_at_ms:
                self.is_timed = True
                self._watch(entry)
        self.entry_count += len(rows)
        return waiting

    def _hold_back(self, entries: list[Entry]) -> None:
        """Let messages that were read back wait on: their time has not come."""
        ready: list[Entry] = []
        body_bytes = 0
        for entry in entries:
            body_bytes += entry.message.body_bytes
            ready += self._queue.hold_back(entry)
        self.entry_count -= len(entries)
        self._took(len(entries), body_bytes)
        if ready:
            self._queue.backlog.put_back(ready)  # they may be of other levels

    def restore(
        self, messages: int, body_bytes: int, first: int, last: int, delivered_up_to: int, watch: bool
    ) -> None:
        """Begin with what the store holds: all of it paged out.

        Args:
            messages: how many.
            body_bytes: of all of them.
            first: position of the first, 1 if there is none.
            last: position of the last, 0 if there is none.
            delivered_up_to: messages up to this position count as redelivered.
            watch: read the first window at once: messages may have deadlines that somebody depends on.
        """
        self.count = self.paged_count = messages
        self.body_bytes = self._paged_bytes = body_bytes
        self._loaded_up_to = first - 1
        self._paged_last = last
        self.ready_position = self._next_position = last + 1
        self._is_split = messages > 0
        self.delivered_up_to = self._uncertain_up_to = min(delivered_up_to, last)
        if not self.keeps_transient:
            self._spilled_up_to = last
        if delivered_up_to > last:  # the last run crashed; what comes from now on has not been delivered
            self.note_delivered()
        if messages and (watch or self.is_timed):
            self._request_load()

    def note_delivered(self) -> None:
        """Record exactly what has been delivered."""
        self._turn.batch.definitions.append(QueueDelivered(self._queue_id, self.delivered_up_to))

    # -- all at once

    def purge(self) -> None:
        """Drop everything, also from the store."""
        for entry in self._entries:
            if entry.queued:
                entry.queued = False
                self.forget_entry(entry)
        if self.is_stored_at(self.ready_position):
            self._forget_all(self._ready, self.ready_position)
            self._forget_all(self._behind, self._next_position - self._behind.count)
        if self.paged_count:
            first = self._loaded_up_to + 1
            self._turn.batch.purge(
                self._queue_id, first, self._paged_last, self.paged_count, self._paged_bytes
            )
        self.clear()

    def _forget_all(self, messages: Ready, position: int) -> None:
        """Remove messages from the store, of which the first is at a position."""
        while messages.count:
            for message in messages.take_some():
                self.forget(message, position)
                position += 1

    def clear(self) -> None:
        """Drop everything from memory."""
        turn = self._turn
        in_memory = self.count - self.paged_count
        turn.memory_bytes -= self.body_bytes - self._paged_bytes + in_memory * MESSAGE_OVERHEAD
        self.ready_position = self._next_position
        self._ready.clear()
        self._behind.clear()
        self._is_split = False
        self.page_request = None
        self._ready_deadlines.clear()
        self._entries.clear()
        self.entry_count = 0
        self._deadlines.clear()
        self.paged_count = self._paged_bytes = 0
        self.count = self.body_bytes = 0
        turn.loads.pop(self._queue, None)
        self._forget_load()

    def let_go(self, with_vhost: bool) -> None:
        """Drop everything for good, because the queue is deleted.

        Args:
            with_vhost: the store forgets the durable queues of the vhost by itself.
        """
        self.clear()

    def shrink(self) -> None:
        """Let go of the table of deadlines if it is empty."""
        if not self._ready_deadlines:
            self._ready_deadlines = {}


def _position(entry: Entry) -> int:
    return entry.position
