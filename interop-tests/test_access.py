"""Users, permissions, vhosts, policies and limits, set up with rabbitmqctl's verbs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pika
import pytest
from blocking import drain
from brokers import Broker, Names
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

if TYPE_CHECKING:
    from conftest import Ctl


@contextlib.contextmanager
def login(broker: Broker, user: str, password: str, vhost: str = "/") -> Iterator[BlockingChannel]:
    """Connect as a user, and open a channel."""
    parameters = broker.with_login(user, password).pika_parameters(virtual_host=vhost)
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


@contextlib.contextmanager
def refused(code: int) -> Iterator[pytest.ExceptionInfo[ChannelClosedByBroker]]:
    """Expect that the broker closes the channel; the words are the test's to check."""
    with pytest.raises(ChannelClosedByBroker) as closed:
        yield closed
    assert closed.value.reply_code == code


def verbless(text: str) -> str:
    """Return a refusal as 3.10 words it: 4.x says which permission is missing."""
    for verb in ("configure", "write", "read"):
        text = text.replace(f"ACCESS_REFUSED - {verb} access", "ACCESS_REFUSED - access")
    return text


def test_a_user_may_do_what_its_permissions_say(broker: Broker, ctl: Ctl, names: Names) -> None:
    mine, theirs = names.queue(), names.queue()
    name, password = ctl.add_user(f"^{mine}$", r"^amq\.default$", f"^{mine}$")
    with login(broker, name, password) as channel:
        channel.queue_declare(mine)
        channel.basic_publish("", mine, b"a")
        assert drain(channel, mine) == [b"a"]
        with refused(403) as closed:
            channel.queue_declare(theirs)
    text = f"ACCESS_REFUSED - access to queue '{theirs}' in vhost '/' refused for user '{name}'"
    assert verbless(closed.value.reply_text) == text


@pytest.mark.parametrize("exists", [True, False])
def test_permission_is_looked_at_before_existence(
    broker: Broker, ctl: Ctl, names: Names, channel: BlockingChannel, exists: bool
) -> None:
    name, password = ctl.add_user()
    queue = names.queue()
    if exists:
        channel.queue_declare(queue)
    with login(broker, name, password) as limited, refused(403):
        limited.queue_purge(queue)


def test_binding_needs_write_on_the_queue_and_read_on_the_exchange(
    broker: Broker, ctl: Ctl, queue: str
) -> None:
    for write, read, what in ((".*", "^$", "exchange 'amq.topic'"), ("^$", ".*", f"queue '{queue}'")):
        name, password = ctl.add_user("", write, read)
        with login(broker, name, password) as channel, refused(403) as closed:
            channel.queue_bind(queue, "amq.topic", "k")
        assert f"access to {what} in vhost '/' refused for user '{name}'" in closed.value.reply_text


def test_publishing_needs_write_on_the_exchange(broker: Broker, ctl: Ctl) -> None:
    name, password = ctl.add_user("", "^$", ".*")
    with login(broker, name, password) as channel, refused(403) as closed:
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "k", b"")
    assert "access to exchange 'amq.topic' in vhost '/' refused" in closed.value.reply_text


def test_a_dead_letter_exchange_needs_permissions(broker: Broker, ctl: Ctl, names: Names) -> None:
    name, password = ctl.add_user(".*", "^$", ".*")
    with login(broker, name, password) as channel, refused(403) as closed:
        channel.queue_declare(names.queue(), arguments={"x-dead-letter-exchange": "amq.fanout"})
    assert "access to exchange 'amq.fanout' in vhost '/' refused" in closed.value.reply_text


def test_routing_keys_of_a_topic_exchange_can_be_restricted(broker: Broker, ctl: Ctl, queue: str) -> None:
    name, password = ctl.add_user(".*", ".*", ".*")
    ctl.ok("set_topic_permissions", name, "amq.topic", "^{username}-", "^ok")
    with login(broker, name, password) as channel:
        channel.queue_bind(queue, "amq.topic", "ok.#")
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", f"{name}-x", b"")
        with refused(403) as closed:
            channel.basic_publish("amq.topic", "bad.key", b"")
    assert verbless(closed.value.reply_text) == (
        "ACCESS_REFUSED - access to topic 'bad.key' in exchange 'amq.topic' in vhost '/' refused for user"
        f" '{name}'"
    )
    with login(broker, name, password) as channel, refused(403) as closed:
        channel.queue_bind(queue, "amq.topic", "a.#")
    assert "access to topic 'a.#' in exchange 'amq.topic'" in closed.value.reply_text


def test_a_user_without_permissions_cannot_open_the_vhost(broker: Broker, ctl: Ctl) -> None:
    name, password = ctl.add_user()
    ctl.ok("clear_permissions", name)
    with pytest.raises(ProbableAccessDeniedError, match=f"access to vhost '/' refused for user '{name}'"):
        login(broker, name, password).__enter__()


def test_passwords_are_changed_and_cleared(broker: Broker, ctl: Ctl) -> None:
    name, _ = ctl.add_user()
    ctl.ok("change_password", name, "new")
    with login(broker, name, "new"):
        pass
    ctl.ok("clear_password", name)
    with pytest.raises(ProbableAuthenticationError):
        login(broker, name, "new").__enter__()


def test_the_connections_of_a_deleted_vhost_are_closed(broker: Broker, ctl: Ctl) -> None:
    vhost = ctl.add_vhost()
    with login(broker, "guest", "guest", vhost) as channel:
        channel.queue_declare("q", durable=True)
        ctl.ok("delete_vhost", vhost)
        with pytest.raises(ConnectionClosedByBroker) as closed:
            channel.connection.process_data_events(5)
    assert closed.value.reply_code == 320
    assert closed.value.reply_text in (
        f"CONNECTION_FORCED - vhost '{vhost}' is deleted",
        f"CONNECTION_FORCED - vhost '{vhost}' is down",  # RabbitMQ, if its queues stop first
    )


def test_a_policy_holds_for_queues_that_are_there(ctl: Ctl, channel: BlockingChannel, queue: str) -> None:
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", queue, body)
    policy = Names.text("it.p")
    ctl.later("clear_policy", policy)
    ctl.ok("set_policy", policy, f"^{queue}$", '{"max-length":2}', "--apply-to", "queues")
    channel.basic_publish("", queue, b"d")
    assert drain(channel, queue) == [b"c", b"d"]


def test_an_operator_policy_limits_a_policy(ctl: Ctl, channel: BlockingChannel, queue: str) -> None:
    name = Names.text("it.p")
    for kind, limit in (("policy", 3), ("operator_policy", 1)):
        ctl.later(f"clear_{kind}", name)
        ctl.ok(f"set_{kind}", name, f"^{queue}$", f'{{"max-length":{limit}}}', "--apply-to", "queues")
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", queue, body)
    assert drain(channel, queue) == [b"c"]


def test_limits_of_a_vhost(broker: Broker, ctl: Ctl) -> None:
    vhost = ctl.add_vhost()
    ctl.ok("set_vhost_limits", "-p", vhost, '{"max-queues":0,"max-connections":1}')
    with login(broker, "guest", "guest", vhost) as channel:
        with pytest.raises(ProbableAccessDeniedError) as denied:
            login(broker, "guest", "guest", vhost).__enter__()
        text = f"access to vhost '{vhost}' refused for user 'guest': connection limit (1) is reached"
        assert text in str(denied.value)
        with refused(406) as closed:
            channel.queue_declare("limq")
    assert closed.value.reply_text == (
        f"PRECONDITION_FAILED - cannot declare queue 'limq': queue limit in vhost '{vhost}' (0) is reached"
    )


def test_limits_of_a_user(broker: Broker, ctl: Ctl) -> None:
    name, password = ctl.add_user()
    ctl.ok("set_user_limits", name, '{"max-connections":1,"max-channels":1}')
    with login(broker, name, password) as channel:
        with pytest.raises(ProbableAccessDeniedError) as denied:
            login(broker, name, password).__enter__()
        text = f"connection refused for user '{name}': user connection limit (1) is reached"
        assert text in str(denied.value)
        with pytest.raises(ConnectionClosedByBroker) as closed:
            channel.connection.channel()
    assert closed.value.reply_text == (
        f"NOT_ALLOWED - number of channels opened for user '{name}' has reached the maximum allowed user"
        " limit of (1)"
    )


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (["delete_user", "it.nobody"], 67, 'Error:\nUser "it.nobody" does not exist\n'),
        (["add_user", "guest", "x"], 70, 'Error:\nUser "guest" already exists\n'),
        (["set_permissions", "it.nobody", "", "", ""], 67, "Error:\nUser it.nobody does not exist\n"),
        (["delete_vhost", "it.none"], 65, "Virtual host 'it.none' does not exist\n"),
        (["clear_policy", "it.none"], 69, "Error:\nParameter does not exist\n"),
        (["delete_queue", "it.none"], 64, "Error:\nQueue not found\n"),
        (
            ["set_policy", "it.p", "^it", '{"max-length":-1}'], 69,
            "Error:\nValidation failed\n\n-1 is not a valid maximum length\n\n",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_the_same_words(
    ctl: Ctl, line: list[str], code: int, text: str
) -> None:
    assert ctl.run("-q", *line)[::2] == (code, text)


def test_lists_are_tables_with_tabs(ctl: Ctl, channel: BlockingChannel) -> None:
    vhost = ctl.add_vhost()
    assert ctl.run("list_permissions", "-p", vhost)[1] == (
        f'Listing permissions for vhost "{vhost}" ...\nuser\tconfigure\twrite\tread\nguest\t.*\t.*\t.*\n'
    )
    assert ctl.ok("list_permissions", "-p", vhost, "--formatter", "json") == (
        '[\n{"user":"guest","configure":".*","write":".*","read":".*"}\n]\n'
    )
