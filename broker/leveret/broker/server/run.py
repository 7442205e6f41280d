"""Puts a broker together and runs it: store, threads, sockets, signals."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import secrets
import signal
import socket
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Final

import trio

from leveret.broker.banner import startup_banner
from leveret.broker.config import ConfigError
from leveret.broker.control_socket import control_path
from leveret.broker.logs import Copy, configure, get_logger
from leveret.broker.server.clock import steady_wall_clock
from leveret.broker.server.committer import Committer
from leveret.broker.server.control import ControlServer
from leveret.broker.server.giving_back import give_back_memory
from leveret.broker.server.log_exchange import LogExchange
from leveret.broker.server.loop import BACKLOG, SocketLoop, Waker
from leveret.broker.server.node import Node
from leveret.broker.server.resources import watch
from leveret.broker.version import is_compiled
from leveret.protocol.tables import decode_table, to_json
from leveret.storage.store import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from leveret.broker.config import Settings
    from leveret.storage.store import Store

EX_OK: Final = 0
EX_IO_ERROR: Final = 74
# The writer and the reader ask for the interpreter lock after each statement; at Python's 5 ms a busy event
# loop would hold up every commit (measured: 1,000 rows took 10 to 27 ms, and 7 ms with this).
SWITCH_INTERVAL_S: Final = 0.0001
GARBAGE_THRESHOLDS: Final = (100_000, 20, 50)  # new objects, collections of the young, of the middle-aged
M_TRIM_THRESHOLD: Final = -1  # of malloc.h
M_MMAP_THRESHOLD: Final = -3
MMAP_THRESHOLD_BYTES: Final = 32 * 1024 * 1024  # the most that glibc takes; larger blocks are mapped
TRIM_THRESHOLD_BYTES: Final = 32 * 1024 * 1024  # free memory beyond this goes back to the system
GOODBYE_S: Final = 5.0  # how long clients may take to answer connection.close when the broker stops


def serve(settings: Settings, reread: Callable[[], Settings], started_s: float | None = None) -> int:
    """Run a broker until it is told to stop.

    Args:
        settings: how it is configured.
        reread: reads the configuration again, on SIGHUP.
        started_s: `time.monotonic()` when the command began, for the banner.

    Returns:
        the exit code of the process.

    Raises:
        OSError: it cannot listen.
        StoreError: the data cannot be opened.
    """
    started_s = time.monotonic() if started_s is None else started_s
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_buffers()
    collect_garbage_rarely()
    allow_many_connections()
    listeners = listen(settings.host, settings.port)
    try:
        store = open_store(settings)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return _run(settings, reread, store, listeners, started_s)


def keep_large_buffers() -> None:
    """Have the C library use memory of large messages again instead of giving it back.

    By default glibc maps each block from 128 KiB on anew, and the kernel clears every page of it: that was
    more than half of the CPU time of 1 MiB messages. Other C libraries do as they do.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def collect_garbage_rarely() -> None:
    """Look for cyclic garbage after many more objects than Python does by default.

    Messages come and go by the hundred thousand and are in no cycles; by default more than a quarter of
    the CPU time of transient messages went into looking through them.
    """
    gc.freeze()  # what the program consists of stays
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def allow_many_connections() -> None:
    """Let the process have as many descriptors as it may: each connection takes one, and often 1,024 is where
    a process begins."""
    with contextlib.suppress(OSError, ValueError):  # a system may refuse what it says is allowed
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind the host's addresses and listen. Port 0 picks one free port for all of them."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(BACKLOG)
            port = listener.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def open_store(settings: Settings) -> Store:
    """Open the data file, or begin with empty memory."""
    if settings.memory:
        from leveret.storage.memory import MemoryStore

        return MemoryStore()
    from leveret.protocol import properties
    from leveret.storage.connections import do_without_locks
    from leveret.storage.sqlite import SqliteStore

    do_without_locks()
    return SqliteStore(settings.data, describe=properties.to_json, describe_arguments=_arguments_as_json)


def _arguments_as_json(raw: bytes) -> str | None:
    """Show a field table in the readable views."""
    table = decode_table(raw)[0]
    return json.dumps(to_json(table), ensure_ascii=False) if table else None


def _run(
    settings: Settings,
    reread: Callable[[], Settings],
    store: Store,
    listeners: list[socket.socket],
    started_s: float,
) -> int:
    snapshot = store.load()
    waker = Waker()
    committer = Committer(store, waker.wake, waker.fd)
    node = Node(settings, committer, snapshot, steady_wall_clock, secrets.token_urlsafe)
    node.listeners = [listener.getsockname()[:2] for listener in listeners]
    loop = SocketLoop(node, listeners, waker)
    guest = _Guest(settings, reread, store, node, loop, waker, started_s)
    trio.lowlevel.start_guest_run(
        guest.run,
        run_sync_soon_threadsafe=loop.call_soon,
        done_callback=lambda outcome: guest.ended(outcome.unwrap),
    )
    try:
        loop.run()
    finally:
        guest.stop()
        loop.run_calls(guest.is_over)
        loop.close()
    guest.results[0]()
    if node.failure is None and node.unfinished is not None:
        committer.write(node.unfinished, False)
    failure = _close(committer) or node.failure
    waker.close()
    if failure is not None:
        return EX_IO_ERROR
    get_logger().info("stopped")
    return EX_OK


class _Guest:
    """What runs on trio beside the socket loop: signals, the control socket, a look at memory and disk."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        store: Store,
        node: Node,
        loop: SocketLoop,
        waker: Waker,
        started_s: float,
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._store = store
        self._node = node
        self._loop = loop
        self._waker = waker
        self._started_s = started_s
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopped = trio.Event()
        self._is_stopping = False
        self.results: list[Callable[[], object]] = []  # of `run`, once it is over; raises what it raised

    def ended(self, result: Callable[[], object]) -> None:
        """Note that `run` is over."""
        self.results.append(result)
        self._loop.stop()

    def is_over(self) -> bool:
        """Whether `run` is over."""
        return bool(self.results)

    def stop(self) -> None:
        """Have `run` end soon. Called by the host, so trio has to be woken."""
        self._is_stopping = True
        if self._token is not None and not self.results:
            self._token.run_sync_soon(self._stopped.set)

    async def run(self) -> None:
        """Do it until `stop`."""
        settings, node, waker = self._settings, self._node, self._waker
        self._token = trio.lowlevel.current_trio_token()
        host, port = node.listeners[0]
        shown_host = f"[{host}]" if ":" in host else host
        path = control_path(settings, port)
        control = None if path is None else ControlServer(node, waker.wake, path)
        if control is not None:
            control.open()
        log_exchange = LogExchange(node, waker.wake)
        copy = Copy(log_exchange.take, settings.log_exchange_level) if settings.log_exchange else None
        if copy is not None:
            configure(settings.log_format, settings.log_level, copy=copy)
        # Signals are listened to before anybody is told that there is a broker to send them to.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            startup_banner(
                f"amqp://{shown_host}:{port}",
                "in memory only" if settings.memory else str(settings.data.absolute()),
                is_compiled(),
                time.monotonic() - self._started_s,
                log_format=settings.log_format,
                log_level=settings.log_level,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    _heed_signals, signals, node, self._loop, waker, settings, self._reread, copy
                )
                nursery.start_soon(give_back_memory, lambda: node.turn.memory_bytes, node.shrink)
                nursery.start_soon(watch, node, settings, self._store, waker.wake)
                if control is not None:
                    nursery.start_soon(control.run)
                if not self._is_stopping:
                    await self._stopped.wait()
                nursery.cancel_scope.cancel()
        log_exchange.stop()
        if control is not None:
            control.close()


def _close(committer: Committer) -> StoreError | None:
    """Finish what the store was given and close it; its error, if it could not."""
    try:
        failures = committer.close()
    except StoreError as error:
        get_logger().error("the store could not be closed", error=str(error))
        return error
    return failures[0] if failures else None


async def _heed_signals(
    signals: AsyncIterator[int],
    node: Node,
    loop: SocketLoop,
    waker: Waker,
    settings: Settings,
    reread: Callable[[], Settings],
    copy: Copy | None,
) -> None:
    """Stop in order at the first SIGTERM or SIGINT; at the second, without waiting for peers."""
    async for number in signals:
        if number == signal.SIGHUP:
            _reload(settings, reread, copy)
            continue
        get_logger().info("stopping", signal=signal.Signals(number).name)
        loop.stop_listening()
        node.begin_stop()
        waker.wake()
        break
    with trio.move_on_after(GOODBYE_S):
        async for number in signals:
            if number != signal.SIGHUP:
                break
    node.drop_connections()
    waker.wake()


def _reload(settings: Settings, reread: Callable[[], Settings], copy: Copy | None) -> None:
    """Read the configuration again. How to log changes at once; the rest needs a restart."""
    try:
        changed = reread()
    except ConfigError as error:
        get_logger().error("configuration not reloaded", error=str(error))
        return
    configure(changed.log_format, changed.log_level, copy=copy)
    logging = {"log_format": changed.log_format, "log_level": changed.log_level}
    left = [
        field.name
        for field in fields(settings)
        if getattr(settings, field.name) != getattr(changed, field.name) and field.name not in logging
    ]
    get_logger().info("configuration reloaded", need_a_restart=", ".join(left) or "none", **logging)
