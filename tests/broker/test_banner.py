"""What is printed when the broker is ready."""

from __future__ import annotations

import io
import json

from leveret.broker import banner, logs

URL = "amqp://guest:guest@127.0.0.1:5672/"


def test_the_banner_names_url_data_and_the_words_that_tools_wait_for() -> None:
    stream = io.StringIO()
    banner.startup_banner(URL, "/srv/leveret.db", True, 0.254, stream=stream)
    _, name, _, amqp, data, log, stop, _, complete = stream.getvalue().splitlines()
    assert name.startswith("  Leveret 0.1.0 (compiled, Python 3.")
    assert (amqp, data) == (f"  AMQP  {URL}", "  data  /srv/leveret.db")
    assert (log, stop) == ("  logs  here, info and above; more with --log-level debug", "  stop  Ctrl-C")
    assert complete == "Server startup complete in 0.25 s"


def test_colours_change_no_words() -> None:
    coloured = banner.render(URL, "d", False, 1.0, colours=True)
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[36m"):
        coloured = coloured.replace(code, "")
    assert coloured == banner.render(URL, "d", False, 1.0)


def test_with_json_logs_the_same_is_one_event() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    banner.startup_banner(URL, "/srv/leveret.db", False, 0.254, log_format="json")
    event = json.loads(stream.getvalue())
    assert event["event"] == "Server startup complete"
    assert (event["url"], event["data"], event["elapsed_s"]) == (URL, "/srv/leveret.db", 0.254)
