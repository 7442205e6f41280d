"""Which Leveret this is."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import platform
from typing import Final

# Here and not read from the installed package's metadata: what reads them takes 1.5 MB.
VERSION: Final = "0.1.0"


def version() -> str:
    """Return the version, as 0.1.0."""
    return VERSION


def is_compiled() -> bool:
    """Return whether the hot modules are machine code; all of them are, or none."""
    spec = importlib.util.find_spec("leveret.protocol.frames")
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return spec is not None and spec.origin is not None and spec.origin.endswith(suffixes)


def way_of_running(compiled: bool) -> str:
    """Return `compiled, Python 3.11.7` or `interpreted, ...`."""
    return f"{'compiled' if compiled else 'interpreted'}, Python {platform.python_version()}"
