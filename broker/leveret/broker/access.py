"""Who may log in. One user for now, the default one, with full access to the default vhost."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leveret.protocol.errors import LoginRefused

if TYPE_CHECKING:
    from leveret.protocol.sasl import Credentials

ADMINISTRATOR = "administrator"
IMPERSONATOR = "impersonator"  # may publish with any user-id


@dataclass(frozen=True, slots=True)
class User:
    """A user and the tags that give it rights beside permissions."""

    name: str
    password_sha256: bytes
    tags: frozenset[str]


class Users:
    """The users of a broker.

    Args:
        name: the default user.
        password: its password; a user with an empty one cannot log in.
        loopback_users: names that may only connect from this machine.
    """

    def __init__(self, name: str, password: str, loopback_users: frozenset[str]) -> None:
        self._users = {name: User(name, _digest(password), frozenset((ADMINISTRATOR,)))}
        self._nobody = _digest("")
        self._loopback_users = loopback_users

    def log_in(self, mechanism: str, credentials: Credentials, is_loopback: bool) -> User:
        """Return the user who has these credentials.

        Raises:
            LoginRefused: the text never says whether it was the name, the password or the address.
        """
        user = self._users.get(credentials.user)
        expected = user.password_sha256 if user is not None else self._nobody
        matches = hmac.compare_digest(expected, _digest(credentials.password))
        if user is None or not matches or not credentials.password:
            raise LoginRefused(refusal(mechanism))
        if user.name in self._loopback_users and not is_loopback:
            raise LoginRefused(refusal(mechanism))
        return user


def refusal(mechanism: str) -> str:
    """Return RabbitMQ's text for a refused login."""
    return (
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    )


def _digest(password: str) -> bytes:
    # Only ever compared in memory with what the configuration says in clear; a stored hash will be a slow,
    # salted one.
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()
