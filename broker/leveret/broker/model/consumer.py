"""A consumer: who gets messages of one queue on one channel, and how many more it may have now. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from leveret.broker.model.arguments import X_CONSUMER_TIMEOUT
from leveret.broker.model.queues.queue import DELIVER_MAX
from leveret.protocol.frames import deliver_prefix
from leveret.protocol.methods import make
from leveret.protocol.tables import integer

if TYPE_CHECKING:
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.queues.queue import Queue
    from leveret.protocol.tables import Table


class Consumer:
    """A subscription made with basic.consume."""

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "no_ack",
        "prefetch_count",
        "prefix",
        "priority",
        "queue",
        "tag",
        "timeout_ms",
        "unacked_count",
    )

    def __init__(
        self,
        channel: Channel,
        queue: Queue,
        tag: str,
        no_ack: bool,
        exclusive: bool,
        priority: int,
        arguments: Table,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.arguments = arguments
        self.prefetch_count: int = (
            channel.prefetch_count
        )  # the channel's at this moment; a later change is for others
        self.timeout_ms: int | None = integer(arguments, X_CONSUMER_TIMEOUT) if arguments else None
        self.unacked_count: int = 0
        self.prefix: bytes = deliver_prefix(tag)

    def room(self) -> int:
        """Return how many messages it may be given now (0 or less: none)."""
        channel = self.channel
        if channel.outbox.is_full or channel.is_closed:
            return 0
        if self.no_ack:
            limit = channel.global_prefetch_count  # such deliveries do not count, but wait for those that do
            return 0 if limit and channel.consumers_unacked_count >= limit else DELIVER_MAX
        room = DELIVER_MAX
        if self.prefetch_count:
            room = self.prefetch_count - self.unacked_count
        if channel.global_prefetch_count:
            shared = channel.global_prefetch_count - channel.consumers_unacked_count
            if shared < room:
                return shared
        return room

    def cancelled_by_broker(self) -> None:
        """Forget the consumer, whose queue is gone, and tell the client if it understands."""
        channel = self.channel
        channel.consumers.pop(self.tag, None)
        if channel.connection.consumer_cancel_notify and not channel.is_closed:
            channel.send(make(commands.Basic.Cancel, consumer_tag=self.tag, nowait=True))
