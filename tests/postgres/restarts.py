"""What holds when whatever stands on the way to the rows ends and comes back: the server, or a pooler before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.errors import OutcomeUnknown, StoreUnavailable
from perdure.host import Host
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.worlds import register, until

WRITERS, ROUNDS, MORE = 8, 4, 50


async def nothing_acknowledged_is_lost(url: str, schema: str, restart: Callable[[], None]) -> None:
    """Many write while it is restarted again and again: work goes on, and what was acknowledged is there."""
    registry = await PostgresRegistry.open(url, schema)
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            id = f"p-{writer}-{number}"
            try:
                await registry.execute(register(id))
            except (StoreUnavailable, OutcomeUnknown):
                await asyncio.sleep(0.02)
            else:
                acknowledged.append(id)

    async def more(than: int) -> bool:
        return len(acknowledged) >= than

    writers = [asyncio.ensure_future(write(n)) for n in range(WRITERS)]
    for round in range(ROUNDS):
        wanted = len(acknowledged) + MORE
        await until(lambda wanted=wanted: more(wanted), f"work goes on in round {round}")  # type: ignore[misc]  # a default binds it
        restart()
    stop.set()
    await asyncio.gather(*writers)
    assert (await registry.get_many(acknowledged)).keys() == set(acknowledged)
    await registry.close()


async def a_process_goes_on(url: str, take_away: Callable[[], None], bring_back: Callable[[], None]) -> None:
    """Its code ends while there is no way to write its end: that is done later, and nothing runs twice."""
    host = Host(url)
    entered, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @host.process(recovery="rerunnable")
    async def slow(ctx: object) -> str:
        entered.set()
        await go_on.wait()
        ended.set()
        return "done"

    async with host:
        running = await host.start(slow)
        await entered.wait()
        take_away()
        go_on.set()
        await ended.wait()
        bring_back()
        assert await running.result() == "done"
        assert (await running.record()).attempt == 1
