"""What a store needs to know of a row to find it again: plain columns, computed here so that no store decides."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition


@lru_cache(maxsize=4_096)
def lane(queue: str, definition: Definition) -> str:
    """Rows that the same claims can take stand in one lane."""
    return f"{queue}|{definition.engine}/{definition.name}@{definition.version}"


class Projection(msgspec.Struct, frozen=True, gc=False):
    """When the row must be found. Wall milliseconds; None keeps the row out of that search.

    `ready_at_ms`: claimable from then on. `deadline_at_ms`: a settling pass must look at it then (0: at once).
    `settle_at_ms`: its end has consequences that wait.
    """

    ready_at_ms: int | None
    deadline_at_ms: int | None
    settle_at_ms: int | None


RESTING = Projection(None, None, None)
TO_BE_ENDED = Projection(None, 0, None)


def project(record: ProcessRecord) -> Projection:
    state = record.state
    if state.status == "pending" or state.status == "waiting":
        if state.admitted is not None or record.registration.recovery == "externally_owned":
            return RESTING
        if state.abandon_request is not None:  # given back by its owner after the request: nobody else will end it
            return TO_BE_ENDED
        return Projection(state.due_at_ms, record.deadline_at_ms, None)
    return RESTING if state.settle_due_at_ms is None else Projection(None, None, state.settle_due_at_ms)


class LeaseProjection(msgspec.Struct, frozen=True, gc=False):
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
