"""What the event exchange tells of connections and logins. See model/events.py."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from leveret.broker.model.events import terms

if TYPE_CHECKING:
    from leveret.broker.server.session import Session

PROTOCOL: Final = "{0,9,1}"
NO_TLS: Final = ("ssl_hash", "ssl_cipher", "ssl_key_exchange", "ssl_protocol")
NO_CERTIFICATE: Final = ("peer_cert_validity", "peer_cert_issuer", "peer_cert_subject")


def logged_in(session: Session, user_name: str, error: str = "") -> None:
    """A peer has shown its password, which was right, or wrong for a reason."""
    events = session.node.turn.events
    if not events.are_wanted:
        return
    peer_host, peer_port, host, _ = _addresses(session.name)
    headers: dict[str, object] = {
        "ssl": False,
        "auth_mechanism": session.mechanism,
        "protocol": PROTOCOL,
        "peer_port": peer_port,
        "peer_host": peer_host,
        "connection_name": session.name,
        "host": host,
        "name": user_name,
        "connection_type": "network",
    }
    if error:
        # RabbitMQ sends its text as a list of numbers.
        headers = {"error": list(error.encode("utf-8", "surrogateescape")), **headers}
    events.tell(f"user.authentication.{'failure' if error else 'success'}", headers)


def connection_created(session: Session) -> None:
    """A connection is open."""
    events = session.node.turn.events
    connection = session.connection
    if connection is None or not events.are_wanted:
        return
    peer_host, peer_port, host, port = _addresses(session.name)
    events.tell(
        "connection.created",
        {
            "user_who_performed_action": connection.user.name,
            "node": session.node.name,
            "connected_at": session.opened_at_ms,
            "client_properties": terms(connection.client_properties),
            "channel_max": connection.channel_max,
            "frame_max": session.outbox.frame_max,
            "timeout": session.heartbeat_s,
            "vhost": connection.vhost.name,
            "user": connection.user.name,
            "protocol": PROTOCOL,
            **dict.fromkeys(NO_TLS, ""),
            "auth_mechanism": session.mechanism,
            **dict.fromkeys(NO_CERTIFICATE, ""),
            "ssl": False,
            "peer_host": peer_host,
            "host": host,
            "peer_port": peer_port,
            "port": port,
            "name": session.name,
            "pid": session.pid,
            "type": "network",
        },
    )


def connection_closed(session: Session) -> None:
    """A connection that has at least tried to log in is gone."""
    events = session.node.turn.events
    if not session.mechanism or not events.are_wanted:
        return
    events.tell(
        "connection.closed",
        {
            "client_properties": terms(session.client_properties),
            "node": session.node.name,
            "pid": session.pid,
            "name": session.name,
        },
    )


def _addresses(name: str) -> tuple[str, int, str, int]:
    """Take the name of a connection apart: address and port of the peer, then ours."""
    (peer_host, _, peer_port), (host, _, port) = [end.rpartition(":") for end in name.split(" -> ")]
    return _address_term(peer_host), int(peer_port), _address_term(host), int(port)


def _address_term(address: str) -> str:
    """Print an address as Erlang does: `{127,0,0,1}`."""
    try:
        parsed = ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return address
    size = 1 if parsed.version == 4 else 2
    packed = parsed.packed
    numbers = [int.from_bytes(packed[at : at + size], "big") for at in range(0, len(packed), size)]
    return f"{{{','.join(map(str, numbers))}}}"
