"""The programs of docs/tutorial.md, each run as a reader would run it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import Broker, Names
from conftest import Janitor
from waiting import PATIENCE_S

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = DOCS / "examples"
QUEUES = ["tutorial.hello", "tutorial.jobs", "tutorial.factors", "tutorial.confirmed"]
EXCHANGES = ["tutorial.news", "tutorial.alerts", "tutorial.sensors"]


def heed_ctrl_c() -> None:
    """Let SIGINT interrupt, also where the shell that runs the tests in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Program:
    """A running example, and what it has printed."""

    def __init__(self, broker: Broker, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            env=os.environ | {"AMQP_URL": broker.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_ctrl_c,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self) -> str:
        """Return the next line, waiting for it."""
        return self._lines.get(timeout=PATIENCE_S)

    def lines(self, count: int) -> list[str]:
        """Return the next lines, waiting for them."""
        return [self.line() for _ in range(count)]

    def finish(self) -> list[str]:
        """Wait for the end, which must be a good one, and return the lines that are left."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        left = [self._lines.get() for _ in range(self._lines.qsize())]
        assert code == 0, left
        return left

    def interrupt(self) -> list[str]:
        """Press Ctrl-C and return the lines that are left."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def kill(self) -> None:
        """End it without asking."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))


Start = Callable[..., Program]


@pytest.fixture
def start(broker: Broker, janitor: Janitor) -> Iterator[Start]:
    """A function that starts examples; those still running are killed in the end."""
    tutorial = Names()
    tutorial.queues, tutorial.exchanges = QUEUES, EXCHANGES
    janitor.delete(tutorial)
    started: list[Program] = []

    def start(script: str, *arguments: str) -> Program:
        started.append(Program(broker, script, *arguments))
        return started[-1]

    yield start
    for program in started:
        program.kill()
    janitor.delete(tutorial)


@pytest.fixture
def run(start: Start) -> Callable[..., list[str]]:
    """A function that runs an example to its end and returns what it printed."""
    return lambda script, *arguments: start(script, *arguments).finish()


Run = Callable[..., list[str]]


def test_messages_wait_for_the_receiver(start: Start, run: Run) -> None:
    assert run("hello_send.py") == ["sent: Hello!"]
    assert run("hello_send.py", "how", "are", "you") == ["sent: how are you"]

    receiver = start("hello_receive.py")
    assert receiver.lines(3) == [
        "waiting for messages, Ctrl-C ends",
        "received: Hello!",
        "received: how are you",
    ]
    assert receiver.interrupt() == []


def test_workers_share_jobs_by_how_long_they_take(start: Start, run: Run) -> None:
    workers = [start("work_worker.py") for _ in range(2)]
    for worker in workers:
        assert worker.line() == "waiting for jobs, Ctrl-C ends"
    run("work_submit.py", "2", "0.1", "0.1", "0.1")

    firsts = [worker.line() for worker in workers]
    busy = workers[firsts.index("started: a job of 2 s")]
    quick = workers[1 - workers.index(busy)]
    assert quick.lines(5) == [
        "finished: a job of 0.1 s",
        "started: a job of 0.1 s",
        "finished: a job of 0.1 s",
        "started: a job of 0.1 s",
        "finished: a job of 0.1 s",
    ]
    assert busy.line() == "finished: a job of 2 s"


def test_the_job_of_a_killed_worker_is_started_again(start: Start, run: Run) -> None:
    run("work_submit.py", "1")
    worker = start("work_worker.py")
    assert worker.lines(2)[1] == "started: a job of 1 s"
    worker.kill()

    another = start("work_worker.py")
    assert another.lines(3)[1:] == ["started again: a job of 1 s", "finished: a job of 1 s"]


def test_news_reach_everybody_who_listens(start: Start, run: Run) -> None:
    listeners = [start("news_listen.py") for _ in range(2)]
    for listener in listeners:
        assert listener.line() == "waiting for news, Ctrl-C ends"

    assert run("news_announce.py", "lunch", "is", "ready") == ["announced: lunch is ready"]

    assert [listener.line() for listener in listeners] == ["news: lunch is ready"] * 2


def test_alerts_are_chosen_by_severity(start: Start, run: Run) -> None:
    watcher = start("alerts_watch.py", "warning", "error")
    assert watcher.line() == "waiting for alerts, Ctrl-C ends"

    run("alerts_raise.py", "info", "coffee is ready")
    run("alerts_raise.py", "error", "the disk is full")

    assert watcher.line() == "error: the disk is full"


def test_measurements_are_chosen_by_pattern(start: Start, run: Run) -> None:
    watcher = start("sensors_watch.py", "berlin.#", "*.*.humidity")
    assert watcher.line() == "waiting for measurements, Ctrl-C ends"

    for topic in (
        "berlin.cellar.temperature",
        "oslo.attic.temperature",
        "oslo.attic.humidity",
        "berlin.cellar.humidity",
        "berlin",
    ):
        run("sensors_report.py", topic, "7")

    assert watcher.lines(4) == [
        "berlin.cellar.temperature = 7",
        "oslo.attic.humidity = 7",
        "berlin.cellar.humidity = 7",
        "berlin = 7",
    ]


def test_questions_are_answered(start: Start, run: Run) -> None:
    server = start("factor_server.py")
    assert server.line() == "waiting for requests, Ctrl-C ends"

    answers = run("factor_client.py", "91", "97", "360")

    assert sorted(answers) == ["360 = 2 x 2 x 2 x 3 x 3 x 5", "91 = 7 x 13", "97 = 97"]
    assert server.interrupt() == [f"asked for the factors of {number}" for number in (91, 97, 360)]


def test_a_publisher_learns_what_became_of_each_message(run: Run) -> None:
    assert run("confirmed_publish.py") == [
        "first: safe on disk",
        "second: safe on disk",
        "third: the queue is full",
        "fourth: no queue takes it",
    ]


def test_the_tutorial_quotes_the_programs_as_they_are() -> None:
    programs = "".join(script.read_text() for script in EXAMPLES.glob("*.py"))
    quotes = re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)

    assert [quote for quote in quotes if quote not in programs] == []
    assert len(quotes) > 5
