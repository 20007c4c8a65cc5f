"""What a process says in another OS process is heard and its progress is seen here, also through a SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from perdure import Chunk, Handle, Progress
from tests.processes.program import Script
from tests.processes.scripts.serve_talker import host_that_talks


async def followed(handle: Handle[Any], *channels: str) -> list[Chunk]:
    return [chunk async for chunk in handle.follow(*channels, most_waiting=100_000)]


async def progress_of(handle: Handle[Any]) -> list[Progress]:
    return [progress async for progress in handle.follow_progress()]


def test_live_output_and_progress_of_a_thread_elsewhere_come_here_whole_and_end_with_the_process(
    tmp_path: Path,
) -> None:
    async def test(worker: Script) -> None:
        async with asyncio.timeout(60), host_that_talks(str(tmp_path / "work.db"), "test", work=False) as host:
            assert await asyncio.to_thread(worker.hear) == "serving"
            handle = await host.start(host.find_process("count"), 1_000, id="p")
            following = [followed(handle, "numbers"), followed(handle), followed(handle, "other")]
            (chunks, every, other), progress = await asyncio.gather(asyncio.gather(*following), progress_of(handle))

            assert await handle.result() == 1_000
            assert [chunk.value["number"] for chunk in chunks] == list(range(1_000))
            assert {(c.channel, c.attempt, c.fence, c.step, c.missed) for c in chunks} == {
                ("numbers", 1, 1, "say_each", 0)
            }
            assert every == chunks
            assert other == []
            done = [said.done for said in progress]
            assert done == sorted(done)
            assert progress[-1] == await handle.progress()
            assert (progress[-1].done, progress[-1].fraction) == (1_000, 1.0)
            assert await followed(handle) == []
            await asyncio.to_thread(worker.close)

    with Script("serve_talker.py", str(tmp_path / "work.db"), "worker", log=tmp_path / "errors.log") as worker:
        asyncio.run(test(worker))


def test_a_worker_killed_in_the_middle_is_heard_up_to_there_and_the_next_one_from_the_start(tmp_path: Path) -> None:
    database, log = str(tmp_path / "work.db"), tmp_path / "errors.log"

    async def test(first: Script) -> None:
        async with asyncio.timeout(60), host_that_talks(database, "test", work=False) as host:
            assert await asyncio.to_thread(first.hear) == "serving"
            handle = await host.start(host.find_process("talk"), 100, id="p")
            following, watching = asyncio.create_task(followed(handle)), asyncio.create_task(progress_of(handle))
            assert await asyncio.to_thread(first.hear) == "half"
            await heard_half(handle)
            os.kill(first.pid, signal.SIGKILL)
            with Script("serve_talker.py", database, "second", log=log) as second:
                assert await asyncio.to_thread(second.hear) == "serving"
                chunks, progress = await following, await watching
                await asyncio.to_thread(second.close)
            assert await handle.result() == "spoken by second"

            by_fence = {f: [c.value for c in chunks if c.fence == f] for f in (1, 2)}
            assert by_fence == {1: list(range(51)), 2: list(range(100))}
            assert [chunk.fence for chunk in chunks] == [1] * 51 + [2] * 100
            assert {(chunk.fence, chunk.attempt) for chunk in chunks} == {(1, 1), (2, 2)}
            last = progress[-1]
            assert (last.done, last.note, last.attempt, last.fence) == (100, "by second", 2, 2)
            fences = [said.fence for said in progress]
            assert fences == sorted(fences)

    async def heard_half(handle: Handle[Any]) -> None:
        """Until a follower that comes only now has heard all that was said so far."""
        async for chunk in handle.follow():
            if chunk.value == 50:
                return

    with Script("serve_talker.py", database, "first", log=log) as first:
        asyncio.run(test(first))
