"""Code that is edited between two runs of a process: what keeps its result, and what is noticed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from tests.durable.bodies import error, one, value
from tests.durable.simulated import Machine, simulate

go = Signal("go", int)
Body = Callable[[ProcessContext], Awaitable[Any]]

done: list[str] = []


async def note(what: str) -> str:
    done.append(what)
    return what


async def a() -> str:
    return await note("a")


async def b() -> str:
    return await note("b")


async def c() -> str:
    return await note("c")


def edited(before: Body, after: Body) -> Any:
    """The outcome of a process that is suspended in a wait of `before`, and goes on with the code of `after`."""

    async def main() -> Any:
        done.clear()
        machine = Machine(one(before), parking=0.1)
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            await machine.until(lambda: machine.status("p") == "waiting")
        machine.define = one(after)
        async with machine.host() as host:
            await host.get_handle("p").signal(go, 1)
            return await machine.ended("p")

    return simulate(main)


async def a_then_b(ctx: ProcessContext) -> list[str]:
    found = [await ctx.step(a), await ctx.step(b)]
    await ctx.wait(go)
    return found


def test_a_step_inserted_before_finished_ones_runs_and_they_keep_their_results() -> None:
    async def after(ctx: ProcessContext) -> list[str]:
        found = [await ctx.step(c), await ctx.step(a), await ctx.step(b)]
        await ctx.wait(go)
        return found

    assert value(edited(a_then_b, after)) == ["c", "a", "b"]
    assert done == ["a", "b", "c"]


def test_a_finished_step_that_is_removed_leaves_the_others_their_results() -> None:
    async def after(ctx: ProcessContext) -> list[str]:
        found = [await ctx.step(b)]
        await ctx.wait(go)
        return found

    assert value(edited(a_then_b, after)) == ["b"]
    assert done == ["a", "b"]


def test_finished_steps_in_another_order_keep_their_results() -> None:
    async def after(ctx: ProcessContext) -> list[str]:
        found = [await ctx.step(b), await ctx.step(a)]
        await ctx.wait(go)
        return found

    assert value(edited(a_then_b, after)) == ["b", "a"]
    assert done == ["a", "b"]


def noting(*calls: tuple[str, str | None]) -> Body:
    """Notes these, under these keys, and waits."""

    async def body(ctx: ProcessContext) -> list[str]:
        found = [await (ctx.step(note, what) if key is None else ctx.step(note, what, key=key)) for what, key in calls]
        await ctx.wait(go)
        return found

    return body


def test_explicit_keys_keep_the_results_of_a_name_that_is_used_often_in_any_order() -> None:
    outcome = edited(noting(("x", "kx"), ("y", "ky")), noting(("y", "ky"), ("z", "kz"), ("x", "kx")))
    assert value(outcome) == ["y", "z", "x"]
    assert done == ["x", "y", "z"]


def test_a_changed_argument_of_a_finished_step_is_refused_showing_both_sides() -> None:
    kind, message = error(edited(noting(("x", None)), noting(("y", None))))
    assert kind == "ReplayMismatch"
    assert message.startswith('step \'note\' was run with ["x"] and is now asked for with ["y"].')
    assert done == ["x"]


def test_a_repeated_name_in_another_order_is_noticed_by_its_arguments() -> None:
    kind, _ = error(edited(noting(("x", None), ("y", None)), noting(("y", None), ("x", None))))
    assert (kind, done) == ("ReplayMismatch", ["x", "y"])


def test_a_process_that_had_passed_a_change_follows_the_old_way_and_a_new_one_the_new() -> None:
    async def after(ctx: ProcessContext) -> list[str]:
        found = [await ctx.step(a)]
        found.append(await ctx.step(b) if await ctx.version("b-to-c") == 1 else await ctx.step(c))
        await ctx.wait(go)
        return found

    assert value(edited(a_then_b, after)) == ["a", "b"]
    assert value(edited(after, after)) == ["a", "c"]


def test_a_process_that_has_not_come_to_a_change_yet_follows_the_new_way() -> None:
    async def before(ctx: ProcessContext) -> list[str]:
        await ctx.sleep(0.05)
        found = [await ctx.step(a)]
        await ctx.race(ctx.sleep(0.05, key="short"), ctx.sleep(1_000, key="long"))
        await ctx.wait(go)
        return [*found, await ctx.step(b)]

    async def after(ctx: ProcessContext) -> list[str]:
        await ctx.sleep(0.05)
        found = [await ctx.step(a)]
        await ctx.race(ctx.sleep(0.05, key="short"), ctx.sleep(1_000, key="long"))
        await ctx.wait(go)
        return [*found, await ctx.step(b) if await ctx.version("b-to-c") == 1 else await ctx.step(c)]

    assert value(edited(before, after)) == ["a", "c"]


def test_the_change_of_one_branch_is_decided_by_what_that_branch_had_passed() -> None:
    def body(first: Callable[[ProcessContext], Awaitable[str]]) -> Body:
        async def process(ctx: ProcessContext) -> list[str]:
            async def other(ctx: ProcessContext) -> str:
                await ctx.wait(go)
                return "other" if await ctx.version("other") == 1 else "other, new"

            async def branch(ctx: ProcessContext) -> str:
                return await first(ctx)

            return await ctx.branches(branch, other)

        return process

    async def old(ctx: ProcessContext) -> str:
        return await ctx.step(a)

    async def new(ctx: ProcessContext) -> str:
        return await ctx.step(a) if await ctx.version("a-to-c") == 1 else await ctx.step(c)

    assert value(edited(body(old), body(new))) == ["a", "other, new"]
