"""The command line: `leveret serve`, `leveret ctl`, `leveret bench`.

What a command needs is imported when it runs, so that `leveret --version` and a refused option answer at
once. Nothing here shows a traceback, unless the log level is debug.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from leveret.broker.config import EX_USAGE, SETTINGS, ConfigError, Settings, nearest, read_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STARTED_S: Final = time.monotonic()  # nearly when the process began, for the banner

# Fields of Settings that have an option: field name -> placeholder in the help, or None for a flag
SERVE_OPTIONS: Final = {
    "host": "ADDRESS",
    "port": "PORT",
    "data": "FILE",
    "memory": None,
    "control_socket": "PATH",
    "log_format": "console|json",
    "log_level": "LEVEL",
}


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from leveret.broker.version import is_compiled, version, way_of_running

        click.echo(f"leveret {version()} ({way_of_running(is_compiled())})")
        context.exit()


class _Commands(click.Group):
    """The commands; `bench` and `ctl` are programs of their own and are imported only when they are asked
    for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "bench", "ctl"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "bench":
            from leveret.broker.bench.command import bench

            return bench
        if cmd_name == "ctl":
            from leveret.broker.ctl.command import ctl

            return ctl
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog="Run `leveret serve --help` for its options, and so for the others.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version and whether it is compiled, and exit.",
)  # fmt: skip
@click.pass_context
def leveret(context: click.Context) -> None:
    """A message broker that RabbitMQ's clients use unchanged."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@leveret.command()
@click.option("--config", "config_file", metavar="FILE", help="Settings: TOML, or a rabbitmq.conf.")
@click.pass_context
def serve(context: click.Context, /, config_file: str | None, **flags: object) -> None:
    """Run the broker until Ctrl-C.

    With no options it serves amqp://guest:guest@127.0.0.1:5672/ and keeps its data in ./leveret.db.
    """
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    context.exit(_serve(given, Path(config_file) if config_file is not None else None))


def _add_serve_options() -> None:
    defaults = Settings()
    for name, metavar in SERVE_OPTIONS.items():
        text = SETTINGS[name].about.replace("`", "")
        option = click.Option(
            [f"--{name.replace('_', '-')}", name],
            metavar=metavar,
            is_flag=True if metavar is None else None,
            help=text if metavar is None else f"{text}  [default: {getattr(defaults, name)}]",
        )
        serve.params.append(option)


_add_serve_options()


def _serve(flags: dict[str, object], config_file: Path | None) -> int:
    if "memory" in flags and "data" in flags:
        raise ConfigError("--memory keeps nothing on disk, so --data has no use; give one of them", EX_USAGE)
    configuration = read_configuration(flags, os.environ, config_file)

    from leveret.broker import logs

    settings = configuration.settings
    logs.configure(settings.log_format, settings.log_level)
    for warning in configuration.warnings:
        logs.get_logger().warning("configuration", note=warning)

    def reread() -> Settings:
        return read_configuration(flags, os.environ, config_file).settings

    def run(settings: Settings) -> int:
        from leveret.broker.server.run import serve as run_server

        return run_server(settings, reread, _STARTED_S)

    return run_guarded(run, settings)


def run_guarded(run: Callable[[Settings], int], settings: Settings) -> int:
    """Call `run` and return its exit code; tell the user in one line what ended it otherwise."""
    try:
        return run(settings)
    except KeyboardInterrupt:  # before the server listens to signals
        return 130
    except Exception as error:  # the last place that can turn it into words
        from leveret.broker.failures import explain

        failure = explain(error, settings)
        if failure.is_bug and settings.log_level == "debug":
            import traceback

            traceback.print_exception(error)
        _complain(failure.text)
        return failure.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    try:
        code = leveret.main(arguments, prog_name="leveret", standalone_mode=False)
    except ConfigError as error:
        _complain(str(error))
        return error.exit_code
    except click.UsageError as error:
        _complain(_usage_text(error))
        return EX_USAGE
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _usage_text(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx is not None else "leveret"
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [option for parameter in error.ctx.command.params for option in parameter.opts]
        best = nearest(error.option_name, known)
        text = f"unknown option {error.option_name}; the nearest known one is {best}"
    else:
        text = error.format_message().rstrip(".")
    return f"{text} (see {command} --help)"


def _complain(text: str) -> None:
    print(f"leveret: {text}", file=sys.stderr)
