"""The logs in partitions by ranges of rows: an administrator may make them so, and everything else stays as it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from perdure.clock import Clock
from perdure.contract.registry import Registry
from perdure.stores.postgres import administration
from perdure.stores.postgres.store import PostgresRegistry
from perdure.testing.conformance import Case, OpenStore, cases, run_case, runnable
from tests.postgres.looks import looked_at, troubles
from tests.postgres.server import direct_url, schema_of, server_url
from tests.postgres.worlds import append, register, run

PLAIN = "    PRIMARY KEY (row, sequence)\n);"
MODULES = ("registration", "log", "leases", "recovery", "waiting")
CASES = [
    case for case in runnable(cases(), frozenset({"reopenable", "multi_process"}))
    if case.run.__module__.rpartition(".")[2] in MODULES
]  # fmt: skip


def partitioned(schema: str) -> str:
    """The migrations, with the one difference that docs/postgresql.md tells: here with very small ranges."""
    printed = administration.migration_sql(f"{server_url()}?schema={schema}")
    assert printed.count(PLAIN) == 1
    ranges = [(1, 3), (3, 5), (5, 1_025), (1_025, 2_049), (2_049, 3_073)]
    parts = [
        f'CREATE TABLE "{schema}".events_{start} PARTITION OF "{schema}".events FOR VALUES FROM ({start}) TO ({end});'
        for start, end in ranges
    ]
    rest = f'CREATE TABLE "{schema}".events_rest PARTITION OF "{schema}".events DEFAULT;'
    made = PLAIN.removesuffix(";") + " PARTITION BY RANGE (row);\n" + "\n".join([*parts, rest])
    return printed.replace(PLAIN, made)


async def make(schema: str) -> None:
    connection = await asyncpg.connect(direct_url())
    try:
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await connection.execute(partitioned(schema))
    finally:
        await connection.close()


def opener(folder: Path) -> OpenStore:
    async def open_store(clock: Clock, store: str) -> Registry:
        schema = schema_of(folder / store)
        await make(schema)
        return cast("Registry", await PostgresRegistry.open(server_url(), schema, clock=clock))

    return open_store


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_store_with_partitioned_logs_does_what_the_contract_says(case: Case, tmp_path: Path) -> None:
    asyncio.run(run_case(case, opener(tmp_path), frozenset({"reopenable", "multi_process"})))


def test_logs_are_in_their_partitions_and_a_read_of_one_enters_one(tmp_path: Path) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "store")
        await make(schema)
        registries = [await PostgresRegistry.open(server_url(), schema) for _ in range(3)]  # each takes a block of rows
        for number, registry in enumerate(registries):
            await registry.execute_all([register(f"p{number}-{n}") for n in range(6)])
            await registry.execute_all([append(f"p{number}-{n}") for n in range(6)])
        assert len((await registries[0].events_after("p2-5", 0)).events) == 1
        sql = await asyncpg.connect(direct_url())
        assert await counts(sql, schema) == {
            "events_1": 2, "events_3": 2, "events_5": 2, "events_1025": 6, "events_2049": 6,
        }  # fmt: skip
        plan = await sql.fetchval(
            f'EXPLAIN (ANALYZE, FORMAT JSON) SELECT e.* FROM "{schema}".processes AS p '
            f"JOIN \"{schema}\".events AS e ON e.row = p.row WHERE p.id = 'p2-5'"
        )
        assert "events_2049" in read(plan)
        assert read(plan) <= {"events_2049", "processes"}
        await sql.close()
        for registry in registries:
            await registry.close()
        assert troubles(await looked_at(f"{server_url()}?schema={schema}")) == {}

    run(test())


async def counts(sql: Any, schema: str) -> dict[str, int]:
    rows = await sql.fetch(f'SELECT tableoid::regclass::text AS part, count(*) FROM "{schema}".events GROUP BY 1')
    return {part.rpartition(".")[2]: count for part, count in rows}


def read(plan: str) -> set[str]:
    """The tables that the plan has really entered."""

    def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node, *(found for child in node.get("Plans", ()) for found in nodes(child))]

    entered = nodes(json.loads(plan)[0]["Plan"])
    return {node["Relation Name"] for node in entered if "Relation Name" in node and node["Actual Loops"]}
