"""A verb of `leveret ctl` on its way to what does it: arguments, answer, and why it cannot be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from leveret.broker.model.vhost import VHost
    from leveret.broker.server.node import Node

EX_USAGE: Final = 64
EX_DATA: Final = 65
EX_NO_USER: Final = 67
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70


class Refusal(Exception):
    """A verb cannot be done.

    Args:
        text: what is shown.
        code: of the process.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Call:
    """A verb with its arguments.

    Raises:
        Refusal: it is not a list of texts and a dictionary of texts, as the command sends them.
    """

    def __init__(self, node: Node, request: dict[str, Any]) -> None:
        self.node = node
        arguments, options = request.get("arguments", []), request.get("options", {})
        if not (
            isinstance(arguments, list)
            and isinstance(options, dict)
            and all(isinstance(text, str) for text in [*arguments, *options.values()])
        ):
            raise Refusal("Error:\narguments and options are texts", EX_USAGE)
        self.arguments: list[str] = arguments
        self.options: dict[str, str] = options

    def __getitem__(self, index: int) -> str:
        if index >= len(self.arguments):
            raise Refusal("Error (argument validation): not enough arguments.", EX_USAGE)
        return self.arguments[index]

    @property
    def vhost_name(self) -> str:
        """Name of the vhost that is asked for."""
        return self.options.get("vhost", "/")

    @property
    def vhost(self) -> VHost | None:
        """The vhost that is asked for; lists of one that does not exist are empty."""
        return self.node.vhosts.get(self.vhost_name)


Answer: TypeAlias = dict[str, Any]


def table(columns: list[str], rows: list[list[Any]]) -> Answer:
    """Answer with a table."""
    return {"table": {"columns": columns, "rows": rows}}
