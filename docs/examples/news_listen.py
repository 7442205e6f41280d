"""Listen to announcements with a queue of one's own."""

import os

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def show(
    channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
) -> None:
    """Print one announcement."""
    print(f"news: {body.decode()}", flush=True)


def main() -> None:
    """Listen until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare("tutorial.news", "fanout")
        queue = channel.queue_declare("", exclusive=True).method.queue  # the broker thinks of a name
        channel.queue_bind(queue, "tutorial.news")
        channel.basic_consume(queue, show, auto_ack=True)
        print("waiting for news, Ctrl-C ends", flush=True)
        try:
            channel.start_consuming()
        except KeyboardInterrupt:
            channel.stop_consuming()


if __name__ == "__main__":
    main()
