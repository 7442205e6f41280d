"""Small batches are durable as records before there are rows of them, and the rows come behind."""

from __future__ import annotations

import errno
import os
import select
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from leveret.broker.server.committer import Applied, Committer, Failed, Written
from leveret.broker.server.write_behind import FEW, QUIET_MS, RECORD_ENTRIES_MAX, ROW_MS, ROWS_BEHIND_MS
from leveret.storage.batch import Batch
from leveret.storage.changes import MAX_POSITION, QueueDeclared, QueueDelivered
from leveret.storage.direct_io import DirectWriter
from leveret.storage.redo_log import RECORD_BATCH_BYTES_MAX, log_path
from leveret.storage.sqlite import SqliteStore
from leveret.storage.store import StoreError
from leveret.storage.stored import StoredMessage, each_of

from .harness import PERSISTENT, Broker, ChannelOfTest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from leveret.broker.server.committer import Answer

PATIENCE_S = 20


def rows(broker: Broker) -> dict[int, int]:
    """How many messages of each queue have a row."""
    return {queue_id: len(messages) for queue_id, messages in broker._disk.messages.items() if len(messages)}


@pytest.fixture
def broker() -> Broker:
    """A broker with a redo log."""
    return Broker(has_redo_log=True)


@pytest.fixture
def channel(broker: Broker) -> ChannelOfTest:
    """A channel with confirms, and a durable queue."""
    channel = broker.channel()
    channel.confirm()
    channel.declare("q", durable=True)
    broker.advance(ROWS_BEHIND_MS)
    return channel


def publish(channel: ChannelOfTest, *bodies: bytes) -> None:
    """Publish persistent messages, all at once."""
    channel.publish_all("q", *bodies, properties=PERSISTENT)


class TestRowsBehind:
    """A broker with a redo log."""

    def test_a_message_is_confirmed_before_it_has_a_row(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1")
        assert channel.confirms() == ["ack 1"]
        assert not rows(broker)
        broker.crash()
        assert broker.channel().drain("q") == [b"1"]

    def test_its_row_comes_soon(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1")
        broker.advance(QUIET_MS - 1)
        assert not rows(broker)
        broker.advance(1)
        assert rows(broker) == {1: 1}

    def test_its_row_comes_a_little_later_while_others_come(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        for number in range(ROWS_BEHIND_MS):
            publish(channel, b"%d" % number)
            assert not rows(broker)
            broker.advance(1)
        assert rows(broker) == {1: ROWS_BEHIND_MS}

    def test_its_row_comes_when_a_connection_is_closed(self, broker: Broker, channel: ChannelOfTest) -> None:
        other = broker.connect()
        publish(channel, b"1")
        other.vanish()
        assert rows(broker) == {1: 1}

    def test_a_message_that_is_consumed_before_never_has_one(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        channel.consume("q", no_ack=True)
        broker.advance(ROWS_BEHIND_MS)
        written = broker._disk.recorded
        for number in range(10):
            publish(channel, b"%d" % number)
            broker.advance(1)
        broker.advance(2 * ROWS_BEHIND_MS)
        assert not rows(broker)
        assert broker._disk.recorded == written  # nothing was applied at all
        broker.crash()
        assert broker.channel().drain("q") == []

    def test_a_large_batch_has_rows_when_it_is_confirmed(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        publish(channel, b"first")
        publish(channel, *[b"x"] * (RECORD_ENTRIES_MAX + 1))
        assert rows(broker) == {1: RECORD_ENTRIES_MAX + 2}
        publish(channel, b"x" * RECORD_BATCH_BYTES_MAX)
        assert rows(broker) == {1: RECORD_ENTRIES_MAX + 3}

    def test_hundreds_of_acks_at_once_are_recorded(self, broker: Broker, channel: ChannelOfTest) -> None:
        bodies = [b"%d" % number for number in range(2 * RECORD_ENTRIES_MAX)]
        for body in bodies:
            publish(channel, body)
        taker = broker.channel()
        taker.consume("q")
        assert taker.bodies() == bodies
        assert len(broker.disk.messages[1]) == len(bodies)
        taker.ack(0, multiple=True)
        broker.advance(5)
        assert rows(broker) == {1: len(bodies)}  # it is durable, and the rows go later
        broker.crash()
        assert broker.channel().drain("q") == []

    def test_a_batch_goes_to_the_disk_after_the_output_to_the_clients(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        written = broker.store.batches_written
        node, session = broker.node, channel.client.session
        node.begin_turn()
        session.receive(channel.client.peer.publish(1, "", "q", b"1", PERSISTENT))
        node.end_turn()
        assert broker.store.batches_written == written
        node.hand_over()
        assert broker.store.batches_written == written + 1

    def test_a_queue_that_is_gone_before_has_no_row_either(
        self, broker: Broker, channel: ChannelOfTest
    ) -> None:
        channel.declare("short", durable=True)
        channel.publish("short", b"1", properties=PERSISTENT)
        channel.delete("short")
        assert [queue.name for queue in broker.disk.queues.values()] == ["q"]
        assert not rows(broker)

    def test_messages_go_to_disk_for_want_of_memory_only_when_they_have_rows(self) -> None:
        broker = Broker(has_redo_log=True, message_memory_bytes=20_000)
        channel = broker.channel()
        channel.confirm()
        channel.declare("q", durable=True)
        bodies = [b"%d" % number for number in range(3000)]
        for body in bodies:
            publish(channel, body)
        assert broker.node.turn.memory_bytes < 2_000_000
        assert channel.drain("q") == bodies

    def test_acks_are_durable_within_milliseconds(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1", b"2")
        assert channel.get("q") is not None
        broker.advance(5)
        broker.hold_store()
        assert channel.get("q") is not None
        broker.advance(5)
        broker.crash()
        assert broker.channel().drain("q") == [b"2"]

    def test_tx_commit_ok_waits_for_no_others(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1")
        taker = channel.client.channel(2)
        taker.call(commands.Tx.Select)
        taker.get("q", no_ack=False)
        taker.ack(1)
        taker.call(commands.Tx.Commit)  # time stands still, and it is answered
        broker.store.is_patient = False
        broker.hold_store()  # so that nothing of what follows is durable
        broker.crash()
        assert broker.channel().drain("q") == []

    def test_after_a_stop_everything_has_a_row(self, broker: Broker, channel: ChannelOfTest) -> None:
        publish(channel, b"1")
        broker.stop()
        assert rows(broker) == {1: 1}


class Runner:
    """A committer on a data file, and the loop's part of it."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path, describe=lambda _: None)
        self.store.load()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.committer = Committer(self.store, lambda: os.eventfd_write(self.fd, 1), self.fd)
        self.now_ms = 0
        self.number = 0

    def batch(self, *bodies: bytes) -> Batch:
        """A batch that enqueues messages, the first with their queue."""
        self.number += 1
        batch = Batch(self.number)
        if self.number == 1:
            batch.definitions.append(QueueDeclared(1, "/", "q", False, b""))
        batch.enqueue(1, 100 * self.number, [Content(body) for body in bodies])
        batch.definitions.append(QueueDelivered(1, self.number))
        return batch

    def write(self, batch: Batch) -> list[Answer]:
        """Write a batch, and return all answers until it is written."""
        self.committer.write(batch, False)
        return self.until(Written)

    def messages(self) -> list[StoredMessage]:
        """Messages that have rows."""
        return each_of(self.store.read(1, 0, MAX_POSITION, 100, 1000))

    def until(self, kind: type) -> list[Answer]:
        """Return answers up to one of a kind."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        answers: list[Answer] = []
        deadline = time.monotonic() + PATIENCE_S
        while not any(isinstance(answer, kind) for answer in answers):
            assert time.monotonic() < deadline
            if poll.poll(100):
                os.eventfd_read(self.fd)
            answers += self.committer.answers(self.now_ms)
        return answers

    def await_log(self) -> None:
        """Write batches until there is a log."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.committer.settling_waits_ms:
            if time.monotonic() > deadline:
                pytest.skip("no direct I/O here")
            self.write(self.batch())


class Content:
    """A message."""

    exchange = ""
    routing_key = "q"
    properties = b"\x10\x00\x02"
    dead_lettered = False

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.body_bytes = len(body)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A committer whose store has a log."""
    runner = Runner(tmp_path / "leveret.db")
    runner.write(runner.batch(b"1"))
    runner.await_log()
    yield runner
    os.close(runner.fd)


class TestCommitter:
    """With threads, and a disk."""

    def test_the_first_batch_does_not_wait_for_the_log(self, tmp_path: Path) -> None:
        runner = Runner(tmp_path / "leveret.db")
        assert [type(answer) for answer in runner.write(runner.batch(b"1"))] == [Applied, Written]
        assert runner.committer.close() == []
        os.close(runner.fd)

    def test_a_batch_is_written_first_and_applied_later(self, runner: Runner) -> None:
        assert [type(answer) for answer in runner.write(runner.batch(b"2"))] == [Written]
        assert [message.body for message in runner.messages()] == [b"1"]
        assert runner.committer.next_wake_ms() == QUIET_MS
        runner.now_ms = QUIET_MS
        assert runner.committer.answers(runner.now_ms) == []
        assert runner.committer.next_wake_ms() == 0
        assert runner.until(Applied) == [Applied(runner.number)]
        assert [message.body for message in runner.messages()] == [b"1", b"2"]
        assert runner.committer.close() == []

    def test_a_few_batches_now_and_then_are_applied_at_once(self, runner: Runner) -> None:
        for _ in range(2 * FEW):
            runner.now_ms += ROW_MS + 1
            runner.committer.answers(runner.now_ms)
            assert Applied(runner.number + 1) in runner.write(runner.batch(b"x"))
        assert runner.committer.close() == []

    def test_what_must_be_readable_is_applied_at_once(self, runner: Runner) -> None:
        runner.write(runner.batch(b"2"))
        runner.committer.write(runner.batch(b"3"), True)
        runner.until(Written)
        assert [message.body for message in runner.messages()] == [b"1", b"2", b"3"]
        assert runner.committer.close() == []

    def test_an_older_copy_of_the_data_file_is_not_mixed_with_later_records(
        self, runner: Runner, tmp_path: Path
    ) -> None:
        shutil.copy(tmp_path / "leveret.db-wal", tmp_path / "older-wal")
        runner.committer.write(runner.batch(b"3"), True)
        runner.until(Written)
        runner.write(runner.batch(b"4"))
        (tmp_path / "older").mkdir()
        shutil.copy(tmp_path / "leveret.db", tmp_path / "older")
        shutil.copy(tmp_path / "older-wal", tmp_path / "older" / "leveret.db-wal")
        shutil.copy(log_path(tmp_path / "leveret.db"), tmp_path / "older")
        assert runner.committer.close() == []
        store = SqliteStore(tmp_path / "older" / "leveret.db", describe=lambda _: None)
        with pytest.raises(StoreError, match="replaced by an older copy"):
            store.load()
        store.close()

    def test_closing_makes_all_rows_and_leaves_no_log(self, runner: Runner, tmp_path: Path) -> None:
        runner.write(runner.batch(b"2"))
        runner.committer.write(runner.batch(b"3"), False)
        assert runner.committer.close() == []
        assert not log_path(tmp_path / "leveret.db").exists()
        store = SqliteStore(tmp_path / "leveret.db", describe=lambda _: None)
        assert store.load().queues[0].messages == 3
        store.close()

    def test_a_record_that_cannot_be_written_is_a_failure_and_the_log_stays(
        self, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner.write(runner.batch(b"confirmed"))

        def fail(writer: DirectWriter) -> bool:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(DirectWriter, "finish", fail)
        runner.committer.write(runner.batch(b"lost"), False)
        (failed,) = runner.until(Failed)
        assert isinstance(failed, Failed)
        assert runner.committer.close() == []
        assert log_path(tmp_path / "leveret.db").exists()
        store = SqliteStore(tmp_path / "leveret.db", describe=lambda _: None)
        assert store.load().queues[0].messages in (2, 3)
        store.close()

    def test_a_store_without_a_log_applies_every_batch(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "leveret.db", describe=lambda _: None)
        store.load()
        written: list[int] = []
        committer = Committer(store, lambda: written.append(1))
        batch = Batch(1)
        batch.definitions.append(QueueDeclared(1, "/", "q", False, b""))
        committer.write(batch, False)
        committer.close()
        assert committer.settling_waits_ms == 0
