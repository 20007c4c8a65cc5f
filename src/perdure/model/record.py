"""The record of a process: the fold of its registration and its events."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.model.leases import Owner
from perdure.model.outcomes import Outcome
from perdure.model.registration import Registration
from perdure.model.waits import Wait

Status = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "abandoned", "caller_departed"]

LIVE: frozenset[str] = frozenset({"pending", "running", "waiting"})
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "abandoned"})
STATUSES: tuple[Status, ...] = (
    "pending", "running", "waiting", "completed", "failed", "cancelled", "abandoned", "caller_departed",
)  # fmt: skip


class Started(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The standing start: who entered the code, under which fence, as which attempt."""

    owner: Owner
    fence: int
    attempt: int
    at_ms: int
    claim_id: str
    workflow_key: str | None = None
    resumed: bool = False


class CancelRequest(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    reason: str
    by: str | None
    at_ms: int


class AbandonRequest(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    by: str
    reason: str
    at_ms: int


class ProcessState(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="v", tag=1):
    """What the events say, folded. Times are milliseconds since the epoch.

    `attempt` counts starts (a name, never limited); `failures` counts raises (limited by the retry policy); `deaths`
    counts owners lost after entry (limited by `max_deaths`; 0 again after a journal event).
    """

    status: Status = "pending"
    attempt: int = 0
    failures: int = 0
    deaths: int = 0
    fence: int = 0
    started: Started | None = None
    waits: tuple[Wait, ...] = ()
    signals: dict[str, int] = {}
    children: int = 0
    due_at_ms: int | None = None
    settle_due_at_ms: int | None = None
    cancel_request: CancelRequest | None = None
    abandon_request: AbandonRequest | None = None
    admitted: str | None = None
    external_ref: str | None = None
    outcome: Outcome | None = None
    created_at_ms: int
    updated_at_ms: int
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    last_sequence: int = 0


class ProcessRecord(msgspec.Struct, frozen=True, gc=False):
    """One process as it stands: what was declared, and what has happened."""

    registration: Registration
    state: ProcessState

    @property
    def id(self) -> str:
        return self.registration.id

    @property
    def status(self) -> Status:
        return self.state.status

    @property
    def attempt(self) -> int:
        return self.state.attempt

    @property
    def outcome(self) -> Outcome | None:
        return self.state.outcome

    @property
    def is_terminal(self) -> bool:
        return self.state.outcome is not None

    @property
    def is_live(self) -> bool:
        return self.state.status in LIVE

    @property
    def deadline_at_ms(self) -> int | None:
        """When the declared deadline passes, or None if none was declared."""
        after_ms = self.registration.deadline_ms
        return None if after_ms is None else self.state.created_at_ms + after_ms
