"""Leases, as the ledger and the logs tell of them: nothing runs without one, no two at once, none goes back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lab.postgres.history import History, Story
from lab.postgres.lines import RunBegan, RunEnded, StepBegan, Struck, UnderLease
from lab.postgres.work import Effect
from perdure.engines.python.journal import StepCompleted, decode_entry
from perdure.model.events import (
    ProcessEnd,
    ProcessResumed,
    ProcessStarted,
    ProcessWaiting,
    RetryScheduled,
    StartWithdrawn,
)


def effect_of(entry: StepCompleted) -> Effect:
    """What a recorded step has returned."""
    return msgspec.json.decode(entry.value, type=Effect)


def of_log(story: Story, history: History) -> Iterator[str]:
    """Grants rise, and whatever was accepted stands under the grant that was the last one then."""
    standing = highest = 0
    for event, fact in story.facts:
        match fact:
            case ProcessStarted(fence=fence) | ProcessResumed(fence=fence):
                if fence <= highest:
                    yield f"event {event.sequence} grants fence {fence} after fence {highest}"
                standing = highest = fence
                continue
            case StartWithdrawn(fence=fence) | ProcessWaiting(fence=fence) | RetryScheduled(fence=fence):
                after = 0
            case ProcessEnd(authority="lease", fence=fence):
                after = 0
            case _:
                entry = decode_entry(event)
                if not isinstance(entry, StepCompleted):
                    continue
                fence = after = effect_of(entry).fence
        if fence != standing:
            yield f"event {event.sequence} ({event.type}) was accepted under fence {fence}; fence {standing} stood"
        standing = after


def granted(story: Story, history: History) -> Iterator[str]:
    """Whoever ran the code had been granted that fence, and entered under it once."""
    grants = {
        fact.fence: fact.owner.incarnation
        for _, fact in story.facts
        if isinstance(fact, ProcessStarted | ProcessResumed)
    }
    for line in story.lines:
        if grants.get(line.fence) != line.incarnation:
            yield f"{line} under a fence that was granted to {grants.get(line.fence, 'nobody')}"
    entered = [line.fence for line in story.lines if isinstance(line, RunBegan)]
    for fence in {fence for fence in entered if entered.count(fence) > 1}:
        yield f"was entered {entered.count(fence)} times under fence {fence}"


def overlapping(story: Story, history: History) -> Iterator[str]:
    """Once a run has begun under a fence, an older one is past its own deadline. A suspended one only unwinds."""
    began = [line for line in story.lines if isinstance(line, RunBegan)]
    for line in story.lines:
        if line.boot_ms >= line.deadline_ms or (isinstance(line, RunEnded) and line.how == "Suspended"):
            continue
        newer = [run for run in began if run.fence > line.fence and run.boot_ms < line.boot_ms]
        if newer:
            yield f"{line}, still covered by its lease, after fence {newer[0].fence} had begun at {newer[0].boot_ms}"


def proofs(story: Story, history: History) -> Iterator[str]:
    """Who was proved dead had been killed."""
    for _, fact in story.facts:
        if not isinstance(fact, ProcessStarted):
            continue
        took = fact.takeover
        if took is not None and took.cause == "proved_dead" and took.owner.incarnation not in history.killed:
            yield f"the start under fence {fact.fence} calls {took.owner.incarnation} dead ({took.proof}): it lived"


def uncovered(history: History) -> Iterator[tuple[str, str]]:
    """Code and steps are entered only while the lease's local deadline is ahead.

    A program that was paused between looking at its clock and writing its line can't know: one line per pause, if the
    deadline was ahead when the pause began.
    """
    pauses = [struck for struck in history.of(Struck) if struck.kind == "pause"]
    excused: set[int] = set()
    for line in history.of(UnderLease):
        if not isinstance(line, RunBegan | StepBegan) or line.boot_ms < line.deadline_ms:
            continue
        pause = _pause_before(line, pauses)
        if pause is not None and id(pause) not in excused and line.deadline_ms >= pause.began_ms:
            excused.add(id(pause))
            continue
        yield line.process_id, f"{line} was entered {line.boot_ms - line.deadline_ms} ms after it was covered"


def _pause_before(line: UnderLease, pauses: list[Struck]) -> Struck | None:
    """The last pause of that program that had begun by then."""
    of_program = [pause for pause in pauses if pause.pid == line.pid and pause.began_ms <= line.boot_ms]
    return max(of_program, key=lambda pause: pause.began_ms, default=None)
