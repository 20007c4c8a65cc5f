"""What was posted in callers' transactions, delivered: taken away and done in one transaction of ours.

The commands go through the pipeline like all others. A delivery never waits long for a row that somebody holds, and
passes over what it can't do now: that stays posted, and is found by a later look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from perdure.codec import decode_posted
from perdure.contract.registry import Delivery, Undelivered
from perdure.errors import DecodeError, PerdureError
from perdure.ids import Ids
from perdure.stores.postgres.changes import Changes
from perdure.stores.postgres.connections import Connection, Connections
from perdure.stores.postgres.faults import RowsHeld, is_contended, is_lost, is_refused_in_bulk, raise_typed
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.reader import Reader
from perdure.stores.postgres.rows import BEGIN, LOCK_BOUND_MS, PostgresRows
from perdure.stores.postgres.shared import Shared
from perdure.stores.postgres.wanted import Wanted
from perdure.stores.registry import Transaction
from perdure.transitions.commands import Receipt, Signal

MOST_AT_ONCE = 256
MOST_TRIES = 10
MOST_TOLD = 1_000
ROW_WAIT_MS = 100
"""How long rows are waited for that are held: mostly by a batch that is done in a moment."""


class _Undoable(Exception):
    """These can't be done by this version as things stand: by process, why not."""

    def __init__(self, errors: Mapping[str, PerdureError]) -> None:
        super().__init__(", ".join(errors))
        self.errors = errors


class Deliverer:
    """Lives on the store's own loop; delivers on a connection of its own, one batch at a time."""

    def __init__(self, loop: OwnLoop, shared: Shared, ids: Ids, reader: Reader, changes: Changes) -> None:
        self._loop, self._shared, self._ids, self._reader, self._changes = loop, shared, ids, reader, changes
        self._connections = Connections(shared.target, 1)
        self._told: dict[tuple[str, str], None] = {}

    async def close(self) -> None:
        await self._connections.close()

    async def deliver(self) -> Delivery:
        """One batch. Costs nothing while a look a moment ago has found nothing, and else a read."""
        if self._changes.nothing_posted or not await self._reader.value("anything_posted"):
            return Delivery()
        kept: dict[str, PerdureError] = {}
        held: frozenset[str] = frozenset()
        tries, wanted, wait_ms, waited = 0, MOST_AT_ONCE, 0, False
        while True:
            tries += 1
            try:
                async with self._connections.one() as connection:
                    delivery = await self._once(connection, wanted, [*kept, *held], wait_ms)
                return msgspec.structs.replace(delivery, undelivered=delivery.undelivered + self._news(kept))
            except RowsHeld as found:
                if waited:
                    held |= found.process_ids
                else:
                    wait_ms, waited = ROW_WAIT_MS, True
            except asyncpg.LockNotAvailableError as error:
                wait_ms = 0
                if tries >= MOST_TRIES:
                    raise_typed(error, self._shared.store)
            except _Undoable as undoable:
                kept.update(undoable.errors)
                wanted = MOST_AT_ONCE
            except Exception as error:
                if is_lost(error):
                    self._connections.drop_idle()
                if is_refused_in_bulk(error) and wanted > 1:
                    wanted = 1  # one of them can't be written: it must not harm the others
                elif not is_contended(error) or tries >= MOST_TRIES:
                    raise_typed(error, self._shared.store)
                await self._loop.pause(0.005 * (0.5 + self._ids.fraction()))

    async def _once(self, connection: Connection, wanted: int, but: Sequence[str], wait_ms: int) -> Delivery:
        await connection.execute(BEGIN.format(lock_ms=wait_ms or LOCK_BOUND_MS))
        rows = PostgresRows(connection, self._shared, Wanted(()), wait_ms=wait_ms)
        try:
            statement = self._shared.sql["take_posted"]
            found = await connection.fetchrow(statement.text, *statement.values({"wanted": wanted, "but": but}))
            assert found is not None
            commands = _decoded(found)
            if not commands:
                await rows.rollback()
                return Delivery()
            rows = PostgresRows(connection, self._shared, Wanted(commands), wait_ms=wait_ms)
            results = await Transaction(rows, await rows.look()).run(commands)
            refused = [
                (command.process_id, result)
                for command, result in zip(commands, results, strict=True)
                if isinstance(result, PerdureError)
            ]
            if damaged := {id: error for id, error in refused if isinstance(error, DecodeError)}:
                raise _Undoable(damaged)
            await self._commit(rows, commands)
        except BaseException:
            await rows.rollback()
            raise
        undelivered = tuple(Undelivered(id, error, kept=False) for id, error in refused)
        return Delivery(tuple(result for result in results if isinstance(result, Receipt)), undelivered)

    async def _commit(self, rows: PostgresRows, commands: Sequence[Signal]) -> None:
        try:
            await rows.commit()
        except Exception as error:
            if len(commands) == 1 and is_refused_in_bulk(error):
                raise _Undoable({commands[0].process_id: DecodeError(f"it can't be written: {error}")}) from error
            raise

    def _news(self, kept: Mapping[str, PerdureError]) -> tuple[Undelivered, ...]:
        """What stays posted is found again and again: it is told of once."""
        news = [(id, error) for id, error in kept.items() if (id, str(error)) not in self._told]
        self._told.update(((id, str(error)), None) for id, error in news)
        while len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        return tuple(Undelivered(id, error, kept=True) for id, error in news)


def _decoded(found: asyncpg.Record) -> list[Signal]:
    commands: list[Signal] = []
    errors: dict[str, PerdureError] = {}
    for id, codec, body in zip(found["ids"] or (), found["codecs"] or (), found["bodies"] or (), strict=True):
        try:
            commands.append(decode_posted(body, codec, id))
        except DecodeError as error:
            errors[id] = error
    if errors:
        raise _Undoable(errors)
    return commands
