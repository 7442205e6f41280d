"""What a connection's input can tell the broker: three events, as few of each as possible. HOT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pamqp.base import Frame

    from leveret.protocol.content import Message

# Method ids of class basic (60)
PUBLISH: Final = 40
ACK: Final = 80
REJECT: Final = 90
NACK: Final = 120


class Event:
    """Something that the peer did."""

    __slots__ = ("channel",)

    def __init__(self, channel: int) -> None:
        self.channel = channel


class MethodReceived(Event):
    """A method without an event of its own."""

    __slots__ = ("method",)

    def __init__(self, channel: int, method: Frame) -> None:
        super().__init__(channel)
        self.method = method


class Published(Event):
    """Messages published one after another with the same method arguments and properties."""

    __slots__ = ("immediate", "mandatory", "messages")

    def __init__(self, channel: int, mandatory: bool, immediate: bool, messages: list[Message]) -> None:
        super().__init__(channel)
        self.mandatory = mandatory
        self.immediate = immediate
        self.messages = messages


class Settled(Event):
    """Acks of single deliveries one after another, or one ack, nack or reject.

    `method_id` is ACK, NACK or REJECT; with `multiple`, `tags` is one tag that stands for all up to it.
    """

    __slots__ = ("method_id", "multiple", "requeue", "tags")

    def __init__(self, channel: int, method_id: int, tags: list[int], multiple: bool, requeue: bool) -> None:
        super().__init__(channel)
        self.method_id = method_id
        self.tags = tags
        self.multiple = multiple
        self.requeue = requeue
