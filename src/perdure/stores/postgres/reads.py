"""Looking at processes in PostgreSQL: each read is a statement of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from perdure.clock import Moment
from perdure.codec import decode_progress
from perdure.errors import PerdureError, UnknownProcess
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.queries import LARGEST_EVENT_PAGE, EventPage, Filter, Page, RecordPage, check_limit
from perdure.model.record import ProcessRecord
from perdure.stores.callers import Callers
from perdure.stores.event_rows import event_from_row
from perdure.stores.postgres.engine import Engine
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.reader import decoded
from perdure.stores.postgres.wanted import can_exist

T = TypeVar("T")


class PostgresReads:
    """The reads of a registry, on the store's own loop. `_engine` is there once that loop has opened it."""

    _engine: Engine

    def __init__(self, own: OwnLoop, callers: Callers) -> None:
        self._own, self._callers = own, callers

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done on the store's own loop. Raises ForkedConnection or StoreClosed."""
        try:
            self._callers.check()
        except BaseException:
            work.close()
            raise
        return await asyncio.wrap_future(self._own.call(work))

    async def get(self, process_id: str) -> ProcessRecord:
        found = (await self._call(self._engine.reader.records((process_id,))))[process_id]
        if found is None:
            raise UnknownProcess(process_id)
        if isinstance(found, PerdureError):
            raise found
        return found

    async def get_many(self, process_ids: Collection[str]) -> dict[str, ProcessRecord]:
        found = await self._call(self._engine.reader.records(tuple(process_ids)))
        return {id: record for id, record in found.items() if isinstance(record, ProcessRecord)}

    async def ended_among(self, process_ids: Collection[str]) -> Sequence[str]:
        existable = [id for id in process_ids if can_exist(id)]
        ended = await self._value("ended_among", ids=existable)
        return [*(ended or ()), *(id for id in process_ids if not can_exist(id))]

    async def get_lease(self, process_id: str) -> Lease | None:
        text = await self._value("lease", id=process_id) if can_exist(process_id) else None
        return None if text is None else msgspec.json.decode(text, type=Lease)

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        check_limit(page.limit)
        rows = await self._rows("list", **_conditions(filter), after=page.after_id or "", limit=page.limit + 1)
        records = []
        for id, body, state in rows[: page.limit]:
            record = decoded(id, body, state)
            if isinstance(record, PerdureError):
                raise record
            records.append(record)
        return RecordPage(tuple(records), len(rows) > page.limit)

    async def count(self, filter: Filter = Filter()) -> int:  # noqa: B008 - a frozen value
        return int(await self._value("count", **_conditions(filter)))

    async def events_after(self, process_id: str, sequence: int, limit: int = 1_000) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        events = await self._events("events_after", process_id, after=max(0, sequence), limit=limit + 1)
        return EventPage(tuple(events[:limit]), len(events) > limit)

    async def recent_events(self, process_id: str, limit: int = 100) -> EventPage:
        check_limit(limit, LARGEST_EVENT_PAGE)
        return EventPage(tuple(await self._events("recent_events", process_id, limit=limit)), False)

    async def find_event(self, process_id: str, event_type: str, after_sequence: int) -> Event | None:
        events = await self._events("find_event", process_id, type=event_type, after=max(0, after_sequence))
        return events[0] if events else None

    async def progress_of(self, process_ids: Collection[str]) -> dict[str, Progress]:
        rows = await self._rows("progress_of", ids=[id for id in process_ids if can_exist(id)])
        return {id: decode_progress(body, id) for id, body in rows}

    async def _events(self, name: str, process_id: str, **values: Any) -> Sequence[Event]:
        rows = await self._rows(name, id=process_id, **values) if can_exist(process_id) else ()
        if not rows:
            raise UnknownProcess(process_id)
        return [event_from_row(process_id, row[1:]) for row in map(tuple, rows) if row[1] is not None]

    async def next_due_at_ms(self, lanes: Sequence[str], now: Moment) -> int | None:
        due: int | None = await self._value("next_due", lanes=lanes, now=now.wall_ms, boot_now=now.boot_ms)
        return due

    async def due_for_settling(self, now: Moment, incarnations: Collection[str], limit: int) -> Sequence[str]:
        due = await self._value(
            "due_for_settling", now=now.wall_ms, boot_now=now.boot_ms, limit=limit, dead=list(incarnations)
        )
        return due or ()

    async def _rows(self, name: str, **values: Any) -> Sequence[Any]:
        return await self._call(self._engine.reader.rows(name, **values))

    async def _value(self, name: str, **values: Any) -> Any:
        return await self._call(self._engine.reader.value(name, **values))


def _conditions(filter: Filter) -> dict[str, Any]:
    return {
        "statuses": filter.statuses or None,
        "definition": filter.definition,
        "queue": filter.queue,
        "parent": filter.parent,
        "prefix": filter.id_prefix,
    }
