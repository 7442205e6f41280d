"""Channels: opening, closing by either side, limits, and what a channel remembers.

Source: AMQP 0-9-1 class channel (20); RabbitMQ guide "Channels"; seen with RabbitMQ 3.10.
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.protocol.methods import Access

from ..peer import Method, Peer
from .closes import NOTHING, Close, answer, opened
from .harness import Broker, Refused

QOS = Peer.send(1, commands.Basic.Qos)
OPEN = Peer.send(1, commands.Channel.Open)
CLOSE = Peer.send(1, commands.Channel.Close)
CLOSE_OK = Peer.send(1, commands.Channel.CloseOk)
MISTAKE = Peer.send(1, commands.Basic.Get, queue="nope")
MISSING = Close(1, 404, "NOT_FOUND - no queue 'nope' in vhost '/'", (60, 70))

# opening


def test_a_new_channel_says_nothing_of_itself() -> None:
    client = Broker().connect()
    client.send(OPEN)
    [open_ok] = client.take()
    assert isinstance(open_ok, Method)
    assert isinstance(open_ok.method, commands.Channel.OpenOk)
    assert open_ok.method.channel_id == ""


@pytest.mark.parametrize(
    ("method", "ids"),
    [
        (commands.Queue.Declare, (50, 10)),
        (commands.Channel.Close, (20, 40)),
        (commands.Channel.CloseOk, (20, 41)),
        (commands.Basic.Publish, (60, 40)),
        (commands.Basic.Ack, (60, 80)),
        (commands.Basic.Nack, (60, 120)),
        (commands.Tx.Select, (90, 10)),
    ],
)
def test_a_channel_begins_with_open(method: type, ids: tuple[int, int]) -> None:
    refused = answer(opened(), Peer.send(5, method))
    assert refused == Close(0, 504, "CHANNEL_ERROR - expected 'channel.open'", ids)


def test_a_channel_is_opened_once() -> None:
    assert answer(opened(), OPEN) == Close(0, 504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10))


@pytest.mark.parametrize("limit", [1, 2])
def test_channel_max_limits_how_many_are_open_whatever_their_numbers(limit: int) -> None:
    client = opened(None, *range(65535, 65535 - limit, -1), channel_max=limit)
    text = (
        f"NOT_ALLOWED - number of channels opened ({limit}) has reached the negotiated channel_max ({limit})"
    )
    assert answer(client, OPEN) == Close(0, 530, text, NOTHING)


def test_a_closed_channel_makes_room_for_another() -> None:
    client = opened(channel_max=1)
    assert answer(client, CLOSE, Peer.send(2, commands.Channel.Open)) == ["Channel.CloseOk", "Channel.OpenOk"]


def test_a_channel_closed_by_an_error_counts_until_its_close_ok() -> None:
    client = opened(channel_max=1)
    answer(client, MISTAKE)
    refused = answer(client, Peer.send(2, commands.Channel.Open))
    assert isinstance(refused, Close)
    assert refused[:2] == (0, 530)


# closing


def test_a_closed_number_can_be_used_again_at_once() -> None:
    assert answer(opened(), CLOSE, OPEN, QOS) == ["Channel.CloseOk", "Channel.OpenOk", "Basic.QosOk"]


def test_a_method_behind_close_is_on_no_channel() -> None:
    refused = answer(opened(), CLOSE, QOS)
    assert refused == Close(0, 504, "CHANNEL_ERROR - expected 'channel.open'", (60, 10))


def test_a_close_in_the_middle_of_a_content_is_no_body() -> None:
    client = opened()
    publish = Peer.send(1, commands.Basic.Publish) + Peer.content_header(1, 3)
    assert answer(client, publish, CLOSE) == Close(
        0,
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        (60, 40),
    )


def test_an_error_closes_its_channel_only() -> None:
    client = opened(None, 1, 2)
    assert answer(client, MISTAKE) == MISSING
    assert answer(client, Peer.send(2, commands.Basic.Qos)) == ["Basic.QosOk"]


def test_what_follows_an_error_is_ignored_until_close_ok() -> None:
    client = opened(None, 1, 2)
    answer(client, MISTAKE)
    declare = Peer.send(1, commands.Queue.Declare, queue="q")
    content = client.peer.publish(1, "no such exchange", "k", b"abc")
    looks_like_close = Peer.body(1, b"\0\x14\0\x28\0\0")
    server_method = Peer.send(1, commands.Basic.GetEmpty)
    assert answer(client, QOS, declare, content, looks_like_close, server_method) == []
    assert answer(client, CLOSE_OK, OPEN, QOS) == ["Channel.OpenOk", "Basic.QosOk"]
    with pytest.raises(Refused, match="no queue 'q'"):
        client.channel(3).counts("q")


def test_a_close_that_crosses_ours_is_answered_and_close_ok_still_awaited() -> None:
    client = opened()
    answer(client, MISTAKE)
    assert answer(client, CLOSE, CLOSE) == ["Channel.CloseOk", "Channel.CloseOk"]
    assert answer(client, QOS) == []
    assert answer(client, CLOSE_OK, OPEN) == ["Channel.OpenOk"]


def test_a_channel_closed_by_an_error_cannot_be_opened_before_its_close_ok() -> None:
    client = opened()
    answer(client, MISTAKE)
    assert answer(client, OPEN) == Close(0, 504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10))


def test_a_second_close_ok_is_on_no_channel() -> None:
    client = opened()
    answer(client, MISTAKE)
    refused = answer(client, CLOSE_OK, CLOSE_OK)
    assert refused == Close(0, 504, "CHANNEL_ERROR - expected 'channel.open'", (20, 41))


def test_an_unasked_close_ok_is_not_implemented() -> None:
    assert answer(opened(), CLOSE_OK) == Close(0, 503, "COMMAND_INVALID - unimplemented method", (20, 41))


def test_frames_are_ignored_also_behind_the_mistake_in_the_same_read() -> None:
    client = opened(None, 1, 2)
    with client.at_once():
        client.send(MISTAKE + QOS + Peer.send(2, commands.Basic.Qos) + CLOSE_OK + OPEN)
    assert client.take_names() == ["Channel.Close", "Basic.QosOk", "Channel.OpenOk"]


# flow and access


def test_flow_may_be_on() -> None:
    assert answer(opened(), Peer.send(1, commands.Channel.Flow, active=True)) == ["Channel.FlowOk"]


def test_flow_cannot_be_off() -> None:
    refused = answer(opened(), Peer.send(1, commands.Channel.Flow, active=False))
    assert refused == Close(0, 540, "NOT_IMPLEMENTED - active=false", (20, 20))


def test_access_is_granted_to_old_clients() -> None:
    assert answer(opened(), Peer.send(1, Access.Request, realm="/data", active=True)) == ["Access.RequestOk"]


# without wait


def test_success_without_wait_is_silent() -> None:
    methods = [
        (commands.Queue.Declare, {"queue": "q"}),
        (commands.Exchange.Declare, {"exchange": "e", "exchange_type": "fanout"}),
        (commands.Queue.Bind, {"queue": "q", "exchange": "e"}),
        (commands.Exchange.Bind, {"source": "e", "destination": "amq.fanout"}),
        (commands.Exchange.Unbind, {"source": "e", "destination": "amq.fanout"}),
        (commands.Basic.Consume, {"queue": "q", "consumer_tag": "t"}),
        (commands.Basic.Cancel, {"consumer_tag": "t"}),
        (commands.Queue.Purge, {"queue": "q"}),
        (commands.Queue.Delete, {"queue": "q"}),
        (commands.Exchange.Delete, {"exchange": "e"}),
        (commands.Confirm.Select, {}),
    ]
    sent = [Peer.send(1, method, nowait=True, **fields) for method, fields in methods]
    assert answer(opened(), *sent, QOS) == ["Basic.QosOk"]


@pytest.mark.parametrize(
    ("method", "fields", "ids"),
    [
        (commands.Queue.Declare, {"queue": "nope", "passive": True}, (50, 10)),
        (commands.Exchange.Declare, {"exchange": "nope", "passive": True}, (40, 10)),
        (commands.Queue.Bind, {"queue": "nope", "exchange": "amq.direct"}, (50, 20)),
        (commands.Exchange.Bind, {"source": "nope", "destination": "amq.fanout"}, (40, 30)),
        (commands.Basic.Consume, {"queue": "nope"}, (60, 20)),
        (commands.Queue.Purge, {"queue": "nope"}, (50, 30)),
    ],
)
def test_failure_without_wait_closes_the_channel(
    method: type, fields: dict[str, object], ids: tuple[int, int]
) -> None:
    refused = answer(opened(), Peer.send(1, method, nowait=True, **fields))
    kind = "exchange" if ids[0] == 40 else "queue"
    assert refused == Close(1, 404, f"NOT_FOUND - no {kind} 'nope' in vhost '/'", ids)


# the queue last declared

BY_EMPTY_NAME = [
    (commands.Basic.Get, {}),
    (commands.Basic.Consume, {}),
    (commands.Queue.Purge, {}),
    (commands.Queue.Bind, {"exchange": "amq.direct"}),
    (commands.Queue.Unbind, {"exchange": "amq.direct"}),
    (commands.Queue.Delete, {}),
]


@pytest.mark.parametrize(("method", "fields"), BY_EMPTY_NAME)
def test_no_queue_was_declared_yet(method: type, fields: dict[str, object]) -> None:
    refused = answer(opened(), Peer.send(1, method, **fields))
    assert isinstance(refused, Close)
    assert refused[:3] == (1, 404, "NOT_FOUND - no previously declared queue")


@pytest.mark.parametrize("name", ["", "q"])
@pytest.mark.parametrize(("method", "fields"), BY_EMPTY_NAME)
def test_the_queue_last_declared_is_meant(method: type, fields: dict[str, object], name: str) -> None:
    client = opened()
    declare = Peer.send(1, commands.Queue.Declare, queue=name)
    reply = answer(client, declare, Peer.send(1, method, **fields))
    assert not isinstance(reply, Close)


def test_a_passive_declare_is_remembered_too() -> None:
    client = opened(None, 1, 2)
    declares = [
        Peer.send(2, commands.Queue.Declare, queue="q"),
        Peer.send(1, commands.Queue.Declare, queue="q", passive=True),
    ]
    assert answer(client, *declares, Peer.send(1, commands.Basic.Get))[2:] == ["Basic.GetEmpty"]


def test_other_channels_remember_other_queues() -> None:
    client = opened(None, 1, 2)
    answer(client, Peer.send(1, commands.Queue.Declare, queue="q"))
    refused = answer(client, Peer.send(2, commands.Basic.Get))
    assert refused == Close(2, 404, "NOT_FOUND - no previously declared queue", (60, 70))


def test_a_deleted_queue_is_still_remembered() -> None:
    client = opened()
    answer(client, Peer.send(1, commands.Queue.Declare, queue="q"), Peer.send(1, commands.Queue.Delete))
    refused = answer(client, Peer.send(1, commands.Basic.Get))
    assert refused == Close(1, 404, "NOT_FOUND - no queue 'q' in vhost '/'", (60, 70))


def test_declaring_the_reply_queue_is_remembered() -> None:
    client = opened()
    answer(client, Peer.send(1, commands.Queue.Declare, queue="amq.rabbitmq.reply-to"))
    answer(client, Peer.send(1, commands.Basic.Consume, queue="amq.rabbitmq.reply-to", no_ack=True))
    refused = answer(client, Peer.send(1, commands.Queue.Purge))
    assert refused == Close(1, 404, "NOT_FOUND - no queue 'amq.rabbitmq.reply-to' in vhost '/'", (50, 30))


def test_a_passive_declare_without_a_name_finds_nothing() -> None:
    declare = Peer.send(1, commands.Queue.Declare, queue="q")
    passive = Peer.send(1, commands.Queue.Declare, passive=True)
    refused = answer(opened(), declare, passive)
    assert refused == Close(1, 404, "NOT_FOUND - no queue '' in vhost '/'", (50, 10))


def test_a_binding_without_queue_and_key_has_the_queues_name_as_key() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.bind("", "amq.direct")
    channel.publish("q", b"a", exchange="amq.direct")
    assert channel.drain("q") == [b"a"]


def test_a_binding_with_a_named_queue_keeps_its_empty_key() -> None:
    channel = Broker().channel()
    channel.declare("q")
    channel.bind("q", "amq.direct")
    channel.publish("q", b"a", exchange="amq.direct")
    channel.publish("", b"b", exchange="amq.direct")
    assert channel.drain("q") == [b"b"]


# names


@pytest.mark.parametrize(
    "name", ["n" * 255, "é" * 127, "q!x <>&%\"';{}[]\\|", "   ", "\N{RABBIT}" * 63, "a\0b", "\x1b\x7f"]
)
def test_a_name_may_be_any_utf_8_of_up_to_255_bytes(name: str) -> None:
    channel = Broker().channel()
    assert channel.declare(name) == name
    channel.declare_exchange(name)
    channel.bind(name, name, name)
    channel.publish(name, b"a", exchange=name)
    channel.consume(name, name)
    assert channel.bodies(name) == [b"a"]
    channel.cancel(name)
    assert channel.delete(name) == 0


def test_line_breaks_are_removed_from_names_that_are_declared_bound_or_deleted() -> None:
    channel = Broker().channel()
    assert channel.declare("a\r\nb") == "ab"
    channel.declare_exchange("x\r\ny")
    channel.bind("\rab", "xy\n")
    channel.publish("", b"1", exchange="xy")
    channel.call(commands.Queue.Unbind, queue="a\nb", exchange="x\ny")
    channel.publish("", b"2", exchange="xy")
    assert channel.drain("ab") == [b"1"]
    channel.call(commands.Exchange.Delete, exchange="x\ry")
    channel.delete("a\rb")
    assert not channel.exists("ab")


@pytest.mark.parametrize("method", [commands.Basic.Get, commands.Basic.Consume, commands.Queue.Purge])
def test_line_breaks_stay_in_names_that_are_read_from(method: type) -> None:
    channel = Broker().channel()
    channel.declare("ab")
    with pytest.raises(Refused) as refused:
        channel.call(method, queue="a\nb")
    assert refused.value.text == "NOT_FOUND - no queue 'a\nb' in vhost '/'"


def test_a_name_of_line_breaks_is_not_the_queue_last_declared() -> None:
    channel = Broker().channel()
    channel.declare("q")
    assert channel.delete("\r") == 0
    assert channel.exists("q")
