"""Which class a queue is of, from what it was declared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.arguments import QUORUM, STREAM
from leveret.broker.model.deduplication import window_of_queue
from leveret.broker.model.queues.deduplicating_queue import DeduplicatingQueue
from leveret.broker.model.queues.priorities import PriorityBacklog
from leveret.broker.model.queues.queue import Queue
from leveret.broker.model.streams.stream import Stream

if TYPE_CHECKING:
    from leveret.broker.model.arguments import QueueArguments
    from leveret.broker.model.connection import Connection
    from leveret.broker.model.queues.queue_ids import QueueIds
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
    queue_ids: QueueIds,
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
        queue_ids: has promised as many more ids as the queue has priorities beside the lowest.
    """
    if arguments.queue_type == STREAM:
        return Stream(turn, vhost_name, name, queue_id, arguments)
    window = window_of_queue(arguments.table)
    if window is not None:
        queue: Queue = DeduplicatingQueue(
            turn, vhost_name, name, queue_id, durable, owner, auto_delete, arguments, window
        )
    else:
        queue = Queue(turn, vhost_name, name, queue_id, durable, owner, auto_delete, arguments)
    if arguments.max_priority is not None:
        is_timed = arguments.message_ttl_ms is not None
        queue.backlog = PriorityBacklog(
            queue, turn, queue_id, durable, is_timed, arguments.max_priority, queue_ids
        )
    if arguments.queue_type == QUORUM:
        queue.keeps_transient = True
        queue.backlog.keep_transient()
    return queue
