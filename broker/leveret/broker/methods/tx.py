"""tx.select, commit and rollback."""

from __future__ import annotations

from pamqp import commands

from leveret.broker.methods.basic import enqueue
from leveret.broker.model.channel import Channel, Transaction
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.methods import make


def tx_select(channel: Channel, _method: commands.Tx.Select) -> None:
    """Hold publishes, acks and rejects until they are committed.

    Raises:
        PreconditionFailed: the channel is in confirm mode.

    Source: AMQP 0-9-1 tx.select (90, 10).
    """
    if channel.confirms:
        raise PreconditionFailed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    channel.send(make(commands.Tx.SelectOk))


def tx_commit(channel: Channel, _method: commands.Tx.Commit) -> None:
    """Do what was held, publishes first; all of it becomes durable as one batch, before commit-ok.

    Raises:
        PreconditionFailed: the channel is not transactional, or a queue refused a message.

    Source: AMQP 0-9-1 tx.commit (90, 20). RabbitMQ is atomic within one queue only.
    """
    transaction = _transaction(channel)
    channel.transaction = Transaction()
    accepted = True
    for publish in transaction.publishes:
        publish.queues = [queue for queue in publish.queues if not queue.is_deleted]
        if not enqueue(channel, publish):
            accepted = False
    for settlement in transaction.settlements:
        channel.settle(settlement)
    if not accepted:
        raise PreconditionFailed("partial tx completion")
    channel.connection.send_when_durable(
        channel.number, make(commands.Tx.CommitOk), channel.turn.batch.number if channel.turn.batch else 0
    )


def tx_rollback(channel: Channel, _method: commands.Tx.Rollback) -> None:
    """Forget the publishes; what was acked or rejected is outstanding again.

    Raises:
        PreconditionFailed: the channel is not transactional.

    Source: AMQP 0-9-1 tx.rollback (90, 30).
    """
    transaction = _transaction(channel)
    channel.transaction = Transaction()
    channel.give_back(transaction.settlements)
    channel.send(make(commands.Tx.RollbackOk))


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    return channel.transaction
