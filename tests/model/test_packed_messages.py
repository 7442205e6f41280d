"""Packed or not, messages of a queue are the same: compared with a plain deque, whatever is done to both."""

from __future__ import annotations

from collections import deque
from itertools import islice

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leveret.broker.model.queues.packed import (
    MESSAGE_OVERHEAD,
    PACK_BODY_MAX,
    PACK_FROM,
    RUN_MIN,
    TAIL_MAX,
    Ready,
)
from leveret.broker.model.turn import Turn
from leveret.protocol.content import Envelope, Message, encode_content, make_envelope
from leveret.protocol.properties import NO_PROPERTIES, replace
from leveret.protocol.tables import from_python

PERSISTENT = replace(delivery_mode=2)
COUNTS = (1, 2, RUN_MIN - 1, RUN_MIN, TAIL_MAX - 1, TAIL_MAX, 3000)

Seen = tuple[str, str, bytes, bool, bool, bool, list[str], int, int, bytes, bytes, int, object, bool]


def seen(message: Message) -> Seen:
    """All that can be seen of a message."""
    envelope = message.envelope
    return (
        envelope.exchange,
        envelope.routing_key,
        envelope.raw,
        envelope.persistent,
        envelope.dead_lettered,
        envelope.cc_is_spent,
        envelope.bcc_keys,
        envelope.channel,
        envelope.frame_max,
        envelope.suffix,
        message.content,
        message.body_bytes,
        envelope.fields.message_id,
        envelope.needs_attention,
    )


def same(one: Message, other: Message) -> bool:
    return one is other or seen(one) == seen(other)


def message_of(envelope: Envelope, body: bytes) -> Message:
    content = encode_content(envelope.channel, envelope.frame_max, envelope.raw, body)
    return Message(envelope, content, len(body))


def alike(number: int) -> Message:
    """One of messages that differ in their bodies."""
    return message_of(PLAIN, b"%016d" % number)


def of_any_length(number: int) -> Message:
    return message_of(LOGGED, b"%d" % number * (number % 3))


def of_its_own(number: int) -> Message:
    """One of messages with an identifier each, of several routing keys and channels."""
    headers = {"n": from_python(number)}
    raw = replace(message_id=f"id-{number}", headers=headers, delivery_mode=1 + number % 2)
    envelope = make_envelope("topic", f"key.{number % 7}", raw)
    envelope.channel = 1 + number % 3
    envelope.dead_lettered = number % 5 == 0
    envelope.cc_is_spent = number % 10 == 0
    return message_of(envelope, b"%d" % number)


def with_hidden_keys(number: int) -> Message:
    return message_of(BLIND, b"%016d" % number)


def in_small_frames(number: int) -> Message:
    """One of messages whose bodies are in several frames."""
    return message_of(SMALL, b"%050d" % number)


def large(number: int) -> Message:
    return message_of(LOGGED, b"%d" % number + bytes(PACK_BODY_MAX))


PLAIN = make_envelope("", "q", NO_PROPERTIES)
LOGGED = make_envelope("logs", "info.ü", PERSISTENT)
BLIND = make_envelope("", "q", NO_PROPERTIES)
BLIND.bcc_keys = ["a", "b"]
SMALL = make_envelope("", "q", NO_PROPERTIES)
SMALL.frame_max = 28
KINDS = (alike, of_any_length, of_its_own, with_hidden_keys, in_small_frames, large)
# Made once; a queue has each many times, in an order that is not that of blocks.
POOLS = [[make(number) for number in range(997)] for make in KINDS]


def run_of(kind: int, start: int, count: int) -> list[Message]:
    pool = POOLS[kind]
    return [pool[number % len(pool)] for number in range(start, start + count)]


class ReadyMachine(RuleBasedStateMachine):
    """A `Ready` and a deque."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn(0)
        self.ready = Ready(self.turn)
        self.plain: deque[Message] = deque()
        self.made = 0

    def _append(self, messages: list[Message], is_shared: bool) -> None:
        self.made += len(messages)
        body_bytes = sum(message.body_bytes for message in messages)
        self.turn.memory_bytes += body_bytes + len(messages) * MESSAGE_OVERHEAD
        self.plain.extend(messages)
        self.ready.extend(messages, body_bytes, is_shared)
        messages.clear()  # they are not kept

    def _took(self, messages: list[Message]) -> None:
        for message in messages:
            self.turn.memory_bytes -= message.body_bytes + MESSAGE_OVERHEAD
            assert same(message, self.plain.popleft())

    # -- what happens

    @rule()
    def many_arrive(self) -> None:
        self._append(run_of(0, self.made, PACK_FROM), False)

    @rule(kind=st.integers(0, len(KINDS) - 1), count=st.sampled_from(COUNTS), is_shared=st.booleans())
    def a_run_arrives(self, kind: int, count: int, is_shared: bool) -> None:
        self._append(run_of(kind, self.made, count), is_shared)

    @rule(
        kinds=st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=3),
        count=st.sampled_from(COUNTS),
    )
    def they_arrive_singly(self, kinds: list[int], count: int) -> None:
        for index in range(count):
            self._append(run_of(kinds[index % len(kinds)], self.made, 1), False)

    @precondition(lambda self: self.plain)
    @rule()
    def the_first_is_looked_at(self) -> None:
        assert seen(self.ready.first()) == seen(self.plain[0])

    @rule(count=st.sampled_from([0, 1, 1000, PACK_FROM - 1, PACK_FROM, 20_000]))
    def some_are_taken(self, count: int) -> None:
        count = min(count, len(self.plain))
        messages = self.ready.take(count)
        assert len(messages) == count
        self._took(messages)

    @rule()
    def those_at_hand_are_taken(self) -> None:
        messages = self.ready.take_some()
        assert bool(messages) == bool(self.plain)
        self._took(messages)

    @rule(count=st.sampled_from([0, 1, 1000, PACK_FROM, 20_000]))
    def some_are_dropped(self, count: int) -> None:
        count = min(count, len(self.plain))
        expected = sum(self.plain.popleft().body_bytes for _ in range(count))
        assert self.ready.drop(count) == expected
        self.turn.memory_bytes -= expected + count * MESSAGE_OVERHEAD

    @rule(count=st.sampled_from([0, 1, 1000, PACK_FROM, 20_000]))
    def the_last_are_dropped(self, count: int) -> None:
        count = min(count, len(self.plain))
        expected = sum(self.plain.pop().body_bytes for _ in range(count))
        assert self.ready.drop_last(count) == expected
        self.turn.memory_bytes -= expected + count * MESSAGE_OVERHEAD

    @rule(
        index=st.sampled_from([0, 1, PACK_FROM, 15_000]),
        durable=st.booleans(),
        max_bytes=st.sampled_from([0, 10_000, 10_000_000]),
    )
    def transient_ones_are_looked_for(self, index: int, durable: bool, max_bytes: int) -> None:
        index = min(index, len(self.plain))
        expected: list[tuple[int, Message]] = []
        end = len(self.plain)
        taken_bytes = 0
        for at, message in enumerate(islice(self.plain, index, None), index):
            if durable and message.envelope.persistent:
                continue
            if taken_bytes > max_bytes:
                end = at
                break
            taken_bytes += message.body_bytes + MESSAGE_OVERHEAD
            expected.append((at, message))
        found, found_end = self.ready.find_transient(index, durable, max_bytes)
        assert [at for at, _ in found] == [at for at, _ in expected]
        assert all(same(ours[1], theirs[1]) for ours, theirs in zip(found, expected, strict=True))
        assert found_end == end

    @rule()
    def all_are_dropped(self) -> None:
        body_bytes = sum(message.body_bytes for message in self.plain)
        self.turn.memory_bytes -= body_bytes + len(self.plain) * MESSAGE_OVERHEAD
        self.plain.clear()
        self.ready.clear()

    # -- what holds

    @invariant()
    def the_count_and_the_account_are_right(self) -> None:
        assert self.ready.count == len(self.plain)
        assert self.turn.memory_bytes >= 0
        if not self.plain:
            assert self.turn.memory_bytes == 0

    def teardown(self) -> None:
        """Everything comes out as it went in."""
        self._took(self.ready.take(len(self.plain)))
        assert self.turn.memory_bytes == 0


TestPackedMessages = ReadyMachine.TestCase
TestPackedMessages.settings = settings(max_examples=40, stateful_step_count=25)


def account_of(messages: list[Message]) -> int:
    """What the account says of messages behind the head of a long queue, a message."""
    turn = Turn(0)
    ready = Ready(turn)
    ready.extend(run_of(0, 0, PACK_FROM), 0, False)
    body_bytes = sum(message.body_bytes for message in messages)
    turn.memory_bytes = body_bytes + len(messages) * MESSAGE_OVERHEAD
    ready.extend(messages, body_bytes, False)
    return turn.memory_bytes // len(messages)


def test_a_packed_message_of_16_bytes_takes_not_much_more() -> None:
    assert 16 < account_of(run_of(0, 0, 3000)) < 20


def test_packed_messages_with_properties_of_their_own_take_their_frames() -> None:
    messages = run_of(2, 0, 3000)
    frames = sum(len(message.content) for message in messages) // len(messages)
    assert frames < account_of(messages) < frames + 20


def test_messages_that_several_queues_share_are_not_copied() -> None:
    ready = Ready(Turn(0))
    messages = run_of(0, 0, PACK_FROM + 1)
    ready.extend(messages, 0, True)
    assert all(ours is theirs for ours, theirs in zip(messages, ready.take(len(messages)), strict=True))
