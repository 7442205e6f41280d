"""A broker takes as many connections as the system lets it."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from leveret.broker.server.run import allow_many_connections

if TYPE_CHECKING:
    import pytest

LIMIT = resource.RLIMIT_NOFILE


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {LIMIT: (1024, 20_000)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    allow_many_connections()
    assert limits == {LIMIT: (20_000, 20_000)}


def test_a_system_that_refuses_is_no_reason_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_many_connections()
