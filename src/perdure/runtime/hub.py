"""The change hub: in-process wake-ups for waiters. Freshness, never truth: whoever is woken reads again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType

Listener = Callable[[str], None]


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

    Who only waits for the end listens for that: it is not called for what happens before.
    """

    def __init__(self) -> None:
        self._changes: dict[str, list[Listener]] = {}
        self._ends: dict[str, list[Listener]] = {}

    def subscribe(self, process_id: str) -> Subscription:
        return Subscription(self, process_id)

    def listen(self, process_id: str, listener: Listener, *, for_end: bool = False) -> None:
        (self._ends if for_end else self._changes).setdefault(process_id, []).append(listener)

    def unlisten(self, process_id: str, listener: Listener, *, for_end: bool = False) -> None:
        topic = self._ends if for_end else self._changes
        standing = topic.get(process_id)
        if standing is not None and listener in standing:
            standing.remove(listener)
            if not standing:
                del topic[process_id]

    def publish(self, process_ids: Iterable[str], *, may_have_ended: bool = True) -> None:
        """Something about these processes has changed; their end, unless the publisher knows better."""
        if not self._changes and not (may_have_ended and self._ends):
            return
        for process_id in process_ids:
            for listener in tuple(self._changes.get(process_id, ())):
                listener(process_id)
            if may_have_ended:
                for listener in tuple(self._ends.get(process_id, ())):
                    listener(process_id)

    def publish_all(self) -> None:
        """Something about any process may have changed."""
        self.publish({**self._changes, **self._ends})

    @property
    def watched(self) -> int:
        """How many processes have listeners."""
        return len(self._changes.keys() | self._ends.keys())
