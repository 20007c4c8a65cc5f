"""Children: started once, awaited through suspensions and crashes, and ended by their parent's policy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.engines.python.children import child_id
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from perdure.errors import DecodeError
from perdure.host import Host
from perdure.model.outcomes import Cancelled
from perdure.model.record import ProcessRecord
from perdure.model.registration import ParentEnd
from perdure.testing.faults import Delay
from tests.durable.bodies import value
from tests.durable.simulated import Machine, simulate

go = Signal("go", int)


def family(host: Host, *, child_s: float = 1.0, parent_end: ParentEnd = "cancel", awaited: bool = True) -> None:
    """`work` starts one `child` that sleeps; the child of a parent that awaits it adds one."""

    @host.process(recovery="rerunnable")
    async def child(ctx: ProcessContext, number: int) -> int:
        await ctx.sleep(child_s)
        return number + 1

    @host.process(recovery="rerunnable", name="work", signals=[go])
    async def parent(ctx: ProcessContext) -> int:
        started = await ctx.start(child, 1, parent_end=parent_end)
        if awaited:
            return await started.result()
        return 0


def test_a_childs_end_at_any_moment_around_its_parents_suspension_wakes_the_parent_once() -> None:
    async def main(child_s: float) -> None:
        machine = Machine(lambda host: family(host, child_s=child_s), parking=0.02)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            assert value(await machine.ended("p")) == 2
            assert asyncio.get_running_loop().time() < child_s + 1
        assert (await machine.keys("p", "wait.")) == ["result:p:child"]

    for millisecond in range(60):
        simulate(lambda at=millisecond: main(at / 1000))  # type: ignore[misc]


def test_a_worker_that_dies_between_the_suspension_and_the_look_at_an_ended_child_loses_no_parent() -> None:
    async def main() -> None:
        machine = Machine(
            lambda host: family(host, child_s=0.1), parking=0.01, lease_ttl_ms=3_000, renew_every_ms=1_000
        )
        main_task = asyncio.current_task()
        assert main_task is not None
        machine._keep.add(main_task)

        def dies_at_the_look(verb: str, number: int) -> Delay:
            if verb == "get" and machine.status("p") == "waiting":
                registry.kill()
            return Delay(0.5 if (verb, number) == ("Suspend+AwaitEnd", 1) else 0.001)

        registry = machine.registry(dies_at_the_look)
        registry.die = machine.crash_all
        host = machine.host(registry)
        await host.open()
        await host.start(host.find_process("work"), id="p")
        await machine.until(lambda: registry.dead)
        assert machine.status("p") == "waiting"
        assert machine.status("p:child") == "completed"
        async with machine.host():
            assert value(await machine.ended("p")) == 2

    simulate(main)


def test_code_whose_row_is_suspended_does_nothing_more_though_the_child_cannot_be_read() -> None:
    """A newer program may have written what this one can't decode."""
    went_on: list[str] = []

    def define(host: Host) -> None:
        @host.process(recovery="rerunnable")
        async def child(ctx: ProcessContext, number: int) -> int:
            return number + 1

        @host.process(recovery="rerunnable", name="work", signals=[go])
        async def parent(ctx: ProcessContext) -> int:
            started = await ctx.start(child, 1)
            try:
                return await started.result()
            except Exception as error:
                went_on.append(type(error).__name__)
                raise

    async def main() -> None:
        machine = Machine(define, parking=0.01)
        registry = machine.registry()
        reads = registry.get

        async def get(process_id: str) -> ProcessRecord:
            if process_id == "p:child" and machine.status("p") == "waiting":
                raise DecodeError("the child was written by a newer version", what="p:child")
            if process_id == "p:child" and machine.status("p:child") == "completed":
                await asyncio.sleep(0.2)  # so it is suspended before it knows
            return await reads(process_id)

        registry.get = get  # type: ignore[method-assign]
        async with machine.host(registry) as host:
            await host.start(host.find_process("work"), id="p")
            await machine.until(lambda: machine.status("p") == "waiting")
            await asyncio.sleep(0.5)
            assert went_on == []
            registry.get = reads  # type: ignore[method-assign]
            assert value(await machine.ended("p")) == 2

    simulate(main)


def test_a_suspended_parent_sleeps_until_its_long_child_has_ended() -> None:
    async def main() -> None:
        machine = Machine(lambda host: family(host, child_s=2_000.0), parking=1.0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(2_010)
            assert machine.status("p") == "completed"
        assert (await machine.types("p")).count("process.resumed") == 1

    simulate(main)


@pytest.mark.parametrize(
    ("policy", "becomes"), [("cancel", "cancelled"), ("abandon", "completed"), ("wait", "completed")]
)
def test_what_becomes_of_a_live_child_when_its_parent_returns(policy: ParentEnd, becomes: str) -> None:
    async def main() -> None:
        machine = Machine(lambda host: family(host, child_s=50.0, parent_end=policy, awaited=False), parking=0.1)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            assert value(await machine.ended("p")) == 0
            now_s = asyncio.get_running_loop().time()
            assert (now_s > 49) == (policy == "wait")
            outcome: Any = await machine.ended("p:child")
            assert machine.status("p:child") == becomes
            if policy == "cancel":
                assert outcome == Cancelled("its parent p has ended (completed)", "p")

    simulate(main)


def test_one_child_that_does_not_stop_keeps_nobody_else_from_being_stopped_or_ended() -> None:
    def define(host: Host) -> None:
        @host.process(recovery="rerunnable")
        async def stubborn(ctx: ProcessContext) -> None:
            for _ in range(3):
                try:
                    await asyncio.sleep(10_000)
                except asyncio.CancelledError:
                    continue

        @host.process(recovery="rerunnable")
        async def meek(ctx: ProcessContext) -> None:
            await ctx.wait(go)

        @host.process(recovery="rerunnable", name="work")
        async def parent(ctx: ProcessContext) -> None:
            await ctx.start(stubborn)
            await ctx.start(meek)
            await ctx.start(meek)

    async def main() -> None:
        machine = Machine(define, cancel_grace_ms=60_000)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await machine.ended("p")
            await asyncio.sleep(5)
            children = {id: machine.status(id) for id in machine.store.rows.records if id != "p"}
            assert sorted(children.values()) == ["cancelled", "cancelled", "running"]
            assert machine.store.rows.records["p"].state.settle_due_at_ms is None
            await asyncio.sleep(60)
            assert machine.status("p:stubborn") == "cancelled"

    simulate(main)


def test_keys_that_look_alike_are_different_children() -> None:
    keys = ["child:a", "a", "a b", "a.b", "child:a#2", "branches[0]/child:a", "x" * 300, "x" * 301]
    ids = [child_id("p", key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert all(len(id) <= 200 for id in ids)
    assert ids[0] == "p:a"


def test_a_process_may_start_itself() -> None:
    def define(host: Host) -> None:
        @host.process(recovery="rerunnable", name="work")
        async def countdown(ctx: ProcessContext, number: int) -> int:
            return 0 if number == 0 else 1 + await (await ctx.start(countdown, number - 1)).result()

    async def main() -> None:
        machine = Machine(define)
        async with machine.host() as host:
            await host.start(host.find_process("work"), 5, id="p")
            assert value(await machine.ended("p")) == 5

    simulate(main)
