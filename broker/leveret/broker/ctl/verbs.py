"""The verbs: how they are called, what they announce, which columns their tables have.

Words, texts and columns are rabbitmqctl's. What a verb does: see server/administration.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    `banner` and `done` are printed before and after; `{0}` stands for the first argument, `{vhost}` for an
    option.
    """

    name: str
    usage: str
    about: str
    banner: str = ""
    done: str = ""
    least: int = 0  # arguments
    most: int | None = 0
    has_vhost: bool = False
    values: tuple[str, ...] = ()  # options that take a value
    flags: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()  # that are shown unless others are asked for
    more_columns: tuple[str, ...] = ()
    arguments_are_columns: bool = False
    waits: bool = False  # until a broker answers


_QUEUE_COLUMNS: Final = (
    "name", "messages", "durable", "auto_delete", "arguments", "policy", "operator_policy",
    "effective_policy_definition", "pid", "owner_pid", "exclusive", "exclusive_consumer_pid",
    "exclusive_consumer_tag", "single_active_consumer_tag", "messages_ready", "messages_unacknowledged",
    "message_bytes_ready", "consumers", "state", "type",
)  # fmt: skip
_CONNECTION_COLUMNS: Final = (
    "pid", "name", "user_provided_name", "user", "vhost", "state", "channels", "protocol", "host", "port",
    "peer_host", "peer_port", "ssl", "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash",
    "peer_cert_subject", "peer_cert_issuer", "peer_cert_validity", "auth_mechanism", "timeout", "frame_max",
    "channel_max", "client_properties", "connected_at",
)  # fmt: skip
_CHANNEL_COLUMNS: Final = (
    "pid", "connection", "name", "number", "user", "vhost", "transactional", "confirm", "consumer_count",
    "messages_unacknowledged", "messages_uncommitted", "acks_uncommitted", "messages_unconfirmed",
    "prefetch_count", "global_prefetch_count",
)  # fmt: skip
_BINDING_COLUMNS: Final = (
    "source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments",
)  # fmt: skip
_CONSUMER_COLUMNS: Final = (
    "queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments",
)  # fmt: skip
_POLICY_COLUMNS: Final = ("vhost", "name", "pattern", "apply-to", "definition", "priority")
GROUPS: Final[dict[str, tuple[Verb, ...]]] = {
    "Users": (
        Verb(
            "add_user", "<username> [<password>]", "Creates a user; without a password, reads one",
            'Adding user "{0}" ...',
            "Done. Don't forget to grant the user permissions to some virtual hosts! See 'leveret ctl help"
            " set_permissions' to learn more.",
            least=1, most=2,
        ),
        Verb(
            "delete_user", "<username>", "Deletes a user, and closes its connections",
            'Deleting user "{0}" ...', least=1, most=1,
        ),
        Verb(
            "change_password", "<username> [<password>]", "Changes the password of a user",
            'Changing password for user "{0}" ...', least=1, most=2,
        ),
        Verb(
            "clear_password", "<username>", "Lets a user log in with no password any more",
            'Clearing password for user "{0}" ...', least=1, most=1,
        ),
        Verb(
            "authenticate_user", "<username> [<password>]", "Tells whether this is the password of a user",
            'Authenticating user "{0}" ...', "Success", least=1, most=2,
        ),
        Verb(
            "set_user_tags", "<username> [<tag> ...]", "Replaces the tags of a user",
            'Setting tags for user "{0}" to [{rest}] ...', least=1, most=None,
        ),
        Verb("list_users", "", "Lists users and their tags", "Listing users ...", columns=("user", "tags")),
    ),
    "Access control": (
        Verb(
            "set_permissions", "[-p <vhost>] <username> <configure> <write> <read>",
            "Grants a user access to a vhost",
            'Setting permissions for user "{0}" in vhost "{vhost}" ...', least=4, most=4, has_vhost=True,
        ),
        Verb(
            "clear_permissions", "[-p <vhost>] <username>", "Takes a user's access to a vhost away",
            'Clearing permissions for user "{0}" in vhost "{vhost}" ...', least=1, most=1, has_vhost=True,
        ),
        Verb(
            "list_permissions", "[-p <vhost>]", "Lists who has access to a vhost",
            'Listing permissions for vhost "{vhost}" ...', has_vhost=True,
            columns=("user", "configure", "write", "read"),
        ),
        Verb(
            "list_user_permissions", "<username>", "Lists the vhosts that a user has access to",
            'Listing permissions for user "{0}" ...', least=1, most=1,
            columns=("vhost", "configure", "write", "read"),
        ),
        Verb(
            "set_topic_permissions", "[-p <vhost>] <username> <exchange> <write> <read>",
            "Restricts a user's routing and binding keys at a topic exchange",
            'Setting topic permissions on "{1}" for user "{0}" in vhost "{vhost}" ...',
            least=4, most=4, has_vhost=True,
        ),
        Verb(
            "clear_topic_permissions", "[-p <vhost>] <username> [<exchange>]",
            "Lifts the restriction at an exchange, or at all of them",
            'Clearing topic permissions{on} for user "{0}" in vhost "{vhost}" ...',
            least=1, most=2, has_vhost=True,
        ),
        Verb(
            "list_topic_permissions", "[-p <vhost>]", "Lists topic permissions of a vhost",
            'Listing topic permissions for vhost "{vhost}" ...', has_vhost=True,
            columns=("user", "exchange", "write", "read"),
        ),
        Verb(
            "list_user_topic_permissions", "<username>", "Lists topic permissions of a user",
            'Listing topic permissions for user "{0}" ...', least=1, most=1,
            columns=("vhost", "exchange", "write", "read"),
        ),
    ),
    "Virtual hosts": (
        Verb(
            "add_vhost", "<vhost> [--description <text>] [--tags <tags>] [--default-queue-type <type>]",
            "Creates a vhost", 'Adding vhost "{0}" ...', least=1, most=1,
            values=("description", "tags", "default-queue-type"),
        ),
        Verb(
            "delete_vhost", "<vhost>", "Deletes a vhost with everything in it, and closes its connections",
            'Deleting vhost "{0}" ...', least=1, most=1,
        ),
        Verb(
            "set_vhost_tags", "<vhost> [<tag> ...]", "Replaces the tags of a vhost",
            'Setting tags for virtual host "{0}" to [{rest}] ...', least=1, most=None,
        ),
        Verb(
            "list_vhosts", "[<column> ...]", "Lists vhosts", "Listing vhosts ...", most=None,
            columns=("name",), more_columns=("description", "tags", "default_queue_type", "tracing"),
            arguments_are_columns=True,
        ),
    ),
    "Tracing": (
        Verb(
            "trace_on", "[-p <vhost>]",
            "Copies what is published and delivered in a vhost to its exchange amq.rabbitmq.trace",
            'Starting tracing for vhost "{vhost}" ...', has_vhost=True,
        ),
        Verb(
            "trace_off", "[-p <vhost>]", "Ends this; so does a restart",
            'Stopping tracing for vhost "{vhost}" ...', has_vhost=True,
        ),
    ),
    "Policies": (
        Verb(
            "set_policy",
            "[-p <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>",
            "Sets a policy",
            'Setting policy "{0}" for pattern "{1}" to "{2}" with priority "{priority}" for vhost'
            ' "{vhost}" ...',
            least=3, most=3, has_vhost=True, values=("priority", "apply-to"),
        ),
        Verb(
            "clear_policy", "[-p <vhost>] <name>", "Clears a policy",
            'Clearing policy "{0}" on vhost "{vhost}" ...', least=1, most=1, has_vhost=True,
        ),
        Verb(
            "list_policies", "[-p <vhost>]", "Lists policies", 'Listing policies for vhost "{vhost}" ...',
            has_vhost=True, columns=_POLICY_COLUMNS,
        ),
        Verb(
            "set_operator_policy",
            "[-p <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>",
            "Sets an operator policy, which limits what policies and arguments allow",
            'Setting operator policy override "{0}" for pattern "{1}" to "{2}" with priority "{priority}" for'
            ' vhost "{vhost}" ...',
            least=3, most=3, has_vhost=True, values=("priority", "apply-to"),
        ),
        Verb(
            "clear_operator_policy", "[-p <vhost>] <name>", "Clears an operator policy",
            'Clearing operator policy "{0}" on vhost "{vhost}" ...', least=1, most=1, has_vhost=True,
        ),
        Verb(
            "list_operator_policies", "[-p <vhost>]", "Lists operator policies",
            'Listing operator policy overrides for vhost "{vhost}" ...', has_vhost=True,
            columns=_POLICY_COLUMNS,
        ),
    ),
    "Parameters": (
        Verb(
            "set_parameter", "[-p <vhost>] <component> <name> <value>",
            "Sets a runtime parameter: vhost-limits or operator_policy",
            'Setting runtime parameter "{1}" for component "{0}" to "{2}" in vhost "{vhost}" ...',
            least=3, most=3, has_vhost=True,
        ),
        Verb(
            "clear_parameter", "[-p <vhost>] <component> <name>", "Clears a runtime parameter",
            'Clearing runtime parameter "{1}" for component "{0}" on vhost "{vhost}" ...',
            least=2, most=2, has_vhost=True,
        ),
        Verb(
            "list_parameters", "[-p <vhost>]", "Lists runtime parameters of a vhost",
            'Listing runtime parameters for vhost "{vhost}" ...', has_vhost=True,
            columns=("component", "name", "value"),
        ),
        Verb(
            "set_global_parameter", "<name> <value>", "Keeps a JSON value that belongs to no vhost",
            'Setting global runtime parameter "{0}" to "{1}" ...', least=2, most=2,
        ),
        Verb(
            "clear_global_parameter", "<name>", "Clears such a value",
            'Clearing global runtime parameter "{0}" ...', least=1, most=1,
        ),
        Verb(
            "list_global_parameters", "", "Lists these values", "Listing global runtime parameters ...",
            columns=("name", "value"),
        ),
    ),
    "Limits": (
        Verb(
            "set_vhost_limits", "[-p <vhost>] <definition>", "Sets the limits of a vhost",
            'Setting vhost limits to "{0}" for vhost "{vhost}" ...', least=1, most=1, has_vhost=True,
        ),
        Verb(
            "clear_vhost_limits", "[-p <vhost>]", "Clears the limits of a vhost",
            'Clearing vhost "{vhost}" limits ...', has_vhost=True,
        ),
        Verb(
            "list_vhost_limits", "[-p <vhost>] [--global]", "Shows the limits of a vhost, or of all",
            "Listing limits for {which} ...", has_vhost=True, flags=("global",),
        ),
        Verb(
            "set_user_limits", "<username> <definition>", "Sets the limits of a user",
            'Setting user limits to "{1}" for user "{0}" ...', least=2, most=2,
        ),
        Verb(
            "clear_user_limits", "<username> <limit>|all", "Clears a limit of a user, or all",
            'Clearing {limit} for user "{0}" ...', least=2, most=2,
        ),
        Verb(
            "list_user_limits", "[--user <username>] [--global]", "Shows the limits of a user, or of all",
            "Listing limits for {which} ...", values=("user",), flags=("global",),
        ),
    ),
    "What there is": (
        Verb(
            "list_queues", "[-p <vhost>] [<column> ...]", "Lists queues",
            "Timeout: 60.0 seconds ...\nListing queues for vhost {vhost} ...", most=None, has_vhost=True,
            flags=("online", "offline", "local"), columns=_QUEUE_COLUMNS[:2], more_columns=_QUEUE_COLUMNS[2:],
            arguments_are_columns=True,
        ),
        Verb(
            "list_exchanges", "[-p <vhost>] [<column> ...]", "Lists exchanges",
            "Listing exchanges for vhost {vhost} ...", most=None, has_vhost=True, columns=("name", "type"),
            more_columns=("durable", "auto_delete", "internal", "arguments", "policy"),
            arguments_are_columns=True,
        ),
        Verb(
            "list_bindings", "[-p <vhost>] [<column> ...]", "Lists bindings",
            "Listing bindings for vhost {vhost}...", most=None, has_vhost=True, columns=_BINDING_COLUMNS,
            arguments_are_columns=True,
        ),
        Verb(
            "list_connections", "[<column> ...]", "Lists connections", "Listing connections ...", most=None,
            columns=("user", "peer_host", "peer_port", "state"), more_columns=_CONNECTION_COLUMNS,
            arguments_are_columns=True,
        ),
        Verb(
            "list_channels", "[<column> ...]", "Lists channels", "Listing channels ...", most=None,
            columns=("pid", "user", "consumer_count", "messages_unacknowledged"),
            more_columns=_CHANNEL_COLUMNS, arguments_are_columns=True,
        ),
        Verb(
            "list_consumers", "[-p <vhost>] [<column> ...]", "Lists consumers",
            "Listing consumers in vhost {vhost} ...", most=None, has_vhost=True, columns=_CONSUMER_COLUMNS,
            arguments_are_columns=True,
        ),
    ),
    "Operations": (
        Verb(
            "close_connection", "<pid> <reason>", "Closes a connection, by its pid or its name",
            "Closing connection {0}, reason: {1}...", least=2, most=2,
        ),
        Verb(
            "close_all_connections", "[-p <vhost>] <reason>", "Closes the connections to a vhost, or all",
            "Closing all connections in vhost {vhost}, reason: {0}...", least=1, most=1, has_vhost=True,
            flags=("global",),
        ),
        Verb(
            "close_all_user_connections", "<username> <reason>", "Closes the connections of a user",
            "Closing connections of user {0}, reason: {1}...", least=2, most=2,
        ),
        Verb(
            "delete_queue", "[-p <vhost>] <queue> [--if-empty] [--if-unused]", "Deletes a queue",
            "Deleting queue '{0}' on vhost '{vhost}'{if} ...", least=1, most=1, has_vhost=True,
            flags=("if-empty", "if-unused"),
        ),
        Verb(
            "purge_queue", "[-p <vhost>] <queue>", "Drops the ready messages of a queue",
            "Purging queue '{0}' in vhost '{vhost}' ...", least=1, most=1, has_vhost=True,
        ),
    ),
    "The broker": (
        Verb("ping", "", "Tells whether the broker answers", "Will ping the broker.", "Ping succeeded"),
        Verb("await_startup", "", "Waits until the broker answers, 300 seconds at most", waits=True),
        Verb("wait", "[<pidfile>]", "The same; a pid file is not looked at", most=1, waits=True),
        Verb("status", "", "Shows process, data file, memory, alarms, totals and listeners"),
        Verb("cluster_status", "", "Shows the one node that there is"),
        Verb("environment", "", "Shows the settings in force, but for passwords"),
        Verb("server_version", "", "Shows the broker's version"),
        Verb("listeners", "", "Lists the addresses that the broker listens on"),
        Verb("alarms", "", "Lists alarms"),
        Verb(
            "set_vm_memory_high_watermark", "<fraction> | absolute <bytes>",
            "Changes beyond how much memory publishers wait, until the next start",
            "Setting memory threshold to {0} ...", least=1, most=2,
        ),
        Verb(
            "set_disk_free_limit", "<bytes> | mem_relative <fraction>",
            "Changes below how much free disk space publishers wait, until the next start",
            "Setting disk free limit to {0} ...", least=1, most=2,
        ),
        Verb("shutdown", "", "Stops the broker in order", "Shutting down the broker ..."),
        Verb(
            "stop", "[<pidfile>]", "The same; a pid file is not looked at", "Stopping the broker ...", most=1,
        ),
        Verb(
            "hash_password", "<password>", "Shows what is kept of a password",
            "Will hash the password ...", least=1, most=1,
        ),
    ),
    "Health checks": (
        Verb("is_running", "", "Tells whether the broker has started", "Asking for the broker's status ..."),
        Verb("is_booting", "", "Tells whether it is starting", "Asking for the broker's boot status ..."),
        Verb("check_running", "", "Fails if the broker does not answer", "Checking if it is running ..."),
        Verb(
            "check_local_alarms", "", "Fails if there is an alarm",
            "Asking the broker to report any local resource alarms ...",
        ),
        Verb("check_alarms", "", "The same", "Asking the broker to report any resource alarms ..."),
        Verb(
            "check_port_connectivity", "", "Fails if one of the listeners cannot be connected to",
            "Testing TCP connections to all active listeners ...",
        ),
        Verb(
            "check_port_listener", "<port>", "Fails if nothing listens on a port",
            "Asking the broker if there's an active listener on port {0} ...", least=1, most=1,
        ),
        Verb(
            "check_protocol_listener", "<protocol>", "Fails if nothing listens for a protocol",
            "Asking the broker if there's an active listener for protocol {0} ...", least=1, most=1,
        ),
        Verb("check_virtual_hosts", "", "Fails if a vhost is down", "Checking if all vhosts are running ..."),
        Verb(
            "list_unresponsive_queues", "[-p <vhost>]", "Lists queues that do not answer: none",
            "Listing unresponsive queues for vhost {vhost} ...", has_vhost=True,
        ),
    ),
}  # fmt: skip

VERBS: Final = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}
