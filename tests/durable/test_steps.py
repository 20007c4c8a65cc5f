"""Steps that fail: retries, timeouts, results that can't be kept, and failures that are none of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Retry
from perdure.testing.faults import FailBefore
from tests.durable.bodies import double, error, keys, one, run, value
from tests.durable.simulated import Machine, simulate


def failing(times: int, with_error: Exception) -> tuple[Callable[[], Awaitable[int]], list[int]]:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(len(tries) + 1)
        if len(tries) <= times:
            raise with_error
        return len(tries)

    return flaky, tries


def test_a_step_with_a_retry_policy_is_tried_again_until_it_succeeds() -> None:
    flaky, _tries = failing(2, ValueError("not yet"))

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

    outcome, _machine = run(body)
    assert error(outcome) == ("StepFailed", "step 'flaky' failed: ValueError: no")
    assert tries == [1, 2]


def test_each_try_of_a_step_is_bounded_by_its_timeout() -> None:
    async def endless() -> None:
        await asyncio.sleep(1_000)

    async def body(ctx: ProcessContext) -> Any:
        return await ctx.step(endless, timeout=2, retry=Retry(max_attempts=2, jitter=0.0))

    outcome, _machine = run(body)
    assert error(outcome)[1].startswith("step 'endless' failed: TimeoutError")


def test_a_step_that_fails_in_two_attempts_of_its_process_fails_as_itself_both_times() -> None:
    flaky, _tries = failing(2, ValueError("no"))

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
