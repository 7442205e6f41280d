"""Which class a queue is of, from what it was declared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.arguments import STREAM
from leveret.broker.model.deduplicating_queue import DeduplicatingQueue
from leveret.broker.model.deduplication import window_of_queue
from leveret.broker.model.queue import Queue
from leveret.broker.model.stream import Stream

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.turn import Turn


def make_queue(
    turn: Turn,
    vhost_name: str,
    name: str,
    queue_id: int,
    durable: bool,
    owner: Connection | None,
    auto_delete: bool,
    arguments: QueueArguments,
) -> Queue:
    """Make a queue that has nothing in it yet.

    Args:
        turn: what the current turn gathers.
        vhost_name: where it lives.
        name: unique there.
        queue_id: of its own; see `QueueIds`.
        durable: survives a restart.
        owner: the connection it is exclusive to.
        auto_delete: deleted when its last consumer goes.
        arguments: of its declaration, under the policies that match.
    """
    if arguments.queue_type == STREAM:
        return Stream(turn, vhost_name, name, queue_id, arguments)
    window = window_of_queue(arguments.table)
    if window is not None:
        return DeduplicatingQueue(
            turn, vhost_name, name, queue_id, durable, owner, auto_delete, arguments, window
        )
    return Queue(turn, vhost_name, name, queue_id, durable, owner, auto_delete, arguments)
