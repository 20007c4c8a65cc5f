"""Claiming is starting: which row may be claimed now, and what the claim writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.clock import Moment
from perdure.errors import NotPermitted, PerdureError, ProcessAlreadyTerminal
from perdure.model.events import Fact, ProcessAbandoned, ProcessFailed, ProcessResumed, ProcessStarted, Takeover
from perdure.model.leases import DeathProof, Lease
from perdure.model.record import ProcessRecord
from perdure.transitions.commands import ClaimNext, Start
from perdure.transitions.decision import Decision, Refusal, Standing, applied, standing_record
from perdure.transitions.leases import gates, grant, next_fence
from perdure.transitions.recovery import GiveUp, LeaveAlone, RunAgain, deadline_failure, deadline_passed, recover


@dataclass(frozen=True, slots=True)
class Granted:
    """The row is the claimer's: this is its lease, and this is what its log says about it."""

    lease: Lease
    fact: Fact


@dataclass(frozen=True, slots=True)
class Ended:
    """The row may not be started any more; its end is written in its stead."""

    fact: ProcessFailed | ProcessAbandoned


@dataclass(frozen=True, slots=True)
class Skipped:
    because: Literal[
        "unknown", "ended", "not_asked_for", "externally_owned", "admitted", "abandon_requested", "leased",
        "not_due", "owner_bound",
    ]  # fmt: skip


ClaimDecision = Granted | Ended | Skipped


def decide_claim(standing: Standing, command: ClaimNext, now: Moment, proofs: dict[str, DeathProof]) -> ClaimDecision:
    """Decide about one candidate that a store proposed. The store's word is never taken for it."""
    record, lease = standing.record, standing.lease
    if record is None:
        return Skipped("unknown")
    if refused := _never_claimable(record, command):
        return refused
    if gates(lease, now, proofs):
        return Skipped("leased")
    state = record.state
    takeover: Takeover | None = None
    match state.status:
        case "pending" | "waiting":
            if state.due_at_ms is None or state.due_at_ms > now.wall_ms:
                return Skipped("not_due")
        case _ if lease is not None:
            match recover(record, lease, proofs.get(lease.owner.incarnation), now):
                case LeaveAlone(because):
                    return Skipped(because)
                case GiveUp(outcome):
                    return Ended(
                        ProcessAbandoned("registry", next_fence(record, lease), command.owner.name, outcome=outcome)
                    )
                case RunAgain(takeover):
                    pass
    if deadline_passed(record, now):
        error = deadline_failure(record).error
        return Ended(ProcessFailed("registry", next_fence(record, lease), command.owner.name, error=error))
    granted = grant(record, lease, command.owner, command.token, command.claim_id, command.ttl_ms, now)
    if state.status == "waiting":
        return Granted(granted, ProcessResumed(command.owner, granted.fence, state.attempt, command.claim_id))
    return Granted(granted, ProcessStarted(command.owner, granted.fence, state.attempt + 1, command.claim_id, takeover))


def _never_claimable(record: ProcessRecord, command: ClaimNext) -> Skipped | None:
    state, registration = record.state, record.registration
    if not record.is_live:
        return Skipped("ended")
    if registration.recovery == "externally_owned":
        return Skipped("externally_owned")
    if state.admitted is not None:
        return Skipped("admitted")
    if state.abandon_request is not None:
        return Skipped("abandon_requested")
    if registration.definition not in command.definitions or registration.queue not in command.queues:
        return Skipped("not_asked_for")
    return None


def decide_start(standing: Standing, command: Start, now: Moment) -> Decision | Refusal:
    """An engine enters the code of a row that was admitted to it. A re-invocation is the same start."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    execution, state = command.execution, record.state
    if record.is_terminal:
        return ProcessAlreadyTerminal(record.id, record.status, "a start")
    if state.admitted != execution.key:
        return NotPermitted(
            record.id, f"workflow key {execution.key!r}", "not admitted under that key", "enter the code of"
        )
    fence = next_fence(record, standing.lease)
    name = execution.invocation_id
    if state.status == "waiting":
        return applied(ProcessResumed(command.owner, fence, state.attempt, name, execution.key))
    return applied(ProcessStarted(command.owner, fence, state.attempt + 1, name, None, execution.key))
