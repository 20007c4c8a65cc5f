"""Section G, steps: done once, known by their keys, and replayed the same way."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.engines.python.context import ProcessContext
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.durable_world import Body, durable, error_of, go, has_status, keys, start, value_of
from perdure.testing.conformance.kit import Kit


class Bodies:
    """Step bodies that are counted."""

    def __init__(self) -> None:
        self.run: list[str] = []
        self.entered = asyncio.Event()
        self.may_end = asyncio.Event()

    async def note(self, what: str) -> str:
        self.run.append(what)
        return what

    async def long(self) -> str:
        self.run.append("long")
        self.entered.set()
        await self.may_end.wait()
        return "long"


@case("G.1a", "a finished step never runs again; one that was running when its worker stopped does")
async def finished_steps(kit: Kit) -> None:
    bodies = Bodies()

    async def body(ctx: ProcessContext) -> list[str]:
        return [await ctx.step(bodies.note, "first"), await ctx.step(bodies.long)]

    async with durable(kit, body) as host:
        await start(host)
        await bodies.entered.wait()
    bodies.may_end.set()
    async with durable(kit, body) as host:
        expect_equal(await value_of(host), ["first", "long"], "the result")
    expect_equal(bodies.run, ["first", "long", "long"], "the bodies that were run")
    expect_equal(await keys(kit, "step."), ["note", "long"], "the steps in the journal")


@case("G.1b", "a step's failure is recorded and raised again on replay, without being tried again")
async def failed_steps(kit: Kit) -> None:
    tries: list[int] = []

    async def fails() -> None:
        tries.append(1)
        raise ValueError("no")

    async def body(ctx: ProcessContext) -> str:
        try:
            await ctx.step(fails)
        except Exception as error:
            await ctx.wait(go)
            return str(error)
        return "it did not fail"

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
        await kit.signal("p", "go", 1)
        expect_equal(await value_of(host), "step 'fails' failed: ValueError: no", "what the code saw")
    expect_equal(len(tries), 1, "the tries")


@case("G.2a", "a name used again is numbered, and steps at once keep their keys whatever ends first")
async def keys_of_steps(kit: Kit) -> None:
    bodies = Bodies()
    first_may_end = asyncio.Event()

    async def slow(what: str) -> str:
        await first_may_end.wait()
        return what

    async def quick(what: str) -> str:
        first_may_end.set()
        return what

    async def body(ctx: ProcessContext) -> list[Any]:
        async def branch(ctx: ProcessContext) -> str:
            return await ctx.step(bodies.note, "in a branch")

        twice = [await ctx.step(bodies.note, "a"), await ctx.step(bodies.note, "b", key="mine")]
        together = await ctx.gather(ctx.step(slow, "1"), ctx.step(quick, "2"))
        return [*twice, *together, *await ctx.branches(branch, branch)]

    async with durable(kit, body) as host:
        await start(host)
        expect_equal(
            await value_of(host), ["a", "b", "1", "2", "in a branch", "in a branch"], "the values in the code's order"
        )
    expect_equal((await keys(kit, "step."))[:4], ["note", "mine", "quick", "slow"], "the keys in the journal")
    expect_equal(
        sorted((await keys(kit, "step."))[4:]), ["branches[0]/note", "branches[1]/note"], "the keys of the branches"
    )


@case("G.2b", "an explicit key used twice, a coroutine given to gather, and a task around a step are refused")
async def misuse(kit: Kit) -> None:
    bodies = Bodies()

    async def duplicate(ctx: ProcessContext) -> None:
        await ctx.step(bodies.note, "a", key="k")
        await ctx.step(bodies.note, "b", key="k")

    async def coroutine(ctx: ProcessContext) -> None:
        await ctx.gather(bodies.note("a"))  # type: ignore[arg-type]  # the mistake

    async def task(ctx: ProcessContext) -> None:
        async def awaited() -> None:
            await ctx.step(bodies.note, "c")

        await asyncio.gather(awaited())  # in a task of its own

    for id, body, kind in (
        ("duplicate", duplicate, "DuplicateKey"), ("coroutine", coroutine, "MisusedOperation"),
        ("task", task, "MisusedOperation"),
    ):  # fmt: skip
        async with durable(kit, body) as host:
            await start(host, id)
            expect_equal((await error_of(host, id))[0], kind, f"the error of {id}")
    expect_equal(bodies.run, ["a"], "the bodies that were run")


@case("G.2c", "a wait that timed out stays so though its signal came later, and a decided race stays decided")
async def same_branch(kit: Kit) -> None:
    async def body(ctx: ProcessContext) -> list[Any]:
        try:
            first: Any = await ctx.wait(go, timeout=10)
        except TimeoutError:
            first = "timed out"
        won, _ = await ctx.race(ctx.sleep(0, key="at once"), ctx.wait(go, timeout=1_000))
        return [first, won, await ctx.wait(go), await ctx.wait(go)]

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
        kit.clock.advance(10)
        await host.claim_and_run_pending("the timeout")

        async def decided() -> bool:
            return bool(await keys(kit, "race.")) and (await kit.get("p")).status == "waiting"

        await kit.until(decided, "the race is decided and the next wait suspended")
        await kit.signal("p", "go", 1)
        await kit.signal("p", "go", 2)
        expect_equal(await value_of(host), ["timed out", 0, 1, 2], "what the code saw")


@case("G.2d", "times, names, chance and versions are what they were when they were first reached")
async def recorded_values(kit: Kit) -> None:
    seen: list[list[Any]] = []

    async def body(ctx: ProcessContext) -> None:
        values = [await ctx.now(), await ctx.uuid(), await ctx.random(), await ctx.version("change")]
        seen.append([str(value) for value in values])
        await ctx.wait(go)

    async with durable(kit, body) as host:
        await start(host)
        await has_status(kit, "waiting")
        kit.clock.advance(1_000)
        await kit.signal("p", "go", 1)
        await value_of(host)
    expect_equal(len(seen), 2, "the runs of the code")
    expect_equal(seen[0], seen[1], "the values in both runs")


async def _edited(kit: Kit, before: Body, after: Body) -> None:
    """A process that is suspended with one code, to go on with another."""
    async with durable(kit, before) as host:
        await start(host)
        await has_status(kit, "waiting")
    await kit.signal("p", "go", 1)


@case("G.3a", "a finished step that is asked for with other arguments is refused, showing both")
async def other_arguments(kit: Kit) -> None:
    bodies = Bodies()

    async def before(ctx: ProcessContext) -> None:
        await ctx.step(bodies.note, "old")
        await ctx.wait(go)

    async def after(ctx: ProcessContext) -> None:
        await ctx.step(bodies.note, "new")

    await _edited(kit, before, after)
    async with durable(kit, after) as host:
        kind, message = await error_of(host)
    expect_equal(kind, "ReplayMismatch", "the error")
    expect('["old"]' in message and '["new"]' in message, f"both calls are shown, found {message!r}")


@case("G.3b", "steps that are inserted, removed and reordered leave the results of the others")
async def edits(kit: Kit) -> None:
    bodies = Bodies()

    async def before(ctx: ProcessContext) -> None:
        for key in ("a", "b", "c"):
            await ctx.step(bodies.note, key, key=key)
        await ctx.wait(go)

    async def after(ctx: ProcessContext) -> list[str]:
        found = [await ctx.step(bodies.note, key, key=key) for key in ("c", "new", "a")]
        await ctx.wait(go)
        return found

    await _edited(kit, before, after)
    async with durable(kit, after) as host:
        expect_equal(await value_of(host), ["c", "new", "a"], "the result")
    expect_equal(bodies.run, ["a", "b", "c", "new"], "the bodies that were run")


CASES = (
    finished_steps, failed_steps, keys_of_steps, misuse, same_branch, recorded_values, other_arguments, edits,
)  # fmt: skip
