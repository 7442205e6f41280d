"""The matrix of client programs and steps: printed after a run, and written to docs/reference/clients.md."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

from programs import ABSENT, PROGRAMS, STEPS, Program

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "clients.md"
TEST = "test_clients::test_client[{language}-{step}]"  # as run.py names it
YES, NO, NONE, UNKNOWN = "yes", "no", "-", ""
NOT_RUN = "not run: "  # starts the reason for a program that this machine cannot run

# What else is tried: its name -> the file that it is tried in, the package on Python's index or a language.
OTHERS = {
    "amqp-publish and the other tools of librabbitmq": ("test_amqp_tools", "c"),
    "pika": ("test_pika_select", "pika"),
    "aio-pika": ("test_aio_pika", "aio-pika"),
    "aiormq": ("test_aiormq", "aiormq"),
    "AMQPStorm": ("test_amqpstorm", "amqpstorm"),
    "py-amqp": ("test_py_amqp", "amqp"),
    "kombu": ("test_kombu", "kombu"),
    "Celery": ("test_celery", "celery"),
    "Dramatiq": ("test_dramatiq", "dramatiq"),
    "FastStream": ("test_faststream", "faststream"),
    "taskiq": ("test_taskiq", "taskiq-aio-pika"),
}

Outcomes = Mapping[str, str]  # test -> "passed", "FAILED" ...


def cell(program: Program, step: str, runs: Sequence[Outcomes], reasons: Mapping[str, str]) -> str:
    """Return what to tell of a step of a program: "yes" where it passed on all brokers."""
    test = TEST.format(language=program.language, step=step)
    told = [run.get(test, "not run") for run in runs]
    if set(told) == {"passed"}:
        return YES
    if set(told) <= {"skipped", "not run"}:
        return NONE if reasons.get(test, "").startswith(ABSENT) else UNKNOWN
    return " / ".join(YES if one == "passed" else NO for one in told)


def rows(runs: Sequence[Outcomes], reasons: Mapping[str, str]) -> list[list[str]]:
    """Return the matrix: a head of programs, then a row for each step."""
    head = ["", *(program.library for program in PROGRAMS)]
    return [
        head,
        *(
            [sentence, *(cell(program, step, runs, reasons) for program in PROGRAMS)]
            for step, sentence in STEPS.items()
        ),
    ]


def page(
    brokers: Sequence[str], runs: Sequence[Outcomes], reasons: Mapping[str, str], versions: Mapping[str, str]
) -> str:
    """Return docs/reference/clients.md as this run has it."""
    lines = [
        "# Clients",
        "",
        "<!-- Written by `make interop ARGS=--write-matrix`; changes here are lost. -->",
        "",
        "Clients that are tried against Leveret and RabbitMQ by the same programs, in `interop-tests`.",
        "",
        "## Other languages",
        "",
        "Each language has a program that uses most of what its client library can do"
        " (`interop-tests/clients`), and waits for the exact answers, codes and texts.",
        "",
        "| language | library | version |",
        "|---|---|---|",
    ]
    lines += [
        f"| {program.language} | {program.library} | {versions.get(program.language, '')} |"
        for program in PROGRAMS
    ]
    lines += [
        "",
        f"What each did on {' and on '.join(brokers)}. *yes*: as expected on both; "
        "two words: on the first and on the second; *-*: the library cannot do it; empty: not tried.",
        "",
    ]
    head, *table = rows(runs, reasons)
    lines += [f"| the client | {' | '.join(head[1:])} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in table]
    cannot = [
        f"- {program.library}: {text.partition(': ')[2]}"
        for program in PROGRAMS
        for text in dict.fromkeys(
            reasons.get(TEST.format(language=program.language, step=step), "") for step in STEPS
        )
        if text.startswith(ABSENT)
    ]
    lines += ["", "What a library cannot do:", "", *cannot]
    lines += ["", "## Other clients", "", "Each has tests of its own in `interop-tests`.", ""]
    lines += ["| client | version | tried in | as on RabbitMQ |", "|---|---|---|---|"]
    for name, (module, package) in OTHERS.items():
        tests = [test for test in runs[0] if test.startswith(f"{module}::")]
        good = all(runs[-1].get(test) == runs[0][test] for test in tests if runs[0][test] == "passed")
        spoken = {program.language for program in PROGRAMS}
        version = versions.get(package, "") if package in spoken else importlib.metadata.version(package)
        lines.append(
            f"| {name} | {version} | `{module}.py` | {(YES if good else NO) if tests else UNKNOWN} |"
        )
    return "\n".join([*lines, ""])
