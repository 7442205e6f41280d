"""Plays cases against a broker, many side by side, each over connections of its own.

A step waits until what it expects has come. If something else comes, or less, it waits somewhat longer, so
that the transcript shows all that there is.
"""

from __future__ import annotations

import contextlib
import secrets

import trio

from transcripts.language import STAGES, Case, Connect, Said, Step
from transcripts.normalise import Names, normalised
from transcripts.peer import Peer
from transcripts.values import written

AT_ONCE = 24  # cases that are played side by side
ANSWER_S = 10  # how long an expected answer may take
GRACE_S = 0.7  # how long to wait for more when what came is not what was expected
QUIET_S = 0.1  # how long to listen at the end of a case, where nothing must come
RECORD_QUIET_S = 0.25  # how long to listen after each step when it is not known what comes
HANDSHAKE_S = 20
GOODBYE_S = 2
CLOSE = "connection.close"
CLOSE_OK = "connection.close-ok"


class Connection:
    """A peer with its socket."""

    def __init__(self, peer: Peer, stream: trio.SocketStream) -> None:
        self.peer = peer
        self.stream = stream


class Conversation:
    """A case that is played.

    Args:
        case: what to say, and what to wait for.
        address: of the broker.
        names: those of the case.
        record: whether the answers are unknown.
    """

    def __init__(self, case: Case, address: tuple[str, int], names: Names, record: bool) -> None:
        self.case = case
        self.answers: list[list[str]] = []  # of each step until now
        self.declared: set[bytes] = set()
        self._address = address
        self._names = names
        self._record = record
        self._pieces = 0
        self._patience_s = float(ANSWER_S)
        self._connections: dict[str, Connection] = {}
        self._news = trio.Event()

    async def play(self) -> list[list[str]]:
        """Play it, and return what each step brought."""
        async with trio.open_nursery() as nursery:
            for step in self.case.steps:
                self.answers.append([])
                await self._do(step, nursery)
                await self._listen(step)
            await trio.sleep(QUIET_S)
            answers = normalised(self.answers)
            self.declared = {
                name
                for each in self._connections.values()
                for name in each.peer.declared
                if self._names.has(name)
            }
            await self._say_goodbye()
            nursery.cancel_scope.cancel()
        return answers

    async def _do(self, step: Step, nursery: trio.Nursery) -> None:
        if step.connect:
            await self._connect(step.connect, nursery)
        elif step.wait_s:
            await trio.sleep(step.wait_s)
        elif step.drop:
            await self._connections[step.drop].stream.aclose()
        elif step.pieces:
            self._pieces = step.pieces
        for name in dict.fromkeys(said.connection for said in step.said):
            if name not in self._connections:
                await self._connect(Connect(name), nursery)
            await self._send(self._connections[name], [said for said in step.said if said.connection == name])

    async def _send(self, connection: Connection, lines: list[Said]) -> None:
        real = (Said(said.connection, said.channel, self._names.expand(said.text)) for said in lines)
        data = b"".join(connection.peer.say(said) for said in real)
        size = self._pieces or len(data)
        try:
            for start in range(0, len(data), size):
                await connection.stream.send_all(data[start : start + size])
                if self._pieces:
                    await trio.sleep(0.001)
        except trio.BrokenResourceError:
            pass  # the broker has closed: what it said before tells why

    async def _connect(self, connect: Connect, nursery: trio.Nursery) -> None:
        stream = await trio.open_tcp_stream(*self._address)
        connection = Connection(Peer(connect), stream)
        self._connections[connect.name] = connection
        silent: list[str] = []  # what the handshake brings
        with trio.fail_after(HANDSHAKE_S):
            for stage in STAGES[1 : STAGES.index(connect.until) + 1]:
                await stream.send_all(connection.peer.handshake(stage))
                answers = {"starting": 1, "tuning": 2, "opening": 2}.get(stage, 3 + len(connect.channels))
                while len(silent) < answers and not (connection.peer.has_ended or connection.peer.is_closing):
                    silent += connection.peer.receive(await stream.receive_some())
        if connection.peer.has_ended or connection.peer.is_closing:
            self.answers[-1] += silent
        nursery.start_soon(self._receive, connection)

    async def _receive(self, connection: Connection) -> None:
        while not connection.peer.has_ended:
            try:
                data = await connection.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            except trio.ClosedResourceError:
                return
            self.answers[-1] += [self._names.shorten(line) for line in connection.peer.receive(data)]
            self._news.set()

    async def _listen(self, step: Step) -> None:
        """Wait for what a step is expected to bring, and a little more if it is something else."""
        if self._record and step.wait_s:
            return
        deadline = trio.current_time() + ANSWER_S
        while trio.current_time() < deadline:
            answers = normalised(self.answers)[-1]
            if answers == step.expected and not (self._record and not step.expected and step.said):
                return
            waits = self._patience_s if len(answers) < len(step.expected) else GRACE_S
            if self._record and not any("eof" in line for line in step.expected):
                waits = RECORD_QUIET_S
            self._news = trio.Event()
            with trio.move_on_after(waits) as patience:
                await self._news.wait()
            if patience.cancelled_caught:
                if not self._record:
                    self._patience_s = GRACE_S  # the rest of the case will hardly go as expected
                return

    async def _say_goodbye(self) -> None:
        """Close the connections in order, so that exclusive queues are gone before others look for them."""
        for connection in self._connections.values():
            peer = connection.peer
            orderly = peer.connect.until == "running" and not peer.is_closing and not self._pieces
            with (
                trio.move_on_after(GOODBYE_S),
                contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                await connection.stream.send_all(peer.say(Said("", 0, CLOSE if orderly else CLOSE_OK)))
                while orderly and not peer.has_ended and not peer.is_closed:
                    self._news = trio.Event()
                    await self._news.wait()
            await trio.aclose_forcefully(connection.stream)


class Janitor:
    """Deletes what cases left behind, over a connection of its own."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._turn = trio.Lock()
        self._peer = Peer(Connect("A", channels=(1,)))
        self._stream: trio.SocketStream | None = None

    async def delete(self, names: set[bytes]) -> None:
        """Delete all queues and exchanges with these names."""
        async with self._turn:
            for name in sorted(names):
                for method in ("queue.delete queue", "exchange.delete exchange"):
                    await self._ask(f"{method}={written(name)}")

    async def _ask(self, text: str) -> None:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(*self._address)
            for stage, answers in (("starting", 1), ("tuning", 1), ("opening", 0), ("running", 2)):
                await self._exchange(self._peer.handshake(stage), answers)
        answer = await self._exchange(self._peer.say(Said("", 1, text)), 1)
        if "channel.close" in answer[0]:  # of another connection, with which it goes, or reserved
            await self._exchange(self._peer.say(Said("", 1, "reopen")), 1)

    async def _exchange(self, data: bytes, answers: int) -> list[str]:
        assert self._stream is not None
        await self._stream.send_all(data)
        lines: list[str] = []
        with trio.fail_after(HANDSHAKE_S):
            while len(lines) < answers:
                lines += self._peer.receive(await self._stream.receive_some())
                assert not self._peer.is_closing, lines
                assert not self._peer.has_ended, lines
        return lines


async def play_all(
    cases: list[Case], address: tuple[str, int], record: bool = False
) -> dict[str, list[list[str]]]:
    """Play cases side by side; what each step of each brought, by the name of the case."""
    answers: dict[str, list[list[str]]] = {}
    janitor = Janitor(address)
    run = secrets.token_hex(2)
    seats = trio.Semaphore(AT_ONCE)

    async def play(case: Case, number: int) -> None:
        async with seats:
            conversation = Conversation(case, address, Names(run, number), record)
            try:
                answers[case.name] = await conversation.play()
            except Exception as error:  # the broker made no sense: this case has failed, and others go on
                broken = [*conversation.answers, [f"0< {error!r}"], *([] for _ in case.steps)]
                answers[case.name] = broken[: len(case.steps)]
        await janitor.delete(conversation.declared)

    async with trio.open_nursery() as nursery:
        for number, case in enumerate(cases):
            nursery.start_soon(play, case, number)
    return answers
