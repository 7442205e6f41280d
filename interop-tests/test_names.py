"""Unusual names for queues, exchanges and keys."""

from __future__ import annotations

import pytest
from blocking import channel_closed, get
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from wire import (
    BASIC_GET,
    BASIC_GET_OK,
    BASIC_PUBLISH,
    BASIC_RETURN,
    QUEUE_BIND,
    QUEUE_BIND_OK,
    QUEUE_DECLARE,
    QUEUE_DECLARE_OK,
    Peer,
    basic_get,
    basic_publish,
    queue_declare,
    shortstr,
)

UNUSUAL = ["é", "日本語", "with blanks", "!?<>'\"\\{}%s", "\x01\x7f", "a/b:c@d#e", "🐇"]


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_a_queue_may_have_an_unusual_name(channel: BlockingChannel, names: Names, unusual: str) -> None:
    queue = names.queue(names.text() + unusual)

    assert channel.queue_declare(queue).method.queue == queue
    channel.basic_publish("", queue, b"x")
    assert get(channel, queue).method.routing_key == queue


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_an_exchange_and_its_keys_may_have_unusual_names(
    channel: BlockingChannel, names: Names, queue: str, unusual: str
) -> None:
    exchange = names.exchange(names.text() + unusual)
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, f"*.{unusual}")

    channel.basic_publish(exchange, f"{unusual}.{unusual}", b"x")

    method = get(channel, queue).method
    assert (method.exchange, method.routing_key) == (exchange, f"{unusual}.{unusual}")


def test_names_may_have_255_bytes(channel: BlockingChannel, names: Names) -> None:
    prefix = names.text()
    queue = names.queue(prefix + "é" * ((255 - len(prefix)) // 2))
    assert 254 <= len(queue.encode()) <= 255
    exchange = names.exchange(queue)
    channel.queue_declare(queue)
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "k" * 255)

    channel.basic_publish(exchange, "k" * 255, b"x", BasicProperties(correlation_id="c" * 255))

    method = get(channel, queue).method
    assert (method.exchange, method.routing_key) == (exchange, "k" * 255)


def test_an_error_names_an_unusual_name_as_it_is(channel: BlockingChannel, names: Names) -> None:
    missing = names.text() + "é日本"

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.queue_declare(missing, passive=True)


def test_names_are_case_sensitive(channel: BlockingChannel, queue: str) -> None:
    with channel_closed(404):
        channel.queue_declare(queue.upper(), passive=True)


def test_a_queue_name_that_is_no_text_is_refused(peer: Peer) -> None:
    peer.send_method(1, QUEUE_DECLARE, queue_declare(b"\xff\xfe"))

    close = peer.receive_close()
    assert (close.channel, close.reply_code, close.reply_text) == (
        0,
        501,
        "FRAME_ERROR - Malformed UTF-8 in shortstr",
    )


def test_a_routing_key_may_be_any_bytes(peer: Peer, names: Names) -> None:
    queue = names.queue()
    peer.declare_queue(queue)
    peer.ask(
        1,
        QUEUE_BIND,
        b"\0\0" + shortstr(queue) + shortstr("amq.topic") + shortstr(queue + ".#") + bytes(5),
        QUEUE_BIND_OK,
    )
    key = queue.encode() + b".\xff\xfe"

    peer.publish(key, b"x", exchange="amq.topic")

    peer.send_method(1, BASIC_GET, basic_get(queue))
    assert shortstr(key) in peer.receive_content(BASIC_GET_OK).method.arguments


def test_a_message_for_a_queue_name_that_is_no_text_is_unroutable(peer: Peer) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", b"\xff\xfe", 1))
    peer.send_header(1, 0)

    returned = peer.receive_content(BASIC_RETURN)
    assert returned.method.arguments == b"\x01\x38" + shortstr("NO_ROUTE") + shortstr("") + shortstr(
        b"\xff\xfe"
    )


def test_a_declared_name_comes_back_in_the_answer(peer: Peer, names: Names) -> None:
    queue = names.queue(names.text() + "!ü")

    answer = peer.ask(1, QUEUE_DECLARE, queue_declare(queue), QUEUE_DECLARE_OK)

    assert answer.arguments == shortstr(queue) + bytes(8)
