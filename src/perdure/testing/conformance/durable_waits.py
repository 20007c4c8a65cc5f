"""Section G, waits: signals, timers, suspension, children, and cancellation of what waits."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process
from perdure.errors import InvalidPayload, ProcessAlreadyTerminal, UnknownProcess
from perdure.host import Host
from perdure.model.outcomes import Cancelled
from perdure.testing.conformance.case import case, expect, expect_equal, refusal
from perdure.testing.conformance.durable_world import SOON_S, durable, go, has_status, keys, start, value_of
from perdure.testing.conformance.kit import Kit


async def three_signals(ctx: ProcessContext) -> list[int]:
    return [await ctx.wait(go), await ctx.wait(go), await ctx.wait(go)]


@case("G.4a", "signals before the wait, while it is suspended and while no worker is up are delivered once, in order")
async def signals(kit: Kit) -> None:
    async with durable(kit, three_signals) as host:
        await start(host)
        await kit.signal("p", "go", 1, "one")
        await kit.signal("p", "go", 1, "one")

        async def first_taken() -> bool:
            return len(await keys(kit, "wait.")) == 1 and (await kit.get("p")).status == "waiting"

        await kit.until(first_taken, "the first is taken and the second wait suspended")
    await asyncio.gather(kit.signal("p", "go", 2), kit.signal("p", "go", 2))
    async with durable(kit, three_signals) as host:
        expect_equal(await value_of(host), [1, 2, 2], "the signals, in order")


@case("G.4b", "a signal of another type is refused where it is sent")
async def wrong_signal(kit: Kit) -> None:
    async with durable(kit, three_signals) as host:
        await start(host)
        await has_status(kit, "waiting")
        with refusal(InvalidPayload, "a signal of the wrong type"):
            await kit.signal("p", "go", "text")
        expect_equal((await kit.get("p")).state.signals, {}, "the signals accepted")


@case("G.4c", "signals sent while the process is being suspended are delivered once each")
async def signals_around_suspensions(kit: Kit) -> None:
    async with durable(kit, three_signals, parking=0.0) as host:
        for n in range(20):
            await start(host, f"p{n}")
        for number in (1, 2, 3):
            for n in range(20):
                await kit.signal(f"p{n}", "go", number)
        for n in range(20):
            expect_equal(await value_of(host, f"p{n}"), [1, 2, 3], f"the signals of p{n}")


@case("G.5", "a signal to a process that has ended, and to one that is unknown, is refused")
async def signals_to_nobody(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> None:
        return None

    async with durable(kit, body) as host:
        await start(host)
        await value_of(host)
        with refusal(ProcessAlreadyTerminal, "a signal after the end"):
            await kit.signal("p", "go", 1)
        with refusal(UnknownProcess, "a signal to nobody"):
            await kit.signal("nobody", "go", 1)


@case("G.6", "a sleep ends at the time that was recorded, however long no worker was up; a timeout too")
async def sleeps(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> list[Any]:
        began = await ctx.now()
        await ctx.sleep(100)
        woke = await ctx.now()
        try:
            await ctx.wait(go, timeout=50)
        except TimeoutError:
            return [(woke - began).total_seconds(), "timed out"]
        return []

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
    due_at_ms = (await kit.get("p")).state.due_at_ms
    kit.clock.advance(99)
    async with durable(kit, body) as host:
        expect_equal((await kit.get("p")).status, "waiting", "the status one second before its time")
        expect_equal((await kit.get("p")).state.due_at_ms, due_at_ms, "the due time after the restart")
        kit.clock.advance(1)
        await host.claim_and_run_pending("its time")

        async def waits_on() -> bool:
            return (await keys(kit, "wait.")) == ["sleep"] and (await kit.get("p")).status == "waiting"

        await kit.until(waits_on, "it has woken and waits for the signal")
        kit.clock.advance(50)
        await host.claim_and_run_pending("the timeout")
        expect_equal(await value_of(host), [100.0, "timed out"], "what the code saw")


@case("G.7", "a process parked past its bound holds no lease and no permit, and resumes with what it had")
async def parked(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> list[Any]:
        made = await ctx.random()
        await ctx.wait(go)
        return [made, await ctx.random()]

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
        lease = await kit.registry.get_lease("p")
        expect(lease is None or lease.released, "the lease is given back")

        async def all_free() -> bool:
            worker = host.worker
            return worker is not None and worker.in_flight == () and worker.free_permits == host.options.concurrency

        await kit.until(all_free, "nothing is in flight and every permit is free")
        await kit.signal("p", "go", 1)
        first, second = await value_of(host)
        expect(first != second, "the value from before the wait is the old one, the other is new")
    expect_equal((await kit.get("p")).attempt, 1, "the attempts: resuming is no start")


def _child(kit: Kit, made: list[Process[None, Any]]) -> Any:
    def define(host: Host) -> None:
        @host.process(recovery="rerunnable", signals=[go])
        async def child(ctx: ProcessContext) -> int:
            return await ctx.wait(go)

        made[:] = [child]

    return define


@case("G.8a", "a child that is started again by replay is the same child, and its result wakes its parent")
async def one_child(kit: Kit) -> None:
    made: list[Process[None, Any]] = []

    async def body(ctx: ProcessContext) -> int:
        started = await ctx.start(made[0])
        await ctx.wait(go)
        return int(await started.result())

    async with durable(kit, body, define=_child(kit, made)) as host:
        await start(host)
        await has_status(kit, "waiting")
        await kit.signal("p", "go", 0)
        await has_status(kit, "waiting", "p:child")
        await kit.signal("p:child", "go", 8)
        expect_equal(await value_of(host), 8, "the child's result")
    expect_equal((await kit.types("p")).count("child.started"), 1, "the children started")


@case("G.8b", "when a parent ends its live children are cancelled or left, as they were started")
async def policies(kit: Kit) -> None:
    made: list[Process[None, Any]] = []

    async def body(ctx: ProcessContext) -> None:
        await ctx.start(made[0], key="cancelled")
        await ctx.start(made[0], key="left", parent_end="abandon")

    async with durable(kit, body, define=_child(kit, made)) as host:
        await start(host)
        await value_of(host)
        children = [r.id for r in (await host.list()).records if r.registration.parent == "p"]
        cancelled = next(id for id in children if "cancelled" in id)
        left = next(id for id in children if "left" in id)

        async def told() -> bool:
            kit.clock.advance(0.1)  # a child at work hears of it at its worker's next renewal
            return (await kit.get(cancelled)).status == "cancelled"

        await kit.until(told, "the child is cancelled")
        await has_status(kit, "waiting", left)


@case("G.9a", "a process cancelled while it is suspended cleans up, and its clean-up is durable")
async def cancelled_while_suspended(kit: Kit) -> None:
    cleaned: list[str] = []

    async def clean(what: str) -> None:
        cleaned.append(what)

    async def body(ctx: ProcessContext) -> None:
        try:
            await ctx.wait(go)
        finally:
            await ctx.step(clean, "up")

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
        await host.get_handle("p").cancel("enough", by="someone")
        async with asyncio.timeout(SOON_S):
            outcome = await host.get_handle("p").outcome()
        expect_equal(outcome, Cancelled("enough", "someone"), "the outcome")
    expect_equal(cleaned[-1:], ["up"], "what was cleaned")
    expect_equal(len(cleaned), 1, "how often: not while it was suspended")
    expect_equal(await keys(kit, "cancel."), ["wait:go"], "where the cancellation was delivered")


CASES = (
    signals, wrong_signal, signals_around_suspensions, signals_to_nobody, sleeps, parked, one_child, policies,
    cancelled_while_suspended,
)  # fmt: skip
