"""The row primitives over dicts: what the memory registry keeps."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Mapping, Sequence

from perdure.clock import Clock, Moment
from perdure.contract.registry import TransactionWork
from perdure.errors import NotTransactional, PerdureError
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.stores.rows import Candidate, EventName, RowWrite, StoredRow
from perdure.transitions.commands import ClaimNext, RowCommand
from perdure.transitions.leases import has_expired
from perdure.transitions.projection import lane, project, project_lease


class MemoryRows:
    """The row primitives over dicts; a rollback undoes what the transaction wrote, newest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._undo: list[Callable[[], object]] = []
        self.records: dict[str, ProcessRecord] = {}
        self.keys: dict[str, int] = {}
        self.logs: dict[str, list[Event]] = {}
        self.leases: dict[str, Lease] = {}
        self.progress: dict[int, Progress] = {}
        self.order: list[str] = []

    async def begin(self) -> Moment:
        self._undo.clear()
        return self._clock.now()

    async def commit(self) -> None:
        self._undo.clear()

    async def rollback(self) -> None:
        while self._undo:
            self._undo.pop()()

    async def load(self, process_ids: Collection[str]) -> dict[str, StoredRow | PerdureError]:
        return {
            id: StoredRow(self.keys[id], self.records[id], self.leases.get(id))
            for id in process_ids
            if id in self.records
        }

    async def lend(self, work: TransactionWork) -> RowCommand:
        raise NotTransactional(
            "memory://", "there is no database here that your code could write to",
            "Use a sqlite:// or postgresql:// URL, or leave out transactional=True.",
        )  # fmt: skip

    async def find_events(self, names: Sequence[EventName]) -> Sequence[Event]:
        found = {}  # by place: two commands of a batch may bear one name
        for name in names:
            for event in self.logs.get(name.process_id, ()):
                same_operation = name.operation_id is not None and event.operation_id == name.operation_id
                if same_operation or (name.replay_key is not None and event.replay_key == name.replay_key):
                    found[event.process_id, event.sequence] = event
        return list(found.values())

    async def claimable(
        self, lanes: Sequence[str], limit: int, now: Moment, dead_incarnations: Collection[str]
    ) -> Sequence[Candidate]:
        by_lane: dict[str, list[Candidate]] = {name: [] for name in lanes}
        for id, record in self.records.items():
            p = project(record)
            if lane_of(record) in by_lane and p.ready_at_ms is not None and p.ready_at_ms <= now.wall_ms:
                by_lane[lane_of(record)].append(Candidate(record.registration.priority, p.ready_at_ms, id))
        ready = [candidate for candidates in by_lane.values() for candidate in sorted(candidates)[:limit]]
        for id, lease in self.leases.items():
            record = self.records[id]
            void = has_expired(lease, now) or lease.owner.incarnation in dead_incarnations
            if void and project_lease(record, lease).lane in lanes:
                ready.append(Candidate(record.registration.priority, 0, id))  # claimed before what still waits
        return sorted(ready)[: limit * 2]

    async def leased_by_claims(self, claims: Sequence[ClaimNext]) -> dict[str, list[str]]:
        asked = {(claim.owner.incarnation, claim.claim_id) for claim in claims}
        found: dict[str, list[str]] = {}
        for id, lease in self.leases.items():
            if (lease.owner.incarnation, lease.claim_id) in asked:
                found.setdefault(lease.claim_id, []).append(id)
        return found

    async def insert_records(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            id = row.record.id
            row.key = len(self.keys) + 1
            self.keys[id], self.records[id], self.logs[id] = row.key, row.record, []
            bisect.insort(self.order, id)
            self._undo.append(lambda id=id: self._forget(id))  # type: ignore[misc]

    def _forget(self, id: str) -> None:
        del self.keys[id], self.records[id], self.logs[id]
        self.order.remove(id)

    async def save_records(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            id, before = row.record.id, self.records[row.record.id]
            self.records[id] = row.record
            self._undo.append(lambda id=id, before=before: self.records.__setitem__(id, before))  # type: ignore[misc]

    async def append_events(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            log = self.logs[row.record.id]
            for event in row.fresh:
                assert event.sequence == len(log) + 1, "a log has no gaps"
                log.append(event)
                self._undo.append(log.pop)

    async def save_leases(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            id, before = row.record.id, self.leases.get(row.record.id)
            self._set_lease(id, row.lease)
            self._undo.append(lambda id=id, before=before: self._set_lease(id, before))  # type: ignore[misc]

    def _set_lease(self, id: str, lease: Lease | None) -> None:
        if lease is None:
            self.leases.pop(id, None)
        else:
            self.leases[id] = lease

    async def save_progress(self, progress: Mapping[int, Progress]) -> None:
        for key, said in progress.items():
            before = self.progress.get(key)
            self.progress[key] = said
            self._undo.append(lambda key=key, before=before: self._set_progress(key, before))  # type: ignore[misc]

    def _set_progress(self, key: int, said: Progress | None) -> None:
        if said is None:
            self.progress.pop(key, None)
        else:
            self.progress[key] = said


def lane_of(record: ProcessRecord) -> str:
    return lane(record.registration.queue, record.registration.definition)
