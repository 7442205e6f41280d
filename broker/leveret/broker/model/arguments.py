"""The x-arguments of queues and consumers: checked once, with RabbitMQ's words, and made into typed values.

A check gives back the detail of RabbitMQ's error text, or None if there is nothing to say. `_CHECKS` lists
them in the order in which RabbitMQ looks at the arguments, the tuples of names in the order in which it
compares them when a queue is declared again: the first thing wrong is the one that is reported. Arguments
that nobody knows are kept, shown, and never checked or compared.

Source: RabbitMQ guide "Queues", optional arguments; texts and order as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from leveret.broker.model.equivalence import inequivalent, same_argument
from leveret.broker.model.queues.returned import (
    EXPONENTIAL,
    LINEAR,
    RETRY_TYPES,
    X_RETRY_BACKOFF,
    X_RETRY_JITTER,
    X_RETRY_MAX,
    X_RETRY_MIN,
    X_RETRY_TYPE,
    Retry,
    retry_of,
)
from leveret.broker.model.streams.stream_arguments import (
    X_STREAM_FILTER,
    X_STREAM_MATCH_UNFILTERED,
    X_STREAM_OFFSET,
    duration_ms,
)
from leveret.broker.model.terms import resource_name, shown, string_term, type_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import INTEGER_TAGS, Field, Table, boolean, from_python, integer, longstr

if TYPE_CHECKING:
    from collections.abc import Callable

GENERATED: Final = "amq.gen"  # what names begin with that the server makes up for queues
NAME_PREFIX_BYTES_MAX: Final = 64
TTL_MAX_MS: Final = 315_360_000_000  # ten years
PRIORITY_MAX: Final = 255
PERCENT_MAX: Final = 100

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"

DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"

SEGMENT_BYTES: Final = 500_000_000  # of a stream that does not set it
SEGMENT_BYTES_MAX: Final = 3_000_000_000
FILTER_BYTES: Final = range(16, 256)  # that a filter of RabbitMQ's may have

QUORUM_DELIVERY_LIMIT: Final = 20  # of a quorum queue that does not set one

X_QUEUE_TYPE: Final = "x-queue-type"
X_NAME_PREFIX: Final = "x-name-prefix"
ALTERNATE_EXCHANGE: Final = "alternate-exchange"  # of exchanges, and a policy key
X_DEAD_LETTER_EXCHANGE: Final = "x-dead-letter-exchange"
X_PRIORITY: Final = "x-priority"
X_MAX_AGE: Final = "x-max-age"
X_SEGMENT_BYTES: Final = "x-stream-max-segment-size-bytes"
X_FILTER_BYTES: Final = "x-stream-filter-size-bytes"
X_CONSUMER_TIMEOUT: Final = "x-consumer-timeout"
X_DELIVERY_LIMIT: Final = "x-delivery-limit"
X_TARGET_GROUP_SIZE: Final = "x-quorum-target-group-size"

_QUEUE_TYPES: Final = {
    CLASSIC: "rabbit_classic_queue",
    QUORUM: "rabbit_quorum_queue",
    STREAM: "rabbit_stream_queue",
}  # x-queue-type -> how error texts call it

_RETRY: Final = (X_RETRY_TYPE, X_RETRY_MIN, X_RETRY_MAX, X_RETRY_BACKOFF, X_RETRY_JITTER)

_COMPARED: Final[dict[str, tuple[str, ...]]] = {
    CLASSIC: (
        "x-expires",
        "x-message-ttl",
        X_DEAD_LETTER_EXCHANGE,
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        X_QUEUE_TYPE,
        "x-queue-master-locator",
        "x-queue-leader-locator",
        X_DELIVERY_LIMIT,  # RabbitMQ has this and the next for quorum queues only
        *_RETRY,
    ),
    QUORUM: (
        X_DEAD_LETTER_EXCHANGE,
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-overflow",
        "x-single-active-consumer",
        X_QUEUE_TYPE,
        "x-quorum-initial-group-size",
        X_DELIVERY_LIMIT,
        "x-message-ttl",
        "x-queue-leader-locator",
        X_TARGET_GROUP_SIZE,
        *_RETRY,
    ),
    STREAM: (
        "x-max-length-bytes",
        X_QUEUE_TYPE,
        X_MAX_AGE,
        X_SEGMENT_BYTES,
        X_FILTER_BYTES,
        "x-initial-cluster-size",
        "x-queue-leader-locator",
    ),
}  # queue type -> arguments it has

_KNOWN: Final = frozenset(name for names in _COMPARED.values() for name in names)

Check: TypeAlias = "Callable[[Field, Table], str | None]"


@dataclass(frozen=True, slots=True)
class QueueArguments:
    """What the x-arguments of a queue mean; None stands for "not set".

    An `x-queue-mode`, a locator and the like are checked and kept in `table`, and mean nothing here.
    """

    table: Table  # as received, for showing and comparing
    queue_type: str = CLASSIC
    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int | None = None
    single_active_consumer: bool = False
    delivery_limit: int | None = None
    retry: Retry | None = None
    counts_returns: bool = False  # messages that came back tell how often they did
    consumer_timeout_ms: int | None = None
    max_age_ms: int | None = None  # of a stream, and so is the next one
    segment_bytes: int = SEGMENT_BYTES

    @staticmethod
    def from_table(
        name: str,
        vhost_name: str,
        table: Table,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
    ) -> QueueArguments:
        """Check the arguments of a queue that is to be created.

        Raises:
            PreconditionFailed: an argument is wrong, or the type of queue cannot have it or one of the flags.
        """
        resource = resource_name("queue", name, vhost_name)
        queue_type = _type_of(table)
        check_exchange_argument(resource, X_DEAD_LETTER_EXCHANGE, table.get(X_DEAD_LETTER_EXCHANGE))
        _check(resource, table, _TYPE_CHECK)
        _check_known(resource, table, queue_type)
        _check(resource, table, _CHECKS)
        if queue_type == STREAM:
            _check_sizes(table)
        if queue_type in (QUORUM, STREAM):
            _check_flags(resource, durable, exclusive, auto_delete)
        return QueueArguments.of_valid(table, table)

    @staticmethod
    def of_valid(table: Table, effective: Table) -> QueueArguments:
        """Read arguments that have been checked.

        Args:
            table: as received, for showing and comparing.
            effective: the same with those of the policies of the queue.
        """
        queue_type = _type_of(table)
        delivery_limit = integer(effective, X_DELIVERY_LIMIT)
        retry = retry_of(effective)
        counts_returns = queue_type == QUORUM or retry is not None or delivery_limit is not None
        if delivery_limit is None and queue_type == QUORUM:
            delivery_limit = QUORUM_DELIVERY_LIMIT
        segment_bytes = integer(effective, X_SEGMENT_BYTES)
        return QueueArguments(
            table,
            queue_type,
            message_ttl_ms=integer(effective, "x-message-ttl"),
            expires_ms=integer(effective, "x-expires"),
            max_length=integer(effective, "x-max-length"),
            max_length_bytes=integer(effective, "x-max-length-bytes"),
            overflow=_overflow(longstr(effective, "x-overflow"), queue_type),
            dead_letter_exchange=longstr(effective, X_DEAD_LETTER_EXCHANGE),
            dead_letter_routing_key=longstr(effective, "x-dead-letter-routing-key"),
            max_priority=integer(effective, "x-max-priority") or None,
            single_active_consumer=boolean(effective, "x-single-active-consumer") or False,
            delivery_limit=None if delivery_limit is None or delivery_limit < 0 else delivery_limit,
            retry=retry,
            counts_returns=counts_returns and queue_type != STREAM,
            consumer_timeout_ms=integer(effective, X_CONSUMER_TIMEOUT),
            max_age_ms=duration_ms(longstr(effective, X_MAX_AGE) or ""),
            segment_bytes=SEGMENT_BYTES if segment_bytes is None else segment_bytes,
        )

    @staticmethod
    def refuse_server_name(table: Table) -> None:
        """Refuse to make up a name for a type of queue that must be given one.

        Raises:
            PreconditionFailed: the arguments ask for such a type.
        """
        queue_type = _type_of(table)
        if queue_type in (QUORUM, STREAM):
            raise PreconditionFailed(
                f"Cannot declare a server-named queue for type {_QUEUE_TYPES[queue_type]}"
            )


def take_name_prefix(table: Table) -> tuple[str, Table]:
    """Return what the name that the server makes up for a queue begins with, and the other arguments.

    Raises:
        PreconditionFailed: it is too long.

    Source: RabbitMQ 4.x, `x-name-prefix`.
    """
    prefix = longstr(table, X_NAME_PREFIX)
    if prefix is None:
        return GENERATED, table
    if len(prefix.encode("utf-8", "surrogateescape")) > NAME_PREFIX_BYTES_MAX:
        raise PreconditionFailed(
            f"Queue name prefix '{prefix}' exceeds the {NAME_PREFIX_BYTES_MAX}-byte limit"
        )
    return prefix, {name: field for name, field in table.items() if name != X_NAME_PREFIX}


def check_consumer_arguments(
    queue_name: str, vhost_name: str, table: Table, queue_type: str = CLASSIC
) -> int:
    """Check the arguments of a consumer.

    Returns:
        its priority.

    Raises:
        PreconditionFailed: an argument is wrong, or this type of queue cannot have it.

    Source: AMQP 0-9-1 basic.consume (60, 20); RabbitMQ guide "Consumer Priorities".
    """
    resource = resource_name("queue", queue_name, vhost_name)
    _check(resource, table, _CONSUMER_CHECKS)
    for name in table:
        if name in _CONSUMED_BY and queue_type not in _CONSUMED_BY[name]:
            raise _not_of_this_type(resource, name, queue_type)
    return integer(table, X_PRIORITY) or 0


_CONSUMED_BY: Final[dict[str, tuple[str, ...]]] = {
    "x-cancel-on-ha-failover": (CLASSIC,),
    X_PRIORITY: (CLASSIC, QUORUM),
    X_STREAM_OFFSET: (STREAM,),
    X_STREAM_FILTER: (STREAM,),
    X_STREAM_MATCH_UNFILTERED: (STREAM,),
}  # argument of a consumer -> types of queue that have it


class DeclaredQueue(Protocol):
    """A queue that exists, as far as its declaration goes."""

    @property
    def name(self) -> str:
        """Its name in its vhost."""

    @property
    def vhost_name(self) -> str:
        """Name of its vhost."""

    @property
    def durable(self) -> bool:
        """Whether it survives a restart."""

    @property
    def auto_delete(self) -> bool:
        """Whether it is deleted with its last consumer."""

    @property
    def arguments(self) -> QueueArguments:
        """Its arguments."""


def check_equivalent_queue(queue: DeclaredQueue, durable: bool, auto_delete: bool, received: Table) -> None:
    """Compare a queue with another declaration of it. Whose it is, if exclusive, is checked before.

    Raises:
        PreconditionFailed: a flag or an argument differs.

    Source: RabbitMQ guide "Queues", property equivalence.
    """
    resource = resource_name("queue", queue.name, queue.vhost_name)
    _check_same_flag(resource, "durable", durable, queue.durable)
    _check_same_flag(resource, "auto_delete", auto_delete, queue.auto_delete)
    current = queue.arguments
    for name in _COMPARED[current.queue_type]:
        if name == X_QUEUE_TYPE and _type_of(received) == current.queue_type:
            continue
        theirs, ours = received.get(name), current.table.get(name)
        if not same_argument(theirs, ours):
            raise inequivalent(resource, name, theirs, ours)


def check_exchange_argument(resource: str, name: str, field: Field | None) -> None:
    """Check an argument that names an exchange, which need not exist.

    Raises:
        PreconditionFailed: it is not a string.
    """
    if field is not None and field.tag != "S":
        raise PreconditionFailed(f"invalid type '{type_name(field)}' for arg '{name}' in {resource}")


def _check_same_flag(resource: str, name: str, received: bool, current: bool) -> None:
    if received != current:
        raise inequivalent(resource, name, from_python(received), from_python(current))


def _type_of(table: Table) -> str:
    """Type of queue that the arguments ask for, which need not exist."""
    field = table.get(X_QUEUE_TYPE)
    if field is None:
        return CLASSIC
    queue_type = shown(field)
    return CLASSIC if field.tag == "S" and queue_type in ("", "undefined") else queue_type


def _overflow(overflow: str | None, queue_type: str) -> str:
    if overflow is None or (overflow == REJECT_PUBLISH_DLX and queue_type == QUORUM):
        return DROP_HEAD
    return overflow


def _check(resource: str, table: Table, checks: dict[str, Check]) -> None:
    for name, check in checks.items():
        field = table.get(name)
        if field is not None:
            detail = check(field, table)
            if detail is not None:
                raise PreconditionFailed(f"invalid arg '{name}' for {resource}: {detail}")


def _check_known(resource: str, table: Table, queue_type: str) -> None:
    """Refuse the first argument that other types of queue have and this one has not."""
    own = _COMPARED[queue_type]
    for name in table:
        if name in _KNOWN and name not in own:
            raise _not_of_this_type(resource, name, queue_type)


def _not_of_this_type(resource: str, name: str, queue_type: str) -> PreconditionFailed:
    return PreconditionFailed(f"invalid arg '{name}' for {resource} of queue type {_QUEUE_TYPES[queue_type]}")


def _check_sizes(table: Table) -> None:
    """Check two arguments of streams for which RabbitMQ has a text of its own."""
    segment_bytes = integer(table, X_SEGMENT_BYTES)
    if segment_bytes is not None and segment_bytes > SEGMENT_BYTES_MAX:
        raise PreconditionFailed(f"Exceeded max value for {X_SEGMENT_BYTES}")
    if X_FILTER_BYTES in table:
        filter_bytes = integer(table, X_FILTER_BYTES)
        if filter_bytes is None:
            raise PreconditionFailed(f"Invalid type for {X_FILTER_BYTES}")
        if filter_bytes not in FILTER_BYTES:
            raise PreconditionFailed(f"Invalid value for {X_FILTER_BYTES}")


def _check_flags(resource: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """Refuse flags that only classic queues can have."""
    for is_wrong, flag in (
        (auto_delete, "auto-delete"),
        (exclusive, "exclusive-owner"),
        (not durable, "non-durable"),
    ):
        if is_wrong:
            raise PreconditionFailed(f"invalid property '{flag}' for {resource}")


def _unacceptable(field: Field) -> str:
    return f"{{unacceptable_type,{type_name(field)}}}"


def _integer(field: Field, table: Table) -> str | None:
    return None if field.tag in INTEGER_TAGS else f'"expected integer, got {type_name(field)}"'


def _not_negative(field: Field, table: Table) -> str | None:
    detail = _integer(field, table)
    if detail is None and cast("int", field.value) < 0:
        return f"{{value_negative,{field.value}}}"
    return detail


def _positive(field: Field, table: Table) -> str | None:
    detail = _not_negative(field, table)
    return "{value_zero,0}" if detail is None and field.value == 0 else detail


def _ttl(field: Field, table: Table) -> str | None:
    detail = _not_negative(field, table)
    if detail is None and cast("int", field.value) > TTL_MAX_MS:
        return f"{{value_too_large,{field.value}}}"
    return detail


def _expires(field: Field, table: Table) -> str | None:
    return _positive(field, table) or _ttl(field, table)


def _max_priority(field: Field, table: Table) -> str | None:
    detail = _not_negative(field, table)
    if detail is None and cast("int", field.value) > PRIORITY_MAX:
        return f"{{max_value_exceeded,{field.value}}}"
    return detail


def _percent(field: Field, table: Table) -> str | None:
    detail = _not_negative(field, table)
    if detail is None and cast("int", field.value) > PERCENT_MAX:
        return f"{{max_value_exceeded,{field.value}}}"
    return detail


def _string(field: Field, table: Table) -> str | None:
    return None if field.tag == "S" else _unacceptable(field)


def _bool(field: Field, table: Table) -> str | None:
    return None if field.tag == "t" else _unacceptable(field)


def _dead_letter_routing_key(field: Field, table: Table) -> str | None:
    detail = _string(field, table)
    return (
        "routing_key_but_no_dlx_defined" if detail is None and X_DEAD_LETTER_EXCHANGE not in table else detail
    )


def _max_age(field: Field, table: Table) -> str | None:
    detail = _string(field, table)
    if detail is None and duration_ms(shown(field)) is None:
        return "invalid_max_age"
    return detail


def _queue_type(field: Field, table: Table) -> str | None:
    detail = _string(field, table)
    if detail is None and _type_of(table) not in _QUEUE_TYPES:
        return string_term(b"unsupported queue type '" + cast("bytes", field.value) + b"'")
    return detail


def _queue_mode(field: Field, table: Table) -> str | None:
    detail = _string(field, table)
    if detail is None and field.value not in (b"default", b"lazy"):
        return string_term(b"unsupported queue mode '" + cast("bytes", field.value) + b"'")
    return detail


def _queue_version(field: Field, table: Table) -> str | None:
    detail = _not_negative(field, table)
    return (
        f"\"unsupported queue version '{field.value}'\""
        if detail is None and field.value not in (1, 2)
        else detail
    )


def _one_of(words: tuple[bytes, ...], otherwise: str) -> Check:
    def check(field: Field, table: Table) -> str | None:
        detail = _string(field, table)
        return otherwise if detail is None and field.value not in words else detail

    return check


_TYPE_CHECK: Final[dict[str, Check]] = {X_QUEUE_TYPE: _queue_type}

_CHECKS: Final[dict[str, Check]] = {
    "x-expires": _expires,
    "x-message-ttl": _ttl,
    "x-dead-letter-routing-key": _dead_letter_routing_key,
    "x-dead-letter-strategy": _one_of((b"at-most-once", b"at-least-once"), "invalid_dlx_strategy"),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _max_priority,
    "x-overflow": _one_of((b"drop-head", b"reject-publish", b"reject-publish-dlx"), "invalid_overflow"),
    "x-queue-mode": _queue_mode,
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _bool,
    "x-quorum-initial-group-size": _positive,
    "x-queue-leader-locator": _one_of((b"client-local", b"balanced"), "invalid_queue_locator_arg"),
    X_MAX_AGE: _max_age,
    X_SEGMENT_BYTES: _not_negative,
    "x-initial-cluster-size": _positive,
    X_CONSUMER_TIMEOUT: _not_negative,
    X_TARGET_GROUP_SIZE: _positive,
    X_RETRY_TYPE: _one_of(tuple(word.encode() for word in RETRY_TYPES), "invalid_delayed_retry_type"),
    X_RETRY_MIN: _ttl,
    X_RETRY_MAX: _ttl,
    X_RETRY_BACKOFF: _one_of((LINEAR.encode(), EXPONENTIAL.encode()), "invalid_delayed_retry_backoff"),
    X_RETRY_JITTER: _percent,
}

_CONSUMER_CHECKS: Final[dict[str, Check]] = {
    X_PRIORITY: _integer,
    "x-cancel-on-ha-failover": _bool,
    X_CONSUMER_TIMEOUT: _not_negative,
}
