"""What the verbs of `leveret ctl` do to a node. Texts and exit codes of errors are rabbitmqctl's.

A verb takes its arguments as text, changes or looks at the node within one turn, and returns what is to be
shown. The answer goes out when what it changed is on stable storage. The verbs themselves are grouped by what
they are about, in access_verbs.py, vhost_verbs.py, parameter_verbs.py and node_verbs.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from leveret.broker.model.events import BY_CTL
from leveret.broker.model.rules.authority import (
    AdministrationError,
    InvalidPattern,
    NoSuchUser,
    NoSuchVHost,
    UserExists,
)
from leveret.broker.server.access_verbs import ACCESS_VERBS
from leveret.broker.server.calls import (
    EX_DATA,
    EX_NO_USER,
    EX_SOFTWARE,
    EX_UNAVAILABLE,
    EX_USAGE,
    Answer,
    Call,
    Refusal,
)
from leveret.broker.server.node_verbs import NODE_VERBS
from leveret.broker.server.parameter_verbs import PARAMETER_VERBS
from leveret.broker.server.vhost_verbs import VHOST_VERBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.server.node import Node


def answer(node: Node, request: dict[str, Any]) -> Answer:
    """Do a verb.

    Returns:
        what the command is told, see control_socket.py.
    """
    node.turn.actor = BY_CTL
    try:
        result = _verb(request)(Call(node, request))
    except Refusal as refusal:
        return {"error": refusal.text, "code": refusal.code}
    except AdministrationError as error:
        return _told(error)
    return result or {}


def _verb(request: dict[str, Any]) -> Callable[[Call], Answer | None]:
    verb = VERBS.get(str(request.get("verb")))
    if verb is None:
        raise Refusal(f"Command '{request.get('verb')}' not found.", EX_USAGE)
    return verb


def _told(error: AdministrationError) -> Answer:
    if isinstance(error, NoSuchUser):
        return {"error": f"Error:\n{error}", "code": EX_NO_USER}
    if isinstance(error, UserExists):
        return {"error": f"Error:\n{error}", "code": EX_SOFTWARE}
    if isinstance(error, NoSuchVHost):
        return {"error": str(error), "code": EX_DATA}
    if isinstance(error, InvalidPattern):
        detail = f"{{:invalid_regexp, '{error.pattern}', {{'{error.reason}', {error.position}}}}}"
        return {"error": f"Error:\n{detail}", "code": EX_UNAVAILABLE}
    return {"error": f"Error:\n{error}", "code": EX_UNAVAILABLE}


VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
    **ACCESS_VERBS,
    **VHOST_VERBS,
    **PARAMETER_VERBS,
    **NODE_VERBS,
}
