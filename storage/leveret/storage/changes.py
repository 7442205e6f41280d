"""Changes of definitions as records: what comes and goes beside messages. HOT.

The model appends them to the open batch (batch.py), in the order in which it made them. Definitions are
vhosts, users, exchanges, queues, bindings and the like; among them go changes of a queue as a whole, such as
a purge.

Field tables (`arguments`) are AMQP-encoded bytes: the store keeps them and gives them back, and never looks
inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_QUEUE_ID: Final = (1 << 20) - 1
MAX_POSITION: Final = (1 << 43) - 1


@dataclass(frozen=True, slots=True)
class ExchangeDeclared:
    """A durable exchange exists from now on."""

    vhost: str
    name: str
    type: str
    auto_delete: bool
    internal: bool
    arguments: bytes


@dataclass(frozen=True, slots=True)
class ExchangeDeleted:
    """A durable exchange is gone. Its bindings are removed by records of their own."""

    vhost: str
    name: str


@dataclass(frozen=True, slots=True)
class QueueDeclared:
    """A durable queue exists from now on, under an id that no other queue has."""

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes


@dataclass(frozen=True, slots=True)
class ExchangeQueueDeclared:
    """A durable exchange keeps messages or keys of its own from now on, under the id of a queue.

    It is no queue otherwise. `QueueDeleted` ends it; that is also sent for an exchange that is not durable.
    """

    queue_id: int
    vhost: str
    exchange: str


@dataclass(frozen=True, slots=True)
class PriorityLevelDeclared:
    """A durable queue keeps the messages of a priority, not the lowest, under an id of their own from now on.

    `QueueDeleted` ends it; that is sent for each level of a queue that is deleted.
    """

    queue_id: int
    of: int  # queue id of the queue
    priority: int


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    """A queue is gone, with all its messages. Also sent for a transient queue that had spilled messages."""

    queue_id: int


@dataclass(frozen=True, slots=True)
class QueueDelivered:
    """Messages up to a position may have been delivered: after a restart they count as redelivered.

    Written with MAX_POSITION before the first delivery, and with the exact position when deliveries end.
    """

    queue_id: int
    up_to: int


@dataclass(frozen=True, slots=True)
class QueuePurged:
    """All messages with first <= position <= last are gone: `count` of them, `body_bytes` in all."""

    queue_id: int
    first: int
    last: int
    count: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class SegmentClosed:
    """Messages first <= position <= last of a stream are a segment: retention removes all of them or none."""

    queue_id: int
    first: int
    last: int
    body_bytes: int
    last_ms: int  # when the last one came


@dataclass(frozen=True, slots=True)
class SegmentRemoved:
    """The segment that ends with a position is gone. Its messages are removed by a record of their own."""

    queue_id: int
    last: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A binding between durable ends exists from now on."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool  # else to a queue
    binding_key: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class Unbound:
    """A binding between durable ends is gone."""

    vhost: str
    source: str
    destination: str
    to_exchange: bool
    binding_key: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class VHostAdded:
    """A vhost exists from now on."""

    name: str
    description: str
    tags: tuple[str, ...]
    default_queue_type: str  # empty for none


@dataclass(frozen=True, slots=True)
class VHostDeleted:
    """A vhost is gone, with its durable queues and their messages, exchanges, bindings, permissions and
    parameters. Messages of it are in no later part of the batch."""

    name: str


@dataclass(frozen=True, slots=True)
class UserSet:
    """A user exists from now on, like this."""

    name: str
    password_hash: str  # base64 of a salt of 4 bytes and the hash; empty if no password lets the user in
    hashing_algorithm: str
    tags: tuple[str, ...]
    limits: str  # a JSON object


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """A user is gone, with all permissions."""

    name: str


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """What names a user may configure, write to and read from in a vhost, as regular expressions."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class PermissionCleared:
    """A user may do nothing in a vhost any more."""

    user: str
    vhost: str


@dataclass(frozen=True, slots=True)
class TopicPermissionSet:
    """What routing keys a user may write, and what binding keys read, at a topic exchange."""

    user: str
    vhost: str
    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class TopicPermissionCleared:
    """A user's routing keys at an exchange are not restricted any more."""

    user: str
    vhost: str
    exchange: str


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """A policy, a limit or the like, as RabbitMQ's runtime parameters: a JSON value under a name."""

    vhost: str
    component: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ParameterCleared:
    """A parameter is gone."""

    vhost: str
    component: str
    name: str


AccessDefinition = (
    VHostAdded
    | VHostDeleted
    | UserSet
    | UserDeleted
    | PermissionSet
    | PermissionCleared
    | TopicPermissionSet
    | TopicPermissionCleared
    | ParameterSet
    | ParameterCleared
)

Definition = (
    AccessDefinition
    | ExchangeDeclared
    | ExchangeDeleted
    | ExchangeQueueDeclared
    | PriorityLevelDeclared
    | QueueDeclared
    | QueueDeleted
    | QueueDelivered
    | QueuePurged
    | SegmentClosed
    | SegmentRemoved
    | Bound
    | Unbound
)
