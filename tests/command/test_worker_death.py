"""A worker killed with SIGKILL leaves nothing of its commands running, and nobody runs them again."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from perdure.host import Host
from perdure.model.outcomes import Abandoned
from tests.command.programs import (
    IGNORES_SIGTERM,
    LEAVES_A_DAEMON,
    PYTHON,
    SLEEPS,
    Programs,
    events_of,
    first_line,
    open_host,
    until,
)
from tests.processes.program import Script

WORKER = str(Path(__file__).parent / "scripts" / "serve_commands.py")


@pytest.mark.parametrize(
    "code",
    [SLEEPS, IGNORES_SIGTERM, LEAVES_A_DAEMON + IGNORES_SIGTERM],
    ids=["sleeps", "ignores SIGTERM", "has a daemon and ignores"],
)
def test_no_program_outlives_a_killed_worker_and_none_stays_a_zombie(tmp_path: Path, code: str) -> None:
    async def test(worker: Script) -> None:
        programs = Programs()
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(worker.hear) == "serving"
            async with Host(f"sqlite:///{tmp_path}/work.db", work=False) as host:
                handle = await host.command([*PYTHON, code], env=programs.env, grace=0.3)
                await first_line(host, handle)
                assert programs.alive()
                (started,) = await events_of(handle, "started")
                programs.follow(started["supervisor_pid"])
                os.kill(worker.pid, signal.SIGKILL)
                await until(lambda: programs.left() == set())

    with Script(WORKER, f"{tmp_path}/work.db", log=tmp_path / "errors.log") as worker:
        asyncio.run(test(worker))


def test_the_command_of_a_killed_worker_is_not_run_again_and_ends_by_an_abandon_request(tmp_path: Path) -> None:
    async def test(worker: Script) -> None:
        programs = Programs()
        assert await asyncio.to_thread(worker.hear) == "serving"
        url = f"sqlite:///{tmp_path}/work.db"
        async with Host(url, work=False) as host:
            handle = await host.command([*PYTHON, SLEEPS], id="p", env=programs.env)
            await first_line(host, handle)
            programs.alive()
        os.kill(worker.pid, signal.SIGKILL)
        async with open_host(url) as other:
            handle = other.get_handle("p")
            await until(lambda: programs.left() == set())
            assert await handle.status() == "running"
            await handle.abandon(by="operator", reason="its worker was killed")
            outcome = await handle.outcome()
            assert isinstance(outcome, Abandoned)
            assert outcome.evidence.writer == "reconciled_request"
            assert len(await events_of(handle, "started")) == 1
            assert programs.left() == set()

    with Script(WORKER, f"{tmp_path}/work.db", log=tmp_path / "errors.log") as worker:
        asyncio.run(test(worker))


def test_nobody_takes_over_before_the_old_command_is_gone(tmp_path: Path) -> None:
    async def test(worker: Script) -> None:
        programs = Programs()
        assert await asyncio.to_thread(worker.hear) == "serving"
        url = f"sqlite:///{tmp_path}/work.db"
        async with Host(url, work=False) as host:
            handle = await host.command([*PYTHON, LEAVES_A_DAEMON + IGNORES_SIGTERM], id="p", env=programs.env, grace=3)
            await first_line(host, handle)
            await handle.abandon(by="operator", reason="its worker is about to be killed")
            assert programs.alive()
        os.kill(worker.pid, signal.SIGKILL)
        async with open_host(url) as other:
            outcome = await other.get_handle("p").outcome()
            assert programs.left() == set()
            assert isinstance(outcome, Abandoned)

    with Script(WORKER, f"{tmp_path}/work.db", log=tmp_path / "errors.log") as worker:
        asyncio.run(test(worker))


def test_a_fork_of_the_worker_that_holds_its_pipes_does_not_keep_the_command_alive(tmp_path: Path) -> None:
    async def test(worker: Script) -> None:
        programs = Programs()
        assert await asyncio.to_thread(worker.hear) == "serving"
        async with asyncio.timeout(60), Host(f"sqlite:///{tmp_path}/work.db", work=False) as host:
            handle = await host.command([*PYTHON, SLEEPS], env=programs.env)
            await first_line(host, handle)
            assert programs.alive()
            worker.tell("fork")
            _, forked = (await asyncio.to_thread(worker.hear)).split()
            try:
                os.kill(worker.pid, signal.SIGKILL)
                await until(lambda: programs.left() == set())
            finally:
                os.kill(int(forked), signal.SIGKILL)

    with Script(WORKER, f"{tmp_path}/work.db", log=tmp_path / "errors.log") as worker:
        asyncio.run(test(worker))
