"""Delayed retry: what came back waits before it goes out again.

Source: RabbitMQ 4.3, guide "Quorum Queues"; exponential backoff and jitter are Leveret's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.broker.model.queues import returned
from leveret.broker.model.queues.returned import FAILED, GIVEN_BACK, retry_of
from leveret.broker.model.turn import min_chance
from leveret.protocol.properties import replace
from leveret.protocol.tables import from_python

from .harness import PERSISTENT, Broker, ChannelOfTest, Refused, delivery_tag
from .test_policies import clear_policy, set_policy

if TYPE_CHECKING:
    from ..peer import Content

pytestmark = pytest.mark.usefixtures("either_way")


def retrying(broker: Broker | None = None, queue: str = "q", **arguments: object) -> ChannelOfTest:
    """A channel and a durable queue that has one persistent message, and 1000 ms of delay."""
    channel = (broker or Broker()).channel()
    given: dict[str, object] = {"x-delayed-retry-type": "all", "x-delayed-retry-min": 1000}
    given |= {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.declare(queue, durable=True, arguments=given)
    channel.publish(queue, b"a", properties=PERSISTENT)
    return channel


def got(channel: ChannelOfTest, queue: str = "q") -> Content:
    message = channel.get(queue, no_ack=False)
    assert message is not None
    return message


def reject(channel: ChannelOfTest) -> None:
    channel.reject(delivery_tag(got(channel)), requeue=True)


def totals(channel: ChannelOfTest) -> tuple[int, int, int]:
    """Ready, unacked and waiting messages."""
    queue = channel.broker.node.vhosts["/"].queues["q"]
    assert queue.messages == queue.messages_ready + queue.messages_unacknowledged + queue.messages_waiting
    return queue.messages_ready, queue.messages_unacknowledged, queue.messages_waiting


# who waits


def test_a_rejected_message_waits() -> None:
    channel = retrying()
    reject(channel)
    channel.broker.advance(999)
    assert channel.get("q") is None
    channel.broker.advance(1)
    assert got(channel).body == b"a"


def test_a_consumer_gets_it_when_its_time_has_come() -> None:
    channel = retrying()
    channel.consume("q")
    channel.reject(delivery_tag(channel.delivered()[0]), requeue=True)
    assert channel.delivered() == []
    channel.broker.advance(1000)
    (again,) = channel.delivered()
    assert again.fields.headers == {
        "x-delivery-count": from_python(1)._replace(tag="l"),
        "x-acquired-count": from_python(1)._replace(tag="l"),
    }


def test_the_wait_grows_with_the_count() -> None:
    channel = retrying()
    for wait_ms in (1000, 2000, 3000):
        reject(channel)
        channel.broker.advance(wait_ms - 1)
        assert channel.get("q") is None
        channel.broker.advance(1)


def test_the_wait_has_a_limit() -> None:
    channel = retrying(x_delayed_retry_max=1500)
    reject(channel)
    channel.broker.advance(1000)
    reject(channel)
    channel.broker.advance(1500)
    assert got(channel).body == b"a"


@pytest.mark.parametrize(
    ("kind", "waiting_after_reject", "waiting_after_nack"),
    [("all", 1, 1), ("failed", 1, 0), ("returned", 0, 1), ("disabled", 0, 0)],
)
def test_the_type_tells_who_waits(kind: str, waiting_after_reject: int, waiting_after_nack: int) -> None:
    channel = retrying(x_delayed_retry_type=kind)
    reject(channel)
    assert totals(channel) == (1 - waiting_after_reject, 0, waiting_after_reject)
    channel.broker.advance(1000)
    channel.nack(delivery_tag(got(channel)))
    assert totals(channel) == (1 - waiting_after_nack, 0, waiting_after_nack)


def test_a_lost_channel_is_a_failure() -> None:
    channel = retrying(x_delayed_retry_type="failed")
    got(channel)
    channel.close()
    assert totals(channel) == (0, 0, 1)


def test_messages_come_back_to_their_old_places() -> None:
    channel = retrying()
    reject(channel)
    channel.publish("q", b"b", properties=PERSISTENT)
    channel.broker.advance(1000)
    assert channel.drain("q") == [b"a", b"b"]


def test_the_delivery_limit_holds() -> None:
    channel = retrying(x_delivery_limit=1)
    reject(channel)
    channel.broker.advance(1000)
    reject(channel)
    assert totals(channel) == (0, 0, 0)


def test_a_policy_sets_it() -> None:
    broker = Broker()
    channel = broker.channel()
    channel.declare("q")
    channel.publish("q", b"a")
    set_policy(broker, {"delayed-retry-type": "all", "delayed-retry-min": 50})
    reject(channel)
    assert totals(channel) == (0, 0, 1)
    clear_policy(broker)
    broker.advance(50)
    reject(channel)
    assert totals(channel) == (1, 0, 0)


# how long


def delays(*, times: int, **arguments: object) -> list[int]:
    table = {f"x-delayed-retry-{name}": from_python(value) for name, value in arguments.items()}
    retry = retry_of(table)
    assert retry is not None
    return [retry.delay_ms(FAILED, count, min_chance) for count in range(1, times + 1)]


def test_without_a_minimum_it_is_a_second() -> None:
    assert delays(type="all", times=3) == [1000, 2000, 3000]


def test_it_may_be_doubled_each_time() -> None:
    assert delays(type="all", min=100, max=1000, backoff="exponential", times=6) == [
        100, 200, 400, 800, 1000, 1000,
    ]  # fmt: skip


def test_doubling_ends_somewhere() -> None:
    assert delays(type="all", backoff="exponential", times=10_000)[-1] == returned.RETRY_MAX_MS


def test_chance_takes_some_of_it_away() -> None:
    table = {
        "x-delayed-retry-type": from_python("returned"),
        "x-delayed-retry-min": from_python(1000),
        "x-delayed-retry-jitter": from_python(25),
    }
    retry = retry_of(table)
    assert retry is not None
    assert retry.delay_ms(GIVEN_BACK, 1, min_chance) == 1000
    assert retry.delay_ms(GIVEN_BACK, 1, lambda count: count - 1) == 750
    assert retry.delay_ms(FAILED, 1, min_chance) == 0


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("x-delayed-retry-type", "some", "invalid_delayed_retry_type"),
        ("x-delayed-retry-type", 1, "{unacceptable_type,signedint}"),
        ("x-delayed-retry-min", -1, "{value_negative,-1}"),
        ("x-delayed-retry-max", "a", '"expected integer, got longstr"'),
        ("x-delayed-retry-backoff", "some", "invalid_delayed_retry_backoff"),
        ("x-delayed-retry-jitter", 101, "{max_value_exceeded,101}"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(name: str, value: object, detail: str) -> None:
    with pytest.raises(Refused) as refused:
        Broker().channel().declare("q", arguments={name: value})
    assert refused.value.code == 406
    assert refused.value.text.startswith(
        f"PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/'"
    )
    assert refused.value.text.split(": ", 1)[1].split(",")[0] == detail.split(",")[0]


# what becomes of those that wait


def test_a_purge_removes_them() -> None:
    channel = retrying()
    reject(channel)
    channel.publish("q", b"b", properties=PERSISTENT)
    assert channel.purge("q") == 2
    channel.broker.advance(5000)
    assert totals(channel) == (0, 0, 0)
    channel.broker.restart()
    assert channel.broker.channel().get("q") is None


def test_they_go_with_their_queue() -> None:
    channel = retrying()
    reject(channel)
    channel.delete("q")
    channel.broker.advance(5000)
    channel.declare("q", durable=True)
    assert channel.get("q") is None


def test_they_do_not_count_for_length_limits() -> None:
    channel = retrying(x_max_length=1)
    reject(channel)
    channel.publish("q", b"b", properties=PERSISTENT)
    assert totals(channel) == (1, 0, 1)
    channel.broker.advance(1000)
    assert channel.drain("q") == [b"b"]


def test_their_time_to_live_goes_on() -> None:
    channel = retrying()
    channel.purge("q")
    channel.publish("q", b"a", properties=replace(delivery_mode=2, expiration="500"))
    reject(channel)
    channel.broker.advance(999)
    assert totals(channel) == (0, 0, 1)
    channel.broker.advance(1)
    assert totals(channel) == (0, 0, 0)


def test_too_many_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned, "WAITING_MESSAGES_MAX", 2)
    channel = retrying()
    channel.publish_all("q", b"b", b"c", properties=PERSISTENT)
    channel.consume("q")
    channel.cancel()
    channel.nack(0, multiple=True)
    assert totals(channel) == (1, 0, 2)
    assert got(channel).body == b"a"


def test_too_many_bytes_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned, "WAITING_BYTES_MAX", 10)
    channel = retrying()
    channel.publish("q", bytes(10), properties=PERSISTENT)
    channel.consume("q")
    channel.cancel()
    channel.nack(0, multiple=True)
    assert totals(channel) == (1, 0, 1)


# restarts


def test_they_wait_on_after_a_restart() -> None:
    channel = retrying()
    channel.publish("q", b"b", properties=PERSISTENT)
    reject(channel)
    channel.broker.advance(400)
    channel.broker.restart()
    channel = channel.broker.channel()
    assert totals(channel) == (1, 0, 1)
    assert channel.drain("q") == [b"b"]
    channel.broker.advance(599)
    assert channel.get("q") is None
    channel.broker.advance(1)
    assert channel.drain("q") == [b"a"]


def test_their_time_may_come_while_the_broker_is_down() -> None:
    channel = retrying()
    reject(channel)
    channel.broker.stop()
    channel.broker.now_ms += 10_000
    channel.broker.crash()
    assert got(channel.broker.channel()).body == b"a"


def test_consumers_do_not_get_them_early_after_a_crash() -> None:
    channel = retrying()
    reject(channel)
    channel.broker.crash()
    channel = channel.broker.channel()
    channel.consume("q")
    assert channel.delivered() == []
    channel.broker.advance(1000)
    assert channel.bodies() == [b"a"]
