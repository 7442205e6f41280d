"""Queues: what waits in them, who gets it, and what becomes of what is let go."""
