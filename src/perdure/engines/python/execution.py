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
    """`journal` is None at a first start: then nothing has been recorded yet."""

    __slots__ = ("_effects", "_guard", "_is_async", "_strand", "awaited_children", "journal", "run", "support", "task")

    def __init__(
        self, run: Run, support: Support, journal: Journal | None, task: asyncio.Task[Any], is_async: bool
    ) -> None:
        super().__init__()
        self.run, self.support, self.journal, self.task, self._is_async = run, support, journal, task, is_async
        self._strand = Strand()
        self.awaited_children: list[str] = []
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

    async def wait_for_children(self) -> None:
        """Wait for the children that this process may not end before."""
        for child_id in self.awaited_children:
            await self.effects.await_child(f"end:{child_id}", child_id)
