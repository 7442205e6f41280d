"""taskiq: tasks over quorum queues, delays, priorities and retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from brokers import Broker, Names
from taskiq import InMemoryBroker, SimpleRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType
from waiting import PATIENCE_S, with_asyncio


def make_broker(broker: Broker, names: Names, **options: Any) -> AioPikaBroker:
    """Make a taskiq broker whose results stay in this process."""
    kind = options.pop("type", QueueType.QUORUM)
    return (
        AioPikaBroker(
            broker.url,
            exchange=Exchange(name=names.exchange()),
            dead_letter_queue=Queue(name=names.queue(), type=kind),
            delay_queue=Queue(name=names.queue(), type=kind),
        )
        .with_result_backend(InMemoryBroker().result_backend)
        .with_queue(Queue(name=names.queue(), type=kind, **options))
        .with_middlewares(SimpleRetryMiddleware(default_retry_count=3))
    )


@asynccontextmanager
async def working(tasks: AioPikaBroker) -> AsyncIterator[None]:
    """Work in this loop."""
    tasks.is_worker_process = True
    await tasks.startup()
    worker = asyncio.create_task(run_receiver_task(tasks))
    try:
        yield
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await tasks.shutdown()


@with_asyncio
async def test_tasks_run_and_return_results(broker: Broker, names: Names) -> None:
    tasks = make_broker(broker, names)

    @tasks.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(tasks):
        sent = [await add.kiq(number, number) for number in range(20)]
        results = [await task.wait_result(timeout=PATIENCE_S) for task in sent]
        assert [result.return_value for result in results] == [2 * number for number in range(20)]


@with_asyncio
async def test_a_classic_queue_will_do_as_well(broker: Broker, names: Names) -> None:
    tasks = make_broker(broker, names, type=QueueType.CLASSIC)

    @tasks.task
    async def greet(word: str) -> str:
        return f"hello {word}"

    async with working(tasks):
        result = await (await greet.kiq("you")).wait_result(timeout=PATIENCE_S)
        assert result.return_value == "hello you"


@with_asyncio
async def test_a_delayed_task_runs_later(broker: Broker, names: Names) -> None:
    tasks, done = make_broker(broker, names), asyncio.Queue[str]()

    @tasks.task
    async def note(word: str) -> None:
        await done.put(word)

    async with working(tasks), asyncio.timeout(PATIENCE_S):
        await note.kicker().with_labels(delay=0.3).kiq("later")
        await note.kiq("now")
        assert [await done.get(), await done.get()] == ["now", "later"]


@with_asyncio
async def test_a_failing_task_is_tried_again(broker: Broker, names: Names) -> None:
    tasks, tries = make_broker(broker, names), asyncio.Queue[int]()

    @tasks.task(retry_on_error=True, max_retries=3)
    async def fail() -> None:
        await tries.put(1)
        raise ValueError("as told")

    async with working(tasks), asyncio.timeout(PATIENCE_S):
        await fail.kiq()
        assert [await tries.get() for _ in range(3)] == [1, 1, 1]


@with_asyncio
async def test_urgent_tasks_come_first(broker: Broker, names: Names) -> None:
    tasks, done = make_broker(broker, names, type=QueueType.CLASSIC, max_priority=5), asyncio.Queue[int]()

    @tasks.task
    async def note(priority: int) -> None:
        await done.put(priority)

    tasks.is_worker_process = False
    await tasks.startup()
    tasks.is_worker_process = True
    await tasks._declare_queues(tasks.write_channel)
    for priority in (1, 5, 3):
        await note.kicker().with_labels(priority=priority).kiq(priority)
    await tasks.shutdown()
    async with working(tasks), asyncio.timeout(PATIENCE_S):
        assert [await done.get() for _ in range(3)] == [5, 3, 1]
