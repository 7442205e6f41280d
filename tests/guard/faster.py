"""How much faster the compiled form is: two brokers, one of each form, take turns with the same load."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from .forms import FORMS, ROOT, CannotMeasure, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

RATIO_MIN: Final = 1.5  # measured: 2.2 to 2.9
MESSAGES: Final = 1_000_000  # at 10 ms a tick of CPU time, 3 % of what the faster form takes
TURNS: Final = 5
STOP_S: Final = 20


def measure() -> float:
    """Return how many times as much CPU time an interpreted broker needs, by the best turn of each.

    The best turn is the one that the rest of the machine disturbed least.

    Raises:
        CannotMeasure: a broker does not start, or what it delivers is wrong.
    """
    leveret = [sys.executable, "-m", "leveret"]
    with ExitStack() as stack:
        brokers = {form: stack.enter_context(_broker(form)) for form in FORMS}
        (url, pid), (other_url, other_pid) = brokers["interpreted"], brokers["compiled"]
        bench = subprocess.run(
            [
                *leveret, "bench", "transient", "--json", "--url", url, "--pid", str(pid),
                "--compare", other_url, "--compare-pid", str(other_pid),
                "--messages", str(MESSAGES), "--repeat", str(TURNS),
            ],
            env=environment("interpreted"), cwd=ROOT, text=True, capture_output=True, check=False,
        )  # fmt: skip
    if bench.returncode:
        raise CannotMeasure(f"leveret bench: exit code {bench.returncode}\n{bench.stdout}{bench.stderr}")
    results = [json.loads(line) for line in bench.stdout.splitlines()]
    best = {
        each: min(result["broker_cpu_seconds"] for result in results if result.get("url") == f"{each}/")
        for each in (url, other_url)
    }
    return float(best[url] / best[other_url])


@contextmanager
def _broker(form: str) -> Iterator[tuple[str, int]]:
    """Run a broker of this form; its URL and process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "leveret", "serve", "--memory", "--port", "0", "--log-format", "json"],
        env=environment(form), cwd=ROOT, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        started = next((line for line in process.stdout if "Server startup complete" in line), None)
        if started is None:
            raise CannotMeasure(f"the {form} broker ended before it listened")
        told = json.loads(started)
        if told["compiled"] != (form == "compiled"):
            raise CannotMeasure(f"the {form} broker does not run the {form} modules")
        yield told["url"], process.pid
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)
