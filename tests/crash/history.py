"""What happened in a crash test, as one line of JSON for each event.

A history is append-only. Clients write an event *before* they do something (an invocation: publish, settle,
commit) and *after* they have seen an answer (an observation: confirm, deliver, committed), so that for any
two events of which one caused the other, the cause stands first. All events of a run carry seconds of one
monotonic clock, `t`.

Channels
    An AMQP channel has a name that is never used twice, such as `publisher-1/4` for the fourth connection of
    that publisher. A message is named by the channel that published it and `n`, its publishing sequence
    number there, which is also the delivery tag of its confirm.

Events
    setup     seed, queues {queue: its dead letter queue or null}      first, once
    kill      the broker is about to be killed
    ready     a broker serves again
    publish   channel n exchange key queues body properties persistent mandatory
              `queues` are those that must get it, `body` a SHA-256, `properties` a CRC-32 of the raw property
              list
    returned  channel n                    basic.return
    confirm   channel tag multiple ack     basic.ack or (ack false) basic.nack to a publisher
    consume   channel queue                basic.consume is about to be sent
    deliver   channel tag queue of n exchange key body properties redelivered [dead_from]
              `of` and `n` name the message, null if it bears no name; dead_from is the newest entry of
              x-death
    settle    channel tag multiple how     how: ack, requeue, or drop (reject without requeue)
    transact  channel                      tx.select answered: settles wait for commit from now on
    commit    channel                      tx.commit is about to be sent
    committed channel                      tx.commit-ok
    closing   channel                      a consumer's channel.close is about to be sent; what still comes is
    not
              written down, because it may be with somebody else already
    closed    channel                      closed in order: the broker has answered the close
    lost      channel [own]                the connection is gone, or (own true) about to be cut by the client
    refused   channel text                 the broker closed the channel or connection, or broke the protocol
    change    phase op kind name [exchange queue target]
              phase: invoke, ok, unknown (the connection died first); op: declare, delete; kind: queue,
              exchange, binding (a bind is the declare of a binding, which names its exchange and queue), or
              stock (so many messages in a queue that nobody consumes; target is the number)
    observe   kind name found [text]       what a look at an object says: true, false, a stock's number of
              messages, or "different"
    drained   queue messages               the count at the end, nothing unacked
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Event = dict[str, Any]


class History:
    """Appends events to a sink with the time; safe to call from many threads."""

    def __init__(self, sink: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._now = now
        self._lock = threading.Lock()
        self._encode = json.JSONEncoder(separators=(",", ":")).encode
        self.count = 0

    def add(self, event: str, **fields: object) -> None:
        """Write one event. Its place in the file is its place in time."""
        with self._lock:
            record = {"t": round(self._now(), 6), "event": event, **fields}
            self._sink.write(self._encode(record) + "\n")
            self.count += 1


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a history file one by one."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
