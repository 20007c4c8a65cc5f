"""The journal: the entries of a process's log that fix what its code has seen, found again by key on replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Literal, TypeVar

import msgspec

from perdure.errors import DecodeError
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
    """At which operation the request to stop reached the code; or between which (`@2`: after the second)."""

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
EntryT = TypeVar("EntryT", bound=Entry)

_DECODERS = {name: msgspec.json.Decoder(kind).decode for name, kind in ENTRIES.items()}


def decode_entry(event: Event) -> AnyEntry | None:
    """What an event of the journal says; None for events that are none of its entries, or that this version doesn't
    know. Raises DecodeError for one that can't be read as what it says it is."""
    decode = _DECODERS.get(event.type)
    if decode is None:
        return None
    try:
        return decode(event.payload)
    except msgspec.MsgspecError as error:
        what = f"event {event.sequence} ({event.type}) of process {event.process_id!r}"
        raise DecodeError(f"{what} is no entry of a journal: {error}", what=what) from error


def replay_key(entry_type: str, key: str) -> str:
    """Under which the one entry of this type and key is found."""
    return f"{entry_type}:{key}"


def written_key(entry: AnyEntry) -> str:
    """The replay key of an entry in the log: a step may fail once more in each retry of its process."""
    key = replay_key(entry.TYPE, entry.key)
    return f"{key}@{entry.failures}" if isinstance(entry, StepFailure) else key


def still_stands(entry: AnyEntry, failures: int) -> bool:
    """Whether it is what the code is given in a process that has failed so often: a step's failure is not, once the
    process was started again."""
    return not isinstance(entry, StepFailure) or entry.failures == failures


class Journal:
    """What a process's code has been given so far. Finding an entry passes all that its operation has recorded: an
    execution with nothing ahead has left replay behind."""

    def __init__(self, events: Iterable[Event] = (), failures: int = 0) -> None:
        self._entries: dict[type[Entry], dict[str, AnyEntry]] = {}
        self._ahead: set[str] = set()
        self.on_live: Callable[[], None] = lambda: None
        self.signals: dict[str, list[Event]] = {}
        for event in events:
            entry = decode_entry(event)
            if entry is not None:
                if still_stands(entry, failures):
                    self.add(entry)
                    self._ahead.add(entry.key)
            elif event.type.startswith("signal."):
                self.signals.setdefault(event.type.removeprefix("signal."), []).append(event)

    @property
    def replaying(self) -> bool:
        """Whether something was recorded that this execution has not come to yet."""
        return bool(self._ahead)

    def is_ahead_in(self, scope: str) -> bool:
        """The same for the operations of one scope."""
        return any(key.startswith(scope) for key in self._ahead)

    def find(self, kind: type[EntryT], key: str) -> EntryT | None:
        """The entry of that type and key, and pass it."""
        entries = self._entries.get(kind)
        entry = None if entries is None else entries.get(key)
        if entry is None:
            return None
        assert isinstance(entry, kind)
        if key in self._ahead:
            self._ahead.discard(key)
            if isinstance(entry, RaceDecided):
                self._ahead.difference_update(entry.losers)
            if not self._ahead:
                self.on_live()
        return entry

    def add(self, entry: AnyEntry) -> None:
        """An entry that was just committed."""
        self._entries.setdefault(type(entry), {})[entry.key] = entry

    def taken_signals(self) -> set[int]:
        """The sequences of signals that waits have taken; a wait that lost a race has taken none."""
        lost = {key for entry in self._all(RaceDecided) for key in entry.losers}
        return {
            entry.sequence
            for entry in self._all(WaitResolved)
            if entry.by == "signal" and entry.sequence is not None and entry.key not in lost
        }

    def signals_taken_by(self, keys: Iterable[str]) -> set[int]:
        """Those that the waits of these keys have taken."""
        wanted = frozenset(keys)
        return {e.sequence for e in self._all(WaitResolved) if e.key in wanted and e.sequence is not None}

    def _all(self, kind: type[EntryT]) -> Iterator[EntryT]:
        return (entry for entry in self._entries.get(kind, {}).values() if isinstance(entry, kind))
