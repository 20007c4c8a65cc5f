"""Commands that a process starts: children of its own, found again by replay, and ended with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure.engines.python.children import child_id
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.signals import Signal
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import InvalidOption, InvalidPayload, ProcessFailed
from perdure.host import Host
from perdure.hosting.handle import Handle
from perdure.model.outcomes import Cancelled
from perdure.model.waits import SignalWait
from tests.command.programs import PYTHON, SLEEPS, Programs, first_line, lines_of, open_host

go = Signal("go", int)


async def waits_for_signal(handle: Handle[Any]) -> bool:
    return any(isinstance(wait, SignalWait) for wait in (await handle.record()).state.waits)


def test_its_result_and_its_lines_are_those_of_a_command() -> None:
    async def test() -> None:
        async with open_host() as host:

            @host.process(recovery="rerunnable")
            async def work(ctx: ProcessContext) -> tuple[str, int]:
                command = await ctx.command([*PYTHON, "print('hello')"])
                return command.id, (await command.result()).stdout_lines

            id, lines = await (await host.start(work, id="p")).result()
            assert (id, lines) == (f"p:{Path(PYTHON[0]).name}", 1)
            record = await host.get_handle(id).record()
            assert (record.registration.parent, record.registration.recovery) == ("p", "owner_bound")
            assert await lines_of(host.get_handle(id)) == ["hello"]

    asyncio.run(test())


def test_a_plain_process_has_them_too_and_one_that_fails_says_how() -> None:
    async def test() -> None:
        async with open_host() as host:

            @host.process(recovery="rerunnable")
            def work(ctx: SyncContext) -> str | None:
                failing = ctx.command([*PYTHON, "raise SystemExit(3)"], key="fails", grace=1, max_lines=5)
                try:
                    ctx.result(failing)
                except ProcessFailed as error:
                    return f"{failing.id}: {error.outcome.error.code}"
                return None

            assert await (await host.start(work, id="p")).result() == f"{child_id('p', 'fails')}: exit:3"

    asyncio.run(test())


def test_a_replay_finds_the_command_that_was_started_and_starts_no_other(tmp_path: Path) -> None:
    url, count = f"sqlite:///{tmp_path}/work.db", tmp_path / "count"
    appends = f"open({str(count)!r}, 'a').write('.')"

    def define(host: Host) -> Any:
        @host.process(recovery="rerunnable", signals=[go])
        async def work(ctx: ProcessContext) -> int:
            command = await ctx.command([*PYTHON, appends])
            await command.result()
            return await ctx.wait(go) + (await command.result()).exit_code

        return work

    async def test() -> None:
        async with asyncio.timeout(60):
            async with Host(url, parking=0) as host:
                handle = await host.start(define(host), id="p")
                async for event in handle.events():
                    if event.type == "process.waiting" and await waits_for_signal(handle):
                        break
            host = Host(url)
            work = define(host)
            async with host:
                again = host.get_handle("p", work)
                await again.signal(go, 7)
                assert await again.result() == 7
        assert count.read_text() == "."

    asyncio.run(test())


def test_it_is_ended_with_the_process_that_started_it() -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:

            @host.process(recovery="rerunnable")
            async def work(ctx: ProcessContext) -> None:
                command = await ctx.command([*PYTHON, SLEEPS], env=programs.env, key="sleeps")
                await command.result()

            handle = await host.start(work, id="p")
            child = child_id("p", "sleeps")
            await host.driver.await_event("p", "child.started")
            await first_line(host, host.get_handle(child))
            await handle.cancel("enough")
            assert isinstance(await handle.outcome(), Cancelled)
            assert isinstance(await host.get_handle(child).outcome(), Cancelled)
            assert programs.left() == set()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("argv", "options", "raises"),
    [
        ("echo hello", {}, InvalidPayload),
        ([], {}, InvalidPayload),
        (["true"], {"cwd": "relative"}, InvalidOption),
        (["true"], {"evn": {}}, TypeError),
        (["true"], {"parent_end": "kill"}, InvalidOption),
    ],
)
def test_a_mistake_in_what_is_asked_for_starts_nothing(argv: Any, options: Any, raises: type[Exception]) -> None:
    async def test() -> None:
        async with open_host() as host:

            @host.process(recovery="rerunnable")
            async def work(ctx: ProcessContext) -> str:
                try:
                    await ctx.command(argv, **options)
                except raises as error:
                    return type(error).__name__
                return "started"

            assert await (await host.start(work, id="p")).result() == raises.__name__
            assert [event.type async for event in host.get_handle("p").events()] == [
                "process.started",
                "process.completed",
            ]

    asyncio.run(test())
