"""Messages of a queue that nobody has touched: objects where they are few, packed where they are many. HOT.

A waiting message is two objects and a place in a deque, some 150 bytes beside its body, and without a run of
its own an envelope too. That is fine for the thousands that consumers are about to get, and not for the
millions behind them. So messages that arrive while `PACK_FROM` wait already are packed, a block of them at
once, and unpacked when the head of the queue comes to their block:

* Messages of one envelope whose bodies have one length differ in nothing but the body: a block of them is
  what their frames begin with, once, and the bodies, joined. A body of 16 bytes then takes 17 bytes.
* Other messages are packed with their frames, joined, and where each ends. Exchanges and routing keys are
  listed once a block; envelopes are made anew from them and from the property list, which is in the frames.
* Messages that several queues share, and those with large bodies, would gain nothing: they stay as they are.

A long run of publishes is packed as it arrives; messages that come singly gather in `_tail` until they are
worth it. Order is `_head`, `_blocks`, `_tail`. A queue whose consumers keep up has only a head, and costs one
comparison a run more than a plain deque, which this is tested against.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Final

from leveret.protocol.content import FRAME_OVERHEAD, Envelope, Message
from leveret.protocol.properties import Properties

if TYPE_CHECKING:
    from leveret.broker.model.turn import Turn

MESSAGE_OVERHEAD: Final = 160  # bytes: what a waiting message takes beside its body
PACK_FROM: Final = 32768  # messages of a queue that stay as they are
PACK_BODY_MAX: Final = 512  # bytes: larger bodies are not worth a copy
RUN_MIN: Final = 64  # messages that arrive together and are a block of their own
TAIL_MAX: Final = 512  # messages that arrived singly and are a block together
BLOCK_OVERHEAD: Final = 256  # bytes: what a block takes beside its messages
ORIGIN_OVERHEAD: Final = 256  # bytes: what an exchange and a routing key take in a block
PROPERTIES_AT: Final = 19  # in a content header frame


class Block:
    """Consecutive messages of one queue, never changed; these are as they came."""

    __slots__ = ("body_bytes", "count", "may_be_transient", "saved_bytes")

    def __init__(self, count: int, body_bytes: int, may_be_transient: bool) -> None:
        self.count = count
        self.body_bytes = body_bytes  # of all of them
        self.may_be_transient = may_be_transient  # False if all are persistent
        self.saved_bytes: int = 0  # of what they would take as they are

    def unpack(self) -> list[Message]:
        """Return the messages, in order."""
        raise NotImplementedError


class LooseBlock(Block):
    """Messages as they are."""

    __slots__ = ("messages",)

    def __init__(self, messages: list[Message]) -> None:
        body_bytes = 0
        for message in messages:
            body_bytes += message.body_bytes
        super().__init__(len(messages), body_bytes, True)
        self.messages = messages

    def unpack(self) -> list[Message]:
        """Return the messages, in order."""
        return self.messages


class EvenBlock(Block):
    """Messages that differ in nothing but their bodies.

    Args:
        first: any of them.
        prefix: what the frames of all begin with.
        rests: what follows it, of each.
    """

    __slots__ = ("body_size", "envelope", "prefix", "rests", "step")

    def __init__(self, first: Message, prefix: bytes, rests: list[bytes]) -> None:
        count = len(rests)
        self.envelope = first.envelope
        self.body_size: int = first.body_bytes
        self.prefix = prefix
        self.step: int = len(rests[0])
        self.rests: bytes = b"".join(rests)
        super().__init__(count, self.body_size * count, not first.envelope.persistent)
        self.saved_bytes = (
            count * MESSAGE_OVERHEAD + self.body_bytes - len(self.rests) - len(prefix) - BLOCK_OVERHEAD
        )

    def unpack(self) -> list[Message]:
        """Return the messages, in order."""
        messages: list[Message] = []
        envelope = self.envelope
        prefix = self.prefix
        rests = self.rests
        body_size = self.body_size
        step = self.step
        at = 0
        for _ in range(self.count):
            messages.append(Message(envelope, prefix + rests[at : at + step], body_size))
            at += step
        return messages


class Origin:
    """What an envelope is made from, beside its property list."""

    __slots__ = ("cc_is_spent", "dead_lettered", "exchange", "frame_max", "routing_key")

    def __init__(self, envelope: Envelope) -> None:
        self.exchange: str = envelope.exchange
        self.routing_key: str = envelope.routing_key
        self.frame_max: int = envelope.frame_max
        self.dead_lettered: bool = envelope.dead_lettered
        self.cc_is_spent: bool = envelope.cc_is_spent

    def make_envelope(self, content: bytes, raw: bytes) -> Envelope:
        """Return an envelope like the one that a message with these frames had."""
        channel = int.from_bytes(content[1:3], "big")
        envelope = Envelope(
            self.exchange, self.routing_key, raw, Properties.parse(raw), channel, self.frame_max
        )
        envelope.dead_lettered = self.dead_lettered
        envelope.cc_is_spent = self.cc_is_spent
        return envelope


class MixedBlock(Block):
    """Messages of any kind, but for those with a BCC header."""

    __slots__ = ("contents", "ends", "kinds", "origins")

    def __init__(self, messages: list[Message]) -> None:
        contents: list[bytes] = []
        ends: list[int] = []
        kinds: list[int] = []
        kind_of: dict[tuple[str, str, int, bool, bool], int] = {}
        origins: list[Origin] = []
        last: Envelope | None = None
        kind = 0
        end = 0
        body_bytes = 0
        may_be_transient = False
        for message in messages:
            envelope = message.envelope
            if envelope is not last:
                last = envelope
                key = (
                    envelope.exchange,
                    envelope.routing_key,
                    envelope.frame_max,
                    envelope.dead_lettered,
                    envelope.cc_is_spent,
                )
                kind = kind_of.get(key, -1)
                if kind < 0:
                    kind = kind_of[key] = len(origins)
                    origins.append(Origin(envelope))
                if not envelope.persistent:
                    may_be_transient = True
            content = message.frames()
            end += len(content)
            contents.append(content)
            ends.append(end)
            kinds.append(kind)
            body_bytes += message.body_bytes
        super().__init__(len(messages), body_bytes, may_be_transient)
        self.contents: bytes = b"".join(contents)
        self.ends: array[int] = array("Q", ends)
        self.kinds: array[int] = array("I", kinds)  # which of `origins`
        self.origins = origins
        taken_bytes = end + 12 * self.count + ORIGIN_OVERHEAD * len(origins) + BLOCK_OVERHEAD
        self.saved_bytes = self.count * MESSAGE_OVERHEAD + body_bytes - taken_bytes

    def unpack(self) -> list[Message]:
        """Return the messages, in order."""
        messages: list[Message] = []
        ends: list[int] = self.ends.tolist()
        kinds: list[int] = self.kinds.tolist()
        made: dict[tuple[int, bytes], Envelope] = {}
        contents = self.contents
        envelope: Envelope | None = None
        last_kind = -1
        start = 0
        for index in range(self.count):
            end = ends[index]
            content = contents[start:end]
            start = end
            raw = content[PROPERTIES_AT : FRAME_OVERHEAD + int.from_bytes(content[3:7], "big") - 1]
            kind = kinds[index]
            if envelope is None or kind != last_kind or raw != envelope.raw:
                last_kind = kind
                key = (kind, raw)
                envelope = made.get(key)
                if envelope is None:
                    envelope = made[key] = self.origins[kind].make_envelope(content, raw)
            messages.append(Message(envelope, content, int.from_bytes(content[11:PROPERTIES_AT], "big")))
        return messages


def pack(messages: list[Message]) -> Block:
    """Pack messages into the block that suits them; there must be some. The list is not kept."""
    first = messages[0]
    frames = first.frames()
    size = len(frames)
    start = size - first.body_bytes - 1  # the last body frame's end goes with the body
    prefix = frames[:start]
    rests: list[bytes] = []
    envelope = first.envelope
    for message in messages:
        content = message.frames()
        if message.envelope is not envelope or len(content) != size or content[:start] != prefix:
            break
        rests.append(content[start:])
    if len(rests) < len(messages):
        for message in messages:
            if message.envelope.bcc_keys:
                return LooseBlock(list(messages))
        return MixedBlock(messages)
    if envelope.bcc_keys:
        return LooseBlock(list(messages))
    return EvenBlock(first, prefix, rests)


class Ready:
    """Messages in order: in at the end, out at the head. What packing saves is noted in the turn's account.

    Args:
        turn: has the account.
    """

    __slots__ = ("_blocks", "_head", "_tail", "_tail_is_loose", "_turn", "count")

    def __init__(self, turn: Turn) -> None:
        self.count: int = 0
        self._turn = turn
        self._head: deque[Message] = deque()
        self._blocks: deque[Block] | None = None  # None while all is in `_head`
        self._tail: list[Message] = []
        self._tail_is_loose: bool = False

    # -- in

    def extend(self, messages: list[Message], body_bytes: int, is_shared: bool) -> None:
        """Append messages.

        Args:
            messages: in order; not kept.
            body_bytes: of all of them together.
            is_shared: other queues have them, too.
        """
        count = len(messages)
        self.count += count
        if self.count <= PACK_FROM and self._blocks is None:
            self._head.extend(messages)
            return
        if self._blocks is None:
            self._blocks = deque()
        is_loose = is_shared or body_bytes > PACK_BODY_MAX * count
        if count >= RUN_MIN:
            self._pack_tail()
            self._add(list(messages) if is_loose else messages, is_loose)
            return
        self._tail.extend(messages)
        if is_loose:
            self._tail_is_loose = True
        if len(self._tail) >= TAIL_MAX:
            self._pack_tail()

    def _pack_tail(self) -> None:
        tail = self._tail
        if tail:
            self._tail = []
            self._add(tail, self._tail_is_loose)
            self._tail_is_loose = False

    def _add(self, messages: list[Message], is_loose: bool) -> None:
        block = LooseBlock(messages) if is_loose else pack(messages)
        self._turn.memory_bytes -= block.saved_bytes
        assert self._blocks is not None
        self._blocks.append(block)

    # -- out

    def first(self) -> Message:
        """Return the message at the head; there must be one."""
        if not self._head:
            self._unpack_up_to(1)
        return self._head[0]

    def take(self, count: int) -> list[Message]:
        """Take the first messages; there must be as many."""
        head = self._head
        if count > len(head):
            self._unpack_up_to(count)
        self.count -= count
        if count == len(head):
            messages = list(head)
            head.clear()
            return messages
        return [head.popleft() for _ in range(count)]

    def take_some(self) -> list[Message]:
        """Take as many of the first messages as are at hand; none if there are none."""
        if not self._head and self.count:
            self._unpack_up_to(1)
        return self.take(len(self._head))

    def drop(self, count: int) -> int:
        """Drop the first messages; there must be as many.

        Returns:
            the bytes of their bodies.
        """
        self.count -= count
        head = self._head
        body_bytes = 0
        while count:
            if not head and self._blocks:
                block = self._blocks[0]
                if block.count <= count:
                    count -= block.count
                    body_bytes += block.body_bytes
                    self._turn.memory_bytes += block.saved_bytes
                    self._blocks.popleft()
                    continue
            if not head:
                self._unpack_up_to(1)
            body_bytes += head.popleft().body_bytes
            count -= 1
        return body_bytes

    def drop_last(self, count: int) -> int:
        """Drop the last messages; there must be as many.

        Returns:
            the bytes of their bodies.
        """
        self.count -= count
        body_bytes = 0
        if self._blocks is not None:
            self._pack_tail()
        blocks = self._blocks
        while count and blocks:
            block = blocks.pop()
            self._turn.memory_bytes += block.saved_bytes
            if block.count <= count:
                count -= block.count
                body_bytes += block.body_bytes
                continue
            messages = block.unpack()
            for message in messages[block.count - count :]:
                body_bytes += message.body_bytes
            self._add(messages[: block.count - count], isinstance(block, LooseBlock))
            count = 0
        if not blocks:
            self._blocks = None
        for _ in range(count):
            body_bytes += self._head.pop().body_bytes
        return body_bytes

    def _unpack_up_to(self, count: int) -> None:
        """Have at least so many messages in `_head`; there must be as many."""
        head = self._head
        blocks = self._blocks
        assert blocks is not None
        while blocks and len(head) < count:
            block = blocks.popleft()
            self._turn.memory_bytes += block.saved_bytes
            head.extend(block.unpack())
        if not blocks and len(head) < count:
            head.extend(self._tail)
            self._tail = []
            self._tail_is_loose = False
        if not blocks and not self._tail:
            self._blocks = None

    # -- a look

    def find_transient(
        self, index: int, durable: bool, max_bytes: int
    ) -> tuple[list[tuple[int, Message]], int]:
        """Look for messages that a queue does not store for good.

        Args:
            index: of the first to look at.
            durable: whether the queue stores the persistent ones.
            max_bytes: about: of memory that they take; there may be more behind them.

        Returns:
            each with its index, and the index of the first that was not looked at.
        """
        found: list[tuple[int, Message]] = []
        found_bytes = 0
        pieces: list[Block] = [LooseBlock(list(self._head))]
        if self._blocks is not None:
            pieces += self._blocks
            pieces.append(LooseBlock(self._tail))
        at = 0
        for piece in pieces:
            end = at + piece.count
            if end > index and (piece.may_be_transient or not durable):
                for message in piece.unpack():
                    if at >= index and not (durable and message.envelope.persistent):
                        if found_bytes > max_bytes:
                            return found, at
                        found_bytes += message.body_bytes + MESSAGE_OVERHEAD
                        found.append((at, message))
                    at += 1
            at = end
        return found, at

    def clear(self) -> None:
        """Drop all messages."""
        if self._blocks is not None:
            for block in self._blocks:
                self._turn.memory_bytes += block.saved_bytes
            self._blocks = None
            self._tail = []
            self._tail_is_loose = False
        self._head.clear()
        self.count = 0
