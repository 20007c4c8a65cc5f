"""What a run has left: the lines outside the database, and the records and logs in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from lab.postgres.lines import AnyLine, SignalAsked, StartAsked, Struck, UnderLease, WorkerUp
from lab.postgres.work import Work
from perdure.codec import decode_fact
from perdure.engines.python.journal import StepCompleted, decode_entry
from perdure.host import Host
from perdure.model.events import AnyFact, Event
from perdure.model.queries import Filter, Page
from perdure.model.record import ProcessRecord

LineT = TypeVar("LineT")


class Stored(msgspec.Struct, frozen=True):
    """What the database holds of every process."""

    records: Mapping[str, ProcessRecord]
    logs: Mapping[str, Sequence[Event]]


class History(msgspec.Struct, frozen=True, dict=True):
    lines: Sequence[AnyLine]
    stored: Stored

    @cached_property
    def _of_kind(self) -> dict[type[Any], list[Any]]:
        return {}

    def of(self, kind: type[LineT]) -> list[LineT]:
        """The lines of one kind, in order."""
        if kind not in self._of_kind:
            self._of_kind[kind] = [line for line in self.lines if isinstance(line, kind)]
        return self._of_kind[kind]

    @cached_property
    def by_process(self) -> Mapping[str, Sequence[UnderLease]]:
        """What the code of each process wrote down."""
        found: dict[str, list[UnderLease]] = defaultdict(list)
        for line in self.of(UnderLease):
            found[line.process_id].append(line)
        return found

    @cached_property
    def asked(self) -> Mapping[str, StartAsked]:
        return {line.process_id: line for line in self.of(StartAsked)}

    @cached_property
    def signalled(self) -> Mapping[str, int]:
        """What was sent to each process that waits for a signal."""
        return {line.process_id: line.value for line in self.of(SignalAsked)}

    @cached_property
    def killed(self) -> frozenset[str]:
        """The incarnations of workers that were killed."""
        pids = {struck.pid for struck in self.of(Struck) if struck.kind == "kill"}
        return frozenset(up.incarnation for up in self.of(WorkerUp) if up.pid in pids)

    @cached_property
    def slots(self) -> Mapping[str, int]:
        """Which worker an incarnation was."""
        return {up.incarnation: up.slot for up in self.of(WorkerUp)}

    def about(self, process_id: str) -> list[AnyLine]:
        """Every line that names a process."""
        return [line for line in self.lines if getattr(line, "process_id", None) == process_id]


class Story:
    """One process: what was stored of it and what its code wrote down."""

    def __init__(self, record: ProcessRecord, events: Sequence[Event], lines: Sequence[UnderLease]) -> None:
        self.record, self.events, self.lines = record, events, lines
        self.facts: list[tuple[Event, AnyFact]] = [(event, decode_fact(event)) for event in events]

    @property
    def work(self) -> Work:
        """Its input."""
        return msgspec.json.decode(self.record.registration.input, type=Work)

    @property
    def kind(self) -> str:
        return self.record.registration.definition.name

    def steps_recorded(self) -> list[tuple[int, StepCompleted]]:
        """The finished steps in the log, and at which sequence each stands."""
        entries = ((event.sequence, decode_entry(event)) for event in self.events)
        return [(sequence, entry) for sequence, entry in entries if isinstance(entry, StepCompleted)]


async def read_stored(host: Host) -> Stored:
    """Everything, through the library. For a database that nobody writes to any more."""
    records: dict[str, ProcessRecord] = {}
    page = await host.list(Filter(), Page(1_000))
    while page.records:
        records.update((record.id, record) for record in page.records)
        page = await host.list(Filter(), Page(1_000, page.records[-1].id))
    logs: dict[str, Sequence[Event]] = {}
    for process_id in records:
        found = await host.registry.events_after(process_id, 0, 10_000)
        assert not found.more, process_id
        logs[process_id] = found.events
    return Stored(records, logs)


def changed(before: Stored, after: Stored) -> list[tuple[str, str]]:
    """What was read once and is read otherwise now; nobody has written meanwhile."""
    found = [(id, "is gone after a crash of the server") for id in before.records if id not in after.records]
    found += [(id, "is there only after a crash of the server") for id in after.records if id not in before.records]
    for id in before.records.keys() & after.records.keys():
        if before.records[id] != after.records[id]:
            found.append((id, f"was {before.records[id].state}, is {after.records[id].state} after a crash"))
        if list(before.logs[id]) != list(after.logs[id]):
            found.append((id, "has another log after a crash of the server"))
    return found
