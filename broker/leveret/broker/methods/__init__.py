"""One handler per AMQP method. `HANDLERS` shows what is supported on an open channel.

A handler resolves, checks, acts on the model and replies. Failure is an exception; the session makes a close
of it. Publishes and settlements come as events of their own (`basic_publish`, `basic_settle`); channel.open,
channel.close and the methods of class connection change the session and are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from leveret.broker.methods.basic import (
    basic_cancel,
    basic_cancel_ok,
    basic_consume,
    basic_get,
    basic_qos,
    basic_recover,
    basic_recover_async,
)
from leveret.broker.methods.channel import access_request, channel_flow
from leveret.broker.methods.confirm import confirm_select
from leveret.broker.methods.exchange import exchange_bind, exchange_declare, exchange_delete, exchange_unbind
from leveret.broker.methods.queue import queue_bind, queue_declare, queue_delete, queue_purge, queue_unbind
from leveret.broker.methods.tx import tx_commit, tx_rollback, tx_select
from leveret.broker.model.channel import Channel
from leveret.protocol.methods import Access

if TYPE_CHECKING:
    from pamqp.base import Frame

# Each handler takes the method class that it stands behind here.
Handler = Callable[[Channel, Any], None]

HANDLERS: Final[dict[type[Frame], Handler]] = {
    Access.Request: access_request,
    commands.Basic.Cancel: basic_cancel,
    commands.Basic.CancelOk: basic_cancel_ok,
    commands.Basic.Consume: basic_consume,
    commands.Basic.Get: basic_get,
    commands.Basic.Qos: basic_qos,
    commands.Basic.Recover: basic_recover,
    commands.Basic.RecoverAsync: basic_recover_async,
    commands.Channel.Flow: channel_flow,
    commands.Confirm.Select: confirm_select,
    commands.Exchange.Bind: exchange_bind,
    commands.Exchange.Declare: exchange_declare,
    commands.Exchange.Delete: exchange_delete,
    commands.Exchange.Unbind: exchange_unbind,
    commands.Queue.Bind: queue_bind,
    commands.Queue.Declare: queue_declare,
    commands.Queue.Delete: queue_delete,
    commands.Queue.Purge: queue_purge,
    commands.Queue.Unbind: queue_unbind,
    commands.Tx.Commit: tx_commit,
    commands.Tx.Rollback: tx_rollback,
    commands.Tx.Select: tx_select,
}
