"""Every kind of command on a row "p", under every authority, well formed and not."""

from __future__ import annotations

from perdure.model.leases import LeaseKey
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.waits import ChildWait, SignalWait, TimerWait
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    AwaitEnd,
    ClaimToSettle,
    Complete,
    CompletionAuthority,
    Execution,
    ExternalOwner,
    LeaseRight,
    ReconciledAbandon,
    RecordCallerDeparture,
    Register,
    Release,
    RequestAbandon,
    RequestCancel,
    RowCommand,
    ScheduleRetry,
    SetExternalRef,
    Settle,
    SettleWhy,
    Signal,
    Start,
    Suspend,
    Wake,
    WorkflowKey,
)
from tests.unit.situations import B, lease, raw, registration

KEYS = {
    "the holder's": lease().key,
    "a stale": LeaseKey("p", "z-1", "token-0", 0),
    "a forged": LeaseKey("p", "a-1", "guessed", 1),
    "another row's": LeaseKey("q", "a-1", "token-1", 1),
}
EXECUTIONS: list[Execution] = [*map(LeaseRight, KEYS.values()), WorkflowKey("p", "w", "i-1"), WorkflowKey("p", "v")]
AUTHORITIES: list[CompletionAuthority] = [*EXECUTIONS, ExternalOwner("x"), ReconciledAbandon("x")]
OUTCOMES: list[Outcome] = [
    Completed(raw("1")), Failed(ErrorDetail("E")), Cancelled("enough"), Abandoned(Evidence("engine")),
]  # fmt: skip
WHYS: list[SettleWhy] = ["reconciled_request", "deaths_exhausted", "deadline", "cancelled_unowned"]
WAITS = (SignalWait("go", 1), TimerWait(200_000), ChildWait("child"))


def commands() -> list[RowCommand]:
    """Every kind of command under every authority, well formed and not."""
    found: list[RowCommand] = [
        Register(process_id="p", registration=registration()),
        Register(process_id="p", registration=registration(priority=99)),
        Register(process_id="q", registration=registration()),
        Start(process_id="p", execution=WorkflowKey("p", "w", "i-2"), owner=B),
        Start(process_id="p", execution=WorkflowKey("p", "v", "i-2"), owner=B),
        AppendEvent(process_id="p", type="note", payload=raw("1")),
        AppendEvent(process_id="p", type="note", payload=raw("1"), replay_key="k"),
        AppendEvent(process_id="p", type="note", payload=raw("1"), operation_id="o"),
        AppendEvent(process_id="p", type="process.started", payload=raw("1")),
        AppendEvent(process_id="p", type="step.completed", payload=raw("1")),
        AppendEvent(process_id="p", type="\ud800", payload=raw("1")),
        AppendEvent(process_id="p", type="note", payload=raw("1"), replay_key="\ud800"),
        AppendEvent(process_id="p", type="note", payload=raw("1"), operation_id="\ud800"),
        Signal(process_id="p", name="go", payload=raw("1"), signal_id="s"),
        Signal(process_id="p", name="go", payload=raw("1"), signal_id=""),
        Signal(process_id="p", name="undeclared", payload=raw("1")),
        *(Wake(process_id="p", wait=wait, cause="by hand") for wait in WAITS),
        RequestCancel(process_id="p", reason="enough", by="x"),
        RequestCancel(process_id="p", reason="other"),
        RequestAbandon(process_id="p", by="x", reason="gone"),
        RecordCallerDeparture(process_id="p"),
        SetExternalRef(process_id="p", ref="job"),
        SetExternalRef(process_id="p", ref=""),
        Admit(process_id="p", workflow_key="w"),
        Admit(process_id="p", workflow_key="v"),
        *(Settle(process_id="p", served_sequence=sequence) for sequence in (0, 1, 2, 3)),
        AwaitEnd(process_id="p"),
        RowCommand(process_id="p"),
    ]
    found += [ClaimToSettle(process_id="p", why=why, by=B) for why in WHYS]
    for key in KEYS.values():
        found += [
            Release(process_id="p", key=key),
            Release(process_id="p", key=key, hold_ms=1_000),
            Release(process_id="p", key=key, hold_ms=-1),
            Release(process_id="p", key=key, not_entered="no engine"),
        ]
    for execution in EXECUTIONS:
        found += [
            AppendEvent(process_id="p", type="note", payload=raw("1"), execution=execution),
            AppendEvent(process_id="p", type="step.completed", payload=raw("1"), execution=execution),
            AppendEvent(process_id="p", type="signal.go", payload=raw("1"), execution=execution),
            Suspend(process_id="p", execution=execution, waits=()),
            Suspend(process_id="p", execution=execution, waits=WAITS),
            Suspend(process_id="p", execution=execution, waits=(TimerWait(0),)),
            Suspend(process_id="p", execution=execution, waits=(TimerWait(2**70),)),
            ScheduleRetry(process_id="p", execution=execution, error=ErrorDetail("E"), due_at_ms=-(2**70)),
            ScheduleRetry(process_id="p", execution=execution, error=ErrorDetail("E"), due_at_ms=1),
        ]
    found += [Complete(process_id="p", outcome=o, authority=a) for o in OUTCOMES for a in AUTHORITIES]
    return found


COMMANDS = commands()
