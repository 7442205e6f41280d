"""The page on moving from RabbitMQ: its rabbitmq.conf is read as shown, its variables exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leveret.broker.config import SETTINGS, read_configuration

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "move-from-rabbitmq.md").read_text(encoding="utf-8")


def test_the_rabbitmq_conf_is_read_with_the_warning_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (conf,) = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("rabbitmq.conf").write_text(conf, encoding="utf-8")
    configuration = read_configuration({}, {}, Path("rabbitmq.conf"))
    assert configuration.settings.default_user == "app"
    assert configuration.settings.heartbeat_s == 30
    (warning,) = configuration.warnings
    assert f'note="{warning}"' in PAGE


def test_variables_of_rabbitmq_are_there() -> None:
    on_page = dict(re.findall(r"^\| (`RABBITMQ_.*?) \| `([\w.]+)` \|$", PAGE, re.MULTILINE))
    expected = {}
    for setting in SETTINGS.values():
        if name := setting.rabbitmq_variable:
            expected[f"`{name}`, `{name}_FILE`" if setting.has_file_variable else f"`{name}`"] = setting.key
    assert on_page == expected
