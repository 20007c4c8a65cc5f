"""Strategies for every command there is, about few enough processes that they meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from perdure.model.leases import DeathProof, LeaseKey, Owner
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.registration import Definition, Registration, RetryPolicy
from perdure.model.waits import ChildWait, SignalWait, TimerWait, Wait
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    AwaitEnd,
    ClaimNext,
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
    Signal,
    Start,
    Suspend,
    Wake,
    WorkflowKey,
)

TTL_MS = 15_000
IDS = ("p-1", "P-1", "p-2", "p-3")
OWNERS = tuple(Owner(name, f"{name}-1") for name in ("a", "b"))
DEFINITIONS = (Definition("python", "work"), Definition("python", "work", 2))
EXTERNAL = Definition("external", "outside")
ERROR = ErrorDetail("ValueError", "no", attempt=1)

RAWS = tuple(msgspec.Raw(text) for text in (b"null", b"1", b'{"a":1}', b'"text"'))
OUTCOMES: tuple[Outcome, ...] = (
    Completed(RAWS[0]), Completed(RAWS[1]), Failed(ERROR), Cancelled("enough", "them"),
    Abandoned(Evidence("engine", "e", 1, "seen dead")),
)  # fmt: skip

process_ids = st.sampled_from(IDS)
operation_ids = st.one_of(st.none(), st.none(), st.sampled_from(["op-1", "op-2"]))
raws = st.sampled_from(RAWS)


@st.composite
def registrations(draw: st.DrawFn, id: str) -> Registration:
    """Mostly the same few, so that they are replayed as often as they conflict."""
    recovery = draw(st.sampled_from(["rerunnable", "rerunnable", "owner_bound", "externally_owned"]))
    declared: dict[str, Any] = {"signals": {"go": RAWS[2], "number": msgspec.Raw(b'{"type":"integer"}')}}
    declared["signals"]["go"] = msgspec.Raw(b"{}")
    if recovery != "externally_owned":
        declared["deadline_ms"] = draw(st.sampled_from([None, None, 60_000]))
        declared["delay_ms"] = draw(st.sampled_from([0, 0, 1_000]))
        declared["max_deaths"] = draw(st.sampled_from([None, 0, 1]))
    if recovery == "rerunnable":
        declared["retry"] = draw(st.sampled_from([None, RetryPolicy(3)]))
    declared["priority"] = draw(st.sampled_from([5, 5, 0]))
    declared["parent"] = draw(st.sampled_from([None, None, "p-1"]))
    definition = EXTERNAL if recovery == "externally_owned" else draw(st.sampled_from(DEFINITIONS))
    return Registration(id=id, definition=definition, recovery=recovery, **declared)  # type: ignore[arg-type]


@st.composite
def lease_keys(draw: st.DrawFn, id: str, leases: Sequence[LeaseKey]) -> LeaseKey:
    """One of this process's leases, seldom another's, and never one that nobody was ever given except at first."""
    own = [key for key in leases if key.process_id == id][-4:]
    if own and draw(st.integers(0, 9)) > 0:
        return draw(st.sampled_from(own))
    return draw(st.sampled_from(leases)) if leases else LeaseKey(id, "nobody-1", "no token", 1)


@st.composite
def row_commands(draw: st.DrawFn, leases: Sequence[LeaseKey], now_ms: int) -> RowCommand:
    """Any command that names its row."""
    id = draw(process_ids)
    key = draw(lease_keys(id, leases))
    workflow = WorkflowKey(id, draw(st.sampled_from(["k-1", "k-2"])), "run-1")
    executions: list[Execution] = [LeaseRight(key), LeaseRight(key), LeaseRight(key), workflow]
    execution = draw(st.sampled_from(executions))
    kind = draw(st.sampled_from(KINDS))
    common: dict[str, Any] = {"process_id": id, "operation_id": draw(operation_ids)}
    due_at_ms = now_ms + draw(st.sampled_from([-1, 0, 1_000]))
    waits: list[Wait] = [SignalWait("go", draw(st.integers(1, 2))), TimerWait(due_at_ms), ChildWait("p-2")]
    wait = draw(st.sampled_from(waits))
    if kind is Register:
        return Register(**common, registration=draw(registrations(id)))
    if kind is Start:
        return Start(**common, execution=workflow, owner=draw(st.sampled_from(OWNERS)))
    if kind is AppendEvent:
        types = ["note", "note", "step.completed", "process.completed"]
        fenced = draw(st.sampled_from([None, execution]))
        return AppendEvent(
            **common, type=draw(st.sampled_from(types)), payload=draw(raws), execution=fenced,
            replay_key=draw(st.sampled_from([None, "k-1", "k-2"])),
        )  # fmt: skip
    if kind is Signal:
        name, signal_id = draw(st.sampled_from(["go", "go", "number", "no"])), draw(st.sampled_from([None, "s-1"]))
        return Signal(**common, name=name, payload=draw(raws), signal_id=signal_id)
    if kind is Suspend:
        return Suspend(**common, execution=execution, waits=(wait,))
    if kind is Wake:
        return Wake(**common, wait=wait, cause="it happened")
    if kind is ScheduleRetry:
        return ScheduleRetry(**common, execution=execution, error=ERROR, due_at_ms=due_at_ms)
    if kind is Complete:
        authorities: list[CompletionAuthority] = [
            execution,
            execution,
            ExternalOwner("them"),
            ReconciledAbandon("operator"),
        ]
        return Complete(**common, outcome=draw(st.sampled_from(OUTCOMES)), authority=draw(st.sampled_from(authorities)))
    if kind is Release:
        return Release(
            **common, key=key, not_entered=draw(st.sampled_from([None, "engine missing"])),
            hold_ms=draw(st.sampled_from([0, 1_000])),
        )  # fmt: skip
    if kind is RequestCancel:
        return RequestCancel(**common, reason=draw(st.sampled_from(["enough", "other"])), by="them")
    if kind is RequestAbandon:
        return RequestAbandon(**common, by="operator", reason="gone")
    if kind is RecordCallerDeparture:
        return RecordCallerDeparture(**common, reason="left")
    if kind is SetExternalRef:
        return SetExternalRef(**common, ref=draw(st.sampled_from(["r-1", "r-2"])))
    if kind is Admit:
        return Admit(**common, workflow_key=workflow.key)
    if kind is ClaimToSettle:
        why = draw(st.sampled_from(["reconciled_request", "deaths_exhausted", "deadline", "cancelled_unowned"]))
        return ClaimToSettle(**common, why=why, by=OWNERS[0], proofs=draw(proofs()))  # type: ignore[arg-type]
    if kind is AwaitEnd:
        return AwaitEnd(**common)
    return Settle(**common, served_sequence=draw(st.integers(1, 12)))


KINDS = (
    Register, Register, Register, Start, AppendEvent, AppendEvent, Signal, Suspend, Suspend, Wake, ScheduleRetry,
    Complete, Complete, Release, RequestCancel, RequestAbandon, RecordCallerDeparture, SetExternalRef, Admit,
    ClaimToSettle, Settle, AwaitEnd,
)  # fmt: skip


def proofs() -> st.SearchStrategy[tuple[DeathProof, ...]]:
    """Seldom a proof that the second owner is dead."""
    dead = DeathProof(OWNERS[1].incarnation, "pid_gone", "no such process")
    return st.sampled_from([(), (), (), (dead,)])


@st.composite
def claims(draw: st.DrawFn, name: str, limits: Sequence[int]) -> ClaimNext:
    """A claim; its id is new, or one that claims before it may have had."""
    claim_id = draw(st.sampled_from([name, name, "claim-1"]))
    definitions = draw(st.sampled_from([DEFINITIONS, DEFINITIONS, DEFINITIONS[:1]]))
    dead = draw(proofs())
    owner = OWNERS[0] if dead else draw(st.sampled_from(OWNERS))  # the dead don't claim
    return ClaimNext(
        claim_id=claim_id, token=f"token-{name}", owner=owner, limit=draw(st.sampled_from(limits)), ttl_ms=TTL_MS,
        definitions=definitions, proofs=dead,
    )  # fmt: skip
