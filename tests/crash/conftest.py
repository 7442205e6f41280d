"""Options of the crash tests. The environment counts where an option is not given, for `make` and CI."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .broker import DEFAULT_COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("crash tests")
    group.addoption("--kills", type=int, help="how often the broker is killed (LEVERET_KILLS, 20)")
    group.addoption("--seed", type=int, help="repeat the run with this seed (LEVERET_SEED, random)")
    group.addoption(
        "--broker-command", help="how to start the broker, with {port} and {data} (LEVERET_COMMAND)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "powercut: takes the power from the broker's disk; needs root")


def option(request: pytest.FixtureRequest, name: str, variable: str, default: str) -> str:
    """Return an option, or the variable, or the default."""
    value = request.config.getoption(name, default=None)
    return str(value) if value is not None else os.environ.get(variable, default)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a directory for data and history that stays if the test fails, for longer than pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="leveret-crash-"))
    failures = request.session.testsfailed
    yield directory
    if request.session.testsfailed == failures:
        shutil.rmtree(directory)


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """Return how often the broker is to be killed."""
    return int(option(request, "--kills", "LEVERET_KILLS", "20"))


@pytest.fixture
def broker_command(request: pytest.FixtureRequest) -> str:
    """Return how to start the broker."""
    return option(request, "--broker-command", "LEVERET_COMMAND", DEFAULT_COMMAND)


@pytest.fixture
def seed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> int:
    """Print and return the seed of the run."""
    number = int(option(request, "--seed", "LEVERET_SEED", str(random.SystemRandom().randrange(1 << 32))))
    with capsys.disabled():
        print(f"\nseed {number}", flush=True)
    return number
