"""Settings: their sources, the order of these, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from leveret.broker.config import (
    EX_CONFIG,
    EX_USAGE,
    SETTINGS,
    ConfigError,
    Settings,
    read_configuration,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(
    flags: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    toml: str | None = None,
) -> ConfigError:
    if toml is not None:
        Path("leveret.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        read_configuration(flags or {}, environment or {})
    return caught.value


def test_without_any_source_the_defaults_hold() -> None:
    configuration = read_configuration({}, {})
    assert configuration.settings == Settings()
    assert configuration.origins == {}
    assert configuration.warnings == ()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_default_is_a_value_that_its_kind_allows(name: str) -> None:
    default = getattr(Settings(), name)
    given = str(default) if isinstance(default, Path) else default
    assert SETTINGS[name].kind.parse(given) == default


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_described_in_a_sentence(name: str) -> None:
    assert SETTINGS[name].about.endswith(".")


def test_a_flag_wins_over_the_environment_which_wins_over_the_files(folder: Path) -> None:
    (folder / "rabbitmq.conf").write_text("heartbeat = 1\nframe_max = 8192\nchannel_max = 1\n")
    (folder / "leveret.toml").write_text("port = 3\n[amqp]\nheartbeat_s = 2\nframe_max = 16384\n")
    environment = {
        "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
        "LEVERET_AMQP_HEARTBEAT_S": "4",
        "LEVERET_PORT": "5",
    }
    configuration = read_configuration({"port": "6"}, environment)
    settings = configuration.settings
    assert (settings.port, settings.heartbeat_s, settings.frame_max, settings.channel_max) == (6, 4, 16384, 1)
    assert configuration.origins == {
        "port": "--port",
        "heartbeat_s": "LEVERET_AMQP_HEARTBEAT_S",
        "frame_max": "leveret.toml: amqp.frame_max",
        "channel_max": "rabbitmq.conf: channel_max",
    }


def test_leveret_variables_win_over_those_of_rabbitmq() -> None:
    environment = {"RABBITMQ_NODE_PORT": "1", "LEVERET_PORT": "2", "RABBITMQ_NODE_IP_ADDRESS": "::1"}
    settings = read_configuration({}, environment).settings
    assert (settings.port, settings.host) == (2, "::1")


def test_the_variables_of_rabbitmqs_docker_image_name_user_password_and_vhost() -> None:
    environment = {"RABBITMQ_DEFAULT_USER": "u", "RABBITMQ_DEFAULT_PASS": "p", "RABBITMQ_DEFAULT_VHOST": "v"}
    settings = read_configuration({}, environment).settings
    assert (settings.default_user, settings.default_password, settings.default_vhost) == ("u", "p", "v")


def test_a_password_can_come_from_the_file_that_a_variable_names(folder: Path) -> None:
    (folder / "secret").write_text("hush\n")
    settings = read_configuration({}, {"RABBITMQ_DEFAULT_PASS_FILE": "secret"}).settings
    assert settings.default_password == "hush"


def test_an_empty_variable_counts_as_unset() -> None:
    assert read_configuration({}, {"LEVERET_PORT": ""}).settings.port == 5672


def test_the_variables_of_a_kubernetes_service_named_leveret_are_not_settings() -> None:
    environment = {
        "LEVERET_PORT": "tcp://10.0.0.1:5672",
        "LEVERET_PORT_5672_TCP_ADDR": "10.0.0.1",
        "LEVERET_SERVICE_HOST": "10.0.0.1",
        "LEVERET_SERVICE_PORT_AMQP": "5672",
    }
    assert read_configuration({}, environment).settings == Settings()


def test_a_toml_file_gives_every_kind_of_value(folder: Path) -> None:
    (folder / "own.toml").write_text(
        'data = "other.db"\nmemory = true\n'
        '[log]\nformat = "json"\n'
        '[amqp]\nmax_message_bytes = "64 MiB"\nhandshake_timeout_s = 2.5\nadvertised_version = "3.12.1"\n'
        '[auth]\nloopback_users = ["guest", "ops"]\n'
    )
    settings = read_configuration({}, {}, Path("own.toml")).settings
    assert settings == Settings(
        data=Path("other.db"),
        memory=True,
        log_format="json",
        max_message_bytes=64 * 1024 * 1024,
        handshake_timeout_s=2.5,
        advertised_version="3.12.1",
        loopback_users=("guest", "ops"),
    )


def test_a_named_file_replaces_the_default_ones(folder: Path) -> None:
    (folder / "leveret.toml").write_text("port = 1")
    (folder / "own.toml").write_text("")
    assert read_configuration({}, {}, Path("own.toml")).settings == Settings()
    assert read_configuration({}, {"LEVERET_CONFIG": "own.toml"}).settings == Settings()


def test_names_in_a_variable_are_separated_by_commas() -> None:
    environment = {"LEVERET_AUTH_LOOPBACK_USERS": "guest, ops"}
    assert read_configuration({}, environment).settings.loopback_users == ("guest", "ops")


def test_none_is_the_empty_list_of_names() -> None:
    environment = {"LEVERET_AUTH_LOOPBACK_USERS": "none"}
    assert read_configuration({}, environment).settings.loopback_users == ()


def test_a_password_does_not_show_in_the_settings_text() -> None:
    assert "hush" not in repr(Settings(default_password="hush"))


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    error = refusal(toml="[amqp]\nhartbeat_s = 3")
    assert str(error) == (
        "leveret.toml: unknown key 'amqp.hartbeat_s'; the nearest known one is 'amqp.heartbeat_s'"
    )
    assert error.exit_code == EX_CONFIG


def test_a_key_without_its_section_is_recognised() -> None:
    assert str(refusal(toml="heartbeat = 3")).endswith("the nearest known one is 'amqp.heartbeat_s'")


def test_an_unknown_variable_is_refused_with_the_nearest_known_one() -> None:
    error = refusal(environment={"LEVERET_PROT": "1"})
    assert str(error) == "environment: unknown variable LEVERET_PROT; the nearest known one is LEVERET_PORT"
    assert error.exit_code == EX_CONFIG


def test_a_bad_flag_is_named_with_what_is_allowed() -> None:
    error = refusal(flags={"port": "70000"})
    assert str(error) == (
        "--port: '70000' is not allowed; give a whole number from 0 to 65535 (0: any free port)"
    )
    assert error.exit_code == EX_USAGE


def test_a_bad_value_in_a_file_is_named_with_its_key() -> None:
    assert str(refusal(toml='[log]\nlevel = "loud"')) == (
        "leveret.toml: log.level: 'loud' is not allowed; give debug, info, warning or error"
    )


def test_a_refused_password_is_not_repeated() -> None:
    error = refusal(environment={"LEVERET_AUTH_DEFAULT_PASSWORD": "hush\nhush"})
    assert "hush" not in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("amqp.heartbeat_s", "true"),
        ("amqp.heartbeat_s", "1.5"),
        ("amqp.heartbeat_s", "-1"),
        ("amqp.heartbeat_s", '"\u0661"'),
        ("amqp.frame_max", "100"),
        ("amqp.frame_max", '"1 XB"'),
        ("amqp.max_message_bytes", '"513 MiB"'),
        ("amqp.handshake_timeout_s", "0"),
        ("amqp.handshake_timeout_s", "inf"),
        ("amqp.handshake_timeout_s", "[1]"),
        ("amqp.advertised_version", '"four"'),
        ("auth.loopback_users", "3"),
        ("auth.loopback_users", "[3]"),
        ("auth.default_user", '""'),
        ("auth.default_user", '"a\\nb"'),
        ("memory", '"perhaps"'),
        ("data", '""'),
        ("log.format", "1979-05-27"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_one_line(key: str, value: str) -> None:
    text = str(refusal(toml=f"{key} = {value}"))
    assert text.startswith(f"leveret.toml: {key}: ")
    assert "is not allowed; give " in text
    assert "\n" not in text


def test_a_file_that_is_not_toml_is_refused_with_the_place() -> None:
    assert str(refusal(toml="port = \n")).startswith(
        "leveret.toml: this is not TOML: Invalid value (at line 1"
    )


def test_a_file_of_other_bytes_is_refused(folder: Path) -> None:
    (folder / "leveret.toml").write_bytes(b"\xff\xfe")
    assert str(refusal()) == "leveret.toml: cannot read leveret.toml: it is not UTF-8 text"


def test_a_missing_file_is_named_with_what_named_it() -> None:
    assert str(refusal(environment={"LEVERET_CONFIG": "gone.toml"})) == (
        "LEVERET_CONFIG: there is no file gone.toml"
    )


def test_a_folder_is_not_a_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--config: cannot read .*: Is a directory$"):
        read_configuration({}, {}, folder)
