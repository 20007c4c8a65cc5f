"""What the PostgreSQL lab has found, each as a test of its own. Those that need no server have none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import pytest

from perdure.clock import SystemClock
from perdure.errors import StoreUnavailable
from perdure.model.outcomes import Cancelled
from perdure.model.record import ProcessRecord
from perdure.runtime.awaiter import Awaiter
from perdure.runtime.hub import ChangeHub
from perdure.runtime.spawner import TaskOnlySpawner
from perdure.stores.memory import MemoryRegistry
from perdure.transitions.commands import RequestCancel
from tests.postgres.worlds import LONGEST_WAIT_S, register, run


def away() -> StoreUnavailable:
    return StoreUnavailable("store", "it can't be reached", "Wait.")


class OnceAway(MemoryRegistry):
    """The first look at ends fails, and `then` happens in the same turn of the loop."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.looked = asyncio.Event()
        self.then: Callable[[], object] = lambda: None

    async def ended_among(self, process_ids: Collection[str]) -> Any:
        if not self.looked.is_set():
            self.looked.set()
            self.then()
            raise away()
        return await super().ended_among(process_ids)


class AwayForReads(OnceAway):
    async def get(self, process_id: str) -> ProcessRecord:
        await self.looked.wait()
        await asyncio.sleep(0.01)
        raise away()


def test_a_wait_that_fails_at_its_first_read_leaves_no_error_that_nobody_hears() -> None:
    async def test() -> None:
        registry = AwayForReads()
        with pytest.raises(StoreUnavailable):
            await Awaiter(registry, ChangeHub(), TaskOnlySpawner()).await_terminal("p")

    run(test())


def test_a_wait_that_begins_while_others_are_told_of_an_outage_is_looked_after_too() -> None:
    async def test() -> None:
        registry = OnceAway()
        awaiter = Awaiter(registry, ChangeHub(), TaskOnlySpawner())
        await registry.execute(register("p"))
        with ExitStack() as watching:
            begun: list[asyncio.Future[ProcessRecord | None]] = []

            def begin() -> None:
                begun.append(watching.enter_context(awaiter.watching_end("p")))

            registry.then = lambda: asyncio.get_running_loop().call_soon(begin)
            with pytest.raises(StoreUnavailable):
                await awaiter.await_terminal("p")
            await registry.execute(RequestCancel(process_id="p", reason="enough"))
            async with asyncio.timeout(LONGEST_WAIT_S):
                ended = await begun[0]
            assert ended is not None
            assert ended.outcome == Cancelled("enough")

    run(test())
