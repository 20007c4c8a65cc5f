"""Durable operations: their keys, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.engines.python.context import ProcessContext
from perdure.host import Host
from tests.durable.bodies import double, error, keys, run, value
from tests.durable.simulated import Machine, simulate

# --- keys ------------------------------------------------------------------------------------------------------


def test_a_name_used_again_is_numbered_and_an_explicit_key_stands_for_itself() -> None:
    async def body(ctx: ProcessContext) -> list[int]:
        return [await ctx.step(double, 1), await ctx.step(double, 2), await ctx.step(double, 3, key="third")]

    outcome, machine = run(body)
    assert value(outcome) == [2, 4, 6]
    assert keys(machine) == ["double", "double#2", "third"]


def test_operations_in_branches_have_the_keys_of_their_branch_whatever_ends_first() -> None:
    async def slow(ctx: ProcessContext) -> int:
        await ctx.sleep(5)
        return await ctx.step(double, 1) + await ctx.step(double, 2)

    async def quick(ctx: ProcessContext) -> int:
        return await ctx.step(double, 3)

    async def body(ctx: ProcessContext) -> list[int]:
        return await ctx.branches(slow, quick)

    outcome, machine = run(body)
    assert value(outcome) == [6, 6]
    assert keys(machine) == ["branches[1]/double", "branches[0]/double", "branches[0]/double#2"]


def test_gathered_steps_have_the_keys_of_the_order_in_which_they_were_made() -> None:
    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def body(ctx: ProcessContext) -> list[float]:
        return await ctx.gather(ctx.step(after, 3.0), ctx.step(after, 1.0), ctx.step(after, 2.0))

    outcome, machine = run(body)
    assert value(outcome) == [3.0, 1.0, 2.0]
    assert keys(machine) == ["after#2", "after#3", "after"]


def test_an_explicit_key_used_twice_is_an_error_at_once() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.step(double, 1, key="k")
        await ctx.step(double, 2, key="k")

    outcome, machine = run(body)
    assert error(outcome)[0] == "DuplicateKey"
    assert keys(machine) == ["k"]


@pytest.mark.parametrize("explicit_first", [True, False])
def test_an_explicit_key_that_is_also_the_name_of_a_step_is_an_error_at_once(explicit_first: bool) -> None:
    async def body(ctx: ProcessContext) -> list[int]:
        first = await (ctx.step(double, 1, key="double") if explicit_first else ctx.step(double, 1))
        second = await (ctx.step(double, 1) if explicit_first else ctx.step(double, 1, key="double"))
        return [first, second]

    outcome, _machine = run(body)
    assert error(outcome)[0] == "DuplicateKey"


def test_a_key_that_is_too_long_to_be_stored_is_refused_by_name() -> None:
    async def body(ctx: ProcessContext) -> None:
        await ctx.step(double, 1, key="x" * 351)

    outcome, _ = run(body)
    assert error(outcome)[0] == "InvalidOption"
    assert "at most 350 characters" in error(outcome)[1]


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", ["gather", "race"])
def test_coroutines_given_to_gather_and_race_are_refused_with_the_fix(together: str) -> None:
    async def body(ctx: ProcessContext) -> None:
        await getattr(ctx, together)(double(1), double(2))

    outcome, _ = run(body)
    kind, message = error(outcome)
    assert kind == "MisusedOperation"
    assert f"ctx.{together} takes durable operations, not coroutine. Give it ctx.step(function, …)" in message


def test_a_task_of_ones_own_around_an_operation_is_refused_with_the_fix() -> None:
    async def awaited(operation: Any) -> Any:
        return await operation

    async def body(ctx: ProcessContext) -> Any:
        return await asyncio.create_task(awaited(ctx.step(double, 1)))

    outcome, machine = run(body)
    assert error(outcome)[0] == "MisusedOperation"
    assert "Use ctx.gather, ctx.race or ctx.branches" in error(outcome)[1]
    assert keys(machine) == []


def test_an_operation_awaited_twice_is_refused() -> None:
    async def body(ctx: ProcessContext) -> None:
        operation = ctx.step(double, 1)
        await operation
        await operation

    assert error(run(body)[0]) == (
        "MisusedOperation", "operation 'double' is awaited twice. Keep its value, or make a new operation.",
    )  # fmt: skip


def test_a_durable_operation_inside_a_step_is_refused() -> None:
    async def body(ctx: ProcessContext) -> Any:
        async def outer() -> int:
            return await ctx.step(double, 1)

        return await ctx.step(outer)

    outcome, _machine = run(body)
    assert error(outcome)[0] == "StepFailed"
    assert "a durable operation is made inside step 'outer'" in error(outcome)[1]


def test_a_process_that_is_started_inside_a_step_is_no_part_of_that_step() -> None:
    async def main() -> Any:
        machine = Machine(lambda host: None)

        def define(host: Host) -> None:
            @host.process(recovery="rerunnable")
            async def other(ctx: ProcessContext) -> int:
                return await ctx.step(double, 4)

            @host.process(recovery="rerunnable", name="work")
            async def work(ctx: ProcessContext) -> int:
                async def starts_and_waits() -> int:
                    return await (await host.start(other, id="other")).result()

                (result,) = await ctx.gather(ctx.step(starts_and_waits))
                return int(result)

        machine.define = define
        async with machine.host() as host:
            await host.start(host.find_process("work"), id="p")
            return await machine.ended("p")

    assert value(simulate(main)) == 8
