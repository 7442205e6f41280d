"""A connection as the model sees it: who it is, what it may do, its channels and exclusive queues. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.protocol.methods import encode_method

if TYPE_CHECKING:
    from pamqp.base import Frame

    from leveret.broker.access import User
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.queues.queue import Queue
    from leveret.broker.model.rules.grants import Grants
    from leveret.broker.model.turn import Turn
    from leveret.broker.model.vhost import VHost
    from leveret.protocol.outbox import Outbox
    from leveret.protocol.tables import Table


class Connection:
    """One AMQP connection after its handshake.

    A reply about a durable object waits for its batch: it is held, and until it has been sent nothing more of
    this connection's input is handled, so that order is kept.
    """

    __slots__ = (
        "_held",
        "channel_max",
        "channels",
        "client_properties",
        "consumer_cancel_notify",
        "consumers_per_channel",
        "exclusive_queues",
        "grants",
        "is_counted",
        "name",
        "outbox",
        "pid",
        "turn",
        "user",
        "vhost",
        "wait_for_batch",
    )

    def __init__(
        self, turn: Turn, name: str, outbox: Outbox, user: User, vhost: VHost, grants: Grants
    ) -> None:
        self.turn = turn
        self.name = name  # peer -> server, as RabbitMQ shows it
        self.pid: str = ""  # what stands for it in lists and events
        self.outbox = outbox
        self.user = user
        self.vhost = vhost
        self.grants = grants  # what the user may do in the vhost
        self.channel_max: int = 0  # how many channels may be open; 0 is unlimited
        self.consumers_per_channel: int = 10_000
        self.client_properties: Table = {}
        self.consumer_cancel_notify: bool = False  # the client understands a basic.cancel from the server
        self.channels: dict[int, Channel] = {}  # by channel number
        self.exclusive_queues: dict[Queue, None] = {}  # in order of their declaration
        self.is_counted: bool = False  # among those of its user and its vhost
        self.wait_for_batch: int = 0  # input rests until this batch is durable
        self._held: list[bytes] = []

    def count_in(self) -> None:
        """Count among the connections of the user and of the vhost."""
        self.is_counted = True
        self.user.connection_count += 1
        self.vhost.connection_count += 1

    def count_out(self) -> None:
        """Count no longer."""
        if self.is_counted:
            self.is_counted = False
            self.user.connection_count -= 1
            self.vhost.connection_count -= 1

    def send(self, channel: int, method: Frame) -> None:
        """Send a method without content."""
        frame = encode_method(channel, method)
        if self._held:
            self._held.append(frame)
        else:
            self.outbox.write(frame)

    def send_when_durable(self, channel: int, method: Frame, batch: int) -> None:
        """Send a method once a batch is on stable storage, and handle no more input before."""
        if batch <= self.turn.durable:
            self.send(channel, method)
            return
        self._held.append(encode_method(channel, method))
        self.wait_for_batch = batch

    def rest_until_durable(self) -> None:
        """Handle no more input until the open batch is durable."""
        self.wait_for_batch = self.turn.batch.number

    @property
    def is_waiting(self) -> bool:
        """Whether input rests for a batch."""
        return self.wait_for_batch > self.turn.durable

    def drop_held(self) -> None:
        """Forget what was held: the connection is closed, and nobody may take it for done."""
        self._held.clear()
        self.wait_for_batch = 0

    def release_held(self) -> None:
        """Send what was held; its batch is durable."""
        for frame in self._held:
            self.outbox.write(frame)
        self._held.clear()
