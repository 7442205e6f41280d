"""`leveret ctl`: reads the command line, asks the broker, prints what it answers."""

from __future__ import annotations

import difflib
import getpass
import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from leveret.broker.config import EX_USAGE, Settings, read_configuration
from leveret.broker.control_socket import connect, control_path, memory_path
from leveret.broker.ctl.output import FORMATTERS, plain, render
from leveret.broker.ctl.verbs import GROUPS, VERBS, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EX_UNAVAILABLE: Final = 69
DEFAULT_VHOST: Final = "/"
DEFAULT_USER: Final = "guest"
TIMEOUT_S: Final = 60.0
STARTUP_S: Final = 300.0  # how long to wait for a broker that is being started
CONNECT_S: Final = 10.0
AGAIN_S: Final = 0.2
PASSWORD_VERBS: Final = ("add_user", "change_password", "authenticate_user")
_GLOBAL_VALUES: Final = {
    "-p": "vhost", "--vhost": "vhost", "-n": "node", "--node": "node", "-t": "timeout",
    "--timeout": "timeout", "--formatter": "formatter", "--socket": "socket",
}  # fmt: skip
_GLOBAL_FLAGS: Final = {
    "-q": "quiet", "--quiet": "quiet", "-s": "silent", "--silent": "silent", "-l": "longnames",
    "--longnames": "longnames", "--no-table-headers": "no-table-headers", "-?": "help", "--help": "help",
}  # fmt: skip


class UsageError(Exception):
    """The command line is wrong."""


@dataclass(slots=True)
class Line:
    """A command line, taken apart."""

    words: list[str] = field(default_factory=list)  # the verb and its arguments
    options: dict[str, str] = field(default_factory=dict)  # long name -> value, empty for a flag


class _Ctl(click.Command):
    """A command that reads its line itself."""

    def get_help(self, ctx: click.Context) -> str:
        return overview().rstrip("\n")


@click.command(
    cls=_Ctl,
    context_settings={
        "ignore_unknown_options": True,
        "help_option_names": [],
        "allow_interspersed_args": False,
    },
    add_help_option=False,
    short_help="Administer a running broker, with rabbitmqctl's verbs.",
)
@click.argument("line", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def ctl(context: click.Context, line: tuple[str, ...]) -> None:
    """Administer a running broker, with rabbitmqctl's verbs."""
    context.exit(run(line, None))


def run(line: Sequence[str], ask: Callable[[dict[str, object]], dict[str, Any]] | None) -> int:
    """Run a command line.

    Args:
        line: options, verb and arguments.
        ask: sends a request to the broker; None for the local socket.

    Returns:
        the exit code.
    """
    try:
        parsed = parse(line)
        if "help" in parsed.options or not parsed.words or parsed.words[0] == "help":
            named = [word for word in parsed.words if word != "help"]
            print(usage(_verb(named[0])) if named else overview(), end="")
            return 0
        verb = _verb(parsed.words[0])
        arguments = _arguments(verb, parsed)
    except UsageError as error:
        print(error, file=sys.stderr)
        return EX_USAGE
    return _run(verb, arguments, parsed.options, ask)


def _run(
    verb: Verb,
    arguments: list[str],
    options: dict[str, str],
    ask: Callable[[dict[str, object]], dict[str, Any]] | None,
) -> int:
    formatter = options.get("formatter", "table")
    is_quiet = "quiet" in options or "silent" in options or formatter in ("json", "csv")
    if verb.banner and not is_quiet:
        print(_filled(verb, arguments, options), flush=True)
    request: dict[str, object] = {
        "verb": verb.name,
        "arguments": arguments,
        "options": {name: options[name] for name in options if name in (*verb.values, *verb.flags)}
        | ({"vhost": options.get("vhost", DEFAULT_VHOST)} if verb.has_vhost else {}),
    }
    if ask is None:
        ask = partial(_ask_until_it_answers if verb.waits else ask_broker, options=options)
    try:
        answer = ask(request)
    except OSError as error:
        print(_unreachable(error, options), file=sys.stderr)
        return EX_UNAVAILABLE
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        return int(answer["code"])
    if refused := _not_reachable(answer.get("connect", [])):
        print(refused, file=sys.stderr)
        return EX_UNAVAILABLE
    if "table" in answer:
        has_header = not ("silent" in options or "no-table-headers" in options)
        table = answer["table"]
        print(render(formatter, table["columns"], table["rows"], has_header), end="")
    elif formatter == "json" and "json" in answer:
        print(json.dumps(answer["json"]))
    elif "text" in answer:
        print(answer["text"])
    if verb.done and not is_quiet:
        print(verb.done)
    return 0


def parse(line: Sequence[str]) -> Line:
    """Take a command line apart. Options may stand anywhere; behind `--` nothing is an option.

    Raises:
        UsageError: an option is unknown or has no value.
    """
    parsed = Line()
    known_values, known_flags = dict(_GLOBAL_VALUES), dict(_GLOBAL_FLAGS)
    words = list(line)
    while words:
        word = words.pop(0)
        if word == "--":
            parsed.words += words
            break
        if not word.startswith("-") or word == "-" or (parsed.words and _is_number(word)):
            parsed.words.append(word)
            if len(parsed.words) == 1 and word in VERBS:
                verb = VERBS[word]
                known_values |= {f"--{name}": name for name in verb.values}
                known_flags |= {f"--{name}": name for name in verb.flags}
            continue
        name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in known_values:
            if not has_value:
                if not words:
                    raise UsageError(_invalid(parsed, f"{name} : "))
                value = words.pop(0)
            parsed.options[known_values[name]] = value
        elif name in known_flags and not has_value:
            parsed.options[known_flags[name]] = ""
        else:
            raise UsageError(_invalid(parsed, f"{word} : "))
    if parsed.options.get("formatter", "table") not in FORMATTERS:
        raise UsageError(f"unknown formatter; there are {', '.join(FORMATTERS)}")
    return parsed


def _is_number(word: str) -> bool:
    return word[1:].isdigit()


def _invalid(parsed: Line, what: str) -> str:
    text = f"Error (argument validation): Invalid options for this command:\n{what}"
    return (
        text
        if not parsed.words or parsed.words[0] not in VERBS
        else f"{text}\n\n{usage(VERBS[parsed.words[0]])}"
    )


def _verb(name: str) -> Verb:
    verb = VERBS.get(name)
    if verb is not None:
        return verb
    close = difflib.get_close_matches(name, VERBS, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else overview()
    raise UsageError(f"\nCommand '{plain(name)}' not found.\n{hint}")


def _arguments(verb: Verb, parsed: Line) -> list[str]:
    arguments = parsed.words[1:]
    if len(arguments) < verb.least:
        raise UsageError(f"Error (argument validation): not enough arguments.\n\n{usage(verb)}")
    if verb.most is not None and len(arguments) > verb.most:
        raise UsageError(f"Error (argument validation): too many arguments.\n\n{usage(verb)}")
    if verb.arguments_are_columns:
        arguments = [column for word in arguments for column in word.replace(",", " ").split()]
        unknown = [column for column in arguments if column not in (*verb.columns, *verb.more_columns)]
        if unknown:
            raise UsageError(
                "Error (argument validation): Info key(s)"
                f" {','.join(sorted(set(unknown)))} are not supported\n\n{usage(verb)}"
            )
        arguments = arguments or list(verb.columns)
    if not parsed.options.get("priority", "0").removeprefix("-").isdigit():
        raise UsageError(_invalid(parsed, f"--priority : {parsed.options['priority']}"))
    if verb.name in PASSWORD_VERBS and len(arguments) == 1:
        arguments.append(_read_password())
    return arguments


def _read_password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\r\n")


def _filled(verb: Verb, arguments: list[str], options: dict[str, str]) -> str:
    conditions = [
        f"queue is {name.removeprefix('if-')}" for name in ("if-empty", "if-unused") if name in options
    ]
    values = {
        "vhost": options.get("vhost", DEFAULT_VHOST),
        "rest": ", ".join(arguments[1:]),
        "on": f' on "{arguments[1]}"' if len(arguments) > 1 else "",
        "if": f" if {' and '.join(conditions)}" if conditions else "",
        "priority": options.get("priority", "0"),
        "which": _whose_limits(verb.name, options),
        "limit": "all limits" if arguments[1:] == ["all"] else f'"{"".join(arguments[1:2])}" limit',
    }
    return plain_lines(verb.banner.format(*arguments, **values))


def _whose_limits(verb: str, options: dict[str, str]) -> str:
    if verb == "list_user_limits":
        return "all users" if "global" in options else f'user "{options.get("user", DEFAULT_USER)}"'
    return "all vhosts" if "global" in options else f'vhost "{options.get("vhost", DEFAULT_VHOST)}"'


def plain_lines(text: str) -> str:
    """Return a text of lines that does nothing else to a terminal."""
    return "\n".join(map(plain, text.split("\n")))


def usage(verb: Verb) -> str:
    """Return how a verb is called."""
    text = f"Usage: leveret ctl {verb.name} {verb.usage}".rstrip() + f"\n\n{verb.about}.\n"
    if verb.arguments_are_columns:
        columns = dict.fromkeys([*verb.columns, *verb.more_columns])
        text += f"\nColumns: {', '.join(columns)}\n"
    return text


def overview() -> str:
    """Return a list of all verbs."""
    width = max(map(len, VERBS)) + 2
    parts = [
        "Usage: leveret ctl [OPTIONS] VERB [ARGUMENT]...\n\n"
        "  Administer a running broker on this machine, with rabbitmqctl's verbs.\n\n"
        "Options:\n"
        "  -p, --vhost VHOST     The vhost, for verbs that need one.  [default: /]\n"
        "  -q, --quiet           Print results only.\n"
        "  -s, --silent          Print no table headers either.\n"
        "  --no-table-headers    The same.\n"
        "  --formatter FORMAT    table, json, csv or pretty_table.\n"
        "  --socket PATH         The broker's control socket.  [default: leveret.db.sock, or what the\n"
        "                        configuration says; with --memory on the default port its own]\n"
        "  -t, --timeout S       How long to wait for an answer.  [default: 60]\n"
        "  -n, --node; -l, --longnames   Accepted and ignored.\n"
        "  --help                Show this message, or how the verb is called.\n"
    ]
    for group, verbs in GROUPS.items():
        lines = [f"  {verb.name:{width}}{verb.about}\n" for verb in verbs]
        parts.append(f"\n{group}:\n{''.join(lines)}")
    return "".join(parts)


# -- the broker


def find_socket(options: dict[str, str]) -> Path:
    """Return where the broker's socket should be.

    Raises:
        ConfigError: the configuration is wrong.
    """
    if "socket" in options:
        return Path(options["socket"])
    settings: Settings = read_configuration({}, os.environ, None).settings
    path = control_path(settings, settings.port)
    in_memory = memory_path(settings.port)
    if path is None or (settings.control_socket == "auto" and not path.exists() and in_memory.exists()):
        return in_memory
    return path


def ask_broker(request: dict[str, object], options: dict[str, str]) -> dict[str, Any]:
    """Send a request by the local socket.

    Raises:
        OSError: nobody answers.
    """
    with connect(find_socket(options), _timeout_s(options, TIMEOUT_S)) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the broker closed the connection without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _ask_until_it_answers(request: dict[str, object], options: dict[str, str]) -> dict[str, Any]:
    """Do the same, again and again until the timeout.

    Raises:
        OSError: nobody has answered until then.
    """
    deadline = time.monotonic() + _timeout_s(options, STARTUP_S)
    while True:
        try:
            return ask_broker(request, options)
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(AGAIN_S)


def _not_reachable(addresses: list[tuple[str, int]]) -> str:
    """Connect to each address; what went wrong, if anything."""
    for host, port in addresses:
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        try:
            socket.create_connection((reachable, port), CONNECT_S).close()
        except OSError as error:
            return f"Error:\nConnection to port {port} failed: {error}"
    return ""


def _timeout_s(options: dict[str, str], default: float) -> float:
    try:
        return float(options.get("timeout", default))
    except ValueError:
        return default


def _unreachable(error: OSError, options: dict[str, str]) -> str:
    path = find_socket(options)
    reason = error.strerror or str(error)
    return (
        f"Error: no broker answers at {path}: {reason}.\n"
        "Is it running? Name its socket with --socket, as `leveret serve --control-socket` did, or run this"
        " in the folder of its data file, as its user."
    )
