"""Tables as rabbitmqctl prints them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATTERS: Final = ("table", "json", "csv", "pretty_table")
_ESCAPES: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def render(formatter: str, columns: Sequence[str], rows: Sequence[Sequence[object]], has_header: bool) -> str:
    """Return a table as text, with a line break at its end unless it is empty."""
    if formatter == "json":
        return _json(columns, rows)
    texts = [[shown(value) for value in row] for row in rows]
    if formatter == "csv":
        out = io.StringIO()
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([columns, *texts] if has_header else texts)
        return out.getvalue()
    if not rows:
        return ""
    if formatter == "pretty_table":
        return _boxed(columns, texts)
    lines = [list(columns), *texts] if has_header else texts
    return "".join("\t".join(line) + "\n" for line in lines)


def _json(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    objects = [_object(dict(zip(columns, row, strict=True))) for row in rows]
    return "[\n" + "".join(f"{',' if index else ''}{text}\n" for index, text in enumerate(objects)) + "]\n"


def _object(values: dict[str, object]) -> str:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    # A name that is not UTF-8 cannot be printed as it is.
    return text if text.isprintable() else json.dumps(values, separators=(",", ":"))


def _boxed(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    lines = [
        "│ " + " │ ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " │\n"
        for line in [columns, *texts]
    ]
    top, middle, bottom = (
        left + between.join("─" * (width + 2) for width in widths) + right + "\n"
        for left, between, right in ("┌┬┐", "├┼┤", "└┴┘")
    )
    return top + lines[0] + middle + middle.join(lines[1:]) + bottom


def shown(value: object) -> str:
    """Print a value of a table: lists in brackets, tables of arguments as `[{"name",value}]`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        if value and all(isinstance(item, list) and len(item) == 3 for item in value):
            return "[" + ",".join(f"{{{_term(name)},{_term(item)}}}" for name, _, item in value) + "]"
        return "[" + ", ".join(map(shown, value)) + "]"
    return "" if value is None else plain(str(value))


def plain(text: str) -> str:
    """Return a text that does nothing to a terminal and keeps to its column."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _ESCAPES.get(char, f"\\x{ord(char):02x}") for char in text)


def _term(value: object) -> str:
    if isinstance(value, str):
        return f'"{plain(value)}"'
    return shown(value)
