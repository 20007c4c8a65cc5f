"""The facts of a process's log. Every transition is one of them; the record is their fold."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from perdure.model.leases import DeathProof, Owner
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Failed
from perdure.model.registration import NULL
from perdure.model.waits import Wait

RUNTIME_PREFIXES: tuple[str, ...] = (
    "process.", "signal.", "step.", "timer.", "wait.", "race.", "cancel.", "child.", "version.", "value.",
)  # fmt: skip
JOURNAL_PREFIXES: tuple[str, ...] = ("step.", "timer.", "wait.", "race.", "cancel.", "child.", "version.", "value.")


CHILD_STARTED = "child.started"
"""The journal's type that the fold counts: a process with children has something to settle when it ends."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One entry of a log, as readers see it. Sequences are 1, 2, 3 … per process, without gaps."""

    process_id: str
    sequence: int
    type: str
    payload: msgspec.Raw
    at_ms: int
    replay_key: str | None = None
    operation_id: str | None = None
    operation_hash: str | None = None


class Fact(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a runtime event says. Its type is written beside it, so a reader can skip what it doesn't know."""

    TYPE: ClassVar[str] = ""

    @property
    def type(self) -> str:
        return self.TYPE


class Takeover(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The owner a row was taken over from: why that was right, and whether it counts as a death."""

    owner: Owner
    fence: int
    cause: Literal["lapsed", "proved_dead", "released"]
    proof: DeathProof | None = None


class ProcessStarted(Fact, frozen=True, gc=False):
    TYPE = "process.started"
    owner: Owner
    fence: int
    attempt: int
    claim_id: str
    takeover: Takeover | None = None
    workflow_key: str | None = None


class StartWithdrawn(Fact, frozen=True, gc=False):
    TYPE = "process.start_withdrawn"
    fence: int
    reason: str
    due_at_ms: int


class ProcessAdmitted(Fact, frozen=True, gc=False):
    TYPE = "process.admitted"
    workflow_key: str


class ProcessWaiting(Fact, frozen=True, gc=False):
    TYPE = "process.waiting"
    waits: tuple[Wait, ...]
    fence: int


class ProcessResumed(Fact, frozen=True, gc=False):
    TYPE = "process.resumed"
    owner: Owner
    fence: int
    attempt: int
    claim_id: str
    workflow_key: str | None = None


class ProcessWoken(Fact, frozen=True, gc=False):
    TYPE = "process.woken"
    wait: Wait
    cause: str


class RetryScheduled(Fact, frozen=True, gc=False):
    TYPE = "process.retry_scheduled"
    error: ErrorDetail
    failures: int
    due_at_ms: int
    fence: int


class CancelRequested(Fact, frozen=True, gc=False):
    TYPE = "process.cancel_requested"
    reason: str
    by: str | None = None


class AbandonRequested(Fact, frozen=True, gc=False):
    TYPE = "process.abandon_requested"
    by: str
    reason: str


class ExternalRefSet(Fact, frozen=True, gc=False):
    TYPE = "process.external_ref_set"
    ref: str


class CallerDeparture(Fact, frozen=True, gc=False):
    TYPE = "process.caller_departed"
    reason: str = ""


class ProcessSettled(Fact, frozen=True, gc=False):
    """What had to follow the end in other rows has been done."""

    TYPE = "process.settled"


class ProcessAwaited(Fact, frozen=True, gc=False):
    """Somebody was suspended on the end after it was written: what follows is to be done, or done once more."""

    TYPE = "process.awaited"


Authority = Literal["lease", "workflow_key", "external_owner", "reconciled_abandon", "registry"]


class ProcessEnd(Fact, frozen=True, gc=False):
    """Base of the four terminal facts: under which authority the end was written, and by whom."""

    authority: Authority
    fence: int = 0
    by: str | None = None


class ProcessCompleted(ProcessEnd, frozen=True, gc=False):
    TYPE = "process.completed"
    value: msgspec.Raw = NULL

    @property
    def outcome(self) -> Completed:
        return Completed(self.value)


class ProcessFailed(ProcessEnd, frozen=True, gc=False, kw_only=True):
    TYPE = "process.failed"
    error: ErrorDetail

    @property
    def outcome(self) -> Failed:
        return Failed(self.error)


class ProcessCancelled(ProcessEnd, frozen=True, gc=False, kw_only=True):
    TYPE = "process.cancelled"
    reason: str = ""
    requested_by: str | None = None

    @property
    def outcome(self) -> Cancelled:
        return Cancelled(self.reason, self.requested_by)


class ProcessAbandoned(ProcessEnd, frozen=True, gc=False, kw_only=True):
    TYPE = "process.abandoned"
    outcome: Abandoned


class SignalReceived(Fact, frozen=True, gc=False, kw_only=True):
    name: str
    signal_id: str | None = None
    payload: msgspec.Raw = NULL

    @property
    def type(self) -> str:
        return f"signal.{self.name}"


class Written(msgspec.Struct, frozen=True, gc=False):
    """An event whose payload the runtime doesn't interpret: a user's own, or an entry of the journal."""

    type: str
    payload: msgspec.Raw

    @property
    def is_journal(self) -> bool:
        return self.type.startswith(JOURNAL_PREFIXES)


AnyFact = Fact | Written

LIFECYCLE: dict[str, type[Any]] = {
    kind.TYPE: kind
    for kind in (
        ProcessStarted, StartWithdrawn, ProcessAdmitted, ProcessWaiting, ProcessResumed, ProcessWoken, RetryScheduled,
        CancelRequested, AbandonRequested, ExternalRefSet, CallerDeparture, ProcessSettled, ProcessAwaited,
        ProcessCompleted, ProcessFailed, ProcessCancelled, ProcessAbandoned,
    )
}  # fmt: skip
"""Every lifecycle event type, with the class of its payload."""
