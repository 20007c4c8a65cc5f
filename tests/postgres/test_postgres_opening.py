"""Opening a schema: made once, however many open it; refused by name when it is not ours, newer, or altered."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from lab.cluster import Cluster
from perdure.errors import (
    ForeignStore,
    InvalidOption,
    NewerSchema,
    PerdureError,
    StoreCorrupt,
    StoreReadOnly,
    StoreUnavailable,
)
from perdure.host import Host
from perdure.model.leases import Owner
from perdure.model.outcomes import Completed
from perdure.model.progress import Progress
from perdure.stores.postgres import administration
from perdure.stores.postgres.connections import Connections
from perdure.stores.postgres.schema import NEWEST, describe, expected
from perdure.stores.postgres.statements import migrations
from perdure.stores.postgres.store import PostgresRegistry
from perdure.stores.postgres.url import parse_url, without_password
from perdure.testing.conformance.kit import raw
from perdure.transitions.commands import Complete, LeaseRight, Renew, ReportedProgress, ReportProgress
from tests.postgres.server import schema_of, server_url
from tests.postgres.worlds import append, claim, register, run, world


def with_login(user: str, password: str) -> str:
    parts = urlsplit(server_url())
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


@asynccontextmanager
async def admin() -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(server_url())
    try:
        yield connection
    finally:
        await connection.close()


# --- the schema ------------------------------------------------------------------------------------------------


def test_what_the_migrations_make_is_what_is_expected(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            target = parse_url(server_url(), w.schema)
            connections = Connections(target, 1)
            async with connections.one() as connection:
                assert await describe(connection, target) == expected()
            await connections.close()
            assert len(migrations(w.schema)) == NEWEST
            unseen = "SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND prosrc = ''"
            assert await w.sql.fetchval(unseen, f'"{w.schema}"') == 0

    run(test())


def test_many_who_open_a_new_schema_at_once_all_find_it_made(tmp_path: Path) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "new")
        opened = await asyncio.gather(*(PostgresRegistry.open(server_url(), schema) for _ in range(8)))
        for number, registry in enumerate(opened):
            await registry.execute(register(f"p{number}"))
        assert await opened[0].count() == 8
        for registry in opened:
            await registry.close()

    run(test())


@pytest.mark.parametrize("name", ['a"b', "with space", "perdure.x", "Größe", "x'; DROP SCHEMA public; --"])
def test_a_schema_may_have_any_name(name: str) -> None:
    async def test() -> None:
        async with admin() as connection:
            try:
                registry = await PostgresRegistry.open(server_url(), name)
                await registry.execute(register("p"))
                await registry.close()
                again = await PostgresRegistry.open(registry.name.replace("postgres@", f"postgres:{password()}@"))
                assert (await again.get("p")).id == "p"
                assert again.name == registry.name
                await again.close()
            finally:
                await connection.execute(f'DROP SCHEMA "{name.replace(chr(34), chr(34) * 2)}" CASCADE')

    def password() -> str:
        return str(urlsplit(server_url()).password)

    run(test())


def test_a_schema_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "foreign")
        async with admin() as connection:
            await connection.execute(f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}".orders (id int)')
            with pytest.raises(ForeignStore, match="belongs to another program") as raised:
                await PostgresRegistry.open(server_url(), schema)
            assert raised.value.__cause__ is None
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
            assert [table[0] for table in tables] == ["orders"]

    run(test())


def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'INSERT INTO "{w.schema}".versions (version) VALUES (99)')
            with pytest.raises(NewerSchema, match=f"schema 99, this version knows up to {NEWEST}"):
                await w.peer()

    run(test())


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP INDEX {s}.processes_ready", "index CREATE INDEX processes_ready"),
        ("ALTER TABLE {s}.events DROP COLUMN checksum", "column events.checksum"),
        ("ALTER TABLE {s}.processes ALTER parent TYPE varchar(9)", "column processes.parent text"),
        ("DROP FUNCTION {s}.now_ms CASCADE", "function now_ms"),
        (
            "CREATE OR REPLACE FUNCTION {s}.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT 0::bigint'",
            "function now_ms",
        ),
        ("ALTER FUNCTION {s}.now_ms STABLE", "function now_ms"),
        ("ALTER FUNCTION {s}.next_due RESET enable_seqscan", "function next_due"),
    ],
)
def test_what_is_missing_or_altered_is_named(tmp_path: Path, damage: str, named: str) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(damage.replace("{s}", f'"{w.schema}"'))
            with pytest.raises(StoreCorrupt) as raised:
                await w.peer()
            assert named in str(raised.value)

    run(test())


def test_what_others_have_added_is_theirs(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w:
            await w.sql.execute(f'CREATE INDEX theirs ON "{w.schema}".processes (status)')
            await (await w.peer()).close()

    run(test())


# --- the server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_may_lose_what_was_acknowledged_is_refused_unless_told(setting: str) -> None:
    async def test(url: str) -> None:
        with pytest.raises(StoreUnavailable, match=f"{setting}=off"):
            await PostgresRegistry.open(url)
        await (await PostgresRegistry.open(f"{url}?durability=relaxed")).close()

    cluster = Cluster({setting: "off"})
    try:
        cluster.start()
        run(test(cluster.url))
    finally:
        cluster.remove()


def test_a_password_is_in_no_error_and_no_name(tmp_path: Path) -> None:
    async def test() -> None:
        good = server_url()
        secret = str(urlsplit(good).password)
        port = urlsplit(good).port
        refused: list[tuple[str, type[PerdureError]]] = [
            (good.replace(secret, "wrong-secret"), StoreUnavailable),
            (f"postgresql://u:wrong-secret@127.0.0.1:{port}/nowhere", StoreUnavailable),
            ("postgresql://u:wrong-secret@127.0.0.1:1/db", StoreUnavailable),
            ("postgresql://u:wrong-secret@127.0.0.1:port/db", InvalidOption),
            ("postgresql://u:wrong-secret/x@127.0.0.1/db", InvalidOption),
            ("postgresql://u:wrong-secret", InvalidOption),
            ("postgresql://u@127.0.0.1/db?password=wrong-secret&schema=pg_own", InvalidOption),
            ("postgresql://u:wrong-secret@127.0.0.1/db?prepared=perhaps", InvalidOption),
            ("postgre://u:wrong-secret@127.0.0.1/db", InvalidOption),
        ]
        for url, kind in refused:
            with pytest.raises(kind) as raised:
                await Host(url).open()
            told = f"{raised.value} {raised.value!r} {raised.value.fields}"
            assert "wrong-secret" not in told, url
            assert "wrong-secret" not in without_password(url)
        registry = await PostgresRegistry.open(good, schema_of(tmp_path / "named"))
        assert secret not in registry.name
        await registry.close()

    run(test())


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        parts = urlsplit(server_url())
        with pytest.raises(StoreUnavailable, match="there is no such database"):
            await PostgresRegistry.open(urlunsplit(parts._replace(path="/nowhere")))

    run(test())


# --- roles -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def role(name: str, schema: str, access: administration.Access) -> AsyncIterator[str]:
    """A role with no rights but those that are granted; its URL."""
    async with admin() as connection:
        await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
        await connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'pw-of-role'")
        await connection.execute(administration.grants_sql(f"{server_url()}?schema={schema}", access, name))
        try:
            yield f"{with_login(name, 'pw-of-role')}?schema={schema}"
        finally:
            await connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


def test_a_worker_with_the_least_rights_does_all_its_work_and_can_alter_no_log(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, role(f"worker_{w.schema}", w.schema, "worker") as url:
            registry = await PostgresRegistry.open(url)
            owner = Owner("a", "a-1")
            await registry.enrol(owner)
            assert (await registry.execute(register("p"))).answer == "applied"
            (one,) = (await registry.execute(claim("a"))).claimed
            await registry.execute(append("p"))
            renewed = await registry.execute(Renew(keys=(one.lease.key,), ttl_ms=20_000))
            assert renewed.renewals[0].held
            report = ReportedProgress(one.lease.key, Progress(1, 2))
            assert (await registry.execute(ReportProgress(reports=(report,)))).accepted == (True,)
            authority = LeaseRight(one.lease.key)
            await registry.execute(Complete(process_id="p", outcome=Completed(raw(1)), authority=authority))
            assert (await registry.get("p")).status == "completed"
            assert await registry.peer_changes() == ()
            assert await registry.prove_deaths() == ()
            await registry.withdraw(owner)
            await registry.close()
            direct = await asyncpg.connect(url.partition("?")[0])
            for statement in (
                "UPDATE {s}.events SET payload = 'null'", "DELETE FROM {s}.events", "DELETE FROM {s}.processes",
                "UPDATE {s}.registrations SET body = '{}'", "TRUNCATE {s}.events", "DROP TABLE {s}.leases",
                "CREATE TABLE {s}.mine (id int)", "UPDATE {s}.versions SET version = 7",
            ):  # fmt: skip
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await direct.execute(statement.replace("{s}", f'"{w.schema}"'))
            await direct.close()

    run(test())


def test_a_reader_looks_and_is_refused_to_write_by_name(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, role(f"reader_{w.schema}", w.schema, "reader") as url:
            await w.register("p")
            async with Host(url, work=False) as host:
                assert (await host.registry.get("p")).id == "p"
                assert await host.registry.count() == 1
                with pytest.raises(StoreReadOnly, match="the role may not do this"):
                    await host.registry.execute(append("p"))

    run(test())


def test_a_role_that_may_make_no_schema_is_told_what_to_do(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(tmp_path) as w, role(f"other_{w.schema}", w.schema, "reader") as url:
            missing = schema_of(tmp_path / "missing")
            with pytest.raises(StoreReadOnly, match="perdure migrate"):
                await PostgresRegistry.open(url, missing)

    run(test())


@pytest.mark.parametrize("how", ["opened", "printed"])
def test_a_role_that_owns_an_empty_schema_needs_no_right_to_make_one(tmp_path: Path, how: str) -> None:
    async def test() -> None:
        schema = f"{schema_of(tmp_path / 'given')}'s"
        name = f"owner_{how}_{schema_of(tmp_path / 'given')}"
        async with admin() as connection:
            await connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'pw-of-role'")
            try:
                await connection.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{name}"')
                url = with_login(name, "pw-of-role")
                if how == "printed":
                    direct = await asyncpg.connect(url)
                    await direct.execute(administration.migration_sql(f"{url}?schema={quote(schema)}"))
                    await direct.close()
                registry = await PostgresRegistry.open(url, schema)
                assert (await registry.execute(register("p"))).answer == "applied"
                await registry.close()
            finally:
                await connection.execute(f'DROP OWNED BY "{name}" CASCADE; DROP ROLE "{name}"')

    run(test())


# --- the command line ------------------------------------------------------------------------------------------


def perdure(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("perdure")), *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PERDURE_URL": url},
    )  # fmt: skip


def test_the_command_line_migrates_looks_and_works_on_postgresql(tmp_path: Path) -> None:
    url = f"{server_url()}?schema={schema_of(tmp_path / 'cli')}"
    secret = str(urlsplit(url).password)
    missing = perdure("ls", url=url)
    assert missing.returncode == 6
    assert "looking does not create one" in missing.stderr
    for expected_before in (0, NEWEST):
        migrated = json.loads(perdure("migrate", "--json", url=url).stdout)
        assert (migrated["before"], migrated["after"]) == (expected_before, NEWEST)
    ran = perdure("run", "--", "true", url=url)
    assert ran.returncode == 0, ran.stderr
    listed = json.loads(perdure("ls", "-a", "--json", url=url).stdout)
    assert [process["status"] for process in listed["processes"]] == ["completed"]
    assert all(secret not in said for one in (missing, ran) for said in (one.stdout, one.stderr))


def test_the_printed_sql_makes_the_same_schema(tmp_path: Path) -> None:
    async def test() -> None:
        schema = schema_of(tmp_path / "printed")
        url = f"{server_url()}?schema={schema}"
        printed = perdure("migrate", "--sql", "--worker", "pg_monitor", url=url)
        assert printed.returncode == 0, printed.stderr
        async with admin() as connection:
            await connection.execute(printed.stdout)
        registry = await PostgresRegistry.open(url)
        await registry.execute(register("p"))
        await registry.close()

    run(test())
