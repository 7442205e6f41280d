"""The hot codec writes the bytes that pamqp writes, and reads what pamqp writes, wherever pamqp is right."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from leveret.protocol.content import (
    Envelope,
    Message,
    MessageMaker,
    encode_content,
    make_envelope,
)
from leveret.protocol.events import ACK, NACK, REJECT, Published, Settled
from leveret.protocol.frames import (
    HEARTBEAT_FRAME,
    deliver_prefix,
    encode_ack,
    encode_deliveries,
    encode_get_ok,
    encode_nack,
    encode_return,
)
from leveret.protocol.methods import encode_method, make
from leveret.protocol.properties import NO_PROPERTIES, Properties

from .frame_oracle import Limits, cut, open_reader
from .frame_streams import cut_places
from .strategies import names as any_names

FRAME_MAXES = (16, 33, 64, 131072)  # small ones make several frames of a short body

exchanges = st.text("abcXYZ019-_.:@#,/+ ", max_size=60)  # pamqp refuses others
short_strings = st.text(st.characters(codec="utf-8"), max_size=60)
pamqp_tags = st.integers(0, (1 << 63) - 1)
channels = st.integers(1, 65535)
bodies = st.binary(max_size=80)
property_lists = st.sampled_from(  # to this codec they are opaque
    (
        commands.Basic.Properties(),
        commands.Basic.Properties(delivery_mode=2),
        commands.Basic.Properties(content_type="text/plain", delivery_mode=1, priority=9, app_id="é"),
        commands.Basic.Properties(headers={"name": "value", "n": 1 << 40, "in": {"a": [True, None]}}),
    )
)


few = settings(max_examples=50)


class Link(NamedTuple):
    """A channel of a connection."""

    channel: int
    frame_max: int


links = st.builds(Link, st.integers(1, 3) | channels, st.sampled_from(FRAME_MAXES))


class Sample(NamedTuple):
    """A message, as it was published."""

    exchange: str
    routing_key: str
    properties: commands.Basic.Properties
    body: bytes
    publisher: Link

    @property
    def raw(self) -> bytes:
        """The property list as bytes."""
        return ContentHeader(properties=self.properties).marshal()[12:]

    def envelope(self) -> Envelope:
        """Make an envelope as the reader of the publisher's connection does."""
        raw = self.raw
        return Envelope(self.exchange, self.routing_key, raw, Properties.parse(raw), *self.publisher)

    def message(self) -> Message:
        """Make the message from frames as the publisher sent them."""
        return Message(self.envelope(), self.frames(self.publisher), len(self.body))

    def read_back(self) -> Message:
        """Make the message as it comes from the store."""
        return MessageMaker(self.envelope()).make(self.body)

    def messages(self) -> list[Message]:
        """Make the message in both ways."""
        return [self.message(), self.read_back()]

    def frames(self, link: Link) -> bytes:
        """Encode header and body with pamqp for a connection with these limits."""
        parts: list[ContentHeader | ContentBody] = [ContentHeader(0, len(self.body), self.properties)]
        room = link.frame_max - 8
        parts += [ContentBody(self.body[start : start + room]) for start in range(0, len(self.body), room)]
        return b"".join(frame.marshal(part, link.channel) for part in parts)

    def frames_to(self, link: Link) -> bytes:
        """Encode what a consumer gets: the publisher's own frames where they fit, else cut anew."""
        passes = link.channel == self.publisher.channel
        frame_max = min(link.frame_max, self.publisher.frame_max) if passes else link.frame_max
        return self.frames(Link(link.channel, frame_max))


samples = st.builds(Sample, exchanges, short_strings, property_lists, bodies, links)


# Contents


@given(samples, links)
def test_a_content_is_encoded_as_pamqp_encodes_it(sample: Sample, link: Link) -> None:
    assert encode_content(link.channel, link.frame_max, sample.raw, sample.body) == sample.frames(link)


@pytest.mark.parametrize("size", [131063, 131064, 131065, 262128, 262129])
def test_a_long_content_is_encoded_as_pamqp_encodes_it(size: int) -> None:
    sample = Sample("", "q", commands.Basic.Properties(), bytes(size), Link(1, 131072))
    assert encode_content(2, 131072, sample.raw, sample.body) == sample.frames(Link(2, 131072))
    assert sample.message().body == sample.body


@given(samples, links)
def test_a_message_goes_out_as_it_came_where_that_fits_and_else_cut_anew(sample: Sample, link: Link) -> None:
    for message in sample.messages():
        assert message.frames_for(*link) == sample.frames_to(link)
        assert message.frames() == sample.frames(sample.publisher)


@few
@given(samples)
def test_a_message_goes_back_to_its_own_channel_without_a_copy(sample: Sample) -> None:
    message = sample.message()
    assert message.frames_for(*sample.publisher) is message.content


@few
@given(samples)
def test_the_body_of_a_message_is_what_was_published(sample: Sample) -> None:
    for message in sample.messages():
        assert (message.body, message.body_bytes) == (sample.body, len(sample.body))


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=8))
def test_the_body_of_a_message_is_what_was_published_in_frames_of_any_size(parts: list[bytes]) -> None:
    body = b"".join(parts)
    frames: list[ContentHeader | ContentBody] = [ContentHeader(0, len(body)), *map(ContentBody, parts)]
    content = b"".join(frame.marshal(part, 1) for part in frames)
    assert Message(make_envelope("", "q", NO_PROPERTIES), content, len(body)).body == body


@few
@given(samples, samples, links, st.booleans())
def test_a_message_under_another_envelope_keeps_its_body_and_nothing_else(
    sample: Sample, other: Sample, link: Link, is_cut_alike: bool
) -> None:
    if is_cut_alike:
        other = other._replace(publisher=sample.publisher)
    changed = other._replace(body=sample.body)
    for before in sample.messages():
        message = before.with_envelope(other.envelope())
        assert message.frames_for(*link) == changed.frames_to(link)
        assert (message.exchange, message.routing_key) == (other.exchange, other.routing_key)
        assert (message.properties, message.body, message.body_bytes) == (
            other.raw,
            sample.body,
            len(sample.body),
        )


@few
@given(samples)
def test_a_message_is_persistent_in_delivery_mode_2(sample: Sample) -> None:
    assert sample.envelope().persistent == (sample.properties.delivery_mode == 2)


# Deliveries


@few
@given(
    short_strings,
    st.integers(0, 1 << 62),
    st.booleans(),
    st.lists(samples, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    links,
)
def test_deliveries_are_encoded_as_pamqp_encodes_them(
    consumer_tag: str, first_tag: int, redelivered: bool, runs: list[Sample], lengths: list[int], link: Link
) -> None:
    expected: list[bytes] = []
    messages: list[Message] = []
    for sample, length in zip(runs, lengths * 4, strict=False):
        messages += (sample.messages() * length)[:length]
        for _ in range(length):
            tag = first_tag + len(expected)
            method = commands.Basic.Deliver(
                consumer_tag, tag, redelivered, sample.exchange, sample.routing_key
            )
            expected.append(frame.marshal(method, link.channel) + sample.frames_to(link))
    out = [b"before"]
    written = encode_deliveries(out, deliver_prefix(consumer_tag), *link, first_tag, redelivered, messages)
    assert b"".join(out) == b"before" + b"".join(expected)
    assert written == sum(map(len, expected))


@pytest.mark.parametrize("first_tag", [1, 255, 256, 65_400, (1 << 32) - 200])
def test_the_tags_of_a_long_run_of_deliveries_are_consecutive(first_tag: int) -> None:
    messages = [message_of("", "q")] * 600
    out: list[bytes] = []
    encode_deliveries(out, deliver_prefix("c"), 1, 4096, first_tag, False, messages)
    assert b"".join(out) == b"".join(
        frame.marshal(commands.Basic.Deliver("c", tag, False, "", "q"), 1) + messages[0].frames()
        for tag in range(first_tag, first_tag + 600)
    )


@pytest.mark.parametrize("size", [23, 24, 25, 55, 56, 57])
def test_a_delivery_to_smaller_frames_than_the_publishers_is_cut_only_if_it_must_be(size: int) -> None:
    sample = Sample("", "q", commands.Basic.Properties(), bytes(size), Link(1, 64))
    method = commands.Basic.Deliver("c", 1, False, "", "q")
    out: list[bytes] = []
    encode_deliveries(out, deliver_prefix("c"), 1, 32, 1, False, [sample.message()])
    assert b"".join(out) == frame.marshal(method, 1) + sample.frames(Link(1, 32))


@given(any_names, any_names, any_names, st.integers(0, (1 << 64) - 1), st.booleans(), channels)
def test_a_delivery_carries_names_of_any_bytes_and_any_tag(
    consumer_tag: str, exchange: str, routing_key: str, tag: int, redelivered: bool, channel: int
) -> None:
    method = make(
        commands.Basic.Deliver,
        consumer_tag=consumer_tag,
        delivery_tag=tag,
        redelivered=redelivered,
        exchange=exchange,
        routing_key=routing_key,
    )
    message = message_of(exchange, routing_key)
    out: list[bytes] = []
    encode_deliveries(out, deliver_prefix(consumer_tag), channel, 4096, tag, redelivered, [message])
    assert b"".join(out) == encode_method(channel, method) + message.frames_for(channel, 4096)


def message_of(exchange: str, routing_key: str) -> Message:
    envelope = make_envelope(exchange, routing_key, NO_PROPERTIES)
    return Message(envelope, encode_content(1, envelope.frame_max, NO_PROPERTIES, b"body"), 4)


@given(samples, pamqp_tags, st.booleans(), st.integers(0, (1 << 32) - 1), links)
def test_a_get_ok_is_encoded_as_pamqp_encodes_it(
    sample: Sample, tag: int, redelivered: bool, message_count: int, link: Link
) -> None:
    method = commands.Basic.GetOk(tag, redelivered, sample.exchange, sample.routing_key, message_count)
    assert encode_get_ok(*link, tag, redelivered, sample.message(), message_count) == (
        frame.marshal(method, link.channel) + sample.frames_to(link)
    )


def test_a_get_ok_counts_no_more_messages_than_its_field_holds() -> None:
    message = message_of("", "q")
    assert encode_get_ok(1, 4096, 1, False, message, 1 << 32) == encode_get_ok(
        1, 4096, 1, False, message, (1 << 32) - 1
    )


@given(samples, st.integers(0, 65535), short_strings, links)
def test_a_return_is_encoded_as_pamqp_encodes_it(
    sample: Sample, reply_code: int, reply_text: str, link: Link
) -> None:
    method = commands.Basic.Return(reply_code, reply_text, sample.exchange, sample.routing_key)
    assert encode_return(*link, reply_code, reply_text, sample.message()) == (
        frame.marshal(method, link.channel) + sample.frames_to(link)
    )


# Confirms


@given(channels, pamqp_tags, st.booleans())
def test_confirms_are_encoded_as_pamqp_encodes_them(channel: int, tag: int, multiple: bool) -> None:
    ack = commands.Basic.Ack(tag, multiple)
    nack = commands.Basic.Nack(tag, multiple, requeue=True)
    assert encode_ack(channel, tag, multiple) == frame.marshal(ack, channel)
    assert encode_nack(channel, tag, multiple) == frame.marshal(nack, channel)


def test_a_confirm_carries_the_largest_tag() -> None:
    tag = (1 << 64) - 1
    assert encode_ack(1, tag, True) == encode_method(
        1, make(commands.Basic.Ack, delivery_tag=tag, multiple=True)
    )


def test_a_heartbeat_is_encoded_as_pamqp_encodes_it() -> None:
    assert Heartbeat().marshal() == HEARTBEAT_FRAME


# What pamqp's clients send


@few
@given(st.lists(st.tuples(samples, st.booleans()), max_size=4), channels, cut_places)
def test_publishes_by_pamqp_are_read(
    publishes: list[tuple[Sample, bool]], channel: int, cuts: list[int]
) -> None:
    link = Link(channel, 131072)
    data = b"".join(
        frame.marshal(commands.Basic.Publish(0, sample.exchange, sample.routing_key, mandatory), channel)
        + sample.frames(link)
        for sample, mandatory in publishes
    )
    read: list[tuple[str, str, bool, bytes, bytes]] = []
    for event in events(channel, cut(data, [place * len(data) // 1000 for place in cuts])):
        assert isinstance(event, Published)
        read += [
            (message.exchange, message.routing_key, event.mandatory, message.properties, message.body)
            for message in event.messages
        ]
    assert read == [
        (sample.exchange, sample.routing_key, mandatory, sample.raw, sample.body)
        for sample, mandatory in publishes
    ]


def events(channel: int, pieces: list[bytes]) -> list[object]:
    reader = open_reader(Limits(131072, 1 << 24), [channel])
    found: list[object] = []
    for piece in pieces:
        reader.receive_data(piece)
        found += iter(reader.next_event, None)
    return found


def settled(data: bytes, channel: int) -> list[tuple[int, list[int], bool, bool]]:
    found = [event for event in events(channel, [data]) if isinstance(event, Settled)]
    assert {event.channel for event in found} <= {channel}
    return [(event.method_id, event.tags, event.multiple, event.requeue) for event in found]


@given(st.lists(pamqp_tags, min_size=1), channels)
def test_a_run_of_acks_by_pamqp_is_read(tags: list[int], channel: int) -> None:
    data = b"".join(frame.marshal(commands.Basic.Ack(tag), channel) for tag in tags)
    assert settled(data, channel) == [(ACK, tags, False, False)]


@given(pamqp_tags, st.booleans(), channels)
def test_nacks_and_rejects_by_pamqp_are_read(tag: int, requeue: bool, channel: int) -> None:
    data = frame.marshal(commands.Basic.Nack(tag, False, requeue), channel)
    data += frame.marshal(commands.Basic.Reject(tag, requeue), channel)
    assert settled(data, channel) == [(NACK, [tag], False, requeue), (REJECT, [tag], False, requeue)]


@given(pamqp_tags, st.booleans(), channels)
def test_acks_and_nacks_of_many_by_pamqp_are_read(tag: int, requeue: bool, channel: int) -> None:
    data = frame.marshal(commands.Basic.Ack(tag, True), channel)
    data += frame.marshal(commands.Basic.Nack(tag, True, requeue), channel)
    assert settled(data, channel) == [(ACK, [tag], True, False), (NACK, [tag], True, requeue)]


@pytest.mark.parametrize(
    "method",
    [commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject],
    ids=lambda method: method.name,
)
def test_the_largest_delivery_tag_is_read(method: type[base.Frame]) -> None:
    tag = (1 << 64) - 1
    ((_, tags, _, _),) = settled(encode_method(1, make(method, delivery_tag=tag)), 1)
    assert tags == [tag]
