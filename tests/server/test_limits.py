"""Limits of vhosts and users.

Source: RabbitMQ guides "Virtual Hosts" and "User Limits".
"""

from __future__ import annotations

import pytest

from .closes import NOTHING, Close, answer
from .harness import Broker, Refused

OPEN = (10, 40)
LOGGED_IN = ["Connection.Start", "Connection.Tune", "Connection.OpenOk"]


def limited(**limits: int) -> Broker:
    """A broker whose default vhost has limits."""
    broker = Broker()
    broker.node.vhosts["/"].set_limits({name.replace("_", "-"): value for name, value in limits.items()})
    broker.run()
    return broker


def with_user_limits(**limits: int) -> Broker:
    """A broker whose default user has limits."""
    broker = Broker()
    broker.node.authority.set_limits(
        "guest", {name.replace("_", "-"): value for name, value in limits.items()}
    )
    broker.run()
    return broker


def log_in(broker: Broker) -> Close | list[str]:
    client = broker.connect(opened=False)
    return answer(client, client.peer.handshake())


def refused(text: str) -> Close:
    return Close(0, 530, f"NOT_ALLOWED - {text}", OPEN)


@pytest.mark.parametrize("limit", [0, 2])
def test_a_vhost_takes_as_many_connections_as_it_may(limit: int) -> None:
    broker = limited(max_connections=limit)
    clients = [broker.connect() for _ in range(limit)]
    text = f"access to vhost '/' refused for user 'guest': connection limit ({limit}) is reached"
    assert log_in(broker) == refused(text)
    for client in clients:
        client.close()
        broker.connect()


@pytest.mark.parametrize("limit", [0, 2])
def test_a_user_has_as_many_connections_as_it_may(limit: int) -> None:
    broker = with_user_limits(max_connections=limit)
    clients = [broker.connect() for _ in range(limit)]
    text = f"connection refused for user 'guest': user connection limit ({limit}) is reached"
    assert log_in(broker) == refused(text)
    for client in clients:
        client.vanish()
        broker.connect()


def test_a_user_has_as_many_channels_as_it_may_on_all_its_connections() -> None:
    broker = with_user_limits(max_channels=2)
    channel, other = broker.channel(), broker.channel()
    client = broker.connect()
    with pytest.raises(Refused) as error:
        client.channel()
    assert error.value.is_hard
    assert (error.value.code, error.value.method_ids) == (530, NOTHING)
    assert error.value.text == (
        "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit"
        " of (2)"
    )
    channel.close()
    broker.channel()
    other.client.vanish()
    broker.channel()


def test_a_vhost_has_as_many_queues_as_it_may() -> None:
    broker = limited(max_queues=1)
    channel = broker.channel()
    channel.declare("q")
    channel.declare("q")
    with pytest.raises(Refused) as error:
        channel.declare("r")
    assert error.value.code == 406
    assert error.value.text == (
        "PRECONDITION_FAILED - cannot declare queue 'r': queue limit in vhost '/' (1) is reached"
    )
    channel.reopen()
    channel.delete("q")
    channel.declare("r")


@pytest.mark.parametrize("broker", [limited, with_user_limits])
def test_a_negative_limit_is_none(broker: type[Broker]) -> None:
    assert log_in(broker(max_connections=-1)) == LOGGED_IN


def test_a_lower_limit_closes_nothing() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q")
    broker.node.vhosts["/"].set_limits({"max-connections": 0, "max-queues": 0})
    broker.node.authority.set_limits("guest", {"max-channels": 0})
    assert channel.counts("q") == (0, 0)


def test_limits_survive_a_restart_and_go_when_they_are_cleared() -> None:
    broker = limited(max_connections=0)
    broker.restart()
    assert log_in(broker) != LOGGED_IN
    broker.node.vhosts["/"].clear_limits()
    broker.run()
    broker.restart()
    assert log_in(broker) == LOGGED_IN


def test_user_limits_survive_a_restart() -> None:
    broker = with_user_limits(max_connections=0)
    broker.restart()
    assert log_in(broker) != LOGGED_IN
