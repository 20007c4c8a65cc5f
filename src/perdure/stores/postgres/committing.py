"""One batch, committed: tried again where that is safe, taken apart where one command would harm the others."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from perdure.ids import Ids
from perdure.stores.group_commit import Entry
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import RowsHeld, is_contended, is_lost, is_refused_in_bulk, typed
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.rows import PostgresRows
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.wanted import Wanted, ids_of
from perdure.stores.registry import transact
from perdure.transitions.commands import Register

MOST_TRIES = 20
RECONNECT_BOUND_S = 5.0
LOOKS_AFTER_MEETING = 32


class Committer:
    """Commits batches on connections of one kind. After `commit` every entry has its results or its error, but for
    those that it answers: they name rows that somebody else's transaction holds."""

    def __init__(
        self,
        loop: OwnLoop,
        connections: Connections,
        shared: Shared,
        ids: Ids,
        bound_s: float,
    ) -> None:
        self._loop, self._connections, self._shared, self._ids = loop, connections, shared, ids
        self._reconnect_bound_s = min(bound_s, RECONNECT_BOUND_S)
        self.commits = 0
        """How many transactions have written something."""
        self._batches_to_look_first = 0

    async def commit(self, entries: Sequence[Entry], *, wait_ms: int = 0) -> list[Entry]:
        """With `wait_ms` rows that are held are waited for that long; else they are passed over."""
        held: list[Entry] = []
        tries, lost_at_s = 0, 0.0
        while entries:
            try:
                entries = await self._once(entries, wait_ms)
                continue
            except Exception as error:  # whatever it is, its callers must be told
                apart = _held(error, entries, wait_ms)
                if apart:
                    held += apart
                    entries = [entry for entry in entries if entry not in apart]
                    continue
                if len(entries) > 1 and is_refused_in_bulk(error):
                    for entry in entries:
                        held += await self.commit([entry], wait_ms=wait_ms)
                    return held
                if is_contended(error) or isinstance(error, RowsHeld):
                    tries += 1
                elif is_lost(error):
                    self._connections.drop_idle()
                    lost_at_s = lost_at_s or self._loop.now_s()
                    tries = 1 if self._loop.now_s() < lost_at_s + self._reconnect_bound_s else MOST_TRIES
                else:
                    tries = MOST_TRIES
                if tries >= MOST_TRIES:
                    for entry in entries:
                        entry.error = typed(error, self._shared.store)
                    return held
            await self._loop.pause((0.05 if lost_at_s else 0.002 * tries) * (0.5 + self._ids.fraction()))
        return held

    async def _once(self, entries: Sequence[Entry], wait_ms: int) -> list[Entry]:
        """Those that have to be decided again, as others have inserted their rows meanwhile."""
        commands = [command for entry in entries for command in entry.commands]
        wanted = Wanted(commands)
        partly = not wanted.claims and all(len(entry.commands) == 1 for entry in entries)
        all_new = partly and self._may_all_be_new(wanted)
        async with self._connections.one() as connection:
            rows = PostgresRows(
                connection, self._shared, wanted, wait_ms=wait_ms, partly=partly, all_new=all_new
            )  # fmt: skip
            results = await transact(rows, commands)
        if all_new and rows.met:
            self._batches_to_look_first = LOOKS_AFTER_MEETING
        met = {entry for entry in entries if _names(entry, rows.met)} if rows.met else set()
        self.commits += not rows.written.is_empty and len(met) < len(entries)
        at = 0
        for entry in entries:
            if entry not in met:
                entry.results = results[at : at + len(entry.commands)]
            at += len(entry.commands)
        return [entry for entry in entries if entry in met]

    def _may_all_be_new(self, wanted: Wanted) -> bool:
        """Whether these are registrations that nothing is known of. Mostly their ids are new, and the write says which
        are not: a look before it would be a trip for nothing. Where some were not, looks pay for a while."""
        if wanted.ids or not wanted.seen_ids or self._shared.time.given is not None:
            return False
        if self._batches_to_look_first:
            self._batches_to_look_first -= 1
            return False
        if not self._shared.time.was_heard_lately:
            return False
        return not any(map(self._shared.registrations.knows, wanted.seen_ids))


def _held(error: Exception, entries: Sequence[Entry], wait_ms: int) -> Sequence[Entry]:
    """Those that are to be answered apart, as somebody holds what they need; none if that is not what is wrong."""
    match error:
        case RowsHeld() if wait_ms:  # a row that came into being only now
            return ()
        case RowsHeld():  # a claim that is asked again names no row of what it had
            return [entry for entry in entries if _names(entry, error.process_ids)] or entries
        case asyncpg.LockNotAvailableError():
            return [entry for entry in entries if wait_ms or _registers(entry)] or entries
        case _:
            return ()


def _names(entry: Entry, process_ids: frozenset[str]) -> bool:
    return any(id in process_ids for command in entry.commands for id in ids_of(command))


def _registers(entry: Entry) -> bool:
    """Whether it may have waited for an insert of the same id."""
    return any(isinstance(command, Register) for command in entry.commands)
