"""Who may end a process without holding its lease. One table, checked before anything else about an outcome."""

from __future__ import annotations

from typing import assert_never

from perdure.errors import NotPermitted
from perdure.model.events import Authority
from perdure.model.outcomes import Abandoned, Outcome
from perdure.model.record import ProcessRecord
from perdure.model.registration import Recovery
from perdure.transitions.commands import ExternalOwner, ReconciledAbandon, WorkflowKey

Unleased = WorkflowKey | ExternalOwner | ReconciledAbandon

MAY_COMPLETE: dict[Authority, dict[Recovery, bool]] = {
    "external_owner": {"rerunnable": False, "owner_bound": False, "externally_owned": True},
    "workflow_key": {"rerunnable": True, "owner_bound": True, "externally_owned": False},
    "reconciled_abandon": {"rerunnable": False, "owner_bound": False, "externally_owned": True},
}


def check_authority(record: ProcessRecord, authority: Unleased, outcome: Outcome) -> NotPermitted | None:
    """None if this authority may give this process this outcome; else the refusal."""
    name = authority_name(authority)
    recovery = record.registration.recovery
    asked = f"record {type(outcome).__name__} for"
    allowed = MAY_COMPLETE[name][recovery]
    match authority:
        case WorkflowKey():
            admitted = record.state.admitted
            if allowed and admitted != authority.key:
                return NotPermitted(record.id, f"workflow key {authority.key!r}", "not admitted under that key", asked)
        case ReconciledAbandon():
            allowed = allowed and isinstance(outcome, Abandoned)
        case ExternalOwner():
            pass
        case _:
            assert_never(authority)
    return None if allowed else NotPermitted(record.id, name, recovery, asked)


def authority_name(authority: Unleased) -> Authority:
    match authority:
        case WorkflowKey():
            return "workflow_key"
        case ExternalOwner():
            return "external_owner"
        case ReconciledAbandon():
            return "reconciled_abandon"


def authority_by(authority: Unleased) -> str:
    """The name that goes onto the terminal event."""
    match authority:
        case WorkflowKey():
            return authority.invocation_id or authority.key
        case ExternalOwner():
            return authority.name
        case ReconciledAbandon():
            return authority.by
