"""Keys of messages that were there already: x-message-deduplication, on exchanges and queues.

A key is the value of a header. It is stored in the batch of its message, so a crash loses both or neither,
and a duplicate is confirmed when that batch is durable.

Source: the community plugin rabbitmq_message_deduplication; LavinMQ, "Message deduplication".
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from leveret.broker.model.terms import shown
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import (
    INTEGER_TAGS,
    STRING_TAGS,
    Field,
    Table,
    boolean,
    encode_table,
    integer,
    longstr,
)
from leveret.storage.batch import NEVER

if TYPE_CHECKING:
    from leveret.broker.model.turn import Turn
    from leveret.storage.stored import StoredKey

DEDUPLICATION: Final = "x-message-deduplication"  # a type of exchange, and an argument
KEY_HEADER: Final = "x-deduplication-header"  # with the key; as an argument it names another header
CACHE_SIZE: Final = "x-cache-size"
CACHE_TTL: Final = "x-cache-ttl"  # an argument, and a header that takes its place for one message
CACHE_PERSISTENCE: Final = "x-cache-persistence"
DEFAULT_SIZE: Final = 128  # of LavinMQ
CACHE_SIZE_MAX: Final = 10_000_000  # keys, whatever the argument says
KEY_BYTES: Final = 64  # of a key that is kept as it is; of a longer one the hash is kept


class WindowArguments(NamedTuple):
    """How many keys to remember, and for how long."""

    header: str  # that has the key
    size: int  # 0: as many as there are
    ttl_ms: int | None
    is_stored: bool  # survives a restart with its owner
    is_silent: bool  # a duplicate counts as routed, as LavinMQ has it; else as unroutable


def check_window_arguments(arguments: Table) -> None:
    """Check the arguments of an x-message-deduplication exchange.

    Raises:
        PreconditionFailed: one is wrong, or the size is missing.
    """
    _number(arguments, CACHE_SIZE, None, "Missing or invalid argument")
    _number(arguments, CACHE_TTL, 1, "Invalid argument")
    persistence = arguments.get(CACHE_PERSISTENCE)
    if persistence is not None and (
        persistence.tag not in STRING_TAGS or persistence.value not in (b"disk", b"memory")
    ):
        raise PreconditionFailed(f"Invalid argument, '{CACHE_PERSISTENCE}' must be either 'disk' or 'memory'")


def window_of_exchange(type_name: str, arguments: Table) -> WindowArguments | None:
    """Return the window of an exchange; None if it has none.

    Raises:
        PreconditionFailed: an argument is wrong.
    """
    if type_name == DEDUPLICATION:
        check_window_arguments(arguments)
        is_stored = longstr(arguments, CACHE_PERSISTENCE) == "disk"
        return _window(arguments, KEY_HEADER, is_stored, is_silent=False)
    return lavin_window(arguments) if boolean(arguments, DEDUPLICATION) else None


def lavin_window(arguments: Table) -> WindowArguments:
    """Return the window that LavinMQ's arguments ask for.

    Raises:
        PreconditionFailed: one is wrong.
    """
    header = longstr(arguments, KEY_HEADER) or KEY_HEADER
    return _window(arguments, header, is_stored=True, is_silent=True)


def window_of_queue(arguments: Table) -> WindowArguments | None:
    """Return the window of a queue; None if it has none.

    Keys count as long as their messages are there, unless arguments say how many or how long.

    Raises:
        PreconditionFailed: an argument is wrong.
    """
    if not boolean(arguments, DEDUPLICATION):
        return None
    if any(name in arguments for name in (CACHE_SIZE, CACHE_TTL, KEY_HEADER)):
        return lavin_window(arguments)
    return WindowArguments(KEY_HEADER, 0, None, is_stored=True, is_silent=True)


def _window(arguments: Table, header: str, is_stored: bool, is_silent: bool) -> WindowArguments:
    size = _number(arguments, CACHE_SIZE, DEFAULT_SIZE, "Missing or invalid argument")
    ttl_ms = _number(arguments, CACHE_TTL, 0, "Invalid argument")
    return WindowArguments(header, min(size, CACHE_SIZE_MAX), ttl_ms or None, is_stored, is_silent)


def _number(arguments: Table, name: str, default: int | None, complaint: str) -> int:
    """Return an argument that is a positive number, possibly in a string."""
    field = arguments.get(name)
    number = default
    if field is not None:
        number = None
        if field.tag in INTEGER_TAGS:
            number = cast("int", field.value)
        elif field.tag in STRING_TAGS and (text := shown(field)).isdecimal() and len(text) < 20:
            number = int(text)
        if number is not None and number <= 0:
            number = None
    if number is None:
        raise PreconditionFailed(f"{complaint}, '{name}' must be an integer greater than 0")
    return number


def key_of(headers: Table | None, header: str) -> bytes | None:
    """Return the key of a message; None if it has none. Integers are the same in every size."""
    field = None if headers is None else headers.get(header)
    if field is None:
        return None
    if field.tag in INTEGER_TAGS and -(1 << 63) <= cast("int", field.value) < 1 << 63:
        field = Field("l", field.value)
    key = encode_table({"": field})[5:]
    return key if len(key) <= KEY_BYTES else b"#" + blake2b(key, digest_size=32).digest()


class Window:
    """The keys that an exchange or a queue remembers.

    Args:
        turn: what the current turn gathers.
        queue_id: under which the store knows the owner.
        arguments: how many and how long.
        is_durable: whether the owner survives a restart.
    """

    __slots__ = ("_is_stored", "_keys", "_turn", "arguments", "duplicates", "queue_id")

    def __init__(self, turn: Turn, queue_id: int, arguments: WindowArguments, is_durable: bool) -> None:
        self._turn = turn
        self._is_stored = arguments.is_stored and is_durable
        self._keys: dict[bytes, int] = {}  # key -> when it expires; oldest first
        self.arguments = arguments
        self.queue_id = queue_id
        self.duplicates: int = 0  # messages that were refused
        turn.windows[queue_id] = self

    def __len__(self) -> int:
        return len(self._keys)

    def is_duplicate(self, headers: Table | None) -> bool:
        """Whether a message with the key of these headers has been here; if not, it is remembered."""
        key = key_of(headers, self.arguments.header)
        if key is None:
            return False
        if self.has(key):
            return True
        self.remember(key, self.expiry(headers), True)
        return False

    def has(self, key: bytes) -> bool:
        """Whether a key is remembered; then it was that of a duplicate, which is counted."""
        expires_at_ms = self._keys.get(key)
        if expires_at_ms is None or NEVER < expires_at_ms <= self._turn.now_ms:
            return False
        self.duplicates += 1
        return True

    def expiry(self, headers: Table | None) -> int:
        """Return when the key of a message that comes now expires."""
        ttl_ms = integer(headers or {}, CACHE_TTL)
        if ttl_ms is None or ttl_ms <= 0:
            ttl_ms = self.arguments.ttl_ms
        return NEVER if ttl_ms is None else self._turn.now_ms + ttl_ms

    def remember(self, key: bytes, expires_at_ms: int, is_stored: bool) -> None:
        """Remember a key, and forget the oldest if they become too many.

        Args:
            key: one that is not remembered.
            expires_at_ms: when it expires, or NEVER.
            is_stored: a restart does not forget it, if the window is one that survives.
        """
        self._keys.pop(key, None)
        if self.arguments.size and len(self._keys) >= self.arguments.size:
            self.forget(next(iter(self._keys)), True)
        self._keys[key] = expires_at_ms
        if self._is_stored and is_stored:
            self._turn.batch.remember_key(self.queue_id, key, expires_at_ms)

    def forget(self, key: bytes, is_stored: bool) -> None:
        """Forget a key; `is_stored` as it was remembered."""
        if self._keys.pop(key, None) is not None and self._is_stored and is_stored:
            self._turn.batch.forget_key(self.queue_id, key)

    def keep_only(self, kept: dict[bytes, None]) -> None:
        """Forget all keys but some."""
        for key in [key for key in self._keys if key not in kept]:
            self.forget(key, True)

    def restore(self, stored: StoredKey) -> None:
        """Bring back a key; the oldest first."""
        if stored.expires_at_ms == NEVER or stored.expires_at_ms > self._turn.now_ms:
            self._keys[stored.key] = stored.expires_at_ms

    def let_go(self) -> None:
        """Forget everything, because the owner is gone."""
        self._keys.clear()
        self._turn.windows.pop(self.queue_id, None)
