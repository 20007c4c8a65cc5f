"""The worker: claims rows it can run, runs them under their leases, and writes what became of each."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from perdure.canonical import sanitize
from perdure.clock import Clock, SystemClock
from perdure.contract.moments import Moments, NoMoments
from perdure.contract.ports import AdmissionReport, DeferredRow, Engine, WorkerFault
from perdure.contract.registry import Registry
from perdure.errors import (
    InfrastructureFailure,
    LeaseSuperseded,
    OutcomeUnknown,
    PerdureError,
    Refused,
    StoreClosed,
    StoreError,
    UnknownDefinition,
)
from perdure.ids import Ids, SystemIds
from perdure.model.leases import DeathProof, Owner
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.registration import Definition
from perdure.runtime.keeper import LeaseKeeper
from perdure.runtime.options import WorkerOptions
from perdure.runtime.passes import serve_end, settle_due
from perdure.runtime.permits import HeldPermit, Permits, enter_process
from perdure.runtime.run import ActiveRun, Stop
from perdure.runtime.spawner import LoopSpawner, Spawner
from perdure.transitions.commands import (
    Claimed,
    ClaimNext,
    ClaimReceipt,
    Complete,
    LeaseRight,
    Receipt,
    Release,
    RowCommand,
    ScheduleRetry,
)
from perdure.transitions.projection import lane
from perdure.transitions.recovery import deadline_failure
from perdure.transitions.retries import RetryAt, decide_failure

TRACEBACK_CHARS = 16_000
MESSAGE_CHARS = 4_000
NOT_ENTERED_HOLD_MS = 30_000


class Drained(msgspec.Struct, frozen=True):
    """What became of one run when the worker stopped."""

    process_id: str
    became: Literal["finished", "released", "abandoned", "lost"]


class DurableProcessWorker:
    """Runs durable processes in this program. A run handle: a host drives it, it never polls.

    It holds as many permits as `options.concurrency` and claims only what it has permits for, and only definitions
    that its engines know. What it starts it owns until the end is written, the lease is lost, or it drains.
    """

    def __init__(
        self,
        registry: Registry,
        engines: Sequence[Engine],
        *,
        name: str = "worker",
        options: WorkerOptions | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        spawner: Spawner | None = None,
        report: Callable[[WorkerFault], None] | None = None,
        moments: Moments | None = None,
    ) -> None:
        self._registry, self._engines = registry, tuple(engines)
        self.options = options or WorkerOptions()
        self._clock, self._ids = clock or SystemClock(), ids or SystemIds()
        self._spawner = spawner or LoopSpawner()
        self._report_fault = report or log_fault
        self._moments: Moments = moments or NoMoments()
        self.owner = Owner(name, self._ids.token())
        self._permits = Permits(self.options.concurrency, self._refill)
        self._keeper = LeaseKeeper(
            registry, self.options, self._clock, self._spawner, self._report_fault, self._stopped, self._moments
        )
        self._runs: dict[str, ActiveRun] = {}
        self._backoffs: dict[str, int] = {}
        self._proofs: tuple[DeathProof, ...] = ()
        self._more = False
        self._refill_due = False
        self._ending = 0
        self._claiming: asyncio.Task[ClaimReceipt] | None = None
        self._state: Literal["new", "serving", "draining", "stopped"] = "new"

    # --- surface ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> tuple[str, ...]:
        """The processes that this worker runs now."""
        return tuple(self._runs)

    @property
    def free_permits(self) -> int:
        """What may be claimed now: the free permits, or none while more ends than permits wait to be written."""
        return self._permits.free if self._ending <= self.options.concurrency else 0

    def definitions(self) -> tuple[Definition, ...]:
        return tuple(sorted({d for engine in self._engines for d in engine.definitions}))

    def lanes(self) -> list[str]:
        return [lane(queue, definition) for queue in self.options.queues for definition in self.definitions()]

    def knows(self, definition: Definition) -> bool:
        return any(definition in engine.definitions for engine in self._engines)

    async def start(self) -> None:
        """Enrol as an owner and begin to keep leases. Driving does it if it wasn't done."""
        if self._state == "new":
            self._state = "serving"
            await self._registry.enrol(self.owner)
            self._keeper.start()

    async def prove_deaths(self) -> bool:
        """Look for owners that can be proved dead; whether there are any. The next claim takes their rows over."""
        self._proofs = await self._registry.prove_deaths()
        return bool(self._proofs)

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        await self.start()
        now = self._registry.now()
        settling = await settle_due(self._registry, self.owner, now, self._proofs)
        admitted: tuple[str, ...] = ()
        deferred: tuple[DeferredRow, ...] = ()
        ended = settling.ended
        if self._state != "serving" or self.free_permits == 0:
            self._more = self._state == "serving"
            deferred = (DeferredRow("*", "no_permit", f"{self._permits.held} of {self._permits.limit} are held"),)
        else:
            receipt = await self._claim()
            admitted = tuple(claimed.record.id for claimed in receipt.claimed)
            ended += tuple(record.id for record in receipt.ended)
        next_due_at_ms = await self._registry.next_due_at_ms(self.lanes(), self._registry.now())
        return AdmissionReport("scanned", reason, admitted, deferred, ended, next_due_at_ms)

    def claim_for_start(self) -> ClaimNext | None:
        """A claim to be committed together with a registration, if a permit is free now. Give it to `run_claimed`."""
        if self._state != "serving" or self.free_permits == 0 or self._more:
            return None
        self._permits.take(1)
        return self._claim_command(1)

    def run_claimed(self, receipt: ClaimReceipt | None, sent_boot_ms: int) -> None:
        """Run what `claim_for_start` claimed; None if the claim was not made after all."""
        claimed = () if receipt is None else receipt.claimed
        self._moments.reached("claim.committed")
        for one in claimed:
            self._begin(one, sent_boot_ms)
        if not claimed:
            self._permits.give_back()

    async def drain(self, grace_ms: int | None = None) -> tuple[Drained, ...]:
        """Stop: no new claims, a grace for what runs, then give back what may be run again and tell of what may not.

        Rerunnable work is released for peers; entered owner_bound work of this owner is written
        Abandoned(owner_drain). Leases are kept until the last run has ended.
        """
        if self._state in ("draining", "stopped"):
            return ()
        started, self._state = self._state != "new", "draining"
        if self._claiming is not None and not self._claiming.done():
            await asyncio.wait({self._claiming})
        report = await self._drain_runs(self.options.drain_grace_ms if grace_ms is None else grace_ms)
        if started:
            await self._keeper.stop()
            await self._registry.withdraw(self.owner)
        self._state = "stopped"
        return report

    async def _drain_runs(self, grace_ms: int) -> tuple[Drained, ...]:
        runs = {run.process_id: run for run in self._runs.values()}
        tasks = {run.task for run in runs.values() if run.task is not None}
        if tasks and grace_ms:
            await asyncio.wait(tasks, timeout=grace_ms / 1000)
        for run in self._runs.values():
            run.tell(Stop("drain", "the worker is stopping"))
        left = {run.task for run in self._runs.values() if run.task is not None}
        if left:
            await asyncio.wait(left, timeout=self.options.cancel_grace_ms / 1000)
        stuck = [run for run in self._runs.values() if not run.detached]
        for run in stuck:
            self._detach(run)
            await self._write_end(run, self._end_of_drain(run))
        return tuple(Drained(id, _became(run)) for id, run in runs.items())

    # --- claiming ---------------------------------------------------------------------------------------------

    def _claim_command(self, limit: int) -> ClaimNext:
        return ClaimNext(
            claim_id=self._ids.token(),
            token=self._ids.token(),
            owner=self.owner,
            limit=limit,
            ttl_ms=self.options.lease_ttl_ms,
            definitions=self.definitions(),
            queues=self.options.queues,
            proofs=self._proofs,
        )

    async def _claim(self) -> ClaimReceipt:
        """Claim for all free permits. The claim belongs to the worker: a caller that gives up can't strand its rows."""
        if self._claiming is not None and not self._claiming.done():
            self._more = True
            await asyncio.wait({self._claiming})
            return ClaimReceipt(())
        return await asyncio.shield(self._start_claim())

    def _start_claim(self) -> asyncio.Task[ClaimReceipt]:
        limit = self.free_permits
        self._permits.take(limit)
        self._more = False
        self._claiming = self._spawner.spawn(self._claim_and_begin(limit), "perdure-claim")
        self._claiming.add_done_callback(self._claim_ended)
        return self._claiming

    async def _claim_and_begin(self, limit: int) -> ClaimReceipt:
        spare = limit
        try:
            sent_ms = self._clock.now().boot_ms
            receipt = await self._claimed_rows(self._claim_command(limit), sent_ms)
            self._moments.reached("claim.committed")
            self._more = self._more or len(receipt.claimed) + len(receipt.ended) >= limit
            for claimed in receipt.claimed:
                spare -= 1
                self._begin(claimed, sent_ms)
            return receipt
        finally:
            self._permits.give_back(spare)

    def _claim_ended(self, done: asyncio.Task[ClaimReceipt]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, StoreClosed):
            fault = WorkerFault("dispatcher", "claiming failed; the next drive tries again", None, repr(error))
            self._report_fault(fault)
        else:
            self._refill()

    async def _claimed_rows(self, command: ClaimNext, sent_ms: int) -> ClaimReceipt:
        """Ask until the answer is known: the same claim id returns the same rows and claims nothing new."""
        until_ms = sent_ms + self.options.lease_ttl_ms
        backoff_s = 0.01
        while True:
            try:
                receipt: ClaimReceipt = await self._registry.execute(command)
                return receipt
            except OutcomeUnknown as error:
                if self._clock.now().boot_ms >= until_ms:
                    raise
                self._report_fault(WorkerFault("infrastructure", "the answer of a claim was lost", None, str(error)))
            await self._clock.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, 1.0)

    def _refill(self) -> None:
        """Permits are free: claim again if the last claim left something behind; once for all that come free now."""
        if self._more and not self._refill_due and self._state == "serving":
            self._refill_due = True
            asyncio.get_running_loop().call_soon(self._refill_now)

    def _refill_now(self) -> None:
        self._refill_due = False
        busy = self._claiming is not None and not self._claiming.done()
        if self._more and self._state == "serving" and not busy and self.free_permits:
            self._start_claim()

    # --- running ----------------------------------------------------------------------------------------------

    def _begin(self, claimed: Claimed, sent_ms: int) -> None:
        local_deadline_ms = sent_ms + self.options.lease_ttl_ms - self.options.local_margin_ms
        run = ActiveRun(claimed.record, claimed.lease, local_deadline_ms, HeldPermit(self._permits))
        self._runs[run.process_id] = run
        self._keeper.hold(run)
        run.task = self._spawner.spawn_kept(self._run_one(run), run.process_id)

    async def _run_one(self, run: ActiveRun) -> None:
        """Run one claimed process and record what became of it under the lease that was granted."""
        try:
            await self._write_end(run, await self._execute(run))
        except Exception as error:  # a bug of ours: the row stays live and its lease lapses, but never silently
            self._report_fault(
                WorkerFault(
                    "dispatcher", "a run ended by a bug", run.process_id, "".join(traceback.format_exception(error))
                )
            )
        finally:
            self._forget(run)

    async def _execute(self, run: ActiveRun) -> RowCommand | None:
        """Run the code; the command that tells the registry how it ended, or None if there is nothing to tell."""
        record = run.record
        try:
            work = self._engine_of(record.registration.definition).prepare(run)
        except Exception as error:  # no user code was entered: the start never was
            self._report_fault(WorkerFault("decode", "a process could not be entered", run.process_id, str(error)))
            return self._withdrawn(run, str(error))
        if self._clock.now().boot_ms >= run.local_deadline_ms:
            work.close()
            return self._withdrawn(run, "the lease's local deadline passed before entry")
        enter_process(run.permit)
        run.entered = True
        if record.state.cancel_request is not None or record.registration.deadline_ms is not None:
            self._arm(run)
        self._moments.reached("run.entered", run.process_id)
        try:
            value = await work
        except asyncio.CancelledError as cancelled:
            if run.stop is not None:
                return self._stopped_end(run)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop is going down, not the process
            return self._failed_end(run, cancelled)  # the code raised it by itself
        except (InfrastructureFailure, StoreError) as error:
            return self._infrastructure_end(run, error)
        except Exception as error:
            return self._failed_end(run, error)
        if run.stop is not None and run.stop.kind == "lease_lost":
            return None
        if run.stop is not None:
            self._report_fault(
                WorkerFault(
                    "swallowed_cancel", f"the code went on after it was told: {run.stop.reason}", run.process_id
                )
            )
        self._backoffs.pop(run.process_id, None)
        return Complete(process_id=run.process_id, outcome=Completed(value), authority=LeaseRight(run.lease.key))

    def _engine_of(self, definition: Definition) -> Engine:
        for engine in self._engines:
            if definition in engine.definitions:
                return engine
        raise UnknownDefinition(str(definition), [str(known) for known in self.definitions()])

    def _arm(self, run: ActiveRun) -> None:
        """Tell the code at once what it was to be told: a cancel request that stood, a deadline that comes."""
        request = run.record.state.cancel_request
        if request is not None:
            asyncio.get_running_loop().call_soon(
                self._stopped, run, Stop("cancel_requested", request.reason, request.by)
            )
        deadline_at_ms = run.record.deadline_at_ms
        if deadline_at_ms is not None:
            left_s = max(0, deadline_at_ms - self._registry.now().wall_ms) / 1000
            stop = Stop("deadline", "its declared deadline has passed")
            run.deadline = asyncio.get_running_loop().call_later(left_s, self._stopped, run, stop)

    def _stopped(self, run: ActiveRun, stop: Stop) -> None:
        """Tell a run to stop, and see to it that it does. Called by the keeper (on the loop), timers and hosts."""
        if self._runs.get(run.process_id) is not run or not run.tell(stop):
            return
        if stop.kind == "lease_lost":
            self._report_fault(WorkerFault("lease_lost", f"the run was stopped: {stop.reason}", run.process_id))
        asyncio.get_running_loop().call_later(self.options.cancel_grace_ms / 1000, self._overdue, run)

    def cancel_local(self, process_id: str, reason: str, by: str | None) -> None:
        """Tell a run of this worker at once that its cancellation was requested."""
        run = self._runs.get(process_id)
        if run is not None:
            self._stopped(run, Stop("cancel_requested", reason, by))

    def _overdue(self, run: ActiveRun) -> None:
        """The clean-up took longer than its bound: the run is cut off, and what it still writes is refused."""
        if self._runs.get(run.process_id) is not run or run.stop is None:
            return
        self._report_fault(
            WorkerFault(
                "swallowed_cancel",
                f"the code has not ended {self.options.cancel_grace_ms} ms after it was told: {run.stop.reason}",
                run.process_id,
            )
        )
        end = self._stopped_end(run)
        self._detach(run)
        if run.task is not None:
            run.task.cancel(run.stop.reason)
        self._spawner.spawn(self._write_end(run, end), f"perdure-cut-off:{run.process_id}")

    def _detach(self, run: ActiveRun) -> None:
        run.detached = True
        self._forget(run)

    def _forget(self, run: ActiveRun) -> None:
        if run.deadline is not None:
            run.deadline.cancel()
        if self._runs.get(run.process_id) is run:
            del self._runs[run.process_id]
            self._keeper.let_go(run)
            self._give_back_permit(run)

    def _give_back_permit(self, run: ActiveRun) -> None:
        if run.holds_permit:
            run.holds_permit = False
            self._permits.give_back()

    # --- how a run ends ---------------------------------------------------------------------------------------

    def _withdrawn(self, run: ActiveRun, why: str) -> RowCommand:
        return Release(process_id=run.process_id, key=run.lease.key, not_entered=why, hold_ms=NOT_ENTERED_HOLD_MS)

    def _completion(self, run: ActiveRun, outcome: Outcome) -> RowCommand:
        return Complete(process_id=run.process_id, outcome=outcome, authority=LeaseRight(run.lease.key))

    def _stopped_end(self, run: ActiveRun) -> RowCommand | None:
        stop = run.stop
        assert stop is not None
        match stop.kind:
            case "lease_lost":
                return None  # somebody else owns the truth: write nothing
            case "cancel_requested":
                return self._completion(run, Cancelled(stop.reason, stop.by))
            case "deadline":
                return self._completion(run, deadline_failure(run.record))
            case "drain":
                return self._end_of_drain(run)

    def _end_of_drain(self, run: ActiveRun) -> RowCommand:
        if run.record.registration.recovery == "owner_bound" and run.entered:
            proof = "the worker was told to stop and the grace had passed"
            evidence = Evidence("owner_drain", self.owner.name, self._registry.now().wall_ms, proof)
            return self._completion(run, Abandoned(evidence))
        return Release(process_id=run.process_id, key=run.lease.key)

    def _infrastructure_end(self, run: ActiveRun, error: Exception) -> RowCommand:
        count = self._backoffs[run.process_id] = self._backoffs.get(run.process_id, 0) + 1
        hold_ms = min(60_000, self.options.infrastructure_backoff_ms * 2 ** min(count - 1, 10))
        self._report_fault(WorkerFault("infrastructure", "a run was given back", run.process_id, str(error)))
        return Release(process_id=run.process_id, key=run.lease.key, hold_ms=hold_ms)

    def _failed_end(self, run: ActiveRun, error: BaseException) -> RowCommand:
        detail = error_detail(error, run.record.attempt)
        match decide_failure(run.record, detail, self._registry.now(), self._ids.fraction()):
            case RetryAt(due_at_ms, error=why):
                return ScheduleRetry(
                    process_id=run.process_id, execution=LeaseRight(run.lease.key), error=why, due_at_ms=due_at_ms
                )
            case Failed() as failed:
                return self._completion(run, failed)

    async def _write_end(self, run: ActiveRun, command: RowCommand | None) -> None:
        """Have the end written. A store that fails is asked again until the lease's local deadline."""
        self._moments.reached("run.returned", run.process_id)
        if command is None:
            return
        run.ending = True
        self._ending += 1
        self._give_back_permit(run)  # the code has returned: what is left to do is the store's
        try:
            await self._write(run, command)
        finally:
            self._ending -= 1
            self._refill()

    async def _write(self, run: ActiveRun, command: RowCommand) -> None:
        backoff_s = 0.01
        while True:
            try:
                receipt: Receipt = await self._registry.execute(command)
            except LeaseSuperseded as superseded:
                self._report_fault(WorkerFault("lease_lost", str(superseded), run.process_id))
                return
            except Refused as refused:
                self._report_fault(WorkerFault("dispatcher", "an end was refused", run.process_id, str(refused)))
                return
            except StoreClosed:
                return
            except PerdureError as error:
                if self._clock.now().boot_ms >= run.local_deadline_ms:
                    self._report_fault(
                        WorkerFault("infrastructure", "an end could not be written", run.process_id, str(error))
                    )
                    return
                if backoff_s == 0.01:
                    self._report_fault(
                        WorkerFault("infrastructure", "an end is written again", run.process_id, str(error))
                    )
            else:
                self._moments.reached("end.committed", run.process_id)
                if receipt.record.state.settle_due_at_ms is not None:
                    await serve_end(self._registry, receipt.record)
                run.record = receipt.record
                return
            await self._clock.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, 1.0)


def error_detail(error: BaseException, attempt: int) -> ErrorDetail:
    """An exception as data. Whatever its text contains, it can be recorded."""
    message, changed = sanitize(_text_of(error), max_chars=MESSAGE_CHARS)
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    trace, trace_changed = sanitize(trace, max_chars=TRACEBACK_CHARS)
    return ErrorDetail(
        type(error).__name__,
        message,
        code=getattr(error, "code", None) if isinstance(getattr(error, "code", None), str) else None,
        traceback=trace,
        retryable=bool(getattr(error, "retryable", True)),
        attempt=attempt,
        sanitised=changed or trace_changed,
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # an error whose own text can't be made must still be recorded
        return f"(its message can't be shown: {type(unprintable).__name__})"


def log_fault(fault: WorkerFault) -> None:
    """Where faults go when nobody else takes them."""
    import logging

    logging.getLogger("perdure").error(
        "%s: %s [%s]%s", fault.kind, fault.message, fault.process_id or "-", f"\n{fault.detail}" if fault.detail else ""
    )


def _became(run: ActiveRun) -> Literal["finished", "released", "abandoned", "lost"]:
    if run.record.is_terminal:
        return "abandoned" if run.record.status == "abandoned" else "finished"
    return "lost" if run.stop is not None and run.stop.kind == "lease_lost" else "released"
