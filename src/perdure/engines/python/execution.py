"""One execution of a process's code: its effects and its guard, made when the first operation needs them.

A process that does nothing durable inside pays for nothing but its context.
"""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.contract.ports import Run, Suspended
from perdure.engines.python.journal import Journal
from perdure.engines.python.log_effects import LogEffects
from perdure.engines.python.operations import TaskGuard
from perdure.engines.python.speaking import Speaking
from perdure.engines.python.strands import Strand, current_strand
from perdure.engines.python.support import Support
from perdure.errors import MisusedOperation


class Execution(Speaking):
    """`journal` is None at a first start: then nothing has been recorded yet. `told`: the code has seen by itself that
    it is to stop, in a thread or by asking."""

    __slots__ = (
        "_effects", "_guard", "_is_async", "_strand", "awaited_children", "journal", "run", "support", "task", "told",
    )  # fmt: skip

    def __init__(
        self, run: Run, support: Support, journal: Journal | None, task: asyncio.Task[Any], is_async: bool
    ) -> None:
        super().__init__()
        self.run, self.support, self.journal, self.task, self._is_async = run, support, journal, task, is_async
        self._strand = Strand()
        self.awaited_children: list[str] = []
        self.told = False
        self._effects: LogEffects | None = None
        self._guard: TaskGuard | None = None
        if journal is not None or not is_async:
            self.effects  # noqa: B018 - made at once: what is replayed decides where the code is told to stop

    @property
    def effects(self) -> LogEffects:
        if self._effects is None:
            journal = self.journal or Journal()
            self._effects = LogEffects(self.run, journal, self.support, self._strand, self.task, self._is_async)
            first_start = self.journal is None  # nothing is put off then: it was interrupted where it was
            self._effects.begin(told=first_start and self.run.asked_to_end)
        return self._effects

    @property
    def guard(self) -> TaskGuard:
        if self._guard is None:
            self._guard = TaskGuard(self.task)
        return self._guard

    @property
    def current_step(self) -> str | None:
        """The key of the step that this code belongs to, in whatever thread."""
        return current_strand(self._strand).step

    def check_outside_steps(self) -> None:
        """Refuse what a step's own code must not do: once the step is finished it would not be done again."""
        step = self.current_step
        if step is not None:
            raise MisusedOperation(
                f"a durable operation is made inside step {step!r}: once that is finished it would not be made again, "
                "and those after it would get other keys. Do it in the process's own code.",
                key=step,
            )

    @property
    def is_cancelled_here(self) -> bool:
        """Whether code that asks by itself is to be told that it is cancelled."""
        return self.effects.told_here() if self.run.cancel_reason is not None else False

    @property
    def end(self) -> BaseException | None:
        """What has ended this run, whatever its code made of it: it was suspended, or lost its store or its lease."""
        if self._effects is None:
            return None
        return Suspended() if self._effects.lot.suspended else self._effects.broken

    async def end_code(self) -> None:
        """The code has returned, or raised: from here on nothing interrupts this task, which writes its end next. Notes
        if the code has not seen that it was asked to stop."""
        if self._effects is not None:
            self._effects.end_code()
        if self.run.cancel_reason is not None and (await self._came_too_late() or not self._was_told):
            self.run.note_unheard()

    async def _came_too_late(self) -> bool:
        """Take the interruption that the code would have seen at its next await; whether there was one."""
        if not self._is_async or not self.task.cancelling():
            return False
        turned = asyncio.Event()
        asyncio.get_running_loop().call_soon(turned.set)
        try:
            await turned.wait()
        except asyncio.CancelledError:
            return True
        return False

    @property
    def _was_told(self) -> bool:
        """Whether the code has seen that it is to stop: at an operation, by asking, or by an interruption."""
        return self.told or self._strand.cancelled or (self._is_async and self.task.cancelling() > 0)

    async def wait_for_children(self) -> None:
        """Wait for the children that this process may not end before."""
        for child_id in self.awaited_children:
            await self.effects.await_child(f"end:{child_id}", child_id)
