"""The row primitives on one PostgreSQL connection, for one transaction.

What the commands name is locked and read when the transaction begins, in one round trip; what was decided is kept, and
written when it commits, in another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import starmap
from typing import Any

import msgspec

from perdure.clock import Moment
from perdure.codec import decode_registration, decode_state
from perdure.contract.registry import TransactionWork
from perdure.errors import DecodeError, PerdureError
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord
from perdure.stores.claim_pool import Lanes, lanes_of
from perdure.stores.event_rows import event_from_row
from perdure.stores.postgres.connections import Connection
from perdure.stores.postgres.faults import Overtaken, RowsHeld, Unconfirmed, is_lost
from perdure.stores.postgres.shared import Known, Shared, database_moment
from perdure.stores.postgres.wanted import Wanted, can_exist
from perdure.stores.postgres.written import Written
from perdure.stores.rows import Candidate, EventName, RowWrite, StoredRow
from perdure.transitions.commands import ClaimNext, RowCommand

BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {lock_ms}; "
    "SET LOCAL idle_in_transaction_session_timeout = 10000"
)
"""A program that stands still in a transaction must not hold its rows for ever."""

LOCK_BOUND_MS = 500
"""How long a batch waits where it can't but wait: an insert of an id that another open transaction has inserted."""

_decode_lease = msgspec.json.Decoder(Lease).decode


class PostgresRows:
    """One transaction. `wait_ms` is how long each lock is waited for; 0: what is held raises RowsHeld.

    `partly`: what is decided about one row has nothing to do with the others, so that rows which others have inserted
    meanwhile (`met`, after the commit) can be left out. `all_new`: what is wanted is taken for new, and nothing is
    asked before it is written; the time that decides is then the server's, as far as it is known without asking.
    """

    def __init__(
        self, connection: Connection, shared: Shared, wanted: Wanted, *, wait_ms: int = 0, partly: bool = False,
        all_new: bool = False,
    ) -> None:  # fmt: skip
        self._partly, self._all_new, self.met = partly, all_new, frozenset[str]()
        self._connection, self._shared, self._wanted, self._wait_ms = connection, shared, wanted, wait_ms
        self._sql = shared.sql
        self._taken = frozenset(wanted.ids).union(wanted.seen_ids)
        self._loaded: dict[str, StoredRow | PerdureError] = {}
        self._again: dict[str, list[str]] = {}
        self._proposed: tuple[Lanes, frozenset[str], int, Sequence[Candidate]] | None = None
        self._now: Moment | None = None
        self._change: int | None = None
        self.written = Written()

    async def begin(self) -> Moment:
        await self._connection.execute(BEGIN.format(lock_ms=self._wait_ms or LOCK_BOUND_MS))
        return await self.look()

    async def look(self) -> Moment:
        """Lock and read what is wanted; the time that decides."""
        if self._all_new:
            self._now = self._shared.time.now()
            return self._now
        given = self._shared.time.given
        if given is not None:
            self._now = given.now()
            if self._now.boot_id != self._shared.boot_id:
                await self._execute("void_other_boots", boot_id=self._now.boot_id)
        if self._wanted.only_leases:
            await self._take("take_leases", self._wanted.ids)
        elif self._wanted.ids or self._wanted.seen_ids or not self._wanted.claims:
            await self._take("take_rows", self._wanted.ids, self._wanted.seen_ids)
        else:
            await self._ask()
        assert self._now is not None
        return self._now

    async def commit(self) -> None:
        try:
            await self.commit_by(lambda: self._connection.execute("COMMIT"))
        except Unconfirmed as unconfirmed:
            if self.written.is_empty:  # whether nothing was committed makes no difference
                raise unconfirmed.cause from None
            raise

    async def commit_by(self, commit: Callable[[], Awaitable[object]]) -> None:
        """Write what was decided, then commit."""
        if not self.written.is_empty:
            await self._write()
        self._shared.moments.reached("commit.before")
        try:
            await commit()
            self._shared.moments.reached("commit.after")
        except Exception as error:
            if is_lost(error):
                if self._change is not None:
                    self._shared.own_changes.note_unconfirmed(self._change)
                raise Unconfirmed(error) from error
            raise
        self._shared.boot_id = self._now.boot_id if self._now is not None else None
        for row, registration in self.written.registrations:
            if registration.id not in self.met:
                self._shared.registrations.put(row, registration)

    async def rollback(self) -> None:
        if not self._connection.is_closed() and self._connection.is_in_transaction():
            try:
                await self._connection.execute("ROLLBACK")
            except Exception:  # what was sent is undone by the server when the connection is gone
                self._connection.terminate()

    async def lend(self, work: TransactionWork) -> RowCommand:
        raise AssertionError("the user's code runs on its own loop: see lending.py")

    async def _execute(self, name: str, **values: Any) -> None:
        statement = self._sql[name]
        await self._connection.execute(statement.text, *statement.values(values))

    async def _row(self, name: str, **values: Any) -> Any:
        statement = self._sql[name]
        return await self._connection.fetchrow(statement.text, *statement.values(values))

    async def _rows(self, name: str, **values: Any) -> Any:
        statement = self._sql[name]
        return await self._connection.fetch(statement.text, *statement.values(values))

    # --- loading ----------------------------------------------------------------------------------------------

    async def load(self, process_ids: Collection[str]) -> dict[str, StoredRow | PerdureError]:
        missing = [id for id in process_ids if id not in self._taken and id not in self._loaded and can_exist(id)]
        if missing:
            await self._take("take_rows", sorted(missing))
        return {id: self._loaded[id] for id in process_ids if id in self._loaded}

    async def _take(self, statement: str, ids: Sequence[str], seen_ids: Sequence[str] = ()) -> None:
        known = self._shared.registrations.known(ids)
        seen = self._shared.registrations.known(seen_ids)
        found = await self._row(
            statement, ids=ids, known=[row for row, _ in known.values()], seen_ids=seen_ids,
            seen_known=[row for row, _ in seen.values()], waiting=self._wait_ms > 0,
        )  # fmt: skip
        if found["held"]:
            raise RowsHeld(found["held"])
        self._heard(found["now_ms"])
        self._keep(found, known | seen)

    async def _take_claims(self, claims: Sequence[ClaimNext], lanes: Lanes, dead: Collection[str], wanted: int) -> None:
        """Have the database name what these claims have leased before, and propose rows of the lanes to the others."""
        now = self._now
        found = await self._row(
            "take_claims", incarnations=[c.owner.incarnation for c in claims], claim_ids=[c.claim_id for c in claims],
            lanes=lanes, wanted=wanted, now=now and now.wall_ms, boot_now=now and now.boot_ms, dead=list(dead),
        )  # fmt: skip
        self._heard(found["now_ms"])
        for claim_id, id in zip(found["again_claims"], found["again_ids"], strict=True):
            self._again.setdefault(claim_id, []).append(id)
        proposed = zip(found["priorities"] or (), found["dues"] or (), found["ids"] or (), strict=True)
        self._proposed = lanes, frozenset(dead), wanted, sorted(starmap(Candidate, proposed))
        self._keep(found, {})

    def _heard(self, now_ms: int) -> None:
        if self._now is None:
            self._shared.time.heard(now_ms)
            self._now = database_moment(now_ms)

    def _keep(self, found: Any, known: Known) -> None:
        columns = [found[name] or () for name in ("rows", "ids", "states", "bodies", "leases")]
        for row, id, state, body, lease in zip(*columns, strict=True):
            if id not in self._loaded:  # what is decided on is what was read first
                self._loaded[id] = self._stored(row, id, state, body, lease, known)

    def _stored(
        self, row: int, id: str, state: str, body: str | None, lease: str | None, known: Known
    ) -> StoredRow | PerdureError:
        try:
            if body is None:  # it is known already
                registration = known[id][1]
                assert registration is not None
            else:
                registration = decode_registration(body, id)
                self._shared.registrations.put(row, registration)
            standing = None if lease is None else _decode_lease(lease)
            if standing is not None:
                self.written.stood[row] = (standing.fence, standing.boot_expires_ms)
            return StoredRow(row, ProcessRecord(registration, decode_state(state, id)), standing)
        except DecodeError as error:
            return error

    async def find_events(self, names: Sequence[EventName]) -> Sequence[Event]:
        found = await self._rows(
            "find_events", ids=[n.process_id for n in names], operations=[n.operation_id for n in names],
            replay_keys=[n.replay_key for n in names],
        )  # fmt: skip
        return [event_from_row(row[0], row[1:]) for row in found]

    async def leased_by_claims(self, claims: Sequence[ClaimNext]) -> dict[str, list[str]]:
        if self._proposed is None:
            await self._ask()
        return self._again

    async def _ask(self) -> None:
        """For the first claim and those that look where it looks; mostly that is all of them."""
        first = self._wanted.claims[0]
        dead = [proof.incarnation for proof in first.proofs]
        await self._take_claims(self._wanted.claims, lanes_of(first), dead, self._wanted.proposed_with(first))

    async def claimable(
        self, lanes: Sequence[str], limit: int, now: Moment, dead_incarnations: Collection[str]
    ) -> Sequence[Candidate]:
        asked, dead = tuple(lanes), frozenset(dead_incarnations)
        if self._proposed is None or self._proposed[:2] != (asked, dead) or self._proposed[2] < limit:
            await self._take_claims((), asked, dead, limit)
        assert self._proposed is not None
        return self._proposed[3]

    # --- persisting -------------------------------------------------------------------------------------------

    async def insert_records(self, rows: Sequence[RowWrite]) -> None:
        for row, key in zip(rows, await self._shared.new_rows.take(self._connection, len(rows)), strict=True):
            row.key = key
        self.written.insert(rows)

    async def save_records(self, rows: Sequence[RowWrite]) -> None:
        self.written.save(rows)

    async def append_events(self, rows: Sequence[RowWrite]) -> None:
        self.written.append(rows)

    async def save_leases(self, rows: Sequence[RowWrite]) -> None:
        self.written.save_leases(rows)

    async def save_progress(self, progress: Mapping[int, Progress]) -> None:
        self.written.save_progress(progress)

    async def _write(self) -> None:
        answer = await self._row("write_rows", **self.written.parameters(), partly=self._partly)
        self.met = frozenset(answer["met"] or ())
        if answer["overtaken"] or (self.met and not self._partly):
            raise Overtaken
        if self._all_new:
            self._check_time(answer["now_ms"])
        self._change = answer["change_position"]
        self._shared.own_changes.note(self._change)

    def _check_time(self, now_ms: int) -> None:
        """The server's time that was only believed when it decided must not have been ahead of it."""
        assert self._now is not None
        if self._now.wall_ms > now_ms:
            self._shared.time.was_ahead(now_ms)
            raise Overtaken
        self._shared.time.heard(now_ms)
