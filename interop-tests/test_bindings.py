"""Binding queues and exchanges to exchanges, and alternate exchanges."""

from __future__ import annotations

import pytest
from blocking import channel_closed, drain, get
from brokers import Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError


@pytest.fixture
def exchanges(channel: BlockingChannel, names: Names) -> list[str]:
    """The names of three fanout exchanges."""
    made = [names.exchange() for _ in range(3)]
    for exchange in made:
        channel.exchange_declare(exchange, "fanout")
    return made


@pytest.fixture
def direct(channel: BlockingChannel, names: Names) -> str:
    """The name of a direct exchange."""
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct")
    return exchange


def test_binding_twice_is_one_binding(channel: BlockingChannel, direct: str, queue: str) -> None:
    channel.queue_bind(queue, direct, "k")
    channel.queue_bind(queue, direct, "k")
    channel.queue_unbind(queue, direct, "k")

    channel.basic_publish(direct, "k", b"hello")

    assert drain(channel, queue) == []


def test_bindings_with_different_arguments_are_different(
    channel: BlockingChannel, direct: str, queue: str
) -> None:
    channel.queue_bind(queue, direct, "k", {"n": 1})
    channel.queue_bind(queue, direct, "k", {"n": 2})
    channel.queue_unbind(queue, direct, "k", {"n": 1})

    channel.basic_publish(direct, "k", b"the other binding is left")

    assert drain(channel, queue) == [b"the other binding is left"]


def test_unbinding_needs_the_same_arguments(channel: BlockingChannel, direct: str, queue: str) -> None:
    channel.queue_bind(queue, direct, "k", {"n": 1})
    channel.queue_unbind(queue, direct, "k")

    channel.basic_publish(direct, "k", b"still bound")

    assert drain(channel, queue) == [b"still bound"]


def test_the_order_of_arguments_does_not_matter(channel: BlockingChannel, direct: str, queue: str) -> None:
    channel.queue_bind(queue, direct, "k", {"a": 1, "b": 2})
    channel.queue_unbind(queue, direct, "k", {"b": 2, "a": 1})

    channel.basic_publish(direct, "k", b"not bound any more")

    assert drain(channel, queue) == []


def test_binding_to_a_missing_exchange_is_not_found(
    channel: BlockingChannel, queue: str, names: Names
) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        channel.queue_bind(queue, missing, "k")


def test_binding_a_missing_queue_is_not_found(channel: BlockingChannel, direct: str, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'"):
        channel.queue_bind(missing, direct, "k")


def test_when_both_ends_are_missing_the_exchange_is_named(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        channel.queue_bind(missing, missing, "k")


def test_unbinding_what_was_never_bound_is_fine(channel: BlockingChannel, direct: str, queue: str) -> None:
    channel.queue_unbind(queue, direct, "k")


def test_unbinding_a_missing_queue_from_a_missing_exchange_is_fine(
    channel: BlockingChannel, names: Names
) -> None:
    channel.queue_unbind(names.text(), names.text(), "k")


def test_an_invalid_x_match_is_refused(channel: BlockingChannel, names: Names, queue: str) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "headers")

    with channel_closed(
        406,
        'PRECONDITION_FAILED - Invalid x-match field value <<"some">>; '
        "expected all, any, all-with-x, or any-with-x",
    ):
        channel.queue_bind(queue, exchange, "", {"x-match": "some"})


def test_an_x_match_that_is_no_string_is_refused(channel: BlockingChannel, names: Names, queue: str) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "headers")

    with channel_closed(
        406, "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"
    ):
        channel.queue_bind(queue, exchange, "", {"x-match": 1})


def test_an_exchange_passes_messages_on_to_another(
    channel: BlockingChannel, exchanges: list[str], queue: str
) -> None:
    channel.exchange_bind(exchanges[1], exchanges[0])
    channel.exchange_bind(exchanges[2], exchanges[1])
    channel.queue_bind(queue, exchanges[2])

    channel.basic_publish(exchanges[0], "", b"through three")

    assert drain(channel, queue) == [b"through three"]


def test_each_exchange_on_the_way_applies_its_own_bindings(
    channel: BlockingChannel, names: Names, direct: str, queue: str
) -> None:
    topic = names.exchange()
    channel.exchange_declare(topic, "topic")
    channel.exchange_bind(direct, topic, "a.#")
    channel.queue_bind(queue, direct, "a.b")

    for key in ("a.b", "a.c", "b"):
        channel.basic_publish(topic, key, key.encode())

    assert drain(channel, queue) == [b"a.b"]


def test_a_message_keeps_the_exchange_and_key_it_was_published_with(
    channel: BlockingChannel, exchanges: list[str], queue: str
) -> None:
    channel.exchange_bind(exchanges[1], exchanges[0])
    channel.queue_bind(queue, exchanges[1])

    channel.basic_publish(exchanges[0], "original.key", b"x")

    method = get(channel, queue).method
    assert (method.exchange, method.routing_key) == (exchanges[0], "original.key")


def test_exchanges_bound_in_a_circle_deliver_once(
    channel: BlockingChannel, exchanges: list[str], queue: str
) -> None:
    for source, destination in [(0, 1), (1, 2), (2, 0)]:
        channel.exchange_bind(exchanges[destination], exchanges[source])
    for exchange in exchanges:
        channel.queue_bind(queue, exchange)

    channel.basic_publish(exchanges[1], "", b"once")

    assert drain(channel, queue) == [b"once"]


def test_an_unbound_exchange_passes_nothing_on(
    channel: BlockingChannel, exchanges: list[str], queue: str
) -> None:
    channel.exchange_bind(exchanges[1], exchanges[0], "k")
    channel.queue_bind(queue, exchanges[1])
    channel.exchange_unbind(exchanges[1], exchanges[0], "k")

    channel.basic_publish(exchanges[0], "", b"nowhere to go")

    assert drain(channel, queue) == []


def test_binding_to_a_missing_destination_exchange_is_not_found(
    channel: BlockingChannel, direct: str, names: Names
) -> None:
    missing = names.text()

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        channel.exchange_bind(missing, direct, "k")


@pytest.fixture
def with_alternate(channel: BlockingChannel, names: Names, exchanges: list[str]) -> str:
    """The name of a direct exchange whose alternate is the first of `exchanges`."""
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": exchanges[0]})
    return exchange


def test_what_no_binding_wants_goes_to_the_alternate_exchange(
    channel: BlockingChannel, with_alternate: str, exchanges: list[str], queue: str
) -> None:
    channel.queue_bind(queue, exchanges[0])

    channel.basic_publish(with_alternate, "unknown", b"unwanted")

    delivery = get(channel, queue)
    assert (delivery.body, delivery.method.exchange) == (b"unwanted", with_alternate)


def test_what_a_binding_wants_does_not_go_to_the_alternate_exchange(
    channel: BlockingChannel, names: Names, with_alternate: str, exchanges: list[str], queue: str
) -> None:
    wanted = names.queue()
    channel.queue_declare(wanted)
    channel.queue_bind(wanted, with_alternate, "k")
    channel.queue_bind(queue, exchanges[0])

    channel.basic_publish(with_alternate, "k", b"wanted")

    assert (drain(channel, wanted), drain(channel, queue)) == ([b"wanted"], [])


def test_alternate_exchanges_form_a_chain(
    channel: BlockingChannel, names: Names, with_alternate: str, exchanges: list[str], queue: str
) -> None:
    first = names.exchange()
    channel.exchange_declare(first, "direct", arguments={"alternate-exchange": with_alternate})
    channel.queue_bind(queue, exchanges[0])

    channel.basic_publish(first, "unknown", b"second choice")

    assert drain(channel, queue) == [b"second choice"]


def test_a_mandatory_message_that_the_alternate_exchange_takes_is_not_returned(
    confirming: BlockingChannel, with_alternate: str, exchanges: list[str], queue: str
) -> None:
    confirming.queue_bind(queue, exchanges[0])

    confirming.basic_publish(with_alternate, "unknown", b"taken", mandatory=True)

    assert drain(confirming, queue) == [b"taken"]


def test_a_mandatory_message_that_the_alternate_exchange_cannot_route_is_returned(
    confirming: BlockingChannel, with_alternate: str
) -> None:
    with pytest.raises(UnroutableError):
        confirming.basic_publish(with_alternate, "unknown", b"nobody", mandatory=True)


def test_a_missing_alternate_exchange_is_ignored(channel: BlockingChannel, names: Names, queue: str) -> None:
    exchange = names.exchange()
    channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": names.text()})

    channel.basic_publish(exchange, "unknown", b"lost")
    channel.basic_publish("", queue, b"the channel lives")

    assert drain(channel, queue) == [b"the channel lives"]


def test_cc_and_bcc_keys_route_as_well(channel: BlockingChannel, names: Names, direct: str) -> None:
    queues = {key: names.queue() for key in ("to", "cc", "bcc", "none")}
    for key, name in queues.items():
        channel.queue_declare(name)
        channel.queue_bind(name, direct, key)

    channel.basic_publish(
        direct, "to", b"x", BasicProperties(headers={"CC": ["cc", "absent"], "BCC": ["bcc"]})
    )

    assert {key: drain(channel, name) for key, name in queues.items()} == {
        "to": [b"x"], "cc": [b"x"], "bcc": [b"x"], "none": [],
    }  # fmt: skip


def test_a_key_named_twice_delivers_once(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"x", BasicProperties(headers={"CC": [queue, queue], "BCC": [queue]}))

    assert drain(channel, queue) == [b"x"]


def test_cc_is_delivered_and_bcc_is_not(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"x", BasicProperties(headers={"CC": ["a"], "BCC": ["b"], "n": 1}))

    assert get(channel, queue).properties.headers == {"CC": ["a"], "n": 1}


def test_a_message_delivered_through_cc_keeps_its_routing_key(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", "elsewhere", b"x", BasicProperties(headers={"CC": [queue]}))

    assert get(channel, queue).method.routing_key == "elsewhere"


def test_a_cc_key_makes_a_mandatory_message_routable(
    confirming: BlockingChannel, queue: str, names: Names
) -> None:
    confirming.basic_publish("", names.text(), b"x", BasicProperties(headers={"CC": [queue]}), mandatory=True)

    assert drain(confirming, queue) == [b"x"]


def test_a_cc_header_that_is_no_array_is_refused(confirming: BlockingChannel, queue: str) -> None:
    with channel_closed(
        406, 'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}'
    ):
        confirming.basic_publish("", queue, b"x", BasicProperties(headers={"CC": "not a list"}))
