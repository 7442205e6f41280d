"""The broker: the AMQP model, a handler for each method, and the server around them."""
