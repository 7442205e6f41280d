"""x-consistent-hash and x-modulus-hash: who gets what share, and what moves when destinations come and go."""

from __future__ import annotations

from collections import Counter

import pytest

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.broker.model.exchanges.hashing import hash_of, jump
from leveret.broker.model.exchanges.routing import route_message
from leveret.broker.model.turn import Turn
from leveret.protocol.content import Envelope, Message
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table

KEYS = [f"order.{number}" for number in range(3000)]


class Queue:
    """Something with a name to bind."""

    def __init__(self, name: str) -> None:
        self.name = name


ONE, TWO, THREE = Queue("one"), Queue("two"), Queue("three")


def text(value: str) -> Field:
    return Field("S", value.encode())


def exchange(type_name: str, *bindings: tuple[Queue, str], arguments: Table | None = None) -> Exchange:
    made = Exchange("/", "h", type_name, arguments=arguments)
    for queue, key in bindings:
        made.bind(queue, key, {})
    return made


def chosen(source: Exchange, key: str) -> str:
    (destination,) = source.matcher.destinations([key], None)
    return destination.name


def places(source: Exchange) -> dict[str, str]:
    return {key: chosen(source, key) for key in KEYS}


def chosen_for(source: Exchange, properties: bytes) -> str:
    message = Message(Envelope("h", "k", properties, Properties.parse(properties), 1, 4096), b"", 0)
    (destination,) = route_message(source, ["k"], message, lambda _: None, Turn(0)).queues
    return destination.name


class TestConsistentHash:
    """Shares by weight, and what stays where it is."""

    def test_a_key_always_leads_to_the_same_destination(self) -> None:
        source = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"))
        assert places(source) == places(exchange("x-consistent-hash", (ONE, "1"), (TWO, "1")))

    def test_the_hash_stays_the_same_over_releases(self) -> None:
        assert hash_of([b"order.1"]) == 0x4EA416B318FFC841
        assert [jump(hash_of([key.encode()]), 10) for key in KEYS[:8]] == [7, 7, 7, 4, 6, 4, 3, 1]

    def test_binding_keys_are_weights(self) -> None:
        counts = Counter(places(exchange("x-consistent-hash", (ONE, "1"), (TWO, "3"))).values())
        assert counts["two"] / counts["one"] == pytest.approx(3, rel=0.15)

    def test_a_new_destination_takes_only_its_share_from_the_others(self) -> None:
        source = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"))
        before = places(source)
        source.bind(THREE, "1", {})
        moved = {key: place for key, place in places(source).items() if place != before[key]}
        assert set(moved.values()) == {"three"}
        assert len(moved) / len(KEYS) == pytest.approx(1 / 3, rel=0.1)

    def test_the_first_weight_of_a_destination_stays(self) -> None:
        once = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"))
        twice = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"), (ONE, "9"))
        assert places(once) == places(twice)

    def test_the_next_weight_counts_when_the_first_is_unbound(self) -> None:
        source = exchange("x-consistent-hash", (ONE, "1"), (ONE, "2"))
        source.unbind(ONE, "1", {})
        assert set(places(source).values()) == {"one"}
        source.unbind(ONE, "2", {})
        assert not source.matcher.destinations(["k"], None)

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            ("abc", 'The binding key must be an integer: <<"abc">>'),
            ("", "The binding key must be an integer: <<>>"),
            (" 4", 'The binding key must be an integer: <<" 4">>'),
            ("1.5", 'The binding key must be an integer: <<"1.5">>'),
            ("0", "The binding key must be greater than 0"),
            ("-1", "The binding key must be greater than 0"),
            ("10001", "The binding key must not exceed 10000"),
            ("9" * 200, "The binding key must not exceed 10000"),
        ],
    )
    def test_a_binding_key_that_is_no_weight_is_refused(self, key: str, error: str) -> None:
        with pytest.raises(PreconditionFailed) as refusal:
            exchange("x-consistent-hash", (ONE, key))
        assert refusal.value.text == error

    @pytest.mark.parametrize("key", ["1", "+3", "007", "10000"])
    def test_a_binding_key_that_is_a_weight_is_accepted(self, key: str) -> None:
        assert chosen(exchange("x-consistent-hash", (ONE, key)), "k") == "one"

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (
                {"hash-header": text("h"), "hash-property": text("message_id")},
                "hash-header and hash-property are mutually exclusive",
            ),
            ({"hash-property": text("foo")}, "Unsupported property: foo"),
            ({"hash-property": Field("b", 1)}, "Unsupported property: 1"),
            ({"hash-header": Field("b", 1)}, "Unsupported header: 1"),
        ],
    )
    def test_what_cannot_be_hashed_is_refused(self, arguments: Table, error: str) -> None:
        with pytest.raises(PreconditionFailed) as refusal:
            exchange("x-consistent-hash", arguments=arguments)
        assert refusal.value.text == error

    @pytest.mark.parametrize("argument", ["hash-header", "x-hash-on"])
    def test_a_header_can_be_hashed(self, argument: str) -> None:
        source = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"), arguments={argument: text("user")})
        by_user = [chosen_for(source, replace(headers={"user": Field("l", n)})) for n in range(100)]
        assert set(by_user) == {"one", "two"}
        assert by_user == [chosen_for(source, replace(headers={"user": Field("l", n)})) for n in range(100)]

    @pytest.mark.parametrize("name", ["correlation_id", "message_id"])
    def test_a_property_can_be_hashed(self, name: str) -> None:
        source = exchange(
            "x-consistent-hash", (ONE, "1"), (TWO, "1"), arguments={"hash-property": text(name)}
        )
        properties = [replace(**{name: str(number)}) for number in range(100)]  # type: ignore[arg-type]
        assert {chosen_for(source, each) for each in properties} == {"one", "two"}

    def test_a_timestamp_can_be_hashed(self) -> None:
        source = exchange(
            "x-consistent-hash", (ONE, "1"), (TWO, "1"), arguments={"hash-property": text("timestamp")}
        )
        assert {chosen_for(source, replace(timestamp=at)) for at in range(100)} == {"one", "two"}

    @pytest.mark.parametrize("arguments", [{"hash-header": text("h")}, {"hash-property": text("message_id")}])
    def test_messages_without_what_is_hashed_stay_together(self, arguments: Table) -> None:
        source = exchange("x-consistent-hash", (ONE, "1"), (TWO, "1"), arguments=arguments)
        assert len({chosen_for(source, replace(app_id=str(number))) for number in range(20)}) == 1


class TestModulusHash:
    """Shares by binding."""

    def test_every_key_has_one_place(self) -> None:
        source = exchange("x-modulus-hash", (TWO, "any"), (ONE, ""))
        assert Counter(places(source).values())["one"] / len(KEYS) == pytest.approx(0.5, abs=0.05)

    def test_the_order_of_binding_does_not_matter(self) -> None:
        first = exchange("x-modulus-hash", (ONE, "a"), (TWO, "a"), (THREE, "a"))
        second = exchange("x-modulus-hash", (THREE, "b"), (ONE, "a"), (TWO, "c"))
        assert places(first) == places(second)

    def test_a_destination_bound_twice_gets_two_shares(self) -> None:
        counts = Counter(places(exchange("x-modulus-hash", (ONE, "a"), (ONE, "b"), (TWO, "a"))).values())
        assert counts["one"] / counts["two"] == pytest.approx(2, rel=0.1)

    def test_an_unbound_destination_gets_nothing(self) -> None:
        source = exchange("x-modulus-hash", (ONE, "a"), (TWO, "a"))
        source.unbind(ONE, "a", {})
        assert set(places(source).values()) == {"two"}
        source.unbind(TWO, "a", {})
        assert not source.matcher.destinations(["k"], None)
