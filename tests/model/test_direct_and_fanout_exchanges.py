"""Direct, fanout and default exchange: which destinations a routing key leads to."""

from __future__ import annotations

import pytest

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.protocol.tables import Field


class Queue:
    """Something with a name to bind."""

    def __init__(self, name: str) -> None:
        self.name = name


def reached(exchange: Exchange, *routing_keys: str) -> list[str]:
    return [destination.name for destination in exchange.matcher.destinations(list(routing_keys), None)]


@pytest.fixture
def direct() -> Exchange:
    exchange = Exchange("/", "d", "direct")
    for name, key in (("one", "a"), ("two", "a"), ("three", "b")):
        exchange.bind(Queue(name), key, {})
    return exchange


def test_a_direct_exchange_routes_to_every_binding_with_that_key_in_binding_order(direct: Exchange) -> None:
    assert reached(direct, "a") == ["one", "two"]


def test_a_direct_exchange_knows_no_wildcards_and_no_parts_of_keys(direct: Exchange) -> None:
    direct.bind(Queue("star"), "*", {})
    assert reached(direct, "#") == []
    assert reached(direct, "a.b") == []
    assert reached(direct, "A") == []
    assert reached(direct, "*") == ["star"]


def test_a_direct_exchange_routes_by_each_routing_key_of_a_message(direct: Exchange) -> None:
    assert reached(direct, "b", "a", "nothing") == ["three", "one", "two"]


def test_a_fanout_exchange_ignores_keys() -> None:
    exchange = Exchange("/", "f", "fanout")
    exchange.bind(Queue("one"), "a", {})
    exchange.bind(Queue("two"), "", {})
    assert reached(exchange, "whatever", "else") == ["one", "two"]


@pytest.mark.parametrize("type_name", ["direct", "fanout", "topic"])
def test_a_destination_bound_twice_is_reached_once_and_until_both_bindings_are_gone(type_name: str) -> None:
    exchange = Exchange("/", "x", type_name)
    queue = Queue("q")
    arguments = {"other": Field("l", 1)}
    exchange.bind(queue, "k", {})
    exchange.bind(queue, "k", arguments)
    assert reached(exchange, "k") == ["q"]
    exchange.unbind(queue, "k", {})
    assert reached(exchange, "k") == ["q"]
    exchange.unbind(queue, "k", arguments)
    assert reached(exchange, "k") == []


def test_the_default_exchange_routes_to_whichever_queues_there_are_by_name() -> None:
    queues = {"a": Queue("a")}
    exchange = Exchange.default("/", queues)
    assert reached(exchange, "a", "b", "a") == ["a"]
    queues["b"] = Queue("b")
    del queues["a"]
    assert reached(exchange, "a", "b") == ["b"]
    assert not exchange.bindings
