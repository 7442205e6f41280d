"""When a connection sends heartbeats, and when it gives up on a silent peer. HOT.

Both sides send something at least twice in an interval. A peer that said nothing in two intervals running is
taken for dead.

Source: AMQP 0-9-1 section 4.2.7; intervals as RabbitMQ 3.10 keeps them.
"""

from __future__ import annotations

from typing import Final

MISSED_MAX: Final = 2  # intervals without a byte


class Heartbeats:
    """The heartbeats of one connection; there are none until `begin`. All times are milliseconds."""

    __slots__ = ("_hear_at_ms", "_missed", "_send_at_ms", "heard", "interval_ms")

    def __init__(self) -> None:
        self.interval_ms: int = 0  # 0 for none
        self.heard: bool = False  # bytes came since the last look
        self._send_at_ms: int = 0  # when to look whether one must be sent; 0 for never
        self._hear_at_ms: int = 0  # when to look whether the peer lives; 0 for never
        self._missed: int = 0  # looks in a row without a byte

    def begin(self, interval_s: int, now_ms: int) -> None:
        """Keep an interval from now on."""
        self.interval_ms = interval_s * 1000
        self._send_at_ms = now_ms + self.interval_ms // 2
        self._hear_at_ms = now_ms + self.interval_ms

    def end(self) -> None:
        """Send none any more, and wait for none."""
        self._send_at_ms = self._hear_at_ms = 0

    @property
    def due_ms(self) -> int:
        """When to look again; 0 for never."""
        if self._send_at_ms and self._hear_at_ms:
            return min(self._send_at_ms, self._hear_at_ms)
        return self._send_at_ms or self._hear_at_ms

    def is_time_to_send(self, now_ms: int) -> bool:
        """Whether half an interval is over: a heartbeat goes out unless something else did meanwhile."""
        if not self._send_at_ms or now_ms < self._send_at_ms:
            return False
        self._send_at_ms = now_ms + self.interval_ms // 2
        return True

    def is_peer_silent(self, now_ms: int, is_resting: bool) -> bool:
        """Whether to give up on the peer.

        Args:
            now_ms: the time.
            is_resting: we do not read from it, so it cannot be heard.
        """
        if not self._hear_at_ms or now_ms < self._hear_at_ms:
            return False
        self._missed = 0 if self.heard or is_resting else self._missed + 1
        self.heard = False
        self._hear_at_ms = now_ms + self.interval_ms
        return self._missed >= MISSED_MAX
