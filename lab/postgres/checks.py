"""What must be true after all faults. Pure: a history in, the story of every breach out.

Outside evidence is the ledger: what was acknowledged to whoever asked, and what the code of each process did, when,
under which fence. It is held against the records and logs that the database gives back.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lab.postgres import effects, fences
from lab.postgres.history import History, Story
from lab.postgres.lines import (
    FaultReported,
    OutcomeSeen,
    RunBegan,
    RunEnded,
    SignalAcknowledged,
    SignalAsked,
    StartAcknowledged,
)
from lab.postgres.plans import LEASE_TTL_MS
from lab.postgres.work import CHILDREN, OWNER_BOUND, Work, child_work, expected
from perdure.codec import refold
from perdure.engines.python.children import child_id
from perdure.errors import PerdureError
from perdure.model.events import ProcessEnd, ProcessStarted, SignalReceived
from perdure.model.outcomes import Abandoned, Completed


class Breach(msgspec.Struct, frozen=True):
    """A promise that was broken, and on which process if it was on one."""

    what: str
    process_id: str | None = None

    def __str__(self) -> str:
        return self.what if self.process_id is None else f"{self.process_id}: {self.what}"


def breaches(history: History) -> list[Breach]:
    """Every promise that this history breaks."""
    found: list[Breach] = [*_starts(history), *_signals(history), *_ends_seen(history)]
    found += [Breach(what, id) for id, what in fences.uncovered(history)]
    for id in history.by_process:
        if id not in history.stored.records:
            found.append(Breach("was entered and has no row", id))
    for id, record in history.stored.records.items():
        story = Story(record, history.stored.logs.get(id, ()), history.by_process.get(id, ()))
        checks = (_fold, _sequences, _one_end, _outcome, fences.of_log, fences.granted, fences.overlapping,
                  fences.proofs, effects.recorded, effects.repeated)  # fmt: skip
        found += [Breach(what, id) for check in checks for what in check(story, history)]
    return found


# --- (1) what was acknowledged is there ------------------------------------------------------------------------


def _starts(history: History) -> Iterator[Breach]:
    records = history.stored.records
    for acknowledged in history.of(StartAcknowledged):
        if acknowledged.process_id not in records:
            yield Breach("its start was acknowledged and its row is gone", acknowledged.process_id)
    for id, record in records.items():
        asked, parent = history.asked.get(id), record.registration.parent
        kind, stored = record.registration.definition.name, _work(record.registration.input)
        if asked is not None and (kind, stored) != (asked.kind, Work(asked.n, asked.takes_ms)):
            yield Breach(f"was asked for as {asked}, and stands as {kind} of {stored}", id)
        if asked is None and (parent is None or parent not in records):
            yield Breach("has a row and nobody asked for it", id)
    for id, record in records.items():
        if record.registration.definition.name == "parent" and isinstance(record.outcome, Completed):
            work = _work(record.registration.input)
            for number in range(CHILDREN):
                child = records.get(child_id(id, f"c{number}"))
                if child is None:
                    yield Breach(f"has completed, and its child {number} has no row", id)
                elif _work(child.registration.input) != child_work(work, number):
                    yield Breach(f"its child {child.id} has the input {_work(child.registration.input)}", id)


def _work(input: msgspec.Raw) -> Work:
    return msgspec.json.decode(input, type=Work)


def _signals(history: History) -> Iterator[Breach]:
    asked = {(s.process_id, s.signal_id): s.value for s in history.of(SignalAsked)}
    acknowledged = {(s.process_id, s.signal_id): s.sequence for s in history.of(SignalAcknowledged)}
    stored: dict[tuple[str, str | None], list[tuple[int, int]]] = {}
    for id, record in history.stored.records.items():
        for event, fact in Story(record, history.stored.logs.get(id, ()), ()).facts:
            if isinstance(fact, SignalReceived):
                value = msgspec.json.decode(fact.payload, type=int)
                stored.setdefault((id, fact.signal_id), []).append((event.sequence, value))
    for (id, signal_id), sequence in acknowledged.items():
        if (sequence, asked[id, signal_id]) not in stored.get((id, signal_id), []):
            yield Breach(f"signal {signal_id} was acknowledged as event {sequence} and is not there", id)
    for (id, name), found in stored.items():
        if len(found) > 1:
            yield Breach(f"signal {name} stands {len(found)} times, as {found}", id)
        if name is None or (id, name) not in asked:
            yield Breach(f"has the signal {name}, which nobody sent", id)


# --- (2) one end, (3) the right one, (5) the fold ---------------------------------------------------------------


def _ends_seen(history: History) -> Iterator[Breach]:
    for seen in history.of(OutcomeSeen):
        record = history.stored.records.get(seen.process_id)
        stands = None if record is None else msgspec.json.encode(record.outcome).decode()
        if stands != seen.outcome:
            yield Breach(f"a waiter was told {seen.outcome}, and what stands is {stands}", seen.process_id)


def _one_end(story: Story, history: History) -> Iterator[str]:
    ends = [event.sequence for event, fact in story.facts if isinstance(fact, ProcessEnd)]
    if len(ends) != 1:
        yield f"has {len(ends)} terminal events {ends}, status {story.record.status}"


def _outcome(story: Story, history: History) -> Iterator[str]:
    match story.record.outcome:
        case Completed(value):
            right = expected(story.kind, story.work, history.signalled.get(story.record.id, 0))
            if msgspec.json.decode(value) != right:
                yield f"has completed with {bytes(value).decode()}, not with {right}"
            if not any(isinstance(line, RunEnded) and line.how == "returned" for line in story.lines):
                yield "has completed, and its code has not returned"
        case Abandoned(evidence) if story.kind in OWNER_BOUND:
            if evidence.writer != "reconciled_request":
                yield f"was abandoned by {evidence.writer}"
            yield from _owner_was_lost(story, history)
        case other:
            yield f"ended as {other}, status {story.record.status}"
    entered = [line.fence for line in story.lines if isinstance(line, RunBegan)]
    if story.kind in OWNER_BOUND and len(entered) > 1:
        yield f"is owner_bound and was entered under the fences {entered}"


def _owner_was_lost(story: Story, history: History) -> Iterator[str]:
    """Killed, or it has said so itself, or its code was cut off, or it has never entered and let the lease lapse."""
    id = story.record.id
    starts = [(event, fact) for event, fact in story.facts if isinstance(fact, ProcessStarted)]
    if not starts:
        yield "was abandoned and never started"
        return
    event, start = starts[-1]
    if start.owner.incarnation in history.killed:
        return
    if any(line.process_id == id for line in history.of(FaultReported)):
        return
    ended = [line for line in story.lines if isinstance(line, RunEnded)]
    if any(line.how != "returned" or line.boot_ms >= line.deadline_ms for line in ended):
        return
    if not story.lines and story.events[-1].at_ms >= event.at_ms + LEASE_TTL_MS:
        return
    yield f"was abandoned, and its owner {start.owner.incarnation} was neither killed nor past its lease"


def _fold(story: Story, history: History) -> Iterator[str]:
    record = story.record
    try:
        folded = refold(record.registration, record.state.created_at_ms, story.events)
    except PerdureError as error:
        yield f"its log can't be read: {error}"
        return
    if folded != record:
        yield f"its record is not the fold of its log: stored {record.state}, folded {folded.state}"


def _sequences(story: Story, history: History) -> Iterator[str]:
    sequences = [event.sequence for event in story.events]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"its sequences have gaps: {sequences}"
