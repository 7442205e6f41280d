"""A small blocking AMQP client that knows exactly what it has sent and read.

It exists for the crash tests: nothing happens behind the caller's back (no threads, no reconnecting, no
heartbeats, no buffered writes), every wait has a deadline, and property lists are handed over as the bytes
they are.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import deque
from typing import NamedTuple, TypeVar

from pamqp import base, commands, frame

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
Reply = TypeVar("Reply", bound=base.Frame)


class Gone(Exception):
    """The connection is gone: refused, reset, or at its end."""


class Refused(Exception):
    """The broker closed the channel or the connection, or broke the protocol, or did not answer in time."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Content(NamedTuple):
    """A method that carries content, with the content."""

    method: base.Frame
    properties: bytes  # the raw property list: flags, then values
    body: bytes


Incoming = tuple[int, base.Frame | Content]  # with the channel's number


class Connection:
    """One open connection. Not for use from two threads."""

    def __init__(self, host: str, port: int, *, frame_max: int = 131072, deadline_s: float = 20.0) -> None:
        """Connect and log in as guest on vhost "/".

        Raises:
            Gone: there is nobody, or it hung up during the handshake.
            Refused: the broker said no.
        """
        self._deadline_s = deadline_s
        self._input = bytearray()
        self._arrived: deque[Incoming] = deque()
        self._content: dict[
            int, tuple[base.Frame, bytes, int, list[bytes]]
        ] = {}  # channel -> what came so far
        self.frame_max = frame_max
        try:
            self._socket = socket.create_connection((host, port), timeout=deadline_s)
        except OSError as error:
            raise Gone(str(error)) from error
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._log_in(frame_max)
        except BaseException:
            self._socket.close()
            raise

    def _log_in(self, frame_max: int) -> None:
        self.send(b"AMQP\x00\x00\x09\x01")
        self._wait(0, commands.Connection.Start)
        self.send(method_frame(0, commands.Connection.StartOk(response="\x00guest\x00guest")))
        tune = self._wait(0, commands.Connection.Tune)
        self.frame_max = min(frame_max, tune.frame_max or frame_max)
        self.send(method_frame(0, commands.Connection.TuneOk(tune.channel_max, self.frame_max, 0)))
        self.call(0, commands.Connection.Open(), commands.Connection.OpenOk)

    def send(self, data: bytes) -> None:
        """Send all of it; meanwhile take in what the broker sends, so that neither waits for the other."""
        view = memoryview(data)
        deadline = time.monotonic() + self._deadline_s
        while view:
            readable, writable, _ = select.select([self._socket], [self._socket], [], 0.5)
            try:
                if readable:
                    self._take_in()
                if writable:
                    view = view[self._socket.send(view) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise Gone(str(error)) from error
            if time.monotonic() > deadline:
                raise Refused(f"took no data for {self._deadline_s} s")

    def read(self, timeout: float) -> list[Incoming]:
        """Return what has come, or comes first within the timeout.

        Raises:
            Gone: the connection has ended, and everything that came before was returned by earlier calls.
        """
        if not self._arrived:
            readable, _, _ = select.select([self._socket], [], [], timeout)
            if readable:
                try:
                    self._take_in()
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise Gone(str(error)) from error
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def last_words(self) -> list[Incoming]:
        """Return what the broker still sent before the connection ended. For a connection that is `Gone`."""
        with contextlib.suppress(Gone, Refused, OSError):
            while select.select([self._socket], [], [], 0)[0]:
                self._take_in()
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def call(self, channel: int, method: base.Frame, answer: type[Reply]) -> Reply:
        """Send a method and wait for its answer; what else comes is kept for `read`."""
        self.send(method_frame(channel, method))
        return self._wait(channel, answer)

    def close_channel(self, channel: int) -> list[Incoming]:
        """Close a channel in order; return what the broker sent before its answer."""
        self.call(channel, commands.Channel.Close(200, "", 0, 0), commands.Channel.CloseOk)
        return self.read(0)

    def close(self) -> None:
        """Close in order, as far as that is still possible."""
        try:
            self.call(0, commands.Connection.Close(200, "", 0, 0), commands.Connection.CloseOk)
        except (Gone, Refused):
            pass
        finally:
            self._socket.close()

    def cut(self, *, reset: bool = False) -> None:
        """Hang up without a word; with `reset` even TCP is not polite."""
        if reset and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _wait(self, channel: int, answer: type[Reply]) -> Reply:
        deadline = time.monotonic() + self._deadline_s
        while True:
            for position, (number, thing) in enumerate(self._arrived):
                if number == channel and isinstance(thing, answer):
                    del self._arrived[position]
                    return thing
            left = deadline - time.monotonic()
            if left < 0:
                raise Refused(f"no {answer.name} within {self._deadline_s} s")
            readable, _, _ = select.select([self._socket], [], [], left)
            if readable:
                try:
                    self._take_in()
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise Gone(str(error)) from error

    def _take_in(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise Gone("end of stream")
        self._input += data
        at = 0
        try:
            while len(self._input) - at >= 7:
                kind, channel, size = struct.unpack_from(">BHI", self._input, at)
                if size + 8 > max(self.frame_max, 4096):
                    raise Refused(f"bad frame: type {kind}, channel {channel}, {size} bytes")
                if len(self._input) - at < size + 8:
                    break
                payload = bytes(self._input[at + 7 : at + 7 + size])
                if self._input[at + 7 + size] != FRAME_END[0]:
                    raise Refused(f"frame without its end: type {kind}, channel {channel}, {size} bytes")
                at += size + 8
                self._take_frame(kind, channel, payload)
        finally:
            del self._input[:at]

    def _take_frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == METHOD:
            method = frame.unmarshal(struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END)[
                2
            ]
            assert isinstance(method, base.Frame)
            self._take_method(channel, method)
        elif kind == HEADER and channel in self._content:
            method, _, _, pieces = self._content[channel]
            (size,) = struct.unpack_from(">Q", payload, 4)
            self._content[channel] = (method, payload[12:], size, pieces)
            self._complete(channel)
        elif kind == BODY and channel in self._content:
            self._content[channel][3].append(payload)
            self._complete(channel)
        elif kind != HEARTBEAT:
            raise Refused(f"unexpected frame of type {kind} on channel {channel}")

    def _take_method(self, channel: int, method: base.Frame) -> None:
        if channel in self._content:
            raise Refused(f"{method.name} inside a content on channel {channel}")
        if isinstance(method, (commands.Basic.Deliver, commands.Basic.GetOk, commands.Basic.Return)):
            self._content[channel] = (method, b"", -1, [])
        elif isinstance(method, (commands.Channel.Close, commands.Connection.Close)):
            answer = (
                commands.Channel.CloseOk
                if isinstance(method, commands.Channel.Close)
                else commands.Connection.CloseOk
            )
            with contextlib.suppress(OSError):
                self._socket.send(method_frame(channel, answer()))
            raise Refused(f"{method.reply_code} {method.reply_text}", method.reply_code or 0)
        else:
            self._arrived.append((channel, method))

    def _complete(self, channel: int) -> None:
        method, properties, size, pieces = self._content[channel]
        got = sum(map(len, pieces))
        if got > size:
            raise Refused(f"body of {got} bytes where {size} were announced")
        if got == size:
            del self._content[channel]
            self._arrived.append((channel, Content(method, properties, b"".join(pieces))))


def method_frame(channel: int, method: base.Frame) -> bytes:
    """Encode a method."""
    return frame.marshal(method, channel)


def content_frames(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Encode the header and body frames of a message."""
    pieces = [
        struct.pack(">BHIHHQ", HEADER, channel, 12 + len(properties), 60, 0, len(body)),
        properties,
        FRAME_END,
    ]
    for at in range(0, len(body), frame_max - 8):
        piece = body[at : at + frame_max - 8]
        pieces += [struct.pack(">BHI", BODY, channel, len(piece)), piece, FRAME_END]
    return b"".join(pieces)
