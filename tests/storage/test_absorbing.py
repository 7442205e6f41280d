"""Batches that are applied as one leave what they leave one by one, and write less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret.storage.batch import FORGOTTEN, NEVER, Batch, Returned
from leveret.storage.changes import (
    MAX_POSITION,
    Bound,
    Definition,
    ExchangeQueueDeclared,
    PriorityLevelDeclared,
    QueueDeleted,
    QueueDelivered,
    QueuePurged,
    SegmentClosed,
    SegmentRemoved,
    Unbound,
)
from leveret.storage.records import decode_batch, encode_batch, is_recordable
from leveret.storage.stored import Snapshot

from .engines import Content, Engine, MemoryEngine, SqliteEngine, declared, everything, fast_directory
from .test_random_histories import KINDS, QUEUE_IDS, History, PlainBroker, numbers

MORE_KINDS = ["key", "forget-key", "offset", "forget-offset", "bind", "unbind"]
CATCH_UP = ["behind", "spill", "restart", "crash"]  # seldom: there should be something to absorb
ABSORBED = [kind for kind in [*KINDS, *MORE_KINDS] if kind not in CATCH_UP]

steps = st.lists(
    st.tuples(
        st.sampled_from([*ABSORBED, *ABSORBED, *ABSORBED, *CATCH_UP]),
        st.sampled_from(QUEUE_IDS),
        numbers,
        numbers,
    ),
    min_size=40,  # hypothesis makes few that are much longer
    max_size=120,
)


@dataclass
class BehindStore:
    """Two stores: one gets each batch, the other gets many as one, and apart what cannot be recorded."""

    at_once: Engine
    behind: Engine
    through_records: bool  # what is absorbed was a record before
    whole: Batch
    deleted: set[int]  # queues that a batch in `whole` deletes

    def apply(self, batch: Batch) -> None:
        """Apply it to the one, and absorb it for the other."""
        self.at_once.store.apply(batch)
        if not is_recordable(batch):
            self.catch_up()
            self.behind.store.apply(batch)
            return
        self.deleted |= {d.queue_id for d in batch.definitions if isinstance(d, QueueDeleted)}
        self.whole.absorb(decode_batch(encode_batch(batch)) if self.through_records else batch)
        assert self.whole.number == batch.number

    def catch_up(self) -> None:
        """Apply what was absorbed."""
        self.behind.store.apply(self.whole)
        self.whole = Batch(self.whole.number)
        self.deleted.clear()

    def start(self, is_crash: bool) -> Snapshot:
        """Start both again, and compare them."""
        self.catch_up()
        engines = (self.at_once, self.behind)
        one, other = [engine.crash() if is_crash else engine.restart() for engine in engines]
        assert in_order(one) == in_order(other)
        for queue_id in QUEUE_IDS:
            assert everything(self.at_once.store, queue_id) == everything(self.behind.store, queue_id)
        return other


def in_order(found: Snapshot) -> Snapshot:
    """Return what was found; keys have an order only among those of a queue."""
    return replace(found, keys=sorted(found.keys, key=lambda key: key.queue_id))


class BehindBroker(PlainBroker):
    """Uses keys, offsets and bindings, too, and knows that a store can be behind."""

    def __init__(self, store: BehindStore) -> None:
        super().__init__(store.behind)
        self.pair = store

    def step(self, what: str, queue_id: int, a: int, b: int) -> None:
        """Do one thing, if it makes sense."""
        if what in ("apply", "restart", "crash"):
            self.pair.apply(self.batch)
            self.batch = Batch(self.batch.number + 1)
            self.engine.store.checkpoint()
            if what != "apply":
                self.check_start(self.pair.start(what == "crash"))
        elif what == "behind":
            self.pair.catch_up()
        elif what in ("bind", "unbind"):
            of = Bound if what == "bind" else Unbound
            self.batch.definitions.append(of("/", "", f"queue {a % 3}", False, "", b""))
        else:
            super().step(what, queue_id, a, b)

    def step_of_queue(self, queue: object, what: str, queue_id: int, a: int, b: int) -> None:
        """Do one thing to a queue that exists."""
        if what == "key":
            for key in (a % 4, b % 4):
                self.batch.remember_key(queue_id, bytes([key]), b)
        elif what == "forget-key":
            self.batch.forget_key(queue_id, bytes([a % 4]))
        elif what == "offset":
            self.batch.note_offset(queue_id, f"consumer {a % 4}", b)
        elif what == "forget-offset":
            self.batch.note_offset(queue_id, f"consumer {a % 4}", FORGOTTEN)
        else:
            super().step_of_queue(self.queues[queue_id], what, queue_id, a, b)

    def is_being_deleted(self, queue_id: int) -> bool:
        """Whether a batch that is not applied deletes the queue."""
        return queue_id in self.pair.deleted or super().is_being_deleted(queue_id)

    def unapplied(self, queue_id: int) -> set[int]:
        """Return the positions of messages that the store has not got yet."""
        return super().unapplied(queue_id) | set(self.pair.whole.enqueued.get(queue_id, ()))


def play(at_once: Engine, behind: Engine, history: History, through_records: bool) -> None:
    """Play a history to its end and compare."""
    broker = BehindBroker(BehindStore(at_once, behind, through_records, Batch(0), set()))
    declarations = [("declare", queue_id, 0, 0) for queue_id in (1, 2, 3)]
    for step in [*declarations, *history, ("restart", 1, 0, 0), ("crash", 1, 0, 0)]:
        broker.step(*step)
    at_once.close()
    behind.close()


def play_on_files(history: History, through_records: bool) -> None:
    """Play a history on new data files."""
    with fast_directory() as one, fast_directory() as other:
        play(SqliteEngine(one), SqliteEngine(other), history, through_records)


@given(steps, st.booleans())
def test_a_memory_store_that_is_behind_has_the_same_in_the_end(
    history: History, through_records: bool
) -> None:
    play(MemoryEngine(), MemoryEngine(), history, through_records)


@settings(max_examples=50)
@given(steps, st.booleans())
def test_an_sqlite_store_that_is_behind_has_the_same_in_the_end(
    history: History, through_records: bool
) -> None:
    play_on_files(history, through_records)


@pytest.mark.usefixtures("small_steps", "idle_housekeeper")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.booleans())
def test_an_sqlite_store_that_is_behind_has_the_same_before_it_has_tidied_up(
    history: History, through_records: bool
) -> None:
    play_on_files(history, through_records)


def batch_of(number: int, *definitions: Definition) -> Batch:
    """Return a batch with definitions."""
    batch = Batch(number)
    batch.definitions.extend(definitions)
    return batch


def absorbed(*batches: Batch) -> Batch:
    """Return one batch that does what several do in a row."""
    whole = Batch(0)
    for batch in batches:
        whole.absorb(batch)
    return whole


@pytest.fixture
def first() -> Batch:
    """A batch with two messages that expire, the first of which has been returned."""
    batch = Batch(1)
    batch.enqueue(1, 5, [Content(b"five"), Content(b"six")])
    batch.expire_at(1, 5, 1000)
    batch.expire_at(1, 6, 2000)
    batch.note_return(1, 5, Returned(1, 1, 0))
    return batch


@pytest.fixture
def second() -> Batch:
    """An empty batch behind it."""
    return Batch(2)


def test_the_whole_has_the_number_of_the_last_batch(first: Batch, second: Batch) -> None:
    assert absorbed(first, second).number == 2


def test_nothing_of_an_absorbed_batch_changes(first: Batch, second: Batch) -> None:
    record = encode_batch(first)
    second.settle(1, 5, 4)
    second.enqueue(1, 7, [Content(b"seven")])
    whole = absorbed(first, second)
    whole.delete_queue(1)
    assert encode_batch(first) == record


def test_messages_of_both_batches_stay_with_their_deadlines(first: Batch, second: Batch) -> None:
    second.enqueue(1, 7, [Content(b"seven")])
    second.enqueue(2, 1, [Content(b"one")])
    second.expire_at(2, 1, 3000)
    whole = absorbed(first, second)
    assert {queue_id: [*of] for queue_id, of in whole.enqueued.items()} == {1: [5, 6, 7], 2: [1]}
    assert whole.expiries == {1: {5: 1000, 6: 2000}, 2: {1: 3000}}


def test_a_message_that_the_later_batch_settles_is_never_written(first: Batch, second: Batch) -> None:
    second.settle(1, 5, 4)
    whole = absorbed(first, second)
    assert [*whole.enqueued[1]] == [6]
    assert not whole.settled
    assert whole.expiries == {1: {6: 2000}}
    assert not whole.returned


def test_batches_whose_messages_all_left_write_nothing(first: Batch, second: Batch) -> None:
    second.settle(1, 5, 4)
    second.settle(1, 6, 3)
    assert not absorbed(first, second)


def test_a_message_that_was_stored_before_is_settled_in_the_store(first: Batch, second: Batch) -> None:
    first.settle(1, 3, 30)
    second.settle(1, 4, 40)
    second.settle(2, 1, 10)
    assert absorbed(first, second).settled == {1: {3: 30, 4: 40}, 2: {1: 10}}


def test_a_return_of_a_stored_message_that_the_later_batch_settles_is_not_written() -> None:
    first, second = Batch(1), Batch(2)
    first.note_return(1, 3, Returned(1, 1, 0))
    second.note_return(1, 3, Returned(2, 2, 0))
    second.settle(1, 3, 30)
    whole = absorbed(first, second)
    assert not whole.returned
    assert whole.settled == {1: {3: 30}}


def test_the_last_return_of_a_message_counts(first: Batch, second: Batch) -> None:
    second.note_return(1, 5, Returned(2, 2, 0))
    assert absorbed(first, second).returned == {1: {5: Returned(2, 2, 0)}}


def test_a_return_of_a_message_that_the_later_batch_purges_is_not_written() -> None:
    first, second = Batch(1), Batch(2)
    for position in (3, 4, 5):
        first.note_return(1, position, Returned(1, 1, 0))
    second.purge(1, 4, 4, 1, 40)
    assert [*absorbed(first, second).returned[1]] == [3, 5]


def test_the_last_offset_of_a_consumer_counts() -> None:
    first, second = Batch(1), Batch(2)
    for tag in ("a", "b", "c"):
        first.note_offset(1, tag, 10)
    second.note_offset(1, "a", 11)
    second.note_offset(1, "b", FORGOTTEN)
    assert absorbed(first, second).offsets == {1: {"a": 11, "b": FORGOTTEN, "c": 10}}


def test_a_key_that_comes_again_is_the_youngest() -> None:
    first, second = Batch(1), Batch(2)
    for key in (b"a", b"b", b"c"):
        first.remember_key(1, key, NEVER)
    second.forget_key(1, b"b")
    second.remember_key(1, b"a", 1000)
    keys = absorbed(first, second).keys[1]
    assert keys == {b"c": NEVER, b"b": FORGOTTEN, b"a": 1000}
    assert [key for key, expires_at_ms in keys.items() if expires_at_ms != FORGOTTEN] == [b"c", b"a"]


def test_what_a_batch_has_of_a_queue_that_the_later_one_deletes_is_dropped(
    first: Batch, second: Batch
) -> None:
    first.definitions.append(QueueDelivered(1, MAX_POSITION))
    first.settle(1, 4, 40)
    first.note_offset(1, "tag", 1)
    first.remember_key(1, b"key", NEVER)
    first.enqueue(2, 1, [Content()])
    second.delete_queue(1)
    whole = absorbed(first, second)
    assert whole.definitions == [QueueDelivered(1, MAX_POSITION), QueueDeleted(1)]
    assert [*whole.enqueued] == [2]
    assert not any((whole.expiries, whole.settled, whole.returned, whole.offsets, whole.keys))


def test_a_queue_that_is_declared_and_deleted_leaves_no_trace() -> None:
    bound = Bound("/", "", "orders", False, "", b"")
    unbound = Unbound("/", "", "orders", False, "", b"")
    whole = absorbed(
        batch_of(
            1,
            declared(1),
            bound,
            declared(2, "others"),
            QueueDelivered(1, MAX_POSITION),
            QueueDelivered(2, MAX_POSITION),
        ),
        batch_of(2, QueuePurged(1, 1, 2, 2, 20), SegmentClosed(1, 1, 2, 20, 0), SegmentRemoved(1, 2)),
        batch_of(3, QueueDelivered(1, 3), unbound, QueueDeleted(1), declared(3)),
    )
    assert whole.definitions == [
        bound,
        declared(2, "others"),
        QueueDelivered(2, MAX_POSITION),
        unbound,
        declared(3),
    ]


def test_a_queue_with_priorities_that_is_declared_and_deleted_leaves_no_trace() -> None:
    declaring = batch_of(1, declared(1), PriorityLevelDeclared(2, 1, 9), declared(3, "others"))
    declaring.enqueue(2, 1, [Content()])
    whole = absorbed(declaring, batch_of(2, QueueDelivered(2, 5), QueueDeleted(2), QueueDeleted(1)))
    assert whole.definitions == [declared(3, "others")]
    assert not whole.enqueued


def test_of_a_stored_queue_with_priorities_only_a_new_level_leaves_no_trace() -> None:
    deleting = batch_of(2, QueueDeleted(2), QueueDeleted(4), QueueDeleted(1))
    whole = absorbed(batch_of(1, PriorityLevelDeclared(2, 1, 9)), deleting)
    assert whole.definitions == [QueueDeleted(4), QueueDeleted(1)]


def test_what_an_exchange_keeps_leaves_no_trace_if_it_is_declared_and_deleted() -> None:
    whole = absorbed(batch_of(1, ExchangeQueueDeclared(1, "/", "dedup")), batch_of(2, QueueDeleted(1)))
    assert not whole


def test_a_queue_declared_by_the_batch_that_absorbs_leaves_no_trace_either(first: Batch) -> None:
    first.definitions.append(declared(1))
    first.absorb(batch_of(2, QueueDeleted(1)))
    assert not first


def test_a_queue_that_one_batch_declares_and_deletes_leaves_no_trace() -> None:
    assert not absorbed(batch_of(1, declared(1), QueueDeleted(1)))
