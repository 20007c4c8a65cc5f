"""The journal as tests and tools read it: one entry for each event that fixed what a process's code has seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import msgspec

from perdure.codec import decode_fact
from perdure.engines.python.journal import (
    AnyEntry,
    CancelDelivered,
    ChildStarted,
    RaceDecided,
    StepCompleted,
    StepFailure,
    TimerSet,
    ValueRecorded,
    VersionMarked,
    WaitResolved,
    decode_entry,
    still_stands,
)
from perdure.model.events import Event, ProcessResumed, ProcessStarted, RetryScheduled
from perdure.model.outcomes import Completed, ErrorDetail, Failed, Outcome

EntryKind = Literal["step", "timer", "wait", "race", "child", "version", "value", "cancel"]
EntryStatus = Literal[
    "completed", "failed", "retried", "set", "over", "signalled", "elapsed", "timed_out", "child_ended", "decided",
    "started", "marked", "recorded", "delivered",
]  # fmt: skip

WAITS: dict[str, EntryStatus] = {
    "signal": "signalled", "timer": "elapsed", "timeout": "timed_out", "child": "child_ended",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event of a process's journal. Values and arguments are decoded when they are asked for, as plain JSON data.

    | kind | status | what it tells |
    | --- | --- | --- |
    | step | completed, failed, retried (failed, and the process itself was started again since) | `value` or `error`, `arguments`, `tries` |
    | timer | set, over (something under its key has ended) | `due_at_ms` |
    | wait | signalled, elapsed, timed_out, child_ended | `value`, `signal_sequence`, `outcome` |
    | race | decided | `value`: the place of the winner; `losers`: the keys of the others |
    | child | started | `child_id` |
    | version | marked | `value` |
    | value | recorded | `value`: what ctx.now() (in milliseconds), ctx.uuid() or ctx.random() gave |
    | cancel | delivered | its `key` is the operation at which the code was told, or `@2`: after the second |

    `sequence` and `at_ms` are those of the event; `attempt` is the number of the start in which it was written.
    """  # noqa: E501 - a table

    kind: EntryKind
    key: str
    status: EntryStatus
    sequence: int
    at_ms: int
    attempt: int
    recorded: AnyEntry

    @property
    def tries(self) -> int | None:
        """Of a step: how often its code was run for this result."""
        return self.recorded.tries if isinstance(self.recorded, StepCompleted | StepFailure) else None

    @property
    def arguments(self) -> Any:
        """Of a step: a list of its arguments, with the named ones in an object at its end; None if they could not be
        recorded."""
        entry = self.recorded
        if not isinstance(entry, StepCompleted | StepFailure) or entry.arguments is None:
            return None
        return msgspec.json.decode(entry.arguments)

    @property
    def raw_value(self) -> msgspec.Raw | None:
        """The value as the JSON that is stored; None if the entry has none."""
        match self.recorded:
            case StepCompleted(value=value) | ValueRecorded(value=value):
                return value
            case WaitResolved(outcome=Completed(value)):
                return value
            case WaitResolved(by="signal", payload=payload):
                return payload
            case RaceDecided(winner=number) | VersionMarked(version=number):
                return msgspec.Raw(str(number).encode())
            case _:
                return None

    @property
    def value(self) -> Any:
        """What the code was given, as plain JSON data; None if the entry has no value."""
        raw = self.raw_value
        return None if raw is None else msgspec.json.decode(raw)

    @property
    def error(self) -> ErrorDetail | None:
        """Why a step or a child failed."""
        match self.recorded:
            case StepFailure(error=error) | WaitResolved(outcome=Failed(error)):
                return error
            case _:
                return None

    @property
    def outcome(self) -> Outcome | None:
        """How a child ended, as it was copied into this log."""
        return self.recorded.outcome if isinstance(self.recorded, WaitResolved) else None

    @property
    def due_at_ms(self) -> int | None:
        """When a timer is over: of a sleep, or of a wait with a timeout."""
        return self.recorded.due_at_ms if isinstance(self.recorded, TimerSet) else None

    @property
    def signal_sequence(self) -> int | None:
        """Which event of the log was the signal that a wait was given."""
        return self.recorded.sequence if isinstance(self.recorded, WaitResolved) else None

    @property
    def child_id(self) -> str | None:
        """The process that was started."""
        return self.recorded.child_id if isinstance(self.recorded, ChildStarted) else None

    @property
    def losers(self) -> tuple[str, ...]:
        """The keys of the operations that lost a race."""
        return self.recorded.losers if isinstance(self.recorded, RaceDecided) else ()


def journal_of(log: Iterable[Event]) -> tuple[JournalEntry, ...]:
    """The entries of the journal in a log that was read from its beginning, in order.

    Events that are none of its entries, or of a type that this version doesn't know, are passed over. Raises
    DecodeError for an entry that can't be read.
    """
    found: list[tuple[Event, int, AnyEntry]] = []
    attempt, failures, over = 0, 0, set[str]()
    for event in log:
        entry = decode_entry(event)
        if entry is not None:
            found.append((event, attempt, entry))
            if isinstance(entry, WaitResolved):
                over.add(entry.key)
        elif event.type in (ProcessStarted.TYPE, ProcessResumed.TYPE):
            fact = decode_fact(event)
            assert isinstance(fact, ProcessStarted | ProcessResumed)
            attempt = fact.attempt
        elif event.type == RetryScheduled.TYPE:
            fact = decode_fact(event)
            assert isinstance(fact, RetryScheduled)
            failures = fact.failures
    return tuple(
        _entry(event, attempt, entry, is_retried=not still_stands(entry, failures), is_over=entry.key in over)
        for event, attempt, entry in found
    )


def _entry(event: Event, attempt: int, entry: AnyEntry, *, is_retried: bool, is_over: bool) -> JournalEntry:
    kind, status = _described(entry, is_retried=is_retried, is_over=is_over)
    return JournalEntry(kind, entry.key, status, event.sequence, event.at_ms, attempt, entry)


def _described(entry: AnyEntry, *, is_retried: bool, is_over: bool) -> tuple[EntryKind, EntryStatus]:
    match entry:
        case StepCompleted():
            return "step", "completed"
        case StepFailure():
            return "step", "retried" if is_retried else "failed"
        case TimerSet():
            return "timer", "over" if is_over else "set"
        case WaitResolved():
            return "wait", WAITS[entry.by]
        case RaceDecided():
            return "race", "decided"
        case CancelDelivered():
            return "cancel", "delivered"
        case ChildStarted():
            return "child", "started"
        case VersionMarked():
            return "version", "marked"
        case ValueRecorded():
            return "value", "recorded"
        case _:
            assert_never(entry)
