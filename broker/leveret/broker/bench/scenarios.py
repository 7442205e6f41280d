"""The scenarios of messages, what each sets up; and the table of all of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp import commands

from leveret.broker.bench import idle, operations
from leveret.broker.bench.figures import NS, Histogram
from leveret.broker.bench.flows import STALL_NS, Flow
from leveret.broker.bench.publisher import publish_rows
from leveret.protocol.properties import NO_PROPERTIES, Properties, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.run import Run
    from leveret.broker.bench.wire import Connection

CONFIRM_WINDOW: Final = 5000
FANOUT_QUEUES: Final = 10
LARGE_PREFETCH: Final = 20
MANY_CONNECTIONS: Final = 200
MANY_RATE: Final = 5000.0
TOPIC_KEYS: Final = 100  # and as many queues, with 10 bindings each
TOPIC_CONNECTIONS: Final = 10
TOPIC_STEP: Final = 37  # from one message's key to the next one's, so that neighbours differ
BACKLOG: Final = 1_000_000
DURABLE_BACKLOG: Final = 200_000
REPLY_TO: Final = "amq.rabbitmq.reply-to"
POLL_S: Final = 0.002  # between two looks at a queue that fills


class Scenario(NamedTuple):
    """A kind of load."""

    about: str
    run: Callable[[Run], None]
    has_rate: bool = True  # whether it can be paced


def _one_queue(run: Run, flow: Flow, *, durable: bool = False) -> None:
    """One publisher, one consumer, one queue between them."""
    publishing, consuming = run.connect(1), run.connect(1)
    queue = run.queue(publishing, "queue", durable=durable)
    routes = [("", queue)]
    publisher = flow.add_publisher(publishing, 1, routes)
    flow.add_consumer(consuming, 1, queue, publisher, routes)
    flow.go()


def _transient(run: Run) -> None:
    _one_queue(run, Flow(run))


def _transient_ack(run: Run) -> None:
    _one_queue(run, Flow(run, acks=True))


def _large(run: Run) -> None:
    _one_queue(run, Flow(run, 1 << 20, acks=True, prefetch=LARGE_PREFETCH, ack_every=1))


def _persistent(run: Run) -> None:
    flow = Flow(run, 1024, persistent=True, confirms=True, window=CONFIRM_WINDOW, acks=True)
    _one_queue(run, flow, durable=True)


def _persistent_1(run: Run) -> None:
    """Nobody consumes while it is measured; afterwards all is fetched and checked."""
    flow = Flow(run, 1024, persistent=True, confirms=True, window=1, acks=True)
    connection = run.connect(1, 2)
    queue = run.queue(connection, "queue", durable=True)
    routes = [("", queue)]
    publisher = flow.add_publisher(connection, 1, routes)
    flow.publish()
    flow.drain()
    flow.note()
    flow.add_consumer(connection, 2, queue, publisher, routes, latency=Histogram())
    flow.drain()
    flow.check()


def _fanout(run: Run) -> None:
    flow = Flow(run)
    publishing = run.connect(1)
    exchange = run.exchange(publishing, "fanout", "fanout")
    routes = [(exchange, "key")]
    publisher = flow.add_publisher(publishing, 1, routes)
    for number in range(FANOUT_QUEUES):
        queue = run.queue(publishing, f"queue-{number}")
        bind(publishing, exchange, queue, "")
        flow.add_consumer(run.connect(1), 1, queue, publisher, routes)
    flow.go()


def bind(connection: Connection, exchange: str, queue: str, key: str) -> None:
    """Bind a queue."""
    connection.call(
        1, commands.Queue.Bind, commands.Queue.BindOk, queue=queue, exchange=exchange, routing_key=key
    )


def topic_key(number: int) -> str:
    """Return the routing key with this number: area, kind and a third word."""
    return f"area{number // 10}.kind{number % 10}.part{number % 7}"


def topic_bindings(number: int) -> list[str]:
    """Return the ten binding keys of a queue.

    Each queue matches the routing key of its number, and each tenth queue those of its whole area: 1.9
    queues on average. The other bindings look similar and match nothing.
    """
    area, kind = f"area{number // 10}", f"kind{number % 10}"
    wide = f"{area}.#" if number % 10 == 0 else f"{area}.#.none"
    near = [f"{area}.*.none{each}" for each in range(4)] + [f"*.{kind}.none{each}" for each in range(4)]
    return [f"{area}.{kind}.*", wide, *near]


def topic_positions(number: int) -> tuple[int, ...]:
    """Return where in a turn of all keys a queue gets a message."""
    wanted = range(number, number + 10) if number % 10 == 0 else range(number, number + 1)
    places = {turn * TOPIC_STEP % TOPIC_KEYS: turn for turn in range(TOPIC_KEYS)}
    return tuple(sorted(places[key] for key in wanted))


def _topic(run: Run) -> None:
    flow = Flow(run)
    publishing = run.connect(1)
    exchange = run.exchange(publishing, "topic", "topic")
    turns = [(exchange, topic_key(turn * TOPIC_STEP % TOPIC_KEYS)) for turn in range(TOPIC_KEYS)]
    publisher = flow.add_publisher(publishing, 1, turns)
    channels = range(1, TOPIC_KEYS // TOPIC_CONNECTIONS + 1)
    connections = [run.connect(*channels) for _ in range(TOPIC_CONNECTIONS)]
    for number in range(TOPIC_KEYS):
        queue = run.queue(publishing, f"queue-{number}")
        for key in topic_bindings(number):
            bind(publishing, exchange, queue, key)
        positions = topic_positions(number)
        flow.add_consumer(
            connections[number % TOPIC_CONNECTIONS], 1 + number // TOPIC_CONNECTIONS, queue, publisher,
            [turns[position] for position in positions], cycle=TOPIC_KEYS, positions=positions,
        )  # fmt: skip
    flow.go()


def _many(run: Run) -> None:
    flow = Flow(run, rate=MANY_RATE, publisher_count=MANY_CONNECTIONS)
    for number in range(MANY_CONNECTIONS):
        connection = run.connect(1, 2)
        queue = run.queue(connection, f"queue-{number}")
        routes = [("", queue)]
        publisher = flow.add_publisher(connection, 1, routes)
        flow.add_consumer(connection, 2, queue, publisher, routes)
    flow.go()


def _backlog(run: Run) -> None:
    _fill_and_drain(run, Flow(run, acks=True), BACKLOG)


def _backlog_persistent(run: Run) -> None:
    flow = Flow(run, 1024, persistent=True, confirms=True, window=CONFIRM_WINDOW, acks=True)
    _fill_and_drain(run, flow, DURABLE_BACKLOG)


def _fill_and_drain(run: Run, flow: Flow, messages: int) -> None:
    """Publish all with no consumer, then consume all; the two rates of the result are of these phases."""
    connection, consuming = run.connect(1, 2), run.connect(1)
    queue = run.queue(connection, "queue", durable=flow.persistent)
    routes = [("", queue)]
    publisher = flow.add_publisher(connection, 1, routes, limit=run.options.messages or messages)
    rss_bytes = run.broker_rss_bytes()
    start_ns = run.begin()
    flow.publish(start_ns)
    flow.drain()
    _wait_for_count(run, connection, queue, flow)
    filled_ns = time.perf_counter_ns()
    result = run.result
    result.publish_rate = flow.published * NS / (filled_ns - start_ns)
    run.end(flow.published)
    fill_cpu = result.cpu_per_million
    if run.processes is not None:
        result.extra["resident_bytes_per_message"] = (run.broker_rss_bytes() - rss_bytes) / flow.published
    run.begin()
    flow.add_consumer(consuming, 1, queue, publisher, routes, latency=Histogram())
    flow.drain()
    drained_ns = flow.last_ns()
    flow.note()
    result.deliver_rate = flow.delivered * NS / (drained_ns - filled_ns)
    drain_cpu = None if fill_cpu is None else (result.cpu_per_million or 0.0) - fill_cpu
    result.phases = {
        "fill": {"rate": result.publish_rate, "cpu_per_million": fill_cpu},
        "drain": {"rate": result.deliver_rate, "cpu_per_million": drain_cpu},
    }
    flow.check()


def _wait_for_count(run: Run, connection: Connection, queue: str, flow: Flow) -> None:
    """Wait until the queue says that it has all messages; RabbitMQ's may answer before it has taken them."""
    deadline_ns = time.perf_counter_ns() + STALL_NS
    waiting = -1
    while waiting != flow.published:
        declared = connection.call(
            1, commands.Queue.Declare, commands.Queue.DeclareOk, queue=queue, durable=flow.persistent
        )
        waiting = declared.message_count or 0
        if time.perf_counter_ns() > deadline_ns:
            run.faults.add("not in the queue", f"it counts {waiting} of {flow.published}")
            return
        if waiting != flow.published:
            time.sleep(POLL_S)


def _rpc(run: Run) -> None:
    """One client, one server, one request at a time; the reply comes by direct reply-to."""
    flow = Flow(run)
    flow.window = 1
    calling, serving = run.connect(1), run.connect(1)
    queue = run.queue(serving, "requests")
    properties = replace(NO_PROPERTIES, reply_to=REPLY_TO)
    publisher = flow.add_publisher(calling, 1, [("", queue)], properties)

    def answered(_first: int, count: int) -> None:
        publisher.answered += count

    flow.add_consumer(calling, 1, REPLY_TO, publisher, [], on_run=answered)
    server = _Server(serving, flow.body_bytes)
    stream = flow.add_consumer(
        serving, 1, queue, publisher, [("", queue)], on_run=server.answer, latency=Histogram()
    )
    server.properties = lambda: stream.properties
    flow.go()
    run.result.delivered = publisher.answered
    run.result.deliver_rate = None  # it would count requests and replies
    run.result.through_rate = publisher.answered / run.result.seconds


class _Server:
    """Answers requests with a body like theirs."""

    def __init__(self, connection: Connection, body_bytes: int) -> None:
        self.properties: Callable[[], bytes] = lambda: NO_PROPERTIES  # of the requests
        self._connection = connection
        self._body_bytes = body_bytes
        self._seen = b""
        self._rows = publish_rows(1, "", "", body_bytes, frame_max=connection.frame_max)

    def answer(self, first: int, count: int) -> None:
        """Reply to as many requests, the first with this number."""
        properties = self.properties()
        if properties != self._seen:
            self._seen = properties
            reply_to = (Properties.parse(properties).reply_to or b"").decode("utf-8", "surrogateescape")
            self._rows = publish_rows(1, "", reply_to, self._body_bytes, frame_max=self._connection.frame_max)
        self._connection.send(self._rows.build(count, first))


SCENARIOS: Final = {
    "transient": Scenario("one publisher, one consumer, auto-ack, 16-byte bodies", _transient),
    "transient-ack": Scenario("the same with manual acks, one for 100", _transient_ack),
    "persistent": Scenario("durable queue, 1 KiB, confirms with a window of 5000, acks", _persistent),
    "persistent-1": Scenario("the same, waiting for each confirm; consumed afterwards", _persistent_1),
    "fanout": Scenario("fanout exchange to 10 queues, each with a consumer", _fanout),
    "topic": Scenario("1,000 wildcard bindings of 100 queues; 1.9 of them match", _topic),
    "large": Scenario("1 MiB bodies, manual acks", _large),
    "many": Scenario("200 connections that publish and consume, 5,000/s in all", _many),
    "rpc": Scenario("requests and direct replies, one at a time", _rpc),
    "backlog": Scenario("1,000,000 messages with no consumer, then consumed and acked", _backlog, False),
    "backlog-persistent": Scenario(
        "200,000 of 1 KiB with confirms, persistent, then the same", _backlog_persistent, False
    ),
    "churn": Scenario("connect, declare, publish, get, close", operations.churn),
    "churn-8": Scenario("8 of these side by side", operations.churn_side_by_side),
    "declare": Scenario("declare, bind, delete a queue", operations.declare),
    "declare-durable": Scenario("the same with a durable queue", operations.declare_durable),
    "idle": Scenario("1,000 connections with a queue and a consumer each, that do nothing", idle.idle, False),
}
