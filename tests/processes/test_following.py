"""A process runs in another OS process, and is waited for and followed here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure import Completed, Host, ProcessContext
from perdure.errors import CallerDeparted
from perdure.testing.conformance.kit import raw

WORKER = """
import asyncio, sys
from perdure import Host, ProcessContext

host = Host(sys.argv[1])

@host.process(recovery="rerunnable")
async def count(ctx: ProcessContext, to: int) -> int:
    for number in range(to):
        await ctx.emit("counted", number)
    return to

async def main():
    async with host:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

DEPARTS = """
import asyncio, sys
from perdure import Host

async def main():
    async with Host(sys.argv[1], work=False) as host:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await host.record_departure("outside", "gone home")

asyncio.run(main())
"""


@contextmanager
def program(script: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """The script in an OS process of its own; one line to its input lets it go on or end."""
    command = [sys.executable, "-c", script, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "open\n"
            yield run
            assert run.wait(timeout=30) == 0
        finally:
            run.kill()


def say(run: subprocess.Popen[str], word: str) -> None:
    assert run.stdin is not None
    run.stdin.write(f"{word}\n")
    run.stdin.flush()


def test_what_another_program_runs_is_followed_without_loss_or_repeat_and_its_end_is_awaited(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/work.db"

    async def story(run: subprocess.Popen[str]) -> None:
        host = Host(url, work=False)

        @host.process(recovery="rerunnable")
        async def count(ctx: ProcessContext, to: int) -> int:
            raise AssertionError("this host runs nothing")

        async with asyncio.timeout(60), host:
            started = await host.start(count, 300, id="p")
            followers = asyncio.gather(*(_followed(host, after) for after in (0, 0, 7)))
            waiters = asyncio.gather(*(started.outcome() for _ in range(20)))
            event = await host.driver.await_event("p", "counted", after_sequence=100)
            assert event.sequence == 101
            assert await followers == [list(range(1, 303)), list(range(1, 303)), list(range(8, 303))]
            assert await waiters == [Completed(raw(300))] * 20
        say(run, "end")

    with program(WORKER, url) as run:
        asyncio.run(story(run))


async def _followed(host: Host, after: int) -> list[int]:
    return [event.sequence async for event in host.get_handle("p").events(after=after)]


def test_a_departure_that_another_program_records_ends_the_waits_here(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/work.db"

    async def story(run: subprocess.Popen[str]) -> list[BaseException | object]:
        async with asyncio.timeout(60), Host(url, work=False) as host:
            outside = await host.register_external("call", id="outside")
            waiting = [
                asyncio.ensure_future(outside.outcome()),
                asyncio.ensure_future(host.driver.await_event("outside", "never")),
                asyncio.ensure_future(anext(outside.events())),
            ]
            say(run, "depart")
            return await asyncio.gather(*waiting, return_exceptions=True)

    with program(DEPARTS, url) as run:
        outcome, event, followed = asyncio.run(story(run))
    assert isinstance(outcome, CallerDeparted)
    assert isinstance(event, CallerDeparted)
    assert getattr(followed, "type", None) == "process.caller_departed"
