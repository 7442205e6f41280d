"""py-amqp: the client under kombu and Celery."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal

import amqp
import pytest
from brokers import Broker, Names


def connect(broker: Broker, **options: object) -> amqp.Connection:
    """Open a connection."""
    connection = amqp.Connection(
        f"{broker.host}:{broker.port}",
        userid=broker.user,
        password=broker.password,
        virtual_host=broker.vhost,
        connect_timeout=5,
        read_timeout=10,
        **options,
    )
    connection.connect()
    return connection


@pytest.fixture
def connection(broker: Broker, names: Names) -> Iterator[amqp.Connection]:
    """A connection."""
    connection = connect(broker)
    yield connection
    connection.close()


@pytest.fixture
def channel(connection: amqp.Connection) -> amqp.Channel:
    """A channel."""
    return connection.channel()


@pytest.fixture
def queue(channel: amqp.Channel, names: Names) -> str:
    """The name of an empty queue."""
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=False)
    return queue


@pytest.mark.parametrize("login_method", [None, "PLAIN", "AMQPLAIN"])
def test_it_logs_in_by_every_method(broker: Broker, login_method: str | None) -> None:
    connection = connect(broker, login_method=login_method)

    assert connection.connected
    connection.close()


def test_a_refused_login_is_access_refused(broker: Broker) -> None:
    with pytest.raises(amqp.exceptions.AccessRefused):
        connect(broker.with_login("guest", "wrong"))


def test_a_message_goes_round(channel: amqp.Channel, queue: str) -> None:
    channel.basic_publish(amqp.Message("hello", content_type="text/plain"), routing_key=queue)

    message = channel.basic_get(queue, no_ack=True)
    assert (message.body, message.content_type) == ("hello", "text/plain")


def test_a_consumer_receives_messages(connection: amqp.Connection, channel: amqp.Channel, queue: str) -> None:
    bodies: list[str] = []

    def keep(message: amqp.Message) -> None:
        bodies.append(message.body)
        channel.basic_ack(message.delivery_tag)

    channel.basic_qos(0, 10, False)
    channel.basic_consume(queue, callback=keep)
    for number in range(50):
        channel.basic_publish(amqp.Message(str(number)), routing_key=queue)
    while len(bodies) < 50:
        connection.drain_events(timeout=5)

    assert bodies == [str(number) for number in range(50)]


def test_headers_of_every_kind_come_back(channel: amqp.Channel, queue: str) -> None:
    headers = {
        "string": "grüße",
        "small": 1,
        "long": 2**40,
        "double": 3.25,
        "decimal": Decimal("3.14"),
        "bool": True,
        "none": None,
        "list": [1, "two", None, {"three": [3]}],
        "table": {"nested": {"deep": 1}},
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5),
    }
    channel.basic_publish(amqp.Message("x", application_headers=headers), routing_key=queue)

    assert channel.basic_get(queue, no_ack=True).headers == headers


def test_a_confirmed_publish_returns(connection: amqp.Connection, queue: str) -> None:
    channel = connection.channel()

    for _ in range(10):
        channel.basic_publish_confirm(amqp.Message("x"), routing_key=queue, confirm_timeout=5)


def test_a_refused_publish_is_nacked(broker: Broker, connection: amqp.Connection, names: Names) -> None:
    channel = connection.channel()
    queue = names.queue()
    channel.queue_declare(
        queue, auto_delete=False, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )

    with pytest.raises(amqp.exceptions.MessageNacked):
        channel.basic_publish_confirm(amqp.Message("x"), routing_key=queue, confirm_timeout=5)


def test_an_unroutable_message_is_returned(
    connection: amqp.Connection, channel: amqp.Channel, names: Names
) -> None:
    returned: list[tuple[int, str]] = []
    channel.events["basic_return"].add(
        lambda error, _exchange, _key, message: returned.append((error.reply_code, message.body))
    )
    channel.basic_publish(amqp.Message("nobody"), routing_key=names.text(), mandatory=True)
    while not returned:
        connection.drain_events(timeout=5)

    assert returned == [(312, "nobody")]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("missing", amqp.exceptions.NotFound),
        ("reserved", amqp.exceptions.AccessRefused),
        ("inequivalent", amqp.exceptions.PreconditionFailed),
        ("not implemented", amqp.exceptions.AMQPNotImplementedError),
    ],
)
def test_errors_have_their_own_exceptions(
    channel: amqp.Channel, queue: str, action: str, error: type[Exception]
) -> None:
    actions = {
        "missing": lambda: channel.queue_declare(queue + ".missing", passive=True),
        "reserved": lambda: channel.queue_declare("amq.interop"),
        "inequivalent": lambda: channel.queue_declare(queue, durable=True, auto_delete=False),
        "not implemented": lambda: channel.basic_qos(1, 0, False),
    }

    with pytest.raises(error):
        actions[action]()


def test_a_channel_error_leaves_the_connection_open(connection: amqp.Connection, queue: str) -> None:
    with pytest.raises(amqp.exceptions.NotFound):
        connection.channel().queue_declare(queue + ".missing", passive=True)

    assert connection.channel().queue_declare(queue, passive=True).queue == queue


def test_a_locked_queue_has_its_own_exception(broker: Broker, channel: amqp.Channel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, exclusive=True)
    stranger = connect(broker)

    with pytest.raises(amqp.exceptions.ResourceLocked):
        stranger.channel().queue_declare(queue, passive=True)
    stranger.close()


def test_a_cancel_from_the_broker_is_noticed(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    cancelled: list[str] = []
    tag = channel.basic_consume(queue, callback=lambda _: None, on_cancel=cancelled.append)
    connection.channel().queue_delete(queue)
    while not cancelled:
        connection.drain_events(timeout=5)

    assert cancelled == [tag]


def test_a_changed_channel_limit_serves_a_running_consumer(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    received: list[amqp.Message] = []
    channel.basic_qos(0, 1, True)
    channel.basic_consume(queue, callback=received.append)
    for number in range(3):
        channel.basic_publish(amqp.Message(str(number)), routing_key=queue)
    while len(received) < 1:
        connection.drain_events(timeout=5)

    channel.basic_qos(0, 3, True)
    while len(received) < 3:
        connection.drain_events(timeout=5)

    assert [message.body for message in received] == ["0", "1", "2"]


def test_transactions_are_answered(channel: amqp.Channel, queue: str) -> None:
    channel.tx_select()
    channel.basic_publish(amqp.Message("discarded"), routing_key=queue)
    channel.tx_rollback()
    channel.basic_publish(amqp.Message("kept"), routing_key=queue)
    channel.tx_commit()

    assert channel.basic_get(queue, no_ack=True).body == "kept"


def test_recover_is_answered(channel: amqp.Channel, queue: str) -> None:
    channel.basic_publish(amqp.Message("x"), routing_key=queue)
    channel.basic_get(queue)
    channel.basic_recover(requeue=True)

    assert channel.basic_get(queue).delivery_info["redelivered"]


def test_bindings_between_exchanges_are_answered(channel: amqp.Channel, queue: str, names: Names) -> None:
    source, destination = names.exchange(), names.exchange()
    for exchange in (source, destination):
        channel.exchange_declare(exchange, "fanout", auto_delete=False)
    channel.exchange_bind(destination, source)
    channel.queue_bind(queue, destination)
    channel.basic_publish(amqp.Message("x"), exchange=source)
    channel.exchange_unbind(destination, source)

    assert channel.basic_get(queue, no_ack=True).body == "x"
