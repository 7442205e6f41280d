"""The topic exchange: a trie of words, walked with all its branches at once. HOT.

Theory of operation ------------------- A binding key is split at dots; `*` stands for one word and `#` for
any number of words, none included. The empty key has no words, `.` has two empty ones. Keys without a
wildcard, the most usual, are in a dictionary by the whole key.

The others are paths in a trie. A routing key is matched word by word with the list of nodes that the words so
far can have led to, as an automaton with many states: a `#` node stays in the list, and a node's `#` child
joins it at no cost. Each node is in the list at most once a step (`mark`), so a match takes at most words x
nodes steps, whatever the binding keys; trying the ways one after another would take exponential time with
several `#`. Two `#` in a row mean the same as one and are stored as one. A `#` at the end of a path matches
whatever follows, so it is taken down as a result (`taken`) and does not travel with the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from leveret.broker.model.exchanges.binding import (
    Binding,
    Destination,
    Destinations,
    add_destination,
    drop_destination,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.protocol.tables import Table

STAR: Final = "*"
HASH: Final = "#"


class _Node:
    """A place in the trie: what follows it, by word, and what is bound with the words up to here."""

    __slots__ = ("destinations", "hash", "is_hash", "mark", "star", "taken", "words")

    def __init__(self, is_hash: bool) -> None:
        self.is_hash = is_hash
        self.words: dict[str, _Node] = {}
        self.star: _Node | None = None
        self.hash: _Node | None = None
        self.destinations: Destinations = {}
        self.mark: int = 0  # the last step whose list this node is in
        self.taken: int = 0  # the last match this node is a result of

    def is_leaf(self) -> bool:
        """Whether no binding key goes on from here."""
        return not self.words and self.star is None and self.hash is None

    def child(self, word: str) -> _Node | None:
        """Return the node behind this word of a binding key."""
        if word == STAR:
            return self.star
        if word == HASH:
            return self.hash
        return self.words.get(word)

    def grow(self, word: str) -> _Node:
        """Return the node behind this word of a binding key, made if it is missing."""
        node = self.child(word)
        if node is None:
            node = _Node(word == HASH)
            if word == STAR:
                self.star = node
            elif word == HASH:
                self.hash = node
            else:
                self.words[word] = node
        return node

    def cut(self, word: str) -> None:
        """Remove the node behind this word of a binding key."""
        if word == STAR:
            self.star = None
        elif word == HASH:
            self.hash = None
        else:
            del self.words[word]


class TopicMatcher:
    """Routes to the bindings whose key, a pattern of words, matches a routing key."""

    __slots__ = ("_exact", "_match", "_root", "_step")

    cacheable: ClassVar[bool] = True

    def __init__(self, arguments: Table) -> None:
        self._exact: dict[str, Destinations] = {}  # binding key without wildcards -> destinations
        self._root: _Node = _Node(False)
        self._step: int = 0
        self._match: int = 0

    def validate(self, binding_key: str, arguments: Table) -> None:
        """Accept everything; RabbitMQ 4.4 refuses more than two `#`, which cost nothing here."""

    def bind(self, binding: Binding) -> None:
        """Add a binding. O(words)."""
        key = binding.binding_key
        words = _pattern(key)
        if words is None:
            destinations = self._exact.get(key)
            if destinations is None:
                destinations = self._exact[key] = {}
        else:
            node = self._root
            for word in words:
                node = node.grow(word)
            destinations = node.destinations
        add_destination(destinations, binding.destination)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, and the nodes that nothing needs any more. O(words)."""
        key = binding.binding_key
        words = _pattern(key)
        if words is None:
            destinations = self._exact[key]
            drop_destination(destinations, binding.destination)
            if not destinations:
                del self._exact[key]
            return
        path = [self._root]
        for word in words:
            path.append(path[-1].grow(word))
        drop_destination(path[-1].destinations, binding.destination)
        for index in range(len(words) - 1, -1, -1):
            node = path[index + 1]
            if node.destinations or not node.is_leaf():
                return
            path[index].cut(words[index])

    def destinations(self, routing_keys: list[str], headers: Table | None) -> Collection[Destination]:
        """Find the destinations. O(words x nodes reached), and each key of a message adds its own."""
        if len(routing_keys) == 1 and self._root.is_leaf():
            return self._exact.get(routing_keys[0], ())
        results: list[Destinations] = []
        self._match += 1
        for key in routing_keys:
            exact = self._exact.get(key)
            if exact is not None:
                results.append(exact)
            self._walk(key.split(".") if key else [], results)
        if len(results) == 1:
            return results[0]
        found: Destinations = {}
        for destinations in results:
            found.update(destinations)
        return found

    def _walk(self, words: list[str], results: list[Destinations]) -> None:
        """Add what the wildcards lead to."""
        reached: list[_Node] = []
        self._step += 1
        self._enter(self._root, reached, results)
        for word in words:
            before = reached
            reached = []
            self._step += 1
            for node in before:
                child = node.words.get(word)
                if child is not None:
                    self._enter(child, reached, results)
                if node.star is not None:
                    self._enter(node.star, reached, results)
                if node.is_hash:
                    self._enter(node, reached, results)
            if not reached:
                return
        for node in reached:
            self._take(node, results)

    def _enter(self, node: _Node, reached: list[_Node], results: list[Destinations]) -> None:
        """Put a node on the list of this step, and its `#` child, which needs no word."""
        if node.mark == self._step:
            return
        node.mark = self._step
        if node.is_hash and node.is_leaf():
            self._take(node, results)
            return
        reached.append(node)
        behind = node.hash
        if behind is not None:
            self._enter(behind, reached, results)

    def _take(self, node: _Node, results: list[Destinations]) -> None:
        """Make what is bound at a node part of the result, once a match."""
        if node.destinations and node.taken != self._match:
            node.taken = self._match
            results.append(node.destinations)


def _pattern(binding_key: str) -> list[str] | None:
    """Split a binding key into words, runs of `#` as one; None if it has no wildcard."""
    if STAR not in binding_key and HASH not in binding_key:
        return None
    words: list[str] = []
    has_wildcard = False
    for word in binding_key.split("."):
        if word == HASH:
            has_wildcard = True
            if words and words[-1] == HASH:
                continue
        elif word == STAR:
            has_wildcard = True
        words.append(word)
    return words if has_wildcard else None
