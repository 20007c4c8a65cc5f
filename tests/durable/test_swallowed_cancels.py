"""Cancellations that come too late for the code, or that it swallows: the end is written all the same, and once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.model.outcomes import Cancelled, Completed, Failed
from perdure.testing.faults import Delay
from tests.durable.bodies import go, one, value
from tests.durable.simulated import Machine, simulate


async def same(what: str) -> str:
    return what


def test_a_cancellation_that_comes_while_the_last_result_is_recorded_does_not_disturb_the_end() -> None:
    async def body(ctx: ProcessContext) -> str:
        return await ctx.step(same, "recorded")

    async def main() -> None:
        machine = Machine(one(body))
        slow = machine.registry(lambda verb, number: Delay(5.0 if verb == "AppendEvent" else 0.001))
        async with machine.host(slow) as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(2)
            await run.cancel("enough")
            assert value(await machine.ended("p")) == "recorded"
        assert await machine.types("p") == [
            "process.started", "process.cancel_requested", "step.completed", "process.completed",
        ]  # fmt: skip
        assert machine.faults.kinds == []

    simulate(main)


def test_a_replay_that_only_had_its_end_left_to_write_writes_it_though_it_was_cancelled_meanwhile() -> None:
    async def body(ctx: ProcessContext) -> str:
        return await ctx.step(same, "recorded")

    async def main() -> None:
        machine = Machine(one(body), lease_ttl_ms=3_000, renew_every_ms=1_000)
        registry = machine.registry()
        main_task = asyncio.current_task()
        assert main_task is not None
        machine._keep.add(main_task)
        registry.die = machine.crash_all
        host = machine.host(registry)
        await host.open()
        await host.start(host.find_process("work"), id="p")
        registry.dies_after = registry.commands + 1  # the step's result is the last that it writes
        await machine.until(lambda: registry.dead)
        async with machine.host(work=False) as asker:
            await asker.get_handle("p").cancel("enough")
        async with machine.host():
            assert value(await machine.ended("p")) == "recorded"
        assert (await machine.types("p")).count("process.started") == 2
        assert machine.faults.kinds == []

    simulate(main)


def test_an_interruption_that_a_replay_would_tell_and_the_edited_code_no_longer_sees_is_dropped() -> None:
    edited: list[bool] = []

    async def body(ctx: ProcessContext) -> str:
        made = await ctx.step(same, "first", key="first")
        if edited:
            return made
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        await ctx.step(same, "second", key="second")
        edited.append(True)
        machine.crash_all()
        await asyncio.sleep(1_000)
        return "not reached"

    machine = Machine(lambda host: None)

    async def main() -> None:
        nonlocal machine
        machine = Machine(one(body), lease_ttl_ms=3_000, renew_every_ms=1_000)
        main_task = asyncio.current_task()
        assert main_task is not None
        machine._keep.add(main_task)
        registry = machine.registry()
        host = machine.host(registry)
        await host.open()
        run = await host.start(host.find_process("work"), id="p")
        await asyncio.sleep(1)
        await run.cancel("enough")
        await machine.until(lambda: machine.deaths == 1)
        registry.kill()
        assert await machine.keys("p", "cancel.") == ["@1"]
        async with machine.host():
            assert value(await machine.ended("p")) == "first"
        assert machine.faults.kinds == []

    simulate(main)


def test_a_worker_that_drains_accuses_only_code_that_swallowed_its_stop() -> None:
    async def swallows(ctx: ProcessContext) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        return "all the same"

    async def main() -> None:
        machine = Machine(one(swallows), drain_grace_ms=0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(1)
        assert isinstance(await machine.ended("p"), Completed)
        assert machine.faults.kinds == ["swallowed_cancel"]

    simulate(main)


def test_a_deadline_that_is_swallowed_is_reported_like_any_other_stop() -> None:
    async def main() -> None:
        async def body(ctx: ProcessContext) -> str:
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.wait(go)
            return "late"

        machine = Machine(one(body), parking=1_000.0)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p", deadline=5)
            assert value(await machine.ended("p")) == "late"
        assert machine.faults.kinds == ["swallowed_cancel"]

    simulate(main)


@pytest.mark.parametrize("retries", [0, 5])
def test_clean_up_that_fails_after_a_cancellation_is_the_end_and_is_reported(retries: int) -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.wait(go)
        finally:
            await ctx.step(fails)

    async def main() -> None:
        machine = Machine(one(body, retry=Retry(max_attempts=retries + 1)))
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(5)
            await run.cancel("enough")
            outcome: Any = await machine.ended("p")
            assert isinstance(outcome, Failed)
            assert outcome.error.type == "StepFailed"
        assert machine.faults.kinds == ["swallowed_cancel"]

    simulate(main)


def test_a_step_that_swallows_its_interruptions_is_not_tried_again_once_its_process_was_cut_off() -> None:
    tries: list[float] = []

    async def stubborn() -> None:
        tries.append(asyncio.get_running_loop().time())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(4)
        raise ValueError("no")

    async def body(ctx: ProcessContext) -> None:
        await ctx.step(stubborn, retry=Retry(max_attempts=1_000, factor=1.0, jitter=0.0))

    async def main() -> None:
        machine = Machine(one(body), cancel_grace_ms=10_000)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(1)
            await run.cancel("enough", by="someone")
            assert await machine.ended("p") == Cancelled("enough", "someone")
            ended_at = asyncio.get_running_loop().time()
            await asyncio.sleep(30)
        assert len(tries) > 1
        assert max(tries) <= ended_at
        assert machine.faults.kinds == ["swallowed_cancel"]

    simulate(main)


def test_a_host_that_is_told_of_a_cancellation_twice_reports_it_once() -> None:
    async def body(ctx: ProcessContext) -> str:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
                return "late"

    async def main() -> None:
        machine = Machine(one(body), cancel_grace_ms=1_000)
        async with machine.host() as host:
            run = await host.start(host.find_process("work"), id="p")
            await asyncio.sleep(1)
            await run.cancel("enough")
            await run.cancel("once more")
            assert await machine.ended("p") == Cancelled("enough")
            await asyncio.sleep(100)
        assert machine.faults.kinds == ["swallowed_cancel"]

    simulate(main)
