"""Bindings: what makes two of them the same, and what goes when one end goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.broker.model.exchanges.exchange import Exchange
from leveret.broker.model.exchanges.topology import Removed, Topology
from leveret.protocol.tables import Field, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.exchanges.binding import Destination

ONE = Field("b", 1)
TWO = Field("b", 2)


class Queue:
    """Something with a name to bind."""

    def __init__(self, name: str = "q") -> None:
        self.name = name


def direct(name: str = "x", auto_delete: bool = False) -> Exchange:
    return Exchange("/", name, "direct", auto_delete=auto_delete)


def names(removed: Removed) -> list[str]:
    return [exchange.name for exchange in removed.exchanges]


@pytest.fixture
def topology() -> Topology:
    return Topology()


def test_an_identical_binding_is_made_once(topology: Topology) -> None:
    source, queue = direct(), Queue()
    assert topology.bind(source, queue, "k", {"a": ONE, "b": TWO}) is not None
    assert topology.bind(source, queue, "k", {"b": TWO, "a": ONE}) is None
    assert len(source.bindings) == 1


@pytest.mark.parametrize(
    ("arguments", "others"),
    [
        ({"a": ONE}, {}),
        ({"a": ONE}, {"a": TWO}),
        ({"a": ONE}, {"a": Field("l", 1)}),
        ({"a": Field("S", b"1")}, {"a": Field("x", b"1")}),
        ({"a": Field("f", 1.0)}, {"a": Field("d", 1.0)}),
    ],
)
def test_other_arguments_make_another_binding(topology: Topology, arguments: Table, others: Table) -> None:
    source, queue = direct(), Queue()
    topology.bind(source, queue, "k", arguments)
    topology.bind(source, queue, "k", others)
    assert len(source.bindings) == 2
    assert not topology.unbind(source, queue, "other key", arguments).bindings
    removed = topology.unbind(source, queue, "k", arguments)
    assert [binding.arguments for binding in removed.bindings] == [arguments]
    assert [binding.arguments for binding in source.bindings] == [others]


def test_unbinding_what_is_not_bound_does_nothing(topology: Topology) -> None:
    removed = topology.unbind(direct(auto_delete=True), Queue(), "k", {})
    assert (removed.bindings, removed.exchanges) == ([], [])


def test_bindings_are_listed_from_both_ends_in_the_order_in_which_they_were_made(topology: Topology) -> None:
    one, two, queue, other = direct("one"), direct("two"), Queue(), Queue("other")
    made = [
        topology.bind(source, destination, key, {})
        for source, destination, key in (
            (two, queue, "b"),
            (one, queue, "a"),
            (two, other, "c"),
            (two, queue, "a"),
        )
    ]
    assert list(topology.incoming(queue)) == [made[0], made[1], made[3]]
    assert list(two.bindings) == [made[0], made[2], made[3]]
    assert list(topology.incoming(one)) == []


def test_deleting_a_queue_removes_its_bindings_only(topology: Topology) -> None:
    source, queue, other = direct(), Queue(), Queue("other")
    for destination in (queue, other):
        topology.bind(source, destination, "k", {})
    removed = topology.delete(queue)
    assert [binding.destination for binding in removed.bindings] == [queue]
    assert list(source.matcher.destinations(["k"], None)) == [other]
    assert not topology.incoming(queue)


def test_deleting_an_exchange_removes_its_bindings_in_both_directions(topology: Topology) -> None:
    before, middle, after = direct("before"), direct("middle"), Queue("after")
    topology.bind(before, middle, "k", {})
    topology.bind(middle, after, "k", {})
    assert len(topology.delete(middle).bindings) == 2
    assert not before.bindings
    assert not topology.incoming(after)


@pytest.mark.parametrize(
    "remove",
    [
        lambda topology, source, queue: topology.unbind(source, queue, "k", {}),
        lambda topology, source, queue: topology.delete(queue),
    ],
    ids=["unbind", "queue deleted"],
)
def test_an_auto_delete_exchange_goes_with_its_last_binding_as_a_source(
    topology: Topology, remove: Callable[[Topology, Exchange, Queue], Removed]
) -> None:
    source, queue = direct(auto_delete=True), Queue()
    topology.bind(source, queue, "k", {})
    assert names(remove(topology, source, queue)) == ["x"]


def test_an_auto_delete_exchange_stays_while_it_has_a_binding_and_if_it_never_had_one(
    topology: Topology,
) -> None:
    source, queue, other = direct(auto_delete=True), Queue(), Queue("other")
    topology.bind(source, queue, "k", {})
    topology.bind(source, other, "k", {})
    assert not topology.delete(queue).exchanges


def test_losing_a_binding_as_a_destination_does_not_delete_an_auto_delete_exchange(
    topology: Topology,
) -> None:
    before, middle = direct("before"), direct("middle", auto_delete=True)
    topology.bind(before, middle, "k", {})
    assert not topology.delete(before).exchanges


def test_auto_delete_exchanges_follow_one_another_up_the_chain(topology: Topology) -> None:
    first, second, queue = direct("first", auto_delete=True), direct("second", auto_delete=True), Queue()
    topology.bind(first, second, "k", {})
    topology.bind(second, queue, "k", {})
    removed = topology.delete(queue)
    assert names(removed) == ["second", "first"]
    assert len(removed.bindings) == 2


def test_auto_delete_exchanges_in_a_circle_go_once_each(topology: Topology) -> None:
    one, two, queue = direct("one", auto_delete=True), direct("two", auto_delete=True), Queue()
    topology.bind(one, two, "k", {})
    topology.bind(two, one, "k", {})
    topology.bind(two, queue, "k", {})
    topology.bind(one, one, "k", {})
    assert not topology.delete(queue).exchanges
    assert names(topology.delete(two)) == []  # it is bound to itself
    removed = topology.unbind(one, one, "k", {})
    assert names(removed) == ["one"]


OPERATION = st.tuples(
    st.sampled_from(["bind", "bind", "unbind", "delete"]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.sampled_from(["a", "b", "*", "#"]),
    st.sampled_from([{}, {"x": ONE}]),
)


@given(st.sampled_from(["direct", "fanout", "topic", "headers"]), st.lists(OPERATION, max_size=40))
def test_the_indexes_agree_with_a_plain_list_of_bindings(
    type_name: str, operations: list[tuple[str, int, int, str, Table]]
) -> None:
    """Exchanges are destinations too; deleted ones come back empty, as if declared anew."""
    topology = Topology()
    exchanges = [Exchange("/", f"x{number}", type_name) for number in range(4)]
    ends: list[Destination] = [*exchanges, Queue("q1"), Queue("q2")]
    expected: list[tuple[object, object, str, Table]] = []
    for name, source_number, end_number, key, arguments in operations:
        source, end = exchanges[source_number], ends[end_number]
        wanted = (source, end, key, arguments)
        if name == "bind":
            assert (topology.bind(source, end, key, arguments) is None) == (wanted in expected)
            expected += [] if wanted in expected else [wanted]
        elif name == "unbind":
            removed = topology.unbind(source, end, key, arguments)
            assert len(removed.bindings) == (wanted in expected)
            expected = [binding for binding in expected if binding != wanted]
        else:
            topology.delete(end)
            expected = [binding for binding in expected if end not in binding[:2]]
    for end in ends:
        actual = [(b.source, b.destination, b.binding_key, b.arguments) for b in topology.incoming(end)]
        assert actual == [binding for binding in expected if binding[1] is end]
    for source in exchanges:
        own = [binding for binding in expected if binding[0] is source]
        assert [(b.source, b.destination, b.binding_key, b.arguments) for b in source.bindings] == own
        reached = set(source.matcher.destinations(["a"], {"x": ONE}))
        assert reached == {end for _, end, key, _ in own if takes_a(type_name, key)}


def takes_a(type_name: str, binding_key: str) -> bool:
    return (
        type_name in ("fanout", "headers")
        or binding_key == "a"
        or (type_name == "topic" and binding_key in "*#")
    )
