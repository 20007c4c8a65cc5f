"""F.1: every (status x command x authority) is decided or refused, and a decision keeps what must be kept."""

from __future__ import annotations

import pytest

from perdure.errors import PerdureError
from perdure.model.events import LIFECYCLE
from perdure.transitions.claims import Ended, Granted, Skipped, decide_claim
from perdure.transitions.commands import AppendEvent, ClaimNext, LeaseRight, Register, RowCommand
from perdure.transitions.decide import decide
from perdure.transitions.decision import Decision, Drop, Put, Standing, applied_facts
from tests.unit.asked import COMMANDS, KEYS
from tests.unit.situations import NOW, OUTSIDE, WORK, B, raw, standings

STANDINGS = standings()


def check(standing: Standing, command: RowCommand, decided: object) -> None:
    """What holds of any answer, whoever asked what of whom."""
    if isinstance(decided, PerdureError):
        return
    assert isinstance(decided, Decision)
    if standing.record is None:
        assert isinstance(command, Register)
        assert decided.base is not None
        return
    before, after = standing.record, applied_facts(standing.record, decided.facts, NOW)
    assert decided.base is None
    if decided.answer != "applied":
        assert decided.facts == ()
    if before.outcome is not None:
        assert after.outcome == before.outcome
        assert after.status == before.status
    assert after.state.fence >= before.state.fence
    if after.is_terminal and not before.is_terminal:
        assert standing.lease is None or isinstance(decided.lease, Drop)
    if isinstance(decided.lease, Put):
        assert standing.lease is not None
        assert decided.lease.lease.fence >= standing.lease.fence


@pytest.mark.parametrize("name", STANDINGS)
def test_every_command_on_this_row_is_decided_or_refused_by_a_typed_error(name: str) -> None:
    for command in COMMANDS:
        check(STANDINGS[name], command, decide(STANDINGS[name], command, NOW))


def test_the_grid_meets_every_status_and_every_kind_of_command() -> None:
    statuses = {standing.record.status for standing in STANDINGS.values() if standing.record is not None}
    assert statuses == {"pending", "running", "waiting", "completed", "failed", "caller_departed"}
    assert {type(command) for command in COMMANDS} == {RowCommand, *RowCommand.__subclasses__()}


def test_every_lifecycle_fact_is_written_by_some_pair_of_the_grid() -> None:
    written = {
        fact.type
        for standing in STANDINGS.values()
        for command in COMMANDS
        if isinstance(decided := decide(standing, command, NOW), Decision)
        for fact in decided.facts
    }
    settled_by_its_own_test = {"process.settled", "process.awaited"}
    assert written >= set(LIFECYCLE) - settled_by_its_own_test


@pytest.mark.parametrize("name", STANDINGS)
def test_only_the_holder_of_the_live_lease_may_write_as_the_execution_of_a_row(name: str) -> None:
    standing = STANDINGS[name]
    held = name.split(": ")[-1] in ("running", "running, cancel requested", "running, abandon requested")
    for who, key in KEYS.items():
        command = AppendEvent(process_id="p", type="note", payload=raw("1"), execution=LeaseRight(key))
        decided = decide(standing, command, NOW)
        assert isinstance(decided, Decision) == (held and who == "the holder's"), who


CLAIM = ClaimNext(claim_id="claim-9", token="token-9", owner=B, limit=1, ttl_ms=15_000, definitions=(WORK, OUTSIDE))
CLAIMABLE = {
    "rerunnable: pending": "granted", "owner_bound: pending": "granted",
    "rerunnable: pending, retry due later": "not_due", "owner_bound: pending, retry due later": "not_due",
    "rerunnable: pending, cancel requested": "not_due", "owner_bound: pending, cancel requested": "not_due",
    "rerunnable: pending, admitted": "admitted", "owner_bound: pending, admitted": "admitted",
    "rerunnable: running in an engine": "admitted", "owner_bound: running in an engine": "admitted",
    "rerunnable: running": "leased", "owner_bound: running": "leased",
    "rerunnable: running, lapsed": "granted", "owner_bound: running, lapsed": "owner_bound",
    "rerunnable: running, released": "granted", "owner_bound: running, released": "owner_bound",
    "rerunnable: running, released with a hold": "leased", "owner_bound: running, released with a hold": "leased",
    "rerunnable: running, of another boot": "granted", "owner_bound: running, of another boot": "owner_bound",
    "rerunnable: running, cancel requested": "leased", "owner_bound: running, cancel requested": "leased",
    "rerunnable: running, abandon requested": "abandon_requested",
    "owner_bound: running, abandon requested": "abandon_requested",
    "rerunnable: running, abandon requested and lapsed": "abandon_requested",
    "owner_bound: running, abandon requested and lapsed": "abandon_requested",
    "rerunnable: waiting in an engine": "admitted", "owner_bound: waiting in an engine": "admitted",
    "rerunnable: waiting": "not_due", "owner_bound: waiting": "not_due",
    "rerunnable: waiting, signalled": "granted", "owner_bound: waiting, signalled": "granted",
    "rerunnable: completed": "ended", "owner_bound: completed": "ended",
    "rerunnable: failed": "ended", "owner_bound: failed": "ended",
    "externally_owned: pending": "externally_owned", "externally_owned: caller departed": "ended",
    "unknown": "unknown",
}  # fmt: skip


def test_a_claim_decides_about_every_row_as_the_table_says() -> None:
    assert set(CLAIMABLE) == set(STANDINGS)
    for name, expected in CLAIMABLE.items():
        match decide_claim(STANDINGS[name], CLAIM, NOW, {}):
            case Granted():
                found = "granted"
            case Ended():
                found = "ended instead"
            case Skipped(because):
                found = because
        assert found == expected, name
