"""The broker keeps its promise when it is killed under load, again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .broker import DEFAULT_COMMAND, ProcessBroker
from .loop import Outcome, Plan, Run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.crash


def verdict(outcome: Outcome, seed: int) -> str:
    """Return what a failed run should tell."""
    lines = [f"seed {seed}, history {outcome.history}", outcome.summary(), *map(str, outcome.violations)]
    return "\n".join(lines)


def test_a_broker_that_is_killed_keeps_its_promise(
    place: Path, capsys: pytest.CaptureFixture[str], seed: int, kills: int, broker_command: str
) -> None:
    outcome = Run(Plan(seed, kills), ProcessBroker(place, broker_command), place).go()
    with capsys.disabled():
        print(outcome.summary(), flush=True)
    assert not outcome.violations, verdict(outcome, seed)


def test_a_broker_that_is_short_of_memory_keeps_its_promise(
    place: Path, capsys: pytest.CaptureFixture[str], seed: int, kills: int, broker_command: str
) -> None:
    """Most of what waits is only on the disk, and read back when its turn comes."""
    little = {"LEVERET_LIMITS_MESSAGE_MEMORY_BYTES": "1 MiB"}
    plan = Plan(seed, kills // 5, longest_s=3.0)
    outcome = Run(plan, ProcessBroker(place, broker_command, little), place).go()
    with capsys.disabled():
        print(outcome.summary(), flush=True)
    assert not outcome.violations, verdict(outcome, seed)


def test_a_broker_that_records_single_messages_keeps_its_promise(
    place: Path, capsys: pytest.CaptureFixture[str], seed: int, kills: int, broker_command: str
) -> None:
    """Batches are small, so that most of them go through the redo log."""
    plan = Plan(seed, kills // 4, longest_s=2.0, publishers=2, one_at_a_time=True, largest_body=4096)
    outcome = Run(plan, ProcessBroker(place, broker_command), place).go()
    with capsys.disabled():
        print(outcome.summary(), flush=True)
    assert not outcome.violations, verdict(outcome, seed)


def test_the_loop_sees_what_a_broker_without_a_disk_loses(place: Path, seed: int) -> None:
    command = DEFAULT_COMMAND.replace("--data {data}", "--memory")
    plan = Plan(seed, kills=1, shortest_s=0.5, longest_s=1.0, last_s=0.1)
    outcome = Run(plan, ProcessBroker(place, command), place).go()
    assert {violation.property for violation in outcome.violations} >= {"P1", "P7"}
