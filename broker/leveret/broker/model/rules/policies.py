"""Policies: settings for the queues and exchanges whose names match a pattern.

One policy and one operator policy apply to an object: of those that match, the one with the highest priority,
and of several with the same the first by name. The two are merged, and what comes out is merged with the
arguments of the declaration: of two numbers the smaller one holds, of two texts that of the declaration.

Source: RabbitMQ guide "Policies"; texts as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from leveret.broker.model.arguments import (
    ALTERNATE_EXCHANGE,
    CLASSIC,
    QUORUM,
    STREAM,
    TTL_MAX_MS,
    QueueArguments,
)
from leveret.broker.model.rules.authority import InvalidPattern, InvalidValue, compile_pattern
from leveret.broker.model.terms import binary_term, float_term
from leveret.protocol.tables import INTEGER_TAGS, Field, Table, from_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.rules.patterns import Automaton

POLICY: Final = "policy"
OPERATOR_POLICY: Final = "operator_policy"

QUEUES: Final = "queues"
EXCHANGES: Final = "exchanges"
ALL: Final = "all"
_APPLIES_TO: Final[dict[str, tuple[str, ...]]] = {
    ALL: (CLASSIC, QUORUM, STREAM, EXCHANGES),
    QUEUES: (CLASSIC, QUORUM, STREAM),
    EXCHANGES: (EXCHANGES,),
    "classic_queues": (CLASSIC,),
    "quorum_queues": (QUORUM,),
    "streams": (STREAM,),
}  # apply-to -> types of queue, and exchanges

SEGMENT_BYTES_MAX: Final = 3_000_000_000
_AGE: Final = re.compile(r"[1-9][0-9]{0,17}[YMDhms]")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _between(low: int, high: int | None = None) -> Callable[[object], bool]:
    def is_valid(value: object) -> bool:
        return (
            _is_integer(value) and cast("int", value) >= low and (high is None or cast("int", value) <= high)
        )

    return is_valid


def _one_of(*words: object) -> Callable[[object], bool]:
    def is_valid(value: object) -> bool:
        return not isinstance(value, bool) and value in words

    return is_valid


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_age(value: object) -> bool:
    return isinstance(value, str) and _AGE.fullmatch(value) is not None


def _anything(_: object) -> bool:
    return True


# key -> what its value must be, and what is said if it is not
POLICY_KEYS: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "alternate-exchange": (_is_text, "is not a valid alternate exchange name"),
    "consumer-timeout": (_between(0), "is not a valid consumer timeout"),
    "consumer-disconnected-timeout": (_between(0), "is not a valid consumer disconnected timeout"),
    "dead-letter-exchange": (_is_text, "is not a valid dead letter exchange name"),
    "dead-letter-routing-key": (_is_text, "is not a valid dead letter routing key"),
    "dead-letter-strategy": (
        _one_of("at-most-once", "at-least-once"),
        "is not a valid dead letter strategy",
    ),
    "delayed-retry-backoff": (_one_of("linear", "exponential"), "is not a valid delayed retry backoff"),
    "delayed-retry-jitter": (_between(0, 100), "is not a valid delayed retry jitter"),
    "delayed-retry-max": (_between(0, TTL_MAX_MS), "is not a valid delayed retry maximum"),
    "delayed-retry-min": (_between(0, TTL_MAX_MS), "is not a valid delayed retry minimum"),
    "delayed-retry-type": (
        _one_of("disabled", "all", "failed", "returned"),
        "is not a valid delayed retry type",
    ),
    "delivery-limit": (_is_integer, "is not a valid delivery limit"),
    "expires": (_between(1, TTL_MAX_MS), "is not a valid queue expiry"),
    "ha-mode": (_one_of("all", "exactly", "nodes"), "is not a valid ha-mode value"),
    "ha-params": (_anything, ""),
    "ha-promote-on-failure": (_anything, ""),
    "ha-promote-on-shutdown": (_anything, ""),
    "ha-sync-batch-size": (_anything, ""),
    "ha-sync-mode": (_anything, ""),
    "initial-cluster-size": (_between(1), "is not a valid cluster size"),
    "max-age": (_is_age, "is not a valid max age"),
    "max-in-memory-bytes": (_between(0), "is not a valid maximum memory in bytes"),
    "max-in-memory-length": (_between(0), "is not a valid maximum memory in messages"),
    "max-length": (_between(0), "is not a valid maximum length"),
    "max-length-bytes": (_between(0), "is not a valid maximum length in bytes"),
    "message-ttl": (_between(0, TTL_MAX_MS), "is not a valid message TTL"),
    "overflow": (
        _one_of("drop-head", "reject-publish", "reject-publish-dlx"),
        "is not a valid overflow value",
    ),
    "queue-leader-locator": (
        _one_of("client-local", "balanced"),
        "is not a valid queue leader locator value",
    ),
    "queue-master-locator": (
        _one_of("min-masters", "client-local", "random"),
        "invalid queue-master-locator value",
    ),
    "queue-mode": (_one_of("default", "lazy"), "is not a valid queue-mode value"),
    "queue-version": (_one_of(1, 2), "is not a valid queue-version value"),
    "stream-filter-size-bytes": (_between(16, 255), "is not a valid filter size"),
    "stream-max-segment-size-bytes": (_between(0, SEGMENT_BYTES_MAX), "is not a valid segment size"),
}
OPERATOR_KEYS: Final = frozenset(
    (
        "delayed-retry-backoff", "delayed-retry-jitter", "delayed-retry-max", "delayed-retry-min",
        "delayed-retry-type", "delivery-limit", "expires", "max-in-memory-bytes", "max-in-memory-length",
        "max-length", "max-length-bytes", "message-ttl", "overflow", "queue-version",
    )
)  # fmt: skip

_CLASSIC_ONLY: Final = frozenset(
    (
        "ha-mode", "ha-params", "ha-promote-on-failure", "ha-promote-on-shutdown", "ha-sync-batch-size",
        "ha-sync-mode", "queue-master-locator", "queue-mode", "queue-version",
    )
)  # fmt: skip
_STREAM_ONLY: Final = frozenset(
    ("initial-cluster-size", "max-age", "stream-filter-size-bytes", "stream-max-segment-size-bytes")
)
_OF_STREAMS: Final = _STREAM_ONLY | {"max-length-bytes", "queue-leader-locator"}
# A policy with one of these keys does not apply to queues of the type.
_UNSUPPORTED: Final[dict[str, frozenset[str]]] = {
    CLASSIC: _STREAM_ONLY | {"dead-letter-strategy", "queue-leader-locator"},
    QUORUM: _STREAM_ONLY | _CLASSIC_ONLY,
    STREAM: frozenset(POLICY_KEYS) - _OF_STREAMS,
    EXCHANGES: frozenset(),
}

# Of policy and argument, or policy and operator policy, the smaller one holds.
_LIMITS: Final = (
    "consumer-timeout", "delivery-limit", "expires", "max-in-memory-bytes", "max-in-memory-length",
    "max-length", "max-length-bytes", "message-ttl",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy or operator policy."""

    name: str
    pattern: str
    definition: dict[str, Any]
    priority: int = 0
    apply_to: str = ALL

    def to_json(self) -> str:
        """Return it as RabbitMQ keeps it among the parameters."""
        return json.dumps(
            {
                "pattern": self.pattern,
                "definition": self.definition,
                "priority": self.priority,
                "apply-to": self.apply_to,
            }
        )

    @staticmethod
    def from_json(name: str, text: str) -> Policy:
        """Bring back what `to_json` made."""
        value = json.loads(text)
        return Policy(
            name,
            str(value["pattern"]),
            dict(value["definition"]),
            int(value.get("priority", 0)),
            str(value.get("apply-to", ALL)),
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds for one queue or exchange."""

    policy: Policy | None
    operator_policy: Policy | None
    definition: dict[str, Any]  # of both, merged


NOTHING_APPLIED: Final = Applied(None, None, {})


class PolicySet:
    """The policies of one vhost."""

    __slots__ = ("_matchers", "_order", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[str, dict[str, Policy]] = {POLICY: {}, OPERATOR_POLICY: {}}
        self._order: dict[str, list[Policy]] = {POLICY: [], OPERATOR_POLICY: []}  # first match first
        self._matchers: dict[str, re.Pattern[str] | Automaton] = {}

    def __bool__(self) -> bool:
        return any(self.by_name.values())

    def set(self, kind: str, policy: Policy) -> None:
        """Add a policy, or replace the one of its name. It has been validated."""
        self.by_name[kind][policy.name] = policy
        self._changed()

    def clear(self, kind: str, name: str) -> bool:
        """Remove a policy.

        Returns:
            whether it was there.
        """
        was_there = self.by_name[kind].pop(name, None) is not None
        self._changed()
        return was_there

    def _changed(self) -> None:
        for kind, policies in self.by_name.items():
            self._order[kind] = sorted(policies.values(), key=lambda policy: (-policy.priority, policy.name))
        self._matchers = {
            policy.pattern: compile_pattern(policy.pattern)
            for policies in self.by_name.values()
            for policy in policies.values()
        }

    def applied(self, name: str, kind: str) -> Applied:
        """Return what holds for an object.

        Args:
            name: of the queue or the exchange.
            kind: type of the queue, or `EXCHANGES`.
        """
        policy = self._first(POLICY, name, kind)
        operator_policy = self._first(OPERATOR_POLICY, name, kind)
        if policy is None and operator_policy is None:
            return NOTHING_APPLIED
        merged = dict(policy.definition) if policy is not None else {}
        for key, value in operator_policy.definition.items() if operator_policy is not None else ():
            merged[key] = _smaller(key, merged[key], value) if key in merged and key in _LIMITS else value
        return Applied(policy, operator_policy, merged)

    def queue_arguments(self, name: str, declared: QueueArguments) -> QueueArguments:
        """Return what holds for a queue: its arguments and its policies together."""
        if not self:
            return declared
        definition = self.applied(name, declared.queue_type).definition
        if not definition:
            return declared
        return QueueArguments.of_valid(declared.table, with_policy(declared.table, definition))

    def alternate_exchange(self, name: str) -> str | None:
        """Return the alternate exchange that policies give to an exchange."""
        alternate: str | None = self.applied(name, EXCHANGES).definition.get(ALTERNATE_EXCHANGE)
        return alternate

    def _first(self, which: str, name: str, kind: str) -> Policy | None:
        for policy in self._order[which]:
            if (
                kind in _APPLIES_TO[policy.apply_to]
                and not _UNSUPPORTED[kind].intersection(policy.definition)
                and self._matchers[policy.pattern].search(name)
            ):
                return policy
        return None


def with_policy(declared: Table, definition: dict[str, Any]) -> Table:
    """Return the arguments of a queue as if it had been declared with its policy, too."""
    table = dict(declared)
    for key, value in definition.items():
        name = f"x-{key}"
        field = declared.get(name)
        if field is None:
            table[name] = from_python(value)
        elif key in _LIMITS and field.tag in INTEGER_TAGS:
            table[name] = Field(field.tag, _smaller(key, cast("int", field.value), value))
    return table


def _smaller(key: str, one: int, other: int) -> int:
    if key == "delivery-limit" and (one < 0 or other < 0):
        return max(one, other)  # a negative one is no limit
    return min(one, other)


# -- validation


def make_policy(
    kind: str, name: str, pattern: str, definition: object, priority: object, apply_to: str
) -> Policy:
    """Check a policy that somebody wants to set.

    Raises:
        InvalidValue: something is wrong with it.
    """
    try:
        compile_pattern(pattern)
    except InvalidPattern as error:
        raise _invalid(
            f'pattern should be regular expression but is invalid: {{"{error.reason}",{error.position}}}'
        ) from None
    if not isinstance(definition, dict):
        raise _invalid("definition should be a JSON object")
    if not _is_integer(priority):
        raise _invalid(f"priority should be a number, actually was {shown(priority)}")
    if apply_to not in _APPLIES_TO:
        raise _invalid(
            f"apply-to '{apply_to}' unrecognised; should be one of: 'queues', 'classic_queues',"
            " 'quorum_queues', 'streams', 'exchanges', or 'all'"
        )
    _validate(definition, OPERATOR_KEYS if kind == OPERATOR_POLICY else frozenset(POLICY_KEYS))
    return Policy(name, pattern, definition, cast("int", priority), apply_to)


def _validate(definition: dict[str, Any], allowed: frozenset[str]) -> None:
    if not definition:
        raise _invalid("no policy provided")
    unknown: list[str] = []
    for key, value in sorted(definition.items()):
        if key not in allowed:
            unknown.append(f"{{{_binary(key)},{shown(value)}}}")
            continue
        is_valid, text = POLICY_KEYS[key]
        if not is_valid(value):
            raise _invalid(f"{shown(value)} {text}")
    if unknown:
        raise _invalid(f"[{','.join(unknown)}] are not recognised policy settings")


def _invalid(detail: str) -> InvalidValue:
    return InvalidValue(f"Validation failed\n\n{detail}\n")


def shown(value: object) -> str:
    """Print a value of JSON as Erlang does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _binary(value)
    if isinstance(value, float):
        return float_term(value)
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "#{" + ",".join(f"{_binary(key)} => {shown(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)


def _binary(text: str) -> str:
    return binary_term(text.encode("utf-8", "surrogateescape"))
