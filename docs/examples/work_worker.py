"""Take one job after the other; start this several times to share the work."""

import os
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def work(
    channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
) -> None:
    """Do one job, and only then tell the broker that it is done."""
    again = " again" if method.redelivered else ""
    print(f"started{again}: a job of {body.decode()} s", flush=True)
    time.sleep(float(body))
    channel.basic_ack(method.delivery_tag)
    print(f"finished: a job of {body.decode()} s", flush=True)


def main() -> None:
    """Work until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare("tutorial.jobs", durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("tutorial.jobs", work)
        print("waiting for jobs, Ctrl-C ends", flush=True)
        try:
            channel.start_consuming()
        except KeyboardInterrupt:
            channel.stop_consuming()


if __name__ == "__main__":
    main()
