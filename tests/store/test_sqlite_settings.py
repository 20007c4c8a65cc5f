"""The settings that the promises rest on, and the schema's way forward."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from perdure.errors import NewerSchema, StoreUnavailable
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite import connection as opening
from perdure.stores.sqlite.migrations import migrations
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import Register

T = TypeVar("T")

FIRST = migrations()[0]


def in_registry(path: Path, ask: Callable[[SqliteRegistry], T]) -> T:
    """What `ask` says of a registry that is open on the file."""

    async def story() -> T:
        registry = await SqliteRegistry.open(path)
        try:
            return ask(registry)
        finally:
            await registry.close()

    return asyncio.run(story())


def pragma(connection: apsw.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").get


def pragmas(path: Path, *names: str) -> list[dict[str, Any]]:
    """The settings of each connection: the writer's, then the readers'."""
    return in_registry(path, lambda r: [{name: pragma(c, name) for name in names} for c in r._connections])


# --- settings --------------------------------------------------------------------------------------------------


def test_every_connection_logs_ahead_and_syncs_each_commit(tmp_path: Path) -> None:
    found = pragmas(tmp_path / "work.db", "journal_mode", "synchronous")
    assert found == [{"journal_mode": "wal", "synchronous": 2}] * 3


def test_only_the_writer_can_write(tmp_path: Path) -> None:
    assert pragmas(tmp_path / "work.db", "query_only") == [{"query_only": 0}, {"query_only": 1}, {"query_only": 1}]


def test_every_connection_distrusts_the_schema_and_checks_cells_and_bounds_its_log(tmp_path: Path) -> None:
    found = pragmas(tmp_path / "work.db", "trusted_schema", "cell_size_check", "foreign_keys", "journal_size_limit")
    one = {"trusted_schema": 0, "cell_size_check": 1, "foreign_keys": 1, "journal_size_limit": 64 * 1024 * 1024}
    assert found == [one] * 3


def test_a_new_file_and_all_beside_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "work.db"
        modes = in_registry(path, lambda _: {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()})
        queue = path.with_name("work.db.owners") / "writers.queue"
    finally:
        os.umask(before)
    assert modes == {"work.db": 0o600, "work.db-wal": 0o600, "work.db-shm": 0o600, "work.db.owners": 0o700}
    assert stat.S_IMODE(queue.stat().st_mode) == 0o600


def test_the_permissions_of_a_file_that_exists_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    path.touch(0o640)
    path.chmod(0o640)
    in_registry(path, lambda _: None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreUnavailable) as refused:
        in_registry(tmp_path / "work.db", lambda _: None)
    assert str(refused.value) == (
        f"sqlite:///{tmp_path}/work.db: SQLite 3.51.2 can corrupt a WAL file. "
        "Install an apsw that brings 3.51.3 or newer."
    )
    assert not (tmp_path / "work.db").exists()


# --- the schema ------------------------------------------------------------------------------------------------


def version_of(path: Path) -> tuple[int, int]:
    connection = apsw.Connection(str(path))
    try:
        return pragma(connection, "application_id"), pragma(connection, "user_version")
    finally:
        connection.close()


def schema_of(path: Path) -> list[str]:
    connection = apsw.Connection(str(path))
    try:
        return [row[0] for row in connection.execute("SELECT name FROM sqlite_schema ORDER BY name")]
    finally:
        connection.close()


async def start_one(path: Path, id: str) -> None:
    registry = await SqliteRegistry.open(path)
    registration = Registration(id=id, definition=Definition("python", "work"), recovery="rerunnable")
    await registry.execute(Register(process_id=id, registration=registration))
    await registry.close()


def test_a_new_file_is_marked_as_ours_and_has_the_newest_schema(tmp_path: Path) -> None:
    in_registry(tmp_path / "work.db", lambda _: None)
    assert version_of(tmp_path / "work.db") == (0x50455244, len(migrations()))


def test_an_empty_file_of_schema_0_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", 0x50455244)
    connection.close()
    assert version_of(path) == (0x50455244, 0)
    asyncio.run(start_one(path, "p"))
    assert version_of(path) == (0x50455244, len(migrations()))


def test_an_older_schema_is_brought_forward_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "work.db"
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST])
    asyncio.run(start_one(path, "p"))
    second = (2, "CREATE TABLE second (x); INSERT INTO second SELECT id FROM processes;")
    third = (3, "CREATE TABLE third (x); INSERT INTO third SELECT x FROM second;")
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST, second, third])
    found = in_registry(path, lambda r: r._connections[0].execute("SELECT x FROM third").fetchall())
    assert found == [("p",)]
    assert version_of(path) == (0x50455244, 3)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "work.db"
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST])
    asyncio.run(start_one(path, "p"))
    before = schema_of(path)
    broken = [FIRST, (2, "CREATE TABLE second (x);"), (3, "CREATE TABLE third (x); INSERT INTO nowhere VALUES (1);")]
    monkeypatch.setattr(opening, "migrations", lambda: broken)
    with pytest.raises(StoreUnavailable):
        in_registry(path, lambda _: None)
    assert (version_of(path), schema_of(path)) == ((0x50455244, 1), before)
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST])
    asyncio.run(start_one(path, "more"))


def test_a_program_of_before_a_migration_refuses_the_file_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.db"
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST, (2, "CREATE TABLE second (x);")])
    in_registry(path, lambda _: None)
    monkeypatch.setattr(opening, "migrations", lambda: [FIRST])
    with pytest.raises(NewerSchema):
        in_registry(path, lambda _: None)


OPEN_TOGETHER = """
import asyncio, os, sys
from perdure.stores.sqlite.store import SqliteRegistry

async def opened(path):
    registry = await SqliteRegistry.open(path)
    await registry.close()

for number in range(25):
    children, (wait, go) = [], os.pipe()
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)  # ends when every copy of the other end is closed: all at once
            try:
                asyncio.run(opened(f"{sys.argv[1]}/work-{number}.db"))
            except BaseException as error:
                print(repr(error), flush=True)
            os._exit(0)
        children.append(child)
    os.close(wait), os.close(go)
    for child in children:
        os.waitpid(child, 0)
"""


def test_programs_that_make_one_file_at_the_same_time_all_open_it(tmp_path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", OPEN_TOGETHER, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (program.stdout, program.stderr) == ("", "")
    assert {version_of(path) for path in tmp_path.glob("*.db")} == {(0x50455244, len(migrations()))}
