from __future__ import annotations

import asyncio

from perdure.contract.ports import Run
from perdure.model.outcomes import Completed
from perdure.runtime.worker import Drained
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import Gate, World, elapse, holds, loop_turns
from perdure.testing.faults import Delay, DelayAnswer, FailAfter, FailBefore, script
from tests.runtime.simulated import simulate


def test_a_second_drain_changes_nothing() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        gate = Gate()
        async with World(kit, gate) as world:
            await world.drive()
            await gate.until_entered("p")
            first = world.spawn(world.worker.drain(60_000))
            await loop_turns()
            assert await world.worker.drain(0) == ()
            gate.open("p")
            assert await first == (Drained("p", "finished"),)
            assert await world.worker.drain() == ()

    simulate(story)


def test_a_worker_that_never_started_drains_without_a_word_to_the_store() -> None:
    async def story(kit: Kit) -> None:
        async with World(kit) as world:
            assert await world.worker.drain() == ()
            assert world.registry.calls == {}

    simulate(story)


def test_what_a_claim_in_flight_brings_is_drained_too() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        async with World(kit, Gate(), plan=script({("ClaimNext", 1): DelayAnswer(1)})) as world:
            world.spawn(world.driver.claim_and_run_pending("open"))
            await kit.until(holds(lambda: world.registry.calls["ClaimNext"] > 0), "the claim was sent")
            report = await world.worker.drain(0)
            assert [drained.process_id for drained in report] == ["p"]
        await kit.complete("p", await kit.claim_one("peer"))

    simulate(story)


def test_a_claim_that_was_lost_is_found_out_about_before_the_worker_leaves() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p", recovery="owner_bound")
        plan = script({("ClaimNext", 1): FailAfter(), ("ClaimNext", 2): Delay(1)})
        async with World(kit, plan=plan) as world:
            world.spawn(world.driver.claim_and_run_pending("open"))
            await kit.until(holds(lambda: world.registry.calls["ClaimNext"] > 0), "the claim was sent")
            await world.worker.drain(60_000)
        assert (await kit.get("p")).outcome == Completed(raw("p"))

    simulate(story)


def test_an_end_that_is_being_written_is_not_overtaken_by_the_drain() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p", recovery="owner_bound")
        outage = {("Complete", number): FailBefore() for number in range(1, 6)}
        async with World(kit, plan=script(outage)) as world:
            await world.drive()
            await kit.until(holds(lambda: world.registry.calls["Complete"] > 0), "the end could not be written")
            assert await world.worker.drain(0) == (Drained("p", "finished"),)
        assert (await kit.get("p")).outcome == Completed(raw("p"))

    simulate(story)


def test_leases_are_kept_until_the_last_run_has_ended() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        gate = Gate()
        async with World(kit, gate) as world:
            await world.drive()
            await gate.until_entered("p")
            draining = world.spawn(world.worker.drain(120_000))
            await elapse(kit, 60)
            assert (await kit.claim("peer")).claimed == ()
            gate.open("p")
            assert await draining == (Drained("p", "finished"),)

    simulate(story)


def test_code_that_ignores_the_drain_is_let_go_of_after_the_cancel_grace() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        stuck = asyncio.Event()

        async def body(run: Run) -> object:
            while not stuck.is_set():
                try:
                    await stuck.wait()
                except asyncio.CancelledError:
                    continue
            return None

        async with World(kit, body, cancel_grace_ms=500) as world:
            await world.drive()
            await kit.until(holds(lambda: "p" in world.engine.inside), "it is entered")
            began_ms = kit.now_ms
            assert await world.worker.drain(0) == (Drained("p", "released"),)
            assert 500 <= kit.now_ms - began_ms <= 600
            stuck.set()
            await loop_turns()
        claimed = await kit.claim_one("peer")
        await kit.complete("p", claimed)
        assert (await kit.get("p")).state.deaths == 0

    simulate(story)


def test_a_store_that_is_away_does_not_keep_a_worker_from_stopping() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        gate = Gate()
        world = World(kit, gate)
        await world.drive()
        await gate.until_entered("p")
        world.registry.plan = lambda verb, number: FailBefore()
        async with asyncio.timeout(120):
            (drained,) = await world.worker.drain(0)
        assert drained.process_id == "p"
        assert "infrastructure" in world.fault_kinds()
        world.registry.plan = script({})
        await elapse(kit, 60)
        await kit.complete("p", await kit.claim_one("peer"))

    simulate(story)
