"""Connections take turns: nobody keeps others waiting."""

from __future__ import annotations

from pamqp import commands

from leveret.broker.server.session import EVENTS_PER_TURN
from leveret.protocol.methods import encode_method, make

from .harness import Broker


def test_a_flood_of_methods_on_one_connection_leaves_another_its_turn() -> None:
    broker = Broker()
    greedy, modest = broker.connect(), broker.connect()
    queue = greedy.channel().declare("q")
    modest_channel = modest.channel()
    get = encode_method(1, make(commands.Basic.Get, queue=queue, no_ack=True))

    broker.turn((greedy, get * (3 * EVENTS_PER_TURN)))
    greedy.take_output()
    answered_at_once = len(greedy.take())
    assert modest_channel.exists("q")

    assert answered_at_once == EVENTS_PER_TURN
    assert answered_at_once + len(greedy.take()) == 3 * EVENTS_PER_TURN


def test_what_was_sent_before_the_end_is_handled_in_later_turns() -> None:
    broker = Broker()
    greedy, other = broker.connect(), broker.channel()
    greedy.channel()
    declares = [
        encode_method(1, make(commands.Queue.Declare, queue=f"q{number}", nowait=True))
        for number in range(2 * EVENTS_PER_TURN)
    ]

    broker.turn((greedy, b"".join(declares)))
    greedy.vanish()
    broker.run()

    assert other.exists(f"q{2 * EVENTS_PER_TURN - 1}")
