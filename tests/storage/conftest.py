"""Every test that takes `engine` runs over each of them: no test may be able to tell one from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.storage import blocks, removal, rows
from leveret.storage.sqlite import SqliteStore

from .engines import Engine, MemoryEngine, SqliteEngine, fast_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory whose syncs take no time, where the system has one."""
    with fast_directory() as directory:
        yield directory


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A started engine, empty."""
    engine: Engine = MemoryEngine() if request.param == "memory" else SqliteEngine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    """A started SQLite engine, empty."""
    engine = SqliteEngine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what else happens to thousands of messages happen to a few."""
    monkeypatch.setattr(rows, "STATEMENT_ROWS", 4)
    monkeypatch.setattr(rows, "STATEMENT_BYTES", 2000)
    monkeypatch.setattr(rows, "LARGE_BODY", 2000)
    monkeypatch.setattr(rows, "TEXT_BODY_MAX", 500)
    monkeypatch.setattr(rows, "STATEMENT_RANGES", 2)
    monkeypatch.setattr(rows, "ENVELOPE_CACHE", 2)
    monkeypatch.setattr(removal, "REMOVE_AT_ONCE", 1)
    monkeypatch.setattr(removal, "ROWS_A_TIME", 2)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be a long queue."""
    monkeypatch.setattr(blocks, "BLOCKS", 5)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(blocks, "RANGES_MAX", 2)


@pytest.fixture
def idle_housekeeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave everything that could be done later to later."""
    monkeypatch.setattr(SqliteStore, "_wake_if_needed", lambda *_: None)
