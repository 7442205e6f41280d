"""Conversations frame by frame: what RabbitMQ answered when they were recorded is what a broker must answer.

Where Leveret differs, `transcripts/known_differences.txt` tells why, and what it answers instead.
"""

from __future__ import annotations

import pytest
import trio
from brokers import Broker
from transcripts.language import NOT_YET, Case, read_all, read_differences
from transcripts.player import play_all
from wire import Peer

CASES = {case.name: case for case in read_all()}
DIFFERENCES = read_differences(list(CASES.values()))
NOT_THERE_YET = {name for name, case in DIFFERENCES.items() if case.because.startswith(NOT_YET)}
NO_PLUGIN = "COMMAND_INVALID - unknown exchange type"
PLAYING_S = 600  # for all cases, which are played before the first is looked at


@pytest.fixture(scope="module")
def is_leveret(broker: Broker) -> bool:
    """Whether the broker under test says that it is Leveret, for which there may be differences."""
    peer = Peer(broker)
    said = peer.start().arguments
    peer.disconnect()
    return b"Leveret" in said


@pytest.fixture(scope="module")
def expected(is_leveret: bool) -> dict[str, Case]:
    """What the broker must answer."""
    known = {name: case for name, case in DIFFERENCES.items() if case.steps}
    return CASES | known if is_leveret else CASES


@pytest.fixture(scope="module")
def answers(
    broker: Broker, expected: dict[str, Case], request: pytest.FixtureRequest
) -> dict[str, list[list[str]]]:
    """What it answers in all cases that were chosen, played side by side."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [str(item.callspec.params["name"]) for item in items if item.path == request.path]
    return trio.run(play_all, [expected[name] for name in chosen], (broker.host, broker.port))


@pytest.mark.time_limit(PLAYING_S)
@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_rabbitmq(
    name: str, is_leveret: bool, expected: dict[str, Case], answers: dict[str, list[list[str]]]
) -> None:
    """Compare the transcript with that of the case."""
    case = expected[name]
    transcript = case.told(answers[name])
    if is_leveret and transcript != case.transcript and name in NOT_THERE_YET:
        pytest.xfail(DIFFERENCES[name].because)
    if not is_leveret and "plugins" in case.file.name and any(NO_PLUGIN in line for line in transcript):
        pytest.skip("this RabbitMQ runs without the plugin")
    assert transcript == case.transcript
