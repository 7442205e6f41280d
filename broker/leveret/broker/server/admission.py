"""Whether a user may open a connection to a vhost: its permissions and the limits of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.access import MAX_CONNECTIONS
from leveret.protocol.errors import NotAllowed

if TYPE_CHECKING:
    from leveret.broker.access import User
    from leveret.broker.model.rules.authority import Authority
    from leveret.broker.model.rules.grants import Grants
    from leveret.broker.model.vhost import VHost

CONNECTION: Final = 10
OPEN: Final = 40


def admit(user: User, vhost: VHost, authority: Authority) -> Grants:
    """Return what a user may do in a vhost that it opens a connection to.

    Raises:
        NotAllowed: there are enough connections, or it has no permissions there.

    Source: AMQP 0-9-1 connection.open (10, 40); texts as seen on RabbitMQ 3.10.
    """
    if 0 <= (limit := vhost.limits.get(MAX_CONNECTIONS, -1)) <= vhost.connection_count:
        raise _refusal(
            f"access to vhost '{vhost.name}' refused for user '{user.name}':"
            f" connection limit ({limit}) is reached"
        )
    if user.has_reached(MAX_CONNECTIONS, user.connection_count):
        raise _refusal(
            f"connection refused for user '{user.name}': user connection limit"
            f" ({user.limits[MAX_CONNECTIONS]}) is reached"
        )
    grants = authority.grants(user, vhost.name)
    if grants is None:
        raise _refusal(f"access to vhost '{vhost.name}' refused for user '{user.name}'")
    return grants


def _refusal(text: str) -> NotAllowed:
    return NotAllowed(text, CONNECTION, OPEN)
