"""Regular expressions of permissions and policies, matched in bounded time.

Clients choose the names that are matched, and Python's engine can take forever for a name of 255 bytes:
`(a+)+$` doubles its time with each character. So an expression with repetitions inside repetitions, or with
more than two in a row, is matched by an automaton that takes each character once, for all ways at the same
time. It is slower for what people usually write, which is left to Python. So are expressions that an
automaton cannot match: with references to groups, or looking ahead or behind.

Theory of operation: a small parser makes a tree of the expression, the tree is compiled to instructions (take
a character, go two ways, be at the start or the end), and a set of places in them moves over the name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

INSTRUCTIONS_MAX: Final = 2000  # of an automaton
VARIABLE_MAX: Final = 2  # repetitions in a row that are left to Python
_QUANTIFIER: Final = re.compile(r"\{(\d*)(,?)(\d*)\}")
_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "d": str.isdecimal,
    "s": str.isspace,
    "w": lambda char: char.isalnum() or char == "_",
}  # escape -> what it stands for
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class Unsupported(Exception):
    """The expression has something that an automaton cannot match, or that this parser does not know."""


class Node(NamedTuple):
    """A part of an expression."""

    kind: str  # "char", "all" of the parts in a row, "any" of them, "repeat", "start", "end"
    test: Callable[[str], bool] | None = None
    parts: tuple[Node, ...] = ()
    low: int = 0
    high: int = -1  # of "repeat"; -1 for no end


def compile_regex(pattern: str) -> re.Pattern[str] | Automaton:
    """Compile an expression.

    Raises:
        re.error: it is none.
    """
    regex = re.compile(pattern)
    try:
        tree = _Parser(pattern).parse()
        return regex if variables(tree) <= VARIABLE_MAX else Automaton(tree)
    except (Unsupported, RecursionError):
        return regex


def variables(node: Node) -> float:
    """Count the repetitions in a row; infinite if one is of more than a character."""
    if node.kind == "all":
        return sum(map(variables, node.parts))
    if node.kind == "any":
        return max(map(variables, node.parts), default=0)
    if node.kind != "repeat" or node.low == node.high == 1:
        return sum(map(variables, node.parts))
    (part,) = node.parts
    if part.kind != "char":
        return variables(part) if node.high in (0, 1) and not variables(part) else float("inf")
    return 1


class Automaton:
    """Instructions, and a search for where they match."""

    def __init__(self, tree: Node) -> None:
        self._tests: list[Callable[[str], bool] | None] = []  # instruction -> a character that it takes
        self._following: list[tuple[int, ...]] = []  # instruction -> where it goes on
        self._places: list[str] = []  # instruction -> "start" or "end", where it must be, or ""
        self._emit(tree)
        self._end = len(self._tests)

    def _add(self, test: Callable[[str], bool] | None, place: str = "") -> int:
        number = len(self._tests)
        if number >= INSTRUCTIONS_MAX:
            raise Unsupported
        self._tests.append(test)
        self._places.append(place)
        self._following.append((number + 1,))
        return number

    def _emit(self, node: Node) -> None:
        if node.kind == "char":
            self._add(node.test)
        elif node.kind == "all":
            for part in node.parts:
                self._emit(part)
        elif node.kind == "any":
            self._emit_choice(node.parts)
        elif node.kind == "repeat":
            self._emit_repeat(node)
        else:
            self._add(None, node.kind)

    def _emit_choice(self, parts: tuple[Node, ...]) -> None:
        ends: list[int] = []
        for index, part in enumerate(parts):
            if index == len(parts) - 1:
                self._emit(part)
                break
            split = self._add(None)
            self._emit(part)
            ends.append(self._add(None))
            self._following[split] = (split + 1, len(self._tests))
        for end in ends:
            self._following[end] = (len(self._tests),)

    def _emit_repeat(self, node: Node) -> None:
        (part,) = node.parts
        for _ in range(node.low):
            self._emit(part)
        if node.high < 0:
            split = self._add(None)
            self._emit(part)
            back = self._add(None)
            self._following[back] = (split,)
            self._following[split] = (split + 1, len(self._tests))
            return
        splits: list[int] = []
        for _ in range(node.high - node.low):
            splits.append(self._add(None))
            self._emit(part)
        for split in splits:
            self._following[split] = (split + 1, len(self._tests))

    def search(self, text: str) -> bool | None:
        """Whether the expression matches anywhere in a text; None if not, as Python's says it."""
        places: set[int] = set()
        for index in range(len(text) + 1):
            self._reach(0, index, text, places)
            if self._end in places:
                return True
            if index == len(text):
                break
            char = text[index]
            following: set[int] = set()
            for place in places:
                test = self._tests[place]
                if test is not None and test(char):
                    self._reach(place + 1, index + 1, text, following)
            places = following
        return True if self._end in places else None

    def _reach(self, place: int, index: int, text: str, places: set[int]) -> None:
        """Add a place and all that can be reached from it without a character."""
        pending = [place]
        while pending:
            place = pending.pop()
            if place in places:
                continue
            places.add(place)
            if place == self._end or self._tests[place] is not None:
                continue
            if self._places[place] == "start" and index:
                continue
            if self._places[place] == "end" and text[index:] not in ("", "\n"):
                continue
            pending += self._following[place]


class _Parser:
    """Makes a tree of an expression that Python has compiled, so its form is right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def parse(self) -> Node:
        """Return the tree.

        Raises:
            Unsupported: there is something in it that is left to Python.
        """
        tree = self._choice()
        if self._at < len(self._pattern):
            raise Unsupported
        return tree

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._next()
        if not char:
            raise Unsupported
        self._at += 1
        return char

    def _choice(self) -> Node:
        parts = [self._row()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else Node("any", parts=tuple(parts))

    def _row(self) -> Node:
        parts: list[Node] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return Node("all", parts=tuple(parts))

    def _repeated(self, node: Node) -> Node:
        char = self._next()
        bounds = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}.get(char)
        if bounds is not None:
            self._at += 1
        elif char == "{" and (found := _QUANTIFIER.match(self._pattern, self._at)) and found[0] != "{}":
            self._at = found.end()
            low = int(found[1] or 0)
            bounds = (low, low) if not found[2] else (low, int(found[3]) if found[3] else -1)
            if max(bounds) > INSTRUCTIONS_MAX:
                raise Unsupported
        if bounds is None:
            return node
        if self._next() == "+":
            raise Unsupported  # it never gives back what it took
        if self._next() == "?":
            self._at += 1  # which of the matches is found first does not matter here
        return Node("repeat", parts=(node,), low=bounds[0], high=bounds[1])

    def _atom(self) -> Node:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return Node("char", self._class())
        if char == ".":
            return Node("char", lambda other: other != "\n")
        if char == "^":
            return Node("start")
        if char == "$":
            return Node("end")
        if char == "\\":
            return Node("char", self._escape())
        return Node("char", char.__eq__)

    def _group(self) -> Node:
        if self._next() == "?":
            if not self._pattern.startswith("?:", self._at):
                raise Unsupported
            self._at += 2
        tree = self._choice()
        if self._take() != ")":
            raise Unsupported
        return tree

    def _escape(self) -> Callable[[str], bool]:
        char = self._take()
        if char.lower() in _CATEGORIES:
            return _category(char)
        return self._escaped(char).__eq__

    def _escaped(self, char: str) -> str:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            raise Unsupported  # a reference, an octal or hexadecimal number, a border
        return char

    def _class(self) -> Callable[[str], bool]:
        is_negated = self._next() == "^"
        self._at += is_negated
        tests: list[Callable[[str], bool]] = []
        is_first = True
        while is_first or self._next() != "]":
            is_first = False
            tests.append(self._member())
        self._at += 1
        return lambda char: any(test(char) for test in tests) != is_negated

    def _member(self) -> Callable[[str], bool]:
        low = self._take()
        if low == "[":
            raise Unsupported  # Python may come to read more into it
        if low == "\\":
            escape = self._take()
            if escape.lower() in _CATEGORIES:
                return _category(escape)
            low = "\b" if escape == "b" else self._escaped(escape)
        if self._next() != "-" or self._pattern[self._at + 1 : self._at + 2] == "]":
            return low.__eq__
        self._at += 1
        high = self._take()
        if high == "[":
            raise Unsupported
        if high == "\\":
            high = self._escaped(self._take())
        return lambda char: low <= char <= high


def _category(escape: str) -> Callable[[str], bool]:
    test = _CATEGORIES[escape.lower()]
    if escape.islower():
        return test
    return lambda char: not test(char)
