"""What must be true after the kills. Pure: a history in, the story of every breach out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from lab.kills.ledgers import Entry, StartAnswered, StartAsked
from lab.kills.work import OWNER_BOUND
from perdure.codec import decode_fact, refold
from perdure.errors import PerdureError
from perdure.model.events import Event, ProcessEnd, ProcessStarted, RetryScheduled, StartWithdrawn
from perdure.model.outcomes import Abandoned, Completed
from perdure.model.record import ProcessRecord


class History(msgspec.Struct, frozen=True):
    """What the programs wrote down, and what the database holds after them."""

    asked: Sequence[StartAsked]
    answered: Sequence[StartAnswered]
    entries: Sequence[Entry]
    records: Mapping[str, ProcessRecord]
    logs: Mapping[str, Sequence[Event]]
    gone: frozenset[str] = frozenset()


def breaches(history: History) -> list[str]:
    """Every promise that this history breaks, as a sentence."""
    by_process: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.entries:
        by_process[entry.process_id].append(entry)
    found = list(_starts(history))
    for process_id, record in history.records.items():
        events = history.logs.get(process_id, ())
        entries = by_process.get(process_id, [])
        found += [
            f"{process_id} ({record.registration.definition.name}): {breach}"
            for check in (_one_end, _fold, _sequences, _outcome, _fences, _once_if_owner_bound, _explained)
            for breach in check(record, events, entries)
        ]
        found += [f"{process_id}: {breach}" for breach in _deaths_are_true(events, history.gone)]
    found += [f"{id} was entered and has no row" for id in by_process if id not in history.records]
    return found


def takeovers(logs: Mapping[str, Sequence[Event]]) -> Counter[str]:
    """Why rows were taken over, and how often."""
    starts = (start for events in logs.values() for start in starts_of(events))
    return Counter(start.takeover.cause for start in starts if start.takeover is not None)


def _starts(history: History) -> Iterator[str]:
    asked = {start.process_id for start in history.asked}
    for answer in history.answered:
        if answer.error is not None:
            yield f"the start of {answer.process_id} was refused: {answer.error}"
        elif answer.process_id not in history.records:
            yield f"the start of {answer.process_id} was acknowledged and its row is gone"
    for process_id in history.records:
        if process_id not in asked:
            yield f"{process_id} has a row and nobody asked for it"


def _one_end(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    ends = [event.sequence for event in events if isinstance(decode_fact(event), ProcessEnd)]
    if len(ends) != 1:
        yield f"has {len(ends)} terminal events {ends}, status {record.status}"
    elif ends[0] != events[-1].sequence and any(e.type == "process.started" for e in events[ends[0] :]):
        yield f"was started after its end (event {ends[0]})"


def _fold(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    try:
        folded = refold(record.registration, record.state.created_at_ms, events)
    except PerdureError as error:
        yield f"its log can't be read: {error}"
        return
    if folded != record:
        yield f"its record is not the fold of its log: stored {record.state}, folded {folded.state}"


def _sequences(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    sequences = [event.sequence for event in events]
    if sequences != list(range(1, len(events) + 1)):
        yield f"its sequences have gaps: {sequences}"


def _outcome(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    match record.outcome:
        case Completed():
            if not entries:
                yield "completed and was never entered"
        case Abandoned(evidence):
            if record.registration.recovery != "owner_bound":
                yield f"is rerunnable and was abandoned: {evidence}"
            elif evidence.writer not in ("reconciled_request", "owner_drain"):
                yield f"was abandoned by {evidence.writer}"
        case other:
            yield f"ended as {other}"


def _fences(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    """No entry after its lease's local deadline, and none under a fence lower than one already seen."""
    highest = 0
    for entry in sorted(entries, key=lambda entry: (entry.boot_ms, entry.fence)):
        if entry.boot_ms >= entry.deadline_ms:
            yield f"fence {entry.fence} entered it at {entry.boot_ms}, covered until {entry.deadline_ms}"
        if entry.fence <= highest:
            yield f"fence {entry.fence} entered it after fence {highest} had"
        highest = max(highest, entry.fence)


def _once_if_owner_bound(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    bound = record.registration.definition.name in OWNER_BOUND
    if bound and len(entries) > 1:
        yield f"is owner_bound and was entered {len(entries)} times: {entries}"


def _explained(record: ProcessRecord, events: Sequence[Event], entries: Sequence[Entry]) -> Iterator[str]:
    """Each entry belongs to a start of its own, and each start after the first has its cause in the log."""
    granted = {start.fence: start for start in starts_of(events)}
    seen: set[int] = set()
    for entry in entries:
        start = granted.get(entry.fence)
        if start is None or start.owner.incarnation != entry.incarnation:
            yield f"was entered under fence {entry.fence} by {entry.incarnation}, and its log knows no such start"
        if entry.fence in seen:
            yield f"was entered twice under fence {entry.fence}"
        seen.add(entry.fence)
    standing: ProcessStarted | None = None
    for event in events:
        match decode_fact(event):
            case StartWithdrawn() | RetryScheduled():
                standing = None
            case ProcessStarted() as start:
                took = start.takeover
                if standing is not None and (took is None or took.fence != standing.fence):
                    yield f"start {start.attempt} (fence {start.fence}) has no cause: fence {standing.fence} stood"
                if standing is None and took is not None and took.cause != "released":
                    yield f"start {start.attempt} took over fence {took.fence}, which nobody held"
                standing = start


def _deaths_are_true(events: Sequence[Event], gone: frozenset[str]) -> Iterator[str]:
    for start in starts_of(events):
        took = start.takeover
        if took is not None and took.cause == "proved_dead" and took.owner.incarnation not in gone:
            yield f"start {start.attempt} calls {took.owner.incarnation} dead ({took.proof}), which lives"


def starts_of(events: Sequence[Event]) -> Iterator[ProcessStarted]:
    for event in events:
        if event.type == ProcessStarted.TYPE and isinstance(fact := decode_fact(event), ProcessStarted):
            yield fact
