"""The list of modules that are compiled is the list of modules that say HOT."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_module_whose_docstring_says_hot_is_compiled_and_no_other() -> None:
    sources = [path for root in ("broker", "protocol", "storage") for path in (ROOT / root).rglob("*.py")]
    hot = [
        str(path.relative_to(ROOT))
        for path in sources
        if "HOT" in (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    ]
    listed = runpy.run_path(str(ROOT / "hatch_build.py"))["HOT_MODULES"]
    assert sorted(hot) == listed
