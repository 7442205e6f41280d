"""Conversations frame by frame, with what RabbitMQ answers: the language, the player, and the recorder.

The cases are in `cases/`; README.md beside this package's folder tells how to write one.
"""
