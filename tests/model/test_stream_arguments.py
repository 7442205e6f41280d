"""The arguments of streams and of their consumers: what is accepted, and the text of every refusal."""

from __future__ import annotations

import pytest

from leveret.broker.model.arguments import SEGMENT_BYTES, QueueArguments
from leveret.broker.model.streams.stream_arguments import FILTERS_MAX, ReaderArguments, Start, duration_ms
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Array, Field, Table

STREAM: Table = {"x-queue-type": Field("S", b"stream")}
OF_QUEUE = "for queue 's' in vhost '/'"
SECOND, DAY = 1000, 86_400_000


def text(value: str) -> Field:
    return Field("S", value.encode())


def long(value: int) -> Field:
    return Field("l", value)


def parse(table: Table) -> QueueArguments:
    return QueueArguments.from_table("s", "/", {**STREAM, **table}, durable=True)


def refusal(table: Table) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        parse(table)
    return refused.value.text


def reader(table: Table) -> ReaderArguments:
    return ReaderArguments.from_table("s", "/", table, now_ms=10 * DAY)


def reader_refusal(table: Table) -> str:
    with pytest.raises(PreconditionFailed) as refused:
        reader(table)
    return refused.value.text


def test_every_argument_of_a_stream_has_its_typed_value() -> None:
    table: Table = {
        **STREAM,
        "x-max-length-bytes": long(1000),
        "x-max-age": text("7D"),
        "x-stream-max-segment-size-bytes": long(3_000_000_000),
        "x-stream-filter-size-bytes": long(16),
        "x-initial-cluster-size": long(3),
        "x-queue-leader-locator": text("balanced"),
    }
    assert parse(table) == QueueArguments(
        table, "stream", max_length_bytes=1000, max_age_ms=7 * DAY, segment_bytes=3_000_000_000
    )


def test_without_arguments_a_stream_has_no_limits_and_segments_of_500_mb() -> None:
    arguments = parse({})
    assert (arguments.max_length_bytes, arguments.max_age_ms) == (None, None)
    assert arguments.segment_bytes == SEGMENT_BYTES == 500_000_000


@pytest.mark.parametrize(
    ("name", "field", "detail"),
    [
        ("x-max-age", text("1x"), "invalid_max_age"),
        ("x-max-age", text("0h"), "invalid_max_age"),
        ("x-max-age", text("1h "), "invalid_max_age"),
        ("x-max-age", text("-1h"), "invalid_max_age"),
        ("x-max-age", text("bogus"), "invalid_max_age"),
        ("x-max-age", text(""), "invalid_max_age"),
        ("x-max-age", Field("b", 1), "{unacceptable_type,byte}"),
        ("x-stream-max-segment-size-bytes", long(-1), "{value_negative,-1}"),
        ("x-stream-max-segment-size-bytes", text("x"), '"expected integer, got longstr"'),
        ("x-max-length-bytes", long(-1), "{value_negative,-1}"),
        ("x-initial-cluster-size", long(0), "{value_zero,0}"),
        ("x-queue-leader-locator", text("bogus"), "invalid_queue_locator_arg"),
    ],
)
def test_a_wrong_argument_is_refused(name: str, field: Field, detail: str) -> None:
    assert refusal({name: field}) == f"invalid arg '{name}' {OF_QUEUE}: {detail}"


@pytest.mark.parametrize(
    ("name", "field", "whole_text"),
    [
        (
            "x-stream-max-segment-size-bytes",
            long(3_000_000_001),
            "Exceeded max value for x-stream-max-segment-size-bytes",
        ),
        ("x-stream-filter-size-bytes", long(15), "Invalid value for x-stream-filter-size-bytes"),
        ("x-stream-filter-size-bytes", long(256), "Invalid value for x-stream-filter-size-bytes"),
        ("x-stream-filter-size-bytes", text("16"), "Invalid type for x-stream-filter-size-bytes"),
    ],
)
def test_some_refusals_have_words_of_their_own(name: str, field: Field, whole_text: str) -> None:
    assert refusal({name: field}) == whole_text


@pytest.mark.parametrize(
    "name",
    [
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-overflow",
        "x-dead-letter-exchange",
        "x-max-priority",
        "x-single-active-consumer",
        "x-delivery-limit",
    ],
)
def test_arguments_of_other_queues_are_refused(name: str) -> None:
    assert refusal({name: text("a")}) == f"invalid arg '{name}' {OF_QUEUE} of queue type rabbit_stream_queue"


@pytest.mark.parametrize(
    ("durable", "exclusive", "auto_delete", "flag"),
    [
        (False, False, False, "non-durable"),
        (True, True, False, "exclusive-owner"),
        (True, False, True, "auto-delete"),
        (False, False, True, "auto-delete"),
    ],
)
def test_a_stream_is_durable_and_nothing_else(
    durable: bool, exclusive: bool, auto_delete: bool, flag: str
) -> None:
    with pytest.raises(PreconditionFailed, match=f"invalid property '{flag}' {OF_QUEUE}"):
        QueueArguments.from_table("s", "/", STREAM, durable, exclusive, auto_delete)


def test_a_stream_needs_a_name() -> None:
    with pytest.raises(PreconditionFailed, match="server-named queue for type rabbit_stream_queue"):
        QueueArguments.refuse_server_name(STREAM)


@pytest.mark.parametrize(
    ("words", "milliseconds"),
    [
        ("1s", SECOND),
        ("2m", 120 * SECOND),
        ("3h", 3 * 3600 * SECOND),
        ("1D", DAY),
        ("1M", 30 * DAY),
        ("1Y", 365 * DAY),
        ("007s", 7 * SECOND),
        ("0s", None),
        ("1", None),
        ("s", None),
        ("1S", None),
        ("1 s", None),
        ("\u0661s", None),
        ("1s\n", None),
    ],
)
def test_a_duration_is_a_number_and_a_unit(words: str, milliseconds: int | None) -> None:
    assert duration_ms(words) == milliseconds


@pytest.mark.parametrize(
    ("field", "start"),
    [
        (text("first"), Start("first")),
        (text("last"), Start("last")),
        (text("next"), Start("next")),
        (Field("b", 5), Start(offset=5)),
        (long(-5), Start(offset=-5)),
        (Field("T", 5), Start(time_ms=5000)),
        (text("1D"), Start(time_ms=9 * DAY)),
        (text("1Y"), Start(time_ms=0)),
    ],
)
def test_a_reader_says_where_it_begins(field: Field, start: Start) -> None:
    assert reader({"x-stream-offset": field}).start == start


def test_a_reader_that_says_nothing_wants_all_that_is_new() -> None:
    assert reader({}) == ReaderArguments(Start("next"), None, match_unfiltered=False, tracks_offset=False)


def test_a_filter_is_a_string_or_several() -> None:
    several: Array = [text("a"), text("b")]
    assert reader({"x-stream-filter": text("a")}).filters == frozenset({b"a"})
    assert reader({"x-stream-filter": Field("A", several)}).filters == frozenset({b"a", b"b"})


def test_a_filter_has_only_so_many_values() -> None:
    many: Array = [text(str(number)) for number in range(FILTERS_MAX + 1)]
    assert "more than 1000 values" in reader_refusal({"x-stream-filter": Field("A", many)})


@pytest.mark.parametrize("name", ["x-stream-match-unfiltered", "x-stream-automatic-offset-tracking"])
def test_flags_are_boolean_or_say_so(name: str) -> None:
    on = [Field("t", True), text("true")]
    off = [Field("t", False), text("false")]
    told = [reader({name: field}) for field in (*on, *off)]
    assert [one.match_unfiltered or one.tracks_offset for one in told] == [True, True, False, False]
    assert reader_refusal({name: long(1)}) == f"invalid arg '{name}' {OF_QUEUE}: {{unacceptable_type,long}}"
