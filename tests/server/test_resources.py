"""Alarms begin and end where the settings say, and the disk is looked at more often the fuller it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.broker.config import Settings
from leveret.broker.server.resources import (
    LOOK_S,
    SOONEST_LOOK_S,
    WRITE_RATE,
    Limits,
    Resources,
    judge,
    limits_of,
    look_at,
    machine_memory_bytes,
    resident_bytes,
)
from leveret.storage.memory import MemoryStore
from leveret.storage.sqlite import SqliteStore

from .harness import Broker

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
LIMITS = Limits(disk_free=50 * MIB, memory_used=500 * MIB)
PLENTY = 1 << 40


@pytest.mark.parametrize(
    ("disk_free", "memory_used", "alarms"),
    [
        (50 * MIB, 500 * MIB, []),
        (50 * MIB - 1, 0, ["disk"]),
        (PLENTY, 500 * MIB + 1, ["memory"]),
        (0, PLENTY, ["disk", "memory"]),
        (None, None, []),
    ],
)
def test_an_alarm_begins_beyond_its_limit(
    disk_free: int | None, memory_used: int | None, alarms: list[str]
) -> None:
    node = Broker().node
    judge(node, LIMITS, Resources(disk_free, memory_used))
    assert sorted(node.alarms) == alarms


def test_an_alarm_ends_when_there_is_enough_again() -> None:
    node = Broker().node
    judge(node, LIMITS, Resources(0, PLENTY))
    judge(node, LIMITS, Resources(PLENTY, 0))
    assert not node.alarms


def test_a_limit_of_zero_is_none() -> None:
    node = Broker().node
    judge(node, Limits(0, 0), Resources(0, PLENTY))
    assert not node.alarms


@pytest.mark.parametrize(
    ("room", "wait_s"),
    [(PLENTY, LOOK_S), (WRITE_RATE // 2, 0.5), (0, SOONEST_LOOK_S), (-WRITE_RATE // 4, 0.25)],
)
def test_the_next_look_at_the_disk_comes_before_it_can_be_full(room: int, wait_s: float) -> None:
    assert judge(Broker().node, LIMITS, Resources(50 * MIB + room, 0)) == wait_s


def test_a_share_of_the_memory_is_of_what_the_machine_has() -> None:
    assert limits_of(Settings(memory_high_watermark=0.5)).memory_used == machine_memory_bytes() // 2


def test_a_number_of_bytes_is_taken_as_it_is() -> None:
    assert limits_of(Settings(memory_high_watermark=float(200 * MIB))).memory_used == 200 * MIB


def test_a_broker_without_a_data_file_needs_no_disk() -> None:
    settings = Settings(memory=True)
    assert limits_of(settings).disk_free == 0
    assert look_at(settings, MemoryStore()).disk_free is None


@pytest.mark.parametrize(
    ("text", "limit"), [("104857600\n", 104857600), ("max\n", None), (f"{1 << 62}\n", None)]
)
def test_a_container_has_the_memory_that_it_was_given(tmp_path: Path, text: str, limit: int | None) -> None:
    (tmp_path / "memory.max").write_text(text)
    whole = machine_memory_bytes(())
    found = machine_memory_bytes((str(tmp_path / "missing"), str(tmp_path / "memory.max")))
    assert found == (whole if limit is None else limit)


def test_what_the_data_file_has_free_inside_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "leveret.db"
    store = SqliteStore(path, describe=lambda _: None)
    monkeypatch.setattr(store, "reusable_bytes", lambda: PLENTY)
    free = look_at(Settings(data=path), store).disk_free
    assert free is not None
    assert free > PLENTY
    store.close()


def test_a_disk_that_cannot_be_looked_at_raises_no_alarm(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "leveret.db", describe=lambda _: None)
    store.close()
    assert look_at(Settings(data=tmp_path / "leveret.db"), store).disk_free is None


def test_the_process_takes_some_memory() -> None:
    used = resident_bytes()
    assert used is None or used > MIB
