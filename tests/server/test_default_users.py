"""What new vhosts begin with: users, operator policies and limits that the settings name for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from leveret.broker.config import ConfigError, Settings, read_configuration
from leveret.broker.defaults import DefaultLimits, DefaultOperatorPolicy, DefaultUser
from leveret.broker.model.rules.policies import OPERATOR_POLICY, Policy
from leveret.broker.server.vhosts import add_vhost

from .harness import Broker, Refused

CONF = """
default_user = ops
default_pass = secret
default_user_tags.administrator = false
default_user_tags.monitoring = true
default_permissions.configure = ^$
default_permissions.read = .*
default_permissions.write = ^w
default_users.qa.vhost_pattern = ^qa
default_users.qa.password = qa-secret
default_users.qa.tags = policymaker, monitoring
default_users.qa.configure = ^qa
default_policies.operator.short.vhost_pattern = ^qa
default_policies.operator.short.queue_pattern = ^tmp
default_policies.operator.short.expires = 60000
default_policies.operator.short.max_length = 100
default_policies.operator.short.classic_queues.ha_mode = all
default_limits.vhosts.1.pattern = ^qa
default_limits.vhosts.1.max_queues = 2
default_limits.vhosts.2.pattern = .*
default_limits.vhosts.2.max_connections = 10
"""


def read(path: Path, text: str) -> Settings:
    path.write_text(text)
    return read_configuration({}, {}, path).settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return read(tmp_path / "rabbitmq.conf", CONF)


@pytest.fixture
def broker(settings: Settings) -> Broker:
    names = (
        "default_user", "default_password", "default_user_tags", "default_configure", "default_write",
        "default_read", "default_users", "default_operator_policies", "default_vhost_limits",
    )  # fmt: skip
    return Broker(**{name: getattr(settings, name) for name in names})


def test_a_rabbitmq_conf_and_toml_say_the_same(settings: Settings, tmp_path: Path) -> None:
    toml = """
[auth]
default_user = "ops"
default_password = "secret"
default_user_tags = ["monitoring"]
default_configure = "^$"
default_write = "^w"

[auth.default_users.qa]
vhost_pattern = "^qa"
password = "qa-secret"
tags = ["policymaker", "monitoring"]
configure = "^qa"

[limits.default_operator_policies.short]
vhost_pattern = "^qa"
queue_pattern = "^tmp"
expires = 60000
max-length = 100

[limits.default_vhost_limits.qa]
pattern = "^qa"
max-queues = 2

[limits.default_vhost_limits.others]
max_connections = 10
"""
    assert read(tmp_path / "leveret.toml", toml) == settings
    assert settings.default_users == (
        DefaultUser("qa", "^qa", "qa-secret", ("policymaker", "monitoring"), "^qa", ".*", ".*"),
    )
    policy = Policy("short", "^tmp", {"expires": 60000, "max-length": 100}, 0, "queues")
    assert settings.default_operator_policies == (DefaultOperatorPolicy("^qa", policy),)
    assert settings.default_vhost_limits == (DefaultLimits("^qa", -1, 2), DefaultLimits(".*", 10, -1))


def test_the_first_user_has_the_tags_and_permissions_of_the_settings(broker: Broker) -> None:
    authority = broker.node.authority
    assert authority.users["ops"].tags == ("monitoring",)
    permission = authority.permissions["ops", "/"]
    assert (permission.configure, permission.write, permission.read) == ("^$", "^w", ".*")


def test_a_vhost_whose_name_matches_gets_its_users(broker: Broker) -> None:
    assert "qa" not in broker.node.authority.users
    add_vhost(broker.node, "qa-1")
    add_vhost(broker.node, "qa-2")
    broker.run()
    broker.connect(user="qa", password="qa-secret", vhost="qa-2")
    user = broker.node.authority.users["qa"]
    assert user.tags == ("policymaker", "monitoring")
    assert broker.node.authority.permissions["qa", "qa-1"].configure == "^qa"
    assert ("qa", "/") not in broker.node.authority.permissions


def test_a_vhost_gets_operator_policies_and_the_first_limits_that_match(broker: Broker) -> None:
    add_vhost(broker.node, "qa-1")
    add_vhost(broker.node, "shop")
    qa, shop = broker.node.vhosts["qa-1"], broker.node.vhosts["shop"]
    assert qa.policies.by_name[OPERATOR_POLICY]["short"].definition == {"expires": 60000, "max-length": 100}
    assert (qa.limits, shop.limits) == ({"max-queues": 2}, {"max-connections": 10})
    assert not shop.policies
    channel = broker.channel(user="qa", password="qa-secret", vhost="qa-1")
    channel.declare("qa-a")
    channel.declare("qa-b")
    with pytest.raises(Refused):
        channel.declare("qa-c")


def test_what_a_vhost_began_with_survives_a_restart_and_is_not_given_again(broker: Broker) -> None:
    add_vhost(broker.node, "qa-1")
    broker.node.vhosts["qa-1"].clear_limits()
    broker.node.authority.clear_permissions("qa", "qa-1")
    broker.restart()
    assert broker.node.vhosts["qa-1"].limits == {}
    assert ("qa", "qa-1") not in broker.node.authority.permissions
    assert "qa" in broker.node.authority.users


@pytest.mark.parametrize(
    "line",
    [
        "default_users.qa.colour = red",
        "default_users.qa.configure = (",
        "default_policies.operator.p.ha-mode = all",
        "default_policies.operator.p.expires = soon",
        "default_limits.vhosts.1.max_queues = many",
        "default_permissions.configure = (",
        "default_permissions.all = .*",
    ],
)
def test_what_makes_no_sense_is_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        read(tmp_path / "rabbitmq.conf", line)


def test_passwords_are_never_shown(settings: Settings, tmp_path: Path) -> None:
    assert "qa-secret" not in repr(settings)
    with pytest.raises(ConfigError) as error:
        read(tmp_path / "rabbitmq.conf", "default_users.qa.password = qa-secret\ndefault_users.qa.x = y")
    assert "qa-secret" not in str(error.value)
