"""`leveret ctl trace_on` and `trace_off`. The texts are those of RabbitMQ 3.10's rabbitmqctl."""

from __future__ import annotations

import pytest

from .test_ctl import Ctl


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(capsys)


def test_tracing_is_switched_on_and_off(ctl: Ctl) -> None:
    out = 'Starting tracing for vhost "/" ...\nTrace enabled for vhost /\n'
    assert ctl.run("trace_on") == (0, out, "")
    assert ctl.rows("list_vhosts", "name", "tracing") == [{"name": "/", "tracing": True}]
    out = 'Stopping tracing for vhost "/" ...\nTrace disabled for vhost /\n'
    assert ctl.run("trace_off") == (0, out, "")
    assert ctl.rows("list_vhosts", "tracing") == [{"tracing": False}]


def test_a_vhost_that_does_not_exist_cannot_be_traced(ctl: Ctl) -> None:
    assert ctl.refused("trace_on", "-p", "nope") == (65, "Virtual host 'nope' does not exist")


def test_what_is_published_while_it_is_on_is_copied(ctl: Ctl) -> None:
    channel = ctl.broker.channel()
    channel.declare("q")
    channel.declare("copies")
    channel.bind("copies", "amq.rabbitmq.trace", "publish.#")
    ctl.ok("trace_on")
    channel.publish("q", b"a")
    ctl.ok("trace_off")
    channel.publish("q", b"b")
    assert channel.drain("copies") == [b"a"]
