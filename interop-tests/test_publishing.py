"""Publishing: mandatory messages and returns, checked properties, refusals."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from blocking import channel_closed, connection_closed, drain, get, sync
from brokers import Broker, Names
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError
from wire import (
    BASIC_ACK,
    BASIC_PUBLISH,
    BASIC_RETURN,
    BODY,
    CONFIRM_SELECT,
    CONFIRM_SELECT_OK,
    Peer,
    basic_publish,
)


def test_a_mandatory_message_without_a_queue_comes_back_whole(
    confirming: BlockingChannel, names: Names
) -> None:
    key = names.text()
    properties = BasicProperties(content_type="text/plain", headers={"n": 1}, message_id="m")

    with pytest.raises(UnroutableError) as unroutable:
        confirming.basic_publish("amq.direct", key, b"nobody", properties, mandatory=True)

    (returned,) = unroutable.value.messages
    assert returned.method == pika.spec.Basic.Return(312, "NO_ROUTE", "amq.direct", key)
    assert (returned.properties, returned.body) == (properties, b"nobody")


def test_a_returned_message_has_no_bcc_header(confirming: BlockingChannel, names: Names) -> None:
    headers: dict[str, Any] = {"BCC": [names.text()], "CC": [names.text()]}

    with pytest.raises(UnroutableError) as unroutable:
        confirming.basic_publish("", names.text(), b"x", BasicProperties(headers=headers), mandatory=True)

    assert unroutable.value.messages[0].properties.headers == {"CC": headers["CC"]}


def test_without_confirms_a_mandatory_message_comes_back_as_well(
    channel: BlockingChannel, names: Names
) -> None:
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda _channel, _method, _properties, body: returned.append(body))

    channel.basic_publish("", names.text(), b"nobody", mandatory=True)
    channel.basic_publish("", names.text(), b"not mandatory")
    sync(channel)
    channel.connection.process_data_events(0)

    assert returned == [b"nobody"]


def test_the_return_comes_before_the_confirm(peer: Peer, names: Names) -> None:
    peer.ask(1, CONFIRM_SELECT, b"\0", CONFIRM_SELECT_OK)

    peer.send_method(1, BASIC_PUBLISH, basic_publish("", names.text(), 1))
    peer.send_header(1, 2)
    peer.send_frame(BODY, 1, b"hi")

    assert peer.receive_content(BASIC_RETURN).body == b"hi"
    assert peer.receive_method().name == BASIC_ACK


def test_a_message_that_a_queue_takes_is_not_returned(confirming: BlockingChannel, queue: str) -> None:
    confirming.basic_publish("", queue, b"taken", mandatory=True)

    assert drain(confirming, queue) == [b"taken"]


def test_a_message_without_a_queue_is_dropped_silently(confirming: BlockingChannel, names: Names) -> None:
    confirming.basic_publish("", names.text(), b"dropped")


def test_immediate_is_not_implemented(peer: Peer, queue: str) -> None:
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", queue, 2))
    peer.send_header(1, 0)

    close = peer.receive_close()
    assert (close.channel, close.reply_code, close.reply_text) == (0, 540, "NOT_IMPLEMENTED - immediate=true")


def test_publishing_to_a_missing_exchange_closes_the_channel(channel: BlockingChannel, names: Names) -> None:
    missing = names.text()
    channel.basic_publish(missing, "k", b"x")

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        sync(channel)


def test_what_was_published_before_the_error_is_kept_and_what_follows_is_not(
    peer: Peer, channel: BlockingChannel, queue: str, names: Names
) -> None:
    peer.publish(queue, b"before")
    peer.publish("k", b"wrong", exchange=names.text())
    peer.publish(queue, b"behind")
    peer.receive_close()

    assert drain(channel, queue) == [b"before"]


def test_after_a_channel_error_the_connection_goes_on(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    with channel_closed(404):
        channel.queue_declare(queue + ".missing", passive=True)

    again = connection.channel()
    again.basic_publish("", queue, b"still here")
    assert drain(again, queue) == [b"still here"]


def test_an_own_user_id_is_delivered(broker: Broker, channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"x", BasicProperties(user_id=broker.user))

    assert get(channel, queue).properties.user_id == broker.user


def test_a_foreign_user_id_is_refused(broker: Broker, confirming: BlockingChannel, queue: str) -> None:
    with channel_closed(
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' "
        f"but authenticated user was '{broker.user}'",
    ):
        confirming.basic_publish("", queue, b"x", BasicProperties(user_id="somebody"))


@pytest.mark.parametrize("expiration", ["60000", "+60000", "0060000", "315360000000"])
def test_an_expiration_is_delivered_as_it_was_written(
    channel: BlockingChannel, queue: str, expiration: str
) -> None:
    channel.basic_publish("", queue, b"x", BasicProperties(expiration=expiration))

    assert get(channel, queue).properties.expiration == expiration


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("10x", '{leftover_string,"x"}'),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_an_invalid_expiration_is_refused(
    confirming: BlockingChannel, queue: str, expiration: str, reason: str
) -> None:
    with channel_closed(406, f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"):
        confirming.basic_publish("", queue, b"x", BasicProperties(expiration=expiration))


def test_prefetch_size_is_not_implemented(channel: BlockingChannel) -> None:
    with connection_closed(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)"):
        channel.basic_qos(prefetch_size=1)
