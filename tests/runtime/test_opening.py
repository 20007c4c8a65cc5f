from __future__ import annotations

import asyncio

import pytest

from perdure import ProcessContext
from perdure.errors import StoreUnavailable
from perdure.stores.memory import MemoryRegistry
from perdure.testing.conformance.kit import Kit
from perdure.testing.conformance.world import Sink, World, elapse, host_over, loop_turns, soon
from perdure.testing.faults import Delay, FailBefore, FaultyRegistry, script
from tests.runtime.simulated import simulate


def test_a_worker_that_could_not_enrol_does_so_before_its_first_claim() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        async with World(kit, plan=script({("enrol", 1): FailBefore()})) as world:
            with pytest.raises(StoreUnavailable):
                await world.drive()
            assert (world.registry.calls["ClaimNext"], world.worker.claim_for_start()) == (0, None)
            assert await world.drive() == ("p",)
            await world.ended("p")
            assert world.registry.calls["enrol"] == 2
            await elapse(kit, 6)  # its keeper has begun as well: there would be no renewals to count otherwise
            await kit.register("q")
            await world.drive()
            await world.ended("q")

    simulate(story)


def test_nothing_is_claimed_before_the_worker_is_enrolled() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        async with World(kit, plan=script({("enrol", 1): Delay(1)})) as world:
            first = world.spawn(world.worker.claim_and_run_pending("first"))
            second = world.spawn(world.worker.claim_and_run_pending("second"))
            await elapse(kit, 0.5)
            assert world.registry.calls["ClaimNext"] == 0
            reports = [await first, await second]
            assert sorted(report.admitted for report in reports) == [(), ("p",)]
            assert world.registry.calls["enrol"] == 1

    simulate(story)


def test_a_worker_that_is_stopped_while_it_enrols_claims_nothing_and_leaves_no_owner() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        async with World(kit, plan=script({("enrol", 1): Delay(1)})) as world:
            drive = world.spawn(world.driver.claim_and_run_pending("open"))
            await loop_turns()
            draining = world.spawn(world.worker.drain(0))
            assert (await drive).admitted == ()
            assert await draining == ()
            assert (world.registry.calls["enrol"], world.registry.calls["withdraw"]) == (1, 1)
        assert (await kit.get("p")).status == "pending"

    simulate(story)


def test_a_host_that_could_not_open_leaves_nothing_behind_and_may_be_opened_again() -> None:
    async def story(kit: Kit) -> None:
        store = FaultyRegistry(kit.registry, script({("enrol", 1): FailBefore()}), kit.clock)
        host = host_over(kit, store)

        @host.process(recovery="rerunnable")
        async def work(ctx: ProcessContext) -> int:
            return 1

        with pytest.raises(StoreUnavailable):
            await host.open()
        assert listeners(kit) == 0
        async with host:
            assert await soon((await host.start(work)).result()) == 1
        assert listeners(kit) == 0

    simulate(story)


def test_a_closed_host_tells_its_sink_nothing_of_a_registry_that_goes_on() -> None:
    async def story(kit: Kit) -> None:
        sink = Sink()
        async with host_over(kit, sink=sink):
            await kit.register("p")
            await kit.append("p", "note", 1)
            await loop_turns()
        await kit.append("p", "note", 2)
        await loop_turns()
        assert [event.sequence for event in sink.events] == [1]
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in tasks if name.startswith("perdure")}

    simulate(story)


def listeners(kit: Kit) -> int:
    registry: object = kit.registry
    assert isinstance(registry, MemoryRegistry)
    return len(registry._listeners)
