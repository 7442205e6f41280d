"""Announce something to everybody who listens at this moment."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Publish the words of the command line to a fanout exchange."""
    text = " ".join(sys.argv[1:]) or "nothing new"
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare("tutorial.news", "fanout")
        channel.basic_publish("tutorial.news", "", text.encode())
    print(f"announced: {text}")


if __name__ == "__main__":
    main()
