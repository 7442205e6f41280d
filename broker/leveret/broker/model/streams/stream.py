"""A stream: a queue whose messages stay when they are read, for any number of readers. HOT.

Theory of operation
-------------------
Every message is stored, whatever its delivery mode, at the position that is its offset plus one; positions
are never used again. What is stored is all there is to a stream: each consumer has a `Reader` that goes
through it by itself. A message is delivered only when it is durable, lest after a crash another one has the
offset that a consumer remembers.

Messages that were published last are kept in the tail, in memory: those that are not yet durable, and those
that readers which have caught up still need. Readers further behind read windows from the store. Nothing else
is kept for a message, so a stream of ten million takes no more memory than one of ten.

Acks only make room for more deliveries; nack and reject do the same. Retention removes whole segments
(segments.py) when a message comes, and when the oldest segment is too old.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from leveret.broker.model.queues.entry import Entry
from leveret.broker.model.queues.queue import DELIVER_BYTES, Queue
from leveret.broker.model.queues.returned import FAILED
from leveret.broker.model.streams.segments import Segment, Segments
from leveret.broker.model.streams.stream_arguments import FIRST, LAST, ReaderArguments
from leveret.broker.model.streams.stream_reader import Reader, Stamp
from leveret.broker.model.streams.stream_tail import Tail
from leveret.broker.model.terms import resource_name
from leveret.protocol.content import Message, encode_content, make_envelope
from leveret.protocol.errors import MethodNotImplemented, PreconditionFailed
from leveret.protocol.frames import encode_deliveries
from leveret.protocol.properties import NO_PROPERTIES
from leveret.storage.batch import FORGOTTEN, StoredContent
from leveret.storage.changes import SegmentClosed, SegmentRemoved
from leveret.storage.stored import each_of

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.turn import Load, Turn
    from leveret.storage.stored import Stored

OFFSETS_MAX: Final = (
    10_000  # consumers whose offset is remembered; the one that was heard of longest ago goes
)
SERVER_TAG: Final = "amq.ctag-"  # begins the consumer tags that the broker makes up

# What is unacked of a stream needs no message: it is in the stream.
_NO_MESSAGE: Final = Message(make_envelope("", "", NO_PROPERTIES), b"", 0)


class Stream(Queue):
    """A queue of the type `stream`."""

    __slots__ = (
        "_batch_first",
        "_batch_number",
        "_first",
        "_is_retention_due",
        "_last",
        "_leaving",
        "_loading",
        "_offsets",
        "_readable",
        "_readers",
        "_segments",
        "_tail",
        "_unwritten",
    )

    def __init__(
        self, turn: Turn, vhost_name: str, name: str, queue_id: int, arguments: QueueArguments
    ) -> None:
        super().__init__(turn, vhost_name, name, queue_id, True, None, False, arguments)
        self._is_limited = False  # a limit in bytes is one for segments
        self.may_refuse = False
        self.keeps_transient = True
        self._first: int = 1  # position of the oldest message
        self._last: int = 0  # position of the newest
        self._readable: int = 0  # position of the newest that is durable
        self._unwritten: deque[tuple[int, int]] = deque()  # batch, position of its last message here
        self._batch_number: int = 0  # the batch that the newest message is in; 0 for one of an earlier run
        self._batch_first: int = 0  # position of its first message here
        self._tail = Tail(turn)
        self._segments = Segments(0, turn.now_ms)
        self._is_retention_due: bool = False
        self._readers: dict[Consumer, Reader] = {}
        # Readers that were cancelled while deliveries were unacked, if it is remembered what they read.
        self._leaving: dict[Consumer, Reader] = {}
        self._loading: dict[int, Reader] = {}  # generation of a request -> who waits for it
        self._offsets: dict[str, int] = {}  # consumer tag -> position up to which it has read

    @property
    def messages_ready(self) -> int:
        """How many messages there are."""
        return self._last + 1 - self._first

    @property
    def messages(self) -> int:
        """The same: what is unacked is still in the stream."""
        return self.messages_ready

    @property
    def message_bytes_ready(self) -> int:
        """Length of the bodies."""
        return self._segments.body_bytes

    @property
    def consumer_count(self) -> int:
        """None: RabbitMQ does not count the consumers of a stream."""
        return 0

    def change_arguments(self, arguments: QueueArguments) -> None:
        """Follow a change of the policies: limits hold at once, the size of segments from now on."""
        self.arguments = arguments
        self._retain()

    # -- messages in

    def enqueue(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool = False) -> bool:
        """Append messages of one envelope; see `Queue.enqueue`. Nothing expires in a stream."""
        turn = self.turn
        first = self._last + 1
        stored: list[StoredContent] = messages  # type: ignore[assignment]  # a list is invariant
        turn.batch.stream(self.id, first, stored, turn.now_ms)
        turn.unwritten_bytes += body_bytes
        if turn.batch.number != self._batch_number:
            self._batch_number = turn.batch.number
            self._batch_first = first
            self._unwritten.append((self._batch_number, 0))
        self._last += len(messages)
        self._unwritten[-1] = (self._batch_number, self._last)
        self._tail.append(messages, body_bytes)
        segment_bytes = self.arguments.segment_bytes
        if not self._segments.add_run(len(messages), body_bytes, turn.now_ms, segment_bytes):
            for message in messages:
                full = self._segments.add(message.body_bytes, turn.now_ms, segment_bytes)
                if full is not None:
                    self._segment_closed(full)
            self._retain()
        return True

    def _segment_closed(self, segment: Segment) -> None:
        self.turn.batch.definitions.append(
            SegmentClosed(self.id, segment.first, segment.last, segment.body_bytes, segment.last_ms)
        )

    # -- retention

    def _retain(self) -> None:
        """Remove the segments that are too many or too old, and have the rest looked at when they are."""
        self._is_retention_due = False
        turn = self.turn
        max_bytes = self.arguments.max_length_bytes
        max_age_ms = self.arguments.max_age_ms
        is_open = turn.batch.number == self._batch_number
        stored_up_to = self._batch_first - 1 if is_open else self._last
        segment = self._segments.oldest
        while segment is not None:
            too_many = max_bytes is not None and self._segments.size > max_bytes
            too_old = max_age_ms is not None and turn.now_ms - segment.last_ms > max_age_ms
            if not too_many and not too_old:
                break
            if segment.last > stored_up_to:  # what is removed must have been stored by a batch before
                self._is_retention_due = True
                return
            self._segments.remove_oldest()
            turn.batch.purge(self.id, segment.first, segment.last, segment.messages, segment.body_bytes)
            turn.batch.definitions.append(SegmentRemoved(self.id, segment.last))
            self._first = segment.last + 1
            segment = self._segments.oldest
        if segment is not None and max_age_ms is not None:
            self.arm(segment.last_ms + max_age_ms + 1)

    def look_at_deadlines(self) -> bool:
        """Remove what is too old; a stream itself never expires."""
        self.armed_at_ms = 0
        self._retain()
        return False

    # -- messages out

    def deliver(self) -> None:
        """Give each reader what is durable and it has not had, as far as its credit goes."""
        durable = self.turn.durable
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= durable:
            self._readable = unwritten.popleft()[1]
        for reader in self._readers.values():
            self._serve(reader)
        self._trim_tail()
        if self._is_retention_due:
            self._retain()

    def _serve(self, reader: Reader) -> None:
        consumer = reader.consumer
        while True:
            room = consumer.room()
            if room <= 0:
                return
            if reader.is_seeking:
                if not reader.is_loading:
                    self.turn.loads[self] = None
                return
            if reader.index < len(reader.window):
                self._deliver_window(reader, room)
                if self._has_more_for(reader):
                    self.turn.loads[self] = None
            elif reader.next_position > self._readable:
                return
            elif reader.next_position >= self._tail.first:
                self._deliver_tail(reader, room)
            else:
                if not reader.is_loading:
                    self.turn.loads[self] = None
                return

    def _has_more_for(self, reader: Reader) -> bool:
        """Whether there is something to read ahead for a reader."""
        if not reader.wants_more:
            return False
        after = reader.window[-1].position if reader.index < len(reader.window) else reader.next_position - 1
        return after < self._readable and after + 1 < self._tail.first

    def _deliver_window(self, reader: Reader, room: int) -> None:
        """Deliver some of what was read ahead."""
        window = reader.window
        index = reader.index
        end = len(window)
        messages: list[Message] = []
        positions: list[int] = []
        body_bytes = 0
        while index < end and room and body_bytes < DELIVER_BYTES:
            row = window[index]
            index += 1
            stamp = self._stamp(reader, row.exchange, row.routing_key, row.properties)
            if not reader.wants(stamp.filter_value):
                continue
            messages.append(_stamped(stamp, row.position, row.body))
            positions.append(row.position)
            body_bytes += len(row.body)
            room -= 1
        reader.index = index
        reader.next_position = window[index - 1].position + 1
        if index == end:
            self.turn.memory_bytes -= reader.window_bytes
            reader.window_bytes = 0
            reader.window = []
            reader.index = 0
        self._hand_over_run(reader, messages, positions)

    def _deliver_tail(self, reader: Reader, room: int) -> None:
        """Deliver some of what is in memory."""
        position = reader.next_position
        messages: list[Message] = []
        positions: list[int] = []
        body_bytes = 0
        while position <= self._readable and room and body_bytes < DELIVER_BYTES:
            message = self._tail.at(position)
            envelope = message.envelope
            stamp = self._stamp(reader, envelope.exchange, envelope.routing_key, envelope.raw)
            if reader.wants(stamp.filter_value):
                messages.append(_stamped(stamp, position, message.body))
                positions.append(position)
                body_bytes += message.body_bytes
                room -= 1
            position += 1
        reader.next_position = position
        self._hand_over_run(reader, messages, positions)

    def _stamp(self, reader: Reader, exchange: str, routing_key: str, raw: bytes) -> Stamp:
        stamp = reader.stamp
        if stamp is None or not stamp.is_for(exchange, routing_key, raw):
            channel = reader.consumer.channel
            stamp = Stamp(exchange, routing_key, raw, channel.number, channel.outbox.frame_max)
            reader.stamp = stamp
        return stamp

    def _hand_over_run(self, reader: Reader, messages: list[Message], positions: list[int]) -> None:
        """Deliver messages to one consumer."""
        if not messages:
            return
        consumer = reader.consumer
        channel = consumer.channel
        outbox = channel.outbox
        tag = channel.next_delivery_tag
        count = len(messages)
        channel.next_delivery_tag = tag + count
        outbox.wrote(
            encode_deliveries(
                outbox.pieces, consumer.prefix, channel.number, outbox.frame_max, tag, False, messages
            )
        )
        if self.tracer is not None:
            self.tracer.delivered(self, channel, messages, False)
        unacked = channel.unacked
        for position in positions:
            entry = Entry(self, position, _NO_MESSAGE, False, 0)
            entry.consumer = consumer
            unacked[tag] = entry
            tag += 1
            if reader.tracks_offset:
                reader.outstanding[position] = None
        consumer.unacked_count += count
        channel.consumers_unacked_count += count
        self.messages_unacknowledged += count

    def _trim_tail(self) -> None:
        """Let go of messages that are durable and that no reader will need soon."""
        end = self._readable + 1  # the rest is not in the store yet
        first = self._tail.first
        if first >= end:
            return
        keep_from = end
        for reader in self._readers.values():
            if first <= reader.next_position < keep_from:
                keep_from = reader.next_position
        self._tail.trim(keep_from, end)

    # -- reading back

    def wanted_loads(self) -> list[Load]:
        """Return what is to be read for the readers that are behind."""
        wanted: list[Load] = []
        for reader in self._readers.values():
            if reader.is_loading:
                continue
            if not reader.is_seeking and not (
                reader.next_position <= self._readable
                and reader.next_position < self._tail.first
                and self._has_more_for(reader)
            ):
                continue
            self.turn.load_generation += 1
            generation = self.turn.load_generation
            self._loading[generation] = reader
            wanted.append(reader.load(self.id, generation, self._first, self._readable))
        return wanted

    def loaded(self, generation: int, rows: list[Stored]) -> None:
        """Give a reader what was read for it."""
        reader = self._loading.pop(generation, None)
        if reader is None or reader.consumer not in self._readers:
            return
        self.turn.memory_bytes += reader.loaded(each_of(rows))
        self.turn.touched[self] = None

    # -- restart

    def restore(
        self,
        messages: int,
        body_bytes: int,
        first: int,
        last: int,
        delivered_up_to: int,
        first_expires: bool = False,
    ) -> None:
        """Begin with what the store holds of this stream."""
        self._first = first if messages else last + 1
        self._last = self._readable = last
        self._tail.first = last + 1
        self._batch_first = last
        self._segments.restore(self._first, last, body_bytes)

    def restore_segment(self, stored: SegmentClosed) -> None:
        """Take over a closed segment; they come in their order, after `restore`."""
        self._segments.restore_closed(Segment(stored.first, stored.last, stored.body_bytes, stored.last_ms))
        self.arm(self.turn.now_ms)

    def restore_offset(self, consumer_tag: str, position: int) -> None:
        """Take over up to where a consumer has read."""
        self._offsets[consumer_tag] = position

    # -- consumers

    def admit(self, consumer: Consumer) -> None:
        """Refuse a consumer that does not limit what it gets; see `Queue.admit`.

        Raises:
            MethodNotImplemented: it does not ack.
            PreconditionFailed: it has no prefetch limit, or an argument is wrong.
        """
        ReaderArguments.from_table(self.name, self.vhost_name, consumer.arguments, self.turn.now_ms)
        resource = resource_name("queue", self.name, self.vhost_name)
        if not consumer.prefetch_count and not consumer.channel.global_prefetch_count:
            raise PreconditionFailed(f"consumer prefetch count is not set for '{resource}'")
        if consumer.no_ack:
            raise self._not_supported("automatic acknowledgement")

    def _not_supported(self, what: str) -> MethodNotImplemented:
        resource = resource_name("queue", self.name, self.vhost_name)
        return MethodNotImplemented(f"{what} not supported by stream queues {resource}")

    def add_consumer(self, consumer: Consumer) -> None:
        """Begin to deliver from where a consumer asks for."""
        asked = ReaderArguments.from_table(self.name, self.vhost_name, consumer.arguments, self.turn.now_ms)
        reader = Reader(consumer, asked, self._last + 1)
        if consumer.tag.startswith(SERVER_TAG):
            reader.tracks_offset = False  # nobody can ask for it again
        start = asked.start
        known = self._offsets.get(consumer.tag, 0) if reader.tracks_offset else 0
        if known:
            reader.next_position = max(known + 1, self._first)
        elif start.word == FIRST:
            reader.next_position = self._first
        elif start.word == LAST:
            reader.next_position = max(self._batch_first, self._first)
        elif start.offset is not None:
            position = start.offset + 1 if start.offset >= 0 else self._last + 1 + start.offset
            reader.next_position = max(position, self._first)
        elif start.time_ms:
            reader.seek(self._first, self._readable + 1)
        self._readers[consumer] = reader
        self.consumers.append(consumer)
        self.turn.touched[self] = None

    def remove_consumer(self, consumer: Consumer) -> bool:
        """Stop delivering to a consumer; see `Queue.remove_consumer`."""
        reader = self._readers.pop(consumer)
        self.turn.memory_bytes -= reader.window_bytes
        self.consumers.remove(consumer)
        if reader.outstanding and not consumer.channel.is_closed:
            self._leaving[consumer] = reader
        self.turn.touched[self] = None
        return False

    def note_deliveries_begin(self) -> None:
        """Nothing: messages of a stream are not marked as redelivered."""

    def note_deliveries_end(self) -> None:
        """Nothing, likewise."""

    # -- what becomes of deliveries

    def settle(self, entries: list[Entry]) -> None:
        """Deliveries were acked: there is room for others."""
        for entry in entries:
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        self.messages_unacknowledged -= 1
        consumer = entry.consumer
        if consumer is None:
            return
        reader = self._readers.get(consumer)
        if reader is not None:
            if reader.tracks_offset:
                self._note_offset(consumer.tag, reader.settled(entry.position))
            self.turn.touched[self] = None
        elif consumer in self._leaving:
            self._settle_leaving(self._leaving[consumer], entry)

    def _settle_leaving(self, reader: Reader, entry: Entry) -> None:
        """A cancelled reader has acked: it counts, unless another one with its tag has got further."""
        consumer = reader.consumer
        position = reader.settled(entry.position)
        if position > self._offsets.get(consumer.tag, 0):
            self._note_offset(consumer.tag, position)
        if not reader.outstanding:
            del self._leaving[consumer]

    def _note_offset(self, tag: str, position: int) -> None:
        before = self._offsets.pop(tag, 0)
        if not before and len(self._offsets) >= OFFSETS_MAX:
            for oldest in self._offsets:
                del self._offsets[oldest]
                self.turn.batch.note_offset(self.id, oldest, FORGOTTEN)
                break
        self._offsets[tag] = position
        if position != before:
            self.turn.batch.note_offset(self.id, tag, position)

    def reject(self, entry: Entry) -> None:
        """A delivery was refused, which is the same."""
        self._settle(entry)

    def requeue(self, entries: list[Entry], cause: int = FAILED) -> None:
        """Deliveries were given back. They stay where they are; whoever wants them reads them again."""
        if self.is_deleted:
            return
        for entry in entries:
            consumer = entry.consumer
            if consumer is None or consumer.channel.is_closed:
                self.messages_unacknowledged -= 1
                if consumer is not None:
                    self._leaving.pop(consumer, None)
            else:
                self._settle(entry)

    # -- what a stream cannot

    def get(self, no_ack: bool) -> Entry | None:
        """Refuse basic.get.

        Raises:
            MethodNotImplemented: always.
        """
        raise self._not_supported("basic.get")

    def purge(self) -> int:
        """Refuse queue.purge.

        Raises:
            MethodNotImplemented: always.
        """
        raise self._not_supported("queue.purge")

    # -- the end

    def deleted(self) -> int:
        """Let go of everything.

        Returns:
            0, as RabbitMQ does.
        """
        self._let_go()
        super().deleted()
        return 0

    def deleted_with_vhost(self) -> None:
        """Do the same where the store forgets the vhost."""
        self._let_go()
        super().deleted_with_vhost()

    def _let_go(self) -> None:
        self._tail.clear()
        for reader in self._readers.values():
            self.turn.memory_bytes -= reader.window_bytes
        self._readers = {}
        self._leaving = {}
        self._loading = {}


def _stamped(stamp: Stamp, position: int, body: bytes) -> Message:
    """Make the message that goes out: the one that came, and its offset."""
    envelope = stamp.envelope
    content = encode_content(envelope.channel, envelope.frame_max, stamp.properties(position), body)
    return Message(envelope, content, len(body))
