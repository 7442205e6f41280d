"""exchange.declare, delete, bind and unbind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from leveret.broker.model.rules.grants import EXCHANGE
from leveret.protocol.methods import arguments_of, make

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel


def exchange_declare(channel: Channel, method: commands.Exchange.Declare) -> None:
    """Create an exchange, or check that it exists.

    Raises:
        AccessRefused: no permission to configure the exchange (passive: none at all), the default exchange,
            or a reserved "amq." name.
        NotFound: passive, and there is no such exchange.
        PreconditionFailed: an unknown type, or it exists with other properties.

    Source: AMQP 0-9-1 exchange.declare (40, 10).
    """
    vhost = channel.vhost
    name = without_line_breaks(method.exchange)
    if method.passive:
        vhost.refuse_default_exchange(name)
        channel.connection.grants.require_any(EXCHANGE, name)
        durable = vhost.router.exchange(name).durable
    else:
        durable = method.durable
        vhost.declare_exchange(
            name,
            method.exchange_type,
            durable,
            method.auto_delete,
            method.internal,
            arguments_of(method),
            channel.connection.grants,
        )
    if not method.nowait:
        reply = make(commands.Exchange.DeclareOk)
        if durable:
            channel.send_when_defined(reply)
        else:
            channel.send(reply)


def exchange_delete(channel: Channel, method: commands.Exchange.Delete) -> None:
    """Delete an exchange and its bindings; one that is not there counts as deleted.

    Raises:
        AccessRefused: no permission to configure the exchange, the default exchange, or an "amq." name.
        PreconditionFailed: if-unused, and it has bindings.

    Source: AMQP 0-9-1 exchange.delete (40, 20).
    """
    channel.vhost.delete_exchange(
        without_line_breaks(method.exchange), method.if_unused, channel.connection.grants
    )
    if not method.nowait:
        channel.send_when_defined(make(commands.Exchange.DeleteOk))


def exchange_bind(channel: Channel, method: commands.Exchange.Bind) -> None:
    """Bind an exchange to another.

    Raises:
        AccessRefused: no permission to write to the destination or to read from the source, or one of them is
            the default exchange.
        NotFound: one of them does not exist.

    Source: RabbitMQ "Exchange to Exchange Bindings" (40, 30).
    """
    channel.vhost.bind(
        without_line_breaks(method.source),
        without_line_breaks(method.destination),
        True,
        method.routing_key,
        arguments_of(method),
        channel.connection,
    )
    if not method.nowait:
        channel.send_when_defined(make(commands.Exchange.BindOk))


def exchange_unbind(channel: Channel, method: commands.Exchange.Unbind) -> None:
    """Remove a binding between exchanges; one that is not there counts as removed.

    Raises:
        AccessRefused: as for `exchange_bind`.

    Source: RabbitMQ "Exchange to Exchange Bindings" (40, 40).
    """
    channel.vhost.unbind(
        without_line_breaks(method.source),
        without_line_breaks(method.destination),
        True,
        method.routing_key,
        arguments_of(method),
        channel.connection,
    )
    if not method.nowait:
        channel.send_when_defined(make(commands.Exchange.UnbindOk))


def without_line_breaks(name: str) -> str:
    """Return a name without CR and LF, which RabbitMQ drops."""
    return name.replace("\r", "").replace("\n", "")
