"""The runner: runs claimed processes under their leases and writes what became of each."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence

from perdure.clock import Clock
from perdure.contract.moments import Moments
from perdure.contract.ports import Engine, Suspended, WorkerFault
from perdure.contract.registry import Registry
from perdure.errors import (
    InfrastructureFailure,
    LeaseSuperseded,
    PerdureError,
    Refused,
    StoreClosed,
    StoreError,
    UnknownDefinition,
)
from perdure.ids import Ids
from perdure.model.leases import Owner
from perdure.model.outcomes import Completed
from perdure.model.registration import Definition
from perdure.runtime.ends import after_drain, after_error, after_stop, completed_with, given_back, never_entered
from perdure.runtime.keeper import LeaseKeeper
from perdure.runtime.options import WorkerOptions
from perdure.runtime.passes import serve_end
from perdure.runtime.permits import HeldPermit, Permits, enter_process
from perdure.runtime.run import ActiveRun, Stop
from perdure.runtime.spawner import Spawner
from perdure.transitions.commands import Claimed, Receipt, RowCommand

NOT_ENTERED_HOLD_MS = 30_000
BUSY_HOLD_MS = 1_000
WRITE_BACKOFF_S, WRITE_BACKOFF_CAP_S = 0.01, 1.0
LONGEST_HOLD_MS = 60_000


class Runner:
    """Holds the runs of one worker, from the claim of each to the write of its end.

    A run holds a permit until its code has returned. `on_room` is called when another claim might fit; `commit` writes
    the end of a run (by default the registry does, which leaves out what was noted of its progress).
    """

    def __init__(
        self,
        registry: Registry,
        engines: Sequence[Engine],
        owner: Owner,
        options: WorkerOptions,
        clock: Clock,
        ids: Ids,
        spawner: Spawner,
        report: Callable[[WorkerFault], None],
        moments: Moments,
        on_room: Callable[[], None],
        commit: Callable[[RowCommand], Awaitable[Receipt]] | None,
    ) -> None:
        self._registry, self._engines, self._owner, self._options = registry, tuple(engines), owner, options
        self._clock, self._ids, self._spawner = clock, ids, spawner
        self._report, self._moments, self._on_room = report, moments, on_room
        self._commit = commit or registry.execute
        self.permits = Permits(options.concurrency, on_room)
        self.runs: dict[str, ActiveRun] = {}
        self.keeper = LeaseKeeper(registry, options, clock, spawner, report, self._stop, moments, self.runs)
        self._ending = 0
        self._backoffs: dict[str, int] = {}

    @property
    def room(self) -> int:
        """How many may be claimed: the free permits, or none while more ends than permits wait to be written."""
        return self.permits.free if self._ending <= self._options.concurrency else 0

    def begin(self, claimed: Claimed, sent_boot_ms: int) -> bool:
        """Run what was claimed under a permit that the caller took. `sent_boot_ms`: when the claim was sent.

        False if an earlier run of the same process is still cleaning up here: the new start is withdrawn. A run that
        was suspended only has its code to unwind: it is waited for.
        """
        local_deadline_ms = sent_boot_ms + self._options.lease_ttl_ms - self._options.local_margin_ms
        run = ActiveRun(claimed.record, claimed.lease, local_deadline_ms, HeldPermit(self.permits))
        earlier = self.runs.get(run.process_id)
        if earlier is not None and not earlier.suspended:
            end = never_entered(run, "an earlier run is still cleaning up in this worker", BUSY_HOLD_MS)
            self._spawner.spawn(self._write_end(run, end), f"perdure-busy:{run.process_id}")
            return False
        self.runs[run.process_id] = run
        unwinding = None if earlier is None else earlier.task
        run.task = self._spawner.spawn_kept(self._run_one(run, unwinding), run.process_id)
        return True

    def cancel(self, process_id: str, reason: str, by: str | None) -> None:
        """Tell a run at once that its cancellation was requested."""
        run = self.runs.get(process_id)
        if run is not None:
            self._stop(run, Stop("cancel_requested", reason, by))

    # --- one run ----------------------------------------------------------------------------------------------

    async def _run_one(self, run: ActiveRun, unwinding: asyncio.Task[object] | None = None) -> None:
        """Run one claimed process and record what became of it under the lease that was granted."""
        try:
            if unwinding is not None:
                await asyncio.wait({unwinding})
            await self._write_end(run, await self._execute(run))
        except Exception as error:  # a bug of ours: the row stays live and its lease lapses, but never silently
            story = "".join(traceback.format_exception(error))
            self._report(WorkerFault("dispatcher", "a run ended by a bug", run.process_id, story))
        finally:
            self._forget(run)

    async def _execute(self, run: ActiveRun) -> RowCommand | None:
        """Run the code; the command that tells the registry how it ended, or None if there is nothing to tell."""
        registration = run.record.registration
        if run.stop is not None and (run.record.state.last_sequence == 1 or not run.asked_to_end):
            return after_stop(run, self._owner, self._registry.now())  # told before its first step: never entered
        try:
            work = self._engine_of(registration.definition).prepare(run)
        except Exception as error:
            self._report(WorkerFault("decode", "a process could not be entered", run.process_id, str(error)))
            return never_entered(run, str(error), NOT_ENTERED_HOLD_MS)
        if self._clock.now().boot_ms >= run.local_deadline_ms:
            work.close()
            return never_entered(run, "the lease's local deadline passed before entry", 0)
        if run.stop is not None and run.interrupt_now is None:  # nobody else would tell the code
            work.close()
            return after_stop(run, self._owner, self._registry.now())
        enter_process(run.permit)
        run.entered = True
        if run.record.state.cancel_request is not None or registration.deadline_ms is not None:
            self._arm(run)
        self._moments.reached("run.entered", run.process_id)
        try:
            value = await work
        except asyncio.CancelledError as cancelled:
            if run.stop is not None:
                return after_stop(run, self._owner, self._registry.now())
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop is going down, not the process
            return self._failed(run, cancelled)  # the code raised it by itself
        except (InfrastructureFailure, StoreError) as error:
            if run.stop is not None and run.stop.kind in ("lease_lost", "drain"):
                return after_stop(run, self._owner, self._registry.now())
            return self._given_back_after(run, error)
        except Exception as error:
            return self._failed(run, error)
        except Suspended:
            return None
        self._backoffs.pop(run.process_id, None)
        if run.stop is not None:
            if run.stop.kind == "lease_lost":
                return None
            self._report_swallowed(run, "returned a value")
        return completed_with(run, Completed(value))

    def _engine_of(self, definition: Definition) -> Engine:
        for engine in self._engines:
            if definition in engine.definitions:
                return engine
        raise UnknownDefinition(str(definition), [str(d) for engine in self._engines for d in engine.definitions])

    def _report_swallowed(self, run: ActiveRun, did: str) -> None:
        """Told to stop, the code made something else of it. What it made of it stands, but somebody must hear of it;
        once: what was cut off was reported then."""
        if run.stop is not None and run.heard and not run.detached:
            said = f"the code {did} after it was told to stop: {run.stop.told}"
            self._report(WorkerFault("swallowed_cancel", said, run.process_id))

    def _failed(self, run: ActiveRun, error: BaseException) -> RowCommand | None:
        if run.asked_to_end:
            self._report_swallowed(run, f"raised {type(error).__name__}")
        return after_error(run, error, self._owner, self._registry.now(), self._ids.fraction())

    def _given_back_after(self, run: ActiveRun, error: Exception) -> RowCommand:
        """The work itself has not failed: the row stays live and is tried again, later each time."""
        count = self._backoffs[run.process_id] = self._backoffs.get(run.process_id, 0) + 1
        self._report(WorkerFault("infrastructure", "a run was given back", run.process_id, str(error)))
        return given_back(run, min(LONGEST_HOLD_MS, self._options.infrastructure_backoff_ms * 2 ** min(count - 1, 10)))

    def _arm(self, run: ActiveRun) -> None:
        """Tell the code what it was to be told: a cancel request that stands at once, a deadline when it comes."""
        loop, request, deadline_at_ms = (
            asyncio.get_running_loop(),
            run.record.state.cancel_request,
            run.record.deadline_at_ms,
        )
        if request is not None and run.interrupt_now is not None:  # the engine says when the code is told
            self._stop(run, Stop("cancel_requested", request.reason, request.by))
        elif request is not None:
            loop.call_soon(self._stop, run, Stop("cancel_requested", request.reason, request.by))
        if deadline_at_ms is not None:
            left_s = max(0, deadline_at_ms - self._registry.now().wall_ms) / 1000
            run.deadline = loop.call_later(
                left_s, self._stop, run, Stop("deadline", "its declared deadline has passed")
            )

    # --- stopping ---------------------------------------------------------------------------------------------

    def _stop(self, run: ActiveRun, stop: Stop) -> None:
        """Tell a run to stop, and see to it that it does. Called by the keeper (on the loop), timers and hosts."""
        if self.runs.get(run.process_id) is not run or not run.tell(stop):
            return
        if stop.kind == "lease_lost":
            self._report(WorkerFault("lease_lost", f"the run was stopped: {stop.reason}", run.process_id))
        asyncio.get_running_loop().call_later(self._options.cancel_grace_ms / 1000, self._cut_off, run)

    def _cut_off(self, run: ActiveRun) -> None:
        """The clean-up took longer than its bound: the run is let go of, and what it still writes is refused."""
        if self.runs.get(run.process_id) is not run or run.stop is None or run.ending:
            return
        said = f"the code has not ended {self._options.cancel_grace_ms} ms after it was told to stop: {run.stop.told}"
        self._report(WorkerFault("swallowed_cancel", said, run.process_id))
        end = after_stop(run, self._owner, self._registry.now())
        self._detach(run)
        if run.task is not None:
            run.task.cancel(run.stop.reason)
        self._spawner.spawn(self._write_end(run, end), f"perdure-cut-off:{run.process_id}")

    def _detach(self, run: ActiveRun) -> None:
        run.detach()
        self._forget(run)

    def _forget(self, run: ActiveRun) -> None:
        if run.deadline is not None:
            run.deadline.cancel()
        run.permit.release()
        if self.runs.get(run.process_id) is run:
            del self.runs[run.process_id]

    async def drain(self, grace_ms: int) -> dict[str, ActiveRun]:
        """Give the runs a grace, then tell them to stop, then let go of what doesn't; the runs there were, by id."""
        runs = dict(self.runs)
        if grace_ms:
            await self._ended_within(grace_ms)
        for run in tuple(self.runs.values()):
            run.tell(Stop("drain", "the worker is stopping"))
        await self._ended_within(self._options.cancel_grace_ms)
        for run in tuple(self.runs.values()):
            if not run.ending:
                self._detach(run)
                await self._write_end(run, after_drain(run, self._owner, self._registry.now()))
        return runs

    async def _ended_within(self, milliseconds: int) -> None:
        tasks = {run.task for run in self.runs.values() if run.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=milliseconds / 1000)

    # --- writing the end --------------------------------------------------------------------------------------

    async def _write_end(self, run: ActiveRun, command: RowCommand | None) -> None:
        """Have the end written. From here on the registry decides whether it still may be."""
        self._moments.reached("run.returned", run.process_id)
        if command is None or (run.detached and run.ending):
            return
        run.ending = True
        self._ending += 1
        run.permit.release()  # the code has returned: what is left to do is the store's
        try:
            await self._write(run, command)
        finally:
            self._ending -= 1
            self._on_room()

    async def _write(self, run: ActiveRun, command: RowCommand) -> None:
        """A store that fails is asked again until the lease's local deadline."""
        backoff_s = WRITE_BACKOFF_S
        while True:
            try:
                receipt = await self._commit(command)
                break
            except LeaseSuperseded as superseded:
                return self._report(WorkerFault("lease_lost", str(superseded), run.process_id))
            except Refused as refused:
                return self._report(WorkerFault("dispatcher", "an end was refused", run.process_id, str(refused)))
            except StoreClosed:
                return None
            except PerdureError as error:
                if self._clock.now().boot_ms >= run.local_deadline_ms:
                    lost = "an end could not be written before the lease's local deadline"
                    return self._report(WorkerFault("infrastructure", lost, run.process_id, str(error)))
                if backoff_s == WRITE_BACKOFF_S:
                    again = "an end could not be written; it is tried again"
                    self._report(WorkerFault("infrastructure", again, run.process_id, str(error)))
            await self._clock.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, WRITE_BACKOFF_CAP_S)
        run.record = receipt.record
        self._moments.reached("end.committed", run.process_id)
        if receipt.record.state.settle_due_at_ms is not None:
            await self._serve_end(receipt)
        return None

    async def _serve_end(self, receipt: Receipt) -> None:
        try:
            await serve_end(self._registry, receipt.record)
        except PerdureError as error:  # it is marked in the row: a pass will serve it
            what = "what follows from an end could not be served yet"
            self._report(WorkerFault("infrastructure", what, receipt.process_id, str(error)))
