"""The page on clients, which a run of the interop tests writes, has every program and step that there is."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "interop-tests" / "clients"
PAGE = (ROOT / "docs" / "reference" / "clients.md").read_text(encoding="utf-8")
PROGRAMS = ast.parse((ROOT / "interop-tests" / "programs.py").read_text(encoding="utf-8"))


def test_each_step_has_a_row() -> None:
    steps = next(
        ast.literal_eval(node.value)
        for node in PROGRAMS.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS"
    )
    matrix = PAGE.split("\n| the client | ")[1].split("\n\n")[0].splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in matrix] == list(steps.values())


def test_each_program_has_a_column() -> None:
    calls = [node for node in ast.walk(PROGRAMS) if isinstance(node, ast.Call)]
    programs = [
        {keyword.arg: keyword.value for keyword in call.keywords}
        for call in calls
        if ast.unparse(call.func) == "Program"
    ]
    libraries = [ast.literal_eval(program["library"]) for program in programs]
    assert f"\n| the client | {' | '.join(libraries)} |\n" in PAGE
    assert sorted(ast.literal_eval(program["language"]) for program in programs) == sorted(
        folder.name for folder in CLIENTS.iterdir() if folder.is_dir()
    )


def test_the_versions_are_those_that_are_installed() -> None:
    go = (CLIENTS / "go" / "go.mod").read_text(encoding="utf-8")
    java = (CLIENTS / "java" / "pom.xml").read_text(encoding="utf-8")
    node = json.loads((CLIENTS / "node" / "package.json").read_text(encoding="utf-8"))
    rust = tomllib.loads((CLIENTS / "rust" / "Cargo.toml").read_text(encoding="utf-8"))
    versions = {
        "| go | amqp091-go": re.findall(r"amqp091-go v(\S+)", go)[0],
        "| java | amqp-client": re.findall(r"<artifactId>amqp-client</artifactId>\s*<version>(.*?)<", java)[
            0
        ],
        "| node | amqplib": node["dependencies"]["amqplib"],
        "| rust | lapin": rust["dependencies"]["lapin"]["version"].removeprefix("="),
    }
    assert [row for row, version in versions.items() if f"{row} | {version} |" not in PAGE] == []
