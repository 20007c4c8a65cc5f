"""The progress of this program's runs on its way to the registry: for each the last value, all of them at once, and at
most once a second."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from perdure.contract.ports import WorkerFault
from perdure.contract.registry import Registry
from perdure.errors import PerdureError, StoreClosed
from perdure.model.leases import LeaseKey
from perdure.model.progress import Progress
from perdure.runtime.spawner import Spawner
from perdure.transitions.commands import ProgressReceipt, Receipt, ReportedProgress, ReportProgress, RowCommand

WRITE_EVERY_S = 1.0
FIRST_AFTER_S = 0.1
"""So long the first value waits for its successors: code that is replayed passes quickly where it was before."""
LARGEST_REPORT = 1_000

Hint = Callable[[str, int, int], None]
"""Called with process id, attempt and fence once a value was written."""


class ProgressBook:
    """What the runs have said and the registry has not acknowledged. `note` in any thread, the rest on the loop."""

    def __init__(self, registry: Registry, spawner: Spawner, report: Callable[[WorkerFault], None], hint: Hint) -> None:
        self._registry, self._spawner = registry, spawner
        self._report, self._hint = report, hint
        self._noting = threading.Lock()
        self._noted: dict[str, ReportedProgress] = {}
        self._loop, self._home = asyncio.get_running_loop(), threading.get_ident()
        self._task: asyncio.Task[None] | None = None
        self._next_s = 0.0
        self._failing = False

    def note(self, key: LeaseKey, progress: Progress) -> None:
        """The run under this lease has come so far. Nothing of it is awaited."""
        with self._noting:
            idle, standing = not self._noted, self._noted.get(key.process_id)
            if standing is None or standing.key.fence <= key.fence:
                self._noted[key.process_id] = ReportedProgress(key, progress)
        if idle and threading.get_ident() == self._home:
            self._begin()
        elif idle:
            with suppress(RuntimeError):  # the loop was closed: nothing of this program is written any more
                self._loop.call_soon_threadsafe(self._begin)

    async def commit(self, command: RowCommand, *beside: RowCommand) -> Receipt:
        """Commit what ends a run, or parks it, together with the last that it said: once it has ended, its lease is
        gone. Raises the refusal of the command; what became of those `beside` it nobody is told."""
        last = self._noted.get(command.process_id)
        if last is None and not beside:
            receipt: Receipt = await self._registry.execute(command)
            return receipt
        report = () if last is None else (ReportProgress(reports=(last,)),)
        answers = await self._registry.execute_together((*report, command, *beside))
        if last is not None:
            self._answered((last,), answers[0])
        done = answers[len(report)]
        if isinstance(done, PerdureError):
            raise done
        assert isinstance(done, Receipt)
        return done

    async def stop(self) -> None:
        """Every run has ended and has written what it said last."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._next_s = max(self._next_s, self._loop.time() + FIRST_AFTER_S)
            self._task = self._spawner.spawn(self._write_while_noted(), "perdure-progress")

    async def _write_while_noted(self) -> None:
        while self._noted:
            wait_s = self._next_s - self._loop.time()
            if wait_s > 0:
                await self._pause(wait_s)
            self._next_s = self._loop.time() + WRITE_EVERY_S
            with self._noting:
                due = list(self._noted.values())
            for at in range(0, len(due), LARGEST_REPORT):
                await self._write(due[at : at + LARGEST_REPORT])

    async def _pause(self, seconds: float) -> None:
        """In the loop's time, as the spacing of writes is nobody's deadline."""
        over = self._loop.create_future()
        timer = self._loop.call_later(seconds, over.set_result, None)
        try:
            await over
        finally:
            timer.cancel()

    async def _write(self, reports: Sequence[ReportedProgress]) -> None:
        try:
            receipt = await self._registry.execute(ReportProgress(reports=tuple(reports)))
        except StoreClosed:
            self._forget(reports)
        except Exception as error:  # the store's: it stays noted, and is written when the store can again
            if not self._failing:
                self._failing = True
                self._report(WorkerFault("infrastructure", "progress could not be written", None, str(error)))
        else:
            self._failing = False
            self._answered(reports, receipt)

    def _answered(self, reports: Sequence[ReportedProgress], answer: object) -> None:
        if isinstance(answer, ProgressReceipt):
            self._forget(reports)
            for reported, accepted in zip(reports, answer.accepted, strict=True):
                if accepted:
                    said = reported.progress
                    self._hint(reported.key.process_id, said.attempt, said.fence)

    def _forget(self, reports: Sequence[ReportedProgress]) -> None:
        """What was written, or can't be; not what was said since."""
        with self._noting:
            for reported in reports:
                if self._noted.get(reported.key.process_id) is reported:
                    del self._noted[reported.key.process_id]
