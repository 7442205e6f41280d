"""The AMQP model, pure and synchronous: it decides and appends changes; the server acts."""
