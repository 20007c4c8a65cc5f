"""Giving a row back: suspension, wake-ups, retries and releases."""

from __future__ import annotations

from typing import assert_never

from perdure.clock import Moment
from perdure.errors import InvalidOption, NotPermitted, PerdureError, ProcessAlreadyTerminal
from perdure.model.events import ProcessWaiting, ProcessWoken, RetryScheduled, StartWithdrawn
from perdure.model.record import ProcessRecord, ProcessState
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait
from perdure.transitions.commands import Execution, LeaseRight, Release, ScheduleRetry, Suspend, Wake, WorkflowKey
from perdure.transitions.decision import (
    DROP,
    UNCHANGED,
    Decision,
    Put,
    Refusal,
    Standing,
    applied,
    standing_record,
)
from perdure.transitions.leases import check_key, release
from perdure.transitions.registering import LONGEST_DURATION_MS

LATEST_MOMENT_MS = 2**53


def check_execution(standing: Standing, record: ProcessRecord, execution: Execution, now: Moment) -> Refusal | None:
    """None if whoever runs this row's code is the one that presents itself."""
    match execution:
        case LeaseRight():
            return check_key(standing.lease, execution.key, now)
        case WorkflowKey():
            if record.is_terminal:
                return ProcessAlreadyTerminal(record.id, record.status, "a write of its execution")
            if record.state.admitted == execution.key:
                return None
            return NotPermitted(
                record.id, f"workflow key {execution.key!r}", "not admitted under that key", "write as the execution of"
            )
        case _:
            assert_never(execution)


def decide_suspend(standing: Standing, command: Suspend, now: Moment) -> Decision | Refusal:
    """Park the process in its row. If a wait is met already, nothing is written and the code goes on."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if refused := check_execution(standing, record, command.execution, now):
        return refused
    if not command.waits:
        return InvalidOption("waits", command.waits, "at least one wait")
    for wait in command.waits:
        if isinstance(wait, TimerWait) and (invalid := _check_moment(wait.due_at_ms)):
            return invalid
    if isinstance(command.execution, LeaseRight) and record.registration.recovery != "rerunnable":
        return NotPermitted(record.id, "its owner", record.registration.recovery, "suspend")
    if record.state.cancel_request is not None or any(is_met(wait, record.state, now) for wait in command.waits):
        return Decision("still_runnable")
    return applied(ProcessWaiting(command.waits, record.state.fence), lease=DROP)


def _check_moment(due_at_ms: int) -> InvalidOption | None:
    """None if every store and every reader of JSON can hold the moment as it is."""
    if abs(due_at_ms) <= LATEST_MOMENT_MS:
        return None
    return InvalidOption("due_at_ms", due_at_ms, f"at most {LATEST_MOMENT_MS} ms since the epoch")


def is_met(wait: Wait, state: ProcessState, now: Moment) -> bool:
    """Whether the row itself shows that this wait is over. A child's end is in another row: ask after the commit."""
    match wait:
        case SignalWait():
            return state.signals.get(wait.name, 0) >= wait.ordinal
        case TimerWait():
            return wait.due_at_ms <= now.wall_ms
        case ChildWait():
            return False
        case _:
            assert_never(wait)


def decide_wake(standing: Standing, command: Wake, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if record.state.status != "waiting" or command.wait not in record.state.waits:
        return UNCHANGED
    return applied(ProcessWoken(command.wait, command.cause))


def decide_retry(standing: Standing, command: ScheduleRetry, now: Moment) -> Decision | Refusal:
    """The code raised and the policy allows another start, later."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if refused := check_execution(standing, record, command.execution, now):
        return refused
    if invalid := _check_moment(command.due_at_ms):
        return invalid
    failures, policy = record.state.failures + 1, record.registration.retry
    if record.registration.recovery != "rerunnable" or policy is None or failures >= policy.max_attempts:
        return NotPermitted(record.id, "its retry policy", f"at failure {failures}", "schedule a retry of")
    return applied(RetryScheduled(command.error, failures, command.due_at_ms, record.state.fence), lease=DROP)


def decide_release(standing: Standing, command: Release, now: Moment) -> Decision | Refusal:
    """Give the lease back. From a stale owner it is a silent no-op: there is nothing of its own to give back."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if not 0 <= command.hold_ms <= LONGEST_DURATION_MS:
        return InvalidOption("hold_ms", command.hold_ms, f"0 to {LONGEST_DURATION_MS}")
    if check_key(standing.lease, command.key, now):
        return UNCHANGED
    assert standing.lease is not None
    resumed = record.state.started is not None and record.state.started.resumed  # that added no attempt to take back
    if command.not_entered is not None and not resumed:
        due_at_ms = now.wall_ms + command.hold_ms
        return applied(StartWithdrawn(command.key.fence, command.not_entered, due_at_ms), lease=DROP)
    return Decision("applied", lease=Put(release(standing.lease, command.hold_ms, now)))
