"""Programs in other languages, each using most of what the client library of its language can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import programs
import pytest
from brokers import Broker
from programs import PROGRAMS, STEPS, Program, Result

pytestmark = pytest.mark.time_limit(1800)  # the first one waits for all that is built

Told = Callable[[Program], Result]


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, broker: Broker, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[Told]:
    """What a program tells of the broker; those of the chosen tests are all run once, side by side."""
    chosen: dict[str, Program] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path:
            program = item.callspec.params["program"]
            assert isinstance(program, Program)
            chosen[program.language] = program
    with ThreadPoolExecutor(max_workers=4) as pool:
        running: dict[str, Future[Result]] = {
            language: pool.submit(programs.run, program, broker) for language, program in chosen.items()
        }
        yield lambda program: running[program.language].result()
    for language, result in running.items():
        record_testsuite_property(f"version of {language}", result.result().version)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.language)
def test_client(told: Told, program: Program, step: str) -> None:
    """Each step of each program."""
    result = told(program)
    if result.unavailable is not None:
        pytest.skip(f"not run: {result.unavailable}")
    assert step in result.outcomes, (
        f"it did not get there: {result.trouble or 'it says nothing of this step'}"
    )
    outcome, detail = result.outcomes[step]
    if outcome == programs.ABSENT:
        pytest.skip(f"{programs.ABSENT}: {detail}")
    assert outcome == programs.OK, detail
