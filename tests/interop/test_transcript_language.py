"""Lines of a transcript become the bytes they mean, and bytes become lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcripts.language import Connect, Said, read, read_all, read_differences
from transcripts.peer import Peer
from transcripts.record import rewritten
from transcripts.values import Bytes, Reader, TranscriptError, longstr, written, written_table


def said(text: str, channel: int = 1) -> bytes:
    """Return the bytes of a line."""
    return Peer(Connect("A")).say(Said("A", channel, text))


def heard(data: bytes, name: str = "A") -> list[str]:
    """Return the lines of some bytes."""
    return Peer(Connect(name)).receive(data)


METHODS = [
    "queue.declare ticket=0 queue=q durable arguments={x-expires: 1000}",
    'queue.bind ticket=0 queue=q exchange=e routing-key="a b" no-wait',
    "basic.qos prefetch-size=0 prefetch-count=65535 global",
    "basic.nack delivery-tag=18446744073709551615 multiple requeue",
    "access.request realm=/data exclusive passive active write read",
    'connection.start-ok mechanism=PLAIN response="\\x00guest\\x00guest"',
    'basic.cancel consumer-tag="n"*250+"é"',
    "tx.select",
]
TABLES = [
    "{}",
    '{a: 1, b: b:-1, B: B:255, s: s:-1, u: u:65535, i: i:4294967295, l: l:-1, L: L:-1, "": void}',
    '{f: f:1.5, d: d:1.1, D: D:2/255, T: T:1, t: true, n: false, five: t:5, x: x:"\\x00\\xff"}',
    '{text: word, quoted: "a b", digits: "5", truth: "true", a: [1, [], {b: void}], f: {a: {b: c}}}',
]


@pytest.mark.parametrize("line", METHODS)
def test_a_method_that_is_said_is_heard_as_the_same(line: str) -> None:
    """Every field is written as it is read."""
    assert heard(said(line)) == [f"< {line}"]


@pytest.mark.parametrize("text", TABLES)
def test_a_table_is_written_as_it_is_read(text: str) -> None:
    """With all its types."""
    assert written_table(Bytes(Reader(text).table()).table()) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"word", "word"),
        (b"", '""'),
        (b"two words", '"two words"'),
        (b'a"\\\r\n\x00\xff', '"a\\"\\\\\\r\\n\\x00\\xff"'),
        ("é".encode() * 30, '"é"*30'),
        (b"a" + b"n" * 30 + b"z", '"a"+"n"*30+"z"'),
    ],
)
def test_a_string_is_written_so_that_it_can_be_read(data: bytes, text: str) -> None:
    """Whatever bytes it has."""
    assert written(data) == text
    assert Reader(text).string() == data


def test_a_message_is_heard_as_one_line_when_it_is_complete() -> None:
    """With properties and body, however it was cut."""
    line = 'basic.deliver consumer-tag=t delivery-tag=1 exchange=e : "abc" content-type=x headers={a: 1}'
    peer = Peer(Connect("B"))
    lines = [line for byte in said(line, 2) for line in peer.receive(bytes([byte]))]
    assert lines == [f"B2< {line}"]


def test_a_long_body_is_told_by_its_size() -> None:
    """Transcripts are for reading."""
    assert heard(said('basic.return reply-code=312 : "x"*1000')) == [
        "< basic.return reply-code=312 : 1000 bytes"
    ]


def test_a_close_is_told_as_people_read_it() -> None:
    """Code, text, and the method that failed."""
    close = said('channel.close reply-code=404 reply-text="NOT_FOUND - no queue" class-id=50 method-id=10')
    assert heard(close) == ["< channel.close 404 NOT_FOUND - no queue (50,10)"]


def test_content_frames_can_be_made_one_by_one() -> None:
    """With a wrong class, a weight, or flags by hand."""
    assert said("header size=3 class=50 weight=1") == b"\2\0\1\0\0\0\x0e\0\x32\0\1\0\0\0\0\0\0\0\3\0\0\xce"
    assert said('header size=1 raw="\\x80\\x00\\x05ab"')[19:-1] == b"\x80\0\5ab"
    assert said('body "ab"') == b"\3\0\1\0\0\0\2ab\xce"


def test_any_frame_can_be_made() -> None:
    """With a wrong size or end, too."""
    assert said('frame 5 "abc" size=9 end=0', 7) == b"\5\0\7\0\0\0\x09abc\0"
    assert said("frame 3 size=131073")[3:7] == (131073).to_bytes(4, "big")
    assert said('method 60 200 "xy"') == b"\1\0\1\0\0\0\6\0\x3c\0\xc8xy\xce"
    assert said('bytes "AMQP\\x00"') == b"AMQP\0"


def test_a_table_can_be_broken_on_purpose() -> None:
    """As a string it is sent as it is."""
    assert Reader('"\\x01aU"').table() == longstr(b"\1aU")


def test_heartbeats_are_not_told_and_the_end_is() -> None:
    """Nobody waits for heartbeats."""
    assert heard(said("heartbeat", 0)) == []
    assert heard(b"") == ["0< eof"]


def test_a_refused_header_is_told() -> None:
    """It is no frame."""
    assert heard(b"AMQP\0\0\x09\1") == ['0< "AMQP\\x00\\x00\\x09\\x01"']


@pytest.mark.parametrize(
    "line", ["queue.declare colour=red", "nonsense", 'body "abc', "basic.qos prefetch-count"]
)
def test_a_line_that_makes_no_sense_is_an_error(line: str) -> None:
    """Rather than a case that tests something else."""
    with pytest.raises(TranscriptError):
        said(line)


CASE = """# A comment.

== a case
> basic.qos
+> basic.get queue=$q
< basic.qos-ok
wait 100

2> basic.qos
"""


def test_a_file_is_cases_of_steps_with_what_they_bring(tmp_path: Path) -> None:
    """`+>` goes out together with the line above it."""
    (tmp_path / "some.txt").write_text(CASE)
    (case,) = read(tmp_path / "some.txt")
    assert case.name == "a case"
    assert [step.source for step in case.steps] == [
        ["> basic.qos", "+> basic.get queue=$q"],
        ["wait 100"],
        ["2> basic.qos"],
    ]
    assert [step.expected for step in case.steps] == [["< basic.qos-ok"], [], []]
    assert case.steps[2].said == [Said("A", 2, "basic.qos")]


def test_recording_replaces_answers_and_nothing_else(tmp_path: Path) -> None:
    """Comments and blank lines stay where they are."""
    (tmp_path / "some.txt").write_text(CASE)
    cases = read(tmp_path / "some.txt")
    answers = {"a case": [["< one", "2< two"], [], ["2< basic.qos-ok"]]}
    assert rewritten(CASE, cases, answers).splitlines() == [
        "# A comment.",
        "",
        "== a case",
        "> basic.qos",
        "+> basic.get queue=$q",
        "< one",
        "2< two",
        "wait 100",
        "",
        "2> basic.qos",
        "2< basic.qos-ok",
    ]


def test_an_error_in_a_file_names_the_line(tmp_path: Path) -> None:
    """So that it is found."""
    (tmp_path / "some.txt").write_text("== a case\njump\n")
    with pytest.raises(TranscriptError, match=r"some\.txt, line 2"):
        read(tmp_path / "some.txt")


def test_the_cases_and_the_known_differences_fit_together() -> None:
    """Each name is told once, each difference has its case and its reason, and says the same."""
    cases = read_all()
    assert len(cases) > 400
    assert read_differences(cases)
