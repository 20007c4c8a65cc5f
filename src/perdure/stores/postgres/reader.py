"""Reads, each a statement of its own on a connection that is free. Point reads that arrive together become one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from perdure.codec import decode_registration, decode_state
from perdure.errors import DecodeError, PerdureError
from perdure.model.record import ProcessRecord
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.faults import is_lost, raise_typed
from perdure.stores.postgres.own_loop import OwnLoop
from perdure.stores.postgres.statements import Statements
from perdure.stores.postgres.url import Target
from perdure.stores.postgres.wanted import can_exist

READERS = 3
LARGEST_LOOK = 1_000
MOST_TRIES = 3

Found = ProcessRecord | PerdureError | None


class Reader:
    """Lives on the store's own loop. A read that lost its connection is read again on a new one."""

    def __init__(self, loop: OwnLoop, target: Target) -> None:
        self._loop, self._store = loop, target.name
        self._sql = Statements("read.sql", target.schema)
        self._connections = Connections(target, READERS)
        self._wanted: list[tuple[Collection[str], asyncio.Future[dict[str, Found]]]] = []
        self._looking = False

    async def close(self) -> None:
        await self._connections.close()

    async def rows(self, name: str, **values: Any) -> Sequence[Any]:
        """The rows that the statement of that name answers."""
        statement = self._sql[name]
        for tries in range(MOST_TRIES):
            try:
                async with self._connections.one() as connection:
                    return await connection.fetch(statement.text, *statement.values(values))
            except Exception as error:
                if not is_lost(error) or tries == MOST_TRIES - 1:
                    raise_typed(error, self._store)
                self._connections.drop_idle()
        raise AssertionError("unreachable")

    async def value(self, name: str, **values: Any) -> Any:
        """The one value that the statement answers, or None."""
        rows = await self.rows(name, **values)
        return rows[0][0] if rows else None

    async def records(self, process_ids: Collection[str]) -> dict[str, Found]:
        """Records by id, None where there is none."""
        future: asyncio.Future[dict[str, Found]] = asyncio.get_running_loop().create_future()
        self._wanted.append((process_ids, future))
        if not self._looking:
            self._looking = True
            self._loop.spawn(self._look())
        return await future

    async def _look(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, []
            try:
                found = await self._read({id for ids, _ in wanted for id in ids})
            except Exception as error:  # told to whoever asked
                for _, future in wanted:
                    if not future.done():
                        future.set_exception(error)
                continue
            for ids, future in wanted:
                if not future.done():
                    future.set_result({id: found.get(id) for id in ids})
        self._looking = False

    async def _read(self, ids: Collection[str]) -> dict[str, Found]:
        existable = [id for id in ids if can_exist(id)]
        found: dict[str, Found] = {}
        for at in range(0, len(existable), LARGEST_LOOK):
            for id, body, state in await self.rows("records", ids=existable[at : at + LARGEST_LOOK]):
                found[id] = decoded(id, body, state)
        return found


def decoded(id: str, body: str, state: str) -> ProcessRecord | PerdureError:
    """The record, or the typed error that says why it can't be read."""
    try:
        return ProcessRecord(decode_registration(body, id), decode_state(state, id))
    except DecodeError as error:
        return error
