"""What dead-lettering does to a message: its x-death history, and the circles that it ends. Pure.

Whose history it is
-------------------
Clients can publish a message with any `x-death` header; retry code that republishes what it received often
does. Such a header is delivered as it is, but it is no history: a message is *trusted* only if the broker
itself dead-lettered it. A publish makes an untrusted message, `dead_letter` makes a trusted one, and the flag
stays with the message, in memory and in the store, for as long as nobody publishes it anew. The first death
of an untrusted message begins a history and overwrites the header. Where the behaviour of RabbitMQ 3.x is
wanted, say `trusted=True` for every message.

Nothing in the header itself could take the place of the flag: whatever the broker can write, a client can
copy.

Source: RabbitMQ guide "Dead Letter Exchanges"; bytes as seen on RabbitMQ 3.10, with the headers that 4.x has
added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from leveret.protocol.properties import replace
from leveret.protocol.tables import Array, Field, Table, array, from_python, integer, longstr

if TYPE_CHECKING:
    from leveret.protocol.properties import Properties

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"

X_DEATH: Final = "x-death"


@dataclass(frozen=True, slots=True)
class Death:
    """One line of a message's history: in which queue, why and how often it died."""

    queue: str
    reason: str
    count: int


def dead_letter(
    raw: bytes,
    properties: Properties,
    *,
    queue: str,
    reason: str,
    exchange: str,
    routing_keys: list[str],
    time_s: int,
    trusted: bool,
) -> bytes:
    """Write a death into the headers of a message, and take away its expiration.

    Args:
        raw: property list of the message that died.
        properties: the same, parsed.
        queue: it died in.
        reason: one of the reasons above.
        exchange: it was published to; for a message that died before, its last dead-letter exchange.
        routing_keys: it was routed with, without those of BCC.
        time_s: now, in seconds since 1970.
        trusted: whether its x-death was written by the broker.

    Returns:
        property list of the message to publish; headers sorted by name, every other property as it was.
    """
    headers = {} if properties.headers is None else dict(properties.headers)
    is_first = not trusted or X_DEATH not in headers
    history = [] if is_first else _entries(headers)
    entry = _take_entry(history, queue, reason)
    if entry is None:
        entry = _new_entry(queue, reason, exchange, routing_keys, time_s, properties.expiration)
    else:
        entry["count"] = from_python((integer(entry, "count") or 0) + 1)
    headers[X_DEATH] = Field("A", [Field("F", death) for death in [entry, *history]])
    for which in ("first", "last") if is_first else ("last",):
        headers[f"x-{which}-death-exchange"] = from_python(exchange)
        headers[f"x-{which}-death-queue"] = from_python(queue)
        headers[f"x-{which}-death-reason"] = from_python(reason)
    return replace(raw, headers=dict(sorted(headers.items(), key=_encoded_name)), expiration=None)


def deaths(headers: Table | None) -> list[Death]:
    """Read the history that the broker wrote into the headers of a message, most recent first."""
    return [
        Death(longstr(entry, "queue") or "", longstr(entry, "reason") or "", integer(entry, "count") or 1)
        for entry in _entries(headers or {})
    ]


def is_cycle(history: list[Death], queue: str) -> bool:
    """Whether a message would go round in a circle without anybody having rejected it.

    Args:
        history: of the message, its latest death included; after a rejection the message always goes on.
        queue: it would be routed to.
    """
    for death in history:
        if death.reason == REJECTED:
            return False
        if death.queue == queue:
            return True
    return False


def _entries(headers: Table) -> list[Table]:
    """Return copies of the entries of an x-death header; what is not a table in it is left out."""
    elements: Array = array(headers, X_DEATH) or []
    return [dict(cast("Table", element.value)) for element in elements if element.tag == "F"]


def _take_entry(history: list[Table], queue: str, reason: str) -> Table | None:
    """Remove the entry for this queue and reason, and return it."""
    for index, entry in enumerate(history):
        if longstr(entry, "queue") == queue and longstr(entry, "reason") == reason:
            return history.pop(index)
    return None


def _new_entry(
    queue: str, reason: str, exchange: str, routing_keys: list[str], time_s: int, expiration: bytes | None
) -> Table:
    """Make an entry; names and types of its fields are what clients in other languages rely on."""
    entry: Table = {} if expiration is None else {"original-expiration": Field("S", expiration)}
    entry["count"] = from_python(1)
    entry["reason"] = from_python(reason)
    entry["queue"] = from_python(queue)
    entry["time"] = Field("T", time_s)
    entry["exchange"] = from_python(exchange)
    entry["routing-keys"] = from_python(routing_keys)
    return entry


def _encoded_name(item: tuple[str, Field]) -> bytes:
    return item[0].encode("utf-8", "surrogateescape")
