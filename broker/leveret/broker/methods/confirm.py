"""confirm.select."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.methods import make

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel


def confirm_select(channel: Channel, method: commands.Confirm.Select) -> None:
    """Have every publish on the channel confirmed from now on.

    Raises:
        PreconditionFailed: the channel is transactional.

    Source: RabbitMQ "Consumer Acknowledgements and Publisher Confirms" (85, 10).
    """
    if channel.transaction is not None:
        raise PreconditionFailed("cannot switch from tx to confirm mode")
    channel.confirms = True
    if not method.nowait:
        channel.send(make(commands.Confirm.SelectOk))
