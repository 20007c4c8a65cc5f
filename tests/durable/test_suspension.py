"""Processes that wait: what they hold, what wakes them, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from perdure.contract.ports import Suspended
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.model.outcomes import Completed
from perdure.transitions.commands import Signal as SignalCommand
from tests.durable.bodies import one, value
from tests.durable.simulated import Machine, simulate

go = Signal("go", int)


async def waits_twice(ctx: ProcessContext) -> list[int]:
    return [await ctx.wait(go), await ctx.wait(go)]


def test_two_thousand_suspended_processes_hold_no_lease_no_permit_and_no_task_and_a_signal_resumes_one() -> None:
    async def main() -> None:
        machine = Machine(one(waits_twice), parking=0.1)
        async with machine.host() as host:
            tasks_before = len(asyncio.all_tasks())
            await host.start_many(host.find_process("work"), [None] * 2_000, ids=[f"p{n}" for n in range(2_000)])
            await machine.until(lambda: all(machine.status(f"p{n}") == "waiting" for n in range(2_000)))
            await asyncio.sleep(0.1)
            assert [lease for lease in machine.store.rows.leases.values() if not lease.released] == []
            assert host.worker is not None
            assert host.worker.free_permits == machine.options.concurrency
            assert host.worker.in_flight == ()
            assert len(asyncio.all_tasks()) <= tasks_before
            handle = host.get_handle("p7")
            await handle.signal(go, 1)
            await handle.signal(go, 2)
            assert value(await machine.ended("p7")) == [1, 2]
            assert machine.status("p8") == "waiting"

    simulate(main)


@pytest.mark.parametrize("parking", [0.0, 0.5, 2.0, 30.0])
def test_a_process_that_only_waits_is_suspended_when_its_bound_has_passed(parking: float) -> None:
    async def main() -> None:
        machine = Machine(one(waits_twice), parking=parking)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(max(0.0, parking - 0.1))
            assert parking == 0.0 or machine.status("p") == "running"
            await asyncio.sleep(0.3)
            assert machine.status("p") == "waiting"

    simulate(main)


@pytest.mark.parametrize("parking", [0.0, 0.002, 0.004])
def test_a_signal_sent_at_any_moment_around_the_suspension_is_delivered_once(parking: float) -> None:
    async def sent_at(millisecond: int) -> Any:
        machine = Machine(one(waits_twice), parking=parking)
        async with machine.host() as host, machine.host(work=False) as sender:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(millisecond / 1000)
            await sender.get_handle("p").signal(go, 1)
            await asyncio.sleep(5)
            await run.signal(go, 2)
            began_s = asyncio.get_running_loop().time()
            outcome = await machine.ended("p")
            assert asyncio.get_running_loop().time() - began_s < 2, "it was woken late"
            return value(outcome)

    for millisecond in range(30):
        assert simulate(lambda at=millisecond: sent_at(at)) == [1, 2], millisecond  # type: ignore[misc]


def test_a_signal_committed_between_the_decision_to_suspend_and_its_commit_keeps_the_process_running() -> None:
    async def main(verb: str, before: bool) -> Any:
        machine = Machine(one(waits_twice), parking=0.1)
        registry = machine.registry()
        inner = registry.inner
        sent: list[int] = []

        execute = inner.execute

        async def with_a_signal(command: Any) -> Any:
            if type(command).__name__ != verb or sent:
                return await execute(command)
            sent.append(1)
            if before:
                await execute(signal_command)
            answer = await execute(command)
            if not before:
                await execute(signal_command)
            return answer

        signal_command = SignalCommand(process_id="p", name="go", payload=msgspec.Raw(b"1"))
        inner.execute = with_a_signal  # type: ignore[method-assign]
        async with machine.host(registry) as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
            assert sent
            await run.signal(go, 2)
            return value(await machine.ended("p"))

    for before in (True, False):
        assert simulate(lambda b=before: main("Suspend", b)) == [1, 2]  # type: ignore[misc]


def test_signals_to_two_branches_that_wait_for_the_same_kind_go_one_to_each_also_across_suspensions() -> None:
    async def body(ctx: ProcessContext) -> list[int]:
        async def branch(ctx: ProcessContext) -> int:
            return await ctx.wait(go)

        return sorted(await ctx.branches(branch, branch))

    async def main() -> None:
        machine = Machine(one(body), parking=0.1)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            for number in (1, 2):
                await asyncio.sleep(5)
                assert machine.status("p") == "waiting"
                await run.signal(go, number)
            assert value(await machine.ended("p")) == [1, 2]
        assert (await machine.types("p")).count("process.waiting") == 2

    simulate(main)


def test_a_branch_that_has_its_signal_does_not_keep_the_other_from_being_suspended() -> None:
    async def body(ctx: ProcessContext) -> list[int]:
        return await ctx.gather(ctx.wait(go), ctx.wait(go))

    async def main() -> None:
        machine = Machine(one(body), parking=1.0)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(0.5)
            await run.signal(go, 1)
            await asyncio.sleep(1.2)
            assert machine.status("p") == "waiting"
            await run.signal(go, 2)
            assert value(await machine.ended("p")) == [1, 2]

    simulate(main)


def test_a_race_that_is_won_while_its_losers_wait_is_decided_before_anything_is_suspended() -> None:
    async def quick() -> str:
        return "quick"

    async def body(ctx: ProcessContext) -> Any:
        return await ctx.race(ctx.wait(go), ctx.step(quick))

    async def main() -> None:
        machine = Machine(one(body), parking=0.0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            assert value(await machine.ended("p")) == [1, "quick"]
        assert "process.waiting" not in await machine.types("p")

    simulate(main)


def test_a_wait_that_lost_a_race_has_taken_no_signal() -> None:
    async def body(ctx: ProcessContext) -> list[Any]:
        first, _ = await ctx.race(ctx.sleep(1), ctx.wait(go))
        return [first, await ctx.wait(go)]

    async def main() -> None:
        machine = Machine(one(body), parking=0.1)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(3)
            await run.signal(go, 7)
            assert value(await machine.ended("p")) == [0, 7]

    simulate(main)


@pytest.mark.parametrize("swallowed", [BaseException, Suspended])
def test_code_that_swallows_the_suspension_is_suspended_all_the_same(swallowed: type[BaseException]) -> None:
    seen: list[str] = []

    async def body(ctx: ProcessContext) -> int:
        try:
            return await ctx.wait(go)
        except swallowed as error:
            seen.append(type(error).__name__)
            return -1
        finally:
            if len(seen) == 1:
                try:
                    await ctx.step(note)
                except BaseException as error:
                    seen.append(f"again {type(error).__name__}")

    async def note() -> None:
        seen.append("done")

    async def main() -> None:
        machine = Machine(one(body), parking=0.1)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
            assert machine.status("p") == "waiting"
            assert seen == ["Suspended", "again Suspended"]
            await run.signal(go, 3)
            assert value(await machine.ended("p")) == 3
        assert machine.faults.kinds == []

    simulate(main)


def test_concurrency_one_finishes_a_chain_of_parent_child_and_grandchild() -> None:
    def define(host: Host) -> None:
        @host.process(recovery="rerunnable")
        async def grandchild(ctx: ProcessContext) -> int:
            await ctx.sleep(1)
            return 1

        @host.process(recovery="rerunnable")
        async def child(ctx: ProcessContext) -> int:
            return 1 + await (await ctx.start(grandchild)).result()

        @host.process(recovery="rerunnable", name="work")
        async def parent(ctx: ProcessContext) -> int:
            return 1 + await (await ctx.start(child)).result()

    async def main(parking: float) -> Any:
        machine = Machine(define, parking=parking, concurrency=1)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            return value(await machine.ended("p"))

    for parking in (0.0, 0.1, 100.0):
        assert simulate(lambda p=parking: main(p)) == 3  # type: ignore[misc]


def test_a_signal_that_comes_the_moment_a_process_is_suspended_resumes_it_without_a_new_start() -> None:
    async def body(ctx: ProcessContext) -> int:
        try:
            return await ctx.wait(go)
        finally:
            await asyncio.sleep(0.5)  # its unwinding takes a moment

    async def main() -> None:
        machine = Machine(one(body), parking=0.1)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await machine.until(lambda: machine.status("p") == "waiting")
            await run.signal(go, 1)
            assert await machine.ended("p") == Completed(msgspec.Raw(b"1"))
        assert "process.start_withdrawn" not in await machine.types("p")
        assert machine.store.rows.records["p"].attempt == 1

    simulate(main)
