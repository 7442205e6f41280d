"""Ask for the prime factors of some numbers: `factor_client.py 91 97 360`."""

import os
import sys
import uuid

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Send all requests at once and print the answers as they come."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        asked: dict[str, str] = {}  # correlation id -> number

        def show(
            channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
        ) -> None:
            print(f"{asked.pop(properties.correlation_id)} = {body.decode()}")
            if not asked:
                channel.stop_consuming()

        channel.queue_declare("tutorial.factors", durable=True)
        channel.basic_consume("amq.rabbitmq.reply-to", show, auto_ack=True)  # first, then ask
        for number in sys.argv[1:] or ["91"]:
            mark = str(uuid.uuid4())
            asked[mark] = number
            request = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=mark)
            channel.basic_publish("", "tutorial.factors", number.encode(), request)
        channel.start_consuming()


if __name__ == "__main__":
    main()
