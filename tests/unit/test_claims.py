"""F.3: what a claim makes of a row that is due, lapsed, released, proved dead, exhausted or overdue."""

from __future__ import annotations

import msgspec
import pytest

from perdure.clock import Moment
from perdure.errors import NotPermitted, ProcessAlreadyTerminal
from perdure.model.events import (
    AnyFact,
    ProcessAbandoned,
    ProcessAdmitted,
    ProcessFailed,
    ProcessResumed,
    ProcessStarted,
    ProcessWaiting,
    StartWithdrawn,
    Takeover,
)
from perdure.model.leases import DeathProof, Lease
from perdure.model.outcomes import Abandoned, Evidence
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition
from perdure.model.waits import TimerWait
from perdure.transitions.claims import ClaimDecision, Ended, Granted, Skipped, decide_claim
from perdure.transitions.commands import ClaimNext, Start, WorkflowKey
from perdure.transitions.decide import decide
from perdure.transitions.decision import Decision, Standing
from tests.unit.situations import DONE, NOW, STARTED, WORK, A, B, lease, record, registration, started

CLAIM = ClaimNext(claim_id="claim-9", token="token-9", owner=B, limit=1, ttl_ms=15_000, definitions=(WORK,))
PROOF = DeathProof("a-1", "lock_released", "its lock is free")
GRANTED_FIRST = Lease("p", B, "token-9", 1, "claim-9", 100_000, 115_000, "boot-1", 65_000)
GRANTED_SECOND = msgspec.structs.replace(GRANTED_FIRST, fence=2)


def claim(of: ProcessRecord, standing: Lease | None = None, *proofs: DeathProof, now: Moment = NOW) -> ClaimDecision:
    return decide_claim(Standing(of, standing), CLAIM, now, {proof.incarnation: proof for proof in proofs})


def due(due_at_ms: int) -> ProcessRecord:
    return record(registration(), STARTED, StartWithdrawn(1, "no engine", due_at_ms))


def test_a_pending_row_is_granted_as_its_next_attempt() -> None:
    assert claim(record(registration())) == Granted(GRANTED_FIRST, ProcessStarted(B, 1, 1, "claim-9"))


@pytest.mark.parametrize(("due_at_ms", "granted"), [(99_999, True), (100_000, True), (100_001, False)])
def test_a_row_is_due_at_the_exact_millisecond(due_at_ms: int, granted: bool) -> None:
    decided = claim(due(due_at_ms))
    assert decided == (Granted(GRANTED_SECOND, ProcessStarted(B, 2, 1, "claim-9")) if granted else Skipped("not_due"))


@pytest.mark.parametrize(
    ("standing", "takeover"),
    [
        (lease(left_ms=0), Takeover(A, 1, "lapsed")),
        (lease(boot_id="boot-0"), Takeover(A, 1, "lapsed")),
        (lease(released=True, left_ms=0), Takeover(A, 1, "released")),
    ],
)
def test_a_lapsed_row_is_granted_with_the_next_fence_and_whom_it_was_taken_over_from(
    standing: Lease, takeover: Takeover
) -> None:
    expected = Granted(GRANTED_SECOND, ProcessStarted(B, 2, 2, "claim-9", takeover))
    assert claim(record(registration(), STARTED), standing) == expected


@pytest.mark.parametrize("left_ms", [1, 5_000])
def test_a_live_lease_is_left_alone_unless_its_owner_is_proved_dead(left_ms: int) -> None:
    running, standing = record(registration(), STARTED), lease(left_ms=left_ms)
    assert claim(running, standing) == Skipped("leased")
    assert claim(running, standing, DeathProof("z-1", "pid_gone", "another")) == Skipped("leased")
    taken = ProcessStarted(B, 2, 2, "claim-9", Takeover(A, 1, "proved_dead", PROOF))
    assert claim(running, standing, PROOF) == Granted(GRANTED_SECOND, taken)


def test_a_proof_does_not_cut_a_hold_short() -> None:
    assert claim(record(registration(), STARTED), lease(released=True), PROOF) == Skipped("leased")


def test_a_due_waiting_row_is_resumed_with_the_attempt_it_had() -> None:
    asleep = record(registration(), STARTED, ProcessWaiting((TimerWait(100_000),), 1))
    assert claim(asleep) == Granted(GRANTED_SECOND, ProcessResumed(B, 2, 1, "claim-9"))
    asleep = record(registration(), STARTED, ProcessWaiting((TimerWait(100_001),), 1))
    assert claim(asleep) == Skipped("not_due")


def death(fence: int) -> AnyFact:
    return ProcessStarted(A, fence, fence, f"claim-{fence}", Takeover(A, fence - 1, "lapsed"))


@pytest.mark.parametrize(("max_deaths", "deaths_so_far", "granted"), [(0, 0, False), (1, 0, True), (1, 1, False)])
def test_as_many_deaths_are_survived_as_were_declared(max_deaths: int, deaths_so_far: int, granted: bool) -> None:
    facts = [STARTED, *(death(2 + n) for n in range(deaths_so_far))]
    row = record(registration(max_deaths=max_deaths), *facts)
    decided = claim(row, lease(len(facts), left_ms=0))
    assert isinstance(decided, Granted) == granted
    if not granted:
        fence, deaths = len(facts) + 1, deaths_so_far + 1
        proof = f"death {deaths} of at most {max_deaths}: its lease lapsed"
        evidence = Evidence("deaths_exhausted", "a", 100_000, proof)
        assert decided == Ended(ProcessAbandoned("registry", fence, "b", outcome=Abandoned(evidence)))


def test_a_release_is_no_death_even_at_the_limit() -> None:
    row = record(registration(max_deaths=0), STARTED)
    assert isinstance(claim(row, lease(released=True, left_ms=0)), Granted)


@pytest.mark.parametrize(
    ("standing", "because"), [(lease(left_ms=0), "owner_bound"), (lease(released=True, left_ms=0), "owner_bound")]
)
def test_entered_owner_bound_work_is_never_granted(standing: Lease, because: str) -> None:
    decided = claim(record(registration("owner_bound"), STARTED), standing, PROOF)
    assert decided == Skipped(because)  # type: ignore[arg-type]


@pytest.mark.parametrize(("deadline_ms", "ended"), [(99_000, True), (99_001, False)])
def test_a_deadline_passes_at_the_exact_millisecond_and_ends_the_row_instead(deadline_ms: int, ended: bool) -> None:
    decided = claim(record(registration(deadline_ms=deadline_ms)))
    assert isinstance(decided, Ended) == ended
    if isinstance(decided, Ended):
        assert isinstance(decided.fact, ProcessFailed)
        assert (decided.fact.error.code, decided.fact.error.retryable, decided.fact.fence) == ("deadline", False, 1)


@pytest.mark.parametrize(
    ("definitions", "queues", "because"),
    [
        ((), ("default",), "not_asked_for"),
        ((Definition("python", "work", 2),), ("default",), "not_asked_for"),
        ((WORK,), ("other",), "not_asked_for"),
        ((WORK,), (), "not_asked_for"),
    ],
)
def test_what_was_not_asked_for_is_skipped_though_a_store_proposes_it(
    definitions: tuple[Definition, ...], queues: tuple[str, ...], because: str
) -> None:
    asked = msgspec.structs.replace(CLAIM, definitions=definitions, queues=queues)
    assert decide_claim(Standing(record(registration())), asked, NOW, {}) == Skipped(because)  # type: ignore[arg-type]


# --- an engine's own start -------------------------------------------------------------------------------------

ENTER = Start(process_id="p", execution=WorkflowKey("p", "w", "i-1"), owner=B)


def test_an_engine_starts_what_was_admitted_to_it_and_a_re_invocation_starts_it_again() -> None:
    admitted = record(registration(), ProcessAdmitted("w"))
    first = decide(Standing(admitted), ENTER, NOW)
    assert isinstance(first, Decision)
    assert first.facts == (ProcessStarted(B, 1, 1, "i-1", None, "w"),)
    again = decide(Standing(record(registration(), ProcessAdmitted("w"), *first.facts)), ENTER, NOW)
    assert isinstance(again, Decision)
    assert again.facts == (ProcessStarted(B, 2, 2, "i-1", None, "w"),)


def test_an_engine_may_not_start_what_was_not_admitted_to_it_or_has_ended() -> None:
    assert isinstance(decide(Standing(record(registration())), ENTER, NOW), NotPermitted)
    elsewhere = record(registration(), ProcessAdmitted("v"))
    assert isinstance(decide(Standing(elsewhere), ENTER, NOW), NotPermitted)
    ended = record(registration(), ProcessAdmitted("w"), started(), DONE)
    assert isinstance(decide(Standing(ended), ENTER, NOW), ProcessAlreadyTerminal)
