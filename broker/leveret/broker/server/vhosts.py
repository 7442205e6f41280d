"""How the vhosts of a node come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.events import BY, EVENT_EXCHANGE
from leveret.broker.model.vhost import LOG_EXCHANGE
from leveret.broker.server.seeding import seed
from leveret.storage.changes import VHostAdded, VHostDeleted

if TYPE_CHECKING:
    from leveret.broker.server.node import Node


def add_vhost(
    node: Node, name: str, description: str = "", tags: tuple[str, ...] = (), default_queue_type: str = ""
) -> None:
    """Create a vhost; if it is there, only give it this description and so on."""
    record = VHostAdded(name, description, tags, default_queue_type)
    events = node.turn.events
    is_new = name not in node.vhosts
    if not is_new:
        if tags != node.vhosts[name].tags:
            events.tell("vhost.tags.set", {BY: node.turn.actor, "tags": tags, "name": name})
        _describe(node, record)
    else:
        make_vhost(node, record)
        for exchange in node.vhosts[name].exchanges.values():
            events.exchange_created(exchange)
        events.tell("vhost.created", _about(node, record))
    node.turn.define(record)
    if is_new:
        seed(node, node.vhosts[name])


def make_vhost(node: Node, record: VHostAdded) -> None:
    """Make the vhost of a record, with what is in every vhost, and tell nobody."""
    name, settings = record.name, node.settings
    vhost = node.vhosts[name] = node.new_vhost(name)
    _describe(node, record)
    if name == settings.default_vhost:
        if settings.log_exchange:
            vhost.system_exchange(LOG_EXCHANGE)
        node.turn.events.begin(name, vhost.system_exchange(EVENT_EXCHANGE))


def _describe(node: Node, record: VHostAdded) -> None:
    vhost = node.vhosts[record.name]
    vhost.description = record.description
    vhost.tags = record.tags
    vhost.default_queue_type = record.default_queue_type


def _about(node: Node, record: VHostAdded) -> dict[str, object]:
    return {
        "tags": ",".join(record.tags),
        "description": record.description,
        BY: node.turn.actor,
        "cluster_state": {node.name: "running"},
        "tracing": False,
        "default_queue_type": record.default_queue_type or "undefined",
        "name": record.name,
    }


def delete_vhost(node: Node, name: str) -> None:
    """Delete a vhost with everything in it, and close its connections.

    Raises:
        NoSuchVHost: there is none of this name.
    """
    vhost = node.vhost(name)
    for session in list(node.sessions):
        connection = session.connection
        if connection is not None and connection.vhost is vhost:
            session.force_close(f"vhost '{name}' is deleted")
    del node.vhosts[name]
    node.look_around()
    vhost.delete_everything()
    node.authority.vhost_deleted(name)
    node.turn.define(VHostDeleted(name))
    if name == node.settings.default_vhost:
        node.turn.events.begin("", None)
    node.turn.events.tell("vhost.deleted", {"name": name})
