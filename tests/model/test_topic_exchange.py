"""The topic exchange: which binding keys match which routing keys, however many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.broker.model.exchanges.topic import TopicMatcher

ROUTING_KEYS = (
    *("", "a", "b", ".", "a.", "a.b", "ab", "a.b.c", ".b", "b.a", "a..b", "a.x.b", "a.x.y.b"),
    *("..", "a*", "#", "*", "a.#", "#.a", ".a.", "x.y.z", "A", "a.*"),
)

ALL = set(ROUTING_KEYS)
WITH_A_WORD = ALL - {""}
WITH_TWO_WORDS = {key for key in ALL if "." in key}

# What RabbitMQ 3.10 routed of the keys above.
MATCHES = {
    "": {""},
    "#": ALL,
    "#.": {".", "a.", "..", ".a."},
    "#.#": ALL,
    "#.#.*": WITH_A_WORD,
    "#.*": WITH_A_WORD,
    "#.*.#": WITH_A_WORD,
    "#.a.#": {"a", "a.", "a.b", "a.b.c", "b.a", "a..b", "a.x.b", "a.x.y.b", "a.#", "#.a", ".a.", "a.*"},
    "#.b": {"b", "a.b", ".b", "a..b", "a.x.b", "a.x.y.b"},
    "#a": set(),
    "*": {"a", "b", "ab", "a*", "#", "*", "A"},
    "*.#": WITH_A_WORD,
    "*.*": {".", "a.", "a.b", ".b", "b.a", "a.#", "#.a", "a.*"},
    "*.*.#": WITH_TWO_WORDS,
    "*.a.#": {"b.a", "#.a", ".a."},
    ".": {"."},
    ".#": {".", ".b", "..", ".a."},
    "..": {".."},
    "a": {"a"},
    "a*": {"a*"},
    "a.#": {"a", "a.", "a.b", "a.b.c", "a..b", "a.x.b", "a.x.y.b", "a.#", "a.*"},
    "a.#.#.b": {"a.b", "a..b", "a.x.b", "a.x.y.b"},
    "a.#.b": {"a.b", "a..b", "a.x.b", "a.x.y.b"},
    "a.*": {"a.", "a.b", "a.#", "a.*"},
    "a.*.b": {"a..b", "a.x.b"},
}


class Queue:
    """Something with a name to bind."""

    def __init__(self, name: str) -> None:
        self.name = name


def topic(*binding_keys: str) -> Exchange:
    """Make an exchange with a queue for each binding key, named after it."""
    exchange = Exchange("/", "t", "topic")
    for key in binding_keys:
        exchange.bind(Queue(key), key, {})
    return exchange


def reached(exchange: Exchange, *routing_keys: str) -> list[str]:
    return [destination.name for destination in exchange.matcher.destinations(list(routing_keys), None)]


def naive_match(pattern: list[str], words: list[str]) -> bool:
    """The definition of a match, in exponential time."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(naive_match(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and naive_match(pattern[1:], words[1:])


def words_of(key: str) -> list[str]:
    return key.split(".") if key else []


def node_count(exchange: Exchange) -> int:
    """Count the nodes of the trie: unbinding must leave none behind."""
    assert isinstance(exchange.matcher, TopicMatcher)
    nodes = [exchange.matcher._root]
    for node in nodes:  # grows
        nodes.extend([*node.words.values(), *filter(None, (node.star, node.hash))])
    return len(nodes)


def pairs() -> list[tuple[str, str, bool]]:
    return [(pattern, key, key in MATCHES[pattern]) for pattern in MATCHES for key in ROUTING_KEYS]


@pytest.mark.parametrize(("binding_key", "routing_key", "matches"), pairs())
def test_a_binding_key_matches_the_routing_keys_that_it_matches_in_rabbitmq(
    binding_key: str, routing_key: str, matches: bool
) -> None:
    assert reached(topic(binding_key), routing_key) == ([binding_key] if matches else [])


@pytest.mark.parametrize("routing_key", ROUTING_KEYS)
def test_binding_keys_do_not_get_in_each_others_way(routing_key: str) -> None:
    exchange = topic(*MATCHES)
    assert sorted(reached(exchange, routing_key)) == sorted(k for k in MATCHES if routing_key in MATCHES[k])


KEYS = st.lists(st.sampled_from(["a", "b", "", "*", "#", "a*"]), max_size=7).map(".".join)


@given(st.lists(KEYS, unique=True, max_size=12), KEYS)
def test_the_trie_agrees_with_the_definition(binding_keys: list[str], routing_key: str) -> None:
    expected = [key for key in binding_keys if naive_match(words_of(key), words_of(routing_key))]
    assert sorted(reached(topic(*binding_keys), routing_key)) == sorted(expected)


@given(st.lists(KEYS, unique=True, min_size=1, max_size=12), st.data())
def test_removing_bindings_leaves_the_others_and_nothing_else(keys: list[str], data: st.DataObject) -> None:
    exchange = Exchange("/", "t", "topic")
    queues = {key: Queue(key) for key in keys}
    for key, queue in queues.items():
        exchange.bind(queue, key, {})
    removed = data.draw(st.lists(st.sampled_from(keys), unique=True))
    for key in removed:
        exchange.unbind(queues[key], key, {})
    kept = [key for key in keys if key not in removed]
    assert node_count(exchange) == node_count(topic(*kept))
    routing_key = data.draw(KEYS)
    assert sorted(reached(exchange, routing_key)) == sorted(reached(topic(*kept), routing_key))


def test_a_queue_bound_by_several_matching_keys_is_reached_once() -> None:
    exchange = Exchange("/", "t", "topic")
    queue = Queue("q")
    for key in ("a.b", "a.*", "#", "#.b", "a.#.b", "*.*"):
        exchange.bind(queue, key, {})
    assert reached(exchange, "a.b") == ["q"]


def test_each_routing_key_of_a_message_is_matched() -> None:
    exchange = topic("a.*", "*.b", "c", "#.d")
    assert sorted(reached(exchange, "a.b", "c", "x")) == ["*.b", "a.*", "c"]


def test_matching_stays_quick_with_many_hashes() -> None:
    """Trying one way after another would take 10**20 steps here, and the test would not end."""
    exchange = topic(*(".".join(["#", "a"] * count + ["#", "z"]) for count in range(1, 40)))
    assert reached(exchange, ".".join(["a"] * 120)) == []


def test_celerys_delayed_delivery_goes_down_28_levels_bit_by_bit() -> None:
    """The keys of kombu's native delayed delivery: 28 bits of the delay, then the queue's name."""
    delay = "0000000000000000000000000101"
    routing_key = ".".join([*delay, "orders", "eu"])
    for level in range(28):
        one = "*." * level + "1.#"
        zero = "*." * level + "0.#"
        assert reached(topic(one, zero), routing_key) == [one if delay[level] == "1" else zero]


def test_a_thousand_patterns_do_not_slow_a_match_that_needs_few_of_them() -> None:
    exchange = topic(*(f"region{number}.*.orders.#" for number in range(1000)))
    assert reached(exchange, "region7.eu.orders.new") == ["region7.*.orders.#"]
