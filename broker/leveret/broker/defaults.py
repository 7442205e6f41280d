"""What a vhost begins with: users, operator policies and limits that the settings name for vhosts like it.

Each is read from a table: the name is a label, but for a user, whose name it is.

Source: RabbitMQ guides "Virtual Hosts" and "Configuration", keys `default_users`, `default_policies.operator`
and `default_limits.vhosts`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leveret.broker.model.rules.authority import AdministrationError
from leveret.broker.model.rules.policies import OPERATOR_POLICY, Policy, make_policy
from leveret.broker.values import Names, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYTHING = ".*"
MAX_CONNECTIONS = "max-connections"
MAX_QUEUES = "max-queues"


@dataclass(frozen=True, slots=True)
class DefaultUser:
    """A user who gets permissions in new vhosts, and is created if need be."""

    name: str
    vhost_pattern: str = EVERYTHING
    password: str = field(default="", repr=False)  # empty: no password lets it in
    tags: tuple[str, ...] = ()
    configure: str = EVERYTHING
    write: str = EVERYTHING
    read: str = EVERYTHING


@dataclass(frozen=True, slots=True)
class DefaultOperatorPolicy:
    """An operator policy of new vhosts."""

    vhost_pattern: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class DefaultLimits:
    """Limits of new vhosts."""

    vhost_pattern: str
    max_connections: int = -1
    max_queues: int = -1


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression; an empty one matches the empty name only."""

    allowed: str = "a regular expression"

    def parse(self, value: object) -> str:
        """Return the expression."""
        if not isinstance(value, str) or len(value) > 255:
            raise ValueError
        try:
            re.compile(value)
        except re.error:
            raise ValueError from None
        return value


@dataclass(frozen=True, slots=True)
class DefaultUsers:
    """Users by name."""

    allowed: str = "a table for each user: password, tags, vhost_pattern, configure, write, read"

    def parse(self, value: object) -> tuple[DefaultUser, ...]:
        """Return the users."""
        return tuple(self._user(name, about) for name, about in _tables(value).items())

    def _user(self, name: str, about: dict[str, Any]) -> DefaultUser:
        known: dict[str, Any] = {}
        for key, given in about.items():
            if key == "tags":
                known[key] = Names().parse(given)
            elif key == "password":
                known[key] = Text().parse(given)
            elif key in ("vhost_pattern", "configure", "write", "read"):
                known[key] = Pattern().parse(given)
            else:
                raise ValueError
        return DefaultUser(Text().parse(name), **known)


@dataclass(frozen=True, slots=True)
class DefaultOperatorPolicies:
    """Operator policies by name."""

    allowed: str = "a table for each policy: vhost_pattern, queue_pattern, and keys of operator policies"

    def parse(self, value: object) -> tuple[DefaultOperatorPolicy, ...]:
        """Return the policies."""
        return tuple(self._policy(name, about) for name, about in _tables(value).items())

    def _policy(self, name: str, about: dict[str, Any]) -> DefaultOperatorPolicy:
        about = dict(about)
        vhost_pattern = Pattern().parse(about.pop("vhost_pattern", EVERYTHING))
        queue_pattern = Pattern().parse(about.pop("queue_pattern", EVERYTHING))
        definition = {key.replace("_", "-"): _number(given) for key, given in about.items()}
        try:
            policy = make_policy(OPERATOR_POLICY, Text().parse(name), queue_pattern, definition, 0, "queues")
        except AdministrationError:
            raise ValueError from None
        return DefaultOperatorPolicy(vhost_pattern, policy)


@dataclass(frozen=True, slots=True)
class DefaultVHostLimits:
    """Limits for vhosts, the first whose pattern matches."""

    allowed: str = "a table for each kind of vhost: pattern, max_connections, max_queues"

    def parse(self, value: object) -> tuple[DefaultLimits, ...]:
        """Return the limits."""
        found: list[DefaultLimits] = []
        for about in _tables(value).values():
            given = {key.replace("-", "_"): _number(each) for key, each in about.items()}
            pattern = Pattern().parse(given.pop("pattern", EVERYTHING))
            if not set(given) <= {"max_connections", "max_queues"} or not all(
                isinstance(each, int) and each >= -1 for each in given.values()
            ):
                raise ValueError
            found.append(DefaultLimits(pattern, **given))
        return tuple(found)


def _tables(value: object) -> Mapping[str, dict[str, Any]]:
    """Return tables by name; as text they are JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError from None
    if value == ():
        return {}
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        raise ValueError  # every refusal of a value is one
    return value


def _number(value: object) -> Any:  # noqa: ANN401  # a number, or what it is
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    return value
