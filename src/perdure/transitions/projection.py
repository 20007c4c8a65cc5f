"""What a store needs to know of a row to find it again: plain columns, computed here so that no store decides."""

from __future__ import annotations

import msgspec

from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition


def lane(queue: str, definition: Definition) -> str:
    """Rows that the same claims can take stand in one lane."""
    return f"{queue}|{definition.engine}/{definition.name}@{definition.version}"


class Projection(msgspec.Struct, frozen=True):
    """Where the row is found. Times are wall milliseconds; None keeps the row out of that search.

    `ready_at_ms`: claimable from then on. `deadline_at_ms`: a settling pass must look at it then. `settle_at_ms`: its
    end has consequences that wait.
    """

    lane: str
    priority: int
    status: str
    ready_at_ms: int | None
    deadline_at_ms: int | None
    settle_at_ms: int | None


def project(record: ProcessRecord) -> Projection:
    registration, state = record.registration, record.state
    parked = state.status in ("pending", "waiting") and registration.recovery != "externally_owned"
    ours = parked and state.admitted is None and state.abandon_request is None
    return Projection(
        lane(registration.queue, registration.definition),
        registration.priority,
        state.status,
        state.due_at_ms if ours else None,
        record.deadline_at_ms if ours else None,
        state.settle_due_at_ms,
    )


class LeaseProjection(msgspec.Struct, frozen=True):
    """Where a leased row is found once its lease has lapsed.

    `lane`: claimable then. `settle_at_ms`: from then on (0: at once) a settling pass must look at it.
    """

    lane: str | None
    settle_at_ms: int | None


def project_lease(record: ProcessRecord, lease: Lease) -> LeaseProjection:
    registration, state = record.registration, record.state
    if state.abandon_request is not None:
        return LeaseProjection(None, 0)
    if registration.recovery != "rerunnable":
        return LeaseProjection(None, None)
    return LeaseProjection(lane(registration.queue, registration.definition), record.deadline_at_ms)
