from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import msgspec

from perdure.contract.ports import Run
from perdure.errors import InfrastructureFailure
from perdure.hosting.serving import SAFETY_INTERVAL_S
from perdure.model.outcomes import Cancelled, Completed, Failed
from perdure.model.registration import RetryPolicy
from perdure.testing.conformance.kit import TTL_MS, Kit, raw
from perdure.testing.conformance.world import Gate, World, elapse, holds, loop_turns, returns
from perdure.testing.faults import DelayAnswer, FailAfter, FailBefore, script
from tests.runtime.simulated import simulate


def test_a_row_whose_input_cannot_be_decoded_is_given_back_unstarted_and_told_of() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p", recovery="owner_bound")
        async with World(kit) as world:

            def prepare(run: Run) -> Coroutine[Any, Any, msgspec.Raw]:
                raise ValueError("not this input")

            world.engine.prepare = prepare  # type: ignore[method-assign]
            await world.drive()
            await kit.until(holds(lambda: world.fault_kinds() == ["decode"]), "the fault is told")
            await loop_turns()
        record = await kit.get("p")
        assert (record.status, record.attempt, record.state.started) == ("pending", 0, None)
        assert record.state.due_at_ms is not None
        assert record.state.due_at_ms > kit.now_ms  # it is not claimed again at once

    simulate(story)


def test_a_claim_answered_after_the_local_deadline_enters_no_code() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p", recovery="owner_bound")
        late = TTL_MS / 1000 * 0.95  # the store's lease still stands, the worker's own deadline has passed
        async with World(kit, plan=script({("ClaimNext", 1): DelayAnswer(late)})) as world:
            await world.drive()
            await loop_turns()
            assert world.engine.entries == []
            record = await kit.get("p")
            assert (record.status, record.attempt) == ("pending", 0)
            assert await world.drive() == ("p",)
            await world.ended("p")

    simulate(story)


def test_code_that_returns_a_value_after_it_was_cancelled_has_its_value_kept_and_is_told_of() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")

        async def body(run: Run) -> object:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "all the same"

        async with World(kit, body) as world:
            await world.drive()
            await kit.until(holds(lambda: "p" in world.engine.inside), "the code is entered")
            await kit.cancel("p", "enough")
            world.worker.cancel_local("p", "enough", None)
            assert await world.ended("p") == Completed(raw("all the same"))
            assert world.fault_kinds() == ["swallowed_cancel"]

    simulate(story)


def test_code_that_does_not_end_within_the_cancel_grace_is_cut_off() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        never = asyncio.Event()

        async def body(run: Run) -> object:
            while not never.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await never.wait()
            return "much later"

        async with World(kit, body, cancel_grace_ms=1_000, concurrency=1) as world:
            await world.drive()
            await kit.until(holds(lambda: "p" in world.engine.inside), "the code is entered")
            await kit.cancel("p", "enough", "them")
            world.worker.cancel_local("p", "enough", "them")
            await elapse(kit, 0.99)
            assert (await kit.get("p")).status == "running"
            await elapse(kit, 0.02)
            assert await world.ended("p") == Cancelled("enough", "them")
            assert (world.worker.in_flight, world.worker.free_permits) == ((), 1)
            never.set()
            await loop_turns()

    simulate(story)


def test_a_run_that_lost_its_lease_writes_nothing_whatever_its_code_raises() -> None:
    async def story(kit: Kit) -> None:
        for number, error in enumerate((ValueError("no"), InfrastructureFailure("no"))):
            id = f"p-{number}"
            await kit.register(id, retry=RetryPolicy(5))

            async def body(run: Run, error: Exception = error) -> object:
                try:
                    return await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise error from None

            no_renewals = {("Renew", count): FailBefore() for count in range(1, 50)}
            async with World(kit, body, plan=script(no_renewals)) as world:
                await world.drive()
                await elapse(kit, TTL_MS / 1000)
                await loop_turns()
                assert "lease_lost" in world.fault_kinds()
            assert await kit.types(id) == ["process.started"]

    simulate(story)


def test_work_that_a_drain_interrupts_is_given_back_whatever_its_code_raises() -> None:
    async def story(kit: Kit) -> None:
        for number, error in enumerate((ValueError("no"), InfrastructureFailure("no"))):
            id = f"p-{number}"
            await kit.register(id)

            async def body(run: Run, error: Exception = error) -> object:
                try:
                    return await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise error from None

            async with World(kit, body) as world:
                await world.drive()
                await kit.until(holds(lambda id=id: id in world.engine.inside), "it is entered")  # type: ignore[misc]
                (drained,) = await world.worker.drain(0)
                assert (drained.process_id, drained.became) == (id, "released")
            await kit.complete(id, await kit.claim_one("peer"))

    simulate(story)


def test_an_end_whose_answer_was_lost_is_written_once() -> None:
    async def story(kit: Kit) -> None:
        tries: list[int] = []

        async def body(run: Run) -> object:
            tries.append(run.record.attempt)
            if run.record.attempt == 1:
                raise ValueError("the first time")
            return "done"

        await kit.register("p", retry=RetryPolicy(3, initial_ms=100))
        plan = script({("ScheduleRetry", 1): FailAfter(), ("Complete", 1): FailAfter(), ("Complete", 2): FailBefore()})
        async with World(kit, body, plan=plan) as world:
            await world.drive()
            await elapse(kit, 1)
            await world.drive()
            assert await world.ended("p") == Completed(raw("done"))
            await elapse(kit, 1)
            assert world.fault_kinds() == ["infrastructure", "infrastructure"]
        assert tries == [1, 2]
        ends = ["process.started", "process.retry_scheduled", "process.started", "process.completed"]
        assert await kit.types("p") == ends

    simulate(story)


def test_an_end_that_cannot_be_written_in_time_leaves_the_row_to_the_next_worker() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        async with World(kit, plan=lambda verb, number: FailBefore() if verb != "ClaimNext" else None) as world:
            world.registry.plan = lambda verb, number: FailBefore() if verb in ("Complete", "Renew") else None
            await world.drive()
            await elapse(kit, TTL_MS / 1000 + SAFETY_INTERVAL_S)
            assert world.worker.in_flight == ()
            assert "infrastructure" in world.fault_kinds()
        async with World(kit, returns, name="next") as world:
            await world.drive()
            assert await world.ended("p") == Completed(raw("p"))
        assert (await kit.get("p")).state.deaths == 1

    simulate(story)


def test_a_process_that_raises_cancelled_by_itself_fails() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")

        async def body(run: Run) -> object:
            raise asyncio.CancelledError("by itself")

        async with World(kit, body) as world:
            await world.drive()
            outcome = await world.ended("p")
            assert isinstance(outcome, Failed)
            assert outcome.error.type == "CancelledError"

    simulate(story)


def test_each_permit_comes_back_however_its_run_ends() -> None:
    async def story(kit: Kit) -> None:
        gate = Gate()

        async def body(run: Run) -> object:
            match run.record.id:
                case "fails":
                    raise ValueError("no")
                case "waits":
                    return await gate(run)
            return None

        for id in ("fails", "waits", "returns"):
            await kit.register(id)
        async with World(kit, body, concurrency=3) as world:
            await world.drive()
            await gate.until_entered("waits")
            await kit.until(holds(lambda: world.worker.free_permits == 2), "two permits are back")
            world.worker.cancel_local("waits", "enough", None)
            await kit.until(holds(lambda: world.worker.free_permits == 3), "all permits are back")

    simulate(story, seed=3, shuffle=True)
