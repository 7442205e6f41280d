"""AMQP 0-9-1 with RabbitMQ's extensions, on bytes: no sockets, no clock, no broker."""
