"""The exchanges that choose a destination by a hash: x-consistent-hash and x-modulus-hash.

Which destination a key leads to is no contract, but it must stay the same over restarts and releases, so the
hash is one that does not depend on the process.

Source: RabbitMQ's plugins rabbitmq_consistent_hash_exchange and rabbitmq_sharding; texts and shares as seen
on RabbitMQ 3.10.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Final, cast

from leveret.broker.model.terms import binary_term, shown
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Table, encode_table, longstr

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.binding import Binding, Destination, Matcher
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message

HASH_HEADER: Final = "hash-header"
HASH_PROPERTY: Final = "hash-property"
HASH_ON: Final = "x-hash-on"  # LavinMQ's name of `hash-header`
PROPERTIES: Final = ("correlation_id", "message_id", "timestamp")  # that can be hashed
WEIGHT_MAX: Final = 10_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MULTIPLIER: Final = 2862933555777941757  # of the generator that jump consistent hash is defined with
_64_BITS: Final = (1 << 64) - 1


def hash_of(keys: list[bytes]) -> int:
    """Return 64 bits that are the same for the same keys, always and everywhere."""
    digest = blake2b(digest_size=8)
    for key in keys:
        digest.update(len(key).to_bytes(4, "big"))
        digest.update(key)
    return int.from_bytes(digest.digest(), "big")


def jump(key: int, buckets: int) -> int:
    """Choose a bucket so that one bucket more takes only its share from the others. O(log buckets).

    Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm".
    """
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * _MULTIPLIER + 1) & _64_BITS
        following = int((bucket + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return bucket


def _encoded(keys: list[str]) -> list[bytes]:
    return [key.encode("utf-8", "surrogateescape") for key in keys]


class ConsistentHashMatcher:
    """Routes to one destination, chosen by a hash of the routing key; binding keys are weights.

    A destination that is bound again keeps the weight of its oldest binding.
    """

    __slots__ = ("_bindings", "_buckets", "_ends")

    cacheable: ClassVar[bool] = True

    def __init__(self, arguments: Table) -> None:
        self._bindings: dict[Destination, dict[Binding, int]] = {}  # destination -> binding -> weight
        self._buckets: list[Destination] = []
        self._ends: list[int] = []  # number of the bucket behind those of each destination

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Refuse a key that is no weight.

        Raises:
            PreconditionFailed: it is no whole number, or out of range.
        """
        if not _INTEGER.fullmatch(binding_key):
            raise PreconditionFailed(
                f"The binding key must be an integer: {binary_term(*_encoded([binding_key]))}"
            )
        sign = -1 if binding_key[0] == "-" else 1
        digits = binding_key.lstrip("+-").lstrip("0")
        if not digits or sign < 0:
            raise PreconditionFailed("The binding key must be greater than 0")
        if len(digits) > len(str(WEIGHT_MAX)) or int(digits) > WEIGHT_MAX:
            raise PreconditionFailed(f"The binding key must not exceed {WEIGHT_MAX}")

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        self._bindings.setdefault(binding.destination, {})[binding] = int(binding.binding_key)
        self._renumber()

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        bindings = self._bindings[binding.destination]
        del bindings[binding]
        if not bindings:
            del self._bindings[binding.destination]
        self._renumber()

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Choose by the routing keys."""
        return self.bucket(_encoded(routing_keys))

    def bucket(self, keys: list[bytes]) -> Collection[Destination]:
        """Choose by what is hashed."""
        if not self._ends:
            return ()
        return (self._buckets[bisect_right(self._ends, jump(hash_of(keys), self._ends[-1]))],)

    def _renumber(self) -> None:
        self._buckets = list(self._bindings)
        self._ends = list(accumulate(next(iter(weights.values())) for weights in self._bindings.values()))


class MessageHashMatcher(ConsistentHashMatcher):
    """The same by a hash of a header or a property. A message without it counts as one with nothing in it."""

    __slots__ = ("_header", "_property")

    cacheable: ClassVar[bool] = False

    def __init__(self, arguments: Table) -> None:
        super().__init__(arguments)
        self._header = longstr(arguments, HASH_HEADER) or longstr(arguments, HASH_ON)
        self._property = longstr(arguments, HASH_PROPERTY)

    def choose(self, message: Message, routing_keys: list[str], turn: Turn) -> Collection[Destination]:
        """Choose by a header or a property."""
        fields = message.envelope.fields
        value: bytes | int | None = None
        if self._header is not None:
            header = None if fields.headers is None else fields.headers.get(self._header)
            value = None if header is None else encode_table({"": header})
        elif self._property is not None:
            value = cast("bytes | int | None", getattr(fields, self._property))
        if value is None:
            return self.bucket([])
        return self.bucket([value.to_bytes(8, "big") if isinstance(value, int) else value])


def consistent_hash_matcher(arguments: Table) -> Matcher:
    """Make the matcher of an x-consistent-hash exchange.

    Raises:
        PreconditionFailed: it should hash two things, or something that cannot be hashed.
    """
    header = arguments.get(HASH_HEADER) or arguments.get(HASH_ON)
    property_ = arguments.get(HASH_PROPERTY)
    if header is None and property_ is None:
        return ConsistentHashMatcher(arguments)
    if header is not None and property_ is not None:
        raise PreconditionFailed("hash-header and hash-property are mutually exclusive")
    if header is not None and header.tag != "S":
        raise PreconditionFailed(f"Unsupported header: {shown(header)}")
    if property_ is not None and (property_.tag != "S" or shown(property_) not in PROPERTIES):
        raise PreconditionFailed(f"Unsupported property: {shown(property_)}")
    return MessageHashMatcher(arguments)


class ModulusHashMatcher:
    """Routes to one destination: a hash of the routing key modulo the number of bindings, sorted by name.

    A destination that is bound twice gets two shares, as in RabbitMQ.
    """

    __slots__ = ("_bindings", "_sorted")

    cacheable: ClassVar[bool] = True

    def __init__(self, arguments: Table) -> None:
        self._bindings: dict[Binding, None] = {}
        self._sorted: list[Destination] = []

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything."""

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        self._bindings[binding] = None
        self._sort()

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        del self._bindings[binding]
        self._sort()

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Choose by the routing keys."""
        if not self._sorted:
            return ()
        return (self._sorted[hash_of(_encoded(routing_keys)) % len(self._sorted)],)

    def _sort(self) -> None:
        destinations = [binding.destination for binding in self._bindings]
        self._sorted = sorted(destinations, key=lambda destination: destination.name)
