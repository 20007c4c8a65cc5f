"""The code that docs/postgresql.md shows of the caller's own transaction does what the page says, driver by driver."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from perdure import Host, ProcessContext, Signal
from perdure.errors import UnknownProcess
from tests.postgres.server import schema_of, server_url

PAGE = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text("utf-8")
SECTION = PAGE.partition("## In a transaction of your own\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
LONGEST_WAIT_S = 20.0

paid = Signal("paid", str)


class Page:
    """What the page's functions see, and a host for them; the table `orders` is in the schema of the host."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.host = Host(f"{server_url()}?schema={schema}")

        @self.host.process(recovery="rerunnable", signals=[paid])
        async def ship(ctx: ProcessContext, number: str) -> str:
            payer = await ctx.wait(paid)
            return f"{number} paid by {payer}"

        self.names: dict[str, Any] = {
            "host": self.host, "ship": ship, "paid": paid, "asyncpg": asyncpg, "psycopg": psycopg, "text": text,
            "AsyncEngine": AsyncEngine, "AsyncSession": AsyncSession, "Engine": Engine, "Session": Session,
        }  # fmt: skip
        for block in BLOCKS:
            exec(block, self.names)

    def url(self, driver: str = "") -> str:
        """Of a connection that finds the table by its bare name."""
        place = server_url().replace("postgresql", f"postgresql{driver}", 1)
        return f"{place}?options=-csearch_path%3D{self.schema}" if driver != "+asyncpg" else place


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Page, Any]]:
    page = Page(schema_of(folder / "page"))
    sql = await asyncpg.connect(server_url())
    async with asyncio.timeout(60), page.host:
        await sql.execute(f'SET search_path TO "{page.schema}"')
        await sql.execute("CREATE TABLE orders (number text PRIMARY KEY, paid boolean DEFAULT false)")
        yield page, sql
    await sql.close()


@contextmanager
def engine_of(page: Page) -> Iterator[Engine]:
    engine = create_engine(page.url("+psycopg"), poolclass=NullPool)
    yield engine
    engine.dispose()


def test_the_page_shows_each_driver() -> None:
    assert [re.search(r"def (\w+)", block)[1] for block in BLOCKS] == [  # type: ignore[index]  # each block is a function
        "order_by_asyncpg", "order_by_psycopg", "pay_by_sqlalchemy", "order_without_async",
    ]  # fmt: skip


def test_an_order_and_its_process_are_there_together_and_the_payment_reaches_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as (page, sql):
            settings = {"search_path": page.schema}
            async with asyncpg.create_pool(server_url(), min_size=1, max_size=1, server_settings=settings) as pool:
                await page.names["order_by_asyncpg"](pool, "o-1")
            await page.names["order_by_psycopg"](page.url(), "o-2")
            engine = create_async_engine(
                page.url("+asyncpg"), poolclass=NullPool, connect_args={"server_settings": settings}
            )
            for number in ("o-1", "o-2"):
                await page.names["pay_by_sqlalchemy"](engine, number)
                assert await page.host.get_handle(f"ship-{number}").result() == f"{number} paid by {number}"
            await engine.dispose()
            assert [tuple(row) for row in await sql.fetch("SELECT number, paid FROM orders ORDER BY 1")] == [
                ("o-1", True), ("o-2", True),
            ]  # fmt: skip

    asyncio.run(story())


def test_an_order_that_fails_starts_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as (page, sql):
            await sql.execute("INSERT INTO orders (number) VALUES ('o-1')")
            with pytest.raises(psycopg.errors.UniqueViolation):
                await page.names["order_by_psycopg"](page.url(), "o-1")
            with pytest.raises(UnknownProcess):
                await page.host.get_handle("ship-o-1").record()

    asyncio.run(story())


def test_the_portal_does_the_same_without_async(tmp_path: Path) -> None:
    async def prepare() -> Page:
        async with opened(tmp_path) as (page, _):
            return page

    page = Page(asyncio.run(prepare()).schema)
    with page.host.sync as portal, engine_of(page) as engine:
        page.names["portal"] = portal
        page.names["order_without_async"](engine, "o-1")
        run = portal.get_handle("ship-o-1")
        run.signal(paid, "cash")
        assert run.result(LONGEST_WAIT_S) == "o-1 paid by cash"
