"""One execution of a process's code: its effects and its guard, made when the first operation needs them.

A process that does nothing durable inside pays for nothing but its context.
"""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.contract.ports import Run
from perdure.engines.python.journal import Journal
from perdure.engines.python.log_effects import LogEffects
from perdure.engines.python.operations import TaskGuard
from perdure.engines.python.support import Support


class Execution:
    """`journal` is None at a first start: then nothing has been recorded yet."""

    __slots__ = ("_effects", "_guard", "awaited_children", "journal", "run", "support", "task")

    def __init__(self, run: Run, support: Support, journal: Journal | None, task: asyncio.Task[Any]) -> None:
        self.run, self.support, self.journal, self.task = run, support, journal, task
        self.awaited_children: list[str] = []
        self._effects: LogEffects | None = None
        self._guard: TaskGuard | None = None
        if journal is not None:
            self.effects  # noqa: B018 - made at once: what is replayed decides where the code is told to stop

    @property
    def effects(self) -> LogEffects:
        if self._effects is None:
            self._effects = LogEffects(self.run, self.journal or Journal(), self.support)
            self.run.on_stop(self._effects.told_to_stop)
            if self.journal is not None:  # at a first start nothing is ever put off: it was interrupted where it was
                self._effects.interrupts(self.task)
        return self._effects

    @property
    def guard(self) -> TaskGuard:
        if self._guard is None:
            self._guard = TaskGuard(self.task)
        return self._guard

    @property
    def suspended(self) -> bool:
        """Whether the row was suspended, whatever the code made of it."""
        return self._effects is not None and self._effects.lot.suspended

    async def wait_for_children(self) -> None:
        """Wait for the children that this process may not end before."""
        for child_id in self.awaited_children:
            await self.effects.await_child(f"end:{child_id}", child_id)
