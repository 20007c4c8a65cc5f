"""What doctor finds in a healthy PostgreSQL database, and each trouble that can be made, made and found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from msgspec import structs

from perdure.cli.doctoring import server, upkeep
from perdure.errors import ForeignStore, NewerSchema, StoreReadOnly, StoreUnavailable
from perdure.stores.postgres.findings import (
    Ages,
    ConnectionsReport,
    PreparedTransaction,
    ServerReport,
    Slot,
)
from perdure.stores.postgres.inspection import worker_rights
from tests.postgres.looks import USUAL, doctor, looked_at, named, troubles
from tests.postgres.roles import granted
from tests.postgres.server import schema_of, server_url
from tests.postgres.worlds import run, world

NAMES = {
    "server", "durability", "autovacuum", "isolation", "idle_limit", "connections", "clock", "rights", "schema",
    "verified", "hints", "transaction", "lock", "sizes", "dead_rows", "updates", "index", "freezing", "owners",
    "leases", "attention", "posted", "status",
}  # fmt: skip
# --- the whole -------------------------------------------------------------------------------------------------


def test_a_healthy_database_passes_every_check_by_name_with_exit_code_0(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.register("p")
            found = await asyncio.to_thread(doctor, "--json", url=f"{server_url()}?schema={w.schema}")
            document = json.loads(found.stdout)
            assert {check["name"]: check["state"] for check in document["checks"]} == dict.fromkeys(NAMES, "ok")
            assert document["healthy"] is True
            assert found.returncode == 0
            assert str(urlsplit(server_url()).password) not in found.stdout + found.stderr

    run(test())


def test_a_failed_check_is_exit_code_1_and_is_told_with_what_to_do(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'ALTER FUNCTION "{w.schema}".now_ms STABLE')
            found = await asyncio.to_thread(doctor, url=f"{server_url()}?schema={w.schema}")
            assert "fail\tverified\tfunction now_ms was altered\tHosts refuse to open it." in found.stdout
            assert found.returncode == 1

    run(test())


def test_a_schema_that_is_not_there_is_exit_code_6_and_is_not_made(tmp_path: Path) -> None:
    schema = schema_of(tmp_path / "missing")
    found = doctor(url=f"{server_url()}?schema={schema}")
    assert "looking creates none" in found.stdout
    assert found.returncode == 6

    async def test() -> None:
        (missing,) = [check for check in await looked_at(f"{server_url()}?schema={schema}") if check.error]
        assert isinstance(missing.error, StoreUnavailable)

    run(test())


def test_a_server_that_is_not_there_is_exit_code_6() -> None:
    found = doctor(url="postgresql://u:wrong-secret@127.0.0.1:1/db")
    assert "fail\tserver" in found.stdout
    assert "wrong-secret" not in found.stdout + found.stderr
    assert found.returncode == 6


def test_verify_is_refused_here_by_name() -> None:
    found = doctor("--verify", url=server_url())
    assert "--verify" in found.stderr
    assert found.returncode == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("DROP TABLE {s}.versions", ForeignStore),
        ("INSERT INTO {s}.versions (version) VALUES (99)", NewerSchema),
    ],
)
def test_a_foreign_or_newer_schema_ends_the_look_with_its_error(
    tmp_path: Path, change: str, error: type[Exception]
) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(change.replace("{s}", f'"{w.schema}"'))
            found = await looked_at(w)
            assert isinstance(found[-1].error, error)

    run(test())


def test_an_older_schema_is_a_warning_and_everything_else_is_still_looked_at(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'DELETE FROM "{w.schema}".versions WHERE version > 1; DROP TABLE "{w.schema}".posted')
            found = await looked_at(w)
            assert troubles(found) == {"schema": "warn"}
            assert "perdure migrate" in named(found, "schema").fix
            assert named(found, "status").state == "ok"

    run(test())


# --- rights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", ["worker", "reader"])
def test_a_role_with_the_least_rights_may_look_at_everything(tmp_path: Path, access: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "worker" if access == "worker" else "reader") as (role, url):
            await w.register("p")
            found = await looked_at(url)
            assert troubles(found) == {}
            assert {check.name for check in found} == NAMES
            said = "may run processes" if access == "worker" else "may look; it may not run processes"
            assert named(found, "rights").detail == f"{role} {said}"

    run(test())


def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "worker") as (role, url):
            await w.sql.execute(f'REVOKE INSERT ON "{w.schema}".events FROM "{role}"')
            rights = named(await looked_at(url), "rights")
            assert (rights.state, rights.detail) == ("fail", f"{role} lacks INSERT on table events")
            assert f"perdure migrate --sql --worker {role}" in rights.fix

    run(test())


def test_every_right_of_a_worker_is_missed_when_it_is_taken_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "worker") as (role, url):
            await w.sql.execute(f'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "{w.schema}" FROM public')
            for right in worker_rights():
                kind, of = right.kind, f'"{w.schema}".{right.object}'
                thing = {"schema": f'SCHEMA "{w.schema}"', "function": f'ALL FUNCTIONS IN SCHEMA "{w.schema}"'}.get(
                    kind, f"{kind.upper()} {of}"
                )
                await w.sql.execute(f'REVOKE {right.privilege} ON {thing} FROM "{role}"')
                told = named(await looked_at(url), "rights")
                assert told.state == "fail", right
                assert f"{right.privilege} on {kind} {right.object}" in told.detail
                await w.sql.execute(f'GRANT {right.privilege} ON {thing} TO "{role}"')
            assert len(worker_rights()) > 20

    run(test(), 120)


def test_a_role_that_may_not_enter_the_schema_ends_the_look(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "reader") as (role, url):
            await w.sql.execute(f'REVOKE USAGE ON SCHEMA "{w.schema}" FROM "{role}"')
            found = await looked_at(url)
            assert isinstance(found[-1].error, StoreReadOnly)
            assert "USAGE on schema" in found[-1].detail

    run(test())


# --- the server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "name", "state"),
    [
        ("default_transaction_isolation", "serializable", "isolation", "warn"),
        ("default_transaction_read_only", "on", "writable", "fail"),
        ("synchronous_commit", "off", "durability", "fail"),
        ("synchronous_commit", "local", "durability", "warn"),
    ],
)
def test_a_setting_that_harms_is_found_where_the_role_has_it(
    tmp_path: Path, setting: str, value: str, name: str, state: str
) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "worker") as (role, url):
            await w.sql.execute(f"ALTER ROLE \"{role}\" SET {setting} = '{value}'")
            found = await looked_at(url)
            assert troubles(found) == {name: state}
            assert value in named(found, name).detail

    run(test())


def test_the_narrowest_bound_on_connections_counts(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, granted(w, "worker") as (role, url):
            await w.sql.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 3')
            assert "of 3 connections used" in named(await looked_at(url), "connections").detail

    run(test())


def test_what_no_test_server_has_is_judged_all_the_same() -> None:
    old = ServerReport("13.2", 130_002, False, "app", False, True)
    assert [check.state for check in server.check_server(old)] == ["fail"]
    standby = structs.replace(old, version_num=160_000, in_recovery=True)
    assert [(check.name, check.state) for check in server.check_server(standby)] == [
        ("server", "ok"), ("writable", "fail"),
    ]  # fmt: skip
    assert server.check_connections(ConnectionsReport(80, 40, 100), USUAL).state == "warn"
    assert server.check_connections(ConnectionsReport(79, 40, 100), USUAL).state == "ok"
    assert (
        server.check_clock(5_000, 1_000, 1_010, USUAL).detail
        == "the server's clock is +4.0 s apart from this machine's"
    )
    assert server.check_clock(2_010, 1_000, 1_010, USUAL).state == "ok"
    assert server.check_hints(heard=False, pooled=False).state == "warn"
    pooled = server.check_hints(heard=False, pooled=True)
    assert (pooled.state, "every 1.0s instead" in pooled.detail) == ("ok", True)
    prepared = PreparedTransaction("order-7", "app", 60_000, 12)
    (told,) = upkeep.check_prepared([prepared], USUAL)
    assert (told.state, "'order-7'" in told.detail, "ROLLBACK PREPARED" in told.fix) == ("warn", True, True)
    (lost,) = upkeep.check_slots([Slot("replica", True, 0, "lost", 0)], USUAL)
    assert "pg_drop_replication_slot('replica')" in lost.fix
    ages = Ages(190_000_000, 0, 200_000_000, 400_000_000)
    states = [
        upkeep.check_ages(structs.replace(ages, transactions=found)).state
        for found in (190_000_000, 230_000_000, 1_500_000_000)
    ]
    assert states == ["ok", "warn", "fail"]


# --- what can't be looked at -----------------------------------------------------------------------------------


def test_a_table_that_somebody_has_locked_fails_what_needs_it_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'BEGIN; LOCK TABLE "{w.schema}".owners')
            found = await looked_at(w)
            assert troubles(found) == {"schema": "fail", "tables": "fail", "owners": "fail"}
            assert "somebody else's transaction holds" in named(found, "owners").detail
            await w.sql.execute("ROLLBACK")

    run(test())


def test_a_look_that_takes_too_long_is_given_up_and_taken_for_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            s = f'"{w.schema}"'
            await w.sql.execute(
                f"ALTER TABLE {s}.posted RENAME TO hidden; CREATE VIEW {s}.posted AS SELECT * FROM {s}.hidden "
                f"WHERE pg_sleep(60) IS NOT NULL; INSERT INTO {s}.hidden (process_id, codec, body) VALUES ('p', 1, '')"
            )
            posted = named(await looked_at(w), "posted")
            assert (posted.state, "given up: nothing is known" in posted.detail) == ("warn", True)

    run(test())
