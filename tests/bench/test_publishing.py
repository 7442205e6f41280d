"""A publisher keeps to its rate, its window and its limit, and reads its confirms in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from leveret.broker.bench.figures import NS, Histogram, SendTimes
from leveret.broker.bench.inbox import Inbox
from leveret.broker.bench.order import Confirms, Faults
from leveret.broker.bench.publisher import Publisher, publish_rows
from leveret.broker.bench.rows import RUN_MAX, Rows, body_rows, content_rows
from leveret.protocol.methods import encode_method, make

MS = NS // 1000


class Wire:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes | bytearray] = []
        self.inbox = Inbox(self.sent.append)
        self.has_pending = False
        self.publisher: Publisher | None = None

    def send(self, data: bytes | bytearray) -> None:
        self.sent.append(data)

    def receive(self, data: bytes) -> None:
        self.inbox.room()[: len(data)] = data
        self.inbox.received(len(data))


def publisher(wire: Wire, *, interval_ns: float | None = None, **options: object) -> Publisher:
    rows = publish_rows(1, "", "queue", 16, frame_max=131072)
    made = Publisher(wire, 1, [rows], SendTimes(interval_ns), **options)  # type: ignore[arg-type]
    made.start(0)
    return made


def confirm(tag: int, *, multiple: bool = False) -> bytes:
    return encode_method(1, make(commands.Basic.Ack, delivery_tag=tag, multiple=multiple))


def test_at_a_rate_only_what_is_due_is_published() -> None:
    paced = publisher(Wire(), interval_ns=MS)
    paced.publish(0)
    assert paced.published == 1
    paced.publish(10 * MS)
    assert paced.published == 11
    assert paced.next_due_ns == 11 * MS


def test_after_a_stall_all_that_was_due_is_published_and_its_lateness_told() -> None:
    late = Histogram()
    paced = publisher(Wire(), interval_ns=MS, late=late)
    paced.publish(99 * MS)
    assert paced.published == 100
    assert late.count == 100


def test_no_more_than_the_window_is_out() -> None:
    wire, confirms = Wire(), Confirms("channel", Faults())
    windowed = publisher(wire, window=5, confirms=confirms)
    windowed.publish(0)
    windowed.publish(0)
    assert windowed.published == 5
    wire.receive(confirm(3, multiple=True))
    windowed.publish(0)
    assert windowed.published == 8


def test_no_more_than_the_limit_is_published() -> None:
    limited = publisher(Wire(), limit=3)
    limited.publish(0)
    limited.publish(0)
    assert limited.published == 3
    assert limited.is_done


def test_a_broker_that_is_blocked_gets_nothing_until_it_says_so() -> None:
    wire = Wire()
    eager = publisher(wire, limit=3)
    wire.receive(encode_method(0, make(commands.Connection.Blocked, reason="low on memory")))
    eager.publish(0)
    assert eager.published == 0
    wire.receive(encode_method(0, make(commands.Connection.Unblocked)))
    eager.publish(0)
    assert eager.published == 3


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.sampled_from([1, 2, 7]))
def test_confirms_are_read_in_any_pieces(sizes: list[int], step: int) -> None:
    wire, faults, latency = Wire(), Faults(), Histogram()
    confirms = Confirms("channel", faults)
    publisher(wire, limit=42, confirms=confirms, confirm_latency=latency).publish(0)
    data = b"".join(confirm(tag, multiple=step > 1) for tag in range(step, 43, step))
    for size in [*sizes, len(data)]:
        if data[:size]:
            wire.receive(data[:size])
            data = data[size:]
    confirms.finish(42)
    assert faults.describe() == []
    assert latency.count == 42


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        (confirm(1) + confirm(1), "confirmed twice"),
        (confirm(3), "never published"),
        (confirm(1), "never confirmed"),
        (
            encode_method(1, make(commands.Basic.Nack, delivery_tag=2, multiple=True)),
            "refused with basic.nack",
        ),
    ],
)
def test_a_planted_fault_of_confirms_is_found(frames: bytes, fault: str) -> None:
    wire, faults = Wire(), Faults()
    confirms = Confirms("channel", faults)
    publisher(wire, limit=2, confirms=confirms).publish(0)
    wire.receive(frames)
    confirms.finish(2)
    assert fault in faults.describe()[0]


# -- rows


@given(
    st.integers(1, 700), st.integers(1, 1 << 34), st.integers(1, 1 << 34), st.sampled_from([8, 16, 24, 300])
)
def test_a_run_of_rows_is_its_rows_one_after_another(count: int, number: int, tag: int, size: int) -> None:
    frames = publish_rows(1, "", "queue", size, frame_max=131072).row
    rows = content_rows(frames, len(frames) - size - 8 - 22, size, tag=11)
    assert rows.build(count, number, tag) == b"".join(rows.one(number + i, tag + i) for i in range(count))


def test_a_counter_goes_over_in_the_midst_of_the_longest_run() -> None:
    rows = Rows(bytes(10), [range(8)])
    first = (1 << 24) - 100
    run = rows.build(RUN_MAX, first)
    assert run[:8] == first.to_bytes(8, "big")
    assert run[-10:-2] == (first + RUN_MAX - 1).to_bytes(8, "big")
    assert run[1000:1008] == (1 << 24).to_bytes(8, "big")


def test_bodies_of_other_publishers_and_numbers_differ() -> None:
    bodies = {body_rows(64, stream).one(number) for stream in range(3) for number in range(3)}
    assert len(bodies) == 9
