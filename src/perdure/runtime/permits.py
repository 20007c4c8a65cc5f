"""Permits bound how much runs at once. One is held while a process works and given back while it waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar


class Permits:
    """`limit` permits. Whoever comes back from a wait goes before new work: `free` is what new work may take."""

    def __init__(self, limit: int, on_free: Callable[[], None]) -> None:
        self.limit = limit
        self._held = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._on_free = on_free

    @property
    def free(self) -> int:
        return max(0, self.limit - self._held - len(self._returning))

    @property
    def held(self) -> int:
        return self._held

    def take(self, count: int) -> None:
        """Take permits that `free` showed."""
        self._held += count

    def give_back(self, count: int = 1) -> None:
        self._held -= count
        while self._returning and self._held < self.limit:
            waiting = self._returning.popleft()
            if not waiting.done():
                self._held += 1
                waiting.set_result(None)
        if self._held < self.limit:
            self._on_free()

    async def take_again(self) -> None:
        """Come back from a wait; a cancelled caller holds a permit afterwards all the same."""
        if self._held < self.limit and not self._returning:
            self._held += 1
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append(waiting)
        cancelled = False
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError


class HeldPermit:
    """The one permit of a running process, however many of its tasks wait at once."""

    __slots__ = ("_permits", "_released", "_waiting")

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self._waiting = 0
        self._released = False

    def release(self) -> None:
        """The process no longer works: its permit is free, and it takes none again. Doing it twice changes nothing."""
        if not self._released:
            self._released = True
            if self._waiting == 0:
                self._permits.give_back()

    def begin_wait(self) -> None:
        """One more of the process's branches waits for something durable."""
        self._waiting += 1
        if self._waiting == 1 and not self._released:
            self._permits.give_back()

    async def end_wait(self) -> None:
        """One of them waits no more; the last one takes the permit again before it goes on."""
        if self._waiting > 1 or self._released:
            self._waiting -= 1
            return
        try:
            await self._permits.take_again()
        finally:
            self._waiting -= 1
            if self._released:  # released while it came back: nobody else will give this one back
                self._permits.give_back()

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """The permit is free from the first wait that begins to the last one that ends."""
        self.begin_wait()
        try:
            yield
        finally:
            await self.end_wait()


_current: ContextVar[HeldPermit | None] = ContextVar("perdure_permit", default=None)
"""The permit of the process that this task belongs to; None outside of processes."""


def enter_process(permit: HeldPermit) -> None:
    """From here on this task, and those it starts, belong to the process that holds this permit."""
    _current.set(permit)


@asynccontextmanager
async def giving_back_permit() -> AsyncIterator[None]:
    """While the block waits, the permit of the process it runs in is given back; outside of one, nothing happens."""
    permit = _current.get()
    if permit is None:
        yield
        return
    token = _current.set(None)
    try:
        async with permit.given_back():
            yield
    finally:
        _current.reset(token)
