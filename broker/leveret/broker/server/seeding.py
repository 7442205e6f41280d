"""Gives a new vhost what the settings name for vhosts like it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leveret.broker.defaults import MAX_CONNECTIONS, MAX_QUEUES
from leveret.broker.model.rules.policies import OPERATOR_POLICY

if TYPE_CHECKING:
    from leveret.broker.model.vhost import VHost
    from leveret.broker.server.node import Node


def seed(node: Node, vhost: VHost) -> None:
    """Set limits and operator policies, create users and give them permissions."""
    settings, authority = node.settings, node.authority
    for limits in settings.default_vhost_limits:
        if re.search(limits.vhost_pattern, vhost.name):
            given = {MAX_CONNECTIONS: limits.max_connections, MAX_QUEUES: limits.max_queues}
            vhost.set_limits({name: value for name, value in given.items() if value >= 0})
            break
    for default in settings.default_operator_policies:
        if re.search(default.vhost_pattern, vhost.name):
            vhost.set_policy(OPERATOR_POLICY, default.policy)
    for user in settings.default_users:
        if re.search(user.vhost_pattern, vhost.name):
            if user.name not in authority.users:
                authority.add_user(user.name, user.password, user.tags)
            authority.set_permissions(user.name, vhost.name, user.configure, user.write, user.read)
