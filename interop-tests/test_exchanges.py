"""Declaring, checking and deleting exchanges."""

from __future__ import annotations

import pika
import pytest
from blocking import channel_closed, drain, exchange_exists, refused, sync
from brokers import Names
from pika.adapters.blocking_connection import BlockingChannel


@pytest.mark.parametrize(
    "exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match", "amq.rabbitmq.trace"]
)
def test_the_standard_exchanges_exist(channel: BlockingChannel, exchange: str) -> None:
    channel.exchange_declare(exchange, passive=True)


@pytest.mark.parametrize(
    ("exchange", "kind"),
    [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ],
)
def test_a_standard_exchange_may_be_declared_as_it_is(
    channel: BlockingChannel, exchange: str, kind: str
) -> None:
    channel.exchange_declare(exchange, kind, durable=True)


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_declaring_an_exchange_again_with_the_same_properties_is_fine(
    channel: BlockingChannel, names: Names, kind: str
) -> None:
    exchange = names.exchange()

    for _ in range(2):
        channel.exchange_declare(exchange, kind, durable=True, auto_delete=True, internal=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"exchange_type": "fanout"},
            "inequivalent arg 'type' {}: received 'fanout' but current is 'direct'",
        ),
        ({"durable": True}, "inequivalent arg 'durable' {}: received 'true' but current is 'false'"),
        ({"auto_delete": True}, "inequivalent arg 'auto_delete' {}: received 'true' but current is 'false'"),
        ({"internal": True}, "inequivalent arg 'internal' {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"alternate-exchange": "ae"}},
            "inequivalent arg 'alternate-exchange' {}: "
            "received the value 'ae' of type 'longstr' but current is none",
        ),
    ],
)
def test_declaring_an_exchange_again_with_another_property_is_refused(
    channel: BlockingChannel, names: Names, change: dict[str, object], text: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct")

    where = f"for exchange '{exchange}' in vhost '/'"
    with channel_closed(406, f"PRECONDITION_FAILED - {text.format(where)}"):
        channel.exchange_declare(exchange, **change)


def test_unknown_arguments_are_not_compared(channel: BlockingChannel, names: Names) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", arguments={"x-note": "first"})

    channel.exchange_declare(exchange, "direct", arguments={"x-note": "second"})


def test_a_passive_declare_of_a_missing_exchange_is_not_found(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        channel.exchange_declare(missing, passive=True)


def test_a_passive_declare_ignores_type_and_flags(channel: BlockingChannel, names: Names) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "topic")

    channel.exchange_declare(exchange, "fanout", passive=True, durable=True)


def test_an_unknown_exchange_type_is_refused(channel: BlockingChannel, names: Names) -> None:
    with refused(503, 406) as closed:
        channel.exchange_declare(names.exchange(), "bogus")

    assert closed.value.reply_text.endswith(" - unknown exchange type 'bogus'")


def test_names_with_the_prefix_amq_are_reserved(channel: BlockingChannel) -> None:
    with channel_closed(403, "ACCESS_REFUSED - exchange name 'amq.interop' contains reserved prefix 'amq.*'"):
        channel.exchange_declare("amq.interop", "direct")


def test_an_alternate_exchange_must_be_a_string(channel: BlockingChannel, names: Names) -> None:
    exchange = names.exchange()

    with channel_closed(
        406,
        f"PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' "
        f"in exchange '{exchange}' in vhost '/'",
    ):
        channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": 5})


DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"


def test_the_default_exchange_cannot_be_declared(channel: BlockingChannel) -> None:
    with channel_closed(403, DEFAULT_EXCHANGE):
        channel.exchange_declare("", "direct", durable=True)


def test_the_default_exchange_cannot_be_deleted(channel: BlockingChannel) -> None:
    with channel_closed(403, DEFAULT_EXCHANGE):
        channel.exchange_delete("")


def test_nothing_can_be_bound_to_the_default_exchange(channel: BlockingChannel, queue: str) -> None:
    with channel_closed(403, DEFAULT_EXCHANGE):
        channel.queue_bind(queue, "", "key")


def test_nothing_can_be_unbound_from_the_default_exchange(channel: BlockingChannel, queue: str) -> None:
    with channel_closed(403, DEFAULT_EXCHANGE):
        channel.queue_unbind(queue, "", queue)


def test_a_standard_exchange_cannot_be_deleted(channel: BlockingChannel) -> None:
    with channel_closed(
        403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    ):
        channel.exchange_delete("amq.direct")


def test_deleting_a_missing_exchange_is_fine(channel: BlockingChannel, names: Names) -> None:
    channel.exchange_delete(names.text())


def test_a_deleted_exchange_is_gone(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", durable=True)

    channel.exchange_delete(exchange)

    assert not exchange_exists(connection, exchange)


def test_an_exchange_with_bindings_is_in_use(channel: BlockingChannel, names: Names, queue: str) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "k")

    with channel_closed(406, f"PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use"):
        channel.exchange_delete(exchange, if_unused=True)


def test_an_exchange_without_bindings_is_deleted_if_unused(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names, queue: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k")

    channel.exchange_delete(exchange, if_unused=True)

    assert not exchange_exists(connection, exchange)


def test_being_a_destination_is_not_being_in_use(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    source, destination = names.exchange(), names.exchange()
    channel.exchange_declare(source, "fanout")
    channel.exchange_declare(destination, "fanout")
    channel.exchange_bind(destination, source)

    channel.exchange_delete(destination, if_unused=True)

    assert not exchange_exists(connection, destination)


def test_deleting_an_exchange_removes_its_bindings(
    channel: BlockingChannel, names: Names, queue: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    channel.exchange_delete(exchange)
    channel.exchange_declare(exchange, "fanout")

    channel.basic_publish(exchange, "", b"nowhere to go")

    assert drain(channel, queue) == []


def test_an_auto_delete_exchange_goes_with_its_last_binding(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names, queue: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "one")
    channel.queue_bind(queue, exchange, "two")

    channel.queue_unbind(queue, exchange, "one")
    after_the_first = exchange_exists(connection, exchange)
    channel.queue_unbind(queue, exchange, "two")

    assert (after_the_first, exchange_exists(connection, exchange)) == (True, False)


def test_an_auto_delete_exchange_goes_with_its_last_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names, queue: str
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "k")

    channel.queue_delete(queue)

    assert not exchange_exists(connection, exchange)


def test_an_auto_delete_exchange_that_was_never_bound_stays(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.close()

    assert exchange_exists(connection, exchange)


def test_an_internal_exchange_takes_no_publishes(channel: BlockingChannel, names: Names) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "fanout", internal=True)
    channel.basic_publish(exchange, "", b"from outside")

    with channel_closed(
        403, f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'"
    ):
        sync(channel)


def test_an_internal_exchange_takes_messages_from_another_exchange(
    channel: BlockingChannel, names: Names, queue: str
) -> None:
    outer, inner = names.exchange(), names.exchange()
    channel.exchange_declare(outer, "fanout")
    channel.exchange_declare(inner, "fanout", internal=True)
    channel.exchange_bind(inner, outer)
    channel.queue_bind(queue, inner)

    channel.basic_publish(outer, "", b"from inside")

    assert drain(channel, queue) == [b"from inside"]


def test_line_ends_are_removed_from_a_declared_exchange_name(
    connection: pika.BlockingConnection, channel: BlockingChannel, names: Names
) -> None:
    exchange = names.exchange()

    channel.exchange_declare(exchange + "\r\n", "direct")

    assert exchange_exists(connection, exchange)
