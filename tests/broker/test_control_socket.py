"""`leveret ctl` and a running broker, each in a process of its own, and the socket between them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leveret.broker.config import Settings
from leveret.broker.control_socket import (
    PATH_BYTES_MAX,
    REQUEST_BYTES_MAX,
    connect,
    control_path,
    listen,
    memory_path,
    require_own,
)
from leveret.broker.ctl.command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_S = 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def broker(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a broker on a free port in the current folder."""
    command = [sys.executable, "-m", "leveret", "serve", "--port", "0", "--log-level", "warning", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert any("Server startup complete" in line for line in process.stdout)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)


def ctl(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, str]:
    code = run(line, None)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def send(path: Path, data: bytes) -> bytes:
    """Send bytes to the socket, say that these are all, and read the answer."""
    with connect(path, 10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            return stream.read()


def test_what_was_set_up_is_there_after_a_crash(capsys: pytest.CaptureFixture[str]) -> None:
    with broker() as process:
        assert ctl(capsys, "-q", "add_user", "ana", "pw") == (0, "")
        assert ctl(capsys, "-q", "add_vhost", "v") == (0, "")
        assert ctl(capsys, "-q", "set_permissions", "-p", "v", "ana", ".*", ".*", ".*") == (0, "")
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_S)
    with broker():
        assert ctl(capsys, "-s", "list_permissions", "-p", "v") == (0, "ana\t.*\t.*\t.*\n")
        assert ctl(capsys, "-q", "authenticate_user", "ana", "pw") == (0, "")


def test_the_socket_is_beside_the_data_file_for_its_owner_only_and_goes_with_the_broker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with broker("--data", "mine.db"):
        path = Path("mine.db.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ctl(capsys, "--socket", str(path), "ping")[0] == 0
    assert not path.exists()


def test_a_socket_can_be_put_anywhere_or_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    with broker("--memory", "--control-socket", "here.sock"):
        assert ctl(capsys, "--socket", "here.sock", "-q", "ping") == (0, "")
    with broker("--control-socket", "none"):
        code, text = ctl(capsys, "ping")
        assert code == 69
        assert "no broker answers at leveret.db.sock" in text


def test_requests_that_are_none_harm_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with broker():
        path = Path("leveret.db.sock")
        for data in (b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"[" * 200_000 + b"\n", b"[]\n", b'"x"\n'):
            assert b'"code": 64' in send(path, data)
        assert b'"code": 64' in send(path, b"x" * (REQUEST_BYTES_MAX + 1))
        with connect(path, 10):
            assert ctl(capsys, "-q", "ping") == (0, "")


# places


def test_without_a_data_file_the_socket_is_named_by_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    path = Path(f"/tmp/leveret-{os.getuid()}/5673.sock")
    assert control_path(Settings(memory=True), 5673) == path == memory_path(5673)
    assert control_path(Settings(data=Path("/x/a.db")), 5673) == Path("/x/a.db.sock")
    assert control_path(Settings(control_socket="none"), 5673) is None


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    require_own(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="is not a folder of this user's alone"):
        require_own(tmp_path)
    (tmp_path / "link").symlink_to("/root")
    with pytest.raises(PermissionError):
        require_own(tmp_path / "link")


def test_a_socket_that_a_crash_left_behind_is_replaced_but_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen(path).close()
    with listen(path), connect(path, 1):
        pass
    path.unlink()
    path.write_text("mine")
    with pytest.raises(OSError, match="Address already in use"):
        listen(path)
    assert path.read_text() == "mine"


def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert len(str(deep)) > PATH_BYTES_MAX
    with listen(deep / "s"), connect(deep / "s", 1):
        assert (deep / "s").is_socket()
