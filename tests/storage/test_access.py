"""What every store promises about vhosts, users, permissions and parameters."""

from __future__ import annotations

import pytest

from leveret.storage.changes import (
    Bound,
    Definition,
    ExchangeDeclared,
    ParameterCleared,
    ParameterSet,
    PermissionCleared,
    PermissionSet,
    TopicPermissionCleared,
    TopicPermissionSet,
    UserDeleted,
    UserSet,
    VHostAdded,
    VHostDeleted,
)
from leveret.storage.stored import Snapshot

from .engines import Engine, bodies, declared, define, enqueue

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
ANA = UserSet("ana", "c2FsdGhhc2g=", "rabbit_password_hashing_sha256", ("management", "x"), '{"a": 1}')
VHOST = VHostAdded("v", "für alle", ("a", "b"), "quorum")
PERMISSION = PermissionSet("ana", "v", "^a", ".*", "")
TOPIC = TopicPermissionSet("ana", "v", "amq.topic", "^{username}", ".*")
POLICY = ParameterSet("v", "policy", "p", '{"pattern": "ü"}')


def access(found: Snapshot) -> list[Definition]:
    """Return all that is stored about access."""
    return [
        *found.vhosts, *found.users, *found.permissions, *found.topic_permissions, *found.parameters,
    ]  # fmt: skip


def test_they_survive_a_restart_in_the_order_they_were_made(engine: Engine) -> None:
    bob = UserSet(NOT_UTF8, "", "rabbit_password_hashing_sha256", (), "{}")
    slash = VHostAdded("/", "", (), "")
    define(engine.store, VHOST, slash, ANA, bob, PERMISSION, TOPIC, POLICY)
    assert access(engine.restart()) == [VHOST, slash, ANA, bob, PERMISSION, TOPIC, POLICY]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ANA, UserSet("ana", "b3RoZXI=", "rabbit_password_hashing_sha256", (), "{}")),
        (VHOST, VHostAdded("v", "other", (), "")),
        (PERMISSION, PermissionSet("ana", "v", "", "", "")),
        (TOPIC, TopicPermissionSet("ana", "v", "amq.topic", "", "")),
        (POLICY, ParameterSet("v", "policy", "p", "{}")),
    ],
)
def test_what_is_set_again_is_changed(engine: Engine, first: Definition, second: Definition) -> None:
    define(engine.store, first)
    define(engine.store, second)
    assert access(engine.restart()) == [second]


@pytest.mark.parametrize(
    ("made", "cleared"),
    [
        (PERMISSION, PermissionCleared("ana", "v")),
        (TOPIC, TopicPermissionCleared("ana", "v", "amq.topic")),
        (POLICY, ParameterCleared("v", "policy", "p")),
        (VHOST, VHostDeleted("v")),
        (ANA, UserDeleted("ana")),
    ],
)
def test_what_is_cleared_does_not_come_back(engine: Engine, made: Definition, cleared: Definition) -> None:
    define(engine.store, made)
    define(engine.store, cleared)
    assert access(engine.restart()) == []


def test_a_deleted_user_takes_its_permissions_along(engine: Engine) -> None:
    define(engine.store, VHOST, ANA, PERMISSION, TOPIC, PermissionSet("bob", "v", "", "", ""))
    define(engine.store, UserDeleted("ana"))
    assert access(engine.restart()) == [VHOST, PermissionSet("bob", "v", "", "", "")]


def test_a_deleted_vhost_takes_everything_in_it_along(engine: Engine) -> None:
    exchange = ExchangeDeclared("v", "e", "direct", auto_delete=False, internal=False, arguments=b"")
    other = ExchangeDeclared("/", "e", "direct", auto_delete=False, internal=False, arguments=b"")
    binding = Bound("v", "e", "q", to_exchange=False, binding_key="", arguments=b"")
    define(engine.store, VHOST, ANA, PERMISSION, TOPIC, POLICY, exchange, other, binding)
    define(engine.store, declared(1, "q", "v"), declared(2, "q", "/"), declared(3, "long", "v"))
    for queue_id, count in ((1, 1), (2, 1), (3, 3000)):
        enqueue(engine.store, queue_id, 1, *[b"x"] * count)
    define(engine.store, VHostDeleted("v"))
    found = engine.restart()
    assert access(found) == [ANA]
    assert found.exchanges == [other]
    assert found.bindings == []
    assert [(queue.queue_id, queue.messages) for queue in found.queues] == [(2, 1)]
    define(engine.store, declared(1, "q", "v"), declared(3, "long", "v"))
    assert [bodies(engine.store, queue_id) for queue_id in (1, 2, 3)] == [{}, {1: b"x"}, {}]


def test_a_queue_of_a_deleted_vhost_can_be_declared_anew_in_the_same_batch(engine: Engine) -> None:
    define(engine.store, VHOST, declared(1, "q", "v"))
    enqueue(engine.store, 1, 1, b"x")
    define(engine.store, VHostDeleted("v"), VHOST, declared(2, "q", "v"))
    found = engine.restart()
    assert [(queue.queue_id, queue.messages) for queue in found.queues] == [(2, 0)]
    assert found.vhosts == [VHOST]
