"""What every store promises about messages that wait in an exchange, and about keys of deduplication."""

from __future__ import annotations

from leveret.storage.batch import NEVER, Batch
from leveret.storage.changes import MAX_POSITION, ExchangeQueueDeclared, VHostDeleted
from leveret.storage.stored import StoredExchangeQueue, StoredKey, StoredMessage

from .engines import NO_LIMIT, Content, Engine, declared, define, everything

ID = 7
START = (-1, 0)


def delay(engine: Engine, *messages: tuple[int, int, bytes], queue_id: int = ID) -> None:
    """Store messages given as position, due time and body."""
    batch = Batch(1)
    for position, due_ms, body in messages:
        batch.delay(queue_id, position, due_ms, Content(body))
    engine.store.apply(batch)


def waiting(
    engine: Engine, after: tuple[int, int] = START, limit: int = 100, max_bytes: int = NO_LIMIT
) -> list[bytes]:
    return [m.body for m in engine.store.read_delayed(ID, *after, limit, max_bytes)]


def exchange(engine: Engine, queue_id: int = ID, name: str = "later") -> None:
    define(engine.store, ExchangeQueueDeclared(queue_id, "/", name))


class TestDelayedMessages:
    """They are read by when they are due, and survive whatever their delivery mode is."""

    def test_they_are_read_by_time_and_then_by_position(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 300, b"c"), (2, 100, b"a"), (3, 200, b"b1"), (4, 200, b"b2"))
        assert waiting(engine) == [b"a", b"b1", b"b2", b"c"]

    def test_they_are_read_from_a_time_and_position_on(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 300, b"c"), (2, 100, b"a"), (3, 200, b"b1"), (4, 200, b"b2"))
        assert waiting(engine, (200, 3)) == [b"b2", b"c"]
        assert waiting(engine, (200, 4)) == [b"c"]
        assert waiting(engine, (300, 1)) == []

    def test_no_more_than_a_limit_is_read(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, *[(n, 500, bytes([n])) for n in range(1, 6)], (6, 900, b"later"))
        assert waiting(engine, limit=2) == [b"\x01", b"\x02"]
        assert waiting(engine, (500, 4), limit=2) == [b"\x05", b"later"]

    def test_reading_stops_at_the_message_that_brings_enough_bytes(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 1, b"12345"), (2, 1, b"12345"), (3, 2, b"12345"))
        assert waiting(engine, max_bytes=1) == [b"12345"]
        assert waiting(engine, max_bytes=6) == [b"12345"] * 2
        assert waiting(engine, (1, 1), max_bytes=5) == [b"12345"]

    def test_each_comes_back_whole(self, engine: Engine) -> None:
        exchange(engine)
        batch = Batch(1)
        batch.delay(ID, 1, 99, Content(b"x", "e", "k", b"\x80\x00\x01p", dead_lettered=True))
        engine.store.apply(batch)
        (found,) = engine.store.read_delayed(ID, *START, 1, 1)
        assert found == StoredMessage(1, "e", "k", b"\x80\x00\x01p", b"x", True, True, 99)

    def test_a_start_finds_how_many_there_are(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 300, b"ab"), (5, 100, b"c"))
        expected = [StoredExchangeQueue(ID, "/", "later", 2, 3, 5)]
        assert engine.restart().exchange_queues == expected
        assert engine.crash().exchange_queues == expected
        assert waiting(engine) == [b"c", b"ab"]

    def test_one_that_is_removed_is_gone(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 300, b"ab"), (5, 100, b"c"))
        batch = Batch(1)
        batch.undelay(ID, 5, 1)
        engine.store.apply(batch)
        assert waiting(engine) == [b"ab"]
        assert engine.crash().exchange_queues == [StoredExchangeQueue(ID, "/", "later", 1, 2, 1)]

    def test_one_that_is_removed_in_the_same_batch_is_never_written(self, engine: Engine) -> None:
        exchange(engine)
        batch = Batch(1)
        batch.delay(ID, 1, 5, Content(b"a"))
        batch.undelay(ID, 1, 1)
        assert not batch
        engine.store.apply(batch)
        assert waiting(engine) == []

    def test_moving_one_to_a_queue_is_one_batch(self, engine: Engine) -> None:
        exchange(engine)
        define(engine.store, declared(1))
        delay(engine, (1, 5, b"a"))
        batch = Batch(1)
        batch.undelay(ID, 1, 1)
        batch.enqueue(1, 1, [Content(b"a")])
        engine.store.apply(batch)
        engine.crash()
        assert waiting(engine) == []
        assert [message.body for message in everything(engine.store, 1)] == [b"a"]

    def test_they_go_with_their_exchange(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 5, b"a"))
        batch = Batch(1)
        batch.delay(ID, 2, 5, Content(b"b"))
        batch.delete_queue(ID)
        engine.store.apply(batch)
        assert waiting(engine) == []
        assert engine.crash().exchange_queues == []
        exchange(engine)
        assert waiting(engine) == []

    def test_they_go_with_their_vhost(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (1, 5, b"a"))
        define(engine.store, VHostDeleted("/"))
        assert waiting(engine) == []
        assert engine.crash().exchange_queues == []

    def test_those_of_an_exchange_that_is_not_durable_do_not_survive(self, engine: Engine) -> None:
        delay(engine, (1, 5, b"a"))
        assert waiting(engine) == [b"a"]
        assert engine.crash().exchange_queues == []
        assert waiting(engine) == []

    def test_messages_of_queues_are_not_among_them(self, engine: Engine) -> None:
        define(engine.store, declared(ID))
        batch = Batch(1)
        batch.expire_at(ID, 1, 5)
        batch.enqueue(ID, 1, [Content(b"in a queue")])
        engine.store.apply(batch)
        assert waiting(engine) == []

    def test_the_highest_position_can_be_used(self, engine: Engine) -> None:
        exchange(engine)
        delay(engine, (MAX_POSITION, 5, b"a"))
        assert waiting(engine, (5, MAX_POSITION - 1)) == [b"a"]


def remember(engine: Engine, *keys: tuple[bytes, int], queue_id: int = ID) -> None:
    batch = Batch(1)
    for key, expires_at_ms in keys:
        batch.remember_key(queue_id, key, expires_at_ms)
    engine.store.apply(batch)


class TestKeys:
    """They come back in the order in which they came."""

    def test_they_survive_with_their_exchange(self, engine: Engine) -> None:
        exchange(engine)
        remember(engine, (b"b", NEVER), (b"a", 99))
        remember(engine, (b"\x00\xff", NEVER))
        expected = [StoredKey(ID, b"b", NEVER), StoredKey(ID, b"a", 99), StoredKey(ID, b"\x00\xff", NEVER)]
        assert engine.crash().keys == expected
        assert engine.restart().keys == expected

    def test_they_survive_with_their_queue(self, engine: Engine) -> None:
        define(engine.store, declared(ID))
        remember(engine, (b"a", NEVER))
        assert engine.crash().keys == [StoredKey(ID, b"a", NEVER)]

    def test_one_that_comes_again_is_the_youngest(self, engine: Engine) -> None:
        exchange(engine)
        remember(engine, (b"a", 1), (b"b", 2))
        remember(engine, (b"a", 3))
        assert engine.crash().keys == [StoredKey(ID, b"b", 2), StoredKey(ID, b"a", 3)]

    def test_one_that_is_forgotten_is_gone(self, engine: Engine) -> None:
        exchange(engine)
        remember(engine, (b"a", 1), (b"b", 2))
        batch = Batch(1)
        batch.forget_key(ID, b"a")
        batch.remember_key(ID, b"c", 4)
        batch.forget_key(ID, b"c")
        engine.store.apply(batch)
        assert engine.crash().keys == [StoredKey(ID, b"b", 2)]

    def test_they_go_with_their_owner(self, engine: Engine) -> None:
        exchange(engine)
        remember(engine, (b"a", 1))
        batch = Batch(1)
        batch.delete_queue(ID)
        engine.store.apply(batch)
        exchange(engine)
        assert engine.crash().keys == []

    def test_those_of_an_exchange_that_is_not_durable_do_not_survive(self, engine: Engine) -> None:
        remember(engine, (b"a", 1))
        assert engine.crash().keys == []

    def test_they_go_with_their_vhost(self, engine: Engine) -> None:
        exchange(engine)
        remember(engine, (b"a", NEVER))
        define(engine.store, VHostDeleted("/"))
        exchange(engine)
        assert engine.crash().keys == []
