"""The one door: a command, what stands, and the time become a decision or a typed refusal. Pure and total."""

from __future__ import annotations

from perdure.clock import Moment
from perdure.errors import InvalidOption
from perdure.transitions.claims import decide_start
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    AwaitEnd,
    ClaimToSettle,
    Complete,
    RecordCallerDeparture,
    Register,
    Release,
    RequestAbandon,
    RequestCancel,
    RowCommand,
    ScheduleRetry,
    SetExternalRef,
    Settle,
    Signal,
    Start,
    Suspend,
    Wake,
)
from perdure.transitions.decision import Decision, Refusal, Standing, answered_before
from perdure.transitions.ending import decide_await_end, decide_claim_to_settle, decide_complete, decide_settle
from perdure.transitions.keys import check_key_text
from perdure.transitions.parking import decide_release, decide_retry, decide_suspend, decide_wake
from perdure.transitions.registering import decide_register
from perdure.transitions.requests import (
    decide_abandon,
    decide_admit,
    decide_append,
    decide_cancel,
    decide_departure,
    decide_external_ref,
    decide_signal,
)


def decide(standing: Standing, command: RowCommand, now: Moment) -> Decision | Refusal:
    """What this command does to the row it names. An operation that was done before is answered as it was then."""
    if command.operation_id is not None and (invalid := check_key_text("operation_id", command.operation_id)):
        return invalid
    if before := answered_before(standing, command):
        return before
    match command:
        case AppendEvent():
            return decide_append(standing, command, now)
        case Complete():
            return decide_complete(standing, command, now)
        case Register():
            return decide_register(standing, command, now)
        case Signal():
            return decide_signal(standing, command, now)
        case Suspend():
            return decide_suspend(standing, command, now)
        case Wake():
            return decide_wake(standing, command, now)
        case ScheduleRetry():
            return decide_retry(standing, command, now)
        case Release():
            return decide_release(standing, command, now)
        case RequestCancel():
            return decide_cancel(standing, command, now)
        case RequestAbandon():
            return decide_abandon(standing, command, now)
        case ClaimToSettle():
            return decide_claim_to_settle(standing, command, now)
        case Settle():
            return decide_settle(standing, command, now)
        case AwaitEnd():
            return decide_await_end(standing, command, now)
        case Start():
            return decide_start(standing, command, now)
        case Admit():
            return decide_admit(standing, command, now)
        case SetExternalRef():
            return decide_external_ref(standing, command, now)
        case RecordCallerDeparture():
            return decide_departure(standing, command, now)
        case _:
            return InvalidOption("command", type(command).__name__, "a command that this version knows")
