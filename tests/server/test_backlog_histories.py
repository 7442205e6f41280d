"""A backlog that is paged out and read back at any moment keeps its messages, their order and the account.

Random arrivals, takings, page-outs, reads that are answered late, requeues and purges happen to the backlog
of one queue and to a list. The bodies are so large that a window has some forty messages.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

import pytest

from leveret.protocol.content import Message, encode_content, make_envelope
from leveret.protocol.properties import NO_PROPERTIES

from .harness import PERSISTENT, Broker

if TYPE_CHECKING:
    from leveret.broker.model.queues.entry import Entry
    from leveret.broker.model.turn import Load

PADDING = bytes(100_000)
STEPS = 300
BATCHES_MAX = 100


class History:
    """The backlog, the list, and a disk that is slow."""

    def __init__(self, *, durable: bool) -> None:
        broker = Broker()
        broker.channel().declare("q", durable=durable)
        broker.run()
        self.disk = broker.disk
        self.store = broker.store.store
        self.turn = broker.node.turn
        self.queue = broker.node.vhosts["/"].queues["q"]
        self.backlog = self.queue.backlog
        self.backlog.is_wanted = True
        self.waiting: list[int] = []
        self.held: list[tuple[int, Entry]] = []
        self.loads: deque[Load] = deque()
        self.arrived = 0

    # -- what happens

    def some_arrive(self, count: int, *, persistent: bool) -> None:
        envelope = make_envelope("", "q", PERSISTENT if persistent else NO_PROPERTIES)
        messages: list[Message] = []
        for number in range(self.arrived, self.arrived + count):
            body = number.to_bytes(8, "big") + PADDING
            content = encode_content(envelope.channel, envelope.frame_max, envelope.raw, body)
            messages.append(Message(envelope, content, len(body)))
            self.waiting.append(number)
        self.arrived += count
        self.backlog.append(messages, count * len(body), -1, False)

    def some_are_taken(self, count: int, *, keep: bool) -> None:
        """As `Queue.deliver` does it: as many as are at hand."""
        backlog = self.backlog
        while count and backlog.count:
            if not backlog.entry_count:
                backlog.refill()
            if backlog.entry_count:
                entries = backlog.take_entries(min(count, backlog.entry_count))
            elif backlog.ready_count:
                position = backlog.ready_position
                messages = backlog.take_ready(min(count, backlog.ready_count))
                entries = [backlog.entry_of(each, position + at) for at, each in enumerate(messages)]
            else:
                break
            count -= len(entries)
            for entry in entries:
                number = self.waiting.pop(0)
                assert int.from_bytes(entry.message.body[:8], "big") == number
                if keep:
                    self.held.append((number, entry))
                else:
                    backlog.forget_entry(entry)

    def some_come_back(self, count: int) -> None:
        returned, self.held = self.held[-count:], self.held[:-count]
        if returned:
            self.backlog.put_back([entry for _, entry in returned])
        self.waiting = sorted(self.waiting + [number for number, _ in returned])

    def memory_is_short(self) -> None:
        self.backlog.relieve()

    def the_batch_becomes_durable(self) -> None:
        batch = self.turn.close_batch()
        for queue_id, settled in batch.settled.items():
            assert all(position in self.disk.messages[queue_id] for position in settled)
        self.store.apply(batch)
        self.turn.durable = batch.number
        self.backlog.page_out(batch.number)

    def reads_are_begun(self) -> None:
        if self.queue in self.turn.loads:
            self.turn.loads.clear()
            self.loads += self.backlog.wanted_loads()

    def a_read_is_done(self) -> None:
        if self.loads:
            load = self.loads.popleft()
            rows = self.store.read(load.queue_id, load.after, load.up_to, load.limit, load.max_bytes)
            self.backlog.loaded(load.generation, rows)

    def all_is_purged(self) -> None:
        self.backlog.purge()
        self.waiting.clear()

    # -- what holds

    def check(self) -> None:
        """The count and the account are right."""
        assert self.backlog.count == len(self.waiting)
        assert self.backlog.body_bytes == len(self.waiting) * (8 + len(PADDING))
        assert self.turn.memory_bytes >= 0

    def end(self) -> None:
        """All messages come, and nothing stays."""
        for _, entry in self.held:
            self.backlog.forget_entry(entry)
        for _ in range(BATCHES_MAX):
            self.some_are_taken(self.arrived, keep=False)
            self.the_batch_becomes_durable()
            self.reads_are_begun()
            while self.loads:
                self.a_read_is_done()
        assert not self.waiting
        assert self.turn.memory_bytes == 0
        assert not any(len(messages) for messages in self.disk.messages.values())


@pytest.mark.parametrize("seed", range(20))
def test_messages_their_order_and_the_account_are_kept(seed: int) -> None:
    random = Random(seed)
    history = History(durable=bool(seed % 2))
    rarely = [history.all_is_purged]
    often = [
        lambda: history.some_arrive(random.choice([1, 30, 90]), persistent=random.random() < 0.7),
        lambda: history.some_are_taken(random.choice([1, 20, 60]), keep=random.random() < 0.3),
        lambda: history.some_come_back(random.choice([1, 5, 40])),
        history.memory_is_short,
        history.the_batch_becomes_durable,
        history.reads_are_begun,
        history.a_read_is_done,
    ]
    for _ in range(STEPS):
        random.choice(often if random.random() < 0.98 else rarely)()
        history.check()
    history.end()


def test_a_run_that_is_read_back_goes_behind_what_is_ready_without_a_state_of_its_own() -> None:
    history = History(durable=True)
    history.some_arrive(200, persistent=True)
    history.memory_is_short()
    history.the_batch_becomes_durable()
    assert history.backlog.paged_count
    ready = history.backlog.ready_count
    history.some_are_taken(ready - 2, keep=False)
    history.some_are_taken(1, keep=False)
    history.reads_are_begun()
    history.a_read_is_done()
    assert history.backlog.ready_count > 1
    assert history.backlog.entry_count == 0
    assert not history.backlog.relieve()  # what is read ahead would be read again
    history.end()


def test_messages_with_gaps_between_them_are_read_back_with_their_own_positions() -> None:
    history = History(durable=True)
    history.some_arrive(200, persistent=True)
    history.the_batch_becomes_durable()
    for position in (30, 31, 33, 60):
        history.turn.batch.settle(history.queue.id, position, 8 + len(PADDING))
        history.waiting.remove(position - 1)
    history.the_batch_becomes_durable()
    history.backlog.clear()
    left = len(history.waiting)
    history.backlog.restore(left, left * (8 + len(PADDING)), 1, 200, 0, watch=False)
    history.end()


def test_the_end_of_what_is_ready_is_paged_out_though_more_has_been_read_back_behind_it() -> None:
    history = History(durable=True)
    history.some_arrive(300, persistent=True)
    for _ in range(3):
        history.memory_is_short()
        history.the_batch_becomes_durable()
    history.memory_is_short()
    history.some_are_taken(history.backlog.ready_count - 2, keep=False)
    history.some_are_taken(1, keep=True)
    history.reads_are_begun()
    history.a_read_is_done()
    history.the_batch_becomes_durable()
    history.end()


def test_what_is_read_back_while_messages_in_front_of_it_are_paged_out_is_read_again() -> None:
    history = History(durable=True)
    history.some_arrive(200, persistent=True)
    for _ in range(2):
        history.memory_is_short()
        paged = history.backlog.paged_count
        if not paged:
            history.the_batch_becomes_durable()
    history.some_are_taken(144, keep=False)  # of those that are to be paged out only a few are left
    history.some_are_taken(1, keep=False)
    history.reads_are_begun()
    assert history.loads
    history.the_batch_becomes_durable()
    assert history.backlog.paged_count > paged
    history.a_read_is_done()
    history.end()
