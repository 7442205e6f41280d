"""Writes the pages of docs/reference that list facts of the code: `make docs`. A test compares them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from leveret.broker import rabbitmq_conf
from leveret.broker.cli import SERVE_OPTIONS, leveret
from leveret.broker.config import SETTINGS, Setting, Settings
from leveret.broker.ctl.command import usage
from leveret.broker.ctl.verbs import VERBS
from leveret.broker.defaults import DefaultOperatorPolicies, DefaultUsers, DefaultVHostLimits
from leveret.broker.values import Size, readable_size

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE: Final = Path(__file__).parent / "reference"
MADE: Final = "<!-- Made by `make docs` from the code; changes here are lost. -->"

SECTIONS: Final = {
    "": "Where it listens, where it keeps",
    "log": "Log",
    "amqp": "AMQP",
    "auth": "Users",
    "limits": "Limits",
}


def configuration() -> str:
    """Return the page on settings."""
    parts = [
        f"""# Configuration

{MADE}

Leveret runs without any configuration. A setting is taken from the first place that has it:

1. the command line (`--port 5673`),
2. the environment (`LEVERET_PORT=5673`; some variables of RabbitMQ that are named below work too),
3. `leveret.toml` in the current folder, or the file that `--config` or `LEVERET_CONFIG` names,
4. a `rabbitmq.conf` that `RABBITMQ_CONFIG_FILE` names (or `--config`, if the name ends in `.conf`),
5. its default.

A name that Leveret does not know, or a value that it cannot use, is refused with one line that tells the
nearest known name or what is allowed. The exit code is then 64 for the command line and 78 for a file or the
environment.

```toml
# leveret.toml
port = 5673
data = "/var/lib/leveret/leveret.db"

[log]
format = "json"

[amqp]
max_message_bytes = "64 MiB"
```

Sizes are numbers of bytes or have a unit: `KiB`, `MiB`, `GiB` (also `kB`, `MB`, `GB`, decimal)."""
    ]
    for section, title in SECTIONS.items():
        parts.append(f"## {title}" + (f": `[{section}]`" if section else ""))
        parts += [
            _entry(name, setting)
            for name, setting in SETTINGS.items()
            if setting.key.rpartition(".")[0] == section
        ]
    parts.append(_rabbitmq_conf())
    return "\n\n".join(parts) + "\n"


def _entry(name: str, setting: Setting) -> str:
    default = next(field.default for field in fields(Settings) if field.name == name)
    variables = [setting.variable, *filter(None, [setting.rabbitmq_variable])]
    if setting.has_file_variable:
        variables += [f"{variable}_FILE" for variable in variables]
    rows = [("default", f"`{_toml(default, setting)}`"), ("allowed", setting.kind.allowed)]
    if name in SERVE_OPTIONS:
        rows.append(("option", f"`--{name.replace('_', '-')}`"))
    rows.append(("variable", ", ".join(f"`{variable}`" for variable in variables)))
    keys = [key for key, (field, _kind) in rabbitmq_conf.KEYS.items() if field == name]
    keys += [key for key, field in rabbitmq_conf.OTHER_KEYS.items() if field == name]
    if keys:
        rows.append(("rabbitmq.conf", ", ".join(f"`{key}`" for key in keys)))
    lines = [f"### `{setting.key}`", "", setting.about, "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {label} | {text.replace('|', chr(92) + '|')} |" for label, text in rows)])


def _toml(value: object, setting: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and isinstance(setting.kind, Size):
        return f'"{readable_size(value)}"'
    if isinstance(setting.kind, DefaultUsers | DefaultOperatorPolicies | DefaultVHostLimits):
        return "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{each}"' for each in value) + "]"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value}"'


def _rabbitmq_conf() -> str:
    return """## An existing `rabbitmq.conf`

Its keys that appear above are used. Keys that RabbitMQ has and Leveret does not are ignored, and named in one
warning when the broker starts. Three things differ:

* A listener without an address (`listeners.tcp.default = 5672`) is on `127.0.0.1`, not on every address.
* There is one listener: a second one is refused.
* A key that neither of the two knows is refused."""


def command_line() -> str:
    """Return the page on the command line."""
    parts = [
        f"""# Command line

{MADE}

Each option of `serve` is described with its setting in [configuration.md](configuration.md)."""
    ]
    commands: list[tuple[str, click.Command]] = [("leveret", leveret)]
    group = click.Context(leveret)
    for name in leveret.list_commands(group):
        command = leveret.get_command(group, name)
        assert command is not None
        commands.append((f"leveret {name}", command))
    for name, command in commands:
        context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
        parts.append(f"## `{name}`\n\n```text\n{command.get_help(context)}\n```")
        if name == "leveret ctl":
            parts.append(_verbs())
    parts.append("""## Exit codes

| code | when |
|---|---|
| 0 | it was stopped by SIGTERM, SIGINT or Ctrl-C, and everything is on disk |
| 1 | it cannot listen (port taken, no permission), or there is a bug; `bench`: a check failed |
| 64 | the command line is wrong; `ctl delete_queue`: it does not exist, or must not be deleted |
| 65 | `ctl`: a password is wrong, or a vhost does not exist |
| 67 | `ctl`: a user does not exist |
| 69 | `bench`, `ctl`: the broker cannot be reached, or refuses what is asked for |
| 70 | `ctl`: it exists already |
| 74 | the data cannot be read or written; nothing was confirmed that is not on disk |
| 75 | another process uses the data file |
| 78 | a configuration file or variable is wrong, or the data file is not one that this version can use |""")
    return "\n\n".join(parts) + "\n"


def _verbs() -> str:
    """Return how each verb of `leveret ctl` is called."""
    texts = [usage(verb).removeprefix("Usage: leveret ctl ") for verb in VERBS.values()]
    lines = [text.splitlines() for text in texts]
    rows = [(first, [line for line in rest if line]) for first, *rest in lines]
    shown = [f"{first}\n" + "".join(f"    {line}\n" for line in rest) for first, rest in rows]
    return "### Verbs\n\n```text\n" + "".join(shown) + "```"


PAGES: Final[dict[str, Callable[[], str]]] = {"configuration.md": configuration, "cli.md": command_line}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
