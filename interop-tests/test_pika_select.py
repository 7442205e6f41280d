"""pika's SelectConnection: callbacks all the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
import pytest
from blocking import drain
from brokers import Broker, Names
from pika.adapters.blocking_connection import BlockingChannel


class Conversation:
    """Runs a SelectConnection's loop until `done`; a test adds its steps as callbacks."""

    def __init__(self, broker: Broker, **changes: Any) -> None:
        self.log: list[Any] = []
        self.channel: Any = None
        self._step: Callable[[], None] = lambda: None
        self.connection = pika.SelectConnection(
            broker.pika_parameters(**changes),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=lambda _, error: self.finish(error),
            on_close_callback=self._closed,
        )

    def run(self, first_step: Callable[[], None]) -> list[Any]:
        """Open a channel, take the first step, and loop until `finish`; return the log."""
        self._step = first_step
        self.connection.ioloop.start()
        return self.log

    def finish(self, *entries: Any) -> None:
        """Note the entries, close the connection, end the loop."""
        self.log += entries
        if self.connection.is_open:
            self.connection.close()
        else:
            self.connection.ioloop.stop()

    def _opened(self, channel: Any) -> None:
        self.channel = channel
        self._step()

    def _closed(self, _connection: Any, reason: BaseException) -> None:
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            self.log.append(reason)
        self.connection.ioloop.stop()


@pytest.fixture
def conversation(broker: Broker) -> Conversation:
    """A connection that will open once its loop runs."""
    return Conversation(broker)


def test_a_message_goes_round(conversation: Conversation, names: Names) -> None:
    queue = names.queue()

    def declare() -> None:
        conversation.channel.queue_declare(queue, callback=consume)

    def consume(_declared: Any) -> None:
        conversation.channel.basic_consume(queue, received)
        conversation.channel.basic_publish("", queue, b"hello")

    def received(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        conversation.finish(body)

    assert conversation.run(declare) == [b"hello"]


def test_steps_may_be_sent_without_waiting_for_answers(conversation: Conversation, names: Names) -> None:
    queue, exchange = names.queue(), names.exchange()

    def all_at_once() -> None:
        channel = conversation.channel
        channel.exchange_declare(exchange, "topic")
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "#")
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *delivery: conversation.finish(delivery[3]))
        channel.basic_publish(exchange, "any.key", b"hello")

    assert conversation.run(all_at_once) == [b"hello"]


def test_a_thousand_publishes_are_confirmed(
    conversation: Conversation, channel: BlockingChannel, queue: str
) -> None:
    confirmed: set[int] = set()

    def select() -> None:
        conversation.channel.confirm_delivery(on_confirm, callback=publish)

    def publish(_selected: Any) -> None:
        for number in range(1000):
            conversation.channel.basic_publish("", queue, b"%d" % number)

    def on_confirm(frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        first = max(confirmed, default=0) + 1 if frame.method.multiple else frame.method.delivery_tag
        confirmed.update(range(first, frame.method.delivery_tag + 1))
        if len(confirmed) == 1000:
            conversation.finish()

    conversation.run(select)
    assert drain(channel, queue) == [b"%d" % number for number in range(1000)]


def test_an_unroutable_message_comes_to_the_return_callback(conversation: Conversation, names: Names) -> None:
    def publish() -> None:
        conversation.channel.add_on_return_callback(
            lambda _channel, method, _properties, body: conversation.finish(method.reply_code, body)
        )
        conversation.channel.basic_publish("", names.text(), b"nobody", mandatory=True)

    assert conversation.run(publish) == [312, b"nobody"]


def test_a_channel_error_comes_to_the_close_callback(conversation: Conversation, names: Names) -> None:
    missing = names.text()

    def look() -> None:
        conversation.channel.add_on_close_callback(
            lambda _channel, reason: conversation.finish(reason.reply_code, reason.reply_text)
        )
        conversation.channel.queue_declare(missing, passive=True)

    assert conversation.run(look) == [404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"]


def test_a_connection_error_comes_to_the_close_callback(conversation: Conversation) -> None:
    (reason,) = conversation.run(lambda: conversation.channel.basic_qos(prefetch_size=1))

    assert (reason.reply_code, reason.reply_text) == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)")


def test_a_refused_login_comes_to_the_open_error_callback(broker: Broker) -> None:
    conversation = Conversation(broker.with_login("guest", "wrong"))

    (error,) = conversation.run(lambda: None)

    assert isinstance(error, pika.exceptions.AMQPConnectionError)


def test_a_cancel_from_the_broker_comes_to_its_callback(
    conversation: Conversation, channel: BlockingChannel, queue: str
) -> None:
    def consume() -> None:
        conversation.channel.add_on_cancel_callback(
            lambda frame: conversation.finish(frame.method.consumer_tag)
        )
        conversation.channel.basic_consume(
            queue, lambda *_: None, consumer_tag="t", callback=lambda _: channel.queue_delete(queue)
        )

    assert conversation.run(consume) == ["t"]


def test_two_channels_work_side_by_side(conversation: Conversation, names: Names) -> None:
    queue = names.queue()
    received: list[bytes] = []

    def open_another() -> None:
        conversation.channel.queue_declare(queue)
        conversation.channel.basic_consume(queue, keep, auto_ack=True)
        conversation.connection.channel(on_open_callback=publish)

    def publish(channel: Any) -> None:
        for number in range(100):
            channel.basic_publish("", queue, b"%d" % number)

    def keep(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        received.append(body)
        if len(received) == 100:
            conversation.finish()

    conversation.run(open_another)
    assert received == [b"%d" % number for number in range(100)]
