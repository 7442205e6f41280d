"""Who there is and who may do what: users, permissions, topic permissions. Changes go into the open batch.

Source: RabbitMQ guide "Access Control"; texts as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from leveret.broker.access import (
    HASHING_ALGORITHMS,
    SALT_BYTES,
    SHA_256,
    User,
    hash_password,
    password_matches,
    refusal,
)
from leveret.broker.model.events import BY
from leveret.broker.model.rules.grants import Grants, TopicRights
from leveret.broker.model.rules.patterns import Automaton, compile_regex
from leveret.protocol.errors import LoginRefused
from leveret.storage.changes import (
    PermissionCleared,
    PermissionSet,
    TopicPermissionCleared,
    TopicPermissionSet,
    UserDeleted,
    UserSet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from leveret.broker.model.turn import Turn
    from leveret.protocol.sasl import Credentials


class AdministrationError(Exception):
    """What an administrator asked for cannot be done."""


class NoSuchUser(AdministrationError):
    """There is no user of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'User "{name}" does not exist')
        self.name = name


class UserExists(AdministrationError):
    """There is a user of this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f'User "{name}" already exists')
        self.name = name


class NoSuchVHost(AdministrationError):
    """There is no vhost of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Virtual host '{name}' does not exist")
        self.name = name


class InvalidPattern(AdministrationError):
    """This is not a regular expression."""

    def __init__(self, pattern: str, error: re.error) -> None:
        self.pattern = pattern
        self.reason = error.msg
        self.position = error.pos or 0
        super().__init__(f"regular expression '{pattern}' is invalid: {self.reason}")


class InvalidValue(AdministrationError):
    """A value is of the wrong kind, or out of range; the text is RabbitMQ's."""


def compile_pattern(pattern: str) -> re.Pattern[str] | Automaton:
    """Compile a pattern; the empty one matches the empty name only.

    Raises:
        InvalidPattern: it is none.
    """
    try:
        return compile_regex(pattern or "^$")
    except re.error as error:
        raise InvalidPattern(pattern, error) from None
    except (RecursionError, OverflowError):
        raise InvalidPattern(pattern, re.error("too large", pattern, 0)) from None


class Authority:
    """The users of a broker and their permissions.

    Args:
        turn: what the current turn gathers.
        token: makes an unguessable text from so many bytes of randomness.
        loopback_users: names that may only connect from this machine.
    """

    def __init__(self, turn: Turn, token: Callable[[int], str], loopback_users: frozenset[str]) -> None:
        self._turn = turn
        self._token = token
        self._loopback_users = loopback_users
        self.users: dict[str, User] = {}
        self.permissions: dict[tuple[str, str], PermissionSet] = {}  # user, vhost -> permission
        self.topic_permissions: dict[
            tuple[str, str], dict[str, TopicPermissionSet]
        ] = {}  # user, vhost -> exchange -> permission
        self._grants: dict[tuple[str, str], Grants] = {}  # user, vhost -> what connections share

    def restore(
        self,
        users: Iterable[UserSet],
        permissions: Iterable[PermissionSet],
        topic_permissions: Iterable[TopicPermissionSet],
    ) -> None:
        """Bring back what the store has."""
        for user in users:
            limits = {str(name): int(value) for name, value in json.loads(user.limits).items()}
            self.users[user.name] = User(
                user.name, user.password_hash, user.hashing_algorithm, user.tags, limits
            )
        for permission in permissions:
            self.permissions[permission.user, permission.vhost] = permission
        for topic in topic_permissions:
            self.topic_permissions.setdefault((topic.user, topic.vhost), {})[topic.exchange] = topic

    # -- logging in

    def log_in(self, mechanism: str, credentials: Credentials, is_loopback: bool) -> User:
        """Return the user who has these credentials.

        Raises:
            LoginRefused: the text never says whether it was the name, the password or the address.
        """
        user = self.authenticate(credentials.user, credentials.password)
        if user is None or (user.name in self._loopback_users and not is_loopback):
            raise LoginRefused(refusal(mechanism))
        return user

    def authenticate(self, name: str, password: str) -> User | None:
        """Return the user with this name and password; None if there is none."""
        user = self.users.get(name)
        return user if password_matches(user, password) else None

    def grants(self, user: User, vhost_name: str) -> Grants | None:
        """Return what a user may do in a vhost; None if it may not even connect to it."""
        key = (user.name, vhost_name)
        if key not in self.permissions or self.users.get(user.name) is not user:
            return None
        grants = self._grants.get(key)
        if grants is None:
            grants = self._grants[key] = Grants(user.name, vhost_name)
            self._refresh(key)
        return grants

    def _refresh(self, key: tuple[str, str]) -> None:
        """Have the connections of a user to a vhost know its permissions."""
        grants = self._grants.get(key)
        if grants is None:
            return
        permission = self.permissions.get(key)
        if permission is None:
            for right in (grants.configure, grants.write, grants.read):
                right.set("", None)
        else:
            grants.configure.set(permission.configure, compile_pattern(permission.configure))
            grants.write.set(permission.write, compile_pattern(permission.write))
            grants.read.set(permission.read, compile_pattern(permission.read))
        topics: dict[str, TopicRights] = {}
        for exchange, topic in self.topic_permissions.get(key, {}).items():
            rights = topics[exchange] = TopicRights()
            rights.write.set(topic.write, _topic_pattern(topic.write, key))
            rights.read.set(topic.read, _topic_pattern(topic.read, key))
        grants.restrict(topics)

    # -- users

    def user(self, name: str) -> User:
        """Return a user.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.users.get(name)
        if user is None:
            raise NoSuchUser(name)
        return user

    def add_user(self, name: str, password: str, tags: tuple[str, ...] = ()) -> None:
        """Create a user; with an empty password it cannot log in with one.

        Raises:
            UserExists: there is one of this name.
        """
        if name in self.users:
            raise UserExists(name)
        self.users[name] = User(name, hash_password(password, self.salt()), tags=tags)
        self._save(self.users[name])
        self._tell("user.created", name=name)

    def delete_user(self, name: str) -> User:
        """Delete a user and its permissions. Its connections are the caller's to close.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.user(name)
        del self.users[name]
        for key in [key for key in self.permissions if key[0] == name]:
            del self.permissions[key]
        for key in [key for key in self.topic_permissions if key[0] == name]:
            del self.topic_permissions[key]
        self._forget_grants(0, name)
        self._turn.define(UserDeleted(name))
        self._tell("user.deleted", name=name)
        return user

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password; an empty one lets nobody in.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.user(name)
        user.password_hash = hash_password(password, self.salt())
        user.hashing_algorithm = SHA_256
        self._save(user)
        self._tell("user.password.changed" if password else "user.password.cleared", name=name)

    def set_password_hash(self, name: str, password_hash: str, hashing_algorithm: str) -> None:
        """Give a user the password that another broker kept.

        Raises:
            NoSuchUser: there is none of this name.
            InvalidValue: the hashing algorithm is unknown.
        """
        user = self.user(name)
        if hashing_algorithm not in HASHING_ALGORITHMS:
            raise InvalidValue(f"unknown hashing algorithm {hashing_algorithm}")
        user.password_hash = password_hash
        user.hashing_algorithm = hashing_algorithm
        self._save(user)
        self._tell("user.password.changed", name=name)

    def set_tags(self, name: str, tags: tuple[str, ...]) -> None:
        """Replace a user's tags.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.user(name)
        user.tags = tuple(dict.fromkeys(tags))
        self._save(user)
        self._tell("user.tags.set", tags=list(user.tags), name=name)

    def set_limits(self, name: str, limits: dict[str, int]) -> None:
        """Replace a user's limits.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.user(name)
        user.limits = limits
        self._save(user)
        whose = {"username": name, BY: self._turn.actor, "name": "limits"}
        events = self._turn.events
        events.tell("user.limits.set" if limits else "user.limits.cleared", {**limits, **whose})

    def _tell(self, key: str, **values: object) -> None:
        self._turn.events.tell(key, values)

    def _save(self, user: User) -> None:
        self._turn.define(
            UserSet(
                user.name,
                user.password_hash,
                user.hashing_algorithm,
                user.tags,
                json.dumps(user.limits, sort_keys=True),
            )
        )

    def salt(self) -> bytes:
        """Make up what is hashed with a password, so that equal ones do not look equal."""
        return hashlib.sha256(self._token(16).encode()).digest()[:SALT_BYTES]

    # -- permissions. That the vhost exists is the caller's to check.

    def set_permissions(self, name: str, vhost_name: str, configure: str, write: str, read: str) -> None:
        """Grant a user access to a vhost.

        Raises:
            NoSuchUser: there is none of this name.
            InvalidPattern: one of the three is not a regular expression.
        """
        self.user(name)
        for pattern in (configure, write, read):
            compile_pattern(pattern)
        permission = PermissionSet(name, vhost_name, configure, write, read)
        self.permissions[name, vhost_name] = permission
        self._refresh((name, vhost_name))
        self._turn.define(permission)
        rights = {"read": read, "write": write, "configure": configure}
        self._tell("permission.created", **rights, vhost=vhost_name, user=name)

    def clear_permissions(self, name: str, vhost_name: str) -> None:
        """Take a user's access to a vhost away, if it had any.

        Raises:
            NoSuchUser: there is none of this name.
        """
        self.user(name)
        if self.permissions.pop((name, vhost_name), None) is not None:
            self._refresh((name, vhost_name))
            self._turn.define(PermissionCleared(name, vhost_name))
            self._tell("permission.deleted", vhost=vhost_name, user=name)

    def set_topic_permissions(self, name: str, vhost_name: str, exchange: str, write: str, read: str) -> None:
        """Restrict a user's routing and binding keys at a topic exchange.

        Raises:
            NoSuchUser: there is none of this name.
            InvalidPattern: one of the two is not a regular expression.
        """
        self.user(name)
        for pattern in (write, read):
            compile_pattern(pattern)
        permission = TopicPermissionSet(name, vhost_name, exchange, write, read)
        self.topic_permissions.setdefault((name, vhost_name), {})[exchange] = permission
        self._refresh((name, vhost_name))
        self._turn.define(permission)
        where = {"exchange": exchange, "vhost": vhost_name, "user": name}
        self._tell("topic.permission.created", read=read, write=write, **where)

    def clear_topic_permissions(self, name: str, vhost_name: str, exchange: str | None = None) -> None:
        """Lift the restriction at an exchange, or at all.

        Raises:
            NoSuchUser: there is none of this name.
        """
        self.user(name)
        key = (name, vhost_name)
        topics = self.topic_permissions.get(key, {})
        for cleared in list(topics) if exchange is None else [exchange]:
            if topics.pop(cleared, None) is not None:
                self._turn.define(TopicPermissionCleared(name, vhost_name, cleared))
        if not topics:
            self.topic_permissions.pop(key, None)
        self._refresh(key)
        self._tell("topic.permission.deleted", vhost=vhost_name, user=name)

    def vhost_deleted(self, vhost_name: str) -> None:
        """Forget all permissions in a vhost; the store does so by itself."""
        for key in [key for key in self.permissions if key[1] == vhost_name]:
            del self.permissions[key]
            self._tell("permission.deleted", vhost=vhost_name, user=key[0])
        for key in [key for key in self.topic_permissions if key[1] == vhost_name]:
            del self.topic_permissions[key]
        self._forget_grants(1, vhost_name)

    def _forget_grants(self, part: int, name: str) -> None:
        for key in [key for key in self._grants if key[part] == name]:
            self._refresh(key)
            del self._grants[key]


def _topic_pattern(pattern: str, key: tuple[str, str]) -> re.Pattern[str] | Automaton:
    """Compile the pattern of a topic permission for a user and a vhost, whose names may be part of it."""
    user_name, vhost_name = key
    for placeholder, name in (("{username}", user_name), ("{vhost}", vhost_name)):
        pattern = pattern.replace(placeholder, re.escape(name))
    return compile_pattern(pattern)
