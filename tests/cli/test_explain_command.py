"""`perdure explain` on rows whose definition or version the enrolled workers know, or don't."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from perdure import Host, ProcessContext
from perdure.model.registration import Definition, Registration
from perdure.transitions.commands import Register
from tests.cli.running import Perdure, Start, until

ROWS = {
    "unknown-1": Definition("python", "vanish"), "newer-1": Definition("python", "greet", 3),
    "older-1": Definition("python", "greet", 1), "engine-1": Definition("restate", "greet", 2),
    "known-1": Definition("python", "greet", 2),
}  # fmt: skip


@pytest.fixture
def rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A database with rows of several definitions, and a host that is not open yet and knows greet@2 only."""
    monkeypatch.setenv("PERDURE_URL", "sqlite:///work.db")

    async def fill() -> None:
        async with Host("sqlite:///work.db", work=False) as host:
            for id, definition in ROWS.items():
                registration = Registration(id=id, definition=definition, recovery="rerunnable", delay_ms=3_600_000)
                await host.registry.execute(Register(process_id=id, registration=registration))

    asyncio.run(fill())
    host = Host("sqlite:///work.db", name="web-1", commands=False)

    @host.process(recovery="rerunnable", version=2)
    async def greet(ctx: ProcessContext) -> str:
        return "hello"

    return host


@pytest.mark.parametrize(
    ("id", "instead", "advice"),
    [
        ("unknown-1", "of python they know greet", "start a worker that has python/vanish@1"),
        (
            "newer-1", "of greet they know version 2: version 3 is newer",
            "start a worker that has version 3 of greet",
        ),
        (
            "older-1", "of greet they know version 2: version 1 is older",
            "start a worker that still has version 1 of greet",
        ),
        ("engine-1", "they run python, none the engine restate", "start a worker with the engine restate"),
    ],
)  # fmt: skip
def test_it_says_what_the_row_waits_for_and_what_the_enrolled_workers_know(
    id: str, instead: str, advice: str, rows: Host, perdure: Perdure
) -> None:
    with rows.sync:
        result = perdure("explain", id)
        document = json.loads(perdure("explain", id, "--json").stdout)
    assert result.exit_code == 5
    nobody = f"it waits for a worker that knows {ROWS[id]}, and no enrolled worker does"
    assert result.stdout.splitlines() == [
        f"id\t{id}", "verdict\tunknown definition", f"because\t{nobody}", f"because\t{instead}",
        f"you can\t{advice}", f"you can\tperdure cancel {id}",
    ]  # fmt: skip
    assert (document["verdict"], document["because"]) == ("unknown_definition", [nobody, instead])


def test_a_version_that_a_worker_knows_is_not_unknown(rows: Host, perdure: Perdure) -> None:
    with rows.sync:
        result = perdure("explain", "known-1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (0, "delayed")


def test_a_worker_that_is_proved_dead_is_not_among_the_enrolled(perdure: Perdure, start_process: Start) -> None:
    def verdict() -> str:
        return str(json.loads(perdure("explain", "vanish-1", "--json", "--db", "shop.db").stdout)["verdict"])

    async def register() -> None:
        registration = Registration(id="vanish-1", definition=Definition("python", "vanish"), recovery="rerunnable")
        async with Host("sqlite:///shop.db", work=False) as host:
            await host.registry.execute(Register(process_id="vanish-1", registration=registration))

    asyncio.run(register())
    assert verdict() == "ready"
    worker = start_process("worker", "shop:host")
    until(lambda: verdict() == "unknown_definition")
    worker.kill()
    worker.wait(20)
    result = perdure("explain", "vanish-1", "--db", "shop.db")
    assert result.exit_code == 0
    assert "it waits for a worker that knows python/vanish@1, and none is enrolled" in result.stdout
