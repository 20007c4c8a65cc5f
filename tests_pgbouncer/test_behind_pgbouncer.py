"""Behind PgBouncer in transaction mode: nothing of ours stays in a session, few connections do, and hints reach whom
they can. `.ci/pgbouncer` runs these, and the tests of PostgreSQL behind a pooler of the run's own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from lab.pgbouncer import Pooler, Program
from perdure import Host, ProcessContext, Signal
from perdure.errors import StoreUnavailable
from perdure.ids import SystemIds
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.inspection import Inspection
from perdure.stores.postgres.store import PostgresRegistry
from perdure.stores.postgres.url import parse_url
from tests.postgres.server import direct_url, schema_of
from tests.postgres.worlds import register, run, until
from tests_pgbouncer.poolers import started

# --- sessions --------------------------------------------------------------------------------------------------

approve = Signal("approve", str)


class Shop:
    """A host whose processes use all that goes to the store: steps, signals, children, timers."""

    def __init__(self, url: str, name: str = "shop", *, work: bool = True) -> None:
        self.host = Host(url, name=name, work=work)
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

        @self.host.process(recovery="rerunnable")
        async def double(ctx: ProcessContext, number: int) -> int:
            return await ctx.step(_double, number)

        @self.host.process(recovery="rerunnable", signals=[approve])
        async def approved(ctx: ProcessContext, number: int) -> str:
            child = await ctx.start(double, number)
            answer = await ctx.wait(approve)
            return f"{answer} {await child.result()}"

        @self.host.process(recovery="rerunnable")
        async def lent(ctx: ProcessContext) -> int:
            return await ctx.step(self._hold, transactional=True)

        self.double, self.approved, self.lent = double, approved, lent

    async def _hold(self, connection: Any) -> int:
        self.entered.set()
        await self.go_on.wait()
        found: int = await connection.fetchval("SELECT 7")
        return found


async def _double(number: int) -> int:
    return 2 * number


def test_with_one_server_connection_a_host_does_its_work_and_leaves_nothing_in_the_session(
    narrow: Pooler, tmp_path: Path
) -> None:
    shop = Shop(f"{narrow.url}?schema={schema_of(tmp_path / 'one')}")

    async def test() -> None:
        async with shop.host:
            runs = [await shop.host.start(shop.approved, number, id=f"a-{number}") for number in range(10)]
            for one in runs:
                await one.signal(approve, "yes")
            assert [await one.result() for one in runs] == [f"yes {2 * number}" for number in range(10)]
        session = await asyncpg.connect(narrow.url, statement_cache_size=0)
        left = {
            "prepared": "SELECT count(*) FROM pg_prepared_statements",
            "listening": "SELECT count(*) FROM pg_listening_channels()",
            "locks": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
            "temporary": "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
            "set": "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name LIKE '%timeout'",
        }
        found = {what: await session.fetchval(query) for what, query in left.items()}
        await session.close()
        assert found == dict.fromkeys(left, 0)

    run(test())


def test_beside_one_open_transaction_of_the_users_code_one_more_connection_is_enough(
    pooler: Pooler, tmp_path: Path
) -> None:
    shop = Shop(f"{pooler.url}?schema={schema_of(tmp_path / 'two')}")

    async def test() -> None:
        async with shop.host:
            holding = await shop.host.start(shop.lent)
            await shop.entered.wait()
            others = [await shop.host.start(shop.double, number) for number in range(10)]
            assert [await one.result() for one in others] == [2 * number for number in range(10)]
            shop.go_on.set()
            assert await holding.result() == 7

    run(test())


def test_connections_that_are_opened_at_once_all_find_the_pooler(pooler: Pooler, tmp_path: Path) -> None:
    async def test() -> None:
        connections = Connections(parse_url(pooler.url), 8)
        opened = await asyncio.gather(*(connections.connect() for _ in range(8)))
        for connection in opened:
            await connection.fetchval("SELECT 1")
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
            await connection.close()
        assert connections.are_pooled

    run(test())


def test_statements_that_were_said_to_stay_prepared_and_do_not_are_told_of(narrow: Pooler, tmp_path: Path) -> None:
    async def test() -> None:
        registry = await PostgresRegistry.open(f"{narrow.url}?prepared=yes", schema_of(tmp_path / "said"))
        await registry.execute(register("p"))
        await registry.get("p")
        direct = await asyncpg.connect(direct_url())
        ended = await direct.fetchval(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'perdure'"
        )
        await direct.close()
        assert ended == 1
        with pytest.raises(StoreUnavailable, match="prepared=no"):
            await registry.get("p")
        await registry.close()

    run(test())


def test_doctor_says_that_a_pooler_is_in_between(pooler: Pooler, tmp_path: Path) -> None:
    url = f"{pooler.url}?schema={schema_of(tmp_path / 'doctor')}"

    async def test() -> None:
        await (await PostgresRegistry.open(url)).close()

    run(test())
    told = subprocess.run(
        [str(Path(sys.executable).with_name("perdure")), "doctor"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PERDURE_URL": url, "COLUMNS": "200"},
    )  # fmt: skip
    assert "a pooler is in between" in told.stdout, told


def test_what_one_host_starts_another_runs_though_nobody_listens(pooler: Pooler, tmp_path: Path) -> None:
    url = f"{pooler.url}?schema={schema_of(tmp_path / 'peers')}"
    here, there = Shop(url, "here", work=False), Shop(url, "there")

    async def test() -> None:
        async with here.host, there.host:
            runs = [await here.host.start(here.double, number) for number in range(20)]
            assert [await one.result() for one in runs] == [2 * number for number in range(20)]
            direct = await asyncpg.connect(direct_url())
            listening = await direct.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
            await direct.close()
            assert listening == 0

    run(test())


def test_a_host_that_is_connected_directly_hears_of_those_behind_the_pooler(pooler: Pooler, tmp_path: Path) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "mixed")
        direct = await PostgresRegistry.open(direct_url(), schema)
        behind = await PostgresRegistry.open(pooler.url, schema)
        heard = asyncio.Event()
        direct.on_peer_hint(heard.set)
        await until(lambda: _is_set(heard), "it listens")
        heard.clear()
        await behind.execute(register("p"))
        await until(lambda: _is_set(heard), "a hint")
        await direct.close()
        await behind.close()

    run(test())


def test_a_pooler_that_keeps_sessions_brings_hints_to_who_says_so(program: Program, tmp_path: Path) -> None:
    settings = {"pool_mode": "session", "default_pool_size": "40"}

    async def test(url: str) -> None:
        here, there = [await PostgresRegistry.open(url, schema_of(tmp_path / "sessions")) for _ in range(2)]
        heard = asyncio.Event()
        here.on_peer_hint(heard.set)
        await until(lambda: _is_set(heard), "it listens")
        heard.clear()
        await there.execute(register("p"))
        await until(lambda: _is_set(heard), "a hint")
        await here.close()
        await there.close()

    for made in started(Pooler(direct_url(), program, settings)):
        run(test(f"{made.url}?prepared=yes"))


def test_a_notification_that_came_back_by_chance_proves_nothing(narrow: Pooler) -> None:
    async def test() -> None:
        by_chance: list[object] = []
        listening = await asyncpg.connect(narrow.url, statement_cache_size=0)
        await listening.add_listener("chance", lambda *told: by_chance.append(told[3]))
        await listening.execute("NOTIFY chance, 'own'")
        await until(lambda: _is_there(by_chance), "one's own comes back, as all share one session here")
        await listening.close()
        for said in ("", "?prepared=yes"):
            inspection = Inspection(f"{narrow.url}{said}")
            assert not await inspection.hears_itself(SystemIds())
            await inspection.close()

    async def _is_there(told: list[object]) -> bool:
        return bool(told)

    run(test())


async def _is_set(event: asyncio.Event) -> bool:
    return event.is_set()
