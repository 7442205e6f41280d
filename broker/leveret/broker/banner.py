"""What the broker prints when it is ready."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from leveret.broker.logs import LineLogger, get_logger, one_line, wants_colours
from leveret.broker.version import version, way_of_running

if TYPE_CHECKING:
    from typing import TextIO

COMPLETE: Final = "Server startup complete"  # test containers and scripts wait for these words

_BOLD: Final = "\x1b[1m"
_DIM: Final = "\x1b[2m"
_CYAN: Final = "\x1b[36m"
_GREEN: Final = "\x1b[32m"
_RESET: Final = "\x1b[0m"


def startup_banner(
    url: str,
    data: str,
    compiled: bool,
    elapsed_s: float,
    *,
    log_format: str = "console",
    log_level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Tell that the broker listens: a few lines for people, or one JSON event.

    Args:
        url: where clients connect.
        data: path of the data file, or what stands for it.
        compiled: whether the hot modules are machine code.
        elapsed_s: time since the command was started.
        log_format: console or json.
        log_level: the level in force, for the hint how to see more.
        stream: where to print, by default standard output.
    """
    if log_format == "json":
        get_logger().info(
            COMPLETE, url=url, data=data, version=version(), compiled=compiled, elapsed_s=round(elapsed_s, 3)
        )
        return
    out = sys.stdout if stream is None else stream
    LineLogger(out).write(
        render(url, data, compiled, elapsed_s, log_level=log_level, colours=wants_colours(out))
    )


def render(
    url: str, data: str, compiled: bool, elapsed_s: float, *, log_level: str = "info", colours: bool = False
) -> str:
    """Return the lines for people."""

    def paint(colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if colours else text

    more = "" if log_level == "debug" else "; more with --log-level debug"
    rows = (
        ("AMQP", paint(_CYAN, one_line(url))),
        ("data", one_line(data)),
        ("logs", f"here, {log_level} and above{more}"),
        ("stop", "Ctrl-C"),
    )
    name = paint(_BOLD, f"Leveret {version()}")
    lines = ["", f"  {name} {paint(_DIM, f'({way_of_running(compiled)})')}", ""]
    lines += [f"  {paint(_DIM, f'{label:<6}')}{text}" for label, text in rows]
    lines += ["", paint(_GREEN, f"{COMPLETE} in {elapsed_s:.2f} s")]
    return "\n".join(lines)
