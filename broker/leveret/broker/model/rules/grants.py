"""What one user may do in one vhost. HOT.

All connections of a user to a vhost share one `Grants`, which changes in place when the permissions do; so a
change holds at once, also for those that are open. What a regular expression said about a name is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.protocol.errors import AccessRefused

if TYPE_CHECKING:
    import re

    from leveret.broker.model.rules.patterns import Automaton

CONFIGURE: Final = "configure"
WRITE: Final = "write"
READ: Final = "read"
QUEUE: Final = "queue"
EXCHANGE: Final = "exchange"
TOPIC: Final = "topic"  # the type of exchange for which there are topic permissions
DEFAULT_EXCHANGE: Final = "amq.default"  # what the default exchange is called in permissions
RESULTS_MAX: Final = 10_000  # remembered; more and they are found out anew
EVERYTHING: Final = frozenset((".*", "^.*", ".*?"))  # patterns that need not be tried


class Right:
    """One of configure, write, read: the names a user may do it to."""

    __slots__ = ("_known", "_matcher", "is_full", "verb")

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.is_full: bool = False
        self._matcher: re.Pattern[str] | Automaton | None = None
        self._known: dict[str, bool] = {}  # name -> result

    def set(self, pattern: str, matcher: re.Pattern[str] | Automaton | None) -> None:
        """Take a pattern; without a matcher nothing is granted."""
        self.is_full = pattern in EVERYTHING and matcher is not None
        self._matcher = matcher
        self._known.clear()

    def covers(self, name: str) -> bool:
        """Whether it extends to a name."""
        if self.is_full:
            return True
        known = self._known.get(name)
        if known is None:
            known = self._matcher is not None and self._matcher.search(name) is not None
            if len(self._known) >= RESULTS_MAX:
                self._known.clear()
            self._known[name] = known
        return known


class TopicRights:
    """What a user may write to, and read from, one topic exchange."""

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        self.write = Right(WRITE)
        self.read = Right(READ)


class Grants:
    """The permissions of a user in a vhost."""

    __slots__ = ("_topics", "configure", "is_restricted", "read", "user_name", "vhost_name", "write")

    def __init__(self, user_name: str, vhost_name: str) -> None:
        self.user_name = user_name
        self.vhost_name = vhost_name
        self.configure = Right(CONFIGURE)
        self.write = Right(WRITE)
        self.read = Right(READ)
        self._topics: dict[str, TopicRights] = {}  # exchange -> what its routing and binding keys may be
        self.is_restricted: bool = True  # publishing needs a look

    def restrict(self, topics: dict[str, TopicRights]) -> None:
        """Take the topic permissions, after the others have been set."""
        self._topics = topics
        self.is_restricted = not self.write.is_full or bool(topics)

    # -- checks. All raise AccessRefused with RabbitMQ's text.

    def require_configure(self, kind: str, name: str) -> None:
        """Refuse to declare or delete a queue or an exchange without permission."""
        self._require(self.configure, kind, name)

    def require_write(self, kind: str, name: str) -> None:
        """Refuse to publish, or to bind something to something else, without permission."""
        self._require(self.write, kind, name)

    def require_read(self, kind: str, name: str) -> None:
        """Refuse to consume, or to bind something to this exchange, without permission."""
        self._require(self.read, kind, name)

    def require_any(self, kind: str, name: str) -> None:
        """Refuse to tell whether something exists to those who have no permission for it at all."""
        if not (self.configure.covers(name) or self.write.covers(name) or self.read.covers(name)):
            raise AccessRefused(
                f"access to {kind} '{name}' in vhost '{self.vhost_name}' refused for user '{self.user_name}'"
            )

    def require_topic_write(self, exchange: str, routing_keys: list[str]) -> None:
        """Refuse routing keys that the user may not write to a topic exchange."""
        topic = self._topics.get(exchange)
        if topic is not None:
            for key in routing_keys:
                self._require_topic(topic.write, exchange, key)

    def require_topic_read(self, exchange: str, binding_key: str) -> None:
        """Refuse a binding key that the user may not read from a topic exchange."""
        topic = self._topics.get(exchange)
        if topic is not None:
            self._require_topic(topic.read, exchange, binding_key)

    def _require(self, right: Right, kind: str, name: str) -> None:
        if not name and kind == EXCHANGE:
            name = DEFAULT_EXCHANGE
        if not right.covers(name):
            raise AccessRefused(
                f"{right.verb} access to {kind} '{name}' in vhost '{self.vhost_name}' refused for user"
                f" '{self.user_name}'"
            )

    def _require_topic(self, right: Right, exchange: str, key: str) -> None:
        if not right.covers(key):
            raise AccessRefused(
                f"{right.verb} access to topic '{key}' in exchange '{exchange}' in vhost"
                f" '{self.vhost_name}' refused for user '{self.user_name}'"
            )
