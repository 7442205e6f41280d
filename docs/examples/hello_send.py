"""Send one message to the queue "tutorial.hello" and leave."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Send the words of the command line, or a greeting."""
    text = " ".join(sys.argv[1:]) or "Hello!"
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare("tutorial.hello", durable=True)
        channel.basic_publish("", "tutorial.hello", text.encode(), pika.BasicProperties(delivery_mode=2))
    print(f"sent: {text}")


if __name__ == "__main__":
    main()
