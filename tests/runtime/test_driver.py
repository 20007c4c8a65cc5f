from __future__ import annotations

import asyncio

import pytest

from perdure.contract.ports import AdmissionReport, DeferredRow
from perdure.errors import CallerDeparted
from perdure.model.outcomes import Completed
from perdure.runtime.driver import Intake, ProcessWorkDriver
from perdure.runtime.hub import ChangeHub
from perdure.runtime.spawner import TaskOnlySpawner
from perdure.runtime.watch import watch
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.watching import Attach
from perdure.testing.conformance.world import Gate, World, loop_turns, soon
from perdure.testing.faults import Delay, script
from perdure.testing.loop import run_simulation
from perdure.transitions.commands import Admit, ExternalOwner, RecordCallerDeparture
from tests.runtime.simulated import simulate


class Scans:
    """A run handle whose scans end when the test says so."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.go_on = asyncio.Semaphore(0)

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        self.reasons.append(reason)
        await self.go_on.acquire()
        count = len(self.reasons)
        return AdmissionReport("scanned", reason, (f"p-{count}",), (DeferredRow(f"d-{count}", "busy"),), (), count)


def test_drives_that_arrive_during_a_scan_make_one_rescan_and_the_report_joins_both() -> None:
    async def story() -> None:
        scans = Scans()
        intake = Intake(scans, TaskOnlySpawner())
        first = asyncio.ensure_future(intake.drive("first"))
        await loop_turns()
        assert [(await intake.drive(reason)).intake for reason in ("second", "third")] == ["coalesced", "coalesced"]
        scans.go_on.release()
        scans.go_on.release()
        report = await first
        assert scans.reasons == ["first", "third"]
        assert (report.intake, report.reason, report.admitted) == ("scanned", "first", ("p-1", "p-2"))
        assert (report.deferred, report.next_due_at_ms) == ((DeferredRow("d-2", "busy"),), 2)

    run_simulation(story)


def test_a_caller_that_gives_up_does_not_take_the_scan_with_it() -> None:
    async def story() -> None:
        scans = Scans()
        intake = Intake(scans, TaskOnlySpawner())
        caller = asyncio.ensure_future(intake.drive("first"))
        await loop_turns()
        caller.cancel()
        await asyncio.wait({caller})
        assert (await intake.drive("second")).intake == "coalesced"
        scans.go_on.release()
        scans.go_on.release()
        await loop_turns()
        assert scans.reasons == ["first", "second"]

    run_simulation(story)


def test_a_driver_without_a_free_permit_says_so_and_drives_on_by_itself_when_one_is_free() -> None:
    async def story(kit: Kit) -> None:
        gate = Gate()
        await kit.register("p-1")
        async with World(kit, gate, concurrency=1) as world:
            await world.drive()
            await gate.until_entered("p-1")
            await kit.register("p-2")
            report = await world.driver.claim_and_run_pending("full")
            assert [row.reason for row in report.deferred] == ["no_permit"]
            gate.open("p-1")
            await gate.until_entered("p-2")
            gate.open("p-2")
            await world.ended("p-2")

    simulate(story)


def test_a_driver_over_a_watched_registry_does_not_watch_it_again() -> None:
    async def story(kit: Kit) -> None:
        async with World(kit) as world:
            hub = ChangeHub()
            ticks: list[str] = []
            watch(kit.registry, hub)
            driver = ProcessWorkDriver.from_watched(kit.registry, hub, world.worker, spawner=world.spawner)
            await kit.register("p")
            hub.listen("p", ticks.append)
            await kit.append("p", "note")
            assert (driver.change_hub is hub, driver.process_registry is kit.registry) == (True, True)
            assert ticks == ["p"]

    simulate(story)


def test_a_copy_with_an_attach_shares_everything_else() -> None:
    async def story(kit: Kit) -> None:
        async with World(kit, plan=script({("next_due_at_ms", 1): Delay(1.0)})) as world:
            copy = world.driver.with_attach(Attach())
            first = world.spawn(world.driver.claim_and_run_pending("first"))
            await loop_turns()
            assert (await copy.claim_and_run_pending("second")).intake == "coalesced"
            assert copy.change_hub is world.driver.change_hub
            assert copy.awaiter is world.driver.awaiter
            await first

    simulate(story)


def test_the_original_driver_goes_on_waiting_in_the_store() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p")
        await kit.registry.execute(Admit(process_id="p", workflow_key="k"))
        attach = Attach()
        async with World(kit) as world:
            world.driver.with_attach(attach)
            waiting = world.spawn(world.driver.await_terminal("p"))
            await loop_turns()
            assert attach.asked == []
            waiting.cancel()

    simulate(story)


def test_a_departed_caller_is_told_of_with_an_attach_too() -> None:
    async def story(kit: Kit) -> None:
        await kit.register("p", recovery="externally_owned")
        await kit.registry.execute(RecordCallerDeparture(process_id="p"))
        async with World(kit) as world:
            driver = world.driver.with_attach(Attach())
            with pytest.raises(CallerDeparted):
                await driver.await_terminal("p")
            await kit.complete("p", ExternalOwner("them"), Completed(raw(1)))
            assert await soon(driver.await_terminal("p")) == Completed(raw(1))

    simulate(story)


def test_a_wait_that_is_bounded_leaves_the_process_alone() -> None:
    async def story(kit: Kit) -> None:
        claimed = await kit.start("p")
        async with World(kit) as world:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30):
                    await world.driver.await_terminal("p")
            assert world.driver.change_hub.watched == 0
            await kit.renew(claimed.lease.key)
        assert (await kit.get("p")).state.cancel_request is None

    simulate(story)
