"""The settings: what each one is, its default, and where its value comes from.

A value is taken from the first place that has one:

    command line > environment (LEVERET_*, RABBITMQ_*) > leveret.toml > rabbitmq.conf > default

Every default is in `Settings` and nowhere else. A name that is not known is refused with one line that tells
the nearest known one, because a setting that is silently ignored is found out much later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

from leveret.broker.defaults import (
    DefaultLimits,
    DefaultOperatorPolicies,
    DefaultOperatorPolicy,
    DefaultUser,
    DefaultUsers,
    DefaultVHostLimits,
    Pattern,
)
from leveret.broker.values import (
    GIB,
    KIB,
    MIB,
    Boolean,
    Choice,
    FilePath,
    Integer,
    Kind,
    Names,
    Seconds,
    Size,
    SizeOrShare,
    Text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EX_USAGE: Final = 64  # the command line is wrong
EX_CONFIG: Final = 78  # a file or the environment is wrong
DEFAULT_FILE: Final = "leveret.toml"


class ConfigError(Exception):
    """A setting cannot be used; the text is one line for the user."""

    def __init__(self, text: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about a setting beside its default."""

    key: str  # in leveret.toml, with its section: "amqp.heartbeat_s"
    kind: Kind[object]
    about: str
    rabbitmq_variable: str = ""  # RABBITMQ_* name that means the same
    has_file_variable: bool = (
        False  # the same variables with _FILE at the end name a file that holds the value
    )

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return "LEVERET_" + self.key.upper().replace(".", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a broker, checked."""

    host: Annotated[
        str,
        Setting(
            "host",
            Text("a host name or an address"),
            "Address to listen on: `0.0.0.0` for every IPv4 address, `::` for every address.",
            rabbitmq_variable="RABBITMQ_NODE_IP_ADDRESS",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Setting(
            "port",
            Integer(0, 65535, zero="0: any free port"),
            "Port for AMQP. The port that 0 picked is printed.",
            rabbitmq_variable="RABBITMQ_NODE_PORT",
        ),
    ] = 5672
    data: Annotated[
        Path, Setting("data", FilePath(), "File that holds everything durable; created if there is none.")
    ] = Path("leveret.db")
    memory: Annotated[
        bool, Setting("memory", Boolean(), "Keep everything in memory and nothing on disk.")
    ] = False

    control_socket: Annotated[
        str,
        Setting(
            "control_socket",
            Text("a path, auto or none"),
            "Socket by which `leveret ctl` reaches the broker. With `auto` it is beside the data file:"
            " `leveret.db.sock`.",
        ),
    ] = "auto"

    log_format: Annotated[
        str,
        Setting(
            "log.format",
            Choice(("console", "json"), (("plaintext", "console"),)),
            "Log lines for people, or one JSON object a line.",
        ),
    ] = "console"
    log_level: Annotated[
        str,
        Setting(
            "log.level",
            Choice(("debug", "info", "warning", "error")),
            "The least important events that are logged. With debug, unexpected errors show their traceback.",
        ),
    ] = "info"

    log_exchange: Annotated[
        bool,
        Setting(
            "log.exchange",
            Boolean(),
            "Publish log lines to the exchange `amq.rabbitmq.log` of the default vhost, too; the routing key"
            " is the level.",
        ),
    ] = False
    log_exchange_level: Annotated[
        str,
        Setting(
            "log.exchange_level",
            Choice(("debug", "info", "warning", "error")),
            "The least important events that are published there.",
        ),
    ] = "info"

    heartbeat_s: Annotated[
        int,
        Setting(
            "amqp.heartbeat_s",
            Integer(0, 65535, zero="0: none"),
            "Heartbeat interval that clients are offered.",
        ),
    ] = 60
    frame_max: Annotated[
        int,
        Setting("amqp.frame_max", Size(4 * KIB, 16 * MIB), "Largest frame that clients are offered."),
    ] = 128 * KIB
    channel_max: Annotated[
        int, Setting("amqp.channel_max", Integer(1, 65535), "Open channels that a connection can have.")
    ] = 2047
    max_message_bytes: Annotated[
        int,
        Setting(
            "amqp.max_message_bytes",
            Size(1, 512 * MIB),
            "Largest message body. A larger one closes the channel with 406.",
        ),
    ] = 16 * MIB
    handshake_timeout_s: Annotated[
        float,
        Setting(
            "amqp.handshake_timeout_s",
            Seconds(0.1, 3600),
            "Time from a TCP connection to its opened vhost, after which a silent peer is dropped.",
        ),
    ] = 10.0
    consumers_per_channel: Annotated[
        int,
        Setting("amqp.consumers_per_channel", Integer(1, 10**6), "Consumers that a channel can have."),
    ] = 10_000
    consumer_timeout_s: Annotated[
        float,
        Setting(
            "amqp.consumer_timeout_s",
            Seconds(0, 315_360_000, zero="0: none"),
            "Time for which a delivery may stay unacked; then its channel is closed with 406. RabbitMQ has"
            " 1800. Queues and consumers may have their own.",
        ),
    ] = 0.0
    nacks_count: Annotated[
        bool,
        Setting(
            "amqp.nacks_count",
            Boolean(),
            "Whether `basic.nack` counts towards the delivery limit of a queue, as in RabbitMQ before 4.3.",
        ),
    ] = True
    expires_at_head_only: Annotated[
        bool,
        Setting(
            "amqp.expires_at_head_only",
            Boolean(),
            "Whether a message whose TTL is over waits, and counts as ready, until it is the first of its"
            " queue, as in RabbitMQ.",
        ),
    ] = False
    trusts_x_death: Annotated[
        bool,
        Setting(
            "amqp.trusts_x_death",
            Boolean(),
            "Whether an `x-death` header that a client publishes is the history of the message, as in"
            " RabbitMQ before 4.0. Clients that republish what they received may count on it; any client can"
            " then forge one.",
        ),
    ] = False
    advertised_version: Annotated[
        str,
        Setting(
            "amqp.advertised_version",
            Text("three numbers joined by dots, as 3.13.7", r"[0-9]{1,4}(\.[0-9]{1,4}){2}"),
            "RabbitMQ version told to clients. Celery's ETA tasks need 3.3 to 3.13.",
        ),
    ] = "3.13.7"

    default_user: Annotated[
        str,
        Setting(
            "auth.default_user",
            Text(),
            "User that a new data file begins with: an administrator with all permissions in its vhost.",
            rabbitmq_variable="RABBITMQ_DEFAULT_USER",
            has_file_variable=True,
        ),
    ] = "guest"
    default_password: Annotated[
        str,
        Setting(
            "auth.default_password",
            Text(),
            "Its password. Later changes are made with `leveret ctl change_password`.",
            rabbitmq_variable="RABBITMQ_DEFAULT_PASS",
            has_file_variable=True,
        ),
    ] = field(default="guest", repr=False)
    default_vhost: Annotated[
        str,
        Setting(
            "auth.default_vhost",
            Text(),
            "Vhost that a new data file begins with.",
            rabbitmq_variable="RABBITMQ_DEFAULT_VHOST",
        ),
    ] = "/"
    default_user_tags: Annotated[
        tuple[str, ...],
        Setting("auth.default_user_tags", Names(), "Its tags. Without `administrator` nobody is one."),
    ] = ("administrator",)
    default_configure: Annotated[
        str, Setting("auth.default_configure", Pattern(), "What it may configure in its vhost.")
    ] = ".*"
    default_write: Annotated[
        str, Setting("auth.default_write", Pattern(), "What it may write to in its vhost.")
    ] = ".*"
    default_read: Annotated[
        str, Setting("auth.default_read", Pattern(), "What it may read from in its vhost.")
    ] = ".*"
    default_users: Annotated[
        tuple[DefaultUser, ...],
        Setting(
            "auth.default_users",
            DefaultUsers(),
            "Users with permissions in each new vhost whose name matches their `vhost_pattern`, created with"
            " it if need be: `[auth.default_users.NAME]`. Without a password none lets them in.",
        ),
    ] = ()
    default_operator_policies: Annotated[
        tuple[DefaultOperatorPolicy, ...],
        Setting(
            "limits.default_operator_policies",
            DefaultOperatorPolicies(),
            "Operator policies of each new vhost whose name matches their `vhost_pattern`:"
            " `[limits.default_operator_policies.NAME]`.",
        ),
    ] = ()
    default_vhost_limits: Annotated[
        tuple[DefaultLimits, ...],
        Setting(
            "limits.default_vhost_limits",
            DefaultVHostLimits(),
            "Limits of each new vhost, of the first table whose `pattern` matches its name:"
            " `[limits.default_vhost_limits.NAME]`.",
        ),
    ] = ()
    loopback_users: Annotated[
        tuple[str, ...],
        Setting("auth.loopback_users", Names(), "Users that may log in from this machine only."),
    ] = ("guest",)

    message_memory_bytes: Annotated[
        int,
        Setting(
            "limits.message_memory_bytes",
            Size(MIB, 1024 * GIB),
            "Waiting message bodies kept in memory. What exceeds it is read back when its turn comes.",
        ),
    ] = 160 * MIB
    memory_high_watermark: Annotated[
        float,
        Setting(
            "limits.memory_high_watermark",
            SizeOrShare(Size(16 * MIB, 1024 * GIB), "the machine's (or container's) memory"),
            "Memory of the process beyond which publishers wait.",
        ),
    ] = 0.6
    disk_free_bytes: Annotated[
        int,
        Setting(
            "limits.disk_free_bytes",
            Size(0, 1024 * GIB),
            "Free space on the data file's disk, and inside the file, below which publishers wait.",
        ),
    ] = 50_000_000
    write_buffer_bytes: Annotated[
        int,
        Setting(
            "limits.write_buffer_bytes",
            Size(64 * KIB, GIB),
            "Bytes waiting to be sent to one connection at which its deliveries pause.",
        ),
    ] = 2 * MIB
    unauthenticated_connections: Annotated[
        int,
        Setting(
            "limits.unauthenticated_connections",
            Integer(1, 10**6),
            "Connections that have not logged in yet. One more is closed at once.",
        ),
    ] = 512
    unauthenticated_connections_per_address: Annotated[
        int,
        Setting(
            "limits.unauthenticated_connections_per_address", Integer(1, 10**6), "The same, from one address."
        ),
    ] = 64


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0] for each in fields(Settings)}


SETTINGS: Final = _settings()  # by field name
_FIELDS_BY_KEY: Final = {setting.key: name for name, setting in SETTINGS.items()}

# Variables that begin with LEVERET_ but are not settings: for the build, and for the name of the file itself.
_OTHER_VARIABLES: Final = frozenset(("LEVERET_CONFIG", "LEVERET_COMPILE"))
# A Kubernetes service or a linked container named "leveret" puts these into every environment beside it.
_SERVICE_VARIABLES: Final = re.compile(r"LEVERET_(SERVICE_(HOST|PORT)|PORT_\d|NAME$|ENV_).*")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, and what there is to say about how they came about."""

    settings: Settings
    origins: dict[str, str]  # field name -> where its value comes from, unless it is the default
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as one place gives it."""

    name: str  # field name
    value: object
    kind: Kind[object]
    origin: str  # how the user calls the place: "--port", "LEVERET_PORT", "leveret.toml: port"
    exit_code: int = EX_CONFIG


def read_configuration(
    flags: Mapping[str, object], environment: Mapping[str, str], config_file: Path | None = None
) -> Configuration:
    """Return the settings.

    Args:
        flags: field name -> value given on the command line.
        environment: the environment variables.
        config_file: the file that --config names: TOML, or a rabbitmq.conf if its name ends in .conf. Without
            it, the file that LEVERET_CONFIG names; without that, ./leveret.toml and the file that
            RABBITMQ_CONFIG_FILE names, if there are such.

    Raises:
        ConfigError: something is unknown, malformed or not allowed.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    warnings: list[str] = []
    from_files = _from_files(environment, config_file, warnings)
    for given in [*from_files, *_from_environment(environment), *_from_flags(flags)]:
        values[given.name] = _parse(given)
        origins[given.name] = given.origin
    return Configuration(Settings(**values), origins, tuple(warnings))


def _parse(given: _Given) -> object:
    try:
        return given.kind.parse(given.value)
    except ValueError:
        shown = "its value" if given.name in ("default_password", "default_users") else _shown(given.value)
        raise ConfigError(
            f"{given.origin}: {shown} is not allowed; give {given.kind.allowed}", given.exit_code
        ) from None


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that looks most like `name`; also `heartbeat` for `amqp.heartbeat_s`."""
    import difflib

    names = list(known)
    tails = {known_name.rpartition(".")[2]: known_name for known_name in names}
    close = difflib.get_close_matches(name, [*names, *tails], n=1, cutoff=0.0)[0]
    return tails.get(close, close)


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        yield _Given(name, value, SETTINGS[name].kind, flag, EX_USAGE)


def _from_environment(environment: Mapping[str, str]) -> Iterator[_Given]:
    known: dict[str, str] = {}  # variable -> field name; those of RabbitMQ first, so that ours win
    for name, setting in SETTINGS.items():
        variables = [setting.rabbitmq_variable] if setting.rabbitmq_variable else []
        variables.append(setting.variable)
        for variable in variables:
            known[variable] = name
            if setting.has_file_variable:
                known[variable + "_FILE"] = name
    for variable in sorted(environment):
        if not variable.startswith("LEVERET_") or variable in known or variable in _OTHER_VARIABLES:
            continue
        if not _SERVICE_VARIABLES.fullmatch(variable):
            best = nearest(variable, (each for each in known if each.startswith("LEVERET_")))
            raise ConfigError(f"environment: unknown variable {variable}; the nearest known one is {best}")
    for variable, name in known.items():
        value = environment.get(variable, "")
        if not value or (variable == "LEVERET_PORT" and value.startswith("tcp://")):  # see _SERVICE_VARIABLES
            continue
        if variable.endswith("_FILE"):
            value = _read(Path(value), variable).rstrip("\r\n")
        yield _Given(name, value, SETTINGS[name].kind, variable)


def _from_files(
    environment: Mapping[str, str], config_file: Path | None, warnings: list[str]
) -> Iterator[_Given]:
    if config_file is not None:
        yield from _from_file(config_file, "--config", warnings)
    elif environment.get("LEVERET_CONFIG"):
        yield from _from_file(Path(environment["LEVERET_CONFIG"]), "LEVERET_CONFIG", warnings)
    else:
        if named := environment.get("RABBITMQ_CONFIG_FILE"):
            path = Path(named)  # RabbitMQ lets the ending be left out
            yield from _from_rabbitmq_conf(
                path if path.exists() else path.with_name(path.name + ".conf"),
                "RABBITMQ_CONFIG_FILE",
                warnings,
            )
        if Path(DEFAULT_FILE).exists():
            yield from _from_toml(Path(DEFAULT_FILE), DEFAULT_FILE)


def _from_file(path: Path, named_by: str, warnings: list[str]) -> Iterator[_Given]:
    if path.suffix == ".conf":
        return _from_rabbitmq_conf(path, named_by, warnings)
    return _from_toml(path, named_by)


def _from_toml(path: Path, named_by: str) -> Iterator[_Given]:
    import tomllib

    try:
        document = tomllib.loads(_read(path, named_by))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: this is not TOML: {error}") from None
    for key, value in _flatten(document, ""):
        if key not in _FIELDS_BY_KEY:
            best = nearest(key, _FIELDS_BY_KEY)
            raise ConfigError(f"{path}: unknown key {key!r}; the nearest known one is {best!r}")
        name = _FIELDS_BY_KEY[key]
        yield _Given(name, value, SETTINGS[name].kind, f"{path}: {key}")


def _flatten(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict) and prefix + key not in _FIELDS_BY_KEY:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _from_rabbitmq_conf(path: Path, named_by: str, warnings: list[str]) -> Iterator[_Given]:
    from leveret.broker import rabbitmq_conf

    try:
        contents = rabbitmq_conf.parse(_read(path, named_by))
    except rabbitmq_conf.ConfError as error:
        raise ConfigError(f"{path}: {error}") from None
    if contents.ignored:
        warnings.append(f"{path}: not supported yet and ignored: {', '.join(contents.ignored)}")
    for entry in contents.entries:
        kind = entry.kind or SETTINGS[entry.name].kind
        yield _Given(entry.name, entry.value, kind, f"{path}: {entry.key}")


def _read(path: Path, named_by: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{named_by}: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"{named_by}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{named_by}: cannot read {path}: it is not UTF-8 text") from None
