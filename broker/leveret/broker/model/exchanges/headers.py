"""The headers exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast

from leveret.broker.model.terms import binary_term, term, type_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Field, Table, same_value

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.model.exchanges.binding import Binding, Destination, Destinations

X_MATCH: Final = "x-match"
_MATCHES_ANY: Final = {b"all": False, b"any": True, b"all-with-x": False, b"any-with-x": True}
_WITH_X: Final = frozenset((b"all-with-x", b"any-with-x"))
_NO_HEADERS: Final[Table] = {}


class _Criteria:
    """The arguments of a binding, as they are asked of a message."""

    __slots__ = ("_matches_any", "_wanted")

    def __init__(self, arguments: Table) -> None:
        x_match = arguments.get(X_MATCH)
        mode = b"all" if x_match is None else cast("bytes", x_match.value)
        skips_x = mode not in _WITH_X
        self._matches_any = _MATCHES_ANY[mode]
        self._wanted = [
            (name, field)
            for name, field in arguments.items()
            if name != X_MATCH and not (skips_x and name.startswith("x-"))
        ]

    def match(self, headers: Table) -> bool:
        """Whether a message with these headers is for this binding."""
        for name, wanted in self._wanted:
            field = headers.get(name)
            if (field is not None and _satisfies(field, wanted)) == self._matches_any:
                return self._matches_any
        return not self._matches_any


class HeadersMatcher:
    """Routes to the bindings whose arguments, all or any of them, are among the headers of the message.

    Source: RabbitMQ, headers exchange, `x-match`.
    """

    __slots__ = ("_bindings",)

    cacheable: ClassVar[bool] = False

    def __init__(self, arguments: Table) -> None:
        self._bindings: dict[Binding, _Criteria] = {}

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Refuse an `x-match` that nobody knows.

        Raises:
            PreconditionFailed: `x-match` is none of the four words.
        """
        field = arguments.get(X_MATCH)
        if field is None:
            return
        if field.tag != "S":
            raise PreconditionFailed(
                f"Invalid x-match field type {type_name(field)} (value {term(field)}); expected longstr"
            )
        mode = cast("bytes", field.value)
        if mode not in _MATCHES_ANY:
            raise PreconditionFailed(
                f"Invalid x-match field value {binary_term(mode)}; "
                "expected all, any, all-with-x, or any-with-x"
            )

    def bind(self, binding: Binding) -> None:
        """Add a binding."""
        self._bindings[binding] = _Criteria(binding.arguments)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding."""
        del self._bindings[binding]

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find the destinations in binding order. O(bindings)."""
        found: Destinations = {}
        for binding, criteria in self._bindings.items():
            if criteria.match(_NO_HEADERS if headers is None else headers):
                found[binding.destination] = 1
        return found


def _satisfies(field: Field, wanted: Field) -> bool:
    """Whether a header has the value that a binding wants; void wants only that there is one."""
    return wanted.tag == "V" or same_value(field, wanted)
