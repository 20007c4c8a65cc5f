"""The memory registry: the same pipeline over dicts. For tests and the simulator; nothing outlives the program."""

from __future__ import annotations

import asyncio
import bisect
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future as ThreadFuture
from typing import Any

from perdure.clock import Clock, Moment, SystemClock
from perdure.contract.registry import CommitListener, TransactionWork
from perdure.errors import PerdureError, StoreClosed, UnknownProcess
from perdure.model.events import Event
from perdure.model.leases import DeathProof, Enrolment, Lease, Owner
from perdure.model.progress import Progress
from perdure.model.queries import LARGEST_EVENT_PAGE, EventPage, Filter, Page, RecordPage, check_limit
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition
from perdure.stores.group_commit import Entry, commit_entries, single
from perdure.stores.live import LocalWire
from perdure.stores.memory_rows import MemoryRows, lane_of
from perdure.stores.not_joined import NotJoined
from perdure.stores.registry import Result
from perdure.transitions.commands import Command, Renew, RenewReceipt
from perdure.transitions.leases import has_expired
from perdure.transitions.projection import project, project_lease


class MemoryRegistry(NotJoined):
    """A registry in memory, on the event loop that uses it."""

    def __init__(self, clock: Clock | None = None, name: str = "memory://") -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self.rows = MemoryRows(self._clock)
        self._lock = threading.Lock()
        self._listeners: list[CommitListener] = []
        self._enrolled: dict[str, Enrolment] = {}
        self._closed = False
        self.live_wire = LocalWire()

    async def close(self) -> None:
        self._closed = True

    def now(self) -> Moment:
        return self._clock.now()

    # --- commands ---------------------------------------------------------------------------------------------

    async def execute(self, command: Command) -> Any:
        return single(await self.execute_together((command,)))

    async def execute_together(self, commands: Sequence[Command]) -> list[Result]:
        entry = Entry(commands, asyncio.get_running_loop().create_future())
        self._commit(entry)
        return entry.results

    async def execute_all(self, commands: Sequence[Command]) -> list[Result]:
        return await self.execute_together(commands) if commands else []

    async def execute_within(self, work: TransactionWork) -> Any:
        entry = Entry((), asyncio.get_running_loop().create_future(), work)
        self._commit(entry)
        return single(entry.results)

    def renew_from_thread(self, command: Renew) -> ThreadFuture[RenewReceipt]:
        renewed: ThreadFuture[RenewReceipt] = ThreadFuture()
        entry = Entry((command,), renewed)
        try:
            self._commit(entry)
            renewed.set_result(single(entry.results))
        except Exception as error:  # told to whoever renews
            renewed.set_exception(error)
        return renewed

    def _commit(self, entry: Entry) -> None:
        if self._closed:
            raise StoreClosed(self.name, "the store was closed", "Open it again.")
        with self._lock:
            steps = commit_entries(self.rows, [entry], lambda error: False)
            try:
                steps.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("a row primitive of the memory store has waited")
        if entry.error is not None:
            raise entry.error
        receipts = [result for result in entry.results if not isinstance(result, PerdureError)]
        for listener in tuple(self._listeners) if receipts else ():
            listener(receipts)

    def observe(self, listener: CommitListener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # --- reads ------------------------------------------------------------------------------------------------

    async def get(self, process_id: str) -> ProcessRecord:
        self._check_known(process_id)
        return self.rows.records[process_id]

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        return {id: self.rows.records[id] for id in process_ids if id in self.rows.records}

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        records = self.rows.records
        return [id for id in process_ids if id not in records or not records[id].is_live]

    async def get_lease(self, process_id: str) -> Lease | None:
        return self.rows.leases.get(process_id)

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        check_limit(page.limit)
        start = bisect.bisect_right(self.rows.order, page.after_id or "")
        found = []
        for id in self.rows.order[start:]:
            if _matches(self.rows.records[id], filter):
                found.append(self.rows.records[id])
            if len(found) > page.limit:
                break
        return RecordPage(tuple(found[: page.limit]), len(found) > page.limit)

    async def count(self, filter: Filter = Filter()) -> int:  # noqa: B008 - a frozen value
        return sum(_matches(record, filter) for record in self.rows.records.values())

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        self._check_known(process_id)
        later = self.rows.logs[process_id][max(sequence, 0) :]
        return EventPage(tuple(later[:limit]), len(later) > limit)

    async def recent_events(self, process_id: str, limit: int = 100) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        self._check_known(process_id)
        return EventPage(tuple(self.rows.logs[process_id][-limit:]), False)

    async def find_event(self, process_id: str, event_type: str, after_sequence: int) -> Event | None:
        page = await self.events_after(process_id, after_sequence, LARGEST_EVENT_PAGE)
        return next((event for event in page.events if event.type == event_type), None)

    async def progress_of(self, process_ids: Collection[str]) -> dict[str, Progress]:
        keys = {id: self.rows.keys.get(id, 0) for id in process_ids}
        return {id: self.rows.progress[key] for id, key in keys.items() if key in self.rows.progress}

    def _check_known(self, process_id: str) -> None:
        if self._closed:
            raise StoreClosed(self.name, "the store was closed", "Open it again.")
        if process_id not in self.rows.records:
            raise UnknownProcess(process_id)

    async def next_due_at_ms(self, lanes: Sequence[str], now: Moment) -> int | None:
        due: list[int | None] = []
        for record in self.rows.records.values():
            p = project(record)
            due += [p.ready_at_ms if lane_of(record) in lanes else None, p.deadline_at_ms, p.settle_at_ms]
        for id, lease in self.rows.leases.items():
            found = project_lease(self.rows.records[id], lease)
            lapse_ms = lease.boot_expires_ms - now.boot_ms + now.wall_ms
            due.append(lapse_ms if found.lane in lanes else None)
            due.append(max(found.settle_at_ms, lapse_ms) if found.settle_at_ms is not None else None)
        return min((at for at in due if at is not None and at > now.wall_ms), default=None)

    async def due_for_settling(self, now: Moment, incarnations: Collection[str], limit: int) -> Sequence[str]:
        due = set()
        for id, record in self.rows.records.items():
            p = project(record)
            if any(at is not None and at <= now.wall_ms for at in (p.deadline_at_ms, p.settle_at_ms)):
                due.add(id)
        for id, lease in self.rows.leases.items():
            at_ms = project_lease(self.rows.records[id], lease).settle_at_ms
            void = has_expired(lease, now) or lease.owner.incarnation in incarnations
            if at_ms is not None and at_ms <= now.wall_ms and void:
                due.add(id)
        return sorted(due)[:limit]

    # --- other programs: there are none -----------------------------------------------------------------------

    async def enrol(self, owner: Owner, definitions: Collection[Definition] | None = None) -> None:
        """No evidence is needed: whoever shares this registry shares this program."""
        self._enrolled[owner.incarnation] = Enrolment(owner, None if definitions is None else tuple(definitions))

    def lifeline(self, incarnation: str) -> int | None:
        return None

    async def withdraw(self, owner: Owner) -> None:
        self._enrolled.pop(owner.incarnation, None)

    async def enrolled(self) -> tuple[Enrolment, ...]:
        return tuple(sorted(self._enrolled.values(), key=lambda enrolment: enrolment.owner.name))

    async def prove_deaths(self) -> tuple[DeathProof, ...]:
        return ()

    def on_peer_hint(self, listener: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    async def peer_changes(self) -> Sequence[str] | None:
        return ()


def _matches(record: ProcessRecord, filter: Filter) -> bool:
    registration = record.registration
    return (
        (not filter.statuses or record.status in filter.statuses)
        and (filter.definition is None or registration.definition.name == filter.definition)
        and (filter.queue is None or registration.queue == filter.queue)
        and (filter.parent is None or registration.parent == filter.parent)
        and (filter.id_prefix is None or registration.id.startswith(filter.id_prefix))
    )
