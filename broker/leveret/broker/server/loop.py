"""Sockets: one loop in the main thread serves them all. HOT.

It owns an epoll object with every AMQP socket in it; so one wake-up serves every socket that is ready, a
connection costs no task, and an idle one costs nothing. Each turn reads once from each ready socket (at most
the node's `read_max`), lets the node finish its turn, writes once to each connection that has output, and has
the node hand over to the store what is to become durable. Before it sleeps it looks again where that pays
(patience.py). It sleeps without a timeout; a timer (timer.py) is one more descriptor in the epoll object.

Everything else the broker does runs on trio (run.py), as a guest of this loop: trio waits for its own
descriptors and deadlines in a thread, and when there is something to do has it done between two turns
(`call_soon`). So what trio costs is paid when it has work. As a task of trio that waits with `wait_readable`,
and went back to trio every 64 turns, this loop took 15 % more CPU for a persistent message at a time.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from leveret.broker.server.patience import EVENTS_MAX, Patience
from leveret.broker.server.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.server.node import Node
    from leveret.broker.server.session import Session
    from leveret.protocol.outbox import Outbox

PIECES_MAX: Final = 1024  # in one call; the kernel takes no more (IOV_MAX)
LARGE_BODY_READS: Final = 4  # times what is read in one turn otherwise, of a body that is on its way
ACCEPT_MAX: Final = 64  # connections accepted in one turn
ACCEPT_PAUSE_S: Final = 0.05  # after a connection could not be accepted while there are none
BACKLOG: Final = 1024

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP


class Link:
    """A socket and the session it serves."""

    __slots__ = ("interest", "outbox", "rest", "session", "socket")

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self.socket = sock
        self.session = session
        self.outbox: Outbox = session.outbox
        self.rest: list[bytes | memoryview] = []  # what is being written, and what partial writes left over
        self.interest: int = READ


class Waker:
    """Wakes the loop from other threads."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """Make the loop's next wait end at once."""
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self.fd)


class SocketLoop:
    """Serves the listening sockets and all connections.

    Args:
        node: what the sessions belong to.
        listeners: bound and listening sockets.
        waker: for the store's threads.
    """

    def __init__(self, node: Node, listeners: list[socket.socket], waker: Waker) -> None:
        self._node = node
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._waker = waker
        self._links: dict[int, Link] = {}  # by descriptor
        self._link_of: dict[Outbox, Link] = {}
        self._is_accepting: bool = True
        self._is_stopped: bool = False
        self._epoll = select.epoll()
        self._patience = Patience(self._epoll.poll, time.perf_counter)
        self._timer = Timer()
        self._timer_ms: int = 0  # when it goes off; 0 if it is not set
        self._soon: deque[Callable[[], object]] = deque()  # what to call between two turns
        # Told once of each time they wake us; there is nothing to take back.
        self._epoll.register(waker.fd, READ | select.EPOLLET)
        self._epoll.register(self._timer.fd, READ | select.EPOLLET)
        for listener in listeners:
            listener.setblocking(False)
            self._epoll.register(listener.fileno(), READ)

    def run(self) -> None:
        """Serve until the node is done, or `stop`."""
        while not (self._node.is_done or self._is_stopped):
            self.turn()

    def stop(self) -> None:
        """Have `run` end after the turn. From any thread."""
        self._is_stopped = True
        self._waker.wake()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called between two turns. From any thread."""
        self._soon.append(function)
        self._waker.wake()

    def run_calls(self, is_over: Callable[[], bool]) -> None:
        """Serve nobody, only call what is to be called."""
        while not is_over():
            self._epoll.poll(-1, EVENTS_MAX)
            self._call()

    def _call(self) -> None:
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def turn(self) -> None:
        """Wait until there is something to do, and do one turn."""
        node = self._node
        events = [] if node.is_eager else self._patience.look()
        if not events:
            events = self._sleep()
        node.begin_turn()
        for fd, event in events:
            link = self._links.get(fd)
            if link is None:
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
                elif fd == self._timer.fd:
                    self._timer_ms = 0
                continue
            if event & WRITE:
                self._write(link)
            if event & (READ | BROKEN):
                self._read(link)
        node.end_turn()
        self._flush()
        node.hand_over()
        for session in node.take_changed_sessions():
            changed = self._link_of.get(session.outbox)
            if changed is not None:
                self._update(changed)
        if self._soon:
            self._call()

    def _sleep(self) -> list[tuple[int, int]]:
        """Wait for events; none if the node has something to do by now."""
        wake_ms = self._node.next_wake_ms()  # now, if it is eager
        if wake_ms is not None:
            now_ms = self._node.clock_ms()
            if wake_ms <= now_ms:
                return self._epoll.poll(0, EVENTS_MAX)
            if not now_ms < self._timer_ms <= wake_ms:  # else it goes off in time, or before
                self._timer_ms = wake_ms
                self._timer.go_off_in(wake_ms - now_ms)
        return self._epoll.poll(-1, EVENTS_MAX)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors or memory: the backlog waits until a connection is closed.
                self._node.accept_failed(error)
                if self._links:
                    self._epoll.modify(listener.fileno(), 0)
                    self._is_accepting = False
                else:
                    time.sleep(ACCEPT_PAUSE_S)  # nobody is kept waiting, and nobody will tell when it is over
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer, ours = address[:2], sock.getsockname()[:2]
            name = f"{peer[0]}:{peer[1]} -> {ours[0]}:{ours[1]}"
            session = self._node.open_session(peer[0], name, _is_loopback(peer[0]))
            if session is None:
                sock.close()
                continue
            link = Link(sock, session)
            fd = sock.fileno()
            self._links[fd] = link
            self._link_of[session.outbox] = link
            self._epoll.register(fd, READ)

    def _read(self, link: Link) -> None:
        session = link.session
        try:
            size: int = self._node.read_max
            expected = session.expected_bytes
            if expected > size:
                size = min(expected, LARGE_BODY_READS * size)
            data = link.socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            session.receive(data)
        else:
            session.connection_lost()

    def _flush(self) -> None:
        to_flush = self._node.to_flush
        while to_flush:
            batch = to_flush[:]
            to_flush.clear()
            for outbox in batch:
                link = self._link_of.get(outbox)
                if link is None:
                    outbox.take()
                    continue
                if not link.rest:
                    self._write(link)
                else:
                    outbox.dirty = False

    def _write(self, link: Link) -> None:
        """Write what waits; keep what the kernel does not take."""
        outbox = link.outbox
        try:
            if link.rest:
                self._send(link, link.rest)
            if not link.rest and outbox.pieces:
                if outbox.has_large_pieces:
                    link.rest += outbox.take_pieces()
                else:
                    link.rest.append(outbox.take())
                self._send(link, link.rest)
        except BlockingIOError:
            pass
        except OSError:
            link.rest.clear()
            link.session.connection_broken()
        self._update(link)

    def _send(self, link: Link, rest: list[bytes | memoryview]) -> None:
        """Hand to the kernel what it takes, and keep the rest."""
        if len(rest) == 1:
            sent: int = link.socket.send(rest[0])
        else:
            sent = link.socket.sendmsg(rest[:PIECES_MAX])
        if link.outbox.sent(sent):
            link.session.output_drained()
        whole = 0
        while whole < len(rest) and sent >= len(rest[whole]):
            sent -= len(rest[whole])
            whole += 1
        del rest[:whole]
        if sent:
            rest[0] = memoryview(rest[0])[sent:]

    def _update(self, link: Link) -> None:
        """Follow a change of a session: reading rests or goes on, or the socket is to be closed."""
        session = link.session
        fd = link.socket.fileno()
        if fd < 0:
            return
        if session.is_lost or (session.is_shut and session.peer_is_gone):
            self._close(link, fd)
            return
        is_written = not link.rest and not link.outbox.pieces
        if session.wants_close and is_written and not session.is_shut:
            # The peer reads our last words and closes; closing first could discard them.
            session.is_shut = True
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_WR)
        interest = 0 if session.is_resting else READ
        if link.rest:
            interest |= WRITE
        if interest != link.interest:
            link.interest = interest
            self._epoll.modify(fd, interest)

    def _close(self, link: Link, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._links[fd]
        del self._link_of[link.outbox]
        link.socket.close()
        self._node.session_closed(link.session)
        if not self._is_accepting:
            self._is_accepting = True
            for listener in self._listeners.values():
                self._epoll.modify(listener.fileno(), READ)

    def close(self) -> None:
        """Close every socket at once."""
        for link in self._links.values():
            link.socket.close()
        for listener in self._listeners.values():
            listener.close()
        self._timer.close()
        self._epoll.close()

    def stop_listening(self) -> None:
        """Accept no more connections."""
        for fd, listener in self._listeners.items():
            self._epoll.unregister(fd)
            listener.close()
        self._listeners.clear()


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
