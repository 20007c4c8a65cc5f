"""A schema of the version before is brought forward with what is in it, by a host or by the printed SQL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from perdure.stores.postgres.administration import grants_sql, migration_sql, standing_version
from perdure.stores.postgres.schema import NEWEST
from perdure.stores.postgres.statements import migrations
from perdure.stores.postgres.store import PostgresRegistry
from tests.postgres.server import schema_of, server_url
from tests.postgres.worlds import register, run

PERDURE = str(Path(sys.executable).with_name("perdure"))


def url_of(schema: str) -> str:
    return f"{server_url()}?schema={schema}"


async def make_version_1(schema: str) -> None:
    connection = await asyncpg.connect(server_url())
    await connection.execute(f'CREATE SCHEMA "{schema}"')
    await connection.execute(migrations(schema)[0][1])
    await connection.close()


def test_the_steps_are_numbered_up_to_the_newest() -> None:
    assert [number for number, _ in migrations("any")] == list(range(1, NEWEST + 1))


def test_what_is_printed_from_the_version_before_is_the_new_step_alone() -> None:
    printed = subprocess.run(
        [PERDURE, "migrate", "--db", "postgresql://db/work", "--sql", "--from", "1", "--worker", "app"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert 'CREATE TABLE "perdure".posted' in printed
    assert 'CREATE TABLE "perdure".processes' not in printed
    assert 'SELECT, INSERT, UPDATE, DELETE ON "perdure".leases, "perdure".owners, "perdure".posted TO "app"' in printed


@pytest.mark.parametrize("by", ["a host", "the printed SQL"])
def test_the_version_before_is_brought_forward(tmp_path: Path, by: str) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "old")
        await make_version_1(schema)
        assert await standing_version(url_of(schema)) == 1
        if by == "the printed SQL":
            connection = await asyncpg.connect(server_url())
            await connection.execute(migration_sql(url_of(schema), 1))
            await connection.execute(grants_sql(url_of(schema), "worker", "pg_monitor"))
            await connection.close()
            assert await standing_version(url_of(schema)) == NEWEST
        registry = await PostgresRegistry.open(url_of(schema))
        assert (await registry.execute(register("p"))).answer == "applied"
        assert (await registry.deliver_posted()).receipts == ()
        await registry.close()
        assert await standing_version(url_of(schema)) == NEWEST

    run(test())
