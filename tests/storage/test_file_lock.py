"""The lock beside the data file."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import pytest

from leveret.storage.lock import FileLock
from leveret.storage.store import StoreError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path


def test_one_has_it_and_the_next_one_gets_it_after_release(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "data"), FileLock(tmp_path / "data")
    first.acquire()
    with pytest.raises(StoreLockedError):
        second.acquire()
    second.release()  # harmless: it never had it
    with pytest.raises(StoreLockedError):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_file_left_by_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "data-lock").touch()
    lock = FileLock(tmp_path / "data")
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("next_owner_is_quick", [False, True])
def test_a_lock_on_a_file_that_its_owner_has_just_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_owner_is_quick: bool
) -> None:
    taken: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not taken:  # between our open and our lock
            (tmp_path / "data-lock").unlink()
            if next_owner_is_quick:
                (tmp_path / "data-lock").touch()
        taken.append(descriptor)
        real_flock(descriptor, operation)

    real_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(tmp_path / "data")
    lock.acquire()
    assert len(taken) == 2
    with pytest.raises(StoreLockedError):
        FileLock(tmp_path / "data").acquire()
    lock.release()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"cannot lock .*data: .*data-lock: No locks available"):
        FileLock(tmp_path / "data").acquire()
