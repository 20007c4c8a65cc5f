"""However a command is made to end, nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.host import Host
from perdure.model.outcomes import Abandoned, Cancelled
from tests.command.programs import (
    IGNORES_SIGTERM,
    IS_A_SUBREAPER,
    LEAVES_A_DAEMON,
    PYTHON,
    RUNS_AWAY,
    SLEEPS,
    Programs,
    events_of,
    failure_of,
    first_line,
    lines_of,
    open_host,
)


@pytest.mark.parametrize(
    ("code", "grace"),
    [
        (SLEEPS, 10.0),
        (IGNORES_SIGTERM, 0.2),
        (LEAVES_A_DAEMON + SLEEPS, 10.0),
        (LEAVES_A_DAEMON + IGNORES_SIGTERM, 0.2),
        (IS_A_SUBREAPER + LEAVES_A_DAEMON + IGNORES_SIGTERM, 0.2),
        (RUNS_AWAY, 0.1),
        (IGNORES_SIGTERM.replace("print", "import os\nos.fork()\nos.fork()\nprint"), 0.2),
    ],
    ids=[
        "sleeps",
        "ignores SIGTERM",
        "has a daemon",
        "has a daemon and ignores",
        "is a subreaper too",
        "runs away",
        "has children that ignore",
    ],
)
def test_a_cancelled_command_is_gone_with_all_its_descendants_when_its_end_is_written(code: str, grace: float) -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:
            handle = await host.command([*PYTHON, code], env=programs.env, grace=grace)
            await first_line(host, handle)
            assert programs.alive()
            await handle.cancel("enough", by="tester")
            assert await handle.outcome() == Cancelled("enough", "tester")
            assert programs.left() == set()

    asyncio.run(test())


def test_a_cancelled_command_may_clean_up_and_say_so() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
            await first_line(host, handle)
            await handle.cancel()
            assert await lines_of(handle) == ["ready", "bye"]
            assert (await events_of(handle, "exited"))[0]["code"] == "exit:0"
            assert await handle.status() == "cancelled"

    asyncio.run(test())


def test_a_stopped_command_can_be_cancelled() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("echo ready; kill -STOP $$; echo never")
            await first_line(host, handle)
            await handle.cancel()
            assert await handle.outcome() == Cancelled("cancelled")
            assert await lines_of(handle) == ["ready"]

    asyncio.run(test())


def test_what_a_command_leaves_behind_is_ended_when_it_has_ended() -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:
            handle = await host.command([*PYTHON, LEAVES_A_DAEMON], env=programs.env)
            assert (await first_line(host, handle)).startswith("daemon")
            assert programs.alive()
            assert (await handle.result()).exit_code == 0
            assert programs.left() == set()

    asyncio.run(test())


def test_what_a_command_leaves_behind_has_a_moment_to_end_by_itself() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.shell("(sleep 0.2; echo late) & echo early")
            assert await lines_of(handle) == ["early", "late"]
            assert (await handle.result()).exit_code == 0

    asyncio.run(test())


def test_a_grace_beyond_the_workers_own_is_cut_so_that_the_end_is_written_after_the_end() -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host(cancel_grace_ms=300) as host:
            handle = await host.command([*PYTHON, IGNORES_SIGTERM], env=programs.env, grace=60)
            await first_line(host, handle)
            await handle.cancel()
            assert await handle.outcome() == Cancelled("cancelled")
            assert programs.left() == set()

    asyncio.run(test())


def test_a_draining_worker_ends_its_commands_and_writes_them_abandoned(tmp_path: Path) -> None:
    async def test() -> None:
        programs = Programs()
        url = f"sqlite:///{tmp_path}/work.db"
        async with open_host(url) as host:
            handle = await host.command([*PYTHON, LEAVES_A_DAEMON + SLEEPS], env=programs.env)
            await first_line(host, handle)
            assert programs.alive()
            (drained,) = await host.close(grace=timedelta(0))
            assert (drained.process_id, drained.became) == (handle.id, "abandoned")
            assert programs.left() == set()
        async with Host(url, work=False) as host:
            outcome = await host.get_handle(handle.id).outcome()
            assert isinstance(outcome, Abandoned)
            assert outcome.evidence.writer == "owner_drain"

    asyncio.run(test())


@pytest.mark.parametrize("code", [SLEEPS, LEAVES_A_DAEMON + IGNORES_SIGTERM])
def test_a_command_whose_supervisor_is_killed_fails_and_is_gone(code: str) -> None:
    async def test() -> None:
        programs = Programs()
        async with open_host() as host:
            handle = await host.command([*PYTHON, code], env=programs.env)
            await first_line(host, handle)
            (started,) = await events_of(handle, "started")
            os.kill(started["supervisor_pid"], signal.SIGKILL)
            assert (await failure_of(handle))[0] == "supervisor_lost"
            assert programs.alive() == set()

    asyncio.run(test())


def test_signals_of_the_terminal_and_of_a_stopping_service_do_not_end_a_supervisor() -> None:
    async def test() -> None:
        async with open_host() as host:
            handle = await host.command([*PYTHON, SLEEPS])
            await first_line(host, handle)
            (started,) = await events_of(handle, "started")
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(started["supervisor_pid"], number)
            await handle.cancel()
            assert await handle.outcome() == Cancelled("cancelled")

    asyncio.run(test())
