"""Whether declaring something again asks for what is there already, and how RabbitMQ says that it does not.

Source: RabbitMQ guide "Queues", property equivalence; comparison and texts as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.terms import shown, type_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import INTEGER_TAGS

if TYPE_CHECKING:
    from leveret.protocol.tables import Field


def same_argument(left: Field | None, right: Field | None) -> bool:
    """Whether two arguments are the same in a redeclaration: whole numbers by value, strings by bytes."""
    if left is None or right is None:
        return left is right
    return _kind(left.tag) == _kind(right.tag) and left.value == right.value


def inequivalent(
    resource: str, name: str, received: Field | None, current: Field | None
) -> PreconditionFailed:
    """Say how a redeclaration differs from what is there."""
    if received is not None and current is not None:
        told, ours = _value(received), _value(current)
    else:
        told, ours = _value_and_type(received), _value_and_type(current)
    return PreconditionFailed(
        f"inequivalent arg '{name}' for {resource}: received {told} but current is {ours}"
    )


def _kind(tag: str) -> str:
    """Return a tag that stands for all that compare with each other."""
    if tag in INTEGER_TAGS or tag == "T":
        return "l"
    return {"f": "d", "x": "S"}.get(tag, tag)


def _value(field: Field) -> str:
    return "none" if field.tag == "V" else f"'{shown(field)}'"


def _value_and_type(field: Field | None) -> str:
    return "none" if field is None else f"the value '{shown(field)}' of type '{type_name(field)}'"
