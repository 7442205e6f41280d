"""One connection from accept to close: fed with bytes, it writes into its outbox. HOT.

Theory of operation
-------------------
`receive` takes what came from the socket and handles its events one by one. Handling stops while the
connection *waits*: for a batch to become durable (a reply about something durable is held back), for messages
to be read back, because the store is behind, or because it publishes while the machine is short of something
(it is *blocked*). What arrives meanwhile is buffered up to a bound; beyond it
`is_resting` has the socket not read.

An AMQP error raised anywhere below is caught here and nowhere else: a channel exception closes its channel,
anything else the connection. After its own close the session is CLOSING: it ignores everything but close and
close-ok, until the answer or a deadline. When the session is done with the socket it says `wants_close`; the
loop flushes and closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pamqp import commands

from leveret.broker.access import MAX_CHANNELS
from leveret.broker.methods import HANDLERS
from leveret.broker.methods.basic import basic_publish, basic_settle
from leveret.broker.methods.tracing import publish_traced
from leveret.broker.model.channel import Channel
from leveret.broker.model.connection import Connection
from leveret.broker.model.events import INTERNAL
from leveret.broker.model.queues.queue import NotInMemoryError
from leveret.broker.server.admission import admit
from leveret.broker.server.connection_events import connection_created, logged_in
from leveret.broker.server.heartbeats import Heartbeats
from leveret.protocol import handshake, sasl
from leveret.protocol.connection import FrameReader
from leveret.protocol.errors import (
    AMQPException,
    ChannelException,
    ChannelNotOpen,
    CommandInvalid,
    ConnectionForced,
    FrameError,
    InternalError,
    LoginRefused,
    NotAllowed,
    UnexpectedFrame,
)
from leveret.protocol.events import PUBLISH, Event, MethodReceived, Published, Settled
from leveret.protocol.frames import HEARTBEAT_FRAME
from leveret.protocol.handshake import State
from leveret.protocol.methods import class_id, encode_method, make, method_id

if TYPE_CHECKING:
    from pamqp.base import Frame

    from leveret.broker.access import User
    from leveret.broker.server.node import Node
    from leveret.protocol.outbox import Outbox
    from leveret.protocol.tables import Table

BUFFER_WHILE_WAITING: Final = 256 * 1024  # bytes taken from the socket while their handling waits
CHOKED_AT: Final = 4  # times the size at which deliveries pause: so much unread, no more methods are handled
EVENTS_PER_TURN: Final = 500  # of one connection; a run of publishes or acks is one event
FAREWELL_MS: Final = 3000  # how long a peer may take to close after our last word
CLOSE_OK_MAX_S: Final = 30  # how long to wait for connection.close-ok, if heartbeats do not say less

BASIC: Final = 60
_HEADER: Final = State.HEADER  # asked for each time something arrives: looking it up takes 900 instructions


class Session:
    """One peer.

    Args:
        node: the broker that it belongs to.
        name: "peer address:port -> our address:port".
        address: the peer's address, for limits.
        is_loopback: whether the peer is on this machine.
    """

    __slots__ = (
        "_auth_failure_close",
        "_channel_of_event",
        "_deadline_ms",
        "_heartbeats",
        "_is_choked",
        "_is_deaf",
        "_is_paused",
        "_reader",
        "_retry",
        "_tells_blocked",
        "_tuned_channel_max",
        "address",
        "client_properties",
        "connection",
        "is_blocked",
        "is_counted",
        "is_loopback",
        "is_lost",
        "is_shut",
        "mechanism",
        "name",
        "node",
        "number",
        "opened_at_ms",
        "outbox",
        "peer_is_gone",
        "state",
        "user",
        "wants_close",
    )

    def __init__(self, node: Node, name: str, address: str, is_loopback: bool, outbox: Outbox) -> None:
        self.node = node
        self.name = name
        self.address = address
        self.is_loopback = is_loopback
        self.outbox = outbox
        self.state: State = State.HEADER
        self.connection: Connection | None = None  # once it is open
        self.wants_close: bool = False  # nothing more will be written
        self.is_lost: bool = False  # the socket is broken: close it at once
        self.is_shut: bool = False  # the loop has shut its side after the last word
        self.peer_is_gone: bool = (
            False  # the peer sent its last byte; what it sent before may still be waiting
        )
        self.is_blocked: bool = False  # it has published during an alarm, and nothing more is read from it
        self._tells_blocked: bool = False  # the client understands connection.blocked
        self.is_counted: bool = True  # among the connections that have not logged in
        self.opened_at_ms: int = node.turn.now_ms
        self.number: int = node.count_session()
        self.mechanism: str = ""  # by which the user logged in
        self._reader = FrameReader(node.settings.max_message_bytes)
        self.user: User | None = None  # once it has logged in
        self._tuned_channel_max: int = 0
        self.client_properties: Table = {}
        self._auth_failure_close: bool = False
        self._retry: Event | None = None  # an event whose handling waits
        self._channel_of_event: int = 0
        self._is_paused: bool = False  # it has had its turn, and there is more
        self._is_choked: bool = False  # the peer does not read its replies, so nothing more is asked for
        self._is_deaf: bool = False  # input is dropped: framing is lost, or everything is said
        # Milliseconds; 0 for none.
        self._deadline_ms: int = node.turn.now_ms + int(node.settings.handshake_timeout_s * 1000)
        self._heartbeats = Heartbeats()

    @property
    def pid(self) -> str:
        """What stands for the connection in lists and events."""
        return f"<leveret.{self.number}.0>"

    # -- what the loop calls

    @property
    def is_resting(self) -> bool:
        """Whether the socket is not to be read for now."""
        return (
            self.peer_is_gone
            or self.is_blocked
            or (self.is_waiting and self._reader.buffered_bytes > BUFFER_WHILE_WAITING)
        )

    @property
    def expected_bytes(self) -> int:
        """How many bytes are certainly worth reading at once: the rest of a large body; or 0."""
        expected = self._reader.expected_bytes
        return 0 if expected and self.is_waiting else expected

    def receive(self, data: bytes) -> None:
        """Take bytes from the socket and handle what they make."""
        self._heartbeats.heard = True
        if self._is_deaf:
            return
        self._reader.receive_data(data)
        self.process()

    def connection_lost(self) -> None:
        """The peer sent its last byte."""
        if self.peer_is_gone:
            return
        self.peer_is_gone = True
        if self._is_choked or not self.is_waiting:  # else what it sent before is handled first
            self._end()
        self.node.session_changed(self)

    def connection_broken(self) -> None:
        """The socket is of no use any more."""
        self.peer_is_gone = True
        self._end()

    def output_drained(self) -> None:
        """Output that was full has room again."""
        if self._is_choked:
            self._is_choked = False
            self.node.resume_soon(self)
        if self.connection is not None:
            for channel in self.connection.channels.values():
                channel.resume_consumers()

    # -- input

    @property
    def is_waiting(self) -> bool:
        """Whether handling of input waits: for the store, for the peer to read, or for its next turn."""
        return (
            self._is_choked
            or self._is_paused
            or self._retry is not None
            or (self.connection is not None and self.connection.is_waiting)
        )

    def release_held(self) -> None:
        """Send replies whose batch is durable by now."""
        connection = self.connection
        if connection is not None and not connection.is_waiting:
            connection.release_held()

    def resume(self) -> None:
        """Go on, if what this session waited for has come."""
        self._is_paused = False
        self.process()
        if self.peer_is_gone and not self.is_waiting:
            self._end()
        self.node.session_changed(self)

    def process(self) -> None:
        """Handle buffered input until there is no more, or it must wait."""
        if self.state is _HEADER and not self._take_header():
            return
        reader = self._reader
        handled = 0
        while not self._is_deaf:
            if handled == EVENTS_PER_TURN:  # others want their turn, too
                self._is_paused = True
                self.node.resume_soon(self)
                break
            handled += 1
            connection = self.connection
            if connection is not None and connection.is_waiting:
                self.node.wait(self)
                break
            if self._is_choked or self.is_blocked:
                self.node.session_changed(self)
                break
            try:
                event = self._retry
                if event is None:
                    self._channel_of_event = -1  # the reader knows
                    event = reader.next_event()
                    if event is None:
                        break
                self._retry = None
                self._channel_of_event = event.channel
                self._handle(event)
            except NotInMemoryError:
                self._retry = event
                self.node.wait(self)
                break
            except AMQPException as error:
                if error.class_id == 0 and self._channel_of_event >= 0:
                    error.class_id, error.method_id = _method_ids(event)
                self._fail(error)
            except Exception as error:  # a bug: this connection pays for it, nobody else
                self.node.log.exception("internal error", connection=self.name, exc_info=error)
                self._fail(InternalError())

    def _take_header(self) -> bool:
        """Look at the first bytes; whether they are what we speak."""
        header = self._reader.take_protocol_header()
        if header is None:
            return False
        reason = handshake.refusal(header)
        if reason is not None:
            self.node.strangers.warn(
                self.node.turn.now_ms, "connection refused", connection=self.name, reason=reason
            )
            self.outbox.write(handshake.PROTOCOL_HEADER)
            self._finish()
            return False
        self.state = State.STARTING
        self.outbox.write(self.node.greeting)
        return True

    def _handle(self, event: Event) -> None:
        if isinstance(event, MethodReceived):
            self._handle_method(event.channel, event.method)
        elif self.connection is not None:
            channel = self.connection.channels[event.channel]
            if isinstance(event, Published):
                if not self.node.is_watchful:
                    basic_publish(channel, event)
                elif self.node.alarms:
                    self._retry = event
                    self._block()
                    return
                elif self.connection.vhost.tracer is None:
                    basic_publish(channel, event)
                else:
                    publish_traced(channel, event, self.connection.vhost.tracer)
                if self.node.is_store_behind:
                    self.connection.rest_until_durable()
            elif isinstance(event, Settled):
                basic_settle(channel, event)

    def _block(self) -> None:
        """Read nothing more until the alarms are over: the client publishes. It may consume meanwhile."""
        self.is_blocked = True
        self.node.blocked[self] = None
        if self._tells_blocked:
            self._send(make(commands.Connection.Blocked, reason=self.node.alarm_text))

    def unblock(self) -> None:
        """Go on: the alarms are over."""
        self.is_blocked = False
        if self._tells_blocked:
            self._send(make(commands.Connection.Unblocked))
        self.node.resume_soon(self)

    def _forget_block(self) -> None:
        self.is_blocked = False
        self.node.blocked.pop(self, None)

    def _handle_method(self, number: int, method: Frame) -> None:
        connection = self.connection
        if number == 0 or connection is None:
            self._handle_connection_method(number, method)
            return
        if self.state is not State.RUNNING:
            return
        channel = connection.channels.get(number)
        if (
            isinstance(method, commands.Channel.CloseOk)
            and channel is None
            and self._reader.is_discarding(number)
        ):
            self._reader.close_channel(number)
        elif (
            isinstance(method, commands.Channel.Close)
            and channel is None
            and self._reader.is_discarding(number)
        ):
            connection.send(
                number, make(commands.Channel.CloseOk)
            )  # both sides closed it; its close-ok comes yet
        elif isinstance(method, commands.Channel.Open):
            self.node.turn.actor = connection.user.name
            self._open_channel(connection, number, method)
        elif channel is None:
            raise ChannelNotOpen("expected 'channel.open'", class_id(method), method_id(method))
        elif isinstance(method, commands.Channel.Close):
            self._close_channel(connection, channel)
            self._reader.close_channel(number)
            connection.send(number, make(commands.Channel.CloseOk))
        else:
            handler = HANDLERS.get(type(method))
            if handler is None:
                raise CommandInvalid("unimplemented method", class_id(method), method_id(method))
            self.node.turn.actor = connection.user.name
            self.node.catch_up()  # what came before may be seen by this method
            try:
                handler(channel, method)
            except AMQPException as error:
                if error.class_id == 0:
                    error.class_id, error.method_id = class_id(method), method_id(method)
                raise
            if self.outbox.size > CHOKED_AT * self.outbox.high:
                self._is_choked = True

    # -- channels

    def _open_channel(self, connection: Connection, number: int, method: Frame) -> None:
        if number in connection.channels or self._reader.is_discarding(number):
            raise ChannelNotOpen("second 'channel.open' seen", class_id(method), method_id(method))
        limit = connection.channel_max
        if limit and len(connection.channels) + self._reader.discarding_count >= limit:
            raise NotAllowed(
                f"number of channels opened ({limit}) has reached the negotiated channel_max ({limit})"
            )
        user = connection.user
        if user.has_reached(MAX_CHANNELS, user.channel_count):
            raise NotAllowed(
                f"number of channels opened for user '{user.name}' has reached the maximum allowed user limit"
                f" of ({user.limits[MAX_CHANNELS]})"
            )
        user.channel_count += 1
        channel = connection.channels[number] = Channel(connection, number)
        self._reader.open_channel(number)
        self.node.turn.events.channel_created(channel)
        connection.send(number, make(commands.Channel.OpenOk))

    def _close_channel(self, connection: Connection, channel: Channel) -> None:
        """Give up what a channel holds: unacked messages go back, consumers are gone."""
        del connection.channels[channel.number]
        connection.user.channel_count -= 1
        channel.is_closed = True
        channel.send_confirms(self.node.turn.durable)  # of what was done before; there will be no other turn
        channel.pending_confirms.clear()
        self.node.turn.confirming.pop(channel, None)
        channel.close_reply_consumer()
        consumers = list(channel.consumers.values())
        channel.consumers.clear()
        channel.requeue_all()
        self.node.turn.actor = INTERNAL
        for consumer in consumers:
            connection.vhost.remove_consumer(consumer)
        self.node.turn.events.channel_closed(channel)

    # -- errors and the end

    def _fail(self, error: AMQPException) -> None:
        if self.state in (State.CLOSING, State.CLOSED):
            self._is_deaf = self._is_deaf or self._reader.is_lost
            return  # it was told already, and its time is running
        number = self._channel_of_event
        is_from_reader = number < 0
        if is_from_reader:
            number = self._reader.channel_in_progress
        connection = self.connection
        if connection is None:
            self._fail_handshake(error)
            return
        channel = connection.channels.get(number)
        if isinstance(error, ChannelException) and channel is not None:
            self.close_channel(channel, error)
            return
        self.node.log.warning("connection closed by an error", connection=self.name, error=str(error))
        self.close(error)
        if self._reader.is_lost:
            self._is_deaf = True
            self._set_deadline(FAREWELL_MS)

    def close_channel(self, channel: Channel, error: ChannelException) -> None:
        """Close one channel because of an error, and say why."""
        connection = self.connection
        if connection is None or channel.is_closed:
            return
        number = channel.number
        self.node.log.warning(
            "channel closed by an error", connection=self.name, channel=number, error=str(error)
        )
        if self._retry is not None and self._retry.channel == number:
            self._retry = None
        self._reader.discard_channel(number)
        self._close_channel(connection, channel)
        connection.send(
            number,
            make(
                commands.Channel.Close,
                reply_code=error.reply_code,
                reply_text=error.reply_text,
                class_id=error.class_id,
                method_id=error.method_id,
            ),
        )

    def _fail_handshake(self, error: AMQPException) -> None:
        """End a connection that is not open. RabbitMQ is silent in most cases; a reason is kinder."""
        self.node.strangers.warn(
            self.node.turn.now_ms, "connection refused", connection=self.name, reason=str(error)
        )
        speaks = self._auth_failure_close or self.state in (State.OPENING, State.TUNING)
        if not speaks and not isinstance(error, LoginRefused):
            speaks = self.state is not State.STARTING or isinstance(error, FrameError | UnexpectedFrame)
        if speaks:
            self._send_close(error)
        self.state = State.CLOSING
        self._is_deaf = self._reader.is_lost or not speaks
        self._set_deadline(FAREWELL_MS)

    def close(self, error: AMQPException) -> None:
        """Close the connection: give up what it holds, say why, and wait for the answer."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        self._retry = None
        self._is_choked = False
        self._forget_block()
        self._release()
        self._send_close(error)
        self.state = State.CLOSING
        timeout_s = CLOSE_OK_MAX_S
        if self.heartbeat_s:
            timeout_s = min(timeout_s, self.heartbeat_s)
        self._set_deadline(max(1, timeout_s) * 1000)

    def _send_close(self, error: AMQPException) -> None:
        self._send(
            make(
                commands.Connection.Close,
                reply_code=error.reply_code,
                reply_text=error.reply_text,
                class_id=error.class_id,
                method_id=error.method_id,
            )
        )

    def _release(self) -> None:
        """Give up channels and exclusive queues."""
        connection = self.connection
        if connection is None:
            return
        connection.drop_held()
        connection.count_out()
        for number in list(connection.channels):
            self._reader.discard_channel(number)
            self._close_channel(connection, connection.channels[number])
        self.node.turn.actor = INTERNAL
        for queue in list(connection.exclusive_queues):
            consumers = queue.consumers
            connection.vhost.delete_queue(queue)
            for consumer in consumers:
                consumer.cancelled_by_broker()

    def _finish(self) -> None:
        """Everything is said; the loop flushes and closes."""
        self._is_deaf = True
        self.state = State.CLOSED
        self.wants_close = True
        self._set_deadline(FAREWELL_MS)
        self.node.session_changed(self)

    def _end(self) -> None:
        """Give up everything and have the socket closed at once."""
        if self.is_lost:
            return
        self._retry = None
        self._forget_block()
        if self.state is not State.CLOSED:
            if self.connection is not None and self.state is State.RUNNING:
                self.node.log.info("connection lost", connection=self.name)
            self._release()
            self.state = State.CLOSED
        self._is_deaf = True
        self.wants_close = True
        self.is_lost = True
        self.node.session_changed(self)

    # -- class connection

    def _send(self, method: Frame) -> None:
        """Send a method on channel 0, past anything held."""
        self.outbox.write(encode_method(0, method))

    def _handle_connection_method(self, number: int, method: Frame) -> None:
        following = handshake.next_state(self.state, number, method)
        if following is None:
            return
        if isinstance(method, commands.Connection.StartOk):
            self._log_in(method)
        elif isinstance(method, commands.Connection.TuneOk):
            self._tune(method)
        elif isinstance(method, commands.Connection.Open):
            self._open(method)
        elif isinstance(method, commands.Connection.UpdateSecret):
            self._send(make(commands.Connection.UpdateSecretOk))
        elif isinstance(method, commands.Connection.Close):
            self._release()
            self._send(make(commands.Connection.CloseOk))
            if following is State.CLOSED:
                self.node.log.info("connection closed", connection=self.name)
                self._finish()
                return
        elif isinstance(method, commands.Connection.CloseOk):
            self._finish()
            return
        self.state = following

    def _log_in(self, method: commands.Connection.StartOk) -> None:
        properties: Table = method.client_properties or {}  # type: ignore[assignment]  # our decoder makes a Table
        wanted = handshake.read_client_properties(properties)
        self._auth_failure_close = wanted.authentication_failure_close
        self._tells_blocked = wanted.connection_blocked
        self.client_properties = properties
        response = method.response.encode("utf-8", "surrogateescape")
        credentials = sasl.parse_response(method.mechanism, response)
        self.mechanism = method.mechanism
        try:
            self.user = self.node.authority.log_in(method.mechanism, credentials, self.is_loopback)
        except LoginRefused:
            logged_in(self, credentials.user, f"user '{credentials.user}' - invalid credentials")
            raise
        logged_in(self, credentials.user)
        self.node.logged_in(self)
        tuning = self.node.tuning
        self._send(
            make(
                commands.Connection.Tune,
                channel_max=tuning.channel_max,
                frame_max=tuning.frame_max,
                heartbeat=tuning.heartbeat,
            )
        )

    def _tune(self, method: commands.Connection.TuneOk) -> None:
        wanted = handshake.Tuning(method.channel_max, method.frame_max, method.heartbeat)
        tuning = handshake.negotiate(self.node.tuning, wanted)
        self._reader.frame_max = tuning.frame_max
        self.outbox.frame_max = tuning.frame_max
        self._tuned_channel_max = tuning.channel_max
        if tuning.heartbeat:
            self._heartbeats.begin(tuning.heartbeat, self.node.turn.now_ms)
            self.node.timers.arm(self, self.next_timer_ms())

    def _open(self, method: commands.Connection.Open) -> None:
        vhost = self.node.vhosts.get(method.virtual_host)
        if vhost is None:
            raise NotAllowed(f"vhost {method.virtual_host} not found", class_id(method), method_id(method))
        user = self.user
        assert user is not None
        grants = admit(user, vhost, self.node.authority)
        connection = Connection(self.node.turn, self.name, self.outbox, user, vhost, grants)
        connection.count_in()
        connection.channel_max = self._tuned_channel_max
        connection.pid = self.pid
        connection.client_properties = self.client_properties
        connection.consumers_per_channel = self.node.settings.consumers_per_channel
        wanted = handshake.read_client_properties(self.client_properties)
        connection.consumer_cancel_notify = wanted.consumer_cancel_notify
        self.connection = connection
        self._reader.is_running = True
        self._deadline_ms = 0
        self.node.timers.arm(self, self.next_timer_ms())
        self._send(make(commands.Connection.OpenOk))
        connection_created(self)
        self.node.log.info(
            "connection opened",
            connection=self.name,
            user=user.name,
            vhost=vhost.name,
            client=wanted.connection_name or "",
        )

    def force_close(self, text: str) -> None:
        """Close the connection because the broker wants it."""
        if self.connection is not None:
            self.close(ConnectionForced(text))
        else:
            self._end()

    # -- time

    def _set_deadline(self, after_ms: int) -> None:
        self._deadline_ms = self.node.turn.now_ms + after_ms
        self._heartbeats.end()
        self.node.timers.arm(self, self._deadline_ms)

    @property
    def heartbeat_s(self) -> int:
        """The heartbeat interval that was agreed on; 0 for none."""
        return self._heartbeats.interval_ms // 1000

    def next_timer_ms(self) -> int:
        """Return when `on_timer` is due; 0 for never."""
        due_ms = self._heartbeats.due_ms
        if due_ms and self._deadline_ms:
            return min(due_ms, self._deadline_ms)
        return due_ms or self._deadline_ms

    def on_timer(self) -> None:
        """Do what is due by now: heartbeats, and giving up on a peer that takes too long."""
        now_ms = self.node.turn.now_ms
        if self._deadline_ms and now_ms >= self._deadline_ms:
            if self.state in (State.HEADER, State.STARTING, State.TUNING, State.OPENING):
                self.node.strangers.warn(
                    now_ms, "handshake timed out", connection=self.name, state=self.state.value
                )
            self._end()
            return
        if self._heartbeats.is_time_to_send(now_ms):
            if not self.outbox.has_written:
                self.outbox.write(HEARTBEAT_FRAME)
            self.outbox.has_written = False
        if self._heartbeats.is_peer_silent(now_ms, self.is_resting):
            self.node.log.warning(
                f"missed heartbeats from client, timeout: {self.heartbeat_s}s", connection=self.name
            )
            self._end()
            return
        self.node.timers.arm(self, self.next_timer_ms())


def _method_ids(event: Event | None) -> tuple[int, int]:
    """Return class and method id of what a publish or a settlement came as; (0, 0) for other events."""
    if isinstance(event, Published):
        return BASIC, PUBLISH
    if isinstance(event, Settled):
        return BASIC, event.method_id
    return 0, 0
