"""Requests to change a process, and what is answered. `decide` turns a command into events or refuses it."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.model.events import Event
from perdure.model.leases import DeathProof, Lease, LeaseKey, Owner
from perdure.model.outcomes import ErrorDetail, Outcome
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition, Registration
from perdure.model.waits import Wait

# --- who acts --------------------------------------------------------------------------------------------------


class WorkflowKey(msgspec.Struct, frozen=True, gc=False, tag="workflow_key"):
    """An engine's right to a row that was admitted to it under `key`; `invocation_id` names the engine's run."""

    process_id: str
    key: str
    invocation_id: str = ""


class ExternalOwner(msgspec.Struct, frozen=True, gc=False, tag="external_owner"):
    """The owner of an externally_owned process, by a name of its own."""

    name: str


class ReconciledAbandon(msgspec.Struct, frozen=True, gc=False, tag="reconciled_abandon"):
    """An operator's or a reconciler's right to end work that nobody will bring to another end."""

    by: str


class LeaseRight(msgspec.Struct, frozen=True, gc=False, tag="lease"):
    """The right of the holder of a lease."""

    key: LeaseKey

    @property
    def process_id(self) -> str:
        return self.key.process_id


Execution = LeaseRight | WorkflowKey
"""Whoever runs the code of a row: it may start, suspend, journal, retry and complete."""

CompletionAuthority = LeaseRight | WorkflowKey | ExternalOwner | ReconciledAbandon

# --- commands that touch the one row they name -----------------------------------------------------------------


class RowCommand(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of the commands that change one process. `operation_id` names the call: asked again, it answers again."""

    process_id: str
    operation_id: str | None = None


class Register(RowCommand, frozen=True, gc=False, kw_only=True):
    registration: Registration


class Start(RowCommand, frozen=True, gc=False, kw_only=True):
    """An engine enters the code of an admitted row (a worker's claim is its own start)."""

    execution: WorkflowKey
    owner: Owner


class AppendEvent(RowCommand, frozen=True, gc=False, kw_only=True):
    """Append one event: fenced when an execution writes it, free for a host's own event types.

    Only an execution may write the journal's types; nobody writes lifecycle or signal types this way.
    """

    type: str
    payload: msgspec.Raw
    replay_key: str | None = None
    execution: Execution | None = None


class Signal(RowCommand, frozen=True, gc=False, kw_only=True):
    name: str
    payload: msgspec.Raw
    signal_id: str | None = None


class Suspend(RowCommand, frozen=True, gc=False, kw_only=True):
    execution: Execution
    waits: tuple[Wait, ...]


class Wake(RowCommand, frozen=True, gc=False, kw_only=True):
    wait: Wait
    cause: str


class ScheduleRetry(RowCommand, frozen=True, gc=False, kw_only=True):
    execution: Execution
    error: ErrorDetail
    due_at_ms: int


class Complete(RowCommand, frozen=True, gc=False, kw_only=True):
    outcome: Outcome
    authority: CompletionAuthority


class Release(RowCommand, frozen=True, gc=False, kw_only=True):
    """Give the lease back. `hold_ms` keeps the row from being claimed for that long (backoff).

    `not_entered` says that the owner knows that no user code was entered: the start is withdrawn.
    """

    key: LeaseKey
    not_entered: str | None = None
    hold_ms: int = 0


class RequestCancel(RowCommand, frozen=True, gc=False, kw_only=True):
    reason: str
    by: str | None = None


class RequestAbandon(RowCommand, frozen=True, gc=False, kw_only=True):
    by: str
    reason: str


class RecordCallerDeparture(RowCommand, frozen=True, gc=False, kw_only=True):
    reason: str = ""


class SetExternalRef(RowCommand, frozen=True, gc=False, kw_only=True):
    ref: str


class Admit(RowCommand, frozen=True, gc=False, kw_only=True):
    workflow_key: str


SettleWhy = Literal["reconciled_request", "deaths_exhausted", "deadline", "cancelled_unowned"]


class ClaimToSettle(RowCommand, frozen=True, gc=False, kw_only=True):
    """End a row that nobody runs, for a reason the record itself bears out. Enters no code."""

    why: SettleWhy
    by: Owner
    proofs: tuple[DeathProof, ...] = ()


class Settle(RowCommand, frozen=True, gc=False, kw_only=True):
    """What had to follow this row's end in other rows has been done, as it stood at `served_sequence`, the last of the
    log that was looked at. If more was said since, somebody may have begun to wait for the end: nothing is settled."""

    served_sequence: int


class AwaitEnd(RowCommand, frozen=True, gc=False, kw_only=True):
    """Somebody is suspended on this row's end, in the same transaction. If the row has ended, what follows may have
    been done before there was anybody to wake: it is to be done once more."""


# --- commands over a set of rows -------------------------------------------------------------------------------


class ClaimNext(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Claim and start up to `limit` rows of the given definitions and queues, in order of priority, due time, id.

    `claim_id` names the call: asked again it returns the rows whose leases carry it and claims nothing new.
    `token` is the secret of the leases made. `proofs` void the leases of incarnations proved dead.
    """

    claim_id: str
    token: str
    owner: Owner
    limit: int
    ttl_ms: int
    definitions: tuple[Definition, ...]
    queues: tuple[str, ...] = ("default",)
    proofs: tuple[DeathProof, ...] = ()


class Renew(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Extend many leases at once; each is answered by itself."""

    keys: tuple[LeaseKey, ...]
    ttl_ms: int


class ReportedProgress(msgspec.Struct, frozen=True, gc=False):
    """How far a run has come, under its lease."""

    key: LeaseKey
    progress: Progress


class ReportProgress(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Write how far many runs have come, beside their logs: no record changes. What a stale owner says is dropped."""

    reports: tuple[ReportedProgress, ...]


SetCommand = ClaimNext | Renew | ReportProgress
Command = RowCommand | SetCommand

# --- answers ---------------------------------------------------------------------------------------------------

Answer = Literal["applied", "unchanged", "already_applied", "superseded", "still_runnable"]
"""applied: events were written · unchanged: what was asked stands already · already_applied and superseded: the
process has ended, with this outcome or another · still_runnable: a wait is already met, nothing was suspended."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a row command did: the record as it stands after it, and the events it wrote.

    `replayed`: they were written before, by the same operation or under the same key.
    """

    process_id: str
    answer: Answer
    record: ProcessRecord
    events: tuple[Event, ...] = ()
    lease: Lease | None = None
    replayed: bool = False


class Claimed(msgspec.Struct, frozen=True, gc=False):
    record: ProcessRecord
    lease: Lease


class ClaimReceipt(msgspec.Struct, frozen=True, gc=False):
    """`claimed` are started and leased to the caller; `ended` were ended instead. `scanned` were looked at."""

    claimed: tuple[Claimed, ...]
    ended: tuple[ProcessRecord, ...] = ()
    events: tuple[Event, ...] = ()
    scanned: int = 0


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """What became of one lease: `held` (with the new expiry) or superseded; whether a cancel was requested."""

    process_id: str
    held: bool
    lease: Lease | None = None
    cancel_reason: str | None = None
    cancel_by: str | None = None


class RenewReceipt(msgspec.Struct, frozen=True, gc=False):
    renewals: tuple[Renewal, ...]


class ProgressReceipt(msgspec.Struct, frozen=True, gc=False):
    """Of each report, in order, whether it was accepted."""

    accepted: tuple[bool, ...]


AnyReceipt = Receipt | ClaimReceipt | RenewReceipt | ProgressReceipt
