"""What must hold of a stream of messages: each comes once, in order, whole; each publish is confirmed once.

Nothing here stops a run. What is wrong is counted and the first of each kind is described, so that the end
of a run can name all of it.
"""

from __future__ import annotations

from typing import Final

MISSING_MAX: Final = 100_000  # messages remembered as overtaken; more of them count as lost at once


class Faults:
    """What went wrong, by kind: how often, and the first case in words."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a fault; `kind` is such as `lost` or `confirmed twice`."""
        before, first = self._kinds.get(kind, (0, example))
        self._kinds[kind] = (before + count, first)

    def merge(self, other: Faults) -> None:
        """Count what others found, too."""
        for kind, (count, example) in other._kinds.items():
            self.add(kind, example, count)

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def describe(self) -> list[str]:
        """Return one text for each kind, such as `3 lost (first: message 17 of queue q)`."""
        return [f"{count:,} {kind} (first: {example})" for kind, (count, example) in self._kinds.items()]


class Order:
    """Which numbers a consumer is due, in which order, and whether they came so.

    Messages are numbered from 1 by their publisher. A consumer that gets all of them has the default cycle.
    One whose queue is bound to some of the routing keys, which the publisher uses in turns of `cycle`
    messages, gets those at `positions` (0 up to cycle - 1) of every turn.
    """

    def __init__(self, name: str, faults: Faults, cycle: int = 1, positions: tuple[int, ...] = (0,)) -> None:
        self.name = name
        self.faults = faults
        self.cycle = cycle
        self.positions = positions
        self.taken = 0  # messages that came, each counted once
        self.due = positions[0] + 1  # the number that must come next
        self.kind = 0  # which of the positions it has; messages of one kind look alike
        self._index = 0  # how many of the due ones came or were overtaken
        self._missing: set[int] = set()  # numbers that were overtaken

    def _move(self, index: int) -> None:
        self._index = index
        if self.cycle == 1:
            self.due = index + 1
        else:
            turn, self.kind = divmod(index, len(self.positions))
            self.due = turn * self.cycle + self.positions[self.kind] + 1

    def _number(self, index: int) -> int:
        turn, place = divmod(index, len(self.positions))
        return turn * self.cycle + self.positions[place] + 1

    def count(self, published: int) -> int:
        """Return how many of so many published messages are due in all."""
        turns, rest = divmod(published, self.cycle)
        return turns * len(self.positions) + sum(position < rest for position in self.positions)

    def advance(self, count: int) -> None:
        """Note that the next `count` messages came as they were due."""
        self.taken += count
        self._move(self._index + count)

    def take(self, number: int) -> bool:
        """Note that a message came; return whether it is one that was to come (late or not)."""
        turn, place = divmod(number - 1, self.cycle)
        if number < 1 or place not in self.positions:
            self.faults.add("in a queue that is not bound for it", f"message {number} in {self.name}")
            return False
        index = turn * len(self.positions) + self.positions.index(place)
        if index < self._index:
            return self._take_late(number)
        for overtaken in range(self._index, min(index, self._index + MISSING_MAX - len(self._missing))):
            self._missing.add(self._number(overtaken))
        self._move(index + 1)
        self.taken += 1
        return True

    def _take_late(self, number: int) -> bool:
        if number not in self._missing:
            self.faults.add("delivered twice", f"message {number} of {self.name}")
            return False
        self._missing.discard(number)
        self.taken += 1
        self.faults.add("out of order", f"message {number} of {self.name} came late")
        return True

    def finish(self, published: int) -> None:
        """Count what has not come, when nothing more is expected."""
        lost = self.count(published) - self.taken
        if lost > 0:
            first = min(self._missing, default=self.due)
            self.faults.add("lost", f"message {first} of {self.name}", lost)
        elif lost < 0:
            self.faults.add(
                "never published", f"message {self._number(self._index - 1)} in {self.name}", -lost
            )


class Confirms:
    """Whether every publish of a channel is confirmed exactly once, in any order."""

    def __init__(self, name: str, faults: Faults) -> None:
        self.name = name
        self.faults = faults
        self.low = 0  # all up to this number are confirmed
        self._above: set[int] = set()  # confirmed ones behind a gap

    @property
    def count(self) -> int:
        """How many are confirmed."""
        return self.low + len(self._above)

    def take(self, tag: int, multiple: bool, published: int, is_nack: bool = False) -> None:
        """Note basic.ack or basic.nack for one publish, or for all up to it."""
        if is_nack:
            self.faults.add("refused with basic.nack", f"publish {tag} on {self.name}")
        if tag > published:
            self.faults.add("confirmed that were never published", f"publish {tag} on {self.name}")
        elif multiple:
            self._take_all(tag or published)
        elif tag <= self.low or tag in self._above:
            self.faults.add("confirmed twice", f"publish {tag} on {self.name}")
        else:
            self._above.add(tag)
            self._close_gap()

    def _take_all(self, tag: int) -> None:
        if tag <= self.low:
            self.faults.add("confirmed twice", f"publish {tag} and all before it on {self.name}")
            return
        self.low = tag
        if self._above:
            self._above = {each for each in self._above if each > tag}
            self._close_gap()

    def _close_gap(self) -> None:
        while self.low + 1 in self._above:
            self.low += 1
            self._above.discard(self.low)

    def finish(self, published: int) -> None:
        """Count what is not confirmed, when nothing more is expected."""
        if self.count < published:
            self.faults.add(
                "never confirmed", f"publish {self.low + 1} on {self.name}", published - self.count
            )
