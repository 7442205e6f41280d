"""Direct reply-to: consumers of the name amq.rabbitmq.reply-to, which get replies without a queue. HOT.

Source: RabbitMQ guide "Direct Reply-to".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.model.channel import Channel

REPLY_TO: Final = "amq.rabbitmq.reply-to"
PREFIX: Final = REPLY_TO + "."
TOKEN_BYTES: Final = 24  # of randomness in a name: knowing one is the only permission it takes to answer


def is_reply_name(name: str) -> bool:
    """Return whether a queue name is the pseudo-queue, or the name of a reply consumer."""
    return name.startswith(REPLY_TO)


class Replies:
    """The reply consumers of a broker, by the names that replies are sent to.

    Args:
        token: makes an unguessable text of letters, digits, "-" and "_" from so many bytes of randomness.
    """

    def __init__(self, token: Callable[[int], str]) -> None:
        self._token = token
        self._channels: dict[str, Channel] = {}  # reply name -> the requester's channel

    def open(self, channel: Channel) -> str:
        """Make the name for a channel's reply consumer."""
        name = PREFIX + self._token(TOKEN_BYTES)
        self._channels[name] = channel
        return name

    def close(self, name: str) -> None:
        """Forget a reply consumer."""
        self._channels.pop(name, None)

    def find(self, name: str) -> Channel | None:
        """Return the channel that waits for replies under a name."""
        return self._channels.get(name)

    def is_alive(self, name: str) -> bool:
        """Return whether declaring a name shows a queue: the bare one, or one whose consumer lives."""
        return name == REPLY_TO or name in self._channels
