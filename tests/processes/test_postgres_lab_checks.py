"""The PostgreSQL lab's checks can fail: each promise, broken on purpose in a small history, is told as a story."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from lab.postgres.checks import breaches
from lab.postgres.history import History, Stored, changed, read_stored
from lab.postgres.lines import (
    AnyLine,
    OutcomeSeen,
    RunBegan,
    RunEnded,
    SignalAcknowledged,
    SignalAsked,
    StartAcknowledged,
    StartAsked,
    StepBegan,
    StepDone,
    Struck,
    WorkerUp,
    boot_ms,
    open_ledger,
)
from lab.postgres.work import STARTED, Work, define_work, expected, go
from perdure.host import Host
from perdure.model.events import Event, ProcessAbandoned, ProcessStarted, Takeover
from perdure.model.leases import DeathProof, Owner
from perdure.model.outcomes import Abandoned, Evidence
from perdure.model.record import ProcessRecord

replace = msgspec.structs.replace
WORK = Work(7, 2)
SIGNALLED = 5
ME = "me"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> History:
    """One process of each kind, run once each by one worker, on the store in memory; named after their kinds."""
    ledger = open_ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")

    async def story() -> History:
        host = Host("memory://")
        incarnations: list[str] = []
        work = define_work(host, ledger, lambda: incarnations[0])
        async with asyncio.timeout(20), host:
            assert host.worker is not None
            incarnations.append(host.worker.owner.incarnation)
            ledger.write(WorkerUp(boot_ms=boot_ms(), slot=0, incarnation=incarnations[0], pid=1))
            for kind in STARTED:
                at_ms = boot_ms()
                ledger.write(StartAsked(boot_ms=at_ms, process_id=kind, kind=kind, n=WORK.n, takes_ms=WORK.takes_ms))
                run = await host.start(work[kind], WORK, id=kind)
                ledger.write(StartAcknowledged(boot_ms=at_ms, process_id=kind))
                if kind == "waiter":
                    ledger.write(SignalAsked(boot_ms=at_ms, process_id=kind, signal_id="s", value=SIGNALLED))
                    sequence = await run.signal(go, SIGNALLED, id="s")
                    ledger.write(SignalAcknowledged(boot_ms=at_ms, process_id=kind, signal_id="s", sequence=sequence))
                outcome = msgspec.json.encode(await run.outcome()).decode()
                ledger.write(OutcomeSeen(boot_ms=at_ms, process_id=kind, outcome=outcome))
            while any(r.state.settle_due_at_ms is not None for r in (await host.list()).records):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return History(ledger.read(), await read_stored(host))

    return asyncio.run(story())


def test_a_sound_history_has_no_breach(sound: History) -> None:
    assert breaches(sound) == []
    assert {record.status for record in sound.stored.records.values()} == {"completed"}
    assert len(sound.of(StepBegan)) == 2 * 2 + 1 + 4 + 2 + 2 + 1 + 3


# --- (1) what was acknowledged ----------------------------------------------------------------------------------


def test_an_acknowledged_start_without_a_row_is_found(sound: History) -> None:
    assert "one: its start was acknowledged and its row is gone" in told(without(sound, "one"))


def test_a_row_with_another_input_is_found(sound: History) -> None:
    assert found(changing_lines(sound, StartAsked, "one", n=8), "one: was asked for as")


def test_a_row_that_nobody_asked_for_is_found(sound: History) -> None:
    lines = [line for line in sound.lines if not (isinstance(line, StartAsked) and line.process_id == "one")]
    assert told(replace(sound, lines=lines)) == ["one: has a row and nobody asked for it"]


def test_a_child_that_is_gone_is_found(sound: History) -> None:
    child = next(id for id in sound.stored.records if id.startswith("parent:c0"))
    assert "parent: has completed, and its child 0 has no row" in told(without(sound, child))


def test_an_acknowledged_signal_that_is_not_there_is_found(sound: History) -> None:
    assert found(changing_log(sound, "waiter", lambda e: e.type == "signal.go", None), "waiter: signal s was acknowl")


def test_a_signal_with_another_value_is_found(sound: History) -> None:
    assert found(changing_lines(sound, SignalAsked, "waiter", value=6), "waiter: signal s was acknowledged")


def test_a_signal_that_stands_twice_is_found(sound: History) -> None:
    log = sound.stored.logs["waiter"]
    (sent,) = (event for event in log if event.type == "signal.go")
    assert found(with_log(sound, "waiter", [*log, sent]), "waiter: signal s stands 2 times")


def test_a_signal_that_nobody_sent_is_found(sound: History) -> None:
    lines = [line for line in sound.lines if not isinstance(line, SignalAsked | SignalAcknowledged)]
    assert found(replace(sound, lines=lines), "waiter: has the signal s, which nobody sent")


# --- (2) and (3): one end, the right one ------------------------------------------------------------------------


def test_a_second_end_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    assert found(with_log(sound, "one", [*log, log[-1]]), "one: has 2 terminal events")


def test_a_process_that_has_not_ended_is_found(sound: History) -> None:
    assert found(with_log(sound, "one", sound.stored.logs["one"][:-1]), "one: has 0 terminal events")


def test_an_end_that_changed_after_a_waiter_was_told_is_found(sound: History) -> None:
    assert found(changing_lines(sound, OutcomeSeen, "one", outcome="{}"), "one: a waiter was told {}")


def test_a_wrong_result_is_found(sound: History) -> None:
    wrong = changing_outcome(sound, "one", lambda outcome: replace(outcome, value=msgspec.Raw(b"1")))
    assert found(wrong, f"one: has completed with 1, not with {expected('one', WORK)}")


def test_rerunnable_work_that_was_abandoned_is_found(sound: History) -> None:
    assert found(abandoned(sound, "one"), "one: ended as Abandoned")


def test_owner_bound_work_that_was_abandoned_while_its_owner_lived_is_found(sound: History) -> None:
    assert found(abandoned(sound, "bound"), "bound: was abandoned, and its owner")


def test_owner_bound_work_whose_owner_was_killed_is_rightly_abandoned(sound: History) -> None:
    killed = Struck(boot_ms=boot_ms(), began_ms=boot_ms(), kind="kill", slot=0, pid=1)
    history = adding(abandoned(sound, "bound"), killed)
    assert not found(history, "bound: was abandoned")


def test_owner_bound_work_that_was_abandoned_by_somebody_else_is_found(sound: History) -> None:
    assert found(abandoned(sound, "bound", writer="deaths_exhausted"), "bound: was abandoned by deaths_exhausted")


def test_owner_bound_work_that_was_entered_twice_is_found(sound: History) -> None:
    again = replace(line_of(sound, RunBegan, "bound"), fence=2)
    assert found(adding(sound, again), "bound: is owner_bound and was entered under the fences [1, 2]")


def test_a_completion_without_a_return_is_found(sound: History) -> None:
    assert found(changing_lines(sound, RunEnded, "one", how="CancelledError"), "one: has completed, and its code has")


# --- (4) leases -------------------------------------------------------------------------------------------------


def test_a_grant_that_does_not_rise_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    assert found(with_log(sound, "one", [log[0], *log]), "one: event 2 grants fence 1 after fence 1")


def test_an_entry_of_an_older_fence_after_a_newer_start_is_found(sound: History) -> None:
    started, *rest = sound.stored.logs["one"]
    history = with_log(sound, "one", [started, taken_over(started, ME), *rest])
    assert found(history, "one: event 3 (step.completed) was accepted under fence 1; fence 2 stood")


def test_an_end_of_an_older_fence_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    history = with_log(sound, "one", [*log[:-1], taken_over(log[0], ME), log[-1]])
    assert found(history, "one: event 4 (process.completed) was accepted under fence 1; fence 2 stood")


def test_a_write_after_the_lease_was_given_back_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    end = next(event for event in log if event.type == "process.completed")
    step = next(event for event in log if event.type == "step.completed")
    history = with_log(sound, "one", [log[0], end, step])
    assert found(history, "one: event 3 (step.completed) was accepted under fence 1; fence 0 stood")


def test_code_that_ran_without_a_grant_is_found(sound: History) -> None:
    assert found(changing_lines(sound, StepBegan, "one", fence=9), "under a fence that was granted to nobody")


def test_code_that_ran_under_somebody_elses_grant_is_found(sound: History) -> None:
    assert found(changing_lines(sound, StepBegan, "one", incarnation="other"), "under a fence that was granted to")


def test_two_entries_under_one_fence_are_found(sound: History) -> None:
    assert found(adding(sound, line_of(sound, RunBegan, "one")), "one: was entered 2 times under fence 1")


def test_two_runs_that_overlap_while_both_are_covered_are_found(sound: History) -> None:
    step = line_of(sound, StepDone, "one")
    newer = replace(line_of(sound, RunBegan, "one"), fence=2, boot_ms=step.boot_ms - 1)
    assert found(adding(sound, newer), "still covered by its lease, after fence 2 had begun")


def test_what_an_older_run_does_past_its_lease_is_no_overlap(sound: History) -> None:
    step = line_of(sound, StepDone, "one")
    newer = replace(line_of(sound, RunBegan, "one"), fence=2, boot_ms=step.boot_ms - 1)
    history = adding(changing_lines(sound, StepDone, "one", deadline_ms=step.boot_ms), newer)
    assert not [story for story in told(history) if "StepDone" in story and "still covered" in story]


def test_a_step_that_was_entered_after_its_lease_is_found(sound: History) -> None:
    step = line_of(sound, StepBegan, "one")
    history = changing_lines(sound, StepBegan, "one", deadline_ms=step.boot_ms)
    assert found(history, "was entered 0 ms after it was covered")


def test_a_pause_between_the_look_at_the_clock_and_the_step_excuses_one_step_and_not_two(sound: History) -> None:
    step = line_of(sound, StepBegan, "one")
    pause = Struck(boot_ms=step.boot_ms, began_ms=step.boot_ms - 3, kind="pause", slot=0, pid=step.pid)
    once = adding(changing_lines(sound, StepBegan, "one", deadline_ms=step.boot_ms - 1), pause)
    assert not found(once, "after it was covered")
    twice = changing_lines(once, StepBegan, "bound", boot_ms=step.boot_ms, deadline_ms=step.boot_ms - 1)
    assert found(twice, "after it was covered")
    before = changing_lines(once, StepBegan, "one", deadline_ms=pause.began_ms - 1)
    assert found(before, "after it was covered")


def test_a_living_owner_that_was_called_dead_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    proof = DeathProof("a", "pid_gone", "")
    history = with_log(sound, "one", [log[0], taken_over(log[0], ME, proof), *log[1:]])
    assert found(history, "one: the start under fence 2 calls")


# --- side effects -----------------------------------------------------------------------------------------------


def test_a_recorded_step_that_was_never_done_is_found(sound: History) -> None:
    lines = [line for line in sound.lines if not (isinstance(line, StepDone) and line.process_id == "one")]
    assert found(replace(sound, lines=lines), "one: step s0 is recorded as done under fence 1, and was not done there")


def test_a_completed_process_without_one_of_its_steps_is_found(sound: History) -> None:
    history = changing_log(sound, "one", lambda e: e.type == "step.completed", None)
    assert found(history, "one: has completed without step s0")


def test_a_step_that_is_recorded_twice_is_found(sound: History) -> None:
    log = sound.stored.logs["one"]
    assert found(with_log(sound, "one", [*log[:2], log[1], *log[2:]]), "one: step s0 is recorded twice")


def test_a_step_with_a_wrong_value_is_found(sound: History) -> None:
    def wrong(event: Event) -> Event:
        entry = msgspec.json.decode(event.payload)
        entry["value"]["value"] = 1
        return replace(event, payload=msgspec.Raw(msgspec.json.encode(entry)))

    assert found(changing_log(sound, "one", lambda e: e.type == "step.completed", wrong), "one: step s0 is recorded wi")


def test_a_finished_step_that_was_begun_again_is_found(sound: History) -> None:
    again = replace(line_of(sound, StepBegan, "one"), fence=2)
    assert found(adding(sound, again), "one: step s0 was finished under fence 1 and begun again under 2")


def test_a_step_that_was_begun_twice_in_one_run_is_found(sound: History) -> None:
    assert found(adding(sound, line_of(sound, StepBegan, "one")), "one: step s0 was begun twice under fence 1")


def test_a_step_that_was_begun_again_though_nothing_had_struck_is_found(sound: History) -> None:
    again = replace(line_of(sound, StepBegan, "one"), fence=2)
    assert found(adding(sound, again), "one: step s0 was begun at")
    elsewhere = Struck(boot_ms=again.boot_ms, began_ms=again.boot_ms, kind="cut", slot=2, pid=None)
    assert found(adding(sound, again, elsewhere), "one: step s0 was begun at")
    here = replace(elsewhere, slot=0)
    assert not found(adding(sound, again, here), "one: step s0 was begun at")


# --- (5) the fold, and what a crash leaves ----------------------------------------------------------------------


def test_a_record_that_is_not_the_fold_of_its_log_is_found(sound: History) -> None:
    record = sound.stored.records["one"]
    wrong = replace(record, state=replace(record.state, attempt=2))
    assert found(with_record(sound, wrong), "one: its record is not the fold of its log")


def test_a_gap_in_the_sequences_is_found(sound: History) -> None:
    log = list(sound.stored.logs["one"])
    history = replace(sound, stored=replace(sound.stored, logs={**sound.stored.logs, "one": [log[0], *log[2:]]}))
    assert found(history, "one: its sequences have gaps: [1, 3]")


def test_code_of_a_process_that_has_no_row_is_found(sound: History) -> None:
    assert "one: was entered and has no row" in told(without(sound, "one"))


def test_what_is_read_otherwise_after_a_crash_is_found(sound: History) -> None:
    before, log = sound.stored, sound.stored.logs["one"]
    assert changed(before, before) == []
    assert changed(before, without(sound, "one").stored) == [("one", "is gone after a crash of the server")]
    assert changed(without(sound, "one").stored, before) == [("one", "is there only after a crash of the server")]
    other = with_log(sound, "one", log[:-1]).stored
    assert changed(before, other) == [("one", "has another log after a crash of the server")]
    record = replace(before.records["one"], state=replace(before.records["one"].state, attempt=2))
    assert len(changed(before, with_record(sound, record).stored)) == 1


# --- breaking a history -----------------------------------------------------------------------------------------


def told(history: History) -> list[str]:
    return [str(breach) for breach in breaches(history)]


def found(history: History, story: str) -> bool:
    return any(story in breach for breach in told(history))


def line_of(history: History, kind: type[Any], process_id: str) -> Any:
    return next(line for line in history.of(kind) if line.process_id == process_id)


def adding(history: History, *lines: AnyLine) -> History:
    return replace(history, lines=[*history.lines, *lines])


def changing_lines(history: History, kind: type[Any], process_id: str, **fields: Any) -> History:
    """With other fields in the first such line of that process."""
    first = line_of(history, kind, process_id)
    return replace(history, lines=[replace(line, **fields) if line is first else line for line in history.lines])


def without(history: History, process_id: str) -> History:
    stored = history.stored
    records = {id: record for id, record in stored.records.items() if id != process_id}
    return replace(history, stored=Stored(records, {id: stored.logs[id] for id in records}))


def with_record(history: History, record: ProcessRecord) -> History:
    stored = history.stored
    return replace(history, stored=replace(stored, records={**stored.records, record.id: record}))


def with_log(history: History, process_id: str, events: Sequence[Event]) -> History:
    """With these events, numbered anew."""
    log = [replace(event, sequence=number) for number, event in enumerate(events, 1)]
    return replace(history, stored=replace(history.stored, logs={**history.stored.logs, process_id: log}))


def changing_log(
    history: History, process_id: str, which: Callable[[Event], bool], change: Callable[[Event], Event] | None
) -> History:
    """With the events changed that are such, or without them."""
    log = history.stored.logs[process_id]
    if change is None:
        return with_log(history, process_id, [event for event in log if not which(event)])
    return with_log(history, process_id, [change(event) if which(event) else event for event in log])


def changing_outcome(history: History, process_id: str, change: Callable[[Any], Any]) -> History:
    record = history.stored.records[process_id]
    return with_record(history, replace(record, state=replace(record.state, outcome=change(record.outcome))))


def abandoned(history: History, process_id: str, writer: Any = "reconciled_request") -> History:
    outcome = Abandoned(Evidence(writer, "somebody", 1, "proof"))
    end = ProcessAbandoned("reconciled_abandon", 2, outcome=outcome)

    def change(event: Event) -> Event:
        return replace(event, type=end.type, payload=msgspec.Raw(msgspec.json.encode(end)))

    history = changing_log(history, process_id, lambda event: event.type == "process.completed", change)
    return changing_outcome(history, process_id, lambda _: outcome)


def taken_over(started: Event, incarnation: str, proof: DeathProof | None = None) -> Event:
    """A second start, under fence 2."""
    first = msgspec.json.decode(started.payload, type=ProcessStarted)
    cause = "lapsed" if proof is None else "proved_dead"
    takeover = Takeover(first.owner, first.fence, cause, proof)  # type: ignore[arg-type]  # a literal, chosen above
    start = ProcessStarted(Owner("w", incarnation), 2, 2, "c2", takeover)
    return replace(started, payload=msgspec.Raw(msgspec.json.encode(start)))
