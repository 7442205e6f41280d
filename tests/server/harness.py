"""A whole broker in a test: sessions without sockets, a clock and a disk that do what the test says.

A test is a conversation:

    broker = Broker()
    channel = broker.connect().channel()
    queue = channel.declare("q", durable=True)
    channel.publish(queue, b"a")
    assert channel.get(queue).body == b"a"

Every call is one turn of the broker with all that follows from it; what clients are sent waits in their
channel until the test asks. The store answers at once, unless the test takes it: `hold_store` has batches and
reads wait for `release_store`, `fail_store` has them fail. `restart` stops in order and begins again on the
same disk, `crash` forgets what was not durable. Time stands still but for `advance`. Tests that use the
fixture `either_way` run twice, the second time with a redo log (`Broker`'s `has_redo_log`).
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pamqp import commands

from leveret.broker import logs
from leveret.broker.config import Settings
from leveret.broker.server.committer import (
    SETTLING_WAITS_MS,
    Answer,
    Applied,
    DueRequest,
    Failed,
    LoadRequest,
    Written,
    read,
)
from leveret.broker.server.node import Node
from leveret.broker.server.write_behind import Job, WriteBehind
from leveret.protocol.methods import make
from leveret.protocol.properties import NO_PROPERTIES, replace
from leveret.storage.batch import Batch
from leveret.storage.changes import QueuePurged
from leveret.storage.memory import MemoryDisk, MemoryStore
from leveret.storage.redo_log import LOG_BYTES, NAME_BYTES, RedoLog, batches_in, merge
from leveret.storage.store import StoreError

from ..peer import Content, Event, Method, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pamqp.base import Frame

    from leveret.broker.server.session import Session
    from leveret.protocol.outbox import Outbox

START_MS = 1_700_000_000_000
TURNS_MAX = 10_000  # of a conversation that should have come to rest
PERSISTENT = replace(delivery_mode=2)


@contextmanager
def logged_events() -> Iterator[list[dict[str, object]]]:
    """Gather what is logged meanwhile, of all levels."""
    before = logs.output.handle, logs.output.least
    events: list[dict[str, object]] = []
    logs.output.handle = lambda level, event: events.append({"level": level, **event})
    logs.output.least = 0
    try:
        yield events
    finally:
        logs.output.handle, logs.output.least = before


class Refused(Exception):
    """The broker closed the channel or the connection."""

    def __init__(self, close: Method) -> None:
        super().__init__(close)
        self.code, self.text, self.method_ids = close.error
        self.is_hard = isinstance(close.method, commands.Connection.Close)


LOG_PATH = Path("test.db-redo")
LOG_NAME = bytes(NAME_BYTES)


class ManualWriter:
    """Writes the file of a redo log, in memory, when it is told to."""

    def __init__(self, file: dict[int, bytes]) -> None:
        self._file = file  # offset -> what was written there
        self._begun: tuple[int, bytes] | None = None
        self._is_done = False

    def write(self, data: bytes, offset: int) -> None:
        self._begun = (offset, data)

    def do(self) -> None:
        """Write what was begun."""
        assert self._begun is not None
        offset, data = self._begun
        self._file.pop(offset, None)
        self._file[offset] = data
        self._begun, self._is_done = None, True

    def finish(self) -> bool:
        is_done, self._is_done = self._is_done, False
        return is_done

    def wait(self) -> None:
        raise AssertionError("nobody waits")

    def close(self) -> None:
        pass


class ManualStore:
    """The store's threads, without threads: what they do is done when the test says so."""

    def __init__(self, disk: MemoryDisk, log_file: dict[int, bytes] | None) -> None:
        self.store = MemoryStore(disk)
        self._disk = disk
        self.is_held = False
        self.failure: StoreError | None = None
        self.is_patient = True  # with batches that only settle
        self.batches_written = 0
        self._jobs: deque[Job | Batch | LoadRequest | DueRequest] = deque()  # a batch is a record
        self._answers: list[Answer] = []
        self._writer = ManualWriter({} if log_file is None else log_file)
        self._behind = WriteBehind(few=0)
        if log_file is not None:
            self._redo(log_file)
            self._behind.log = RedoLog(LOG_PATH, LOG_NAME, self._writer)

    def _redo(self, log_file: dict[int, bytes]) -> None:
        """Apply what a crash left, and empty the log."""
        if log_file:
            image = bytearray(LOG_BYTES)
            for offset, data in log_file.items():  # in the order in which they were written
                image[offset : offset + len(data)] = data
            if batches := batches_in(bytes(image), LOG_PATH, LOG_NAME, self._disk.recorded):
                self.store.apply(merge(batches, LOG_PATH))
        log_file.clear()
        self._disk.recorded = 0

    @property
    def has_answers(self) -> bool:
        return bool(self._answers)

    @property
    def batches_held(self) -> int:
        return len(self._unwritten)

    @property
    def _unwritten(self) -> list[Batch]:
        jobs = [job.written if isinstance(job, Job) else job for job in self._jobs]
        return [job for job in jobs if isinstance(job, Batch)]

    @property
    def last_batch_held(self) -> Batch:
        return self._unwritten[-1]

    def write(self, batch: Batch, with_rows: bool) -> None:
        """See `StoreThreads.write`."""
        assert not self.batches_held, "a second batch before the first is durable"
        if not with_rows and self._behind.record(batch):
            self._jobs.append(batch)
        else:
            self._jobs += self._behind.jobs_for(batch)
        self._work()

    def read(self, request: LoadRequest | DueRequest) -> None:
        """See `StoreThreads.read`."""
        self._jobs.append(request)
        self._work()

    @property
    def settling_waits_ms(self) -> int:
        """See `StoreThreads.settling_waits_ms`."""
        return SETTLING_WAITS_MS if self._behind.log is not None and self.is_patient else 0

    def next_wake_ms(self) -> int:
        """See `StoreThreads.next_wake_ms`."""
        return self._behind.due_ms

    def answers(self, now_ms: int) -> list[Answer]:
        """See `StoreThreads.answers`."""
        answers, self._answers = self._answers, []
        self._behind.finish(now_ms)
        if 0 < self._behind.due_ms <= now_ms:
            self.make_rows()
        return answers

    def make_rows(self) -> None:
        """See `StoreThreads.make_rows`."""
        if (job := self._behind.take_behind()) is not None:
            self._jobs.append(job)
            self._work()

    def release(self, jobs: int) -> None:
        """Do the first of the jobs held back."""
        for _ in range(min(jobs, len(self._jobs))):
            self._do(self._jobs.popleft())

    def _work(self) -> None:
        while self._jobs and not self.is_held:
            self._do(self._jobs.popleft())

    def _do(self, job: Job | Batch | LoadRequest | DueRequest) -> None:
        if self.failure is not None:
            self._answers.append(Failed(self.failure))
        elif isinstance(job, LoadRequest | DueRequest):
            self._answers.append(read(self.store, job))
        elif isinstance(job, Batch):
            self._writer.do()
            self.batches_written += 1
            self._answers.append(Written(job))
        else:
            self._check(job.batch)
            self.store.apply(job.batch, job.recorded)
            self._answers.append(Applied(job.batch.number))
            self._behind.done(job)
            if job.written is not None:
                self.batches_written += 1
                self._answers.append(Written(job.written))

    def _check(self, batch: Batch) -> None:
        """Refuse to remove what was never stored: an engine that counts would have to count again."""
        for definition in batch.definitions:
            if isinstance(definition, QueuePurged):
                stored = self._disk.messages[definition.queue_id]
                assert len(stored.between(definition.first, definition.last)) == definition.count
        for queue_id, settled in batch.settled.items():
            missing = [position for position in settled if position not in self._disk.messages[queue_id]]
            assert not missing, f"positions {missing} of queue {queue_id} were not stored"


class Broker:
    """One broker and the connections to it.

    Args:
        has_redo_log: whether batches are recorded before there are rows of them.
        settings: those of `Settings` that matter to the test.
    """

    default_has_redo_log: ClassVar[bool] = False

    def __init__(self, has_redo_log: bool | None = None, **settings: Any) -> None:  # noqa: ANN401 - many types
        self.settings = Settings(**settings)
        self._disk = MemoryDisk()
        if has_redo_log is None:
            has_redo_log = self.default_has_redo_log
        self.log_file: dict[int, bytes] | None = {} if has_redo_log else None
        self.now_ms = START_MS
        self._tokens = 0
        self._start()

    def _start(self) -> None:
        self.store = ManualStore(self._disk, self.log_file)
        self.clients: list[Client] = []
        snapshot = self.store.store.load()
        self.node = Node(self.settings, self.store, snapshot, lambda: self.now_ms, self._token)
        self.run()

    def _token(self, size: int) -> str:
        self._tokens += 1
        return f"{self._tokens:0{size * 4 // 3 + 1}}"

    # -- clients

    def connect(self, *, opened: bool = True, **peer: Any) -> Client:  # noqa: ANN401 - of many types
        """Connect a client; keyword arguments are those of `Peer`."""
        name = f"127.0.0.1:{40_000 + len(self.clients)} -> 127.0.0.1:5672"
        session = self.node.open_session("127.0.0.1", name, True)
        assert session is not None
        client = Client(self, session, Peer(**peer))
        self.clients.append(client)
        if opened:
            client.send(client.peer.handshake())
            assert client.take_names() == ["Connection.Start", "Connection.Tune", "Connection.OpenOk"]
        return client

    def channel(self, number: int = 1, **peer: Any) -> ChannelOfTest:  # noqa: ANN401 - of many types
        """Connect a client and open a channel."""
        return self.connect(**peer).channel(number)

    # -- turns

    def turn(self, *inputs: tuple[Client, bytes]) -> None:
        """Do one turn of the event loop, in which these bytes arrive."""
        node = self.node
        node.begin_turn()
        for client, data in inputs:
            client.session.receive(data)
        node.end_turn()
        self._flush()
        node.hand_over()

    def run(self) -> None:
        """Do turns until nothing is left to do now."""
        for _ in range(TURNS_MAX):
            self.turn()
            wake_ms = self.node.next_wake_ms()
            if not self.store.has_answers and (wake_ms is None or wake_ms > self.now_ms):
                return
        raise AssertionError("the broker does not come to rest")

    def _flush(self) -> None:
        to_flush = self.node.to_flush
        while to_flush:
            outboxes = to_flush[:]
            to_flush.clear()
            for outbox in outboxes:
                client = self._client_of(outbox)
                if client is None:
                    outbox.take()
                elif client.is_stuck:
                    outbox.dirty = False
                else:
                    client.take_output()

    def _client_of(self, outbox: Outbox) -> Client | None:
        for client in self.clients:
            if client.session.outbox is outbox:
                return client
        return None

    # -- time

    def advance(self, milliseconds: int) -> None:
        """Let time pass, stopping wherever the broker has something to do."""
        end_ms = self.now_ms + milliseconds
        while (wake_ms := self.node.next_wake_ms()) is not None and wake_ms <= end_ms:
            self.now_ms = max(self.now_ms, wake_ms)
            self.run()
        self.now_ms = end_ms
        self.run()

    # -- the store

    @property
    def disk(self) -> MemoryDisk:
        """What the store has, once it has made the rows that are behind."""
        self._write_settled()
        self.run()
        self.store.make_rows()
        self.run()
        return self._disk

    def _write_settled(self) -> None:
        """Have what was only settled written, which otherwise waits a little for others to join it."""
        if self.store.settling_waits_ms:
            self.store.is_patient = False
            self.node.end_turn()
            self.node.hand_over()
            self.store.is_patient = True

    def hold_store(self) -> None:
        """Have batches and reads wait, but for what was only settled: that had its time."""
        if self.store.settling_waits_ms:
            self._write_settled()
            self.run()
        self.store.is_held = True

    def release_one(self) -> None:
        """Let the store do the first thing that waits, and only that."""
        self.store.release(1)
        self.run()

    def release_store(self) -> None:
        """Let the store do what waits, and the rest without delay."""
        self.store.is_held = False
        self.store.release(TURNS_MAX)
        self.run()

    def fail_store(self) -> None:
        """Have the store fail from now on, also with what waits."""
        self.store.failure = StoreError("no space left on device")
        self.release_store()

    # -- the end, and a new beginning

    def stop(self) -> None:
        """Stop in order."""
        self.node.begin_stop()
        self.run()
        for client in list(self.clients):
            client.send(client.peer.send(0, commands.Connection.CloseOk))
            client.vanish()
        assert self.node.is_done
        self.run()
        if self.node.unfinished is not None:
            self.store.write(self.node.unfinished, False)
        self.store.answers(self.now_ms)
        self.store.make_rows()

    def restart(self) -> None:
        """Stop in order and begin again."""
        self.stop()
        self._start()

    def crash(self) -> None:
        """Forget everything that is not durable and begin again. What was only settled had its time."""
        self._write_settled()
        self._start()


class Client:
    """One connection of a test."""

    def __init__(self, broker: Broker, session: Session, peer: Peer) -> None:
        self.broker = broker
        self.session = session
        self.peer = peer
        self.is_stuck = False  # it does not read what it is sent
        self.inbox: list[Event] = []
        self._channels: dict[int, ChannelOfTest] = {}
        self._gathered: list[bytes] | None = None

    def channel(self, number: int = 1) -> ChannelOfTest:
        """Open a channel."""
        channel = ChannelOfTest(self, number)
        channel.call(commands.Channel.Open)
        return channel

    def send(self, data: bytes) -> None:
        """Send bytes in one turn, and let the broker come to rest."""
        if self._gathered is not None:
            self._gathered.append(data)
            return
        self.broker.turn((self, data))
        self.broker.run()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Gather all that is sent inside and send it as one piece, in one turn."""
        self._gathered = []
        try:
            yield
        finally:
            data, self._gathered = b"".join(self._gathered), None
        self.send(data)

    def take_output(self) -> None:
        """Read what the broker wrote."""
        outbox = self.session.outbox
        data = outbox.take()
        self.inbox += self.peer.receive(data)
        if outbox.sent(len(data)):
            self.session.output_drained()

    def read_again(self) -> None:
        """Read all that waited while it was stuck."""
        self.is_stuck = False
        self.take_output()
        self.broker.run()

    def take(self, channel: int | None = None) -> list[Event]:
        """Take what came, on all channels or on one."""
        if channel is None:
            taken, self.inbox = self.inbox, []
            return taken
        return self.take_if(lambda event: isinstance(event, Method) and event.channel == channel)

    def take_if(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Take what is wanted of what came; the rest stays."""
        taken: list[Event] = []
        rest: list[Event] = []
        for event in self.inbox:
            (taken if is_wanted(event) else rest).append(event)
        self.inbox = rest
        return taken

    def take_names(self) -> list[str]:
        """Take what came on all channels, by name."""
        return [event.name for event in self.take() if isinstance(event, Method)]

    def vanish(self) -> None:
        """Lose the connection without a word."""
        self.broker.node.begin_turn()
        self.session.connection_lost()
        self.broker.node.end_turn()
        self.broker.node.hand_over()
        self.broker.node.session_closed(self.session)
        self.broker.clients.remove(self)
        self.broker.run()

    def close(self) -> None:
        """Close the connection in order."""
        self.send(self.peer.send(0, commands.Connection.Close, reply_code=200))
        assert self.take_names()[-1:] == ["Connection.CloseOk"]
        self.vanish()


class ChannelOfTest:
    """One channel of a test. Calls that have a reply return it, or raise `Refused`."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.broker = client.broker
        self.number = number

    # -- anything

    def send(self, method: type[Frame], **fields: object) -> None:
        """Send a method."""
        self.client.send(self.client.peer.send(self.number, method, **fields))

    def call(self, method: type[Frame], **fields: object) -> Method:
        """Send a method and take its reply; what else came stays.

        Raises:
            Refused: the channel or the connection was closed instead.
        """
        self.send(method, **fields)
        return self.reply(*method.valid_responses)

    def reply(self, *names: str) -> Method:
        """Take a reply.

        Raises:
            Refused: the channel or the connection was closed instead.
        """
        self.check_open()
        for event in self.client.inbox:
            if isinstance(event, Method) and event.channel == self.number and event.name in names:
                self.client.inbox.remove(event)
                return event
        raise AssertionError(f"no {' or '.join(names)} among {self.client.inbox}")

    def check_open(self) -> None:
        """Look for a close.

        Raises:
            Refused: there is one.
        """
        for event in self.client.inbox:
            if not isinstance(event, Method):
                continue
            if event.name == "Connection.Close" or (
                event.name == "Channel.Close" and event.channel == self.number
            ):
                self.client.inbox.remove(event)
                raise Refused(event)

    def take(self) -> list[Event]:
        """Take what came on this channel."""
        return self.client.take(self.number)

    def names(self) -> list[str]:
        """Take what came on this channel, by name."""
        return [event.name for event in self.take() if isinstance(event, Method)]

    def reopen(self) -> None:
        """Answer the broker's close and open the channel again."""
        self.send(commands.Channel.CloseOk)
        self.call(commands.Channel.Open)

    def close(self) -> None:
        """Close the channel."""
        self.call(commands.Channel.Close, reply_code=200)

    # -- exchanges and queues

    def declare(self, queue: str = "", **fields: object) -> str:
        """Declare a queue; a dictionary as `arguments`.

        Returns:
            its name.
        """
        reply = self.call(commands.Queue.Declare, queue=queue, **fields).method
        assert isinstance(reply, commands.Queue.DeclareOk)
        return reply.queue or ""

    def counts(self, queue: str) -> tuple[int, int]:
        """Return ready messages and consumers, by a passive declare."""
        reply = self.call(commands.Queue.Declare, queue=queue, passive=True).method
        assert isinstance(reply, commands.Queue.DeclareOk)
        return reply.message_count or 0, reply.consumer_count or 0

    def ready(self, queue: str) -> int:
        """Return how many messages are ready."""
        return self.counts(queue)[0]

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue, asked on a channel of its own."""
        other = self.client.channel(self.number + 1000)
        try:
            other.counts(queue)
        except Refused as refused:
            if refused.code != 404:
                raise
            other.send(commands.Channel.CloseOk)
            return False
        other.close()
        return True

    def declare_exchange(self, exchange: str, kind: str = "direct", **fields: object) -> None:
        """Declare an exchange."""
        self.call(commands.Exchange.Declare, exchange=exchange, exchange_type=kind, **fields)

    def bind(self, queue: str, exchange: str, key: str = "", **fields: object) -> None:
        """Bind a queue."""
        self.call(commands.Queue.Bind, queue=queue, exchange=exchange, routing_key=key, **fields)

    def purge(self, queue: str) -> int:
        """Purge a queue; how many messages there were."""
        reply = self.call(commands.Queue.Purge, queue=queue).method
        assert isinstance(reply, commands.Queue.PurgeOk)
        return reply.message_count or 0

    def delete(self, queue: str, **fields: object) -> int:
        """Delete a queue; how many messages there were."""
        reply = self.call(commands.Queue.Delete, queue=queue, **fields).method
        assert isinstance(reply, commands.Queue.DeleteOk)
        return reply.message_count or 0

    # -- publishing

    def publish(
        self,
        key: str,
        body: bytes = b"",
        *,
        exchange: str = "",
        properties: bytes = NO_PROPERTIES,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Publish a message."""
        self.client.send(
            self.client.peer.publish(
                self.number, exchange, key, body, properties, mandatory=mandatory, immediate=immediate
            )
        )

    def publish_all(
        self, key: str, *bodies: bytes, exchange: str = "", properties: bytes = NO_PROPERTIES
    ) -> None:
        """Publish messages in one piece."""
        with self.client.at_once():
            for body in bodies:
                self.publish(key, body, exchange=exchange, properties=properties)

    def confirm(self) -> None:
        """Have publishes confirmed."""
        self.call(commands.Confirm.Select)

    def confirms(self) -> list[str]:
        """Take the confirms that came, in order, each as text: `ack 3`, `ack 5 multiple`, `nack 4`."""
        told: list[str] = []
        for event in self.client.take_if(self._is_confirm):
            assert isinstance(event, Method)
            method = event.method
            assert isinstance(method, commands.Basic.Ack | commands.Basic.Nack)
            word = "ack" if isinstance(method, commands.Basic.Ack) else "nack"
            told.append(f"{word} {method.delivery_tag}{' multiple' if method.multiple else ''}")
        return told

    def _is_confirm(self, event: Event) -> bool:
        return (
            isinstance(event, Method)
            and event.channel == self.number
            and event.name in ("Basic.Ack", "Basic.Nack")
        )

    def returned(self) -> list[Content]:
        """Take the messages that came back."""
        return self._contents("Basic.Return")

    # -- consuming

    def get(self, queue: str = "", *, no_ack: bool = True) -> Content | None:
        """Get a message; None if there is none."""
        reply = self.call(commands.Basic.Get, queue=queue, no_ack=no_ack)
        return reply if isinstance(reply, Content) else None

    def drain(self, queue: str) -> list[bytes]:
        """Get all messages there are; their bodies."""
        bodies: list[bytes] = []
        while (message := self.get(queue)) is not None:
            bodies.append(message.body)
        return bodies

    def consume(self, queue: str = "", tag: str = "c", **fields: object) -> None:
        """Begin to consume."""
        self.call(commands.Basic.Consume, queue=queue, consumer_tag=tag, **fields)

    def cancel(self, tag: str = "c") -> None:
        """Stop consuming."""
        self.call(commands.Basic.Cancel, consumer_tag=tag)

    def qos(self, count: int, *, globally: bool = False) -> None:
        """Limit what may be unacked."""
        self.call(commands.Basic.Qos, prefetch_count=count, global_=globally)

    def delivered(self, tag: str | None = None) -> list[Content]:
        """Take the deliveries that came, to all consumers or to one."""
        return self._contents("Basic.Deliver", tag)

    def bodies(self, tag: str | None = None) -> list[bytes]:
        """Take the deliveries that came; their bodies."""
        return [delivery.body for delivery in self.delivered(tag)]

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Ack a delivery."""
        self.send(commands.Basic.Ack, delivery_tag=tag, multiple=multiple)

    def nack(self, tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
        """Nack a delivery."""
        self.send(commands.Basic.Nack, delivery_tag=tag, multiple=multiple, requeue=requeue)

    def reject(self, tag: int, *, requeue: bool = False) -> None:
        """Reject a delivery."""
        self.send(commands.Basic.Reject, delivery_tag=tag, requeue=requeue)

    def recover(self) -> None:
        """Have everything unacked requeued."""
        self.call(commands.Basic.Recover, requeue=True)

    def _contents(self, name: str, tag: str | None = None) -> list[Content]:
        self.check_open()
        taken = self.client.take_if(
            lambda event: (
                isinstance(event, Content)
                and event.channel == self.number
                and event.name == name
                and (tag is None or getattr(event.method, "consumer_tag", None) == tag)
            )
        )
        return [event for event in taken if isinstance(event, Content)]


def delivery_tag(content: Content) -> int:
    """Delivery tag of a delivery or get-ok."""
    method = content.method
    assert isinstance(method, commands.Basic.Deliver | commands.Basic.GetOk)
    assert method.delivery_tag is not None
    return method.delivery_tag


def is_redelivered(content: Content) -> bool:
    """The redelivered bit of a delivery or get-ok."""
    method = content.method
    assert isinstance(method, commands.Basic.Deliver | commands.Basic.GetOk)
    return bool(method.redelivered)


def messages_left(content: Content) -> int:
    """The message count of a get-ok."""
    method = content.method
    assert isinstance(method, commands.Basic.GetOk)
    assert method.message_count is not None
    return method.message_count


__all__ = [
    "PERSISTENT",
    "Broker",
    "ChannelOfTest",
    "Client",
    "Refused",
    "delivery_tag",
    "is_redelivered",
    "make",
    "messages_left",
]
