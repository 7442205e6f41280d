"""CPU time and size of a broker with all its children, and finding it by its port, in a made-up /proc."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from leveret.broker.bench.processes import BrokerProcesses, listening_pid

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def add_process(
    proc: Path, pid: int, *, cpu_s: int, pages: int, children: str = "", name: str = "beam"
) -> None:
    fields = ["S", *["0"] * 10, str(cpu_s * TICKS), "0", *["0"] * 8, str(pages), *["0"] * 5]
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def add_socket(proc: Path, pid: int, *, port: int, state: str = "0A", table: str = "tcp") -> None:
    net, descriptors = proc / "net", proc / str(pid) / "fd"
    net.mkdir(exist_ok=True)
    descriptors.mkdir(parents=True, exist_ok=True)
    place = f"0100007F:{port:04X} 00000000:0000 {state}"
    line = f"   0: {place} 00000000:00000000 00:00000000 00000000 0 0 {pid}77 1\n"
    with (net / table).open("a") as file:
        file.write((HEADER if file.tell() == 0 else "") + line)
    (descriptors / "5").symlink_to(f"socket:[{pid}77]")


def test_children_of_children_count(tmp_path: Path) -> None:
    add_process(tmp_path, 10, cpu_s=1, pages=100, children="11 ")
    add_process(tmp_path, 11, cpu_s=2, pages=20, children="12")
    add_process(tmp_path, 12, cpu_s=4, pages=3, name="a) (b")
    broker = BrokerProcesses(10, tmp_path)
    assert broker.exists()
    assert broker.cpu_seconds() == 7
    assert broker.rss_bytes() == 123 * PAGE


def test_the_highest_size_is_kept(tmp_path: Path) -> None:
    add_process(tmp_path, 10, cpu_s=0, pages=100)
    broker = BrokerProcesses(10, tmp_path)
    broker.sample_rss()
    stat = tmp_path / "10" / "stat"
    stat.write_text(stat.read_text().replace(" 100 ", " 40 "))
    broker.sample_rss()
    assert broker.peak_rss_bytes == 100 * PAGE


def test_a_process_that_has_ended_uses_nothing(tmp_path: Path) -> None:
    broker = BrokerProcesses(10, tmp_path)
    assert not broker.exists()
    assert (broker.cpu_seconds(), broker.rss_bytes()) == (0, 0)


@pytest.mark.parametrize("table", ["tcp", "tcp6"])
def test_a_broker_is_found_by_its_port(tmp_path: Path, table: str) -> None:
    add_socket(tmp_path, 10, port=5671, table=table)
    add_socket(tmp_path, 20, port=5672, table=table)
    assert listening_pid(5672, tmp_path) == 20


def test_a_client_of_the_port_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    add_socket(tmp_path, 10, port=5672, state="01")
    add_socket(tmp_path, 20, port=5672)
    assert listening_pid(5672, tmp_path) == 20


def test_a_broker_that_is_hidden_or_not_there_is_not_found(tmp_path: Path) -> None:
    assert listening_pid(5672, tmp_path) is None
    add_socket(tmp_path, 10, port=5672)
    (tmp_path / "10" / "fd" / "5").unlink()
    assert listening_pid(5672, tmp_path) is None


def test_this_process_is_found_by_a_port_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listening_pid(listener.getsockname()[1]) == os.getpid()
