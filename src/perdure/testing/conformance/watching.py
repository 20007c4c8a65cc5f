"""Section D of the contract, continued: an engine's own waits, the event sink, and following a log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from perdure.contract.ports import Run, WorkerFault
from perdure.hosting.handle import Handle
from perdure.model.events import Event
from perdure.model.outcomes import Completed, Outcome
from perdure.model.record import ProcessRecord
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.watch import SinkPump
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import Sink, World, holds, host_over, loop_turns, soon, spawner_here
from perdure.transitions.commands import Admit, Claimed, ExternalOwner, WorkflowKey

DONE = Completed(raw("done"))


class EngineDown(Exception):
    """An error of an engine's own, that Perdure knows nothing of."""


class Attach:
    """An engine's wait, for rows that were admitted to it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.error = error
        self.answered = asyncio.Event()

    def serves(self, record: ProcessRecord) -> bool:
        return record.state.admitted is not None

    async def await_terminal(self, process_id: str) -> Outcome:
        self.asked.append(process_id)
        if self.error is not None:
            raise self.error
        await self.answered.wait()
        return DONE


@case("D.7a", "an attach is not asked about an end that stands")
async def attach_after_the_end(kit: Kit) -> None:
    await kit.register("p")
    await kit.registry.execute(Admit(process_id="p", workflow_key="k"))
    await kit.complete("p", WorkflowKey("p", "k"), DONE)
    attach = Attach()
    async with World(kit) as world:
        expect_equal(await soon(world.driver.with_attach(attach).await_terminal("p")), DONE, "the outcome")
    expect_equal(attach.asked, [], "what the attach was asked")


@case("D.7b", "a live row that the engine serves is waited for in the engine, with the permit given back")
async def attach_serves(kit: Kit) -> None:
    await kit.register("served")
    await kit.registry.execute(Admit(process_id="served", workflow_key="k"))
    await kit.register("waits")
    attach, outcomes = Attach(), []
    driver: ProcessWorkDriver | None = None

    async def wait_in_engine(run: Run) -> object:
        assert driver is not None
        outcomes.append(await driver.await_terminal("served"))
        return None

    async with World(kit, wait_in_engine, concurrency=1) as world:
        driver = world.driver.with_attach(attach)
        await world.drive()

        waits = holds(lambda: attach.asked == ["served"] and world.worker.free_permits == 1)
        await kit.until(waits, "the attach is asked and the one permit is free meanwhile")
        attach.answered.set()
        await world.ended("waits")
        expect_equal(outcomes, [DONE], "what the engine answered")


@case("D.7c", "an attach's error is raised as it is, and the store is not polled instead")
async def attach_raises(kit: Kit) -> None:
    await kit.register("p")
    await kit.registry.execute(Admit(process_id="p", workflow_key="k"))
    error = EngineDown("not today")
    async with World(kit) as world:
        try:
            await soon(world.driver.with_attach(Attach(error)).await_terminal("p"))
        except EngineDown as raised:
            expect(raised is error, "the very error that the attach raised")
        else:
            expect(False, "the attach's error is raised")
        expect_equal(world.registry.calls["ended_among"], 0, "the looks at the store")


@case("D.7d", "rows that the engine doesn't serve are waited for in the store")
async def attach_does_not_serve(kit: Kit) -> None:
    await kit.register("external", recovery="externally_owned")
    claimed, attach = await kit.start("inline"), Attach()
    async with World(kit) as world:
        driver = world.driver.with_attach(attach)
        waiters = [world.spawn(driver.await_terminal(id)) for id in ("external", "inline")]
        await loop_turns()
        await kit.complete("external", ExternalOwner("them"), DONE)
        await kit.complete("inline", claimed, DONE)
        expect_equal(await soon(asyncio.gather(*waiters)), [DONE, DONE], "the outcomes")
    expect_equal(attach.asked, [], "what the attach was asked")


@case("D.7e", "a pending row is waited for until it is admitted, and from then on in the engine")
async def attach_after_admission(kit: Kit) -> None:
    await kit.register("p")
    attach = Attach()
    attach.answered.set()
    async with World(kit) as world:
        waiter = world.spawn(world.driver.with_attach(attach).await_terminal("p"))
        await loop_turns()
        expect_equal(attach.asked, [], "what the attach was asked before the admission")
        await kit.registry.execute(Admit(process_id="p", workflow_key="k"))
        expect_equal(await soon(waiter), DONE, "the outcome")
    expect_equal(attach.asked, ["p"], "what the attach was asked")


async def _emit(kit: Kit, run: Run) -> None:
    for number in range(3):
        claimed = Claimed(run.record, run.lease)
        await kit.append(run.record.id, "progress", number, replay_key=f"k-{number}", execution=kit.execution(claimed))


@case("D.8a", "the sink is given every event once, in order, after its commit; a replay gives it nothing")
async def sink_gets_all(kit: Kit) -> None:
    sink, early = Sink(), []

    class Checking(Sink):
        async def emit(self, event: Event) -> None:
            stands = (await kit.registry.get(event.process_id)).state.last_sequence
            if stands < event.sequence:
                early.append(event)
            await sink.emit(event)

    async def body(run: Run) -> object:
        await _emit(kit, run)
        return None

    ids = [f"p-{number}" for number in range(5)]
    async with World(kit, body, sink=Checking()) as world:
        for id in ids:
            await kit.register(id)
        await world.drive()
        for id in ids:
            await world.ended(id)
            replayed = await kit.append(id, "progress", 0, replay_key="k-0")
            expect_equal(replayed.answer, "unchanged", "the answer to the replay")
        for id in ids:
            log = await kit.log(id)
            await kit.until(_has(sink, id, len(log)), f"the sink has the events of {id}")
            expect_equal([e for e in sink.events if e.process_id == id], list(log), f"what the sink got of {id}")
    expect_equal(early, [], "events that came before their commit")


@case("D.8b", "an operation that is repeated after a restart gives the sink nothing", needs=("reopenable",))
async def sink_and_repeated_operation(kit: Kit) -> None:
    await kit.register("p")
    await kit.append("p", "progress", 1, operation_id="op-1")
    await kit.reopen()
    sink = Sink()
    async with World(kit, sink=sink):
        again = await kit.append("p", "progress", 1, operation_id="op-1")
        expect_equal([e.sequence for e in again.events], [1], "the event it is answered with")
        await kit.append("p", "progress", 2)
        await kit.until(_has(sink, "p", 1), "the sink has the new event")
        expect_equal([e.sequence for e in sink.events], [2], "the sequences that the sink got")


@case("D.8c", "a sink that raises or hangs holds up no commit, and loses only the events it did that to")
async def sink_misbehaves(kit: Kit) -> None:
    hung = asyncio.Event()

    class Bad(Sink):
        async def emit(self, event: Event) -> None:
            if event.sequence == 1:
                raise RuntimeError("the sink is broken")
            if event.sequence == 2:
                await hung.wait()
            await super().emit(event)

    sink, spawner = Bad(), spawner_here()
    pump = SinkPump(sink, spawner, bound_s=0.05)
    await kit.register("p")
    for number in range(4):
        receipt = await soon(kit.append("p", "progress", number))
        pump.offer(receipt.events)
    expect_equal(len(await kit.log("p")), 4, "the events in the log while the sink hangs")
    await kit.until(_has(sink, "p", 2), "the sink has what it took")
    expect_equal([e.sequence for e in sink.events], [3, 4], "the sequences that the sink got")


@case("D.8d", "faults reach a sink that takes them, in their place between the events")
async def sink_takes_faults(kit: Kit) -> None:
    sink = Sink()
    pump = SinkPump(sink, spawner_here())
    pump.report(WorkerFault("infrastructure", "a fault"))

    await kit.until(holds(lambda: bool(sink.faults)), "the sink has the fault")
    expect_equal([fault.message for fault in sink.faults], ["a fault"], "the faults it got")


@case("D.9a", "following a log gives every event once, in order, from any sequence to the end")
async def follow(kit: Kit) -> None:
    claimed = await kit.start("p")
    async with host_over(kit, work=False) as host:
        following = [_followed(host.get_handle("p"), after) for after in (0, 1, 5)]
        spawner = spawner_here()
        tasks = [spawner.spawn(each, "follower") for each in following]
        for number in range(8):
            await kit.append("p", "progress", number)
            await loop_turns(number)
        await kit.complete("p", claimed, DONE)
        found = await soon(asyncio.gather(*tasks))
        expect_equal(found, [list(range(after + 1, 11)) for after in (0, 1, 5)], "the sequences past 0, 1 and 5")
        level = [event.sequence async for event in host.get_handle("p").events(after=8, follow=False)]
        expect_equal(level, [9, 10], "the sequences past 8 without following")


@case("D.9b", "following goes on where it stopped after the store was opened again", needs=("reopenable",))
async def follow_through_reopening(kit: Kit) -> None:
    claimed = await kit.start("p")
    await kit.append("p", "progress", 1)
    seen = await _seen(kit, after=0)
    await kit.reopen()
    await kit.append("p", "progress", 2)
    await kit.complete("p", claimed, DONE)
    seen += await _seen(kit, after=seen[-1])
    expect_equal(seen, [1, 2, 3, 4], "the sequences seen before and after")


async def _seen(kit: Kit, after: int) -> list[int]:
    async with host_over(kit, work=False) as host:
        return [event.sequence async for event in host.get_handle("p").events(after=after, follow=False)]


async def _followed(handle: Handle[object], after: int) -> list[int]:
    return [event.sequence async for event in handle.events(after=after)]


def _has(sink: Sink, id: str, count: int) -> Callable[[], Awaitable[bool]]:
    return holds(lambda: len([event for event in sink.events if event.process_id == id]) >= count)


CASES = (
    attach_after_the_end, attach_serves, attach_raises, attach_does_not_serve, attach_after_admission, sink_gets_all,
    sink_and_repeated_operation, sink_misbehaves, sink_takes_faults, follow, follow_through_reopening,
)  # fmt: skip
