"""A connection's outbox keeps order and count of what waits to be written, and says when it is too much."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leveret.protocol.outbox import LARGE_PIECES, Outbox

HIGH = 20

pieces = st.binary(min_size=1, max_size=12)


def outbox_of(high: int = HIGH) -> Outbox:
    return Outbox([], high)


class OutboxMachine(RuleBasedStateMachine):
    """An outbox and its loop, which writes as much as the kernel takes."""

    def __init__(self) -> None:
        super().__init__()
        self.to_flush: list[Outbox] = []
        self.outbox = Outbox(self.to_flush, HIGH)
        self.written = b""  # all there ever was
        self.left = b""  # taken, and not yet with the kernel
        self.sent = b""
        self.was_full = False

    @rule(piece=pieces)
    def write(self, piece: bytes) -> None:
        self.outbox.has_written = False
        self.outbox.write(piece)
        self.written += piece
        assert self.outbox.has_written
        self.was_full = self.was_full or len(self.written) - len(self.sent) > HIGH

    @rule(several=st.lists(pieces, min_size=1, max_size=4))
    def append_and_tell(self, several: list[bytes]) -> None:
        self.outbox.pieces.extend(several)
        self.outbox.wrote(len(b"".join(several)))
        self.written += b"".join(several)
        self.was_full = self.was_full or len(self.written) - len(self.sent) > HIGH

    @rule()
    def take(self) -> None:
        self.left += self.outbox.take()
        self.to_flush.clear()

    @rule()
    def take_pieces(self) -> None:
        self.left += b"".join(self.outbox.take_pieces())
        self.to_flush.clear()

    @rule(part=st.floats(0, 1))
    def send(self, part: float) -> None:
        size = int(len(self.left) * part)
        self.sent += self.left[:size]
        self.left = self.left[size:]
        has_room = (len(self.written) - len(self.sent)) * 2 <= HIGH
        assert self.outbox.sent(size) == (self.was_full and has_room)
        self.was_full = self.was_full and not has_room

    @invariant()
    def nothing_is_lost_or_reordered(self) -> None:
        assert self.sent + self.left + b"".join(self.outbox.pieces) == self.written

    @invariant()
    def the_size_is_what_has_not_left(self) -> None:
        assert self.outbox.size == len(self.written) - len(self.sent)

    @invariant()
    def it_is_full_from_the_limit_until_half_of_it(self) -> None:
        assert self.outbox.is_full == self.was_full

    @invariant()
    def it_is_to_be_flushed_once_if_anything_waits(self) -> None:
        assert self.outbox.dirty == bool(self.outbox.pieces)
        assert self.to_flush == ([self.outbox] if self.outbox.pieces else [])


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=20)


def test_an_outbox_is_full_above_its_limit_and_not_at_it() -> None:
    outbox = outbox_of(4)
    outbox.write(b"1234")
    assert not outbox.is_full
    outbox.write(b"5")
    assert outbox.is_full


def test_an_outbox_that_was_full_has_room_again_at_half_its_limit() -> None:
    outbox = outbox_of(4)
    outbox.write(b"12345")
    assert not outbox.sent(2)
    assert outbox.is_full
    assert outbox.sent(1)
    assert not outbox.is_full
    assert not outbox.sent(2)


def test_what_waits_still_counts_after_it_was_taken() -> None:
    outbox = outbox_of(4)
    outbox.write(b"12345")
    assert outbox.take() == b"12345"
    assert (outbox.size, outbox.is_full) == (5, True)


def test_outboxes_are_flushed_in_the_order_in_which_they_were_first_written() -> None:
    to_flush: list[Outbox] = []
    one, two = Outbox(to_flush, HIGH), Outbox(to_flush, HIGH)
    two.write(b"x")
    one.write(b"x")
    two.write(b"x")
    assert to_flush == [two, one]


def test_nothing_waits_in_a_new_outbox() -> None:
    outbox = outbox_of()
    assert (outbox.take(), outbox.size, outbox.dirty, outbox.is_full) == (b"", 0, False, False)
    assert outbox.to_flush == []


@pytest.mark.parametrize(
    ("sizes", "are_large"),
    [
        ([LARGE_PIECES], True),
        ([LARGE_PIECES - 1], False),
        ([20, 9, 3, 4 * LARGE_PIECES], True),
        ([20, 9, 3, 3 * LARGE_PIECES], False),
        ([1000] * 1000, False),
    ],
)
def test_pieces_are_large_if_they_are_so_on_average(sizes: list[int], are_large: bool) -> None:
    outbox = outbox_of()
    for size in sizes:
        outbox.write(bytes(size))
    assert outbox.has_large_pieces == are_large


def test_a_single_piece_is_taken_without_a_copy() -> None:
    outbox = outbox_of()
    piece = bytes(10)
    outbox.write(piece)
    assert outbox.take() is piece
