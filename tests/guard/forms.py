"""The two forms of the hot modules, and how to run Python with either."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = [str(ROOT / folder) for folder in ("broker", "protocol", "storage")]
FORMS: Final = {"interpreted": SOURCES, "compiled": [str(ROOT / "build" / "compiled"), *SOURCES]}


class CannotMeasure(Exception):
    """The text says why, and what to do."""


def environment(form: str) -> dict[str, str]:
    """Return variables for a process that uses this form, and nothing else that could make a difference."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(FORMS[form]),
        "PYTHONHASHSEED": "0",
    }
