"""What one turn of the event loop gathers. HOT.

The server tells the model the time once a turn and feeds it events; the model changes memory and notes here
what is left to do: changes for the store, queues that may deliver, channels with confirms to send, dead
letters to route, messages to read back. The server does these at the end of the turn, or before an event that
could see the difference.
"""

from __future__ import annotations

from collections import deque
from heapq import heappush
from typing import TYPE_CHECKING, Final

from leveret.broker.model.events import INTERNAL, Events
from leveret.broker.model.queues.consumer_timeout import Watches
from leveret.storage.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.channel import Channel
    from leveret.broker.model.deduplication import Window
    from leveret.broker.model.exchanges.delay import Delay
    from leveret.broker.model.own_messages import OwnMessage
    from leveret.broker.model.queues.queue import Queue
    from leveret.protocol.content import Message
    from leveret.storage.changes import Definition

OWN_MESSAGES_MAX: Final = 100_000  # that wait to be routed; more are dropped


def min_chance(count: int) -> int:
    """Return 0: the chance of tests that do not ask for one."""
    return 0


class DeadLetter:
    """A message on its way from a queue to that queue's dead-letter exchange."""

    __slots__ = ("message", "queue", "reason", "time_ms")

    def __init__(self, queue: Queue, message: Message, reason: str, time_ms: int) -> None:
        self.queue = queue
        self.message = message
        self.reason = reason
        self.time_ms = time_ms


class Load:
    """Messages to read back: after < position <= up_to, `limit` and about `max_bytes` at most."""

    __slots__ = ("after", "generation", "limit", "max_bytes", "queue_id", "up_to")

    def __init__(
        self, queue_id: int, generation: int, after: int, up_to: int, limit: int, max_bytes: int
    ) -> None:
        self.queue_id = queue_id  # that the store has them under
        self.generation = generation  # comes back with the answer
        self.after = after
        self.up_to = up_to
        self.limit = limit
        self.max_bytes = max_bytes


class Turn:
    """The open batch and the lists of what is left to do.

    Args:
        now_ms: the time.
        chance: returns some number from 0 up to, and without, the one it is given. It may be guessed.
    """

    __slots__ = (
        "_armed",
        "actor",
        "batch",
        "chance",
        "confirming",
        "dead_letters",
        "deadlines",
        "delay_loads",
        "delays",
        "due",
        "durable",
        "events",
        "expires_at_head_only",
        "last_definition_batch",
        "levels",
        "load_generation",
        "loads",
        "memory_bytes",
        "nacks_count",
        "now_ms",
        "own_messages",
        "own_messages_dropped",
        "released",
        "touched",
        "trusts_x_death",
        "unwritten_bytes",
        "watches",
        "windows",
        "writing_delays",
    )

    def __init__(self, now_ms: int, chance: Callable[[int], int] = min_chance) -> None:
        self.now_ms = now_ms  # wall-clock milliseconds that never jump
        self.chance = chance
        self.batch: Batch = Batch(1)
        self.nacks_count: bool = True  # basic.nack counts towards delivery limits
        self.expires_at_head_only: bool = False  # a message waits for those before it, though it is due
        self.trusts_x_death: bool = False  # what a client publishes as x-death is history
        self.durable: int = 0  # number of the last batch known to be on stable storage
        self.touched: dict[Queue, None] = {}  # queues that may have something to deliver, in order
        self.confirming: dict[Channel, None] = {}  # channels with publishes to confirm
        self.dead_letters: deque[DeadLetter] = deque()
        self.actor: str = INTERNAL  # who does what is done now: a user, or the broker; for events
        self.events: Events = Events(self)
        self.own_messages: deque[OwnMessage] = deque()  # that the broker itself publishes
        self.own_messages_dropped: int = 0  # for want of room, since somebody looked
        self.load_generation: int = 0  # highest given to a queue
        self.loads: dict[Queue, None] = {}  # queues whose next messages are to be read back
        self.delays: dict[int, Delay] = {}  # by queue id
        self.delay_loads: dict[Delay, None] = {}  # those whose next messages are to be read back
        self.writing_delays: dict[Delay, None] = {}  # those with messages that are not yet durable
        self.released: Message | None = None  # that has waited in an exchange, and is being routed
        self.levels: dict[int, Queue] = {}  # queues with priorities, by the ids of all levels but the lowest
        self.watches: Watches = Watches()  # channels with a timeout for acks
        self.windows: dict[int, Window] = {}  # keys of deduplication, by queue id
        self.due: list[tuple[int, int]] = []  # heap: when to look at a delay (ms), its queue id
        self.deadlines: list[
            tuple[int, int, Queue]
        ] = []  # heap: when to look at a queue's expiry (ms), a number, it
        self._armed: int = 0
        self.last_definition_batch: int = (
            0  # number of the last batch that declares, binds or deletes something
        )
        self.unwritten_bytes: int = 0  # bodies in the open batch, about
        self.memory_bytes: int = 0  # estimate of what messages take, over all queues

    def arm(self, at_ms: int, queue: Queue) -> None:
        """Have a queue's deadlines looked at."""
        self._armed += 1
        heappush(self.deadlines, (at_ms, self._armed, queue))

    def publish_own(self, message: OwnMessage) -> None:
        """Have a message of the broker itself routed; also from another thread, if that wakes the server."""
        if len(self.own_messages) < OWN_MESSAGES_MAX:
            self.own_messages.append(message)
        else:
            self.own_messages_dropped += 1

    def define(self, record: Definition) -> None:
        """Add a change of the definitions, whose reply waits until it is durable."""
        self.batch.definitions.append(record)
        self.last_definition_batch = self.batch.number

    def close_batch(self) -> Batch:
        """Return the open batch and begin the next one."""
        batch = self.batch
        self.batch = Batch(batch.number + 1, batch.epoch)
        self.unwritten_bytes = 0
        return batch
