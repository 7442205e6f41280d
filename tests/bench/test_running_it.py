"""`leveret bench` as a user runs it, against a broker of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVERET = [sys.executable, "-m", "leveret"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """URL of a broker that keeps everything in memory."""
    broker = subprocess.Popen(
        [*LEVERET, "serve", "--memory", "--port", "0", "--log-format", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert broker.stdout is not None
    started = next(line for line in broker.stdout if "Server startup complete" in line)
    yield json.loads(started)["url"]
    broker.terminate()
    broker.communicate()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEVERET, "bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("scenario", ["transient", "persistent", "fanout", "rpc", "declare"])
def test_a_scenario_ends_with_its_checks_held(scenario: str, url: str) -> None:
    run = bench(scenario, "--url", url, "--messages", "200", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    [line] = run.stdout.splitlines()
    assert json.loads(line)["scenario"] == scenario


def test_an_unknown_scenario_is_one_line(url: str) -> None:
    run = bench("transientt", "--url", url)
    assert run.returncode == 64
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_broker_that_is_not_there_is_one_line() -> None:
    run = bench("transient", "--url", "amqp://guest:guest@127.0.0.1:1/")
    assert run.returncode == 69
    assert "Traceback" not in run.stderr
