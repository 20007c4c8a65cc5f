"""Several durable operations at once, in tasks that the context knows of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from perdure.contract.ports import Suspended
from perdure.engines.python.log_effects import LogEffects
from perdure.engines.python.operations import Operation, TaskGuard, check_operations
from perdure.engines.python.parking import ParkingLot
from perdure.engines.python.support import Support


async def gather(
    operations: tuple[Operation[Any], ...], lot: ParkingLot, guard: TaskGuard, support: Support
) -> list[Any]:
    check_operations(operations, "gather")
    return await run_branches([operation.run() for operation in operations], lot, guard, support)


async def run_branches(
    work: Sequence[Coroutine[Any, Any, Any]], lot: ParkingLot, guard: TaskGuard, support: Support
) -> list[Any]:
    """Run all to their end; their values, or the first failure in order. If the code is interrupted, so are they."""
    if not work:
        return []
    tasks = _begin(work, lot, guard, support)
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        await _cancel(tasks)
        raise
    return [_result(task) for task in _suspended_first(tasks)]


async def race(
    key: str, operations: tuple[Operation[Any], ...], effects: LogEffects, guard: TaskGuard, support: Support
) -> tuple[int, Any]:
    """Run until one has ended. On replay only the recorded winner is run: what it gave is in the journal."""
    check_operations(operations, "race")
    if not operations:
        raise ValueError("a race needs at least one operation")
    decided = effects.decided_race(key)
    if decided is not None:
        return decided, await operations[decided].run()
    tasks = _begin([operation.run() for operation in operations], effects.lot, guard, support)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(index for index, task in enumerate(tasks) if task in done)
        if _is_suspended(tasks[winner]):
            await asyncio.wait(tasks)
            raise Suspended
        losers = tuple(operation.key for index, operation in enumerate(operations) if index != winner)
        await effects.decide_race(key, winner, losers)
    finally:
        await _cancel(tasks)
    return winner, _result(tasks[winner])


def _begin(
    work: Sequence[Coroutine[Any, Any, Any]], lot: ParkingLot, guard: TaskGuard, support: Support
) -> list[asyncio.Task[Any]]:
    lot.branch_out(len(work))
    left = len(work)

    async def branch(coroutine: Coroutine[Any, Any, Any]) -> Any:
        nonlocal left
        try:
            return await coroutine
        except Suspended:
            return _SUSPENDED  # a task that ends by a BaseException would bring the loop down
        finally:
            left -= 1
            lot.branch_ended(last=left == 0)

    tasks = []
    for index, coroutine in enumerate(work):
        task = support.spawn(branch(coroutine), f"perdure-branch-{index}")
        guard.admit(task)
        tasks.append(task)
    return tasks


_SUSPENDED = object()


def _is_suspended(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result() is _SUSPENDED


def _suspended_first(tasks: Sequence[asyncio.Task[Any]]) -> Sequence[asyncio.Task[Any]]:
    if any(_is_suspended(task) for task in tasks):
        for task in tasks:
            if not task.cancelled():
                task.exception()  # taken note of: the code is unwound, and resumes by replay
        raise Suspended
    return tasks


def _result(task: asyncio.Task[Any]) -> Any:
    return task.result()


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
