"""Section D of the contract: waiting for an end or an event, on the real driver and awaiter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from perdure.errors import (
    CallerDeparted,
    NoLongerRetained,
    ProcessFinishedWithoutEvent,
    StoreUnavailable,
    UnknownProcess,
)
from perdure.model.outcomes import Completed, RetainedNoLonger
from perdure.model.record import ProcessRecord
from perdure.runtime.awaiter import Awaiter
from perdure.runtime.hub import ChangeHub
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import World, holds, loop_turns, simulated, soon, spawner_here
from perdure.testing.faults import Delay, DelayAnswer, FailBefore, Fault, FaultyRegistry, script
from perdure.transitions.commands import ExternalOwner, RecordCallerDeparture

DONE = Completed(raw("done"))
FIRST_LOOK_S = 0.025


@case("D.1a", "an end that stands already is answered without waiting")
async def ended_before(kit: Kit) -> None:
    await kit.complete("p", await kit.start("p"), DONE)
    async with World(kit) as world:
        expect_equal(await world.ended("p"), DONE, "the outcome")
        expect_equal(world.registry.calls["ended_among"], 0, "the number of looks after the first read")


@case("D.1b", "a thousand waiters get the one outcome, and the hub forgets them")
async def a_thousand_waiters(kit: Kit) -> None:
    claimed = await kit.start("p")
    async with World(kit) as world:
        waiters = [world.spawn(world.driver.await_terminal("p")) for _ in range(1_000)]
        await kit.until(_have_read(world, 1_000), "the waiters wait")
        await kit.complete("p", claimed, DONE)
        outcomes = await soon(asyncio.gather(*waiters))
        expect_equal({id(o): o for o in outcomes if o != DONE}, {}, "outcomes that differ")
        expect_equal(world.driver.change_hub.watched, 0, "the hub's entries")


@case("D.1c", "an end that another program writes reaches a waiter here", needs=("multi_process",))
async def ended_elsewhere(kit: Kit) -> None:
    claimed, peer = await kit.start("p"), await kit.peer()
    async with World(kit) as world:
        waiter = world.spawn(world.driver.await_terminal("p"))
        await kit.until(_have_read(world, 1), "the waiter waits")
        await peer.execute(kit.complete_command("p", claimed, DONE))
        expect_equal(await soon(waiter), DONE, "the outcome")


class _Yields:
    """A plan that lets other tasks run before or after a read, as chance will have it. Chance is the loop's tape."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    def __call__(self, verb: str, number: int) -> Fault | None:
        if verb not in ("get", "find_event", "ended_among") or not simulated():
            return None
        return (None, Delay(0), DelayAnswer(0))[int(self._kit.ids.fraction() * 3)]


@case("D.2a", "an end written between a waiter's read and its subscription is not missed")
async def no_lost_end(kit: Kit) -> None:
    loop = asyncio.get_running_loop()
    async with World(kit, plan=_Yields(kit)) as world:
        for number in range(5):
            id = f"p-{number}"
            claimed, began_s = await kit.start(id), loop.time()
            waiter = world.spawn(world.driver.await_terminal(id))
            await loop_turns(number)
            await kit.complete(id, claimed, DONE)
            expect_equal(await soon(waiter), DONE, "the outcome")
            if simulated():
                expect(loop.time() - began_s < FIRST_LOOK_S, "the waiter was woken, and did not need the backoff")


@case("D.2b", "an event appended between a waiter's read and its subscription is not missed")
async def no_lost_event(kit: Kit) -> None:
    loop = asyncio.get_running_loop()
    async with World(kit, plan=_Yields(kit)) as world:
        for number in range(5):
            id = f"p-{number}"
            began_s = loop.time()
            await kit.register(id)
            waiter = world.spawn(world.driver.await_event(id, "progress"))
            await loop_turns(number)
            await kit.append(id, "progress", number)
            expect_equal((await soon(waiter)).sequence, 1, "the event's sequence")
            if simulated():
                expect(loop.time() - began_s < FIRST_LOOK_S, "the waiter was woken, and did not need the backoff")


class _Looks(FaultyRegistry):
    """Notes when it is read: at once for the wait's first read, then at every look."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit.registry, clock=kit.clock)
        self.at_s: list[float] = []

    async def get(self, process_id: str) -> ProcessRecord:
        self.at_s.append(asyncio.get_running_loop().time())
        return await super().get(process_id)

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        self.at_s.append(asyncio.get_running_loop().time())
        return await super().get_many(process_ids)

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        self.at_s.append(asyncio.get_running_loop().time())
        return await super().ended_among(process_ids)

    def gaps_ms(self) -> list[int]:
        return [round((later - earlier) * 1000) for earlier, later in zip(self.at_s, self.at_s[1:], strict=False)]

    async def until_looks(self, kit: Kit, count: int) -> None:
        await kit.until(holds(lambda: len(self.at_s) >= count), f"{count} looks")


@case("D.3a", "without a hub the looks come after 25, 50, 100, 200, 400, 800, 1000, 1000 ms")
async def backoff(kit: Kit) -> None:
    claimed, looks = await kit.start("p"), _Looks(kit)
    spawner = spawner_here()
    expected = [25, 50, 100, 200, 400, 800, 1000, 1000]
    waiter = spawner.spawn(Awaiter(looks, ChangeHub(), spawner).await_terminal("p"), "waiter")
    await looks.until_looks(kit, len(expected) + 1 if simulated() else 5)
    found = looks.gaps_ms()
    if simulated():
        expect_equal(found[: len(expected)], expected, "the milliseconds between looks")
    for gap, least in zip(found, expected, strict=False):
        expect(gap >= least - 2, f"at least {least} ms between two looks, found {gap}")
    await kit.complete("p", claimed, DONE)
    expect_equal(await soon(waiter), DONE, "the outcome")


@case("D.3b", "a tick of the hub is followed by a look at once, and the backoff begins anew")
async def tick_resets(kit: Kit) -> None:
    claimed, looks, hub = await kit.start("p"), _Looks(kit), ChangeHub()
    spawner = spawner_here()
    waiter = spawner.spawn(Awaiter(looks, hub, spawner).await_terminal("p"), "waiter")
    await looks.until_looks(kit, 4)
    hub.publish(("p",))
    await looks.until_looks(kit, 8)
    found = looks.gaps_ms()
    expect(found[3] < 100, f"a look at once after the tick, found one after {found[3]} ms")
    if simulated():
        expect_equal(found[4:7], [25, 50, 100], "the milliseconds between the looks after a tick")
    expect(found[4] + 2 >= 25 and found[4] < 150, f"25 ms after the look that the tick made, found {found[4]}")
    await kit.complete("p", claimed, DONE)
    await soon(waiter)


@case("D.4a", "waiting for an unknown id or a departed caller is refused, and leaves nothing in the hub")
async def refused_waits(kit: Kit) -> None:
    await kit.register("departed", recovery="externally_owned")
    await kit.registry.execute(RecordCallerDeparture(process_id="departed"))
    async with World(kit) as world:
        with refusal(UnknownProcess, "the end of an unknown process"):
            await soon(world.driver.await_terminal("nobody"))
        with refusal(UnknownProcess, "an event of an unknown process"):
            await soon(world.driver.await_event("nobody", "progress"))
        with refusal(CallerDeparted, "the end of a departed process"):
            await soon(world.driver.await_terminal("departed"))
        with refusal(CallerDeparted, "an event of a departed process"):
            await soon(world.driver.await_event("departed", "progress"))
        expect_equal(world.driver.change_hub.watched, 0, "the hub's entries")


@case("D.4b", "a waiter learns that the caller has departed, and a late end still counts")
async def departs_meanwhile(kit: Kit) -> None:
    await kit.register("p", recovery="externally_owned")
    async with World(kit) as world:
        waiter = world.spawn(world.driver.await_terminal("p"))
        await kit.until(_have_read(world, 1), "the waiter waits")
        await kit.registry.execute(RecordCallerDeparture(process_id="p"))
        with refusal(CallerDeparted, "the wait that was under way"):
            await soon(waiter)
        await kit.complete("p", ExternalOwner("them"), DONE)
        expect_equal(await world.ended("p"), DONE, "the outcome")


@case("D.4c", "a store's error is raised to whoever waits, at the first read and at a later look")
async def store_errors(kit: Kit) -> None:
    await kit.register("p")
    for verb in ("get", "ended_among"):
        async with World(kit, plan=script({(verb, 1): FailBefore()})) as world:
            with refusal(StoreUnavailable, f"a wait while {verb} fails"):
                await soon(world.driver.await_terminal("p"))
            expect_equal(world.driver.change_hub.watched, 0, "the hub's entries")


class _Pruned(FaultyRegistry):
    """Says of every process that its record is gone."""

    async def get(self, process_id: str) -> ProcessRecord:
        raise NoLongerRetained(process_id, "completed", 7)


@case("D.4d", "the wait for a process that was pruned is answered with what is still known")
async def pruned(kit: Kit) -> None:
    async with World(kit, registry=_Pruned(kit.registry)) as world:
        expect_equal(await world.ended("p"), RetainedNoLonger("completed", 7), "the answer")


@case("D.5a", "an event past the sequence is answered at once, however old")
async def old_event(kit: Kit) -> None:
    await kit.register("p")
    for number in range(3):
        await kit.append("p", "progress", number)
    async with World(kit) as world:
        found = [(await soon(world.driver.await_event("p", "progress", after))).sequence for after in (0, 1, 2)]
        expect_equal(found, [1, 2, 3], "the sequences found past 0, 1 and 2")


@case("D.5b", "a wait for an event that never comes ends when the process does")
async def ended_without_event(kit: Kit) -> None:
    claimed = await kit.start("p")
    async with World(kit) as world:
        waiter = world.spawn(world.driver.await_event("p", "progress"))
        await kit.until(_have_read(world, 1), "the waiter waits")
        await kit.append("p", "other")
        await kit.complete("p", claimed, DONE)
        with refusal(ProcessFinishedWithoutEvent, "the wait") as refused:
            await soon(waiter)
        expect_equal(refused.error.status, "completed", "the status it tells")


@case("D.6", "the hub's entry is gone when the last waiter leaves, also by cancellation")
async def hub_is_emptied(kit: Kit) -> None:
    await kit.register("p")
    async with World(kit) as world:
        waiters: list[asyncio.Task[object]] = [world.spawn(world.driver.await_terminal("p")) for _ in range(3)]
        waiters += [world.spawn(world.driver.await_event("p", "progress"))]
        await kit.until(_have_read(world, len(waiters)), "the waiters wait")
        for left, waiter in enumerate(waiters):
            expect_equal(world.driver.change_hub.watched, 1, f"the hub's entries after {left} have left")
            waiter.cancel()
            await asyncio.wait({waiter})
        expect_equal(world.driver.change_hub.watched, 0, "the hub's entries")


def _have_read(world: World, count: int) -> Callable[[], Awaitable[bool]]:
    return holds(lambda: world.driver.change_hub.watched > 0 and world.registry.calls["get"] >= count)


CASES = (
    ended_before, a_thousand_waiters, ended_elsewhere, no_lost_end, no_lost_event, backoff, tick_resets, refused_waits,
    departs_meanwhile, store_errors, pruned, old_event, ended_without_event, hub_is_emptied,
)  # fmt: skip
