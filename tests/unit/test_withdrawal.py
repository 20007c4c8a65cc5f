"""Giving a start back of which it is known that no code was entered."""

from __future__ import annotations

from perdure.clock import Moment
from perdure.model.events import ProcessResumed, ProcessStarted, ProcessWaiting, StartWithdrawn
from perdure.model.leases import Lease, Owner
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition, Registration
from perdure.model.waits import TimerWait
from perdure.transitions.commands import Release
from perdure.transitions.decide import decide
from perdure.transitions.decision import Decision, Put, Standing, applied_facts
from perdure.transitions.fold import initial_state

NOW = Moment(10_000, 10_000, "boot")
OWNER = Owner("a", "a-1")
LEASE = Lease("p", OWNER, "token", 2, "claim", 9_000, 20_000, "boot", 20_000)


def record_after(*facts: ProcessStarted | ProcessWaiting | ProcessResumed) -> ProcessRecord:
    registration = Registration(id="p", definition=Definition("python", "work"), recovery="rerunnable")
    return applied_facts(ProcessRecord(registration, initial_state(registration, 1_000)), facts, NOW)


def give_back(record: ProcessRecord) -> Decision:
    command = Release(process_id="p", key=LEASE.key, not_entered="engine missing", hold_ms=500)
    decided = decide(Standing(record, LEASE), command, NOW)
    assert isinstance(decided, Decision)
    return decided


def test_a_start_that_entered_no_code_is_withdrawn_and_gives_its_attempt_back() -> None:
    record = record_after(ProcessStarted(OWNER, 2, 1, "claim"))
    decided = give_back(record)
    assert decided.facts == (StartWithdrawn(2, "engine missing", 10_500),)
    withdrawn = applied_facts(record, decided.facts, NOW).state
    assert (withdrawn.status, withdrawn.attempt, withdrawn.due_at_ms) == ("pending", 0, 10_500)


def test_a_resumption_that_entered_no_code_has_no_attempt_to_give_back_and_only_releases_its_lease() -> None:
    waiting = ProcessWaiting((TimerWait(5_000),), 1)
    record = record_after(ProcessStarted(OWNER, 1, 1, "first"), waiting, ProcessResumed(OWNER, 2, 1, "claim"))
    decided = give_back(record)
    assert decided.facts == ()
    assert isinstance(decided.lease, Put)
    assert (decided.lease.lease.released, decided.lease.lease.expires_at_ms) == (True, 10_500)
