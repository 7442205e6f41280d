"""Verbs about parameters and about the broker itself. Texts are those of RabbitMQ 3.10's tools."""

from __future__ import annotations

import base64
import json
import socket

import pytest

from leveret.broker.access import User, password_matches
from leveret.broker.server.node_verbs import STOPS
from leveret.broker.server.resources import machine_memory_bytes

from .test_ctl import Ctl


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(capsys)


# parameters


def test_parameters_are_set_listed_and_cleared(ctl: Ctl) -> None:
    limits = '{"max-queues": 500}'
    code, out, _ = ctl.run("set_parameter", "vhost-limits", "limits", limits)
    banner = (
        f'Setting runtime parameter "limits" for component "vhost-limits" to "{limits}" in vhost "/" ...\n'
    )
    assert (code, out) == (0, banner)
    listed = 'component\tname\tvalue\nvhost-limits\tlimits\t{"max-queues":500}\n'
    assert ctl.run("list_parameters")[1] == f'Listing runtime parameters for vhost "/" ...\n{listed}'
    ctl.ok("clear_parameter", "vhost-limits", "limits")
    assert ctl.refused("clear_parameter", "vhost-limits", "limits") == (
        69,
        "Error:\nParameter does not exist",
    )


def test_an_operator_policy_is_a_parameter(ctl: Ctl) -> None:
    ctl.ok("set_parameter", "operator_policy", "o", '{"pattern":"^q","definition":{"max-length":5}}')
    assert ctl.rows("list_operator_policies")[0]["definition"] == '{"max-length":5}'
    assert ctl.rows("list_parameters")[0]["component"] == "operator_policy"
    ctl.ok("clear_parameter", "operator_policy", "o")
    assert ctl.rows("list_operator_policies") == []


def test_unknown_components_and_policies_are_refused(ctl: Ctl) -> None:
    told = "Error:\nValidation failed\n\ncomponent nope not found\n"
    assert ctl.refused("set_parameter", "nope", "n", "{}") == (69, told)
    told = "Error:\npolicies may not be set using this method"
    assert ctl.refused("set_parameter", "policy", "p", "{}") == (69, told)
    told = "Error:\nJSON decoding error. Reason: badarg"
    assert ctl.refused("set_parameter", "vhost-limits", "limits", "x") == (69, told)


def test_global_parameters_survive_a_restart(ctl: Ctl) -> None:
    ctl.ok("set_global_parameter", "a", '{"b": [1, null]}')
    ctl.broker.restart()
    assert ctl.ok("list_global_parameters") == 'name\tvalue\na\t{"b":[1,null]}\n'
    ctl.ok("clear_global_parameter", "a")
    assert ctl.refused("clear_global_parameter", "a") == (69, "Error:\nParameter does not exist")
    ctl.broker.restart()
    assert ctl.rows("list_global_parameters") == []


# health checks


def test_a_broker_that_answers_is_running(ctl: Ctl) -> None:
    name = ctl.broker.node.name
    told = f"Leveret on node {name} is fully booted and running\n"
    assert (ctl.ok("check_running"), ctl.ok("is_running")) == (told, told)
    assert "is fully booted (check with is_running)" in ctl.ok("is_booting")
    assert ctl.run("await_startup") == (0, "", "")
    assert ctl.run("wait", "a.pid") == (0, "", "")


def test_alarms_fail_the_checks(ctl: Ctl) -> None:
    name = ctl.broker.node.name
    assert ctl.ok("check_local_alarms") == f"Node {name} reported no local alarms\n"
    assert ctl.ok("check_alarms") == f"Node {name} reported no alarms, local or clusterwide\n"
    ctl.broker.node.set_alarm("disk", True)
    told = f"Error:\nNode {name} reported alarms:\nFree disk space alarm on node {name}"
    assert ctl.refused("check_alarms") == (69, told)
    assert ctl.ok("alarms") == f"Free disk space alarm on node {name}\n"


def test_listeners_are_listed_and_checked(ctl: Ctl) -> None:
    ctl.broker.node.listeners = [("127.0.0.1", 5672), ("::1", 5672)]
    name = ctl.broker.node.name
    assert ctl.ok("listeners").splitlines()[1] == (
        "Interface: [::1], port: 5672, protocol: amqp, purpose: AMQP 0-9-1"
    )
    assert ctl.ok("check_port_listener", "5672") == f"A listener for port 5672 is running on node {name}.\n"
    assert ctl.refused("check_port_listener", "1") == (
        69,
        f"No listener for port 1 is active on node {name}."
        " Found listeners that use the following ports: 5672",
    )
    assert ctl.ok("check_protocol_listener", "amqp").startswith("A listener for protocol amqp is running")
    assert ctl.refused("check_protocol_listener", "mqtt")[0] == 69


def test_ports_are_connected_to(ctl: Ctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ctl.broker.node.listeners = [("127.0.0.1", port)]
        told = f"Successfully connected to ports {port} on node {ctl.broker.node.name}.\n"
        assert ctl.ok("check_port_connectivity") == told
    code, error = ctl.refused("check_port_connectivity")
    assert (code, error.startswith(f"Error:\nConnection to port {port} failed")) == (69, True)


def test_vhosts_and_queues_are_well(ctl: Ctl) -> None:
    told = f"Node {ctl.broker.node.name} reported all vhosts as running\n"
    assert ctl.ok("check_virtual_hosts") == told
    assert ctl.run("list_unresponsive_queues") == (0, "Listing unresponsive queues for vhost / ...\n", "")


# the broker


def test_the_status_is_told_as_text_and_as_json(ctl: Ctl) -> None:
    ctl.broker.channel().declare("q")
    text = ctl.ok("status")
    assert "Queue count: 1" in text
    assert "Connection count: 1" in text
    known = json.loads(ctl.ok("status", "--formatter", "json"))
    assert known["totals"] == {"virtual_host_count": 1, "connection_count": 1, "queue_count": 1}
    assert known["product_name"] == "Leveret"


def test_the_cluster_is_one_node(ctl: Ctl) -> None:
    name = ctl.broker.node.name
    assert f"Running Nodes\n\n{name}\n" in ctl.ok("cluster_status")
    assert json.loads(ctl.ok("cluster_status", "--formatter", "json"))["running_nodes"] == [name]


def test_the_environment_shows_settings_but_no_passwords(ctl: Ctl) -> None:
    known = json.loads(ctl.ok("environment", "--formatter", "json"))
    assert known["default_user"] == "guest"
    assert "default_password" not in known


def test_a_password_can_be_hashed(ctl: Ctl) -> None:
    kept = ctl.ok("hash_password", "secret").strip()
    assert len(base64.b64decode(kept)) == 36
    assert password_matches(User("u", kept), "secret")


@pytest.mark.parametrize("verb", ["shutdown", "stop"])
def test_a_broker_is_stopped_behind_its_answer(ctl: Ctl, verb: str) -> None:
    assert ctl.ask({"verb": verb}) == {STOPS: True}


# limits


def test_the_memory_limit_is_changed_while_the_broker_runs(ctl: Ctl) -> None:
    assert ctl.run("set_vm_memory_high_watermark", "0.5")[:2] == (0, "Setting memory threshold to 0.5 ...\n")
    half = ctl.broker.node.limits.memory_used
    ctl.ok("set_vm_memory_high_watermark", "0.25")
    assert ctl.broker.node.limits.memory_used == pytest.approx(half / 2, abs=1)
    ctl.ok("set_vm_memory_high_watermark", "absolute", "512MiB")
    assert ctl.broker.node.limits.memory_used == 512 << 20


def test_a_memory_limit_of_nothing_has_publishers_wait(ctl: Ctl) -> None:
    ctl.ok("set_vm_memory_high_watermark", "0")
    assert list(ctl.broker.node.alarms) == ["memory"]
    ctl.ok("set_vm_memory_high_watermark", "1.0")
    assert not ctl.broker.node.alarms


def test_the_disk_limit_is_changed_while_the_broker_runs(ctl: Ctl) -> None:
    ctl.ok("set_disk_free_limit", "2GiB")
    assert ctl.broker.node.limits.disk_free == 2 << 30
    ctl.ok("set_disk_free_limit", "mem_relative", "1.0")
    assert ctl.broker.node.limits.disk_free == machine_memory_bytes()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("set_vm_memory_high_watermark", "abc"), "Bad argument."),
        (
            ("set_vm_memory_high_watermark", "1.5"),
            "Bad argument: The threshold should be a fraction between 0.0 and 1.0",
        ),
        (("set_vm_memory_high_watermark", "absolute", "abc"), "Bad argument."),
        (("set_vm_memory_high_watermark", "absolute"), "not enough arguments."),
        (("set_disk_free_limit", "abc"), "Bad argument."),
        (("set_disk_free_limit", "mem_relative", "nan"), "Bad argument."),
    ],
)
def test_limits_that_are_none_are_refused(ctl: Ctl, line: tuple[str, ...], told: str) -> None:
    assert ctl.refused(*line) == (64, f"Error (argument validation): {told}")
