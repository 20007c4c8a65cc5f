"""Time, names and chance for tests: a clock that moves with the simulation, and ids that come from a seed."""

from __future__ import annotations

import asyncio
import random

from perdure.clock import Moment
from perdure.errors import WrongHostUse
from perdure.ids import ProcessId
from perdure.testing.loop import SimulationLoop


class VirtualClock:
    """A Clock whose time is where it began, plus the simulation loop's time, plus what a test advanced by hand.

    It follows the loop it was given, or the simulation loop it is first read under; when that loop ends, its time
    stays, and under another one it goes on from there. Both scales move together; `step_wall` and `reboot` part
    them. One clock is one machine: hosts on the same machine share it.
    """

    def __init__(
        self,
        wall_ms: int = 1_700_000_000_000,
        boot_ms: int = 1_000_000,
        boot_id: str = "boot-1",
        *,
        loop: SimulationLoop | None = None,
    ) -> None:
        self._wall_ms = wall_ms
        self._boot_ms = boot_ms
        self._boot_id = boot_id
        self._boots = 1
        self._loop = loop
        self._carried_s = 0.0

    def now(self) -> Moment:
        elapsed_ms = self._elapsed_ms()
        return Moment(self._wall_ms + elapsed_ms, self._boot_ms + elapsed_ms, self._boot_id)

    async def sleep(self, seconds: float) -> None:
        """Suspend for `seconds` of virtual time. Raises WrongHostUse when no simulation is running."""
        if self._running() is None:
            raise WrongHostUse(
                "VirtualClock.sleep outside a simulation would wait for ever. Run the code under run_simulation, "
                "or call the pass directly and move the clock with advance()."
            )
        await asyncio.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Move both scales forward by hand. Timers of a running simulation don't notice."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): the boot scale never goes back. Use step_wall for the wall clock.")
        self._carried_s += seconds

    def step_wall(self, ms: int) -> None:
        """Somebody set the wall clock: only `wall_ms` jumps, forward or back."""
        self._wall_ms += ms

    def reboot(self) -> None:
        """The machine starts again: a new boot id, and `boot_ms` counts from 0. The wall clock goes on."""
        self._boots += 1
        self._boot_id = f"{self._boot_id.rsplit('-', 1)[0]}-{self._boots}"
        self._boot_ms = -self._elapsed_ms()

    def _running(self) -> SimulationLoop | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return loop if isinstance(loop, SimulationLoop) else None

    def _elapsed_ms(self) -> int:
        running = self._running()
        if running is not None and running is not self._loop:
            self._carried_s += self._loop.time() if self._loop is not None else 0.0
            self._loop = running
        elapsed_s = self._carried_s + (self._loop.time() if self._loop is not None else 0.0)
        return int(elapsed_s * 1000 + 0.001)  # a microsecond of grace: 0.3 s of float steps must read as 300 ms


class SeededIds:
    """Ids from a seed: readable, unique, in order of making. Hosts of one simulation share one instance."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311  (a simulation must be repeatable)
        self._processes = 0
        self._tokens = 0

    def process_id(self) -> ProcessId:
        self._processes += 1
        return ProcessId(f"p-{self._processes:06d}")

    def token(self) -> str:
        self._tokens += 1
        return f"tok-{self._tokens:06d}-{self._random.getrandbits(16):04x}"

    def fraction(self) -> float:
        return self._random.random()
