"""What a store gives back: all but the messages as a `Snapshot` at start, messages when they are needed. HOT.

Definitions come back as the records that made them (changes.py); only queues, and what is stored like one,
have classes of their own here, with what the store knows of their messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.storage.batch import Returned
    from leveret.storage.changes import (
        Bound,
        ExchangeDeclared,
        ParameterSet,
        PermissionSet,
        SegmentClosed,
        TopicPermissionSet,
        UserSet,
        VHostAdded,
    )


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A durable queue as found at start."""

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes
    delivered_up_to: int  # messages up to this position may have been delivered (`QueueDelivered`); 0 if none
    messages: int
    body_bytes: int
    first_position: int  # of a waiting message; 1 if there is none
    last_position: int  # of a waiting message; 0 if there is none
    first_expires: bool = False  # the message at the first position has a deadline; true in streams


@dataclass(frozen=True, slots=True)
class StoredExchangeQueue:
    """What a durable exchange keeps, as found at start."""

    queue_id: int
    vhost: str
    exchange: str
    messages: int  # that wait for their time
    body_bytes: int
    last_position: int  # of them; 0 if there is none


@dataclass(frozen=True, slots=True)
class StoredPriorityLevel:
    """What a durable queue keeps with one priority, as found at start; see `StoredQueue`."""

    queue_id: int
    of: int
    priority: int
    delivered_up_to: int
    messages: int
    body_bytes: int
    first_position: int
    last_position: int
    first_expires: bool = False


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """Up to which position a consumer has read a stream, as found at start."""

    queue_id: int
    consumer_tag: str
    position: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of deduplication, as found at start."""

    queue_id: int
    key: bytes
    expires_at_ms: int  # `NEVER`


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a restart begins with. Messages stay in the store until they are read."""

    exchanges: list[ExchangeDeclared]
    queues: list[StoredQueue]
    bindings: list[Bound]
    vhosts: list[VHostAdded] = field(default_factory=list)
    users: list[UserSet] = field(default_factory=list)
    permissions: list[PermissionSet] = field(default_factory=list)
    topic_permissions: list[TopicPermissionSet] = field(default_factory=list)
    parameters: list[ParameterSet] = field(default_factory=list)
    exchange_queues: list[StoredExchangeQueue] = field(default_factory=list)
    keys: list[StoredKey] = field(default_factory=list)  # oldest first
    segments: list[SegmentClosed] = field(default_factory=list)  # of streams; those of one in their order
    offsets: list[StoredOffset] = field(default_factory=list)
    priority_levels: list[StoredPriorityLevel] = field(default_factory=list)


class StoredMessage:
    """One waiting message read back.

    No named tuple: a compiled class is made, and looked at, several times as fast.
    """

    __slots__ = (
        "body",
        "dead_lettered",
        "exchange",
        "expires_at_ms",
        "persistent",
        "position",
        "properties",
        "returned",
        "routing_key",
    )

    def __init__(
        self,
        position: int,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        persistent: bool,
        dead_lettered: bool,
        expires_at_ms: int | None,
        returned: Returned | None = None,
    ) -> None:
        self.position = position
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.persistent = persistent
        self.dead_lettered = dead_lettered
        self.expires_at_ms = expires_at_ms  # in a stream: when it came
        self.returned = returned  # if it came back

    @property
    def body_bytes(self) -> int:
        """Length of the body."""
        return len(self.body)

    @property
    def last_position(self) -> int:
        """Its position."""
        return self.position

    def messages(self) -> list[StoredMessage]:
        """Return it as a list."""
        return [self]

    def _values(self) -> tuple[object, ...]:
        return (
            self.position,
            self.exchange,
            self.routing_key,
            self.properties,
            self.body,
            self.persistent,
            self.dead_lettered,
            self.expires_at_ms,
            self.returned,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredMessage) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"StoredMessage{self._values()!r}"


class StoredRun:
    """Waiting messages at consecutive positions that differ in nothing but their bodies, read back.

    They are persistent, have no deadline, were not dead-lettered by the broker and did not come back from a
    consumer.

    Args:
        position: of the first.
    """

    __slots__ = ("bodies", "body_bytes", "exchange", "position", "properties", "routing_key")

    def __init__(self, position: int, exchange: str, routing_key: str, properties: bytes) -> None:
        self.position = position
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.bodies: list[bytes] = []
        self.body_bytes: int = 0  # of all of them

    @property
    def last_position(self) -> int:
        """The position of the last."""
        return self.position + len(self.bodies) - 1

    def messages(self) -> list[StoredMessage]:
        """Return them one by one."""
        return [
            StoredMessage(
                self.position + index,
                self.exchange,
                self.routing_key,
                self.properties,
                body,
                persistent=True,
                dead_lettered=False,
                expires_at_ms=None,
            )
            for index, body in enumerate(self.bodies)
        ]


Stored = StoredMessage | StoredRun


def each_of(stored: list[Stored]) -> list[StoredMessage]:
    """Return messages that were read back one by one."""
    return [message for some in stored for message in some.messages()]
