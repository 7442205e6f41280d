"""Declaring, checking, purging and deleting queues."""

from __future__ import annotations

import re

import pika
import pytest
from blocking import Inbox, channel_closed, drain, exists, get, ready
from brokers import Connect, Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from wire import QUEUE_DECLARE, QUEUE_DECLARE_OK, Peer, queue_declare, shortstr

FOREIGN = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. "
    "It could be originally declared on another connection or the exclusive property value "
    "does not match that of the original declaration."
)


def test_declaring_a_queue_tells_how_many_messages_and_consumers_it_has(
    channel: BlockingChannel, queue: str
) -> None:
    for _ in range(3):
        channel.basic_publish("", queue, b"x")
    channel.basic_get(queue)
    channel.basic_consume(queue, lambda *_: None)
    channel.basic_publish("", queue, b"x")

    method = channel.queue_declare(queue).method
    assert (method.queue, method.message_count, method.consumer_count) == (queue, 0, 1)


def test_only_ready_messages_are_counted(channel: BlockingChannel, queue: str) -> None:
    for _ in range(3):
        channel.basic_publish("", queue, b"x")
    get(channel, queue, auto_ack=False)

    assert ready(channel, queue) == 2


def test_the_broker_names_a_queue_declared_without_a_name(channel: BlockingChannel, names: Names) -> None:
    name = names.queue(channel.queue_declare("").method.queue)

    assert re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name)


def test_two_server_named_queues_have_different_names(channel: BlockingChannel, names: Names) -> None:
    made = [names.queue(channel.queue_declare("").method.queue) for _ in range(2)]

    assert made[0] != made[1]


def test_a_server_named_queue_can_be_checked_passively(channel: BlockingChannel, names: Names) -> None:
    name = names.queue(channel.queue_declare("").method.queue)

    assert channel.queue_declare(name, passive=True).method.queue == name


def test_names_with_the_prefix_amq_are_reserved(channel: BlockingChannel) -> None:
    with channel_closed(403, "ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'"):
        channel.queue_declare("amq.interop")


def test_a_passive_declare_of_a_missing_queue_is_not_found(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.queue_declare(missing, passive=True)


def test_a_passive_declare_ignores_flags_and_arguments(channel: BlockingChannel, queue: str) -> None:
    channel.queue_declare(queue, passive=True, durable=True, arguments={"x-max-length": -5})


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("auto_delete", [False, True])
def test_declaring_a_queue_again_with_the_same_properties_is_fine(
    channel: BlockingChannel, names: Names, durable: bool, auto_delete: bool
) -> None:
    queue = names.queue()
    arguments = {"x-message-ttl": 60_000, "x-max-length": 10, "x-dead-letter-exchange": ""}

    for _ in range(2):
        channel.queue_declare(queue, durable=durable, auto_delete=auto_delete, arguments=arguments)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ({}, {"durable": True}, "'durable' {}: received 'true' but current is 'false'"),
        ({"durable": True}, {}, "'durable' {}: received 'false' but current is 'true'"),
        ({}, {"auto_delete": True}, "'auto_delete' {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"x-message-ttl": 1000}},
            {"arguments": {"x-message-ttl": 1001}},
            "'x-message-ttl' {}: received '1001' but current is '1000'",
        ),
        (
            {"arguments": {"x-message-ttl": 1000}},
            {},
            "'x-message-ttl' {}: received none but current is the value '1000' of type 'signedint'",
        ),
        (
            {},
            {"arguments": {"x-expires": 60000}},
            "'x-expires' {}: received the value '60000' of type 'signedint' but current is none",
        ),
        (
            {"arguments": {"x-dead-letter-exchange": "a"}},
            {"arguments": {"x-dead-letter-exchange": "b"}},
            "'x-dead-letter-exchange' {}: received 'b' but current is 'a'",
        ),
        (
            {"arguments": {"x-max-length": 5}},
            {"arguments": {"x-max-length": 6}},
            "'x-max-length' {}: received '6' but current is '5'",
        ),
        (
            {},
            {"arguments": {"x-overflow": "reject-publish"}},
            "'x-overflow' {}: received the value 'reject-publish' of type 'longstr' but current is none",
        ),
    ],
)
def test_declaring_a_queue_again_with_another_property_is_refused(
    channel: BlockingChannel, names: Names, first: dict[str, object], second: dict[str, object], text: str
) -> None:
    queue = names.queue()
    channel.queue_declare(queue, **first)

    where = f"for queue '{queue}' in vhost '/'"
    with channel_closed(406, f"PRECONDITION_FAILED - inequivalent arg {text.format(where)}"):
        channel.queue_declare(queue, **second)


def test_the_queue_type_classic_is_the_same_as_none(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "classic"})

    channel.queue_declare(queue, durable=True)


def test_unknown_arguments_are_accepted_and_not_compared(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-note": "first", "n": 1})

    channel.queue_declare(queue, arguments={"x-note": "second"})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-message-ttl": "1000"}, "'x-message-ttl' {}: \"expected integer, got longstr\""),
        ({"x-message-ttl": -1}, "'x-message-ttl' {}: {{value_negative,-1}}"),
        ({"x-message-ttl": 315360000001}, "'x-message-ttl' {}: {{value_too_large,315360000001}}"),
        ({"x-expires": 0}, "'x-expires' {}: {{value_zero,0}}"),
        ({"x-max-length": -1}, "'x-max-length' {}: {{value_negative,-1}}"),
        ({"x-max-length-bytes": True}, "'x-max-length-bytes' {}: \"expected integer, got bool\""),
        ({"x-overflow": "bogus"}, "'x-overflow' {}: invalid_overflow"),
        ({"x-overflow": 1}, "'x-overflow' {}: {{unacceptable_type,signedint}}"),
        (
            {"x-dead-letter-routing-key": "k"},
            "'x-dead-letter-routing-key' {}: routing_key_but_no_dlx_defined",
        ),
        ({"x-queue-type": "bogus"}, "'x-queue-type' {}: \"unsupported queue type 'bogus'\""),
        ({"x-max-age": "1h"}, "'x-max-age' {} of queue type rabbit_classic_queue"),
    ],
)
def test_an_invalid_argument_is_refused(
    channel: BlockingChannel, names: Names, arguments: dict[str, object], text: str
) -> None:
    queue = names.queue()

    where = f"for queue '{queue}' in vhost '/'"
    with channel_closed(406, f"PRECONDITION_FAILED - invalid arg {text.format(where)}"):
        channel.queue_declare(queue, arguments=arguments)


def test_a_dead_letter_exchange_must_be_a_string(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()

    with channel_closed(
        406,
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' "
        f"in queue '{queue}' in vhost '/'",
    ):
        channel.queue_declare(queue, arguments={"x-dead-letter-exchange": 1})


def test_line_ends_are_removed_from_a_declared_queue_name(peer: Peer, names: Names) -> None:
    queue = names.queue()

    declared = peer.ask(1, QUEUE_DECLARE, queue_declare(queue[:8] + "\r\n" + queue[8:]), QUEUE_DECLARE_OK)

    assert declared.arguments == shortstr(queue) + bytes(8)


def test_a_reply_text_too_long_for_the_protocol_is_cut(
    channel: BlockingChannel, other_channel: BlockingChannel, names: Names
) -> None:
    queue = names.queue(names.text() + "x" * 60)
    channel.queue_declare(queue, exclusive=True)

    with channel_closed(405, FOREIGN.format(queue)[:252] + "..."):
        other_channel.queue_declare(queue, passive=True)


def test_an_empty_name_means_the_queue_declared_last_on_the_channel(
    channel: BlockingChannel, names: Names
) -> None:
    name = names.queue(channel.queue_declare("").method.queue)
    channel.queue_bind("", "amq.fanout")
    channel.basic_publish("", name, b"hello")

    assert get(channel, "").body == b"hello"


def test_an_empty_name_and_key_bind_the_last_queue_by_its_own_name(
    channel: BlockingChannel, queue: str
) -> None:
    channel.queue_bind("", "amq.direct", "")

    channel.basic_publish("amq.direct", queue, b"hello")

    assert drain(channel, queue) == [b"hello"]


@pytest.mark.parametrize("action", ["bind", "unbind", "purge", "delete", "get", "consume"])
def test_an_empty_name_before_any_declare_is_not_found(channel: BlockingChannel, action: str) -> None:
    actions = {
        "bind": lambda: channel.queue_bind("", "amq.direct", "k"),
        "unbind": lambda: channel.queue_unbind("", "amq.direct", "k"),
        "purge": lambda: channel.queue_purge(""),
        "delete": lambda: channel.queue_delete(""),
        "get": lambda: channel.basic_get(""),
        "consume": lambda: channel.basic_consume("", lambda *_: None),
    }

    with channel_closed(404, "NOT_FOUND - no previously declared queue"):
        actions[action]()


# exclusive ---------------------------------------------------------------------------------------------


@pytest.fixture
def exclusive(channel: BlockingChannel, names: Names) -> str:
    """The name of a queue exclusive to `connection`."""
    queue = names.queue()
    channel.queue_declare(queue, exclusive=True)
    return queue


def test_an_exclusive_queue_serves_all_channels_of_its_connection(
    second_channel: BlockingChannel, exclusive: str
) -> None:
    second_channel.basic_publish("", exclusive, b"hello")

    assert drain(second_channel, exclusive) == [b"hello"]


def test_anybody_may_publish_to_an_exclusive_queue(
    channel: BlockingChannel, other_channel: BlockingChannel, exclusive: str
) -> None:
    other_channel.confirm_delivery()
    other_channel.basic_publish("", exclusive, b"from outside", mandatory=True)

    assert drain(channel, exclusive) == [b"from outside"]


@pytest.mark.parametrize(
    "action", ["declare", "declare exclusive", "passive", "get", "consume", "purge", "delete", "bind"]
)
def test_an_exclusive_queue_is_locked_for_other_connections(
    other_channel: BlockingChannel, exclusive: str, action: str
) -> None:
    actions = {
        "declare": lambda: other_channel.queue_declare(exclusive),
        "declare exclusive": lambda: other_channel.queue_declare(exclusive, exclusive=True),
        "passive": lambda: other_channel.queue_declare(exclusive, passive=True),
        "get": lambda: other_channel.basic_get(exclusive),
        "consume": lambda: other_channel.basic_consume(exclusive, lambda *_: None),
        "purge": lambda: other_channel.queue_purge(exclusive),
        "delete": lambda: other_channel.queue_delete(exclusive),
        "bind": lambda: other_channel.queue_bind(exclusive, "amq.direct", "k"),
    }

    with channel_closed(405, FOREIGN.format(exclusive)):
        actions[action]()


def test_the_owner_cannot_declare_it_without_exclusive(channel: BlockingChannel, exclusive: str) -> None:
    with channel_closed(405, FOREIGN.format(exclusive)):
        channel.queue_declare(exclusive)


def test_a_shared_queue_cannot_be_declared_exclusive(channel: BlockingChannel, queue: str) -> None:
    with channel_closed(405, FOREIGN.format(queue)):
        channel.queue_declare(queue, exclusive=True)


def test_an_exclusive_queue_goes_with_its_connection(
    connection: pika.BlockingConnection, other_connection: pika.BlockingConnection, exclusive: str
) -> None:
    connection.close()

    assert not exists(other_connection, exclusive)


def test_an_exclusive_queue_stays_when_its_channel_closes(
    connection: pika.BlockingConnection, channel: BlockingChannel, exclusive: str
) -> None:
    channel.close()

    assert exists(connection, exclusive)


def test_an_exclusive_queue_stays_when_its_last_consumer_goes(
    connection: pika.BlockingConnection, channel: BlockingChannel, exclusive: str
) -> None:
    channel.basic_cancel(channel.basic_consume(exclusive, lambda *_: None))

    assert exists(connection, exclusive)


def test_a_name_is_free_again_once_its_exclusive_owner_is_gone(connect: Connect, names: Names) -> None:
    queue = names.queue()

    for _ in range(3):
        owner = connect()
        owner.channel().queue_declare(queue, exclusive=True)
        owner.close()


# auto-delete -------------------------------------------------------------------------------------------


@pytest.fixture
def auto_delete(channel: BlockingChannel, names: Names) -> str:
    """The name of an auto-delete queue."""
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=True)
    return queue


def test_an_auto_delete_queue_goes_with_its_last_consumer(
    connection: pika.BlockingConnection,
    channel: BlockingChannel,
    second_channel: BlockingChannel,
    auto_delete: str,
) -> None:
    first = channel.basic_consume(auto_delete, lambda *_: None)
    second = second_channel.basic_consume(auto_delete, lambda *_: None)

    channel.basic_cancel(first)
    after_the_first = exists(connection, auto_delete)
    second_channel.basic_cancel(second)

    assert (after_the_first, exists(connection, auto_delete)) == (True, False)


def test_an_auto_delete_queue_goes_with_its_consumers_channel(
    connection: pika.BlockingConnection, channel: BlockingChannel, auto_delete: str
) -> None:
    channel.basic_consume(auto_delete, lambda *_: None)

    channel.close()

    assert not exists(connection, auto_delete)


def test_an_auto_delete_queue_goes_with_its_consumers_connection(
    connection: pika.BlockingConnection,
    channel: BlockingChannel,
    other_connection: pika.BlockingConnection,
    auto_delete: str,
) -> None:
    channel.basic_consume(auto_delete, lambda *_: None)

    connection.close()

    assert not exists(other_connection, auto_delete)


def test_an_auto_delete_queue_that_never_had_a_consumer_stays(
    connection: pika.BlockingConnection, channel: BlockingChannel, auto_delete: str
) -> None:
    channel.basic_get(auto_delete)
    channel.close()

    assert exists(connection, auto_delete)


# purge and delete --------------------------------------------------------------------------------------


def test_purging_removes_ready_messages_and_counts_them(channel: BlockingChannel, queue: str) -> None:
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    get(channel, queue, auto_ack=False)

    assert channel.queue_purge(queue).method.message_count == 4


def test_purging_leaves_unacknowledged_messages(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"out")
    delivery = get(channel, queue, auto_ack=False)
    channel.basic_publish("", queue, b"ready")
    channel.queue_purge(queue)

    channel.basic_nack(delivery.method.delivery_tag)

    assert drain(channel, queue) == [b"out"]


def test_purging_a_missing_queue_is_not_found(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.queue_purge(missing)


def test_deleting_a_queue_tells_how_many_messages_went_with_it(channel: BlockingChannel, queue: str) -> None:
    for _ in range(3):
        channel.basic_publish("", queue, b"x")

    assert channel.queue_delete(queue).method.message_count == 3


def test_a_deleted_queue_is_gone(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    channel.queue_delete(queue)

    assert not exists(connection, queue)


def test_a_queue_declared_again_after_deletion_is_empty_and_unbound(
    channel: BlockingChannel, queue: str, names: Names
) -> None:
    key = names.text()
    channel.queue_bind(queue, "amq.direct", key)
    channel.basic_publish("", queue, b"before")
    channel.queue_delete(queue)
    channel.queue_declare(queue)

    channel.basic_publish("amq.direct", key, b"after")

    assert drain(channel, queue) == []


def test_deleting_a_missing_queue_is_fine(channel: BlockingChannel, names: Names) -> None:
    assert channel.queue_delete(names.text()).method.message_count == 0


def test_a_queue_with_consumers_is_not_deleted_if_unused(channel: BlockingChannel, queue: str) -> None:
    channel.basic_consume(queue, lambda *_: None)

    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"):
        channel.queue_delete(queue, if_unused=True)


def test_a_queue_with_messages_is_not_deleted_if_empty(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"x")

    with channel_closed(406, f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"):
        channel.queue_delete(queue, if_empty=True)


def test_an_unused_empty_queue_is_deleted_under_both_conditions(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    channel.queue_delete(queue, if_unused=True, if_empty=True)

    assert not exists(connection, queue)


def test_deleting_a_queue_cancels_its_consumers(
    channel: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    inbox = Inbox(other_channel, queue)

    channel.queue_delete(queue)

    inbox.wait_for_cancel()


def test_messages_come_out_in_the_order_they_went_in(channel: BlockingChannel, queue: str) -> None:
    bodies = [str(number).encode() for number in range(1000)]
    for number, body in enumerate(bodies):
        channel.basic_publish("", queue, body, BasicProperties(delivery_mode=1 + number % 2))

    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait_for(1000)

    assert inbox.bodies == bodies
