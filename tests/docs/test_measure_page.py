"""Each command of the page on measuring is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from leveret.broker.bench.command import bench
from leveret.broker.bench.report import header
from leveret.broker.bench.scenarios import SCENARIOS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "measure.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    leveret bench(.*?)(?: *#.*)?$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_is_understood(arguments: str) -> None:
    context = bench.make_context("bench", shlex.split(arguments))
    assert set(context.params["scenarios"]) <= set(SCENARIOS)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 6


def test_the_table_has_the_columns_that_it_shows() -> None:
    assert header() in PAGE


def test_scenarios_that_the_page_names_exist() -> None:
    named = {
        word for word in re.findall(r"`([a-z]+(?:-[a-z0-9]+)+|many|rpc)`", PAGE) if word != "rabbitmq-server"
    }
    assert named <= set(SCENARIOS)


def test_a_command_with_a_word_that_is_no_scenario_is_refused() -> None:
    with pytest.raises(click.BadParameter):
        bench.make_context("bench", ["no-such"])
