"""The row primitives: all that a database has to offer so that the registry can be written once over it.

They are bulk by nature: one call, one statement, whatever the number of rows. They are coroutines so that a store on
a network can wait in them; a local store simply returns. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from perdure.clock import Moment
from perdure.contract.registry import TransactionWork
from perdure.errors import PerdureError
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.transitions.commands import ClaimNext, RowCommand


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """A row as it was loaded. `key` is the store's own name for it."""

    key: int
    record: ProcessRecord
    lease: Lease | None


class RowWrite:
    """A row to be written. `key` is 0 until the store has inserted it and filled it in.

    `fresh` are the events to append, `lease` is the lease it shall have (None: none).
    """

    __slots__ = ("fresh", "key", "lease", "record")

    def __init__(self, key: int, record: ProcessRecord, lease: Lease | None) -> None:
        self.key, self.record, self.lease = key, record, lease
        self.fresh: list[Event] = []


class EventName(msgspec.Struct, frozen=True, gc=False):
    """Asks for the events of a process that carry this operation id or this replay key."""

    process_id: str
    operation_id: str | None
    replay_key: str | None


class Candidate(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """A row that a store proposes to a claim, in claim order. What a lost owner had has the due time 0: it was claimed
    before what still waits, and is not sent to the end of a backlog."""

    priority: int
    due_at_ms: int
    process_id: str


class LentFailure(Exception):
    """The user's code has raised `error` in a transaction that was lent to it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class Rows(Protocol):
    """One open write transaction at a time: `begin`, primitives, then `commit` or `rollback`."""

    async def begin(self) -> Moment:
        """Take the write lock; answer the time that decides in this transaction."""
        ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def lend(self, work: TransactionWork) -> RowCommand:
        """Have the user's code write on the connection of the open transaction; the command that it returns. What it
        raises comes as LentFailure: it says nothing of the store."""
        ...

    async def load(self, process_ids: Collection[str]) -> dict[str, StoredRow | PerdureError]:
        """The rows that exist, locked, by id; an unreadable one is its own typed error."""
        ...

    async def find_events(self, names: Sequence[EventName]) -> Sequence[Event]: ...

    async def claimable(
        self, lanes: Sequence[str], limit: int, now: Moment, dead_incarnations: Collection[str]
    ) -> Sequence[Candidate]:
        """Per lane the first `limit` rows that are ready, and at most `limit` with a lapsed or void lease; in claim
        order. Asked once in a batch for all of its claims on the same lanes, `limit` being enough for them together."""
        ...

    async def leased_by_claims(self, claims: Sequence[ClaimNext]) -> Mapping[str, Sequence[str]]:
        """Ids of the rows whose lease carries the claim id, and the incarnation, of one of these claims; by claim id.
        A claim that has none is left out; one that is asked twice is answered once."""
        ...

    async def insert_records(self, rows: Sequence[RowWrite]) -> None:
        """Store new records and fill in their keys."""
        ...

    async def save_records(self, rows: Sequence[RowWrite]) -> None:
        """Store the records of rows that exist."""
        ...

    async def append_events(self, rows: Sequence[RowWrite]) -> None:
        """Append the fresh events of these rows."""
        ...

    async def save_leases(self, rows: Sequence[RowWrite]) -> None:
        """Give each row the lease it shall have, or none."""
        ...

    async def save_progress(self, progress: Mapping[int, Progress]) -> None:
        """Give each row, by its key, this progress instead of what it had. It is no change of the row."""
        ...
