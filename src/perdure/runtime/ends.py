"""How a run ends: what its code did, as the command that tells the registry."""

from __future__ import annotations

from perdure.clock import Moment
from perdure.failures import error_detail
from perdure.model.leases import Owner
from perdure.model.outcomes import Abandoned, Cancelled, Evidence, Failed, Outcome
from perdure.runtime.run import ActiveRun
from perdure.transitions.commands import Complete, LeaseRight, Release, RowCommand, ScheduleRetry
from perdure.transitions.recovery import deadline_failure
from perdure.transitions.retries import RetryAt, decide_failure


def completed_with(run: ActiveRun, outcome: Outcome) -> RowCommand:
    return Complete(process_id=run.process_id, outcome=outcome, authority=LeaseRight(run.lease.key))


def given_back(run: ActiveRun, hold_ms: int = 0) -> RowCommand:
    """The lease is released; the row can be claimed once the hold has passed."""
    return Release(process_id=run.process_id, key=run.lease.key, hold_ms=hold_ms)


def never_entered(run: ActiveRun, why: str, hold_ms: int) -> RowCommand:
    """No user code was entered: the start never was."""
    return Release(process_id=run.process_id, key=run.lease.key, not_entered=why, hold_ms=hold_ms)


def after_stop(run: ActiveRun, owner: Owner, now: Moment) -> RowCommand | None:
    """What is written for a run that ended because it was told to stop; None if nothing may be."""
    stop = run.stop
    assert stop is not None
    match stop.kind:
        case "lease_lost":
            return None  # somebody else owns the truth
        case "cancel_requested":
            return completed_with(run, Cancelled(stop.reason, stop.by))
        case "deadline":
            return completed_with(run, deadline_failure(run.record))
        case "drain":
            return after_drain(run, owner, now)


def after_drain(run: ActiveRun, owner: Owner, now: Moment) -> RowCommand:
    """Rerunnable work goes back to its peers; entered owner_bound work can be run by nobody else, so it ends here."""
    if not run.entered:
        return never_entered(run, "the worker was told to stop before entry", 0)
    if run.record.registration.recovery == "owner_bound":
        proof = "the worker was told to stop and the grace had passed"
        return completed_with(run, Abandoned(Evidence("owner_drain", owner.name, now.wall_ms, proof)))
    return given_back(run)


def after_error(run: ActiveRun, error: BaseException, owner: Owner, now: Moment, fraction: float) -> RowCommand | None:
    """What is written when the code raised. Once it was told to stop there is no retry, and the error is its end."""
    detail = error_detail(error, run.record.attempt)
    if run.stop is not None:
        final = run.stop.kind in ("cancel_requested", "deadline")
        return completed_with(run, Failed(detail)) if final else after_stop(run, owner, now)
    match decide_failure(run.record, detail, now, fraction):
        case RetryAt(due_at_ms):
            return ScheduleRetry(
                process_id=run.process_id, execution=LeaseRight(run.lease.key), error=detail, due_at_ms=due_at_ms,
                operation_id=f"retry-{run.lease.fence}",  # asked again after a lost answer, it is answered again
            )  # fmt: skip
        case Failed() as failed:
            return completed_with(run, failed)
