"""A transaction of a caller's own, by each driver that can be joined: what it is given as, and what it can do."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool


class Own:
    """`connection` is what `connection=` is given."""

    def __init__(self, connection: Any, run: Callable[[str], Any], commit: Any, rollback: Any) -> None:
        self.connection, self._run, self._commit, self._rollback = connection, run, commit, rollback

    async def execute(self, sql: str) -> None:
        await _awaited(self._run(sql))

    async def commit(self) -> None:
        await _awaited(self._commit())

    async def rollback(self) -> None:
        await _awaited(self._rollback())


async def _awaited(answer: Any) -> None:
    if inspect.isawaitable(answer):
        await answer


@asynccontextmanager
async def by_asyncpg(url: str) -> AsyncIterator[Own]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    yield Own(connection, connection.execute, transaction.commit, transaction.rollback)
    await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(url: str) -> AsyncIterator[Own]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Own(connection, connection.execute, transaction.commit, transaction.rollback)


@asynccontextmanager
async def by_async_psycopg(url: str) -> AsyncIterator[Own]:
    connection = await psycopg.AsyncConnection.connect(url)
    yield Own(connection, connection.execute, connection.commit, connection.rollback)
    await connection.close()


@asynccontextmanager
async def by_psycopg(url: str) -> AsyncIterator[Own]:
    connection = psycopg.connect(url)
    yield Own(connection, connection.execute, connection.commit, connection.rollback)
    connection.close()


def _async_connection(driver: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Own]:
        engine = create_async_engine(url.replace("postgresql", f"postgresql+{driver}", 1), poolclass=NullPool)
        async with engine.connect() as connection:
            yield Own(connection, connection.exec_driver_sql, connection.commit, connection.rollback)
        await engine.dispose()

    return opened


def _async_session(driver: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Own]:
        engine = create_async_engine(url.replace("postgresql", f"postgresql+{driver}", 1), poolclass=NullPool)
        async with AsyncSession(engine) as session:

            async def execute(sql: str) -> None:
                await (await session.connection()).exec_driver_sql(sql)

            yield Own(session, execute, session.commit, session.rollback)
        await engine.dispose()

    return opened


@asynccontextmanager
async def by_connection(url: str) -> AsyncIterator[Own]:
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1), poolclass=NullPool)
    with engine.connect() as connection:
        yield Own(connection, connection.exec_driver_sql, connection.commit, connection.rollback)
    engine.dispose()


@asynccontextmanager
async def by_session(url: str) -> AsyncIterator[Own]:
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1), poolclass=NullPool)
    with Session(engine) as session:
        yield Own(session, lambda sql: session.connection().exec_driver_sql(sql), session.commit, session.rollback)
    engine.dispose()


DRIVERS: dict[str, Callable[[str], Any]] = {
    "asyncpg": by_asyncpg,
    "asyncpg-pool": by_asyncpg_pool,
    "psycopg-async": by_async_psycopg,
    "psycopg": by_psycopg,
    "sqlalchemy-asyncpg-connection": _async_connection("asyncpg"),
    "sqlalchemy-asyncpg-session": _async_session("asyncpg"),
    "sqlalchemy-psycopg-async-connection": _async_connection("psycopg"),
    "sqlalchemy-psycopg-async-session": _async_session("psycopg"),
    "sqlalchemy-connection": by_connection,
    "sqlalchemy-session": by_session,
}
