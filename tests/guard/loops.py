"""The hot loops, each in one thread without sockets, so that their instructions can be counted.

A loop is a generator: up to its first `yield` it prepares, and from one `yield` to the next it does one round
of work, always the same; it is told how many times it will yield. It checks what came of a round by its size
alone, which costs next to nothing.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp import commands

from leveret.broker.config import Settings
from leveret.broker.server.committer import Answer, DueRequest, LoadRequest, Written, read
from leveret.broker.server.node import Node
from leveret.broker.server.write_behind import WriteBehind
from leveret.protocol.methods import make
from leveret.protocol.properties import NO_PROPERTIES, replace, to_json
from leveret.protocol.tables import encode_table
from leveret.storage.batch import Batch
from leveret.storage.changes import QueueDeclared
from leveret.storage.redo_log import NAME_BYTES, RedoLog
from leveret.storage.sqlite import SqliteStore
from leveret.storage.stored import Snapshot

from ..peer import Peer
from ..storage.engines import Content, fast_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pamqp.base import Frame

    from leveret.broker.server.session import Session
    from leveret.storage.batch import StoredContent
    from leveret.storage.store import Store

NOW_MS = 1_700_000_000_000
NO_ARGUMENTS = encode_table({})
PERSISTENT = replace(delivery_mode=2)
SMALL, LARGE = bytes(range(16)), bytes(range(256)) * 4
RUN = 1000  # messages that arrive in one turn
CONFIRMED_RUN = 100
FANOUT = 10
TOPIC_QUEUES = 100
BATCH = 500  # messages in one transaction
LONG = 2500  # messages in a queue that is read back: more than one window
SINGLES = 200
REFERENCE_RUNS = 4


class AnsweringStore:
    """The store's threads without threads. Every batch is durable at once; a store is only read."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._answers: list[Answer] = []

    settling_waits_ms = 0

    def write(self, batch: Batch, with_rows: bool) -> None:
        """See `StoreThreads.write`."""
        self._answers.append(Written(batch))

    def read(self, request: LoadRequest | DueRequest) -> None:
        """See `StoreThreads.read`."""
        assert self._store is not None
        self._answers.append(read(self._store, request))

    def make_rows(self) -> None:
        """See `StoreThreads.make_rows`."""

    def next_wake_ms(self) -> int:
        """See `StoreThreads.next_wake_ms`."""
        return 0

    def answers(self, now_ms: int) -> list[Answer]:
        """See `StoreThreads.answers`."""
        answers, self._answers = self._answers, []
        return answers

    @property
    def has_answers(self) -> bool:
        """Whether another turn is due."""
        return bool(self._answers)


class NoDisk:
    """Takes what a redo log writes."""

    def write(self, data: bytes, offset: int) -> None:
        """See `DirectWriter.write`."""

    def finish(self) -> bool:
        """See `DirectWriter.finish`."""
        return True

    def wait(self) -> None:
        """See `DirectWriter.wait`."""

    def close(self) -> None:
        """See `DirectWriter.close`."""


class RecordingStore(AnsweringStore):
    """The same with a redo log. No rows are made."""

    def __init__(self) -> None:
        super().__init__(None)
        self._behind = WriteBehind(few=0)
        self._behind.log = RedoLog(Path("none"), bytes(NAME_BYTES), NoDisk())
        self._is_recording = False

    def write(self, batch: Batch, with_rows: bool) -> None:
        """See `StoreThreads.write`."""
        self._is_recording = self._behind.record(batch)
        if not self._is_recording:
            for job in self._behind.jobs_for(batch):
                self._behind.done(job)
            super().write(batch, with_rows)

    def answers(self, now_ms: int) -> list[Answer]:
        """See `StoreThreads.answers`."""
        batch = self._behind.finish(now_ms)
        if batch is None:
            return super().answers(now_ms)
        self._is_recording = False
        return [Written(batch)]

    @property
    def has_answers(self) -> bool:
        """Whether another turn is due."""
        return self._is_recording or bool(self._answers)


class Server:
    """A broker whose turns are called one by one."""

    def __init__(self, store: Store | None = None, *, has_redo_log: bool = False) -> None:
        self.store = RecordingStore() if has_redo_log else AnsweringStore(store)
        snapshot = Snapshot([], [], []) if store is None else store.load()
        self.node = Node(Settings(), self.store, snapshot, lambda: NOW_MS, lambda size: "t" * size)
        self.peer = Peer()
        self.written = 0  # bytes to all clients since `expect`
        self._sessions: list[Session] = []

    def connect(self) -> Session:
        """Connect a client and open channel 1."""
        name = f"127.0.0.1:{40_000 + len(self._sessions)} -> 127.0.0.1:5672"
        session = self.node.open_session("127.0.0.1", name, True)
        assert session is not None
        self._sessions.append(session)
        self.turns(session, self.peer.handshake(1))
        return session

    def consumer(self, queue: str, *, no_ack: bool = True) -> Session:
        """Connect a client that consumes from a queue."""
        session = self.connect()
        self.call(session, commands.Basic.Consume, queue=queue, consumer_tag="c", no_ack=no_ack)
        return session

    def call(self, session: Session, method: type[Frame], **fields: object) -> None:
        """Send a method and do what follows."""
        self.turns(session, self.peer.send(1, method, **fields))

    def turn(self, session: Session, data: bytes) -> None:
        """Do one turn, in which these bytes arrive."""
        node = self.node
        node.begin_turn()
        if data:
            session.receive(data)
        node.end_turn()
        to_flush = node.to_flush
        while to_flush:
            outboxes = to_flush[:]
            to_flush.clear()
            for outbox in outboxes:
                size = len(outbox.take())
                self.written += size
                if outbox.sent(size):
                    next(each for each in self._sessions if each.outbox is outbox).output_drained()
        node.hand_over()

    def turns(self, session: Session, data: bytes) -> None:
        """Do turns until the broker rests."""
        self.turn(session, data)
        while self.store.has_answers or self.node.next_wake_ms() == NOW_MS:
            self.turn(session, b"")

    def acks(self, after: int, count: int) -> bytes:
        """Make acks of the deliveries behind one, a frame each."""
        send = self.peer.send
        return b"".join(
            send(1, commands.Basic.Ack, delivery_tag=after + each) for each in range(1, 1 + count)
        )

    def expect(self, size: int) -> None:
        """Check how much was written to clients since the last call."""
        assert self.written == size, f"{self.written} bytes were written, not {size}"
        self.written = 0

    def publishes(self, *routes: tuple[str, str], body: bytes, properties: bytes = NO_PROPERTIES) -> bytes:
        """Make publishes, one to each exchange and routing key."""
        peer = self.peer
        return b"".join(peer.publish(1, exchange, key, body, properties) for exchange, key in routes)

    def delivery_bytes(self, exchange: str, key: str, body: bytes, properties: bytes = NO_PROPERTIES) -> int:
        """Return the size of a delivery."""
        method = make(
            commands.Basic.Deliver, consumer_tag="c", delivery_tag=1, exchange=exchange, routing_key=key
        )
        return len(self.peer.send(1, method) + self.peer.content(1, body, properties))


def _one_queue(
    *,
    no_ack: bool = True,
    durable: bool = False,
    has_redo_log: bool = False,
    **arguments: int,
) -> tuple[Server, Session, Session]:
    """A broker with a publisher, queue "q" and its consumer."""
    server = Server(has_redo_log=has_redo_log)
    publisher = server.connect()
    table = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    server.call(publisher, commands.Queue.Declare, queue="q", durable=durable, arguments=table)
    return server, publisher, server.consumer("q", no_ack=no_ack)


def auto_ack(yields: int) -> Generator[None, None, None]:
    """Runs of small messages through a queue to a consumer."""
    server, publisher, _ = _one_queue()
    run = server.publishes(("", "q"), body=SMALL) * RUN
    size = server.delivery_bytes("", "q", SMALL) * RUN
    server.written = 0
    for _ in range(yields):
        yield
        server.turns(publisher, run)
        server.expect(size)


def acked(yields: int) -> Generator[None, None, None]:
    """The same, and each message is acked."""
    server, publisher, consumer = _one_queue(no_ack=False)
    run = server.publishes(("", "q"), body=SMALL) * RUN
    acks = [server.acks(each * RUN, RUN) for each in range(yields)]
    size = server.delivery_bytes("", "q", SMALL) * RUN
    server.written = 0
    for settled in acks:
        yield
        server.turns(publisher, run)
        server.turns(consumer, settled)
        server.expect(size)


def prioritised(yields: int) -> Generator[None, None, None]:
    """The same in a queue with priorities, of which two are in use."""
    server, publisher, consumer = _one_queue(no_ack=False, max_priority=10)
    low, high = replace(priority=1), replace(priority=5)
    run = server.publishes(("", "q"), body=SMALL, properties=low) * (RUN // 2) + server.publishes(
        ("", "q"), body=SMALL, properties=high
    ) * (RUN // 2)
    acks = [server.acks(each * RUN, RUN) for each in range(yields)]
    size = server.delivery_bytes("", "q", SMALL, low) * RUN
    server.written = 0
    for settled in acks:
        yield
        server.turns(publisher, run)
        server.turns(consumer, settled)
        server.expect(size)


def single(yields: int) -> Generator[None, None, None]:
    """One message and one delivery in a turn, as requests and replies are."""
    server, publisher, _ = _one_queue()
    publish = server.publishes(("", "q"), body=SMALL)
    size = server.delivery_bytes("", "q", SMALL) * SINGLES
    server.written = 0
    for _ in range(yields):
        yield
        for _ in range(SINGLES):
            server.turn(publisher, publish)
        server.expect(size)


def recorded(yields: int) -> Generator[None, None, None]:
    """One persistent message of 1 KiB at a time, recorded, confirmed, consumed and acked."""
    server, publisher, consumer = _one_queue(no_ack=False, durable=True, has_redo_log=True)
    server.call(publisher, commands.Confirm.Select)
    publish = server.publishes(("", "q"), body=LARGE, properties=PERSISTENT)
    acks = [server.acks(each, 1) for each in range(yields * SINGLES)]
    size = (server.delivery_bytes("", "q", LARGE, PERSISTENT) + len(acks[0])) * SINGLES
    server.written = 0
    for number in range(yields):
        yield
        for ack in acks[number * SINGLES : (number + 1) * SINGLES]:
            server.turns(publisher, publish)
            server.turns(consumer, ack)
        server.expect(size)


def fanout(yields: int) -> Generator[None, None, None]:
    """Runs of small messages to ten queues with a consumer each."""
    server = Server()
    publisher = server.connect()
    for number in range(FANOUT):
        server.call(publisher, commands.Queue.Declare, queue=f"q{number}")
        server.call(publisher, commands.Queue.Bind, queue=f"q{number}", exchange="amq.fanout")
        server.consumer(f"q{number}")
    run = server.publishes(("amq.fanout", "key"), body=SMALL) * RUN
    size = server.delivery_bytes("amq.fanout", "key", SMALL) * RUN * FANOUT
    server.written = 0
    for _ in range(yields):
        yield
        server.turns(publisher, run)
        server.expect(size)


def _topic(runs: list[list[bytes]]) -> Generator[None, None, None]:
    """1,000 wildcard bindings of 100 queues; in each round a run whose keys end in these words."""
    server = Server()
    publisher = server.connect()
    declaring: list[bytes] = []
    for number in range(TOPIC_QUEUES):
        queue, area, kind = f"q{number}", f"area{number // 10}", f"kind{number % 10}"
        declaring.append(server.peer.send(1, commands.Queue.Declare, queue=queue))
        keys = [f"{area}.{kind}.*", *(f"{area}.*.other{each}" for each in range(8))]
        keys.append(f"{area}.#" if number % 10 == 0 else f"{area}.#.other")
        declaring += [
            server.peer.send(1, commands.Queue.Bind, queue=queue, exchange="amq.topic", routing_key=key)
            for key in keys
        ]
    server.turns(publisher, b"".join(declaring))
    for number in range(TOPIC_QUEUES):
        server.consumer(f"q{number}")
    publishes = [
        server.publishes(("amq.topic", f"area{number // 10}.kind{number % 10}.000000"), body=SMALL)
        for number in range(TOPIC_QUEUES)
    ]
    pieces = [
        b"".join(
            publishes[number * 37 % TOPIC_QUEUES].replace(b"000000", word)
            for number, word in enumerate(words)
        )
        for words in runs
    ]
    size = server.delivery_bytes("amq.topic", "area0.kind0.000000", SMALL) * RUN * 19 // 10
    server.written = 0
    for piece in pieces:
        yield
        server.turns(publisher, piece)
        server.expect(size)


def topic(yields: int) -> Generator[None, None, None]:
    """1,000 wildcard bindings, of which 1.9 match; 100 routing keys, all seen before."""
    return _topic([[b"000000"] * RUN] * yields)


def topic_new_keys(yields: int) -> Generator[None, None, None]:
    """The same with routing keys that are all new."""
    numbers = iter(range(yields * RUN))
    return _topic([[b"%06d" % next(numbers) for _ in range(RUN)] for _ in range(yields)])


def confirmed(yields: int) -> Generator[None, None, None]:
    """Runs of persistent 1 KiB messages, confirmed, consumed and acked."""
    server, publisher, consumer = _one_queue(no_ack=False, durable=True)
    server.call(publisher, commands.Confirm.Select)
    run = server.publishes(("", "q"), body=LARGE, properties=PERSISTENT) * CONFIRMED_RUN
    acks = [server.acks(each * CONFIRMED_RUN, CONFIRMED_RUN) for each in range(yields)]
    confirm = len(server.acks(0, 1))
    size = server.delivery_bytes("", "q", LARGE, PERSISTENT) * CONFIRMED_RUN + confirm
    server.written = 0
    for settled in acks:
        yield
        server.turns(publisher, run)
        server.turns(consumer, settled)
        server.expect(size)


def written(yields: int) -> Generator[None, None, None]:
    """SQLite: a batch of 500 messages of 1 KiB, and one that settles them."""
    with (
        fast_directory() as directory,
        closing(SqliteStore(directory / "guard.db", describe=to_json)) as store,
    ):
        declared = Batch(1)
        declared.definitions.append(QueueDeclared(1, "/", "q", False, NO_ARGUMENTS))
        store.apply(declared)
        contents: list[StoredContent] = [Content(LARGE, "", "q", PERSISTENT) for _ in range(BATCH)]
        for number in range(yields):
            first = 1 + number * BATCH
            yield
            enqueued, settled = Batch(2), Batch(3)
            enqueued.enqueue(1, first, contents)
            store.apply(enqueued)
            for position in range(first, first + BATCH):
                settled.settle(1, position, len(LARGE))
            store.apply(settled)


def read_back(yields: int) -> Generator[None, None, None]:
    """A long queue is read from SQLite and delivered."""
    with (
        fast_directory() as directory,
        closing(SqliteStore(directory / "guard.db", describe=to_json)) as store,
    ):
        contents: list[StoredContent] = [Content(LARGE, "", "q1", PERSISTENT) for _ in range(LONG)]
        for number in range(1, 1 + yields):
            batch = Batch(number)
            batch.definitions.append(QueueDeclared(number, "/", f"q{number}", False, NO_ARGUMENTS))
            batch.enqueue(number, 1, contents)
            store.apply(batch)
        server = Server(store)
        sessions = [server.connect() for _ in range(yields)]
        size = server.delivery_bytes("", "q1", LARGE, PERSISTENT) * LONG
        size += len(server.peer.send(1, commands.Basic.ConsumeOk, consumer_tag="c"))
        server.written = 0
        for number, session in enumerate(sessions, 1):
            consume = server.peer.send(
                1, commands.Basic.Consume, queue=f"q{number}", consumer_tag="c", no_ack=True
            )
            yield
            server.turns(session, consume)
            server.expect(size)


def interpreter(yields: int) -> Generator[None, None, None]:
    """What Python itself needs, whatever Leveret does: calls, attributes, small objects, bytes."""
    data = bytes(range(256)) * 64
    for _ in range(yields):
        yield
        for _ in range(REFERENCE_RUNS):
            queue: deque[_Piece] = deque()
            by_key: dict[bytes, int] = {}
            for start in range(0, len(data), 32):
                piece = _Piece(data[start : start + 16], int.from_bytes(data[start : start + 4], "big"))
                by_key[piece.data] = by_key.get(piece.data, 0) + piece.size()
                queue.append(piece)
            pieces: list[bytes] = []
            while queue:
                pieces += queue.popleft().parts()
            assert len(b"".join(pieces)) == 20 * len(data) // 32


class _Piece:
    """An object as the broker has many."""

    __slots__ = ("data", "number")

    def __init__(self, data: bytes, number: int) -> None:
        self.data = data
        self.number = number

    def size(self) -> int:
        return len(self.data)

    def parts(self) -> tuple[bytes, bytes]:
        return self.data, self.number.to_bytes(4, "big")


def database(yields: int) -> Generator[None, None, None]:
    """What SQLite itself needs: rows in, rows out, rows removed."""
    rows = [(number, LARGE, "key") for number in range(1000)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB, key TEXT)")
        for _ in range(yields):
            yield
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
            assert len(connection.execute("SELECT * FROM t ORDER BY id").fetchall()) == len(rows)
            connection.executemany("DELETE FROM t WHERE id = ?", [row[:1] for row in rows])


class Loop(NamedTuple):
    """A loop, and how much of it is counted."""

    run: Callable[[int], Generator[None, None, None]]
    messages: int  # in one round
    rounds: int  # to count, after as many to warm up
    reference: str = "Python"  # what else takes longer with another build of it

    def start(self) -> Generator[None, None, None]:
        """Prepare; the rounds to warm up and to count are what `next` does."""
        rounds = self.run(2 * self.rounds + 1)  # what follows the last `yield` is not done: it cleans up
        next(rounds)
        return rounds


LOOPS: Final = {
    "transient, auto-ack": Loop(auto_ack, RUN, 3),
    "transient, acked": Loop(acked, RUN, 3),
    "priorities, acked": Loop(prioritised, RUN, 3),
    "one at a time": Loop(single, SINGLES, 3),
    "fanout to 10": Loop(fanout, RUN, 1),
    "topic": Loop(topic, RUN, 3),
    "topic, new keys": Loop(topic_new_keys, RUN, 1),
    "persistent, confirmed, acked": Loop(confirmed, CONFIRMED_RUN, 5),
    "one at a time, recorded": Loop(recorded, SINGLES, 3),
    "written and settled": Loop(written, BATCH, 1, "SQLite"),
    "read back": Loop(read_back, LONG, 1),
}
REFERENCES: Final = {"Python": Loop(interpreter, 1, 1), "SQLite": Loop(database, 1, 1)}
