"""aiormq: the bare asyncio client under aio-pika."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from brokers import Broker, Names
from waiting import with_asyncio


@asynccontextmanager
async def connect(broker: Broker) -> AsyncIterator[AbstractConnection]:
    """A connection."""
    connection = await aiormq.connect(broker.url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def open_channel(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel on a connection of its own."""
    async with connect(broker) as connection:
        yield await connection.channel()


@with_asyncio
async def test_a_message_goes_round(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = names.queue()
        await channel.queue_declare(queue)
        answer = await channel.basic_publish(b"hello", routing_key=queue)

        received = await channel.basic_get(queue, no_ack=True)
        assert isinstance(answer, aiormq.spec.Basic.Ack)
        assert received.body == b"hello"


@with_asyncio
async def test_a_consumer_receives_and_acknowledges(broker: Broker, names: Names) -> None:
    received: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    async with open_channel(broker) as channel:
        queue = names.queue()
        await channel.queue_declare(queue)
        await channel.basic_qos(prefetch_count=1)
        consumed = await channel.basic_consume(queue, received.put)
        for number in range(3):
            await channel.basic_publish(b"%d" % number, routing_key=queue)

        for number in range(3):
            message = await asyncio.wait_for(received.get(), 10)
            assert message.body == b"%d" % number
            assert message.delivery_tag is not None
            await channel.basic_ack(message.delivery_tag)
        assert isinstance(await channel.basic_cancel(str(consumed.consumer_tag)), aiormq.spec.Basic.CancelOk)


@with_asyncio
async def test_topology_calls_are_answered(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        source, destination, queue = names.exchange(), names.exchange(), names.queue()
        for exchange in (source, destination):
            await channel.exchange_declare(exchange, exchange_type="topic", auto_delete=True)
        await channel.queue_declare(queue, durable=True, arguments={"x-max-length": 5})
        await channel.queue_bind(queue, destination, "a.#")
        await channel.exchange_bind(destination, source, "#")
        await channel.basic_publish(b"x", exchange=source, routing_key="a.b")
        await channel.exchange_unbind(destination, source, "#")

        assert (await channel.queue_purge(queue)).message_count == 1
        await channel.queue_unbind(queue, destination, "a.#")
        assert (await channel.queue_delete(queue)).message_count == 0
        await channel.exchange_delete(source)


@with_asyncio
async def test_an_unroutable_message_is_a_delivery_error(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        with pytest.raises(aiormq.DeliveryError):
            await channel.basic_publish(b"x", routing_key=names.text(), mandatory=True)


@with_asyncio
async def test_other_publishes_are_not_held_up_by_an_unroutable_one(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as channel:
        queue = names.queue()
        await channel.queue_declare(queue)
        results = await asyncio.gather(
            *(
                channel.basic_publish(b"x", routing_key=key, mandatory=True)
                for key in (queue, names.text(), queue)
            ),
            return_exceptions=True,
        )

    assert [type(result).__name__ for result in results] == ["Ack", "PublishError", "Ack"]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("missing", aiormq.ChannelNotFoundEntity),
        ("reserved", aiormq.ChannelAccessRefused),
        ("inequivalent", aiormq.ChannelPreconditionFailed),
    ],
)
def test_channel_errors_have_their_own_exceptions(
    broker: Broker, names: Names, queue: str, action: str, error: type[Exception]
) -> None:
    @with_asyncio
    async def conversation() -> None:
        async with open_channel(broker) as channel:
            actions = {
                "missing": lambda: channel.queue_declare(names.text(), passive=True),
                "reserved": lambda: channel.queue_declare("amq.interop"),
                "inequivalent": lambda: channel.queue_declare(queue, durable=True),
            }
            with pytest.raises(error):
                await actions[action]()

    conversation()


@with_asyncio
async def test_a_locked_queue_has_its_own_exception(broker: Broker, names: Names) -> None:
    async with open_channel(broker) as owner, open_channel(broker) as stranger:
        queue = names.queue()
        await owner.queue_declare(queue, exclusive=True)
        with pytest.raises(aiormq.ChannelLockedResource):
            await stranger.queue_declare(queue, passive=True)


@with_asyncio
async def test_a_channel_error_leaves_other_channels_alone(broker: Broker, names: Names) -> None:
    async with connect(broker) as connection:
        failing, working = await connection.channel(), await connection.channel()
        with pytest.raises(aiormq.ChannelNotFoundEntity):
            await failing.queue_declare(names.text(), passive=True)

        await working.queue_declare(names.queue())


@with_asyncio
async def test_a_refused_login_is_an_authentication_error(broker: Broker) -> None:
    with pytest.raises((aiormq.AuthenticationError, aiormq.ProbableAuthenticationError)):
        await aiormq.connect(broker.with_login("guest", "wrong").url)


@with_asyncio
async def test_a_connection_error_has_its_own_exception(broker: Broker) -> None:
    connection = await aiormq.connect(broker.url)
    channel = await connection.channel()
    with pytest.raises(aiormq.ConnectionNotImplemented):
        await channel.basic_qos(prefetch_size=1)
    await connection.close()


@with_asyncio
async def test_transactions_are_answered(broker: Broker, names: Names) -> None:
    async with connect(broker) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = names.queue()
        await channel.queue_declare(queue)
        await channel.tx_select()
        await channel.basic_publish(b"discarded", routing_key=queue)
        await channel.tx_rollback()
        await channel.basic_publish(b"kept", routing_key=queue)
        await channel.tx_commit()

        assert (await channel.basic_get(queue, no_ack=True)).body == b"kept"


@with_asyncio
async def test_a_secret_can_be_updated(broker: Broker, names: Names) -> None:
    async with connect(broker) as connection:
        await connection.update_secret("a new secret")

        await (await connection.channel()).queue_declare(names.queue())


@with_asyncio
async def test_a_body_of_ten_megabytes_goes_round(broker: Broker, names: Names) -> None:
    body = bytes(range(250)) * 40_000
    async with open_channel(broker) as channel:
        queue = names.queue()
        await channel.queue_declare(queue)
        await channel.basic_publish(body, routing_key=queue)

        assert (await channel.basic_get(queue, no_ack=True)).body == body
