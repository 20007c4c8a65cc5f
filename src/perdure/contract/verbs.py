"""The contract by name: one thin function per command, over `Commands.execute`, for every store alike.

Each builds its command, executes it, and returns the receipt or raises the typed refusal; the rules are in
`perdure.transitions`. Payloads are plain JSON values (dict, list, str, int, float, bool, None), written canonically
here; a `msgspec.Raw` is taken for canonical text as it stands.

`operation_id` names the call: asked again with the same arguments it answers again with the same events, also after
an answer was lost.
"""

from __future__ import annotations

import msgspec

from perdure import canonical
from perdure.contract.registry import Commands
from perdure.model.events import Event
from perdure.model.leases import DeathProof, LeaseKey, Owner
from perdure.model.outcomes import Completed, ErrorDetail, Outcome
from perdure.model.registration import Definition, Registration
from perdure.model.waits import Wait
from perdure.transitions.commands import (
    Admit,
    AppendEvent,
    AwaitEnd,
    ClaimNext,
    ClaimReceipt,
    ClaimToSettle,
    Complete,
    CompletionAuthority,
    Execution,
    ProgressReceipt,
    Receipt,
    RecordCallerDeparture,
    Register,
    Release,
    Renew,
    RenewReceipt,
    ReportedProgress,
    ReportProgress,
    RequestAbandon,
    RequestCancel,
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


def as_raw(value: object) -> msgspec.Raw:
    """The canonical text of a plain JSON value. Raises InvalidPayload with the path of what can't be stored."""
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(canonical.encode(value))


def completed(value: object = None) -> Completed:
    """The outcome of code that returned this value."""
    return Completed(as_raw(value))


# --- the life of a process -------------------------------------------------------------------------------------


async def register(registry: Commands, registration: Registration, *, operation_id: str | None = None) -> Receipt:
    """Make the process. The same content again is the same process; other content raises RegistrationConflict."""
    return await registry.execute(
        Register(process_id=registration.id, registration=registration, operation_id=operation_id)
    )


async def append_event(
    registry: Commands,
    process_id: str,
    event_type: str,
    payload: object = None,
    *,
    replay_key: str | None = None,
    execution: Execution | None = None,
    operation_id: str | None = None,
) -> Event:
    """Append one event and return it as it stands in the log.

    With `replay_key` the same content again is the same event, and other content raises ReplayKeyConflict. With
    `execution` the write is fenced: it raises LeaseSuperseded once another owner has the row.
    """
    receipt: Receipt = await registry.execute(
        AppendEvent(
            process_id=process_id, type=event_type, payload=as_raw(payload), replay_key=replay_key,
            execution=execution, operation_id=operation_id,
        )
    )  # fmt: skip
    return receipt.events[0]


async def signal(
    registry: Commands,
    process_id: str,
    name: str,
    payload: object = None,
    *,
    signal_id: str | None = None,
    operation_id: str | None = None,
) -> Event:
    """Accept a signal that the registration declares; once accepted it is in the log.

    With `signal_id` the same signal again is the same event.
    """
    receipt: Receipt = await registry.execute(
        Signal(
            process_id=process_id, name=name, payload=as_raw(payload), signal_id=signal_id, operation_id=operation_id
        )
    )
    return receipt.events[0]


async def complete(
    registry: Commands,
    process_id: str,
    outcome: Outcome,
    authority: CompletionAuthority,
    *,
    operation_id: str | None = None,
) -> Receipt:
    """End the process under this authority. Its first outcome stands for ever.

    `answer` says how this one fared: applied, already_applied (an equal one stands), or superseded (another does).
    Raises LeaseSuperseded or NotPermitted.
    """
    return await registry.execute(
        Complete(process_id=process_id, outcome=outcome, authority=authority, operation_id=operation_id)
    )


# --- what anybody may ask --------------------------------------------------------------------------------------


async def request_cancel(
    registry: Commands, process_id: str, reason: str, *, by: str | None = None, operation_id: str | None = None
) -> Receipt:
    """Ask for a stop; idempotent by reason. A row that nobody runs ends at once."""
    return await registry.execute(RequestCancel(process_id=process_id, reason=reason, by=by, operation_id=operation_id))


async def request_abandon(
    registry: Commands, process_id: str, *, by: str, reason: str, operation_id: str | None = None
) -> Receipt:
    """Give the work up: at once if nobody holds a live lease, else once it has lapsed. The first request stands."""
    return await registry.execute(
        RequestAbandon(process_id=process_id, by=by, reason=reason, operation_id=operation_id)
    )


async def record_caller_departure(
    registry: Commands, process_id: str, reason: str = "", *, operation_id: str | None = None
) -> Receipt:
    """The caller of an externally_owned process is gone; waits for its end are refused until somebody writes it."""
    return await registry.execute(
        RecordCallerDeparture(process_id=process_id, reason=reason, operation_id=operation_id)
    )


async def set_external_ref(
    registry: Commands, process_id: str, ref: str, *, operation_id: str | None = None
) -> Receipt:
    """Write the process's name in another system, once. Another one raises ExternalRefConflict."""
    return await registry.execute(SetExternalRef(process_id=process_id, ref=ref, operation_id=operation_id))


# --- what an execution does ------------------------------------------------------------------------------------


async def claim_next(
    registry: Commands,
    owner: Owner,
    *,
    claim_id: str,
    token: str,
    definitions: tuple[Definition, ...],
    limit: int = 1,
    ttl_ms: int = 15_000,
    queues: tuple[str, ...] = ("default",),
    proofs: tuple[DeathProof, ...] = (),
) -> ClaimReceipt:
    """Lease and start up to `limit` due rows. The same `claim_id` again returns the same rows and claims no more."""
    return await registry.execute(
        ClaimNext(
            claim_id=claim_id, token=token, owner=owner, limit=limit, ttl_ms=ttl_ms, definitions=definitions,
            queues=queues, proofs=proofs,
        )
    )  # fmt: skip


async def renew(registry: Commands, keys: tuple[LeaseKey, ...], ttl_ms: int) -> RenewReceipt:
    """Extend leases; each is answered by itself."""
    return await registry.execute(Renew(keys=keys, ttl_ms=ttl_ms))


async def report_progress(registry: Commands, reports: tuple[ReportedProgress, ...]) -> ProgressReceipt:
    """Write how far runs have come, beside their logs. Each is answered by itself: a stale owner's is dropped."""
    return await registry.execute(ReportProgress(reports=reports))


async def release(
    registry: Commands,
    key: LeaseKey,
    *,
    not_entered: str | None = None,
    hold_ms: int = 0,
    operation_id: str | None = None,
) -> Receipt:
    """Give a lease back; no other claim gets the row for `hold_ms`. `not_entered` withdraws the start itself."""
    return await registry.execute(
        Release(process_id=key.process_id, key=key, not_entered=not_entered, hold_ms=hold_ms, operation_id=operation_id)
    )


async def schedule_retry(
    registry: Commands, execution: Execution, error: ErrorDetail, due_at_ms: int, *, operation_id: str | None = None
) -> Receipt:
    """The code raised and is started again at `due_at_ms` (milliseconds since the epoch), if the policy allows it."""
    return await registry.execute(
        ScheduleRetry(
            process_id=execution.process_id, execution=execution, error=error, due_at_ms=due_at_ms,
            operation_id=operation_id,
        )
    )  # fmt: skip


async def suspend(
    registry: Commands, execution: Execution, waits: tuple[Wait, ...], *, operation_id: str | None = None
) -> Receipt:
    """Park the process in its row. `still_runnable` in the answer: a wait is met already, nothing was written."""
    return await registry.execute(
        Suspend(process_id=execution.process_id, execution=execution, waits=waits, operation_id=operation_id)
    )


async def wake(
    registry: Commands, process_id: str, wait: Wait, cause: str, *, operation_id: str | None = None
) -> Receipt:
    """A wait of a parked process is over: it is due now."""
    return await registry.execute(Wake(process_id=process_id, wait=wait, cause=cause, operation_id=operation_id))


# --- what an engine and a settling pass do ---------------------------------------------------------------------


async def admit(registry: Commands, process_id: str, workflow_key: str, *, operation_id: str | None = None) -> Receipt:
    """Hand a pending row to an engine, before it is submitted there. No worker claims it afterwards."""
    return await registry.execute(Admit(process_id=process_id, workflow_key=workflow_key, operation_id=operation_id))


async def start(
    registry: Commands, execution: WorkflowKey, owner: Owner, *, operation_id: str | None = None
) -> Receipt:
    """An engine enters the code of a row that was admitted to it."""
    return await registry.execute(
        Start(process_id=execution.process_id, execution=execution, owner=owner, operation_id=operation_id)
    )


async def claim_to_settle(
    registry: Commands,
    process_id: str,
    why: SettleWhy,
    by: Owner,
    *,
    proofs: tuple[DeathProof, ...] = (),
    operation_id: str | None = None,
) -> Receipt:
    """End a row that nobody runs, for a reason the record itself bears out; raises NotPermitted if it doesn't."""
    return await registry.execute(
        ClaimToSettle(process_id=process_id, why=why, by=by, proofs=proofs, operation_id=operation_id)
    )


async def settle(
    registry: Commands, process_id: str, served_sequence: int, *, operation_id: str | None = None
) -> Receipt:
    """What had to follow this row's end in other rows has been done, as its log stood up to that sequence."""
    return await registry.execute(
        Settle(process_id=process_id, served_sequence=served_sequence, operation_id=operation_id)
    )


async def await_end(registry: Commands, process_id: str, *, operation_id: str | None = None) -> Receipt:
    """Somebody is suspended on this row's end: if it has ended, what follows is to be done, or done once more."""
    return await registry.execute(AwaitEnd(process_id=process_id, operation_id=operation_id))
