"""A vhost: exchanges and queues by name, and the rules between them. HOT."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from leveret.broker.model.arguments import (
    ALTERNATE_EXCHANGE,
    CLASSIC,
    X_DEAD_LETTER_EXCHANGE,
    X_QUEUE_TYPE,
    QueueArguments,
    check_equivalent_queue,
    take_name_prefix,
)
from leveret.broker.model.events import EVENT_EXCHANGE, INTERNAL
from leveret.broker.model.exchanges.exchange import (
    EXCHANGE_TYPES,
    Exchange,
    check_exchange_type,
)
from leveret.broker.model.exchanges.fanout import UnknownTypeMatcher
from leveret.broker.model.exchanges.random_choice import LocalRandomMatcher, check_local_destination
from leveret.broker.model.exchanges.recent_history import RecentHistoryMatcher
from leveret.broker.model.exchanges.router import Router
from leveret.broker.model.exchanges.topology import Removed, Topology
from leveret.broker.model.message_properties import parse_expiration, visible_routing_keys
from leveret.broker.model.queues.queue import Queue
from leveret.broker.model.queues.queue_types import make_queue
from leveret.broker.model.rules.grants import EXCHANGE, QUEUE, TOPIC
from leveret.broker.model.rules.policies import OPERATOR_POLICY, POLICY, Policy, PolicySet
from leveret.broker.model.streams.stream import Stream
from leveret.broker.model.tracing import TRACE_EXCHANGE, Tracer
from leveret.protocol.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked
from leveret.protocol.tables import Table, decode_table, encode_table, from_python, longstr
from leveret.storage.changes import (
    Bound,
    ExchangeDeclared,
    ExchangeDeleted,
    ExchangeQueueDeclared,
    ParameterCleared,
    ParameterSet,
    QueueDeclared,
    Unbound,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.exchanges.binding import Binding, Destination
    from leveret.broker.model.queues.queue_ids import QueueIds
    from leveret.broker.model.replies import Replies
    from leveret.broker.model.rules.grants import Grants
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message
    from leveret.storage.stored import StoredExchangeQueue, StoredQueue

RESERVED: Final = "amq."
PREDECLARED: Final = (
    ("amq.direct", "direct", False),
    ("amq.topic", "topic", False),
    ("amq.fanout", "fanout", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    (TRACE_EXCHANGE, "topic", True),
)  # name, type, internal; all are durable
LOG_EXCHANGE: Final = "amq.rabbitmq.log"
SYSTEM_EXCHANGES: Final = (EVENT_EXCHANGE, LOG_EXCHANGE)  # in the vhost that the settings name; as the last
VHOST_LIMITS: Final = "vhost-limits"
MAX_QUEUES: Final = "max-queues"
NAME_BYTES: Final = 16  # of randomness in a name made by the server


class VHost:
    """Exchanges, queues and bindings under one name.

    Args:
        turn: what the current turn gathers.
        name: of the vhost.
        queue_ids: shared by all vhosts.
        replies: direct reply-to consumers, shared by all vhosts.
        token: makes an unguessable text of letters, digits, "-" and "_" from so many bytes of randomness.
    """

    __slots__ = (
        "_queue_ids",
        "_token",
        "_topology",
        "connection_count",
        "default_queue_type",
        "description",
        "exchanges",
        "limits",
        "name",
        "policies",
        "queues",
        "queues_by_id",
        "replies",
        "router",
        "tags",
        "tracer",
        "turn",
    )

    def __init__(
        self, turn: Turn, name: str, queue_ids: QueueIds, replies: Replies, token: Callable[[int], str]
    ) -> None:
        self.turn = turn
        self.name = name
        self.replies = replies
        self.description: str = ""
        self.tags: tuple[str, ...] = ()
        self.default_queue_type: str = ""  # of durable queues that are declared without a type
        self.connection_count: int = 0
        self.limits: dict[str, int] = {}  # name of a limit -> value; a negative one is none
        self.policies: PolicySet = PolicySet()
        self.queues: dict[str, Queue] = {}
        self.queues_by_id: dict[int, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.router = Router(turn, name, self.exchanges, self.queues)
        self.tracer: Tracer | None = None  # while it is traced
        self._queue_ids = queue_ids
        self._token = token
        self._topology = Topology()
        self.exchanges[""] = Exchange.default(name, self.queues)
        for exchange_name, type_name, internal in PREDECLARED:
            self.exchanges[exchange_name] = Exchange(
                name, exchange_name, type_name, durable=True, internal=internal
            )

    # -- names

    def open_queue(self, name: str, connection: Connection) -> Queue:
        """Return a queue that a connection may use.

        Raises:
            NotFound: there is none of this name.
            ResourceLocked: it is exclusive to another connection.
        """
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}' in vhost '{self.name}'")
        self._require_owner(queue, connection, queue.owner is not None)
        return queue

    def _require_owner(self, queue: Queue, connection: Connection, exclusive: bool) -> None:
        if queue.owner is (connection if exclusive else None):
            return
        raise ResourceLocked(
            f"cannot obtain exclusive access to locked queue '{queue.name}' in vhost '{self.name}'. It could"
            " be originally declared on another connection or the exclusive property value does not match"
            " that of the original declaration."
        )

    def generate_name(self, prefix: str) -> str:
        """Return a name that nobody can guess: a prefix, a hyphen, 22 characters."""
        return f"{prefix}-{self._token(NAME_BYTES)}"

    # -- exchanges

    def refuse_default_exchange(self, name: str) -> None:
        """Refuse to work on the default exchange.

        Raises:
            AccessRefused: the name is empty.
        """
        if not name:
            raise AccessRefused("operation not permitted on the default exchange")

    def declare_exchange(
        self,
        name: str,
        type_name: str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Table,
        grants: Grants,
    ) -> None:
        """Create an exchange, or check that the existing one is the same.

        Raises:
            AccessRefused: no permission, the default exchange, or a reserved name.
            PreconditionFailed: an unknown type, a bad argument, or the existing one differs.
        """
        check_exchange_type(type_name)
        self.refuse_default_exchange(name)
        grants.require_configure(EXCHANGE, name)
        existing = self.exchanges.get(name)
        if existing is not None:
            existing.check_equivalent(type_name, durable, auto_delete, internal, arguments)
            return
        if name.startswith(RESERVED):
            raise AccessRefused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
        alternate = longstr(arguments, ALTERNATE_EXCHANGE)
        if alternate is not None:
            grants.require_read(EXCHANGE, name)
            grants.require_write(EXCHANGE, alternate)
        exchange = Exchange(self.name, name, type_name, durable, auto_delete, internal, arguments)
        queue_id = self._queue_ids.allocate() if exchange.keeps else 0
        self.exchanges[name] = exchange
        self._apply_policy_to(exchange)
        self.router.routes.clear()
        if durable:
            self.turn.define(
                ExchangeDeclared(self.name, name, type_name, auto_delete, internal, encode_table(arguments))
            )
        if queue_id:
            exchange.equip(self.turn, queue_id)
            if durable:
                self.turn.define(ExchangeQueueDeclared(queue_id, self.name, name))
        self.turn.events.exchange_created(exchange)

    def delete_exchange(self, name: str, if_unused: bool, grants: Grants) -> None:
        """Delete an exchange and its bindings, if it is there.

        Raises:
            AccessRefused: no permission, the default exchange, or an "amq." one.
            PreconditionFailed: it is the source of bindings and must be unused.
        """
        self.refuse_default_exchange(name)
        if name.startswith(RESERVED):
            raise AccessRefused(f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed")
        grants.require_configure(EXCHANGE, name)
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise PreconditionFailed(f"exchange '{name}' in vhost '{self.name}' in use")
        removed = self._topology.delete(exchange)
        removed.exchanges.append(exchange)
        self._note_removed(removed, self.turn.actor)

    def _note_removed(self, removed: Removed, by: str) -> None:
        if removed.bindings or removed.exchanges:
            self.router.routes.clear()
        for binding in removed.bindings:
            self.turn.events.binding_changed(binding, False, by)
            if _is_durable(binding):
                self.turn.define(self._unbound(binding))
        for exchange in removed.exchanges:
            self.exchanges.pop(exchange.name, None)
            if exchange.durable:
                self.turn.define(ExchangeDeleted(self.name, exchange.name))
            self._empty_exchange(exchange)
            self.turn.events.exchange_deleted(exchange)

    def _empty_exchange(self, exchange: Exchange) -> None:
        """Delete what an exchange keeps, with it."""
        if exchange.queue_id:
            exchange.let_go()
            self.turn.batch.delete_queue(exchange.queue_id)
            self._queue_ids.release(exchange.queue_id, self.turn.batch.number)

    # -- bindings

    def bind(
        self,
        source: str,
        destination: str,
        to_exchange: bool,
        binding_key: str,
        arguments: Table,
        connection: Connection,
    ) -> None:
        """Bind a queue or an exchange to an exchange; an identical binding is there only once.

        Raises:
            AccessRefused: no permission, or one end is the default exchange.
            NotFound: one end does not exist; the source is reported first.
            PreconditionFailed: the exchange type has no use for the key or the arguments.
            ResourceLocked: the queue is exclusive to another connection.
        """
        self._require_bindable(source, destination, to_exchange, binding_key, connection.grants)
        exchange = self.router.exchange(source)
        end: Destination = (
            self.router.exchange(destination) if to_exchange else self.open_queue(destination, connection)
        )
        if isinstance(exchange.matcher, LocalRandomMatcher):
            exchange.matcher.validate(binding_key, arguments)
            check_local_destination(end.arguments.queue_type if isinstance(end, Queue) else None)
        binding = self._topology.bind(exchange, end, binding_key, arguments)
        if binding is not None:
            self.router.routes.clear()
            self.turn.events.binding_changed(binding, True, self.turn.actor)
            if isinstance(exchange.matcher, RecentHistoryMatcher):
                self._replay(list(exchange.matcher.history), end)
            if _is_durable(binding):
                self.turn.define(
                    Bound(self.name, source, destination, to_exchange, binding_key, encode_table(arguments))
                )

    def _replay(self, history: list[Message], end: Destination) -> None:
        """Send the messages that an exchange remembers to what was just bound to it."""
        for message in history:
            fields = message.envelope.fields
            ttl_ms = -1 if fields.expiration is None else parse_expiration(fields.expiration)
            if isinstance(end, Queue):
                end.enqueue([message], message.body_bytes, ttl_ms)
            elif isinstance(end, Exchange):
                keys = visible_routing_keys(message.envelope.routing_key, fields.headers)
                for queue in self.router.queues_of(end, keys + message.envelope.bcc_keys, message)[0]:
                    queue.enqueue([message], message.body_bytes, ttl_ms)

    def _require_bindable(
        self, source: str, destination: str, to_exchange: bool, binding_key: str, grants: Grants
    ) -> None:
        """Check permissions before existence, as RabbitMQ does."""
        self.refuse_default_exchange(source)
        if to_exchange:
            self.refuse_default_exchange(destination)
        grants.require_write(EXCHANGE if to_exchange else QUEUE, destination)
        grants.require_read(EXCHANGE, source)
        exchange = self.exchanges.get(source)
        if exchange is not None and exchange.type_name == TOPIC:
            grants.require_topic_read(source, binding_key)

    def unbind(
        self,
        source: str,
        destination: str,
        to_exchange: bool,
        binding_key: str,
        arguments: Table,
        connection: Connection,
    ) -> None:
        """Remove a binding, if it is there.

        Raises:
            AccessRefused: no permission, or one end is the default exchange.
            ResourceLocked: the queue is exclusive to another connection, and bound.
        """
        self._require_bindable(source, destination, to_exchange, binding_key, connection.grants)
        exchange = self.exchanges.get(source)
        end: Destination | None = (
            self.exchanges.get(destination) if to_exchange else self.queues.get(destination)
        )
        if exchange is None or end is None:
            return
        if isinstance(end, Queue) and exchange.has(end, binding_key, arguments):
            self._require_owner(end, connection, end.owner is not None)
        removed = self._topology.unbind(exchange, end, binding_key, arguments)
        self._note_removed(removed, self.turn.actor)

    def _unbound(self, binding: Binding) -> Unbound:
        return Unbound(
            self.name,
            binding.source.name,
            binding.destination.name,
            isinstance(binding.destination, Exchange),
            binding.binding_key,
            encode_table(binding.arguments),
        )

    # -- queues

    def declare_queue(
        self,
        connection: Connection,
        name: str,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
    ) -> Queue:
        """Create a queue, or check that the existing one is the same. For an empty name the server chooses.

        Raises:
            AccessRefused: no permission, or a reserved name.
            PreconditionFailed: a bad argument, or the existing one differs.
            ResourceLocked: the existing one is exclusive to another connection, or not exclusive.
        """
        arguments = self._with_default_type(
            arguments, bool(name) and durable and not exclusive and not auto_delete
        )
        if not name:
            QueueArguments.refuse_server_name(arguments)
            prefix, arguments = take_name_prefix(arguments)
            name = self.generate_name(prefix)
        elif name.startswith(RESERVED):
            raise AccessRefused(f"queue name '{name}' contains reserved prefix 'amq.*'")
        connection.grants.require_configure(QUEUE, name)
        existing = self.queues.get(name)
        if existing is not None:
            self._require_owner(existing, connection, exclusive)
            check_equivalent_queue(existing, durable and not exclusive, auto_delete, arguments)
            existing.touch()
            return existing
        self._require_room_for_queue(name)
        dead_letter_exchange = longstr(arguments, X_DEAD_LETTER_EXCHANGE)
        if dead_letter_exchange is not None:
            connection.grants.require_read(QUEUE, name)
            connection.grants.require_write(EXCHANGE, dead_letter_exchange)
        parsed = QueueArguments.from_table(
            name,
            self.name,
            arguments,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
        )
        parsed = self.policies.queue_arguments(name, parsed)
        durable = durable and not exclusive
        owner = connection if exclusive else None
        queue_id = self._queue_ids.allocate(parsed.max_priority or 0)
        queue = make_queue(
            self.turn, self.name, name, queue_id, durable, owner, auto_delete, parsed, self._queue_ids
        )
        self._add_queue(queue)
        if exclusive:
            connection.exclusive_queues[queue] = None
        if durable:
            self.turn.define(QueueDeclared(queue.id, self.name, name, auto_delete, encode_table(arguments)))
        self.turn.events.queue_created(queue)
        return queue

    def _require_room_for_queue(self, name: str) -> None:
        limit = self.limits.get(MAX_QUEUES, -1)
        if 0 <= limit <= len(self.queues):
            raise PreconditionFailed(
                f"cannot declare queue '{name}': queue limit in vhost '{self.name}' ({limit}) is reached"
            )

    def _with_default_type(self, arguments: Table, applies: bool) -> Table:
        """Add the vhost's default type to the arguments of a queue that names none."""
        queue_type = self.default_queue_type
        if not applies or queue_type in ("", CLASSIC) or X_QUEUE_TYPE in arguments:
            return arguments
        return {**arguments, X_QUEUE_TYPE: from_python(queue_type)}

    def _add_queue(self, queue: Queue) -> None:
        self.queues[queue.name] = queue
        self.queues_by_id[queue.id] = queue
        queue.tracer = self.tracer

    def require_deletable(self, queue: Queue, if_unused: bool, if_empty: bool) -> None:
        """Refuse to delete a queue that is not empty, or in use.

        Raises:
            PreconditionFailed: it has ready messages and must be empty, or consumers and must be unused.
        """
        if isinstance(queue, Stream):
            return  # RabbitMQ ignores both
        if if_empty and queue.messages_ready:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' not empty")
        if if_unused and queue.consumers:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' in use")

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue and its bindings. Its consumers are the caller's to tell.

        Returns:
            how many messages were ready.
        """
        del self.queues[queue.name]
        del self.queues_by_id[queue.id]
        for consumer in queue.consumers:
            self.turn.events.consumer_deleted(consumer)
        self._note_removed(self._topology.delete(queue), INTERNAL)
        if queue.owner is not None:
            queue.owner.exclusive_queues.pop(queue, None)
        count = queue.deleted()
        if queue.durable:
            self.turn.last_definition_batch = self.turn.batch.number
        self._queue_ids.release(queue.id, self.turn.batch.number if queue.is_stored else 0)
        self.turn.events.queue_deleted(queue)
        return count

    def remove_consumer(self, consumer: Consumer) -> None:
        """Stop serving a consumer, and delete its queue if it goes with its last consumer."""
        queue = consumer.queue
        if queue.is_deleted:
            return
        self.turn.events.consumer_deleted(consumer)
        if queue.remove_consumer(consumer):
            self.turn.actor = INTERNAL
            self.delete_queue(queue)

    def expire_queue(self, queue: Queue) -> None:
        """Delete a queue that nobody used for too long. It has no consumers."""
        self.delete_queue(queue)

    def delete_everything(self) -> None:
        """Let go of all queues and exchanges; the store does so when it is told that the vhost is gone."""
        for queue in list(self.queues.values()):
            queue.deleted_with_vhost()
            self.turn.events.queue_deleted(queue)
            self._queue_ids.release(queue.id, self.turn.batch.number if queue.is_stored else 0)
        for exchange in self.exchanges.values():
            self._empty_exchange(exchange)
            self.turn.events.exchange_deleted(exchange)
        self.queues.clear()
        self.queues_by_id.clear()
        self.exchanges.clear()
        self.router.routes.clear()
        self._topology = Topology()

    def system_exchange(self, name: str) -> Exchange:
        """Return an exchange that the broker itself publishes to; it is made if it is not there."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            exchange = self.exchanges[name] = Exchange(self.name, name, "topic", durable=True, internal=True)
        return exchange

    def trace(self, node_name: str) -> None:
        """Begin to copy what is published and delivered to the exchange of traces."""
        self.tracer = Tracer(self.turn, self.name, self.exchanges[TRACE_EXCHANGE], node_name)
        for queue in self.queues.values():
            queue.tracer = self.tracer

    def stop_tracing(self) -> None:
        """Copy nothing any more."""
        self.tracer = None
        for queue in self.queues.values():
            queue.tracer = None

    # -- policies and limits

    def set_policy(self, kind: str, policy: Policy) -> None:
        """Set a policy or an operator policy that has been validated; it holds at once."""
        before = self._policies_of_queues(kind)
        self.policies.set(kind, policy)
        self._apply_policies()
        self.turn.define(ParameterSet(self.name, kind, policy.name, policy.to_json()))
        self._tell_of_policies(kind, before)
        self.turn.events.policy_changed(self.name, policy, True, kind == OPERATOR_POLICY)

    def clear_policy(self, kind: str, name: str) -> bool:
        """Clear a policy or an operator policy.

        Returns:
            whether it was there.
        """
        policy = self.policies.by_name[kind].get(name)
        if policy is None:
            return False
        before = self._policies_of_queues(kind)
        self.policies.clear(kind, name)
        self._apply_policies()
        self.turn.define(ParameterCleared(self.name, kind, name))
        self._tell_of_policies(kind, before)
        self.turn.events.policy_changed(self.name, policy, False, kind == OPERATOR_POLICY)
        return True

    def _policies_of_queues(self, kind: str) -> dict[Queue, Policy | None]:
        """Return which policy of a kind applies to each queue, if somebody wants to know."""
        if not self.turn.events.are_wanted:
            return {}
        return {queue: self._policy_of(queue, kind) for queue in self.queues.values()}

    def _policy_of(self, queue: Queue, kind: str) -> Policy | None:
        applied = self.policies.applied(queue.name, queue.arguments.queue_type)
        return applied.policy if kind == POLICY else applied.operator_policy

    def _tell_of_policies(self, kind: str, before: dict[Queue, Policy | None]) -> None:
        for queue, policy in before.items():
            if policy != (now := self._policy_of(queue, kind)):
                self.turn.events.queue_policy_changed(queue, now)

    def set_limits(self, limits: dict[str, int]) -> None:
        """Replace the limits."""
        self.limits = limits
        self.turn.define(ParameterSet(self.name, VHOST_LIMITS, "limits", json.dumps(limits, sort_keys=True)))
        self.turn.events.vhost_limits_changed(self.name, limits)

    def clear_limits(self) -> None:
        """Have no limits any more."""
        self.limits = {}
        self.turn.define(ParameterCleared(self.name, VHOST_LIMITS, "limits"))
        self.turn.events.vhost_limits_changed(self.name, {})

    def restore_parameter(self, stored: ParameterSet) -> None:
        """Bring back a policy or the limits; before the queues."""
        if stored.component in (POLICY, OPERATOR_POLICY):
            self.policies.set(stored.component, Policy.from_json(stored.name, stored.value))
            self._apply_policies()
        elif stored.component == VHOST_LIMITS:
            self.limits = {str(name): int(value) for name, value in json.loads(stored.value).items()}

    def _apply_policies(self) -> None:
        self.router.routes.clear()
        for exchange in self.exchanges.values():
            self._apply_policy_to(exchange)
        for queue in self.queues.values():
            arguments = self.policies.queue_arguments(
                queue.name, QueueArguments.of_valid(queue.arguments.table, queue.arguments.table)
            )
            if arguments != queue.arguments:
                queue.change_arguments(arguments)

    def _apply_policy_to(self, exchange: Exchange) -> None:
        if not exchange.name:
            return
        alternate = longstr(exchange.arguments, ALTERNATE_EXCHANGE)
        if alternate is None:
            alternate = self.policies.alternate_exchange(exchange.name)
        exchange.alternate_exchange = alternate

    # -- restart

    def restore_exchange(self, stored: ExchangeDeclared) -> None:
        """Bring back a durable exchange; one of a type that nobody knows any more routes nowhere."""
        arguments = decode_table(stored.arguments)[0]
        self.exchanges[stored.name] = Exchange(
            self.name,
            stored.name,
            stored.type,
            True,
            stored.auto_delete,
            stored.internal,
            arguments,
            None if stored.type in EXCHANGE_TYPES else UnknownTypeMatcher(arguments),
        )
        self._apply_policy_to(self.exchanges[stored.name])

    def restore_exchange_queue(self, stored: StoredExchangeQueue) -> None:
        """Bring back what a durable exchange keeps; messages stay in the store until their time is near."""
        self._queue_ids.reserve(stored.queue_id)
        exchange = self.exchanges[stored.exchange]
        exchange.equip(self.turn, stored.queue_id)
        if exchange.delay is not None:
            exchange.delay.restore(stored.messages, stored.body_bytes, stored.last_position)

    def restore_queue(self, stored: StoredQueue) -> None:
        """Bring back a durable queue; its messages stay in the store until they are wanted."""
        arguments = decode_table(stored.arguments)[0]
        parsed = QueueArguments.from_table(
            stored.name, self.name, arguments, durable=True, exclusive=False, auto_delete=stored.auto_delete
        )
        parsed = self.policies.queue_arguments(stored.name, parsed)
        self._queue_ids.reserve(stored.queue_id, parsed.max_priority or 0)
        queue = make_queue(
            self.turn,
            self.name,
            stored.name,
            stored.queue_id,
            True,
            None,
            stored.auto_delete,
            parsed,
            self._queue_ids,
        )
        self._add_queue(queue)
        queue.restore(
            stored.messages,
            stored.body_bytes,
            stored.first_position,
            stored.last_position,
            stored.delivered_up_to,
            stored.first_expires,
        )

    def restore_binding(self, stored: Bound) -> None:
        """Bring back a binding between durable ends."""
        for name in (stored.source, stored.destination):
            if name in SYSTEM_EXCHANGES:  # it is there also while nobody publishes to it
                self.system_exchange(name)
        end: Destination = (
            self.exchanges[stored.destination] if stored.to_exchange else self.queues[stored.destination]
        )
        arguments = decode_table(stored.arguments)[0]
        self._topology.bind(self.exchanges[stored.source], end, stored.binding_key, arguments)


def _is_durable(binding: Binding) -> bool:
    destination = binding.destination
    if isinstance(destination, Exchange | Queue):
        return binding.source.durable and destination.durable
    return False
