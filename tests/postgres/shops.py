"""A host with two processes on a schema of a test's own, and a table of the user's, for callers' transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from perdure import Host, ProcessContext, Signal, WorkerOptions
from perdure.contract.ports import EventSink
from perdure.engines.python.definitions import Process
from tests.postgres.own_drivers import DRIVERS, Own
from tests.postgres.server import server_url
from tests.postgres.worlds import World, world

approve = Signal("approve", str)


class Shop:
    def __init__(self, w: World, host: Host, double: Process[int, int], await_approval: Process[None, str]) -> None:
        self.w, self.host, self.double, self.await_approval = w, host, double, await_approval
        self.orders = f'"{w.schema}".orders'

    async def count(self, table: str = "orders") -> int:
        found: int = await self.w.fetchval(f"SELECT count(*) FROM {{s}}.{table}")
        return found

    async def result(self, id: str) -> Any:
        return await self.host.get_handle(id).result()

    async def signals(self, id: str) -> list[str]:
        """The payloads of the signals that stand in its log, in order."""
        events = (await self.w.registry.events_after(id, 0)).events
        return [bytes(event.payload).decode() for event in events if event.type == "signal.approve"]


@asynccontextmanager
async def shop(folder: Path, *, work: bool = True, url: str = "", sink: EventSink | None = None) -> AsyncIterator[Shop]:
    async with world(folder) as w:
        await w.sql.execute(f'CREATE TABLE "{w.schema}".orders (number text PRIMARY KEY)')
        options = WorkerOptions(drain_grace_ms=0)
        host = Host(f"{url or server_url()}?schema={w.schema}", work=work, options=options, sink=sink)

        @host.process(recovery="rerunnable")
        async def double(ctx: ProcessContext, number: int) -> int:
            return 2 * number

        @host.process(recovery="rerunnable", signals=[approve])
        async def await_approval(ctx: ProcessContext) -> str:
            return await ctx.wait(approve)

        async with host:
            yield Shop(w, host, double, await_approval)


@asynccontextmanager
async def own(driver: str = "asyncpg") -> AsyncIterator[Own]:
    """A transaction of a caller's own."""
    async with DRIVERS[driver](server_url()) as opened:
        yield opened
