"""A broker that dies: a relay in front of a sound one, which breaks everything off after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

PIECE = 1 << 16


class Relay:
    """Listens like a broker until it has passed on `limit` bytes; then nobody answers there any more."""

    def __init__(self, port: int, limit: int) -> None:
        self._port = port
        self._left = limit
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The URL of the broker that is going to die."""
        return f"amqp://127.0.0.1:{self._listener.getsockname()[1]}/"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, broker]
                for ends in ((client, broker), (broker, client)):
                    thread = threading.Thread(target=self._pass_on, args=ends, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                with self._lock:
                    self._left -= len(data)
                    if self._left < 0:
                        self.die()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def die(self) -> None:
        """Break all connections and take no new ones."""
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Die, and wait for the threads."""
        self.die()
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._sockets]:
            each.close()


@contextlib.contextmanager
def broker_that_dies(url: str, after_bytes: int) -> Iterator[str]:
    """Yield the URL of a broker that dies when it has got and sent that many bytes."""
    port = urlsplit(url).port
    assert port is not None
    relay = Relay(port, after_bytes)
    try:
        yield relay.url
    finally:
        relay.close()
