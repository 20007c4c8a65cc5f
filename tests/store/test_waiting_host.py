from __future__ import annotations

import asyncio
from pathlib import Path

from perdure.clock import Moment, SystemClock
from perdure.engines.python.context import ProcessContext
from perdure.host import Host


class CountingClock(SystemClock):
    reads = 0

    def now(self) -> Moment:
        self.reads += 1
        return super().now()


def test_a_host_that_does_not_work_sleeps_after_another_program_has_committed(tmp_path: Path) -> None:
    async def story() -> None:
        url, clock = f"sqlite:///{tmp_path}/work.db", CountingClock()
        working, waiting = Host(url), Host(url, work=False, clock=clock)

        @working.process(recovery="rerunnable")
        async def quick(ctx: ProcessContext) -> int:
            return 1

        async with asyncio.timeout(10), working, waiting:
            run = await working.start(quick)
            assert await waiting.get_handle(run.id).result() == 1
            before = clock.reads
            await asyncio.sleep(0.5)  # the time in which it shall do nothing
            assert clock.reads - before < 100

    asyncio.run(story())
