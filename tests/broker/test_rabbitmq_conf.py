"""An existing rabbitmq.conf works, as far as Leveret has what it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.broker.config import ConfigError, Configuration, Settings, read_configuration

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "rabbitmq.conf"


def read(path: Path, text: str) -> Configuration:
    path.write_text(text)
    return read_configuration({}, {}, path)


def test_all_keys_that_have_a_setting_are_read(path: Path) -> None:
    configuration = read(
        path,
        """
        # a comment
        listeners.tcp.default = 5673
        heartbeat = 30   # seconds
        frame_max = 65536
        channel_max = 128
        max_message_size = 134217728
        handshake_timeout = 20000
        consumer_max_per_channel = 5
        default_user = alice
        default_pass = 'wonder # land'
        default_vhost = shop
        loopback_users.guest = false
        loopback_users.ops = true
        log.console.formatter = json
        log.console.level = notice
        """,
    )
    assert configuration.settings == Settings(
        port=5673,
        heartbeat_s=30,
        frame_max=65536,
        channel_max=128,
        max_message_bytes=134217728,
        handshake_timeout_s=20.0,
        consumers_per_channel=5,
        default_user="alice",
        default_password="wonder # land",
        default_vhost="shop",
        loopback_users=("ops",),
        log_format="json",
        log_level="info",
    )
    assert configuration.warnings == ()


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [("10.0.0.1:5673", "10.0.0.1", 5673), ("[::1]:5673", "::1", 5673), (":::5673", "::", 5673)],
)
def test_a_listener_can_have_an_address(path: Path, value: str, host: str, port: int) -> None:
    settings = read(path, f"listeners.tcp.1 = {value}").settings
    assert (settings.host, settings.port) == (host, port)


def test_loopback_users_none_lets_everyone_in_from_everywhere(path: Path) -> None:
    assert read(path, "loopback_users = none").settings.loopback_users == ()


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("vm_memory_high_watermark.relative = 0.4", "memory_high_watermark", 0.4),
        ("vm_memory_high_watermark.absolute = 2GB", "memory_high_watermark", 2e9),
        ("disk_free_limit.absolute = 1GB", "disk_free_bytes", 10**9),
    ],
)
def test_limits_of_memory_and_disk_are_read(path: Path, text: str, field: str, value: float) -> None:
    assert getattr(read(path, text).settings, field) == value


def test_guest_stays_a_loopback_user_when_others_are_added(path: Path) -> None:
    assert read(path, "loopback_users.ops = true").settings.loopback_users == ("guest", "ops")


def test_the_last_of_equal_keys_wins(path: Path) -> None:
    assert read(path, "heartbeat = 1\nheartbeat = 2").settings.heartbeat_s == 2


def test_keys_of_rabbitmq_without_a_setting_are_ignored_with_a_warning(path: Path) -> None:
    configuration = read(path, "management.tcp.port = 15672\nvm_memory_high_watermark_paging_ratio = 0.5")
    assert configuration.settings == Settings()
    (warning,) = configuration.warnings
    assert warning.endswith(
        "rabbitmq.conf: not supported yet and ignored: management.tcp.port,"
        " vm_memory_high_watermark_paging_ratio"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hearbeat = 3", "unknown key 'hearbeat'; the nearest known one is 'heartbeat'"),
        ("heartbeat", "line 1: expected key = value"),
        (
            "heartbeat = often",
            "heartbeat: 'often' is not allowed; give a whole number from 0 to 65535 (0: none)",
        ),
        (
            "handshake_timeout = 0",
            "handshake_timeout: '0' is not allowed; give milliseconds from 100 to 3600000",
        ),
        ("loopback_users.guest = 5", "loopback_users.guest: '5' is not allowed; give true or false"),
        (
            "listeners.tcp.1 = 127.0.0.1:5672\nlisteners.tcp.2 = ::1:5672",
            "listeners.tcp.2: Leveret listens on one address; keep one listener (:: is every address)",
        ),
        ("listeners.tcp = none", "listeners.tcp: 'none' is not allowed; Leveret needs its TCP listener"),
        (
            "listeners.tcp.default = amqp",
            "listeners.tcp.default: 'amqp' is not allowed; give a whole number from 0 to 65535"
            " (0: any free port)",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(path, text)
    assert str(caught.value) == f"{path}: {complaint}"


def test_the_variable_may_leave_out_the_ending(path: Path) -> None:
    path.write_text("heartbeat = 7")
    environment = {"RABBITMQ_CONFIG_FILE": str(path.with_suffix(""))}
    assert read_configuration({}, environment).settings.heartbeat_s == 7


def test_the_log_exchange_can_be_switched_on(path: Path) -> None:
    configuration = read(path, "log.exchange = true\nlog.exchange.level = warning")
    assert configuration.settings == Settings(log_exchange=True, log_exchange_level="warning")
