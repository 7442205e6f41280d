"""The broker without sockets: sessions, vhosts, time and the way of changes to the store. HOT.

A turn of the event loop is `begin_turn`, any number of `Session.receive`, `end_turn`, `hand_over`. All is
synchronous and takes time, randomness and the store's threads as arguments, so a whole broker runs in a test
without any of them. What a node begins with is in restoring.py, how vhosts come and go in vhosts.py.
"""

from __future__ import annotations

import platform
from heapq import heappop
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from leveret.broker.logs import get_logger
from leveret.broker.model.events import INTERNAL
from leveret.broker.model.exchanges.delay import NEAR_BYTES, NEAR_MESSAGES
from leveret.broker.model.global_parameters import GlobalParameters
from leveret.broker.model.queues.dead_lettering import publish_dead_letter
from leveret.broker.model.queues.queue_ids import QueueIds
from leveret.broker.model.replies import Replies
from leveret.broker.model.rules.authority import Authority, NoSuchVHost
from leveret.broker.model.turn import Turn
from leveret.broker.model.vhost import VHost
from leveret.broker.server.committer import (
    Answer,
    Applied,
    DueRequest,
    Failed,
    Loaded,
    LoadedDue,
    LoadRequest,
    Written,
)
from leveret.broker.server.connection_events import connection_closed
from leveret.broker.server.resources import Limits, limits_of
from leveret.broker.server.restoring import restore
from leveret.broker.server.session import Session
from leveret.broker.server.session_timers import SessionTimers
from leveret.broker.server.strangers import Strangers
from leveret.broker.version import version
from leveret.protocol.errors import InternalError
from leveret.protocol.handshake import Tuning, server_properties, start_method
from leveret.protocol.methods import encode_method
from leveret.protocol.outbox import Outbox
from leveret.protocol.sasl import MECHANISMS
from leveret.storage.changes import QueueDelivered

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.config import Settings
    from leveret.broker.model.channel import Channel
    from leveret.broker.model.queues.queue import Queue
    from leveret.storage.batch import Batch
    from leveret.storage.store import StoreError
    from leveret.storage.stored import Snapshot

READ_MAX: Final = (
    256 * 1024
)  # bytes read from a socket in one turn, so that nobody keeps others from their turn
READ_MAX_BEHIND: Final = 32 * 1024  # the same while consumers cannot keep up with publishers
BEHIND_MESSAGES: Final = 2000  # ready in a queue that has consumers: they are behind
UNWRITTEN_MAX: Final = 16 * 1024 * 1024  # message bytes waiting for the store; above it publishers wait
MEMORY_OVERRUN: Final = 1.1  # of the message memory; above it publishers wait for pages to be written out
DELIVER_ROUNDS_MAX: Final = (
    10_000  # of dead-lettering and delivering in one turn; the rest waits for the next
)
SETTLING_MAX: Final = 500  # messages settled in a batch that waits for others to join it
SHUTDOWN_TEXT: Final = "broker forced connection closure with reason 'shutdown'"


class StoreThreads(Protocol):
    """What writes batches and reads messages back, elsewhere: a `Committer`, or a fake in tests."""

    def write(self, batch: Batch, with_rows: bool) -> None:
        """Put a batch on stable storage; `Written` and `Applied` are among the answers later.

        Args:
            batch: what to write.
            with_rows: its messages, and those before, are to be readable once it is `Written`.
        """

    def read(self, request: LoadRequest | DueRequest) -> None:
        """Read messages; `Loaded` or `LoadedDue` is among the answers later."""

    def make_rows(self) -> None:
        """Make the rows of what is written, if there are none yet; somebody may look for them."""

    @property
    def settling_waits_ms(self) -> int:
        """How long a batch that only settles is better kept open for others to join it."""

    def next_wake_ms(self) -> int:
        """Return when `answers` has something to do though nothing woke the loop; 0 for never."""

    def answers(self, now_ms: int) -> list[Answer]:
        """Return what was done since the last call, in order."""


class Node:
    """One broker.

    Args:
        settings: how it is configured.
        store: writes and reads.
        snapshot: what the store held at start.
        clock_ms: wall-clock milliseconds that never jump.
        token: makes an unguessable text from so many bytes of randomness.
    """

    def __init__(
        self,
        settings: Settings,
        store: StoreThreads,
        snapshot: Snapshot,
        clock_ms: Callable[[], int],
        token: Callable[[int], str],
    ) -> None:
        self.settings = settings
        self.name = f"leveret@{platform.node()}"
        self.clock_ms = clock_ms
        self.log = get_logger()
        self.strangers = Strangers(settings)
        now_ms = clock_ms()
        self.turn = Turn(now_ms, Random(now_ms).randrange)
        self.turn.nacks_count = settings.nacks_count
        self.turn.expires_at_head_only = settings.expires_at_head_only
        self.turn.trusts_x_death = settings.trusts_x_death
        self.turn.watches.default_ms = int(settings.consumer_timeout_s * 1000)
        self.to_flush: list[Outbox] = []
        self.authority = Authority(self.turn, token, frozenset(settings.loopback_users))
        self.tuning = Tuning(settings.channel_max, settings.frame_max, settings.heartbeat_s)
        properties = server_properties(
            broker_version=version(),
            platform=f"Python {platform.python_version()}",
            cluster_name=self.name,
            version=settings.advertised_version,
        )
        self.greeting: bytes = encode_method(0, start_method(properties, MECHANISMS))  # of every connection
        self.limits: Limits = limits_of(settings)
        self.alarms: dict[str, None] = {}  # what the machine is short of: "disk", "memory"
        self.is_watchful: bool = False  # publishers may have to wait, or some of them are traced
        self.blocked: dict[Session, None] = {}  # sessions that wait for the alarms to be over
        self.read_max: int = READ_MAX  # bytes to read from a socket in the next turn
        self.is_done: bool = False  # stopped, and every connection is gone
        self.failure: StoreError | None = None  # the store gave up; nothing may be confirmed any more
        self.sessions: dict[Session, None] = {}
        self.timers = SessionTimers(self.sessions)
        self._store = store
        # Without a disk there is nowhere to put messages, and no use in moving them about.
        self._memory_limit: float = inf if settings.memory else settings.message_memory_bytes
        self._in_flight: Batch | None = None  # handed to the store, or about to be
        self._closed: Batch | None = None  # of these the second
        self._settling_since_ms: int = 0  # since when the open batch waits for others; 0 if it does not
        self._waiting: dict[Session, None] = {}  # sessions that go on when the store answers
        self._resumable: dict[Session, None] = {}  # sessions whose peer has read its replies
        self._changed: dict[Session, None] = {}
        self._session_count: int = 0  # ever
        self._paging: dict[Queue, None] = {}  # queues whose page request waits for its batch
        self._is_stopping: bool = False
        self._queue_ids = QueueIds()
        self._replies = Replies(token)
        self._token = token
        self._on_durable: list[tuple[int, Callable[[], None]]] = []  # batch, what to call then
        self.vhosts: dict[str, VHost] = {}
        self.global_parameters = GlobalParameters(self.turn)
        self.started_at_ms: int = now_ms
        self.listeners: list[tuple[str, int]] = []  # address and port of each
        restore(self, snapshot)

    # -- vhosts and users

    def vhost(self, name: str) -> VHost:
        """Return a vhost.

        Raises:
            NoSuchVHost: there is none of this name.
        """
        vhost = self.vhosts.get(name)
        if vhost is None:
            raise NoSuchVHost(name)
        return vhost

    def new_vhost(self, name: str) -> VHost:
        """Return a vhost that shares queue ids and replies with the others; it is not among them yet."""
        return VHost(self.turn, name, self._queue_ids, self._replies, self._token)

    def delete_user(self, name: str) -> None:
        """Delete a user, and close its connections.

        Raises:
            NoSuchUser: there is none of this name.
        """
        user = self.authority.delete_user(name)
        for session in list(self.sessions):
            if session.user is user:
                session.force_close(f"user '{name}' is deleted")

    def when_durable(self, call: Callable[[], None]) -> None:
        """Have something called once all changes of definitions so far are on stable storage."""
        batch = self.turn.last_definition_batch
        if batch <= self.turn.durable:
            call()
        else:
            self._on_durable.append((batch, call))

    def trace(self, vhost: VHost, is_on: bool) -> None:
        """Begin or end to copy what is published and delivered in a vhost."""
        if is_on:
            vhost.trace(self.name)
        else:
            vhost.stop_tracing()
        self.look_around()

    def look_around(self) -> None:
        """Find out whether publishes are to be looked at more closely."""
        self.is_watchful = bool(self.alarms) or any(v.tracer is not None for v in self.vhosts.values())

    @property
    def is_store_behind(self) -> bool:
        """Whether publishers must wait for the store, lest what it has not written fills the memory."""
        turn = self.turn
        return turn.unwritten_bytes > UNWRITTEN_MAX or turn.memory_bytes > MEMORY_OVERRUN * self._memory_limit

    # -- sessions

    def open_session(self, address: str, name: str, is_loopback: bool) -> Session | None:
        """Begin to serve a peer; None if there are too many that have not logged in."""
        if self._is_stopping or not self.strangers.admit(address):
            self.strangers.warn(
                self.turn.now_ms,
                "connection refused",
                connection=name,
                reason="too many that have not logged in",
            )
            return None
        outbox = Outbox(self.to_flush, self.settings.write_buffer_bytes)
        session = Session(self, name, address, is_loopback, outbox)
        self.sessions[session] = None
        self.timers.arm(session, session.next_timer_ms())
        return session

    def count_session(self) -> int:
        """Return a number for a new session."""
        self._session_count += 1
        return self._session_count

    def logged_in(self, session: Session) -> None:
        """Count a session no longer among those that have not logged in."""
        session.is_counted = False
        self.strangers.forget(session.address)

    def session_closed(self, session: Session) -> None:
        """Forget a session whose socket is closed."""
        connection_closed(session)
        self._store.make_rows()
        if session.is_counted:
            self.logged_in(session)
        self.sessions.pop(session, None)
        self._waiting.pop(session, None)
        self._resumable.pop(session, None)
        self.timers.session_closed()
        self._changed.pop(session, None)
        if self._is_stopping and not self.sessions:
            self._finish_stopping()

    def session_changed(self, session: Session) -> None:
        """Have the loop look at a session: reading rests or goes on, or it is to be closed."""
        self._changed[session] = None

    def take_changed_sessions(self) -> list[Session]:
        """Return the sessions that changed since the last call."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def wait(self, session: Session) -> None:
        """Resume a session when the store answers."""
        self._waiting[session] = None
        self.session_changed(session)

    def resume_soon(self, session: Session) -> None:
        """Resume a session in the next turn, which comes at once."""
        self._resumable[session] = None

    def accept_failed(self, error: OSError) -> None:
        """Note that a connection could not be accepted."""
        self.strangers.warn(self.turn.now_ms, "cannot accept connections", error=str(error))

    # -- alarms

    @property
    def alarm_text(self) -> str:
        """What the machine is short of, as clients are told."""
        return "low on " + " & ".join(sorted(self.alarms))

    def set_alarm(self, resource: str, is_on: bool, **values: object) -> None:
        """Have publishers wait, or let them go on when this was the last alarm.

        Args:
            resource: "disk" or "memory".
            is_on: whether there is too little of it.
            values: for the log.
        """
        if is_on == (resource in self.alarms):
            return
        alarm = {"node": self.name, "source": resource}
        self.turn.events.tell("alarm.set" if is_on else "alarm.cleared", alarm)
        if is_on:
            self.alarms[resource] = None
            self.is_watchful = True
            self.log.warning(f"{resource} alarm: publishers wait", **values)
            return
        del self.alarms[resource]
        self.look_around()
        self.log.info(f"{resource} alarm is over", **values)
        if not self.alarms:
            blocked = self.blocked
            self.blocked = {}
            for session in blocked:
                session.unblock()

    # -- turns

    def begin_turn(self) -> None:
        """Take the time, and what the store has done."""
        self.turn.now_ms = self.clock_ms()
        for answer in self._store.answers(self.turn.now_ms):
            self._take_answer(answer)
        if self._resumable:
            resumable = self._resumable
            self._resumable = {}
            for session in resumable:
                session.resume()
        self._run_timers()

    def catch_up(self) -> None:
        """Route dead letters and deliver, so that the next event sees their effect."""
        turn = self.turn
        rounds = 0
        while (turn.own_messages or turn.dead_letters or turn.touched) and rounds < DELIVER_ROUNDS_MAX:
            rounds += 1
            if turn.own_messages:
                self._publish_own()
            while turn.dead_letters:
                dead = turn.dead_letters.popleft()
                vhost = self.vhosts.get(dead.queue.vhost_name)
                if vhost is not None:
                    publish_dead_letter(vhost, dead)
            touched = turn.touched
            turn.touched = {}
            is_short_of_memory = turn.memory_bytes > self._memory_limit
            for queue in touched:
                queue.deliver()
                if queue.backlog.count > BEHIND_MESSAGES and queue.consumers:
                    self.read_max = READ_MAX_BEHIND
                if is_short_of_memory and not queue.is_deleted and queue.backlog.relieve():
                    self._paging[queue] = None

    def _publish_own(self) -> None:
        """Route the messages of the broker itself that there are by now."""
        turn = self.turn
        for _ in range(len(turn.own_messages)):
            message = turn.own_messages.popleft()
            vhost = self.vhosts.get(message.vhost_name)
            if vhost is not None:
                message.publish(vhost)
        if turn.own_messages_dropped:
            dropped, turn.own_messages_dropped = turn.own_messages_dropped, 0
            self.log.warning("copies, events or lines of the log dropped", count=dropped)

    def end_turn(self) -> None:
        """Deliver, read back, confirm, and close the open batch if the store is free for it."""
        if self.failure is not None:
            return
        turn = self.turn
        self.read_max = READ_MAX
        while True:
            self.catch_up()
            if turn.loads or turn.delay_loads:
                self._request_loads()
            if self._in_flight is not None or not self._has_reason_to_commit():
                break
            batch = turn.close_batch()
            self._settling_since_ms = 0
            if batch or self._paging:
                self._in_flight = self._closed = batch
                break
            self._batch_is_durable(batch)  # nothing of it is left to write
            self._resume_waiting()
        self._send_confirms()

    def hand_over(self) -> None:
        """Hand the batch that the turn closed to the store, once the turn's output is written.

        To begin a write takes as long as to answer several clients: measured with one message at a time,
        answering first took a sixth less CPU and a fifth off the time to the confirm.
        """
        if self._closed is not None:
            batch, self._closed = self._closed, None
            self._store.write(batch, bool(self._paging))

    def _has_reason_to_commit(self) -> bool:
        turn = self.turn
        number = turn.batch.number
        return (
            (bool(turn.batch) and not self._settling_waits())
            or any(channel.pending_confirms[-1].batch == number for channel in turn.confirming)
            or any(s.connection is not None and s.connection.wait_for_batch == number for s in self._waiting)
            or bool(self._paging)
        )

    def _settling_waits(self) -> bool:
        """Whether the open batch only settles, and may yet be joined by what somebody waits for."""
        waits_ms = self._store.settling_waits_ms
        if not waits_ms or self._is_stopping or not self.turn.batch.only_settles(SETTLING_MAX):
            return False
        if not self._settling_since_ms:
            self._settling_since_ms = self.turn.now_ms
        return self.turn.now_ms < self._settling_since_ms + waits_ms

    def _send_confirms(self) -> None:
        turn = self.turn
        if turn.confirming:
            waiting: dict[Channel, None] = {}
            for channel in turn.confirming:
                channel.send_confirms(turn.durable)
                if channel.pending_confirms:
                    waiting[channel] = None
            turn.confirming = waiting

    def _request_loads(self) -> None:
        loads = self.turn.loads
        self.turn.loads = {}
        for queue in loads:
            if not queue.is_deleted:
                for load in queue.wanted_loads():
                    self._store.read(
                        LoadRequest(
                            load.queue_id,
                            load.generation,
                            load.after,
                            load.up_to,
                            load.limit,
                            load.max_bytes,
                        )
                    )
        delay_loads = self.turn.delay_loads
        self.turn.delay_loads = {}
        for delay in delay_loads:
            after_due_ms, after = delay.load_range()
            self._store.read(
                DueRequest(delay.queue_id, delay.generation, after_due_ms, after, NEAR_MESSAGES, NEAR_BYTES)
            )

    # -- the store's answers

    def _take_answer(self, answer: Answer) -> None:
        if isinstance(answer, Written):
            self._in_flight = None
            self._batch_is_durable(answer.batch)
        elif isinstance(answer, Applied):
            self._queue_ids.reclaim(answer.number)
            return
        elif isinstance(answer, LoadedDue):
            delay = self.turn.delays.get(answer.request.queue_id)
            if delay is not None:
                delay.loaded(answer.request.generation, answer.messages)
        elif isinstance(answer, Loaded):
            queue = self.queue_by_id(answer.request.queue_id)
            if queue is not None:
                queue.loaded(answer.request.generation, answer.messages)
        elif isinstance(answer, Failed):
            self._store_failed(answer.error)
            return
        self._resume_waiting()

    def _resume_waiting(self) -> None:
        """Let sessions go on that waited for what the store has done; no reply is overtaken."""
        waiting = self._waiting
        self._waiting = {}
        for session in waiting:
            session.release_held()
        for session in waiting:
            session.resume()
            if session.is_waiting:
                self._waiting[session] = None

    def _batch_is_durable(self, batch: Batch) -> None:
        self.turn.durable = batch.number
        while self._on_durable and self._on_durable[0][0] <= batch.number:
            self._on_durable.pop(0)[1]()
        for record in batch.definitions:
            if isinstance(record, QueueDelivered):
                queue = self.queue_by_id(record.queue_id)
                if queue is not None:
                    self.turn.touched[queue] = None
        for queue_id in batch.streamed:  # readers get what is durable
            stream = self.queue_by_id(queue_id)
            if stream is not None:
                self.turn.touched[stream] = None
        for delay in list(self.turn.writing_delays):
            if delay.forget_written(batch.number):
                del self.turn.writing_delays[delay]
        if self._paging:
            paging = self._paging
            self._paging = {}
            for queue in paging:
                if not queue.backlog.page_out(batch.number):
                    self._paging[queue] = None

    def queue_by_id(self, queue_id: int) -> Queue | None:
        """Return a queue, or a priority of one, by the id under which its messages are stored."""
        for vhost in self.vhosts.values():
            queue = vhost.queues_by_id.get(queue_id)
            if queue is not None:
                return queue
        return self.turn.levels.get(queue_id)

    def _store_failed(self, error: StoreError) -> None:
        """The disk cannot be trusted any more: confirm nothing, say so, stop."""
        self.failure = error
        self.log.error("the store failed; stopping", error=str(error))
        self.turn.confirming.clear()
        for session in list(self.sessions):
            if session.connection is not None:
                session.close(InternalError("the store failed"))
        self.is_done = True

    # -- time

    def _run_timers(self) -> None:
        now_ms = self.turn.now_ms
        timers = self.timers.heap
        if timers and timers[0][0] <= now_ms:
            self.timers.run(now_ms)
        deadlines = self.turn.deadlines
        while deadlines and deadlines[0][0] <= now_ms:
            at_ms, _, queue = heappop(deadlines)
            if queue.is_deleted or queue.armed_at_ms != at_ms:
                continue
            if queue.look_at_deadlines():
                self.turn.actor = INTERNAL
                self.vhosts[queue.vhost_name].delete_queue(queue)
        if self.turn.watches:
            self._close_late_channels()
        self._route_due()

    def _close_late_channels(self) -> None:
        """Close channels on which deliveries have been unacked for too long."""
        for channel, error in self.turn.watches.late(self.turn.now_ms):
            for session in self.sessions:
                if session.connection is channel.connection:
                    session.close_channel(channel, error)
                    break

    def _route_due(self) -> None:
        """Route the messages whose time in an exchange is over, as fast as the store can follow."""
        turn = self.turn
        while turn.due and turn.due[0][0] <= turn.now_ms:
            at_ms, queue_id = heappop(turn.due)
            delay = turn.delays.get(queue_id)
            if delay is None or delay.armed_at_ms != at_ms:
                continue
            if self.is_store_behind:
                delay.try_again_soon()
            else:
                self.vhosts[delay.vhost_name].router.route_due(delay)

    @property
    def is_eager(self) -> bool:
        """Whether there is work for the next turn: a client has read what it was sent, or has gone."""
        turn = self.turn
        return bool(turn.touched or turn.dead_letters or turn.own_messages or self._resumable)

    def next_wake_ms(self) -> int | None:
        """Return when the next turn is due though no socket is ready; None for never."""
        if self.is_eager:
            return self.turn.now_ms
        self.timers.drop_stale()
        due = [heap[0][0] for heap in (self.timers.heap, self.turn.deadlines) if heap]
        if self.turn.due:
            due.append(self.turn.due[0][0])
        if self.turn.watches:
            due.append(self.turn.watches.next_ms)
        if self._settling_since_ms:
            due.append(self._settling_since_ms + self._store.settling_waits_ms)
        if rows_ms := self._store.next_wake_ms():
            due.append(rows_ms)
        return min(due) if due else None

    def shrink(self) -> None:
        """Let go of tables that are empty and were large once: a dictionary does not shrink by itself."""
        for session in self.sessions:
            if session.connection is not None:
                for channel in session.connection.channels.values():
                    channel.shrink()
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.backlog.shrink()

    # -- the end

    def begin_stop(self) -> None:
        """Close every connection; `is_done` follows when they are gone and all is durable."""
        self._is_stopping = True
        for session in list(self.sessions):
            session.force_close(SHUTDOWN_TEXT)
        if not self.sessions:
            self._finish_stopping()

    def drop_connections(self) -> None:
        """Stop waiting for peers that do not answer."""
        for session in list(self.sessions):
            session.connection_broken()

    def _finish_stopping(self) -> None:
        self._publish_own()  # what was told of the last connections
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.note_deliveries_end()
        self.is_done = True

    @property
    def unfinished(self) -> Batch | None:
        """The last batch, to be written after `is_done`; None if there is nothing in it."""
        return self.turn.batch or None
