"""Brokers for the pages whose examples need a running one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel

STOP_S = 20


@contextmanager
def running_broker(*options: str) -> Iterator[str]:
    """Run a broker in a process of its own, as a reader would, on a free port; its URL."""
    command = [sys.executable, "-m", "leveret", "serve", "--port", "0", "--log-level", "error", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(url[0] for line in process.stdout if (url := re.search(r"amqp://\S+", line)))
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)


@contextmanager
def open_channel(url: str) -> Iterator[BlockingChannel]:
    """Connect, and open a channel."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()
