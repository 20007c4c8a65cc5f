"""Strikes: carries out a plan on the ways, the workers and the server, one fault after the other."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from typing import assert_never

import asyncpg

from lab.cluster import LONGEST_WAIT_S, Cluster
from lab.ledger import Ledger
from lab.postgres.crew import Crew
from lab.postgres.lines import AnyLine, Struck, boot_ms
from lab.postgres.plans import Fault
from lab.postgres.proxy import DIRECTIONS, Proxy

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'perdure' AND pid <> pg_backend_pid()"


class Injector:
    """`done` is the plan so far: each fault and the boot time at which it began."""

    def __init__(
        self, faults: Iterator[Fault], cluster: Cluster, ways: Sequence[Proxy], crew: Crew, ledger: Ledger[AnyLine]
    ) -> None:
        self._faults, self._cluster, self._ways, self._crew, self._ledger = faults, cluster, ways, crew, ledger
        self.done: list[tuple[int, Fault]] = []

    async def strike_until(self, over: asyncio.Event) -> None:
        """One fault after the other; the one that is under way when it is over is brought to its end."""
        for fault in self._faults:
            if over.is_set():
                return
            began_ms = boot_ms()
            self.done.append((began_ms, fault))
            pid = await self._strike(fault)
            self._ledger.write(Struck(boot_ms=boot_ms(), began_ms=began_ms, kind=fault.kind, slot=fault.slot, pid=pid))

    async def _strike(self, fault: Fault) -> int | None:
        lasts_s = fault.lasts_ms / 1000
        if fault.slot is None:
            await (self._terminate(fault.share) if fault.kind == "terminate" else self.crash(lasts_s))
            if fault.kind == "terminate":
                await asyncio.sleep(lasts_s)
            return None
        way = self._ways[fault.slot]
        match fault.kind:
            case "cut":
                way.refuse()
            case "delay":
                way.delay(fault.delay_ms)
            case "half_close":
                way.silence(fault.direction)
            case "stall":
                way.silence(*DIRECTIONS)
            case "kill":
                pid = await self._crew.kill(fault.slot)
                await asyncio.sleep(lasts_s)
                await self._crew.start(fault.slot)
                return pid
            case "pause":
                self._crew.pause(fault.slot)
                await asyncio.sleep(lasts_s)
                self._crew.resume(fault.slot)
                return self._crew.pid(fault.slot)
            case "terminate" | "crash":
                raise AssertionError(f"{fault.kind} strikes the server")
            case _:
                assert_never(fault.kind)
        await asyncio.sleep(lasts_s)
        way.heal(cut=fault.cut_after and fault.kind != "delay")
        way.accept()
        return None

    async def _terminate(self, share: float) -> None:
        connection = await asyncpg.connect(self._cluster.url)
        try:
            pids = [row["pid"] for row in await connection.fetch(BACKENDS)]
            chosen = random.Random(share).sample(pids, round(share * len(pids)))  # noqa: S311 - it chooses whom to end
            await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)
        finally:
            await connection.close()

    async def crash(self, away_s: float = 0.0) -> None:
        """SIGKILL for the server's first process; it is started again, and recovers from what is on disk."""
        await asyncio.to_thread(self._cluster.stop, signal.SIGKILL)
        await asyncio.sleep(away_s)
        self._cluster.launch()
        async with asyncio.timeout(LONGEST_WAIT_S):
            while not await asyncio.to_thread(self._cluster.is_ready):  # noqa: ASYNC110 - another program gets ready
                await asyncio.sleep(0.02)
