"""Scenarios of operations, one after another: connections and queues that come and go.

An operation is timed from when it was due to its last reply. Several lines of operations side by side are
processes of their own, so that they do not wait for each other in one interpreter.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.bench.figures import NS, WARM_UP_NS, Histogram, Pace
from leveret.broker.bench.inbox import BrokerClosed
from leveret.broker.bench.order import Faults
from leveret.broker.bench.rows import body_rows
from leveret.broker.bench.run import TICK_NS, Options, Run
from leveret.broker.bench.wire import Connection, Unreachable
from leveret.protocol.content import encode_content
from leveret.protocol.errors import AMQPException
from leveret.protocol.methods import encode_method, make
from leveret.protocol.properties import NO_PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.bench.wire import Url

    Steps = Callable[[Url, Options, Faults], Callable[[int], None]]

SIDE_BY_SIDE: Final = 8
DECLARE_STEPS: Final = 3  # declare, bind, delete

_FORK: Final = multiprocessing.get_context("fork")


def churn(run: Run) -> None:
    """Connect, declare an exclusive queue, publish, get, close: one after another."""
    run.connect()  # learns the broker's name
    _one_line(run, _churn_step(run.url, run.options, run.faults))


def churn_side_by_side(run: Run) -> None:
    """Do that in several processes at once."""
    run.connect()
    _lines_side_by_side(run, _churn_step, SIDE_BY_SIDE)


def _churn_step(url: Url, options: Options, faults: Faults) -> Callable[[int], None]:
    body_bytes = options.size or 16
    bodies = body_rows(body_bytes, 0)

    def step(number: int) -> None:
        connection = Connection(url)
        connection.open_channel(1)
        declared = connection.call(1, commands.Queue.Declare, commands.Queue.DeclareOk, exclusive=True)
        queue = declared.queue or ""
        body = bodies.one(number)
        publish = encode_method(1, make(commands.Basic.Publish, routing_key=queue))
        connection.send(publish + encode_content(1, connection.frame_max, NO_PROPERTIES, body))
        got = connection.get(1, queue)
        if got is None:
            faults.add("lost", f"message {number}, published and fetched on one channel")
        elif got.body != body:
            faults.add("damaged", f"message {number}")
        connection.close()

    return step


def declare(run: Run) -> None:
    """Declare, bind and delete a transient queue; each of the three is an operation."""
    _declare_and_delete(run, durable=False)


def declare_durable(run: Run) -> None:
    """Do that with a durable queue."""
    _declare_and_delete(run, durable=True)


def _declare_and_delete(run: Run, *, durable: bool) -> None:
    connection = run.connect(1)
    name = run.prefix + "queue"

    def step(number: int) -> None:
        turn, kind = divmod(number - 1, DECLARE_STEPS)
        queue = f"{name}-{turn}"
        if kind == 0:
            declared = connection.call(
                1, commands.Queue.Declare, commands.Queue.DeclareOk, queue=queue, durable=durable
            )
            if declared.queue != queue or declared.message_count or declared.consumer_count:
                run.faults.add("not as declared", f"{queue} is {declared.queue}")
        elif kind == 1:
            connection.call(
                1, commands.Queue.Bind, commands.Queue.BindOk,
                queue=queue, exchange="amq.topic", routing_key="a.*.c",
            )  # fmt: skip
        else:
            connection.call(1, commands.Queue.Delete, commands.Queue.DeleteOk, queue=queue)

    _one_line(run, step, turn=DECLARE_STEPS)


# -- lines of operations


@dataclass(slots=True)
class _Line:
    """What one operation after another gave."""

    latency: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    faults: Faults = field(default_factory=Faults)
    done: int = 0
    rate: float = 0.0
    last_ns: int = 0
    cpu_seconds: float = 0.0


def _work(
    line: _Line, options: Options, step: Callable[[int], None], start_ns: int,
    tick: Callable[[int, float, int], None], turn: int = 1,
) -> None:  # fmt: skip
    """Do something again and again, or at a rate, and time it.

    Args:
        line: takes what is measured.
        options: how long, how often.
        step: does the operation with this number.
        start_ns: when the first is due.
        tick: is told the time, the share that is done, and how many.
        turn: operations that belong together; the last ones are completed.
    """
    now = start_ns
    length_ns = int(options.seconds * NS)
    wanted = options.messages
    pace = Pace(start_ns, 0 if wanted is not None else min(WARM_UP_NS, length_ns // 4))
    is_warm = wanted is not None
    while line.done % turn or (line.done < wanted if wanted is not None else now < start_ns + length_ns):
        due_ns = now
        if options.rate:
            due_ns = start_ns + int(line.done * NS / options.rate)
            if wanted is None and due_ns >= start_ns + length_ns and line.done % turn == 0:
                break
            time.sleep(max(due_ns - time.perf_counter_ns(), 0) / NS)
            line.late.add(time.perf_counter_ns() - due_ns)
        line.done += 1
        step(line.done)
        now = time.perf_counter_ns()
        if now >= pace.warm_ns:
            line.latency.add(now - due_ns)
            if not is_warm:
                is_warm = True
                pace.mark(now, (line.done,))
        tick(now, line.done / wanted if wanted is not None else (now - start_ns) / length_ns, line.done)
    pace.mark(now, (line.done,))
    (line.rate,) = pace.rates()
    line.last_ns = now


def _one_line(run: Run, step: Callable[[int], None], turn: int = 1) -> None:
    """Do operations one after another."""
    line = _Line()
    start_ns = run.begin()
    _work(line, run.options, step, start_ns, run.tick, turn)
    _note(run, line, start_ns)


def _note(run: Run, line: _Line, start_ns: int) -> None:
    """Note in the result what was measured."""
    result = run.result
    result.published = line.done
    result.seconds = max(line.last_ns - start_ns, 1) / NS
    result.publish_rate = result.through_rate = line.rate
    result.latency_ms = line.latency.summary_ms()
    result.sent_late_ms = line.late.summary_ms()
    run.end(line.done)


def _lines_side_by_side(run: Run, steps: Steps, count: int) -> None:
    """Do operations in several processes, and put together what they measured."""
    start_ns = run.begin()
    apart_ns = int(NS / run.options.rate) if run.options.rate else 0
    pipes: list[Pipe] = []
    processes = []
    try:
        for number in range(count):
            ours, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(
                target=_side_line,
                args=(
                    theirs,
                    run.url,
                    _part(run.options, number, count),
                    steps,
                    start_ns + number * apart_ns,
                ),
            )
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        line = _gather(run, pipes, start_ns)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    run.faults.merge(line.faults)
    run.result.generator_cpu_seconds += line.cpu_seconds
    run.result.generator_processes = count
    _note(run, line, start_ns)


def _part(options: Options, number: int, count: int) -> Options:
    """Return what one of so many lines is to do."""
    messages = options.messages
    if messages is not None:
        messages = messages // count + (number < messages % count)
    return replace(options, messages=messages, rate=options.rate / count if options.rate else None)


def _side_line(
    pipe: Pipe,
    url: Url,
    options: Options,
    steps: Steps,
    start_ns: int,
) -> None:
    """Be one of the processes: send what was measured, or in words why it could not go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    line = _Line()
    before_s = time.process_time()
    try:
        _work(line, options, steps(url, options, line.faults), start_ns, lambda *_: None)
    except (BrokerClosed, Unreachable, AMQPException) as error:
        pipe.send(str(error))
        return
    line.cpu_seconds = time.process_time() - before_s
    pipe.send(line)


def _gather(run: Run, pipes: list[Pipe], start_ns: int) -> _Line:
    """Wait for what the processes measured, and add it up."""
    total = _Line()
    missing = list(pipes)
    length_ns = int(run.options.seconds * NS)
    while missing:
        for pipe in wait(missing, TICK_NS / NS):
            assert isinstance(pipe, Pipe)
            missing.remove(pipe)
            _add(total, _receive(pipe))
        now = time.perf_counter_ns()
        run.tick(now, min((now - start_ns) / length_ns, 1.0), total.done)
    return total


def _receive(pipe: Pipe) -> _Line:
    try:
        line = pipe.recv()
    except EOFError as error:
        raise BrokerClosed("a process of the generator ended by itself") from error
    if isinstance(line, str):
        raise BrokerClosed(line)
    assert isinstance(line, _Line)
    return line


def _add(total: _Line, line: _Line) -> None:
    total.latency.merge(line.latency)
    total.late.merge(line.late)
    total.faults.merge(line.faults)
    total.done += line.done
    total.rate += line.rate
    total.last_ns = max(total.last_ns, line.last_ns)
    total.cpu_seconds += line.cpu_seconds
