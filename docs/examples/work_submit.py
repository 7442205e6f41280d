"""Put jobs into a queue that several workers share: `work_submit.py 2 5 1` makes three jobs."""

import os
import sys

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def main() -> None:
    """Make a job of each argument; it says how many seconds the job takes."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare("tutorial.jobs", durable=True)
        for seconds in sys.argv[1:] or ["1"]:
            channel.basic_publish(
                "",
                "tutorial.jobs",
                seconds.encode(),
                pika.BasicProperties(delivery_mode=2),  # keep it on disk
            )
            print(f"submitted: a job of {seconds} s")


if __name__ == "__main__":
    main()
