"""Exchanges: their types, their bindings, and how a message finds its queues."""
