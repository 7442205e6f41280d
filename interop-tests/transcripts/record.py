#!/usr/bin/env python3
"""Write what a broker answers into files of cases.

    python interop-tests/transcripts/record.py amqp://127.0.0.1:5672 interop-tests/transcripts/cases/13*.txt

Give RabbitMQ for cases, and Leveret for `known_differences.txt`. What is played is what the files say; the
lines of answers in them are only hints how long to wait. With `--check` nothing is written, and the exit code
tells whether anything would be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transcripts.language import ANSWER, Case, read
from transcripts.player import play_all


def rewritten(text: str, cases: list[Case], answers: dict[str, list[list[str]]]) -> str:
    """Return the text of a file with the answers that came; comments and blank lines stay."""
    behind = {
        step.line: lines for case in cases for step, lines in zip(case.steps, answers[case.name], strict=True)
    }
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not ANSWER.match(line):
            lines += [line, *behind.get(number, [])]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Record as the command line says."""
    parser = argparse.ArgumentParser(description="Write what a broker answers into files of cases.")
    parser.add_argument("broker", metavar="URL")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("-k", metavar="WORDS", default="", help="only cases whose name has these words")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if answers differ")
    options = parser.parse_args()
    url = urlsplit(options.broker)
    address = (url.hostname or "127.0.0.1", url.port or 5672)
    different = 0
    for file in options.files:
        cases = [case for case in read(file) if case.steps]
        chosen = [case for case in cases if options.k in case.name]
        answers = trio.run(play_all, chosen, address, True)
        for case in chosen:
            if answers[case.name] != [step.expected for step in case.steps]:
                different += 1
                print(f"{file.name}: {case.name}")
        known = {case.name: [step.expected for step in case.steps] for case in cases}
        if not options.check:
            file.write_text(rewritten(file.read_text("utf-8"), cases, known | answers), "utf-8")
    return 1 if options.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
