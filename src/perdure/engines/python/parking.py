"""Parking: a process whose every branch waits gives its permit back at once, its memory and lease a little later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from perdure.contract.ports import Run, Suspended
from perdure.model.waits import Wait

AGAIN_S = 0.25
"""After a suspension that was refused, the next is tried no sooner: why it was may be known here only later."""


class Parked:
    """One branch that waits. It looks when it is ticked, or after a while, and stays parked while it finds nothing.

    `waits` is asked when the process is suspended: what stands then is what it waits for.
    """

    def __init__(self, waits: Callable[[], tuple[Wait, ...]]) -> None:
        self.waits = waits
        self._ticked = False
        self._answer: BaseException | None = None
        self._turn: asyncio.Future[None] | None = None

    def tick(self, process_id: str = "") -> None:
        self._ticked = True
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def end(self, answer: BaseException) -> None:
        """There is nothing to wait for any more: the branch is told this."""
        self._answer = answer
        self.tick()

    async def turn(self, within_s: float) -> None:
        """Return when the branch must look again, at the latest after so long. Raises what has ended the wait."""
        loop = asyncio.get_running_loop()
        if not self._ticked:
            self._turn = loop.create_future()
            timer = loop.call_later(within_s, self.tick)
            try:
                await self._turn
            finally:
                timer.cancel()
                self._turn = None
        self._ticked = False
        if self._answer is not None:
            raise self._answer


class ParkingLot:
    """Counts the branches of one process that work, and suspends the process once none has for a while.

    `suspend(waits)` answers whether the row was suspended; if not, some wait is over already. If it was, and
    the code was told, `look_after` is called with the same. `bound_s` is None for processes that may not be suspended:
    they wait in memory and keep their lease.
    """

    def __init__(
        self,
        run: Run,
        bound_s: float | None,
        suspend: Callable[[tuple[Wait, ...]], Awaitable[bool]],
        look_after: Callable[[tuple[Wait, ...]], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._run, self._bound_s, self._spawn = run, bound_s, spawn
        self._suspend, self._look_after = suspend, look_after
        self._working = 1
        self._parked: dict[Parked, None] = {}
        self._gave_back = False
        self._timer: asyncio.TimerHandle | None = None
        self._suspending: asyncio.Task[None] | None = None
        self.suspended = False

    def branch_out(self, branches: int) -> None:
        """The code waits for that many branches of its own, which work now."""
        self._working += branches - 1

    def branch_ended(self, *, code_goes_on: bool) -> None:
        """A branch has ended. In its place the code itself works again, or waits for the others still."""
        if not code_goes_on:
            self._stopped_working()

    def _stopped_working(self) -> None:
        self._working -= 1
        if self._working == 0 and self._parked:
            self._gave_back = True
            self._run.begin_wait()
            self._arm(self._bound_s)

    def _arm(self, after_s: float | None) -> None:
        if after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._begin_suspending)

    def _begin_suspending(self) -> None:
        self._timer = None
        if self._working == 0 and self._suspending is None:
            self._suspending = self._spawn(self._suspend_now(), "perdure-suspend")

    async def _suspend_now(self) -> None:
        waits = tuple(dict.fromkeys(wait for parked in self._parked for wait in parked.waits()))
        answer: BaseException | None = None
        self._run.begin_suspending()
        try:
            self.suspended = await self._suspend(waits)
        except Exception as error:  # the store's: whoever waits is told
            answer = error
        if self.suspended:
            answer = Suspended()
        self._run.end_suspending(suspended=self.suspended)
        self._suspending = None
        for parked in tuple(self._parked):
            if answer is not None:
                parked.end(answer)
            else:  # some wait is over already: every branch looks again
                parked.tick()
        if answer is None and self._working == 0 and self._timer is None:
            self._arm(max(self._bound_s or 0.0, AGAIN_S))
        if self.suspended:  # from now on the row may be claimed again, by this worker too
            await self._look_after(waits)

    @asynccontextmanager
    async def parked(self, parked: Parked) -> AsyncIterator[None]:
        """This branch waits until the block ends; then it works again, under a permit. Raises Suspended."""
        if self.suspended:
            raise Suspended
        self._parked[parked] = None
        self._stopped_working()
        try:
            yield
        finally:
            del self._parked[parked]
            await self._work_again()

    async def _work_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._working += 1
        interrupted: asyncio.CancelledError | None = None
        while self._suspending is not None:  # what is being decided about the row must be known first
            try:
                await asyncio.wait({self._suspending})
            except asyncio.CancelledError as error:
                interrupted = error
        if self.suspended:
            raise Suspended
        if self._gave_back:
            self._gave_back = False
            await self._run.end_wait()
        if interrupted is not None:
            raise interrupted
