"""`leveret bench` as a user runs it: against a sound broker, none at all, and one that dies."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.bench.dying import broker_that_dies
from tests.docs.broker import running_broker

from leveret.broker.bench.scenarios import SCENARIOS
from leveret.broker.cli import main

LEVERET = [sys.executable, "-m", "leveret"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """URL of a broker that keeps everything in memory."""
    with running_broker("--memory") as url:
        yield url


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEVERET, "bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_ends_with_its_checks_held(scenario: str, url: str) -> None:
    run = bench(scenario, "--url", url, "--messages", "24", "--size", "64", "--seconds", "0.1", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    [result] = map(json.loads, run.stdout.splitlines())
    assert (result["scenario"], result["ok"], result["published"]) == (scenario, True, 24)
    assert result["through_rate"] > 0
    assert result["broker"].startswith("Leveret")


def test_the_brokers_process_is_found_and_measured(url: str) -> None:
    run = bench("backlog", "idle", "--url", url, "--messages", "50", "--seconds", "0.1", "--json")
    backlog, idle = map(json.loads, run.stdout.splitlines())
    assert backlog["peak_rss_mb"] > 1
    assert backlog["cpu_per_million"] is not None
    assert set(backlog["extra"]) == {"resident_bytes_per_message"}
    assert set(idle["extra"]) == {"resident_bytes_per_connection", "idle_cpu_percent", "wake_all_ms"}


@pytest.mark.parametrize("scenario", ["transient", "persistent", "declare", "churn-8"])
def test_at_a_rate_it_is_kept_and_its_lateness_told(scenario: str, url: str) -> None:
    run = bench(scenario, "--url", url, "--rate", "200", "--messages", "24", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    [result] = map(json.loads, run.stdout.splitlines())
    assert result["published"] == 24
    assert result["seconds"] > 0.1
    assert result["sent_late_ms"] is not None
    assert (result["latency_ms"] or result["confirm_ms"]) is not None


def test_two_brokers_take_turns_and_are_compared_and_drawn(url: str, tmp_path: Path) -> None:
    drawing = tmp_path / "rates.svg"
    run = bench(
        "declare", "rpc", "--url", url, "--compare", url, "--messages", "30", "--repeat", "2",
        "--plot", str(drawing), "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["comparison"] for line in lines[8:]] == ["declare", "rpc"]
    assert lines[8]["first"]["runs"] == lines[8]["second"]["runs"] == 2
    assert ElementTree.fromstring(drawing.read_text()).tag.endswith("svg")


def test_for_people_there_are_tables_and_what_they_mean(url: str) -> None:
    run = bench("declare", "--url", url, "--compare", url, "--messages", "30", "--repeat", "1")
    assert run.stdout.splitlines()[0].startswith("scenario")
    assert "medians of 1" in run.stdout
    assert "Latency counts from when a message was sent or, at a given rate, due" in run.stdout
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["transientt"], "'transientt'"),
        (["--url", "http://localhost/"], "must begin with amqp://"),
        (["--url", "amqp://localhost/?heartbeat=5"], "parameters after ? or #"),
        (["--seconds", "0"], "--seconds"),
        (["--size", "7"], "--size"),
        (["--messages", "0"], "--messages"),
        (["--pid", "999999999"], "there is no process 999999999"),
        (["--compare-pid", "1"], "--compare-pid needs --compare"),
        (["idle", "--rate", "5"], "idle goes as fast as it can; it has no --rate"),
        (["--plot", "/no/such/folder/x.svg"], "there is no folder /no/such/folder"),
        (["--secnds", "1"], "--secnds"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    arguments: list[str], about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 64
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert about in errors


def test_a_broker_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "transient", "--url", "amqp://guest:secret@127.0.0.1:1/"]) == 69
    assert capsys.readouterr().err == "leveret: amqp://127.0.0.1:1/: cannot connect: Connection refused\n"


def test_a_refused_login_is_told_with_the_brokers_words(url: str) -> None:
    run = bench(
        "transient", "--url", url.replace("amqp://", "amqp://nobody:wrong@").replace("guest:guest@", "")
    )
    assert run.returncode == 69
    assert "403 ACCESS_REFUSED" in run.stderr
    assert run.stderr.count("\n") == 1


def test_something_else_that_listens_there_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [*LEVERET, "bench", "rpc", "--url", f"amqp://127.0.0.1:{listener.getsockname()[1]}/"]
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        peer, _address = listener.accept()
        peer.recv(100)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.close()
        _output, errors = run.communicate()
    assert run.returncode == 69
    assert errors.count("\n") == 1


def test_a_broker_that_dies_half_way_fails_the_run_and_the_rest_cannot_be_run(url: str) -> None:
    with broker_that_dies(url, after_bytes=2_000_000) as dying:
        run = bench("persistent", "rpc", "--url", dying, "--seconds", "30")
    assert run.returncode == 1
    assert "FAILED" in run.stdout
    assert "1 broken off (first: " in run.stdout
    assert run.stderr == f"leveret: {dying}: cannot connect: Connection refused\n"


@pytest.mark.parametrize("scenario", ["transient", "churn", "churn-8", "declare", "rpc", "idle"])
def test_whatever_runs_when_the_broker_dies_fails(scenario: str, url: str) -> None:
    with broker_that_dies(url, after_bytes=40_000) as dying:
        run = bench(scenario, "--url", dying, "--seconds", "30", "--json")
    assert run.returncode == 1, run.stderr
    [result] = map(json.loads, run.stdout.splitlines())
    assert result["ok"] is False
    assert "broken off" in result["verdict"][0]
