"""What differs from run to run does not show in a transcript; everything else does."""

from __future__ import annotations

from transcripts.normalise import Names, normalised

NOW_S = 1_700_000_000


def names() -> Names:
    """Return the names of a case in a run at a known time."""
    return Names("ab12", 7, now=lambda: NOW_S)


def test_a_dollar_is_a_prefix_of_this_case_and_run() -> None:
    """Names of other cases and runs cannot meet them."""
    assert names().expand("queue.declare queue=$q") == "queue.declare queue=trab12-0007-q"
    assert names().shorten("no queue 'trab12-0007-q' in vhost '/'") == "no queue '$q' in vhost '/'"


def test_prefixes_are_of_the_same_length_in_all_cases() -> None:
    """Else long texts would be cut in different places."""
    assert len(Names("ffff", 1).prefix) == len(Names("0000", 1234).prefix)


def test_a_name_belongs_to_its_case_if_it_has_the_prefix_and_is_text() -> None:
    """Only such names are deleted after the case."""
    assert names().has(b"trab12-0007-q")
    assert not names().has(b"trab12-0008-q")
    assert not names().has(b"trab12-0007-\xff")


def test_names_that_the_broker_made_up_are_counted_by_kind() -> None:
    """The same name is the same number, wherever it comes."""
    case = names()
    assert case.shorten(f"queue=amq.gen-{22 * 'a'}") == "queue=%gen1"
    assert case.shorten(f"queue=amq.gen-{22 * 'b'}") == "queue=%gen2"
    assert case.shorten(f"consumer-tag=amq.ctag-{22 * 'c'}") == "consumer-tag=%ctag1"
    assert (
        case.shorten("routing-key=amq.rabbitmq.reply-to.g1h2AA5yZXBseUA1NzQ.fp/dW+w==")
        == "routing-key=%reply1"
    )
    assert case.shorten(f"no queue 'amq.gen-{22 * 'b'}' in") == "no queue '%gen2' in"


def test_a_case_can_say_a_name_that_the_broker_made_up() -> None:
    """Once it was told, `%gen1` stands for it."""
    case = names()
    case.shorten(f"queue=amq.gen-{22 * 'a'}")
    assert case.expand("basic.get queue=%gen1") == f"basic.get queue=amq.gen-{22 * 'a'}"
    assert case.expand("basic.get queue=%gen2") == "basic.get queue=%gen2"


def test_a_made_up_name_that_is_too_short_is_none() -> None:
    """A case may make up its own."""
    assert names().shorten("queue=amq.rabbitmq.reply-to.zzz") == "queue=amq.rabbitmq.reply-to.zzz"


def test_a_time_about_now_is_now() -> None:
    """Other times stay as they are."""
    assert names().shorten(f"time: T:{NOW_S - 5}, queue") == "time: %now, queue"
    assert (
        names().shorten("time: T:1600000000, count: l:1700000000")
        == "time: T:1600000000, count: l:1700000000"
    )


def test_lines_of_different_channels_may_come_in_any_order() -> None:
    """Those of one channel may not."""
    came = ["2< b", "B< e", "< a", "2< c", "0< z"]
    assert normalised([came]) == [["0< z", "< a", "2< b", "2< c", "B< e"]]
    assert normalised([["2< c", "2< b"]]) != normalised([["2< b", "2< c"]])


def test_what_one_step_brought_is_not_mixed_with_the_next() -> None:
    """Each step has its own lines."""
    assert normalised([["2< a"], ["< b"]]) == [["2< a"], ["< b"]]


def test_confirms_are_told_by_tag_however_many_come_in_one_frame() -> None:
    """One for three is the same as three."""
    single = [f"< basic.ack delivery-tag={tag}" for tag in (1, 2, 3)]
    assert normalised([single]) == normalised([["< basic.ack delivery-tag=3 multiple"]])
    assert normalised([single]) == [["< basic.ack tags=1,2,3"]]


def test_a_confirm_of_several_begins_behind_the_last_one() -> None:
    """What was confirmed in an earlier step is not told again."""
    steps = [["< basic.ack delivery-tag=2"], ["< basic.ack delivery-tag=4 multiple"]]
    assert normalised(steps) == [["< basic.ack tags=2"], ["< basic.ack tags=1,3,4"]]


def test_acks_and_nacks_of_different_channels_are_told_apart() -> None:
    """They share nothing."""
    came = [
        "< basic.ack delivery-tag=1",
        "< basic.nack delivery-tag=2 requeue",
        "2< basic.ack delivery-tag=2 multiple",
    ]
    assert normalised([came]) == [
        ["< basic.ack tags=1", "< basic.nack tags=2 requeue", "2< basic.ack tags=1,2"]
    ]


def test_a_tag_that_is_confirmed_twice_shows() -> None:
    """No broker may do that."""
    assert normalised([["< basic.ack delivery-tag=1"], ["< basic.ack delivery-tag=1"]]) == [
        ["< basic.ack tags=1"],
        ["< basic.ack tags=1"],
    ]


def test_a_return_between_confirms_keeps_its_place() -> None:
    """It has to come before the confirm of its message."""
    came = ["< basic.ack delivery-tag=1", "< basic.return x", "< basic.ack delivery-tag=2"]
    assert normalised([came]) == [["< basic.ack tags=1", "< basic.return x", "< basic.ack tags=2"]]


def test_after_close_ok_it_does_not_matter_who_ends_the_connection() -> None:
    """The end of any other connection shows."""
    assert normalised([["0< connection.close-ok"], ["0< eof", "B0< eof"]]) == [
        ["0< connection.close-ok"],
        ["B0< eof"],
    ]


def test_server_properties_are_told_by_name_but_for_the_capabilities() -> None:
    """Versions and texts are each broker's own."""
    properties = '{capabilities: {basic.nack: true}, product: R, version: "3.10"}'
    assert normalised([[f"0< connection.start server-properties={properties}"]]) == [
        ["0< connection.start server-properties={capabilities: {basic.nack: true}, product: *, version: *}"]
    ]
