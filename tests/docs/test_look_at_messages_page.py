"""The queries of the page on looking at messages run beside a broker, and find what it keeps."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import pytest

from .broker import open_channel, running_broker

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "look-at-messages.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^sqlite3 -readonly (?:-box )?leveret\.db \"(.*)\"$", PAGE, re.MULTILINE)
QUERIES += re.findall(r"^sqlite-utils query leveret\.db \"(.*)\" --", PAGE, re.MULTILINE)
QUERIES += re.findall(r"^watch .* leveret\.db '(.*)'\"$", PAGE, re.MULTILINE)
ORDERS = [("ann", 12.5), ("bob", 99.0), ("ann", 7.25), ("cy", 140.0)]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The data file of a running broker, with the orders that the page tells of."""
    path = tmp_path_factory.mktemp("data") / "leveret.db"
    with running_broker("--data", str(path)) as url:
        take_orders(url)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.create_function("writefile", 2, lambda _name, body: len(body))  # the command has it
            yield connection


def take_orders(url: str) -> None:
    """Publish four orders and reject the first."""
    with open_channel(url) as channel:
        channel.confirm_delivery()
        channel.exchange_declare("orders", "topic", durable=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders.failed"}
        channel.queue_declare("orders.new", durable=True, arguments=arguments)
        channel.queue_declare("orders.failed", durable=True)
        channel.queue_bind("orders.new", "orders", "order.#")
        for number, (customer, total) in enumerate(ORDERS):
            body = json.dumps({"id": 100 + number, "customer": customer, "total": total})
            properties = pika.BasicProperties(
                delivery_mode=2, expiration="3600000", message_id=f"m{number}", headers={"retries": number}
            )
            channel.basic_publish("orders", "order.eu", body.encode(), properties)
            if number == 0:
                channel.basic_get("orders.new")
                channel.basic_reject(1, requeue=False)


def test_the_page_has_queries() -> None:
    assert len(QUERIES) > 8


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_something(connection: sqlite3.Connection, query: str) -> None:
    rows = connection.execute(query).fetchall()
    assert rows
    assert None not in rows[0]


def test_the_page_shows_what_there_is(connection: sqlite3.Connection) -> None:
    shown = [re.findall(r"[^│ ]+", line) for line in PAGE.splitlines() if line.startswith("│ orders")]
    assert shown == [[str(cell) for cell in row] for row in connection.execute(QUERIES[0])]
