"""The journal: the entries of a process's log that fix what its code has seen, found again by key on replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Literal

import msgspec

from perdure.model.events import Event
from perdure.model.outcomes import ErrorDetail, Outcome
from perdure.model.registration import NULL


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of the payloads of journal events. `key` names the operation in its process."""

    TYPE: ClassVar[str] = ""
    key: str


class StepCompleted(Entry, frozen=True, gc=False):
    TYPE = "step.completed"
    value: msgspec.Raw = NULL
    arguments: str | None = None
    tries: int = 1


class StepFailure(Entry, frozen=True, gc=False, kw_only=True):
    """Stands until the process itself is retried: `failures` is how often that had happened."""

    TYPE = "step.failed"
    error: ErrorDetail
    arguments: str | None = None
    tries: int = 1
    failures: int = 0


class TimerSet(Entry, frozen=True, gc=False, kw_only=True):
    TYPE = "timer.set"
    due_at_ms: int


class WaitResolved(Entry, frozen=True, gc=False, kw_only=True):
    """How a wait ended: by which signal (its payload copied), by its timer, its time-out, or a child's outcome."""

    TYPE = "wait.resolved"
    by: Literal["signal", "timer", "timeout", "child"]
    sequence: int | None = None
    payload: msgspec.Raw = NULL
    outcome: Outcome | None = None


class RaceDecided(Entry, frozen=True, gc=False, kw_only=True):
    TYPE = "race.decided"
    winner: int
    losers: tuple[str, ...] = ()


class CancelDelivered(Entry, frozen=True, gc=False):
    TYPE = "cancel.delivered"


class ChildStarted(Entry, frozen=True, gc=False, kw_only=True):
    TYPE = "child.started"
    child_id: str


class VersionMarked(Entry, frozen=True, gc=False, kw_only=True):
    TYPE = "version.marked"
    version: int


class ValueRecorded(Entry, frozen=True, gc=False):
    TYPE = "value.recorded"
    value: msgspec.Raw = NULL


AnyEntry = (
    StepCompleted | StepFailure | TimerSet | WaitResolved | RaceDecided | CancelDelivered | ChildStarted | VersionMarked
    | ValueRecorded
)  # fmt: skip

ENTRIES: dict[str, type[AnyEntry]] = {
    kind.TYPE: kind
    for kind in (
        StepCompleted, StepFailure, TimerSet, WaitResolved, RaceDecided, CancelDelivered, ChildStarted, VersionMarked,
        ValueRecorded,
    )
}  # fmt: skip
_DECODERS = {name: msgspec.json.Decoder(kind).decode for name, kind in ENTRIES.items()}


def replay_key(entry_type: str, key: str) -> str:
    """The replay key under which the one entry of this type and key stands in the log."""
    return f"{entry_type}:{key}"


class Journal:
    """What a process's code has been given so far. Reading an entry passes it: an execution whose entries are all
    passed has left replay behind."""

    def __init__(self, events: Iterable[Event] = (), failures: int = 0) -> None:
        self._entries: dict[str, AnyEntry] = {}
        self._passed: set[str] = set()
        self.on_live: Callable[[], None] = lambda: None
        self.signals: dict[str, list[Event]] = {}
        for event in events:
            decode = _DECODERS.get(event.type)
            if decode is not None:
                entry = decode(event.payload)
                if not isinstance(entry, StepFailure) or entry.failures == failures:
                    self._entries[replay_key(event.type, entry.key)] = entry
            elif event.type.startswith("signal."):
                self.signals.setdefault(event.type.removeprefix("signal."), []).append(event)

    @property
    def replaying(self) -> bool:
        """Whether entries are left that this execution has not passed yet."""
        return len(self._passed) < len(self._entries)

    def __iter__(self) -> Iterator[AnyEntry]:
        return iter(self._entries.values())

    def find(self, kind: type[msgspec.Struct], key: str) -> AnyEntry | None:
        """The entry of that type and key, and pass it."""
        name = replay_key(kind.TYPE, key)  # type: ignore[attr-defined]  # every entry class has a TYPE
        entry = self._entries.get(name)
        if entry is not None and name not in self._passed:
            self._passed.add(name)
            if not self.replaying:
                self.on_live()
        return entry

    def add(self, entry: AnyEntry) -> None:
        """An entry that was just committed."""
        name = replay_key(entry.TYPE, entry.key)
        self._entries[name] = entry
        self._passed.add(name)

    def taken_signals(self) -> set[int]:
        """The sequences of signals that waits have taken; a wait that lost a race has taken none."""
        lost = {key for entry in self._entries.values() if isinstance(entry, RaceDecided) for key in entry.losers}
        return {
            entry.sequence
            for entry in self._entries.values()
            if isinstance(entry, WaitResolved) and entry.by == "signal" and entry.sequence is not None
            if entry.key not in lost
        }
