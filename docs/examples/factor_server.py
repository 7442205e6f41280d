"""Answer requests: the prime factors of a number."""

import os

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a number, smallest first."""
    factors, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return [*factors, number] if number > 1 else factors


def answer(
    channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
) -> None:
    """Send the answer where the request wants it, with the mark of the request."""
    print(f"asked for the factors of {body.decode()}", flush=True)
    factors = " x ".join(str(factor) for factor in prime_factors(int(body)))
    reply = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, factors.encode(), reply)
    channel.basic_ack(method.delivery_tag)


def main() -> None:
    """Serve until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.queue_declare("tutorial.factors", durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("tutorial.factors", answer)
        print("waiting for requests, Ctrl-C ends", flush=True)
        try:
            channel.start_consuming()
        except KeyboardInterrupt:
            channel.stop_consuming()


if __name__ == "__main__":
    main()
