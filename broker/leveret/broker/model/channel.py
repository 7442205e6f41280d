"""A channel: deliveries that wait for an ack, publishes that wait for a confirm, an open transaction. HOT."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from leveret.broker.model.queues.returned import FAILED, KEPT
from leveret.protocol.errors import NotFound, PreconditionFailed
from leveret.protocol.frames import deliver_prefix, encode_ack, encode_nack

if TYPE_CHECKING:
    from pamqp.base import Frame

    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.publish import Publish
    from leveret.broker.model.queues.consumer_timeout import Watch
    from leveret.broker.model.queues.entry import Entry
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.turn import Turn
    from leveret.broker.model.vhost import VHost
    from leveret.protocol.outbox import Outbox


class PendingConfirm:
    """Publishes up to a sequence number, to be confirmed when a batch is durable."""

    __slots__ = ("batch", "is_refused", "last")

    def __init__(self, batch: int, last: int, is_refused: bool) -> None:
        self.batch = batch
        self.last = last
        self.is_refused = is_refused  # then it is the one publish `last`, and gets a nack


class Settlement:
    """Deliveries acked or rejected together."""

    __slots__ = ("cause", "entries", "is_ack", "tags")

    def __init__(self, tags: list[int], entries: list[Entry], is_ack: bool, cause: int) -> None:
        self.tags = tags
        self.entries = entries
        self.is_ack = is_ack
        self.cause = cause  # why they go back into their queues; `KEPT` if they do not


class Transaction:
    """What tx.commit will do: publishes first, then settlements."""

    __slots__ = ("publishes", "settlements")

    def __init__(self) -> None:
        self.publishes: list[Publish] = []
        self.settlements: list[Settlement] = []


class Channel:
    """The state of one open channel."""

    __slots__ = (
        "_first_served",
        "_oldest_tag",
        "confirmed_up_to",
        "confirms",
        "connection",
        "consumers",
        "consumers_unacked_count",
        "global_prefetch_count",
        "is_closed",
        "last_queue_name",
        "next_delivery_tag",
        "number",
        "outbox",
        "pending_confirms",
        "prefetch_count",
        "published_up_to",
        "reply_consumer_tag",
        "reply_name",
        "reply_prefix",
        "transaction",
        "turn",
        "unacked",
        "watch",
    )

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.turn: Turn = connection.turn
        self.number = number
        self.outbox: Outbox = connection.outbox
        self.is_closed: bool = False
        self.last_queue_name: str | None = None  # declared on this channel; an empty name stands for it
        self.consumers: dict[str, Consumer] = {}  # by consumer tag
        self.prefetch_count: int = 0  # for consumers to come; 0 is unlimited
        self.global_prefetch_count: int = 0  # for all consumers together; 0 is unlimited
        self.next_delivery_tag: int = 1
        self.unacked: dict[int, Entry] = {}  # by delivery tag, in order
        self.consumers_unacked_count: int = 0  # of them, those that consumers got (not basic.get)
        self.confirms: bool = False
        self.published_up_to: int = 0  # sequence number of the last publish since confirm.select
        self.confirmed_up_to: int = 0
        self.pending_confirms: deque[PendingConfirm] = deque()
        self.transaction: Transaction | None = None
        self.reply_consumer_tag: str | None = None  # of the consumer of amq.rabbitmq.reply-to
        self.reply_name: str = ""  # the name its replies are sent to
        self.reply_prefix: bytes = b""  # what begins its deliveries
        self._first_served: int = 0  # of the consumers that share room, as of the last time
        self.watch: Watch | None = None  # where there is a timeout for acks
        self._oldest_tag: int = 1  # no tag below is outstanding

    @property
    def vhost(self) -> VHost:
        """The vhost of its connection."""
        return self.connection.vhost

    @property
    def pid(self) -> str:
        """What stands for it in lists and events."""
        return f"{self.connection.pid[:-2]}{self.number}>"

    def send(self, method: Frame) -> None:
        """Send a method without content."""
        self.connection.send(self.number, method)

    def send_when_defined(self, method: Frame) -> None:
        """Send a reply once every declare, bind and delete so far is on stable storage."""
        self.connection.send_when_durable(self.number, method, self.turn.last_definition_batch)

    def queue_name(self, name: str) -> str:
        """Return a queue's name; an empty one stands for the queue last declared here.

        Raises:
            NotFound: nothing was declared on this channel.
        """
        if name:
            return name
        if self.last_queue_name is None:
            raise NotFound("no previously declared queue")
        return self.last_queue_name

    # -- direct replies

    def open_reply_consumer(self, tag: str, name: str) -> None:
        """Have direct replies delivered to a consumer tag."""
        self.reply_consumer_tag = tag
        self.reply_name = name
        self.reply_prefix = deliver_prefix(tag)

    def close_reply_consumer(self) -> None:
        """Have no more direct replies delivered."""
        if self.reply_consumer_tag is not None:
            self.vhost.replies.close(self.reply_name)
            self.reply_consumer_tag = None

    # -- settling

    def take(self, tag: int, multiple: bool) -> Settlement:
        """Take deliveries out of the outstanding ones.

        Args:
            tag: delivery tag; with `multiple`, it and all below, and 0 for all there are.
            multiple: the method's bit.

        Raises:
            PreconditionFailed: the tag is not outstanding.
        """
        unacked = self.unacked
        if not multiple:
            entry = unacked.pop(tag, None)
            if entry is None:
                raise PreconditionFailed(f"unknown delivery tag {tag}")
            return Settlement([tag], [entry], True, KEPT)
        if tag == 0:
            everything = Settlement(list(unacked), list(unacked.values()), True, KEPT)
            unacked.clear()
            self._oldest_tag = self.next_delivery_tag
            return everything
        if tag not in unacked:
            raise PreconditionFailed(f"unknown delivery tag {tag}")
        tags: list[int] = []
        entries: list[Entry] = []
        if tag - self._oldest_tag > 2 * len(unacked):
            tags = sorted(outstanding for outstanding in unacked if outstanding <= tag)
            entries = [unacked.pop(outstanding) for outstanding in tags]
        else:
            pop = unacked.pop
            for number in range(self._oldest_tag, tag + 1):
                entry = pop(number, None)
                if entry is not None:
                    tags.append(number)
                    entries.append(entry)
        self._oldest_tag = tag + 1
        return Settlement(tags, entries, True, KEPT)

    def give_back(self, settlements: list[Settlement]) -> None:
        """Make deliveries outstanding again that were taken in a transaction."""
        for settlement in settlements:
            self.unacked.update(zip(settlement.tags, settlement.entries, strict=True))
        self.unacked = dict(sorted(self.unacked.items()))
        self._oldest_tag = 1

    def ack(self, tags: list[int]) -> None:
        """Settle single deliveries, outside a transaction.

        Raises:
            PreconditionFailed: a tag is not outstanding; those before it are settled.
        """
        pop = self.unacked.pop
        entries: list[Entry] = []
        unknown: int | None = None
        for tag in tags:
            entry = pop(tag, None)
            if entry is None:
                unknown = tag
                break
            entries.append(entry)
        self._ack(entries)
        if unknown is not None:
            raise PreconditionFailed(f"unknown delivery tag {unknown}")
        if self.global_prefetch_count:
            self._share_room()

    def _ack(self, entries: list[Entry]) -> None:
        """Settle deliveries, as many at once as one consumer, or basic.get, had of one queue in a row."""
        start = 0
        count = len(entries)
        while start < count:
            queue = entries[start].queue
            consumer = entries[start].consumer
            end = start + 1
            while end < count and entries[end].queue is queue and entries[end].consumer is consumer:
                end += 1
            if consumer is not None:
                consumer.unacked_count -= end - start
                self.consumers_unacked_count -= end - start
            if not queue.is_deleted:
                queue.settle(entries if end - start == count else entries[start:end])
            start = end

    def settle(self, settlement: Settlement) -> None:
        """Ack, requeue or refuse deliveries that were taken."""
        if settlement.is_ack and not settlement.cause:
            self._ack(settlement.entries)
        else:
            self._refuse(settlement)
        if self.global_prefetch_count:
            self._share_room()

    def _refuse(self, settlement: Settlement) -> None:
        for entry in settlement.entries:
            consumer = entry.consumer
            if consumer is not None:
                consumer.unacked_count -= 1
                self.consumers_unacked_count -= 1
        if settlement.cause:
            self._requeue(settlement.entries, settlement.cause)
            return
        for entry in settlement.entries:
            if not entry.queue.is_deleted:
                entry.queue.reject(entry)

    def _requeue(self, entries: list[Entry], cause: int) -> None:
        by_queue: dict[Queue, list[Entry]] = {}
        for entry in entries:
            by_queue.setdefault(entry.queue, []).append(entry)
        for queue, its_entries in by_queue.items():
            queue.requeue(its_entries, cause)

    def shrink(self) -> None:
        """Let go of the table of unacked messages if it is empty."""
        if not self.unacked:
            self.unacked = {}

    def requeue_all(self) -> None:
        """Return everything outstanding to its queues, settled or not in an open transaction."""
        if self.transaction is not None:
            self.give_back(self.transaction.settlements)
            self.transaction = Transaction()
        if self.unacked:
            settlement = self.take(0, True)
            settlement.cause = FAILED
            self.settle(settlement)

    def set_prefetch(self, count: int, is_global: bool) -> None:
        """Change the prefetch limit: for all running consumers together, or for each consumer to come."""
        if is_global:
            self.global_prefetch_count = count
        else:
            self.prefetch_count = count
            self.global_prefetch_count = 0  # RabbitMQ: setting the one switches the other off
        self._touch_consumed_queues()

    def _touch_consumed_queues(self) -> None:
        for consumer in self.consumers.values():
            self.turn.touched[consumer.queue] = None

    def _share_room(self) -> None:
        """Have the queues that wait for the room of this channel deliver, each time another one first."""
        consumers = list(self.consumers.values())
        if not consumers:
            return
        self._first_served = (self._first_served + 1) % len(consumers)
        touched = self.turn.touched
        for consumer in consumers[self._first_served :] + consumers[: self._first_served]:
            touched.pop(consumer.queue, None)
            touched[consumer.queue] = None

    def resume_consumers(self) -> None:
        """Let consumers go on after the connection's output was full."""
        self._touch_consumed_queues()

    # -- confirms

    def note_published(self, count: int, batch: int, is_refused: bool) -> None:
        """Count publishes that are to be confirmed (or refused, one at a time) when a batch is durable."""
        self.published_up_to += count
        pending = self.pending_confirms
        if pending:
            last = pending[-1]
            if batch < last.batch:
                batch = last.batch  # confirms keep their order, so this one waits as long
            if not is_refused and not last.is_refused and batch == last.batch:
                last.last = self.published_up_to
                return
        pending.append(PendingConfirm(batch, self.published_up_to, is_refused))
        self.turn.confirming[self] = None

    def send_confirms(self, durable: int) -> None:
        """Confirm, in order, what the batches up to `durable` hold."""
        pending = self.pending_confirms
        up_to = self.confirmed_up_to
        while pending and pending[0].batch <= durable:
            confirm = pending.popleft()
            if confirm.is_refused:
                self._ack_up_to(confirm.last - 1)
                self.outbox.write(encode_nack(self.number, confirm.last, False))
                self.confirmed_up_to = confirm.last
            up_to = confirm.last
        self._ack_up_to(up_to)

    def _ack_up_to(self, tag: int) -> None:
        if tag > self.confirmed_up_to:
            self.outbox.write(encode_ack(self.number, tag, tag - self.confirmed_up_to > 1))
            self.confirmed_up_to = tag
