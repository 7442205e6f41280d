"""Which Leveret this is."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import platform


def version() -> str:
    """Return the version, as 0.1.0."""
    try:
        return importlib.metadata.version("leveret")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def is_compiled() -> bool:
    """Return whether the hot modules are machine code; all of them are, or none."""
    spec = importlib.util.find_spec("leveret.protocol.frames")
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return spec is not None and spec.origin is not None and spec.origin.endswith(suffixes)


def way_of_running(compiled: bool) -> str:
    """Return `compiled, Python 3.11.7` or `interpreted, ...`."""
    return f"{'compiled' if compiled else 'interpreted'}, Python {platform.python_version()}"
