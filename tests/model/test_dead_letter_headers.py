"""What dead-lettering writes into a message, and the circles it ends."""

from __future__ import annotations

import pytest

from leveret.broker.model.queues.dead_letter import (
    DELIVERY_LIMIT,
    EXPIRED,
    MAXLEN,
    REJECTED,
    Death,
    dead_letter,
    deaths,
    is_cycle,
)
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import Field, Table, array, decode_table, encode_table

NOW_S = 0x6B02579A
LAST = ("x-last-death-exchange", "x-last-death-queue", "x-last-death-reason")

# Header tables that RabbitMQ 3.10 delivered, the time in them NOW_S.
EXPIRED_WITHOUT_HEADERS = bytes.fromhex(
    "000000d107782d6465617468410000006a460000006505636f756e746c000000000000000106726561736f6e5300000007"
    "65787069726564057175657565530000000271310474696d6554000000006b02579a0865786368616e6765530000000273"
    "780c726f7574696e672d6b657973410000000653000000016b16782d66697273742d64656174682d65786368616e676553"
    "00000002737813782d66697273742d64656174682d71756575655300000002713114782d66697273742d64656174682d72"
    "6561736f6e530000000765787069726564"
)
EXPIRED_WITH_HEADERS_AND_EXPIRATION = bytes.fromhex(
    "00000103015a643ff8000000000000016153000000017807782d64656174684100000085460000008005636f756e746c00"
    "0000000000000106726561736f6e530000000765787069726564057175657565530000000271310474696d655400000000"
    "6b02579a0865786368616e6765530000000273780c726f7574696e672d6b657973410000000653000000016b136f726967"
    "696e616c2d65787069726174696f6e5300000002353016782d66697273742d64656174682d65786368616e676553000000"
    "02737813782d66697273742d64656174682d71756575655300000002713114782d66697273742d64656174682d72656173"
    "6f6e530000000765787069726564017a6201"
)
TWICE_AROUND_A_RETRY_LOOP = bytes.fromhex(
    "0000015b0162620107782d646561746841000000f1460000006405636f756e746c00000000000000020865786368616e67"
    "6553000000000571756575655300000002713206726561736f6e5300000007657870697265640c726f7574696e672d6b65"
    "79734100000007530000000271320474696d6554000000006b02579b460000008305636f756e746c000000000000000208"
    "65786368616e67655300000000136f726967696e616c2d65787069726174696f6e53000000053630303030057175657565"
    "5300000002713106726561736f6e530000000872656a65637465640c726f7574696e672d6b657973410000000753000000"
    "0271310474696d6554000000006b02579b16782d66697273742d64656174682d65786368616e6765530000000013782d66"
    "697273742d64656174682d71756575655300000002713114782d66697273742d64656174682d726561736f6e5300000008"
    "72656a6563746564"
)


def die(
    raw: bytes,
    *,
    queue: str = "q1",
    reason: str = EXPIRED,
    exchange: str = "sx",
    routing_keys: list[str] | None = None,
    time_s: int = NOW_S,
    trusted: bool = True,
) -> bytes:
    return dead_letter(
        raw,
        Properties.parse(raw),
        queue=queue,
        reason=reason,
        exchange=exchange,
        routing_keys=routing_keys or ["k"],
        time_s=time_s,
        trusted=trusted,
    )


def headers_of(raw: bytes) -> Table:
    return Properties.parse(raw).headers or {}


def entries(raw: bytes) -> list[Table]:
    elements = array(headers_of(raw), "x-death") or []
    return [element.value for element in elements if isinstance(element.value, dict)]


def without_last_death(raw: bytes) -> Table:
    """Leave out what RabbitMQ 4 has added."""
    return {name: field for name, field in headers_of(raw).items() if name not in LAST}


def test_the_first_death_gives_the_bytes_that_rabbitmq_gives() -> None:
    assert encode_table(without_last_death(die(b"\0\0"))) == EXPIRED_WITHOUT_HEADERS


def test_headers_are_sorted_and_other_properties_stay() -> None:
    headers: Table = {"z": Field("b", 1), "a": Field("S", b"x"), "Z": Field("d", 1.5)}
    raw = replace(content_type="text/plain", headers=headers, delivery_mode=2, expiration="50")
    dead = die(raw)
    assert replace(dead, headers=None) == replace(content_type="text/plain", delivery_mode=2)
    expected = decode_table(EXPIRED_WITH_HEADERS_AND_EXPIRATION)[0]
    assert without_last_death(dead) == expected
    assert list(without_last_death(dead)) == list(expected)


def test_the_fields_of_a_death_have_rabbitmqs_order_and_types() -> None:
    death = entries(die(replace(expiration="50"), routing_keys=["k", "cc"]))[0]
    assert [(name, field.tag) for name, field in death.items()] == [
        ("original-expiration", "S"),
        ("count", "l"),
        ("reason", "S"),
        ("queue", "S"),
        ("time", "T"),
        ("exchange", "S"),
        ("routing-keys", "A"),
    ]
    assert death["routing-keys"].value == [Field("S", b"k"), Field("S", b"cc")]


def test_a_retry_loop_counts_and_keeps_what_was_first() -> None:
    """Rejected in q1, expired in q2, and the same again."""
    raw = replace(headers={"b": Field("b", 1)}, expiration="60000")
    for time_s in (NOW_S + 1, NOW_S + 99):
        raw = die(raw, queue="q1", reason=REJECTED, exchange="", routing_keys=["q1"], time_s=time_s)
        raw = die(raw, queue="q2", reason=EXPIRED, exchange="", routing_keys=["q2"], time_s=time_s)
    assert without_last_death(raw) == decode_table(TWICE_AROUND_A_RETRY_LOOP)[0]
    assert deaths(headers_of(raw)) == [Death("q2", EXPIRED, 2), Death("q1", REJECTED, 2)]


def test_first_death_headers_stay_and_last_death_headers_follow() -> None:
    raw = die(die(b"\0\0"), queue="q2", reason=MAXLEN, exchange="dlx")
    shown = {name: field.value for name, field in headers_of(raw).items() if name != "x-death"}
    assert shown == {
        "x-first-death-exchange": b"sx",
        "x-first-death-queue": b"q1",
        "x-first-death-reason": b"expired",
        "x-last-death-exchange": b"dlx",
        "x-last-death-queue": b"q2",
        "x-last-death-reason": b"maxlen",
    }


def test_the_latest_death_is_in_front() -> None:
    raw = b"\0\0"
    for queue, reason in (("q1", EXPIRED), ("q2", REJECTED), ("q1", DELIVERY_LIMIT), ("q1", EXPIRED)):
        raw = die(raw, queue=queue, reason=reason)
    assert deaths(headers_of(raw)) == [
        Death("q1", EXPIRED, 2),
        Death("q1", DELIVERY_LIMIT, 1),
        Death("q2", REJECTED, 1),
    ]


CLIENTS_DEATH: Table = {
    "count": Field("l", 7),
    "reason": Field("S", b"expired"),
    "queue": Field("S", b"q1"),
    "time": Field("T", 5),
}
CLIENTS_HEADERS: Table = {
    "x-death": Field("A", [Field("F", CLIENTS_DEATH)]),
    "x-first-death-queue": Field("S", b"made up"),
}


def test_a_history_that_the_client_sent_is_overwritten() -> None:
    raw = die(replace(headers=CLIENTS_HEADERS), trusted=False)
    assert deaths(headers_of(raw)) == [Death("q1", EXPIRED, 1)]
    assert headers_of(raw)["x-first-death-queue"] == Field("S", b"q1")


def test_a_history_that_the_client_sent_goes_on_where_it_is_trusted() -> None:
    """RabbitMQ 3.x: the count goes on from the client's, and the first death is left as it was told."""
    raw = die(replace(headers=CLIENTS_HEADERS), trusted=True)
    assert deaths(headers_of(raw)) == [Death("q1", EXPIRED, 8)]
    assert headers_of(raw)["x-first-death-queue"] == Field("S", b"made up")
    assert "x-first-death-reason" not in headers_of(raw)


@pytest.mark.parametrize(
    "x_death",
    [Field("S", b"foo"), Field("A", []), Field("A", [Field("S", b"foo")]), Field("A", [Field("F", {})])],
)
def test_nonsense_in_a_trusted_history_does_no_harm(x_death: Field) -> None:
    raw = die(replace(headers={"x-death": x_death}), trusted=True)
    assert deaths(headers_of(raw))[0] == Death("q1", EXPIRED, 1)


def test_a_trusted_entry_without_a_count_starts_at_one() -> None:
    entry: Table = {"reason": Field("S", b"expired"), "queue": Field("S", b"q1")}
    raw = die(replace(headers={"x-death": Field("A", [Field("F", entry)])}))
    assert entries(raw) == [{**entry, "count": Field("l", 1)}]


def test_a_death_leaves_the_properties_it_was_given_alone() -> None:
    properties = Properties.parse(die(b"\0\0"))
    before = encode_table(properties.headers or {})
    raw = replace(headers=properties.headers)
    dead_letter(
        raw, properties, queue="q1", reason=EXPIRED, exchange="", routing_keys=["k"], time_s=1, trusted=True
    )
    assert encode_table(properties.headers or {}) == before


def test_names_that_are_not_utf_8_survive() -> None:
    name = b"q\xff".decode("utf-8", "surrogateescape")
    assert entries(die(b"\0\0", queue=name))[0]["queue"] == Field("S", b"q\xff")
    assert deaths(headers_of(die(b"\0\0", queue=name)))[0].queue == name


def history(*steps: tuple[str, str]) -> list[Death]:
    return [Death(queue, reason, 1) for queue, reason in steps]


@pytest.mark.parametrize(
    ("lines", "queue", "expected"),
    [
        (history(("q", EXPIRED)), "q", True),
        (history(("q", MAXLEN)), "q", True),
        (history(("other", EXPIRED)), "q", False),
        (history(("b", EXPIRED), ("q", EXPIRED)), "q", True),
        (history(("b", EXPIRED), ("q", REJECTED)), "q", False),
        (history(("b", REJECTED), ("q", EXPIRED)), "q", False),
        (history(("q", REJECTED)), "q", False),
        (history(("b", EXPIRED), ("q", EXPIRED), ("c", REJECTED)), "q", True),
        ([], "q", False),
    ],
)
def test_only_a_circle_without_a_rejection_ends(lines: list[Death], queue: str, expected: bool) -> None:
    assert is_cycle(lines, queue) is expected


def test_a_message_without_headers_has_no_history() -> None:
    assert deaths(None) == []
