"""Cancelling processes: where it reaches the code, that clean-up steps run, and that a replay takes the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.model.outcomes import Cancelled, Completed
from tests.durable.simulated import Machine, simulate

go = Signal("go", int)

Body = Callable[[ProcessContext], Awaitable[Any]]


async def work(name: str) -> str:
    return name


async def long() -> None:
    await asyncio.sleep(100)


async def in_a_step(ctx: ProcessContext) -> None:
    await ctx.step(long)


async def in_a_wait(ctx: ProcessContext) -> None:
    await ctx.wait(go)


async def in_a_wait_with_a_timeout(ctx: ProcessContext) -> None:
    await ctx.wait(go, timeout=100)


async def in_a_sleep(ctx: ProcessContext) -> None:
    await ctx.sleep(100)


async def in_a_gather(ctx: ProcessContext) -> None:
    await ctx.gather(ctx.step(work, "quick"), ctx.wait(go), ctx.sleep(100))


async def in_a_race(ctx: ProcessContext) -> None:
    await ctx.race(ctx.wait(go), ctx.sleep(100))


async def in_a_step_of_a_gather(ctx: ProcessContext) -> None:
    await ctx.gather(ctx.wait(go), ctx.step(long))


async def in_branches(ctx: ProcessContext) -> None:
    async def branch(ctx: ProcessContext) -> None:
        await ctx.step(work, "before")
        try:
            await ctx.wait(go)
        finally:
            await ctx.step(work, "clean-up of a branch", key="branch-cleaned")

    await ctx.branches(branch, branch)


async def in_a_child(ctx: ProcessContext) -> None:
    child = await ctx.start(CHILDREN[0])
    await child.result()


async def between_operations(ctx: ProcessContext) -> None:
    await asyncio.sleep(100)


CHILDREN: list[Any] = []
PLACES = [
    in_a_step, in_a_wait, in_a_wait_with_a_timeout, in_a_sleep, in_a_gather, in_a_race, in_a_step_of_a_gather,
    in_branches, in_a_child, between_operations,
]  # fmt: skip


def machine_with(place: Body, seen: list[str] | None = None, **options: Any) -> Machine:
    """A machine whose process is at work in that place when it is cancelled, and then cleans up in two steps."""

    def define(host: Host) -> None:
        @host.process(recovery="rerunnable", signals=[go])
        async def child(ctx: ProcessContext) -> None:
            await ctx.wait(go)

        CHILDREN[:] = [child]

        @host.process(recovery="rerunnable", name="work", signals=[go])
        async def parent(ctx: ProcessContext) -> None:
            await ctx.step(work, "first")
            try:
                await place(ctx)
            except asyncio.CancelledError:
                if seen is not None:
                    seen.append("cancelled")
                await ctx.step(work, "one", key="cleaned-1")
                await ctx.step(work, "two", key="cleaned-2")
                raise
            await ctx.step(work, "not reached", key="not-reached")

    return Machine(define, **options)


@pytest.mark.parametrize("parking", [0.0, 2.0, 50.0])
@pytest.mark.parametrize("place", PLACES)
def test_a_cancelled_process_sees_it_once_and_its_clean_up_steps_run(place: Body, parking: float) -> None:
    seen: list[str] = []

    async def main() -> None:
        machine = machine_with(place, seen, parking=parking)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(20)
            await run.cancel("enough", by="someone")
            assert await machine.ended("p") == Cancelled("enough", "someone")
        keys = await machine.keys("p", "step.")
        assert keys[-2:] == ["cleaned-1", "cleaned-2"]
        assert "not-reached" not in keys

    simulate(main)
    assert seen == ["cancelled"]


@pytest.mark.parametrize("parking", [0.0, 50.0])
@pytest.mark.parametrize("place", [place for place in PLACES if place is not between_operations])
def test_a_cancellation_is_delivered_at_the_same_operation_wherever_the_worker_dies(
    place: Body, parking: float
) -> None:
    async def cancelled_run(dies_after: int | None) -> tuple[int, list[str], list[str]]:
        machine = machine_with(place, parking=parking, lease_ttl_ms=3_000, renew_every_ms=1_000)
        registry = machine.registry()
        main = asyncio.current_task()
        assert main is not None
        machine._keep.add(main)
        registry.die = machine.crash_all
        asking = machine.keep(_cancel_at_20_s(machine))
        host = machine.host(registry)
        await host.open()
        await host.start(host.find_process("work"), id="p")
        registry.dies_after = dies_after
        await machine.until(lambda: registry.dead or machine.status("p") == "cancelled")
        commands, registry.dies_after = registry.commands, None
        if registry.dead:
            async with machine.host():
                await machine.ended("p")
        else:
            await host.close()
        await asking
        assert machine.store.rows.records["p"].status == "cancelled"
        return commands, await machine.keys("p", "cancel."), await machine.keys("p", "step.")

    async def _cancel_at_20_s(machine: Machine) -> None:
        await asyncio.sleep(20)
        async with machine.host(work=False) as asker:
            await asker.get_handle("p").cancel("enough")

    commands, delivered, steps = simulate(lambda: cancelled_run(None))
    for dies_after in range(2, commands + 1):
        _, delivered_then, steps_then = simulate(lambda n=dies_after: cancelled_run(n))  # type: ignore[misc]
        assert sorted(set(delivered_then)) == sorted(set(delivered)), dies_after
        assert sorted(set(steps_then)) == sorted(set(steps)), dies_after


def test_a_worker_that_stops_gracefully_cancels_nobody() -> None:
    async def main() -> None:
        machine = machine_with(in_a_wait, parking=50.0, drain_grace_ms=0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
        assert "cancel.delivered" not in await machine.types("p")
        async with machine.host() as host:
            await asyncio.sleep(5)
            await host.get_handle("p").signal(go, 1)
            outcome = await machine.ended("p")
        assert isinstance(outcome, Completed)
        assert await machine.keys("p", "step.") == ["work", "not-reached"]

    simulate(main)


def test_what_code_does_while_its_worker_stops_is_not_recorded_and_it_goes_on_elsewhere() -> None:
    async def main() -> None:
        machine = machine_with(in_a_step, parking=50.0, drain_grace_ms=0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
        assert await machine.keys("p", "step.") == ["work"]
        async with machine.host():
            assert isinstance(await machine.ended("p"), Completed)
        assert await machine.keys("p", "step.") == ["work", "long", "not-reached"]

    simulate(main)


def test_a_cancellation_reaches_a_process_that_waits_in_memory_after_earlier_sleeps_and_races() -> None:
    async def place(ctx: ProcessContext) -> None:
        await ctx.sleep(1)
        await ctx.race(ctx.sleep(1, key="short"), ctx.wait(go, timeout=30))
        await ctx.wait(go)

    async def main() -> None:
        machine = machine_with(place, parking=1_000.0, drain_grace_ms=0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(10)
        async with machine.host() as host:
            await asyncio.sleep(10)
            await host.get_handle("p").cancel("enough")
            before_s = asyncio.get_running_loop().time()
            assert await machine.ended("p") == Cancelled("enough")
            assert asyncio.get_running_loop().time() - before_s < 1

    simulate(main)


def test_a_result_that_is_being_recorded_when_the_cancellation_comes_is_kept_for_the_code() -> None:
    got: list[str] = []

    async def place(ctx: ProcessContext) -> None:
        got.append(await ctx.step(work, "recorded", key="k"))
        await ctx.wait(go)

    async def main() -> None:
        from perdure.testing.faults import Delay

        machine = machine_with(place)
        registry = machine.registry(lambda verb, number: Delay(10.0 if (verb, number) == ("AppendEvent", 2) else 0.001))
        async with machine.host(registry) as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
            await run.cancel("enough")
            assert await machine.ended("p") == Cancelled("enough")
        assert await machine.keys("p", "cancel.") == ["wait:go"]

    simulate(main)
    assert got == ["recorded"]


def test_a_deadline_is_told_to_the_code_of_a_suspended_process_or_written_for_it() -> None:
    async def main() -> None:
        def define(host: Host) -> None:
            @host.process(recovery="rerunnable", name="work", signals=[go], timeout=timedelta(seconds=60))
            async def parent(ctx: ProcessContext) -> None:
                await ctx.wait(go)

        machine = Machine(define)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            outcome: Any = await machine.ended("p")
        assert outcome.error.code == "deadline"

    simulate(main)
