"""What every store promises."""

from __future__ import annotations

import threading

import pytest

from leveret.storage.batch import Batch
from leveret.storage.changes import (
    MAX_POSITION,
    MAX_QUEUE_ID,
    Bound,
    ExchangeDeclared,
    ExchangeDeleted,
    QueueDeleted,
    QueueDelivered,
    Unbound,
)
from leveret.storage.store import StaleEpochError, StoreError
from leveret.storage.stored import StoredMessage, StoredQueue

from .engines import (
    NO_LIMIT,
    Content,
    Engine,
    bodies,
    declared,
    define,
    enqueue,
    everything,
    read,
    settle,
    spill,
)

NOT_UTF8 = b"caf\xe9\x00\xff".decode("utf-8", "surrogateescape")


def stored(queue_id: int, messages: int, body_bytes: int, first: int, last: int) -> StoredQueue:
    """Return what a start finds of the queue that `declared` declares."""
    return StoredQueue(queue_id, "/", "orders", False, b"", 0, messages, body_bytes, first, last)


class TestDefinitions:
    """Exchanges, queues and bindings."""

    def test_an_empty_store_has_nothing(self, engine: Engine) -> None:
        assert engine.found.exchanges == []
        assert engine.found.queues == []
        assert engine.found.bindings == []

    def test_durable_objects_survive_a_restart_in_the_order_they_were_made(self, engine: Engine) -> None:
        exchanges = [
            ExchangeDeclared("/", "z", "topic", auto_delete=False, internal=True, arguments=b"\x01\x02"),
            ExchangeDeclared("/", "a", "fanout", auto_delete=True, internal=False, arguments=b""),
            ExchangeDeclared("other", "a", "x-unknown", auto_delete=False, internal=False, arguments=b""),
        ]
        bindings = [
            Bound("/", "z", "orders", to_exchange=False, binding_key="#", arguments=b""),
            Bound("/", "z", "a", to_exchange=True, binding_key="a.*", arguments=b"\x00"),
            Bound("/", "z", "a", to_exchange=True, binding_key="a.*", arguments=b"\x01"),
        ]
        define(engine.store, *exchanges, declared(3), *bindings)
        found = engine.restart()
        assert found.exchanges == exchanges
        assert found.queues == [stored(3, 0, 0, 1, 0)]
        assert found.bindings == bindings

    def test_deleted_objects_do_not_come_back(self, engine: Engine) -> None:
        exchange = ExchangeDeclared("/", "e", "direct", auto_delete=False, internal=False, arguments=b"")
        bound = Bound("/", "e", "orders", to_exchange=False, binding_key="k", arguments=b"\x07")
        define(engine.store, exchange, declared(1), bound)
        define(
            engine.store,
            Unbound("/", "e", "orders", to_exchange=False, binding_key="k", arguments=b"\x07"),
            QueueDeleted(1),
            ExchangeDeleted("/", "e"),
        )
        found = engine.restart()
        assert (found.exchanges, found.queues, found.bindings) == ([], [], [])

    def test_an_unbind_with_other_arguments_leaves_the_binding(self, engine: Engine) -> None:
        bound = Bound("/", "e", "orders", to_exchange=False, binding_key="k", arguments=b"\x07")
        define(engine.store, bound)
        define(engine.store, Unbound("/", "e", "orders", to_exchange=False, binding_key="k", arguments=b""))
        define(
            engine.store, Unbound("/", "e", "orders", to_exchange=True, binding_key="k", arguments=b"\x07")
        )
        assert engine.restart().bindings == [bound]

    def test_binding_twice_is_binding_once(self, engine: Engine) -> None:
        bound = Bound("/", "e", "orders", to_exchange=False, binding_key="k", arguments=b"")
        define(engine.store, bound)
        define(engine.store, bound)
        assert engine.restart().bindings == [bound]

    def test_definitions_of_a_batch_are_applied_in_order(self, engine: Engine) -> None:
        topic = ExchangeDeclared("/", "e", "topic", auto_delete=False, internal=False, arguments=b"")
        fanout = ExchangeDeclared("/", "e", "fanout", auto_delete=False, internal=False, arguments=b"")
        define(engine.store, topic, ExchangeDeleted("/", "e"), fanout)
        assert engine.restart().exchanges == [fanout]

    def test_names_keep_every_byte(self, engine: Engine) -> None:
        exchange = ExchangeDeclared(NOT_UTF8, "", "direct", auto_delete=False, internal=False, arguments=b"")
        bound = Bound(NOT_UTF8, "ü\0", NOT_UTF8, to_exchange=False, binding_key=NOT_UTF8, arguments=b"")
        define(engine.store, exchange, declared(1, NOT_UTF8, vhost="ü\0"), bound)
        found = engine.restart()
        assert found.exchanges == [exchange]
        assert (found.queues[0].vhost, found.queues[0].name) == ("ü\0", NOT_UTF8)
        assert found.bindings == [bound]
        define(engine.store, ExchangeDeleted(NOT_UTF8, ""))
        define(engine.store, Unbound(NOT_UTF8, "ü\0", NOT_UTF8, False, NOT_UTF8, b""))
        found = engine.restart()
        assert (found.exchanges, found.bindings) == ([], [])

    def test_how_far_a_queue_was_delivered_is_kept(self, engine: Engine) -> None:
        define(engine.store, declared(1), QueueDelivered(1, MAX_POSITION))
        assert engine.crash().queues[0].delivered_up_to == MAX_POSITION
        define(engine.store, QueueDelivered(1, 17))
        assert engine.restart().queues[0].delivered_up_to == 17

    def test_deliveries_of_a_queue_that_is_not_durable_are_nobodys_business(self, engine: Engine) -> None:
        define(engine.store, QueueDelivered(9, 17))
        define(engine.store, declared(9))
        assert engine.restart().queues == [stored(9, 0, 0, 1, 0)]

    def test_a_second_queue_of_the_same_name_is_refused(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        with pytest.raises(StoreError):
            define(engine.store, declared(2))
        with pytest.raises(StoreError):
            define(engine.store, declared(3, "other"))

    def test_the_name_of_a_deleted_queue_is_free_in_the_same_batch(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        define(engine.store, QueueDeleted(1), declared(2))
        assert [queue.queue_id for queue in engine.restart().queues] == [2]


class TestMessages:
    """Messages in and out."""

    def test_a_message_comes_back_as_it_was(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        batch = Batch(1)
        batch.enqueue(1, 5, [Content(b"\x00\xff body", "logs", "a.b", b"\x80\x00\x04text")])
        batch.expire_at(1, 5, 1_700_000_000_123)
        engine.store.apply(batch)
        engine.restart()
        assert everything(engine.store, 1) == [
            StoredMessage(
                position=5,
                exchange="logs",
                routing_key="a.b",
                properties=b"\x80\x00\x04text",
                body=b"\x00\xff body",
                persistent=True,
                dead_lettered=False,
                expires_at_ms=1_700_000_000_123,
            )
        ]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"text",
            "tëxt \U0001f407".encode(),
            b"\x00",
            b"text\x00with zero",
            b"\xed\xa0\x80",  # a surrogate, which is not UTF-8
            b"\xef\xbb\xbfbyte order mark",
            b"\xff" * 100,
            b"x" * 65_536,
            b"x" * 65_537,
            b"x" * (256 * 1024),
            bytes(range(256)) * 8192,
        ],
        ids=lambda body: f"{len(body)} bytes {body[:4].hex()}",
    )
    def test_a_body_keeps_every_byte(self, engine: Engine, body: bytes) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, body, b"next")
        assert bodies(engine.store, 1) == {1: body, 2: b"next"}
        queue = engine.crash().queues[0]
        assert (queue.messages, queue.body_bytes) == (2, len(body) + 4)
        assert bodies(engine.store, 1) == {1: body, 2: b"next"}

    def test_names_and_properties_of_a_message_keep_every_byte(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        contents = [
            Content(b"1", NOT_UTF8, "ü\0", b""),
            Content(b"2", "", NOT_UTF8, bytes(range(256)) * 20),
            Content(b"3", "", NOT_UTF8, bytes(range(256)) * 20),
        ]
        batch = Batch(1)
        batch.enqueue(1, 1, list(contents))
        engine.store.apply(batch)
        engine.restart()
        found = everything(engine.store, 1)
        assert [Content(m.body, m.exchange, m.routing_key, m.properties) for m in found] == contents

    def test_many_kinds_of_messages_in_one_batch_keep_their_order(self, engine: Engine) -> None:
        define(engine.store, declared(1), declared(2, "other"))
        batch = Batch(1)
        positions = range(1, 1500)
        for position in positions:
            content = Content(
                b"%d" % position, routing_key=f"key {position % 7}", dead_lettered=position % 5 == 0
            )
            if position % 3:
                batch.enqueue(1 + position % 2, position, [content])
            else:
                batch.spill(1 + position % 2, position, content)
            if position % 4 == 0:
                batch.expire_at(1 + position % 2, position, position)
        engine.store.apply(batch)
        found = sorted(everything(engine.store, 1) + everything(engine.store, 2), key=lambda m: m.position)
        assert [m.position for m in found] == list(positions)
        assert [int(m.body) for m in found] == list(positions)
        assert [m.routing_key for m in found] == [f"key {p % 7}" for p in positions]
        assert [m.persistent for m in found] == [p % 3 != 0 for p in positions]
        assert [m.dead_lettered for m in found] == [p % 5 == 0 for p in positions]
        assert [m.expires_at_ms for m in found] == [None if p % 4 else p for p in positions]

    def test_thousands_of_different_envelopes_are_kept_apart(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        contents = [Content(routing_key=f"key {n}", properties=b"%d" % n) for n in range(1, 2500)]
        batch = Batch(1)
        batch.enqueue(1, 1, list(contents))
        engine.store.apply(batch)
        found = everything(engine.store, 1)
        assert [Content(m.body, m.exchange, m.routing_key, m.properties) for m in found] == contents

    def test_the_ends_of_the_ranges_can_be_used(self, engine: Engine) -> None:
        define(engine.store, declared(0), declared(MAX_QUEUE_ID, "last"))
        enqueue(engine.store, 0, MAX_POSITION, b"a")
        enqueue(engine.store, MAX_QUEUE_ID, MAX_POSITION, b"b")
        assert [(q.first_position, q.last_position) for q in engine.restart().queues] == [
            (MAX_POSITION,) * 2
        ] * 2
        assert [m.body for m in read(engine.store, 0, 0, MAX_POSITION, 10, 10)] == [b"a"]
        assert [m.body for m in read(engine.store, MAX_QUEUE_ID, 0, MAX_POSITION, 10, 10)] == [b"b"]
        define(engine.store, QueueDeleted(MAX_QUEUE_ID))
        assert bodies(engine.store, 0) == {MAX_POSITION: b"a"}

    def test_a_settled_message_does_not_come_back(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"x"] * 10)
        settle(engine.store, 1, 1, 2, 3, 7, 9)
        assert engine.crash().queues == [stored(1, 5, 5, 4, 10)]
        assert list(bodies(engine.store, 1)) == [4, 5, 6, 8, 10]

    def test_messages_are_settled_in_any_order_and_in_many_pieces(self, engine: Engine) -> None:
        define(engine.store, declared(1), declared(2, "other"))
        enqueue(engine.store, 1, 1, *[b"x"] * 1000)
        enqueue(engine.store, 2, 1, *[b"x"] * 1000)
        gone = [p for p in range(1000, 0, -1) if p % 3 or p % 5 == 0]
        batch = Batch(1)
        for position in gone:
            batch.settle(1, position, 1)
            batch.settle(2, 1001 - position, 1)
        engine.store.apply(batch)
        left = sorted(set(range(1, 1001)) - set(gone))
        assert list(bodies(engine.store, 1)) == left
        assert list(bodies(engine.store, 2)) == [1001 - p for p in reversed(left)]
        assert [q.messages for q in engine.restart().queues] == [len(left)] * 2

    def test_a_message_settled_in_its_own_batch_was_never_there(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        batch = Batch(1)
        batch.enqueue(1, 1, [Content(b"a"), Content(b"b")])
        batch.spill(1, 3, Content(b"c"))
        batch.settle(1, 1, 1)
        batch.settle(1, 3, 1)
        engine.store.apply(batch)
        assert bodies(engine.store, 1) == {2: b"b"}
        assert engine.restart().queues == [stored(1, 1, 1, 2, 2)]

    def test_messages_settled_together_leave_their_own_batch_or_the_store(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"a", b"bb", b"ccc")
        batch = Batch(2)
        batch.settle_all(1, [1, 2], [1, 2])
        assert batch.settled == {1: {1: 1, 2: 2}}
        batch.enqueue(1, 4, [Content(b"d"), Content(b"e")])
        batch.settle_all(1, [3, 4], [3, 1])
        assert (batch.settled, list(batch.enqueued[1])) == ({1: {1: 1, 2: 2, 3: 3}}, [5])
        batch.spill(2, 1, Content(b"f"))
        batch.settle_all(2, [1, 2], [1, 1])
        assert (batch.settled[2], batch.spilled[2]) == ({2: 1}, {})
        engine.store.apply(batch)
        assert bodies(engine.store, 1) == {5: b"e"}

    def test_positions_may_begin_again_after_a_restart(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"a", b"b", b"c")
        settle(engine.store, 1, 2, 3)
        assert engine.restart().queues == [stored(1, 1, 1, 1, 1)]
        enqueue(engine.store, 1, 2, b"d")
        assert bodies(engine.store, 1) == {1: b"a", 2: b"d"}

    def test_a_batch_whose_position_is_taken_is_refused_whole(self, engine: Engine) -> None:
        define(engine.store, declared(1), declared(2, "other"))
        enqueue(engine.store, 1, 1, b"a")
        batch = Batch(1)
        batch.enqueue(2, 1, [Content(b"b")])
        batch.enqueue(1, 1, [Content(b"c")])
        with pytest.raises(StoreError):
            engine.store.apply(batch)
        engine.crash()
        assert bodies(engine.store, 1) == {1: b"a"}
        assert bodies(engine.store, 2) == {}

    def test_an_empty_batch_is_nothing(self, engine: Engine) -> None:
        engine.store.apply(Batch(1))
        assert engine.restart().queues == []

    def test_counts_are_right_even_if_a_batch_settles_what_is_not_there(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"aa", b"bb", b"cc")
        settle(engine.store, 1, 2, 17, body_bytes=2)
        assert engine.restart().queues == [stored(1, 2, 4, 1, 3)]


class TestPurge:
    """Many messages at once."""

    def test_a_purge_removes_a_range(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"xx"] * 10)
        batch = Batch(1)
        batch.purge(1, 3, 8, 6, 12)
        batch.enqueue(1, 11, [Content(b"new")])
        engine.store.apply(batch)
        assert list(bodies(engine.store, 1)) == [1, 2, 9, 10, 11]
        assert engine.crash().queues == [stored(1, 5, 11, 1, 11)]

    def test_a_purge_and_a_settled_message_in_its_range_are_counted_once(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"xx"] * 10)
        batch = Batch(1)
        batch.settle(1, 4, 2)
        batch.purge(1, 1, 5, 4, 8)
        engine.store.apply(batch)
        assert engine.restart().queues == [stored(1, 5, 10, 6, 10)]

    def test_a_deleted_queue_takes_its_messages_along(self, engine: Engine) -> None:
        define(engine.store, declared(1), declared(2, "other"))
        enqueue(engine.store, 1, 1, b"a", b"b")
        enqueue(engine.store, 2, 1, b"c")
        batch = Batch(1)
        batch.enqueue(1, 3, [Content(b"d")])
        batch.settle(1, 1, 1)
        batch.delete_queue(1)
        engine.store.apply(batch)
        assert bodies(engine.store, 1) == {}
        assert bodies(engine.store, 2) == {1: b"c"}
        assert [queue.queue_id for queue in engine.restart().queues] == [2]

    def test_a_queue_id_can_be_used_again(self, engine: Engine) -> None:
        define(engine.store, declared(1), QueueDelivered(1, 50))
        enqueue(engine.store, 1, 1, *[b"old"] * 100)
        define(engine.store, QueueDeleted(1))
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"new")
        assert bodies(engine.store, 1) == {1: b"new"}
        assert engine.restart().queues == [stored(1, 1, 3, 1, 1)]

    @pytest.mark.parametrize("how", ["purge", "delete"])
    @pytest.mark.parametrize("end", ["restart", "crash", "go on"])
    def test_many_messages_go_at_once_and_their_ids_are_free(
        self, engine: Engine, how: str, end: str
    ) -> None:
        count = 5000
        define(engine.store, declared(1), declared(2, "other"))
        enqueue(engine.store, 1, 1, *[b"old"] * count)
        enqueue(engine.store, 2, 1, b"other")
        batch = Batch(1)
        if how == "purge":
            batch.purge(1, 1, count, count, 3 * count)
        else:
            batch.delete_queue(1)
        engine.store.apply(batch)
        assert bodies(engine.store, 1) == {}
        if how == "delete":
            define(engine.store, declared(1))
        if end == "restart":
            engine.restart()
        elif end == "crash":
            engine.crash()
        enqueue(engine.store, 1, 1, b"new 1", b"new 2")
        enqueue(engine.store, 1, count // 2, b"new 3")
        assert bodies(engine.store, 1) == {1: b"new 1", 2: b"new 2", count // 2: b"new 3"}
        settle(engine.store, 1, 2, body_bytes=5)
        assert bodies(engine.store, 2) == {1: b"other"}
        found = engine.restart()
        assert found.queues[0] == stored(1, 2, 10, 1, count // 2)
        assert bodies(engine.store, 1) == {1: b"new 1", count // 2: b"new 3"}

    def test_a_large_purge_leaves_what_is_around_it(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"x"] * 8000)
        batch = Batch(1)
        batch.purge(1, 3, 3000, 2998, 2998)
        batch.purge(1, 3002, 7998, 4997, 4997)
        engine.store.apply(batch)
        left = [1, 2, 3001, 7999, 8000]
        assert list(bodies(engine.store, 1)) == left
        assert engine.crash().queues == [stored(1, 5, 5, 1, 8000)]
        assert list(bodies(engine.store, 1)) == left
        settle(engine.store, 1, 1, 2, 8000)
        assert engine.restart().queues == [stored(1, 2, 2, 3001, 7999)]


class TestTransient:
    """Messages that do not survive."""

    @pytest.mark.parametrize("end", ["restart", "crash"])
    def test_spilled_messages_vanish_on_restart(self, engine: Engine, end: str) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"a")
        spill(engine.store, 1, 2, b"bb", b"cc")
        enqueue(engine.store, 1, 4, b"d")
        spill(engine.store, 1, 5, b"ee")
        assert [m.persistent for m in everything(engine.store, 1)] == [True, False, False, True, False]
        found = engine.restart() if end == "restart" else engine.crash()
        assert found.queues == [stored(1, 2, 2, 1, 4)]
        assert bodies(engine.store, 1) == {1: b"a", 4: b"d"}

    def test_spilled_messages_of_a_transient_queue_vanish_on_restart(self, engine: Engine) -> None:
        spill(engine.store, 7, 1, b"a", b"b")
        assert list(bodies(engine.store, 7)) == [1, 2]
        engine.restart()
        assert bodies(engine.store, 7) == {}

    def test_a_transient_queue_can_be_deleted(self, engine: Engine) -> None:
        spill(engine.store, 7, 1, b"a", b"b")
        define(engine.store, QueueDeleted(7))
        assert bodies(engine.store, 7) == {}
        define(engine.store, declared(7))
        assert engine.restart().queues == [stored(7, 0, 0, 1, 0)]

    def test_spilled_messages_can_be_settled(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        spill(engine.store, 1, 1, b"a", b"b", b"c")
        settle(engine.store, 1, 2)
        assert list(bodies(engine.store, 1)) == [1, 3]

    def test_an_earlier_position_can_be_spilled_later(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 10, b"ten")
        spill(engine.store, 1, 3, b"three")
        assert bodies(engine.store, 1) == {3: b"three", 10: b"ten"}


class TestRead:
    """Reading back."""

    def test_the_range_is_open_below_and_closed_above(self, engine: Engine) -> None:
        define(engine.store, declared(1), declared(2, "other"))
        enqueue(engine.store, 1, 1, *[b"x"] * 9)
        enqueue(engine.store, 2, 1, b"other")
        assert [m.position for m in read(engine.store, 1, 3, 6, 100, 100)] == [4, 5, 6]
        assert read(engine.store, 1, 9, 100, 100, 100) == []
        assert read(engine.store, 3, 0, 100, 100, 100) == []

    def test_at_most_limit_messages_are_read(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"x"] * 9)
        assert [m.position for m in read(engine.store, 1, 2, NO_LIMIT, 4, 100)] == [3, 4, 5, 6]

    def test_reading_stops_at_max_bytes(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, *[b"12345"] * 9)
        assert len(read(engine.store, 1, 0, NO_LIMIT, 100, 14)) == 3
        assert len(read(engine.store, 1, 0, NO_LIMIT, 100, 15)) == 3
        assert len(read(engine.store, 1, 0, NO_LIMIT, 100, 16)) == 4

    def test_one_message_is_read_however_long_it_is(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"x" * 1000, b"y")
        assert [m.position for m in read(engine.store, 1, 0, NO_LIMIT, 100, 1)] == [1]

    def test_one_thread_reads_while_another_writes(self, engine: Engine) -> None:
        rounds = 40
        define(engine.store, declared(1))
        errors: list[BaseException] = []

        def write() -> None:
            try:
                for n in range(rounds):
                    enqueue(engine.store, 1, n * 50 + 1, *[b"x" * 200] * 50)
                    engine.store.checkpoint()
            except BaseException as error:  # shown by the assertion below
                errors.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        positions: list[int] = []
        while len(positions) < rounds * 50 and (writer.is_alive() or not positions):
            positions += [m.position for m in read(engine.store, 1, len(positions), NO_LIMIT, 30, NO_LIMIT)]
        writer.join()
        positions += [m.position for m in read(engine.store, 1, len(positions), NO_LIMIT, NO_LIMIT, NO_LIMIT)]
        assert errors == []
        assert positions == list(range(1, rounds * 50 + 1))


class TestOwner:
    """Epochs and the end."""

    def test_a_batch_of_a_lower_epoch_is_refused(self, engine: Engine) -> None:
        batch = Batch(1, epoch=7)
        batch.definitions.append(declared(1))
        engine.store.apply(batch)
        engine.restart()
        stale = Batch(1, epoch=6)
        stale.definitions.append(declared(2, "other"))
        with pytest.raises(StaleEpochError):
            engine.store.apply(stale)
        with pytest.raises(StaleEpochError):
            engine.store.apply(Batch(1, epoch=6))

    def test_the_owner_goes_on_after_a_stale_one_was_refused(self, engine: Engine) -> None:
        engine.store.apply(Batch(1, epoch=7))
        with pytest.raises(StaleEpochError):
            engine.store.apply(Batch(1, epoch=1))
        batch = Batch(1, epoch=7)
        batch.definitions.append(declared(1))
        engine.store.apply(batch)
        assert len(engine.crash().queues) == 1

    def test_an_empty_batch_of_a_new_epoch_fences_too(self, engine: Engine) -> None:
        engine.store.apply(Batch(1, epoch=9))
        engine.crash()
        with pytest.raises(StaleEpochError):
            define(engine.store, declared(1))

    def test_closing_twice_is_harmless_and_a_closed_store_refuses(self, engine: Engine) -> None:
        engine.store.close()
        engine.store.close()
        with pytest.raises(StoreError, match="closed"):
            define(engine.store, declared(1))
        with pytest.raises(StoreError, match="closed"):
            read(engine.store, 1, 0, 1, 1, 1)

    def test_a_checkpoint_changes_nothing_to_see(self, engine: Engine) -> None:
        define(engine.store, declared(1))
        enqueue(engine.store, 1, 1, b"a")
        engine.store.checkpoint()
        enqueue(engine.store, 1, 2, b"b")
        engine.store.checkpoint()
        assert bodies(engine.store, 1) == {1: b"a", 2: b"b"}
        engine.crash()
        assert bodies(engine.store, 1) == {1: b"a", 2: b"b"}
