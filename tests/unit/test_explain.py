"""Why a process is not running: one verdict per situation, with the fact behind it and what would change it."""

from __future__ import annotations

import msgspec
import pytest

from perdure.model.events import CallerDeparture, CancelRequested, ProcessWaiting
from perdure.model.leases import Enrolment, Owner
from perdure.model.registration import Definition
from perdure.model.waits import ChildWait, SignalWait, TimerWait
from perdure.transitions.explain import explain
from perdure.transitions.reach import Reach
from tests.unit.situations import NOW, STARTED, WORK, lease, record, registration, standings

VERDICTS = {
    "rerunnable: pending": "ready", "owner_bound: pending": "ready",
    "rerunnable: pending, admitted": "admitted", "owner_bound: pending, admitted": "admitted",
    "rerunnable: pending, retry due later": "delayed", "owner_bound: pending, retry due later": "delayed",
    "rerunnable: pending, cancel requested": "delayed", "owner_bound: pending, cancel requested": "delayed",
    "rerunnable: running": "running", "owner_bound: running": "running",
    "rerunnable: running, lapsed": "recovering", "owner_bound: running, lapsed": "needs_abandon",
    "rerunnable: running, released": "recovering", "owner_bound: running, released": "needs_abandon",
    "rerunnable: running, released with a hold": "recovering",
    "owner_bound: running, released with a hold": "needs_abandon",
    "rerunnable: running, of another boot": "recovering", "owner_bound: running, of another boot": "needs_abandon",
    "rerunnable: running, cancel requested": "running", "owner_bound: running, cancel requested": "running",
    "rerunnable: running, abandon requested": "running", "owner_bound: running, abandon requested": "running",
    "rerunnable: running, abandon requested and lapsed": "recovering",
    "owner_bound: running, abandon requested and lapsed": "recovering",
    "rerunnable: running in an engine": "admitted", "owner_bound: running in an engine": "admitted",
    "rerunnable: waiting in an engine": "admitted", "owner_bound: waiting in an engine": "admitted",
    "rerunnable: waiting": "waiting", "owner_bound: waiting": "waiting",
    "rerunnable: waiting, signalled": "ready", "owner_bound: waiting, signalled": "ready",
    "rerunnable: completed": "ended", "owner_bound: completed": "ended",
    "rerunnable: failed": "ended", "owner_bound: failed": "ended",
    "externally_owned: pending": "external", "externally_owned: caller departed": "departed",
}  # fmt: skip


@pytest.mark.parametrize(("situation", "verdict"), VERDICTS.items())
def test_every_situation_has_its_verdict(situation: str, verdict: str) -> None:
    standing = standings()[situation]
    assert standing.record is not None
    explained = explain(standing.record, standing.lease, NOW)
    assert (explained.process_id, explained.verdict) == ("p", verdict)
    assert explained.because


def test_there_is_a_verdict_for_every_situation() -> None:
    assert {*VERDICTS, "unknown"} == set(standings())


@pytest.mark.parametrize("recovery", ["rerunnable", "owner_bound"])
def test_a_lapsed_row_with_an_abandon_request_says_that_it_will_be_abandoned(recovery: str) -> None:
    standing = standings()[f"{recovery}: running, abandon requested and lapsed"]
    assert standing.record is not None
    explained = explain(standing.record, standing.lease, NOW)
    assert explained.because == (
        "nobody runs it any more: the next drive ends it as abandoned", "an abandon was requested by operator: gone",
    )  # fmt: skip
    assert not explained.you_can


def test_whoever_runs_it_is_named_and_the_lease_counts_down() -> None:
    explained = explain(record(registration(), STARTED), lease(left_ms=4_200), NOW)
    assert explained.because == (
        "a runs it (attempt 1, fence 1)", "its lease runs for 4.2 s more and is renewed while that worker lives",
    )  # fmt: skip
    assert explained.you_can == ("perdure cancel p",)


def test_lapsed_owner_bound_work_needs_attention_and_says_what_to_do() -> None:
    explained = explain(record(registration("owner_bound"), STARTED), lease(left_ms=0), NOW)
    assert explained.needs_attention
    assert explained.you_can == ("perdure abandon p",)


def test_the_deaths_that_are_left_are_counted() -> None:
    explained = explain(record(registration(max_deaths=3), STARTED), lease(left_ms=0), NOW)
    assert any("3 more deaths allowed" in line for line in explained.because)


def worker(name: str, *definitions: Definition) -> Enrolment:
    return Enrolment(Owner(name, f"{name}-1"), definitions)


def work(*versions: int) -> list[Definition]:
    return [Definition("python", "work", version) for version in versions]


NOBODY_DOES = "it waits for a worker that knows python/work@4, and no enrolled worker does"
UNKNOWN = {
    "newer": (
        Reach((worker("a", *work(2)), worker("b", *work(3), Definition("python", "other")))),
        "of work they know version 2, 3: version 4 is newer",
        "start a worker that has version 4 of work",
    ),
    "older": (
        Reach((worker("a", *work(5, 6)),)),
        "of work they know version 5, 6: version 4 is older",
        "start a worker that still has version 4 of work",
    ),
    "between": (
        Reach((worker("a", *work(3, 5)),)),
        "of work they know version 3, 5: version 4 is none of them",
        "start a worker that has version 4 of work",
    ),
    "another name": (
        Reach((worker("a", *(Definition("python", name) for name in "zyxwvut")),)),
        "of python they know t, u, v, w, x and 2 more",
        "start a worker that has python/work@4",
    ),
    "another engine": (
        Reach((worker("a", Definition("command", "run"), Definition("other", "work", 4)),)),
        "they run command, other, none the engine python",
        "start a worker with the engine python",
    ),
    "nothing": (Reach((worker("a"),)), "they know no definition at all", "start a worker that has python/work@4"),
}


@pytest.mark.parametrize(("reach", "what", "advice"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_no_enrolled_worker_knows_is_named_with_what_they_know_instead(
    reach: Reach, what: str, advice: str
) -> None:
    waits = record(msgspec.structs.replace(registration(), definition=Definition("python", "work", 4)))
    explained = explain(waits, None, NOW, reach)
    assert (explained.verdict, explained.needs_attention) == ("unknown_definition", True)
    assert explained.because == (NOBODY_DOES, what)
    assert explained.you_can == (advice, "perdure cancel p")


def test_a_row_that_a_dead_worker_left_and_nobody_else_knows_needs_attention() -> None:
    explained = explain(record(registration(), STARTED), lease(left_ms=0), NOW, Reach((worker("b", *work(2)),)))
    assert (explained.verdict, explained.needs_attention) == ("recovering", True)
    assert explained.because[2:] == (
        "it waits for a worker that knows python/work@1, and no enrolled worker does",
        "of work they know version 2: version 1 is older",
    )
    assert explained.you_can == ("start a worker that still has version 1 of work",)


def test_a_parked_row_that_nobody_could_resume_needs_attention_before_it_is_due() -> None:
    parked = record(registration(), STARTED, ProcessWaiting((SignalWait("go", 1),), 1))
    explained = explain(parked, None, NOW, Reach((worker("b", *work(2)),)))
    assert (explained.verdict, explained.needs_attention) == ("waiting", True)
    assert explain(parked, None, NOW, Reach((worker("b", WORK),))).because == ("it waits for signal 'go' number 1",)


def test_a_row_that_is_due_names_the_workers_that_know_it() -> None:
    explained = explain(record(registration()), None, NOW, Reach((worker("a", WORK), worker("b", WORK))))
    assert (explained.verdict, explained.needs_attention) == ("ready", False)
    assert explained.because[1:] == ("python/work@1 is known to a, b",)


def test_where_no_worker_is_enrolled_a_row_waits_for_one() -> None:
    explained = explain(record(registration()), None, NOW, Reach())
    assert (explained.verdict, explained.needs_attention) == ("ready", False)
    assert explained.because[1:] == ("it waits for a worker that knows python/work@1, and none is enrolled",)
    assert explained.you_can == ("perdure worker MODULE:HOST",)


def test_workers_that_have_not_said_what_they_can_run_are_not_taken_for_unable() -> None:
    reach = Reach((worker("a", *work(2)), Enrolment(Owner("b", "b-1"))))
    explained = explain(record(registration()), None, NOW, reach)
    assert (explained.verdict, explained.needs_attention) == ("ready", False)
    assert explained.because[1:] == (
        "it waits for a worker that knows python/work@1; 1 of 2 enrolled workers did not say what they can run",
        "of work they know version 2: version 1 is older",
    )


def test_each_wait_is_told_in_words() -> None:
    waits = (SignalWait("go", 2), TimerWait(102_500), ChildWait("c"))
    explained = explain(record(registration(), STARTED, ProcessWaiting(waits, 1)), None, NOW)
    assert explained.because == (
        "it waits for signal 'go' number 2", "it waits for a timer that is due in 2.5 s",
        "it waits for the end of process 'c'",
    )  # fmt: skip


def test_a_request_that_stands_is_told_whatever_the_verdict() -> None:
    outside = record(registration("externally_owned"), CallerDeparture(), CancelRequested("enough", "someone"))
    assert "a cancel was requested by someone: enough" in explain(outside, None, NOW).because
