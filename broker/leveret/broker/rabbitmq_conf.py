"""Reads a `rabbitmq.conf`, so that an existing one works.

Lines are `key = value`, `#` begins a comment, a value may stand in single quotes, the last of equal keys
wins. Keys that RabbitMQ has and Leveret does not are reported and ignored; keys that nobody knows are
refused.

Source: RabbitMQ guide "Configuration", section "The New and Old Config File Formats".
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

from leveret.broker.values import Boolean, Choice, Kind, Milliseconds, Seconds

_LEVELS: Final = Choice(
    ("debug", "info", "warning", "error"),
    (
        ("notice", "info"),
        ("critical", "error"),
        ("alert", "error"),
        ("emergency", "error"),
        ("none", "error"),
    ),
)

# key -> (field of Settings, kind of value where it differs from the field's own)
KEYS: Final[dict[str, tuple[str, Kind[object] | None]]] = {
    "heartbeat": ("heartbeat_s", None),
    "frame_max": ("frame_max", None),
    "channel_max": ("channel_max", None),
    "max_message_size": ("max_message_bytes", None),
    "handshake_timeout": ("handshake_timeout_s", Milliseconds(Seconds(0.1, 3600))),
    "consumer_max_per_channel": ("consumers_per_channel", None),
    "consumer_timeout": ("consumer_timeout_s", Milliseconds(Seconds(0, 315_360_000, zero="0: none"))),
    "default_user": ("default_user", None),
    "default_pass": ("default_password", None),
    "default_vhost": ("default_vhost", None),
    "disk_free_limit.absolute": ("disk_free_bytes", None),
    "vm_memory_high_watermark.absolute": ("memory_high_watermark", None),
    "vm_memory_high_watermark.relative": ("memory_high_watermark", None),
    "default_permissions.configure": ("default_configure", None),
    "default_permissions.write": ("default_write", None),
    "default_permissions.read": ("default_read", None),
    "log.console.formatter": ("log_format", None),
    "log.default.level": ("log_level", _LEVELS),
    "log.console.level": ("log_level", _LEVELS),
    "log.exchange": ("log_exchange", None),
    "log.exchange.level": ("log_exchange_level", _LEVELS),
}
# Keys that `parse` itself reads -> field of Settings
OTHER_KEYS: Final = {
    "listeners.tcp.default": "port",
    "listeners.tcp.1": "port",
    "loopback_users": "loopback_users",
    "loopback_users.guest": "loopback_users",
    "default_user_tags.TAG": "default_user_tags",
    "default_users.NAME.password": "default_users",
    "default_users.NAME.tags": "default_users",
    "default_users.NAME.vhost_pattern": "default_users",
    "default_users.NAME.configure": "default_users",
    "default_users.NAME.write": "default_users",
    "default_users.NAME.read": "default_users",
    "default_policies.operator.NAME.KEY": "default_operator_policies",
    "default_limits.vhosts.NAME.KEY": "default_vhost_limits",
}
# First parts of keys that make tables, as `default_users.NAME.KEY` -> field of Settings
TABLES: Final = {
    "default_users.": "default_users",
    "default_policies.operator.": "default_operator_policies",
    "default_limits.vhosts.": "default_vhost_limits",
}

# First parts of keys that RabbitMQ or one of its plugins has and Leveret does not use (yet).
_FOREIGN_TEXT: Final = """
advertised_ amqp1_0 anonymous_login_ auth_ auto_delete_ background_gc_ channel_max_per_node
channel_operation_timeout channel_tick_interval classic_queue cluster_ collect_statistics
connection_max credential_validator credit_flow default_consumer_prefetch default_queue_type definitions
delegate_count deprecated_features dead_letter_worker disk_free_limit distribution erlang
feature_flags federation heartbeat_ hipe_ kernel listeners.ssl load_definitions log log. management
max_connections memory_monitor message_interceptors message_store metadata_store mirroring_ mnesia_
motd_ mqtt msg_store net_ticktime node_tags num_acceptors password_hashing_module peer product
prometheus proxy_protocol queue_ quorum_ raft ranch_ reverse_dns_lookups session_ shovel socket_writer
ssl_ statistics stomp stream sysmon tcp_listen_options total_memory tracing track_auth_ trust_store
user_limits vhost_ vm_memory web_mqtt web_stomp
"""
_FOREIGN: Final = tuple(_FOREIGN_TEXT.split())


class ConfError(Exception):
    """The file cannot be used; the text is the rest of a line that begins with the file's name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that is used."""

    key: str
    name: str  # field of Settings
    value: object
    kind: Kind[object] | None  # None: the field's own


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says."""

    entries: tuple[Entry, ...]
    ignored: tuple[str, ...]  # keys of RabbitMQ that have no effect here


def parse(text: str) -> Contents:
    """Read the text of a rabbitmq.conf.

    Raises:
        ConfError: a line is malformed, a key is unknown, or it asks for listeners that there cannot be.
    """
    values = _lines(text)
    entries: list[Entry] = []
    ignored: list[str] = []
    listeners: list[str] = []
    loopback = {"guest": True}
    tags = {"administrator": True}
    tables: dict[str, dict[str, dict[str, str]]] = {}  # field of Settings -> name -> key -> value
    for key, value in values.items():
        if key in KEYS:
            entries.append(Entry(key, KEYS[key][0], value, KEYS[key][1]))
        elif key == "listeners.tcp" or key.startswith("listeners.tcp."):
            listeners.append(key)
        elif key == "loopback_users" and value == "none":
            loopback.clear()
        elif key.startswith("loopback_users."):
            loopback[key.removeprefix("loopback_users.")] = _boolean(key, value)
        elif key.startswith("default_user_tags."):
            tags[key.removeprefix("default_user_tags.")] = _boolean(key, value)
        elif part := next((part for part in TABLES if key.startswith(part)), ""):
            name, _, rest = key.removeprefix(part).partition(".")
            if "." in rest:  # of mirrored queues
                ignored.append(key)
            else:
                tables.setdefault(TABLES[part], {}).setdefault(name, {})[rest] = value
        elif key.startswith(_FOREIGN):
            ignored.append(key)
        else:
            best = difflib.get_close_matches(key, [*KEYS, *OTHER_KEYS], n=1, cutoff=0.0)[0]
            raise ConfError(f"unknown key {key!r}; the nearest known one is {best!r}")
    if any(key.startswith("loopback_users") for key in values):
        users = tuple(user for user, is_loopback in loopback.items() if is_loopback)
        entries.append(Entry("loopback_users", "loopback_users", users, None))
    if any(key.startswith("default_user_tags.") for key in values):
        given = tuple(tag for tag, is_given in tags.items() if is_given)
        entries.append(Entry("default_user_tags", "default_user_tags", given, None))
    entries += [Entry(name, name, table, None) for name, table in tables.items()]
    if listeners:
        entries += _listener(listeners, values)
    return Contents(tuple(entries), tuple(ignored))


def _lines(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = re.fullmatch(
            r"([A-Za-z0-9_.\-/$@]+)\s*=\s*(?:'([^']*)'\s*(?:#.*)?|(.*?)\s*(?:\s#.*)?)", stripped
        )
        if match is None:
            raise ConfError(f"line {number}: expected key = value")
        values[match[1]] = match[3] if match[2] is None else match[2]
    return values


def _listener(keys: list[str], values: dict[str, str]) -> list[Entry]:
    key = keys[-1]
    value = values[key]
    if len(keys) > 1:
        raise ConfError(f"{key}: Leveret listens on one address; keep one listener (:: is every address)")
    if value == "none":
        raise ConfError(f"{key}: 'none' is not allowed; Leveret needs its TCP listener")
    host, _, port = value.rpartition(":")
    entries = [Entry(key, "port", port, None)]
    if host:
        entries.append(Entry(key, "host", host.removeprefix("[").removesuffix("]"), None))
    return entries


def _boolean(key: str, value: str) -> bool:
    kind = Boolean()
    try:
        return kind.parse(value)
    except ValueError:
        raise ConfError(f"{key}: {value!r} is not allowed; give {kind.allowed}") from None
