"""The fixture and the tests that the page on tests shows run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from leveret.broker.cli import SERVE_OPTIONS

from .broker import open_channel, running_broker

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "use-in-tests.md").read_text(encoding="utf-8")


def test_the_example_is_a_test_suite_that_passes(tmp_path: Path) -> None:
    conftest, tests = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_orders.py").write_text(tests, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_the_options_exist() -> None:
    given = set(re.findall(r"--([a-z-]+)", PAGE))
    assert given <= {name.replace("_", "-") for name in SERVE_OPTIONS}


def test_clients_assume_user_and_vhost() -> None:
    with running_broker("--memory") as url, open_channel(url) as channel:
        assert re.fullmatch(r"amqp://127\.0\.0\.1:\d+", url)
        assert channel.is_open
