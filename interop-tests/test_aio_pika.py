"""aio-pika: asyncio, confirms by default, connections that heal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
import aiormq
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, QueueEmpty
from aio_pika.patterns import RPC, Master
from brokers import Broker, Names
from cuttable import Relay
from waiting import with_asyncio


@asynccontextmanager
async def open_channel(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel on a connection of its own."""
    connection = await aio_pika.connect(broker.url)
    async with connection:
        yield await connection.channel()


def message(body: bytes = b"x", **properties: object) -> aio_pika.Message:
    """A message."""
    return aio_pika.Message(body, **properties)


@with_asyncio
async def test_a_message_goes_round(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue())
        await channel.default_exchange.publish(message(b"hello"), queue.name)

        received = await queue.get(timeout=5)
        await received.ack()
        assert received.body == b"hello"


@with_asyncio
async def test_an_iterator_receives_messages_in_order(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(names.queue())
        for number in range(100):
            await channel.default_exchange.publish(message(b"%d" % number), queue.name)

        bodies = []
        async with queue.iterator() as messages:
            async for received in messages:
                async with received.process():
                    bodies.append(received.body)
                if len(bodies) == 100:
                    break
    assert bodies == [b"%d" % number for number in range(100)]


@with_asyncio
async def test_a_thousand_publishes_at_once_are_confirmed(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue(), durable=True)
        await asyncio.gather(
            *(
                channel.default_exchange.publish(
                    message(delivery_mode=aio_pika.DeliveryMode.PERSISTENT), queue.name
                )
                for _ in range(1000)
            )
        )

        counted = await channel.declare_queue(queue.name, passive=True)
        assert counted.declaration_result.message_count == 1000


@with_asyncio
async def test_an_unroutable_message_is_a_delivery_error(broker: Broker, names: Names) -> None:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(DeliveryError) as error:
            await channel.default_exchange.publish(message(b"nobody"), names.text(), mandatory=True)

    returned = error.value.message
    assert returned is not None
    assert isinstance(returned.delivery, aiormq.spec.Basic.Return)
    assert (returned.delivery.reply_text, returned.body) == ("NO_ROUTE", b"nobody")


@with_asyncio
async def test_a_refused_message_is_a_delivery_error(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(
            names.queue(), arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        with pytest.raises(DeliveryError):
            await channel.default_exchange.publish(message(), queue.name)


@with_asyncio
async def test_a_message_that_fails_is_requeued_on_demand(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue())
        await channel.default_exchange.publish(message(), queue.name)
        first = await queue.get(timeout=5)
        with pytest.raises(RuntimeError):
            async with first.process(requeue=True):
                raise RuntimeError

        second = await queue.get(timeout=5)
        assert (first.redelivered, second.redelivered) == (False, True)


@with_asyncio
async def test_headers_come_back_as_they_were(broker: Broker, names: Names) -> None:
    headers = {
        "text": "grüße",
        "int": 2**40,
        "small": -1,
        "double": 1.5,
        "bool": True,
        "none": None,
        "list": [1, "two", {"three": 3}],
        "table": {"nested": {"deep": "yes"}},
    }
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue())
        await channel.default_exchange.publish(message(headers=headers), queue.name)

        assert (await queue.get(timeout=5)).headers == headers


@with_asyncio
async def test_a_missing_queue_is_not_found(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        with pytest.raises(ChannelNotFoundEntity):
            await channel.get_queue(names.text())


@with_asyncio
async def test_other_arguments_are_a_failed_precondition(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue())
        with pytest.raises(ChannelPreconditionFailed):
            await channel.declare_queue(queue.name, durable=True)


@with_asyncio
async def test_an_empty_queue_is_empty(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = await channel.declare_queue(names.queue())
        with pytest.raises(QueueEmpty):
            await queue.get(timeout=5)


@with_asyncio
async def test_a_transaction_is_all_or_nothing(broker: Broker, names: Names) -> None:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(names.queue())
        async with channel.transaction():
            await channel.default_exchange.publish(message(b"kept"), queue.name)
        transaction = channel.transaction()
        await transaction.select()
        await channel.default_exchange.publish(message(b"discarded"), queue.name)
        await transaction.rollback()

        assert (await queue.get(timeout=5, no_ack=True)).body == b"kept"
        with pytest.raises(QueueEmpty):
            await queue.get(timeout=5)


@with_asyncio
async def test_a_hundred_channels_publish_side_by_side(broker: Broker, names: Names) -> None:
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channels = [await connection.channel() for _ in range(100)]
        queue = await channels[0].declare_queue(names.queue())
        await asyncio.gather(
            *(channel.default_exchange.publish(message(), queue.name) for channel in channels)
        )

        assert (await queue.delete(if_unused=False, if_empty=False)).message_count == 100


@with_asyncio
async def test_its_rpc_pattern_works(broker: Broker, names: Names) -> None:
    async def multiply(*, a: int, b: int) -> int:
        return a * b

    method = names.queue()
    async with open_channel(broker) as serving, open_channel(broker) as asking:
        server, client = await RPC.create(serving), await RPC.create(asking)
        await server.register(method, multiply, auto_delete=True)

        assert await asyncio.gather(*(client.call(method, {"a": n, "b": 2}) for n in range(20))) == list(
            range(0, 40, 2)
        )
        await server.close()
        await client.close()


@with_asyncio
async def test_its_worker_pattern_works(broker: Broker, names: Names) -> None:
    done: list[int] = []
    everything = asyncio.Event()

    async def work(*, number: int) -> None:
        done.append(number)
        if len(done) == 10:
            everything.set()

    async with open_channel(broker) as working, open_channel(broker) as assigning:
        task = names.queue()
        await Master(working).create_worker(task, work, auto_delete=True)
        for number in range(10):
            await Master(assigning).create_task(task, kwargs={"number": number})
        await asyncio.wait_for(everything.wait(), 10)
    assert sorted(done) == list(range(10))


# connections that heal ---------------------------------------------------------------------------------


@asynccontextmanager
async def open_robust_channel(relay: Relay) -> AsyncIterator[AbstractChannel]:
    """A channel that comes back after the connection was cut."""
    connection = await aio_pika.connect_robust(relay.broker.url, reconnect_interval=0.1)
    async with connection:
        yield await connection.channel()


async def publish_until_received(
    broker: Broker, exchange: str, routing_key: str, body: bytes, bodies: asyncio.Queue[bytes]
) -> None:
    """Publish over another connection, again and again, until the message has come through.

    Right after a cut the broker may not know yet, and give a message to a queue that is about to go.
    """
    received = b""
    async with asyncio.timeout(15):
        while received != body:
            with suppress(DeliveryError, ChannelNotFoundEntity, TimeoutError):
                async with open_channel(broker) as channel:
                    target = await channel.get_exchange(exchange, ensure=False)
                    await target.publish(message(body), routing_key)
                received = await asyncio.wait_for(bodies.get(), 0.2)


@pytest.mark.parametrize("exclusive", [False, True], ids=["a durable queue", "an exclusive queue"])
def test_a_consumer_survives_a_cut_connection(
    broker: Broker, relay: Relay, names: Names, exclusive: bool
) -> None:
    @with_asyncio
    async def conversation() -> None:
        bodies: asyncio.Queue[bytes] = asyncio.Queue()

        async def keep(received: AbstractIncomingMessage) -> None:
            await received.ack()
            await bodies.put(received.body)

        async with open_robust_channel(relay) as channel:
            await channel.set_qos(prefetch_count=5)
            queue = await channel.declare_queue(names.queue(), durable=not exclusive, exclusive=exclusive)
            await queue.consume(keep)
            await publish_until_received(broker, "", queue.name, b"before", bodies)

            relay.cut()

            await publish_until_received(broker, "", queue.name, b"after", bodies)

    conversation()


@with_asyncio
async def test_the_whole_topology_survives_cut_connections(
    broker: Broker, relay: Relay, names: Names
) -> None:
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(received: AbstractIncomingMessage) -> None:
        await bodies.put(received.body)

    async with open_robust_channel(relay) as channel:
        exchange = await channel.declare_exchange(names.exchange(), "topic", auto_delete=True)
        queue = await channel.declare_queue(
            names.queue(), exclusive=True, arguments={"x-message-ttl": 60_000}
        )
        await queue.bind(exchange, "a.*")
        await queue.consume(keep, no_ack=True)

        for number in range(3):
            relay.cut()
            await publish_until_received(broker, exchange.name, "a.b", b"%d" % number, bodies)


@with_asyncio
async def test_unacknowledged_messages_come_again_after_a_cut(relay: Relay, names: Names) -> None:
    received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    async with open_robust_channel(relay) as channel:
        queue = await channel.declare_queue(names.queue(), durable=True)
        await queue.consume(received.put)
        await channel.default_exchange.publish(message(), queue.name)
        first = await asyncio.wait_for(received.get(), 10)

        relay.cut()

        second = await asyncio.wait_for(received.get(), 10)
        await second.ack()
    assert (first.redelivered, second.redelivered) == (False, True)
