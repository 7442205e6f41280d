"""The command line tools of librabbitmq: amqp-publish, amqp-consume, amqp-get and those for queues."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest
from brokers import Broker, Connect, Names
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from waiting import PATIENCE_S

pytestmark = pytest.mark.skipif(not shutil.which("amqp-get"), reason="amqp-tools are not installed")
Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool(broker: Broker) -> Tool:
    """A function that runs a tool against the broker."""

    def run(name: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        after = arguments.index("--") if "--" in arguments else len(arguments)
        login = [f"--server={broker.host}", f"--port={broker.port}", f"--vhost={broker.vhost}"]
        login += [f"--username={broker.user}", f"--password={broker.password}"]
        command = [f"amqp-{name}", *arguments[:after], *login, *arguments[after:]]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    return run


def test_a_queue_is_declared_and_deleted(tool: Tool, names: Names, connect: Connect) -> None:
    name = names.queue()
    assert tool("declare-queue", "-d", "-q", name).stdout.strip() == name
    connect().channel().queue_declare(name, durable=True)
    assert tool("delete-queue", "-q", name).stdout.strip() == "0"
    with pytest.raises(ChannelClosedByBroker, match="404"):
        connect().channel().queue_declare(name, passive=True)


def test_the_server_names_a_queue(tool: Tool, names: Names) -> None:
    name = tool("declare-queue", "-q", "").stdout.strip()
    names.queue(name)
    assert name.startswith("amq.gen-")


def test_a_message_is_published_and_got(tool: Tool, queue: str) -> None:
    assert tool("publish", "-r", queue, "-b", "hello").returncode == 0
    assert tool("get", "-q", queue).stdout == "hello"


def test_nothing_is_got_from_an_empty_queue(tool: Tool, queue: str) -> None:
    assert tool("get", "-q", queue).returncode == 2


def test_properties_and_headers_arrive(tool: Tool, queue: str, channel: BlockingChannel) -> None:
    options = ["-p", "-C", "text/plain", "-E", "utf-8", "-t", "back", "-H", "colour: red", "-H", "size: 1"]
    assert tool("publish", "-r", queue, "-b", "x", *options).returncode == 0
    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert properties.delivery_mode == 2
    assert (properties.content_type, properties.content_encoding) == ("text/plain", "utf-8")
    assert properties.reply_to == "back"
    assert properties.headers == {"colour": "red", "size": "1"}


def test_each_line_becomes_a_message_and_is_consumed(tool: Tool, queue: str) -> None:
    assert tool("publish", "-l", "-r", queue, stdin="one\ntwo\nthree\n").returncode == 0
    assert tool("consume", "-q", queue, "-c", "3", "-p", "1", "--", "cat").stdout == "one\ntwo\nthree\n"


def test_a_large_message_goes_round(tool: Tool, queue: str) -> None:
    text = "the quick brown fox " * 20_000
    assert tool("publish", "-r", queue, stdin=text).returncode == 0
    assert tool("get", "-q", queue).stdout == text


def test_a_consumer_that_fails_gives_its_message_back(
    tool: Tool, queue: str, channel: BlockingChannel
) -> None:
    tool("publish", "-r", queue, "-b", "x")
    tool("consume", "-q", queue, "-c", "1", "--", "sh", "-c", "cat; exit 1")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (method.redelivered, body) == (True, b"x")


def test_a_consumer_without_acks_takes_all(tool: Tool, queue: str, channel: BlockingChannel) -> None:
    tool("publish", "-r", queue, "-b", "x")
    assert tool("consume", "-A", "-q", queue, "-c", "1", "--", "cat").stdout == "x"
    assert channel.basic_get(queue) == (None, None, None)


def test_a_queue_that_is_not_empty_is_kept_if_asked(tool: Tool, queue: str) -> None:
    tool("publish", "-r", queue, "-b", "x")
    kept = tool("delete-queue", "--if-empty", "-q", queue)
    assert kept.returncode != 0
    assert f"queue '{queue}' in vhost '/' not empty" in kept.stderr
    assert tool("delete-queue", "-q", queue).stdout.strip() == "1"


def test_an_unknown_queue_is_told(tool: Tool, names: Names) -> None:
    refused = tool("get", "-q", names.text("none"))
    assert refused.returncode != 0
    assert "404" in refused.stderr
    assert "NOT_FOUND - no queue" in refused.stderr


def test_a_wrong_password_is_told(broker: Broker, queue: str) -> None:
    command = [
        "amqp-get",
        "-q",
        queue,
        f"--server={broker.host}",
        f"--port={broker.port}",
        "--password=wrong",
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert refused.returncode != 0
    assert "ACCESS_REFUSED" in refused.stderr
