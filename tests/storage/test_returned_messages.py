"""What every store promises about messages that came back from consumers."""

from __future__ import annotations

from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import VHostDeleted

from .engines import Content, Engine, declared, define, everything

ONCE = Returned(1, 1, 0)
LATER = Returned(3, 4, 1_700_000_000_000)


def enqueue(engine: Engine, *bodies: bytes, first: int = 1) -> None:
    batch = Batch(1)
    batch.enqueue(1, first, [Content(body) for body in bodies])
    engine.store.apply(batch)


def give_back(engine: Engine, returned: dict[int, Returned]) -> None:
    batch = Batch(1)
    for position, known in returned.items():
        batch.note_return(1, position, known)
    engine.store.apply(batch)


def known(engine: Engine) -> list[Returned | None]:
    return [message.returned for message in everything(engine.store, 1)]


def test_what_is_known_comes_back_with_the_message(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a", b"b", b"c")
    give_back(engine, {1: ONCE, 3: LATER})
    assert known(engine) == [ONCE, None, LATER]
    engine.restart()
    assert known(engine) == [ONCE, None, LATER]
    engine.crash()
    assert known(engine) == [ONCE, None, LATER]


def test_the_last_word_counts(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a")
    give_back(engine, {1: ONCE})
    give_back(engine, {1: LATER})
    assert known(engine) == [LATER]


def test_it_can_be_in_the_batch_that_enqueues_the_message(engine: Engine) -> None:
    define(engine.store, declared(1))
    batch = Batch(1)
    batch.enqueue(1, 1, [Content(b"a")])
    batch.note_return(1, 1, ONCE)
    engine.store.apply(batch)
    assert known(engine) == [ONCE]


def test_it_goes_with_the_message(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a", b"b")
    give_back(engine, {1: ONCE, 2: ONCE})
    batch = Batch(1)
    batch.settle(1, 1, 1)
    engine.store.apply(batch)
    enqueue(engine, b"again")
    assert known(engine) == [None, ONCE]


def test_a_message_that_is_settled_in_the_same_batch_leaves_nothing(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a")
    batch = Batch(1)
    batch.enqueue(1, 2, [Content(b"b")])
    for position in (1, 2):
        batch.note_return(1, position, ONCE)
        batch.settle(1, position, 1)
    engine.store.apply(batch)
    enqueue(engine, b"c", b"d")
    assert known(engine) == [None, None]


def test_a_purge_removes_it(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a", b"b", b"c")
    give_back(engine, {1: ONCE, 2: ONCE, 3: ONCE})
    batch = Batch(1)
    batch.purge(1, 1, 2, 2, 2)
    engine.store.apply(batch)
    enqueue(engine, b"d", b"e")
    assert known(engine) == [None, None, ONCE]


def test_a_queue_that_is_deleted_leaves_nothing_to_the_next_with_its_id(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a")
    give_back(engine, {1: ONCE})
    batch = Batch(1)
    batch.delete_queue(1)
    engine.store.apply(batch)
    define(engine.store, declared(1))
    enqueue(engine, b"b")
    assert known(engine) == [None]


def test_a_vhost_that_is_deleted_leaves_nothing(engine: Engine) -> None:
    define(engine.store, declared(1))
    enqueue(engine, b"a")
    give_back(engine, {1: ONCE})
    define(engine.store, VHostDeleted("/"))
    define(engine.store, declared(1))
    enqueue(engine, b"b")
    assert known(engine) == [None]


def test_a_transient_message_is_known_as_long_as_it_is_there(engine: Engine) -> None:
    define(engine.store, declared(1))
    batch = Batch(1)
    batch.spill(1, 1, Content(b"a"))
    batch.note_return(1, 1, ONCE)
    engine.store.apply(batch)
    assert known(engine) == [ONCE]
    engine.restart()
    enqueue(engine, b"b")
    assert known(engine) == [None]
