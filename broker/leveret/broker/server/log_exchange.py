"""The log as messages of the exchange amq.rabbitmq.log of the default vhost, if the settings say so.

Lines are taken from any thread. A line is routed in a later turn, and what that takes writes no lines; one
that finds the room for the broker's own messages full is dropped. So the log can neither go round in a circle
nor wait.

Source: RabbitMQ guide "Logging", section "Logging to a system exchange"; properties as seen on RabbitMQ 3.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.own_messages import OwnMessage
from leveret.broker.model.vhost import LOG_EXCHANGE
from leveret.protocol.properties import replace
from leveret.protocol.tables import from_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.server.node import Node


class LogExchange:
    """Takes lines of the log, from any thread.

    Args:
        node: whose log it is.
        wake: has the event loop do a turn.
    """

    def __init__(self, node: Node, wake: Callable[[], None]) -> None:
        self._node = node
        self._wake = wake
        self._content_type = "application/json" if node.settings.log_format == "json" else "text/plain"
        self._is_over = False

    def take(self, level: str, line: str) -> None:
        """Publish a line, if anybody wants lines."""
        vhost = self._node.vhosts.get(self._node.settings.default_vhost)
        exchange = None if vhost is None else vhost.exchanges.get(LOG_EXCHANGE)
        if exchange is None or not exchange.bindings or self._is_over:
            return
        raw = replace(
            content_type=self._content_type,
            headers={"node": from_python(self._node.name)},
            timestamp=self._node.clock_ms() // 1000,
        )
        body = line.encode("utf-8", "backslashreplace") + b"\n"
        self._node.turn.publish_own(OwnMessage(exchange.vhost_name, LOG_EXCHANGE, level, raw, body))
        self._wake()

    def stop(self) -> None:
        """Take nothing any more: there will be no more turns."""
        self._is_over = True
