"""channel.flow, and access.request of old clients. Opening and closing belong to the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from leveret.protocol.errors import MethodNotImplemented
from leveret.protocol.methods import Access, make

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel


def channel_flow(channel: Channel, method: commands.Channel.Flow) -> None:
    """Accept that the client takes deliveries.

    Raises:
        MethodNotImplemented: the client wants them stopped; RabbitMQ has prefetch for that.

    Source: AMQP 0-9-1 channel.flow (20, 20).
    """
    if not method.active:
        raise MethodNotImplemented("active=false")
    channel.send(make(commands.Channel.FlowOk, active=True))


def access_request(channel: Channel, _method: Access.Request) -> None:
    """Grant a ticket, which nothing asks for later.

    Source: AMQP 0-8 access.request (30, 10).
    """
    channel.send(make(Access.RequestOk, ticket=1))
