"""A connection's input means the same however the bytes are split, and becomes as few events as possible."""

from __future__ import annotations

import gc
import sys
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.connection import FrameReader
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.events import ACK, Event, MethodReceived, Published, Settled
from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from ..peer import Content, Peer
from .frame_oracle import Limits, Oracle, cut, open_reader, read_in_pieces
from .frame_streams import (
    CHANNELS,
    KEYS,
    LIMITS,
    PEER,
    PROPERTY_LISTS,
    ROOM,
    Frames,
    ack,
    cut_places,
    nack,
    publish,
    publish_frame,
    reject,
    reopened,
    streams,
    too_large,
)

# A bit of everything, with contents of two channels interleaved.
CONVERSATION: Frames = [
    *publish(1, body=b""),
    *publish(1, body=b"") * 2,
    *publish(1, body=b"one") * 3,
    *publish(1, body=b"a longer one"),
    *publish(1, properties=replace(app_id="a"), mandatory=True) * 2,
    PEER.heartbeat_frame(),
    ack(1, 1),
    ack(1, 2),
    ack(1, 5, multiple=True),
    *publish(2, ("e", "k"), body=b"x" * 100)[:3],
    *publish(1, body=b"in between"),
    PEER.heartbeat_frame(),
    ack(1, 6),
    publish(2, ("e", "k"), body=b"x" * 100)[3],
    nack(1, 7, multiple=True),
    reject(2, 8, requeue=False),
    *publish(2, ("e", "k"), body=b"y" * 20, room=9, with_empty_frames=True) * 2,
    *too_large(2),
    *reopened(1),
    *publish(1, body=b"full" * 16, room=64) * 2,
    PEER.send(1, commands.Queue.Declare, queue="q"),
    PEER.send(1, commands.Basic.Get, queue="q"),
]


def effects_by_the_oracle(data: bytes, limits: Limits = LIMITS) -> list[object]:
    return list(Oracle(limits, CHANNELS).read(data))


def effects_of(pieces: list[bytes], limits: Limits = LIMITS) -> list[object]:
    return list(read_in_pieces(open_reader(limits, CHANNELS), pieces))


def events_of(data: bytes, limits: Limits = LIMITS) -> list[Event]:
    reader = open_reader(limits, CHANNELS)
    reader.receive_data(data)
    return list(iter(reader.next_event, None))


def published(event: Event) -> Published:
    assert isinstance(event, Published)
    return event


def settled(event: Event) -> Settled:
    assert isinstance(event, Settled)
    return event


# The same, whatever the split


@settings(max_examples=150)
@given(streams, cut_places)
def test_any_input_means_what_it_means_frame_by_frame(frames: Frames, cuts: list[int]) -> None:
    data = b"".join(frames)
    reader = open_reader(LIMITS, CHANNELS)
    pieces = cut(data, [place * len(data) // 1000 for place in cuts])
    assert read_in_pieces(reader, pieces) == Oracle(LIMITS, CHANNELS).read(data)
    assert reader.buffered_bytes == 0


@settings(max_examples=50)
@given(streams)
def test_any_input_means_the_same_byte_by_byte(frames: Frames) -> None:
    data = b"".join(frames)
    assert effects_of([bytes([octet]) for octet in data]) == effects_of([data])


@settings(max_examples=50)
@given(streams)
def test_any_input_means_the_same_frame_by_frame(frames: Frames) -> None:
    assert effects_of(frames) == effects_of([b"".join(frames)])


def test_a_conversation_means_the_same_at_every_split() -> None:
    data = b"".join(CONVERSATION)
    expected = effects_by_the_oracle(data)
    assert all(effects_of([data[:place], data[place:]]) == expected for place in range(len(data) + 1))


def test_two_messages_mean_the_same_at_every_two_splits() -> None:
    data = b"".join(publish(1, body=b"b") * 2)
    expected = effects_by_the_oracle(data)
    assert all(
        effects_of(cut(data, (first, second))) == expected
        for second in range(len(data) + 1)
        for first in range(second + 1)
    )


def test_bytes_may_come_before_the_events_of_earlier_ones_are_taken() -> None:
    data = b"".join([ack(1, 1), ack(1, 2, multiple=True), *publish(1)])
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(data[:30])
    events = [reader.next_event()]
    reader.receive_data(data[30:60])
    reader.receive_data(data[60:])
    events += iter(reader.next_event, None)
    assert [type(event) for event in events] == [Settled, Settled, Published]


def test_messages_keep_their_properties_at_every_split() -> None:
    one, two = (publish(1, properties=replace(app_id=app_id)) for app_id in ("one", "two"))
    data = b"".join([*one, *two, *one * 2, *two * 2, *one])
    expected = effects_by_the_oracle(data)
    assert all(effects_of([data[:place], data[place:]]) == expected for place in range(len(data) + 1))


@given(streams, cut_places)
def test_an_input_that_stops_anywhere_has_said_what_was_complete(frames: Frames, cuts: list[int]) -> None:
    data = b"".join(frames)[: (cuts or [500])[0] * len(b"".join(frames)) // 1000]
    assert effects_of([data]) == effects_by_the_oracle(data)


def test_a_body_that_looks_like_frames_is_a_body() -> None:
    inner = b"".join(publish(1, body=b"b") * 2)
    assert len(inner) <= 2 * ROOM
    (event,) = events_of(b"".join(publish(1, body=inner) * 3))
    assert [message.body for message in published(event).messages] == [inner] * 3


# Runs


def test_a_thousand_equal_publishes_are_one_event_with_one_envelope() -> None:
    (event,) = events_of(b"".join(publish(1, ("e", "k"), replace(app_id="a"), b"body") * 1000))
    messages = published(event).messages
    assert len(messages) == 1000
    assert {id(message.envelope) for message in messages} == {id(messages[0].envelope)}
    assert (messages[0].exchange, messages[0].routing_key) == ("e", "k")
    assert {message.body for message in messages} == {b"body"}


def test_publishes_that_differ_only_in_their_bodies_are_one_event() -> None:
    bodies = [b"a", b"b", b"", b"longer", b"a", b"x" * 200, b"c", b""]
    (event,) = events_of(b"".join(b"".join(publish(1, body=body)) for body in bodies))
    assert [message.body for message in published(event).messages] == bodies


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS), st.sampled_from(PROPERTY_LISTS), st.sampled_from([b"", b"a", b"x" * 90])
        ),
        max_size=20,
    )
)
def test_each_run_of_equal_keys_and_properties_is_one_event(
    publishes: list[tuple[tuple[str, str], bytes, bytes]],
) -> None:
    data = b"".join(b"".join(publish(1, *arguments)) for arguments in publishes)
    runs = [len(list(run)) for _, run in groupby(publishes, lambda arguments: arguments[:2])]
    assert [len(published(event).messages) for event in events_of(data)] == runs


def test_publishes_with_and_without_mandatory_are_different_events() -> None:
    data = b"".join(publish(1) + publish(1, mandatory=True) + publish(1, immediate=True))
    events = [published(event) for event in events_of(data)]
    assert [(event.mandatory, event.immediate) for event in events] == [
        (False, False),
        (True, False),
        (False, True),
    ]


def test_a_publish_after_a_split_one_still_shares_its_envelope() -> None:
    data = b"".join(publish(1, body=b"body") * 3)
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(data[:20])
    assert reader.next_event() is None
    reader.receive_data(data[20:])
    events = [published(event) for event in iter(reader.next_event, None)]
    assert [len(event.messages) for event in events] == [1, 2]
    assert events[0].messages[0].envelope is events[1].messages[0].envelope


def test_a_thousand_acks_are_one_event() -> None:
    (event,) = events_of(b"".join(ack(1, tag) for tag in range(1, 1001)))
    assert settled(event).tags == list(range(1, 1001))
    assert (settled(event).method_id, settled(event).multiple) == (ACK, False)


def test_an_ack_of_many_ends_a_run_and_is_alone() -> None:
    events = [
        settled(event) for event in events_of(ack(1, 1) + ack(1, 2) + ack(1, 9, multiple=True) + ack(1, 10))
    ]
    assert [(event.tags, event.multiple) for event in events] == [([1, 2], False), ([9], True), ([10], False)]


def test_runs_of_different_channels_do_not_mix() -> None:
    events = events_of(ack(1, 1) + ack(2, 1) + b"".join(publish(1) + publish(2)))
    assert [event.channel for event in events] == [1, 2, 1, 2]


# Contents in all layouts


@given(
    st.binary(max_size=250),
    st.lists(st.integers(0, 64), min_size=1, max_size=6).filter(any),
    cut_places,
)
def test_a_body_arrives_however_the_publisher_and_the_network_cut_it(
    body: bytes, sizes: list[int], cuts: list[int]
) -> None:
    frames = [publish_frame(1, "", "q"), PEER.content_header(1, len(body))]
    left = body
    while left:
        frames.append(PEER.body(1, left[: sizes[len(frames) % len(sizes)]]))
        left = left[sizes[(len(frames) - 1) % len(sizes)] :]
    data = b"".join(frames)
    (message,) = [
        message
        for event in pieces_to_events(cut(data, [place * len(data) // 1000 for place in cuts]))
        for message in published(event).messages
    ]
    assert (message.body, message.body_bytes) == (body, len(body))
    assert message.frames_for(1, LIMITS.frame_max) == message.content
    assert body_read_by_a_strict_client(message.content) == body


def pieces_to_events(pieces: list[bytes], limits: Limits = LIMITS) -> list[Event]:
    reader = open_reader(limits, CHANNELS)
    events: list[Event] = []
    for piece in pieces:
        reader.receive_data(piece)
        events += iter(reader.next_event, None)
    return events


def body_read_by_a_strict_client(content: bytes) -> bytes:
    """Read a content in front of which there was a delivery; empty and oversize frames raise."""
    client = Peer(frame_max=LIMITS.frame_max)
    (event,) = client.receive(PEER.send(1, commands.Basic.Deliver) + content)
    assert isinstance(event, Content)
    return event.body


@pytest.mark.parametrize("places", [(), range(200)], ids=["in one piece", "byte by byte"])
def test_empty_and_small_body_frames_are_joined(places: tuple[int, ...]) -> None:
    data = b"".join(publish(1, body=b"two frames", room=5, with_empty_frames=True))
    (event,) = pieces_to_events(cut(data, (place for place in places if place < len(data))))
    assert published(event).messages[0].content == b"".join(publish(1, body=b"two frames")[1:])


@pytest.mark.parametrize("room", [1, 7, 300, 1023])
@pytest.mark.parametrize("places", [(), range(0, 500_000, 4096)], ids=["in one piece", "in many"])
def test_a_message_costs_its_size_however_it_was_cut(room: int, places: tuple[int, ...]) -> None:
    body = bytes(range(256)) * 156
    data = b"".join(publish(1, body=body, room=room))
    pieces = cut(data, (place for place in places if place < len(data)))
    (event,) = pieces_to_events(pieces, Limits(4096, 100_000))
    (message,) = published(event).messages
    assert message.body == body
    assert len(message.content) < len(body) * 1.01


@pytest.mark.parametrize("places", [(), range(200)], ids=["in one piece", "byte by byte"])
def test_a_frame_that_is_eight_bytes_too_large_is_taken_but_not_passed_on(places: tuple[int, ...]) -> None:
    body = bytes(range(64))
    data = b"".join(publish(1, body=body, room=64))
    (event,) = pieces_to_events(cut(data, (place for place in places if place < len(data))))
    (message,) = published(event).messages
    assert message.body == body
    assert message.frames_for(1, LIMITS.frame_max) == PEER.content(1, body)


# Large bodies

LARGE = Limits(frame_max=4096, max_message_bytes=1 << 20)
FULL = LARGE.frame_max - 8


@given(
    st.integers(FULL - 5, 9 * FULL),
    st.sets(st.integers(0, 8)),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_a_large_body_keeps_its_frames_whatever_comes_between_them(
    size: int, between: set[int], cuts: list[int]
) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    publish_it, header, *bodies = publish(1, body=body, room=FULL)
    frames = [publish_it, header]
    for number, frame in enumerate(bodies):
        frames += [frame] + publish(2, body=b"other") * (number in between)
    data = b"".join([*frames, ack(1, 1)])
    events = pieces_to_events(cut(data, [place * len(data) // 1000 for place in cuts]), LARGE)
    messages = [m for event in events if isinstance(event, Published) for m in event.messages]
    (large,) = [message for message in messages if message.envelope.channel == 1]
    assert (large.body_bytes, large.content) == (size, header + b"".join(bodies))
    assert [message.body for message in messages if message is not large] == [b"other"] * len(
        [number for number in between if number < len(bodies)]
    )
    assert settled(events[-1]).tags == [1]


@pytest.mark.parametrize("place", [0, 1, 100, FULL, 2 * FULL])
@pytest.mark.parametrize("is_closed", [False, True], ids=["by an error", "by the peer"])
def test_the_rest_of_an_open_frame_goes_nowhere_once_its_channel_is_closed(
    place: int, is_closed: bool
) -> None:
    reader = open_reader(LARGE, CHANNELS)
    before = retained_bytes(reader)
    data = b"".join(publish(1, body=bytes(3 * FULL), room=FULL))
    first = len(data) - 2 * (FULL + 8) + 2000  # in the middle of the second frame
    assert read_in_pieces(reader, [data[:first]]) == []
    if is_closed:
        reader.close_channel(1)
    else:
        reader.discard_channel(1)
    assert retained_bytes(reader) - before < 2000
    stop = first + FULL + 8 - 2000
    rest = data[first:stop] + b"".join(publish(2, body=b"kept"))
    (effect,) = read_in_pieces(reader, cut(rest, [min(place, len(rest))]))
    assert effect[0] == 2
    assert (reader.buffered_bytes, reader.expected_bytes) == (0, 0)


def test_a_frame_of_a_closed_channel_must_still_end_right() -> None:
    reader = open_reader(LARGE, CHANNELS)
    data = b"".join(publish(1, body=bytes(FULL), room=FULL))
    assert read_in_pieces(reader, [data[:-1]]) == []
    reader.discard_channel(1)
    (effect,) = read_in_pieces(reader, [b"\x07"])
    octets = ",".join("0" * 16)
    assert effect[1] == f"type 3, first 16 octets = <<{octets}>>: {{invalid_frame_end_marker,7}}"
    assert reader.is_lost


def test_what_is_still_to_come_of_a_large_body_is_known_to_the_byte() -> None:
    reader = open_reader(LARGE, CHANNELS)
    data = b"".join(publish(1, body=bytes(10 * FULL + 5), room=FULL))
    assert reader.expected_bytes == 0
    reader.receive_data(data[:10_000])
    assert (reader.next_event(), reader.expected_bytes) == (None, len(data) - 10_000)
    reader.receive_data(data[10_000:30_000])
    assert (reader.next_event(), reader.expected_bytes) == (None, len(data) - 30_000)
    reader.receive_data(data[30_000:])
    assert isinstance(reader.next_event(), Published)
    assert (reader.next_event(), reader.expected_bytes) == (None, 0)


@pytest.mark.parametrize("size", [1, 100, 1000, 5000, 17_000, 100_000])
def test_a_large_body_on_its_way_costs_its_size_however_it_trickles_in(size: int) -> None:
    reader = open_reader(Limits(131072, 1 << 24), CHANNELS)
    before = retained_bytes(reader)
    data = b"".join(publish(1, body=bytes(200_000), room=131064))[:-1000]
    assert read_in_pieces(reader, cut(data, range(size, len(data), size))) == []
    assert retained_bytes(reader) - before < 1.4 * len(data)


# Limits and channels that change on the way


def test_a_tuned_frame_max_holds_for_the_next_frame() -> None:
    reader = FrameReader(1000)
    start_ok = Peer(user="u" * 5000).start_ok()
    reader.receive_data(
        start_ok + PEER.tune_ok() + PEER.send(1, commands.Channel.Open) + PEER.body(1, b"x" * 65)
    )
    events: list[Event] = []
    events += [event for event in (reader.next_event(), reader.next_event()) if event is not None]
    reader.frame_max = 64
    events += [event for event in (reader.next_event(),) if event is not None]
    names = [event.method.name for event in events if isinstance(event, MethodReceived)]
    assert names == ["Connection.StartOk", "Connection.TuneOk", "Channel.Open"]
    with pytest.raises(Exception, match="frame_too_large,65,56"):
        reader.next_event()


def test_a_raised_frame_max_holds_for_the_next_frame() -> None:
    reader = open_reader(Limits(32, 1000), ())
    reader.receive_data(PEER.tune_ok() + b"".join(publish(1, body=b"x" * 56)))
    assert isinstance(reader.next_event(), MethodReceived)
    reader.frame_max = 64
    reader.open_channel(1)
    (event,) = iter(reader.next_event, None)
    (message,) = published(event).messages
    assert (message.body_bytes, message.envelope.frame_max) == (56, 64)


def test_a_channel_closed_by_an_error_hears_only_open_close_and_close_ok() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(b"".join(too_large(1)))
    with pytest.raises(PreconditionFailed):
        reader.next_event()
    reader.discard_channel(1)
    assert reader.is_discarding(1)
    event = reader.next_event()
    assert isinstance(event, MethodReceived)
    assert event.method.name == "Channel.CloseOk"
    reader.close_channel(1)
    assert not reader.is_discarding(1)
    assert [
        event.method.name for event in iter(reader.next_event, None) if isinstance(event, MethodReceived)
    ] == ["Channel.Open"]


def test_other_channels_go_on_while_one_is_discarding() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    reader.discard_channel(1)
    reader.receive_data(b"".join(publish(1) + publish(2, body=b"kept") + [ack(1, 1), ack(2, 1)] + publish(1)))
    first, second = iter(reader.next_event, None)
    assert published(first).messages[0].body == b"kept"
    assert (settled(second).channel, settled(second).tags) == (2, [1])
    assert reader.buffered_bytes == 0


def test_a_reopened_channel_forgets_the_content_that_was_on_its_way() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    reader.receive_data(b"".join(publish(1, body=b"never complete")[:2]))
    assert reader.next_event() is None
    reader.close_channel(1)
    reader.open_channel(1)
    reader.receive_data(b"".join(publish(1, body=b"complete")))
    (event,) = iter(reader.next_event, None)
    assert [message.body for message in published(event).messages] == [b"complete"]


@pytest.mark.parametrize(
    ("data", "header", "left"),
    [
        (b"", None, 0),
        (b"AMQP\0\0\x09", None, 7),
        (b"AMQP\0\0\x09\x01", b"AMQP\0\0\x09\x01", 0),
        (b"AMQP\0\0\x09\x01more", b"AMQP\0\0\x09\x01", 4),
        (b"GET", b"GET", 0),
        (b"GET / HTTP/1.1", b"GET / HT", 6),
    ],
)
def test_the_protocol_header_is_taken_once_it_is_there_or_cannot_come(
    data: bytes, header: bytes | None, left: int
) -> None:
    reader = FrameReader(1000)
    reader.receive_data(data)
    assert reader.take_protocol_header() == header
    assert reader.buffered_bytes == left


# Memory


def retained_bytes(reader: FrameReader) -> int:
    """Bytes of all that a reader refers to."""
    seen: dict[int, object] = {}
    waiting: list[object] = [reader]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, type) and not callable(thing):
            seen[id(thing)] = thing
            waiting += gc.get_referents(thing)
    return sum(map(sys.getsizeof, seen.values()))


def test_bytes_that_are_parsed_are_released() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    data = b"".join(publish(1) * 100)
    references = sys.getrefcount(data)
    reader.receive_data(data)
    assert sys.getrefcount(data) == references + 1
    reader.next_event()
    assert reader.next_event() is None
    assert (sys.getrefcount(data), reader.buffered_bytes) == (references, 0)


def test_bytes_that_are_parsed_are_released_also_when_a_frame_has_begun() -> None:
    reader = open_reader(LIMITS, CHANNELS)
    data = b"".join(publish(1) * 100) + b"\x01"
    references = sys.getrefcount(data)
    reader.receive_data(data)
    reader.next_event()
    assert reader.next_event() is None
    assert (sys.getrefcount(data), reader.buffered_bytes) == (references, 1)


def test_a_message_does_not_keep_the_bytes_around_it() -> None:
    (event,) = events_of(b"".join(publish(1, body=b"x") * 1000))
    message = published(event).messages[500]
    assert message.content == b"".join(publish(1, body=b"x")[1:])


def test_large_messages_are_let_go_of() -> None:
    limits = Limits(131072, 1 << 24)
    reader = open_reader(limits, CHANNELS)
    data = b"".join(publish(1, body=bytes(1 << 20), room=131064))
    before = retained_bytes(reader)
    read_in_pieces(reader, cut(data * 2, range(0, len(data) * 2, 65536)))
    assert retained_bytes(reader) - before < 2000


def test_a_content_on_its_way_is_let_go_of_with_its_channel() -> None:
    limits = Limits(131072, 1 << 24)
    reader = open_reader(limits, CHANNELS)
    before = retained_bytes(reader)
    data = b"".join(publish(1, body=bytes(1 << 20), room=131064)[:-1])
    assert read_in_pieces(reader, [data]) == []
    assert retained_bytes(reader) - before > 1 << 19
    reader.discard_channel(1)
    assert retained_bytes(reader) - before < 2000


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_what_is_kept_of_properties_is_bounded(size: int) -> None:
    limits = Limits(131072, 1 << 24)
    reader = open_reader(limits, CHANNELS)
    for number in range(400):
        headers = {"id": Field("I", number), "fill": Field("S", bytes(size))}
        read_in_pieces(reader, [b"".join(publish(1, properties=replace(headers=headers)))])
    assert retained_bytes(reader) < 700_000
