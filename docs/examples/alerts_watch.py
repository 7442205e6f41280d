"""Watch alerts of the severities named: `alerts_watch.py warning error`."""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def show(
    channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
) -> None:
    """Print one alert."""
    print(f"{method.routing_key}: {body.decode()}", flush=True)


def main() -> None:
    """Bind a queue of one's own once for each severity, and watch until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.exchange_declare("tutorial.alerts", "direct")
        queue = channel.queue_declare("", exclusive=True).method.queue
        for severity in sys.argv[1:] or ["info", "warning", "error"]:
            channel.queue_bind(queue, "tutorial.alerts", severity)
        channel.basic_consume(queue, show, auto_ack=True)
        print("waiting for alerts, Ctrl-C ends", flush=True)
        try:
            channel.start_consuming()
        except KeyboardInterrupt:
            channel.stop_consuming()


if __name__ == "__main__":
    main()
