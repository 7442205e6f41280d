"""Users and vhosts come and go while the broker runs.

Source: RabbitMQ guides "Access Control" and "Virtual Hosts".
"""

from __future__ import annotations

import pytest
from pamqp import commands

from leveret.broker.access import hash_password
from leveret.broker.model.rules.authority import InvalidPattern, NoSuchUser, NoSuchVHost, UserExists
from leveret.broker.server.vhosts import add_vhost, delete_vhost
from leveret.storage.changes import Bound, ExchangeDeclared

from ..peer import Method
from .closes import NOTHING, Close, answer, opened
from .harness import PERSISTENT, Broker, Client

pytestmark = pytest.mark.usefixtures("either_way")

OPEN = (10, 40)
LOGIN_REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
    "For details see the broker logfile."
)


def log_in(broker: Broker, user: str, password: str, vhost: str = "/") -> Close | list[str]:
    """What a client gets for the whole handshake."""
    client = broker.connect(opened=False, user=user, password=password, vhost=vhost)
    return answer(client, client.peer.handshake())


def last_word(client: Client) -> Close:
    """The close that a client was sent without having asked for anything."""
    event = client.take()[-1]
    assert isinstance(event, Method)
    return Close(event.channel, *event.error)


def may_log_in(broker: Broker, user: str, password: str, vhost: str = "/") -> bool:
    return log_in(broker, user, password, vhost) == [
        "Connection.Start",
        "Connection.Tune",
        "Connection.OpenOk",
    ]


def with_user(name: str = "ana", password: str = "pw") -> Broker:
    """A broker with one more user, who may do everything."""
    broker = Broker()
    broker.node.authority.add_user(name, password)
    broker.node.authority.set_permissions(name, "/", ".*", ".*", ".*")
    broker.run()
    return broker


# users


def test_a_new_user_needs_permissions_to_open_a_vhost() -> None:
    broker = Broker()
    broker.node.authority.add_user("ana", "pw")
    refused = "NOT_ALLOWED - access to vhost '/' refused for user 'ana'"
    assert log_in(broker, "ana", "pw") == Close(0, 530, refused, OPEN)
    broker.node.authority.set_permissions("ana", "/", "", "", "")
    assert may_log_in(broker, "ana", "pw")


def test_a_changed_password_replaces_the_old_one() -> None:
    broker = with_user()
    broker.node.authority.set_password("ana", "new")
    assert log_in(broker, "ana", "pw") == Close(0, 403, LOGIN_REFUSED, NOTHING)
    assert may_log_in(broker, "ana", "new")


@pytest.mark.parametrize("password", ["", "pw"])
def test_a_user_without_a_password_cannot_log_in(password: str) -> None:
    broker = with_user()
    broker.node.authority.set_password("ana", "")
    assert log_in(broker, "ana", password) == Close(0, 403, LOGIN_REFUSED, NOTHING)


def test_a_password_hash_of_rabbitmq_lets_its_user_in() -> None:
    broker = with_user()
    broker.node.authority.set_password_hash(
        "ana", "5bTV43HDuI/eI4Nq4D+kIUwpOcOhidcssAZgJVkAdLcsZn9p", "rabbit_password_hashing_sha256"
    )
    assert may_log_in(broker, "ana", "secret")
    assert not may_log_in(broker, "ana", "pw")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "md5"])
def test_every_hash_of_rabbitmq_is_understood(algorithm: str) -> None:
    broker = with_user()
    name = f"rabbit_password_hashing_{algorithm}"
    broker.node.authority.set_password_hash("ana", hash_password("other", b"salt", name), name)
    assert may_log_in(broker, "ana", "other")
    assert not may_log_in(broker, "ana", "pw")


def test_two_users_with_one_password_have_different_hashes() -> None:
    broker = with_user("ana", "pw")
    broker.node.authority.add_user("bob", "pw")
    users = broker.node.authority.users
    assert users["ana"].password_hash != users["bob"].password_hash


def test_users_survive_a_restart_and_the_default_user_does_not_come_back() -> None:
    broker = with_user()
    broker.node.delete_user("guest")
    broker.run()
    broker.restart()
    assert may_log_in(broker, "ana", "pw")
    assert not may_log_in(broker, "guest", "guest")


def test_the_connections_of_a_deleted_user_are_closed() -> None:
    broker = with_user()
    client = opened(broker, user="ana", password="pw")
    other = opened(broker)
    broker.node.delete_user("ana")
    broker.run()
    assert last_word(client) == Close(0, 320, "CONNECTION_FORCED - user 'ana' is deleted", NOTHING)
    assert other.channel(2).declare("q") == "q"
    assert not may_log_in(broker, "ana", "pw")


def test_a_user_made_anew_has_none_of_the_old_permissions() -> None:
    broker = with_user()
    broker.node.delete_user("ana")
    broker.node.authority.add_user("ana", "pw")
    assert not may_log_in(broker, "ana", "pw")


def test_what_is_not_there_is_refused() -> None:
    broker = with_user()
    authority = broker.node.authority
    with pytest.raises(UserExists, match='User "ana" already exists'):
        authority.add_user("ana", "pw")
    with pytest.raises(NoSuchUser, match='User "bob" does not exist'):
        authority.set_password("bob", "pw")
    with pytest.raises(NoSuchVHost, match="Virtual host 'v' does not exist"):
        delete_vhost(broker.node, "v")
    with pytest.raises(InvalidPattern):
        authority.set_permissions("ana", "/", "(", "", "")


# vhosts


def with_vhost(name: str = "v") -> Broker:
    """A broker with one more vhost, open to guest."""
    broker = Broker()
    add_vhost(broker.node, name)
    broker.node.authority.set_permissions("guest", name, ".*", ".*", ".*")
    broker.run()
    return broker


def test_names_in_two_vhosts_have_nothing_to_do_with_each_other() -> None:
    broker = with_vhost()
    here, there = broker.channel(), broker.channel(vhost="v")
    for channel, body in ((here, b"here"), (there, b"there")):
        channel.declare("q", durable=True)
        channel.publish("q", body, properties=PERSISTENT)
    broker.restart()
    assert broker.channel().drain("q") == [b"here"]
    assert broker.channel(vhost="v").drain("q") == [b"there"]


def test_a_vhost_has_the_predeclared_exchanges() -> None:
    channel = with_vhost().channel(vhost="v")
    for name in ("amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.topic", "amq.rabbitmq.trace"):
        channel.call(commands.Exchange.Declare, exchange=name, passive=True)


def test_a_missing_vhost_cannot_be_opened() -> None:
    refused = Close(0, 530, "NOT_ALLOWED - vhost nope not found", OPEN)
    assert log_in(Broker(), "guest", "guest", "nope") == refused


def test_deleting_a_vhost_closes_its_connections() -> None:
    broker = with_vhost()
    inside, outside = opened(broker, vhost="v"), opened(broker)
    delete_vhost(broker.node, "v")
    broker.run()
    assert last_word(inside) == Close(0, 320, "CONNECTION_FORCED - vhost 'v' is deleted", NOTHING)
    assert outside.channel(2).declare("q") == "q"
    assert not may_log_in(broker, "guest", "guest", "v")


def test_nothing_of_a_deleted_vhost_is_left() -> None:
    broker = with_vhost()
    channel = broker.channel(vhost="v")
    channel.declare("q", durable=True)
    channel.declare("transient")
    channel.declare_exchange("e", durable=True)
    channel.bind("q", "e")
    channel.publish("q", b"a", properties=PERSISTENT)
    channel.consume("transient")
    delete_vhost(broker.node, "v")
    broker.run()
    disk = broker.disk
    assert (disk.queues, disk.exchanges, disk.bindings, disk.messages) == ({}, {}, {}, {})
    assert list(disk.vhosts) == ["/"]
    assert list(disk.permissions) == [("guest", "/")]
    add_vhost(broker.node, "v")
    broker.node.authority.set_permissions("guest", "v", ".*", ".*", ".*")
    assert not broker.channel(vhost="v").exists("q")


def test_a_vhost_that_is_deleted_and_made_anew_in_one_batch_is_empty() -> None:
    broker = with_vhost()
    channel = broker.channel(vhost="v")
    channel.declare("q", durable=True)
    broker.hold_store()
    channel.publish("q", b"a", properties=PERSISTENT)
    channel.publish("q", b"b", properties=PERSISTENT)
    delete_vhost(broker.node, "v")
    add_vhost(broker.node, "v")
    broker.node.authority.set_permissions("guest", "v", ".*", ".*", ".*")
    again = broker.connect(opened=False, vhost="v")
    again.send(again.peer.handshake(1))
    again.send(again.peer.send(1, commands.Queue.Declare, queue="q", durable=True))
    broker.release_store()
    broker.crash()
    assert broker.channel(vhost="v").drain("q") == []


def test_a_dead_letter_of_a_deleted_vhost_goes_nowhere() -> None:
    broker = with_vhost()
    broker.channel(vhost="v").declare("q", arguments={"x-expires": 1000, "x-message-ttl": 500})
    delete_vhost(broker.node, "v")
    broker.advance(2000)
    assert broker.channel().declare("q") == "q"


def test_a_vhost_can_say_what_type_its_queues_are() -> None:
    broker = Broker()
    add_vhost(broker.node, "v", "description", ("tag",), "quorum")
    broker.node.authority.set_permissions("guest", "v", ".*", ".*", ".*")
    broker.run()
    broker.restart()
    channel = broker.channel(vhost="v")
    for _ in range(2):
        channel.declare("q", durable=True)
    channel.declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    channel.declare("transient")
    queues = broker.node.vhosts["v"].queues
    assert queues["q"].arguments.queue_type == "quorum"
    assert queues["transient"].arguments.queue_type == "classic"


def test_objects_of_a_data_file_without_vhosts_are_found_again() -> None:
    broker = Broker()
    broker.channel().declare("q", durable=True)
    broker.stop()
    broker.disk.vhosts.clear()
    broker.disk.users.clear()
    broker.disk.exchanges["old", "e"] = ExchangeDeclared("old", "e", "direct", False, False, b"\0\0\0\0")
    broker.disk.exchanges["old", "f"] = ExchangeDeclared("old", "f", "fanout", False, False, b"\0\0\0\0")
    broker.disk.bindings[Bound("old", "e", "f", True, "", b"\0\0\0\0")] = None
    broker.crash()
    assert list(broker.disk.vhosts) == ["/", "old"]
    assert broker.channel().exists("q")


# answers


def test_a_change_is_durable_before_anybody_is_told() -> None:
    broker = Broker()
    told: list[str] = []
    broker.hold_store()
    add_vhost(broker.node, "v")
    broker.node.when_durable(lambda: told.append("v"))
    broker.run()
    assert told == []
    broker.release_store()
    assert told == ["v"]
    broker.node.when_durable(lambda: told.append("nothing to wait for"))
    assert told == ["v", "nothing to wait for"]
