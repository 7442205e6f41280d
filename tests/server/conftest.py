"""Fixtures for conversations with a whole broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import Broker

if TYPE_CHECKING:
    pass


@pytest.fixture(params=[False, True], ids=["rows", "redo log"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice: with a store that only has rows, and with one that has a redo log before them."""
    monkeypatch.setattr(Broker, "default_has_redo_log", request.param)
