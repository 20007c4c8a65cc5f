"""The authority table (design, section 6), cell by cell, and what is said of who ended a process."""

from __future__ import annotations

import pytest

from perdure.errors import LeaseHeld, LeaseSuperseded, NotPermitted
from perdure.model.events import ProcessAdmitted
from perdure.model.outcomes import Abandoned, Cancelled, Completed, ErrorDetail, Evidence, Failed, Outcome
from perdure.model.registration import Recovery
from perdure.transitions.authority import MAY_COMPLETE, authority_by, check_authority
from perdure.transitions.commands import Complete, ExternalOwner, LeaseRight, ReconciledAbandon, WorkflowKey
from perdure.transitions.decide import decide
from perdure.transitions.decision import DROP, Decision, Standing
from tests.unit.situations import DONE, NOW, STARTED, lease, raw, record, registration, started

ENDS: dict[str, Outcome] = {
    "completed": Completed(raw("1")),
    "failed": Failed(ErrorDetail("E")),
    "cancelled": Cancelled("enough"),
    "abandoned": Abandoned(Evidence("engine")),
}
EVERY = tuple(ENDS)
BY_KEY, OWNER, ABANDON = WorkflowKey("p", "w", "i-1"), ExternalOwner("outside"), ReconciledAbandon("operator")


@pytest.mark.parametrize(
    ("authority", "recovery", "accepted"),
    [
        (OWNER, "rerunnable", ()),
        (OWNER, "owner_bound", ()),
        (OWNER, "externally_owned", EVERY),
        (BY_KEY, "rerunnable", EVERY),
        (BY_KEY, "owner_bound", EVERY),
        (BY_KEY, "externally_owned", ()),
        (WorkflowKey("p", "another"), "rerunnable", ()),
        (WorkflowKey("p", "another"), "owner_bound", ()),
        (ABANDON, "rerunnable", ()),
        (ABANDON, "owner_bound", ()),
        (ABANDON, "externally_owned", ("abandoned",)),
    ],
)
def test_each_authority_may_give_exactly_these_outcomes(
    authority: WorkflowKey | ExternalOwner | ReconciledAbandon, recovery: Recovery, accepted: tuple[str, ...]
) -> None:
    admitted = record(registration(recovery), ProcessAdmitted("w"))
    for name, outcome in ENDS.items():
        refused = check_authority(admitted, authority, outcome)
        assert (refused is None) == (name in accepted), name
        assert refused is None or isinstance(refused, NotPermitted)


@pytest.mark.parametrize("recovery", ["rerunnable", "owner_bound"])
def test_a_workflow_key_is_worth_nothing_on_a_row_that_was_not_admitted(recovery: Recovery) -> None:
    for outcome in ENDS.values():
        refused = check_authority(record(registration(recovery)), BY_KEY, outcome)
        assert isinstance(refused, NotPermitted)
        assert "not admitted under that key" in refused.disposition


def test_the_table_has_every_cell() -> None:
    assert MAY_COMPLETE == {
        "external_owner": {"rerunnable": False, "owner_bound": False, "externally_owned": True},
        "workflow_key": {"rerunnable": True, "owner_bound": True, "externally_owned": False},
        "reconciled_abandon": {"rerunnable": False, "owner_bound": False, "externally_owned": True},
    }


def test_the_terminal_event_names_who_wrote_it() -> None:
    assert authority_by(BY_KEY) == "i-1"
    assert authority_by(WorkflowKey("p", "w")) == "w"
    assert authority_by(OWNER) == "outside"
    assert authority_by(ABANDON) == "operator"


def test_the_holder_of_the_lease_ends_the_process_and_gives_the_lease_up_in_one_decision() -> None:
    standing = Standing(record(registration(), STARTED), lease())
    decided = decide(
        standing, Complete(process_id="p", outcome=ENDS["completed"], authority=LeaseRight(lease().key)), NOW
    )
    assert decided == Decision("applied", (DONE,), DROP)


def test_an_external_owner_waits_for_a_live_lease_to_lapse() -> None:
    """No lease can stand on such a row by any command; a store that holds one anyway is not walked over."""
    outside = record(registration("externally_owned"))
    command = Complete(process_id="p", outcome=ENDS["completed"], authority=OWNER)
    refused = decide(Standing(outside, lease()), command, NOW)
    assert isinstance(refused, LeaseHeld)
    assert (refused.holder, refused.expires_at_ms) == ("a", 105_000)
    assert isinstance(decide(Standing(outside, lease(left_ms=0)), command, NOW), Decision)


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [(Completed(raw("1")), "already_applied"), (Completed(raw("2")), "superseded"), (Cancelled("no"), "superseded")],
)
def test_after_the_end_the_holder_is_told_how_its_own_write_fared(outcome: Outcome, answer: str) -> None:
    standing = Standing(record(registration(), STARTED, DONE))
    command = Complete(process_id="p", outcome=outcome, authority=LeaseRight(lease().key))
    assert decide(standing, command, NOW) == Decision(answer)  # type: ignore[arg-type]


def test_after_the_end_a_stale_holder_is_refused_even_with_an_equal_outcome() -> None:
    standing = Standing(record(registration(), STARTED, started(2, 2), DONE))
    command = Complete(process_id="p", outcome=Completed(raw("1")), authority=LeaseRight(lease().key))
    refused = decide(standing, command, NOW)
    assert isinstance(refused, LeaseSuperseded)
    assert (refused.presented_fence, refused.standing_fence) == (1, 2)
