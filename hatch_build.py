"""Compiles the hot modules with mypyc while a wheel is built, if LEVERET_COMPILE=1.

Editable installs stay plain Python. The same files run both ways, so nothing but speed depends on it, and
`leveret --version` tells which way runs. Results are kept in build/mypyc: the next build compiles the
changes.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Modules whose docstring says HOT. They are compiled as one group, so that calls between them are direct.
HOT_MODULES = [
    "broker/leveret/broker/methods/basic.py",
    "broker/leveret/broker/model/channel.py",
    "broker/leveret/broker/model/connection.py",
    "broker/leveret/broker/model/consumer.py",
    "broker/leveret/broker/model/exchanges/binding.py",
    "broker/leveret/broker/model/exchanges/direct.py",
    "broker/leveret/broker/model/exchanges/exchange.py",
    "broker/leveret/broker/model/exchanges/router.py",
    "broker/leveret/broker/model/exchanges/routing.py",
    "broker/leveret/broker/model/exchanges/topic.py",
    "broker/leveret/broker/model/publish.py",
    "broker/leveret/broker/model/queues/backlog.py",
    "broker/leveret/broker/model/queues/consumer_timeout.py",
    "broker/leveret/broker/model/queues/deduplicating_queue.py",
    "broker/leveret/broker/model/queues/entry.py",
    "broker/leveret/broker/model/queues/packed.py",
    "broker/leveret/broker/model/queues/priorities.py",
    "broker/leveret/broker/model/queues/queue.py",
    "broker/leveret/broker/model/replies.py",
    "broker/leveret/broker/model/rules/grants.py",
    "broker/leveret/broker/model/streams/stream.py",
    "broker/leveret/broker/model/streams/stream_reader.py",
    "broker/leveret/broker/model/streams/stream_tail.py",
    "broker/leveret/broker/model/turn.py",
    "broker/leveret/broker/model/vhost.py",
    "broker/leveret/broker/server/clock.py",
    "broker/leveret/broker/server/committer.py",
    "broker/leveret/broker/server/heartbeats.py",
    "broker/leveret/broker/server/loop.py",
    "broker/leveret/broker/server/node.py",
    "broker/leveret/broker/server/patience.py",
    "broker/leveret/broker/server/session.py",
    "broker/leveret/broker/server/session_timers.py",
    "broker/leveret/broker/server/write_behind.py",
    "protocol/leveret/protocol/connection.py",
    "protocol/leveret/protocol/content.py",
    "protocol/leveret/protocol/events.py",
    "protocol/leveret/protocol/frames.py",
    "protocol/leveret/protocol/outbox.py",
    "protocol/leveret/protocol/properties.py",
    "protocol/leveret/protocol/tables.py",
    "storage/leveret/storage/batch.py",
    "storage/leveret/storage/changes.py",
    "storage/leveret/storage/checksum.py",
    "storage/leveret/storage/reading.py",
    "storage/leveret/storage/records.py",
    "storage/leveret/storage/redo_log.py",
    "storage/leveret/storage/rows.py",
    "storage/leveret/storage/stored.py",
]


class CompileHotModules(BuildHookInterface[Any]):
    """Adds one shared library for each hot module to the wheel, beside its source."""

    @property
    def wanted(self) -> bool:
        """Whether this build was asked to compile."""
        return os.environ.get("LEVERET_COMPILE") == "1" and self.target_name == "wheel"

    def dependencies(self) -> list[str]:
        """What the build environment needs in addition."""
        if not self.wanted:
            return []
        return ["mypy>=2.0", "setuptools>=77", *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling which files to add.

        Raises:
            RuntimeError: there is no C compiler, or there are no Python headers.
        """
        if not self.wanted or version == "editable" or not HOT_MODULES:
            return
        if reason := cannot_compile():
            raise RuntimeError(f"cannot compile: {reason}")
        libraries = compile_modules(Path(self.root))
        build_data["force_include"].update(libraries)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def cannot_compile() -> str | None:
    """Return why this machine cannot compile, or None if it can."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").exists():
        return f"Python's headers are not installed ({headers / 'Python.h'})"
    return None


def compile_modules(root: Path) -> dict[str, str]:
    """Compile HOT_MODULES.

    Returns: path of each library -> its path in the wheel.
    """
    from mypyc.build import mypycify  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from setuptools import Distribution

    os.chdir(root)  # paths in the compiled code are relative to it
    out = root / "build" / "mypyc" / str(sys.implementation.cache_tag)
    options = ["--config-file=pyproject.toml", f"--cache-dir={out / 'mypy'}"]
    # All modules are named, or mypy would take those that are not compiled from a Leveret that is installed.
    sources = sorted(
        str(path) for package in ("broker", "protocol", "storage") for path in Path(package).rglob("*.py")
    )
    extensions = mypycify(
        [*options, *sources], only_compile_paths=HOT_MODULES, target_dir=str(out / "c"), opt_level="3"
    )
    command = Distribution({"name": "leveret", "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(out / "lib"), str(out / "o")
    command.ensure_finalized()
    command.run()
    built = {command.get_ext_fullpath(extension.name): extension.name for extension in extensions}
    return {path: str(Path(path).relative_to(out / "lib")) for path in built}
