"""The change hub: in-process wake-ups for waiters. Freshness, never truth: whoever is woken reads again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from perdure.model.record import ProcessRecord

RECENT_ENDS = 4_096

Listener = Callable[[str], None]
EndListener = Callable[[str, ProcessRecord | None], None]
"""Called with the record that shows the end, or None: it may have ended, read to find out."""


class Subscription:
    """One waiter's ear on one process. Subscribe first, then read, then wait: no change falls in between."""

    def __init__(self, hub: ChangeHub, process_id: str) -> None:
        self._hub, self._process_id = hub, process_id
        self._changed = asyncio.Event()

    def __enter__(self) -> Subscription:
        self._hub.listen(self._process_id, self._tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hub.unlisten(self._process_id, self._tick)

    def _tick(self, process_id: str) -> None:
        self._changed.set()

    def clear(self) -> None:
        """Forget earlier changes; call it before the read that would see them."""
        self._changed.clear()

    async def changed_within(self, seconds: float) -> bool:
        """Wait for a change, at most so long; whether there was one."""
        if self._changed.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


class ChangeHub:
    """Calls the listeners of a process. An entry vanishes with its last listener. Event loop only.

    A change is only a hint. An end is passed on with the record that was committed, since an end never changes.
    """

    def __init__(self) -> None:
        self._changes: dict[str, list[Listener]] = {}
        self._ends: dict[str, list[EndListener]] = {}
        self._recent_ends: OrderedDict[str, None] = OrderedDict()
        self._ends_seen = 0

    def mark(self) -> int:
        """A point in what this hub has heard, for `heard_no_end_since`."""
        return self._ends_seen

    def heard_no_end_since(self, mark: int, process_id: str) -> bool:
        """Whether this hub would know of an end published after the mark, and knows of none. Still only a hint: it
        spares a read that would most likely find nothing, and who then waits looks again within the backoff."""
        return self._ends_seen - mark < RECENT_ENDS and process_id not in self._recent_ends

    def subscribe(self, process_id: str) -> Subscription:
        return Subscription(self, process_id)

    def listen(self, process_id: str, listener: Listener) -> None:
        self._changes.setdefault(process_id, []).append(listener)

    def unlisten(self, process_id: str, listener: Listener) -> None:
        _remove(self._changes, process_id, listener)

    def listen_for_end(self, process_id: str, listener: EndListener) -> None:
        self._ends.setdefault(process_id, []).append(listener)

    def unlisten_for_end(self, process_id: str, listener: EndListener) -> None:
        _remove(self._ends, process_id, listener)

    def publish(self, process_ids: Iterable[str]) -> None:
        """Something about these processes has changed; they may have ended."""
        for process_id in process_ids:
            self._remember_end(process_id)
            self._tell_change(process_id)
            self._tell_end(process_id, None)

    def publish_record(self, record: ProcessRecord) -> None:
        """This was just committed."""
        if self._changes:
            self._tell_change(record.id)
        if not record.is_live:
            self._remember_end(record.id)
            self._tell_end(record.id, record)

    def publish_all(self) -> None:
        """Something about any process may have changed."""
        self._ends_seen += RECENT_ENDS
        self.publish({**self._changes, **self._ends})

    def _remember_end(self, process_id: str) -> None:
        self._ends_seen += 1
        self._recent_ends[process_id] = None
        if len(self._recent_ends) > RECENT_ENDS:
            self._recent_ends.popitem(last=False)

    def _tell_change(self, process_id: str) -> None:
        for listener in tuple(self._changes.get(process_id, ())):
            listener(process_id)

    def _tell_end(self, process_id: str, record: ProcessRecord | None) -> None:
        for listener in tuple(self._ends.get(process_id, ())):
            listener(process_id, record)

    @property
    def watched(self) -> int:
        """How many processes have listeners."""
        return len(self._changes.keys() | self._ends.keys())


def _remove(topic: dict[str, list[Any]], process_id: str, listener: Any) -> None:
    standing = topic.get(process_id)
    if standing is not None and listener in standing:
        standing.remove(listener)
        if not standing:
            del topic[process_id]
