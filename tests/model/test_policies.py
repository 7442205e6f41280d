"""Which policy applies, how policies and arguments merge, and what is refused.

Source: RabbitMQ guide "Policies"; texts as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from leveret.broker.model.arguments import CLASSIC, QUORUM
from leveret.broker.model.rules.authority import InvalidValue
from leveret.broker.model.rules.policies import (
    ALL,
    EXCHANGES,
    OPERATOR_POLICY,
    POLICY,
    QUEUES,
    Policy,
    PolicySet,
    make_policy,
    with_policy,
)
from leveret.protocol.tables import Field, from_python

MAX_LENGTH = {"max-length": 5}


def policies(*given: Policy, operator: tuple[Policy, ...] = ()) -> PolicySet:
    found = PolicySet()
    for kind, those in ((POLICY, given), (OPERATOR_POLICY, operator)):
        for policy in those:
            found.set(kind, policy)
    return found


def named(name: str, pattern: str = ".*", priority: int = 0, apply_to: str = ALL) -> Policy:
    return Policy(name, pattern, MAX_LENGTH, priority, apply_to)


def applies(found: PolicySet, name: str, kind: str = CLASSIC) -> str | None:
    policy = found.applied(name, kind).policy
    return policy.name if policy is not None else None


def invalid(
    definition: object,
    kind: str = POLICY,
    *,
    pattern: str = ".*",
    priority: object = 0,
    apply_to: str = ALL,
) -> str:
    with pytest.raises(InvalidValue) as error:
        make_policy(kind, "p", pattern, definition, priority, apply_to)
    begin, text, end = str(error.value).split("\n\n")[0], str(error.value)[19:-1], str(error.value)[-1]
    assert (begin, end) == ("Validation failed", "\n")
    return text


# which one applies


def test_a_pattern_is_looked_for_anywhere_in_the_name() -> None:
    found = policies(named("p", "a.c"))
    assert [applies(found, name) for name in ("abc", "xabcx", "ac")] == ["p", "p", None]


def test_of_several_the_one_with_the_highest_priority_applies() -> None:
    found = policies(named("low", "q"), named("high", "q", 3), named("other", "x", 9))
    assert applies(found, "q") == "high"
    found.clear(POLICY, "high")
    assert applies(found, "q") == "low"


def test_of_equal_priority_the_first_by_name_applies() -> None:
    assert applies(policies(named("b"), named("a")), "q") == "a"


@pytest.mark.parametrize(
    ("apply_to", "kinds"),
    [
        (ALL, {CLASSIC, QUORUM, EXCHANGES}), (QUEUES, {CLASSIC, QUORUM}), (EXCHANGES, {EXCHANGES}),
        ("classic_queues", {CLASSIC}), ("quorum_queues", {QUORUM}), ("streams", set()),
    ],
)  # fmt: skip
def test_a_policy_can_be_for_some_kinds_only(apply_to: str, kinds: set[str]) -> None:
    found = policies(named("p", apply_to=apply_to))
    assert {kind for kind in (CLASSIC, QUORUM, EXCHANGES) if applies(found, "x", kind)} == kinds


@pytest.mark.parametrize(
    ("definition", "kinds"),
    [
        ({"max-age": "1D"}, {EXCHANGES}),
        ({"max-age": "1D", "max-length": 1}, {EXCHANGES}),
        ({"queue-mode": "lazy", "max-length": 1}, {CLASSIC, EXCHANGES}),
        ({"dead-letter-strategy": "at-least-once"}, {QUORUM, EXCHANGES}),
        ({"delivery-limit": 3}, {CLASSIC, QUORUM, EXCHANGES}),
        ({"alternate-exchange": "x"}, {CLASSIC, QUORUM, EXCHANGES}),
    ],
)
def test_a_policy_with_a_key_that_a_type_of_queue_does_not_have_is_not_for_that_type(
    definition: dict[str, Any], kinds: set[str]
) -> None:
    found = policies(Policy("p", ".*", definition))
    assert {kind for kind in (CLASSIC, QUORUM, EXCHANGES) if applies(found, "x", kind)} == kinds


# merging


@pytest.mark.parametrize(
    ("policy", "operator", "merged"),
    [
        ({"max-length": 5}, {"max-length": 3}, {"max-length": 3}),
        ({"max-length": 5}, {"max-length": 9}, {"max-length": 5}),
        ({"message-ttl": 5}, {"expires": 9}, {"message-ttl": 5, "expires": 9}),
        ({"overflow": "drop-head"}, {"overflow": "reject-publish"}, {"overflow": "reject-publish"}),
        ({"delivery-limit": -1}, {"delivery-limit": 5}, {"delivery-limit": 5}),
        ({"delivery-limit": 4}, {"delivery-limit": -1}, {"delivery-limit": 4}),
    ],
)
def test_an_operator_policy_limits_a_policy(
    policy: dict[str, Any], operator: dict[str, Any], merged: dict[str, Any]
) -> None:
    found = policies(Policy("p", ".*", policy), operator=(Policy("o", ".*", operator),))
    assert found.applied("q", CLASSIC).definition == merged


@pytest.mark.parametrize(
    ("argument", "definition", "effective"),
    [
        (5, {"max-length": 2}, 2), (5, {"max-length": 9}, 5), (None, {"max-length": 2}, 2),
        (5, {"max-length-bytes": 1}, 5),
    ],
)  # fmt: skip
def test_of_an_argument_and_a_policy_the_smaller_number_holds(
    argument: int | None, definition: dict[str, Any], effective: int
) -> None:
    declared = {} if argument is None else {"x-max-length": Field("s", argument)}
    assert with_policy(declared, definition)["x-max-length"].value == effective


def test_of_an_argument_and_a_policy_the_text_of_the_argument_holds() -> None:
    declared = {"x-overflow": from_python("drop-head")}
    definition = {"overflow": "reject-publish", "dead-letter-exchange": "dlx"}
    assert with_policy(declared, definition) == {
        "x-overflow": from_python("drop-head"),
        "x-dead-letter-exchange": from_python("dlx"),
    }


def test_a_policy_survives_being_stored() -> None:
    policy = Policy("p", "ü", {"max-length": 1, "overflow": "drop-head"}, -3, QUEUES)
    assert Policy.from_json("p", policy.to_json()) == policy


# what is refused


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ({}, "no policy provided"),
        ({"bogus": 5}, '[{<<"bogus">>,5}] are not recognised policy settings'),
        (
            {"bogus": "x", "also": [True, None]},
            '[{<<"also">>,[true,null]},{<<"bogus">>,<<"x">>}] are not recognised policy settings',
        ),
        ({"bogus": 5, "max-length": "x"}, '<<"x">> is not a valid maximum length'),
        ({"max-length": -1}, "-1 is not a valid maximum length"),
        ({"max-length": True}, "true is not a valid maximum length"),
        ({"max-length": 1.5}, "1.5 is not a valid maximum length"),
        ({"max-length-bytes": -1}, "-1 is not a valid maximum length in bytes"),
        ({"message-ttl": -1}, "-1 is not a valid message TTL"),
        ({"message-ttl": "x"}, '<<"x">> is not a valid message TTL'),
        ({"expires": 0}, "0 is not a valid queue expiry"),
        ({"overflow": "x"}, '<<"x">> is not a valid overflow value'),
        ({"overflow": 1}, "1 is not a valid overflow value"),
        ({"dead-letter-exchange": 1}, "1 is not a valid dead letter exchange name"),
        ({"dead-letter-routing-key": 1}, "1 is not a valid dead letter routing key"),
        ({"alternate-exchange": 1}, "1 is not a valid alternate exchange name"),
        ({"delivery-limit": "x"}, '<<"x">> is not a valid delivery limit'),
        ({"queue-mode": "x"}, '<<"x">> is not a valid queue-mode value'),
        ({"queue-version": 3}, "3 is not a valid queue-version value"),
        ({"max-age": "x"}, '<<"x">> is not a valid max age'),
        ({"stream-max-segment-size-bytes": -1}, "-1 is not a valid segment size"),
        ({"queue-master-locator": "x"}, '<<"x">> invalid queue-master-locator value'),
        ({"queue-leader-locator": "x"}, '<<"x">> is not a valid queue leader locator value'),
        ({"dead-letter-strategy": "x"}, '<<"x">> is not a valid dead letter strategy'),
        ({"ha-mode": "foo"}, '<<"foo">> is not a valid ha-mode value'),
        (
            {"max-in-memory-length": -1, "max-in-memory-bytes": "x"},
            '<<"x">> is not a valid maximum memory in bytes',
        ),
        ({"consumer-timeout": -1}, "-1 is not a valid consumer timeout"),
        ([1], "definition should be a JSON object"),
    ],
)
def test_a_bad_definition_is_refused(definition: object, text: str) -> None:
    assert invalid(definition) == text


@pytest.mark.parametrize("key", ["dead-letter-exchange", "alternate-exchange", "queue-mode", "max-age"])
def test_an_operator_policy_has_limits_only(key: str) -> None:
    text = f'[{{<<"{key}">>,<<"x">>}}] are not recognised policy settings'
    assert invalid({key: "x"}, OPERATOR_POLICY) == text


def test_a_bad_pattern_priority_or_kind_is_refused() -> None:
    assert invalid(MAX_LENGTH, pattern="(") == (
        'pattern should be regular expression but is invalid: {"missing ), unterminated subpattern",0}'
    )
    assert invalid(MAX_LENGTH, priority="x") == 'priority should be a number, actually was <<"x">>'
    assert re.match("apply-to 'foo' unrecognised; should be one of: ", invalid(MAX_LENGTH, apply_to="foo"))


@pytest.mark.parametrize(
    "definition",
    [
        {"ha-mode": "all", "ha-sync-mode": "automatic"}, {"dead-letter-routing-key": "k"}, {"max-age": "7D"},
        {"delivery-limit": -1}, {"consumer-timeout": 0}, {"delayed-retry-type": "all"},
        {"queue-version": 2, "queue-mode": "lazy"},
    ],
)  # fmt: skip
def test_what_rabbitmq_accepts_is_accepted(definition: dict[str, Any]) -> None:
    assert make_policy(POLICY, "p", "^a", definition, 1, QUEUES).definition == definition
