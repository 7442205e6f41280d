"""Valid conversations with something changed: a proper close or none answers, and nobody else notices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands

from leveret.protocol.properties import replace
from leveret.protocol.tables import Field

from ..peer import Method, Peer
from .closes import answer, opened
from .harness import Broker, Client, logged_events

CASES = 2_500
QOS = Peer.send(1, commands.Basic.Qos)
# A broker has no excuse for 541, and clients do not expect 311, 320 or 402 for what they send.
CLOSE_CODES = {403, 404, 405, 406, 501, 502, 503, 504, 505, 530, 540}

HEADERS = {
    "CC": Field("A", [Field("S", b"other")]),
    "n": Field("l", -1),
    "t": Field("F", {"x": Field("d", 1.5), "y": Field("V", None)}),
}
RICH = replace(headers=HEADERS, delivery_mode=2, expiration=b"60000", reply_to=b"back", timestamp=7)


def send(channel: int, method: type, **fields: object) -> bytes:
    return Peer.send(channel, method, **fields)


def content(channel: int, key: str, body: bytes, properties: bytes = b"\0\0") -> list[bytes]:
    half = len(body) // 2
    bodies = [Peer.body(channel, part) for part in (body[:half], body[half:]) if body]
    return [
        send(channel, commands.Basic.Publish, routing_key=key, mandatory=True),
        Peer.content_header(channel, len(body), properties),
        *bodies,
    ]


PEER = Peer()
LOGIN = [PEER.start_ok(), PEER.tune_ok(), PEER.open(), send(1, commands.Channel.Open)]
GOODBYE = [send(1, commands.Channel.Close), send(0, commands.Connection.Close)]
CONVERSATIONS = [
    [
        *LOGIN,
        send(
            1, commands.Exchange.Declare, exchange="e", exchange_type="topic", arguments={"a": [1, "b", {}]}
        ),
        send(1, commands.Queue.Declare, queue="q", durable=True, arguments={"x-max-length": 5}),
        send(1, commands.Queue.Bind, queue="q", exchange="e", routing_key="a.#", arguments={"x": 1.5}),
        send(1, commands.Basic.Consume, queue="q", consumer_tag="t"),
        *content(1, "q", b"abcdef"),
        *content(1, "q", b"", RICH),
        *content(1, "q", b"x" * 500, RICH),
        send(1, commands.Basic.Ack, delivery_tag=1),
        send(1, commands.Basic.Nack, delivery_tag=2, requeue=True),
        send(1, commands.Basic.Reject, delivery_tag=3, requeue=False),
        send(1, commands.Basic.Cancel, consumer_tag="t"),
        send(1, commands.Queue.Delete, queue="q"),
        *GOODBYE,
    ],
    [
        *LOGIN,
        Peer.heartbeat_frame(),
        send(2, commands.Channel.Open),
        send(1, commands.Confirm.Select),
        send(2, commands.Tx.Select),
        send(1, commands.Queue.Declare, exclusive=True),
        send(1, commands.Basic.Consume, queue="amq.rabbitmq.reply-to", no_ack=True),
        send(2, commands.Basic.Publish, routing_key="nowhere", mandatory=True),
        *content(1, "nowhere", b"abc", replace(reply_to=b"amq.rabbitmq.reply-to")),
        Peer.content_header(2, 3, RICH),
        Peer.body(2, b"abc"),
        send(1, commands.Basic.Get),
        send(1, commands.Queue.Purge),
        send(2, commands.Tx.Commit),
        send(2, commands.Tx.Rollback),
        send(1, commands.Basic.Recover, requeue=True),
        send(1, commands.Channel.Flow, active=True),
        send(2, commands.Basic.Get, queue="missing"),
        send(2, commands.Channel.CloseOk),
        send(2, commands.Channel.Open),
        *GOODBYE,
    ],
]

indexes = st.sampled_from(range(64))  # of a frame; hypothesis likes small integers, but not among these
places = st.sampled_from(range(128))  # in a frame
octet = st.integers(0, 255)
mutations = st.one_of(
    st.tuples(st.just("type"), indexes, st.sampled_from([0, 1, 2, 3, 4, 8, 255])),
    st.tuples(st.just("channel"), indexes, st.sampled_from([0, 1, 2, 3, 0xFFFF])),
    st.tuples(st.just("size"), indexes, st.sampled_from([-8, -2, -1, 1, 2, 8, 2**16, 2**24, 2**31])),
    st.tuples(st.just("end"), indexes, octet),
    st.tuples(st.just("octet"), indexes, places, octet),
    st.tuples(st.just("octet near the start"), indexes, st.sampled_from(range(7, 20)), octet),
    st.tuples(st.just("cut"), indexes, places),
    st.tuples(st.just("insert"), indexes, places, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("fit"), indexes, places, st.binary(max_size=9)),
    st.tuples(st.just("drop"), indexes),
    st.tuples(st.just("repeat"), indexes, st.integers(1, 3)),
    st.tuples(st.just("move"), indexes, indexes),
)


def mutate(frames: list[bytes], mutation: tuple[object, ...]) -> None:
    """Change one frame, or where it stands."""
    kind, *numbers = mutation
    index = int(numbers[0]) % len(frames)  # type: ignore[call-overload]  # a place
    frame = bytearray(frames[index])
    value = numbers[-1]
    if kind == "drop":
        del frames[index]
        return
    if kind == "repeat":
        assert isinstance(value, int)
        frames[index:index] = [bytes(frame)] * value
        return
    if kind == "move":
        assert isinstance(value, int)
        frames.insert(value % len(frames), frames.pop(index))
        return
    place = int(numbers[1]) % len(frame)  # type: ignore[call-overload]  # a place, or not used
    if isinstance(value, bytes):
        frame[place:place] = value
        if kind == "fit":  # the frame is whole, and its payload is what does not fit
            frame = bytearray(Peer.frame(frame[0], int.from_bytes(frame[1:3], "big"), bytes(frame[7:-1])))
    elif kind == "cut":
        del frame[place]
    elif kind == "channel":
        assert isinstance(value, int)
        frame[1:3] = value.to_bytes(2, "big")
    elif kind == "size":
        assert isinstance(value, int)
        size = max(0, int.from_bytes(frame[3:7], "big") + value) % 2**32
        frame[3:7] = size.to_bytes(4, "big")
    else:
        assert isinstance(value, int)
        frame[{"type": 0, "end": -1}.get(str(kind), place)] = value
    frames[index] = bytes(frame)


def say(client: Client, data: bytes, cuts: list[int]) -> None:
    """Send bytes in pieces."""
    borders = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(borders):
        client.send(data[start:end])


def check_last_words(client: Client) -> None:
    """Its words were well formed (the peer checks that), its closes have codes for mistakes of clients."""
    closes = [event for event in client.take() if isinstance(event, Method) and event.name.endswith(".Close")]
    for close in closes:
        assert close.error[0] in CLOSE_CODES
    assert [close.channel for close in closes].count(0) <= 1


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_conversations_are_valid(conversation: list[bytes]) -> None:
    client = Broker().connect(opened=False)
    names = answer(client, Peer.header(), *conversation)
    assert names[-1] == "Connection.CloseOk"
    assert "Connection.Close" not in names


@settings(max_examples=CASES, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(CONVERSATIONS),
    st.lists(mutations, min_size=1, max_size=3),
    st.lists(st.integers(0, 3_000), max_size=3),
)
def test_a_mutated_conversation_ends_properly_and_disturbs_nobody(
    conversation: list[bytes], changes: list[tuple[object, ...]], cuts: list[int]
) -> None:
    frames = list(conversation)
    for change in changes:
        mutate(frames, change)
    broker = Broker()
    bystander = opened(broker)
    bystander.channel(2).declare("its own", exclusive=True)
    with logged_events() as logs:
        client = broker.connect(opened=False)
        say(client, Peer.header() + b"".join(frames), cuts)
        broker.advance(35_000)
    check_last_words(client)
    assert [entry for entry in logs if entry["level"] == "error"] == []
    client.vanish()
    assert answer(bystander, QOS) == ["Basic.QosOk"]
    assert bystander.channel(3).exists("its own")
    assert len(broker.node.sessions) == 1


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_no_conversation(noise: bytes, is_logged_in: bool) -> None:
    broker = Broker()
    bystander = opened(broker)
    with logged_events() as logs:
        client = broker.connect(opened=is_logged_in)
        client.send(noise if is_logged_in else Peer.header() + noise)
        broker.advance(35_000)
    check_last_words(client)
    assert [entry for entry in logs if entry["level"] == "error"] == []
    assert answer(bystander, QOS) == ["Basic.QosOk"]
