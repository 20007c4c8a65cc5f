"""The row primitives on one SQLite connection, each a single statement over a JSON array."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any

import apsw
import msgspec

from perdure.clock import Clock, Moment
from perdure.codec import (
    CODEC_VERSION,
    checksum,
    decode_registration,
    decode_state,
    encode_progress,
    encode_registration,
    encode_state,
    verified,
)
from perdure.contract.moments import Moments
from perdure.contract.registry import TransactionWork
from perdure.errors import DecodeError, PerdureError
from perdure.model.events import Event
from perdure.model.leases import Lease
from perdure.model.progress import Progress
from perdure.model.record import ProcessRecord, ProcessState
from perdure.model.registration import HIGHEST_PRIORITY, LOWEST_PRIORITY, Registration
from perdure.stores.registration_cache import RegistrationCache
from perdure.stores.rows import Candidate, EventName, LentFailure, RowWrite, StoredRow
from perdure.stores.sqlite.guest import Guest
from perdure.stores.sqlite.queries import BulkStatement, chunks, load_queries
from perdure.transitions.commands import ClaimNext, RowCommand
from perdure.transitions.projection import lane, project, project_lease

BEGIN, COMMIT, ROLLBACK = "BEGIN IMMEDIATE -- ours", "COMMIT -- ours", "ROLLBACK -- ours"
"""Texts that no guest's statement has: what stands prepared is not asked about again."""

MOST_HELD = 4_096

_encode = msgspec.json.Encoder().encode
_decode_loaded = msgspec.json.Decoder(list[tuple[int, str, ProcessState, Lease | None]]).decode
_decode_registrations = msgspec.json.Decoder(list[tuple[int, Registration]]).decode
_decode_lease = msgspec.json.Decoder(Lease | None).decode
_decode_candidates = msgspec.json.Decoder(list[Candidate]).decode
_decode_pairs = msgspec.json.Decoder(list[tuple[str, str]]).decode


def as_text(value: object) -> str:
    return _encode(value).decode()


def seeks_of(lanes: Sequence[str]) -> str:
    """The [lane, priority] pairs at which the claim's indexes are entered to find what falls due next."""
    return as_text([(lane, priority) for lane in lanes for priority in range(HIGHEST_PRIORITY, LOWEST_PRIORITY + 1)])


class SqliteRows:
    """One writer connection. Used from the writer thread only; its coroutines never wait."""

    def __init__(
        self, connection: apsw.Connection, store: str, clock: Clock, begin: Callable[[], None], moments: Moments
    ) -> None:
        self._connection, self._store, self._clock, self._begin = connection, store, clock, begin
        self.sql = load_queries("write.sql")
        self._bulk = {name: BulkStatement(sql) for name, sql in self.sql.items() if "(?" in sql}
        self._moments = moments
        self._guest = Guest(connection, store)
        self._boot_id: str | None = None
        self._registrations: RegistrationCache[int, Registration] = RegistrationCache()
        self._pending_registrations: dict[int, Registration] = {}
        self.position = 0
        """The change position after the last commit of this connection."""
        self.foreign_position = 0
        """The highest change position that this connection found written by another program."""
        self._position = 0
        self._held: dict[str, StoredRow] = {}
        self._written: list[RowWrite] = []

    async def begin(self) -> Moment:
        self._begin()
        self._position = 0
        if self._held and self._one("position") != self.position:
            self._held.clear()  # another program has written since: what it wrote is in the file only
        now = self._clock.now()
        if now.boot_id != self._boot_id:
            self._connection.execute(self.sql["void_other_boots"], {"boot_id": now.boot_id})
            self._held.clear()
            self._boot_id = now.boot_id
        return now

    async def commit(self) -> None:
        self._moments.reached("commit.before")
        try:
            self._connection.execute(COMMIT)
        except apsw.ConstraintError as error:  # deferred to the commit, on a table of the guest's: none of ours is
            raise LentFailure(error) from error
        self._moments.reached("commit.after")
        for key, registration in self._pending_registrations.items():
            self._registrations.put(key, registration, registration)
        self._pending_registrations.clear()
        if self._position:
            self.position = self._position
        self._remember()

    async def rollback(self) -> None:
        self._pending_registrations.clear()
        self._written.clear()
        if self._connection.in_transaction:
            self._connection.execute(ROLLBACK)

    async def lend(self, work: TransactionWork) -> RowCommand:
        return self._guest.lend(work)

    def _one(self, name: str, **bindings: Any) -> Any:
        return self._connection.execute(self.sql[name], bindings).get

    def _write(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        statement = self._bulk[name]
        for chunk in chunks(rows):
            self._connection.execute(statement.text(len(chunk)), tuple(chain.from_iterable(chunk)))

    def _remember(self) -> None:
        """Keep the leased rows as they were just committed: whoever holds a lease is the next to write its row."""
        for row in self._written:
            if row.lease is None:
                self._held.pop(row.record.registration.id, None)
            elif len(self._held) < MOST_HELD:
                self._held[row.record.registration.id] = StoredRow(row.key, row.record, row.lease)
        self._written.clear()

    # --- loading ----------------------------------------------------------------------------------------------

    async def load(self, process_ids: Collection[str]) -> dict[str, StoredRow | PerdureError]:
        held: dict[str, StoredRow | PerdureError] = {id: self._held[id] for id in process_ids if id in self._held}
        missing = [id for id in process_ids if id not in held]
        return {**held, **self._load_stored(as_text(missing))} if missing else held

    def _load_stored(self, ids: str) -> dict[str, StoredRow | PerdureError]:
        try:
            found: Any = _decode_loaded(self._one("load", ids=ids))
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = [
                (key, id, _readable(decode_state, state, id), _decode_lease(lease))
                for key, id, state, lease in self._connection.execute(self.sql["load_each"], {"ids": ids})
            ]
        registrations = self._registrations_of([key for key, _, _, _ in found])
        rows: dict[str, StoredRow | PerdureError] = {}
        for key, id, state, lease in found:
            registration = registrations[key]
            if isinstance(registration, PerdureError):
                rows[id] = registration
            elif isinstance(state, PerdureError):
                rows[id] = state
            else:
                rows[id] = StoredRow(key, ProcessRecord(registration, state), lease)
        return rows

    def _registrations_of(self, keys: Sequence[int]) -> dict[int, Registration | PerdureError]:
        known: dict[int, Registration | PerdureError] = {}
        missing = []
        for key in keys:
            cached = self._pending_registrations.get(key) or self._registrations.get(key)
            if cached is None:
                missing.append(key)
            else:
                known[key] = cached
        if missing:
            keys_text = as_text(missing)
            try:
                decoded: Any = _decode_registrations(self._one("load_registrations", rows=keys_text))
            except (msgspec.DecodeError, UnicodeDecodeError):
                each = self._connection.execute(self.sql["load_registrations_each"], {"rows": keys_text})
                decoded = [(key, _readable(decode_registration, body, f"in row {key}")) for key, body in each]
            for key, registration in decoded:
                known[key] = registration
                if isinstance(registration, Registration):
                    self._registrations.put(key, registration, registration)
        return known

    async def find_events(self, names: Sequence[EventName]) -> Sequence[Event]:
        wanted = as_text([(n.process_id, n.operation_id, n.replay_key) for n in names])
        rows = self._connection.execute(self.sql["find_events"], {"names": wanted})
        try:
            return [event_from_row(row[0], row[1:]) for row in rows]
        except UnicodeDecodeError as error:
            raise DecodeError(f"{self._store}: an event is damaged: {error}") from error

    async def claimable(
        self, lanes: Sequence[str], limit: int, now: Moment, dead_incarnations: Collection[str]
    ) -> Sequence[Candidate]:
        texts = []
        for name in lanes:
            texts.append(self._one("ready", lane=name, now=now.wall_ms, limit=limit))
            texts.append(self._one("lapsed", lane=name, boot_now=now.boot_ms, limit=limit))
        if dead_incarnations:
            dead = as_text(list(dead_incarnations))
            texts.append(self._one("void", lanes=as_text(lanes), dead=dead, limit=limit))
        return sorted(candidate for text in texts for candidate in _decode_candidates(text))[: limit * 2]

    async def leased_by_claims(self, claims: Sequence[ClaimNext]) -> dict[str, list[str]]:
        asked = as_text(sorted({(claim.owner.incarnation, claim.claim_id) for claim in claims}))
        found: dict[str, list[str]] = {}
        for claim_id, id in _decode_pairs(self._one("leased_by_claims", claims=asked)):
            found.setdefault(claim_id, []).append(id)
        return found

    # --- persisting -------------------------------------------------------------------------------------------

    def _next_changes(self, count: int) -> int:
        """Reserve `count` change positions and answer the first."""
        last: int = self._one("next_change", count=count)
        first = last - count + 1
        if first != (self._position or self.position) + 1:
            self.foreign_position = first - 1
        self._position = last
        return first

    async def insert_records(self, rows: Sequence[RowWrite]) -> None:
        change = self._next_changes(len(rows))
        processes, registrations = [], []
        for key, row in enumerate(rows, change):
            row.key = key
            registration, state, p = row.record.registration, row.record.state, project(row.record)
            processes.append(
                (key, registration.id, lane(registration.queue, registration.definition), registration.priority,
                 state.status, p.ready_at_ms, p.deadline_at_ms, p.settle_at_ms, registration.parent, key,
                 encode_state(state))
            )  # fmt: skip
            registrations.append((key, encode_registration(registration)))
            self._pending_registrations[key] = registration
        self._write("insert_processes", processes)
        self._write("insert_registrations", registrations)

    async def save_records(self, rows: Sequence[RowWrite]) -> None:
        self._written += rows
        written = []
        for change, row in enumerate(rows, self._next_changes(len(rows))):
            state, p = row.record.state, project(row.record)
            written.append(
                (row.key, state.status, p.ready_at_ms, p.deadline_at_ms, p.settle_at_ms, change, encode_state(state))
            )
        self._write("save_processes", written)

    async def append_events(self, rows: Sequence[RowWrite]) -> None:
        self._write(
            "append_events",
            [
                (row.key, e.sequence, e.type, e.at_ms, e.replay_key, e.operation_id, e.operation_hash, CODEC_VERSION,
                 checksum(e), bytes(e.payload).decode())
                for row in rows
                for e in row.fresh
            ],
        )  # fmt: skip

    async def save_leases(self, rows: Sequence[RowWrite]) -> None:
        self._written += rows
        dropped = [row.key for row in rows if row.lease is None]
        if dropped:
            self._connection.execute(self.sql["drop_leases"], {"rows": as_text(dropped)})
        written = []
        for row in rows:
            if (lease := row.lease) is not None:
                p = project_lease(row.record, lease)
                written.append(
                    (row.key, lease.owner.name, lease.owner.incarnation, lease.token, lease.fence, lease.claim_id,
                     lease.claimed_at_ms, lease.expires_at_ms, lease.boot_id, lease.boot_expires_ms,
                     int(lease.released), p.lane, row.record.registration.priority, p.settle_at_ms)
                )  # fmt: skip
        if written:
            self._write("save_leases", written)

    async def save_progress(self, progress: Mapping[int, Progress]) -> None:
        self._write("save_progress", [(key, encode_progress(said)) for key, said in progress.items()])


def _readable(decode: Callable[[bytes, str], Any], text: bytes, process_id: str) -> Any:
    """What the text says, or the typed error that says why it can't be read."""
    try:
        return decode(text, process_id)
    except DecodeError as error:
        return error


def event_from_row(process_id: str, row: Sequence[Any]) -> Event:
    """An event as it was written, or a typed error; (sequence, type, payload, at, keys …, codec, checksum)."""
    sequence, kind, payload, at_ms, replay_key, operation_id, operation_hash, codec, stored_checksum = row
    event = Event(
        process_id, sequence, kind, msgspec.Raw(payload.encode()), at_ms, replay_key, operation_id, operation_hash
    )
    return verified(event, stored_checksum, codec)
