"""What others may ask of a process while it lives: events, signals, cancellation, abandonment, and marks."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from perdure.clock import Moment
from perdure.errors import (
    ExternalRefConflict,
    InvalidOption,
    LeaseHeld,
    NotExternallyOwned,
    NotPermitted,
    PerdureError,
    ProcessAlreadyTerminal,
    ReservedEventType,
    UndeclaredType,
)
from perdure.model.events import (
    JOURNAL_PREFIXES,
    RUNTIME_PREFIXES,
    AbandonRequested,
    CallerDeparture,
    CancelRequested,
    ExternalRefSet,
    ProcessAdmitted,
    ProcessCancelled,
    SignalReceived,
    Written,
)
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    RecordCallerDeparture,
    RequestAbandon,
    RequestCancel,
    SetExternalRef,
    Signal,
)
from perdure.transitions.decision import (
    DROP,
    UNCHANGED,
    Decision,
    Refusal,
    Standing,
    applied,
    applied_facts,
    keyed_before,
    standing_record,
)
from perdure.transitions.declared import check_declared
from perdure.transitions.ending import reconciled_abandonment, terminal_fact
from perdure.transitions.keys import check_key_text
from perdure.transitions.leases import is_held, next_fence
from perdure.transitions.parking import check_execution
from perdure.transitions.registering import NAME, NAME_RULE


@lru_cache(maxsize=1_024)
def may_be_appended(event_type: str, by_execution: bool) -> bool:
    """Whether an event of this type may be written so: only an execution writes the journal's types, and only the
    runtime the other reserved ones."""
    is_reserved = event_type.startswith(RUNTIME_PREFIXES)
    is_journal = by_execution and event_type.startswith(JOURNAL_PREFIXES)
    return NAME.fullmatch(event_type) is not None and (is_journal or not is_reserved)


def decide_append(standing: Standing, command: AppendEvent, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if not may_be_appended(command.type, command.execution is not None):
        if NAME.fullmatch(command.type):
            return ReservedEventType(command.type, RUNTIME_PREFIXES)
        return InvalidOption("type", command.type, NAME_RULE)
    if command.replay_key is not None and (unfit := check_key_text("replay_key", command.replay_key)):
        return unfit
    if command.execution is not None and (refused := check_execution(standing, record, command.execution, now)):
        return refused
    if (schema := record.registration.event_types.get(command.type)) is not None and (
        invalid := check_declared(schema, command.payload)
    ):
        return invalid
    if replayed := keyed_before(standing, command.type, command.payload):
        return replayed
    if record.is_terminal:
        return ProcessAlreadyTerminal(record.id, record.status, f"an event {command.type!r}")
    return applied(Written(command.type, command.payload), replay_key=command.replay_key)


def decide_signal(standing: Standing, command: Signal, now: Moment) -> Decision | Refusal:
    """Accept a signal. Once accepted it is in the log: before, during or after the wait for it."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    schema = record.registration.signals.get(command.name)
    if schema is None:
        return UndeclaredType("signal", command.name, tuple(record.registration.signals))
    if invalid := check_declared(schema, command.payload):
        return invalid
    if command.signal_id is not None and (unfit := check_key_text("signal_id", command.signal_id)):
        return unfit
    fact = SignalReceived(name=command.name, signal_id=command.signal_id, payload=command.payload)
    if replayed := keyed_before(standing, fact.type, msgspec.Raw(msgspec.json.encode(fact))):
        return replayed
    if record.is_terminal:
        return ProcessAlreadyTerminal(record.id, record.status, f"a signal {command.name!r}")
    return applied(fact, replay_key=signal_replay_key(command))


def signal_replay_key(command: Signal) -> str | None:
    return None if command.signal_id is None else f"signal:{command.signal_id}"


def decide_cancel(standing: Standing, command: RequestCancel, now: Moment) -> Decision | Refusal:
    """Ask for a stop; the first request stands. Where nobody runs or is suspended in the code, the row ends at once."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if record.is_terminal:
        return UNCHANGED
    state, first = record.state, record.state.cancel_request
    requested = () if first else (CancelRequested(command.reason, command.by),)
    ours = record.registration.recovery != "externally_owned" and state.admitted is None
    if ours and state.status == "pending" and not is_held(standing.lease, now):
        reason, by = (first.reason, first.by) if first else (command.reason, command.by)
        ended = ProcessCancelled(
            "registry", next_fence(record, standing.lease), command.by, reason=reason, requested_by=by
        )
        return applied(*requested, ended, lease=DROP)
    return applied(*requested) if requested else UNCHANGED


def decide_abandon(standing: Standing, command: RequestAbandon, now: Moment) -> Decision | Refusal:
    """Ask for the work to be given up. Whoever holds a live lease is left alone; else it ends here and now."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if record.is_terminal:
        return UNCHANGED
    state = record.state
    held = is_held(standing.lease, now) or state.admitted is not None
    first = state.abandon_request is None
    if held:
        return applied(AbandonRequested(command.by, command.reason)) if first else UNCHANGED
    facts = (AbandonRequested(command.by, command.reason),) if first else ()
    marked = applied_facts(record, facts, now)
    outcome = reconciled_abandonment(marked, standing, now)
    fence = next_fence(record, standing.lease)
    return applied(*facts, terminal_fact(outcome, "reconciled_abandon", fence, command.by), lease=DROP)


def decide_departure(standing: Standing, command: RecordCallerDeparture, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if record.registration.recovery != "externally_owned":
        return NotExternallyOwned(record.id, record.registration.recovery, "recording a caller's departure")
    if record.is_terminal or record.status == "caller_departed":
        return UNCHANGED
    return applied(CallerDeparture(command.reason))


def decide_external_ref(standing: Standing, command: SetExternalRef, now: Moment) -> Decision | Refusal:
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    if unfit := check_key_text("ref", command.ref):
        return unfit
    stands = record.state.external_ref
    if stands is not None:
        return UNCHANGED if stands == command.ref else ExternalRefConflict(record.id, stands, command.ref)
    if record.is_terminal:
        return ProcessAlreadyTerminal(record.id, record.status, "an external reference")
    return applied(ExternalRefSet(command.ref))


def decide_admit(standing: Standing, command: Admit, now: Moment) -> Decision | Refusal:
    """Hand a pending row to an engine. No worker may claim it then: an admission excludes a lease."""
    record = standing_record(standing, command)
    if isinstance(record, PerdureError):
        return record
    state = record.state
    if record.is_terminal:
        return ProcessAlreadyTerminal(record.id, record.status, "an admission")
    if state.admitted is not None:
        if state.admitted == command.workflow_key:
            return UNCHANGED
        return NotPermitted(record.id, f"workflow key {command.workflow_key!r}", "admitted under another key", "admit")
    if record.registration.recovery == "externally_owned":
        return NotPermitted(record.id, "an engine", "externally_owned", "admit")
    if standing.lease is not None and is_held(standing.lease, now):
        return LeaseHeld(record.id, standing.lease.owner.name, standing.lease.expires_at_ms)
    if state.status != "pending":
        return NotPermitted(record.id, "an engine", f"{state.status}, not pending", "admit")
    return applied(ProcessAdmitted(command.workflow_key))
