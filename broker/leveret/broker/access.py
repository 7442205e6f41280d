"""Users, their passwords and tags.

A password is kept as RabbitMQ keeps it: base64 of a salt of 4 bytes and the hash of salt and password, so
that definitions can be exchanged. It is checked in the event loop: that takes 3 microseconds, and 17 for the
longest password that a login has room for, where a detour over a thread takes 80. A hash that is slow on
purpose would have to go to a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ADMINISTRATOR: Final = "administrator"
IMPERSONATOR: Final = "impersonator"  # may publish with any user-id

MAX_CONNECTIONS: Final = "max-connections"
MAX_CHANNELS: Final = "max-channels"

SALT_BYTES: Final = 4
SHA_256: Final = "rabbit_password_hashing_sha256"
_HASHES: Final[dict[str, Callable[[bytes], bytes]]] = {
    SHA_256: lambda data: hashlib.sha256(data).digest(),
    "rabbit_password_hashing_sha512": lambda data: hashlib.sha512(data).digest(),
    "rabbit_password_hashing_md5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
}  # hashing algorithm -> it
HASHING_ALGORITHMS: Final = frozenset(_HASHES)


class User:
    """A user, and what it uses at the moment.

    Args:
        name: unique.
        password_hash: see the top of this module; empty if no password lets the user in.
        hashing_algorithm: one of `HASHING_ALGORITHMS`.
        tags: rights beside permissions, in the order in which they were given.
        limits: name of a limit -> value; a negative one is none.
    """

    __slots__ = (
        "channel_count",
        "connection_count",
        "hashing_algorithm",
        "limits",
        "name",
        "password_hash",
        "tags",
    )

    def __init__(
        self,
        name: str,
        password_hash: str,
        hashing_algorithm: str = SHA_256,
        tags: tuple[str, ...] = (),
        limits: dict[str, int] | None = None,
    ) -> None:
        self.name = name
        self.password_hash = password_hash
        self.hashing_algorithm = hashing_algorithm
        self.tags = tags
        self.limits: dict[str, int] = {} if limits is None else limits
        self.connection_count: int = 0
        self.channel_count: int = 0

    def has_reached(self, limit: str, count: int) -> bool:
        """Whether so many are all that a limit allows."""
        return 0 <= self.limits.get(limit, -1) <= count


def hash_password(password: str, salt: bytes, hashing_algorithm: str = SHA_256) -> str:
    """Return what is kept of a password; nothing of an empty one, with which nobody can log in."""
    if not password:
        return ""
    return base64.b64encode(salt + _HASHES[hashing_algorithm](salt + _encoded(password))).decode()


def password_matches(user: User | None, password: str) -> bool:
    """Whether this is the user's password. It takes as long if there is no such user."""
    kept = b""
    if user is not None:
        try:
            kept = base64.b64decode(user.password_hash, validate=True)
        except (binascii.Error, ValueError):
            kept = b""
    salt, expected = kept[:SALT_BYTES], kept[SALT_BYTES:]
    digest = _HASHES[SHA_256 if user is None else user.hashing_algorithm]
    matches = hmac.compare_digest(expected, digest(salt.ljust(SALT_BYTES) + _encoded(password)))
    return matches and user is not None and bool(password) and bool(user.password_hash)


def refusal(mechanism: str) -> str:
    """Return RabbitMQ's text for a refused login."""
    return (
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    )


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogateescape")
