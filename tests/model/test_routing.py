"""Routing from the exchange a message is published to, through other exchanges, to queues."""

from __future__ import annotations

from itertools import pairwise

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.broker.model.exchanges.routing import route
from leveret.protocol.tables import Field, Table


class Queue:
    """Something with a name to bind."""

    def __init__(self, name: str) -> None:
        self.name = name


def exchange(name: str, type_name: str = "fanout", alternate: str | None = None) -> Exchange:
    arguments: Table = {} if alternate is None else {"alternate-exchange": Field("S", alternate.encode())}
    return Exchange("/", name, type_name, arguments=arguments)


def bind(source: Exchange, *destinations: Queue | Exchange, key: str = "k") -> None:
    for destination in destinations:
        source.bind(destination, key, {})


def routed(source: Exchange, *others: Exchange, keys: tuple[str, ...] = ("k",)) -> list[str]:
    by_name = {other.name: other for other in (source, *others)}
    return [queue.name for queue in route(source, list(keys), None, by_name.get).queues]


def is_cacheable(source: Exchange, *others: Exchange) -> bool:
    by_name = {other.name: other for other in (source, *others)}
    return route(source, ["k"], None, by_name.get).cacheable


def test_a_message_reaches_each_queue_once_however_many_ways_lead_there() -> None:
    first, inner, other = exchange("first"), exchange("inner"), exchange("other")
    one, two, three = Queue("one"), Queue("two"), Queue("three")
    bind(first, inner, one, other)
    bind(inner, two, one, three)
    bind(other, three, two)
    assert routed(first) == ["one", "two", "three"]


def test_a_circle_of_exchanges_ends() -> None:
    first, second = exchange("first"), exchange("second")
    bind(first, second, first, Queue("one"))
    bind(second, first, Queue("two"))
    assert routed(first) == ["one", "two"]


def test_every_exchange_on_the_way_looks_at_the_routing_keys() -> None:
    first, second = exchange("first", "topic"), exchange("second", "direct")
    bind(first, second, key="k.#")
    bind(second, Queue("one"), key="k.a")
    bind(second, Queue("two"), key="k")
    assert routed(first, keys=("k.a",)) == ["one"]
    assert routed(first, keys=("k.b", "k")) == ["two"]
    assert routed(first, keys=("z",)) == []


def test_an_unroutable_message_goes_to_the_alternate_exchange_and_on_from_there() -> None:
    first, second, third = (
        exchange("first", "direct", "second"),
        exchange("second", "direct", "third"),
        exchange("third"),
    )
    bind(third, Queue("last"))
    assert routed(first, second, third) == ["last"]
    bind(first, Queue("own"))
    assert routed(first, second, third) == ["own"]


def test_an_exchange_in_between_uses_its_alternate_exchange_too() -> None:
    first, second, third = exchange("first"), exchange("second", "direct", "third"), exchange("third")
    bind(first, second, Queue("one"))
    bind(third, Queue("two"))
    assert routed(first, second, third) == ["one", "two"]


def test_a_binding_to_an_exchange_that_leads_nowhere_keeps_the_alternate_exchange_out() -> None:
    first, dead_end, alternate = (
        exchange("first", "fanout", "alternate"),
        exchange("end"),
        exchange("alternate"),
    )
    bind(first, dead_end)
    bind(alternate, Queue("q"))
    assert routed(first, dead_end, alternate) == []


def test_a_missing_alternate_exchange_is_ignored() -> None:
    assert routed(exchange("first", "direct", "nowhere")) == []


def test_the_default_exchange_is_no_alternate_exchange() -> None:
    queues = {"k": Queue("k")}
    assert routed(exchange("first", "direct", ""), Exchange.default("/", queues)) == []


def test_alternate_exchanges_in_a_circle_end() -> None:
    first, second = exchange("first", "direct", "second"), exchange("second", "direct", "first")
    assert routed(first, second) == []


def test_the_default_exchange_routes_to_queues_by_name() -> None:
    queues = {"k": Queue("k"), "l": Queue("l")}
    assert routed(Exchange.default("/", queues), keys=("k", "missing", "l")) == ["k", "l"]


def test_headers_are_seen_by_a_headers_exchange_behind_another() -> None:
    first, second = exchange("first"), exchange("second", "headers")
    bind(first, second)
    second.bind(Queue("q"), "", {"a": Field("b", 1)})
    no_others: dict[str, Exchange] = {}
    assert not route(first, ["k"], {"a": Field("b", 2)}, no_others.get).queues
    assert [queue.name for queue in route(first, ["k"], {"a": Field("l", 1)}, no_others.get).queues] == ["q"]


def test_a_route_is_cacheable_unless_it_looks_at_more_than_keys_and_bindings() -> None:
    topic, headers, indirect = (
        exchange("topic", "topic"),
        exchange("headers", "headers"),
        exchange("indirect"),
    )
    bind(indirect, headers)
    assert is_cacheable(topic)
    assert not is_cacheable(headers)
    assert not is_cacheable(indirect, headers)
    assert not is_cacheable(exchange("first", "direct", "headers"), headers)
    assert not is_cacheable(Exchange.default("/", {}))


def test_deep_chains_of_exchanges_need_no_stack() -> None:
    chain = [exchange(str(number)) for number in range(5000)]
    for before, after in pairwise(chain):
        bind(before, after)
    bind(chain[-1], Queue("end"))
    assert routed(chain[0]) == ["end"]
