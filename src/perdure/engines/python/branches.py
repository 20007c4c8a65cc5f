"""Several durable operations at once, in tasks that the context knows of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Literal

from perdure.contract.ports import Suspended
from perdure.engines.python.log_effects import LogEffects
from perdure.engines.python.operations import Operation, TaskGuard
from perdure.engines.python.strands import Strand, enter_branch
from perdure.engines.python.support import Support


async def gather(
    key: str, operations: tuple[Operation[Any], ...], effects: LogEffects, guard: TaskGuard, support: Support
) -> list[Any]:
    return await run_branches(key, [operation.run() for operation in operations], effects, guard, support)


async def run_branches(
    key: str, work: Sequence[Coroutine[Any, Any, Any]], effects: LogEffects, guard: TaskGuard, support: Support
) -> list[Any]:
    """Run all to their end; their values, or the first failure in order. If the code is interrupted, so are they."""
    if not work:
        return []
    branches = Branches(key, work, effects, guard, support, code_goes_on_after="all")
    await branches.wait(asyncio.ALL_COMPLETED)
    await branches.check_cancelled()
    return [task.result() for task in branches.tasks]


async def race(
    key: str, operations: tuple[Operation[Any], ...], effects: LogEffects, guard: TaskGuard, support: Support
) -> tuple[int, Any]:
    """Run until one has ended. On replay only the recorded winner is run: what it gave is in the journal."""
    if not operations:
        raise ValueError("a race needs at least one operation")
    decided = effects.decided_race(key)
    if decided is not None:
        return decided, await operations[decided].run()
    work = [operation.run() for operation in operations]
    branches = Branches(key, work, effects, guard, support, code_goes_on_after="first")
    done = await branches.wait(asyncio.FIRST_COMPLETED)
    await branches.check_cancelled()
    winner = next(index for index, task in enumerate(branches.tasks) if task in done)
    losers = tuple(operation.key for index, operation in enumerate(operations) if index != winner)
    try:
        await effects.decide_race(key, winner, losers)
    finally:
        await branches.end()
        effects.give_back_signals(losers)
    return winner, branches.tasks[winner].result()


class Branches:
    """Tasks that run beside each other while the code waits for all of them, or for the first."""

    def __init__(
        self,
        key: str,
        work: Sequence[Coroutine[Any, Any, Any]],
        effects: LogEffects,
        guard: TaskGuard,
        support: Support,
        code_goes_on_after: Literal["first", "all"],
    ) -> None:
        self._key, self._effects, self._lot = key, effects, effects.lot
        self._after = code_goes_on_after
        self._code = effects.strand
        self._strands = [self._code.branch(index) for index in range(len(work))]
        self._left = len(work)
        self._was_cancelled = self._code.cancelled
        self._lot.branch_out(len(work))
        self.tasks: list[asyncio.Task[Any]] = []
        for index, (coroutine, strand) in enumerate(zip(work, self._strands, strict=True)):
            task = support.spawn(self._run(coroutine, strand), f"perdure-branch-{index}")
            guard.admit(task)
            self.tasks.append(task)

    async def _run(self, coroutine: Coroutine[Any, Any, Any], strand: Strand) -> Any:
        enter_branch(strand)
        try:
            return await coroutine
        except Suspended:
            return _SUSPENDED  # a task that ends by a BaseException would bring the loop down
        finally:
            first, self._left = self._left == len(self._strands), self._left - 1
            self._lot.branch_ended(code_goes_on=first if self._after == "first" else self._left == 0)

    async def wait(self, until: str) -> set[asyncio.Task[Any]]:
        """Wait for all, or the first. Raises Suspended if the process was suspended meanwhile."""
        before, self._code.operation = self._code.operation, self._key
        try:
            if self._effects.was_cancelled_at(self._key):
                until = asyncio.ALL_COMPLETED  # they end where the journal says they were told
            done, _ = await asyncio.wait(self.tasks, return_when=until)
        except asyncio.CancelledError:
            await self._interrupted()
            raise
        finally:
            self._code.operation = before
        if any(_is_suspended(task) for task in self.tasks):
            await asyncio.wait(self.tasks)
            self._note_failures()
            raise Suspended
        return done

    async def _interrupted(self) -> None:
        try:
            if self._was_cancelled or not self._effects.is_being_cancelled:
                await self.end()
                return
            for task, strand in zip(self.tasks, self._strands, strict=True):
                self._effects.interrupt(strand, task)
            await self._effects.record_cancel(self._key)
            await asyncio.wait(self.tasks)
        except asyncio.CancelledError:  # told twice: the bound for ending has passed
            self._cancel()
            raise
        finally:
            self._note_failures()

    async def check_cancelled(self) -> None:
        """If the process's cancellation has reached a branch, it was the code around that was told: so it is now."""
        told = any(strand.cancelled for strand in self._strands) or self._effects.was_cancelled_at(self._key)
        if self._was_cancelled or not told:
            return
        for task, strand in zip(self.tasks, self._strands, strict=True):
            self._effects.interrupt(strand, task)
        await asyncio.wait(self.tasks)
        self._note_failures()
        await self._effects.record_cancel(self._key)
        self._code.cancelled = True
        raise asyncio.CancelledError

    async def end(self) -> None:
        """Cancel those that are left, and wait until they have ended."""
        self._cancel()
        await asyncio.wait(self.tasks)
        self._note_failures()

    def _cancel(self) -> None:
        for task, strand in zip(self.tasks, self._strands, strict=True):
            if strand.begun:  # cancelled unbegun, its coroutine would never run: it ends by itself at once
                task.cancel()

    def _note_failures(self) -> None:
        """The code is told something else instead."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()


_SUSPENDED = object()


def _is_suspended(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result() is _SUSPENDED
