"""The page on production: its backup works beside a running broker, and its tables say what the code says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pika
import pytest

from leveret.broker.config import EX_CONFIG, EX_USAGE, SETTINGS, Settings, read_configuration
from leveret.broker.failures import EX_FAILURE, EX_IOERR, EX_TEMPFAIL
from leveret.broker.values import readable_size

from .broker import open_channel, running_broker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the only block of code in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


def column(header: str, index: int) -> list[str]:
    """Return the cells of a column of the table under a header."""
    rows = PAGE.split(f"\n| {header} |\n")[1].split("\n\n")[0].splitlines()[1:]
    return [row.strip("|").split("|")[index].strip() for row in rows]


def test_the_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "leveret.toml"
    path.write_text(block("toml"), encoding="utf-8")
    configuration = read_configuration({}, {}, path)
    assert configuration.settings.default_user == "app"
    assert set(configuration.origins) == {"host", "data", "log_format", "default_user"}


def test_a_backup_beside_a_running_broker_is_a_complete_data_file(tmp_path: Path) -> None:
    original, copy = tmp_path / "leveret.db", tmp_path / "copy.db"
    (statement,) = re.findall(r'^sqlite3 -readonly \S+ "(VACUUM INTO .*)"$', PAGE, re.MULTILINE)
    with running_broker("--data", str(original)) as url, open_channel(url) as channel:
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"before", pika.BasicProperties(delivery_mode=2))
        with closing(sqlite3.connect(f"file:{original}?mode=ro", uri=True)) as connection:
            connection.execute(statement.replace("/backup/leveret.db", str(copy)))
        channel.basic_publish("", "q", b"after", pika.BasicProperties(delivery_mode=2))
    with running_broker("--data", str(copy)) as url, open_channel(url) as channel:
        _method, _properties, body = channel.basic_get("q")
        assert body == b"before"
        assert channel.queue_declare("q", passive=True).method.message_count == 0


def test_exit_codes_are_those_of_the_code() -> None:
    codes = sorted((0, EX_FAILURE, EX_USAGE, EX_IOERR, EX_TEMPFAIL, EX_CONFIG))
    assert column("code | meaning | start again?", 0) == [str(code) for code in codes]


def test_no_restart_follows_on_what_no_restart_mends() -> None:
    answers = column("code | meaning | start again?", 2)
    codes = column("code | meaning | start again?", 0)
    hopeless = [code for code, answer in zip(codes, answers, strict=True) if answer == "no" and code != "0"]
    assert f"RestartPreventExitStatus={' '.join(hopeless)}" in block("ini").splitlines()


@pytest.mark.parametrize("event", re.findall(r"`([^`]+)`", "".join(column("event | level | what to do", 0))))
def test_an_event_of_the_log_is_in_the_code(event: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").rglob("*.py"))
    assert re.search(rf'f?"{event}', sources)


def test_limits_are_those_of_the_settings() -> None:
    settings = Settings()
    limits = PAGE.split("## Know the limits")[1]
    for value in (
        readable_size(settings.message_memory_bytes),
        readable_size(settings.write_buffer_bytes),
        readable_size(settings.max_message_bytes),
        f"{settings.unauthenticated_connections}, {settings.unauthenticated_connections_per_address} from",
        f"{settings.channel_max}, consumers of a channel: {settings.consumers_per_channel}",
    ):
        assert f": {value}" in limits
    assert set(re.findall(r"`((?:limits|amqp)\.\w+)`", limits)) <= {each.key for each in SETTINGS.values()}
