"""What there is in a broker: messages, queues, exchanges, channels. What they do is in `reference.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

REJECTED, EXPIRED, MAXLEN = "rejected", "expired", "maxlen"  # why a message dies


class Refused(Exception):
    """What a channel asked for closes it with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


# -- messages


class Death(NamedTuple):
    """A line of x-death: where, why and how often a message died."""

    queue: str
    reason: str
    times: int
    exchange: str
    keys: tuple[str, ...]
    time_s: int
    expiration: str | None


@dataclass(eq=False)
class Message:
    """What was published, and what became of it since."""

    body: bytes
    persistent: bool = False
    ttl_ms: int | None = None  # its expiration property
    priority: int = 0
    cc: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    exchange: str = ""
    key: str = ""
    deaths: tuple[Death, ...] = ()  # the latest first
    first_death: tuple[str, str, str] | None = None  # queue, reason, exchange
    last_death: tuple[str, str, str] | None = None
    cc_is_spent: bool = False  # it was dead-lettered with a key of the queue's

    @property
    def keys(self) -> tuple[str, ...]:
        """What it is routed by: each key once."""
        return tuple(dict.fromkeys((self.key, *(() if self.cc_is_spent else self.cc))))


@dataclass(eq=False)
class Entry:
    """A message in a queue."""

    message: Message
    position: int
    deadline_ms: int | None  # when it expires
    redelivered: bool | None = False  # None: nobody knows, because the broker crashed
    consumer: Consumer | None = None  # who has it


# -- what there is


@dataclass(frozen=True)
class QueueRules:
    """How a queue is declared."""

    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = "drop-head"
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    single_active: bool = False
    max_priority: int = 0

    @property
    def survives(self) -> bool:
        """Whether it is there after a restart."""
        return self.durable and not self.exclusive


@dataclass(eq=False)
class Queue:
    """Messages that wait, and who gets them.

    The message of the highest priority is at the head, and of those the oldest.
    """

    name: str
    rules: QueueRules
    owner: Connection | None
    used_ms: int
    ready: list[Entry] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)  # whose turn is next first
    active: Consumer | None = None  # the single active one
    positions: int = 0
    is_deleted: bool = False

    def is_over(self, messages: int = 0, size: int = 0) -> bool:
        """Whether it would have more than it may with so much more in it. Unacked messages do not count."""
        rules = self.rules
        bytes_ready = sum(len(entry.message.body) for entry in self.ready)
        return (rules.max_length is not None and len(self.ready) + messages > rules.max_length) or (
            rules.max_bytes is not None and bytes_ready + size > rules.max_bytes
        )

    def taker(self) -> Consumer | None:
        """Who gets the next message: of the highest priority that has room, the one who waited longest."""
        if self.rules.single_active:
            return self.active if self.active is not None and self.active.has_room else None
        with_room = [consumer for consumer in self.consumers if consumer.has_room]
        return max(with_room, key=lambda consumer: consumer.priority, default=None)

    def put_back(self, entries: list[Entry]) -> None:
        """Queue messages again where they were; they keep their deadlines."""
        for entry in entries:
            entry.redelivered = True
            entry.consumer = None
        self.insert(*entries)

    def insert(self, *entries: Entry) -> None:
        """Put messages into their places."""
        self.ready.extend(entries)
        self.ready.sort(key=lambda entry: (-self.level(entry.message), entry.position))

    def level(self, message: Message) -> int:
        """Which priority a message has here."""
        return min(message.priority, self.rules.max_priority)


@dataclass(eq=False)
class Consumer:
    """Somebody who wants the messages of a queue."""

    tag: str
    queue: Queue
    channel: Channel
    no_ack: bool
    exclusive: bool
    priority: int
    prefetch: int  # 0: no limit

    @property
    def unacked(self) -> int:
        """How many messages it has."""
        return sum(entry.consumer is self for _, entry in self.channel.outstanding.values())

    @property
    def has_room(self) -> bool:
        """Whether it may have one more: its own limit and that of its channel hold together.

        What is delivered without acks counts for neither, and yet it waits while the channel's is reached.
        """
        shared = self.channel.global_prefetch
        if shared and self.channel.consumers_unacked >= shared:
            return False
        return self.no_ack or not self.prefetch or self.unacked < self.prefetch


class Binding(NamedTuple):
    """Part of a set: the same binding is there once."""

    source: str
    to_exchange: bool
    destination: str
    key: str = ""
    arguments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Exchange:
    """Where messages are published to."""

    name: str
    type: str
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    alternate: str | None = None

    def matches(self, binding: Binding, keys: tuple[str, ...], headers: dict[str, str]) -> bool:
        """Whether a message goes along one of its bindings."""
        match self.type:
            case "fanout":
                return True
            case "direct":
                return binding.key in keys
            case "topic":
                return any(topic_matches(binding.key, key) for key in keys)
        wanted = dict(binding.arguments)
        matches_any = wanted.pop("x-match", "all") == "any"
        found = [headers.get(name) == value for name, value in wanted.items()]
        return any(found) if matches_any else all(found)


def topic_matches(pattern: str, key: str) -> bool:
    """Whether a routing key fits a binding key: `*` is a word, `#` any number of them."""
    return _words_match(pattern.split(".") if pattern else [], key.split(".") if key else [])


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])


# -- who talks to the broker


class Delivered(NamedTuple):
    """basic.deliver."""

    consumer_tag: str
    delivery_tag: int
    entry: Entry
    redelivered: bool | None


class Returned(NamedTuple):
    """basic.return."""

    message: Message


class Confirmed(NamedTuple):
    """basic.ack or basic.nack of a publish."""

    number: int
    is_accepted: bool


class Cancelled(NamedTuple):
    """basic.cancel: the queue of a consumer is gone."""

    consumer_tag: str


Sent = Delivered | Returned | Confirmed | Cancelled


class Settlement(NamedTuple):
    """Messages that are acked, requeued or rejected together."""

    entries: dict[int, tuple[Queue, Entry]]  # by delivery tag
    how: str  # "ack", "requeue" or "reject"


@dataclass(eq=False)
class Transaction:
    """What waits for tx.commit."""

    publishes: list[tuple[Message, list[Queue], bool]] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)


@dataclass(eq=False)
class Channel:
    """One channel of a connection."""

    connection: Connection
    unacked: dict[int, tuple[Queue, Entry]] = field(default_factory=dict)  # by delivery tag
    consumers: dict[str, Consumer] = field(default_factory=dict)  # by consumer tag
    delivery_tags: int = 0
    prefetch: int = 0  # of consumers to come
    global_prefetch: int = 0  # of all consumers together
    confirms: bool = False
    published: int = 0  # since confirm.select
    transaction: Transaction | None = None
    outbox: list[Sent] = field(default_factory=list)

    @property
    def outstanding(self) -> dict[int, tuple[Queue, Entry]]:
        """What is not settled for good: a transaction may still be rolled back."""
        held = self.transaction.settlements if self.transaction is not None else []
        return {**self.unacked, **{tag: it for each in held for tag, it in each.entries.items()}}

    @property
    def consumers_unacked(self) -> int:
        """How many messages its consumers have, basic.get left out."""
        return sum(entry.consumer is not None for _, entry in self.outstanding.values())

    def next_tag(self) -> int:
        """Count one more delivery."""
        self.delivery_tags += 1
        return self.delivery_tags

    def take(self, tag: int, multiple: bool) -> dict[int, tuple[Queue, Entry]]:
        """Take what is unacked out: one, or with `multiple` all up to it, or with tag 0 all there is."""
        if tag not in self.unacked and not (multiple and tag == 0):
            raise Refused(406)
        tags = [each for each in sorted(self.unacked) if tag == 0 or each <= tag] if multiple else [tag]
        return {each: self.unacked.pop(each) for each in tags}


@dataclass(eq=False)
class Connection:
    """One connection."""

    channels: list[Channel] = field(default_factory=list)

    def open(self) -> Channel:
        """Open a channel."""
        channel = Channel(self)
        self.channels.append(channel)
        return channel
