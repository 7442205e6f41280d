"""The clients of the crash test: publishers, consumers, and one that changes metadata.

Each runs in a thread, connects when the broker is up, works until the connection dies or it is told to stop,
and writes what it did and saw into the history. A client that loses its connection says so in the history
before it rests; the broker is started again only when all rest (`Gate`). So no line of a past life follows
the next life's first.
"""

from __future__ import annotations

import hashlib
import random
import struct
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pamqp import commands, header

from .client import Connection, Content, Gone, Incoming, Refused, content_frames, method_frame

if TYPE_CHECKING:
    from pamqp.common import FieldValue

    from .history import History
    from .topology import Route, Topology

PATIENCE_S = 30.0  # no wait for an answer is longer


class Gate:
    """Lets clients work only while the broker is up, and knows when all of them rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._working: set[str] = set()

    def enter(self, name: str, timeout: float) -> bool:
        """Wait for the broker; return whether the client may work now (and must `leave`)."""
        with self._changed:
            if self._changed.wait_for(lambda: self._open, timeout):
                self._working.add(name)
                return True
            return False

    def leave(self, name: str) -> None:
        """Say that this client rests."""
        with self._changed:
            self._working.discard(name)
            self._changed.notify_all()

    def open(self) -> None:
        """The broker is up."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """The broker is about to go; nobody begins to work."""
        with self._changed:
            self._open = False

    def wait_until_all_rest(self, timeout: float) -> None:
        """Wait until nobody works.

        Raises:
            TimeoutError: somebody still does.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._working, timeout):
                raise TimeoutError(
                    f"clients that did not notice the end of the broker: {sorted(self._working)}"
                )


@dataclass
class Shared:
    """What all clients of a run have in common."""

    history: History
    topology: Topology
    port: int
    seed: int
    host: str = "127.0.0.1"
    gate: Gate = field(default_factory=Gate)
    calm: threading.Event = field(default_factory=threading.Event)  # no more rejections and disconnections
    resting: threading.Event = field(default_factory=threading.Event)  # nobody consumes, queues grow long
    errors: list[BaseException] = field(default_factory=list)  # of the test programme itself
    backlog: int = 0  # about how many copies wait; publishers pause when there are many
    backlog_limit: int = 0
    largest_body: int = 65536


class Client:
    """A thread that works in sessions, one connection and one channel each."""

    kind: ClassVar[str] = "client"
    frame_max: int = 131072

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared = shared
        self.history = shared.history
        self.name = f"{self.kind}-{number}"
        self.random = random.Random(f"{shared.seed}/{self.name}")
        self.stopping = threading.Event()
        self.channel = ""
        self._sessions = 0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to work as soon as the gate opens."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end.

        Raises:
            TimeoutError: it did not come.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self.name} does not stop")

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                if self.pausing():
                    time.sleep(0.02)
                elif self.shared.gate.enter(self.name, timeout=0.1):
                    try:
                        self._work()
                    finally:
                        self.shared.gate.leave(self.name)
        except BaseException as error:
            self.shared.errors.append(error)

    def _work(self) -> None:
        """Run one session from connecting to the end of the connection."""
        self._sessions += 1
        self.channel = f"{self.name}/{self._sessions}"
        try:
            connection = Connection(
                self.shared.host, self.shared.port, frame_max=self.frame_max, deadline_s=PATIENCE_S
            )
        except Gone:
            time.sleep(0.01)
            return
        except Refused as refused:
            self.history.add("refused", channel=self.channel, text=f"login: {refused}")
            time.sleep(0.1)
            return
        try:
            connection.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
            self.session(connection)
        except Gone:
            self.take(connection.last_words())
            self.history.add("lost", channel=self.channel)
        except Refused as refused:
            self.take(connection.last_words())
            self.history.add("refused", channel=self.channel, text=str(refused))
            self.history.add("lost", channel=self.channel, own=True)
            time.sleep(0.1)
        finally:
            connection.cut()

    def pausing(self) -> bool:
        """Return whether no session is wanted now."""
        return False

    def session(self, connection: Connection) -> None:
        """Do the client's work; return after a close in order (and its event), raise Gone or Refused
        otherwise."""
        raise NotImplementedError

    def take(self, arrived: list[Incoming]) -> None:
        """Write down what came."""

    def hang_up(self, connection: Connection) -> None:
        """Cut the connection, one way or the other. The event stands before the act."""
        self.history.add("lost", channel=self.channel, own=True)
        connection.cut(reset=self.random.random() < 0.5)


class Publisher(Client):
    """Publishes with confirms, up to a window of unconfirmed messages, in bursts."""

    kind = "publisher"
    window = 200
    bursts: tuple[int, ...] = (1, 1, 2, 5, 20)  # messages
    disconnect = 0.002  # of bursts

    def __init__(self, shared: Shared, number: int) -> None:
        super().__init__(shared, number)
        self.frame_max = (131072, 4096, 131072, 8192)[number % 4]
        self._filler = random.Random(f"{shared.seed}/filler").randbytes(1 << 17)
        self._routes = shared.topology.routes()
        self._published = 0  # in this session
        self._unconfirmed: dict[int, int] = {}  # n -> copies

    def session(self, connection: Connection) -> None:
        """Publish until told to stop, then wait for the last confirm and close."""
        connection.call(1, commands.Confirm.Select(), commands.Confirm.SelectOk)
        self._published = 0
        self._unconfirmed = {}
        waiting_since = time.monotonic()
        while not (self.stopping.is_set() and not self._unconfirmed):
            crowded = self.shared.backlog > self.shared.backlog_limit
            if len(self._unconfirmed) < self.window and not self.stopping.is_set() and not crowded:
                connection.send(self._burst(connection.frame_max))
                if self.random.random() < self.disconnect and not self.shared.calm.is_set():
                    self.hang_up(connection)
                    return
            arrived = connection.read(0.001 if len(self._unconfirmed) < self.window and not crowded else 0.1)
            self.take(arrived)
            if arrived or not self._unconfirmed:
                waiting_since = time.monotonic()
            elif time.monotonic() - waiting_since > PATIENCE_S:
                raise Refused(f"no confirm for {PATIENCE_S} s")
        self.take(connection.close_channel(1))
        self.history.add("closed", channel=self.channel)
        connection.close()

    def take(self, arrived: list[Incoming]) -> None:
        """Write down confirms and returns."""
        for _, thing in arrived:
            if isinstance(thing, Content) and isinstance(thing.method, commands.Basic.Return):
                of, n = name_in(thing.body)
                if of != self.channel or thing.method.reply_code != 312:
                    text = f"odd return: {of}:{n} {thing.method.reply_code} {thing.method.reply_text}"
                    self.history.add("refused", channel=self.channel, text=text)
                else:
                    self.history.add("returned", channel=self.channel, n=n)
            elif isinstance(thing, (commands.Basic.Ack, commands.Basic.Nack)):
                ack = isinstance(thing, commands.Basic.Ack)
                self.history.add(
                    "confirm", channel=self.channel, tag=thing.delivery_tag, multiple=thing.multiple, ack=ack
                )
                self._answered(thing.delivery_tag, multiple=thing.multiple)
            else:
                self.history.add("refused", channel=self.channel, text=f"unexpected {thing}")

    def _answered(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            for n in [n for n in self._unconfirmed if n <= tag]:
                del self._unconfirmed[n]
        else:
            self._unconfirmed.pop(tag, None)

    def _burst(self, frame_max: int) -> bytes:
        frames = []
        route = self.random.choice(self._routes)
        for _ in range(self.random.choice(self.bursts)):
            if self.random.random() < 0.3:
                route = self.random.choice(self._routes)
            frames.append(self._publish(route, frame_max))
        return b"".join(frames)

    def _publish(self, route: Route, frame_max: int) -> bytes:
        self._published += 1
        name = f"{self.channel}:{self._published}"
        persistent = self.random.random() < 0.9
        properties = property_list(self.random, name, persistent=persistent)
        body = self._body(name)
        self._unconfirmed[self._published] = len(route.queues)
        self.shared.backlog += len(route.queues)
        self.history.add(
            "publish",
            channel=self.channel,
            n=self._published,
            exchange=route.exchange,
            key=route.key,
            queues=route.queues,
            body=hashlib.sha256(body).hexdigest(),
            properties=zlib.crc32(properties),
            persistent=persistent,
            mandatory=route.mandatory,
        )
        publish = commands.Basic.Publish(
            exchange=route.exchange, routing_key=route.key, mandatory=route.mandatory
        )
        return method_frame(1, publish) + content_frames(1, properties, body, frame_max)

    def _body(self, name: str) -> bytes:
        """Return a body that begins with the message's name: 256 bytes or more, small ones more often."""
        size = int(256 * (self.shared.largest_body / 256) ** (self.random.random() ** 2))
        start = self.random.randrange(len(self._filler) - size)
        return (name.encode() + b"\n" + self._filler[start : start + size])[:size]


class PatientPublisher(Publisher):
    """Publishes one message at a time, and waits for its confirm: what the redo log is for."""

    window = 1
    bursts = (1,)


class Consumer(Client):
    """Consumes a few queues: acks most, requeues or rejects some, holds some back, and hangs up now and
    then."""

    kind = "consumer"
    reject = 0.05  # of deliveries, half of them without requeue
    hold = 0.1  # of deliveries: settled later, out of order
    disconnect = 0.01  # of batches

    def __init__(
        self, shared: Shared, number: int, queues: list[str], *, transactional: bool = False
    ) -> None:
        super().__init__(shared, number)
        self._queues = queues
        self._dead = shared.topology.queues()
        self._transactional = transactional
        self._held: dict[int, str] = {}  # delivery tag -> queue
        self._closing = False
        self.last_delivery = 0.0

    def pausing(self) -> bool:
        """Return whether consumers rest."""
        return self.shared.resting.is_set()

    def session(self, connection: Connection) -> None:
        """Consume until told to stop or to rest."""
        self._held = {}
        self._closing = False
        prefetch = self.random.choice((10, 30, 100))
        connection.call(1, commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)
        if self._transactional:
            connection.call(1, commands.Tx.Select(), commands.Tx.SelectOk)
            self.history.add("transact", channel=self.channel)
        for queue in self._queues:
            self.history.add("consume", channel=self.channel, queue=queue)
            consume = commands.Basic.Consume(queue=queue, consumer_tag=queue)
            connection.call(1, consume, commands.Basic.ConsumeOk)
        while not self.stopping.is_set() and not self.pausing():
            fresh = self._record(connection.read(0.02))
            calm = self.shared.calm.is_set()
            if not calm and self.random.random() < self.disconnect:
                break
            self._settle(connection, fresh, calm=calm)
        if self.stopping.is_set():
            self._settle(connection, {}, calm=True)
        elif self.random.random() < 0.5:
            self.hang_up(connection)
            return
        self._closing = True
        self.history.add("closing", channel=self.channel)
        connection.close_channel(1)
        self.history.add("closed", channel=self.channel)
        connection.close()

    def take(self, arrived: list[Incoming]) -> None:
        """Write down deliveries that will not be settled any more."""
        if not self._closing:
            self._record(arrived)

    def _record(self, arrived: list[Incoming]) -> dict[int, str]:
        """Write deliveries down; return their tags and queues."""
        fresh = {}
        for _, thing in arrived:
            if not (isinstance(thing, Content) and isinstance(thing.method, commands.Basic.Deliver)):
                self.history.add("refused", channel=self.channel, text=f"unexpected {thing}")
                continue
            self.last_delivery = time.monotonic()
            deliver = thing.method
            tag, queue = deliver.delivery_tag or 0, deliver.consumer_tag or ""
            of, n = name_in(thing.body)
            more: dict[str, object] = {}
            if queue.endswith(".dead"):
                more["dead_from"] = newest_death(thing.properties)
            self.history.add(
                "deliver",
                channel=self.channel,
                tag=tag,
                queue=queue,
                of=of,
                n=n,
                exchange=deliver.exchange,
                key=deliver.routing_key,
                body=hashlib.sha256(thing.body).hexdigest(),
                properties=zlib.crc32(thing.properties),
                redelivered=deliver.redelivered,
                **more,
            )
            fresh[tag] = queue
        return fresh

    def _settle(self, connection: Connection, fresh: dict[int, str], *, calm: bool) -> None:
        """Settle what has come, and perhaps what was held."""
        frames: list[bytes] = []
        chance = self.random.random
        idle = not fresh
        for tag, queue in fresh.items():
            dice = 1.0 if calm else chance()
            if dice < self.reject / 2:
                frames.append(self._requeue(tag))
            elif dice < self.reject and self._dead[queue] is not None:
                self.history.add("settle", channel=self.channel, tag=tag, multiple=False, how="drop")
                frames.append(method_frame(1, commands.Basic.Reject(tag, requeue=False)))
            elif dice < self.reject + self.hold:
                self._held[tag] = queue
            else:
                frames.append(self._ack(tag))
        if self._held and (idle or calm or chance() < 0.2):
            if chance() < 0.7:
                self.shared.backlog -= len(self._held) - 1
                frames.append(self._ack(max(self._held), multiple=True))
            else:
                frames.extend(self._ack(tag) for tag in sorted(self._held, reverse=True))
            self._held.clear()
        if frames:
            connection.send(b"".join(frames))
        if self._transactional and (frames or idle):
            self.history.add("commit", channel=self.channel)
            connection.call(1, commands.Tx.Commit(), commands.Tx.CommitOk)
            self.history.add("committed", channel=self.channel)

    def _ack(self, tag: int, *, multiple: bool = False) -> bytes:
        self.history.add("settle", channel=self.channel, tag=tag, multiple=multiple, how="ack")
        self.shared.backlog -= 1
        return method_frame(1, commands.Basic.Ack(tag, multiple))

    def _requeue(self, tag: int) -> bytes:
        self.history.add("settle", channel=self.channel, tag=tag, multiple=False, how="requeue")
        if self.random.random() < 0.5:
            return method_frame(1, commands.Basic.Reject(tag, requeue=True))
        return method_frame(1, commands.Basic.Nack(tag, multiple=False, requeue=True))


class Administrator(Client):
    """Declares, binds and deletes, and after each start of the broker looks at everything it knows.

    Its objects, its territory, are nobody else's. They have fixed properties by name, so that declaring one
    that is there again must succeed. A binding is looked at by sending a message through it.
    """

    kind = "administrator"
    pause_s = 0.005
    stock_limit = 10_000

    def __init__(self, shared: Shared, number: int, territory: int) -> None:
        super().__init__(shared, number)
        self._stock_share = (0.1, 0.5)[territory % 2]  # of its changes

        def name(kind: str) -> str:
            return shared.topology.name(f"admin{territory}.{kind}")

        self._exchanges = [name(f"x{i}") for i in range(3)]
        self._queues: dict[str, dict[str, FieldValue]] = {
            name(f"q{i}"): {"x-max-length": 1000 + i} if i % 2 else {} for i in range(5)
        }
        self._stocks = [name(f"stock{i}") for i in range(2)]
        self._stock: dict[str, int] = {}  # queue -> messages, when last known
        self._there: set[tuple[str, str]] = set()  # (kind, name) of what was there when last seen
        self._number = 1  # of the open AMQP channel

    @staticmethod
    def binding(exchange: str, queue: str) -> str:
        """Return the name of a binding."""
        return f"{exchange} -> {queue}"

    def objects(self) -> list[tuple[str, str, str, str]]:
        """Return (kind, name, exchange, queue) of every object there can be."""
        objects = [("exchange", exchange, exchange, "") for exchange in self._exchanges]
        objects += [("queue", queue, "", queue) for queue in (*self._queues, *self._stocks)]
        objects += [("binding", self.binding(x, q), x, q) for x in self._exchanges for q in self._queues]
        return objects

    def session(self, connection: Connection) -> None:
        """Look at everything, then change this and that until told to stop."""
        self._number = 1
        self.look(connection)
        while not self.stopping.is_set():
            self.change_something(connection)
            time.sleep(self.pause_s)
        self.look(connection)
        self.history.add("closed", channel=self.channel)
        connection.close()

    def change_something(self, connection: Connection) -> None:
        """Make or remove an object, or change a stock."""
        if self.random.random() < self._stock_share:
            self._change_stock(connection)
        else:
            self._change(connection)

    def look(self, connection: Connection) -> None:
        """Observe every object, exchanges and queues before bindings."""
        self._there.clear()
        self._stock.clear()
        for kind, name, exchange, queue in self.objects():
            found, text = self._find(connection, kind, exchange, queue)
            if found is not False:
                self._there.add((kind, name))
            fields = {"exchange": exchange, "queue": queue} if kind == "binding" else {}
            self.history.add("observe", kind=kind, name=name, found=found, text=text, **fields)
        for queue in self._stocks:
            if ("queue", queue) in self._there:
                passive = commands.Queue.Declare(queue=queue, passive=True)
                declared = connection.call(self._number, passive, commands.Queue.DeclareOk)
                self._observe_stock(queue, declared.message_count)

    def _observe_stock(self, queue: str, messages: int | None) -> None:
        self._stock[queue] = messages or 0
        self.history.add("observe", kind="stock", name=queue, found=self._stock[queue], queue=queue)

    def _find(self, connection: Connection, kind: str, exchange: str, queue: str) -> tuple[bool | str, str]:
        """Return whether the object is there (or "different"), and a text."""
        try:
            if kind == "exchange":
                passive = commands.Exchange.Declare(exchange=exchange, passive=True)
                connection.call(self._number, passive, commands.Exchange.DeclareOk)
                connection.call(self._number, self._declare_exchange(exchange), commands.Exchange.DeclareOk)
            elif kind == "queue":
                passive_queue = commands.Queue.Declare(queue=queue, passive=True)
                connection.call(self._number, passive_queue, commands.Queue.DeclareOk)
                connection.call(self._number, self._declare_queue(queue), commands.Queue.DeclareOk)
            elif ("exchange", exchange) not in self._there:
                return False, ""
            else:
                return self._probe(connection, exchange, queue)
        except Refused as refused:
            if refused.code not in (404, 406):
                raise
            self._number += 1
            connection.call(self._number, commands.Channel.Open(), commands.Channel.OpenOk)
            return (False, "") if refused.code == 404 else ("different", str(refused))
        return True, ""

    def _probe(self, connection: Connection, exchange: str, queue: str) -> tuple[bool | str, str]:
        """Send a message by the binding's key and fetch it from the queue."""
        connection.call(self._number, commands.Confirm.Select(), commands.Confirm.SelectOk)
        publish = commands.Basic.Publish(exchange=exchange, routing_key=queue, mandatory=True)
        body = self.channel.encode()
        connection.send(
            method_frame(self._number, publish)
            + content_frames(self._number, b"\x10\x00\x02", body, connection.frame_max)
        )
        returned = self._wait_for_confirm(connection)
        if returned:
            return False, ""
        if ("queue", queue) not in self._there:
            return True, "and its queue is not"
        connection.send(method_frame(self._number, commands.Basic.Get(queue=queue, no_ack=True)))
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for _, thing in connection.read(0.1):
                if isinstance(thing, Content):
                    return True, ""
                if isinstance(thing, commands.Basic.GetEmpty):
                    return "different", "the message did not come to the queue"
        raise Refused("no answer to basic.get")

    def _wait_for_confirm(self, connection: Connection) -> bool:
        """Wait for the ack of a mandatory message; return whether it was returned before."""
        deadline = time.monotonic() + PATIENCE_S
        returned = False
        while time.monotonic() < deadline:
            for _, thing in connection.read(0.1):
                if isinstance(thing, Content) and isinstance(thing.method, commands.Basic.Return):
                    returned = True
                elif isinstance(thing, commands.Basic.Ack):
                    return returned
        raise Refused(f"no confirm within {PATIENCE_S} s")

    def _change(self, connection: Connection) -> None:
        """Make or remove something that can be made or removed."""
        kind, name, exchange, queue = self.random.choice(self.objects())
        there = (kind, name) in self._there
        parents = ("exchange", exchange) in self._there and ("queue", queue) in self._there
        if kind == "binding":
            if not parents:
                return
            if there:
                self._do(connection, "delete", kind, name, exchange, queue)
            else:
                self._do(connection, "declare", kind, name, exchange, queue)
        elif not there:
            self._do(connection, "declare", kind, name, exchange, queue)
        elif self.random.random() < 0.3:  # otherwise bindings would hardly ever have both ends
            self._do(connection, "delete", kind, name, exchange, queue)

    def _do(self, connection: Connection, op: str, kind: str, name: str, exchange: str, queue: str) -> None:
        fields: dict[str, object] = {"op": op, "kind": kind, "name": name}
        if kind == "binding":
            fields |= {"exchange": exchange, "queue": queue}
        self.history.add("change", phase="invoke", **fields)
        number = self._number
        try:
            if kind == "exchange" and op == "declare":
                connection.call(number, self._declare_exchange(exchange), commands.Exchange.DeclareOk)
            elif kind == "exchange":
                connection.call(
                    number, commands.Exchange.Delete(exchange=exchange), commands.Exchange.DeleteOk
                )
            elif kind == "queue" and op == "declare":
                connection.call(number, self._declare_queue(queue), commands.Queue.DeclareOk)
            elif kind == "queue":
                connection.call(number, commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)
            elif op == "declare":
                bind = commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=queue)
                connection.call(number, bind, commands.Queue.BindOk)
            else:
                unbind = commands.Queue.Unbind(queue=queue, exchange=exchange, routing_key=queue)
                connection.call(number, unbind, commands.Queue.UnbindOk)
        except Gone:
            self.history.add("change", phase="unknown", **fields)
            raise
        self.history.add("change", phase="ok", **fields)
        self._note(op, kind, name, exchange, queue)

    def _change_stock(self, connection: Connection) -> None:
        """Put messages into a queue, all or none of them, or purge it."""
        queue = self.random.choice(self._stocks)
        if ("queue", queue) not in self._there:
            return
        target = self._stock.get(queue, 0) + self.random.choice((1, 10, 300, 3000))
        if target > self.stock_limit or self.random.random() < 0.2:
            target = 0
        fields: dict[str, object] = {"op": "declare", "kind": "stock", "name": queue, "queue": queue}
        if target == 0:  # its answer tells how many there were
            passive = commands.Queue.Declare(queue=queue, passive=True)
            declared = connection.call(self._number, passive, commands.Queue.DeclareOk)
            self._observe_stock(queue, declared.message_count)
        self.history.add("change", phase="invoke", target=target, **fields)
        try:
            if target:
                self._fill(connection, queue, target - self._stock.get(queue, 0))
            else:
                connection.call(self._number, commands.Queue.Purge(queue=queue), commands.Queue.PurgeOk)
        except Gone:
            self.history.add("change", phase="unknown", target=target, **fields)
            raise
        self.history.add("change", phase="ok", target=target, **fields)
        self._stock[queue] = target

    def _fill(self, connection: Connection, queue: str, messages: int) -> None:
        """Publish to a queue in a transaction."""
        self._number += 1
        connection.call(self._number, commands.Channel.Open(), commands.Channel.OpenOk)
        connection.call(self._number, commands.Tx.Select(), commands.Tx.SelectOk)
        one = method_frame(self._number, commands.Basic.Publish(exchange="", routing_key=queue))
        one += content_frames(self._number, b"\x10\x00\x02", b"stock" * 50, connection.frame_max)
        connection.send(one * messages)
        connection.call(self._number, commands.Tx.Commit(), commands.Tx.CommitOk)
        connection.close_channel(self._number)
        self._number -= 1

    def _note(self, op: str, kind: str, name: str, exchange: str, queue: str) -> None:
        if op == "declare":
            self._there.add((kind, name))
            return
        self._there.discard((kind, name))
        if kind == "exchange":
            self._there -= {("binding", self.binding(exchange, other)) for other in self._queues}
        elif kind == "queue":
            self._stock[queue] = 0
            self._there -= {("binding", self.binding(other, queue)) for other in self._exchanges}

    def _declare_exchange(self, name: str) -> commands.Exchange.Declare:
        return commands.Exchange.Declare(exchange=name, exchange_type="direct", durable=True)

    def _declare_queue(self, name: str) -> commands.Queue.Declare:
        return commands.Queue.Declare(queue=name, durable=True, arguments=self._queues.get(name, {}))

    def clean_up(self, connection: Connection) -> None:
        """Delete all it may have made."""
        for exchange in self._exchanges:
            connection.call(1, commands.Exchange.Delete(exchange=exchange), commands.Exchange.DeleteOk)
        for queue in (*self._queues, *self._stocks):
            connection.call(1, commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)


def name_in(body: bytes) -> tuple[str | None, int | None]:
    """Return the channel and number that a body begins with, or (None, None)."""
    head, separator, _ = body[:200].partition(b"\n")
    channel, colon, n = head.rpartition(b":")
    if not separator or not colon or not n.isdigit():
        return None, None
    return channel.decode(errors="replace"), int(n)


def newest_death(properties: bytes) -> list[object]:
    """Return [queue, reason] of the first x-death entry of a raw property list."""
    parsed = header.ContentHeader()
    with suppress(ValueError, struct.error):
        parsed.unmarshal(struct.pack(">HHQ", 60, 0, 0) + properties)
    deaths = (parsed.properties.headers or {}).get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], dict):
        return []
    return [deaths[0].get("queue"), deaths[0].get("reason")]


# Header tables as bytes, so that nothing is lost on the way to the wire: a double, integers of both signs and
# several sizes, a nested table and an array, a timestamp, bytes, an empty string, void.
HEADERS = (
    b"",
    b"\x07attemptb\x03",
    b"\x05ratiod\x3f\xb9\x99\x99\x99\x99\x99\x9a\x05smallf\x3d\xcc\xcc\xcd\x03bigl\x80\x00\x00\x00\x00\x00\x00\x01",
    b"\x04nestF\x00\x00\x00\x08\x01kS\x00\x00\x00\x01v\x04listA\x00\x00\x00\x07t\x01I\xff\xff\xff\xfe",
    b"\x04whenT\x00\x00\x00\x00\x65\x00\x00\x00\x03rawx\x00\x00\x00\x03\x00\xff\x01\x05emptyS\x00\x00\x00\x00\x04voidV",
)


def _short_string(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def property_list(dice: random.Random, message_id: str, *, persistent: bool) -> bytes:
    """Return a raw property list: flags, then those properties that it names, in their order."""
    flags = 1 << 12 | 1 << 7  # delivery-mode, message-id
    table = dice.choice(HEADERS)
    parts = []
    if dice.random() < 0.5:
        flags |= 1 << 15
        parts.append(_short_string("application/octet-stream"))
    if table or dice.random() < 0.5:
        flags |= 1 << 13
        parts.append(struct.pack(">I", len(table)) + table)
    parts.append(b"\x02" if persistent else b"\x01")
    if dice.random() < 0.3:
        flags |= 1 << 11
        parts.append(bytes([dice.randrange(10)]))
    if dice.random() < 0.3:
        flags |= 1 << 10
        parts.append(_short_string("correlation-é"))
    parts.append(_short_string(message_id))
    if dice.random() < 0.3:
        flags |= 1 << 6
        parts.append(struct.pack(">Q", 1_700_000_000))
    return struct.pack(">H", flags) + b"".join(parts)
