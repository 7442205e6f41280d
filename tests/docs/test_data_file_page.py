"""The page about the data file names every table and column there is, and its queries run."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leveret.storage.schema import APPLICATION_ID, BLOCKS, SCHEMA_VERSION, block_table
from leveret.storage.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "data-file.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: re.findall(r"^\| `(\w+)` \|", match[2], re.MULTILINE)
    for match in re.finditer(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}  # table or view -> columns
COMMANDS = re.findall(r'sqlite3 (?:-box )?leveret\.db "(.*?)"$', PAGE, re.MULTILINE)


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """A new data file, read as any program would."""
    monkeypatch.chdir(tmp_path)
    SqliteStore(Path("leveret.db"), describe=str).close()
    with closing(sqlite3.connect("leveret.db")) as connection:
        yield connection


def test_every_table_and_view_is_there(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    blocks = [block_table(number) for number in range(1, BLOCKS + 1)]
    assert {*SECTIONS, *blocks} == {name for (name,) in rows}
    assert f"### `{blocks[0]}` to `{blocks[-1]}`\n" in PAGE


@pytest.mark.parametrize("name", SECTIONS)
def test_every_column_is_there(connection: sqlite3.Connection, name: str) -> None:
    assert SECTIONS[name] == [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]


@pytest.mark.parametrize("query", COMMANDS)
def test_every_query_runs(connection: sqlite3.Connection, query: str) -> None:
    connection.execute(query)


def test_the_newest_format_is_the_one_in_the_code() -> None:
    versions = re.findall(r"^\| (\d+) \|", PAGE[PAGE.index("## Versions") :], re.MULTILINE)
    assert versions == [str(number) for number in range(1, SCHEMA_VERSION + 1)]
    assert f"`PRAGMA application_id` is {APPLICATION_ID}" in PAGE
