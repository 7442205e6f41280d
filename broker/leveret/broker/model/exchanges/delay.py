"""Messages that wait in an exchange for their time: x-delayed-message, and LavinMQ's x-delayed-exchange.

Theory of operation
-------------------
Every delayed message is stored, whatever its delivery mode, before its publish is confirmed. In memory are

* `_near`: those that are due next, a heap by time and position. All that are due up to the *horizon* are
  among them; without a horizon, all there are;
* `_unwritten`: those whose batch is not yet durable, because a read does not find them.

When `_near` runs low, the next ones behind the horizon are asked for; when it grows too large, the horizon
comes nearer and the rest is left to the store. So a million messages cost no more memory than some thousand.
A read that was asked for before the horizon moved is ignored (`generation`).

What is due leaves the store and enters its queues in one batch: a crash cannot lose or double it.

Source: the community plugin rabbitmq_delayed_message_exchange; LavinMQ, "Delayed exchange".
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from leveret.broker.model.message_properties import BCC, extra_routing_keys, parse_expiration
from leveret.broker.model.queues.packed import MESSAGE_OVERHEAD
from leveret.protocol.content import Message, encode_content, make_envelope
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.properties import Properties, replace
from leveret.protocol.tables import INTEGER_TAGS, STRING_TAGS, Array, Field, Table, boolean, longstr

if TYPE_CHECKING:
    from leveret.broker.model.turn import Turn
    from leveret.storage.batch import StoredContent
    from leveret.storage.stored import StoredMessage

DELAYED_MESSAGE: Final = "x-delayed-message"
DELAYED_TYPE: Final = "x-delayed-type"
DELAYED_EXCHANGE: Final = "x-delayed-exchange"  # LavinMQ's argument of any exchange
X_DELAY: Final = "x-delay"
DELAY_MAX_MS: Final = 0xFFFFFFFF
NEAR_MESSAGES: Final = 2000  # kept in memory of those that wait in one exchange; twice as many for a while
NEAR_BYTES: Final = 4 * 1024 * 1024  # of their bodies
DUE_MAX: Final = 1000  # messages of one exchange that are routed in one turn
RETRY_MS: Final = 20  # until the next try when the store is too far behind to take what is due
STALE_DUE_MAX: Final = 1000  # beyond this and one for each exchange, times that mean nothing are removed

Waiting: TypeAlias = "tuple[int, int, StoredContent]"  # due at (ms), position, message


def delayed_type(arguments: Table) -> str:
    """Return the type that an x-delayed-message exchange routes by; nobody has checked that there is one.

    Raises:
        PreconditionFailed: it is not named, or it would delay again.
    """
    type_name = longstr(arguments, DELAYED_TYPE)
    if type_name is None or type_name == DELAYED_MESSAGE:
        raise no_delayed_type()
    return type_name


def no_delayed_type() -> PreconditionFailed:
    """Say that an x-delayed-message exchange has no type to route by."""
    return PreconditionFailed(f"Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type")


def delay_of(headers: Table | None) -> int:
    """Return for how many milliseconds a message is to wait; 0 if it is to go on at once."""
    field = None if headers is None else headers.get(X_DELAY)
    if field is None:
        return 0
    delay_ms = 0
    if field.tag in INTEGER_TAGS:
        delay_ms = cast("int", field.value)
    elif field.tag in STRING_TAGS:
        text = cast("bytes", field.value).removeprefix(b"+")
        # Longer ones are too large; and Python refuses to read very long ones.
        delay_ms = int(text) if text.isdigit() and len(text.lstrip(b"0")) <= len(str(DELAY_MAX_MS)) else 0
    elif field.tag in ("f", "d"):
        number = cast("float", field.value)
        delay_ms = int(number) if 0 < number <= DELAY_MAX_MS else 0
    return delay_ms if 0 < delay_ms <= DELAY_MAX_MS else 0


class Delay:
    """What waits in one exchange.

    Args:
        turn: what the current turn gathers.
        queue_id: under which the store knows it.
        vhost_name: where the exchange is.
        exchange_name: in which the messages wait.
        removes_header: from what is due, as LavinMQ does; else it is made negative.
    """

    __slots__ = (
        "_horizon",
        "_is_loading",
        "_near",
        "_near_bytes",
        "_next_position",
        "_removes_header",
        "_turn",
        "_unwritten",
        "armed_at_ms",
        "body_bytes",
        "count",
        "exchange_name",
        "generation",
        "queue_id",
        "vhost_name",
    )

    def __init__(
        self, turn: Turn, queue_id: int, vhost_name: str, exchange_name: str, removes_header: bool
    ) -> None:
        self._turn = turn
        self.queue_id = queue_id
        self.vhost_name = vhost_name
        self.exchange_name = exchange_name
        self._removes_header = removes_header
        self.count: int = 0  # messages that wait
        self.body_bytes: int = 0  # of them
        self.armed_at_ms: int = 0  # when the server is to look; 0 for never
        turn.load_generation += 1
        self.generation: int = turn.load_generation
        self._near: list[Waiting] = []
        self._near_bytes: int = 0
        self._horizon: tuple[int, int] | None = None  # due time and position
        self._unwritten: deque[tuple[int, Waiting]] = deque()  # batch, message
        self._next_position: int = 1
        self._is_loading: bool = False
        turn.delays[queue_id] = self

    def __repr__(self) -> str:
        return f"<Delay in {self.exchange_name!r} count={self.count}>"

    # -- in

    def add(self, message: Message, delay_ms: int) -> None:
        """Let a message wait."""
        turn = self._turn
        position = self._next_position
        self._next_position += 1
        if message.envelope.bcc_keys:
            message = _with_bcc(message)
        due_ms = turn.now_ms + delay_ms
        turn.batch.delay(self.queue_id, position, due_ms, message)
        turn.unwritten_bytes += message.body_bytes + MESSAGE_OVERHEAD
        self.count += 1
        self.body_bytes += message.body_bytes
        self._unwritten.append((turn.batch.number, (due_ms, position, message)))
        turn.writing_delays[self] = None
        if self._horizon is None or (due_ms, position) <= self._horizon:
            self._push((due_ms, position, message))
            self._keep_near()
        self._arm()

    def _push(self, waiting: Waiting) -> None:
        heappush(self._near, waiting)
        self._near_bytes += waiting[2].body_bytes

    def _keep_near(self) -> None:
        """Leave to the store what is due last, if there is too much in memory."""
        near = self._near
        if len(near) <= 2 * NEAR_MESSAGES and (self._near_bytes <= 2 * NEAR_BYTES or len(near) < 2):
            return
        near.sort()
        count = 0
        body_bytes = 0
        while count < NEAR_MESSAGES and (body_bytes < NEAR_BYTES or not count):
            body_bytes += near[count][2].body_bytes
            count += 1
        del near[count:]
        self._near_bytes = body_bytes
        self._horizon = (near[-1][0], near[-1][1])
        self._forget_load()

    def forget_written(self, durable: int) -> bool:
        """Let go of messages that the store has by now.

        Args:
            durable: number of the last durable batch.

        Returns:
            whether there are none left to wait for.
        """
        unwritten = self._unwritten
        if not self._is_loading:  # the read that is under way may not see them
            while unwritten and unwritten[0][0] <= durable:
                unwritten.popleft()
        return not unwritten

    # -- out

    def take_due(self) -> list[StoredContent]:
        """Take messages whose time has come, and remove them from the store."""
        now_ms = self._turn.now_ms
        near = self._near
        due: list[StoredContent] = []
        while near and near[0][0] <= now_ms and len(due) < DUE_MAX:
            _, position, content = heappop(near)
            self._turn.batch.undelay(self.queue_id, position, content.body_bytes)
            self._near_bytes -= content.body_bytes
            self.body_bytes -= content.body_bytes
            self.count -= 1
            due.append(content)
        self.armed_at_ms = 0
        self._arm()
        self._refill()
        return due

    def try_again_soon(self) -> None:
        """Have the server look again after a while."""
        self.armed_at_ms = 0
        self._arm_at(self._turn.now_ms + RETRY_MS)

    def released(self, content: StoredContent) -> tuple[Message, list[str], int]:
        """Make what is routed of a message whose time has come.

        Returns:
            the message, its routing keys, and its TTL, -1 for none.
        """
        fields = Properties.parse(content.properties)
        headers = dict(fields.headers or {})
        keys = [content.routing_key]
        keys += [key for key in extra_routing_keys(headers) if key != content.routing_key]
        bcc = headers.pop(BCC, None)
        delay_ms = delay_of(headers)
        if self._removes_header:
            headers.pop(X_DELAY, None)
        else:
            headers[X_DELAY] = Field("I", max(-delay_ms, -(1 << 31)))
        raw = replace(content.properties, headers=headers or None)
        envelope = make_envelope(content.exchange, content.routing_key, raw)
        envelope.dead_lettered = content.dead_lettered
        if bcc is not None:
            envelope.bcc_keys = extra_routing_keys({BCC: bcc})
        body = content.body
        message = Message(
            envelope, encode_content(envelope.channel, envelope.frame_max, raw, body), len(body)
        )
        ttl_ms = -1 if fields.expiration is None else parse_expiration(fields.expiration)
        return message, keys, ttl_ms

    def _arm(self) -> None:
        if self._near:
            self._arm_at(max(self._near[0][0], self._turn.now_ms + 1))

    def _arm_at(self, at_ms: int) -> None:
        if self.armed_at_ms and self.armed_at_ms <= at_ms:
            return
        self.armed_at_ms = at_ms
        turn = self._turn
        heappush(turn.due, (at_ms, self.queue_id))
        if len(turn.due) > STALE_DUE_MAX + 2 * len(turn.delays):
            turn.due = [(delay.armed_at_ms, key) for key, delay in turn.delays.items() if delay.armed_at_ms]
            heapify(turn.due)

    # -- the store

    def _refill(self) -> None:
        if self._horizon is not None and not self._is_loading and len(self._near) < NEAR_MESSAGES // 2:
            self.forget_written(self._turn.durable)
            self._is_loading = True
            self._turn.delay_loads[self] = None

    def load_range(self) -> tuple[int, int]:
        """Return behind which due time and position to read."""
        assert self._horizon is not None
        return self._horizon

    def _forget_load(self) -> None:
        self._turn.load_generation += 1
        self.generation = self._turn.load_generation
        self._is_loading = False
        self._turn.delay_loads.pop(self, None)

    def loaded(self, generation: int, rows: list[StoredMessage]) -> None:
        """Take back the next messages behind the horizon."""
        if generation != self.generation:
            return
        before = self._horizon
        assert before is not None
        positions: set[int] = set()
        for row in rows:
            due_ms = row.expires_at_ms or 0
            self._push((due_ms, row.position, row))
            positions.add(row.position)
        last = (rows[-1].expires_at_ms or 0, rows[-1].position) if rows else None
        for _, waiting in self._unwritten:
            place = (waiting[0], waiting[1])
            if before < place and (last is None or place <= last) and waiting[1] not in positions:
                self._push(waiting)
        self._horizon = last
        self._is_loading = False
        self._keep_near()
        self._arm()
        self._refill()

    def restore(self, messages: int, body_bytes: int, last_position: int) -> None:
        """Begin with what the store holds."""
        self.count = messages
        self.body_bytes = body_bytes
        self._next_position = last_position + 1
        if messages:
            self._horizon = (-1, 0)
            self._refill()

    def let_go(self) -> None:
        """Forget everything, because the exchange is gone."""
        self._forget_load()
        self._near.clear()
        self._unwritten.clear()
        self._horizon = None
        self.count = self.body_bytes = 0
        self._turn.delays.pop(self.queue_id, None)
        self._turn.writing_delays.pop(self, None)


def _with_bcc(message: Message) -> Message:
    """Put the BCC header back into a message, which will be routed by it."""
    envelope = message.envelope
    keys: Array = [Field("S", key.encode("utf-8", "surrogateescape")) for key in envelope.bcc_keys]
    headers = {**(envelope.fields.headers or {}), BCC: Field("A", keys)}
    with_bcc = make_envelope(envelope.exchange, envelope.routing_key, replace(envelope.raw, headers=headers))
    with_bcc.dead_lettered = envelope.dead_lettered
    return message.with_envelope(with_bcc)


def delays(type_name: str, arguments: Table) -> bool:
    """Whether messages can wait in an exchange."""
    return type_name == DELAYED_MESSAGE or boolean(arguments, DELAYED_EXCHANGE) is True
