"""The kill loop: clients at work, the broker killed again and again, everything drained at the end, the
history checked.

Theory of operation: see docs/explanation/reliability.md. In short: a life of the broker lasts 0.3 to 5
seconds under load; it ends by SIGKILL (or a power cut, see power_cut.py); when all clients have noticed, it
is started on the same data, and now and then killed once more while it starts. After the last life publishers
stop, the consumers drain all queues without rejecting anything, and the broker is killed a last time when
every settlement must be durable: what comes out of it then is a violation.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pamqp import commands

from .broker import DEFAULT_COMMAND, Broker, ProcessBroker, RunningBroker
from .checker import Checker, Limits, Violation
from .client import Connection, Refused
from .history import History, read
from .topology import CONSUMED, Topology
from .workload import Administrator, Client, Consumer, PatientPublisher, Publisher, Shared

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

DRAIN_DEADLINE_S = 180.0
NOTICE_DEADLINE_S = 30.0
BACKLOG = 3000  # messages in all queues at which publishers pause
LONG_BACKLOG = 12_000  # the same, in a life without consumers


@dataclass(frozen=True)
class Plan:
    """A run. The same seed gives the same choices; when things happen, the machine decides."""

    seed: int
    kills: int = 20
    shortest_s: float = 0.3
    longest_s: float = 5.0
    rest: float = 0.25  # of the lives have no consumers
    last_s: float = 2.0  # the last life under load, which ends without a kill
    publishers: int = 4
    one_at_a_time: bool = False  # publishers wait for the confirm of each message
    administrators: int = 4
    largest_body: int = 65536
    limits: Limits = field(default_factory=Limits)


@dataclass
class Outcome:
    """What came of a run."""

    violations: list[Violation]
    counts: Counter[str]
    history: Path
    seconds: float
    oldest_return_s: float

    def summary(self) -> str:
        """Return one line of figures."""
        names = (
            "kill",
            "publish",
            "confirmed",
            "deliver",
            "redelivered",
            "settled and came back",
            "change",
            "lost",
        )
        figures = ", ".join(f"{self.counts[name]} {name}" for name in names)
        oldest = f"oldest settlement undone {self.oldest_return_s * 1000:.0f} ms"
        return f"{self.counts['violations']} violations in {self.seconds:.0f} s: {figures}; {oldest}"


class Run:
    """One run of the loop against one broker."""

    def __init__(self, plan: Plan, broker: Broker, directory: Path) -> None:
        self.plan = plan
        self.broker = broker
        self.path = directory / "history.jsonl"
        self._random = random.Random(f"{plan.seed}/loop")
        self._topology = Topology(f"crash-{plan.seed}-")

    def go(self) -> Outcome:
        """Run to the end and check."""
        began = time.monotonic()
        with self.path.open("w", encoding="utf-8") as sink:
            self._history = History(sink)
            self.broker.start()
            self._shared = Shared(self._history, self._topology, self.broker.port, self.plan.seed)
            self._shared.largest_body = self.plan.largest_body
            try:
                self._declare()
                self._live_and_die()
            finally:
                self.broker.stop()
        checker = Checker(self.plan.limits)
        for event in read(self.path):
            checker.feed(event)
        violations = checker.finish()
        seconds = time.monotonic() - began
        return Outcome(violations, checker.counts, self.path, seconds, checker.oldest_return_s)

    def _declare(self) -> None:
        self._history.add("setup", seed=self.plan.seed, queues=self._topology.queues())
        connection = self._connect()
        for kind, name, method, answer in self._topology.declarations():
            self._history.add("change", phase="invoke", op="declare", kind=kind, name=name)
            connection.call(1, method, answer)
            self._history.add("change", phase="ok", op="declare", kind=kind, name=name)
        connection.close()

    def _connect(self) -> Connection:
        connection = Connection("127.0.0.1", self.broker.port)
        try:
            connection.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
        except BaseException:
            connection.cut()
            raise
        return connection

    def _live_and_die(self) -> None:
        shared = self._shared
        kind = PatientPublisher if self.plan.one_at_a_time else Publisher
        publishers: list[Client] = [kind(shared, number) for number in range(self.plan.publishers)]
        consumers = self._consumers(0)
        administrators = self._administrators(0)
        clients: list[Client] = [*publishers, *consumers, *administrators]
        for client in clients:
            client.start()
        shared.gate.open()
        for _ in range(self.plan.kills):
            self._let_rest(consumers=self._random.random() < self.plan.rest)
            self._let_live(self._random.uniform(self.plan.shortest_s, self.plan.longest_s))
            self._die()
        self._let_rest(consumers=False)
        self._let_live(self.plan.last_s)
        shared.calm.set()
        self._end([*publishers, *administrators])
        self._drain(consumers)
        if self.plan.kills:
            self._let_live(self.plan.limits.quiet_s + 0.2)
            self._die()
            consumers = self._consumers(len(CONSUMED))
            administrators = self._administrators(self.plan.administrators)
            for client in [*consumers, *administrators]:
                client.start()
            self._let_live(0.5)
            self._end(administrators)
            self._drain(consumers)
        self._count()

    def _consumers(self, first: int) -> list[Consumer]:
        consumers = []
        for number, names in enumerate(CONSUMED):
            queues = [self._topology.name(queue) for queue in names]
            if number == len(CONSUMED) - 1:
                queues += self._topology.dead_letter_queues()
            consumers.append(Consumer(self._shared, first + number, queues, transactional=number == 2))
        return consumers

    def _administrators(self, first: int) -> list[Administrator]:
        return [
            Administrator(self._shared, first + number, number) for number in range(self.plan.administrators)
        ]

    def _let_live(self, seconds: float) -> None:
        """Wait, but not if a client has a fault of its own."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._shared.errors:
                raise self._shared.errors[0]
            time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))

    def _let_rest(self, *, consumers: bool) -> None:
        """Let consumers rest in this life and queues grow, or not."""
        if consumers:
            self._shared.resting.set()
        else:
            self._shared.resting.clear()
        self._shared.backlog_limit = LONG_BACKLOG if consumers else BACKLOG

    def _die(self) -> None:
        """Kill the broker and start it again."""
        shared = self._shared
        shared.gate.close()
        self._history.add("kill")
        self.broker.kill()
        shared.gate.wait_until_all_rest(NOTICE_DEADLINE_S)
        if self._random.random() < 0.2:
            self.broker.begin_to_start()
            time.sleep(self._random.uniform(0.02, 0.7))
            self._history.add("kill")
            self.broker.kill()
        self.broker.start()
        shared.backlog = 0
        self._history.add("ready")
        shared.gate.open()

    def _end(self, clients: Sequence[Client]) -> None:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(120)
        if self._shared.errors:
            raise self._shared.errors[0]

    def _drain(self, consumers: Sequence[Consumer]) -> None:
        """Wait until all queues are empty and nothing comes any more; then end the consumers."""
        deadline = time.monotonic() + DRAIN_DEADLINE_S
        connection = self._connect()
        while time.monotonic() < deadline:
            self._let_live(0.1)
            quiet = time.monotonic() - max(consumer.last_delivery for consumer in consumers) > 0.5
            try:
                if quiet and not any(self._messages(connection, queue) for queue in self._topology.queues()):
                    break
            except Refused:  # a queue is not there, which will be written down later
                break
        connection.close()
        self._end(consumers)

    def _messages(self, connection: Connection, queue: str) -> int:
        passive = commands.Queue.Declare(queue=queue, passive=True)
        return connection.call(1, passive, commands.Queue.DeclareOk).message_count or 0

    def _count(self) -> None:
        """Write down what is left in the queues when nobody holds anything."""
        for queue in self._topology.queues():
            connection = self._connect()
            try:
                messages = self._messages(connection, queue)
            except Refused as refused:
                self._history.add("observe", kind="queue", name=queue, found=False, text=str(refused))
                messages = 0
            self._history.add("drained", queue=queue, messages=messages)
            connection.close()

    def clean_up(self) -> None:
        """Remove what the run has made from a broker that goes on running."""
        connection = self._connect()
        for method, answer in self._topology.removals():
            connection.call(1, method, answer)
        for administrator in self._administrators(0):
            administrator.clean_up(connection)
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop by hand: `python -m tests.crash.loop --kills 300`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--life", type=float, nargs=2, default=(0.3, 5.0), metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--last", type=float, default=2.0, help="seconds of load after the last kill")
    parser.add_argument(
        "--command", default=DEFAULT_COMMAND, help="how to start the broker, with {port} and {data}"
    )
    parser.add_argument("--margin", type=float, default=0.25, help="see Limits in checker.py")
    parser.add_argument("--quiet", type=float, default=3.0, help="see Limits in checker.py")
    parser.add_argument(
        "--running", type=int, metavar="PORT", help="work with a running broker, and kill nobody"
    )
    parser.add_argument("--directory", type=Path, help="an empty directory for data and history")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="leveret-crash-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        parser.error(f"{directory} is not empty: old data would look like a violation")
    print(f"data and history in {directory}", flush=True)
    kills = 0 if options.running else options.kills
    limits = Limits(margin_s=options.margin, quiet_s=options.quiet)
    shortest, longest = options.life
    plan = Plan(options.seed, kills, shortest, longest, last_s=options.last, limits=limits)
    broker: Broker = (
        RunningBroker(options.running) if options.running else ProcessBroker(directory, options.command)
    )
    run = Run(plan, broker, directory)
    outcome = run.go()
    if options.running:
        run.clean_up()
    for violation in outcome.violations:
        print(violation)
    print(outcome.summary())
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
