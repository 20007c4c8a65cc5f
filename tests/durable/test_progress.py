"""ctx.progress: one value per process beside its log, written seldom, at once for all, and never lost at an end."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from perdure.contract.registry import Registry
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import InvalidOption, UnknownProcess
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.model.progress import Progress
from perdure.model.registration import RetryPolicy
from perdure.stores.memory import MemoryRegistry
from perdure.testing.faults import Delay, FailAfter, FailBefore, Fault
from tests.durable.bodies import Body, go, one, run, value
from tests.durable.simulated import CALL_S, Machine, simulate


async def followed(handle: Handle[Any]) -> list[Progress]:
    return [progress async for progress in handle.follow_progress()]


def after_the_end(body: Body, retry: RetryPolicy | None = None) -> Progress | None:
    """What stands once a process with this body has ended."""
    _, machine = run(body, retry)
    return asyncio.run(machine.store.progress_of(("p",))).get("p")


def shown(progress: Progress | None) -> tuple[float, float | None, str]:
    assert progress is not None
    return progress.done, progress.total, progress.note


async def counting(ctx: ProcessContext) -> int:
    """Says a hundred times a second for ten seconds how far it has come."""

    async def count() -> int:
        for number in range(1_000):
            ctx.progress(number + 1, 1_000)
            await asyncio.sleep(0.01)
        return 1_000

    return await ctx.step(count)


# --- how often it is written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 50])
def test_it_is_written_once_a_second_for_all_processes_together(processes: int) -> None:
    async def main() -> tuple[int, set[float]]:
        machine = Machine(one(counting))
        registry = machine.registry()
        async with machine.host(registry) as host:
            work = host.find_process("work")
            handles = [await host.start(work, id=f"p-{number}") for number in range(processes)]
            for handle in handles:
                await handle.outcome()
            found = await machine.store.progress_of([handle.id for handle in handles])
            assert len(found) == processes
            return registry.calls["ReportProgress"], {progress.done for progress in found.values()}

    writes, done = simulate(main)
    assert 9 <= writes <= 12
    assert done == {1_000}


def test_the_first_value_is_seen_soon_and_the_following_ones_second_by_second() -> None:
    async def main() -> list[Progress]:
        machine = Machine(one(counting))
        async with machine.host() as host:
            return await followed(await host.start(host.find_process("work"), id="p"))

    seen = [progress.done for progress in simulate(main)]
    assert seen[0] < 20
    steps = [after - before for before, after in pairwise(seen)]
    assert all(90 <= step <= 110 for step in steps[:-1])
    assert seen[-1] == 1_000


def test_a_process_that_says_nothing_writes_nothing() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.sleep(5)

    async def main() -> None:
        machine = Machine(one(body))
        registry = machine.registry()
        async with machine.host(registry) as host:
            handle = await host.start(host.find_process("work"), id="p")
            assert await followed(handle) == []
            assert await handle.progress() is None
        assert [verb for verb in registry.calls if "Progress" in verb] == []

    simulate(main)


# --- the last value --------------------------------------------------------------------------------------------


def test_the_last_value_stands_when_the_process_has_ended_and_is_committed_with_its_end() -> None:
    async def body(ctx: ProcessContext) -> int:
        for number in range(100):
            ctx.progress(number + 1, 100, f"page {number + 1}")
        return 100

    async def main() -> tuple[Progress | None, dict[str, int]]:
        machine = Machine(one(body))
        registry = machine.registry()
        async with machine.host(registry) as host:
            handle = await host.start(host.find_process("work"), id="p")
            assert await handle.result() == 100
            return await handle.progress(), {v: n for v, n in registry.calls.items() if "Progress" in v}

    progress, calls = simulate(main)
    assert shown(progress) == (100, 100, "page 100")
    assert progress is not None
    assert (progress.attempt, progress.fence, progress.fraction) == (1, 1, 1.0)
    assert calls == {"ReportProgress+Complete": 1}


def test_the_last_value_stands_when_the_code_raised_or_is_tried_again() -> None:
    async def body(ctx: ProcessContext) -> None:
        ctx.progress(ctx.attempt, note=f"attempt {ctx.attempt}")
        raise ValueError("no")

    progress = after_the_end(body, RetryPolicy(max_attempts=3, initial_ms=10))
    assert progress is not None
    assert shown(progress) == (3, None, "attempt 3")
    assert (progress.attempt, progress.fence, progress.fraction) == (3, 3, None)


def test_the_last_value_stands_while_a_process_waits_for_its_retry_is_suspended_or_was_released() -> None:
    async def body(ctx: ProcessContext) -> None:
        ctx.progress(1, 2, f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise ValueError("no")
        await ctx.wait(go)
        ctx.progress(2, 2)
        await asyncio.sleep(1_000)

    async def main() -> None:
        machine = Machine(one(body, retry=RetryPolicy(max_attempts=2, initial_ms=60_000)), drain_grace_ms=0)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(1)
            assert (machine.status("p"), shown(await handle.progress())) == ("pending", (1, 2, "attempt 1"))
            await machine.until(lambda: machine.status("p") == "waiting")
            assert shown(await handle.progress()) == (1, 2, "attempt 2")
            await handle.signal(go, 1)
            await machine.until(lambda: machine.status("p") == "running")
            await asyncio.sleep(0.01)
        found = await machine.store.progress_of(("p",))
        assert shown(found["p"]) == (2, 2, "")

    simulate(main)


def test_the_last_value_stands_when_the_process_was_cancelled() -> None:
    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.sleep(1_000)
        finally:
            ctx.progress(7, note="cleaned up")

    async def main() -> None:
        machine = Machine(one(body), parking=10_000)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(1)
            await handle.cancel("enough")
            await machine.ended("p")
            assert (machine.status("p"), shown(await handle.progress())) == ("cancelled", (7, None, "cleaned up"))

    simulate(main)


def test_a_resumed_process_does_not_fall_back_to_what_it_passes_in_its_replay() -> None:
    async def nothing() -> None:
        return

    async def body(ctx: ProcessContext) -> None:
        for number in range(1, 6):
            ctx.progress(number, 6)
            await ctx.step(nothing)
        await ctx.wait(go)
        ctx.progress(6, 6)

    async def main() -> list[Progress]:
        machine = Machine(one(body), parking=1.0)
        async with machine.host() as host:
            handle = await host.start(host.find_process("work"), id="p")
            following = machine.keep(followed(handle))
            await machine.until(lambda: machine.status("p") == "waiting")
            await asyncio.sleep(5)
            await handle.signal(go, 1)
            return await following

    seen = [progress.done for progress in simulate(main)]
    assert seen == sorted(seen)
    assert seen[-2:] == [5, 6]


# --- failures --------------------------------------------------------------------------------------------------


def test_a_write_that_fails_is_made_again_and_told_once() -> None:
    def plan(verb: str, number: int) -> Fault | None:
        if verb == "ReportProgress" and number <= 3:
            return FailBefore() if number != 2 else FailAfter()
        return Delay(CALL_S)

    async def main() -> list[str]:
        machine = Machine(one(counting))
        async with machine.host(machine.registry(plan)) as host:
            handle = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
            progress = await handle.progress()
            assert progress is not None
            assert progress.done > 300
            await handle.outcome()
        return machine.faults.kinds

    assert simulate(main) == ["infrastructure"]


def test_an_end_whose_answer_was_lost_keeps_the_last_value() -> None:
    async def body(ctx: ProcessContext) -> str:
        ctx.progress(3, 3)
        return "done"

    def plan(verb: str, number: int) -> Fault | None:
        return FailAfter() if (verb, number) == ("ReportProgress+Complete", 1) else Delay(CALL_S)

    async def main() -> None:
        machine = Machine(one(body))
        async with machine.host(machine.registry(plan)) as host:
            handle = await host.start(host.find_process("work"), id="p")
            assert await handle.result() == "done"
            assert shown(await handle.progress()) == (3, 3, "")
            await asyncio.sleep(5)

    simulate(main)


def test_what_a_run_says_after_it_has_lost_its_lease_is_not_written() -> None:
    async def body(ctx: ProcessContext) -> str:
        if ctx.attempt > 1:
            ctx.progress(1, note="the second")
            return "over"
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(20)
            ctx.progress(99, note="the first")
            raise
        return "never"

    def no_renewals(verb: str, number: int) -> Fault | None:
        return FailBefore() if verb == "Renew" else Delay(CALL_S)

    async def main() -> Progress | None:
        machine = Machine(one(body), lease_ttl_ms=3_000, renew_every_ms=1_000)
        async with machine.host(machine.registry(no_renewals), name="first") as first:
            handle = await first.start(first.find_process("work"), id="p")
            await asyncio.sleep(2)
            async with machine.host(name="second"):
                assert await handle.result() == "over"
                await asyncio.sleep(30)
                return await handle.progress()

    progress = simulate(main)
    assert shown(progress) == (1, None, "the second")


# --- what can be said ------------------------------------------------------------------------------------------


UNFIT = [-1, float("nan"), float("inf"), True, "3", 2**63]


@pytest.mark.parametrize(
    ("option", "unfit"),
    [("done", None), ("note", 3), *((option, unfit) for option in ("done", "total") for unfit in UNFIT)],
)
def test_what_is_no_count_is_refused_where_it_is_said(option: str, unfit: Any) -> None:
    async def body(ctx: ProcessContext) -> str:
        try:
            ctx.progress(**{"done": 1, option: unfit})
        except InvalidOption as refused:
            return refused.option
        return "it was taken"

    outcome, machine = run(body)
    assert value(outcome) == option
    assert asyncio.run(machine.store.progress_of(("p",))) == {}


def test_a_note_is_made_storable_and_cut_to_its_length() -> None:
    async def body(ctx: ProcessContext) -> None:
        ctx.progress(0.5, 1, "a\0b" + "x" * 1_000)

    progress = after_the_end(body)
    assert progress is not None
    assert progress.note.startswith("a\ufffdbxx")
    assert progress.note.endswith("x… [826 characters cut]")
    assert len(progress.note) <= 200
    assert (progress.done, progress.fraction) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(0, 10, 0.0), (15, 10, 1.0), (3, None, None), (0, 0, None), (1, 4, 0.25)]
)
def test_the_fraction_is_between_nothing_and_all(done: float, total: float | None, fraction: float | None) -> None:
    assert Progress(done, total).fraction == fraction


def test_progress_of_what_is_not_there_is_refused() -> None:
    async def main() -> None:
        machine = Machine(lambda host: None)
        async with machine.host() as host:
            with pytest.raises(UnknownProcess):
                await host.get_handle("nobody").progress()
            with pytest.raises(UnknownProcess):
                await followed(host.get_handle("nobody"))

    simulate(main)


def test_plain_functions_and_their_steps_say_it_from_their_threads() -> None:
    async def main() -> Progress | None:
        host = Host("", registry=cast("Registry", MemoryRegistry()))

        @host.process(recovery="rerunnable")
        def work(ctx: SyncContext) -> None:
            def count() -> None:
                for number in range(1_000):
                    ctx.progress(number + 1, 2_000)

            ctx.step(count)
            ctx.progress(1_500, 2_000, "in the process's own thread")

        async with asyncio.timeout(60), host:
            handle = await host.start(work, id="p")
            await handle.result()
            return await handle.progress()

    assert shown(asyncio.run(main())) == (1_500, 2_000, "in the process's own thread")
