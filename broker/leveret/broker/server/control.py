"""Serves the control socket: one request a connection, answered when what it changed is durable."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import trio

from leveret.broker.control_socket import REQUEST_BYTES_MAX, listen
from leveret.broker.logs import get_logger
from leveret.broker.server.administration import answer
from leveret.broker.server.calls import EX_USAGE
from leveret.broker.server.node_verbs import STOPS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from leveret.broker.server.node import Node

CONNECTIONS_MAX: Final = 16
REQUEST_S: Final = 10.0  # how long a request may take to arrive
ANSWER_S: Final = 60.0  # how long its answer may take to become durable, and to be read
ERROR_EXIT: Final = 70
# Of these the log tells only that they were done; the others change something.
_QUIET: Final = (
    "list_", "ping", "authenticate_", "check_", "is_", "status", "cluster_status", "listeners", "alarms",
    "server_version", "await_startup", "wait", "environment", "hash_password",
)  # fmt: skip


class ControlServer:
    """Answers `leveret ctl`.

    Args:
        node: whom the verbs are about.
        wake: has the event loop do a turn.
        path: of the socket.
    """

    def __init__(self, node: Node, wake: Callable[[], None], path: Path) -> None:
        self._node = node
        self._wake = wake
        self._path = path
        self._listener: socket.socket | None = None
        self._room = trio.CapacityLimiter(CONNECTIONS_MAX)

    def open(self) -> None:
        """Make the socket. Without one the broker runs all the same."""
        try:
            self._listener = listen(self._path)
        except OSError as error:
            get_logger().warning("no control socket", path=str(self._path), error=str(error))

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._listener is not None:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
            await trio.serve_listeners(self._serve, [listener])

    def close(self) -> None:
        """Remove the socket."""
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream, self._room:
                with trio.move_on_after(REQUEST_S) as patience:
                    request = await _receive(stream)
                if patience.cancelled_caught:
                    return
                with trio.move_on_after(ANSWER_S):
                    reply = await self._answer(request)
                    stops = reply.pop(STOPS, False)
                    await stream.send_all(json.dumps(reply).encode() + b"\n")
                    if stops:
                        os.kill(os.getpid(), signal.SIGTERM)  # as anybody else would stop it
        except trio.BrokenResourceError:
            pass  # the peer did not wait for its answer

    async def _answer(self, request: object) -> dict[str, Any]:
        if not isinstance(request, dict):
            return {"error": "Error:\nthis is not a request", "code": EX_USAGE}
        verb = str(request.get("verb"))
        node = self._node
        try:
            node.begin_turn()
            reply = answer(node, request)
        except Exception as error:  # a bug: whoever asked is told, nobody else pays for it
            get_logger().exception("internal error", verb=verb, exc_info=error)
            reply = {"error": f"Error:\ninternal error: {error!r}", "code": ERROR_EXIT}
        if not verb.startswith(_QUIET):
            get_logger().info("administration", verb=verb, done="error" not in reply)
        durable = trio.Event()
        trio_token = trio.lowlevel.current_trio_token()
        node.when_durable(lambda: trio_token.run_sync_soon(durable.set))  # called by the loop, not by trio
        self._wake()  # the loop's turn hands the changes to the store, and writes to who is closed
        await durable.wait()
        return reply


async def _receive(stream: trio.SocketStream) -> object:
    """Read a line of JSON; None if it is none."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= REQUEST_BYTES_MAX:
        data = await stream.receive_some(65536)
        if not data:
            break
        line += data
    try:
        request: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return request
