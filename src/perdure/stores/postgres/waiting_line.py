"""Who may go next: entries in the order in which they came, none beside another one that names the same process."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable

from perdure.stores.group_commit import Entry
from perdure.stores.postgres.wanted import ids_of


class Waiting:
    """An entry in the line, with the processes that it names."""

    __slots__ = ("entry", "ids", "number", "size")

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry, self.number, self.size = entry, number, len(entry.commands)
        self.ids = ids_of(entry.commands[0])
        if self.size > 1:
            self.ids = list(dict.fromkeys(id for command in entry.commands for id in ids_of(command)))

    def __lt__(self, other: Waiting) -> bool:
        return self.number < other.number


class WaitingLine:
    """Several take from it. What is taken is in flight until it is `done`; what names a process in flight waits, and
    what came after it and names the same process waits behind it. Within one taking such entries go together."""

    def __init__(self) -> None:
        self._line: deque[Waiting] = deque()
        self._older: list[Waiting] = []
        """A heap of those that may go after they had to wait: they came before the others in the line."""
        self._in_flight: Counter[str] = Counter()
        self._aside: Counter[str] = Counter()
        self._behind: dict[str, list[Waiting]] = {}
        self._numbers = 0

    def join(self, entry: Entry) -> None:
        self._numbers += 1
        self._line.append(Waiting(entry, self._numbers))

    def take(self, limit: int) -> list[Waiting]:
        """The next entries, whole, up to `limit` commands (one entry may have more)."""
        taken: list[Waiting] = []
        size = 0
        in_flight, aside = self._in_flight, self._aside
        while (head := self._head()) is not None and (not taken or size + head.size <= limit):
            self._take_head()
            blocking = next((id for id in head.ids if id in in_flight or id in aside), None)
            if blocking is not None:
                self._behind.setdefault(blocking, []).append(head)
                aside.update(head.ids)
            elif not head.entry.withdrawn():
                taken.append(head)
                size += head.size
        for one in taken:
            for id in one.ids:
                in_flight[id] = in_flight.get(id, 0) + 1
        return taken

    def _head(self) -> Waiting | None:
        """Who came first of those that may go."""
        if self._older:
            return self._older[0]
        return self._line[0] if self._line else None

    def _take_head(self) -> None:
        if self._older:
            heapq.heappop(self._older)
        else:
            self._line.popleft()

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
        ids = [id]
        while ids:
            for waiting in self._behind.pop(ids.pop(), ()):
                heapq.heappush(self._older, waiting)
                for named in waiting.ids:
                    _take_off(self._aside, named)
                ids += waiting.ids

    @property
    def is_empty(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not (self._line or self._older or self._in_flight or self._behind)


def _take_off(place: Counter[str], id: str) -> None:
    place[id] -= 1
    if not place[id]:
        del place[id]
