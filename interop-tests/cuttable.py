"""A TCP relay in front of the broker whose connections can be cut, as a failing network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace

from brokers import Broker


class Relay:
    """Accepts connections on a free port and passes bytes to the broker and back, until `cut` or `close`."""

    def __init__(self, broker: Broker) -> None:
        self._target = (broker.host, broker.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.accepted = 0
        self.broker = replace(broker, host="127.0.0.1", port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop all connections; new ones are accepted as before."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """Drop all connections and accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                with self._lock:
                    self._sockets += [client, server]
                    self.accepted += 1
                for source, destination in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, destination), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                destination.sendall(data)
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_WR)
