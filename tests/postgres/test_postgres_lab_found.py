"""What the PostgreSQL lab has found, each as a test of its own. Those that need no server have none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest

from perdure.clock import SystemClock
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.errors import PerdureError, StoreUnavailable
from perdure.host import Host
from perdure.model.outcomes import Cancelled
from perdure.model.queries import EventPage
from perdure.model.record import ProcessRecord
from perdure.runtime.awaiter import Awaiter
from perdure.runtime.hub import ChangeHub
from perdure.runtime.options import WorkerOptions
from perdure.runtime.spawner import TaskOnlySpawner
from perdure.stores.group_commit import Entry
from perdure.stores.memory import MemoryRegistry
from perdure.stores.postgres.waiting_line import Waiting, WaitingLine
from perdure.transitions.commands import Renew, RenewReceipt, RequestCancel
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


# --- the line of what waits for a commit ------------------------------------------------------------------------


def entry(*ids: str) -> Entry:
    return Entry([RequestCancel(process_id=id, reason="") for id in ids], Future())


def ids_taken(line: WaitingLine) -> tuple[list[Waiting], list[set[str]]]:
    taken = line.take(1_000)
    return taken, [set(one.ids) for one in taken]


def test_what_waits_behind_an_entry_of_two_processes_goes_with_it_when_it_may_go() -> None:
    line = WaitingLine()
    line.join(entry("parent"))
    first, _ = ids_taken(line)
    line.join(entry("parent", "child"))
    line.join(entry("child"))
    assert line.take(1_000) == []
    line.done(first)
    assert ids_taken(line)[1] == [{"parent", "child"}, {"child"}]


def test_a_chain_of_entries_behind_each_other_may_be_as_long_as_it_likes() -> None:
    line = WaitingLine()
    line.join(entry("0"))
    first, _ = ids_taken(line)
    for number in range(3_000):
        line.join(entry(str(number), str(number + 1)))
    assert line.take(10_000) == []
    line.done(first)
    assert len(line.take(10_000)) == 3_000


@pytest.mark.parametrize("seed", range(50))
def test_everything_in_the_line_is_taken_in_the_order_of_each_process_and_never_beside_another(seed: int) -> None:
    chance = random.Random(seed)
    asked = [set(chance.sample("abcd", chance.randint(1, 3))) for _ in range(25)]
    line, in_flight, left = WaitingLine(), list[list[Waiting]](), list(asked)
    order: dict[str, list[int]] = {id: [] for id in "abcd"}
    while left or in_flight or not line.is_empty:
        assert left or in_flight or line._line or line._older, "something waits, and for nothing"
        if left and chance.random() < 0.5:
            line.join(entry(*left.pop(0)))
        if taken := line.take(chance.randint(1, 6)):
            named = {id for one in taken for id in one.ids}
            assert not named & {id for batch in in_flight for one in batch for id in one.ids}
            in_flight.append(taken)
            for one in taken:
                for id in one.ids:
                    order[id].append(one.number)
        if in_flight and chance.random() < 0.7:
            line.done(in_flight.pop(chance.randrange(len(in_flight))))
    assert order == {id: [n for n, ids in enumerate(asked, 1) if id in ids] for id in "abcd"}


# --- nothing is entered past the lease's local deadline ---------------------------------------------------------

TTL_MS = 600
SLOW_S = 0.7
OPTIONS = WorkerOptions(lease_ttl_ms=TTL_MS, renew_every_ms=200, infrastructure_backoff_ms=10)


class NeverRenewing(MemoryRegistry):
    """Whoever holds a lease here has it for one length of it. The first reading of a log takes longer, if `slow`."""

    def __init__(self, *, slow: bool) -> None:
        super().__init__(SystemClock())
        self.slow = slow

    def renew_from_thread(self, command: Renew) -> Future[RenewReceipt]:
        failed: Future[RenewReceipt] = Future()
        failed.set_exception(away())
        return failed

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        if self.slow:
            self.slow = False
            time.sleep(SLOW_S)  # noqa: ASYNC251 - whatever else is ready in this loop comes after it
        return await super().events_after(process_id, sequence, limit)


def test_code_is_not_entered_when_reading_its_journal_has_outlasted_its_lease() -> None:
    async def test() -> None:
        left_ms: list[int] = []
        host = Host("memory://", registry=NeverRenewing(slow=True), options=OPTIONS)

        @host.process(recovery="rerunnable", retry=Retry(2, initial=timedelta(milliseconds=1)))
        async def fails_once(ctx: ProcessContext) -> str:
            left_ms.append(ctx.local_deadline_ms - SystemClock().now().boot_ms)
            if ctx.attempt == 1:
                raise RuntimeError("once")
            return "done"

        async with host:
            assert await (await host.start(fails_once)).result() == "done"
        assert len(left_ms) == 2, "the run whose journal came late has not entered it"
        assert min(left_ms) > 0

    run(test())


@pytest.mark.parametrize("swallows", [False, True])
def test_a_step_is_not_entered_past_its_lease(swallows: bool) -> None:
    async def test() -> None:
        left_ms: list[int] = []
        host = Host("memory://", registry=NeverRenewing(slow=False), options=OPTIONS)

        @host.process(recovery="rerunnable")
        async def slow_once(ctx: ProcessContext) -> str:
            async def step() -> str:
                left_ms.append(ctx.local_deadline_ms - SystemClock().now().boot_ms)
                return "done"

            if ctx.attempt == 1:
                time.sleep(SLOW_S)  # noqa: ASYNC251 - nobody can tell it meanwhile that its lease is over
            try:
                return await ctx.step(step)
            except PerdureError:
                if swallows:
                    return "wrong"
                raise

        async with host:
            assert await (await host.start(slow_once)).result() == "done"
        assert len(left_ms) == 1
        assert left_ms[0] > 0

    run(test())
