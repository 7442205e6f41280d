"""How each exchange type routes."""

from __future__ import annotations

import struct

import pytest
from blocking import drain, get
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from wire import BASIC_QOS, BASIC_QOS_OK, HEADERS, Peer, field, longstr, table


@pytest.fixture
def exchange(names: Names) -> str:
    """A name for the exchange under test."""
    return names.exchange()


def test_the_default_exchange_routes_to_the_queue_named_by_the_routing_key(
    channel: BlockingChannel, queue: str
) -> None:
    channel.basic_publish("", queue, b"hello")

    assert get(channel, queue).body == b"hello"


def test_a_direct_exchange_routes_by_equal_key(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "info")

    for key in ("info", "warning", "INFO", "info.", "inf"):
        channel.basic_publish(exchange, key, key.encode())

    assert drain(channel, queue) == [b"info"]


def test_a_direct_exchange_takes_wildcards_literally(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "#")

    channel.basic_publish(exchange, "anything", b"anything")
    channel.basic_publish(exchange, "#", b"hash")

    assert drain(channel, queue) == [b"hash"]


def test_several_keys_may_lead_to_one_queue(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "info")
    channel.queue_bind(queue, exchange, "warning")

    for key in ("info", "error", "warning"):
        channel.basic_publish(exchange, key, key.encode())

    assert drain(channel, queue) == [b"info", b"warning"]


def test_one_key_may_lead_to_several_queues(channel: BlockingChannel, names: Names, exchange: str) -> None:
    channel.exchange_declare(exchange, "direct")
    queues = [names.queue() for _ in range(3)]
    for queue in queues:
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "k")

    channel.basic_publish(exchange, "k", b"to all")

    assert [drain(channel, queue) for queue in queues] == [[b"to all"]] * 3


def test_a_fanout_exchange_ignores_the_routing_key(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange, "some key")

    channel.basic_publish(exchange, "another key", b"hello")

    assert drain(channel, queue) == [b"hello"]


def test_a_fanout_exchange_delivers_once_to_a_queue_bound_twice(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange, "one")
    channel.queue_bind(queue, exchange, "two")

    channel.basic_publish(exchange, "", b"hello")

    assert drain(channel, queue) == [b"hello"]


TOPICS = ["", ".", "a", "a.", ".b", "b", "ab", "a.b", "b.a", "a..b", "a.x.b", "a.x.y.b", "a.b.c", "A", "a*"]


@pytest.mark.parametrize(
    ("binding_key", "matching"),
    [
        ("#", TOPICS),
        ("*", ["a", "b", "ab", "A", "a*"]),
        ("", [""]),
        (".", ["."]),
        ("*.*", [".", "a.", ".b", "a.b", "b.a"]),
        ("a", ["a"]),
        ("a.b", ["a.b"]),
        ("a.#", ["a", "a.", "a.b", "a..b", "a.x.b", "a.x.y.b", "a.b.c"]),
        ("#.b", [".b", "b", "a.b", "a..b", "a.x.b", "a.x.y.b"]),
        ("a.*.b", ["a..b", "a.x.b"]),
        ("a.#.b", ["a.b", "a..b", "a.x.b", "a.x.y.b"]),
        ("*.#", [topic for topic in TOPICS if topic]),
        ("#.*", [topic for topic in TOPICS if topic]),
        ("#.#", TOPICS),
        ("a*", ["a*"]),
    ],
)
def test_a_topic_exchange_matches_words(
    channel: BlockingChannel, exchange: str, queue: str, binding_key: str, matching: list[str]
) -> None:
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, binding_key)

    for topic in TOPICS:
        channel.basic_publish(exchange, topic, topic.encode())

    assert [body.decode() for body in drain(channel, queue)] == matching


def test_a_topic_exchange_delivers_once_to_a_queue_that_matches_twice(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, "a.#")
    channel.queue_bind(queue, exchange, "#.b")

    channel.basic_publish(exchange, "a.b", b"hello")

    assert drain(channel, queue) == [b"hello"]


def test_a_topic_binding_no_longer_matches_once_it_is_removed(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, "a.#")
    channel.queue_bind(queue, exchange, "a.*")
    channel.queue_unbind(queue, exchange, "a.#")

    channel.basic_publish(exchange, "a.b.c", b"three words")
    channel.basic_publish(exchange, "a.b", b"two words")

    assert drain(channel, queue) == [b"two words"]


@pytest.mark.parametrize(
    ("arguments", "matching"),
    [
        pytest.param({"x-match": "all", "a": 1, "b": "x"}, ["ab", "abc"], id="all of them"),
        pytest.param({"a": 1, "b": "x"}, ["ab", "abc"], id="all is the default"),
        pytest.param({"x-match": "any", "a": 1, "b": "x"}, ["a", "b", "ab", "abc"], id="any of them"),
        pytest.param(
            {"x-match": "all"}, ["none", "a", "b", "ab", "abc", "string"], id="nothing asked of all"
        ),
        pytest.param({"x-match": "any"}, [], id="nothing asked of any"),
        pytest.param({"x-match": "all", "a": None}, ["a", "ab", "abc", "string"], id="void means present"),
        pytest.param({"x-match": "all", "a": "1"}, ["string"], id="a string is no number"),
        pytest.param({"x-match": "all", "x-c": True, "a": 1}, ["a", "ab", "abc"], id="x- names do not count"),
        pytest.param({"x-match": "all-with-x", "x-c": True, "a": 1}, ["abc"], id="x- names count on demand"),
        pytest.param({"x-match": "any-with-x", "x-c": True, "b": "y"}, ["abc"], id="any, with x- names"),
    ],
)
def test_a_headers_exchange_matches_headers(
    channel: BlockingChannel, exchange: str, queue: str, arguments: dict[str, object], matching: list[str]
) -> None:
    channel.exchange_declare(exchange, "headers")
    channel.queue_bind(queue, exchange, "", arguments)

    messages: dict[str, dict[str, object] | None] = {
        "none": None,
        "a": {"a": 1},
        "b": {"b": "x", "c": 0},
        "ab": {"b": "x", "a": 1},
        "abc": {"a": 1, "b": "x", "x-c": True},
        "string": {"a": "1", "b": "z"},
    }
    for body, headers in messages.items():
        channel.basic_publish(exchange, "", body.encode(), BasicProperties(headers=headers))

    assert [body.decode() for body in drain(channel, queue)] == matching


@pytest.mark.parametrize(
    ("tag", "value", "matching"),
    [
        pytest.param("b", b"\1", True, id="a byte"),
        pytest.param("s", b"\0\1", True, id="a short"),
        pytest.param("l", b"\0\0\0\0\0\0\0\1", True, id="a long"),
        pytest.param("d", struct.pack(">d", 1.0), True, id="a double"),
        pytest.param("d", struct.pack(">d", 1.5), False, id="another double"),
        pytest.param("t", b"\1", False, id="a boolean"),
        pytest.param("S", longstr("1"), False, id="a string"),
    ],
)
def test_a_headers_exchange_compares_numbers_by_value_whatever_their_type(
    peer: Peer, channel: BlockingChannel, exchange: str, queue: str, tag: str, value: bytes, matching: bool
) -> None:
    channel.exchange_declare(exchange, "headers")
    channel.queue_bind(queue, exchange, "", {"n": 1})

    peer.publish("", b"x", struct.pack(">H", HEADERS) + table(field("n", tag, value)), exchange)
    peer.ask(1, BASIC_QOS, bytes(7), BASIC_QOS_OK)

    assert drain(channel, queue) == [b"x"] * matching


def test_a_headers_exchange_compares_nested_values(
    channel: BlockingChannel, exchange: str, queue: str
) -> None:
    channel.exchange_declare(exchange, "headers")
    channel.queue_bind(queue, exchange, "", {"list": [1, "two", {"three": 3}]})

    channel.basic_publish(exchange, "", b"same", BasicProperties(headers={"list": [1, "two", {"three": 3}]}))
    channel.basic_publish(exchange, "", b"other", BasicProperties(headers={"list": [1, "two", {"three": 4}]}))

    assert drain(channel, queue) == [b"same"]
