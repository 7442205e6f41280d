"""A queue: messages in order, consumers in turn. HOT.

Theory of operation
-------------------
Positions number a queue's messages and only grow. A message that waits is in one of three places, in this
order:

* `entries`: messages with a state of their own, an `Entry` each: requeued, read back from the store, or with
  a deadline;
* the paged-out range: messages that are only in the store; known are its ends, its count and its bytes;
* `ready`: messages nobody has touched, at consecutive positions. A plain queue with quick consumers uses only
  this: a run of publishes is one `extend`, and no object is made per message and queue.

Messages leave from the left. A requeued entry goes back to its position, which is always left of the rest, so
RabbitMQ's order is kept exactly. When `entries` runs low and something is paged out, the queue asks for the
next window to be read. In a queue with a message TTL, or once a message with an expiration arrived
(`is_timed`), the first `WINDOW_MESSAGES` are made entries, and deadlines of the rest wait in
`_ready_deadlines`; so deadlines work in the window, wherever in it.

Rules that few queues have are chosen when it is declared: a queue with a length limit enqueues one message at
a time.

An entry is in the queue (`queued`), or out with a consumer or a getter (unacked), or gone. A queued entry
that expires in the middle of `entries` stays there as a tombstone (`queued` False) until it is reached.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush, merge
from typing import TYPE_CHECKING, Final

from leveret.broker.model.arguments import DROP_HEAD, REJECT_PUBLISH_DLX
from leveret.broker.model.dead_letter import EXPIRED, MAXLEN, REJECTED
from leveret.broker.model.turn import DeadLetter
from leveret.protocol.content import Envelope, Message, encode_content, make_envelope
from leveret.protocol.frames import encode_deliveries
from leveret.storage.changes import MAX_POSITION, QueueDelivered, StoredContent, StoredMessage

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.turn import Turn

WINDOW_MESSAGES: Final = 2000  # of a long queue kept in memory ahead of its consumers
WINDOW_BYTES: Final = 4 * 1024 * 1024
MESSAGE_OVERHEAD: Final = 160  # bytes: what a waiting message takes beside its body
DELIVER_MAX: Final = 1000  # messages handed to one consumer in a step
DELIVER_BYTES: Final = 256 * 1024  # about; so that a step does not fill a socket buffer many times over


class NotInMemoryError(Exception):
    """What is asked of a queue needs messages that are being read back; ask again when they are there."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.name)
        self.queue = queue


class Entry:
    """One message in one queue, with a state of its own."""

    __slots__ = (
        "consumer",
        "expires_at_ms",
        "is_spilled",
        "message",
        "position",
        "queue",
        "queued",
        "redelivered",
    )

    def __init__(
        self, queue: Queue, position: int, message: Message, redelivered: bool, expires_at_ms: int
    ) -> None:
        self.queue = queue
        self.position = position
        self.message = message
        self.redelivered = redelivered
        self.expires_at_ms = expires_at_ms  # 0 for never
        self.is_spilled: bool = False  # the store has it because it had no room in memory
        self.queued: bool = False
        self.consumer: Consumer | None = None  # who has it; None while queued, and for basic.get


class Queue:
    """A classic queue."""

    __slots__ = (
        "_deadlines",
        "_delivered_up_to",
        "_entries",
        "_entry_count",
        "_is_limited",
        "_is_loading",
        "_is_timed",
        "_loaded_up_to",
        "_paged_bytes",
        "_paged_count",
        "_paged_last",
        "_ready",
        "_ready_deadlines",
        "_ready_position",
        "_spilled_up_to",
        "_uncertain_up_to",
        "arguments",
        "armed_at_ms",
        "auto_delete",
        "consumers",
        "durable",
        "exclusive_consumer",
        "id",
        "is_deleted",
        "last_used_ms",
        "load_generation",
        "may_refuse",
        "messages_bytes",
        "messages_ready",
        "messages_unacknowledged",
        "name",
        "note_batch",
        "owner",
        "page_request",
        "turn",
        "vhost_name",
    )

    def __init__(
        self,
        turn: Turn,
        vhost_name: str,
        name: str,
        queue_id: int,
        durable: bool,
        owner: Connection | None,
        auto_delete: bool,
        arguments: QueueArguments,
    ) -> None:
        self.turn = turn
        self.vhost_name = vhost_name
        self.name = name
        self.id = queue_id
        self.durable = durable
        self.owner = owner  # the connection it is exclusive to
        self.auto_delete = auto_delete
        self.arguments = arguments
        self.consumers: list[Consumer] = []  # by priority, highest first; whose turn is next first
        self.exclusive_consumer: bool = False
        self.is_deleted: bool = False
        self.messages_ready: int = 0
        self.messages_bytes: int = 0  # bodies of the ready messages
        self.messages_unacknowledged: int = 0
        self.last_used_ms: int = turn.now_ms
        self.armed_at_ms: int = 0  # when the server is to look at deadlines; 0 for never
        self.page_request: tuple[int, int] | None = (
            None  # (batch, position): page out up to here once that is durable
        )
        # A read that was asked for before a purge, or for an earlier queue with this id, is ignored.
        turn.load_generation += 1
        self.load_generation: int = turn.load_generation
        # A durable queue delivers once a note that it does is durable: the batch with that note, -1 for none.
        self.note_batch: int = -1 if durable else 0
        self._entries: deque[Entry] = deque()
        self._entry_count: int = 0  # entries without tombstones
        self._ready: deque[Message] = deque()
        self._ready_position: int = 1  # of the first message in `_ready`
        self._ready_deadlines: dict[int, int] = {}  # position in `_ready` -> wall-clock ms
        self._paged_count: int = 0
        self._paged_bytes: int = 0
        self._paged_last: int = 0
        self._loaded_up_to: int = 0  # the paged-out range begins behind this position
        self._spilled_up_to: int = 0  # transient messages up to here are in the store
        self._uncertain_up_to: int = 0  # messages of an earlier run up to here may have been delivered in it
        self._delivered_up_to: int = 0  # highest position ever delivered
        self._is_loading: bool = False
        self._deadlines: list[tuple[int, int, Entry]] = []  # heap by time, then position
        self._is_timed: bool = arguments.message_ttl_ms is not None
        self._is_limited: bool = arguments.max_length is not None or arguments.max_length_bytes is not None
        self.may_refuse: bool = self._is_limited and arguments.overflow != DROP_HEAD
        if arguments.expires_ms is not None:
            self.arm(turn.now_ms + arguments.expires_ms)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} ready={self.messages_ready} unacked={self.messages_unacknowledged}>"

    # -- messages in

    def enqueue(self, messages: list[Message], body_bytes: int, ttl_ms: int) -> bool:
        """Append messages of one envelope.

        Args:
            messages: in order; not kept.
            body_bytes: of all of them together.
            ttl_ms: their own expiration, -1 for none.

        Returns:
            False if the overflow rule refused one of them.
        """
        if not self._is_limited:
            self._append(messages, body_bytes, ttl_ms)
            return True
        accepted = True
        for message in messages:
            if not self._enqueue_limited(message, ttl_ms):
                accepted = False
        return accepted

    def _append(self, messages: list[Message], body_bytes: int, ttl_ms: int) -> None:
        count = len(messages)
        turn = self.turn
        ready = self._ready
        persistent = self.durable and messages[0].envelope.persistent
        if persistent:
            stored: list[StoredContent] = messages  # type: ignore[assignment]  # a list is invariant
            turn.batch.enqueue(self.id, self._ready_position + len(ready), stored)
            turn.unwritten_bytes += body_bytes
        if ttl_ms >= 0 or self._is_timed:
            self._note_deadlines(count, ttl_ms, persistent)
        ready.extend(messages)
        self.messages_ready += count
        self.messages_bytes += body_bytes
        turn.memory_bytes += body_bytes + count * MESSAGE_OVERHEAD
        turn.touched[self] = None
        if self._is_timed:
            self._refill()

    def _note_deadlines(self, count: int, ttl_ms: int, persistent: bool) -> None:
        """Remember the deadlines of `count` messages about to be appended."""
        self._is_timed = True
        queue_ttl_ms = self.arguments.message_ttl_ms
        if queue_ttl_ms is not None and (ttl_ms < 0 or queue_ttl_ms < ttl_ms):
            ttl_ms = queue_ttl_ms
        if ttl_ms < 0:
            return
        expires_at_ms = self.turn.now_ms + ttl_ms
        position = self._ready_position + len(self._ready)
        for _ in range(count):
            self._ready_deadlines[position] = expires_at_ms
            if persistent:
                self.turn.batch.expire_at(self.id, position, expires_at_ms)
            position += 1

    def _enqueue_limited(self, message: Message, ttl_ms: int) -> bool:
        """Append one message where a length limit holds."""
        arguments = self.arguments
        one = [message]
        if arguments.overflow == DROP_HEAD:
            self._append(one, message.body_bytes, ttl_ms)
            if self._is_over(0, 0):
                self.deliver()  # what a consumer takes at once does not count
                self.drop_over_limit()
            return True
        if self._is_over(1, message.body_bytes):
            self.deliver()
            if self._is_over(1, message.body_bytes):
                if arguments.overflow == REJECT_PUBLISH_DLX:
                    self._send_to_dead_letter_exchange(message, MAXLEN)
                return False
        self._append(one, message.body_bytes, ttl_ms)
        return True

    def _is_over(self, more_messages: int, more_bytes: int) -> bool:
        arguments = self.arguments
        max_length = arguments.max_length
        if max_length is not None and self.messages_ready + more_messages > max_length:
            return True
        max_length_bytes = arguments.max_length_bytes
        return max_length_bytes is not None and self.messages_bytes + more_bytes > max_length_bytes

    def drop_over_limit(self) -> None:
        """Drop messages from the head until the length limit holds."""
        if not self._is_limited or self.arguments.overflow != DROP_HEAD:
            return
        while self.messages_ready and self._is_over(0, 0):
            entry = self._pop()
            if entry is None:
                return  # the head is being read back; `loaded` comes here again
            self.discard(entry, MAXLEN)

    # -- messages out

    def deliver(self) -> None:
        """Hand ready messages to consumers as far as their credit goes. Expired ones never go out."""
        now_ms = self.turn.now_ms
        if self._deadlines and self._deadlines[0][0] < now_ms:
            self.expire(now_ms - 1)  # what is due this very moment may still be taken
        if self.consumers and self._may_deliver():
            while self.messages_ready:
                takers = self._takers()
                if not takers:
                    break
                if not self._entry_count:
                    self._refill()
                if self._entry_count:
                    self._deliver_entries(takers)
                elif self._paged_count:
                    break  # `_refill` has asked for them
                else:
                    self._deliver_ready(takers)
        if self._deadlines and self._deadlines[0][0] <= now_ms:
            self.expire(now_ms)

    @property
    def is_stored(self) -> bool:
        """Whether the store has something of it: the queue itself, or messages that had no room in memory."""
        return self.durable or self._spilled_up_to > 0

    @property
    def spares_what_is_taken(self) -> bool:
        """Whether messages stay out of the rules of this queue if a consumer takes them at once.

        Then nobody may be told that there is a consumer before the queue delivers.
        """
        return self._is_limited or self._is_timed

    def _may_deliver(self) -> bool:
        return 0 <= self.note_batch <= self.turn.durable

    def _takers(self) -> list[Consumer]:
        """Return the consumers with room among those of the highest priority that has any.

        A consumer whose room depends on others of its channel (global prefetch) is served alone, a message at
        a time.
        """
        consumers = self.consumers
        if len(consumers) == 1:
            return consumers if consumers[0].room() > 0 else []
        if self.arguments.single_active_consumer:
            active = min(consumers, key=_registration)
            return [active] if active.room() > 0 else []
        takers: list[Consumer] = []
        for consumer in consumers:
            if takers and consumer.priority != takers[0].priority:
                break
            if consumer.room() > 0:
                if consumer.channel.global_prefetch_count:
                    if takers:
                        break
                    return [consumer]
                takers.append(consumer)
        return takers

    def _step(self, takers: list[Consumer], available: int) -> int:
        """Return how many messages to hand out in this step, the same number (or one less) to each taker."""
        room = DELIVER_MAX
        for consumer in takers:
            its_room = consumer.room()
            if its_room < room:
                room = its_room
        if takers[0].channel.global_prefetch_count and len(self.consumers) > 1:
            room = 1
        average = self.messages_bytes // self.messages_ready if self.messages_bytes > 0 else 0
        if average * room > DELIVER_BYTES:
            room = max(1, DELIVER_BYTES // average)
        return min(available, room * len(takers))

    def _deliver_ready(self, takers: list[Consumer]) -> None:
        ready = self._ready
        count = self._step(takers, len(ready))
        first = self._ready_position
        messages: list[Message]
        if count == len(ready):
            messages = list(ready)
            ready.clear()
        else:
            messages = [ready.popleft() for _ in range(count)]
        self._ready_position = first + count
        self._delivered_up_to = first + count - 1
        body_bytes = 0
        for message in messages:
            body_bytes += message.body_bytes
        self._took(count, body_bytes)
        stride = len(takers)
        if len(self.consumers) == 1:
            self._hand_over_messages(takers[0], messages, first, 1)
            return
        for index in range(min(stride, count)):
            self._hand_over_messages(takers[index], messages[index::stride], first + index, stride)
        self._rotate(takers, count)

    def _hand_over_messages(
        self, consumer: Consumer, messages: list[Message], position: int, stride: int
    ) -> None:
        """Deliver messages at positions `stride` apart to one consumer."""
        channel = consumer.channel
        outbox = channel.outbox
        tag = channel.next_delivery_tag
        count = len(messages)
        channel.next_delivery_tag = tag + count
        size = encode_deliveries(
            outbox.pieces, consumer.prefix, channel.number, outbox.frame_max, tag, False, messages
        )
        outbox.wrote(size)
        if consumer.no_ack:
            if self.durable or self._spilled_up_to >= position:
                for message in messages:
                    self._forget(message, position)
                    position += stride
            return
        unacked = channel.unacked
        spilled_up_to = self._spilled_up_to
        for message in messages:
            entry = Entry(self, position, message, False, 0)
            entry.consumer = consumer
            if position <= spilled_up_to:
                entry.is_spilled = True
            unacked[tag] = entry
            tag += 1
            position += stride
        consumer.unacked_count += count
        channel.consumers_unacked_count += count
        self.messages_unacknowledged += count

    def _deliver_entries(self, takers: list[Consumer]) -> None:
        count = self._step(takers, self._entry_count)
        entries: list[Entry] = []
        while len(entries) < count:
            entry = self._entries.popleft()
            if entry.queued:
                entries.append(entry)
        self._entry_count -= count
        body_bytes = 0
        for entry in entries:
            entry.queued = False
            body_bytes += entry.message.body_bytes
        self._took(count, body_bytes)
        if entries[-1].position > self._delivered_up_to:
            self._delivered_up_to = entries[-1].position
        stride = len(takers)
        for index in range(min(stride, count)):
            self._hand_over_entries(takers[index], entries[index::stride])
        if len(self.consumers) > 1:
            self._rotate(takers, count)

    def _hand_over_entries(self, consumer: Consumer, entries: list[Entry]) -> None:
        """Deliver entries to one consumer."""
        channel = consumer.channel
        outbox = channel.outbox
        unacked = channel.unacked
        start = 0
        count = len(entries)
        while start < count:  # as few runs as the redelivered bit allows
            redelivered = entries[start].redelivered
            end = start
            messages: list[Message] = []
            while end < count and entries[end].redelivered == redelivered:
                messages.append(entries[end].message)
                end += 1
            tag = channel.next_delivery_tag
            channel.next_delivery_tag = tag + len(messages)
            outbox.wrote(
                encode_deliveries(
                    outbox.pieces,
                    consumer.prefix,
                    channel.number,
                    outbox.frame_max,
                    tag,
                    redelivered,
                    messages,
                )
            )
            for index in range(start, end):
                entry = entries[index]
                if consumer.no_ack:
                    self._forget_entry(entry)
                else:
                    entry.consumer = consumer
                    unacked[tag] = entry
                    tag += 1
            start = end
        if not consumer.no_ack:
            consumer.unacked_count += count
            channel.consumers_unacked_count += count
            self.messages_unacknowledged += count

    def _rotate(self, takers: list[Consumer], count: int) -> None:
        """Put whoever was served last at the end of its priority."""
        turn = count % len(takers)
        order = takers[turn:] + takers[:turn]
        priority = takers[0].priority
        higher = [consumer for consumer in self.consumers if consumer.priority > priority]
        lower = [consumer for consumer in self.consumers if consumer.priority < priority]
        waiting = [c for c in self.consumers if c.priority == priority and c not in takers]
        self.consumers = higher + waiting + order + lower

    def get(self, no_ack: bool) -> Entry | None:
        """Take the message at the head for basic.get.

        Raises:
            NotInMemoryError: it is being read back, or the note that there are deliveries is not yet durable.
        """
        now_ms = self.turn.now_ms
        if self._deadlines and self._deadlines[0][0] <= now_ms:
            self.expire(now_ms)
        if self.messages_ready and not self._may_deliver():
            self.note_deliveries_begin()
            raise NotInMemoryError(self)
        entry = self._pop()
        if entry is None:
            if self.messages_ready:
                raise NotInMemoryError(self)
            return None
        if entry.position > self._delivered_up_to:
            self._delivered_up_to = entry.position
        if no_ack:
            self._forget_entry(entry)
        else:
            self.messages_unacknowledged += 1
        return entry

    def _pop(self) -> Entry | None:
        """Take the message at the head; None if there is none or it is not in memory."""
        if not self._entry_count:
            self._refill()
        while self._entries:
            entry = self._entries.popleft()
            if entry.queued:
                entry.queued = False
                self._entry_count -= 1
                self._took(1, entry.message.body_bytes)
                return entry
        if self._paged_count:
            self._request_load()
            return None
        if not self._ready:
            return None
        message = self._ready.popleft()
        entry = Entry(self, self._ready_position, message, False, 0)
        entry.is_spilled = self._ready_position <= self._spilled_up_to
        self._ready_position += 1
        self._took(1, message.body_bytes)
        return entry

    def _took(self, count: int, body_bytes: int) -> None:
        self.messages_ready -= count
        self.messages_bytes -= body_bytes
        self.turn.memory_bytes -= body_bytes + count * MESSAGE_OVERHEAD

    def _forget_entry(self, entry: Entry) -> None:
        """Remove a message from the store, if it is there."""
        message = entry.message
        if entry.is_spilled or (self.durable and message.envelope.persistent):
            self.turn.batch.settle(self.id, entry.position, message.body_bytes)

    def _forget(self, message: Message, position: int) -> None:
        """Do the same for a message that is, or was until now, in `_ready`."""
        if (self.durable and message.envelope.persistent) or position <= self._spilled_up_to:
            self.turn.batch.settle(self.id, position, message.body_bytes)

    # -- what becomes of unacked messages

    def settle(self, entry: Entry) -> None:
        """An unacked message was acked."""
        self.messages_unacknowledged -= 1
        self._forget_entry(entry)
        if self.consumers:
            self.turn.touched[self] = None

    def reject(self, entry: Entry) -> None:
        """An unacked message was refused for good."""
        self.messages_unacknowledged -= 1
        self.discard(entry, REJECTED)
        self.turn.touched[self] = None

    def discard(self, entry: Entry, reason: str) -> None:
        """Dead-letter a message that is no longer queued, or drop it."""
        self._send_to_dead_letter_exchange(entry.message, reason)
        self._forget_entry(entry)

    def _send_to_dead_letter_exchange(self, message: Message, reason: str) -> None:
        if self.arguments.dead_letter_exchange is not None:
            self.turn.dead_letters.append(DeadLetter(self, message, reason, self.turn.now_ms))

    def requeue(self, entries: list[Entry]) -> None:
        """Put unacked messages back where they were. `entries` is in no particular order."""
        if self.is_deleted:
            return
        entries.sort(key=_position)
        turn = self.turn
        for entry in entries:
            entry.redelivered = True
            entry.consumer = None
            entry.queued = True
            self.messages_bytes += entry.message.body_bytes
            turn.memory_bytes += entry.message.body_bytes + MESSAGE_OVERHEAD
            if entry.expires_at_ms:
                heappush(self._deadlines, (entry.expires_at_ms, entry.position, entry))
                self.arm(entry.expires_at_ms)
        count = len(entries)
        self.messages_unacknowledged -= count
        self.messages_ready += count
        self._entry_count += count
        if not self._entries or entries[-1].position < self._entries[0].position:
            self._entries.extendleft(reversed(entries))
        else:
            self._entries = deque(merge(self._entries, entries, key=_position))
        turn.touched[self] = None
        self.drop_over_limit()

    # -- deadlines

    def arm(self, at_ms: int) -> None:
        """Have the server look at this queue's deadlines at a time."""
        if not self.armed_at_ms or at_ms < self.armed_at_ms:
            self.armed_at_ms = at_ms
            self.turn.arm(at_ms, self)

    def look_at_deadlines(self) -> bool:
        """Expire what is due and arm the next deadline.

        Returns:
            whether the queue itself has expired and must be deleted.
        """
        now_ms = self.turn.now_ms
        self.armed_at_ms = 0
        self.deliver()
        self.expire(now_ms)
        expires_ms = self.arguments.expires_ms
        if expires_ms is not None and not self.consumers:
            if now_ms - self.last_used_ms >= expires_ms:
                return True
            self.arm(self.last_used_ms + expires_ms)
        if self._deadlines:
            self.arm(self._deadlines[0][0])
        return False

    def touch(self) -> None:
        """Note a use that keeps the queue from expiring."""
        self.last_used_ms = self.turn.now_ms
        expires_ms = self.arguments.expires_ms
        if expires_ms is not None:
            self.arm(self.last_used_ms + expires_ms)

    def expire(self, up_to_ms: int) -> None:
        """Dead-letter or drop all queued messages in the window whose deadline is not after a time."""
        deadlines = self._deadlines
        while True:
            while deadlines and deadlines[0][0] <= up_to_ms:
                entry = heappop(deadlines)[2]
                if entry.queued and entry.expires_at_ms <= up_to_ms:
                    entry.queued = False  # a tombstone, unless it is the head
                    self._entry_count -= 1
                    self._took(1, entry.message.body_bytes)
                    self.discard(entry, EXPIRED)
            entries = self._entries
            while entries and not entries[0].queued:
                entries.popleft()
            self._refill()
            if not deadlines or deadlines[0][0] > up_to_ms:
                return

    # -- the window of a long queue

    def _refill(self) -> None:
        """Keep `_entries` filled where somebody waits for messages, or deadlines are watched."""
        if self._entry_count > WINDOW_MESSAGES // 2:
            return
        if self._paged_count:
            if self.consumers or self._is_timed:
                self._request_load()
        elif self._is_timed and self._ready:
            self._make_entries(self._window() - self._entry_count)

    def _request_load(self) -> None:
        """Have the next messages of the paged-out range read back."""
        if not self._is_loading:
            self._is_loading = True
            self.turn.loads[self] = None

    def _window(self) -> int:
        """Return how many messages to keep in memory at the head: fewer if they are large."""
        average = self.messages_bytes // self.messages_ready if self.messages_ready else 0
        if average * WINDOW_MESSAGES > WINDOW_BYTES:
            return max(1, WINDOW_BYTES // average)
        return WINDOW_MESSAGES

    def _make_entries(self, count: int) -> None:
        """Give the first messages of `_ready` a state of their own. Nothing may be paged out."""
        ready = self._ready
        deadlines = self._ready_deadlines
        count = max(0, min(count, len(ready)))  # the window may be more than full with requeued messages
        for _ in range(count):
            position = self._ready_position
            expires_at_ms = deadlines.pop(position, 0) if deadlines else 0
            entry = Entry(self, position, ready.popleft(), False, expires_at_ms)
            entry.is_spilled = position <= self._spilled_up_to
            entry.queued = True
            self._entries.append(entry)
            self._ready_position = position + 1
            if expires_at_ms:
                heappush(self._deadlines, (expires_at_ms, position, entry))
        self._entry_count += count
        if self._deadlines:
            self.arm(self._deadlines[0][0])

    def relieve(self) -> None:
        """Begin to page out what lies behind the window, because memory is short.

        Persistent messages are in the store or on their way there; transient ones are spilled with the open
        batch. All of them leave memory when that batch is durable (`page_out`).
        """
        window = self._window()
        if self.page_request is not None or len(self._ready) <= window:
            return
        if not self._paged_count:
            self._make_entries(window - self._entry_count)
        batch = self.turn.batch
        position = self._ready_position
        for message in self._ready:
            if position > self._spilled_up_to and not (self.durable and message.envelope.persistent):
                batch.spill(self.id, position, message)
                self.turn.unwritten_bytes += message.body_bytes
                expires_at_ms = self._ready_deadlines.get(position, 0)
                if expires_at_ms:
                    batch.expire_at(self.id, position, expires_at_ms)
            position += 1
        self._spilled_up_to = position - 1
        self.page_request = (batch.number, position - 1)

    def page_out(self) -> None:
        """Drop from memory what `relieve` asked for; the store has it now."""
        assert self.page_request is not None
        up_to = self.page_request[1]
        self.page_request = None
        if self.is_deleted:
            return
        if not self._paged_count:
            self._make_entries(self._window() - self._entry_count)
            self._loaded_up_to = self._ready_position - 1
        ready = self._ready
        count = 0
        body_bytes = 0
        while ready and self._ready_position <= up_to:
            body_bytes += ready.popleft().body_bytes
            if self._ready_deadlines:
                self._ready_deadlines.pop(self._ready_position, None)
            self._ready_position += 1
            count += 1
        if count:
            self._paged_count += count
            self._paged_bytes += body_bytes
            self._paged_last = self._ready_position - 1
            self.turn.memory_bytes -= body_bytes + count * MESSAGE_OVERHEAD
            self._refill()

    def load_range(self) -> tuple[int, int]:
        """Return the range to read back: behind the first position, up to the second."""
        return self._loaded_up_to, self._paged_last

    def loaded(self, generation: int, rows: list[StoredMessage]) -> None:
        """Take back the next messages of the paged-out range."""
        if generation != self.load_generation or self.is_deleted:
            return
        self._is_loading = False
        turn = self.turn
        body_bytes = 0
        envelope: Envelope | None = None
        for row in rows:
            if (
                envelope is None
                or envelope.raw != row.properties
                or envelope.routing_key != row.routing_key
                or envelope.exchange != row.exchange
                or envelope.dead_lettered != row.dead_lettered
            ):
                envelope = make_envelope(row.exchange, row.routing_key, row.properties)
                envelope.dead_lettered = row.dead_lettered
            content = encode_content(envelope.channel, envelope.frame_max, row.properties, row.body)
            message = Message(envelope, content, len(row.body))
            entry = Entry(
                self, row.position, message, row.position <= self._uncertain_up_to, row.expires_at_ms or 0
            )
            entry.is_spilled = not row.persistent
            entry.queued = True
            self._entries.append(entry)
            body_bytes += message.body_bytes
            if entry.expires_at_ms:
                self._is_timed = True
                heappush(self._deadlines, (entry.expires_at_ms, entry.position, entry))
        count = len(rows)
        self._entry_count += count
        turn.memory_bytes += body_bytes + count * MESSAGE_OVERHEAD
        self._paged_count -= count
        self._paged_bytes -= body_bytes
        if rows:
            self._loaded_up_to = rows[-1].position
        if not rows or self._loaded_up_to >= self._paged_last:
            # Whatever the counts say, there is no more; somebody may have edited the file.
            self.messages_ready -= self._paged_count
            self.messages_bytes -= self._paged_bytes
            self._paged_count = 0
            self._paged_bytes = 0
        if self._deadlines:
            self.arm(self._deadlines[0][0])
        self._refill()
        turn.touched[self] = None
        self.drop_over_limit()

    def restore(self, messages: int, body_bytes: int, first: int, last: int, delivered_up_to: int) -> None:
        """Begin with what the store holds of this queue: all of it paged out."""
        self.messages_ready = self._paged_count = messages
        self.messages_bytes = self._paged_bytes = body_bytes
        self._loaded_up_to = first - 1
        self._paged_last = last
        self._ready_position = last + 1
        self._uncertain_up_to = min(delivered_up_to, last)
        self._delivered_up_to = self._uncertain_up_to
        self._spilled_up_to = last
        if delivered_up_to > last:  # the last run crashed; what comes from now on has not been delivered
            self.turn.batch.definitions.append(QueueDelivered(self.id, last))
        # Messages may have deadlines of their own; where somebody depends on them they are watched from the
        # start.
        if messages and (self._is_timed or self.arguments.dead_letter_exchange is not None):
            self._request_load()

    # -- for restarts: which messages may have been delivered

    def note_deliveries_begin(self) -> None:
        """Record that messages may be delivered from now on: after a crash they count as redelivered."""
        if self.note_batch < 0:
            self.note_batch = self.turn.batch.number
            self.turn.batch.definitions.append(QueueDelivered(self.id, MAX_POSITION))

    def note_deliveries_end(self) -> None:
        """Record exactly what has been delivered: nobody is left to deliver to, or the broker stops."""
        if self.durable and self.note_batch >= 0 and not self.is_deleted:
            self.note_batch = -1
            self.turn.batch.definitions.append(QueueDelivered(self.id, self._delivered_up_to))

    # -- consumers

    def add_consumer(self, consumer: Consumer) -> None:
        """Serve one more consumer, last among those of its priority."""
        index = len(self.consumers)
        while index and self.consumers[index - 1].priority < consumer.priority:
            index -= 1
        self.consumers.insert(index, consumer)
        self.exclusive_consumer = consumer.exclusive
        self.note_deliveries_begin()
        self.turn.touched[self] = None

    def remove_consumer(self, consumer: Consumer) -> bool:
        """Stop serving a consumer.

        Returns:
            whether the queue must be deleted now (auto-delete, and this was the last one).
        """
        self.consumers.remove(consumer)
        if not self.consumers:
            self.exclusive_consumer = False
            self.touch()
            self.note_deliveries_end()
            return self.auto_delete
        self.turn.touched[self] = None
        return False

    # -- all at once

    def purge(self) -> int:
        """Drop all ready messages.

        Returns:
            how many there were.
        """
        count = self.messages_ready
        for entry in self._entries:
            if entry.queued:
                entry.queued = False
                self._forget_entry(entry)
        position = self._ready_position
        if self.durable or self._spilled_up_to >= position:
            for message in self._ready:
                self._forget(message, position)
                position += 1
        if self._paged_count:
            self.turn.batch.purge(
                self.id, self._loaded_up_to + 1, self._paged_last, self._paged_count, self._paged_bytes
            )
        self._clear()
        return count

    def deleted(self) -> int:
        """Let go of everything; unacked messages are nobody's from now on.

        Returns:
            how many messages were ready.
        """
        count = self.messages_ready
        self._clear()
        self.is_deleted = True
        self.consumers = []
        if self.is_stored:
            self.turn.batch.delete_queue(self.id)
        return count

    def _clear(self) -> None:
        in_memory = self.messages_ready - self._paged_count
        self.turn.memory_bytes -= self.messages_bytes - self._paged_bytes + in_memory * MESSAGE_OVERHEAD
        self._ready_position += len(self._ready)
        self._ready.clear()
        self._ready_deadlines.clear()
        self._entries.clear()
        self._entry_count = 0
        self._deadlines.clear()
        self._paged_count = self._paged_bytes = 0
        self.messages_ready = self.messages_bytes = 0
        self._is_loading = False
        self.turn.loads.pop(self, None)
        self.turn.load_generation += 1
        self.load_generation = self.turn.load_generation


def _position(entry: Entry) -> int:
    return entry.position


def _registration(consumer: Consumer) -> int:
    return consumer.registration
