"""Parameters that belong to no vhost: JSON values under names, kept for others. The broker looks at none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from leveret.storage.changes import ParameterCleared, ParameterSet

if TYPE_CHECKING:
    from leveret.broker.model.turn import Turn

GLOBAL: Final = "global"  # their component; they are stored as parameters of a vhost without a name


class GlobalParameters:
    """The global parameters of a broker."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.by_name: dict[str, object] = {}

    def restore(self, stored: ParameterSet) -> None:
        """Have a parameter again that was stored before a restart."""
        self.by_name[stored.name] = json.loads(stored.value)

    def set(self, name: str, value: object) -> None:
        """Keep a JSON value."""
        self.by_name[name] = value
        self._turn.define(ParameterSet("", GLOBAL, name, json.dumps(value)))
        self._turn.events.parameter_changed(None, GLOBAL, name, value)

    def clear(self, name: str) -> bool:
        """Forget a value.

        Returns:
            whether it was there.
        """
        if name not in self.by_name:
            return False
        del self.by_name[name]
        self._turn.define(ParameterCleared("", GLOBAL, name))
        self._turn.events.parameter_changed(None, GLOBAL, name, None)
        return True
