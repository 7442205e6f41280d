"""A run of messages on its way into the queues. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.broker.model.queues.queue import Queue
    from leveret.protocol.content import Message


class Publish:
    """Messages of one envelope, checked and routed.

    `queues` holds each queue once; `reply_names` are names of direct replies. Where the way depends on each
    message, there are no queues yet, but routing keys in `keys`: they are routed when they are enqueued.
    """

    __slots__ = ("body_bytes", "keys", "mandatory", "messages", "queues", "reply_names", "ttl_ms")

    def __init__(
        self,
        messages: list[Message],
        ttl_ms: int,
        queues: list[Queue],
        reply_names: list[str],
        mandatory: bool,
        keys: list[str] | None = None,
    ) -> None:
        self.messages = messages
        self.ttl_ms = ttl_ms  # their own expiration, -1 for none
        self.queues = queues
        self.reply_names = reply_names
        self.mandatory = mandatory
        self.keys = keys
        body_bytes = 0
        for message in messages:
            body_bytes += message.body_bytes
        self.body_bytes: int = body_bytes
