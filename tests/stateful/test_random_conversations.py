"""Whatever clients say, in whatever order: the broker answers as the reference does.

Two connections with three channels each - a plain one, one with confirms, one with transactions - talk to a
broker and to `reference.py`, which is the place to learn the rules. After every step all that the channels
were sent is compared; at the end, all that is left in the queues.

`make stateful RUNS=20000` plays more conversations than a test run does, and other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pamqp import commands

from leveret.protocol import properties
from leveret.protocol.tables import Field, Table, array, integer, longstr

from ..peer import Content, Event, Method
from ..server.harness import START_MS, Broker, ChannelOfTest, Refused, delivery_tag, is_redelivered
from . import entities
from .entities import (
    Binding,
    Cancelled,
    Confirmed,
    Death,
    Delivered,
    Exchange,
    Message,
    QueueRules,
    Returned,
)
from .reference import Reference

T = TypeVar("T")

RUNS = int(os.environ.get("STATEFUL_RUNS", "0"))
RUNS_OF_A_TEST = 500
STEPS = 50
SECOND = 1000  # a step takes a millisecond, so that deadlines of different steps never meet

MODES = ("plain", "confirms", "transactions")  # of the channels 1, 2 and 3 of a connection
QUEUES = ("q1", "q2", "q3", "q4")
EXCHANGES = ("e1", "e2", "e3")
KEYS = ("a", "a.b", "b", *QUEUES)
BINDING_KEYS = (*KEYS, "#", "*", "a.*", "*.b.#", "")
CRITERIA = ((), (("h", "1"),), (("h", "1"), ("i", "2")), (("x-match", "any"), ("h", "1"), ("i", "2")))
HEADERS = ((), (("h", "1"),), (("h", "1"), ("i", "2")), (("i", "1"),))

LIVES = (
    QueueRules(durable=True),
    QueueRules(durable=True),
    QueueRules(),
    QueueRules(exclusive=True),
    QueueRules(durable=True, auto_delete=True),
    QueueRules(durable=True, expires_ms=5 * SECOND),
)
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"max_length": 2},
    {"max_length": 0},
    {"max_bytes": 12},
    {"max_length": 3, "max_bytes": 12, "overflow": "reject-publish"},
    {"max_length": 1, "overflow": "reject-publish-dlx"},
    {"single_active": True},
    {"max_priority": 2},
    {"max_priority": 2, "max_length": 2},
)
TTLS = (None, None, None, 0, 2)
DEAD_LETTERS: tuple[dict[str, Any], ...] = (
    {},
    {"dead_letter_exchange": ""},
    {"dead_letter_exchange": "e1"},
    {"dead_letter_exchange": "amq.fanout"},
    {"dead_letter_exchange": "", "dead_letter_key": "q1"},
    {"dead_letter_exchange": "e2", "dead_letter_key": "q2"},
)
EXCHANGE_TYPES = ("direct", "fanout", "topic", "headers")
EXCHANGE_LIVES: tuple[dict[str, Any], ...] = (
    {"durable": True},
    {},
    {"durable": True, "auto_delete": True},
    {"internal": True},
)
ALTERNATES = (None, None, "e1", "amq.fanout")

number = st.integers(0, 255)  # which of some things, however many there are
queue_rules = st.tuples(
    st.sampled_from(LIVES), st.sampled_from(LIMITS), st.sampled_from(TTLS), st.sampled_from(DEAD_LETTERS)
)


def nth(things: Collection[T], which: int) -> T:
    """Choose one of some things."""
    return list(things)[which % len(things)]


@dataclass(eq=False)
class Line:
    """A channel on both sides."""

    number: int
    mode: str
    model: entities.Channel
    real: ChannelOfTest
    confirmed: int = 0  # up to this publish
    earlier: tuple[entities.Sent, ...] = ()  # what was sent in this step before the channel was closed


class Conversation(RuleBasedStateMachine):
    """A broker, its reference, and two connections."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(has_redo_log=True)
        self.model = Reference(START_MS, self.witness)
        self.messages = 0
        self.tags = 0
        self.lines: list[Line] = []
        for _ in range(2):
            self.connect()

    # -- connections and channels

    def connect(self) -> None:
        client, connection = self.broker.connect(), self.model.connect()
        for number, mode in enumerate(MODES, 1):
            channel = client.channel(number)
            line = Line(number, mode, connection.open(), channel)
            self.lines.append(line)
            self.choose_mode(line)

    def choose_mode(self, line: Line) -> None:
        if line.mode == "confirms":
            line.real.confirm()
            line.model.confirms = True
        elif line.mode == "transactions":
            line.real.call(commands.Tx.Select)
            line.model.transaction = entities.Transaction()

    @rule(which=number, what=st.sampled_from(["channel", "connection", "socket"]))
    def close(self, which: int, what: str) -> None:
        line = nth(self.lines, which)
        self.pass_a_moment()
        if what == "channel":
            line.real.close()
            self.model.close_channel(line.model)
            line.real.call(commands.Channel.Open)
            self.begin_again(line)
            self.compare()
            return
        client = line.real.client
        self.model.close_connection(line.model.connection)
        self.lines = [other for other in self.lines if other.real.client is not client]
        if what == "connection":
            client.close()
        else:
            client.vanish()
        self.compare()
        self.connect()

    def begin_again(self, line: Line) -> None:
        """Go on with a channel that was opened again."""
        self.model.settle_down()
        line.earlier = tuple(line.model.outbox)
        line.model = line.model.connection.open()
        line.confirmed = 0
        self.choose_mode(line)

    # -- time and the disk

    @rule(seconds=st.sampled_from([1, 2, 5]))
    def wait(self, seconds: int) -> None:
        self.broker.advance(seconds * SECOND)
        self.model.advance(seconds * SECOND)
        self.compare()

    @rule(how=st.sampled_from(["restart", "crash", "crash in the midst of a publish"]), which=number)
    def restart(self, how: str, which: int) -> None:
        if how == "restart":
            self.model.restart()
            self.broker.restart()
        else:
            if how != "crash":
                self.broker.hold_store()
                persistent = properties.replace(delivery_mode=2)
                nth(self.lines, which).real.publish(nth(QUEUES, which), b"lost", properties=persistent)
            self.model.crash()
            self.broker.crash()
        self.lines = []
        for _ in range(2):
            self.connect()

    # -- queues, exchanges, bindings

    @initialize(rules=st.tuples(queue_rules, queue_rules))
    def begin(self, rules: tuple[Any, Any]) -> None:
        self.declare_a_queue(0, 0, rules[0])
        self.declare_a_queue(1, 1, rules[1])

    @rule(which=number, name=number, rules=queue_rules)
    def declare_a_queue(
        self,
        which: int,
        name: int,
        rules: tuple[QueueRules, dict[str, Any], int | None, dict[str, Any]],
    ) -> None:
        line = nth(self.lines, which)
        chosen = nth(self.free(QUEUES, self.model.queues), name)
        life, limit, ttl, dead_letter = rules
        ttl_ms = None if ttl is None else ttl * (1 + QUEUES.index(chosen)) * SECOND
        wanted = QueueRules(**{**vars(life), "ttl_ms": ttl_ms, **limit, **dead_letter})
        self.both(
            line,
            lambda: self.model.declare_queue(line.model, chosen, wanted),
            lambda: self.declare(line, chosen, wanted),
        )

    @precondition(lambda self: self.model.queues)
    @rule(which=number, name=number)
    def declare_a_queue_again(self, which: int, name: int) -> None:
        line = nth(self.lines, which)
        queue = nth(self.model.queues.values(), name)
        self.both(
            line,
            lambda: self.model.declare_queue(line.model, queue.name, queue.rules),
            lambda: self.declare(line, queue.name, queue.rules),
        )

    def free(self, names: Collection[str], taken: Collection[str]) -> list[str]:
        """Return the names that nothing has yet, or if there is none, all."""
        return [name for name in names if name not in taken] or list(names)

    def a_queue(self, which: int) -> str:
        """Choose a queue: one that is there, once in a while one that is not."""
        return nth(QUEUES, which) if which % 8 == 7 else nth(self.model.queues or QUEUES, which)

    def declare(self, line: Line, name: str, rules: QueueRules) -> tuple[int, int]:
        reply = line.real.call(
            commands.Queue.Declare,
            queue=name,
            durable=rules.durable,
            exclusive=rules.exclusive,
            auto_delete=rules.auto_delete,
            arguments=arguments_of(rules),
        ).method
        assert isinstance(reply, commands.Queue.DeclareOk)
        return reply.message_count or 0, reply.consumer_count or 0

    @rule(which=number, queue=number)
    def count(self, which: int, queue: int) -> None:
        line, name = nth(self.lines, which), self.a_queue(queue)
        self.both(line, lambda: self.model.count(line.model, name), lambda: line.real.counts(name))

    @rule(which=number, queue=number, how=st.sampled_from(["purge", "delete", "if unused", "if empty"]))
    def purge_or_delete(self, which: int, queue: int, how: str) -> None:
        line, name = nth(self.lines, which), self.a_queue(queue)
        if how == "purge":
            self.both(line, lambda: self.model.purge(line.model, name), lambda: line.real.purge(name))
            return
        flags = {"if_unused": how == "if unused", "if_empty": how == "if empty"}
        self.both(
            line,
            lambda: self.model.delete_queue(line.model, name, **flags),
            lambda: line.real.delete(name, **flags),
        )

    @rule(
        which=number,
        which_name=number,
        kind=st.sampled_from(EXCHANGE_TYPES),
        life=st.sampled_from(EXCHANGE_LIVES),
        alternate=st.sampled_from(ALTERNATES),
    )
    def declare_an_exchange(
        self, which: int, which_name: int, kind: str, life: dict[str, Any], alternate: str | None
    ) -> None:
        line = nth(self.lines, which)
        name = nth(self.free(EXCHANGES, self.model.exchanges), which_name)
        exchange = Exchange(name, kind, alternate=alternate, **life)
        arguments = {} if alternate is None else {"alternate-exchange": alternate}
        self.both(
            line,
            lambda: self.model.declare_exchange(exchange),
            lambda: line.real.declare_exchange(name, kind, arguments=arguments, **life),
        )

    @rule(which=number, name=st.sampled_from(EXCHANGES), if_unused=st.booleans())
    def delete_an_exchange(self, which: int, name: str, if_unused: bool) -> None:
        line = nth(self.lines, which)
        self.both(
            line,
            lambda: self.model.delete_exchange(name, if_unused),
            lambda: none(line.real.call(commands.Exchange.Delete, exchange=name, if_unused=if_unused)),
        )

    @rule(
        which=number,
        source=number,
        destination=number,
        key=st.sampled_from(BINDING_KEYS),
        arguments=st.sampled_from(CRITERIA),
    )
    def bind(
        self, which: int, source: int, destination: int, key: str, arguments: tuple[tuple[str, str], ...]
    ) -> None:
        line = nth(self.lines, which)
        sources = [exchange for exchange in self.model.exchanges if exchange]
        ends = [(False, name) for name in self.model.queues] * 2 + [(True, name) for name in sources]
        to_exchange, end = nth(ends, destination)
        binding = Binding(nth(sources, source), to_exchange, end, key, arguments)
        self.both(
            line,
            lambda: self.model.bind(line.model, binding),
            lambda: self.send_binding(line, binding, commands.Queue.Bind, commands.Exchange.Bind),
        )

    @precondition(lambda self: self.model.bindings)
    @rule(which=number, binding=number)
    def unbind(self, which: int, binding: int) -> None:
        line = nth(self.lines, which)
        chosen = nth(self.model.bindings, binding)
        self.both(
            line,
            lambda: self.model.unbind(line.model, chosen),
            lambda: self.send_binding(line, chosen, commands.Queue.Unbind, commands.Exchange.Unbind),
        )

    def send_binding(self, line: Line, binding: Binding, for_queue: Any, for_exchange: Any) -> None:  # noqa: ANN401
        if binding.to_exchange:
            ends = {"source": binding.source, "destination": binding.destination}
        else:
            ends = {"exchange": binding.source, "queue": binding.destination}
        method = for_exchange if binding.to_exchange else for_queue
        line.real.call(method, routing_key=binding.key, arguments=dict(binding.arguments), **ends)

    # -- publishing

    @rule(
        which=number,
        exchange=number,
        key=st.sampled_from(KEYS),
        headers=st.sampled_from(HEADERS),
        cc=st.sampled_from([(), (), ("b",), ("q1", "a")]),
        persistent=st.booleans(),
        mandatory=st.booleans(),
    )
    def publish(
        self,
        which: int,
        exchange: int,
        key: str,
        headers: tuple[tuple[str, str], ...],
        cc: tuple[str, ...],
        persistent: bool,
        mandatory: bool,
    ) -> None:
        message = self.make_message(headers=headers, cc=cc, persistent=persistent)
        self.send_all(which, nth(self.model.exchanges, exchange), key, [message], mandatory)

    @rule(
        which=number,
        queue=number,
        count=st.sampled_from([1, 1, 2, 5]),
        size=st.sampled_from([3, 8, 20]),
        ttl=st.sampled_from([None, None, 0, 3]),
        priority=st.sampled_from([0, 0, 1, 2, 5]),
        persistent=st.booleans(),
    )
    def publish_to_a_queue(
        self, which: int, queue: int, count: int, size: int, ttl: int | None, priority: int, persistent: bool
    ) -> None:
        name = self.a_queue(queue)
        rules = self.model.queues[name].rules if name in self.model.queues else QueueRules()
        if rules.ttl_ms is None and rules.dead_letter_exchange is None and persistent:
            ttl = (
                None  # after a restart it expires when somebody reads the queue: counts are wrong until then
            )
        ttl_ms = None if ttl is None else ttl * SECOND
        messages = [
            self.make_message(size, ttl_ms=ttl_ms, priority=priority, persistent=persistent)
            for _ in range(count)
        ]
        self.send_all(which, "", name, messages, mandatory=False)

    def make_message(self, size: int = 5, **fields: Any) -> Message:  # noqa: ANN401
        self.messages += 1
        return Message(b"%d" % self.messages + b"." * (size - len(str(self.messages))), **fields)

    def send_all(self, which: int, exchange: str, key: str, messages: list[Message], mandatory: bool) -> None:
        line = nth(self.lines, which)

        def expected() -> None:
            for message in messages:
                self.model.publish(line.model, exchange, key, message, mandatory=mandatory)

        def actual() -> None:
            with line.real.client.at_once():
                for message in messages:
                    line.real.publish(
                        key,
                        message.body,
                        exchange=exchange,
                        properties=properties_of(message),
                        mandatory=mandatory,
                    )

        self.both(line, expected, actual)

    @precondition(lambda self: any(queue.rules.survives for queue in self.model.queues.values()))
    @rule(which=number, queue=number)
    def confirms_wait_for_the_disk(self, which: int, queue: int) -> None:
        line = [line for line in self.lines if line.mode == "confirms"][which % 2]
        name = nth([name for name, queue in self.model.queues.items() if queue.rules.survives], queue)
        message = self.make_message(persistent=True)
        self.broker.hold_store()
        line.real.publish(name, message.body, properties=properties_of(message))
        is_early = any(
            isinstance(event, Method) and event.name == "Basic.Ack" for event in line.real.client.inbox
        )
        self.broker.release_store()
        self.model.publish(line.model, "", name, message)
        self.compare()
        kept = [entry.message.body for entry in self.model.queues[name].ready]
        assert not (is_early and message.body in kept)

    # -- consuming

    @rule(which=number, queue=number, no_ack=st.booleans())
    def get(self, which: int, queue: int, no_ack: bool) -> None:
        line, name = nth(self.lines, which), self.a_queue(queue)

        def expected() -> object:
            got = self.model.get(line.model, name, no_ack=no_ack)
            if got is None:
                return None
            tag, entry, left = got
            return tag, Either(entry.redelivered), told(entry.message), left

        def actual() -> object:
            content = line.real.get(name, no_ack=no_ack)
            if content is None:
                return None
            assert isinstance(content.method, commands.Basic.GetOk)
            left = content.method.message_count
            return delivery_tag(content), is_redelivered(content), seen(content), left

        self.both(line, expected, actual)

    @rule(
        which=number,
        queue=number,
        how=st.sampled_from(["", "", "", "no ack", "exclusive"]),
        priority=st.sampled_from([0, 0, 0, 5]),
    )
    def consume(self, which: int, queue: int, how: str, priority: int) -> None:
        line, name = nth(self.lines, which), self.a_queue(queue)
        self.tags += 1
        tag = f"c{self.tags}"
        flags = {"no_ack": how == "no ack", "exclusive": how == "exclusive"}
        self.both(
            line,
            lambda: self.model.consume(line.model, name, tag, priority=priority, **flags),
            lambda: line.real.consume(name, tag, arguments={"x-priority": priority}, **flags),
        )

    @precondition(lambda self: any(line.model.consumers for line in self.lines))
    @rule(which=number)
    def cancel(self, which: int) -> None:
        line, tag = nth([(line, tag) for line in self.lines for tag in line.model.consumers], which)
        self.both(line, lambda: self.model.cancel(line.model, tag), lambda: line.real.cancel(tag))

    @rule(which=number, count=st.sampled_from([0, 1, 2, 3]), globally=st.booleans())
    def limit(self, which: int, count: int, globally: bool) -> None:
        line = nth(self.lines, which)
        self.both(
            line,
            lambda: self.model.qos(line.model, count, globally=globally),
            lambda: line.real.qos(count, globally=globally),
        )

    # -- settling

    @precondition(lambda self: any(line.model.unacked for line in self.lines))
    @rule(
        which=number,
        how=st.sampled_from(["ack", "ack", "requeue", "reject"]),
        multiple=st.booleans(),
        by_nack=st.booleans(),
    )
    def settle(self, which: int, how: str, multiple: bool, by_nack: bool) -> None:
        line, tag = nth([(line, tag) for line in self.lines for tag in line.model.unacked], which)
        self.send_settlement(line, tag, how, multiple, by_nack)

    @precondition(lambda self: self.model.queues)
    @rule(which=number, queue=number, order=st.permutations(range(4)))
    def get_some_and_give_them_back(self, which: int, queue: int, order: list[int]) -> None:
        line = nth(self.lines, which)
        before = line.model.delivery_tags
        for _ in order:
            self.get(which, queue, no_ack=False)
        for index in order:
            if before + index + 1 in line.model.unacked:
                self.send_settlement(line, before + index + 1, "requeue", False, True)

    @precondition(lambda self: any(line.model.unacked for line in self.lines))
    @rule(which=number, how=st.sampled_from(["ack", "requeue", "reject"]))
    def settle_everything(self, which: int, how: str) -> None:
        line = nth([line for line in self.lines if line.model.unacked], which)
        self.send_settlement(line, 0, how, True, True)

    @rule(which=number, what=st.sampled_from(["publish", "ack", "requeue", "reject"]), tag=number)
    def make_a_mistake(self, which: int, what: str, tag: int) -> None:
        if what == "publish":
            self.send_all(which, "missing", "a", [self.make_message()], mandatory=True)
        else:
            self.send_settlement(nth(self.lines, which), tag % 4, what, False, True)

    def send_settlement(self, line: Line, tag: int, how: str, multiple: bool, by_nack: bool) -> None:
        def actual() -> None:
            if how == "ack":
                line.real.ack(tag, multiple=multiple)
            elif multiple or by_nack:
                line.real.nack(tag, multiple=multiple, requeue=how == "requeue")
            else:
                line.real.reject(tag, requeue=how == "requeue")

        self.both(line, lambda: self.model.settle(line.model, tag, how, multiple=multiple), actual)

    @rule(which=number)
    def recover(self, which: int) -> None:
        line = nth(self.lines, which)
        self.both(line, lambda: self.model.recover(line.model), line.real.recover)

    @rule(which=number)
    def commit(self, which: int) -> None:
        line = [line for line in self.lines if line.mode == "transactions"][which % 2]
        self.both(
            line, lambda: self.model.commit(line.model), lambda: none(line.real.call(commands.Tx.Commit))
        )

    @rule(which=number)
    def roll_back(self, which: int) -> None:
        line = [line for line in self.lines if line.mode == "transactions"][which % 2]
        self.both(
            line, lambda: self.model.rollback(line.model), lambda: none(line.real.call(commands.Tx.Rollback))
        )

    # -- comparing

    def pass_a_moment(self) -> None:
        self.broker.advance(1)
        self.model.advance(1)

    def witness(self, channel: entities.Channel) -> list[str]:
        """Tell which consumers of a channel got messages in this step, in order."""
        return [
            event.method.consumer_tag or ""
            for line in self.lines
            if line.model is channel
            for event in line.real.client.inbox
            if isinstance(event, Method)
            and event.channel == line.number
            and isinstance(event.method, commands.Basic.Deliver)
        ]

    def both(self, line: Line, expected: Callable[[], object], actual: Callable[[], object]) -> None:
        """Do the same on both sides: reply or refusal, and all that follows, must be the same."""
        self.pass_a_moment()
        wanted: object
        got: object
        try:
            wanted = expected()
        except entities.Refused as refused:
            wanted = ("refused", refused.code)
            self.model.close_channel(line.model)
        try:
            got = actual()
            line.real.check_open()
        except Refused as refused:
            got = ("refused", refused.code)
            line.real.reopen()
            if wanted == got:
                self.begin_again(line)
        assert got == wanted
        self.compare()

    def compare(self) -> None:
        """Compare what all channels were sent since the last time."""
        self.model.settle_down()
        for client in {id(line.real.client): line.real.client for line in self.lines}.values():
            events = client.take()
            for line in self.lines:
                if line.real.client is client:
                    self.compare_line(line, of_channel(events, line.number))

    def compare_line(self, line: Line, events: list[Method]) -> None:
        expected = [*line.earlier, *line.model.outbox]
        line.earlier = ()
        line.model.outbox.clear()
        if not expected and not events:
            return
        contents = [event for event in events if isinstance(event, Content)]
        delivered: list[object] = [
            (event.method.consumer_tag, delivery_tag(event), is_redelivered(event), seen(event))
            for event in contents
            if isinstance(event.method, commands.Basic.Deliver)
        ]
        assert delivered == [
            (sent.consumer_tag, sent.delivery_tag, Either(sent.redelivered), told(sent.entry.message))
            for sent in expected
            if isinstance(sent, Delivered)
        ]
        returned = [event for event in contents if isinstance(event.method, commands.Basic.Return)]
        assert [seen(event) for event in returned] == [
            told(sent.message) for sent in expected if isinstance(sent, Returned)
        ]
        confirmed = confirmed_by(line, events)
        assert confirmed == [tuple(sent) for sent in expected if isinstance(sent, Confirmed)]
        cancelled = [
            event.method.consumer_tag or ""
            for event in events
            if isinstance(event.method, commands.Basic.Cancel)
        ]
        assert sorted(cancelled) == sorted(
            sent.consumer_tag for sent in expected if isinstance(sent, Cancelled)
        )

    def teardown(self) -> None:
        """All that is left is what is left in the reference, in the same order."""
        for line in self.lines[::3]:
            self.model.close_connection(line.model.connection)
            line.real.client.vanish()
            self.model.settle_down()
        self.lines = []
        self.connect()
        line = self.lines[0]
        assert {name for name in QUEUES if line.real.exists(name)} == set(self.model.queues)
        for name in list(self.model.queues):
            while (got := self.model.get(line.model, name, no_ack=True)) is not None:
                content = line.real.get(name)
                assert content is not None
                assert seen(content) == told(got[1].message)
            assert line.real.get(name) is None
        assert self.broker.node.turn.memory_bytes == 0


class Either:
    """A redelivered flag; equal to both where the reference cannot know."""

    def __init__(self, flag: bool | None) -> None:
        self.flag = flag

    def __eq__(self, other: object) -> bool:
        return self.flag is None or self.flag == other

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return repr(self.flag)


def none(_reply: object) -> None:
    """Forget a reply that says nothing."""


def of_channel(events: list[Event], number: int) -> list[Method]:
    return [event for event in events if isinstance(event, Method) and event.channel == number]


def confirmed_by(line: Line, events: list[Method]) -> list[tuple[int, bool]]:
    """Return the publishes that acks and nacks stand for, in order."""
    confirmed: list[tuple[int, bool]] = []
    for event in events:
        method = event.method
        if isinstance(method, commands.Basic.Ack | commands.Basic.Nack):
            last = method.delivery_tag or 0
            first = line.confirmed + 1 if method.multiple else last
            confirmed += [(one, isinstance(method, commands.Basic.Ack)) for one in range(first, last + 1)]
            line.confirmed = last
    return confirmed


def arguments_of(rules: QueueRules) -> dict[str, object]:
    """Return rules as arguments of queue.declare."""
    arguments = {
        "x-message-ttl": rules.ttl_ms,
        "x-expires": rules.expires_ms,
        "x-max-length": rules.max_length,
        "x-max-length-bytes": rules.max_bytes,
        "x-overflow": rules.overflow,
        "x-dead-letter-exchange": rules.dead_letter_exchange,
        "x-dead-letter-routing-key": rules.dead_letter_key,
        "x-single-active-consumer": rules.single_active or None,
        "x-max-priority": rules.max_priority or None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def properties_of(message: Message) -> bytes:
    """Return the properties a message is published with."""
    headers: Table = {name: Field("S", value.encode()) for name, value in message.headers}
    if message.cc:
        headers["CC"] = Field("A", [Field("S", key.encode()) for key in message.cc])
    fields: dict[str, Any] = {"headers": headers} if headers else {}
    if message.persistent:
        fields["delivery_mode"] = 2
    if message.priority:
        fields["priority"] = message.priority
    if message.ttl_ms is not None:
        fields["expiration"] = str(message.ttl_ms)
    return properties.replace(**fields)


def told(message: Message) -> object:
    """What a client should see of a message."""
    return (
        message.body,
        message.exchange,
        message.key,
        message.cc,
        message.priority,
        None if message.ttl_ms is None else str(message.ttl_ms).encode(),
        message.deaths,
        message.first_death,
        message.last_death,
    )


def seen(content: Content) -> object:
    """What a client sees of a message."""
    method, fields = content.method, content.fields
    assert isinstance(method, commands.Basic.Deliver | commands.Basic.GetOk | commands.Basic.Return)
    headers = fields.headers or {}
    return (
        content.body,
        method.exchange,
        method.routing_key,
        strings(array(headers, "CC")),
        fields.priority or 0,
        fields.expiration,
        tuple(death_of(entry.value) for entry in array(headers, "x-death") or ()),
        place_of(headers, "first"),
        place_of(headers, "last"),
    )


def death_of(entry: Any) -> Death:  # noqa: ANN401
    return Death(
        longstr(entry, "queue") or "",
        longstr(entry, "reason") or "",
        integer(entry, "count") or 0,
        longstr(entry, "exchange") or "",
        strings(array(entry, "routing-keys")),
        entry["time"].value,
        longstr(entry, "original-expiration"),
    )


def place_of(headers: Table, which: str) -> tuple[str, ...] | None:
    fields = [longstr(headers, f"x-{which}-death-{name}") for name in ("queue", "reason", "exchange")]
    return None if fields[0] is None else tuple(field or "" for field in fields)


def strings(fields: list[Field] | None) -> tuple[str, ...]:
    return tuple(field.value.decode() for field in fields or [] if isinstance(field.value, bytes))


TestConversations = Conversation.TestCase
TestConversations.settings = settings(
    max_examples=RUNS or RUNS_OF_A_TEST,
    stateful_step_count=STEPS,
    derandomize=not RUNS,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
