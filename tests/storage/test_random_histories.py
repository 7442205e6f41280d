"""Whatever a broker does, and wherever it stops: a store has what a plain dictionary would have."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import PriorityLevelDeclared, QueueDelivered
from leveret.storage.stored import Snapshot, StoredMessage, StoredPriorityLevel, StoredQueue

from .engines import (
    Content,
    Engine,
    MemoryEngine,
    SqliteEngine,
    declared,
    everything,
    fast_directory,
    with_returned,
)

LEVELS = {3: (1, 9), 4: (1, 2)}  # queue id of a level -> of which queue, of which priority
QUEUE_IDS = (1, 2, 5, *LEVELS)
PARTS = [b"", b"text", b"\x00\xff", "é".encode(), b"x" * 300]
NAMES = ["", "orders", b"caf\xe9".decode("utf-8", "surrogateescape")]

FREQUENT = ["enqueue", "settle", "apply"]
KINDS = [
    "declare",
    "delete",
    "spill",
    "settle-some",
    "purge",
    "delivered",
    "return",
    "restart",
    "crash",
    *FREQUENT,
    *FREQUENT,
]

numbers = st.integers(0, 30)
steps = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(QUEUE_IDS), numbers, numbers), min_size=5, max_size=60
)


@dataclass
class PlainQueue:
    """What a queue should have."""

    delivered_up_to: int = 0
    messages: dict[int, StoredMessage] = field(default_factory=dict)
    last_position: int = 0


class PlainBroker:
    """Does to dictionaries what it asks a store to do.

    A batch that was not applied when the store stops is lost, and the dictionaries go back to what they were.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.queues: dict[int, PlainQueue] = {}
        self.batch = Batch(1)

    def step(self, what: str, queue_id: int, a: int, b: int) -> None:
        """Do one thing, if it makes sense."""
        if what in ("apply", "restart", "crash"):
            self.engine.store.apply(self.batch)
            self.batch = Batch(self.batch.number + 1)
            self.engine.store.checkpoint()
        if what in ("restart", "crash"):
            self.check_start(self.engine.restart() if what == "restart" else self.engine.crash())
        queue = self.queues.get(queue_id)
        if what == "declare" and queue is None and not self.is_being_deleted(queue_id):
            self.declare(queue_id)
        elif queue is not None:
            self.step_of_queue(queue, what, queue_id, a, b)

    def step_of_queue(self, queue: PlainQueue, what: str, queue_id: int, a: int, b: int) -> None:
        """Do one thing to a queue that exists."""
        if what == "delete":
            if queue_id not in LEVELS:
                self.delete(queue_id)
        elif what in ("enqueue", "spill"):
            self.add(queue, queue_id, a, b, persistent=what == "enqueue")
        elif what == "settle" and queue.messages:
            position = list(queue.messages)[a % len(queue.messages)]
            self.batch.settle(queue_id, position, len(queue.messages.pop(position).body))
        elif what == "settle-some":
            for position in list(queue.messages)[a : a + b]:
                self.batch.settle(queue_id, position, len(queue.messages.pop(position).body))
        elif what == "purge":
            self.purge(queue, queue_id, a, a + b)
        elif what == "return" and queue.messages:
            position = list(queue.messages)[a % len(queue.messages)]
            returned = Returned(a, b, a * b)
            self.batch.note_return(queue_id, position, returned)
            queue.messages[position] = with_returned(queue.messages[position], returned)
        elif what == "delivered":
            queue.delivered_up_to = a
            self.batch.definitions.append(QueueDelivered(queue_id, a))

    def declare(self, queue_id: int) -> None:
        """Declare a queue, or a level of a queue that is there."""
        if queue_id not in LEVELS:
            self.batch.definitions.append(declared(queue_id, f"queue {queue_id}"))
        elif LEVELS[queue_id][0] in self.queues:
            self.batch.definitions.append(PriorityLevelDeclared(queue_id, *LEVELS[queue_id]))
        else:
            return
        self.queues[queue_id] = PlainQueue()

    def delete(self, queue_id: int) -> None:
        """Delete a queue with its levels."""
        levels = [level for level, (of, _) in LEVELS.items() if of == queue_id and level in self.queues]
        for deleted in (*levels, queue_id):
            del self.queues[deleted]
            self.batch.delete_queue(deleted)

    def is_being_deleted(self, queue_id: int) -> bool:
        """Whether the open batch deletes the queue; its id is free only in the next one."""
        return any(getattr(d, "queue_id", None) == queue_id for d in self.batch.definitions)

    def add(self, queue: PlainQueue, queue_id: int, a: int, b: int, persistent: bool) -> None:
        """Enqueue or spill a few messages."""
        contents = [
            Content(PARTS[(a + n) % 5] * n, NAMES[a % 3], NAMES[b % 3], bytes([b, a])) for n in range(a)
        ]
        first = queue.last_position + 1 + b // 20  # sometimes with a gap
        for position, content in enumerate(contents, first):
            expires_at_ms = b * 1000 if b % 4 == 0 else None
            if expires_at_ms is not None:
                self.batch.expire_at(queue_id, position, expires_at_ms)
            if not persistent:
                self.batch.spill(queue_id, position, content)
            queue.messages[position] = StoredMessage(
                position,
                content.exchange,
                content.routing_key,
                content.properties,
                content.body,
                persistent,
                content.dead_lettered,
                expires_at_ms,
            )
            queue.last_position = position
        if persistent and contents:
            self.batch.enqueue(queue_id, first, list(contents))

    def purge(self, queue: PlainQueue, queue_id: int, first: int, last: int) -> None:
        """Remove a range: what is in the open batch one by one, the rest at once."""
        gone = {p: len(m.body) for p, m in queue.messages.items() if first <= p <= last}
        in_batch = self.unapplied(queue_id)
        for position in gone:
            del queue.messages[position]
            if position in in_batch:
                self.batch.settle(queue_id, position, gone[position])
        stored = [size for position, size in gone.items() if position not in in_batch]
        self.batch.purge(queue_id, first, last, len(stored), sum(stored))

    def unapplied(self, queue_id: int) -> set[int]:
        """Return the positions of messages that the store has not got yet."""
        return set(self.batch.enqueued.get(queue_id, ())) | set(self.batch.spilled.get(queue_id, ()))

    def check_start(self, found: Snapshot) -> None:
        """Forget what a restart forgets, and compare."""
        for queue in self.queues.values():
            queue.messages = {p: m for p, m in queue.messages.items() if m.persistent}
            queue.last_position = max(queue.messages, default=0)
        known = sorted(self.queues.items())
        assert found.queues == [
            StoredQueue(
                queue_id, "/", f"queue {queue_id}", False, b"", *self.counts(queue), self.first_expires(queue)
            )
            for queue_id, queue in known
            if queue_id not in LEVELS
        ]
        assert found.priority_levels == [
            StoredPriorityLevel(queue_id, *LEVELS[queue_id], *self.counts(queue), self.first_expires(queue))
            for queue_id, queue in known
            if queue_id in LEVELS
        ]
        for queue_id in QUEUE_IDS:
            messages = self.queues.get(queue_id, PlainQueue()).messages
            assert everything(self.engine.store, queue_id) == [messages[p] for p in sorted(messages)]

    def first_expires(self, queue: PlainQueue) -> bool:
        """Whether the first message has a deadline."""
        if not queue.messages:
            return False
        return queue.messages[min(queue.messages)].expires_at_ms is not None

    def counts(self, queue: PlainQueue) -> tuple[int, int, int, int, int]:
        """Return what a start should find of a queue."""
        return (
            queue.delivered_up_to,
            len(queue.messages),
            sum(len(m.body) for m in queue.messages.values()),
            min(queue.messages, default=1),
            max(queue.messages, default=0),
        )


History = list[tuple[str, int, int, int]]


def play(engine: Engine, history: History) -> None:
    """Play a history to its end and compare."""
    broker = PlainBroker(engine)
    for step in [*history, ("restart", 1, 0, 0), ("crash", 1, 0, 0)]:
        broker.step(*step)
    engine.close()


def play_on_a_file(history: History) -> None:
    """Play a history on a new data file."""
    with fast_directory() as directory:
        play(SqliteEngine(directory), history)


@given(steps)
def test_a_memory_store_has_what_a_dictionary_has(history: History) -> None:
    play(MemoryEngine(), history)


@settings(max_examples=50)
@given(steps)
def test_an_sqlite_store_has_what_a_dictionary_has(history: History) -> None:
    play_on_a_file(history)


@pytest.mark.usefixtures("small_steps")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_an_sqlite_store_has_what_a_dictionary_has_in_small_steps(history: History) -> None:
    play_on_a_file(history)


@pytest.mark.usefixtures("small_steps", "idle_housekeeper")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_an_sqlite_store_has_what_a_dictionary_has_before_it_has_tidied_up(history: History) -> None:
    play_on_a_file(history)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_an_sqlite_store_has_what_a_dictionary_has_in_blocks(history: History) -> None:
    play_on_a_file(history)


@pytest.mark.usefixtures("small_steps", "small_blocks", "idle_housekeeper")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_an_sqlite_store_has_what_a_dictionary_has_in_blocks_that_nobody_tidies_up(history: History) -> None:
    play_on_a_file(history)
