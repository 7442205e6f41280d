"""The page on compatibility says what the broker does: tables are compared with the code, or tried."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pamqp import commands
from pamqp.base import Frame

from leveret.broker.config import SETTINGS, Settings
from leveret.broker.ctl.verbs import VERBS
from leveret.broker.methods import HANDLERS
from leveret.broker.model import arguments
from leveret.broker.model.deduplication import DEDUPLICATION
from leveret.broker.model.exchanges.exchange import EXCHANGE_TYPES
from leveret.broker.model.rules.policies import OPERATOR_KEYS, POLICY_KEYS
from leveret.broker.model.streams.stream_arguments import X_OFFSET_TRACKING
from leveret.broker.model.vhost import PREDECLARED
from leveret.broker.values import readable_size
from leveret.protocol import errors, sasl, tables
from leveret.protocol.connection import BODY_BYTES_MAX, HANDSHAKE_FRAME_MAX
from leveret.protocol.handshake import FRAME_MAX_MIN, TRANSITIONS, State
from leveret.protocol.methods import CLIENT_METHODS, METHODS
from leveret.protocol.properties import PROPERTY_NAMES, replace
from leveret.storage.changes import MAX_QUEUE_ID

from ..server.harness import Broker, ChannelOfTest, Client, Refused

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text(encoding="utf-8")
NODES = [
    node
    for root in ("broker", "protocol")
    for path in sorted((ROOT / root).rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
]  # of the sources
STATES = {"yes", "partly", "not yet", "never"}
SUPPORTED = {"yes", "partly"}
PUBLISHES_AND_SETTLEMENTS = {
    commands.Basic.Publish, commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject,
}  # fmt: skip
OF_THE_SESSION = {commands.Channel.Open, commands.Channel.Close, commands.Channel.CloseOk}


def table(header: str) -> list[list[str]]:
    """Return the cells of the rows under a header, which the page has once."""
    assert PAGE.count(f"\n| {header} |\n") == 1, header
    rows = PAGE.split(f"\n| {header} |\n")[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def states(header: str) -> dict[str, str]:
    """Return first and second column of a table whose second one is a state, code marks removed."""
    found = {
        name.strip("` "): row[1] for row in table(header) for name in row[0].split(", ")
    }  # a row may name several
    assert set(found.values()) <= STATES
    return found


def amqp_name(pamqp_name: str) -> str:
    """Return a name as the specification writes it: `basic.get-ok` for `Basic.GetOk`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", pamqp_name).lower()


BY_NAME = {amqp_name(method.name): method for method in METHODS.values()}
METHOD_ROWS = table("method | id | from | Leveret | 3.10 | 4.x | LavinMQ | remark")
FROM_CLIENT = {row[0]: row[3] for row in METHOD_ROWS if row[2] in ("client", "both")}
FROM_BROKER = {row[0]: row[3] for row in METHOD_ROWS if row[2] in ("broker", "both")}
QUEUE_ARGUMENTS = {
    row[0].strip("`"): [*row[1:3], row[-1]]
    for row in table("argument | classic | quorum | 3.10 | 4.x | LavinMQ | remark")
}
ALLOWED_VALUES: dict[str, object] = {
    "x-queue-type": "classic",
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "dead",
    "x-dead-letter-routing-key": "dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-single-active-consumer": True,
    "x-queue-mode": "lazy",
    "x-queue-master-locator": "min-masters",
    "x-queue-leader-locator": "balanced",
    "x-max-age": "1D",
    "x-delayed-retry-type": "all",
    "x-delayed-retry-backoff": "exponential",
}  # 1 is allowed for all others


# -- methods


def test_every_method_is_there_with_its_ids() -> None:
    on_page = {row[0]: row[1] for row in METHOD_ROWS}
    assert on_page == {amqp_name(method.name): f"{ids[0]}, {ids[1]}" for ids, method in METHODS.items()}


def test_it_is_known_who_sends_a_method() -> None:
    clients = {amqp_name(method.name) for method in CLIENT_METHODS} | {"basic.cancel-ok"}
    assert set(FROM_CLIENT) == clients
    assert set(FROM_BROKER) >= set(BY_NAME) - clients


def test_what_a_client_may_send_is_what_is_handled() -> None:
    handled: set[type[Frame]] = {*HANDLERS, *PUBLISHES_AND_SETTLEMENTS, *OF_THE_SESSION}
    handled |= {
        method
        for state, moves in TRANSITIONS.items()
        if state is not State.SECURING  # which no move leads to, see below
        for method in moves
    }
    supported = {name for name, state in FROM_CLIENT.items() if state in SUPPORTED}
    assert supported == {amqp_name(method.name) for method in handled}


def test_no_mechanism_asks_a_second_question() -> None:
    assert all(State.SECURING not in moves.values() for moves in TRANSITIONS.values())


@pytest.mark.parametrize(
    "name",
    [name for name in BY_NAME if not name.startswith("connection.") and name != "channel.close-ok"],
)  # close-ok is legal only after a close of the broker's, which `reopen` answers in many other tests
def test_a_method_is_refused_if_the_page_says_so(name: str) -> None:
    channel = Broker().channel()
    answer = ""
    try:
        channel.send(BY_NAME[name])
        channel.check_open()
    except Refused as error:
        answer = error.text
    is_handled = "unimplemented method" not in answer
    assert is_handled == (FROM_CLIENT.get(name) in SUPPORTED)


def test_the_broker_sends_what_the_page_says() -> None:
    seen = {amqp_name(name) for name in conversation()}
    assert seen == {name for name, state in FROM_BROKER.items() if state in SUPPORTED}


def conversation() -> set[str]:
    """Have the broker say everything that it can; the names of what it said."""
    broker = Broker()
    seen: set[str] = set()
    client = broker.connect(opened=False)
    client.send(client.peer.handshake())
    seen.update(client.take_names())
    client.send(client.peer.send(0, commands.Connection.UpdateSecret))
    channel = ChannelOfTest(client, 1)
    channel.send(commands.Channel.Open)
    channel.send(commands.Channel.Flow, active=True)
    channel.send(METHODS[(30, 10)])
    say_everything_about_exchanges_and_queues(channel)
    say_everything_about_messages(channel)
    seen.update(client.take_names())
    seen.update(end_in_every_way(client))
    return seen


def say_everything_about_exchanges_and_queues(channel: ChannelOfTest) -> None:
    channel.send(commands.Exchange.Declare, exchange="e", exchange_type="fanout")
    channel.send(commands.Exchange.Bind, source="amq.direct", destination="e")
    channel.send(commands.Exchange.Unbind, source="amq.direct", destination="e")
    channel.send(commands.Queue.Declare, queue="q")
    channel.send(commands.Queue.Bind, queue="q", exchange="e")
    channel.send(commands.Queue.Unbind, queue="q", exchange="e")
    channel.send(commands.Queue.Purge, queue="q")
    channel.send(commands.Exchange.Delete, exchange="e")


def say_everything_about_messages(channel: ChannelOfTest) -> None:
    channel.send(
        commands.Queue.Declare, queue="full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    channel.send(commands.Basic.Get, queue="q")
    channel.send(commands.Confirm.Select)
    channel.publish("q")
    channel.publish("full")
    channel.publish("nowhere", mandatory=True)
    channel.client.broker.node.set_alarm("memory", True)
    channel.publish("full")
    channel.client.broker.node.set_alarm("memory", False)
    channel.send(commands.Basic.Get, queue="q")
    channel.send(commands.Basic.Recover, requeue=True)
    channel.send(commands.Basic.Qos)
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c")
    channel.send(commands.Basic.Cancel, consumer_tag="c")
    channel.send(commands.Basic.Consume, queue="q", consumer_tag="c")
    channel.send(commands.Queue.Delete, queue="q")
    other = channel.client.channel(2)
    other.send(commands.Tx.Select)
    other.send(commands.Tx.Rollback)
    other.send(commands.Tx.Commit)


def end_in_every_way(client: Client) -> set[str]:
    """Close channels and connections from both sides."""
    broker = client.broker
    ChannelOfTest(client, 1).send(commands.Channel.Close, reply_code=200)
    ChannelOfTest(client, 2).send(commands.Queue.Purge, queue="missing")
    client.send(client.peer.send(0, commands.Connection.Close, reply_code=200))
    other = broker.connect()
    other.send(other.peer.send(0, commands.Connection.Open))
    return {*client.take_names(), *other.take_names()}


# -- exchanges


def test_exchange_types_are_those_in_the_code() -> None:
    on_page = states("type | Leveret | 3.10 | 4.x | LavinMQ | remark")
    assert {name for name, state in on_page.items() if state in SUPPORTED} == set(EXCHANGE_TYPES)


@pytest.mark.parametrize(
    "name", set(states("type | Leveret | 3.10 | 4.x | LavinMQ | remark")) - set(EXCHANGE_TYPES)
)
def test_a_missing_exchange_type_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="unknown exchange type"):
        Broker().channel().call(commands.Exchange.Declare, exchange="e", exchange_type=name)


def test_arguments_of_exchanges_and_predeclared_exchanges_are_there() -> None:
    assert (
        states("flag or argument | Leveret | 3.10 | 4.x | LavinMQ | remark")[arguments.ALTERNATE_EXCHANGE]
        == "yes"
    )
    line = next(line for line in PAGE.splitlines() if line.startswith("Predeclared: "))
    assert set(re.findall(r"`([\w.]+)`", line)) == {name for name, _type, _internal in PREDECLARED}


# -- queues and consumers


def test_every_argument_of_a_queue_is_there() -> None:
    known = {*arguments._KNOWN, *arguments._CHECKS, *arguments._TYPE_CHECK, DEDUPLICATION}
    known.add(arguments.X_NAME_PREFIX)
    mentioned = {name for name, (classic, _, _) in QUEUE_ARGUMENTS.items() if classic != "ignored"}
    assert mentioned == known


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize("name", QUEUE_ARGUMENTS)
def test_an_argument_of_a_queue_is_accepted_or_refused(name: str, queue_type: str) -> None:
    given = {"x-queue-type": queue_type, name: ALLOWED_VALUES.get(name, 1)}
    if name == "x-dead-letter-routing-key":
        given["x-dead-letter-exchange"] = "dead"
    state = QUEUE_ARGUMENTS[name][0 if queue_type == "classic" else 1]
    assert state in ("yes", "kept", "ignored", "refused")
    refusal = ""
    try:
        Broker().channel().declare("q", durable=True, arguments=given)
    except Refused as error:
        refusal = error.text
    assert bool(refusal) == (state == "refused"), refusal


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, row in QUEUE_ARGUMENTS.items()
        if row[:2] != ["refused", "refused"] and name not in ("x-queue-type", "x-dead-letter-exchange")
    ],
)
def test_an_argument_that_is_kept_is_compared_and_one_that_is_ignored_is_not(name: str) -> None:
    classic, quorum, _ = QUEUE_ARGUMENTS[name]
    queue_type = "quorum" if classic == "refused" else "classic"
    state = quorum if classic == "refused" else classic
    given = {"x-queue-type": queue_type, "x-dead-letter-exchange": "dead"}
    channel = Broker().channel()
    channel.declare("q", durable=True, arguments={**given, name: ALLOWED_VALUES.get(name, 1)})
    try:
        channel.declare("q", durable=True, arguments=given)
        is_compared = False
    except Refused as error:
        is_compared = f"inequivalent arg '{name}'" in error.text
    assert is_compared == (state != "ignored" and "not compared" not in QUEUE_ARGUMENTS[name][2])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("x-max-priority", "max_priority"),
        ("x-delivery-limit", "delivery_limit"),
        ("x-delayed-retry-type", "retry"),
        ("x-consumer-timeout", "consumer_timeout_ms"),
        ("x-message-ttl", "message_ttl_ms"),
        ("x-expires", "expires_ms"),
        ("x-max-length", "max_length"),
        ("x-max-length-bytes", "max_length_bytes"),
        ("x-overflow", "overflow"),
        ("x-dead-letter-exchange", "dead_letter_exchange"),
        ("x-dead-letter-routing-key", "dead_letter_routing_key"),
        ("x-single-active-consumer", "single_active_consumer"),
    ],
)
def test_an_argument_is_kept_if_nothing_reads_it(name: str, field: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker").rglob("*.py"))
    is_read = re.search(rf"\barguments\.{field}\b", sources) is not None
    assert QUEUE_ARGUMENTS[name][0] == ("yes" if is_read else "kept")


def test_every_argument_of_a_consumer_is_there() -> None:
    on_page = states("flag or argument of a consumer | Leveret | 3.10 | 4.x | LavinMQ | remark")
    known = {*arguments._CONSUMER_CHECKS, *arguments._CONSUMED_BY, X_OFFSET_TRACKING}
    assert {name for name in on_page if name.startswith("x-")} == known


# -- messages


def test_every_property_is_there() -> None:
    on_page = states("property | Leveret | 3.10 | 4.x | LavinMQ | remark")
    assert list(on_page) == [name.replace("_", "-") for name in PROPERTY_NAMES]


@pytest.mark.parametrize("header", ["x-first-death-queue", "x-last-death-queue", "x-death"])
def test_headers_of_dead_letters_are_written(header: str) -> None:
    channel = Broker().channel()
    channel.declare("dead")
    channel.declare("q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.publish("q", properties=replace(expiration="0"))
    got = channel.get("dead")
    assert states("header | Leveret | 3.10 | 4.x | LavinMQ | remark")[header] == "yes"
    assert got is not None
    assert header in (got.fields.headers or {})


# -- connecting


def test_mechanisms_are_those_that_are_offered() -> None:
    on_page = states("mechanism | Leveret | 3.10 | 4.x | LavinMQ | remark")
    assert [name for name, state in on_page.items() if state in SUPPORTED] == list(sasl.MECHANISMS)


# -- limits, reply codes


def test_limits_and_defaults_are_those_of_the_code() -> None:
    settings = Settings()
    on_page = {row[0]: row[1] for row in table("what | Leveret | RabbitMQ 3.10 | setting")}
    assert on_page == {
        "heartbeat that is offered": f"{settings.heartbeat_s} s",
        "largest frame that is offered": readable_size(settings.frame_max),
        "smallest frame_max of a client": f"{FRAME_MAX_MIN} bytes",
        "frame before tuning": f"{HANDSHAKE_FRAME_MAX} bytes",
        "channels of a connection": f"{settings.channel_max}",
        "consumers of a channel": f"{settings.consumers_per_channel}",
        "largest message": readable_size(settings.max_message_bytes),
        "highest value of that setting": readable_size(BODY_BYTES_MAX),
        "time for the handshake": f"{settings.handshake_timeout_s:g} s",
        "connections that have not logged in": f"{settings.unauthenticated_connections}",
        "of them from one address": f"{settings.unauthenticated_connections_per_address}",
        "queues": f"{MAX_QUEUE_ID}",
        "tables and arrays inside each other": f"{tables.TABLE_DEPTH_MAX}",
        "keys of a table, without nested ones": f"{tables.HEADERS_COUNT_MAX}",
        "values in a table, nested ones included": f"{tables.FIELDS_MAX}",
        "TTL and expiry": f"{arguments.TTL_MAX_MS} ms",
        "prefetch count if none is set": "unlimited",
        "address to listen on": settings.host,
        "port": f"{settings.port}",
        "user, password, vhost": ", ".join(
            (settings.default_user, settings.default_password, settings.default_vhost)
        ),
        "users that may come from this machine only": ", ".join(settings.loopback_users),
    }


def test_settings_that_are_named_are_there() -> None:
    named = set(re.findall(r"`((?:amqp|auth|limits)\.\w+)`", PAGE))
    assert named <= {setting.key for setting in SETTINGS.values()}
    assert f"`version` `{Settings().advertised_version}`" in PAGE


def test_reply_codes_are_those_that_are_raised() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for root in ("broker", "protocol")
        for path in (ROOT / root).rglob("*.py")
        if path.name != "errors.py"
    )
    found = {
        row[0]: (row[1], row[2], row[3] == "yes")
        for row in table("code | name | closes | state | when")
        if row[2]  # 312 and 313 are only told in basic.return
    }
    expected = {
        str(error.reply_code): (
            error.reply_name,
            "connection" if issubclass(error, errors.ConnectionException) else "channel",
            re.search(rf"\b{error.__name__}\(", sources) is not None,
        )
        for error in vars(errors).values()
        if isinstance(error, type)
        and issubclass(error, errors.AMQPException)
        and error is not errors.LoginRefused  # the 403 of a connection, told in the remark
        and error.__name__ not in ("AMQPException", "ChannelException", "ConnectionException")
    }
    assert found == expected


def error_texts() -> set[tuple[int, str]]:
    """Return code and text of the errors in the sources; what a case puts into a text is `…`."""
    found: set[tuple[int, str]] = set()
    for node in NODES:
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            error = vars(errors).get(name)
            text = constant(node.args[0])
            if text and isinstance(error, type) and issubclass(error, errors.AMQPException):
                found.add((error.reply_code, text))
    return found


def constant(node: ast.expr) -> str:
    """Return what is known of a text; nothing if it is made elsewhere."""
    if isinstance(node, ast.JoinedStr):
        return "".join(constant(part) or "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_every_error_text_is_there() -> None:
    on_page = {(int(row[0]), row[1].strip("`")) for row in table("code | text | 3.10 | 4.x | LavinMQ")}
    raised = error_texts()
    assert raised <= on_page
    texts = {constant(node) for node in NODES if isinstance(node, ast.expr)}
    made_elsewhere = {text for _, text in on_page - raised}
    assert made_elsewhere <= texts


# -- all tables


@pytest.mark.parametrize("header", re.findall(r"^\| (.*\| 4\.x \| LavinMQ\b.*) \|$", PAGE, re.MULTILINE))
def test_a_table_has_a_word_for_each_broker(header: str) -> None:
    columns = header.split(" | ")
    for row in table(header):
        assert len(row) == len(columns), row
        assert all(row[columns.index(broker)] for broker in ("3.10", "4.x", "LavinMQ")), row


def test_every_argument_and_header_that_the_code_names_is_there() -> None:
    texts = {constant(node) for node in NODES if isinstance(node, ast.expr)}
    names = {text for text in texts if re.fullmatch(r"x-[a-z]+(-[a-z]+)*", text)}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


# -- policies


def test_every_key_of_a_policy_is_there() -> None:
    rows = table("policy key | Leveret | operator policy | 3.10 | 4.x | LavinMQ | remark")
    on_page = {name.strip("` "): row[1:3] for row in rows for name in row[0].split(", ")}
    assert set(on_page) == set(POLICY_KEYS)
    assert {
        name for name, (_, is_for_operators) in on_page.items() if is_for_operators == "yes"
    } == OPERATOR_KEYS
    assert {state for state, _ in on_page.values()} <= STATES | {"accepted"}


def test_the_verbs_of_ctl_are_all_there() -> None:
    found = states("verb | state | remark")
    assert {verb for verb, state in found.items() if state in SUPPORTED} == set(VERBS)
