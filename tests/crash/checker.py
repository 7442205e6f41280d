"""Decides from a history whether the broker kept its promise.

The promise (docs/explanation/reliability.md), by the names that violations carry:

    P1  no loss              every confirmed persistent message comes out of every queue it was routed to
    P2  no invention         nothing is delivered that nobody sent there, and nothing is changed on the way
    P3  order                first deliveries come in publish order, for each queue and publishing channel
    P4  redelivered          false the first time, true once a client has seen the message
    P5  no return            a message whose settlement is durable never comes back
    P6  no phantom confirm   an ack only for a message in all matched queues; an answer for every publish
    P7  metadata             what was declared, bound or deleted with an -ok is so after every restart
    service                  the broker does not close connections or channels that behave

Theory of operation
-------------------
Events come in the order of their file and are read once. A published message has a *copy* for each queue that
must get it. A copy is WAITING (in the queue, as far as we know), HELD (delivered, not settled), then ACKED or
DROPPED (rejected without requeue; then a copy in the dead letter queue is expected). When the consumer's
channel ends, HELD copies are WAITING again. What is in doubt is kept in doubt, never guessed:

* **Settlements have no answer**, but what the broker makes durable it makes durable in order. One counts as
  durable when a message published `margin_s` later is confirmed (the margin is for sockets that are read in
  turn), or after `quiet_s` when nobody publishes, or at once when tx.commit-ok arrives. One that is younger
  when its channel is lost or the broker killed is *uncertain*: the copy may come back once. How many did, and
  how old the oldest was, is counted, and their number after one kill has a bound, `come_back`.
* **A delivery may have reached a connection that died with it unread**, so a first sighting may say
  redelivered=true if the copy was in the queue when a consumer of that queue ended or the broker was killed.
  The broker takes some time to notice a cut connection: `notice_s`. The other way round there is no doubt:
  what a client saw is never "first" again.
* **Order between two consumers cannot be seen**, because their sockets are read at different times. So order
  is decided within one consumer's channel, and against what was seen before that channel's basic.consume was
  sent. It starts anew with each life of the broker. Copies with redelivered=true count as first deliveries of
  this life only while no consumer of the queue has ended in it, because after that they may be somebody's
  leftovers. A channel that is alone on its queue, whose predecessor's end the broker surely knows, must see
  *all* copies in order until the first requeue: that is "a requeued message goes back to its place".
* **Metadata** is a set of possible states per object: an invocation adds its target, an -ok leaves only the
  target, a look at the object leaves only what was seen. Deleting a queue or an exchange takes its bindings
  along, and a queue's stock of messages.

A message of which every copy has durably ended and whose publish is answered is *retired*: its record is
thrown away and one byte remains, enough to recognise its return. Memory so grows with what is in flight or in
doubt, plus a byte for each message.
"""

from __future__ import annotations

import sys
from bisect import bisect
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .history import Event, read

if TYPE_CHECKING:
    from collections.abc import Iterable

WAITING: Final = 0
HELD: Final = 1
ACKED: Final = 2
DROPPED: Final = 3

OPEN: Final = 0
CONFIRMED: Final = 1
REFUSED: Final = 2
UNKNOWN: Final = 3


class HistoryError(Exception):
    """The history contradicts itself: the test programme is wrong, not the broker."""


@dataclass(frozen=True)
class Limits:
    """What the checker takes as the bounds of the promise.

    `margin_s`: a settlement is durable when a message published so much later is confirmed. `quiet_s`: and it
    is durable at this age in any case. `come_back`: at most so many settled messages come back after one
    kill. `notice_s`: how long a broker may take to notice a connection that was cut. `violations`: list so
    many of each property.
    """

    margin_s: float = 0.25
    quiet_s: float = 3.0
    come_back: int = 5000
    notice_s: float = 1.0
    violations: int = 200


@dataclass(frozen=True)
class Violation:
    """One broken promise: which property, what happened in a few words, and the particulars."""

    property: str
    what: str
    text: str
    t: float

    def __str__(self) -> str:
        return f"{self.property} {self.what}: {self.text} (t={self.t:.6f})"


class Copy:
    """A message in one queue."""

    __slots__ = (
        "dead",
        "durable",
        "ended",
        "ended_life",
        "holder",
        "life",
        "queue",
        "seen",
        "since",
        "state",
        "uncertain",
    )

    def __init__(self, queue: str, since: float) -> None:
        self.queue = queue
        self.since = since  # when it may first have been in the queue
        self.state = WAITING
        self.seen = False  # a client has got it
        self.life = -1  # the broker's life in which it was last seen
        self.holder: Channel | None = None
        self.ended = 0.0  # when it was settled
        self.ended_life = -1  # and in which life of the broker
        self.uncertain = False  # the settlement may be lost
        self.durable = False  # the settlement cannot be lost any more
        self.dead: Copy | None = None  # where it goes when dropped


class Message:
    """A published message of which something is still open or in doubt."""

    __slots__ = (
        "body",
        "channel",
        "confirm",
        "copies",
        "exchange",
        "key",
        "life",
        "n",
        "persistent",
        "properties",
        "published",
        "returned",
    )

    def __init__(self, channel: Channel, event: Event, life: int) -> None:
        self.channel = channel
        self.n: int = event["n"]
        self.published: float = event["t"]
        self.exchange: str = sys.intern(event["exchange"])
        self.key: str = sys.intern(event["key"])
        self.body = bytes.fromhex(event["body"])
        self.properties: int = event["properties"]
        self.persistent: bool = event["persistent"]
        self.life = life
        self.confirm = OPEN
        self.returned = not (event["mandatory"] and not event["queues"])  # nothing to wait for, or it came
        self.copies = [Copy(sys.intern(queue), event["t"]) for queue in event["queues"]]

    def __str__(self) -> str:
        return f"message {self.channel.name}:{self.n}"


class Channel:
    """An AMQP channel of a publisher or a consumer."""

    __slots__ = (
        "alive",
        "committing",
        "cut",
        "floors",
        "highest",
        "in_order",
        "kept",
        "messages",
        "name",
        "orderly",
        "queues",
        "retired",
        "transacting",
        "unacked",
        "unconfirmed",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.cut = False  # by the client itself
        self.highest = 0  # publishing sequence number
        self.messages: dict[int, Message] = {}  # n -> not retired
        self.retired = bytearray(1)  # n -> 1 if retired
        self.unconfirmed: dict[int, Message] = {}  # n -> no answer yet, ascending
        self.unacked: dict[int, tuple[Message, Copy]] = {}  # delivery tag -> what was delivered, ascending
        self.transacting = False
        self.kept: list[tuple[str, Message, Copy]] = []  # (how, ...) settled, waiting for a commit
        self.committing: list[tuple[Message, Copy]] = []  # commit sent, not answered
        self.queues: set[str] = set()  # consumed
        self.floors: dict[
            tuple[str, Channel], int
        ] = {}  # (queue, publisher) -> highest n seen as a first delivery
        self.in_order: dict[tuple[str, Channel], int] = {}  # (queue, publisher) -> highest n seen at all
        self.orderly: set[str] = set()  # queues of which all copies must come in order


@dataclass
class QueueView:
    """What the checker knows of a work queue or dead letter queue."""

    name: str
    dead: str | None = None  # its dead letter queue
    source: str | None = None  # the queue whose dead letters it takes
    consumers: set[Channel] = field(default_factory=set)
    closing: set[Channel] = field(
        default_factory=set
    )  # consumers of which the broker may or may not know the end
    doubt_until: float = -1.0  # copies that were here by then may have been delivered unseen
    disturbed: bool = False  # a consumer ended in this life of the broker
    floors: dict[Channel, int] = field(
        default_factory=dict
    )  # publisher -> highest first delivery in this life
    messages: int | None = None  # as counted at the end


@dataclass
class Metadata:
    """The states an object may be in: there (True) or not (False); for a stock, the number of messages."""

    possible: set[int]
    exchange: str | None = None  # of a binding
    queue: str | None = None  # of a binding or stock
    before: set[int] | None = None  # its states before a deletion in doubt of its exchange or queue


class Checker:
    """Takes the events of one history in order; `finish` gives the verdict."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.t = 0.0
        self.life = 0  # how many times the broker was started again
        self.down = False
        self._kills: list[float] = []  # when the broker was killed, and not up again since the kill before
        self._starts: list[float] = []  # when it was up again
        self.oldest_return_s = 0.0  # the age, at the kill, of the oldest settlement that was undone
        self._channels: dict[str, Channel] = {}
        self._queues: dict[str, QueueView] = {}
        self._objects: dict[tuple[str, str], Metadata] = {}
        self._synced = 0.0  # what was settled before is durable
        # Settled later than that, oldest first.
        self._recent: deque[tuple[float, Message, Copy, Channel]] = deque()
        self._came_back = 0  # settled messages that came back in this life
        self._handlers = {
            "setup": self._setup,
            "kill": self._kill,
            "ready": self._ready,
            "publish": self._publish,
            "returned": self._returned,
            "confirm": self._confirm,
            "consume": self._consume,
            "deliver": self._deliver,
            "settle": self._settle,
            "transact": self._transact,
            "commit": self._commit,
            "committed": self._committed,
            "closing": self._closing,
            "closed": self._closed,
            "lost": self._lost,
            "refused": self._refused,
            "change": self._change,
            "observe": self._observe,
            "drained": self._drained,
        }

    def feed(self, event: Event) -> None:
        """Take the next event."""
        self.t = event["t"]
        name = event["event"]
        self.counts[name] += 1
        if self._recent and self._recent[0][0] < max(self._synced, self.t - self.limits.quiet_s):
            self._let_time_pass()
        self._handlers[name](event)

    def finish(self) -> list[Violation]:
        """Decide what only the end of the history can show, and return all violations."""
        for channel in list(self._channels.values()):
            if channel.alive:
                self._unanswered(channel)
            for message in channel.messages.values():
                self._decide_loss(message)
        for queue in self._queues.values():
            if queue.messages is None:
                raise HistoryError(f"nobody drained queue {queue.name}")
            if queue.messages:
                self._report(
                    "P1", "not empty", f"{queue.messages} messages stay in queue {queue.name}, drained"
                )
        return self.violations

    # Broker

    def _setup(self, event: Event) -> None:
        for name, dead in event["queues"].items():
            self._queues[name] = QueueView(name, dead)
        for name, dead in event["queues"].items():
            if dead is not None:
                self._queues[dead].source = name

    def _kill(self, event: Event) -> None:
        if not self.down:  # killed again while it starts, it had no time to forget anything
            self._kills.append(self.t)
        self.down = True
        for _, _, copy, _ in self._recent:
            copy.uncertain = True

    def _ready(self, event: Event) -> None:
        self.down = False
        self.life += 1
        self._starts.append(self.t)
        self._came_back = 0
        for queue in self._queues.values():
            queue.floors.clear()
            queue.disturbed = False
            queue.doubt_until = min(
                queue.doubt_until, self.t
            )  # the broker that had to notice something is dead

    # Publishers

    def _publish(self, event: Event) -> None:
        channel = self._channel(event)
        message = Message(channel, event, self.life)
        if message.n != channel.highest + 1:
            raise HistoryError(f"{message} follows number {channel.highest}")
        channel.highest = message.n
        channel.retired.append(0)
        channel.messages[message.n] = channel.unconfirmed[message.n] = message

    def _returned(self, event: Event) -> None:
        channel = self._channel(event)
        message = channel.messages.get(event["n"])
        if message is None:
            self._report("P2", "unknown return", f"message {channel.name}:{event['n']} is not under way")
        elif message.copies:
            queues = ", ".join(copy.queue for copy in message.copies)
            self._report("P7", "binding gone", f"{message} came back as unroutable; it belongs in {queues}")
        else:
            message.returned = True

    def _confirm(self, event: Event) -> None:
        channel = self._channel(event)
        tag: int = event["tag"]
        if not 0 < tag <= channel.highest:
            self._report(
                "P6",
                "phantom confirm",
                f"tag {tag} on {channel.name}, which published {channel.highest} messages",
            )
            return
        if event["multiple"]:
            tags = []
            for n in channel.unconfirmed:
                if n > tag:
                    break
                tags.append(n)
        elif tag not in channel.unconfirmed:
            self._report("P6", "second confirm", f"message {channel.name}:{tag} has had its answer")
            return
        else:
            tags = [tag]
        for n in tags:
            message = channel.unconfirmed.pop(n)
            message.confirm = CONFIRMED if event["ack"] else REFUSED
            self.counts["confirmed" if event["ack"] else "nacked"] += 1
            if event["ack"] and message.persistent and message.copies:
                self._synced = max(self._synced, message.published - self.limits.margin_s)
            if not message.returned:
                self._report(
                    "P6", "not returned", f"{message} matches no queue, is mandatory, and was confirmed"
                )
            self._retire(message)

    def _unanswered(self, channel: Channel) -> None:
        for message in channel.unconfirmed.values():
            self._report(
                "P6", "no answer", f"{message} was neither confirmed nor refused, and its channel lived"
            )

    # Consumers

    def _consume(self, event: Event) -> None:
        channel = self._channel(event)
        queue = self._queue(event["queue"])
        if not queue.consumers and not queue.closing and self.t > queue.doubt_until:
            channel.orderly.add(queue.name)
        for other in queue.consumers:
            other.orderly.discard(queue.name)
        queue.consumers.add(channel)
        channel.queues.add(queue.name)
        for publisher, n in queue.floors.items():
            channel.floors[queue.name, publisher] = n

    def _deliver(self, event: Event) -> None:
        channel = self._channel(event)
        queue = self._queue(event["queue"])
        publisher = self._channels.get(event["of"]) if event["of"] is not None else None
        n: int = event["n"] or 0
        if publisher is None or not 0 < n <= publisher.highest:
            name = f"{event['of']}:{n}"
            self._report("P2", "invented", f"queue {queue.name} delivered {name}, which nobody published")
            return
        if publisher.retired[n]:
            self._report(
                "P5", "came back", f"message {publisher.name}:{n} came out of {queue.name}, durably settled"
            )
            return
        message = publisher.messages[n]
        copy = self._find_copy(message, queue, event)
        if copy is None:
            return
        self._check_content(message, queue, event)
        self._check_return(message, copy)
        self._check_redelivered(message, copy, queue, redelivered=event["redelivered"])
        if queue.source is None:
            self._check_order(message, copy, queue, channel, redelivered=event["redelivered"])
        copy.state = HELD
        copy.seen = True
        copy.life = self.life
        copy.holder = channel
        copy.uncertain = False
        if queue.source is not None:
            self._prove_dead_lettering(message, queue.source)
        if event["tag"] in channel.unacked:
            raise HistoryError(f"delivery tag {event['tag']} twice on {channel.name}")
        channel.unacked[event["tag"]] = (message, copy)

    def _find_copy(self, message: Message, queue: QueueView, event: Event) -> Copy | None:
        if queue.source is None:
            for copy in message.copies:
                if copy.queue == queue.name:
                    return copy
            self._report("P2", "wrong queue", f"{message} came out of {queue.name}, where nobody sent it")
            return None
        for copy in message.copies:
            if copy.queue == queue.source:
                if copy.dead is None:
                    self._report(
                        "P2", "wrong queue", f"{message} came out of {queue.name}; nobody rejected it"
                    )
                return copy.dead
        self._report(
            "P2", "wrong queue", f"{message} came out of {queue.name} and was never in {queue.source}"
        )
        return None

    def _check_content(self, message: Message, queue: QueueView, event: Event) -> None:
        if message.body != bytes.fromhex(event["body"]):
            self._report("P2", "changed body", f"{message} from {queue.name}")
        if queue.source is not None:
            expected = [queue.source, "rejected"]
            if event.get("dead_from") != expected:
                self._report(
                    "P2",
                    "wrong x-death",
                    f"{message} from {queue.name}: {event.get('dead_from')}, not {expected}",
                )
            return  # dead-lettering changes headers, exchange and routing key
        if message.properties != event["properties"]:
            self._report("P2", "changed properties", f"{message} from {queue.name}")
        if message.key != event["key"] or message.exchange != event["exchange"]:
            was, now = (message.exchange, message.key), (event["exchange"], event["key"])
            self._report(
                "P2", "changed routing key", f"{message} from {queue.name}: sent to {was}, delivered as {now}"
            )

    def _check_return(self, message: Message, copy: Copy) -> None:
        """P5, and what must happen to a copy that legitimately came back."""
        if copy.state == WAITING:
            return
        if copy.state == HELD:
            holder = copy.holder.name if copy.holder else "?"
            self._report("P4", "delivered twice", f"{message} from {copy.queue}, while {holder} holds it")
            return
        if not copy.uncertain:
            age = self.t - copy.ended
            self._report("P5", "came back", f"{message} from {copy.queue}, settled {age:.3f} s before")
        else:
            self.counts["settled and came back"] += 1
            if copy.holder is None or not copy.holder.cut:
                undone = bisect(self._starts, copy.ended)  # by the kill before the first start after it
                if undone < len(self._starts):
                    self.oldest_return_s = max(self.oldest_return_s, self._kills[undone] - copy.ended)
            self._came_back += 1
            if self._came_back == self.limits.come_back + 1:
                self._report(
                    "P5",
                    "too many came back",
                    f"over {self.limits.come_back} settled messages after one kill",
                )
        if copy.dead is not None:  # its dead-lettering is undone too, and may happen again
            self._forget_holder(copy.dead)
            copy.dead = None

    def _prove_dead_lettering(self, message: Message, source: str) -> None:
        """A dead letter that is seen after a kill shows that the rejection before it was durable."""
        for copy in message.copies:
            if copy.queue == source and copy.ended_life != self.life:
                copy.uncertain = False

    def _forget_holder(self, copy: Copy) -> None:
        if copy.state == HELD and copy.holder is not None:
            copy.holder.unacked = {
                tag: held for tag, held in copy.holder.unacked.items() if held[1] is not copy
            }

    def _check_redelivered(
        self, message: Message, copy: Copy, queue: QueueView, *, redelivered: bool
    ) -> None:
        if redelivered:
            self.counts["redelivered"] += 1
            if not copy.seen and not queue.closing and copy.since > queue.doubt_until:
                self._report("P4", "redelivered the first time", f"{message} from {queue.name}")
        elif copy.seen:
            self._report(
                "P4", "not marked redelivered", f"{message} from {queue.name}, which a client has seen"
            )

    def _check_order(
        self, message: Message, copy: Copy, queue: QueueView, channel: Channel, *, redelivered: bool
    ) -> None:
        lane = (queue.name, message.channel)
        if queue.name in channel.orderly:
            if message.n < channel.in_order.get(lane, 0):
                self._report(
                    "P3",
                    "not in its place",
                    f"{message} from {queue.name} after number {channel.in_order[lane]}",
                )
            else:
                channel.in_order[lane] = message.n
        first_in_this_life = copy.life != self.life
        if first_in_this_life and not (redelivered and queue.disturbed):
            if message.n < channel.floors.get(lane, 0):
                self._report(
                    "P3", "out of order", f"{message} from {queue.name} after number {channel.floors[lane]}"
                )
            else:
                channel.floors[lane] = message.n
            if message.n > queue.floors.get(message.channel, 0):
                queue.floors[message.channel] = message.n

    def _settle(self, event: Event) -> None:
        channel = self._channel(event)
        tag: int = event["tag"]
        if event["multiple"]:
            tags = []
            for unacked in channel.unacked:
                if unacked > tag:
                    break
                tags.append(unacked)
        else:
            tags = [tag] if tag in channel.unacked else []
        for one in tags:
            message, copy = channel.unacked.pop(one)
            if channel.transacting:
                channel.kept.append((event["how"], message, copy))
            else:
                self._end(event["how"], message, copy, channel)

    def _end(self, how: str, message: Message, copy: Copy, channel: Channel) -> None:
        if how == "requeue":
            copy.state = WAITING
            copy.holder = None
            for consumer in self._queue(copy.queue).consumers:
                consumer.orderly.discard(copy.queue)
            return
        if how == "drop":
            copy.state = DROPPED
            dead = self._queue(copy.queue).dead
            if dead is not None:
                copy.dead = Copy(dead, self.t)
        else:
            copy.state = ACKED
        copy.ended = self.t
        copy.ended_life = self.life
        copy.uncertain = False
        if channel.transacting:
            channel.committing.append((message, copy))
        else:
            self._recent.append((self.t, message, copy, channel))

    def _transact(self, event: Event) -> None:
        self._channel(event).transacting = True

    def _commit(self, event: Event) -> None:
        channel = self._channel(event)
        kept, channel.kept = channel.kept, []
        for how, message, copy in kept:
            self._end(how, message, copy, channel)

    def _committed(self, event: Event) -> None:
        channel = self._channel(event)
        committing, channel.committing = channel.committing, []
        for message, copy in committing:
            self._end_durably(message, copy)

    def _let_time_pass(self) -> None:
        horizon = max(self._synced, self.t - self.limits.quiet_s)
        while self._recent and self._recent[0][0] < horizon:
            ended, message, copy, _ = self._recent.popleft()
            if copy.ended == ended and not copy.uncertain:
                self._end_durably(message, copy)

    def _end_durably(self, message: Message, copy: Copy) -> None:
        if copy.state in (ACKED, DROPPED):
            copy.durable = True
            self._retire(message)

    def _retire(self, message: Message) -> None:
        """Throw the record of a message away if nothing can happen to it any more."""
        if message.confirm == OPEN:
            return
        for copy in message.copies:
            if not copy.durable or (copy.dead is not None and not copy.dead.durable):
                return
        if message.n in message.channel.messages:
            del message.channel.messages[message.n]
            message.channel.retired[message.n] = 1

    # Ends of channels

    def _closing(self, event: Event) -> None:
        channel = self._channel(event)
        self._give_back(channel)
        for name in channel.queues:
            queue = self._queue(name)
            queue.consumers.discard(channel)
            queue.closing.add(channel)
            queue.disturbed = True
            for consumer in queue.consumers:
                consumer.orderly.discard(name)

    def _closed(self, event: Event) -> None:
        channel = self._channel(event)
        self._unanswered(channel)
        self._channel_ends(channel, until=self.t)

    def _lost(self, event: Event) -> None:
        channel = self._channel(event)
        channel.cut = bool(event.get("own"))
        for message in channel.unconfirmed.values():
            message.confirm = UNKNOWN
        for _, _, copy, settler in self._recent:
            if settler is channel:
                copy.uncertain = True
        for _, copy in channel.committing:
            copy.uncertain = True
        if not event.get("own") and not self.down:
            self._report(
                "service", "hung up", f"{channel.name} lost its connection, and nobody killed the broker"
            )
        self._channel_ends(channel, until=self.t + self.limits.notice_s)

    def _channel_ends(self, channel: Channel, until: float) -> None:
        channel.alive = False
        for message in list(channel.unconfirmed.values()):
            self._retire(message)
        channel.unconfirmed.clear()
        self._give_back(channel)
        channel.committing.clear()
        channel.floors.clear()
        channel.in_order.clear()
        for name in channel.queues:
            queue = self._queue(name)
            queue.consumers.discard(channel)
            queue.closing.discard(channel)
            queue.disturbed = True
            queue.doubt_until = max(queue.doubt_until, until)
            for consumer in queue.consumers:
                consumer.orderly.discard(name)

    def _give_back(self, channel: Channel) -> None:
        """What the channel holds, or has settled in a transaction and not committed, goes back to its
        queues."""
        for _, copy in channel.unacked.values():
            copy.state, copy.holder = WAITING, None
        for _, _, copy in channel.kept:
            copy.state, copy.holder = WAITING, None
        channel.unacked.clear()
        channel.kept.clear()

    def _refused(self, event: Event) -> None:
        self._report("service", "closed by the broker", f"{event['channel']}: {event['text']}")

    # Metadata

    def _change(self, event: Event) -> None:
        target: int = event.get("target", event["op"] == "declare")
        state = self._object(event)
        if event["phase"] == "invoke":
            state.possible = state.possible | {target}
        elif event["phase"] == "ok":
            state.possible = {target}
        if event["op"] == "declare":
            return
        for part in self._parts_of(event["kind"], event["name"]):
            if event["phase"] == "invoke":
                part.before = part.possible
                part.possible = part.possible | {False}
            elif event["phase"] == "ok":
                part.possible, part.before = {False}, None

    def _observe(self, event: Event) -> None:
        state = self._object(event)
        found = event["found"]
        name = f"{event['kind']} {event['name']}"
        if isinstance(found, str):
            self._report("P7", "changed", f"{name} is not as declared: {event.get('text', '')}")
            return
        if found not in state.possible:
            self._report("P7", *self._describe(event["kind"], name, found, state))
        state.possible = {found}
        for part in self._parts_of(event["kind"], event["name"]):
            if not found:
                part.possible = {False}
            elif part.before is not None:  # it was not deleted, so neither were its parts
                part.possible = part.before
            part.before = None

    def _describe(self, kind: str, name: str, found: int, state: Metadata) -> tuple[str, str]:
        if kind == "stock":
            return "wrong count", f"{name} has {found} messages, not {sorted(state.possible)}"
        if found:
            return "not gone", f"{name} is there, and its deletion was answered (or it was never made)"
        return "lost", f"{name} is not there, and its declaration was answered"

    def _object(self, event: Event) -> Metadata:
        key = (event["kind"], event["name"])
        state = self._objects.get(key)
        if state is None:
            state = self._objects[key] = Metadata({False}, event.get("exchange"), event.get("queue"))
        return state

    def _parts_of(self, kind: str, name: str) -> list[Metadata]:
        """Return the bindings of an exchange, the bindings and the stock of a queue."""
        if kind not in ("exchange", "queue"):
            return []
        return [
            state
            for (other, _), state in self._objects.items()
            if other in ("binding", "stock") and (state.queue if kind == "queue" else state.exchange) == name
        ]

    # The end

    def _drained(self, event: Event) -> None:
        self._queue(event["queue"]).messages = event["messages"]

    def _decide_loss(self, message: Message) -> None:
        if message.confirm != CONFIRMED or (not message.persistent and message.life != self.life):
            return
        missing = [copy for copy in message.copies if copy.state in (WAITING, HELD) and not copy.seen]
        if missing:
            queues = ", ".join(copy.queue for copy in missing)
            if len(missing) < len(message.copies):
                self._report(
                    "P6",
                    "partial confirm",
                    f"{message} was confirmed and never came to {queues}, only to the others",
                )
            else:
                self._report("P1", "lost", f"{message} was confirmed and never came out of {queues}")
        for copy in message.copies:
            if copy.state in (WAITING, HELD) and copy.seen:
                self._report(
                    "P1",
                    "lost after requeue",
                    f"{message} went back to {copy.queue} and never came out again",
                )
            elif copy.state == DROPPED and copy.dead is not None and copy.dead.state in (WAITING, HELD):
                self._report(
                    "P1",
                    "dead letter lost",
                    f"{message} was rejected from {copy.queue}, not seen in {copy.dead.queue}",
                )

    # Small things

    def _channel(self, event: Event) -> Channel:
        name: str = event["channel"]
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
        if not channel.alive:
            raise HistoryError(f"{event['event']} on {name}, which has ended")
        return channel

    def _queue(self, name: str) -> QueueView:
        if name not in self._queues:
            raise HistoryError(f"queue {name} is not in the setup")
        return self._queues[name]

    def _report(self, name: str, what: str, text: str) -> None:
        self.counts["violations"] += 1
        self.counts[name] += 1
        if self.counts[name] <= self.limits.violations:
            self.violations.append(Violation(name, what, text, self.t))


def check(history: Iterable[Event], limits: Limits | None = None) -> list[Violation]:
    """Return how the broker broke its promise in this history: an empty list if it kept it.

    Raises:
        HistoryError: the history is incomplete or contradicts itself.
    """
    checker = Checker(limits)
    for event in history:
        checker.feed(event)
    return checker.finish()


if __name__ == "__main__":
    found = check(read(Path(sys.argv[1])))
    for violation in found:
        print(violation)
    sys.exit(1 if found else 0)
