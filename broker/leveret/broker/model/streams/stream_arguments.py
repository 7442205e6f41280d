"""What a consumer of a stream asks for: where to begin, which messages, and whether the broker remembers it.

Source: RabbitMQ guide "Streams"; texts as seen on RabbitMQ 3.10. That the broker remembers how far a consumer
has read, and offsets from the end, are LavinMQ's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from leveret.broker.model.terms import resource_name, term, type_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import INTEGER_TAGS, boolean

if TYPE_CHECKING:
    from leveret.protocol.tables import Array, Field, Table

X_STREAM_OFFSET: Final = "x-stream-offset"
X_STREAM_FILTER: Final = "x-stream-filter"
X_STREAM_MATCH_UNFILTERED: Final = "x-stream-match-unfiltered"
X_OFFSET_TRACKING: Final = "x-stream-automatic-offset-tracking"
FILTERS_MAX: Final = 1000  # values in one filter

FIRST: Final = "first"
LAST: Final = "last"
NEXT: Final = "next"

_DURATION: Final = re.compile(r"([0-9]{1,18})([YMDhms])", re.ASCII)
_SECOND_MS: Final = 1000
_DAY_MS: Final = 24 * 60 * 60 * _SECOND_MS
_UNIT_MS: Final = {
    "Y": 365 * _DAY_MS,
    "M": 30 * _DAY_MS,
    "D": _DAY_MS,
    "h": 60 * 60 * _SECOND_MS,
    "m": 60 * _SECOND_MS,
    "s": _SECOND_MS,
}


def duration_ms(text: str) -> int | None:
    """Return the milliseconds in `7D`, `1h` and the like; None if it is no such text, or no time at all."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _UNIT_MS[found[2]] or None if found else None


@dataclass(frozen=True, slots=True)
class Start:
    """Where a consumer begins: at `word`, else at `offset`, else at what came at `time_ms` or later."""

    word: str = ""
    offset: int | None = None  # negative: so many messages before the end
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReaderArguments:
    """The arguments of a consumer of a stream."""

    start: Start
    filters: frozenset[bytes] | None  # filter values that it wants; None for every message
    match_unfiltered: bool  # it wants messages without a filter value, too
    tracks_offset: bool  # the broker remembers how far it has read

    @staticmethod
    def from_table(queue_name: str, vhost_name: str, table: Table, now_ms: int) -> ReaderArguments:
        """Check the arguments that only streams have.

        Raises:
            PreconditionFailed: one of them is wrong.
        """
        resource = resource_name("queue", queue_name, vhost_name)
        filters = table.get(X_STREAM_FILTER)
        return ReaderArguments(
            _start(resource, table.get(X_STREAM_OFFSET), now_ms),
            None if filters is None else _filters(resource, filters),
            _flag(resource, table, X_STREAM_MATCH_UNFILTERED),
            _flag(resource, table, X_OFFSET_TRACKING),
        )


def _start(resource: str, field: Field | None, now_ms: int) -> Start:
    if field is None:
        return Start(NEXT)
    if field.tag in INTEGER_TAGS:
        return Start(offset=cast("int", field.value))
    if field.tag == "T":
        return Start(time_ms=cast("int", field.value) * _SECOND_MS)
    if field.tag == "S":
        text = cast("bytes", field.value).decode("utf-8", "surrogateescape")
        if text in (FIRST, LAST, NEXT):
            return Start(text)
        ago_ms = duration_ms(text)
        if ago_ms is not None:
            return Start(time_ms=max(0, now_ms - ago_ms))
    raise PreconditionFailed(
        f"invalid arg '{X_STREAM_OFFSET}' for {resource}:"
        f" {{invalid_stream_offset_arg,{{{type_name(field)},{term(field)}}}}}"
    )


def _filters(resource: str, field: Field) -> frozenset[bytes]:
    values = cast("Array", field.value) if field.tag == "A" else [field]
    for value in values:
        if value.tag != "S":
            raise _unacceptable(resource, X_STREAM_FILTER, value)
    if len(values) > FILTERS_MAX:
        raise PreconditionFailed(
            f"invalid arg '{X_STREAM_FILTER}' for {resource}: more than {FILTERS_MAX} values"
        )
    return frozenset(cast("bytes", value.value) for value in values)


def _flag(resource: str, table: Table, name: str) -> bool:
    field = table.get(name)
    if field is None:
        return False
    if field.tag == "S" and field.value in (b"true", b"false"):
        return field.value == b"true"
    if field.tag != "t":
        raise _unacceptable(resource, name, field)
    return boolean(table, name) or False


def _unacceptable(resource: str, name: str, field: Field) -> PreconditionFailed:
    return PreconditionFailed(
        f"invalid arg '{name}' for {resource}: {{unacceptable_type,{type_name(field)}}}"
    )
