"""What can go wrong with an open file: each its own error, nothing acknowledged is lost, and work resumes by itself."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from lab.disk import FailingDisk, full, io_error
from perdure.errors import OutcomeUnknown, PerdureError, StoreFull, StoreLocked, StoreUnavailable
from perdure.model.registration import Definition, Registration
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import Receipt, Register

WAL = "work.db-wal"


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    disk = FailingDisk("failing")
    yield disk
    disk.unregister()


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await story

    asyncio.run(bounded())


def register(id: str, size: int = 10) -> Register:
    text = msgspec.Raw(msgspec.json.encode("x" * size))
    registration = Registration(id=id, definition=Definition("python", "work"), recovery="rerunnable", input=text)
    return Register(process_id=id, registration=registration, operation_id=f"start {id}")


async def ids(registry: SqliteRegistry) -> set[str]:
    return {record.id for record in (await registry.list()).records}


async def refusal_of(registry: SqliteRegistry, command: Register) -> StoreFull | None:
    try:
        await registry.execute(command)
    except StoreFull as refused:
        return refused
    return None


# --- full ------------------------------------------------------------------------------------------------------


def test_a_full_database_refuses_what_does_not_fit_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db")
        await on_writer(registry, lambda c: c.pragma("max_page_count", c.pragma("page_count") + 20))
        results = [await refusal_of(registry, register(f"p{number}", size=5_000)) for number in range(50)]
        acknowledged = {f"p{number}" for number, refused in enumerate(results) if refused is None}
        assert 5 <= len(acknowledged) <= 45
        assert {str(refused) for refused in results if refused is not None} == {
            f"sqlite:///{tmp_path}/work.db: the disk is full. Free some space; nothing acknowledged was lost."
        }
        assert await ids(registry) == acknowledged

        await on_writer(registry, lambda c: c.pragma("max_page_count", 1_000_000))
        await registry.execute(register("more"))
        await registry.close()
        reopened = await SqliteRegistry.open(tmp_path / "work.db")
        assert await ids(reopened) == acknowledged | {"more"}
        await reopened.close()

    run(story())


async def on_writer(registry: SqliteRegistry, job: Any) -> None:
    await asyncio.wrap_future(registry._writer.call(job))


def test_a_disk_that_is_full_at_any_write_of_a_commit_loses_that_commit_alone(
    tmp_path: Path, disk: FailingDisk
) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        acknowledged, refusals = set(), 0
        for nth in range(1, 40):
            disk.fails = failing_at(nth, "write", full)
            if await refusal_of(registry, register(f"p{nth}", size=9_000)) is None:
                acknowledged.add(f"p{nth}")
            else:
                refusals += 1
            disk.fails = never
            assert await ids(registry) == acknowledged
            await registry.execute(register(f"after-{nth}"))
            acknowledged.add(f"after-{nth}")
        assert refusals >= 10
        await registry.close()
        reopened = await SqliteRegistry.open(tmp_path / "work.db")
        assert await ids(reopened) == acknowledged
        await reopened.close()

    run(story())


def never(file: str, call: str) -> None:
    return None


def failing_at(nth: int, call: str, error: Any) -> Any:
    """Fails the n-th such call on the log from now on, once."""
    calls = 0

    def fails(file: str, called: str) -> apsw.Error | None:
        nonlocal calls
        if (file, called) != (WAL, call):
            return None
        calls += 1
        return error() if calls == nth else None

    return fails


# --- errors of the disk ----------------------------------------------------------------------------------------


def test_a_commit_whose_sync_failed_is_unknown_until_it_is_asked_again(tmp_path: Path, disk: FailingDisk) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        await registry.execute(register("before"))
        disk.fails = failing_at(1, "sync", lambda: io_error(apsw.SQLITE_IOERR_FSYNC))
        with pytest.raises(OutcomeUnknown) as unknown:
            await registry.execute(register("p"))
        assert unknown.value.fields["remedy"] == "Ask again with the same operation id."
        disk.fails = never
        receipt: Receipt = await registry.execute(register("p"))
        assert receipt.record.id == "p"
        assert await ids(registry) == {"before", "p"}
        await registry.close()

    run(story())


def test_a_read_that_failed_is_an_error_of_that_read_alone(tmp_path: Path, disk: FailingDisk) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        await registry.execute(register("p"))
        disk.fails = lambda file, call: io_error(apsw.SQLITE_IOERR_READ) if call == "read" else None
        reader = registry._points
        await reader.call(lambda c: c.release_memory())  # so that it has to read again
        with pytest.raises(StoreUnavailable) as failed:
            await registry.get("p")
        assert str(failed.value).startswith(f"sqlite:///{tmp_path}/work.db: reading or writing failed")
        disk.fails = never
        assert (await registry.get("p")).id == "p"
        await registry.close()

    run(story())


# --- the write lock --------------------------------------------------------------------------------------------

HOLDS = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("released", flush=True)
sys.stdin.readline()
"""


@contextmanager
def write_lock_held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """By another program, until a line is written to it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def release(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"


def test_a_write_lock_held_past_the_bound_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "work.db"
        registry = await SqliteRegistry.open(path, lock_bound_ms=150)
        await registry.execute(register("before"))
        with write_lock_held(path) as holder:
            with pytest.raises(StoreLocked) as refused:
                await registry.execute(register("during"))
            assert str(refused.value) == (
                f"sqlite:///{path}: another program has held the write lock for 150 ms. "
                "Find the program that holds a write transaction open, and try again."
            )
            assert await ids(registry) == {"before"}  # reading needs no lock
            release(holder)
            await registry.execute(register("during"))
        assert await ids(registry) == {"before", "during"}
        await registry.close()

    run(story())


def test_a_write_lock_released_within_the_bound_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "work.db"
        registry = await SqliteRegistry.open(path, lock_bound_ms=20_000)
        with write_lock_held(path) as holder:
            writing = asyncio.ensure_future(registry.execute(register("patient")))
            while not somebody_waits(path):  # noqa: ASYNC110 - a flock has no event
                await asyncio.sleep(0.001)
            assert not writing.done()
            release(holder)
            await writing
        assert await ids(registry) == {"patient"}
        await registry.close()

    run(story())


def somebody_waits(path: Path) -> bool:
    with open(path.with_name("work.db.owners") / "writers.queue", "rb+") as queue:
        try:
            fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_what_an_outage_refused_was_not_written(tmp_path: Path, disk: FailingDisk) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        disk.fails = lambda file, call: full() if call == "write" else None
        results = await asyncio.gather(
            *(registry.execute(register(f"p{number}")) for number in range(20)), return_exceptions=True
        )
        assert all(isinstance(result, StoreFull) for result in results)
        disk.fails = never
        assert await ids(registry) == set()
        assert not [r for r in await registry.execute_all([register("p1")]) if isinstance(r, PerdureError)]
        await registry.close()

    run(story())
