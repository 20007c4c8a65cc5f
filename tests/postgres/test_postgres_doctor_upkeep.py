"""Doctor on PostgreSQL: what holds up others, and tables and indexes that are kept badly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from msgspec import structs

from perdure.cli.doctoring import upkeep
from perdure.cli.doctoring.limits import Limits
from perdure.stores.postgres.findings import OpenTransaction
from tests.postgres.looks import USUAL, looked_at, named, troubles
from tests.postgres.quiet import quiet_world
from tests.postgres.roles import granted
from tests.postgres.server import direct_url
from tests.postgres.worlds import run, until, waiting, world

# --- what holds up others --------------------------------------------------------------------------------------


def test_an_old_open_transaction_is_named_with_pid_and_age(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            other = await asyncpg.connect(direct_url())
            await other.execute("BEGIN; SELECT pg_current_xact_id()")
            pid = await other.fetchval("SELECT pg_backend_pid()")
            assert named(await looked_at(w), "transaction").state == "ok"
            found = [check for check in await looked_at(w, Limits(transaction_ms=0)) if check.name == "transaction"]
            (told,) = [check for check in found if f"pid {pid} (postgres)" in check.detail]
            assert told.state == "warn"
            assert "idle in transaction, its last statement began" in told.detail
            assert told.fix.endswith(f"pg_terminate_backend({pid})")
            await other.close()

    run(test())


def test_a_role_that_may_not_see_ages_is_told_so_and_still_sees_who_holds_the_horizon(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "reader") as (_, url):
            other = await asyncpg.connect(direct_url())
            await other.execute("BEGIN; SELECT pg_current_xact_id()")
            pid = await other.fetchval("SELECT pg_backend_pid()")
            assert "this role may not see the age" in named(await looked_at(url), "transaction").detail
            found = [check for check in await looked_at(url, Limits(horizon=1)) if check.name == "transaction"]
            assert any(
                f"pid {pid} " in check.detail and "for a time that this role may not see" in check.detail
                for check in found
            )
            await other.close()

    run(test())


def test_a_lock_that_is_waited_for_is_named_with_its_holder(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            async with w.holding("p") as holder:
                pid = await holder.fetchval("SELECT pg_backend_pid()")
                other = await asyncpg.connect(direct_url())
                asked = asyncio.create_task(other.execute(f'UPDATE "{w.schema}".processes SET state = state'))
                await until(lambda: waiting(w), "the other waits")
                assert named(await looked_at(w), "lock").state == "ok"
                told = named(await looked_at(w, Limits(lock_ms=0)), "lock")
                assert (told.state, told.detail.endswith(f"held by pid {pid}")) == ("warn", True)
            await asked
            await other.close()

    run(test())


def test_a_replication_slot_that_nobody_reads_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f"SELECT pg_create_physical_replication_slot('{w.schema}', true)")
            try:
                found = await looked_at(w, Limits(kept_wal_bytes=0))
                (told,) = [check for check in found if check.name == "slot" and w.schema in check.detail]
                assert "is read by nobody" in told.detail
            finally:
                await w.sql.execute(f"SELECT pg_drop_replication_slot('{w.schema}')")

    run(test())


def test_a_transaction_is_old_by_age_or_by_what_began_since() -> None:
    young = OpenTransaction(7, "app", "", "active", 59_999, 10, 999_999)
    assert [check.state for check in upkeep.check_transactions([young], True, USUAL)] == ["ok"]
    for old in (
        structs.replace(young, age_ms=60_000),
        structs.replace(young, horizon=1_000_000),
        structs.replace(young, age_ms=None, horizon=1_000_000),
    ):
        assert [check.state for check in upkeep.check_transactions([old], True, USUAL)] == ["warn"]


# --- schema and indexes ----------------------------------------------------------------------------------------


def test_a_missing_index_is_found_and_what_to_do_makes_it_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'DROP INDEX "{w.schema}".processes_ready')
            found = await looked_at(w)
            assert troubles(found) == {"index": "fail"}
            assert "index processes_ready is missing" in named(found, "index").detail
            await w.sql.execute(named(found, "index").fix)
            assert troubles(await looked_at(w)) == {}

    run(test())


def test_an_invalid_index_of_ours_fails_and_one_of_theirs_is_a_warning(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            for id in ("p", "q"):
                await w.register(id)
            with pytest.raises(asyncpg.UniqueViolationError):
                await w.sql.execute(f'CREATE UNIQUE INDEX CONCURRENTLY theirs ON "{w.schema}".processes (lane)')
            theirs = named(await looked_at(w), "index")
            assert (theirs.state, theirs.detail) == ("warn", "index theirs is not valid")
            await w.sql.execute(
                f'DROP INDEX "{w.schema}".theirs; SET allow_system_table_mods = on; UPDATE pg_index '
                f"SET indisvalid = false WHERE indexrelid = '\"{w.schema}\".events_change'::regclass"
            )
            ours = named(await looked_at(w), "index")
            assert (ours.state, ours.detail.partition(":")[0]) == ("fail", "index events_change is not valid")

    run(test())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            "CREATE OR REPLACE FUNCTION {s}.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT 0::bigint'",
            "function now_ms was altered",
        ),
        ("DROP FUNCTION {s}.next_due", "function next_due is missing"),
        ("ALTER TABLE {s}.events ALTER replay_key SET NOT NULL", "column events.replay_key was altered"),
        ("ALTER SEQUENCE {s}.process_rows INCREMENT 1", "sequence process_rows was altered"),
    ],
)
def test_what_is_missing_or_altered_in_the_schema_is_named(tmp_path: Path, damage: str, told: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(damage.replace("{s}", f'"{w.schema}"'))
            found = await looked_at(w)
            assert troubles(found) == {"verified": "fail"}
            assert named(found, "verified").detail == told

    run(test())


# --- tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name", "state", "said"),
    [
        ("ALTER TABLE {s}.leases SET (autovacuum_enabled = off)", "autovacuum", "fail", "off for leases"),
        ("ALTER TABLE {s}.processes RESET (fillfactor)", "hot", "warn", "processes leaves 0% of its pages free"),
        ("CREATE INDEX theirs ON {s}.processes (status)", "hot", "warn", "index theirs has status"),
    ],
)
def test_a_table_that_is_kept_badly_is_named(tmp_path: Path, change: str, name: str, state: str, said: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(change.replace("{s}", f'"{w.schema}"'))
            found = await looked_at(w)
            (told,) = [check for check in found if check.state != "ok"]
            assert (told.name, told.state) == (name, state)
            assert said in told.detail

    run(test())


FILL = """
INSERT INTO {s}.processes (row, id, lane, priority, status, state)
SELECT n, 'p' || n, 'x', 5, 'completed', '{}' FROM generate_series(1, 20000) AS n
"""


def test_dead_rows_that_nobody_clears_away_and_room_that_no_row_needs_are_found() -> None:
    async def test() -> None:
        async with quiet_world() as w:
            s = f'"{w.schema}"'
            await w.sql.execute(f"ALTER TABLE {s}.processes SET (autovacuum_enabled = off)")
            await w.sql.execute(FILL.replace("{s}", s))
            await w.sql.execute(f"DELETE FROM {s}.processes WHERE row < 19000")
            seen = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'processes'"
            await until(lambda: w.sql.fetchval(seen, w.schema), "the statistics are there")
            dead = named(await looked_at(w.url), "dead_rows")
            assert (dead.state, dead.detail.startswith("processes has 18,999 dead to 1,001 live rows")) == (
                "warn",
                True,
            )

            await w.sql.execute(f"VACUUM ANALYZE {s}.processes")
            bloat = named(await looked_at(w.url, Limits(slack_bytes=100_000)), "bloat")
            assert (bloat.state, "processes has" in bloat.detail) == ("warn", True)
            assert named(await looked_at(w.url), "dead_rows").state == "ok"

    run(test())


def test_a_partial_index_that_was_never_read_is_told_of_once_it_is_large(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            small = named(await looked_at(w, Limits(writes=0)), "unused")
            assert (small.state, "processes_parent" in small.detail) == ("ok", True)
            large = [check for check in await looked_at(w, Limits(writes=0, index_bytes=0)) if check.name == "unused"]
            assert {check.state for check in large} == {"warn"}

    run(test())


def test_a_store_with_very_many_processes_is_not_read_through(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(FILL.replace("{s}", f'"{w.schema}"'))
            assert named(await looked_at(w), "status").detail == "20,000 completed"
            await w.sql.execute(f'ANALYZE "{w.schema}".processes')
            found = await looked_at(w, replace(USUAL, counted_rows=19_999))
            assert named(found, "status").detail == "about 20,000 processes; so many are not counted by status"

    run(test())
