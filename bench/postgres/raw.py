"""The raw limits: the library's own rows and tables, through asyncpg and unnest, on one connection."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench.postgres.subject import Templates
from bench.subject import Row
from perdure.stores.postgres.connections import Connection

UNMOVED = ("row", "id", "lane", "priority", "parent")
"""Columns of `processes` that a transition doesn't write."""

TABLES = ("processes", "registrations", "events", "leases", "progress")


class Raw:
    """Statements over columns, for one schema."""

    def __init__(self, connection: Connection, schema: str, types: dict[tuple[str, str], str]) -> None:
        self._connection, self._schema, self._types = connection, schema, types

    @classmethod
    async def on(cls, connection: Connection, schema: str) -> Raw:
        """On a schema of the library's, emptied."""
        columns = await connection.fetch(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = $1", schema
        )
        await connection.execute(f"TRUNCATE {', '.join(f'{schema}.{table}' for table in TABLES)}")
        return cls(connection, schema, {(c[0], c[1]): c[2] for c in columns})

    async def insert(self, table: str, rows: Sequence[Row]) -> None:
        names = list(rows[0])
        await self._connection.execute(
            f"INSERT INTO {self._schema}.{table} ({', '.join(names)}) SELECT * FROM {self._unnest(table, names)}",
            *_columns(rows, names),
        )

    async def update(self, rows: Sequence[Row]) -> None:
        moved = [name for name in rows[0] if name not in UNMOVED]
        names = ["row", *moved]
        sets = ", ".join(f"{name} = w.{name}" for name in moved)
        await self._connection.execute(
            f"UPDATE {self._schema}.processes AS p SET {sets} "
            f"FROM {self._unnest('processes', names)} AS w({', '.join(names)}) WHERE p.row = w.row",
            *_columns(rows, names),
        )

    async def drop_leases(self, keys: Sequence[int]) -> None:
        await self._connection.execute(f"DELETE FROM {self._schema}.leases WHERE row = ANY ($1::bigint[])", keys)

    def _unnest(self, table: str, names: Sequence[str]) -> str:
        return f"unnest({', '.join(f'${at}::{self._types[table, name]}[]' for at, name in enumerate(names, 1))})"

    # --- rates ------------------------------------------------------------------------------------------------

    async def inserts(self, templates: Templates, n: int, batch: int) -> float:
        """Processes with their registrations per second, `batch` of them per transaction."""
        batches = [(_keyed(templates.pending, keys), _keyed(templates.registration, keys))
                   for keys in _batches(n, batch)]  # fmt: skip
        began = time.perf_counter()
        for processes, registrations in batches:
            async with self._connection.transaction():
                await self.insert("processes", processes)
                await self.insert("registrations", registrations)
        return n / (time.perf_counter() - began)

    async def drain(self, templates: Templates, n: int, batch: int) -> float:
        """Processes per second, claimed in one transaction per batch and completed in a second one."""
        await self.inserts(templates, n, 1_000)
        batches = [
            (_keyed(templates.running, keys), _keyed(templates.started_event, keys), _keyed(templates.lease, keys),
             _keyed(templates.completed, keys), _keyed(templates.completed_event, keys), keys)
            for keys in _batches(n, batch)
        ]  # fmt: skip
        began = time.perf_counter()
        for running, started, leases, completed, ended, keys in batches:
            async with self._connection.transaction():
                await self.update(running)
                await self.insert("events", started)
                await self.insert("leases", leases)
            async with self._connection.transaction():
                await self.update(completed)
                await self.insert("events", ended)
                await self.drop_leases(keys)
        return n / (time.perf_counter() - began)

    async def steps(self, templates: Templates, n: int, batch: int) -> float:
        """Step ends per second: the record and the event of each, `batch` processes per transaction."""
        await self.insert("processes", _keyed(templates.running, range(1, batch + 1)))
        keys = range(1, batch + 1)
        rounds = [(_keyed(templates.stepped, keys), _steps(templates.step_event, keys, number))
                  for number in range(1, max(1, n // batch) + 1)]  # fmt: skip
        began = time.perf_counter()
        for states, events in rounds:
            async with self._connection.transaction():
                await self.update(states)
                await self.insert("events", events)
        return len(rounds) * batch / (time.perf_counter() - began)


def _batches(n: int, batch: int) -> Iterator[range]:
    for at in range(1, n + 1, batch):
        yield range(at, min(n + 1, at + batch))


def _keyed(template: Row, keys: Sequence[int]) -> list[Row]:
    """The row under other keys; the ids are as long as the library's, in the same order as the keys."""
    if "id" not in template:
        return [{**template, "row": key} for key in keys]
    return [{**template, "row": key, "id": f"{template['id'][:-12]}{key:012x}"} for key in keys]


def _steps(template: Row, keys: Sequence[int], number: int) -> list[Row]:
    return [
        {**row, "sequence": number, "replay_key": f"{row['replay_key']}.{number}"} for row in _keyed(template, keys)
    ]


def _columns(rows: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in names]
