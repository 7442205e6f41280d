"""Print every message that comes to the queue "tutorial.hello"."""

import os

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def show(
    channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
) -> None:
    """Print one message."""
    print(f"received: {body.decode()}", flush=True)


def main() -> None:
    """Receive until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare("tutorial.hello", durable=True)
        channel.basic_consume("tutorial.hello", show, auto_ack=True)
        print("waiting for messages, Ctrl-C ends", flush=True)
        try:
            channel.start_consuming()
        except KeyboardInterrupt:
            channel.stop_consuming()


if __name__ == "__main__":
    main()
