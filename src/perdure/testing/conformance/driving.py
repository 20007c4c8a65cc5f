"""Section E of the contract: driving the queue with the real driver and worker."""

from __future__ import annotations

import asyncio

from perdure.contract.ports import Run
from perdure.errors import StoreUnavailable
from perdure.model.outcomes import Completed, ErrorDetail
from perdure.model.registration import Definition, RetryPolicy
from perdure.model.waits import ChildWait, TimerWait
from perdure.runtime.driver import ProcessWorkDriver
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import TTL_MS, Kit, raw
from perdure.testing.conformance.world import Gate, World, elapse, holds, loop_turns, returns, soon
from perdure.testing.faults import Delay, FailAfter, FailBefore, script
from perdure.transitions.commands import AwaitEnd, LeaseRight, ScheduleRetry, Settle, Suspend, Wake
from perdure.transitions.explain import explain
from perdure.transitions.fold import SETTLE_GRACE_MS
from perdure.transitions.reach import Reach


@case("E.1a", "a drive is admission: it returns while the work goes on")
async def admission(kit: Kit) -> None:
    await kit.register("p")
    gate = Gate()
    async with World(kit, gate) as world:
        report = await soon(world.driver.claim_and_run_pending("started"))
        expect_equal((report.intake, report.reason, report.admitted), ("scanned", "started", ("p",)), "the report")
        await gate.until_entered("p")
        expect_equal((await kit.get("p")).status, "running", "the status after the drive")
        gate.open("p")
        expect_equal(await world.ended("p"), Completed(raw("p")), "the outcome")


@case("E.1b", "of two drives at once one scans, the other is coalesced, and its rescan happens")
async def coalesced(kit: Kit) -> None:
    async with World(kit, plan=script({("next_due_at_ms", 1): Delay(1.0)})) as world:
        first = world.spawn(world.driver.claim_and_run_pending("first"))
        await kit.until(
            holds(lambda: world.registry.calls["next_due_at_ms"] > 0),
            "the first drive has claimed, and is not over yet",
        )
        await kit.register("p")
        second = await soon(world.driver.claim_and_run_pending("second"))
        expect_equal((second.intake, second.admitted), ("coalesced", ()), "the second drive's report")
        await elapse(kit, 1.0)
        report = await soon(first)
        expect_equal((report.intake, report.admitted), ("scanned", ("p",)), "the first drive's report")
        await world.ended("p")


@case("E.1c", "a coalesced drive's rescan happens though the scan that it joined fails")
async def coalesced_with_a_failure(kit: Kit) -> None:
    async with World(kit, plan=script({("due_for_settling", 1): Delay(1.0)})) as world:
        broken = world.spawn(world.driver.claim_and_run_pending("first"))
        await kit.until(holds(lambda: world.registry.calls["due_for_settling"] > 0), "the first drive has begun")
        world.registry.plan = script({("next_due_at_ms", 1): FailBefore()})
        await kit.register("p")
        second = await soon(world.driver.claim_and_run_pending("second"))
        expect_equal(second.intake, "coalesced", "the second drive's intake")
        await elapse(kit, 1.0)
        with refusal(StoreUnavailable, "the first drive"):
            await broken
        await world.ended("p")


@case("E.2a", "a row that is in flight here is not claimed again, however often it is driven")
async def in_flight(kit: Kit) -> None:
    await kit.register("p")
    gate = Gate()
    async with World(kit, gate) as world:
        expect_equal(await world.drive(), ("p",), "what the first drive admits")
        await gate.until_entered("p")
        expect_equal([await world.drive() for _ in range(3)], [(), (), ()], "what later drives admit")
        gate.open("p")
        await world.ended("p")
        expect_equal(world.engine.entries, [("p", 1)], "the entries into the code")


@case("E.2b", "a row whose run has lost its lease here is busy until that run's clean-up is over")
async def busy(kit: Kit) -> None:
    await kit.register("p")
    cleaned = asyncio.Event()

    async def body(run: Run) -> object:
        if run.lease.fence == 1:
            try:
                await asyncio.Event().wait()
            finally:
                await cleaned.wait()
        return "second"

    async with World(kit, body, concurrency=2) as world:
        await world.drive()
        await kit.until(holds(lambda: "p" in world.engine.inside), "the code is entered")
        world.registry.plan = lambda verb, number: FailBefore() if verb == "Renew" else None
        await elapse(kit, TTL_MS / 1000 + 0.001)
        await kit.until(holds(lambda: "lease_lost" in world.fault_kinds()), "the run is told that its lease is lost")
        report = await soon(world.driver.claim_and_run_pending("lapsed"))
        await loop_turns()
        expect_equal((report.admitted, [d.reason for d in report.deferred]), ((), ["busy"]), "the drive's report")
        world.registry.plan = script({})
        cleaned.set()
        await kit.until(holds(lambda: not world.engine.inside), "the clean-up is over")

        async def given_back() -> bool:
            return (await kit.get("p")).status == "pending"

        await kit.until(given_back, "the start of the busy row is withdrawn")
        await elapse(kit, 60)
        await world.drive()
        expect_equal(await world.ended("p"), Completed(raw("second")), "the outcome")
        expect_equal(world.engine.overlaps, [], "runs of the same process at the same time")
        expect_equal(world.worker.free_permits, 2, "the free permits afterwards")


@case("E.2c", "a row of an unknown definition or version is left as it is, and `explain` names it")
async def unknown_definition(kit: Kit) -> None:
    await kit.register("other", definition=Definition("python", "other"))
    await kit.register("newer", definition=Definition("python", "work", 2))
    async with World(kit) as world:
        expect_equal(await world.drive(), (), "what is admitted")
        for id in ("other", "newer"):
            record = await kit.get(id)
            expect_equal((record.status, await kit.types(id)), ("pending", []), f"what stands of {id}")
            said = explain(record, None, kit.clock.now(), Reach(await kit.registry.enrolled()))
            expect_equal((said.verdict, said.needs_attention), ("unknown_definition", True), f"the verdict on {id}")
            expect(str(record.registration.definition) in said.because[0], "the explanation names the definition")


@case("E.3a", "with one permit a chain of processes that wait for one another finishes")
async def chain(kit: Kit) -> None:
    driver: ProcessWorkDriver | None = None

    async def body(run: Run) -> object:
        depth = int(run.record.id)
        if depth < 5:
            assert driver is not None
            await kit.register(str(depth + 1))
            await driver.claim_and_run_pending("child")
            await driver.await_terminal(str(depth + 1))
        return depth

    await kit.register("0")
    async with World(kit, body, concurrency=1) as world:
        driver = world.driver
        await world.drive()
        expect_equal(await world.ended("0"), Completed(raw(0)), "the outcome of the first")
        await kit.until(holds(lambda: world.worker.free_permits == 1), "the permit is free again")


@case("E.3b", "a wait that is cancelled takes its permit again before the code goes on")
async def cancelled_wait(kit: Kit) -> None:
    driver: ProcessWorkDriver | None = None
    await kit.register("external", recovery="externally_owned")
    await kit.register("waits")
    free_after: list[int] = []
    gate = Gate()

    async def body(run: Run) -> object:
        if run.record.id != "waits":
            return await gate(run)
        assert driver is not None
        try:
            return await driver.await_terminal("external")
        finally:
            free_after.append(world.worker.free_permits)

    world = World(kit, body, concurrency=1)
    async with world:
        driver = world.driver
        await world.drive()
        await kit.until(holds(lambda: world.worker.free_permits == 1), "the permit is given back")
        await kit.register("other")
        await world.drive()
        await gate.until_entered("other")
        await kit.cancel("waits", "enough")
        world.worker.cancel_local("waits", "enough", None)
        await loop_turns()
        expect_equal(free_after, [], "whether the code went on without a permit")
        gate.open("other")
        expect_equal((await world.ended("waits")).__class__.__name__, "Cancelled", "how the cancelled one ends")
        expect_equal(free_after, [0], "the free permits when the code went on")
        await kit.until(holds(lambda: world.worker.free_permits == 1), "the permit is free again")


@case("E.4a", "a drive that fails is told of, and the next one works")
async def failed_drive(kit: Kit) -> None:
    await kit.register("p")
    async with World(kit, plan=script({("ClaimNext", 1): FailBefore()})) as world:
        try:
            await world.drive()
        except Exception as error:
            expect_equal(type(error).__name__, "StoreUnavailable", "what the failed drive raises")
        else:
            expect(False, "the drive fails")
        await loop_turns()
        expect_equal(world.fault_kinds(), ["dispatcher"], "the faults")
        expect_equal(await world.drive(), ("p",), "what the next drive admits")
        await world.ended("p")


@case("E.4b", "rows that wait for a permit are claimed though a claim in between has failed")
async def failed_refill(kit: Kit) -> None:
    ids = [f"p-{number}" for number in range(4)]
    for id in ids:
        await kit.register(id)
    async with World(kit, plan=script({("ClaimNext", 2): FailBefore()}), concurrency=1) as world:
        await world.drive()
        await world.ended("p-0")
        await kit.until(holds(lambda: world.registry.calls["ClaimNext"] >= 2), "the second claim has failed")
        await elapse(kit, 5)
        for id in ids:
            await world.ended(id)
        expect_equal(world.fault_kinds(), ["dispatcher"], "the faults")


@case("E.4c", "the answer of a claim is lost: the same rows are taken, each runs once")
async def lost_claim(kit: Kit) -> None:
    for number in range(3):
        await kit.register(f"p-{number}", recovery="owner_bound")
    plan = script({("ClaimNext", 1): FailAfter(), ("ClaimNext", 2): FailAfter(), ("ClaimNext", 3): FailBefore()})
    async with World(kit, plan=plan, concurrency=3) as world:
        drive = world.spawn(world.driver.claim_and_run_pending("open"))

        async def driven() -> bool:
            await elapse(kit, 0.01)  # what the worker waits before it asks again
            return drive.done()

        await kit.until(driven, "the drive is over")
        expect(world.registry.calls["ClaimNext"] >= 4, "it was asked again until the answer was known")
        for number in range(3):
            await world.ended(f"p-{number}")
        expect_equal(sorted(world.engine.entries), [(f"p-{n}", 1) for n in range(3)], "the entries into the code")


@case("E.5a", "the report says when driving next can find something: the earliest of all kinds of due times")
async def next_due(kit: Kit) -> None:
    began_ms = kit.now_ms
    error = ErrorDetail("ValueError", "no")
    held = await kit.start("lapses")
    async with World(kit, concurrency=1, name="driver") as world:
        expect_equal(await _next_due(world), held.lease.expires_at_ms, "with a lease")
        timer = await kit.start("timer")
        await kit.suspend(timer, TimerWait(began_ms + 9_000))
        expect_equal(await _next_due(world), began_ms + 9_000, "with a timer")
        retry = await kit.start("retry", retry=RetryPolicy())
        right = LeaseRight(retry.lease.key)
        await kit.registry.execute(
            ScheduleRetry(process_id="retry", execution=right, error=error, due_at_ms=began_ms + 8_000)
        )
        expect_equal(await _next_due(world), began_ms + 8_000, "with a retry")
        await kit.register("delayed", delay_ms=7_000)
        expect_equal(await _next_due(world), began_ms + 7_000, "with a delay")
        await kit.register("deadline", delay_ms=20_000, deadline_ms=6_000)
        expect_equal(await _next_due(world), began_ms + 6_000, "with a deadline")
        child = await kit.start("child", parent="lapses")
        await kit.complete("child", child)
        expect_equal(await _next_due(world), began_ms + SETTLE_GRACE_MS, "with an end that isn't settled")


@case("E.5b", "an end whose ender died at once wakes the waiting parent, with no other event")
async def unsettled_end(kit: Kit) -> None:
    parent = await kit.start("parent")
    child = await kit.start("child", parent="parent")
    await kit.suspend(parent, ChildWait("child"))
    await kit.complete("child", child)
    async with World(kit, returns) as world:
        expect_equal(await world.drive(), (), "what is admitted before the ender's time is over")
        await elapse(kit, SETTLE_GRACE_MS / 1000)
        await world.drive()
        expect_equal(await world.ended("parent"), Completed(raw("parent")), "the outcome of the parent")
        expect_equal((await kit.get("child")).state.settle_due_at_ms, None, "what is left to settle")


@case("E.5k", "a parent suspended on an end that was settled before wakes by itself, should its worker die at once")
async def settled_before(kit: Kit) -> None:
    parent = await kit.start("parent")
    child = await kit.start("child", parent="parent")
    ended = (await kit.complete("child", child)).record
    await kit.registry.execute(Settle(process_id="child", served_sequence=ended.state.last_sequence))
    suspend = Suspend(process_id="parent", execution=LeaseRight(parent.lease.key), waits=(ChildWait("child"),))
    await kit.registry.execute_together((suspend, AwaitEnd(process_id="child")))
    expect_equal((await kit.get("parent")).status, "waiting", "the parent's status")
    async with World(kit, returns) as world:
        report = await soon(world.driver.claim_and_run_pending("a look"))
        expect_equal((report.admitted, report.next_due_at_ms), ((), kit.now_ms + SETTLE_GRACE_MS), "the first drive")
        await elapse(kit, SETTLE_GRACE_MS / 1000)
        await world.drive()
        expect_equal(await world.ended("parent"), Completed(raw("parent")), "the outcome of the parent")
    expect_equal((await kit.get("child")).state.settle_due_at_ms, None, "what is left to settle")
    again = await kit.registry.execute(AwaitEnd(process_id="parent"))
    expect_equal(again.answer, "unchanged", "the answer about an end that nothing follows from")


@case("E.5l", "an end served just before its parent was suspended on it stays to be served")
async def served_too_early(kit: Kit) -> None:
    parent = await kit.start("parent")
    child = await kit.start("child", parent="parent")
    seen = (await kit.complete("child", child)).record
    await kit.registry.execute(Wake(process_id="parent", wait=ChildWait("child"), cause="too early"))
    suspend = Suspend(process_id="parent", execution=LeaseRight(parent.lease.key), waits=(ChildWait("child"),))
    await kit.registry.execute_together((suspend, AwaitEnd(process_id="child")))
    late = await kit.registry.execute(Settle(process_id="child", served_sequence=seen.state.last_sequence))
    expect_equal(late.answer, "unchanged", "the answer to a settling that has not seen the parent wait")
    async with World(kit, returns) as world:
        await elapse(kit, SETTLE_GRACE_MS / 1000)
        await world.drive()
        expect_equal(await world.ended("parent"), Completed(raw("parent")), "the outcome of the parent")


@case("E.5c", "however many ends are due at once, one drive writes them all")
async def many_deadlines(kit: Kit) -> None:
    for number in range(300):
        await kit.register(f"p-{number:03}", delay_ms=60_000, deadline_ms=1_000)
    await elapse(kit, 1)
    async with World(kit) as world:
        report = await soon(world.driver.claim_and_run_pending("deadlines"))
        expect_equal((len(report.ended), report.next_due_at_ms), (300, None), "how many ended, and what is due next")


async def _next_due(world: World) -> int | None:
    return (await world.driver.claim_and_run_pending("look")).next_due_at_ms


CASES = (
    admission, coalesced, coalesced_with_a_failure, in_flight, busy, unknown_definition, chain, cancelled_wait,
    failed_drive, failed_refill, lost_claim, next_due, unsettled_end, settled_before, served_too_early, many_deadlines,
)  # fmt: skip
