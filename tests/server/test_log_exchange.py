"""With `log.exchange` lines of the log are messages of amq.rabbitmq.log; properties are RabbitMQ 3.10's."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from leveret.broker.logs import Copy, configure, get_logger
from leveret.broker.model.own_messages import OwnMessage
from leveret.broker.model.turn import OWN_MESSAGES_MAX
from leveret.broker.server.log_exchange import LogExchange
from leveret.protocol.properties import NO_PROPERTIES, Properties, replace
from leveret.protocol.tables import from_python

from .harness import START_MS, Broker, ChannelOfTest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Logged:
    """A broker whose log goes to the exchange from a level on, and a queue of lines."""

    def __init__(self, level: str = "info", shown: str = "info", log_format: str = "console") -> None:
        self.broker = Broker(log_exchange=True, log_format=log_format)
        self.channel: ChannelOfTest = self.broker.channel()
        self.channel.declare("lines")
        self.channel.bind("lines", "amq.rabbitmq.log", "#")
        self.wakes = 0
        self.exchange = LogExchange(self.broker.node, self._wake)
        self.stream = io.StringIO()
        configure(log_format, shown, self.stream, Copy(self.exchange.take, level))

    def _wake(self) -> None:
        self.wakes += 1

    def lines(self) -> list[str]:
        """Take the lines, but for their time."""
        self.broker.run()
        return [body.decode().partition("[")[2] for body in self.channel.drain("lines")]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    configure("console", "info")


def test_there_is_no_such_exchange_unless_it_is_asked_for() -> None:
    assert "amq.rabbitmq.log" not in Broker().node.vhosts["/"].exchanges


def test_the_exchange_is_durable_and_internal() -> None:
    exchange = Broker(log_exchange=True).node.vhosts["/"].exchanges["amq.rabbitmq.log"]
    assert (exchange.type_name, exchange.durable, exchange.internal) == ("topic", True, True)


def test_a_line_is_a_message_whose_routing_key_is_its_level() -> None:
    logged = Logged()
    get_logger().warning("too hot", degrees=90)
    logged.broker.run()
    message = logged.channel.get("lines")
    assert message is not None
    assert isinstance(message.method, commands.Basic.GetOk)
    assert message.method.routing_key == "warning"
    assert message.body.endswith(b"+00:00 [warning] too hot  degrees=90\n")
    assert message.properties == replace(
        content_type="text/plain",
        headers={"node": from_python(logged.broker.node.name)},
        timestamp=START_MS // 1000,
    )


def test_lines_as_json_say_so() -> None:
    logged = Logged(log_format="json")
    get_logger().info("hello", who="you")
    logged.broker.run()
    message = logged.channel.get("lines")
    assert message is not None
    assert Properties.parse(message.properties).content_type == b"application/json"
    assert json.loads(message.body)["who"] == "you"


def test_levels_of_the_exchange_and_of_the_output_are_independent() -> None:
    logged = Logged(level="debug", shown="warning")
    get_logger().debug("detail")
    get_logger().warning("alarm")
    assert logged.lines() == ["debug] detail\n", "warning] alarm\n"]
    assert "detail" not in logged.stream.getvalue()
    assert "alarm" in logged.stream.getvalue()
    quiet = Logged(level="error", shown="info")
    get_logger().info("hello")
    assert quiet.lines() == []
    assert "hello" in quiet.stream.getvalue()


def test_the_loop_is_woken_for_a_line_from_another_thread() -> None:
    logged = Logged()
    thread = threading.Thread(target=lambda: get_logger().info("from elsewhere"))
    thread.start()
    thread.join()
    assert logged.wakes == 1
    assert logged.lines() == ["info] from elsewhere\n"]


def test_nobody_is_woken_while_nothing_is_bound() -> None:
    logged = Logged()
    logged.channel.delete("lines")
    get_logger().info("hello")
    assert logged.wakes == 0
    assert not logged.broker.node.turn.own_messages


def test_lines_about_publishing_lines_come_to_an_end() -> None:
    logged = Logged()
    waiting = logged.broker.node.turn.own_messages
    nowhere = OwnMessage("no vhost", "e", "k", NO_PROPERTIES, b"")
    waiting.extend([nowhere] * (OWN_MESSAGES_MAX - 1))
    get_logger().info("first")
    get_logger().info("second")
    told = "warning] copies, events or lines of the log dropped  count=1\n"
    assert logged.lines() == ["info] first\n", told]
    assert not waiting


def test_nothing_is_taken_after_the_end() -> None:
    logged = Logged()
    logged.exchange.stop()
    get_logger().info("stopped")
    assert logged.lines() == []
