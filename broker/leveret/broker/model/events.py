"""What happens in the broker, told as messages of the exchange amq.rabbitmq.event of the default vhost.

Whoever changes something calls the method of `Events` for it. Nothing is built while nothing is bound to the
exchange. An event has no body; its headers are what RabbitMQ's event exchange plugin sends, in its order:
field tables as lists of printed terms, and always `timestamp_in_ms`.

Who did it is the turn's `actor`: a user's name, or one of the names below.

Source: RabbitMQ guide "Event Exchange"; routing keys, headers and types as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.model.own_messages import OwnMessage
from leveret.broker.model.terms import binary_term, term, type_name
from leveret.protocol.errors import FieldSyntaxError
from leveret.protocol.properties import PERSISTENT, Properties, replace
from leveret.protocol.tables import from_python

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.broker.model.channel import Channel
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.exchanges.binding import Binding
    from leveret.broker.model.exchanges.exchange import Exchange
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.rules.policies import Policy
    from leveret.broker.model.turn import Turn
    from leveret.protocol.tables import Table

EVENT_EXCHANGE: Final = "amq.rabbitmq.event"
INTERNAL: Final = "rmq-internal"  # the broker itself: what goes with something else
BY_CTL: Final = "rmq-cli"
BY: Final = "user_who_performed_action"
# Not by anybody: these say nothing about who did it.
_BY_NOBODY: Final = frozenset(
    (
        "connection.closed",
        "user.authentication.success",
        "user.authentication.failure",
        "alarm.set",
        "alarm.cleared",
    )
)


class Events:
    """Makes events, while somebody is there to get them.

    Args:
        turn: takes the messages, and knows the time and who acts.
    """

    __slots__ = ("_exchange", "_turn", "_vhost_name")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._exchange: Exchange | None = None
        self._vhost_name = ""

    def begin(self, vhost_name: str, exchange: Exchange | None) -> None:
        """Send events to an exchange from now on; None for to nobody."""
        self._vhost_name = vhost_name
        self._exchange = exchange

    @property
    def are_wanted(self) -> bool:
        """Whether anything is bound to the exchange."""
        return self._exchange is not None and bool(self._exchange.bindings)

    def tell(self, key: str, values: Mapping[str, object]) -> None:
        """Send an event.

        Args:
            key: its routing key.
            values: its headers, by name, in order; what `from_python` takes.
        """
        if not self.are_wanted:
            return
        by: dict[str, object] = {} if key in _BY_NOBODY or BY in values else {BY: self._turn.actor}
        now_ms = self._turn.now_ms
        headers = {**by, **values, "timestamp_in_ms": now_ms}
        raw = _encoded(headers, now_ms)
        if raw is None:  # an administrator may set a value that no table has room for
            headers.pop("value", None)
            raw = _encoded(headers, now_ms)
        if raw is not None:
            self._turn.publish_own(OwnMessage(self._vhost_name, EVENT_EXCHANGE, key, raw, b""))

    # -- queues, exchanges, bindings

    def queue_created(self, queue: Queue) -> None:
        """A queue was declared that did not exist."""
        if not self.are_wanted:
            return
        owner = queue.owner
        about: dict[str, object] = {"type": _queue_type(queue)}
        if queue.arguments.queue_type == "classic":
            about = {"exclusive": owner is not None, "owner_pid": "" if owner is None else owner.pid}
        self.tell(
            "queue.created",
            {
                **about,
                "arguments": terms(queue.arguments.table),
                "auto_delete": queue.auto_delete,
                "durable": queue.durable,
                "name": queue.name,
                "vhost": queue.vhost_name,
            },
        )

    def queue_deleted(self, queue: Queue) -> None:
        """A queue is gone; of its consumers and bindings was told before."""
        self.tell("queue.deleted", {"name": queue.name, "vhost": queue.vhost_name})

    def queue_policy_changed(self, queue: Queue, policy: Policy | None) -> None:
        """Another policy applies to a queue, or none any more."""
        of_queue: dict[str, object] = {
            "type": _queue_type(queue),
            "vhost": queue.vhost_name,
            "name": queue.name,
        }
        if policy is None:
            self.tell("queue.policy.cleared", of_queue)
        else:
            self.tell("queue.policy.updated", {**_policy(policy), BY: self._turn.actor, **of_queue})

    def exchange_created(self, exchange: Exchange, policy_name: str = "") -> None:
        """An exchange was declared that did not exist."""
        if not self.are_wanted:
            return
        self.tell(
            "exchange.created",
            {
                "policy": policy_name,
                "arguments": terms(exchange.arguments),
                "internal": exchange.internal,
                "auto_delete": exchange.auto_delete,
                "durable": exchange.durable,
                "type": exchange.type_name,
                "name": exchange.name,
                "vhost": exchange.vhost_name,
            },
        )

    def exchange_deleted(self, exchange: Exchange) -> None:
        """An exchange is gone."""
        self.tell("exchange.deleted", {"name": exchange.name, "vhost": exchange.vhost_name})

    def binding_changed(self, binding: Binding, is_new: bool, by: str) -> None:
        """A binding was made, or is gone."""
        if not self.are_wanted:
            return
        destination = binding.destination
        self.tell(
            "binding.created" if is_new else "binding.deleted",
            {
                BY: by,
                "vhost": binding.source.vhost_name,
                "arguments": terms(binding.arguments),
                "routing_key": binding.binding_key,
                "destination_kind": "exchange" if isinstance(destination, type(binding.source)) else "queue",
                "destination_name": destination.name,
                "source_kind": "exchange",
                "source_name": binding.source.name,
            },
        )

    # -- channels, consumers

    def channel_created(self, channel: Channel) -> None:
        """A channel was opened."""
        if not self.are_wanted:
            return
        connection = channel.connection
        self.tell(
            "channel.created",
            {
                "vhost": connection.vhost.name,
                "user": connection.user.name,
                "number": channel.number,
                "connection": connection.pid,
                "name": f"{connection.name} ({channel.number})",
                "pid": channel.pid,
            },
        )

    def channel_closed(self, channel: Channel) -> None:
        """A channel is closed."""
        self.tell("channel.closed", {BY: channel.connection.user.name, "pid": channel.pid})

    def consumer_created(self, consumer: Consumer) -> None:
        """A consumer began."""
        if not self.are_wanted:
            return
        self.tell(
            "consumer.created",
            {
                "arguments": terms(consumer.arguments),
                "prefetch_count": consumer.prefetch_count,
                "queue": consumer.queue.name,
                "vhost": consumer.queue.vhost_name,
                "channel": consumer.channel.pid,
                "ack_required": not consumer.no_ack,
                "exclusive": consumer.exclusive,
                "consumer_tag": consumer.tag,
            },
        )

    def consumer_deleted(self, consumer: Consumer) -> None:
        """A consumer ended: it was cancelled, or its queue or channel is gone."""
        if not self.are_wanted:
            return
        self.tell(
            "consumer.deleted",
            {
                "queue": consumer.queue.name,
                "vhost": consumer.queue.vhost_name,
                "channel": consumer.channel.pid,
                "consumer_tag": consumer.tag,
            },
        )

    # -- policies, parameters, limits

    def policy_changed(self, vhost_name: str, policy: Policy, is_set: bool, is_operators: bool) -> None:
        """A policy or an operator policy was set or cleared."""
        about = _policy(policy) if is_set else {}
        if is_operators:
            self.parameter_changed(vhost_name, "operator_policy", policy.name, about or None)
        key = "policy.set" if is_set else "operator.policy.cleared" if is_operators else "policy.cleared"
        self.tell(key, {**about, BY: self._turn.actor, "vhost": vhost_name, "name": policy.name})

    def parameter_changed(
        self, vhost_name: str | None, component: str, name: str, value: object | None
    ) -> None:
        """A runtime parameter was set, or cleared if there is no value; without a vhost a global one."""
        headers: dict[str, object] = {BY: self._turn.actor}
        if value is not None:
            headers["value"] = _plain(value)
        headers |= {"name": name, "component": component}
        if vhost_name is not None:
            headers["vhost"] = vhost_name
        self.tell("parameter.cleared" if value is None else "parameter.set", headers)

    def vhost_limits_changed(self, vhost_name: str, limits: dict[str, int]) -> None:
        """The limits of a vhost were set, or cleared if there are none."""
        self.parameter_changed(vhost_name, "vhost-limits", "limits", limits or None)
        key = "vhost.limits.set" if limits else "vhost.limits.cleared"
        self.tell(key, {**limits, BY: self._turn.actor, "name": "limits", "vhost": vhost_name})


def _encoded(headers: Mapping[str, object], now_ms: int) -> bytes | None:
    """Return the property list of an event; None if that cannot be."""
    try:
        table = {name: from_python(value) for name, value in headers.items()}
        raw = replace(headers=table, delivery_mode=PERSISTENT, timestamp=now_ms // 1000)
        Properties.parse(raw)
    except (ValueError, RecursionError, FieldSyntaxError):
        return None
    return raw


def terms(table: Table) -> list[str]:
    """Print the fields of a table as RabbitMQ's events do."""
    return [
        f"{{{binary_term(name.encode('utf-8', 'surrogateescape'))},{type_name(field)},{term(field)}}}"
        for name, field in table.items()
    ]


def _queue_type(queue: Queue) -> str:
    return f"rabbit_{queue.arguments.queue_type}_queue"


def _policy(policy: Policy) -> dict[str, object]:
    return {
        "apply-to": policy.apply_to,
        "priority": policy.priority,
        "definition": _plain(policy.definition),
        "pattern": policy.pattern,
    }


def _plain(value: object) -> object:
    """Return a JSON value with `null` as RabbitMQ tells it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return "null" if value is None else value
