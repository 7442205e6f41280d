"""What a node begins with: what the store holds, or what the settings name for a new broker.

Messages stay in the store until they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.global_parameters import GLOBAL
from leveret.broker.model.queues.priorities import PriorityBacklog
from leveret.broker.model.streams.stream import Stream
from leveret.broker.server.vhosts import add_vhost, make_vhost

if TYPE_CHECKING:
    from leveret.broker.server.node import Node
    from leveret.storage.stored import Snapshot


def restore(node: Node, snapshot: Snapshot) -> None:
    """Make all that a snapshot has, in a node that has nothing."""
    _restore_vhosts(node, snapshot)
    for parameter in snapshot.parameters:
        if parameter.component == GLOBAL:
            node.global_parameters.restore(parameter)
        else:
            node.vhosts[parameter.vhost].restore_parameter(parameter)
    for exchange in snapshot.exchanges:
        node.vhosts[exchange.vhost].restore_exchange(exchange)
    for kept in snapshot.exchange_queues:
        node.vhosts[kept.vhost].restore_exchange_queue(kept)
    for queue in snapshot.queues:
        node.vhosts[queue.vhost].restore_queue(queue)
    _restore_parts_of_queues(node, snapshot)
    for binding in snapshot.bindings:
        node.vhosts[binding.vhost].restore_binding(binding)
    for vhost in node.vhosts.values():
        for waiting in vhost.queues.values():
            waiting.drop_over_limit()  # what was unacked is ready again, and counts


def _restore_vhosts(node: Node, snapshot: Snapshot) -> None:
    for stored in snapshot.vhosts:
        make_vhost(node, stored)
    node.authority.restore(snapshot.users, snapshot.permissions, snapshot.topic_permissions)
    if not snapshot.vhosts and not snapshot.users:
        _begin_with_defaults(node)
    # A file of the first format has no list of its vhosts.
    names = [record.vhost for record in snapshot.exchanges] + [queue.vhost for queue in snapshot.queues]
    for name in names:
        if name not in node.vhosts:
            add_vhost(node, name)


def _begin_with_defaults(node: Node) -> None:
    """Make what a new broker begins with: one vhost, and one user who may do everything."""
    settings, authority = node.settings, node.authority
    add_vhost(node, settings.default_vhost, "Default virtual host")
    name = settings.default_user
    if name not in authority.users:  # among the default users, as well
        authority.add_user(name, settings.default_password, settings.default_user_tags)
    rights = (settings.default_configure, settings.default_write, settings.default_read)
    authority.set_permissions(name, settings.default_vhost, *rights)


def _restore_parts_of_queues(node: Node, snapshot: Snapshot) -> None:
    """Give queues the priorities, keys of deduplication, segments and offsets that are stored beside them."""
    for level in snapshot.priority_levels:
        owner = node.queue_by_id(level.of)
        if owner is not None and isinstance(owner.backlog, PriorityBacklog):
            owner.backlog.restore_level(level)
    for key in snapshot.keys:
        window = node.turn.windows.get(key.queue_id)
        if window is not None:
            window.restore(key)
    for segment in snapshot.segments:
        stream = node.queue_by_id(segment.queue_id)
        if isinstance(stream, Stream):
            stream.restore_segment(segment)
    for offset in snapshot.offsets:
        stream = node.queue_by_id(offset.queue_id)
        if isinstance(stream, Stream):
            stream.restore_offset(offset.consumer_tag, offset.position)
