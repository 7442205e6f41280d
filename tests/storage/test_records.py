"""What is written to a log as a record is read from it as it was."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.storage.batch import FORGOTTEN, NEVER, Batch, Returned, StoredContent
from leveret.storage.changes import (
    MAX_POSITION,
    MAX_QUEUE_ID,
    Definition,
    QueueDeclared,
    QueueDeleted,
    VHostDeleted,
)
from leveret.storage.records import (
    DEFINITION_CODES,
    DamagedRecordError,
    decode_batch,
    encode_batch,
    fits_record,
    is_recordable,
)
from leveret.storage.stored import StoredMessage

from .engines import Content

NOT_UTF_8 = b"caf\xe9".decode("utf-8", "surrogateescape")
LARGE = 1 << 20
PART_AT = 21  # in a record, the first part
FLAGS_AT = 38  # the flags of its first message

names = st.text(st.characters(codec="utf-8"), max_size=9) | st.binary(max_size=9).map(
    lambda name: name.decode("utf-8", "surrogateescape")
)
numbers = st.integers(-1, 1 << 60)
positions = st.integers(1, MAX_POSITION)
VALUES: dict[object, st.SearchStrategy[object]] = {
    str: names,
    bytes: st.binary(max_size=9),
    bool: st.booleans(),
    int: numbers,
    tuple: st.lists(names, max_size=3).map(tuple),
}


def definitions_of(code: int) -> st.SearchStrategy[Definition]:
    """Make any definitions of the class with a code."""
    definition = DEFINITION_CODES[code]
    types = get_type_hints(definition)
    kinds = [types[field.name] for field in fields(definition)]
    return st.builds(definition, *[VALUES[get_origin(kind) or kind] for kind in kinds])


contents = st.builds(
    Content, st.binary(max_size=9), names, names, st.sampled_from([b"", b"\x10\x00\x02"]), st.booleans()
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Make any batches that a record can hold."""
    batch = Batch(draw(st.integers(0, 1 << 62)), draw(st.integers(0, 1 << 62)))
    batch.definitions = draw(
        st.lists(
            st.sampled_from(
                [code for code in DEFINITION_CODES if DEFINITION_CODES[code] != VHostDeleted]
            ).flatmap(definitions_of),
            max_size=3,
        )
    )
    for queue_id in draw(st.sets(st.integers(0, MAX_QUEUE_ID), max_size=3)):
        for position, content in draw(st.dictionaries(positions, contents, max_size=3)).items():
            batch.enqueue(queue_id, position, [content])
        for position, time in draw(st.dictionaries(positions, numbers, max_size=2)).items():
            batch.expire_at(queue_id, position, time)
        for position in draw(
            st.lists(st.sampled_from(sorted(batch.enqueued.get(queue_id, {1: 0}))), max_size=1)
        ):
            batch.expire_at(queue_id, position, draw(numbers))
        for position, body_bytes in draw(
            st.dictionaries(positions, st.integers(0, LARGE), max_size=3)
        ).items():
            batch.settle(queue_id, position, body_bytes)
        for position in draw(st.sets(positions, max_size=2)):
            batch.note_return(queue_id, position, Returned(*draw(st.tuples(numbers, numbers, numbers))))
        for tag, position in draw(st.dictionaries(names, st.just(FORGOTTEN) | positions, max_size=2)).items():
            batch.note_offset(queue_id, tag, position)
        keys = st.lists(
            st.tuples(st.binary(max_size=3), st.sampled_from([NEVER, FORGOTTEN, 1 << 41])), max_size=4
        )
        for key, expires_at_ms in draw(keys):
            batch.remember_key(queue_id, key, expires_at_ms)
    return batch


def contents_of(batch: Batch) -> dict[str, object]:
    """Return everything that a record holds of a batch, in its order."""
    return {
        "number": batch.number,
        "epoch": batch.epoch,
        "definitions": batch.definitions,
        "enqueued": [
            (
                queue_id,
                [stored(p, content, batch.expiries.get(queue_id, {}).get(p)) for p, content in of.items()],
            )
            for queue_id, of in batch.enqueued.items()
            if of
        ],
        "settled": batch.settled,
        "returned": batch.returned,
        "offsets": batch.offsets,
        "keys": [(queue_id, list(keys.items())) for queue_id, keys in batch.keys.items()],
    }


def stored(position: int, content: StoredContent, expires_at_ms: int | None) -> StoredMessage:
    """Return a persistent message as it is read back."""
    return StoredMessage(
        position,
        content.exchange,
        content.routing_key,
        content.properties,
        content.body,
        True,
        content.dead_lettered,
        expires_at_ms,
    )


def one_message(**others: object) -> Batch:
    """Return a batch that stores a message and removes another."""
    batch = Batch(7)
    batch.enqueue(1, 5, [Content(b"body", **others)])  # type: ignore[arg-type]
    batch.settle(1, 4, 3)
    return batch


def test_every_definition_has_a_code() -> None:
    assert set(DEFINITION_CODES.values()) == set(get_args(Definition))
    assert len(set(DEFINITION_CODES.values())) == len(DEFINITION_CODES)


@pytest.mark.parametrize("code", DEFINITION_CODES)
def test_a_definition_is_read_as_it_was_written(code: int) -> None:
    @given(st.lists(definitions_of(code), min_size=1, max_size=2))
    def check(definitions: list[Definition]) -> None:
        batch = Batch(1)
        batch.definitions = definitions
        decoded = decode_batch(encode_batch(batch)).definitions
        assert decoded == definitions
        assert [repr(definition) for definition in decoded] == [repr(d) for d in definitions]  # True is no 1

    check()


@given(batches())
def test_a_batch_is_read_as_it_was_written(batch: Batch) -> None:
    decoded = decode_batch(encode_batch(batch))
    assert contents_of(decoded) == contents_of(batch)
    assert encode_batch(decoded) == encode_batch(batch)


def test_names_that_are_not_utf_8_are_read_as_they_were_written() -> None:
    batch = one_message(exchange=NOT_UTF_8, routing_key=NOT_UTF_8)
    batch.definitions.append(QueueDeclared(1, "/", NOT_UTF_8, False, b"\xff"))
    record = encode_batch(batch)
    assert contents_of(decode_batch(record)) == contents_of(batch)
    assert record.count(b"caf\xe9") == 3


def test_messages_alike_share_their_properties() -> None:
    batch = Batch(1)
    batch.enqueue(1, 1, [Content(b"one"), Content(b"two"), Content(b"three", routing_key="others")])
    batch.enqueue(2, 1, [Content(b"four")])
    record = encode_batch(batch)
    assert record.count(b"\x10\x00\x02") == 3
    assert contents_of(decode_batch(record)) == contents_of(batch)


@pytest.mark.parametrize("other", [{"exchange": "a"}, {"routing_key": "a"}, {"properties": b"a"}])
def test_messages_that_differ_in_one_thing_do_not_share_it(other: dict[str, object]) -> None:
    batch = one_message()
    batch.enqueue(1, 6, [Content(b"body", **other)])  # type: ignore[arg-type]
    assert contents_of(decode_batch(encode_batch(batch))) == contents_of(batch)


def test_a_deadline_of_a_message_that_left_its_batch_is_not_written() -> None:
    batch = one_message()
    record = encode_batch(batch)
    batch.expire_at(1, 4, 1000)
    batch.expire_at(2, 1, 1000)
    assert encode_batch(batch) == record


def test_a_queue_whose_messages_all_left_their_batch_takes_no_room() -> None:
    batch = Batch(1)
    batch.enqueue(1, 1, [Content(b"body")])
    batch.settle(1, 1, 4)
    assert encode_batch(batch) == encode_batch(Batch(1))


def test_a_record_can_hold_messages_and_definitions() -> None:
    batch = one_message()
    batch.definitions.append(QueueDeleted(9))
    batch.spill(1, 6, Content())
    batch.delay(1, 7, 1000, Content())
    batch.settle(1, 6, 0)
    batch.undelay(1, 7, 0)
    assert is_recordable(batch)


def test_a_record_cannot_hold_transient_delayed_and_streamed_messages_and_that_a_vhost_is_deleted() -> None:
    with_spilled, with_delayed, with_streamed, with_vhost = (one_message() for _ in range(4))
    with_spilled.spill(1, 6, Content())
    with_delayed.delay(1, 6, 1000, Content())
    with_streamed.stream(2, 1, [Content()], 1000)
    with_vhost.definitions.append(VHostDeleted("/"))
    assert not any(map(is_recordable, (with_spilled, with_delayed, with_streamed, with_vhost)))


@given(batches())
def test_what_fits_a_record_is_not_larger(batch: Batch) -> None:
    size = len(encode_batch(batch))
    assert not fits_record(batch, LARGE, size - 1)
    assert fits_record(batch, LARGE, LARGE)


def test_a_message_with_short_names_fits_into_little_more_than_its_record() -> None:
    batch = one_message()
    assert fits_record(batch, 2, len(encode_batch(batch)) + 8)
    batch.enqueue(1, 6, [Content(b"body")] * 100)
    assert fits_record(batch, 102, len(encode_batch(batch)) + 8 * 101 + 12 * 100)


def test_a_batch_with_too_many_entries_does_not_fit() -> None:
    batch = one_message()
    batch.definitions.append(QueueDeleted(9))
    batch.note_return(2, 1, Returned(1, 1, 0))
    batch.note_offset(2, "tag", 1)
    batch.remember_key(2, b"key", NEVER)
    assert fits_record(batch, 6, LARGE)
    assert not fits_record(batch, 5, LARGE)


def test_a_large_batch_is_not_looked_at() -> None:
    class Unwanted(Content):
        @property
        def body_bytes(self) -> int:
            raise AssertionError

    batch = Batch(1)
    batch.enqueue(1, 1, [Unwanted()] * 3)
    assert not fits_record(batch, 2, LARGE)


@given(batches(), st.data())
def test_whatever_happened_to_a_record_is_found_out_or_gives_another_batch(
    batch: Batch, data: st.DataObject
) -> None:
    record = bytearray(encode_batch(batch))
    for place in data.draw(st.lists(st.integers(0, len(record) - 1), max_size=3)):
        record[place] = data.draw(st.integers(0, 255))
    start, stop = data.draw(st.tuples(*[st.integers(0, len(record))] * 2))
    record[start:stop] = data.draw(st.binary(max_size=9))
    with suppress(DamagedRecordError):
        encode_batch(decode_batch(bytes(record)))


@given(batches(), st.data())
def test_a_record_that_was_cut_off_is_found_out(batch: Batch, data: st.DataObject) -> None:
    record = encode_batch(batch)
    with pytest.raises(DamagedRecordError):
        decode_batch(record[: data.draw(st.integers(0, len(record) - 1))])


@given(batches(), st.binary(min_size=1, max_size=20))
def test_bytes_behind_a_record_are_found_out(batch: Batch, more: bytes) -> None:
    with pytest.raises(DamagedRecordError):
        decode_batch(encode_batch(batch) + more)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_damaged(data: bytes) -> None:
    with suppress(DamagedRecordError):
        decode_batch(b"\x01" + data)


def test_a_part_that_holds_what_nobody_knows_is_found_out() -> None:
    record = encode_batch(one_message())
    with pytest.raises(DamagedRecordError, match="a part holds 9"):
        decode_batch(record[:PART_AT] + b"\x09" + record[PART_AT + 1 :])


def test_a_flag_of_a_message_that_nobody_knows_is_found_out() -> None:
    record = encode_batch(one_message())
    with pytest.raises(DamagedRecordError, match="a message has flags 8"):
        decode_batch(record[:FLAGS_AT] + b"\x08" + record[FLAGS_AT + 1 :])


def test_a_message_that_is_like_none_before_is_found_out() -> None:
    batch = Batch(1)
    batch.enqueue(1, 1, [Content(b"body")])
    with pytest.raises(DamagedRecordError, match="is like one before"):
        decode_batch(encode_batch(batch)[:FLAGS_AT] + b"\x01\x04\0\0\0body")


def test_a_boolean_that_is_neither_is_found_out() -> None:
    batch = Batch(1)
    batch.definitions.append(QueueDeclared(1, "", "", True, b""))
    record = encode_batch(batch)
    with pytest.raises(DamagedRecordError, match="a boolean is 2"):
        decode_batch(record[:-5] + b"\x02" + record[-4:])


def test_a_record_of_another_version_is_refused() -> None:
    with pytest.raises(DamagedRecordError, match="the record has format 02"):
        decode_batch(b"\x02" + encode_batch(Batch(1))[1:])


@pytest.mark.parametrize(("queue_id", "position"), [(MAX_QUEUE_ID + 1, 1), (1, MAX_POSITION + 1)])
def test_positions_and_queues_that_cannot_be_are_found_out(queue_id: int, position: int) -> None:
    with_enqueued, with_settled, with_returned = (Batch(1) for _ in range(3))
    with_enqueued.enqueue(queue_id, position, [Content()])
    with_settled.settle(queue_id, position, 1)
    with_returned.note_return(queue_id, position, Returned(1, 1, 0))
    for batch in (with_enqueued, with_settled, with_returned):
        with pytest.raises(DamagedRecordError):
            decode_batch(encode_batch(batch))
