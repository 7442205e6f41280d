"""Raise an alert of some severity: `alerts_raise.py error the disk is full`."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Publish to a direct exchange; the severity is the routing key."""
    severity = sys.argv[1] if len(sys.argv) > 1 else "info"
    text = " ".join(sys.argv[2:]) or "all is well"
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare("tutorial.alerts", "direct")
        channel.basic_publish("tutorial.alerts", severity, text.encode())
    print(f"raised: {severity}: {text}")


if __name__ == "__main__":
    main()
