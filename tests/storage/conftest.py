"""Every test that takes `engine` runs over each of them: no test may be able to tell one from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
