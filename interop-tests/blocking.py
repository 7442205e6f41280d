"""What tests with pika's BlockingConnection say often: collect deliveries, expect a close."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker
from waiting import PATIENCE_S, QUIET_S


class Delivery(NamedTuple):
    """One message as pika hands it over."""

    method: Any
    properties: pika.BasicProperties
    body: bytes


class Inbox:
    """A consumer that keeps what it receives.

    Nothing is settled unless the test does so; `cancelled` is true once the broker cancelled the consumer.
    """

    def __init__(self, channel: BlockingChannel, queue: str, **options: Any) -> None:
        self.channel = channel
        self.deliveries: list[Delivery] = []
        self.cancelled = False
        channel.add_on_cancel_callback(self._note_cancel)
        self.tag: str = channel.basic_consume(queue, self._keep, **options)

    def _keep(self, channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.deliveries.append(Delivery(method, properties, body))

    def _note_cancel(self, method_frame: Any) -> None:
        self.cancelled = self.cancelled or method_frame.method.consumer_tag == self.tag

    def wait_for(self, count: int, patience_s: float = PATIENCE_S) -> list[Delivery]:
        """Wait until at least `count` messages were delivered and return all of them."""
        self._turn_until(lambda: len(self.deliveries) >= count, f"{count} deliveries", patience_s)
        return self.deliveries

    def wait_for_cancel(self) -> None:
        """Wait until the broker cancels this consumer."""
        self._turn_until(lambda: self.cancelled, "a cancel from the broker", PATIENCE_S)

    def after_a_while(self, seconds: float = QUIET_S) -> list[Delivery]:
        """Watch for `seconds` and return all deliveries so far: for "and no more than these"."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.channel.connection.process_data_events(left)
        return self.deliveries

    def _turn_until(self, condition: Any, what: str, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"no {what} within {patience_s} s, only {self.deliveries}"
            self.channel.connection.process_data_events(min(left, 0.2))

    @property
    def bodies(self) -> list[bytes]:
        """The bodies so far, in order of arrival."""
        return [delivery.body for delivery in self.deliveries]


def get(channel: BlockingChannel, queue: str, auto_ack: bool = True) -> Delivery:
    """Fetch one message with basic.get; there must be one."""
    method, properties, body = channel.basic_get(queue, auto_ack=auto_ack)
    assert method is not None, f"{queue} is empty"
    return Delivery(method, properties, body)


def get_soon(channel: BlockingChannel, queue: str, auto_ack: bool = True) -> Delivery:
    """Fetch one message with basic.get, waiting for it: it comes over a timer or another connection."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=auto_ack)
        if method is not None:
            return Delivery(method, properties, body)
        assert time.monotonic() < deadline, f"{queue} stayed empty for {PATIENCE_S} s"
        channel.connection.sleep(0.02)


def drain(channel: BlockingChannel, queue: str) -> list[bytes]:
    """Take and return the bodies of all ready messages."""
    bodies: list[bytes] = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


def ready(channel: BlockingChannel, queue: str) -> int:
    """Count the ready messages, as passive declare tells it.

    RabbitMQ answers this question before it works off what was published without confirms just before:
    publish with confirms, or use `drain`, which does not overtake.
    """
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def wait_until_ready(channel: BlockingChannel, queue: str, count: int) -> None:
    """Wait until the queue has exactly `count` ready messages."""
    deadline = time.monotonic() + PATIENCE_S
    while (now := ready(channel, queue)) != count:
        assert time.monotonic() < deadline, f"{queue} has {now} ready messages, not {count}"
        channel.connection.sleep(0.02)


def consumers(channel: BlockingChannel, queue: str) -> int:
    """Count the consumers, as passive declare tells it."""
    return int(channel.queue_declare(queue, passive=True).method.consumer_count)


def exists(connection: pika.BlockingConnection, queue: str) -> bool:
    """Tell whether a queue exists, on a channel that may break over the question."""
    return _is_there(lambda: connection.channel().queue_declare(queue, passive=True))


def exchange_exists(connection: pika.BlockingConnection, exchange: str) -> bool:
    """Tell whether an exchange exists, on a channel that may break over the question."""
    return _is_there(lambda: connection.channel().exchange_declare(exchange, passive=True))


def _is_there(look: Callable[[], object]) -> bool:
    try:
        look()
    except ChannelClosedByBroker as closed:
        if closed.reply_code != 404:
            raise
        return False
    return True


def sync(channel: BlockingChannel) -> None:
    """Ask something harmless and wait for the answer: an error on its way surfaces here."""
    channel.basic_qos(prefetch_count=0)


@contextmanager
def channel_closed(code: int, *texts: str) -> Iterator[None]:
    """Expect that the broker closes the channel, and only the channel.

    Args:
        code: the reply code.
        texts: the reply text must be one of these; none given means any.
    """
    with pytest.raises(ChannelClosedByBroker) as closed:
        yield
    assert closed.value.reply_code == code, closed.value.reply_text
    assert not texts or closed.value.reply_text in texts


@contextmanager
def connection_closed(code: int, *texts: str) -> Iterator[None]:
    """Expect that the broker closes the whole connection; arguments as for `channel_closed`."""
    with pytest.raises(ConnectionClosedByBroker) as closed:
        yield
    assert closed.value.reply_code == code, closed.value.reply_text
    assert not texts or closed.value.reply_text in texts


@contextmanager
def refused(*accepts: int) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Expect a close of either kind with one of several reply codes.

    For the few places where RabbitMQ 3.x and 4.x differ: both must pass.
    """
    with pytest.raises((ChannelClosedByBroker, ConnectionClosedByBroker)) as closed:
        yield closed
    assert closed.value.reply_code in accepts, closed.value.reply_text
