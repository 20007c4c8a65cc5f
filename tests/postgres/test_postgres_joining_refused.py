"""What can't be joined is refused by name, before anything is written, and what can be goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from perdure import Host, ProcessContext, Signal
from perdure.errors import NotTransactional, PerdureError, StoreReadOnly, WrongHostUse
from perdure.stores.memory import MemoryRegistry
from perdure.stores.postgres.store import PostgresRegistry
from perdure.testing.clock import VirtualClock
from tests.postgres.own_drivers import DRIVERS
from tests.postgres.server import server_url
from tests.postgres.shops import Shop, approve, own, shop
from tests.postgres.test_postgres_opening import role
from tests.postgres.worlds import run, world


async def refused(s: Shop, connection: Any, kind: type[PerdureError], told: str) -> None:
    """Both verbs refuse it alike."""
    with pytest.raises(kind, match=told):
        await s.host.start(s.double, 1, id="p", connection=connection)
    with pytest.raises(kind, match=told):
        await s.host.get_handle("there").signal(approve, "yes", connection=connection)


@asynccontextmanager
async def shop_of_one(folder: Path) -> AsyncIterator[Shop]:
    """With one process that waits; nothing but it is there at the end."""
    async with shop(folder) as s:
        await s.host.start(s.await_approval, id="there")
        yield s
        assert [await s.count(t) for t in ("orders", "posted", "processes")] == [0, 0, 1]


@pytest.mark.parametrize("given", [object(), "postgresql://db", sqlite3, 0])
def test_what_is_no_connection_is_refused_with_those_that_are(tmp_path: Path, given: object) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s:
            await refused(s, given, NotTransactional, "Give an asyncpg.Connection, a psycopg Connection")

    run(test())


def test_a_connection_in_autocommit_is_refused_by_each_driver(tmp_path: Path) -> None:
    async def test() -> None:
        told = "is in no transaction"
        async with shop_of_one(tmp_path) as s:
            plain = await asyncpg.connect(server_url())
            await refused(s, plain, NotTransactional, told)
            await plain.close()
            with psycopg.connect(server_url(), autocommit=True) as blocking:
                await refused(s, blocking, NotTransactional, told)
                with blocking.transaction():  # which makes one
                    await s.host.start(s.double, 1, id="undone", connection=blocking)
                    raise psycopg.Rollback
            async with await psycopg.AsyncConnection.connect(server_url(), autocommit=True) as waiting:
                await refused(s, waiting, NotTransactional, told)
            for name in ("asyncpg", "psycopg"):
                url = server_url().replace("postgresql", f"postgresql+{name}", 1)
                engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
                async with engine.connect() as connection:
                    await refused(s, connection, NotTransactional, told)
                await engine.dispose()

    run(test())


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_failed_transaction_is_refused_and_stays_the_callers_to_end(tmp_path: Path, driver: str) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s, own(driver) as mine:
            with pytest.raises(Exception, match="no_such_table"):
                await mine.execute("SELECT * FROM no_such_table")
            await refused(s, mine.connection, NotTransactional, "transaction that was given has failed")
            await mine.rollback()

    run(test())


def test_a_closed_connection_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s:
            plain = await asyncpg.connect(server_url())
            await plain.close()
            blocking = psycopg.connect(server_url())
            blocking.close()
            pool = asyncpg.create_pool(server_url(), min_size=1, max_size=1)
            async with pool:
                async with pool.acquire() as lent:
                    pass
                for given in (plain, blocking, lent):
                    await refused(s, given, NotTransactional, "is closed")

    run(test())


def test_another_database_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s:
            name = f"other_{s.w.schema}"
            await s.w.sql.execute(f'CREATE DATABASE "{name}"')
            url = server_url().rpartition("/")[0] + f"/{name}"
            try:
                other = await asyncpg.connect(url)
                transaction = other.transaction()
                await transaction.start()
                await refused(s, other, NotTransactional, "finds no schema")
                assert await other.fetchval("SELECT 1") == 1
                await transaction.rollback()
                await (await PostgresRegistry.open(url, s.w.schema)).close()
                async with other.transaction():
                    await refused(s, other, NotTransactional, "leads to another database")
                    assert await other.fetchval("SELECT 1") == 1
                await other.close()
            finally:
                await s.w.sql.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    run(test())


def test_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s:
            engine = create_engine("sqlite://")
            with engine.connect() as connection:
                await refused(s, connection, NotTransactional, r"one of sqlite\+pysqlite")
            engine.dispose()

    run(test())


def test_a_read_only_transaction_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s:
            connection = await asyncpg.connect(server_url())
            async with connection.transaction(readonly=True):
                await refused(s, connection, StoreReadOnly, "read-only")
            await connection.close()

    run(test())


def test_a_serialization_failure_is_the_callers_own_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s:
            connection = await asyncpg.connect(server_url())
            transaction = connection.transaction(isolation="repeatable_read")
            await transaction.start()
            await connection.fetchval("SELECT 1")
            await s.host.start(s.double, 1, id="p")
            with pytest.raises(asyncpg.SerializationError):
                await s.host.start(s.double, 1, id="p", connection=connection)
            await transaction.rollback()
            await connection.close()

    run(test())


# --- roles -----------------------------------------------------------------------------------------------------


def test_the_least_rights_of_a_worker_are_enough(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, role(f"joining_{w.schema}", w.schema, "worker") as url:
            host = Host(url)

            @host.process(recovery="rerunnable", signals=[approve])
            async def await_approval(ctx: ProcessContext) -> str:
                return await ctx.wait(approve)

            async with host:
                connection = await asyncpg.connect(url.partition("?")[0])
                async with connection.transaction():
                    run = await host.start(await_approval, id="p", connection=connection)
                    await run.signal(approve, "yes", connection=connection)
                await connection.close()
                assert await run.result() == "yes"

    run(test())


def test_a_role_without_the_rights_is_told_how_to_get_them(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop_of_one(tmp_path) as s, role(f"looking_{s.w.schema}", s.w.schema, "reader") as url:
            connection = await asyncpg.connect(url.partition("?")[0])
            async with connection.transaction():
                await refused(s, connection, StoreReadOnly, "perdure migrate --sql --worker")
            await connection.close()

    run(test())


# --- other stores, and without async ---------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_a_store_that_is_not_postgresql_says_so(tmp_path: Path, store: str) -> None:
    async def test() -> None:
        registry = MemoryRegistry(VirtualClock()) if store == "memory" else None
        host = Host(f"sqlite:///{tmp_path / 'work.db'}", registry=registry, work=False)

        @host.process(recovery="rerunnable", signals=[approve])
        async def await_approval(ctx: ProcessContext) -> str:
            return await ctx.wait(approve)

        async with host:
            there = await host.start(await_approval, id="there")
            with sqlite3.connect(tmp_path / "mine.db") as connection:
                with pytest.raises(NotTransactional, match="connection= is for PostgreSQL"):
                    await host.start(await_approval, id="p", connection=connection)
                with pytest.raises(NotTransactional, match="connection= is for PostgreSQL"):
                    await there.signal(approve, "yes", connection=connection)
            connection.close()
            assert [record.id for record in (await host.list()).records] == ["there"]

    run(test())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async", "sqlalchemy-asyncpg-session"])
def test_the_portal_refuses_a_connection_that_belongs_to_a_loop(tmp_path: Path, driver: str) -> None:
    host = Host(f"sqlite:///{tmp_path / 'work.db'}", work=False)

    @host.process(recovery="rerunnable", signals=[Signal("approve", str)])
    async def await_approval(ctx: ProcessContext) -> str:
        return await ctx.wait(approve)

    async def give_it() -> None:
        async with DRIVERS[driver](server_url()) as mine:
            with pytest.raises(WrongHostUse, match="belongs to an event loop"):
                portal.start(await_approval, id="p", connection=mine.connection)
            with pytest.raises(WrongHostUse, match="belongs to an event loop"):
                portal.get_handle("p").signal(approve, "yes", connection=mine.connection)
            await mine.rollback()

    with host.sync as portal:
        asyncio.run(give_it())
