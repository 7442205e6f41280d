"""tx.select, commit and rollback."""

from __future__ import annotations

import pytest
from blocking import channel_closed, drain, get, ready, sync, wait_until_ready
from brokers import Names
from pika.adapters.blocking_connection import BlockingChannel
from wire import (
    BASIC_PUBLISH,
    BASIC_RETURN,
    TX_COMMIT,
    TX_COMMIT_OK,
    TX_SELECT,
    TX_SELECT_OK,
    Peer,
    basic_publish,
)


@pytest.fixture
def transactional(channel: BlockingChannel) -> BlockingChannel:
    """A channel in transaction mode."""
    channel.tx_select()
    return channel


def test_a_publish_is_visible_only_after_commit(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    transactional.basic_publish("", queue, b"x")
    sync(transactional)
    before = ready(other_channel, queue)
    transactional.tx_commit()

    assert (before, ready(other_channel, queue)) == (0, 1)


def test_a_rolled_back_publish_never_happened(transactional: BlockingChannel, queue: str) -> None:
    transactional.basic_publish("", queue, b"discarded")
    transactional.tx_rollback()
    transactional.basic_publish("", queue, b"kept")
    transactional.tx_commit()

    assert drain(transactional, queue) == [b"kept"]


def test_publishes_keep_their_order(transactional: BlockingChannel, queue: str) -> None:
    bodies = [b"%d" % number for number in range(20)]
    for body in bodies:
        transactional.basic_publish("", queue, body)
    transactional.tx_commit()

    assert drain(transactional, queue) == bodies


def test_an_ack_counts_only_after_commit(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    transactional.basic_publish("", queue, b"x")
    transactional.tx_commit()
    transactional.basic_ack(get(transactional, queue, auto_ack=False).method.delivery_tag)
    transactional.close()

    assert drain(other_channel, queue) == [b"x"]


def test_a_committed_ack_is_final(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    transactional.basic_publish("", queue, b"x")
    transactional.tx_commit()
    transactional.basic_ack(get(transactional, queue, auto_ack=False).method.delivery_tag)
    transactional.tx_commit()
    transactional.close()

    assert drain(other_channel, queue) == []


def test_a_rolled_back_ack_can_be_given_again(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    other_channel.basic_publish("", queue, b"x")
    sync(other_channel)
    tag = get(transactional, queue, auto_ack=False).method.delivery_tag
    transactional.basic_ack(tag)
    transactional.tx_rollback()
    still_out = ready(other_channel, queue)
    transactional.basic_ack(tag)
    transactional.tx_commit()
    transactional.close()

    assert (still_out, drain(other_channel, queue)) == (0, [])


def test_an_ack_cannot_be_given_twice_in_a_transaction(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    other_channel.basic_publish("", queue, b"x")
    sync(other_channel)
    tag = get(transactional, queue, auto_ack=False).method.delivery_tag
    transactional.basic_ack(tag)
    transactional.basic_ack(tag)

    with channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1"):
        sync(transactional)


def test_a_reject_is_part_of_the_transaction(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    other_channel.basic_publish("", queue, b"x")
    sync(other_channel)
    transactional.basic_reject(get(transactional, queue, auto_ack=False).method.delivery_tag, requeue=True)
    sync(transactional)
    assert ready(other_channel, queue) == 0

    transactional.tx_commit()

    wait_until_ready(other_channel, queue, 1)


def test_closing_the_channel_rolls_back(
    transactional: BlockingChannel, other_channel: BlockingChannel, queue: str
) -> None:
    transactional.basic_publish("", queue, b"x")
    transactional.close()

    assert drain(other_channel, queue) == []


def test_a_publish_to_a_missing_exchange_fails_at_once(transactional: BlockingChannel, names: Names) -> None:
    missing = names.text()
    transactional.basic_publish(missing, "k", b"x")

    with channel_closed(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"):
        sync(transactional)


def test_a_mandatory_message_is_returned_at_commit_before_the_answer(peer: Peer, names: Names) -> None:
    peer.ask(1, TX_SELECT, b"", TX_SELECT_OK)
    peer.send_method(1, BASIC_PUBLISH, basic_publish("", names.text(), 1))
    peer.send_header(1, 0)
    peer.send_method(1, TX_COMMIT)

    peer.receive_content(BASIC_RETURN)
    peer.receive_method(TX_COMMIT_OK)


@pytest.mark.parametrize("action", ["commit", "rollback"])
def test_without_select_there_is_nothing_to_end(channel: BlockingChannel, action: str) -> None:
    actions = {"commit": channel.tx_commit, "rollback": channel.tx_rollback}
    channel._tx = True

    with channel_closed(406, "PRECONDITION_FAILED - channel is not transactional"):
        actions[action]()


def test_selecting_twice_is_fine(transactional: BlockingChannel) -> None:
    transactional.tx_select()


def test_a_commit_that_a_full_queue_refuses_fails(transactional: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    transactional.queue_declare(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    transactional.basic_publish("", queue, b"1")
    transactional.basic_publish("", queue, b"2")

    with channel_closed(406, "PRECONDITION_FAILED - partial tx completion"):
        transactional.tx_commit()
