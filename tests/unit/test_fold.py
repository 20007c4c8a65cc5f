"""F.2: what each fact does to the state, with the values written out."""

from __future__ import annotations

import pytest

from perdure.model.events import (
    AbandonRequested,
    AnyFact,
    CallerDeparture,
    CancelRequested,
    ExternalRefSet,
    ProcessAbandoned,
    ProcessAdmitted,
    ProcessAwaited,
    ProcessCancelled,
    ProcessCompleted,
    ProcessFailed,
    ProcessResumed,
    ProcessSettled,
    ProcessStarted,
    ProcessWaiting,
    ProcessWoken,
    RetryScheduled,
    SignalReceived,
    StartWithdrawn,
    Takeover,
    Written,
)
from perdure.model.outcomes import Abandoned, Completed, ErrorDetail, Evidence
from perdure.model.record import AbandonRequest, CancelRequest, ProcessState, Started
from perdure.model.waits import ChildWait, SignalWait, TimerWait
from perdure.transitions.fold import fold, initial_state
from tests.unit.situations import DONE, STARTED, A, B, raw, record, registration, started


def state_after(*facts: AnyFact, **declared: object) -> ProcessState:
    """The state of a process registered at 1,000 ms, with one of these facts every second after it."""
    return record(registration(**declared), *facts).state  # type: ignore[arg-type]


def test_a_new_process_is_pending_and_due_at_once() -> None:
    assert state_after() == ProcessState(status="pending", due_at_ms=1_000, created_at_ms=1_000, updated_at_ms=1_000)


def test_a_delayed_process_is_due_when_its_delay_is_over() -> None:
    assert state_after(delay_ms=250).due_at_ms == 1_250


def test_an_externally_owned_process_is_never_due() -> None:
    assert record(registration("externally_owned")).state.due_at_ms is None


def test_a_start_names_its_owner_fence_and_attempt() -> None:
    assert state_after(STARTED) == ProcessState(
        status="running", attempt=1, fence=1, started=Started(A, 1, 1, 2_000, "claim-1"), created_at_ms=1_000,
        updated_at_ms=2_000, started_at_ms=2_000, last_sequence=1,
    )  # fmt: skip


def test_a_withdrawn_start_gives_the_attempt_back_and_leaves_no_trace_but_its_fence() -> None:
    assert state_after(STARTED, StartWithdrawn(1, "no engine", 5_000)) == ProcessState(
        status="pending", attempt=0, fence=1, due_at_ms=5_000, created_at_ms=1_000, updated_at_ms=3_000,
        last_sequence=2,
    )  # fmt: skip


def test_a_withdrawn_second_start_leaves_the_time_of_the_first() -> None:
    state = state_after(
        STARTED, RetryScheduled(ErrorDetail("E"), 1, 2_500, 1), started(2, 2), StartWithdrawn(2, "x", 9)
    )
    assert (state.attempt, state.started_at_ms, state.started) == (1, 2_000, None)


@pytest.mark.parametrize(("cause", "deaths"), [("lapsed", 1), ("proved_dead", 1), ("released", 0)])
def test_a_start_after_a_lost_owner_counts_a_death_and_after_a_release_none(cause: str, deaths: int) -> None:
    again = ProcessStarted(B, 2, 2, "claim-2", Takeover(A, 1, cause))  # type: ignore[arg-type]
    state = state_after(STARTED, again)
    assert (state.deaths, state.attempt, state.fence, state.failures) == (deaths, 2, 2, 0)


@pytest.mark.parametrize(
    "journal", ["step.entered", "step.completed", "timer.set", "wait.resolved", "race.decided", "cancel.delivered",
                "child.started", "version.marked", "value.recorded"],
)  # fmt: skip
def test_a_journal_event_takes_the_deaths_back_to_none(journal: str) -> None:
    again = ProcessStarted(B, 2, 2, "claim-2", Takeover(A, 1, "lapsed"))
    assert state_after(STARTED, again, Written(journal, raw("1"))).deaths == 0


def test_a_users_own_event_moves_nothing_but_the_clock_and_the_sequence() -> None:
    again = ProcessStarted(B, 2, 2, "claim-2", Takeover(A, 1, "lapsed"))
    before, after = state_after(STARTED, again), state_after(STARTED, again, Written("note", raw("1")))
    assert (after.deaths, after.updated_at_ms, after.last_sequence) == (1, 4_000, 3)
    assert (before.updated_at_ms, before.last_sequence) == (3_000, 2)


def test_a_suspension_is_due_at_its_earliest_timer() -> None:
    waits = (SignalWait("go", 1), TimerWait(9_000), TimerWait(8_000), ChildWait("c"))
    state = state_after(STARTED, ProcessWaiting(waits, 1))
    assert (state.status, state.waits, state.due_at_ms, state.attempt) == ("waiting", waits, 8_000, 1)


def test_a_suspension_without_a_timer_is_not_due() -> None:
    assert state_after(STARTED, ProcessWaiting((ChildWait("c"),), 1)).due_at_ms is None


def test_a_resumption_keeps_the_attempt_and_clears_the_waits() -> None:
    state = state_after(STARTED, ProcessWaiting((TimerWait(5),), 1), ProcessResumed(B, 2, 1, "claim-2"))
    assert (state.status, state.attempt, state.fence, state.waits, state.due_at_ms) == ("running", 1, 2, (), None)
    assert state.started == Started(B, 2, 1, 4_000, "claim-2", resumed=True)


@pytest.mark.parametrize(
    ("wait", "signal", "due_at_ms"),
    [
        (SignalWait("go", 1), "go", 4_000),
        (SignalWait("go", 2), "go", None),
        (SignalWait("other", 1), "go", None),
    ],
)
def test_a_signal_makes_exactly_the_row_due_that_waits_for_it(
    wait: SignalWait, signal: str, due_at_ms: int | None
) -> None:
    state = state_after(STARTED, ProcessWaiting((wait,), 1), SignalReceived(name=signal, payload=raw("1")))
    assert (state.due_at_ms, state.signals) == (due_at_ms, {"go": 1})


def test_signals_are_counted_by_name_and_an_early_one_is_not_lost() -> None:
    go, stop = SignalReceived(name="go"), SignalReceived(name="stop")
    assert state_after(go, go, stop).signals == {"go": 2, "stop": 1}


def test_a_wake_makes_a_waiting_row_due_and_never_later_than_it_was() -> None:
    sleeping = ProcessWaiting((TimerWait(2_500), ChildWait("c")), 1)
    assert state_after(STARTED, sleeping, ProcessWoken(ChildWait("c"), "child completed")).due_at_ms == 2_500
    sleeping = ProcessWaiting((TimerWait(9_000), ChildWait("c")), 1)
    assert state_after(STARTED, sleeping, ProcessWoken(ChildWait("c"), "child completed")).due_at_ms == 4_000


def test_a_retry_counts_a_failure_and_is_due_when_it_says() -> None:
    state = state_after(STARTED, RetryScheduled(ErrorDetail("E"), 1, 60_000, 1))
    assert (state.status, state.failures, state.deaths, state.due_at_ms) == ("pending", 1, 0, 60_000)


def test_the_first_request_of_each_kind_stands() -> None:
    state = state_after(
        STARTED, CancelRequested("enough", "someone"), CancelRequested("other", "another"),
        AbandonRequested("operator", "gone"), AbandonRequested("another", "too"), ExternalRefSet("job-1"),
        ExternalRefSet("job-2"),
    )  # fmt: skip
    assert state.cancel_request == CancelRequest("enough", "someone", 3_000)
    assert state.abandon_request == AbandonRequest("operator", "gone", 5_000)
    assert state.external_ref == "job-1"


def test_a_cancel_request_makes_a_waiting_row_due() -> None:
    state = state_after(STARTED, ProcessWaiting((SignalWait("go", 1),), 1), CancelRequested("enough"))
    assert (state.status, state.due_at_ms) == ("waiting", 4_000)


def test_an_admission_is_written_once_and_takes_the_row_from_the_queue() -> None:
    state = state_after(ProcessAdmitted("w"), ProcessAdmitted("v"))
    assert (state.admitted, state.due_at_ms, state.status) == ("w", None, "pending")


def test_a_departed_caller_is_a_status_without_an_outcome() -> None:
    state = record(registration("externally_owned"), CallerDeparture("gone")).state
    assert (state.status, state.outcome) == ("caller_departed", None)


ENDS: list[tuple[AnyFact, str]] = [
    (ProcessCompleted("lease", 1, "a-1", raw("1")), "completed"),
    (ProcessFailed("lease", 1, "a-1", error=ErrorDetail("E")), "failed"),
    (ProcessCancelled("registry", 2, "x", reason="r"), "cancelled"),
    (ProcessAbandoned("registry", 2, "x", outcome=Abandoned(Evidence("engine"))), "abandoned"),
]


@pytest.mark.parametrize(("end", "status"), ENDS)
def test_an_end_is_a_status_an_outcome_and_a_time(end: AnyFact, status: str) -> None:
    state = state_after(STARTED, end)
    assert (state.status, state.finished_at_ms, state.due_at_ms, state.waits) == (status, 3_000, None, ())
    assert state.outcome is not None


@pytest.mark.parametrize(("later", "status"), ENDS)
def test_after_the_end_no_later_end_changes_anything_but_the_bookkeeping(later: AnyFact, status: str) -> None:
    before, after = state_after(STARTED, DONE), state_after(STARTED, DONE, later)
    assert after.outcome == before.outcome == Completed(raw("1"))
    assert (after.status, after.finished_at_ms, after.fence) == ("completed", 3_000, 1)
    assert (after.updated_at_ms, after.last_sequence) == (4_000, 3)


@pytest.mark.parametrize(
    "later",
    [started(9, 9), RetryScheduled(ErrorDetail("E"), 9, 9, 9), CancelRequested("late"), AbandonRequested("x", "late"),
     ExternalRefSet("late"), SignalReceived(name="late"), Written("note", raw("1")), CallerDeparture("late")],
)  # fmt: skip
def test_after_the_end_every_fact_moves_updated_at_and_nothing_else(later: AnyFact) -> None:
    before, after = state_after(STARTED, DONE), state_after(STARTED, DONE, later)
    changed = {f for f in ProcessState.__struct_fields__ if getattr(before, f) != getattr(after, f)}
    assert changed == {"updated_at_ms", "last_sequence"}


@pytest.mark.parametrize(
    ("parent", "wake_target", "due"), [("q", None, 4_000), (None, "hook", 4_000), (None, None, None)]
)
def test_an_end_with_consequences_is_due_for_settling_a_second_later_until_it_is_settled(
    parent: str | None, wake_target: str | None, due: int | None
) -> None:
    state = state_after(STARTED, DONE, parent=parent, wake_target=wake_target)
    assert state.settle_due_at_ms == due
    settled = state_after(STARTED, DONE, ProcessSettled(), parent=parent, wake_target=wake_target)
    assert (settled.settle_due_at_ms, settled.outcome) == (None, Completed(raw("1")))
    awaited = state_after(STARTED, DONE, ProcessSettled(), ProcessAwaited(), parent=parent, wake_target=wake_target)
    assert (awaited.settle_due_at_ms, awaited.outcome) == (6_000, Completed(raw("1")))


def test_fences_never_go_down() -> None:
    assert state_after(started(7), started(3)).fence == 7
    assert state_after(started(7), ProcessResumed(A, 3, 1, "c")).fence == 7
    assert state_after(started(7), ProcessCompleted("external_owner", 0, "x")).fence == 7


def test_a_fold_of_nothing_is_the_initial_state() -> None:
    declared = registration(delay_ms=5)
    assert fold(declared, 1_000, ()).state == initial_state(declared, 1_000)
