"""What a broker does, in the plainest way: lists, dictionaries and one message at a time.

Read this to learn the rules; `test_random_conversations.py` holds the broker to them. There is no protocol,
no store and no thought of speed here. A method does what the AMQP method of its name does, or raises
`Refused` with the code that closes the channel. What a channel is sent without having asked is in its
`outbox`.

    broker = Reference()
    channel = broker.connect().open()
    broker.declare_queue(channel, "q", QueueRules())
    broker.publish(channel, "", "q", Message(b"a"))
    broker.settle_down()
    broker.get(channel, "q", no_ack=True)

In the middle is the queue. A message that is ready waits at its position; one that is delivered is unacked on
a channel until it is acked, rejected or requeued; one that leaves a queue by any other way than an ack dies:
it is a dead letter, or it is dropped. `settle_down` is what a broker does by itself after every method: route
dead letters, and deliver.

Where several queues have something to do at the same time, AMQP leaves open which of them is first. Here it
is the order in which a publish was routed, as in Leveret; and where they wait for the room that consumers of
one channel share, it is the order that a `witness` of the real broker saw.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from .entities import (
    EXPIRED,
    MAXLEN,
    REJECTED,
    Binding,
    Cancelled,
    Channel,
    Confirmed,
    Connection,
    Consumer,
    Death,
    Delivered,
    Entry,
    Exchange,
    Message,
    Queue,
    QueueRules,
    Refused,
    Returned,
    Settlement,
    Transaction,
)


class Reference:
    """The broker: exchanges and queues by name, and bindings, in the order in which they were made."""

    def __init__(self, now_ms: int = 0, witness: Callable[[Channel], list[str]] = lambda channel: []) -> None:
        self.now_ms = now_ms
        self.witness = witness  # tags of the consumers of a channel, as they got messages since it was asked
        self.queues: dict[str, Queue] = {}
        self.exchanges = {
            exchange.name: exchange
            for exchange in (
                Exchange("", "default", durable=True),
                Exchange("amq.direct", "direct", durable=True),
                Exchange("amq.fanout", "fanout", durable=True),
                Exchange("amq.topic", "topic", durable=True),
                Exchange("amq.headers", "headers", durable=True),
            )
        }
        self.bindings: dict[Binding, None] = {}
        self.connections: list[Connection] = []
        self._dead: deque[tuple[Queue, Message, str]] = deque()  # with the reason
        self._touched: dict[Queue, None] = {}  # which may have something to deliver

    # -- connections and channels

    def connect(self) -> Connection:
        """Connect a client."""
        connection = Connection()
        self.connections.append(connection)
        return connection

    def close_channel(self, channel: Channel) -> None:
        """End a channel, however it ends: what is unacked goes back, consumers are gone."""
        channel.connection.channels.remove(channel)
        consumers = list(channel.consumers.values())
        channel.unacked = dict(sorted(channel.outstanding.items()))
        channel.transaction = None
        self._requeue(channel.take(0, multiple=True))
        channel.consumers.clear()
        for consumer in consumers:
            self._remove_consumer(consumer)

    def close_connection(self, connection: Connection) -> None:
        """End a connection, however it ends: its exclusive queues go with it."""
        self.connections.remove(connection)
        for channel in list(connection.channels):
            self.close_channel(channel)
        for queue in [queue for queue in self.queues.values() if queue.owner is connection]:
            self._delete_queue(queue)

    # -- exchanges and bindings

    def declare_exchange(self, exchange: Exchange) -> None:
        """Create an exchange, or check that the one of this name is the same."""
        if self.exchanges.setdefault(exchange.name, exchange) != exchange:
            raise Refused(406)

    def delete_exchange(self, name: str, if_unused: bool = False) -> None:
        """Delete an exchange, and its bindings in both directions."""
        if name in self.exchanges:
            if if_unused and self._bindings_of(name):
                raise Refused(406)
            del self.exchanges[name]
            self._unbind_all(name, is_exchange=True)

    def exchange(self, name: str) -> Exchange:
        """Find an exchange."""
        if name not in self.exchanges:
            raise Refused(404)
        return self.exchanges[name]

    def bind(self, channel: Channel, binding: Binding) -> None:
        """Make a binding, unless it is there."""
        self.exchange(binding.source)
        if binding.to_exchange:
            self.exchange(binding.destination)
        else:
            self.queue(channel, binding.destination)
        self.bindings.setdefault(binding)

    def unbind(self, channel: Channel, binding: Binding) -> None:
        """Remove a binding if it is there."""
        if binding in self.bindings:
            if not binding.to_exchange:
                self.queue(channel, binding.destination)
            del self.bindings[binding]
            self._delete_if_abandoned(binding.source)

    def _bindings_of(self, source: str) -> list[Binding]:
        return [binding for binding in self.bindings if binding.source == source]

    def _unbind_all(self, name: str, *, is_exchange: bool) -> None:
        """Remove the bindings of something that is gone."""
        gone = [
            binding
            for binding in self.bindings
            if (binding.to_exchange == is_exchange and binding.destination == name)
            or (is_exchange and binding.source == name)
        ]
        for binding in gone:
            del self.bindings[binding]
        for binding in gone:
            self._delete_if_abandoned(binding.source)

    def _delete_if_abandoned(self, name: str) -> None:
        """Delete an auto-delete exchange that has lost its last binding as a source."""
        exchange = self.exchanges.get(name)
        if exchange is not None and exchange.auto_delete and not self._bindings_of(name):
            self.delete_exchange(name)

    # -- queues

    def declare_queue(self, channel: Channel, name: str, rules: QueueRules) -> tuple[int, int]:
        """Create a queue, or check that the one of this name is the same; messages ready and consumers."""
        if name in self.queues:
            queue = self.queues[name]
            owner = channel.connection if rules.exclusive else None
            if queue.owner is not owner:
                raise Refused(405)
            if queue.rules != rules:
                raise Refused(406)
        else:
            owner = channel.connection if rules.exclusive else None
            queue = self.queues[name] = Queue(name, rules, owner, self.now_ms)
        queue.used_ms = self.now_ms
        return len(queue.ready), len(queue.consumers)

    def count(self, channel: Channel, name: str) -> tuple[int, int]:
        """Declare a queue passively; messages ready and consumers."""
        queue = self.queue(channel, name)
        queue.used_ms = self.now_ms
        return len(queue.ready), len(queue.consumers)

    def queue(self, channel: Channel, name: str) -> Queue:
        """Find a queue that a channel may use."""
        if name not in self.queues:
            raise Refused(404)
        queue = self.queues[name]
        if queue.owner not in (None, channel.connection):
            raise Refused(405)
        return queue

    def purge(self, channel: Channel, name: str) -> int:
        """Drop what is ready; how many messages it was."""
        queue = self.queue(channel, name)
        count = len(queue.ready)
        queue.ready.clear()
        return count

    def delete_queue(self, channel: Channel, name: str, *, if_unused: bool, if_empty: bool) -> int:
        """Delete a queue and drop what is in it; how many messages were ready."""
        if name not in self.queues:
            return 0
        queue = self.queue(channel, name)
        if (if_empty and queue.ready) or (if_unused and queue.consumers):
            raise Refused(406)
        count = len(queue.ready)
        for consumer in queue.consumers:
            del consumer.channel.consumers[consumer.tag]
            consumer.channel.outbox.append(Cancelled(consumer.tag))
        self._delete_queue(queue)
        return count

    def _delete_queue(self, queue: Queue) -> None:
        queue.is_deleted = True
        del self.queues[queue.name]
        self._unbind_all(queue.name, is_exchange=False)

    # -- publishing

    def publish(
        self, channel: Channel, exchange: str, key: str, message: Message, *, mandatory: bool = False
    ) -> None:
        """Route a message now; enqueue it now, or in a transaction when it is committed."""
        message = replace(message, exchange=exchange, key=key)
        found = self.exchange(exchange)
        if found.internal:
            raise Refused(403)
        queues = self.route(found, message)
        if channel.transaction is not None:
            channel.transaction.publishes.append((message, queues, mandatory))
        else:
            self._hand_over(channel, message, queues, mandatory)

    def _hand_over(self, channel: Channel, message: Message, queues: list[Queue], mandatory: bool) -> bool:
        """Enqueue a message, return it, confirm it; whether all queues took it."""
        if mandatory and not queues:
            channel.outbox.append(Returned(message))
        refusals = [queue for queue in queues if not self._enqueue(queue, message, message.ttl_ms)]
        if channel.confirms:
            channel.published += 1
            channel.outbox.append(Confirmed(channel.published, not refusals))
        return not refusals

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Find the queues for a message, each once; every exchange is visited once."""
        visited = [exchange]
        queues: dict[Queue, None] = {}
        for source in visited:  # grows
            found = self._next_stops(source, message)
            if not found and source.alternate in self.exchanges:
                found = [self.exchanges[source.alternate]]
            for stop in found:
                if isinstance(stop, Queue):
                    queues[stop] = None
                elif stop not in visited:
                    visited.append(stop)
        return list(queues)

    def _next_stops(self, exchange: Exchange, message: Message) -> list[Queue | Exchange]:
        if exchange.type == "default":  # every queue is bound to it by its name
            return [self.queues[key] for key in message.keys if key in self.queues]
        return [
            self.exchanges[binding.destination] if binding.to_exchange else self.queues[binding.destination]
            for binding in self._bindings_of(exchange.name)
            if exchange.matches(binding, message.keys, dict(message.headers))
        ]

    def _enqueue(self, queue: Queue, message: Message, ttl_ms: int | None) -> bool:
        """Append a message to a queue; False if the queue is full and refuses it."""
        rules = queue.rules
        if rules.overflow != "drop-head" and queue.is_over(1, len(message.body)):
            self._serve([queue])  # what a consumer takes at once does not count
            if queue.is_over(1, len(message.body)):
                if rules.overflow == "reject-publish-dlx":
                    self._die(queue, message, MAXLEN)
                return False
        ttls_ms = [ttl for ttl in (ttl_ms, rules.ttl_ms) if ttl is not None]
        deadline_ms = self.now_ms + min(ttls_ms) if ttls_ms else None
        queue.positions += 1
        queue.insert(Entry(message, queue.positions, deadline_ms))
        self._touched[queue] = None
        if queue.is_over() and rules.overflow == "drop-head":
            self._serve([queue])
            self._drop_heads(queue)
        return True

    def _drop_heads(self, queue: Queue) -> None:
        """Make room in a queue that is full and drops from the head."""
        while queue.rules.overflow == "drop-head" and queue.ready and queue.is_over():
            self._die(queue, queue.ready.pop(0).message, MAXLEN)

    # -- dying

    def _die(self, queue: Queue, message: Message, reason: str) -> None:
        if queue.rules.dead_letter_exchange is not None:
            self._dead.append((queue, message, reason))

    def _dead_letter(self, queue: Queue, message: Message, reason: str) -> None:
        """Publish a message that has died to the queue's dead-letter exchange, if there is that."""
        exchange = self.exchanges.get(queue.rules.dead_letter_exchange or "")
        if exchange is None:
            return
        dead = self._with_death(queue, message, reason)
        dead = replace(dead, exchange=exchange.name)
        if queue.rules.dead_letter_key is not None:
            dead = replace(dead, key=queue.rules.dead_letter_key, cc_is_spent=True)
        for target in self.route(exchange, dead):
            if reason == REJECTED or not _is_circle(dead.deaths, target):
                self._enqueue(target, dead, None)

    def _with_death(self, queue: Queue, message: Message, reason: str) -> Message:
        """Write a death into the history: one line for each queue and reason, the latest first."""
        where = (queue.name, reason, message.exchange)
        before = [death for death in message.deaths if (death.queue, death.reason) == where[:2]]
        others = tuple(death for death in message.deaths if (death.queue, death.reason) != where[:2])
        if before:
            death = before[0]._replace(times=before[0].times + 1)
        else:
            expiration = None if message.ttl_ms is None else str(message.ttl_ms)
            now_s = self.now_ms // 1000
            death = Death(queue.name, reason, 1, message.exchange, message.keys, now_s, expiration)
        return replace(
            message,
            ttl_ms=None,
            deaths=(death, *others),
            first_death=message.first_death or where,
            last_death=where,
        )

    # -- consuming

    def get(self, channel: Channel, name: str, *, no_ack: bool) -> tuple[int, Entry, int] | None:
        """Take the message at the head: delivery tag, message, how many are left. None if there is none."""
        queue = self.queue(channel, name)
        queue.used_ms = self.now_ms
        if not queue.ready:
            return None
        entry = queue.ready.pop(0)
        tag = channel.next_tag()
        if not no_ack:
            channel.unacked[tag] = (queue, entry)
        return tag, entry, len(queue.ready)

    def consume(
        self, channel: Channel, name: str, tag: str, *, no_ack: bool, exclusive: bool, priority: int
    ) -> None:
        """Begin to deliver the messages of a queue."""
        queue = self.queue(channel, name)
        if any(consumer.exclusive for consumer in queue.consumers):
            raise Refused(403)
        if exclusive and (queue.consumers or queue.rules.single_active):
            raise Refused(403)
        consumer = Consumer(tag, queue, channel, no_ack, exclusive, priority, channel.prefetch)
        channel.consumers[tag] = consumer
        queue.consumers.append(consumer)
        if queue.active is None:
            queue.active = consumer
        self._touched[queue] = None

    def cancel(self, channel: Channel, tag: str) -> None:
        """Stop delivering to a consumer; what it has stays unacked."""
        if tag in channel.consumers:
            self._remove_consumer(channel.consumers.pop(tag))

    def _remove_consumer(self, consumer: Consumer) -> None:
        queue = consumer.queue
        if queue.is_deleted:
            return
        queue.consumers.remove(consumer)
        if queue.active is consumer:  # the oldest of those with the highest priority follows
            queue.active = max(queue.consumers, key=lambda waiting: waiting.priority, default=None)
        self._touched[queue] = None
        if not queue.consumers:
            queue.used_ms = self.now_ms
            if queue.rules.auto_delete:
                self._delete_queue(queue)

    def qos(self, channel: Channel, count: int, *, globally: bool) -> None:
        """Limit what consumers may have: each that is to come, or all of the channel together."""
        if globally:
            channel.global_prefetch = count
        else:
            channel.prefetch = count
            channel.global_prefetch = 0
        self._touch_consumed(channel)

    def _touch_consumed(self, channel: Channel) -> None:
        self._touched.update(dict.fromkeys(consumer.queue for consumer in channel.consumers.values()))

    # -- settling

    def settle(self, channel: Channel, tag: int, how: str, *, multiple: bool) -> None:
        """Ack, requeue or reject deliveries, now or when the transaction is committed."""
        settlement = Settlement(channel.take(tag, multiple), how)
        if channel.transaction is not None:
            channel.transaction.settlements.append(settlement)
        else:
            self._settle(channel, settlement)

    def recover(self, channel: Channel) -> None:
        """Requeue all that is unacked."""
        self._requeue(channel.take(0, multiple=True))
        self._touch_consumed(channel)

    def _settle(self, channel: Channel, settlement: Settlement) -> None:
        if settlement.how == "requeue":
            self._requeue(settlement.entries)
        for queue, entry in settlement.entries.values():
            if settlement.how == "reject" and not queue.is_deleted:
                self._die(queue, entry.message, REJECTED)
            self._touched[queue] = None
        self._touch_consumed(channel)

    def _requeue(self, entries: dict[int, tuple[Queue, Entry]]) -> None:
        for queue in dict.fromkeys(queue for queue, _ in entries.values()):
            if not queue.is_deleted:
                given = [entry for its_queue, entry in entries.values() if its_queue is queue]
                for entry in given:
                    if _is_due(entry, self.now_ms):  # its time came while somebody had it
                        self._die(queue, entry.message, EXPIRED)
                queue.put_back([entry for entry in given if not _is_due(entry, self.now_ms)])
                self._touched[queue] = None
                self._drop_heads(queue)

    # -- transactions

    def commit(self, channel: Channel) -> None:
        """Do what waits, publishes first; a queue that refuses one of them closes the channel."""
        transaction = channel.transaction
        assert transaction is not None
        channel.transaction = Transaction()
        all_taken = True
        for message, queues, mandatory in transaction.publishes:
            there = [queue for queue in queues if not queue.is_deleted]
            all_taken &= self._hand_over(channel, message, there, mandatory)
        for settlement in transaction.settlements:
            self._settle(channel, settlement)
        if not all_taken:
            raise Refused(406)

    def rollback(self, channel: Channel) -> None:
        """Forget what was published; what was settled is unacked again."""
        channel.unacked = dict(sorted(channel.outstanding.items()))
        channel.transaction = Transaction()

    # -- what happens by itself

    def settle_down(self) -> None:
        """Route dead letters and deliver until there is nothing left to do now."""
        while self._dead or self._touched:
            while self._dead:
                self._dead_letter(*self._dead.popleft())
            touched = [queue for queue in self._touched if not queue.is_deleted]
            self._touched.clear()
            self._serve(touched)

    def _serve(self, queues: list[Queue]) -> None:
        """Deliver what there is to deliver, and expire what there is to expire."""
        for queue in queues:
            self._expire(queue, self.now_ms - 1)  # what expires just now may still be taken
        while sum(self._deliver(queue) for queue in queues):
            pass
        for queue in queues:
            self._expire(queue, self.now_ms)

    def _deliver(self, queue: Queue) -> int:
        """Hand messages to consumers as far as there is room; how many there were."""
        before = len(queue.ready)
        while queue.ready and (consumer := queue.taker()) and not self._lets_another_go_first(consumer):
            entry = queue.ready.pop(0)
            channel = consumer.channel
            tag = channel.next_tag()
            channel.outbox.append(Delivered(consumer.tag, tag, entry, entry.redelivered))
            if not consumer.no_ack:
                entry.consumer = consumer
                channel.unacked[tag] = (queue, entry)
            queue.consumers.remove(consumer)  # and to the end of the row
            queue.consumers.append(consumer)
        return before - len(queue.ready)

    def _lets_another_go_first(self, consumer: Consumer) -> bool:
        """Whether a consumer of the same channel, which waits for the same room, was seen to be first."""
        channel = consumer.channel
        if not channel.global_prefetch:
            return False
        delivered = sum(isinstance(sent, Delivered) for sent in channel.outbox)
        seen = self.witness(channel)[delivered : delivered + 1]
        first = channel.consumers.get(seen[0]) if seen else None
        return first is not None and bool(first.queue.ready) and first.queue.taker() is first is not consumer

    def _expire(self, queue: Queue, up_to_ms: int) -> None:
        """Let go of ready messages whose time is over, wherever they are in the queue."""
        due = [entry for entry in queue.ready if _is_due(entry, up_to_ms)]
        for entry in sorted(due, key=lambda entry: (entry.deadline_ms, entry.position)):
            queue.ready.remove(entry)
            self._die(queue, entry.message, EXPIRED)

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        end_ms = self.now_ms + milliseconds
        while (due_ms := min(self._deadlines(), default=end_ms + 1)) <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self._touched.update(dict.fromkeys(self.queues.values()))
            self.settle_down()
            for queue in list(self.queues.values()):
                if self._expires_ms(queue) == self.now_ms:
                    self._delete_queue(queue)
        self.now_ms = end_ms

    def _deadlines(self) -> Iterator[int]:
        for queue in self.queues.values():
            yield from (entry.deadline_ms for entry in queue.ready if entry.deadline_ms is not None)
            if (expires_ms := self._expires_ms(queue)) is not None:
                yield expires_ms

    def _expires_ms(self, queue: Queue) -> int | None:
        """When a queue goes because nobody uses it."""
        if queue.rules.expires_ms is None or queue.consumers:
            return None
        return queue.used_ms + queue.rules.expires_ms

    # -- restarts

    def restart(self) -> None:
        """Stop in order and begin again."""
        for connection in list(self.connections):
            self.close_connection(connection)
        self.settle_down()
        self._begin_again()

    def crash(self) -> None:
        """Lose all that is not on disk: what was unacked was delivered, the rest may have been."""
        for queue in self.queues.values():
            for entry in queue.ready:
                entry.redelivered = entry.redelivered or None
        for connection in self.connections:
            for channel in connection.channels:
                for queue, entry in channel.outstanding.values():
                    if not queue.is_deleted:
                        queue.put_back([entry])
        self.connections.clear()
        self._begin_again()

    def _begin_again(self) -> None:
        """Keep what is durable, and of its messages the persistent ones."""
        self.queues = {name: queue for name, queue in self.queues.items() if queue.rules.survives}
        self.exchanges = {name: exchange for name, exchange in self.exchanges.items() if exchange.durable}
        self.bindings = {
            binding: None
            for binding in self.bindings
            if binding.source in self.exchanges
            and binding.destination in (self.exchanges if binding.to_exchange else self.queues)
        }
        for queue in self.queues.values():
            queue.ready = [entry for entry in queue.ready if entry.message.persistent]
            queue.consumers = []
            queue.active = None
            queue.used_ms = self.now_ms
            self._serve([queue])  # what has expired does not count
            self._drop_heads(queue)
        self.settle_down()


def _is_due(entry: Entry, now_ms: int) -> bool:
    return entry.deadline_ms is not None and entry.deadline_ms <= now_ms


def _is_circle(deaths: tuple[Death, ...], target: Queue) -> bool:
    """Whether a message has been in a queue before, and nobody has rejected it since: it goes no further."""
    for death in deaths:
        if death.reason == REJECTED:
            return False
        if death.queue == target.name:
            return True
    return False
