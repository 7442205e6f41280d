"""Celery with real workers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from blocking import get_soon, wait_until_ready
from brokers import Broker, Names
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery_app import environment, make_app, names_of
from conftest import HERE, Janitor
from cuttable import Relay
from pika.adapters.blocking_connection import BlockingChannel
from waiting import eventually

pytestmark = pytest.mark.time_limit(90)

SOON_S = 30  # workers share two cores with the broker


@dataclass
class Worker:
    """A running `celery worker`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: signal.Signals) -> int:
        """Send a signal to the worker (a KILL also to its pool) and wait for its end."""
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(SOON_S)


class Workers:
    """Starts workers for one application and stops all of them in the end."""

    def __init__(self, app: Celery, variables: dict[str, str], directory: Path) -> None:
        self.app = app
        self.variables = variables
        self._directory = directory
        self._running: list[Worker] = []

    def celery(self, *arguments: str) -> list[str]:
        """Return the command line of a celery command for this application."""
        return [sys.executable, "-m", "celery", "-A", "celery_app", *arguments]

    def start(self, *options: str) -> Worker:
        """Start a worker and wait until it is ready."""
        name = f"{Names.text('w')}@interop"
        log = self._directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.celery("worker", "-n", name, "-c", "1", "-l", "INFO", *options),
                cwd=HERE,
                env=os.environ | self.variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = Worker(name, process, log)
        self._running.append(worker)
        eventually(
            lambda: " ready." in log.read_text() or process.poll() is not None,
            "the worker",
            patience_s=SOON_S,
        )
        assert process.poll() is None, log.read_text()
        return worker

    def stop(self) -> None:
        """Stop all workers that still run."""
        for worker in self._running:
            if worker.process.poll() is None:
                os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()


@pytest.fixture(scope="module")
def make_workers(broker: Broker, janitor: Janitor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A function that makes an application with a result backend, and its workers."""
    made: list[tuple[Workers, str]] = []

    def make(backend: str = "rpc://", way: Broker = broker) -> Workers:
        """`way` is how the workers reach the broker."""
        directory = tmp_path_factory.mktemp("celery")
        backend = backend.replace("DIRECTORY", str(directory))
        prefix = Names.text("it.celery")
        variables = environment(way.kombu_url, prefix, backend)
        workers = Workers(make_app(broker.kombu_url, prefix, backend), variables, directory)
        made.append((workers, prefix))
        return workers

    yield make
    names = Names()
    for workers, prefix in made:
        workers.stop()
        workers.app.close()
        queues, exchanges = names_of(prefix)
        names.queues += queues
        names.exchanges += exchanges
    janitor.delete(names)


@pytest.fixture(scope="module")
def busy(make_workers: Callable[..., Workers]) -> Workers:
    """An application with one worker (events on, prefetch 1), whose results come over the broker."""
    workers = make_workers()
    workers.start("-E")
    return workers


@pytest.fixture
def app(busy: Workers) -> Celery:
    """The application of `busy`."""
    return busy.app


@pytest.fixture
def idle(make_workers: Callable[..., Workers]) -> Workers:
    """An application without any worker yet."""
    return make_workers()


def task(app: Celery, name: str) -> Any:
    """Return a task by name."""
    return app.tasks[name]


def test_a_task_returns_its_result(app: Celery) -> None:
    assert task(app, "add").delay(2, 3).get(timeout=SOON_S) == 5


def test_fifty_tasks_return_their_results(app: Celery) -> None:
    results = [task(app, "add").delay(number, number) for number in range(50)]

    assert [result.get(timeout=SOON_S) for result in results] == [2 * number for number in range(50)]


def test_arguments_of_every_kind_arrive(app: Celery) -> None:
    value = {"text": "grüße", "big": 2**60, "double": 0.1, "none": None, "nested": [{"a": [1, 2]}]}

    result = task(app, "echo").delay(value, key=value).get(timeout=SOON_S)

    assert result == {"args": [value], "kwargs": {"key": value}}


def test_a_megabyte_of_arguments_arrives(app: Celery) -> None:
    text = "x" * 1_000_000

    assert task(app, "echo").delay(text).get(timeout=SOON_S)["args"] == [text]


def test_an_error_comes_back(app: Celery) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        task(app, "fail").delay("on purpose").get(timeout=SOON_S)


def test_a_task_is_retried_until_it_succeeds(app: Celery) -> None:
    assert task(app, "flaky").delay(3).get(timeout=SOON_S) == 3


def test_a_chain_passes_results_on(app: Celery) -> None:
    add = task(app, "add")

    assert chain(add.s(1, 2), add.s(3), add.s(4)).apply_async().get(timeout=SOON_S) == 10


def test_a_group_gathers_results(app: Celery) -> None:
    add = task(app, "add")

    result = group(add.s(number, 1) for number in range(10)).apply_async()

    assert result.get(timeout=SOON_S) == list(range(1, 11))


def test_a_countdown_is_respected(app: Celery) -> None:
    started = time.monotonic()
    task(app, "add").apply_async((1, 1), countdown=1).get(timeout=SOON_S)

    assert time.monotonic() - started >= 1


def test_tasks_with_an_eta_do_not_hold_up_others(app: Celery) -> None:
    """Each one held raises the prefetch of the running consumer by one.

    No time is measured: a worker that receives a task while it waits for the answer to basic.qos sleeps
    until its next heartbeat.
    """
    later = [task(app, "add").apply_async((number, 0), countdown=600) for number in range(4)]

    assert task(app, "add").delay(1, 1).get(timeout=SOON_S) == 2
    for result in later:
        result.revoke()


def test_an_expired_task_is_not_run(app: Celery) -> None:
    with pytest.raises(TaskRevokedError):
        task(app, "add").apply_async((1, 1), countdown=0.5, expires=0.1).get(timeout=SOON_S)


def test_a_waiting_task_can_be_revoked(app: Celery) -> None:
    result = task(app, "add").apply_async((1, 1), countdown=1)
    result.revoke()

    with pytest.raises(TaskRevokedError):
        result.get(timeout=SOON_S)


def test_a_rejected_task_is_dead_lettered(app: Celery, channel: BlockingChannel, names: Names) -> None:
    dead = app.amqp.queues[app.conf.task_default_queue].queue_arguments["x-dead-letter-routing-key"]
    channel.queue_declare(dead, durable=True)
    result = task(app, "reject").delay()

    message = get_soon(channel, dead)
    assert message.properties.headers["id"] == result.id
    assert message.properties.headers["x-death"][0]["reason"] == "rejected"


def test_a_requeued_task_runs_again(app: Celery) -> None:
    assert task(app, "requeue_once").delay().get(timeout=SOON_S) == "second time"


def test_a_first_delivery_is_not_marked_redelivered(app: Celery) -> None:
    assert task(app, "redelivered").delay().get(timeout=SOON_S) is False


# remote control and events -----------------------------------------------------------------------------


def test_a_worker_answers_a_ping(app: Celery) -> None:
    (reply,) = app.control.ping(timeout=5, limit=1)

    assert list(reply.values()) == [{"ok": "pong"}]


def queues_of(app: Celery) -> list[str]:
    """Return the names of the queues that its workers consume."""
    return [queue.name for queue in app.conf.task_queues]


def test_a_worker_can_be_inspected(app: Celery) -> None:
    inspect = app.control.inspect(timeout=5, limit=1)

    (queues,) = inspect.active_queues().values()
    assert [queue["name"] for queue in queues] == queues_of(app)


def test_the_command_line_finds_the_worker(busy: Workers) -> None:
    done = subprocess.run(
        busy.celery("inspect", "ping", "--timeout", "2"),
        cwd=HERE,
        env=os.environ | busy.variables,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert b"pong" in done.stdout


def test_a_worker_takes_up_and_gives_up_a_queue(app: Celery, names: Names) -> None:
    queue = names.exchange(names.queue())

    def consumed() -> list[str]:
        (queues,) = app.control.inspect(timeout=5, limit=1).active_queues().values()
        return [each["name"] for each in queues]

    app.control.add_consumer(queue, reply=True, timeout=5, limit=1)
    taken = task(app, "add").apply_async((1, 2), queue=queue).get(timeout=SOON_S)
    app.control.cancel_consumer(queue, reply=True, timeout=5, limit=1)

    eventually(lambda: consumed() == queues_of(app), "the queue to be given up", SOON_S)
    assert taken == 3


def test_events_tell_the_life_of_a_task(app: Celery) -> None:
    seen: list[tuple[str, str]] = []
    alive = threading.Event()

    def note(event: dict[str, Any]) -> None:
        seen.append((event["type"], event.get("uuid", "")))
        alive.set()

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": note})
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": True}, daemon=True)
        thread.start()
        assert alive.wait(SOON_S), "no heartbeat"
        result = task(app, "add").delay(1, 1)
        eventually(lambda: ("task-succeeded", result.id) in seen, "the task to succeed", SOON_S)
        receiver.should_stop = True
        thread.join(SOON_S)

    assert [kind for kind, task_id in seen if task_id == result.id and kind != "task-sent"] == [
        "task-received",
        "task-started",
        "task-succeeded",
    ]


# chords ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_files(make_workers: Callable[..., Workers]) -> Celery:
    """An application with a worker that keeps results in files: the rpc backend knows no chords."""
    workers = make_workers("file://DIRECTORY")
    workers.start("--without-gossip", "--without-mingle")
    return workers.app


def test_a_chord_runs_its_body_after_its_header(with_files: Celery) -> None:
    add, total = task(with_files, "add"), task(with_files, "total")

    result = chord([add.s(number, number) for number in range(5)])(total.s())

    assert result.get(timeout=SOON_S) == 20


def test_a_chord_in_a_chain(with_files: Celery) -> None:
    add, total = task(with_files, "add"), task(with_files, "total")

    result = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(10)).apply_async()

    assert result.get(timeout=SOON_S) == 17


# workers that stop -------------------------------------------------------------------------------------

QUICK = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def lines(path: Path) -> list[str]:
    """Return what a task has noted so far."""
    return path.read_text().splitlines() if path.exists() else []


def test_a_worker_told_to_stop_finishes_its_task_and_leaves_the_rest(
    idle: Workers, channel: BlockingChannel, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    worker = idle.start(*QUICK)
    first = task(idle.app, "hold_early").delay(str(notes), str(gate))
    eventually(lambda: len(lines(notes)) == 1, "the task to start", SOON_S)
    second = task(idle.app, "redelivered").delay()

    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in worker.log.read_text(), "a warm shutdown", SOON_S)
    gate.touch()

    assert worker.process.wait(SOON_S) == 0
    assert lines(notes) == ["start redelivered=False", "end"]
    wait_until_ready(channel, idle.app.conf.task_default_queue, 1)
    idle.start(*QUICK)
    assert (first.get(timeout=SOON_S), second.get(timeout=SOON_S)) == ("held", True)


def test_tasks_run_by_priority(idle: Workers, channel: BlockingChannel, tmp_path: Path) -> None:
    notes, queue = tmp_path / "notes", f"{idle.app.main}.urgent"
    idle.start(*QUICK).stop(signal.SIGTERM)  # declares the queue
    send = partial(task(idle.app, "note").apply_async, queue=queue)
    results = [send((str(notes), f"{number}"), priority=number) for number in (1, 9, 0, 5, 9)]
    wait_until_ready(channel, queue, len(results))

    idle.start(*QUICK)

    assert [result.get(timeout=SOON_S) for result in results] == [None] * 5
    assert lines(notes) == ["9", "9", "5", "1", "0"]


def test_the_task_of_a_killed_worker_is_run_by_another(idle: Workers, tmp_path: Path) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    worker = idle.start(*QUICK)
    result = task(idle.app, "hold").delay(str(notes), str(gate))
    eventually(lambda: len(lines(notes)) == 1, "the task to start", SOON_S)

    worker.stop(signal.SIGKILL)
    gate.touch()
    idle.start(*QUICK)

    assert result.get(timeout=SOON_S) == "held"
    assert lines(notes) == ["start redelivered=False", "start redelivered=True", "end"]


def test_a_worker_comes_back_after_its_connection_was_cut(
    make_workers: Callable[..., Workers], relay: Relay
) -> None:
    workers = make_workers(way=relay.broker)
    worker = workers.start(*QUICK)
    before = task(workers.app, "add").delay(1, 1).get(timeout=SOON_S)

    relay.cut()

    assert (before, task(workers.app, "add").delay(2, 2).get(timeout=SOON_S)) == (2, 4)
    worker.stop(signal.SIGKILL)


def test_a_task_acknowledged_early_is_lost_with_its_worker(
    idle: Workers, channel: BlockingChannel, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    worker = idle.start(*QUICK)
    task(idle.app, "hold_early").delay(str(notes), str(gate))
    eventually(lambda: len(lines(notes)) == 1, "the task to start", SOON_S)
    waiting = task(idle.app, "add").delay(1, 1)

    worker.stop(signal.SIGKILL)
    gate.touch()
    idle.start(*QUICK)

    assert waiting.get(timeout=SOON_S) == 2
    assert lines(notes) == ["start redelivered=False"]
