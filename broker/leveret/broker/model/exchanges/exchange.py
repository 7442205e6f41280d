"""An exchange: what it was declared with, and its bindings. HOT.

An exchange type is a class with the shape of `Matcher`, made from the arguments of the exchange: a new one is
a file and a line in `EXCHANGE_TYPES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from leveret.broker.model.arguments import ALTERNATE_EXCHANGE, check_exchange_argument
from leveret.broker.model.deduplication import (
    DEDUPLICATION,
    Window,
    check_window_arguments,
    window_of_exchange,
)
from leveret.broker.model.equivalence import inequivalent, same_argument
from leveret.broker.model.exchanges.binding import Binding, Chooser, Destination, Identity, Matcher, identity
from leveret.broker.model.exchanges.delay import (
    DELAYED_MESSAGE,
    Delay,
    delay_of,
    delayed_type,
    delays,
    no_delayed_type,
)
from leveret.broker.model.exchanges.direct import DefaultMatcher, DirectMatcher
from leveret.broker.model.exchanges.fanout import FanoutMatcher
from leveret.broker.model.exchanges.hashing import (
    MessageHashMatcher,
    ModulusHashMatcher,
    consistent_hash_matcher,
)
from leveret.broker.model.exchanges.headers import HeadersMatcher
from leveret.broker.model.exchanges.random_choice import LOCAL_RANDOM, LocalRandomMatcher, RandomMatcher
from leveret.broker.model.exchanges.recent_history import RecentHistoryMatcher
from leveret.broker.model.exchanges.topic import TopicMatcher
from leveret.broker.model.terms import resource_name
from leveret.protocol.errors import PreconditionFailed
from leveret.protocol.tables import Table, from_python, longstr

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from leveret.broker.model.turn import Turn
    from leveret.protocol.content import Message


def _delayed_matcher(arguments: Table) -> Matcher:
    """Make the matcher that an x-delayed-message exchange routes by when the time has come."""
    make = EXCHANGE_TYPES.get(delayed_type(arguments))
    if make is None:
        raise no_delayed_type()
    return make(arguments)


def _deduplicating_matcher(arguments: Table) -> Matcher:
    """Make the matcher of an x-message-deduplication exchange: what it lets through goes to all bindings."""
    check_window_arguments(arguments)
    return FanoutMatcher(arguments)


EXCHANGE_TYPES: Final[dict[str, Callable[[Table], Matcher]]] = {
    "direct": DirectMatcher,
    "fanout": FanoutMatcher,
    "topic": TopicMatcher,
    "headers": HeadersMatcher,
    "x-consistent-hash": consistent_hash_matcher,
    "x-modulus-hash": ModulusHashMatcher,
    "x-random": RandomMatcher,
    LOCAL_RANDOM: LocalRandomMatcher,
    "x-recent-history": RecentHistoryMatcher,
    DELAYED_MESSAGE: _delayed_matcher,
    DEDUPLICATION: _deduplicating_matcher,
}
CHOOSERS: Final = (MessageHashMatcher, RandomMatcher, RecentHistoryMatcher)


class Exchange:
    """Routes messages to queues and other exchanges; hashed by identity.

    Args:
        vhost_name: where it lives.
        name: unique there.
        type_name: one of `EXCHANGE_TYPES`.
        durable: survives a restart.
        auto_delete: deleted when its last binding as a source goes.
        internal: clients must not publish to it.
        arguments: of its declaration; kept.

    Raises:
        PreconditionFailed: the type is unknown, or an argument has the wrong type.

    Source: AMQP 0-9-1 exchange.declare (40, 10).
    """

    __slots__ = (
        "_bindings",
        "_window_arguments",
        "alternate_exchange",
        "arguments",
        "auto_delete",
        "chooser",
        "delay",
        "depends_on_message",
        "durable",
        "internal",
        "matcher",
        "name",
        "queue_id",
        "type_name",
        "vhost_name",
        "window",
    )

    def __init__(
        self,
        vhost_name: str,
        name: str,
        type_name: str,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        if matcher is None:
            check_exchange_type(type_name)
        self.vhost_name = vhost_name
        self.name = name
        self.type_name = type_name
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments: Table = {} if arguments is None else arguments
        check_exchange_argument(
            resource_name("exchange", name, vhost_name),
            ALTERNATE_EXCHANGE,
            self.arguments.get(ALTERNATE_EXCHANGE),
        )
        self.alternate_exchange: str | None = longstr(self.arguments, ALTERNATE_EXCHANGE)
        self.matcher: Matcher = EXCHANGE_TYPES[type_name](self.arguments) if matcher is None else matcher
        self.chooser: Chooser | None = None
        if isinstance(self.matcher, CHOOSERS):
            self.chooser = cast("Chooser", self.matcher)
        self.queue_id: int = 0  # under which the store knows what it keeps; 0 if it keeps nothing
        self.delay: Delay | None = None
        self._window_arguments = window_of_exchange(type_name, self.arguments)
        self.window: Window | None = None  # of keys of deduplication, given to it likewise
        # Whether each message is routed by itself, when its turn comes (`pass_on`).
        self.depends_on_message: bool = self.chooser is not None
        self._bindings: dict[Identity, Binding] = {}  # in the order in which they were made

    @staticmethod
    def default(vhost_name: str, queues: Mapping[str, Destination]) -> Exchange:
        """Make the default exchange over all queues of a vhost by name, whichever there are at the time."""
        return Exchange(vhost_name, "", "direct", durable=True, matcher=DefaultMatcher(queues))

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} {self.type_name} bindings={len(self._bindings)}>"

    @property
    def bindings(self) -> Collection[Binding]:
        """The bindings it is the source of, in the order in which they were made."""
        return self._bindings.values()

    def has(self, destination: Destination, binding_key: str, arguments: Table) -> bool:
        """Whether there is such a binding."""
        return identity(destination, binding_key, arguments) in self._bindings

    def bind(self, destination: Destination, binding_key: str, arguments: Table) -> Binding | None:
        """Add a binding.

        Returns:
            None if there is an identical one already.

        Raises:
            PreconditionFailed: the exchange type has no use for this key or these arguments.
        """
        self.matcher.validate(binding_key, arguments)
        key = identity(destination, binding_key, arguments)
        if key in self._bindings:
            return None
        binding = self._bindings[key] = Binding(self, destination, binding_key, arguments)
        self.matcher.bind(binding)
        return binding

    def unbind(self, destination: Destination, binding_key: str, arguments: Table) -> Binding | None:
        """Remove a binding.

        Returns:
            None if there is no such one.
        """
        binding = self._bindings.pop(identity(destination, binding_key, arguments), None)
        if binding is not None:
            self.matcher.unbind(binding)
        return binding

    @property
    def keeps(self) -> bool:
        """Whether it keeps something, and is to be given an id to keep it under (`equip`)."""
        return delays(self.type_name, self.arguments) or self._window_arguments is not None

    def equip(self, turn: Turn, queue_id: int) -> None:
        """Begin to keep what is to be kept."""
        self.queue_id = queue_id
        self.depends_on_message = True
        if delays(self.type_name, self.arguments):
            removes_header = self.type_name != DELAYED_MESSAGE
            self.delay = Delay(turn, queue_id, self.vhost_name, self.name, removes_header)
        if self._window_arguments is not None:
            self.window = Window(turn, queue_id, self._window_arguments, self.durable)

    def let_go(self) -> None:
        """Forget what was kept, because the exchange is gone."""
        if self.delay is not None:
            self.delay.let_go()
        if self.window is not None:
            self.window.let_go()

    def pass_on(
        self, message: Message, routing_keys: list[str], turn: Turn
    ) -> Collection[Destination] | None:
        """Find where one message goes, where that depends on the message; None if it stays or ends here."""
        headers = message.envelope.fields.headers
        if self.window is not None and message is not turn.released and self.window.is_duplicate(headers):
            return None if self.window.arguments.is_silent else ()
        if self.delay is not None:
            delay_ms = delay_of(headers)
            if delay_ms:
                self.delay.add(message, delay_ms)
                return None
        if self.chooser is not None:
            return self.chooser.choose(message, routing_keys, turn)
        return self.matcher.destinations(routing_keys, headers)

    def check_equivalent(
        self, type_name: str, durable: bool, auto_delete: bool, internal: bool, arguments: Table
    ) -> None:
        """Compare with another declaration of the same name; of its arguments only the alternate exchange.

        Raises:
            PreconditionFailed: something differs, or there is no such type.

        Source: RabbitMQ, property equivalence on redeclaration.
        """
        check_exchange_type(type_name)
        resource = resource_name("exchange", self.name, self.vhost_name)
        for key, received, current in (
            ("type", from_python(type_name), from_python(self.type_name)),
            ("durable", from_python(durable), from_python(self.durable)),
            ("auto_delete", from_python(auto_delete), from_python(self.auto_delete)),
            ("internal", from_python(internal), from_python(self.internal)),
            (ALTERNATE_EXCHANGE, arguments.get(ALTERNATE_EXCHANGE), self.arguments.get(ALTERNATE_EXCHANGE)),
        ):
            if not same_argument(received, current):
                raise inequivalent(resource, key, received, current)


def check_exchange_type(type_name: str) -> None:
    """Refuse a type that nobody knows; this comes before all other checks of a declaration.

    Raises:
        PreconditionFailed: there is no such type.

    Source: RabbitMQ 4.x; 3.10 closes the connection with COMMAND_INVALID and the same text.
    """
    if type_name not in EXCHANGE_TYPES:
        raise PreconditionFailed(f"{'unknown' if type_name else 'invalid'} exchange type '{type_name}'")
