"""A folder of its own for each test, a database with one process in each state, and ways to run commands."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perdure import Host, ProcessContext
from perdure.cli.main import cli
from tests.cli.running import PROGRAM, Perdure, Start

SHOP = """
import asyncio
from dataclasses import dataclass
import perdure

host = perdure.Host("sqlite:///shop.db")
not_a_host = 3

@dataclass
class Order:
    sku: str
    cents: int

@host.process(recovery="rerunnable")
async def greet(ctx: perdure.ProcessContext, name: str) -> str:
    return f"hello {name}"

@host.process(recovery="rerunnable")
async def fulfil(ctx: perdure.ProcessContext, order: Order) -> str:
    return order.sku

@host.process(recovery="rerunnable")
async def tick(ctx: perdure.ProcessContext) -> int:
    return 1

@host.process(recovery="rerunnable")
async def sleep(ctx: perdure.ProcessContext, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"

@host.process(recovery="owner_bound")
async def once(ctx: perdure.ProcessContext, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "once"
"""

EVIL = "red \x1b[31m\r\nline \u202eodd\u202c \x9b2J \x7f end"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty but for shop.py, with no setting from outside."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    for name in ("PERDURE_URL", "PERDURE_DEBUG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """The log as it was before: a command sends it to its own stderr."""
    logger = logging.getLogger("perdure")
    before = (*logger.handlers,), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = list(before[0]), before[1], before[2]


@pytest.fixture
def perdure() -> Perdure:
    """Run a command in this process."""

    def run(*arguments: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, list(arguments), input=input)

    return run


@pytest.fixture
def start_process() -> Iterator[Start]:
    """Run a command as a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            **options,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def work_db(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a process in each state; its URL is also in PERDURE_URL."""
    url = f"sqlite:///{folder / 'work.db'}"
    asyncio.run(_fill(url))
    monkeypatch.setenv("PERDURE_URL", url)
    return url


async def _fill(url: str) -> None:
    host = Host(url, name="filler")

    @host.process(recovery="rerunnable")
    async def greet(ctx: ProcessContext, name: str) -> str:
        return f"hello {name}"

    @host.process(recovery="rerunnable")
    async def boom(ctx: ProcessContext, message: str) -> str:
        raise ValueError(message)

    async with host:
        done = await host.start(greet, "you", id="done-1")
        failed = await host.start(boom, EVIL, id="failed-1")
        for handle in (done, failed):
            await handle.outcome()
        await (await host.start(greet, "x", id="cancelled-1", delay=3600)).cancel("no longer wanted", by="ann")
        await (await host.start(greet, "x", id="abandoned-1", delay=3600)).abandon(by="bob", reason="gone")
        await host.start(greet, "x", id="delayed-1", delay=3600)
        await host.start(greet, "x", id="delayed-2", delay=3600)
        await host.register_external("letter", {"to": "you"}, id="departed-1")
        await host.record_departure("departed-1", "moved away")
        await host.register_external("letter", {"to": "me"}, id="external-1")
