"""Section E of the contract, continued: a worker that stops, and one that dies."""

from __future__ import annotations

from perdure.contract.moments import MomentName
from perdure.contract.ports import Run
from perdure.model.outcomes import Completed
from perdure.runtime.worker import Drained
from perdure.testing.conformance.case import Case, case, expect_equal
from perdure.testing.conformance.kit import ENDS, TTL_MS, Kit, raw
from perdure.testing.conformance.world import Gate, World, elapse, holds, host_over, loop_turns, soon
from perdure.testing.faults import DelayAnswer, script


@case("E.6a", "a worker that stops claims nothing more, and what runs may finish inside the grace")
async def drain_with_grace(kit: Kit) -> None:
    await kit.register("p")
    gate = Gate()
    async with World(kit, gate, concurrency=2) as world:
        await world.drive()
        await gate.until_entered("p")
        draining = world.spawn(world.worker.drain(60_000))
        await loop_turns()
        await kit.register("late")
        expect_equal(await world.drive(), (), "what is admitted while it drains")
        gate.open("p")
        expect_equal(await soon(draining), (Drained("p", "finished"),), "the report")
        expect_equal((await kit.get("late")).status, "pending", "what became of the late one")


@case("E.6b", "after the grace rerunnable work is given to its peers, and entered owner_bound work is abandoned")
async def drain_without_grace(kit: Kit) -> None:
    await kit.register("again")
    await kit.register("once", recovery="owner_bound")
    gate = Gate()
    async with World(kit, gate, name="stops") as world:
        await world.drive()
        await gate.until_entered("again")
        await gate.until_entered("once")
        report = await soon(world.worker.drain(0))
        expect_equal(sorted((d.process_id, d.became) for d in report), [("again", "released"), ("once", "abandoned")],
                     "the report")  # fmt: skip
    once, again = await kit.get("once"), await kit.get("again")
    expect_equal((once.status, once.state.outcome.evidence.writer), ("abandoned", "owner_drain"), "the owner_bound one")  # type: ignore[union-attr]
    expect_equal((again.status, again.state.failures, again.state.deaths), ("running", 0, 0), "the rerunnable one")
    async with World(kit, name="peer") as peer:
        expect_equal(await peer.drive(), ("again",), "what a peer admits at once")
        await peer.ended("again")
        expect_equal((await kit.get("again")).state.deaths, 0, "the deaths that a drain counts")


@case("E.6c", "a start that nobody has entered yet is withdrawn by a drain, also of owner_bound work")
async def drain_before_entry(kit: Kit) -> None:
    for number, recovery in enumerate(("rerunnable", "owner_bound")):
        await kit.register(f"p-{number}", recovery=recovery)
        async with World(kit, name=f"stops-{number}") as world:
            await _claimed_unentered(kit, world)
            report = await soon(world.worker.drain(0))
            expect_equal(report, (Drained(f"p-{number}", "released"),), "the report")
            expect_equal(world.engine.entries, [], "the entries into the code")
        record = await kit.get(f"p-{number}")
        expect_equal((record.status, record.attempt), ("pending", 0), f"what stands of the {recovery} one")
        await kit.complete(f"p-{number}", await kit.claim_one("peer"))


@case("E.6d", "a run that is told to stop before its first step is never entered, and leaves nothing behind")
async def cancelled_before_entry(kit: Kit) -> None:
    await kit.register("p")
    async with World(kit, concurrency=1) as world:
        await _claimed_unentered(kit, world)
        world.worker.cancel_local("p", "enough", None)
        expect_equal((await world.ended("p")).__class__.__name__, "Cancelled", "its outcome")
        await loop_turns()
        left = (world.engine.entries, world.worker.in_flight, world.worker.free_permits)
        expect_equal(left, ([], (), 1), "entries, runs in flight, free permits")


async def _claimed_unentered(kit: Kit, world: World) -> None:
    """Have the worker hold a claimed row whose task has not made its first step when this returns."""
    await world.worker.start()
    claim = world.worker.claim_for_start()
    assert claim is not None
    receipt = await kit.registry.execute(claim)
    world.worker.run_claimed(receipt, kit.clock.now().boot_ms)


@case("E.6e", "what is started while the host closes runs to its end or is left for others, never half started")
async def start_while_closing(kit: Kit) -> None:
    async with World(kit, plan=script({("Register+ClaimNext", 1): DelayAnswer(0.05)})) as world:
        host = host_over(kit, world.registry)

        @host.process(recovery="owner_bound")
        async def work(ctx: object) -> str:
            return "done"

        await host.open()
        worker = host.worker
        assert worker is not None
        idle = holds(lambda: world.registry.calls["next_due_at_ms"] > 0 and worker.free_permits == 64)
        await kit.until(idle, "the opening drive is over")
        starting = world.spawn(host.start(work, id="p"))
        await kit.until(holds(lambda: world.registry.calls["Register+ClaimNext"] > 0), "the start was sent")
        closing = world.spawn(host.close())

        async def closed() -> bool:
            await elapse(kit, 0.05)
            return starting.done() and closing.done()

        await kit.until(closed, "the host has closed")
        await starting
        expect_equal((await kit.get("p")).outcome, Completed(raw("done")), "its outcome after the close")


class Crash(BaseException):
    """Ends whatever task it is raised in, and is caught by no one."""


class CrashAt:
    """Moments at which the worker of a world dies: the first time that `moment` is reached."""

    def __init__(self, moment: MomentName) -> None:
        self.moment = moment
        self.world: World | None = None
        self.crashed = False

    def reached(self, moment: MomentName, process_id: str | None = None) -> None:
        if moment == self.moment and not self.crashed and self.world is not None:
            self.crashed = True
            self.world.die()
            raise Crash


def _crash_case(id: str, moment: MomentName) -> Case:
    @case(id, f"a worker that dies at {moment}: the next one finishes, with one end each")
    async def crash(kit: Kit) -> None:
        await kit.register("again")
        await kit.register("once", recovery="owner_bound")
        crash_at, gate = CrashAt(moment), Gate()
        if moment != "renewal.answered":
            gate.open("again")
            gate.open("once")
        first = World(kit, gate, name="dies", moments=crash_at)
        crash_at.world = first
        async with first:
            first.spawn(first.driver.claim_and_run_pending("open"))
            if moment == "renewal.answered":
                await gate.until_entered("again")
                await elapse(kit, TTL_MS / 3000 + 0.001)
            await kit.until(holds(lambda: crash_at.crashed), f"{moment} is reached")
            await loop_turns()
            await elapse(kit, TTL_MS / 1000 + 0.001)
            await _finish(kit)

    return crash


async def _finish(kit: Kit) -> None:
    async def body(run: Run) -> object:
        return "next"

    async with World(kit, body, name="next") as world:
        await world.drive()
        await world.ended("again")
        if (await kit.get("once")).is_live:
            entered = [id for id, _ in world.engine.entries]
            expect_equal("once" in entered, False, "whether the next worker enters owner_bound work")
            await kit.abandon("once")
        await world.ended("once")
        for id in ("again", "once"):
            log = await kit.types(id)
            ends = [type for type in log if type.removeprefix("process.") in ENDS]
            expect_equal(len(ends), 1, f"the number of terminal events in {log}")


dies_claimed = _crash_case("E.8a", "claim.committed")
dies_entered = _crash_case("E.8b", "run.entered")
dies_returned = _crash_case("E.8c", "run.returned")
dies_ended = _crash_case("E.8d", "end.committed")
dies_renewing = _crash_case("E.8e", "renewal.answered")

CASES = (
    drain_with_grace, drain_without_grace, drain_before_entry, cancelled_before_entry, start_while_closing,
    dies_claimed, dies_entered, dies_returned, dies_ended, dies_renewing,
)  # fmt: skip
