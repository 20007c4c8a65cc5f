"""Plain `def` processes: the same operations as blocking calls, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from perdure.contract.ports import Suspended
from perdure.contract.registry import Registry
from perdure.engines.python.signals import Signal
from perdure.engines.python.sync_context import SyncContext
from perdure.host import Host
from perdure.model.outcomes import Cancelled, Failed
from perdure.runtime.options import WorkerOptions
from perdure.stores.memory import MemoryRegistry

go = Signal("go", int)
Body = Callable[[SyncContext], Any]


def double(n: int) -> int:
    return 2 * n


async def triple(n: int) -> int:
    return 3 * n


def note(into: list[str], what: str) -> str:
    into.append(what)
    return what


@asynccontextmanager
async def running(body: Body, store: MemoryRegistry, parking: float = 0.05) -> AsyncIterator[Host]:
    host = Host("", registry=cast("Registry", store), parking=parking, options=WorkerOptions(cancel_grace_ms=5_000))

    @host.process(recovery="rerunnable")
    def child(ctx: SyncContext, n: int) -> int:
        return ctx.step(double, n)

    @host.process(recovery="rerunnable", name="work", signals=[go])
    def work(ctx: SyncContext) -> Any:
        CHILD[:] = [child]
        return body(ctx)

    await host.open()
    try:
        yield host
    finally:
        await host.close(grace=timedelta(0))


CHILD: list[Any] = []


async def until(holds: Callable[[], bool]) -> None:
    """Look at the registry until it holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what threads bring about
            await asyncio.sleep(0.001)


async def outcome_of(host: Host) -> Any:
    async with asyncio.timeout(20):
        return await host.get_handle("p").outcome()


def keys(store: MemoryRegistry, prefix: str) -> list[str]:
    return [msgspec.json.decode(e.payload)["key"] for e in store.rows.logs["p"] if e.type.startswith(prefix)]


def test_a_plain_function_does_every_operation_by_blocking_calls() -> None:
    def body(ctx: SyncContext) -> list[Any]:
        first = ctx.step(double, 1) + ctx.step(triple, 1)
        together = ctx.gather(ctx.later.step(double, 2), ctx.later.step(triple, 2))
        won, value = ctx.race(ctx.later.sleep(1_000), ctx.later.step(double, 3, key="quick"))
        ctx.sleep(0.01)
        ctx.emit("told", {"n": 1})
        values = [ctx.now(), ctx.uuid(), ctx.random(), ctx.version("change")]
        result = ctx.result(ctx.start(CHILD[0], 5))
        try:
            ctx.wait(go, timeout=0.01, key="late")
        except TimeoutError:
            return [first, together, won, value, len(values), result, ctx.wait(go)]
        return []

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store) as host:
            run = await host.start(host.find_process("work"), id="p")
            await until(lambda: "wait:go" not in keys(store, "wait.") and "late" in keys(store, "wait."))
            await run.signal(go, 9)
            assert msgspec.json.decode((await outcome_of(host)).value) == [5, [4, 6], 1, 6, 4, 10, 9]

    asyncio.run(main())


def test_a_plain_function_is_suspended_and_resumed_with_what_it_had() -> None:
    runs: list[str] = []

    def body(ctx: SyncContext) -> list[Any]:
        runs.append("run")
        made = ctx.step(lambda: note(runs, "step"))
        return [made, ctx.wait(go)]

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store) as host:
            run = await host.start(host.find_process("work"), id="p")
            await until(lambda: store.rows.records["p"].status == "waiting")
            await until(lambda: host.worker is not None and host.worker.in_flight == ())
            await run.signal(go, 1)
            assert msgspec.json.decode((await outcome_of(host)).value) == ["step", 1]

    asyncio.run(main())
    assert runs == ["run", "step", "run"]


@pytest.mark.parametrize("swallowed", [BaseException, Suspended])
def test_a_plain_function_that_swallows_the_suspension_is_suspended_all_the_same(
    swallowed: type[BaseException],
) -> None:
    def body(ctx: SyncContext) -> int:
        try:
            return ctx.wait(go)
        except swallowed:
            return -1

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store) as host:
            run = await host.start(host.find_process("work"), id="p")
            await until(lambda: store.rows.records["p"].status == "waiting")
            await run.signal(go, 4)
            assert msgspec.json.decode((await outcome_of(host)).value) == 4

    asyncio.run(main())


@pytest.mark.parametrize("parking", [0.01, 100.0])
@pytest.mark.parametrize("place", ["wait", "sleep", "gather", "race"])
def test_a_cancelled_plain_function_sees_it_at_its_operation_and_cleans_up(place: str, parking: float) -> None:
    cleaned: list[str] = []

    def body(ctx: SyncContext) -> None:
        try:
            match place:
                case "wait":
                    ctx.wait(go)
                case "sleep":
                    ctx.sleep(1_000)
                case "gather":
                    ctx.gather(ctx.later.wait(go), ctx.later.sleep(1_000))
                case _:
                    ctx.race(ctx.later.wait(go), ctx.later.sleep(1_000))
        except asyncio.CancelledError:
            ctx.step(lambda: note(cleaned, "one"), key="one")
            ctx.step(lambda: note(cleaned, "two"), key="two")
            raise

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store, parking) as host:
            run = await host.start(host.find_process("work"), id="p")
            waits = "waiting" if parking < 1 else "running"
            await until(lambda: store.rows.records["p"].status == waits)
            if waits == "running":
                assert host.worker is not None
                worker = host.worker
                await until(lambda: worker.free_permits == worker.options.concurrency)
            await run.cancel("enough")
            assert await outcome_of(host) == Cancelled("enough")

    asyncio.run(main())
    assert cleaned == ["one", "two"]


def test_a_thread_that_asks_is_told_that_it_is_cancelled_and_its_clean_up_runs() -> None:
    entered, cleaned = threading.Event(), []

    def body(ctx: SyncContext) -> None:
        entered.set()
        try:
            while True:
                ctx.check_cancelled()
        finally:
            cleaned.append(ctx.step(double, 1))

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store) as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.get_running_loop().run_in_executor(None, entered.wait)
            await run.cancel("enough")
            assert await outcome_of(host) == Cancelled("enough")
        assert keys(store, "cancel.") == ["@0"]

    asyncio.run(main())
    assert cleaned == [2]


def test_a_durable_operation_inside_a_step_of_a_plain_function_is_refused() -> None:
    def body(ctx: SyncContext) -> int:
        def outer() -> int:
            return ctx.step(double, 1)

        return ctx.step(outer)

    async def main() -> None:
        store = MemoryRegistry()
        async with running(body, store) as host:
            await host.start(host.find_process("work"), id="p")
            outcome = await outcome_of(host)
            assert isinstance(outcome, Failed)
            assert "made inside step 'outer'" in outcome.error.message

    asyncio.run(main())
