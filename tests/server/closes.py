"""What a client reads when the broker refuses something, as plain values to compare."""

from __future__ import annotations

from typing import NamedTuple

from pamqp import commands

from ..peer import Method
from .harness import Broker, Client

NOTHING = (0, 0)  # the class and method ids of a close that blames no method


class Close(NamedTuple):
    """A connection.close (on channel 0) or channel.close."""

    channel: int
    code: int
    text: str
    ids: tuple[int, int]


def answer(client: Client, *data: bytes) -> Close | list[str]:
    """Send bytes and take what they cause: a close, if it is the last thing, or the methods by name."""
    client.take()
    client.send(b"".join(data))
    events = [event for event in client.take() if isinstance(event, Method)]
    if events and events[-1].name in ("Connection.Close", "Channel.Close"):
        return Close(events[-1].channel, *events[-1].error)
    return [event.name for event in events]


def opened(broker: Broker | None = None, *channels: int, **peer: object) -> Client:
    """Connect a client with open channels, by default channel 1."""
    client = (broker or Broker()).connect(**peer)  # type: ignore[arg-type]  # arguments of `Peer`
    for number in channels or (1,):
        client.channel(number)
    return client


def is_gone(client: Client) -> bool:
    """Whether the broker is about to end the TCP connection, or has ended it."""
    return client.session.wants_close


def close_ok(client: Client) -> bytes:
    """Make connection.close-ok."""
    return client.peer.send(0, commands.Connection.CloseOk)
