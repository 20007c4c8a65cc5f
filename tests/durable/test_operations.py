"""Durable operations: their keys, what is refused, how steps fail, and what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process, Retry
from perdure.engines.python.signals import Signal
from perdure.host import Host
from perdure.model.outcomes import Completed, Failed
from perdure.model.registration import RetryPolicy
from tests.durable.simulated import Machine, simulate

Body = Callable[[ProcessContext], Awaitable[Any]]

go = Signal("go", int)


def one(body: Body, *, retry: RetryPolicy | None = None) -> Callable[[Host], Process[None, Any]]:
    """Defines one process, `work`, with this body."""

    def define(host: Host) -> Process[None, Any]:
        @host.process(recovery="rerunnable", name="work", retry=retry, signals=[go])
        async def work(ctx: ProcessContext) -> Any:
            return await body(ctx)

        return work

    return define


async def outcome_of(machine: Machine, body: Body, retry: RetryPolicy | None = None) -> Any:
    """How a process with this body ends, under the id `p`."""
    machine.define = one(body, retry=retry)
    async with machine.host() as host:
        await host.start(host.find_process("work"), id="p")
        return await machine.ended("p")


def run(body: Body, retry: RetryPolicy | None = None) -> tuple[Any, Machine]:
    machines: list[Machine] = []

    async def main() -> Any:
        machine = Machine(lambda host: None)
        machines.append(machine)
        return await outcome_of(machine, body, retry)

    return simulate(main), machines[0]


def keys(machine: Machine, prefix: str = "step.") -> list[str]:
    return asyncio.run(machine.keys("p", prefix))


def value(outcome: Any) -> Any:
    assert isinstance(outcome, Completed), outcome
    import msgspec

    return msgspec.json.decode(outcome.value)


def error(outcome: Any) -> tuple[str, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.error.type, outcome.error.message


async def double(n: int) -> int:
    return 2 * n


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

    outcome, machine = run(body)
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

    outcome, machine = run(body)
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


# --- steps that fail -------------------------------------------------------------------------------------------


def failing(times: int, with_error: Exception) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(len(tries) + 1)
        if len(tries) <= times:
            raise with_error
        return len(tries)

    return flaky, tries


def test_a_step_with_a_retry_policy_is_tried_again_until_it_succeeds() -> None:
    flaky, tries = failing(2, ValueError("not yet"))

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(flaky, retry=Retry(max_attempts=3))

    outcome, machine = run(body)
    assert value(outcome) == 3
    ((_, entry),) = [e for e in asyncio.run(machine.log("p")) if e[0] == "step.completed"]
    assert entry["tries"] == 3


def test_a_step_whose_retries_are_used_up_has_failed_for_good() -> None:
    flaky, tries = failing(9, ValueError("no"))

    async def body(ctx: ProcessContext) -> int:
        return await ctx.step(flaky, retry=Retry(max_attempts=2))

    outcome, machine = run(body)
    assert error(outcome) == ("StepFailed", "step 'flaky' failed: ValueError: no")
    assert tries == [1, 2]


def test_each_try_of_a_step_is_bounded_by_its_timeout() -> None:
    async def endless() -> None:
        await asyncio.sleep(1_000)

    async def body(ctx: ProcessContext) -> Any:
        return await ctx.step(endless, timeout=2, retry=Retry(max_attempts=2, jitter=0.0))

    outcome, machine = run(body)
    assert error(outcome)[1].startswith("step 'endless' failed: TimeoutError")


def test_a_step_that_fails_in_two_attempts_of_its_process_fails_as_itself_both_times() -> None:
    flaky, tries = failing(2, ValueError("no"))

    async def body(ctx: ProcessContext) -> int:
        await ctx.step(double, 1)
        return await ctx.step(flaky)

    outcome, machine = run(body, Retry(max_attempts=3))
    assert value(outcome) == 3
    assert keys(machine) == ["double", "flaky", "flaky", "flaky"]


def test_a_result_that_is_too_large_is_refused_with_its_size_and_the_step_is_not_tried_again() -> None:
    tries = []

    async def large() -> str:
        tries.append(1)
        return "x" * 2_000_000

    async def body(ctx: ProcessContext) -> str:
        return await ctx.step(large, retry=Retry(max_attempts=3))

    outcome, _ = run(body)
    kind, message = error(outcome)
    assert kind == "StepFailed"
    assert "InvalidPayload" in message
    assert "1,048,576" in message or "1048576" in message
    assert tries == [1]


def test_a_failure_of_the_store_is_never_taken_for_one_of_the_code() -> None:
    from perdure.testing.faults import FailBefore

    async def main() -> Any:
        bodies = []

        async def body(ctx: ProcessContext) -> str:
            bodies.append(1)
            try:
                await ctx.step(double, 1)
            except Exception:
                return "taken for a failure of the step"
            return "done"

        machine = Machine(one(body), infrastructure_backoff_ms=10)
        registry = machine.registry(lambda verb, number: FailBefore() if (verb, number) == ("AppendEvent", 1) else None)
        async with machine.host(registry) as host:
            await host.start(host.find_process("work"), id="p")
            return await machine.ended("p"), len(bodies)

    outcome, bodies = simulate(main)
    assert (value(outcome), bodies) == ("done", 2)
