"""FastStream: subscribers and publishers, replies, and what happens to a message whose subscriber fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aio_pika.exceptions import DeliveryError
from brokers import Broker, Connect, Names
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from waiting import PATIENCE_S, with_asyncio


async def arrived(inbox: asyncio.Queue[Any], count: int = 1) -> list[Any]:
    """Wait for the next things in an inbox."""
    async with asyncio.timeout(PATIENCE_S):
        return [await inbox.get() for _ in range(count)]


@with_asyncio
async def test_a_subscriber_receives_what_is_published(broker: Broker, names: Names) -> None:
    app, name, inbox = RabbitBroker(broker.url), names.queue(), asyncio.Queue[Any]()

    @app.subscriber(name)
    async def take(body: dict[str, int]) -> None:
        await inbox.put(body)

    async with app:
        await app.start()
        for number in range(10):
            await app.publish({"number": number}, name, persist=True)
        assert await arrived(inbox, 10) == [{"number": number} for number in range(10)]


@with_asyncio
async def test_a_result_is_published_on(broker: Broker, names: Names) -> None:
    app, first, second, inbox = RabbitBroker(broker.url), names.queue(), names.queue(), asyncio.Queue[Any]()

    @app.subscriber(first)
    @app.publisher(second)
    async def double(number: int) -> int:
        return 2 * number

    @app.subscriber(second)
    async def take(number: int) -> None:
        await inbox.put(number)

    async with app:
        await app.start()
        await app.publish(21, first)
        assert await arrived(inbox) == [42]


@with_asyncio
async def test_a_request_is_answered(broker: Broker, names: Names) -> None:
    app, name = RabbitBroker(broker.url), names.queue()

    @app.subscriber(name)
    async def greet(word: str) -> str:
        return f"hello {word}"

    async with app:
        await app.start()
        replies = await asyncio.gather(*(app.request(word, name, timeout=PATIENCE_S) for word in "abc"))
        assert [await reply.decode() for reply in replies] == ["hello a", "hello b", "hello c"]


@with_asyncio
async def test_a_message_carries_its_properties(broker: Broker, names: Names) -> None:
    app, name, inbox = RabbitBroker(broker.url), names.queue(), asyncio.Queue[Any]()

    @app.subscriber(name)
    async def take(message: RabbitMessage) -> None:
        await inbox.put((message.headers, message.correlation_id, message.raw_message.priority))

    async with app:
        await app.start()
        await app.publish("x", name, headers={"kept": 1}, correlation_id="c", priority=3)
        (headers, correlation_id, priority), *_ = await arrived(inbox)
        assert (headers["kept"], correlation_id, priority) == (1, "c", 3)


@pytest.mark.parametrize(
    ("kind", "published", "bound"),
    [
        (ExchangeType.DIRECT, {"routing_key": "red"}, {"routing_key": "red"}),
        (ExchangeType.TOPIC, {"routing_key": "a.red.b"}, {"routing_key": "*.red.#"}),
        (ExchangeType.FANOUT, {"routing_key": "any"}, {}),
        (ExchangeType.HEADERS, {"headers": {"colour": "red"}}, {"bind_arguments": {"colour": "red"}}),
    ],
)
@with_asyncio
async def test_exchanges_of_the_four_types_route(
    broker: Broker, names: Names, kind: ExchangeType, published: dict[str, Any], bound: dict[str, Any]
) -> None:
    app, inbox = RabbitBroker(broker.url), asyncio.Queue[Any]()
    exchange = RabbitExchange(names.exchange(), kind, auto_delete=True)

    @app.subscriber(RabbitQueue(names.queue(), **bound), exchange)
    async def take(body: str) -> None:
        await inbox.put(body)

    async with app:
        await app.start()
        await app.publish("routed", exchange=exchange, **published)
        assert await arrived(inbox) == ["routed"]


@with_asyncio
async def test_a_failing_subscriber_gets_the_message_again(broker: Broker, names: Names) -> None:
    app, name, tries = RabbitBroker(broker.url), names.queue(), asyncio.Queue[Any]()

    @app.subscriber(name, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def fail(message: RabbitMessage) -> None:
        again = message.raw_message.redelivered
        await tries.put(again)
        if not again:
            raise ValueError("as told")

    async with app:
        await app.start()
        await app.publish("x", name)
        assert await arrived(tries, 2) == [False, True]


@with_asyncio
async def test_a_rejected_message_is_dead_lettered(broker: Broker, names: Names) -> None:
    app, dead, inbox = RabbitBroker(broker.url), names.queue(), asyncio.Queue[Any]()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    first = RabbitQueue(names.queue(), arguments=arguments)

    @app.subscriber(first, ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def fail(body: str) -> None:
        raise ValueError(body)

    @app.subscriber(dead)
    async def take(message: RabbitMessage) -> None:
        await inbox.put(message.headers["x-death"][0]["reason"])

    async with app:
        await app.start()
        await app.publish("x", first)
        assert await arrived(inbox) == ["rejected"]


@with_asyncio
async def test_messages_are_settled_by_hand(broker: Broker, names: Names, connect: Connect) -> None:
    app, name, inbox = RabbitBroker(broker.url), names.queue(), asyncio.Queue[Any]()

    @app.subscriber(name, ack_policy=AckPolicy.MANUAL)
    async def take(message: RabbitMessage) -> None:
        if message.raw_message.redelivered:
            await message.ack()
            await inbox.put("ack")
        else:
            await message.nack(requeue=True)

    async with app:
        await app.start()
        await app.publish("x", name)
        assert await arrived(inbox) == ["ack"]
    assert connect().channel().queue_declare(name, durable=False, passive=True).method.message_count == 0


@with_asyncio
async def test_an_unroutable_message_is_an_error(broker: Broker, names: Names) -> None:
    async with RabbitBroker(broker.url, default_channel=Channel(on_return_raises=True)) as app:
        await app.start()
        with pytest.raises(DeliveryError):
            await app.publish("x", names.text("nowhere"))
