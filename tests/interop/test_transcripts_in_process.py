"""The transcripts of `interop-tests`, played with a broker in this process, without sockets and sleeps.

What RabbitMQ answered is in the files of cases. A change that makes Leveret answer something else fails here;
if it is meant to, `interop-tests/transcripts/known_differences.txt` says so.
"""

from __future__ import annotations

import base64
import hashlib

import pytest
from transcripts.language import NOT_YET, STAGES, Case, Connect, Said, Step, read_all, read_differences
from transcripts.normalise import Names, normalised
from transcripts.peer import Peer

from ..server.harness import START_MS, Broker

CASES = {case.name: case for case in read_all()}
DIFFERENCES = read_differences(list(CASES.values()))
END_MS = 12_000  # how long the end of a connection may take
STEP_MS = 500


class BrokerWithRealNames(Broker):
    """Makes up names as a real one does; those of the harness are counted, with many zeros."""

    def _token(self, size: int) -> str:
        self._tokens += 1
        digest = hashlib.sha256(str(self._tokens).encode()).digest()
        return base64.urlsafe_b64encode(digest).decode()[: size * 4 // 3 + 1]


class Line:
    """One connection, as the harness wants to see a client."""

    is_stuck = False

    def __init__(self, conversation: Conversation, connect: Connect) -> None:
        name = f"127.0.0.1:{40_000 + len(conversation.lines)} -> 127.0.0.1:5672"
        session = conversation.broker.node.open_session("127.0.0.1", name, True)
        assert session is not None
        self.conversation = conversation
        self.session = session
        self.peer = Peer(connect)
        self.heard: list[str] = []

    def send(self, data: bytes) -> None:
        """Send bytes in one turn, and let the broker come to rest."""
        if self.peer.has_ended:
            return
        self.conversation.broker.turn((self, data))  # type: ignore[arg-type]  # not a Client, but like one
        self.conversation.broker.run()

    def take_output(self) -> None:
        """Read what the broker wrote."""
        data = self.session.outbox.take()
        if data:
            self.heard += self.peer.receive(data)
        if self.session.outbox.sent(len(data)):
            self.session.output_drained()

    def end(self) -> None:
        """Let the connection end, whoever wanted it."""
        broker = self.conversation.broker
        broker.node.begin_turn()
        self.session.connection_lost()
        broker.node.end_turn()
        broker.node.hand_over()
        broker.node.session_closed(self.session)
        broker.clients.remove(self)  # type: ignore[arg-type]
        self.peer.has_ended = True
        broker.run()


class Conversation:
    """A case that is played."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.broker = BrokerWithRealNames()
        self.lines: dict[str, Line] = {}
        self.answers: list[list[str]] = []
        self._names = Names("0000", 0, now=lambda: START_MS / 1000)
        self._pieces = 0

    def play(self) -> list[str]:
        """Play it, and return the transcript."""
        for step in self.case.steps:
            self.answers.append([])
            self._do(step)
            self._listen()
            passed_ms = 0
            while normalised(self.answers)[-1] != step.expected and passed_ms < END_MS:
                passed_ms += STEP_MS if any("eof" in line for line in step.expected) else END_MS
                self.broker.advance(STEP_MS if passed_ms < END_MS else 0)
                self._listen()
        return self.case.told(normalised(self.answers))

    def _do(self, step: Step) -> None:
        if step.connect:
            self._connect(step.connect)
        elif step.wait_s:
            self.broker.advance(int(step.wait_s * 1000))
        elif step.drop:
            self.lines[step.drop].end()
        elif step.pieces:
            self._pieces = step.pieces
        for name in dict.fromkeys(said.connection for said in step.said):
            if name not in self.lines:
                self._connect(Connect(name))
            self._say(self.lines[name], [said for said in step.said if said.connection == name])

    def _say(self, line: Line, lines: list[Said]) -> None:
        real = (Said(said.connection, said.channel, self._names.expand(said.text)) for said in lines)
        data = b"".join(line.peer.say(said) for said in real)
        size = self._pieces or len(data)
        for start in range(0, len(data), size):
            line.send(data[start : start + size])

    def _connect(self, connect: Connect) -> None:
        line = self.lines[connect.name] = Line(self, connect)
        self.broker.clients.append(line)  # type: ignore[arg-type]
        for stage in STAGES[1 : STAGES.index(connect.until) + 1]:
            line.send(line.peer.handshake(stage))
        assert not line.peer.is_closing, line.heard
        line.heard.clear()

    def _listen(self) -> None:
        for line in self.lines.values():
            if line.session.wants_close and not line.peer.has_ended:
                line.heard += line.peer.receive(b"")
                line.end()
            self.answers[-1] += [self._names.shorten(text) for text in line.heard]
            line.heard.clear()


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_rabbitmq(name: str) -> None:
    """Or those of the known differences."""
    known = DIFFERENCES.get(name)
    case = known if known and known.steps else CASES[name]
    transcript = Conversation(case).play()
    if known and known.because.startswith(NOT_YET) and transcript != case.transcript:
        pytest.xfail(known.because)
    assert transcript == case.transcript
