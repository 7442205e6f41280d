"""Publish and know what became of each message: stored, without a queue, or refused."""

import os

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError, UnroutableError

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def publish(channel: BlockingChannel, queue: str, body: bytes) -> str:
    """Publish one message, wait for the broker's word on it, and say what it was."""
    try:
        channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
    except UnroutableError:
        return "no queue takes it"
    except NackError:
        return "the queue is full"
    return "safe on disk"


def main() -> None:
    """Publish three messages to a queue for two, and one to a queue that does not exist."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        two_at_most = {"x-max-length": 2, "x-overflow": "reject-publish"}
        channel.queue_declare("tutorial.confirmed", durable=True, arguments=two_at_most)
        channel.queue_purge("tutorial.confirmed")
        for body in (b"first", b"second", b"third"):
            print(f"{body.decode()}: {publish(channel, 'tutorial.confirmed', body)}")
        print(f"fourth: {publish(channel, 'tutorial.missing', b'fourth')}")


if __name__ == "__main__":
    main()
