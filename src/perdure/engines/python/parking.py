"""Parking: a process whose every branch waits gives its permit back at once, its memory and lease a little later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from perdure.contract.ports import Run, Suspended
from perdure.model.waits import Wait


class ParkingLot:
    """Counts the branches of one process that work, and suspends the process once none has for a while.

    `suspend(waits)` answers whether the row was suspended; if not, some wait is over already. `bound_s` is None for
    processes that may not be suspended: they wait in memory and keep their lease.
    """

    def __init__(
        self,
        run: Run,
        bound_s: float | None,
        suspend: Callable[[tuple[Wait, ...]], Awaitable[bool]],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._run, self._bound_s, self._suspend, self._spawn = run, bound_s, suspend, spawn
        self._working = 1
        self._parked: dict[asyncio.Future[None], tuple[Wait, ...]] = {}
        self._gave_back = False
        self._timer: asyncio.TimerHandle | None = None
        self._suspending: asyncio.Task[None] | None = None
        self.suspended = False

    def branch_out(self, branches: int) -> None:
        """The code waits for that many branches of its own, which work now."""
        self._working += branches - 1

    def branch_ended(self, *, last: bool) -> None:
        """A branch has ended; after the last one the code itself works again."""
        if not last:
            self._stopped_working()

    def _stopped_working(self) -> None:
        self._working -= 1
        if self._working == 0 and self._parked:
            self._gave_back = True
            self._run.begin_wait()
            if self._bound_s is not None:
                self._timer = asyncio.get_running_loop().call_later(self._bound_s, self._begin_suspending)

    def _begin_suspending(self) -> None:
        self._timer = None
        if self._working == 0 and self._suspending is None:
            self._suspending = self._spawn(self._suspend_now(), "perdure-suspend")

    async def _suspend_now(self) -> None:
        try:
            self.suspended = await self._suspend(
                tuple(dict.fromkeys(w for waits in self._parked.values() for w in waits))
            )
            answer: BaseException | None = Suspended() if self.suspended else None
        except Exception as error:  # the store's: whoever waits is told
            answer = error
        self._suspending = None
        for parked in tuple(self._parked):
            if parked.done():
                continue
            if answer is None:  # some wait is over already: every branch looks again
                parked.set_result(None)
            else:
                parked.set_exception(answer)

    @asynccontextmanager
    async def parked(self, waits: tuple[Wait, ...]) -> AsyncIterator[asyncio.Future[None]]:
        """This branch waits. The future given is done when the branch must look again, or raises Suspended."""
        if self.suspended:
            raise Suspended
        signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked[signal] = waits
        self._stopped_working()
        try:
            yield signal
        finally:
            del self._parked[signal]
            if not signal.done():
                signal.cancel()
            elif not signal.cancelled():
                signal.exception()  # taken note of, also where the branch was cancelled instead
            await self._work_again()

    async def _work_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._working += 1
        if self._suspending is not None:  # what is being decided about the row must be known first
            await asyncio.wait({self._suspending})
        if self.suspended:
            raise Suspended
        if self._gave_back:
            self._gave_back = False
            await self._run.end_wait()
