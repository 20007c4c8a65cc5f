"""What can be wrong with a file when it is opened: each its own error, that names the file and says what to do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.errors import (
    ForeignStore,
    NewerSchema,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
    UnsafeFileSystem,
)
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite import filesystem
from perdure.stores.sqlite.migrations import migrations
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import Register

Obeying = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file, in a folder of its own, in which p0 … p39 were started."""
    path = tmp_path / "folder" / "work.db"
    path.parent.mkdir()
    asyncio.run(start(path, *(f"p{number}" for number in range(40))))
    return path


ALL = {f"p{number}" for number in range(40)}


async def start(path: Path, *ids: str) -> None:
    registry = await SqliteRegistry.open(path)
    for id in ids:
        registration = Registration(id=id, definition=Definition("python", "work"), recovery="rerunnable")
        await registry.execute(Register(process_id=id, registration=registration))
    await registry.close()


async def started(path: Path, **options: Any) -> set[str]:
    registry = await SqliteRegistry.open(path, **options)
    page = await registry.list()
    await registry.close()
    return {record.id for record in page.records}


def refusal(path: Path, kind: type[StoreError]) -> str:
    """Opening the file raises exactly this; what it says of the problem and the remedy."""
    with pytest.raises(kind) as raised:
        asyncio.run(started(path))
    assert type(raised.value) is kind
    assert raised.value.store == f"sqlite:///{path}"
    assert raised.value.fields["remedy"]
    return str(raised.value).removeprefix(f"sqlite:///{path}: ")


# --- permissions -----------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_read_only(database: Path, obeying_permissions: Obeying) -> None:
    with obeying_permissions():
        database.chmod(0o444)
        assert refusal(database, StoreReadOnly) == "the file can't be written. Check its permissions."
        database.chmod(0o600)
        assert asyncio.run(started(database)) == ALL


def test_a_folder_that_cannot_be_written_is_read_only(database: Path, obeying_permissions: Obeying) -> None:
    with obeying_permissions():
        database.parent.chmod(0o555)
        said = refusal(database, StoreReadOnly)
        new = refusal(database.with_name("new.db"), StoreReadOnly)
        database.parent.chmod(0o700)
        assert said == "the file can't be written. Check its permissions and the mount."
        assert new == "the file can't be written. Check its permissions."
        assert asyncio.run(started(database)) == ALL


def test_an_owners_folder_that_cannot_be_used_is_named(database: Path, obeying_permissions: Obeying) -> None:
    owners = database.with_name("work.db.owners")
    with obeying_permissions():
        owners.chmod(0o000)
        said = refusal(database, StoreUnavailable)
        owners.chmod(0o700)
        assert said == f"{owners}/writers.queue can't be opened (Permission denied). Check its permissions."
        assert asyncio.run(started(database)) == ALL


# --- damage ----------------------------------------------------------------------------------------------------


def test_a_file_with_overwritten_pages_is_corrupt(database: Path) -> None:
    sound = database.read_bytes()
    database.write_bytes(sound[:4096] + b"\xaa" * (len(sound) - 4096))
    assert refusal(database, StoreCorrupt).startswith("the file is damaged (")
    database.write_bytes(sound)
    assert asyncio.run(started(database)) == ALL


def test_a_file_cut_short_is_corrupt(database: Path) -> None:
    sound = database.read_bytes()
    database.write_bytes(sound[: len(sound) // 2])
    assert refusal(database, StoreCorrupt).endswith("Restore it from a backup.")
    database.write_bytes(sound)
    assert asyncio.run(started(database)) == ALL


def test_a_refused_opening_leaves_nothing_open(database: Path) -> None:
    sound = database.read_bytes()
    database.write_bytes(sound[:4096] + b"\xaa" * (len(sound) - 4096))
    refusal(database, StoreCorrupt)
    assert sorted(path.name for path in database.parent.iterdir()) == ["work.db", "work.db.owners"]


# --- other people's files --------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is a letter.\n" * 200)
    assert refusal(path, ForeignStore) == "this is not an SQLite database. Choose another path."
    assert path.read_text() == "Dear reader, this is a letter.\n" * 200


@pytest.mark.parametrize("application_id", [0, 0x47504B47])
def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path, application_id: int) -> None:
    path = tmp_path / "theirs.db"
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", application_id)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    theirs = path.read_bytes()
    assert refusal(path, ForeignStore) == "the database belongs to another program. Choose another path."
    assert path.read_bytes() == theirs
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs.db"]


def test_a_newer_schema_is_refused_and_left_as_it_is(database: Path) -> None:
    set_version(database, 99)
    newer = database.read_bytes()
    assert refusal(database, NewerSchema) == (
        f"it has schema 99, this version knows up to {len(migrations())}. Upgrade Perdure on this host."
    )
    assert database.read_bytes() == newer
    set_version(database, len(migrations()))
    assert asyncio.run(started(database)) == ALL


def set_version(path: Path, version: int) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", version)
    connection.close()


# --- places ----------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "work.db"
    assert refusal(path, StoreUnavailable) == "the file can't be opened (No such file or directory). Check its folder."
    assert not path.parent.exists()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, StoreUnavailable) == "the file can't be opened (Is a directory). Check its folder."


def test_a_network_file_system_is_refused_unless_told_otherwise(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = f"36 35 0:31 / {database.parent} rw shared:1 - nfs4 server:/export rw\n"
    monkeypatch.setattr(filesystem, "_read_mountinfo", lambda: mounts)
    assert refusal(database, UnsafeFileSystem) == (
        "it lies on a nfs4 file system, whose locks can't be trusted. "
        "Use a local disk, or pass unsafe_filesystem=True if only one program will ever open it."
    )
    assert asyncio.run(started(database, unsafe_filesystem=True)) == ALL


# --- a fork ----------------------------------------------------------------------------------------------------

FORKS = """
import asyncio, os, sys
from pathlib import Path
from perdure.errors import ForkedConnection
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import Register

def register(id):
    registration = Registration(id=id, definition=Definition("python", "work"), recovery="rerunnable")
    return Register(process_id=id, registration=registration)

async def main():
    registry = await SqliteRegistry.open(Path(sys.argv[1]))
    await registry.execute(register("before"))
    child = os.fork()
    if child == 0:
        for use in (lambda: registry.execute(register("child")), lambda: registry.get("before")):
            try:
                await use()
            except ForkedConnection as error:
                print(error, flush=True)
        await registry.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    await registry.execute(register("after"))
    await registry.close()

asyncio.run(main())
"""


def test_a_forked_child_may_not_use_its_parents_connection_and_does_not_harm_it(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    program = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert program.stderr == ""
    said = f"sqlite:///{path}: it was opened before a fork. Open the host in the process that uses it."
    assert program.stdout.splitlines() == [said, said]
    assert asyncio.run(started(path)) == {"before", "after"}
