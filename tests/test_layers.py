"""The direction of imports: protocol <- broker -> storage; inside the broker model <- methods <- server.

Reads every import statement of the three source roots, also those inside functions.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = ("broker", "protocol", "storage")

BELOW_MODEL = {
    "leveret.broker.access",
    "leveret.protocol",
    "leveret.storage.batch",
    "leveret.storage.changes",
    "leveret.storage.stored",
    "pamqp",
}

# area -> what its modules may import beside the standard library. The longest area that fits a module counts.
ALLOWED = {
    "leveret.protocol": {"leveret.protocol", "pamqp"},
    "leveret.storage": {"leveret.storage", "zlib_ng"},
    "leveret.broker.access": {"leveret.protocol"},
    "leveret.broker.model": {"leveret.broker.model", *BELOW_MODEL},
    "leveret.broker.methods": {"leveret.broker.methods", "leveret.broker.model", *BELOW_MODEL},
    "leveret.broker.server": {"leveret", "pamqp", "trio"},
    "leveret.broker.bench": {"leveret.broker.bench", "leveret.protocol", "click", "pamqp"},
    "leveret.broker.ctl": {
        "leveret.broker.config",
        "leveret.broker.control_socket",
        "leveret.broker.ctl",
        "click",
    },
    "leveret.broker.cli": {"leveret.broker", "click", "trio"},
    # config, logs, access, ...: beside the layers; the server and the command line build on them
    "leveret.broker": {"leveret.broker", "leveret.protocol", "leveret.storage.store"},
    "leveret.__main__": {"leveret.broker.cli"},
}
ABOVE = {
    "leveret.broker.bench",
    "leveret.broker.ctl",
    "leveret.broker.server",
    "leveret.broker.cli",
}  # nothing below them imports these

# Standard library that reads a clock, rolls dice, waits, or talks to the outside.
OUTSIDE_WORLD = {
    "asyncio", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors",
    "socket", "sqlite3", "ssl", "subprocess", "threading", "time",
}  # fmt: skip
FORBIDDEN = {
    "leveret": {"asyncio", "logging"},
    "leveret.broker": {"asyncio", "logging", "sqlite3"},
    "leveret.broker.access": OUTSIDE_WORLD,
    "leveret.broker.methods": OUTSIDE_WORLD,
    "leveret.broker.model": OUTSIDE_WORLD,
    "leveret.protocol": OUTSIDE_WORLD,
}


def imports(source: str, package: str) -> Iterator[str]:
    """Yield the absolute name of all that is imported; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, areas: set[str] | dict[str, set[str]]) -> str:
    """Return the longest of `areas` that contains the name, or an empty text."""
    return max((area for area in areas if f"{name}.".startswith(f"{area}.")), key=len, default="")


def violations(root: Path) -> list[str]:
    """Return each forbidden import below the three source roots, as `module imports name`."""
    found = []
    for path in sorted(path for source in SOURCE_ROOTS for path in (root / source).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts[1:]
        module = ".".join(parts).removesuffix(".__init__")
        package = ".".join(parts[:-1])
        names = imports(path.read_text(encoding="utf-8"), package)
        found += [f"{module} imports {name}" for name in names if not may_import(module, name)]
    return found


def may_import(module: str, name: str) -> bool:
    top = name.partition(".")[0]
    if top == "__future__":
        return True
    if top in sys.stdlib_module_names:
        return top not in FORBIDDEN.get(within(module, FORBIDDEN), set())
    area = within(module, ALLOWED)
    if within(name, ABOVE) and area not in ABOVE and module != "leveret.__main__":
        return False
    return bool(within(name, ALLOWED.get(area, set())))


def plant(root: Path, path: str, statement: str) -> str:
    """Write a module, `broker/cli.py` as broker/leveret/broker/cli.py, and return its name."""
    planted = root / path.partition("/")[0] / "leveret" / path
    planted.parent.mkdir(parents=True)
    planted.write_text(statement)
    return "leveret." + path.removesuffix(".py").replace("/", ".")


def test_no_module_imports_from_a_layer_above_or_beside_its_own() -> None:
    assert violations(ROOT) == []


def test_every_source_root_is_read() -> None:
    assert all(list((ROOT / source / "leveret").rglob("*.py")) for source in SOURCE_ROOTS)


def test_the_namespace_has_no_init_file_which_would_hide_the_other_roots() -> None:
    assert [source for source in SOURCE_ROOTS if (ROOT / source / "leveret" / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("path", "statement", "name"),
    [
        ("protocol/frames.py", "import trio", "trio"),
        ("protocol/frames.py", "import time", "time"),
        ("protocol/frames.py", "from leveret.storage import store", "leveret.storage.store"),
        ("protocol/frames.py", "from ..storage import store", "leveret.storage.store"),
        ("storage/store.py", "import leveret.broker.model", "leveret.broker.model"),
        ("broker/model/queues/queue.py", "from socket import socket", "socket.socket"),
        ("broker/model/queues/queue.py", "from leveret.storage import store", "leveret.storage.store"),
        ("broker/model/queues/queue.py", "def f():\n    import trio", "trio"),
        ("broker/model/queues/queue.py", "from ... import methods", "leveret.broker.methods"),
        ("broker/methods/basic.py", "import leveret.broker.server", "leveret.broker.server"),
        ("broker/logs.py", "from leveret.broker.server import run", "leveret.broker.server.run"),
        ("broker/config.py", "import trio", "trio"),
        ("broker/server/run.py", "import sqlite3", "sqlite3"),
        ("broker/bench/wire.py", "import trio", "trio"),
        ("broker/bench/wire.py", "from leveret.broker.model import vhost", "leveret.broker.model.vhost"),
        ("broker/logs.py", "from leveret.broker.bench import wire", "leveret.broker.bench.wire"),
    ],
)
def test_a_planted_forbidden_import_is_found(tmp_path: Path, path: str, statement: str, name: str) -> None:
    module = plant(tmp_path, path, statement)
    assert violations(tmp_path) == [f"{module} imports {name}"]


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("broker/model/queues/queue.py", "from leveret.storage.batch import Batch"),
        ("broker/model/queues/queue.py", "from leveret.broker.model import vhost"),
        ("broker/model/queues/queue.py", "from collections import deque"),
        ("broker/methods/basic.py", "from pamqp import commands"),
        ("broker/server/run.py", "import os, time, trio\nfrom leveret.storage import sqlite"),
        ("broker/cli.py", "from leveret.broker.server.run import serve"),
    ],
)
def test_an_import_from_the_own_layer_or_below_is_allowed(tmp_path: Path, path: str, statement: str) -> None:
    plant(tmp_path, path, statement)
    assert violations(tmp_path) == []
