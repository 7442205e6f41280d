"""The broker keeps its promise when its disk loses power; a broker that does not sync is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .broker import BrokerFailed
from .loop import Plan, Run
from .power_cut import CannotCut, CuttableBroker, CuttableDisk, build_shim
from .test_kill_loop import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.crash, pytest.mark.powercut]

CUTS = 5


@pytest.fixture
def disk(place: Path) -> Iterator[CuttableDisk]:
    """Return a mounted disk, or skip the test."""
    disk = CuttableDisk(place)
    try:
        disk.__enter__()
    except CannotCut as reason:
        disk.__exit__()
        pytest.skip(f"no power cuts here: {reason}")
    yield disk
    disk.__exit__()


def test_what_was_confirmed_survives_a_power_cut(
    place: Path, capsys: pytest.CaptureFixture[str], disk: CuttableDisk, seed: int, broker_command: str
) -> None:
    plan = Plan(seed, CUTS, shortest_s=0.3, longest_s=2.0)
    outcome = Run(plan, CuttableBroker(place, disk, broker_command), place).go()
    with capsys.disabled():
        print(outcome.summary(), flush=True)
    assert not outcome.violations, verdict(outcome, seed)


def test_single_messages_that_were_confirmed_survive_a_power_cut(
    place: Path, capsys: pytest.CaptureFixture[str], disk: CuttableDisk, seed: int, broker_command: str
) -> None:
    plan = Plan(
        seed, CUTS, shortest_s=0.3, longest_s=1.5, publishers=2, one_at_a_time=True, largest_body=4096
    )
    outcome = Run(plan, CuttableBroker(place, disk, broker_command), place).go()
    with capsys.disabled():
        print(outcome.summary(), flush=True)
    assert not outcome.violations, verdict(outcome, seed)


def test_a_power_cut_shows_a_log_that_is_not_synced(
    place: Path, disk: CuttableDisk, seed: int, broker_command: str
) -> None:
    try:
        shim = build_shim(place)
    except CannotCut as reason:
        pytest.skip(f"no forgetful library: {reason}")
    # So little data that SQLite has no reason to move it from the log into the file, which is synced.
    plan = Plan(seed, kills=3, shortest_s=0.5, longest_s=1.5, last_s=0.1, largest_body=512)
    broker = CuttableBroker(place, disk, broker_command, {"LD_PRELOAD": str(shim)})
    try:
        found = {violation.property for violation in Run(plan, broker, place).go().violations}
    except BrokerFailed:  # it does not even open its file again
        found = {"P1"}
    assert found & {"P1", "P5", "P7"}  # something that was answered is undone
