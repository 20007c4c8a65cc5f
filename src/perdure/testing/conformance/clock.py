"""A clock that a case moves by hand, whatever event loop and whatever threads the store under test uses."""

from __future__ import annotations

import asyncio
import heapq

from perdure.testing.clock import VirtualClock


class SteppedClock(VirtualClock):
    """A VirtualClock whose sleepers also wake under an ordinary event loop, when `advance` has passed their time."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._slept = 0

    async def sleep(self, seconds: float) -> None:
        if self._running() is not None:
            await super().sleep(seconds)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slept += 1
        heapq.heappush(self._sleepers, (self.now().boot_ms + round(seconds * 1000), self._slept, woken))
        self._wake_sleepers()
        await woken

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._wake_sleepers()

    def _wake_sleepers(self) -> None:
        """On the event loop's thread only."""
        while self._sleepers and self._sleepers[0][0] <= self.now().boot_ms:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
