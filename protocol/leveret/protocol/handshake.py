"""From protocol header to open connection, and to its end: states, tuning, what each side tells of itself.

Theory of operation
-------------------
A connection is in one `State`. Only methods on channel 0 move it, and `TRANSITIONS` holds every move: state,
method received, next state. What is not in the table is an error of the peer, answered as `next_state` says.
The session acts
on each move:

    HEADER --header--> STARTING --start-ok--> TUNING --tune-ok--> OPENING --open--> RUNNING --close--> CLOSED
                       CLOSING (we sent connection.close) --close-ok--> CLOSED

SECURING stands between STARTING and TUNING when a mechanism asks for a second response. An error of ours
moves any state to CLOSING; there all but close and close-ok is ignored.

Source: AMQP 0-9-1 section 2.2.4 and class connection (10); RabbitMQ's rabbit_reader.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from pamqp import base, commands

from leveret.protocol import tables
from leveret.protocol.connection import FRAME_METHOD, describe_frame
from leveret.protocol.errors import ChannelNotOpen, NotAllowed, UnexpectedFrame, printable_octets
from leveret.protocol.methods import class_id, encode_method, make, method_id

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"  # what we speak, and the answer to any other header
HANDSHAKE_TIMEOUT_S: Final = 10  # from accept to open-ok

# AMQP 0-9 and a way that some clients write 0-9-1: the same frames.
_ACCEPTED_HEADERS: Final = frozenset({PROTOCOL_HEADER, b"AMQP\x01\x01\x00\x09", b"AMQP\x01\x01\x09\x01"})

FRAME_MAX_MIN: Final = 4096
CHANNEL_MAX_MIN: Final = 1


class State(Enum):
    """Where a connection is; the value is RabbitMQ's word for it."""

    HEADER = "pre_init"
    STARTING = "starting"
    SECURING = "securing"
    TUNING = "tuning"
    OPENING = "opening"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: Final[dict[State, dict[type[base.Frame], State]]] = {
    State.HEADER: {},
    State.STARTING: {commands.Connection.StartOk: State.TUNING},
    State.SECURING: {commands.Connection.SecureOk: State.TUNING},
    State.TUNING: {commands.Connection.TuneOk: State.OPENING},
    State.OPENING: {commands.Connection.Open: State.RUNNING},
    State.RUNNING: {
        commands.Connection.UpdateSecret: State.RUNNING,
        commands.Connection.Close: State.CLOSED,
    },
    State.CLOSING: {
        commands.Connection.Close: State.CLOSING,
        commands.Connection.CloseOk: State.CLOSED,
    },
    State.CLOSED: {commands.Connection.Close: State.CLOSED},
}


def next_state(state: State, channel: int, method: base.Frame) -> State | None:
    """Find the state that a method leads to.

    Call it for every method on channel 0, and before the connection runs for any channel.

    Returns:
        The next state, or None if the method is to be ignored because the connection is on its way out.

    Raises:
        ChannelNotOpen: on channel 0, the method is not legal in this state.
        UnexpectedFrame: a method for another channel before the connection is open.
    """
    following = TRANSITIONS[state].get(type(method)) if channel == 0 else None
    if following is not None:
        return following
    if state in (State.CLOSING, State.CLOSED):
        return None
    if channel:
        raise UnexpectedFrame(describe_frame(FRAME_METHOD, encode_method(channel, method)[7:-1]))
    raise ChannelNotOpen(
        f"unexpected method in connection state {state.value}", class_id(method), method_id(method)
    )


def refusal(header: bytes) -> str | None:
    """Say for the log why a protocol header is refused; None if it is accepted.

    A refused peer gets `PROTOCOL_HEADER` and a closed connection.
    """
    if header in _ACCEPTED_HEADERS:
        return None
    if header.startswith(b"\x16\x03"):
        return "TLS client on a plain port"
    if header.startswith((b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PRI ")):
        return "HTTP request on an AMQP port"
    if header.startswith(b"AMQP") and len(header) == 8:
        if header[5:] == b"\x01\x00\x00":
            return "AMQP 1.0 client, which needs AMQP 0-9-1"
        return f"AMQP version {'.'.join(map(str, header[4:]))} is not supported"
    return f"no AMQP protocol header: {printable_octets(header)}"


class Tuning(NamedTuple):
    """The limits of a connection; 0 means none, or no heartbeats."""

    channel_max: int = 2047
    frame_max: int = 131072
    heartbeat: int = 60


def negotiate(server: Tuning, client: Tuning) -> Tuning:
    """Check the values of tune-ok against ours; the client's count, any heartbeat among them.

    Raises:
        NotAllowed: a value outside what the server allows; 0 is higher than any limit.

    Source: RabbitMQ 4.x (3.10 closes without a word), with the older minimum of frame_max.
    """
    _check_limit("frame_max", client.frame_max, FRAME_MAX_MIN, server.frame_max)
    _check_limit("channel_max", client.channel_max, CHANNEL_MAX_MIN, server.channel_max)
    return client


def _check_limit(name: str, value: int, minimum: int, maximum: int) -> None:
    if 0 < value < minimum:
        reason = f"is lower than the minimum allowed value ({minimum})"
    elif maximum and (value == 0 or value > maximum):
        reason = f"is higher than the maximum allowed value ({maximum})"
    else:
        return
    shown = f"{value} (no limit)" if name == "channel_max" and value == 0 else str(value)
    tune = commands.Connection.Tune
    raise NotAllowed(f"negotiated {name} = {shown} {reason}", class_id(tune), method_id(tune))


CAPABILITIES: Final = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)

# kombu and Celery choose their prefetch mode by product and version; see docs on compatibility.
ADVERTISED_PRODUCT: Final = "RabbitMQ"
ADVERTISED_VERSION: Final = "3.13.7"


def server_properties(
    *, broker_version: str, platform: str, cluster_name: str, version: str = ADVERTISED_VERSION
) -> dict[str, object]:
    """Tell the client who we are, in RabbitMQ's order: sorted by key.

    Args:
        broker_version: Leveret's own version.
        platform: what it runs on, such as `Python 3.11.9`.
        cluster_name: name of the broker, such as `leveret@host`.
        version: the version of RabbitMQ that clients are to assume.
    """
    return {
        "broker": "Leveret",
        "broker_version": broker_version,
        "capabilities": dict.fromkeys(CAPABILITIES, True),
        "cluster_name": cluster_name,
        "copyright": "Copyright (c) The Leveret authors",
        "information": "Leveret, licensed under the Apache License 2.0",
        "platform": platform,
        "product": ADVERTISED_PRODUCT,
        "version": version,
    }


def start_method(properties: dict[str, object], mechanisms: tuple[str, ...]) -> commands.Connection.Start:
    """Build connection.start."""
    return make(
        commands.Connection.Start,
        version_major=0,
        version_minor=9,
        server_properties=properties,
        mechanisms=" ".join(mechanisms),
        locales="en_US",
    )


class ClientProperties(NamedTuple):
    """What the broker uses of the client's properties in start-ok."""

    connection_name: str | None
    authentication_failure_close: bool
    connection_blocked: bool
    consumer_cancel_notify: bool


def read_client_properties(properties: tables.Table) -> ClientProperties:
    """Pick out what changes our behaviour; a capability counts only if it is a boolean true."""
    capabilities = tables.nested(properties, "capabilities") or {}
    return ClientProperties(
        tables.longstr(properties, "connection_name"),
        tables.boolean(capabilities, "authentication_failure_close") is True,
        tables.boolean(capabilities, "connection.blocked") is True,
        tables.boolean(capabilities, "consumer_cancel_notify") is True,
    )
