"""Dramatiq: actors, retries over delay queues, and what could not be done in a dead-letter queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import dramatiq
import pika
import pytest
from brokers import Broker, Connect, Names
from cuttable import Relay
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend
from waiting import PATIENCE_S, eventually


def make_broker(url: str, **options: object) -> RabbitmqBroker:
    """Make a Dramatiq broker whose actors may ask for results and for their message."""
    broker = RabbitmqBroker(url=url, confirm_delivery=True, **options)
    broker.add_middleware(CurrentMessage())
    broker.add_middleware(Results(backend=StubBackend()))
    return broker


@pytest.fixture
def tasks(broker: Broker) -> Iterator[RabbitmqBroker]:
    """Dramatiq on the broker."""
    made = make_broker(broker.url)
    yield made
    made.close()


@pytest.fixture
def queue_name(names: Names) -> str:
    """A queue that is deleted afterwards with what Dramatiq puts beside it."""
    name = names.queue()
    names.queue(f"{name}.DQ")
    names.queue(f"{name}.XQ")
    return name


@contextmanager
def working(tasks: RabbitmqBroker) -> Iterator[None]:
    """Work in threads."""
    worker = dramatiq.Worker(tasks, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def test_actors_run_and_return_results(tasks: RabbitmqBroker, queue_name: str) -> None:
    @dramatiq.actor(broker=tasks, queue_name=queue_name, store_results=True)
    def add(a: int, b: int) -> int:
        return a + b

    with working(tasks):
        sums = dramatiq.group([add.message(number, number) for number in range(20)], broker=tasks).run()
        assert list(sums.get_results(block=True, timeout=10_000)) == [2 * number for number in range(20)]
        tasks.join(queue_name, timeout=10_000)


def test_a_pipeline_hands_results_on(tasks: RabbitmqBroker, queue_name: str) -> None:
    @dramatiq.actor(broker=tasks, queue_name=queue_name, store_results=True)
    def add(a: int, b: int) -> int:
        return a + b

    with working(tasks):
        total = dramatiq.pipeline([add.message(1, 2), add.message(3), add.message(4)], broker=tasks)
        assert total.run().get_result(block=True, timeout=10_000) == 10


def test_a_failing_actor_is_tried_again_and_then_dead_lettered(
    tasks: RabbitmqBroker, queue_name: str, connect: Connect
) -> None:
    tries: SimpleQueue[int] = SimpleQueue()

    @dramatiq.actor(broker=tasks, queue_name=queue_name, max_retries=2, min_backoff=20, max_backoff=40)
    def fail() -> None:
        message = CurrentMessage.get_current_message()
        tries.put(message.options.get("retries", 0))
        raise ValueError("as told")

    fail.send()
    with working(tasks):
        assert [tries.get(timeout=PATIENCE_S) for _ in range(3)] == [0, 1, 2]
        channel = connect().channel()
        eventually(
            lambda: channel.queue_declare(f"{queue_name}.XQ", passive=True).method.message_count == 1,
            "the message is dead-lettered",
        )


def test_a_delayed_message_is_done_later(tasks: RabbitmqBroker, queue_name: str) -> None:
    done: SimpleQueue[str] = SimpleQueue()

    @dramatiq.actor(broker=tasks, queue_name=queue_name)
    def note(word: str) -> None:
        done.put(word)

    with working(tasks):
        note.send_with_options(args=("later",), delay=300)
        note.send("now")
        assert [done.get(timeout=PATIENCE_S) for _ in range(2)] == ["now", "later"]


def test_messages_have_priorities(broker: Broker, queue_name: str, connect: Connect) -> None:
    tasks = make_broker(broker.url, max_priority=5)

    @dramatiq.actor(broker=tasks, queue_name=queue_name)
    def note() -> None:
        pass

    note.send_with_options(broker_priority=1)
    note.send_with_options(broker_priority=4)
    channel = connect().channel()
    priorities = [channel.basic_get(queue_name, auto_ack=True)[1].priority for _ in range(2)]
    tasks.close()
    assert priorities == [4, 1]


def test_the_queue_stays_as_dramatiq_declared_it(
    tasks: RabbitmqBroker, queue_name: str, connect: Connect
) -> None:
    tasks.declare_queue(queue_name, ensure=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue_name}.XQ"}
    connect().channel().queue_declare(queue_name, durable=True, arguments=arguments)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="inequivalent arg"):
        connect().channel().queue_declare(queue_name, durable=True)


def test_work_goes_on_after_the_connection_was_cut(queue_name: str, relay: Relay) -> None:
    tasks = make_broker(relay.broker.url)
    done: SimpleQueue[str] = SimpleQueue()

    @dramatiq.actor(broker=tasks, queue_name=queue_name)
    def note(word: str) -> None:
        done.put(word)

    def hears_of(word: str) -> bool:
        return done.get(timeout=2 * PATIENCE_S) == word  # what was not acked in time comes again

    with working(tasks):
        note.send("before")
        eventually(lambda: hears_of("before"))
        relay.cut()
        note.send("after")
        eventually(lambda: hears_of("after"), patience_s=2 * PATIENCE_S)
    tasks.close()
