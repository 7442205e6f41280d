"""A queue: who gets its messages, and the rules it was declared with. HOT.

The messages themselves, in order, are its `Backlog`. The queue deals them out: consumers of the highest
priority that have room get one message each in turn, a run at a time.

Rules that few queues have are chosen when it is declared: a queue with a length limit enqueues one message at
a time, and only a queue with a dead-letter exchange makes dead letters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.model.arguments import DROP_HEAD, REJECT_PUBLISH_DLX
from leveret.broker.model.queues.backlog import Backlog
from leveret.broker.model.queues.dead_letter import EXPIRED, MAXLEN, REJECTED
from leveret.broker.model.queues.entry import NOT_COUNTED, Entry
from leveret.broker.model.queues.returned import FAILED, Waiting, count_returns, with_counts
from leveret.broker.model.turn import DeadLetter
from leveret.protocol.errors import AccessRefused
from leveret.protocol.frames import encode_deliveries
from leveret.storage.changes import MAX_POSITION, QueueDelivered

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.tracing import Tracer
    from leveret.broker.model.turn import Load, Turn
    from leveret.protocol.content import Message
    from leveret.storage.stored import Stored

DELIVER_MAX: Final = 1000  # messages handed to one consumer in a step
DELIVER_BYTES: Final = 256 * 1024  # about; so that a step does not fill a socket buffer many times over


class NotInMemoryError(Exception):
    """What is asked of a queue needs messages that are being read back; ask again when they are there."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.name)
        self.queue = queue


class Queue:
    """A classic queue."""

    __slots__ = (
        "_is_limited",
        "_shares_channels",
        "active_consumer",
        "arguments",
        "armed_at_ms",
        "auto_delete",
        "backlog",
        "consumers",
        "durable",
        "exclusive_consumer",
        "id",
        "is_deleted",
        "keeps_transient",
        "last_used_ms",
        "may_refuse",
        "messages_unacknowledged",
        "name",
        "note_batch",
        "owner",
        "tracer",
        "turn",
        "vhost_name",
        "waiting",
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
        self.active_consumer: Consumer | None = None  # where there is a single active consumer: this one
        self._shares_channels: bool = False  # some consumers are on the same channel
        self.is_deleted: bool = False
        self.keeps_transient: bool = False  # it stores messages whatever their delivery mode
        self.messages_unacknowledged: int = 0
        self.last_used_ms: int = turn.now_ms
        self.armed_at_ms: int = 0  # when the server is to look at deadlines; 0 for never
        self.waiting: Waiting | None = None  # what came back and is not yet to be delivered again
        self.backlog: Backlog = Backlog(self, turn, queue_id, durable, arguments.message_ttl_ms is not None)
        self.tracer: Tracer | None = None  # while its vhost is traced
        # A durable queue delivers once a note that it does is durable: the batch with that note, -1 for none.
        self.note_batch: int = -1 if durable else 0
        self._is_limited: bool = arguments.max_length is not None or arguments.max_length_bytes is not None
        self.may_refuse: bool = self._is_limited and arguments.overflow != DROP_HEAD
        if arguments.expires_ms is not None:
            self.arm(turn.now_ms + arguments.expires_ms)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} ready={self.messages_ready} unacked={self.messages_unacknowledged}>"

    def change_arguments(self, arguments: QueueArguments) -> None:
        """Follow a change of the policies: it holds at once, a message TTL for the messages to come."""
        expires_before = self.arguments.expires_ms
        self.arguments = arguments
        self._is_limited = arguments.max_length is not None or arguments.max_length_bytes is not None
        self.may_refuse = self._is_limited and arguments.overflow != DROP_HEAD
        if arguments.expires_ms != expires_before:
            self.touch()
        for consumer in self.consumers:
            self.turn.watches.watch(self, consumer, consumer.channel)
        self.drop_over_limit()
        self.turn.touched[self] = None

    @property
    def messages_ready(self) -> int:
        """How many messages wait."""
        return self.backlog.count

    @property
    def messages(self) -> int:
        """How many messages it has, with those that are unacked and those that wait to be tried again."""
        return self.messages_ready + self.messages_unacknowledged + self.messages_waiting

    @property
    def messages_waiting(self) -> int:
        """How many messages came back and are not yet to be delivered again."""
        return 0 if self.waiting is None else len(self.waiting)

    @property
    def message_bytes_ready(self) -> int:
        """Length of the bodies of the messages that wait."""
        return self.backlog.body_bytes

    @property
    def consumer_count(self) -> int:
        """How many consumers it has."""
        return len(self.consumers)

    # -- messages in

    def enqueue(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool = False) -> bool:
        """Append messages of one envelope.

        Args:
            messages: in order; not kept.
            body_bytes: of all of them together.
            ttl_ms: their own expiration, -1 for none.
            is_shared: other queues get them, too.

        Returns:
            False if the overflow rule refused one of them.
        """
        if not self._is_limited:
            self._append(messages, body_bytes, ttl_ms, is_shared)
            return True
        accepted = True
        for message in messages:
            if not self._enqueue_limited(message, ttl_ms, is_shared):
                accepted = False
        return accepted

    def _append(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool) -> None:
        queue_ttl_ms = self.arguments.message_ttl_ms
        if queue_ttl_ms is not None and (ttl_ms < 0 or queue_ttl_ms < ttl_ms):
            ttl_ms = queue_ttl_ms
        self.backlog.append(messages, body_bytes, ttl_ms, is_shared)
        self.turn.touched[self] = None

    def _enqueue_limited(self, message: Message, ttl_ms: int, is_shared: bool) -> bool:
        """Append one message where a length limit holds."""
        arguments = self.arguments
        one = [message]
        if arguments.overflow == DROP_HEAD:
            self._append(one, message.body_bytes, ttl_ms, is_shared)
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
        self._append(one, message.body_bytes, ttl_ms, is_shared)
        return True

    def _is_over(self, more_messages: int, more_bytes: int) -> bool:
        arguments = self.arguments
        max_length = arguments.max_length
        if max_length is not None and self.backlog.count + more_messages > max_length:
            return True
        max_length_bytes = arguments.max_length_bytes
        return max_length_bytes is not None and self.backlog.body_bytes + more_bytes > max_length_bytes

    def drop_over_limit(self) -> None:
        """Drop messages from the head until the length limit holds."""
        if not self._is_limited or self.arguments.overflow != DROP_HEAD:
            return
        while self.backlog.count and self._is_over(0, 0):
            entry = self.backlog.pop()
            if entry is None:
                return  # the head is being read back; `loaded` comes here again
            self.discard(entry, MAXLEN)

    # -- messages out

    def deliver(self) -> None:
        """Hand ready messages to consumers as far as their credit goes. Expired ones never go out."""
        now_ms = self.turn.now_ms
        backlog = self.backlog
        if backlog.is_timed:
            self.expire(now_ms - 1)  # what is due this very moment may still be taken
        if self.consumers and self._may_deliver():
            while backlog.count:
                takers = self._takers()
                if not takers:
                    break
                if not backlog.entry_count:
                    backlog.refill()
                if backlog.entry_count:
                    self._deliver_entries(takers)
                elif backlog.ready_count:
                    self._deliver_ready(takers)
                else:
                    break  # `refill` has asked for what is paged out
                if backlog.is_timed and self.turn.expires_at_head_only:
                    self.expire(now_ms - 1)
        if backlog.is_timed:
            self.expire(now_ms)
            self._arm_head()

    @property
    def is_stored(self) -> bool:
        """Whether the store has something of it: the queue itself, or messages that had no room in memory."""
        return self.durable or self.backlog.has_spilled

    @property
    def spares_what_is_taken(self) -> bool:
        """Whether messages stay out of the rules of this queue if a consumer takes them at once.

        Then nobody may be told that there is a consumer before the queue delivers.
        """
        return self._is_limited or self.backlog.is_timed

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
            active = self.active_consumer
            return [active] if active is not None and active.room() > 0 else []
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
        if len(self.consumers) > 1 and (self._shares_channels or takers[0].channel.global_prefetch_count):
            room = 1  # a channel gets messages in order, whichever of its consumers they are for
        backlog = self.backlog
        average = backlog.body_bytes // backlog.count
        if average * room > DELIVER_BYTES:
            room = max(1, DELIVER_BYTES // average)
        return min(available, room * len(takers))

    def _deliver_ready(self, takers: list[Consumer]) -> None:
        backlog = self.backlog
        count = self._step(takers, backlog.ready_count)
        first = backlog.ready_position
        messages = backlog.take_ready(count)
        if len(self.consumers) == 1:
            self._hand_over_messages(takers[0], messages, first, 1)
            return
        stride = len(takers)
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
        if self.tracer is not None:
            self.tracer.delivered(self, channel, messages, False)
        if consumer.no_ack:
            if self.backlog.is_stored_at(position):
                for message in messages:
                    self.backlog.forget(message, position)
                    position += stride
            return
        unacked = channel.unacked
        backlog = self.backlog
        for message in messages:
            entry = backlog.entry_of(message, position)
            entry.consumer = consumer
            unacked[tag] = entry
            tag += 1
            position += stride
        consumer.unacked_count += count
        channel.consumers_unacked_count += count
        self.messages_unacknowledged += count

    def _deliver_entries(self, takers: list[Consumer]) -> None:
        count = self._step(takers, self.backlog.entry_count)
        if self.turn.expires_at_head_only:
            count = self.backlog.alive_entries(count, self.turn.now_ms - 1)
        entries = self.backlog.take_entries(count)
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
            redelivered = entries[start].returned is not None
            end = start
            messages: list[Message] = []
            while end < count and (entries[end].returned is not None) == redelivered:
                messages.append(entries[end].message)
                end += 1
            if redelivered and self.arguments.counts_returns:
                messages = [with_counts(entry) for entry in entries[start:end]]
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
            if self.tracer is not None:
                self.tracer.delivered(self, channel, messages, redelivered)
            for index in range(start, end):
                entry = entries[index]
                if consumer.no_ack:
                    self.backlog.forget_entry(entry)
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
        backlog = self.backlog
        if backlog.is_timed:
            self.expire(self.turn.now_ms)
        if backlog.count and not self._may_deliver():
            self.note_deliveries_begin()
            raise NotInMemoryError(self)
        entry = backlog.pop()
        if entry is None:
            if backlog.count:
                raise NotInMemoryError(self)
            return None
        if no_ack:
            self.backlog.forget_entry(entry)
        else:
            self.messages_unacknowledged += 1
        if backlog.is_timed:
            self._arm_head()
        return entry

    # -- what becomes of unacked messages

    def settle(self, entries: list[Entry]) -> None:
        """Unacked messages were acked."""
        self.messages_unacknowledged -= len(entries)
        self.backlog.forget_entries(entries)
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
        self.backlog.forget_entry(entry)

    def _send_to_dead_letter_exchange(self, message: Message, reason: str) -> None:
        if self.arguments.dead_letter_exchange is not None:
            self.turn.dead_letters.append(DeadLetter(self, message, reason, self.turn.now_ms))

    def requeue(self, entries: list[Entry], cause: int = FAILED) -> None:
        """Put unacked messages back where they were.

        Args:
            entries: of this queue, in the order of their delivery.
            cause: `GIVEN_BACK` or `FAILED`.
        """
        if self.is_deleted:
            return
        self.messages_unacknowledged -= len(entries)
        if self.arguments.counts_returns:
            entries = count_returns(self, entries, cause)
        else:
            for entry in entries:
                if entry.returned is None:
                    entry.returned = NOT_COUNTED
                entry.consumer = None
        self._put_back(self._without_expired(entries) if self.backlog.is_timed else entries)

    def _without_expired(self, entries: list[Entry]) -> list[Entry]:
        """Let go of messages whose deadline has come while a consumer had them: nobody gets them again."""
        now_ms = self.turn.now_ms
        alive: list[Entry] = []
        for entry in entries:
            if entry.expires_at_ms and entry.expires_at_ms <= now_ms:
                self.discard(entry, EXPIRED)
            else:
                alive.append(entry)
        return alive

    def _put_back(self, entries: list[Entry]) -> None:
        if entries:
            self.backlog.put_back(entries)
        self.turn.touched[self] = None
        self.drop_over_limit()

    def shown(self, entry: Entry) -> Message:
        """Return the message of an entry as it is delivered."""
        return with_counts(entry) if self.arguments.counts_returns else entry.message

    def hold_back(self, entry: Entry) -> list[Entry]:
        """Have a message wait that is neither ready nor unacked.

        Returns:
            messages that have to be ready now, because too many wait.
        """
        if self.waiting is None:
            self.waiting = Waiting()
        too_many = self.waiting.add(entry)
        self.arm(self.waiting.next_ms)
        return too_many

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
        if self.waiting is not None:
            self._put_back(self.waiting.take_due(now_ms))
        self.deliver()
        self.expire(now_ms)
        expires_ms = self.arguments.expires_ms
        if expires_ms is not None and not self.consumers:
            if now_ms - self.last_used_ms >= expires_ms:
                return True
            self.arm(self.last_used_ms + expires_ms)
        next_ms = self.backlog.next_deadline_ms
        if next_ms:
            self.arm(next_ms)
        if self.waiting is not None and self.waiting.next_ms:
            self.arm(self.waiting.next_ms)
        return False

    def _arm_head(self) -> None:
        """Have the server look at the message that has come to the head, where only the head expires."""
        if self.turn.expires_at_head_only:
            next_ms = self.backlog.next_deadline_ms
            if next_ms:
                self.arm(next_ms)

    def touch(self) -> None:
        """Note a use that keeps the queue from expiring."""
        self.last_used_ms = self.turn.now_ms
        expires_ms = self.arguments.expires_ms
        if expires_ms is not None:
            self.arm(self.last_used_ms + expires_ms)

    def expire(self, up_to_ms: int) -> None:
        """Dead-letter or drop all queued messages in the window whose deadline is not after a time."""
        next_ms = self.backlog.next_deadline_ms
        if next_ms and next_ms <= up_to_ms:
            for entry in self.backlog.expire(up_to_ms):
                self.discard(entry, EXPIRED)

    # -- memory and restarts

    def wanted_loads(self) -> list[Load]:
        """Return what is to be read back, once `Turn.loads` names this queue."""
        return self.backlog.wanted_loads()

    def loaded(self, generation: int, rows: list[Stored]) -> None:
        """Take back messages that were read from the store."""
        if self.is_deleted or not self.backlog.loaded(generation, rows):
            return
        self.turn.touched[self] = None
        if self._is_limited and self._is_over(0, 0):
            self.deliver()  # what consumers take, or what has expired behind the head, does not count
            self.drop_over_limit()

    def restore(
        self,
        messages: int,
        body_bytes: int,
        first: int,
        last: int,
        delivered_up_to: int,
        first_expires: bool = False,
    ) -> None:
        """Begin with what the store holds of this queue."""
        arguments = self.arguments
        watch = first_expires or arguments.dead_letter_exchange is not None or arguments.retry is not None
        self.backlog.restore(messages, body_bytes, first, last, delivered_up_to, watch)

    def note_deliveries_begin(self) -> None:
        """Record that messages may be delivered from now on: after a crash they count as redelivered."""
        if self.note_batch < 0:
            self.note_batch = self.turn.batch.number
            self.turn.batch.definitions.append(QueueDelivered(self.id, MAX_POSITION))

    def note_deliveries_end(self) -> None:
        """Record exactly what has been delivered: nobody is left to deliver to, or the broker stops."""
        if self.durable and self.note_batch >= 0 and not self.is_deleted:
            self.note_batch = -1
            self.backlog.note_delivered()

    # -- consumers

    def admit(self, consumer: Consumer) -> None:
        """Refuse a consumer that this queue cannot have, before it is added.

        Raises:
            AccessRefused: the queue is in exclusive use, or is to be and has consumers.
        """
        if self.exclusive_consumer or (
            consumer.exclusive and (self.consumers or self.arguments.single_active_consumer)
        ):
            raise AccessRefused(f"queue '{self.name}' in vhost '{self.vhost_name}' in exclusive use")

    def add_consumer(self, consumer: Consumer) -> None:
        """Serve one more consumer, last among those of its priority."""
        index = len(self.consumers)
        while index and self.consumers[index - 1].priority < consumer.priority:
            index -= 1
        self.consumers.insert(index, consumer)
        if self.active_consumer is None:
            self.active_consumer = consumer
        self._note_shared_channels()
        self.backlog.is_wanted = True
        self.exclusive_consumer = consumer.exclusive
        self.note_deliveries_begin()
        self.turn.touched[self] = None

    def remove_consumer(self, consumer: Consumer) -> bool:
        """Stop serving a consumer.

        Returns:
            whether the queue must be deleted now (auto-delete, and this was the last one).
        """
        self.consumers.remove(consumer)
        self._note_shared_channels()
        if consumer is self.active_consumer:  # of those that wait the oldest of the highest priority follows
            self.active_consumer = self.consumers[0] if self.consumers else None
        if not self.consumers:
            self.backlog.is_wanted = False
            self.exclusive_consumer = False
            self.touch()
            self.note_deliveries_end()
            return self.auto_delete
        self.turn.touched[self] = None
        return False

    def _note_shared_channels(self) -> None:
        self._shares_channels = len({consumer.channel for consumer in self.consumers}) < len(self.consumers)

    # -- all at once

    def purge(self) -> int:
        """Drop all messages that are not unacked.

        Returns:
            how many there were.
        """
        count = self.backlog.count
        self.backlog.purge()
        if self.waiting is not None:
            count += len(self.waiting)
            for entry in self.waiting.take_all():
                self.backlog.forget_entry(entry)
        return count

    def deleted(self) -> int:
        """Let go of everything; unacked messages are nobody's from now on.

        Returns:
            how many messages were ready.
        """
        count = self.backlog.count
        self.backlog.let_go(False)
        self.waiting = None
        self.is_deleted = True
        self.consumers = []
        if self.is_stored:
            self.turn.batch.delete_queue(self.id)
        return count

    def deleted_with_vhost(self) -> None:
        """Do the same where the store forgets the durable queues of the vhost by itself."""
        self.backlog.let_go(True)
        self.waiting = None
        self.is_deleted = True
        self.consumers = []
        if self.durable:
            self.turn.batch.forget_queue(self.id)
        elif self.is_stored:
            self.turn.batch.delete_queue(self.id)
