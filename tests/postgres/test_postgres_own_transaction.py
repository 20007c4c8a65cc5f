"""Starts and signals in a transaction of the caller's own: there if and only if he commits, whatever his driver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import psycopg
import pytest

from perdure import Host, ProcessContext
from perdure.errors import RegistrationConflict, UnknownProcess
from tests.postgres.own_drivers import DRIVERS
from tests.postgres.server import server_url
from tests.postgres.shops import approve, own, shop
from tests.postgres.worlds import run, world

each_driver = pytest.mark.parametrize("driver", DRIVERS)


# --- each driver -----------------------------------------------------------------------------------------------


@each_driver
def test_what_is_committed_runs_to_its_end(tmp_path: Path, driver: str) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s, own(driver) as mine:
            await mine.execute(f"INSERT INTO {s.orders} VALUES ('o-1')")
            first = await s.host.start(s.double, 21, id="p", connection=mine.connection)
            waiting = await s.host.start(s.await_approval, id="q", connection=mine.connection)
            await waiting.signal(approve, "yes", id="s-1", connection=mine.connection)
            with pytest.raises(UnknownProcess):
                await first.record()
            await mine.commit()
            assert await s.result("p") == 42
            assert await s.result("q") == "yes"
            assert await s.count() == 1
            assert await s.count("posted") == 0

    run(test())


@each_driver
def test_what_is_rolled_back_was_never_there(tmp_path: Path, driver: str) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s:
            there = await s.host.start(s.await_approval, id="there")
            async with own(driver) as mine:
                await mine.execute(f"INSERT INTO {s.orders} VALUES ('o-1')")
                await s.host.start(s.double, 21, id="p", connection=mine.connection)
                await there.signal(approve, "no", connection=mine.connection)
                await mine.rollback()
            assert [await s.count(t) for t in ("orders", "posted", "processes")] == [0, 0, 1]
            with pytest.raises(UnknownProcess):
                await s.host.get_handle("p").record()
            await s.host.start(s.double, 1, id="p")
            await there.signal(approve, "yes")
            assert (await s.result("p"), await there.result()) == (2, "yes")

    run(test())


@each_driver
def test_a_conflict_is_refused_at_once_and_the_transaction_stays_usable(tmp_path: Path, driver: str) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s, own(driver) as mine:
            await s.host.start(s.double, 1, id="p")
            await mine.execute(f"INSERT INTO {s.orders} VALUES ('o-1')")
            with pytest.raises(RegistrationConflict) as raised:
                await s.host.start(s.double, 2, id="p", connection=mine.connection)
            assert raised.value.differing == ("input",)
            await s.host.start(s.double, 3, id="q", connection=mine.connection)
            await mine.execute(f"INSERT INTO {s.orders} VALUES ('o-2')")
            await mine.commit()
            assert await s.count() == 2
            assert (await s.result("p"), await s.result("q")) == (2, 6)

    run(test())


# --- one id, in and out of transactions ------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_the_same_start_again_is_the_same_process(tmp_path: Path, driver: str) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s:
            async with own(driver) as mine:
                await s.host.start(s.double, 1, id="p", connection=mine.connection)
                await s.host.start(s.double, 1, id="p", connection=mine.connection)
                with pytest.raises(RegistrationConflict):
                    await s.host.start(s.double, 2, id="p", connection=mine.connection)
                await mine.commit()
            await s.host.start(s.double, 1, id="p")
            await s.host.start(s.double, 5, id="q")
            async with own(driver) as mine:
                await s.host.start(s.double, 1, id="p", connection=mine.connection)
                await s.host.start(s.double, 5, id="q", connection=mine.connection)
                await mine.commit()
            assert (await s.result("p"), await s.result("q")) == (2, 10)
            assert await s.count("processes") == 2

    run(test())


def test_who_starts_the_same_id_meanwhile_gets_the_one_that_was_committed(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s, own() as mine, own() as other:
            await s.host.start(s.double, 1, id="p", connection=mine.connection)
            outside = asyncio.create_task(s.host.start(s.double, 1, id="p"))
            same = asyncio.create_task(s.host.start(s.double, 1, id="p", connection=other.connection))
            await s.host.start(s.double, 3, id="not-in-the-way")
            assert await s.result("not-in-the-way") == 6
            assert not outside.done()
            assert not same.done()
            await mine.commit()
            await asyncio.gather(outside, same)
            await other.commit()
            assert await s.result("p") == 2
            assert await s.count("processes") == 2

    run(test())


def test_who_starts_another_one_under_the_id_meanwhile_is_refused_after_the_commit(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s, own() as mine, own() as other:
            await s.host.start(s.double, 1, id="p", connection=mine.connection)
            different = asyncio.create_task(s.host.start(s.double, 2, id="p", connection=other.connection))
            await asyncio.sleep(0)
            await mine.commit()
            with pytest.raises(RegistrationConflict):
                await different
            await other.execute(f"INSERT INTO {s.orders} VALUES ('o-1')")
            await other.commit()
            assert await s.count() == 1

    run(test())


def test_a_connection_that_is_lost_before_the_commit_leaves_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s:
            there = await s.host.start(s.await_approval, id="there")
            mine = await asyncpg.connect(server_url())
            await mine.execute("BEGIN")
            await s.host.start(s.double, 1, id="p", connection=mine)
            await there.signal(approve, "no", connection=mine)
            pid = await mine.fetchval("SELECT pg_backend_pid()")
            await s.w.sql.fetchval("SELECT pg_terminate_backend($1, 20000)", pid)
            mine.terminate()
            assert [await s.count(t) for t in ("posted", "processes")] == [0, 1]
            await s.host.start(s.double, 4, id="p")
            assert await s.result("p") == 8

    run(test())


def test_a_start_in_a_transaction_that_is_undone_to_a_savepoint_is_undone(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s, own() as mine:
            await mine.execute("SAVEPOINT theirs")
            await s.host.start(s.double, 1, id="undone", connection=mine.connection)
            await mine.execute("ROLLBACK TO SAVEPOINT theirs")
            await s.host.start(s.double, 2, id="done", connection=mine.connection)
            await mine.commit()
            assert await s.result("done") == 4
            assert await s.count("processes") == 1

    run(test())


def test_nothing_that_was_set_outlives_the_start(tmp_path: Path) -> None:
    shown = "SELECT name || '=' || setting FROM pg_settings ORDER BY name"
    held = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"

    async def test() -> None:
        async with shop(tmp_path) as s:
            connection = await asyncpg.connect(server_url())
            await connection.execute("LOAD 'plpgsql'")  # which has settings of its own
            before = await connection.fetch(shown)
            async with connection.transaction():
                await s.host.start(s.double, 1, id="p", connection=connection)
                assert await connection.fetch(shown) == before
                assert await connection.fetchval(held) == 0
            assert await connection.fetch(shown) == before
            await connection.close()

    run(test())


def test_the_rows_of_a_caller_come_as_he_has_them(tmp_path: Path) -> None:
    async def test() -> None:
        async with shop(tmp_path) as s:
            connection = await psycopg.AsyncConnection.connect(
                server_url(), row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.AsyncRawCursor
            )
            await s.host.start(s.double, 4, id="p", connection=connection)
            await connection.commit()
            await connection.close()
            assert await s.result("p") == 8

    run(test())


# --- without async ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy-connection", "sqlalchemy-session"])
def test_the_portal_gives_the_same_on_the_calling_thread(tmp_path: Path, driver: str) -> None:
    async def prepare() -> str:
        async with world(tmp_path) as w:
            return w.schema

    schema = asyncio.run(prepare())
    host = Host(f"{server_url()}?schema={schema}")

    @host.process(recovery="rerunnable", signals=[approve])
    async def await_approval(ctx: ProcessContext) -> str:
        return await ctx.wait(approve)

    async def take_part() -> None:
        async with DRIVERS[driver](server_url()) as mine:
            run = portal.start(await_approval, id="p", connection=mine.connection)
            run.signal(approve, "yes", connection=mine.connection)
            await mine.commit()
            portal.start(await_approval, id="q", connection=mine.connection)
            await mine.rollback()

    with host.sync as portal:
        asyncio.run(take_part())  # on this thread, while the portal's loop turns on its own
        assert portal.get_handle("p").result(20) == "yes"
        with pytest.raises(UnknownProcess):
            portal.get_handle("q").record()
