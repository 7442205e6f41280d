"""Who has the port, who has the file: read from a /proc that the test builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from leveret.broker.occupants import file_occupant, port_occupant

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242
  1: 0100007F:1629 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4343
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine where process 77 listens on port 5672 and has data.db's journal open."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TABLE)
    descriptors = tmp_path / "77" / "fd"
    descriptors.mkdir(parents=True)
    (tmp_path / "77" / "comm").write_text("beam.smp\n")
    (descriptors / "3").symlink_to("socket:[4242]")
    (descriptors / "4").symlink_to("/data/data.db-wal")
    return tmp_path


def test_the_process_that_listens_on_a_port_is_named(proc: Path) -> None:
    assert port_occupant(5672, proc) == "beam.smp, pid 77"


def test_a_connection_does_not_occupy_its_port(proc: Path) -> None:
    assert port_occupant(5673, proc) == ""


def test_the_process_that_has_a_file_beside_the_data_open_is_named(proc: Path) -> None:
    assert file_occupant(Path("/data/data.db"), proc) == "beam.smp, pid 77"


def test_other_files_of_the_same_process_do_not_count(proc: Path) -> None:
    assert file_occupant(Path("/data/data"), proc) == ""


def test_without_proc_nobody_is_named(tmp_path: Path) -> None:
    assert port_occupant(5672, tmp_path / "none") == ""
    assert file_occupant(Path("/data/data.db"), tmp_path / "none") == ""
