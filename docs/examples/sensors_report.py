"""Report a measurement under a topic: `sensors_report.py berlin.cellar.humidity 81`."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Publish to a topic exchange; the key has the words city, room and kind."""
    topic = sys.argv[1] if len(sys.argv) > 1 else "berlin.cellar.temperature"
    value = sys.argv[2] if len(sys.argv) > 2 else "12"
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare("tutorial.sensors", "topic")
        channel.basic_publish("tutorial.sensors", topic, value.encode())
    print(f"reported: {topic} = {value}")


if __name__ == "__main__":
    main()
