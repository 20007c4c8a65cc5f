"""Who may go next: entries in the order in which they came, none beside another one that names the same process."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from perdure.stores.group_commit import Entry
from perdure.stores.postgres.wanted import ids_of


class Waiting:
    """An entry in the line, with the processes that it names."""

    __slots__ = ("entry", "ids", "number", "size")

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry, self.number, self.size = entry, number, len(entry.commands)
        self.ids = frozenset(id for command in entry.commands for id in ids_of(command))

    def __lt__(self, other: Waiting) -> bool:
        return self.number < other.number


class WaitingLine:
    """Several take from it. What is taken is in flight until it is `done`; what names a process in flight waits, and
    what came after it and names the same process waits behind it. Within one taking such entries go together."""

    def __init__(self) -> None:
        self._line: list[Waiting] = []
        self._in_flight: Counter[str] = Counter()
        self._aside: Counter[str] = Counter()
        self._behind: dict[str, list[Waiting]] = {}
        self._numbers = 0

    def join(self, entry: Entry) -> None:
        self._numbers += 1
        heapq.heappush(self._line, Waiting(entry, self._numbers))

    def take(self, limit: int) -> list[Waiting]:
        """The next entries, whole, up to `limit` commands (one entry may have more)."""
        taken: list[Waiting] = []
        size = 0
        while self._line and (not taken or size + self._line[0].size <= limit):
            next_one = heapq.heappop(self._line)
            blocking = next((id for id in next_one.ids if id in self._in_flight or id in self._aside), None)
            if blocking is not None:
                self._behind.setdefault(blocking, []).append(next_one)
                self._aside.update(next_one.ids)
            elif not next_one.entry.withdrawn():
                taken.append(next_one)
                size += next_one.size
        for one in taken:
            self._in_flight.update(one.ids)
        return taken

    def done(self, entries: Iterable[Waiting]) -> None:
        """They are answered: whoever waits behind them may go."""
        for one in entries:
            for id in one.ids:
                _take_off(self._in_flight, id)
                if id not in self._in_flight:
                    self._let_go(id)

    def _let_go(self, id: str) -> None:
        """Back into the line with those who wait behind this process, and with those who wait behind them: also they
        stand aside, so what they wait for may be each other. Whoever must still wait is set aside again."""
        for waiting in self._behind.pop(id, ()):
            heapq.heappush(self._line, waiting)
            for named in waiting.ids:
                _take_off(self._aside, named)
                self._let_go(named)

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._line or self._in_flight or self._behind)


def _take_off(place: Counter[str], id: str) -> None:
    place[id] -= 1
    if not place[id]:
        del place[id]
