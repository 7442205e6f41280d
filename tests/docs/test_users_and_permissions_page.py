"""The pages on users and on policies: their commands run, one after another, on a new broker."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from leveret.broker.ctl.command import run
from leveret.broker.server.administration import answer

from ..server.harness import Broker, Refused

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = (HOW_TO / "users-and-permissions.md").read_text(encoding="utf-8")
ON_POLICIES = (HOW_TO / "policies-and-limits.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[list[list[str]]]:
    """Return the command lines of each block."""
    return [
        [shlex.split(line)[2:] for line in block.splitlines()]
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = blocks(PAGE)


def execute(broker: Broker, line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(request: dict[str, object]) -> dict[str, Any]:
        reply = answer(broker.node, request)
        broker.run()
        return reply

    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert run(line, ask) == 0, line


def test_every_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    for line in [line for block in BLOCKS for line in block]:
        execute(broker, line, monkeypatch)
    assert list(broker.node.authority.users) == ["admin"]


def test_every_command_on_policies_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    for line in [line for block in blocks(ON_POLICIES) for line in block]:
        execute(broker, line, monkeypatch)
    vhost = broker.node.vhosts["/"]
    assert list(vhost.policies.by_name["policy"]) == ["retention", "dead"]
    assert vhost.limits == {}


def test_the_refusal_is_the_one_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    for line in BLOCKS[1]:
        execute(broker, line, monkeypatch)
    channel = broker.channel(user="orders", password="secret", vhost="shop")
    channel.declare("orders.new")
    channel.publish("", exchange="x")
    with pytest.raises(Refused) as refused:
        channel.check_open()
    assert f"`{refused.value.code} {refused.value.text}`" in PAGE
