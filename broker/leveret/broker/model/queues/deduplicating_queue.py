"""A queue that leaves out messages whose key is there already. HOT.

As the community plugin has it, a key counts as long as its message is in the queue, ready or unacked. With
LavinMQ's arguments the queue remembers keys instead, as an exchange does.

A duplicate is accepted and dropped: to a publisher that repeats itself it is no failure. RabbitMQ from 3.13
on would refuse it with a nack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.deduplication import Window, key_of
from leveret.broker.model.queues.queue import Queue
from leveret.broker.model.queues.returned import FAILED
from leveret.storage.batch import NEVER

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.consumer import Consumer
    from leveret.broker.model.deduplication import WindowArguments
    from leveret.broker.model.queues.entry import Entry
    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message


class DeduplicatingQueue(Queue):
    """A queue with keys."""

    __slots__ = ("_by_presence", "_unacked_keys", "window")

    def __init__(
        self,
        turn: Turn,
        vhost_name: str,
        name: str,
        queue_id: int,
        durable: bool,
        owner: Connection | None,
        auto_delete: bool,
        arguments: QueueArguments,
        window: WindowArguments,
    ) -> None:
        super().__init__(turn, vhost_name, name, queue_id, durable, owner, auto_delete, arguments)
        self.window: Window = Window(turn, queue_id, window, durable)
        self._by_presence: bool = window.size == 0
        self._unacked_keys: dict[bytes, None] = {}  # those that a purge leaves; only by presence

    # -- in

    def enqueue(self, messages: list[Message], body_bytes: int, ttl_ms: int, is_shared: bool = False) -> bool:
        """Append messages of one envelope, without duplicates; see `Queue.enqueue`."""
        envelope = messages[0].envelope
        key = key_of(envelope.fields.headers, self.window.arguments.header)
        if key is None:
            return super().enqueue(messages, body_bytes, ttl_ms, is_shared)
        accepted = True
        is_stored = envelope.persistent or self.keeps_transient or not self._by_presence
        for message in messages:
            if self.window.has(key):
                continue
            self.window.remember(key, self._expiry(message, ttl_ms), is_stored)
            if not super().enqueue([message], message.body_bytes, ttl_ms, is_shared):
                self.window.forget(key, is_stored)
                accepted = False
        return accepted

    def _expiry(self, message: Message, ttl_ms: int) -> int:
        """Return when the key of a message expires: with the message, or as long as keys are remembered."""
        if not self._by_presence:
            return self.window.expiry(message.envelope.fields.headers)
        queue_ttl_ms = self.arguments.message_ttl_ms
        if queue_ttl_ms is not None and (ttl_ms < 0 or queue_ttl_ms < ttl_ms):
            ttl_ms = queue_ttl_ms
        return NEVER if ttl_ms < 0 else self.turn.now_ms + ttl_ms

    # -- out

    def _left(self, message: Message) -> None:
        """Let go of the key of a message that is not in the queue any more."""
        if self._by_presence:
            envelope = message.envelope
            key = key_of(envelope.fields.headers, self.window.arguments.header)
            if key is not None:
                self._unacked_keys.pop(key, None)
                self.window.forget(key, envelope.persistent or self.keeps_transient)

    def _is_unacked(self, message: Message) -> None:
        """Remember that a purge leaves a message."""
        if self._by_presence:
            key = key_of(message.envelope.fields.headers, self.window.arguments.header)
            if key is not None:
                self._unacked_keys[key] = None

    def _hand_over_messages(
        self, consumer: Consumer, messages: list[Message], position: int, stride: int
    ) -> None:
        super()._hand_over_messages(consumer, messages, position, stride)
        for message in messages:
            if consumer.no_ack:
                self._left(message)
            else:
                self._is_unacked(message)

    def _hand_over_entries(self, consumer: Consumer, entries: list[Entry]) -> None:
        super()._hand_over_entries(consumer, entries)
        for entry in entries:
            if consumer.no_ack:
                self._left(entry.message)
            else:
                self._is_unacked(entry.message)

    def get(self, no_ack: bool) -> Entry | None:
        """Take the message at the head; see `Queue.get`."""
        entry = super().get(no_ack)
        if entry is not None:
            if no_ack:
                self._left(entry.message)
            else:
                self._is_unacked(entry.message)
        return entry

    def settle(self, entries: list[Entry]) -> None:
        """Unacked messages were acked."""
        super().settle(entries)
        for entry in entries:
            self._left(entry.message)

    def discard(self, entry: Entry, reason: str) -> None:
        """Dead-letter a message that is no longer queued, or drop it."""
        super().discard(entry, reason)
        self._left(entry.message)

    def requeue(self, entries: list[Entry], cause: int = FAILED) -> None:
        """Put unacked messages back, with their keys."""
        if self._by_presence:
            for entry in entries:
                key = key_of(entry.message.envelope.fields.headers, self.window.arguments.header)
                if key is not None:
                    self._unacked_keys.pop(key, None)
        super().requeue(entries, cause)

    # -- all at once

    def purge(self) -> int:
        """Drop all ready messages, and their keys."""
        count = super().purge()
        if self._by_presence:
            self.window.keep_only(self._unacked_keys)
        return count

    def deleted(self) -> int:
        """Let go of everything; see `Queue.deleted`."""
        self.window.let_go()
        return super().deleted()

    def deleted_with_vhost(self) -> None:
        """Let go of everything; see `Queue.deleted_with_vhost`."""
        self.window.let_go()
        super().deleted_with_vhost()
