"""Peers that have not logged in: how many of them are served, and how much the log says about them.

Anybody who reaches the port is one, so neither grows with what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.logs import Throttle, get_logger

if TYPE_CHECKING:
    from leveret.broker.config import Settings

STRANGERS_LOGGED: Final = 20  # lines about them, in ...
STRANGERS_LOGGED_S: Final = 1.0


class Strangers:
    """The connections that have not logged in, in all and from each address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = get_logger()
        self._throttle = Throttle(STRANGERS_LOGGED, STRANGERS_LOGGED_S)
        self._count = 0
        self._of_address: dict[str, int] = {}  # address -> connections

    def admit(self, address: str) -> bool:
        """Count a connection more, unless there are too many already: then it is not to be served."""
        of_address = self._of_address.get(address, 0)
        if (
            self._count >= self._settings.unauthenticated_connections
            or of_address >= self._settings.unauthenticated_connections_per_address
        ):
            return False
        self._of_address[address] = of_address + 1
        self._count += 1
        return True

    def forget(self, address: str) -> None:
        """Count a connection less: its peer has logged in, or gone."""
        self._count -= 1
        left = self._of_address[address] - 1
        if left:
            self._of_address[address] = left
        else:
            del self._of_address[address]

    def warn(self, now_ms: int, event: str, **values: object) -> None:
        """Log what anybody can cause without logging in, but not as often as anybody likes."""
        held_back = self._throttle.admit(now_ms / 1000)
        if held_back is not None:
            if held_back:
                values["similar_before"] = held_back
            self._log.warning(event, **values)
