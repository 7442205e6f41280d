"""Verbs about the broker itself: is it there, is it well, what listens. Texts are RabbitMQ's."""

from __future__ import annotations

import os
import platform
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from leveret.broker.access import hash_password
from leveret.broker.server.calls import EX_UNAVAILABLE, EX_USAGE, Answer, Call, Refusal
from leveret.broker.server.listings import open_sessions
from leveret.broker.server.resources import Resources, judge, machine_memory_bytes, resident_bytes
from leveret.broker.values import Size
from leveret.broker.version import is_compiled, version, way_of_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.server.node import Node

AMQP: Final = "amqp"
STOPS: Final = "stops"  # in an answer: the broker stops behind it
PURPOSE: Final = "AMQP 0-9-1"
LIMIT_BYTES: Final = Size(0, 1 << 60)
BAD_ARGUMENT: Final = "Error (argument validation): Bad argument"
SETTINGS_NOT_SHOWN: Final = ("default_password",)


def _nothing(_: Call) -> None:
    """Do nothing, and so tell that there is somebody who does."""


def _running(call: Call) -> Answer:
    return {"text": f"Leveret on node {call.node.name} is fully booted and running"}


def _is_booting(call: Call) -> Answer:
    text = "is fully booted (check with is_running), stopped or has not started booting yet"
    return {"text": f"Leveret on node {call.node.name} {text}"}


# -- alarms


def _alarms(call: Call) -> Answer:
    node = call.node
    if not node.alarms:
        return {"text": f"Node {node.name} reported no alarms, local or clusterwide"}
    return {"text": "\n".join(_alarm_lines(node))}


def _check_alarms(which: str) -> Callable[[Call], Answer]:
    def check(call: Call) -> Answer:
        node = call.node
        if node.alarms:
            told = "\n".join(_alarm_lines(node))
            raise Refusal(f"Error:\nNode {node.name} reported alarms:\n{told}", EX_UNAVAILABLE)
        return {"text": f"Node {node.name} reported no {which}"}

    return check


def _alarm_lines(node: Node) -> list[str]:
    words = {"memory": "Memory", "disk": "Free disk space"}
    return [f"{words.get(alarm, alarm)} alarm on node {node.name}" for alarm in node.alarms]


# -- listeners


def _listeners(call: Call) -> Answer:
    return {"text": "\n".join(_listener_lines(call.node))}


def _listener_lines(node: Node) -> list[str]:
    return [
        f"Interface: {_bracketed(host)}, port: {port}, protocol: {AMQP}, purpose: {PURPOSE}"
        for host, port in node.listeners
    ]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_port_listener(call: Call) -> Answer:
    node = call.node
    ports = list(dict.fromkeys(str(port) for _, port in node.listeners))
    if call[0] in ports:
        return {"text": f"A listener for port {call[0]} is running on node {node.name}."}
    raise Refusal(
        f"No listener for port {call[0]} is active on node {node.name}."
        f" Found listeners that use the following ports: {', '.join(ports)}",
        EX_UNAVAILABLE,
    )


def _check_protocol_listener(call: Call) -> Answer:
    node = call.node
    if call[0].lower() in (AMQP, "amqp091", "amqp0.9.1", "amqp0-9-1") and node.listeners:
        return {"text": f"A listener for protocol {call[0]} is running on node {node.name}."}
    raise Refusal(
        f"Error:\nNo listener for protocol {call[0]} is active on node {node.name}."
        f" Found listeners for the following protocols: {AMQP if node.listeners else ''}",
        EX_UNAVAILABLE,
    )


def _check_port_connectivity(call: Call) -> Answer:
    """Tell the command where to connect to: it tries."""
    node = call.node
    ports = ", ".join(dict.fromkeys(str(port) for _, port in node.listeners))
    text = f"Successfully connected to ports {ports} on node {node.name}."
    return {"connect": node.listeners, "text": text}


# -- limits, for as long as the broker runs


def _set_vm_memory_high_watermark(call: Call) -> None:
    if call[0] == "absolute":
        limit = _bytes(call[1])
    else:
        share = _number(call[0])
        if not 0 <= share <= 1:
            raise Refusal(f"{BAD_ARGUMENT}: The threshold should be a fraction between 0.0 and 1.0", EX_USAGE)
        limit = int(share * machine_memory_bytes())
    node = call.node
    node.limits = replace(node.limits, memory_used=max(1, limit))  # 0 would mean no limit
    judge(node, node.limits, Resources(None, resident_bytes()))


def _set_disk_free_limit(call: Call) -> None:
    if call[0] == "mem_relative":
        share = _number(call[1])
        if not 0 <= share < float("inf"):
            raise Refusal(f"{BAD_ARGUMENT}.", EX_USAGE)
        limit = int(share * machine_memory_bytes())
    else:
        limit = _bytes(call[0])
    if not call.node.settings.memory:
        call.node.limits = replace(call.node.limits, disk_free=limit)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refusal(f"{BAD_ARGUMENT}.", EX_USAGE) from None


def _bytes(text: str) -> int:
    try:
        return LIMIT_BYTES.parse(text)
    except ValueError:
        raise Refusal(f"{BAD_ARGUMENT}.", EX_USAGE) from None


# -- vhosts


def _check_virtual_hosts(call: Call) -> Answer:
    return {"text": f"Node {call.node.name} reported all vhosts as running"}


# -- all about it


def status(node: Node) -> dict[str, Any]:
    """Return what there is to say about a broker, under the names that rabbitmqctl's JSON has."""
    settings = node.settings
    return {
        "pid": os.getpid(),
        "os": platform.system(),
        "uptime": (node.clock_ms() - node.started_at_ms) // 1000,
        "is_under_maintenance": False,
        "product_name": "Leveret",
        "product_version": version(),
        "rabbitmq_version": settings.advertised_version,
        "erlang_version": way_of_running(is_compiled()),
        "data_directory": "" if settings.memory else str(settings.data.absolute()),
        "alarms": list(node.alarms),
        "memory": {"total": {"rss": resident_bytes() or 0}},
        "vm_memory_high_watermark_limit": node.limits.memory_used,
        "disk_free_limit": node.limits.disk_free,
        "listeners": [
            {"interface": host, "node": node.name, "port": port, "protocol": AMQP, "purpose": PURPOSE}
            for host, port in node.listeners
        ],
        "totals": {
            "virtual_host_count": len(node.vhosts),
            "connection_count": len(open_sessions(node)),
            "queue_count": sum(len(vhost.queues) for vhost in node.vhosts.values()),
        },
    }


def _status(call: Call) -> Answer:
    node = call.node
    known = status(node)
    totals = known["totals"]
    lines = [
        "Runtime\n",
        f"OS PID: {known['pid']}",
        f"OS: {known['os']}",
        f"Uptime (seconds): {known['uptime']}",
        "Is under maintenance?: false",
        f"Leveret version: {version()}",
        f"RabbitMQ version: {known['rabbitmq_version']} (as told to clients)",
        f"Node name: {node.name}",
        f"Runtime: {known['erlang_version']}",
        "\nData file\n",
        known["data_directory"] or "(in memory only)",
        "\nAlarms\n",
        *(_alarm_lines(node) or ["(none)"]),
        "\nMemory\n",
        f"Total memory used: {known['memory']['total']['rss'] / 1e9:.4f} gb",
        f"Memory high watermark: {known['vm_memory_high_watermark_limit'] / 1e9:.4f} gb",
        "\nFree Disk Space\n",
        f"Low free disk space watermark: {known['disk_free_limit'] / 1e9:.4f} gb",
        "\nTotals\n",
        f"Connection count: {totals['connection_count']}",
        f"Queue count: {totals['queue_count']}",
        f"Virtual host count: {totals['virtual_host_count']}",
        "\nListeners\n",
        *_listener_lines(node),
    ]
    return {"text": "\n".join(lines), "json": known}


def _cluster_status(call: Call) -> Answer:
    name = call.node.name
    lines = [
        f"Basics\n\nCluster name: {name}",
        f"Disk Nodes\n\n{name}",
        f"Running Nodes\n\n{name}",
        f"Versions\n\n{name}: Leveret {version()} on Python {platform.python_version()}",
        f"Maintenance status\n\nNode: {name}, status: not under maintenance",
        "Alarms\n\n" + ("\n".join(_alarm_lines(call.node)) or "(none)"),
        "Network Partitions\n\n(none)",
        "Listeners\n\n"
        + "\n".join(f"Node: {name}, {line[0].lower()}{line[1:]}" for line in _listener_lines(call.node)),
    ]
    known = {"cluster_name": name, "disk_nodes": [name], "running_nodes": [name], "partitions": {}}
    return {"text": "\n\n".join(lines), "json": known}


def _environment(call: Call) -> Answer:
    """Show the settings that are in force, but for secrets."""
    settings = call.node.settings
    known = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in SETTINGS_NOT_SHOWN
    }
    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in known.items()
    }
    return {"text": "\n".join(f"{name} = {value}" for name, value in plain.items()), "json": plain}


def _server_version(call: Call) -> Answer:
    return {"text": version()}


def _hash_password(call: Call) -> Answer:
    if not call[0]:
        raise Refusal("Error (argument validation): Password cannot be an empty string.", EX_USAGE)
    return {"text": hash_password(call[0], call.node.authority.salt())}


def _shutdown(_: Call) -> Answer:
    """Have the broker stopped in order, once this answer has gone out."""
    return {STOPS: True}


NODE_VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
    "ping": _nothing,
    "await_startup": _nothing,
    "wait": _nothing,
    "status": _status,
    "cluster_status": _cluster_status,
    "environment": _environment,
    "server_version": _server_version,
    "listeners": _listeners,
    "alarms": _alarms,
    "is_running": _running,
    "is_booting": _is_booting,
    "check_running": _running,
    "check_local_alarms": _check_alarms("local alarms"),
    "check_alarms": _check_alarms("alarms, local or clusterwide"),
    "check_port_connectivity": _check_port_connectivity,
    "check_port_listener": _check_port_listener,
    "check_protocol_listener": _check_protocol_listener,
    "check_virtual_hosts": _check_virtual_hosts,
    "hash_password": _hash_password,
    "list_unresponsive_queues": _nothing,
    "set_vm_memory_high_watermark": _set_vm_memory_high_watermark,
    "set_disk_free_limit": _set_disk_free_limit,
    "shutdown": _shutdown,
    "stop": _shutdown,
}
