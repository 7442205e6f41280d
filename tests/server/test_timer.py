"""A timer wakes whoever waits in an epoll object, once each time it goes off."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from leveret.broker.server.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20


@pytest.fixture
def timer() -> Iterator[Timer]:
    made = Timer()
    yield made
    made.close()


@pytest.fixture
def epoll(timer: Timer) -> Iterator[select.epoll]:
    with select.epoll() as made:
        made.register(timer.fd, select.EPOLLIN | select.EPOLLET)
        yield made


def test_it_goes_off_once(timer: Timer, epoll: select.epoll) -> None:
    assert epoll.poll(0) == []
    timer.go_off_in(1)
    assert epoll.poll(PATIENCE_S) == [(timer.fd, select.EPOLLIN)]
    assert epoll.poll(0) == []


def test_it_goes_off_each_time_it_was_set(timer: Timer, epoll: select.epoll) -> None:
    for _ in range(3):
        timer.go_off_in(1)
        assert epoll.poll(PATIENCE_S) == [(timer.fd, select.EPOLLIN)]


def test_it_goes_off_when_it_was_last_told_to(timer: Timer, epoll: select.epoll) -> None:
    timer.go_off_in(3_600_000)
    timer.go_off_in(1)
    assert epoll.poll(PATIENCE_S) == [(timer.fd, select.EPOLLIN)]


def test_a_time_that_has_come_is_not_forgotten(timer: Timer, epoll: select.epoll) -> None:
    timer.go_off_in(-5)
    assert epoll.poll(PATIENCE_S) == [(timer.fd, select.EPOLLIN)]
