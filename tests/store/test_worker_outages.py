"""A worker through an outage of the disk: what it holds is ended when the disk has room again, and it can be closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from lab.disk import FailingDisk, full
from perdure.contract.ports import WorkerFault
from perdure.engines.python.context import ProcessContext
from perdure.errors import StoreFull
from perdure.host import Host
from perdure.model.events import Event
from perdure.stores.sqlite.store import SqliteRegistry


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    disk = FailingDisk("failing-under-a-worker")
    yield disk
    disk.unregister()


def no_room(file: str, call: str) -> apsw.Error | None:
    """For commits; what a checkpoint can't write stays in the log, and SQLite says nothing of it."""
    return full() if call == "write" and file.endswith("-wal") else None


def room(file: str, call: str) -> None:
    return None


class FaultsHeard:
    """A sink that keeps faults."""

    def __init__(self) -> None:
        self._faults: asyncio.Queue[WorkerFault] = asyncio.Queue()

    async def emit(self, event: Event) -> None:
        return

    def report(self, fault: WorkerFault) -> None:
        self._faults.put_nowait(fault)

    async def about(self, process_id: str | None) -> WorkerFault:
        """The next fault of this process."""
        while (fault := await self._faults.get()).process_id != process_id:
            pass
        return fault


def test_a_worker_writes_the_end_of_its_work_once_the_disk_has_room_again(tmp_path: Path, disk: FailingDisk) -> None:
    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        sink, may_end = FaultsHeard(), asyncio.Event()
        host = Host("sqlite:///work.db", registry=registry, sink=sink)
        entered = []

        @host.process(recovery="owner_bound")
        async def patient(ctx: ProcessContext) -> int:
            entered.append(ctx.process_id)
            await may_end.wait()
            return ctx.attempt

        async with asyncio.timeout(30), host:
            running = await host.start(patient, id="running")
            disk.fails = no_room
            with pytest.raises(StoreFull):
                await host.start(patient, id="refused")
            may_end.set()
            assert (await sink.about("running")).kind == "infrastructure"
            disk.fails = room
            assert await running.result() == 1
            assert await (await host.start(patient, id="refused")).result() == 1
        assert entered == ["running", "refused"]
        await registry.close()

    asyncio.run(story())


def test_a_host_on_a_full_disk_can_be_closed_and_leaves_no_thread(tmp_path: Path, disk: FailingDisk) -> None:
    before = {thread.name for thread in threading.enumerate()}

    async def story() -> None:
        registry = await SqliteRegistry.open(tmp_path / "work.db", vfs=disk.name)
        sink = FaultsHeard()
        host = Host("sqlite:///work.db", registry=registry, sink=sink)

        @host.process(recovery="rerunnable")
        async def quick(ctx: ProcessContext) -> int:
            return 1

        async with asyncio.timeout(30), host:
            assert await (await host.start(quick)).result() == 1
            disk.fails = no_room
        assert (await sink.about(None)).kind == "infrastructure"
        await registry.close()

    asyncio.run(story())
    assert {thread.name for thread in threading.enumerate()} == before
