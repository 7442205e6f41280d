"""Starts an installed `leveret` and sends messages through it with pika, over a restart.

    python .ci/smoke.py path/to/leveret compiled|interpreted

Run it with a Python that has pika; the broker comes from its own environment.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pika

if TYPE_CHECKING:
    from collections.abc import Iterator

BODIES = [b"one", b"", b"x" * 300_000]


@contextmanager
def broker(command: str, data: Path) -> Iterator[str]:
    """Run the broker, yield its URL, and stop it with SIGTERM."""
    started = time.monotonic()
    process = subprocess.Popen(
        [command, "serve", "--port", "0", "--data", str(data)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url = ""
        for line in process.stdout:
            url = "".join(re.findall(r"amqp://\S+", line)) or url
            if "Server startup complete" in line:
                break
        else:
            raise SystemExit("the broker ended before it listened")
        print(f"listening after {time.monotonic() - started:.2f} s")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        code = process.returncode
    if code != 0:
        raise SystemExit(f"the broker ended with exit code {code}")


def main(command: str, way: str) -> None:
    """Publish, restart, consume."""
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    print(version, end="")
    if way not in version:
        raise SystemExit(f"expected {way} modules")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "leveret.db"
        with broker(command, data) as url, pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("smoke", durable=True)
            for body in BODIES:
                channel.basic_publish(
                    "", "smoke", body, pika.BasicProperties(delivery_mode=2), mandatory=True
                )
        with broker(command, data) as url, pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            got = []
            for method, _properties, body in channel.consume("smoke", inactivity_timeout=10):
                if method is None:
                    break
                channel.basic_ack(method.delivery_tag)
                got.append(body)
                if len(got) == len(BODIES):
                    break
    if got != BODIES:
        raise SystemExit(f"expected {len(BODIES)} messages in order, got {[len(body) for body in got]}")
    print(f"{len(got)} messages survived a restart")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
