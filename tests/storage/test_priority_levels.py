"""What every store promises about the levels of queues with priorities."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from leveret.storage.batch import Batch, Returned
from leveret.storage.changes import MAX_POSITION, PriorityLevelDeclared, QueueDelivered, VHostDeleted
from leveret.storage.stored import StoredPriorityLevel

from .engines import Content, Engine, SqliteEngine, declared, define, everything

QUEUE = 1
LEVEL = 7
PRIORITY = 5


def level(engine: Engine, queue_id: int = LEVEL, priority: int = PRIORITY) -> None:
    define(engine.store, PriorityLevelDeclared(queue_id, QUEUE, priority))


def enqueue(engine: Engine, queue_id: int, *bodies: bytes) -> None:
    batch = Batch(1)
    batch.enqueue(queue_id, 1, [Content(body) for body in bodies])
    engine.store.apply(batch)


def bodies(engine: Engine, queue_id: int) -> list[bytes]:
    return [message.body for message in everything(engine.store, queue_id)]


def test_a_start_finds_what_is_in_them(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    level(engine, 3, 2)
    enqueue(engine, QUEUE, b"low")
    enqueue(engine, LEVEL, b"a", b"bc")
    expected = [
        StoredPriorityLevel(3, QUEUE, 2, 0, 0, 0, 1, 0),
        StoredPriorityLevel(LEVEL, QUEUE, PRIORITY, 0, 2, 3, 1, 2),
    ]
    assert engine.restart().priority_levels == expected
    found = engine.crash()
    assert found.priority_levels == expected
    assert [queue.messages for queue in found.queues] == [1]
    assert (bodies(engine, QUEUE), bodies(engine, LEVEL)) == ([b"low"], [b"a", b"bc"])


def test_a_level_and_its_first_message_are_one_batch(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    batch = Batch(1)
    batch.definitions.append(PriorityLevelDeclared(LEVEL, QUEUE, PRIORITY))
    batch.enqueue(LEVEL, 1, [Content(b"a")])
    engine.store.apply(batch)
    (found,) = engine.crash().priority_levels
    assert found.messages == 1


def test_what_was_delivered_is_noted_for_each(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    define(engine.store, QueueDelivered(QUEUE, MAX_POSITION), QueueDelivered(LEVEL, 4))
    found = engine.crash()
    assert [queue.delivered_up_to for queue in found.queues] == [MAX_POSITION]
    assert [stored.delivered_up_to for stored in found.priority_levels] == [4]


def test_transient_messages_do_not_survive(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    batch = Batch(1)
    batch.spill(LEVEL, 1, Content(b"spilled"))
    batch.enqueue(LEVEL, 2, [Content(b"a")])
    engine.store.apply(batch)
    assert bodies(engine, LEVEL) == [b"spilled", b"a"]
    engine.crash()
    assert bodies(engine, LEVEL) == [b"a"]


def test_what_is_known_of_returned_messages_stays(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    enqueue(engine, LEVEL, b"a")
    batch = Batch(1)
    batch.note_return(LEVEL, 1, Returned(1, 2, 0))
    engine.store.apply(batch)
    engine.crash()
    assert [message.returned for message in everything(engine.store, LEVEL)] == [Returned(1, 2, 0)]


def test_a_level_that_is_deleted_is_gone(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    enqueue(engine, LEVEL, b"a")
    batch = Batch(1)
    batch.delete_queue(LEVEL)
    batch.delete_queue(QUEUE)
    engine.store.apply(batch)
    assert bodies(engine, LEVEL) == []
    assert engine.crash().priority_levels == []
    define(engine.store, declared(LEVEL))
    assert bodies(engine, LEVEL) == []


def test_levels_go_with_the_vhost_of_their_queue(engine: Engine) -> None:
    define(engine.store, declared(QUEUE))
    level(engine)
    enqueue(engine, LEVEL, b"a")
    define(engine.store, VHostDeleted("/"))
    assert bodies(engine, LEVEL) == []
    assert engine.crash().priority_levels == []


def test_levels_without_a_queue_do_not_survive(engine: Engine) -> None:
    level(engine)
    enqueue(engine, LEVEL, b"a")
    assert engine.crash().priority_levels == []
    assert bodies(engine, LEVEL) == []


class TestViews:
    """What a reader of the file sees."""

    def test_a_queue_is_one_whatever_its_levels_are(self, tmp_path: Path) -> None:
        engine = SqliteEngine(tmp_path)
        define(engine.store, declared(QUEUE))
        level(engine)
        level(engine, 3, 2)
        enqueue(engine, QUEUE, b"low")
        enqueue(engine, LEVEL, b"a", b"bc")
        enqueue(engine, 3, b"mid")
        engine.close()
        with closing(sqlite3.connect(engine.path)) as connection:
            messages = connection.execute("SELECT queue, priority, position, body FROM queue_messages")
            assert messages.fetchall() == [
                ("orders", 5, 1, "a"),
                ("orders", 5, 2, "bc"),
                ("orders", 2, 1, "mid"),
                ("orders", 0, 1, "low"),
            ]
            queues = connection.execute("SELECT name, messages, body_bytes FROM list_queues")
            assert queues.fetchall() == [("orders", 4, 9)]
