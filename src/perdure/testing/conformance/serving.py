"""Section E of the contract, continued: an open host drives itself, at due times and not otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.engines.python.definitions import Retry
from perdure.errors import InfrastructureFailure
from perdure.hosting.serving import SAFETY_INTERVAL_S
from perdure.model.outcomes import Completed
from perdure.model.registration import Definition
from perdure.model.waits import ChildWait
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.kit import TTL_MS, WORK, Kit, raw, registration
from perdure.testing.conformance.world import (
    Sink,
    World,
    elapse,
    holds,
    host_over,
    loop_seconds,
    loop_turns,
    simulated,
    soon,
)
from perdure.testing.faults import Delay, FailBefore, Fault, FaultyRegistry, script
from perdure.transitions.commands import Register
from perdure.transitions.fold import SETTLE_GRACE_MS

DONE = Completed(raw("done"))


@case("E.5d", "an open host starts a delayed process when it is due, and not before")
async def wakes_for_a_delay(kit: Kit) -> None:
    host = host_over(kit)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        return "done"

    async with host:
        run = await host.start(work, delay=60)
        due_ms = kit.now_ms + 60_000
        await elapse(kit, 59.9)
        await loop_turns()
        expect_equal(await run.status(), "pending", "the status before it is due")
        await elapse(kit, 0.1)
        expect_equal(await soon(run.outcome()), DONE, "the outcome")
        started_ms = (await run.record()).state.started_at_ms
        if simulated():
            expect_equal(started_ms, due_ms, "when it was started")


@case("E.5e", "an open host starts a retry again when it is due, and what an owner left when its lease lapses")
async def wakes_for_a_retry_and_a_lapse(kit: Kit) -> None:
    left = await kit.start("left", "gone")
    host, tries = host_over(kit), []

    @host.process(recovery="rerunnable", retry=Retry(3))
    async def work(ctx: object) -> str:
        tries.append(kit.now_ms)
        if len(tries) == 1:
            raise ValueError("the first time")
        return "done"

    async with host:
        run = await host.start(work, id="again")
        await kit.until(holds(lambda: len(tries) == 1), "the first try")
        await kit.until(_failed_once(kit, "again"), "the retry is scheduled")
        await elapse(kit, 1.2)
        expect_equal(await soon(run.outcome()), DONE, "the outcome of the retried one")
        expect_equal((await kit.get("left")).attempt, 1, "the attempts of the other while its lease stands")
        kit.let_lapse(left) if not simulated() else await elapse(kit, TTL_MS / 1000)
        expect_equal(await soon(host.get_handle("left").outcome()), DONE, "the outcome of what was taken over")


@case("E.5f", "an open host wakes a parent whose child was ended by somebody who died right after")
async def wakes_for_an_unsettled_end(kit: Kit) -> None:
    parent = await kit.start("parent")
    child = await kit.start("child", parent="parent")
    await kit.suspend(parent, ChildWait("child"))
    await kit.complete("child", child)
    host = host_over(kit)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        return "done"

    async with host:
        await loop_turns()
        await elapse(kit, SETTLE_GRACE_MS / 1000)
        expect_equal(await soon(host.get_handle("parent").outcome()), DONE, "the outcome of the parent")


@case("E.5g", "what was given back because of the infrastructure comes back by itself, and is never failed")
async def wakes_for_a_released_row(kit: Kit) -> None:
    sink, tries = Sink(), []
    host = host_over(kit, sink=sink)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        tries.append(kit.now_ms)
        if len(tries) == 1:
            raise InfrastructureFailure("the engine is away")
        return "done"

    async with host:
        run = await host.start(work, id="p")
        await kit.until(holds(lambda: bool(sink.faults)), "the fault is told")
        await kit.until(_released(kit, "p"), "the lease is given back")
        await elapse(kit, 1.0)
        expect_equal(await soon(run.outcome()), DONE, "the outcome")
        record = await run.record()
        expect_equal((record.state.failures, record.state.deaths), (0, 0), "the failures and deaths that it counts")
        expect_equal([f.kind for f in sink.faults], ["infrastructure"], "the faults")


@case("E.5h", "a drive by hand at the wrong moment costs the host no due time")
async def keeps_due_times(kit: Kit) -> None:
    await kit.register("later", delay_ms=10_000)
    slow = FaultyRegistry(kit.registry, clock=kit.clock)
    host = host_over(kit, slow)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        return "done"

    async with host:
        await kit.until(holds(lambda: slow.calls["next_due_at_ms"] > 0), "the opening drive is over")
        await loop_turns()
        slow.plan = script({("due_for_settling", slow.calls["due_for_settling"] + 1): Delay(0.5)})
        by_hand = World(kit).spawn(host.claim_and_run_pending("by hand"))
        await kit.until(holds(lambda: slow.hits["due_for_settling", "Delay"] > 0), "the drive by hand scans")
        await host.registry.execute(
            Register(process_id="now", registration=registration("now"))
        )  # the host wants to drive, and is coalesced
        await loop_turns(20)
        await elapse(kit, 0.5)
        await soon(by_hand)
        await soon(host.get_handle("now").outcome())
        await elapse(kit, 9.5)
        expect_equal(await soon(host.get_handle("later").outcome()), DONE, "the outcome of the delayed one")


@case("E.5i", "an idle host reads nothing but what its safety interval asks for")
async def idle(kit: Kit) -> None:
    counted = FaultyRegistry(kit.registry, clock=kit.clock)
    host = host_over(kit, counted)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        return "done"

    async with host:
        await soon((await host.start(work)).outcome())
        await kit.until(holds(lambda: counted.calls["next_due_at_ms"] > 0), "the opening drive is over")
        await loop_seconds(
            20 if simulated() else 0.2
        )  # past the lapse of the lease that the opening drive may have seen
        before = dict(counted.calls)
        seconds = 60 if simulated() else 2
        await loop_seconds(seconds)
        made = {verb: count - before.get(verb, 0) for verb, count in counted.calls.items()}
        looks = {verb: count for verb, count in made.items() if count}
        expect(set(looks) <= {"peer_changes", "prove_deaths"}, f"no other calls than looks at peers, found {looks}")
        expect(looks.get("peer_changes", 0) <= seconds / SAFETY_INTERVAL_S + 1, f"one look a second, found {looks}")


@case("E.5j", "a store that fails for a while costs an open host nothing but time")
async def survives_an_outage(kit: Kit) -> None:
    store, sink = FaultyRegistry(kit.registry, clock=kit.clock), Sink()
    host = host_over(kit, store, sink=sink)

    @host.process(recovery="rerunnable")
    async def work(ctx: object) -> str:
        return "done"

    async with host:
        await kit.until(holds(lambda: store.calls["next_due_at_ms"] > 0), "the opening drive is over")
        store.plan = _outage
        for number in range(3):
            await kit.registry.execute(Register(process_id=f"p-{number}", registration=registration(f"p-{number}")))
        await kit.until(holds(lambda: any(f.kind == "dispatcher" for f in sink.faults)), "the fault is told")
        await elapse(kit, 5)
        store.plan = script({})
        await elapse(kit, 5)
        for number in range(3):
            expect_equal(await soon(host.get_handle(f"p-{number}").outcome()), DONE, "the outcome")


def _outage(verb: str, number: int) -> Fault | None:
    return FailBefore()


def _failed_once(kit: Kit, id: str) -> Callable[[], Awaitable[bool]]:
    async def failed() -> bool:
        return (await kit.get(id)).state.failures == 1

    return failed


def _released(kit: Kit, id: str) -> Callable[[], Awaitable[bool]]:
    async def released() -> bool:
        lease = await kit.registry.get_lease(id)
        return lease is not None and lease.released

    return released


@case("E.2d", "a worker says what it can run when it enrols and when that has changed, until it has stopped")
async def enrolments(kit: Kit) -> None:
    newer = Definition("python", "work", 2)

    async def said() -> list[tuple[str, tuple[Definition, ...] | None]]:
        return [(found.owner.name, found.definitions) for found in await kit.registry.enrolled()]

    await kit.registry.enrol(kit.owner("silent"))
    async with World(kit, name="w") as world:
        await world.drive()
        expect_equal(await said(), [("silent", None), ("w", (WORK,))], "what is said")
        world.engine.definitions = (WORK, newer)
        await world.drive()
        expect_equal(await said(), [("silent", None), ("w", (WORK, newer))], "what is said with one more definition")
    expect_equal(await said(), [("silent", None)], "what is said once the worker has stopped")
    await kit.registry.withdraw(kit.owner("silent"))
    expect_equal(await said(), [], "what is said once nobody is enrolled")


CASES = (
    wakes_for_a_delay, wakes_for_a_retry_and_a_lapse, wakes_for_an_unsettled_end, wakes_for_a_released_row,
    keeps_due_times, idle, survives_an_outage, enrolments,
)  # fmt: skip
