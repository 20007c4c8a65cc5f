"""How a process ends: completion under an authority, settling what nobody runs, and what follows an end."""

from __future__ import annotations

from typing import assert_never

from perdure.clock import Moment
from perdure.errors import InvalidOption, LeaseHeld, LeaseSuperseded, NotPermitted, PerdureError
from perdure.model.events import (
    Authority,
    ProcessAbandoned,
    ProcessAwaited,
    ProcessCancelled,
    ProcessCompleted,
    ProcessEnd,
    ProcessFailed,
    ProcessSettled,
)
from perdure.model.outcomes import Abandoned, Cancelled, Completed, Evidence, Failed, Outcome
from perdure.model.record import ProcessRecord
from perdure.transitions.authority import authority_by, authority_name, check_authority
from perdure.transitions.commands import AwaitEnd, ClaimToSettle, Complete, LeaseRight, Settle
from perdure.transitions.decision import (
    DROP,
    UNCHANGED,
    Decision,
    Refusal,
    Standing,
    applied,
    standing_record,
)
from perdure.transitions.leases import check_key, is_held, next_fence, proofs_by_incarnation
from perdure.transitions.recovery import GiveUp, deadline_failure, deadline_passed, may_end_unowned, recover


def terminal_fact(outcome: Outcome, authority: Authority, fence: int, by: str | None) -> ProcessEnd:
    match outcome:
        case Completed():
            return ProcessCompleted(authority, fence, by, outcome.value)
        case Failed():
            return ProcessFailed(authority, fence, by, error=outcome.error)
        case Cancelled():
            return ProcessCancelled(authority, fence, by, reason=outcome.reason, requested_by=outcome.by)
        case Abandoned():
            return ProcessAbandoned(authority, fence, by, outcome=outcome)
        case _:
            assert_never(outcome)


def decide_complete(standing: Standing, command: Complete, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    authority = command.authority
    if isinstance(authority, LeaseRight):
        if record.is_terminal:
            return _ended_under_lease(record, authority) or _against_what_stands(record, command.outcome)
        if superseded := check_key(standing.lease, authority.key, now):
            return superseded
        name: Authority = "lease"
        fence, by = authority.key.fence, authority.key.incarnation
    else:
        if refused := check_authority(record, authority, command.outcome):
            return refused
        if record.is_terminal:
            return _against_what_stands(record, command.outcome)
        if is_held(standing.lease, now):
            assert standing.lease is not None
            return LeaseHeld(record.id, standing.lease.owner.name, standing.lease.expires_at_ms)
        name, fence, by = authority_name(authority), record.state.fence, authority_by(authority)
    return applied(terminal_fact(command.outcome, name, fence, by), lease=DROP)


def _ended_under_lease(record: ProcessRecord, right: LeaseRight) -> LeaseSuperseded | None:
    """After the end, only the holder under whose lease it was written learns how its own write fared."""
    started, key = record.state.started, right.key
    if started is not None and started.owner.incarnation == key.incarnation and record.state.fence == key.fence:
        return None
    return LeaseSuperseded(record.id, key.fence, record.state.fence, started.owner.name if started else None)


def _against_what_stands(record: ProcessRecord, outcome: Outcome) -> Decision:
    return Decision("already_applied" if record.outcome == outcome else "superseded")


def decide_claim_to_settle(standing: Standing, command: ClaimToSettle, now: Moment) -> Decision | Refusal:
    """End a row that nobody runs, under a fence of its own, if the record bears the reason out."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if not record.is_live:
        return UNCHANGED
    lease, proofs = standing.lease, proofs_by_incarnation(command.proofs)
    if is_held(lease, now, proofs):
        assert lease is not None
        return LeaseHeld(record.id, lease.owner.name, lease.expires_at_ms)
    outcome = _settled_outcome(standing, record, command, now)
    if outcome is None:
        return NotPermitted(
            record.id, f"a settling pass ({command.why})", record.registration.recovery, f"end, {command.why}: not so,"
        )
    authority: Authority = "reconciled_abandon" if command.why == "reconciled_request" else "registry"
    return applied(terminal_fact(outcome, authority, next_fence(record, lease), command.by.name), lease=DROP)


def _settled_outcome(standing: Standing, record: ProcessRecord, command: ClaimToSettle, now: Moment) -> Outcome | None:
    state, lease = record.state, standing.lease
    if state.admitted is not None:
        return None
    match command.why:
        case "reconciled_request":
            return None if state.abandon_request is None else reconciled_abandonment(record, standing, now)
        case "deaths_exhausted":
            if lease is None or state.status != "running":
                return None
            proof = proofs_by_incarnation(command.proofs).get(lease.owner.incarnation)
            decided = recover(record, lease, proof, now)
            return decided.outcome if isinstance(decided, GiveUp) else None
        case "deadline":
            return deadline_failure(record) if deadline_passed(record, now) and may_end_unowned(record) else None
        case "cancelled_unowned":
            if state.cancel_request is None or not may_end_unowned(record):
                return None
            return Cancelled(state.cancel_request.reason, state.cancel_request.by)
        case _:
            assert_never(command.why)


def reconciled_abandonment(record: ProcessRecord, standing: Standing, now: Moment) -> Abandoned:
    """The outcome of an abandon request whose row nobody holds any more."""
    request = record.state.abandon_request
    asked = f"{request.by} asked: {request.reason}" if request else "asked for"
    lease, started = standing.lease, record.state.started
    if lease is not None:
        owner, how = lease.owner.name, f"no live lease: fence {lease.fence} is over"
    elif started is not None:
        owner, how = started.owner.name, f"no live lease: fence {started.fence} was given back"
    else:
        owner, how = None, "never started"
    return Abandoned(Evidence("reconciled_request", owner, now.wall_ms, f"{asked}; {how}"))


def decide_settle(standing: Standing, command: Settle, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if not record.is_terminal:
        return InvalidOption("settle", record.status, "a process that has ended")
    stale = record.state.last_sequence != command.served_sequence
    return UNCHANGED if stale or record.state.settle_due_at_ms is None else applied(ProcessSettled())


def decide_await_end(standing: Standing, command: AwaitEnd, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    wakes = record.registration.parent is not None or record.registration.wake_target is not None
    return applied(ProcessAwaited()) if record.is_terminal and wakes else UNCHANGED
