"""Reads every row of a database again and compares: is each event as it was written, does each log make its record?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from perdure.codec import decode_registration, decode_state, refold
from perdure.errors import DecodeError, PerdureError
from perdure.model.events import Event
from perdure.model.record import ProcessRecord
from perdure.stores.sqlite.connection import typed_errors
from perdure.stores.sqlite.inspection import Inspection
from perdure.stores.sqlite.rows import event_from_row
from perdure.transitions.projection import lane, project

ROWS_AT_ONCE = 500


class Damage(msgspec.Struct, frozen=True):
    """One row that is not what it must be."""

    process_id: str
    sequence: int | None
    problem: str


class Verified(msgspec.Struct, frozen=True):
    """What one step of a verification has read."""

    processes: int
    events: int
    damages: tuple[Damage, ...]


def count_processes(inspection: Inspection) -> int:
    with typed_errors(inspection.store):
        count: int = inspection.connection.execute(inspection.sql["count_processes"]).get
        return count


def verify(inspection: Inspection) -> Iterator[Verified]:
    """Walk over all rows in steps, each in a read transaction of its own, so that a writer beside it is not held up."""
    after: int = 0
    while True:
        with typed_errors(inspection.store), inspection.connection:
            step = {"after": after, "limit": ROWS_AT_ONCE}
            rows: Sequence[Any] = inspection.connection.execute(inspection.sql["some_processes"], step).fetchall()
            if not rows:
                break
            last: int = rows[-1][0]
            span = {"after": after, "last": last}
            events = inspection.connection.execute(inspection.sql["their_events"], span).fetchall()
        logs = {row: list(log) for row, log in groupby(events, key=itemgetter(0))}
        damages = tuple(d for row in rows for d in _damages(row, logs.get(row[0], [])))
        yield Verified(len(rows), len(events), damages)
        after = last
    with typed_errors(inspection.store):
        strays = inspection.connection.execute(inspection.sql["strays"]).fetchall()
    yield Verified(
        0, 0, tuple(Damage("", None, f"row {row} of {table} belongs to no process") for table, row in strays)
    )


def _damages(row: Sequence[Any], log: Sequence[Sequence[Any]]) -> Iterator[Damage]:
    _, id, queued, priority, status, ready_at, deadline_at, settle_at, parent, body, text = row
    if body is None:
        yield Damage(id, None, "it has no registration")
        return
    events, unreadable = _events(id, log)
    yield from unreadable
    try:
        record = ProcessRecord(decode_registration(body, id), decode_state(text, id))
    except DecodeError as error:
        yield Damage(id, None, str(error))
        return
    if record.id != id or record.registration.parent != parent:
        yield Damage(id, None, "its columns and its registration name another id or parent")
    registration, due = record.registration, project(record)
    columns = {
        "lane": (queued, lane(registration.queue, registration.definition)),
        "priority": (priority, registration.priority),
        "status": (status, record.status),
        "ready_at": (ready_at, due.ready_at_ms),
        "deadline_at": (deadline_at, due.deadline_at_ms),
        "settle_at": (settle_at, due.settle_at_ms),
    }
    for name, (stored, found) in columns.items():
        if stored != found:
            yield Damage(id, None, f"column {name} says {stored!r}, its record makes it {found!r}")
    if not unreadable:
        yield from _compare(record, events)


def _events(id: str, log: Sequence[Sequence[Any]]) -> tuple[list[Event], list[Damage]]:
    events, damages = [], []
    for expected, (_, sequence, *rest) in enumerate(log, 1):
        if sequence != expected:
            damages.append(Damage(id, sequence, f"event {expected} should stand here: the log has a gap"))
            break
        try:
            events.append(event_from_row(id, (sequence, *rest)))
        except DecodeError as error:
            damages.append(Damage(id, sequence, str(error)))
    return events, damages


def _compare(record: ProcessRecord, events: Sequence[Event]) -> Iterator[Damage]:
    """The log, folded, must be the stored record in every field."""
    try:
        folded = refold(record.registration, record.state.created_at_ms, events)
    except (PerdureError, AssertionError) as error:
        yield Damage(record.id, None, f"its log can't be folded: {error}")
        return
    for field in record.state.__struct_fields__:
        stored, found = getattr(record.state, field), getattr(folded.state, field)
        if stored != found:
            yield Damage(record.id, None, f"{field}: the record says {stored!r}, its log makes it {found!r}")
