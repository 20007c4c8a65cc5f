"""The row primitives: all that a database has to offer so that the registry can be written once over it.

They are bulk by nature: one call, one statement, whatever the number of rows. They are coroutines so that a store on
a network can wait in them; a local store simply returns. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from perdure.clock import Moment
from perdure.errors import PerdureError
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.record import ProcessRecord


class StoredRow(msgspec.Struct, frozen=True):
    """A row as it was loaded. `key` is the store's own name for it."""

    key: int
    record: ProcessRecord
    lease: Lease | None


class RecordWrite(msgspec.Struct):
    """A record to be stored under `key` (0: not stored yet; the store fills it in on insert)."""

    key: int
    record: ProcessRecord


class EventWrite(msgspec.Struct, frozen=True):
    key: int
    event: Event


class LeaseWrite(msgspec.Struct, frozen=True):
    """The lease that a row shall have; None removes it. `record` is what the lease's search columns come from."""

    key: int
    record: ProcessRecord
    lease: Lease | None


class EventName(msgspec.Struct, frozen=True):
    """Asks for the events of a process that carry this operation id or this replay key."""

    process_id: str
    operation_id: str | None
    replay_key: str | None


class Candidate(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A row that a store proposes to a claim, in claim order."""

    priority: int
    due_at_ms: int
    process_id: str


class Rows(Protocol):
    """One open write transaction at a time: `begin`, primitives, then `commit` or `rollback`."""

    async def begin(self) -> Moment:
        """Take the write lock; answer the time that decides in this transaction."""
        ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def load(self, process_ids: Collection[str]) -> dict[str, StoredRow | PerdureError]:
        """The rows that exist, locked, by id; an unreadable one is its own typed error."""
        ...

    async def find_events(self, names: Sequence[EventName]) -> Sequence[Event]: ...

    async def claimable(
        self, lanes: Sequence[str], limit: int, now: Moment, dead_incarnations: Collection[str]
    ) -> Sequence[Candidate]:
        """Per lane and priority at most `limit` rows that are ready, or whose lease has lapsed or is void."""
        ...

    async def leased_by_claim(self, incarnation: str, claim_id: str) -> Sequence[str]:
        """Ids of the rows whose lease carries this claim id."""
        ...

    async def insert_records(self, writes: Sequence[RecordWrite]) -> None: ...

    async def save_records(self, writes: Sequence[RecordWrite]) -> None: ...

    async def append_events(self, writes: Sequence[EventWrite]) -> None: ...

    async def save_leases(self, writes: Sequence[LeaseWrite]) -> None: ...
