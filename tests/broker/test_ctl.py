"""`leveret ctl` prints and exits as rabbitmqctl does; here it talks to a broker without a socket between.

The texts are those of RabbitMQ 3.10's rabbitmqctl.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from pamqp import commands

from leveret.broker.ctl.command import run
from leveret.broker.ctl.verbs import VERBS
from leveret.broker.server.administration import VERBS as DONE_BY_THE_BROKER
from leveret.broker.server.administration import answer
from leveret.protocol.tables import from_python

from ..server.harness import PERSISTENT, Broker, Refused


class Ctl:
    """A broker, and the command line in front of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.broker = Broker()
        self._capsys = capsys

    def run(self, *line: str) -> tuple[int, str, str]:
        """Run a command line; exit code, standard output, standard error."""
        self._capsys.readouterr()  # the broker's log
        code = run(line, self.ask)
        out, err = self._capsys.readouterr()
        return code, out, err

    def ok(self, *line: str) -> str:
        """Run a command line that must succeed; its output without banner."""
        code, out, err = self.run("-q", *line)
        assert (code, err) == (0, "")
        return out

    def rows(self, *line: str) -> list[dict[str, Any]]:
        """Run a list; its rows as JSON has them."""
        rows: list[dict[str, Any]] = json.loads(self.ok(*line, "--formatter", "json"))
        return rows

    def refused(self, *line: str) -> tuple[int, str]:
        """Run a command line that must fail; exit code and text."""
        code, _, err = self.run("-q", *line)
        return code, err.removesuffix("\n")

    def ask(self, request: dict[str, object]) -> dict[str, Any]:
        self.broker.node.begin_turn()
        reply: dict[str, Any] = json.loads(json.dumps(answer(self.broker.node, request)))
        self.broker.run()
        return reply


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(capsys)


def test_the_command_and_the_broker_know_the_same_verbs() -> None:
    assert set(VERBS) == set(DONE_BY_THE_BROKER)


# what is printed


def test_a_verb_says_what_it_does(ctl: Ctl) -> None:
    code, out, err = ctl.run("add_user", "ana", "pw")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        'Adding user "ana" ...',
        "Done. Don't forget to grant the user permissions to some virtual hosts! "
        "See 'leveret ctl help set_permissions' to learn more.",
    ]


def test_quiet_says_nothing(ctl: Ctl) -> None:
    assert ctl.run("-q", "add_user", "ana", "pw") == (0, "", "")


def test_a_list_has_a_banner_and_a_header(ctl: Ctl) -> None:
    assert ctl.run("list_users") == (0, "Listing users ...\nuser\ttags\nguest\t[administrator]\n", "")


@pytest.mark.parametrize("options", [("-s",), ("-q", "--no-table-headers")])
def test_banner_and_header_can_be_left_out(ctl: Ctl, options: tuple[str, ...]) -> None:
    assert ctl.run(*options, "list_users") == (0, "guest\t[administrator]\n", "")


def test_an_empty_list_has_no_header(ctl: Ctl) -> None:
    out = "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\n"
    assert ctl.run("list_queues") == (0, out, "")


def test_json_is_an_array_with_a_line_for_each_row(ctl: Ctl) -> None:
    ctl.ok("add_user", "ana", "pw")
    out = '[\n{"user":"guest","tags":["administrator"]}\n,{"user":"ana","tags":[]}\n]\n'
    assert ctl.run("list_users", "--formatter", "json") == (0, out, "")


def test_csv_is_quoted(ctl: Ctl) -> None:
    out = '"user","tags"\n"guest","[administrator]"\n'
    assert ctl.run("list_users", "--formatter=csv") == (0, out, "")


def test_a_pretty_table_has_lines(ctl: Ctl) -> None:
    assert ctl.ok("list_vhosts", "--formatter", "pretty_table") == (
        "┌──────┐\n│ name │\n├──────┤\n│ /    │\n└──────┘\n"
    )


def test_names_cannot_do_anything_to_the_terminal(ctl: Ctl) -> None:
    ctl.ok("add_vhost", "a\x1b[31m\tb")
    assert ctl.ok("-s", "list_vhosts") == "/\na\\x1b[31m\\tb\n"


def test_a_name_that_is_not_utf_8_can_be_listed(ctl: Ctl) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    ctl.ok("add_vhost", name)
    assert ctl.ok("-s", "list_vhosts") == "/\ncaf\\xdce9\n"
    assert ctl.rows("list_vhosts")[1] == {"name": name}


# the command line


def test_options_may_stand_anywhere(ctl: Ctl) -> None:
    ctl.ok("add_vhost", "v")
    for line in (
        ["-p", "v", "set_permissions", "guest", "a", "b", "c"],
        ["set_permissions", "-p", "v", "guest", "a", "b", "c"],
        ["set_permissions", "guest", "a", "b", "c", "--vhost", "v"],
        ["-n", "rabbit@host", "-l", "-t", "5", "set_permissions", "--vhost=v", "--", "guest", "a", "b", "c"],
    ):
        ctl.ok("clear_permissions", "-p", "v", "guest")
        ctl.ok(*line)
        assert ctl.ok("-s", "list_permissions", "-p", "v") == "guest\ta\tb\tc\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (["list_queus"], "\nCommand 'list_queus' not found.\nDid you mean 'list_queues'?\n"),
        (["add_user"], "Error (argument validation): not enough arguments.\n\nUsage: leveret ctl add_user"),
        (["delete_user", "a", "b"], "Error (argument validation): too many arguments.\n\nUsage: leveret ctl"),
        (["list_queues", "nocol"], "Error (argument validation): Info key(s) nocol are not supported\n"),
        (["list_queues", "-x"], "Error (argument validation): Invalid options for this command:\n-x : \n"),
        (["list_users", "-p"], "Error (argument validation): Invalid options for this command:\n-p : \n"),
        (
            ["list_users", "--formatter", "erlang"],
            "unknown formatter; there are table, json, csv, pretty_table",
        ),
    ],
)
def test_a_mistake_is_explained_and_exits_with_64(ctl: Ctl, line: list[str], text: str) -> None:
    code, out, err = ctl.run(*line)
    assert (code, out) == (64, "")
    assert err.startswith(text)


def test_an_unknown_verb_shows_all(ctl: Ctl) -> None:
    code, _, err = ctl.run("zzz")
    assert code == 64
    assert all(f"\n  {name} " in err for name in VERBS)


@pytest.mark.parametrize("line", [["help"], ["--help"], []])
def test_help_lists_all_verbs(ctl: Ctl, line: list[str]) -> None:
    code, out, _ = ctl.run(*line)
    assert code == 0
    assert all(f"\n  {name} " in out for name in VERBS)


@pytest.mark.parametrize("line", [["help", "list_queues"], ["list_queues", "--help"]])
def test_help_tells_how_a_verb_is_called(ctl: Ctl, line: list[str]) -> None:
    _, out, _ = ctl.run(*line)
    assert out.startswith("Usage: leveret ctl list_queues [-p <vhost>] [<column> ...]\n\nLists queues.\n")
    assert "Columns: name, messages, durable" in out


def test_a_password_can_come_from_standard_input(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("pw\n"))
    ctl.ok("add_user", "ana")
    ctl.ok("authenticate_user", "ana", "pw")


def test_without_a_broker_it_says_where_it_looked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["--socket", "nowhere.sock", "ping"], None) == 69
    assert "no broker answers at nowhere.sock: No such file or directory." in capsys.readouterr().err


# errors


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (["add_user", "guest", "x"], 70, 'Error:\nUser "guest" already exists'),
        (["delete_user", "nobody"], 67, 'Error:\nUser "nobody" does not exist'),
        (["change_password", "nobody", "x"], 67, 'Error:\nUser "nobody" does not exist'),
        (["clear_password", "nobody"], 67, 'Error:\nUser "nobody" does not exist'),
        (["set_user_tags", "nobody", "x"], 67, 'Error:\nUser "nobody" does not exist'),
        (
            ["authenticate_user", "guest", "x"], 65,
            "Error:\nError: failed to authenticate user \"guest\"\nuser 'guest' - invalid credentials",
        ),
        (["set_permissions", "nobody", "", "", ""], 67, "Error:\nUser nobody does not exist"),
        (["clear_permissions", "nobody"], 67, "Error:\nUser nobody does not exist"),
        (["set_topic_permissions", "nobody", "x", "", ""], 67, "Error:\nUser nobody does not exist"),
        (["clear_topic_permissions", "nobody"], 67, "Error:\nUser nobody does not exist"),
        (["list_user_permissions", "nobody"], 69, 'Error:\n{:no_such_user, "nobody"}'),
        (["set_permissions", "-p", "v", "guest", "", "", ""], 69, "Error:\nVirtual host v does not exist"),
        (["clear_permissions", "-p", "v", "guest"], 69, "Error:\nVirtual host v does not exist"),
        (["list_permissions", "-p", "v"], 65, "Virtual host 'v' does not exist"),
        (["list_topic_permissions", "-p", "v"], 65, "Virtual host 'v' does not exist"),
        (["delete_vhost", "v"], 65, "Virtual host 'v' does not exist"),
        (
            ["set_permissions", "guest", "(", "", ""], 69,
            "Error:\n{:invalid_regexp, '(', {'missing ), unterminated subpattern', 0}}",
        ),
        (["delete_queue", "q"], 64, "Error:\nQueue not found"),
        (["purge_queue", "q"], 69, "Error:\nnot_found"),
        (["close_connection", "x", "why"], 69, 'Error:\nError:\n{:invalid_pid_syntax, "x"}'),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(ctl: Ctl, line: list[str], code: int, text: str) -> None:
    assert ctl.refused(*line) == (code, text)


@pytest.mark.parametrize("verb", ["list_queues", "list_exchanges", "list_bindings", "list_consumers"])
def test_lists_of_a_missing_vhost_are_empty(ctl: Ctl, verb: str) -> None:
    assert ctl.ok(verb, "-p", "v") == ""


# users and permissions


def test_a_user_can_be_made_to_log_in_and_work(ctl: Ctl) -> None:
    ctl.ok("add_vhost", "v")
    ctl.ok("add_user", "ana", "pw")
    ctl.ok("set_permissions", "-p", "v", "ana", "^a", ".*", ".*")
    channel = ctl.broker.channel(user="ana", password="pw", vhost="v")
    channel.declare("a")
    with pytest.raises(Refused, match="configure access to queue 'b' in vhost 'v' refused for user 'ana'"):
        channel.declare("b")


def test_passwords_are_changed_cleared_and_tried(ctl: Ctl) -> None:
    ctl.ok("add_user", "ana", "pw")
    ctl.ok("authenticate_user", "ana", "pw")
    ctl.ok("change_password", "ana", "other")
    assert ctl.run("authenticate_user", "ana", "other") == (0, 'Authenticating user "ana" ...\nSuccess\n', "")
    ctl.ok("clear_password", "ana")
    assert ctl.refused("authenticate_user", "ana", "other")[0] == 65


def test_tags_are_replaced(ctl: Ctl) -> None:
    assert ctl.run("set_user_tags", "guest", "management", "x")[1] == (
        'Setting tags for user "guest" to [management, x] ...\n'
    )
    assert ctl.rows("list_users") == [{"user": "guest", "tags": ["management", "x"]}]
    ctl.ok("set_user_tags", "guest")
    assert ctl.ok("-s", "list_users") == "guest\t[]\n"


def test_permissions_are_listed_by_vhost_and_by_user(ctl: Ctl) -> None:
    ctl.ok("add_vhost", "v")
    ctl.ok("set_permissions", "-p", "v", "guest", "^a", ".*", "")
    assert ctl.ok("list_permissions", "-p", "v") == "user\tconfigure\twrite\tread\nguest\t^a\t.*\t\n"
    assert ctl.rows("list_user_permissions", "guest") == [
        {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {"vhost": "v", "configure": "^a", "write": ".*", "read": ""},
    ]
    ctl.ok("clear_permissions", "-p", "v", "guest")
    assert ctl.ok("list_permissions", "-p", "v") == ""


def test_topic_permissions_are_set_listed_and_cleared(ctl: Ctl) -> None:
    out = ctl.run("set_topic_permissions", "guest", "amq.topic", "^a", ".*")[1]
    assert out == 'Setting topic permissions on "amq.topic" for user "guest" in vhost "/" ...\n'
    ctl.ok("set_topic_permissions", "guest", "other", "^b", "")
    assert ctl.ok("list_topic_permissions") == (
        "user\texchange\twrite\tread\nguest\tamq.topic\t^a\t.*\nguest\tother\t^b\t\n"
    )
    out = ctl.run("clear_topic_permissions", "guest", "other")[1]
    assert out == 'Clearing topic permissions on "other" for user "guest" in vhost "/" ...\n'
    assert ctl.ok("-s", "list_user_topic_permissions", "guest") == "/\tamq.topic\t^a\t.*\n"
    out = ctl.run("clear_topic_permissions", "guest")[1]
    assert out == 'Clearing topic permissions for user "guest" in vhost "/" ...\n'
    assert ctl.ok("list_topic_permissions") == ""


# vhosts


def test_vhosts_are_made_described_listed_and_deleted(ctl: Ctl) -> None:
    ctl.ok("add_vhost", "v", "--description", "a b", "--tags", "x,y", "--default-queue-type", "quorum")
    ctl.ok("add_vhost", "v")
    columns = ("name", "description", "tags", "default_queue_type", "tracing")
    assert ctl.ok("list_vhosts", *columns) == (
        "name\tdescription\ttags\tdefault_queue_type\ttracing\n"
        "/\tDefault virtual host\t[]\tundefined\tfalse\nv\ta b\t[x, y]\tquorum\tfalse\n"
    )
    ctl.ok("set_vhost_tags", "v", "z")
    assert ctl.ok("-s", "list_vhosts", "tags,description") == "[]\tDefault virtual host\n[z]\ta b\n"
    ctl.ok("delete_vhost", "v")
    assert ctl.ok("list_vhosts") == "name\n/\n"


# lists


def test_queues_are_listed_with_the_columns_asked_for(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("a q", durable=True, arguments={"x-max-length": 5, "text": "x"})
    channel.declare("mine", exclusive=True)
    channel.publish("a q", b"abc", properties=PERSISTENT)
    channel.publish("a q", b"x")
    channel.consume("mine", exclusive=True, tag="only")
    channel.get("a q", no_ack=False)
    assert ctl.ok("list_queues") == "name\tmessages\na q\t2\nmine\t0\n"
    assert ctl.ok("-s", "list_queues", "name", "durable", "arguments", "consumers", "type", "state") == (
        'a q\ttrue\t[{"x-max-length",5},{"text","x"}]\t0\tclassic\trunning\n'
        "mine\tfalse\t[]\t1\tclassic\trunning\n"
    )
    columns = ("messages_ready", "messages_unacknowledged", "message_bytes_ready", "exclusive_consumer_tag")
    assert ctl.ok("-s", "list_queues", *columns) == "1\t1\t1\t\n0\t0\t0\tonly\n"


def test_exchanges_are_listed(ctl: Ctl) -> None:
    ctl.broker.channel().declare_exchange(
        "e", "topic", durable=True, arguments={"alternate-exchange": from_python("x")}
    )
    assert ctl.ok("list_exchanges").splitlines()[:3] == ["name\ttype", "\tdirect", "amq.direct\tdirect"]
    assert ctl.rows("list_exchanges", "name", "durable", "internal", "arguments")[-1] == {
        "name": "e", "durable": True, "internal": False,
        "arguments": [["alternate-exchange", "longstr", "x"]],
    }  # fmt: skip


def test_bindings_are_listed_with_those_of_the_default_exchange(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("q")
    channel.bind("q", "amq.topic", "a.#", arguments={"a": 1, "b": "x"})
    channel.call(commands.Exchange.Bind, destination="amq.fanout", source="amq.topic", routing_key="k")
    assert ctl.run("list_bindings")[1] == (
        "Listing bindings for vhost /...\n"
        "source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments\n"
        "\texchange\tq\tqueue\tq\t[]\n"
        'amq.topic\texchange\tq\tqueue\ta.#\t[{"a",1},{"b","x"}]\n'
        "amq.topic\texchange\tamq.fanout\texchange\tk\t[]\n"
    )


def test_connections_and_channels_are_listed(ctl: Ctl) -> None:
    channel = ctl.broker.connect(heartbeat=30).channel(3)
    channel.qos(7)
    channel.confirm()
    assert ctl.ok("list_connections") == (
        "user\tpeer_host\tpeer_port\tstate\nguest\t127.0.0.1\t40000\trunning\n"
    )
    assert ctl.ok("-s", "list_connections", "name", "vhost", "channels", "timeout", "auth_mechanism") == (
        "127.0.0.1:40000 -> 127.0.0.1:5672\t/\t1\t30\tPLAIN\n"
    )
    assert ctl.ok("-s", "list_channels", "name", "number", "confirm", "prefetch_count", "consumer_count") == (
        "127.0.0.1:40000 -> 127.0.0.1:5672 (3)\t3\ttrue\t7\t0\n"
    )


def test_consumers_are_listed(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("q")
    channel.qos(3)
    channel.consume("q", tag="t", arguments={"x-priority": 2})
    [row] = ctl.rows("list_consumers")
    [listed] = ctl.rows("list_channels", "pid")
    assert row == {
        "queue_name": "q", "channel_pid": listed["pid"], "consumer_tag": "t", "ack_required": True,
        "prefetch_count": 3, "active": True, "arguments": [["x-priority", "long", 2]],
    }  # fmt: skip


# operations


def test_a_connection_is_closed_by_its_pid_with_a_reason(ctl: Ctl) -> None:
    channel, other = ctl.broker.channel(), ctl.broker.channel()
    [pid, _] = ctl.ok("-s", "list_connections", "pid").split()
    ctl.ok("close_connection", pid, "go away")
    with pytest.raises(Refused, match="CONNECTION_FORCED - go away"):
        channel.check_open()
    other.check_open()


def test_connections_are_closed_by_vhost_and_by_user(ctl: Ctl) -> None:
    channels = [ctl.broker.channel() for _ in range(2)]
    assert ctl.ok("close_all_connections", "bye", "-p", "v") == "Closed 0 connections\n"
    assert ctl.ok("close_all_connections", "bye") == "Closed 2 connections\n"
    channels.append(ctl.broker.channel())
    ctl.ok("close_all_user_connections", "guest", "bye")
    for channel in channels:
        with pytest.raises(Refused, match="CONNECTION_FORCED - bye"):
            channel.check_open()


def test_queues_are_purged_and_deleted(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("q")
    channel.publish_all("q", b"a", b"b")
    assert ctl.refused("delete_queue", "q", "--if-empty") == (64, "Error:\nQueue is not empty")
    ctl.ok("purge_queue", "q")
    channel.publish("q", b"a")
    assert ctl.run("delete_queue", "q")[1].splitlines() == [
        "Deleting queue 'q' on vhost '/' ...", "Queue was successfully deleted with 1 ready messages",
    ]  # fmt: skip
    assert not channel.exists("q")


def test_a_stream_is_listed_with_what_it_holds_and_cannot_be_purged(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("s", durable=True, arguments={"x-queue-type": "stream"})
    channel.publish_all("s", b"abc", b"de")
    channel.qos(1)
    channel.consume("s", arguments={"x-stream-offset": "first"})
    columns = ("type", "messages", "messages_ready", "messages_unacknowledged", "message_bytes_ready")
    [row] = ctl.rows("list_queues", *columns)
    assert list(row.values()) == ["stream", 2, 2, 1, 5]
    why = "queue.purge not supported by stream queues queue 's' in vhost '/'"
    assert ctl.refused("purge_queue", "s") == (69, f"Error:\n{why}")


def test_a_queue_in_use_is_deleted_only_without_if_unused(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("q")
    channel.consume("q", tag="t")
    assert ctl.refused("delete_queue", "q", "--if-unused") == (64, "Error:\nQueue is in use")
    ctl.ok("delete_queue", "q")
    assert channel.names() == ["Basic.Cancel"]


def test_the_broker_can_be_pinged(ctl: Ctl) -> None:
    assert ctl.run("ping") == (0, "Will ping the broker.\nPing succeeded\n", "")


@pytest.mark.parametrize(
    "request_",
    [{}, {"verb": "nope"}, {"verb": "add_user"}, {"verb": "add_user", "arguments": [1, 2]},
     {"verb": "list_queues", "options": {"vhost": 1}}, {"verb": ["add_user"]}],
)  # fmt: skip
def test_a_malformed_request_is_refused(request_: dict[str, object]) -> None:
    assert answer(Broker().node, request_)["code"] == 64


# policies and limits


def test_policies_are_set_listed_shown_and_cleared(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("a")
    definition = '{"max-length":5,"message-ttl":100}'
    out = ctl.run("set_policy", "p", "^a", definition, "--priority", "3", "--apply-to", "queues")[1]
    assert (
        out == f'Setting policy "p" for pattern "^a" to "{definition}" with priority "3" for vhost "/" ...\n'
    )
    ctl.ok("set_operator_policy", "o", "^a", '{"max-length": 3}')
    header = "vhost\tname\tpattern\tapply-to\tdefinition\tpriority\n"
    assert ctl.ok("list_policies") == header + f"/\tp\t^a\tqueues\t{definition}\t3\n"
    assert ctl.ok("list_operator_policies") == header + '/\to\t^a\tall\t{"max-length":3}\t0\n'
    columns = ("policy", "operator_policy", "effective_policy_definition")
    assert ctl.ok("-s", "list_queues", *columns) == 'p\to\t{"max-length":3,"message-ttl":100}\n'
    ctl.ok("set_policy", "e", "^amq.fanout", '{"alternate-exchange":"x"}')
    assert ctl.rows("list_exchanges", "name", "policy")[0] == {"name": "", "policy": ""}
    assert {"name": "amq.fanout", "policy": "e"} in ctl.rows("list_exchanges", "name", "policy")
    for verb, name in (("clear_policy", "p"), ("clear_policy", "e"), ("clear_operator_policy", "o")):
        ctl.ok(verb, name)
    assert ctl.ok("list_policies") == ctl.ok("list_operator_policies") == ""
    assert ctl.ok("-s", "list_queues", *columns) == "\t\t\n"


def test_limits_are_set_listed_and_cleared(ctl: Ctl) -> None:
    ctl.ok("set_vhost_limits", '{"max-connections":3,"max-queues":-1}')
    assert ctl.run("list_vhost_limits")[1] == (
        'Listing limits for vhost "/" ...\n{"max-connections":3,"max-queues":-1}\n'
    )
    assert ctl.run("list_vhost_limits", "--global")[1] == (
        'Listing limits for all vhosts ...\nvhost\tlimits\n/\t{"max-connections":3,"max-queues":-1}\n'
    )
    ctl.ok("clear_vhost_limits")
    assert ctl.ok("list_vhost_limits") == "\n"
    ctl.ok("set_user_limits", "guest", '{"max-connections":3}')
    ctl.ok("set_user_limits", "guest", '{"max-channels":1}')
    assert ctl.run("list_user_limits", "--user", "guest")[1] == (
        'Listing limits for user "guest" ...\n{"max-connections":3,"max-channels":1}\n'
    )
    assert ctl.ok("-s", "list_user_limits", "--global") == 'guest\t{"max-connections":3,"max-channels":1}\n'
    out = ctl.run("clear_user_limits", "guest", "max-connections")[1]
    assert out == 'Clearing "max-connections" limit for user "guest" ...\n'
    assert ctl.ok("list_user_limits") == '{"max-channels":1}\n'
    assert ctl.run("clear_user_limits", "guest", "all")[1] == 'Clearing all limits for user "guest" ...\n'
    assert ctl.ok("list_user_limits") == "{}\n"


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (
            ["set_policy", "p", "^a", '{"max-length":-1}'], 69,
            "Error:\nValidation failed\n\n-1 is not a valid maximum length\n",
        ),
        (["set_policy", "p", "^a", "nojson"], 69, "Error:\nJSON decoding error. Reason: badarg"),
        (["set_policy", "-p", "v", "p", "^a", '{"max-length":1}'], 65, "Virtual host 'v' does not exist"),
        (["clear_policy", "p"], 69, "Error:\nParameter does not exist"),
        (["clear_operator_policy", "p"], 69, "Error:\nParameter does not exist"),
        (["list_policies", "-p", "v"], 65, "Virtual host 'v' does not exist"),
        (
            ["set_vhost_limits", '{"max-conns":3}'], 69,
            'Error:\nValidation failed\n\nUnrecognised terms [{<<"max-conns">>,3}] in limits\n',
        ),
        (
            ["set_vhost_limits", '{"max-connections":"x"}'], 69,
            'Error:\nValidation failed\n\nmax-connections should be a number, actually was <<"x">>\n',
        ),
        (["set_vhost_limits", "x"], 69, "Error:\nJSON decoding error. Reason: badarg"),
        (["clear_vhost_limits"], 69, "Error:\nParameter does not exist"),
        (
            ["set_user_limits", "guest", '{"foo":3}'], 69,
            'Error:\nUnrecognised terms [{<<"foo">>,3}] in user-limits',
        ),
        (
            ["set_user_limits", "guest", '{"max-connections":"x"}'], 69,
            'Error:\nmax-connections should be a number, actually was <<"x">>',
        ),
        (["set_user_limits", "nobody", "{}"], 69, 'Error:\n{:no_such_user, "nobody"}'),
        (["clear_user_limits", "nobody", "all"], 69, 'Error:\n{:no_such_user, "nobody"}'),
        (["list_user_limits", "--user", "nobody"], 69, 'Error:\n{:no_such_user, "nobody"}'),
    ],
)  # fmt: skip
def test_bad_policies_and_limits_are_refused(ctl: Ctl, line: list[str], code: int, text: str) -> None:
    assert ctl.refused(*line) == (code, text)


def test_a_priority_that_is_no_number_is_a_mistake(ctl: Ctl) -> None:
    code, text = ctl.refused("set_policy", "p", "^a", "{}", "--priority", "x")
    assert code == 64
    assert text.startswith("Error (argument validation): Invalid options for this command:\n--priority : x\n")
