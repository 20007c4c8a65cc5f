"""The fold: what each fact does to the state. `fold(registration, events)` is the record, at every commit."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perdure.model.events import (
    CHILD_STARTED,
    AbandonRequested,
    AnyFact,
    CallerDeparture,
    CancelRequested,
    ExternalRefSet,
    ProcessAbandoned,
    ProcessAdmitted,
    ProcessAwaited,
    ProcessCancelled,
    ProcessCompleted,
    ProcessEnd,
    ProcessFailed,
    ProcessResumed,
    ProcessSettled,
    ProcessStarted,
    ProcessWaiting,
    ProcessWoken,
    RetryScheduled,
    SignalReceived,
    StartWithdrawn,
    Written,
)
from perdure.model.record import AbandonRequest, CancelRequest, ProcessRecord, ProcessState, Started, Status
from perdure.model.registration import Registration
from perdure.model.waits import SignalWait, TimerWait, Wait

replace = msgspec.structs.replace

SETTLE_GRACE_MS = 1_000
"""How long the program that wrote an end has to serve what follows from it, before anybody else does."""


def initial_state(registration: Registration, created_at_ms: int) -> ProcessState:
    """The record of a process of which nothing has been said yet."""
    return ProcessState(
        due_at_ms=None if registration.recovery == "externally_owned" else created_at_ms + registration.delay_ms,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )


def fold(registration: Registration, created_at_ms: int, facts: Iterable[tuple[int, int, AnyFact]]) -> ProcessRecord:
    """The record that (sequence, at_ms, fact) triples make, in order."""
    state = initial_state(registration, created_at_ms)
    for sequence, at_ms, fact in facts:
        state = apply(registration, state, fact, sequence, at_ms)
    return ProcessRecord(registration, state)


def apply(registration: Registration, state: ProcessState, fact: AnyFact, sequence: int, at_ms: int) -> ProcessState:
    """The state after one more fact. After the end only bookkeeping moves: an outcome never changes."""
    if state.outcome is not None:
        due_at_ms = _settle_due_at_ms(state, fact, at_ms)
        return replace(state, settle_due_at_ms=due_at_ms, updated_at_ms=at_ms, last_sequence=sequence)
    match fact:
        case Written():
            deaths = 0 if fact.is_journal else state.deaths
            children = state.children + (fact.type == CHILD_STARTED)
            return replace(state, deaths=deaths, children=children, updated_at_ms=at_ms, last_sequence=sequence)
        case ProcessStarted():
            return replace(
                state,
                status="running",
                attempt=fact.attempt,
                deaths=state.deaths + _is_death(fact),
                fence=max(fact.fence, state.fence),
                started=Started(fact.owner, fact.fence, fact.attempt, at_ms, fact.claim_id, fact.workflow_key),
                due_at_ms=None,
                waits=(),
                started_at_ms=at_ms if state.started_at_ms is None else state.started_at_ms,
                updated_at_ms=at_ms,
                last_sequence=sequence,
            )
        case ProcessCompleted() | ProcessFailed() | ProcessCancelled() | ProcessAbandoned():
            return _ended(registration, state, fact, sequence, at_ms)
        case ProcessResumed():
            changes = {
                "status": "running",
                "fence": max(fact.fence, state.fence),
                "started": Started(fact.owner, fact.fence, fact.attempt, at_ms, fact.claim_id, fact.workflow_key, True),
                "due_at_ms": None,
                "waits": (),
            }
        case StartWithdrawn():
            attempt = max(0, state.attempt - 1)
            changes = {
                "status": "pending",
                "attempt": attempt,
                "started": None,
                "due_at_ms": fact.due_at_ms,
                "started_at_ms": state.started_at_ms if attempt else None,
            }
        case ProcessWaiting():
            changes = {"status": "waiting", "waits": fact.waits, "due_at_ms": earliest_timer(fact.waits)}
        case ProcessWoken():
            changes = {"due_at_ms": _sooner(state.due_at_ms, at_ms)}
        case RetryScheduled():
            changes = {"status": "pending", "failures": fact.failures, "due_at_ms": fact.due_at_ms}
        case CancelRequested():
            request = state.cancel_request or CancelRequest(fact.reason, fact.by, at_ms)
            changes = {"cancel_request": request}
            if state.status == "waiting":
                changes["due_at_ms"] = _sooner(state.due_at_ms, at_ms)
        case AbandonRequested():
            changes = {"abandon_request": state.abandon_request or AbandonRequest(fact.by, fact.reason, at_ms)}
        case ExternalRefSet():
            changes = {"external_ref": state.external_ref or fact.ref}
        case ProcessAdmitted():
            changes = {"admitted": state.admitted or fact.workflow_key, "due_at_ms": None}
        case CallerDeparture():
            changes = {"status": "caller_departed"}
        case SignalReceived():
            ordinal = state.signals.get(fact.name, 0) + 1
            changes = {"signals": {**state.signals, fact.name: ordinal}}
            if any(w.name == fact.name and w.ordinal <= ordinal for w in state.waits if isinstance(w, SignalWait)):
                changes["due_at_ms"] = _sooner(state.due_at_ms, at_ms)
        case _:
            changes = {}
    return replace(state, updated_at_ms=at_ms, last_sequence=sequence, **changes)


def _settle_due_at_ms(state: ProcessState, fact: AnyFact, at_ms: int) -> int | None:
    match fact:
        case ProcessSettled():
            return None
        case ProcessAwaited():
            return at_ms + SETTLE_GRACE_MS
        case _:
            return state.settle_due_at_ms


def _ended(
    registration: Registration,
    state: ProcessState,
    fact: ProcessCompleted | ProcessFailed | ProcessCancelled | ProcessAbandoned,
    sequence: int,
    at_ms: int,
) -> ProcessState:
    needs_settling = bool(registration.parent or registration.wake_target or state.children)
    return replace(
        state,
        status=end_status(fact),
        outcome=fact.outcome,
        failures=state.failures + _is_failure(fact),
        fence=max(fact.fence, state.fence),
        waits=(),
        due_at_ms=None,
        settle_due_at_ms=at_ms + SETTLE_GRACE_MS if needs_settling else None,
        finished_at_ms=at_ms,
        updated_at_ms=at_ms,
        last_sequence=sequence,
    )


def end_status(fact: ProcessEnd) -> Status:
    """The status that a terminal fact makes: the last part of its type."""
    status = fact.TYPE.removeprefix("process.")
    assert status in ("completed", "failed", "cancelled", "abandoned")
    return status  # type: ignore[return-value]  # the assertion above is the proof; mypy can't narrow str to Literal


def earliest_timer(waits: tuple[Wait, ...]) -> int | None:
    return min((wait.due_at_ms for wait in waits if isinstance(wait, TimerWait)), default=None)


def _sooner(due_at_ms: int | None, at_ms: int) -> int:
    return at_ms if due_at_ms is None else min(due_at_ms, at_ms)


def _is_failure(end: ProcessEnd) -> int:
    """Whether the code raised; a deadline that passed is nobody's failure."""
    return int(isinstance(end, ProcessFailed) and end.error.code != "deadline")


def _is_death(started: ProcessStarted) -> int:
    takeover = started.takeover
    return int(takeover is not None and takeover.cause != "released")
